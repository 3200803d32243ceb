//! What the examples and their tests share.

/// The gRPC client and server of `proto/echo.proto`.
#[cfg(feature = "clients")]
#[allow(missing_docs, unreachable_pub, clippy::pedantic, reason = "the code is generated")]
pub mod echo {
    tonic::include_proto!("echo");
}
