//! Generates the gRPC client and server of the example's `echo.proto`, without a `protoc` on the
//! machine.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=../examples/tonic/proto");
    let files = protox::compile(["echo.proto"], ["../examples/tonic/proto"])?;
    // A server has the methods that it is written for, and not a type for each of the others.
    tonic_prost_build::configure().generate_default_stubs(true).compile_fds(files)?;
    Ok(())
}
