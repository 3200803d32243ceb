//! Generates the gRPC client and server of `proto/echo.proto`, without a `protoc` on the machine.

fn main() {
    println!("cargo::rerun-if-changed=proto");
    #[cfg(feature = "clients")]
    generate().expect("the code is generated");
}

#[cfg(feature = "clients")]
fn generate() -> Result<(), Box<dyn std::error::Error>> {
    tonic_prost_build::configure().compile_fds(protox::compile(["proto/echo.proto"], ["proto"])?)?;
    Ok(())
}
