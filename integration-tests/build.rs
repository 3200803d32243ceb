//! Generates the gRPC client and server from the example's `echo.proto`. `protoc` is not needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=../examples/tonic/proto");
    let descriptors = protox::compile(["echo.proto"], ["../examples/tonic/proto"])?;
    // With default stubs, a test server implements only the methods that it needs.
    tonic_prost_build::configure().generate_default_stubs(true).compile_fds(descriptors)?;
    Ok(())
}
