//! What the examples and their tests share.

use std::net::SocketAddr;

use axum::Router;
use tokio::net::TcpListener;

/// Serves a router on a loopback port that the system picks, until the runtime ends.
///
/// # Panics
///
/// If loopback cannot be bound, or the server fails.
pub async fn serve(router: Router) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("loopback can be bound");
    let address = listener.local_addr().expect("a bound listener has an address");
    tokio::spawn(async move { axum::serve(listener, router).await.expect("the server runs") });
    address
}

/// The gRPC client and server of `proto/echo.proto`.
#[cfg(feature = "clients")]
#[allow(missing_docs, unreachable_pub, clippy::pedantic, reason = "the code is generated")]
pub mod echo {
    tonic::include_proto!("echo");
}

#[cfg(feature = "clients")]
pub mod misbehave;

/// Compiles and runs the README's example.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
