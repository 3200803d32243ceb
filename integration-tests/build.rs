//! Generates the gRPC client and server from the example's `echo.proto`, for which `protoc` is not
//! needed. Prepares the guides that create clients of reqwest for their tests.

use std::error::Error;
use std::path::Path;
use std::{env, fs};

/// The pages with blocks that create a client of reqwest and run.
const PAGES: [&str; 4] =
    ["../README.md", "../docs/compile-errors.md", "../docs/fallbacks.md", "../docs/getting-started.md"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=../examples/tonic/proto");
    let descriptors = protox::compile(["echo.proto"], ["../examples/tonic/proto"])?;
    // With default stubs, a test server implements only the methods that it needs.
    tonic_prost_build::configure().generate_default_stubs(true).compile_fds(descriptors)?;

    let folder = env::var("OUT_DIR")?;
    for page in PAGES {
        println!("cargo::rerun-if-changed={page}");
        let text = with_ring(&fs::read_to_string(page)?).map_err(|error| format!("{page}: {error}"))?;
        let name = Path::new(page).file_name().ok_or("a page has a name")?;
        fs::write(Path::new(&folder).join(name), text)?;
    }
    Ok(())
}

/// Adds a hidden first line to the `main` of each Rust block that creates a client of reqwest.
///
/// A user's reqwest has its default features and needs no such line. The workspace's reqwest has no
/// provider of cryptography.
fn with_ring(page: &str) -> Result<String, &'static str> {
    let mut text = String::new();
    let mut rest = page;
    while let Some(start) = rest.find("\n```rust\n") {
        let end = rest[start..].find("\n```\n").ok_or("a block has no end")? + start;
        let (block, after) = rest.split_at(end);
        let creates_client = block.contains("Client::new()") || block.contains("Client::builder()");
        // Without a `main`, a block only defines items.
        match block.find("fn main()").filter(|_| creates_client) {
            Some(main) => {
                let body = block[main..].find("{\n").ok_or("a `main` has no body")? + main + 2;
                text.push_str(&block[..body]);
                text.push_str("# test_servers::install_ring();\n");
                text.push_str(&block[body..]);
            }
            None => text.push_str(block),
        }
        rest = after;
    }
    text.push_str(rest);
    Ok(text)
}
