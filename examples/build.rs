//! Generates the gRPC client and server of `proto/echo.proto`, without a `protoc` on the machine.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    tonic_prost_build::configure().compile_fds(protox::compile(["proto/echo.proto"], ["proto"])?)?;
    Ok(())
}
