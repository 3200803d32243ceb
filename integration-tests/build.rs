//! Generates the gRPC client and server from the example's `echo.proto`, for which `protoc` is not
//! needed. Prepares the programs of the README and of the guides that create clients of reqwest or
//! call databases.

use std::error::Error;
use std::path::Path;
use std::{env, fs};

/// The guides with blocks that create a client of reqwest and run.
const GUIDES: [&str; 3] = ["compile-errors.md", "fallbacks.md", "getting-started.md"];

/// The address in the README's program.
const README_URL: &str = "\"https://api.example.com/\"";

/// The guide whose blocks call PostgreSQL or Redis.
const DATABASES: &str = "databases.md";

/// The addresses in the blocks of that guide, and the servers that replace them.
const SERVERS: [(&str, &str); 2] =
    [("\"postgresql://postgres:secret@localhost/postgres\"", "Postgres"), ("\"redis://localhost\"", "Redis")];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=../examples/tonic/proto");
    let descriptors = protox::compile(["echo.proto"], ["../examples/tonic/proto"])?;
    // With default stubs, a test server implements only the methods that it needs.
    tonic_prost_build::configure().generate_default_stubs(true).compile_fds(descriptors)?;

    let folder = env::var("OUT_DIR")?;
    let folder = Path::new(&folder);
    for guide in GUIDES {
        let page = read(&format!("../docs/{guide}"))?;
        fs::write(folder.join(guide), guide_with_ring(&page).map_err(|error| format!("{guide}: {error}"))?)?;
    }
    let page = read(&format!("../docs/{DATABASES}"))?;
    fs::write(folder.join(DATABASES), map_blocks(&page, start_server)?)?;
    let program = readme_program(&read("../README.md")?).map_err(|error| format!("README.md: {error}"))?;
    fs::write(folder.join("readme.rs"), program)?;
    Ok(())
}

/// Reads a page, and runs this script again if the page changes.
fn read(page: &str) -> Result<String, String> {
    println!("cargo::rerun-if-changed={page}");
    fs::read_to_string(page).map_err(|error| format!("{page}: {error}"))
}

/// Adds a hidden line to the `main` of each Rust block that creates a client of reqwest.
fn guide_with_ring(page: &str) -> Result<String, &'static str> {
    map_blocks(page, |block| {
        let creates_client = block.contains("Client::new()") || block.contains("Client::builder()");
        // Without a `main`, a block only defines items.
        if creates_client && block.contains("fn main()") {
            install_ring(block, "# ")
        } else {
            Ok(block.to_owned())
        }
    })
}

/// Starts a server in hidden lines of the `main` of a block, and replaces the address.
fn start_server(block: &str) -> Result<String, &'static str> {
    let mut servers = SERVERS.iter().filter(|(address, _)| block.contains(address));
    let (Some((address, server)), None) = (servers.next(), servers.next()) else {
        return Err("a block has not one address");
    };
    let start = format!("# let server = test_servers::{server}::start();\n# let server_url = server.url();");
    Ok(prepend_to_main(block, &start)?.replace(address, "server_url.as_str()"))
}

/// Applies a function to each Rust block of a page.
fn map_blocks(
    page: &str,
    map: impl Fn(&str) -> Result<String, &'static str>,
) -> Result<String, &'static str> {
    let mut text = String::new();
    let mut rest = page;
    while let Some(start) = rest.find("\n```rust\n") {
        let end = rest[start..].find("\n```\n").ok_or("a block has no end")? + start;
        text.push_str(&rest[..start]);
        text.push_str(&map(&rest[start..end])?);
        rest = &rest[end..];
    }
    text.push_str(rest);
    Ok(text)
}

/// Returns the program of the README, with the address in the environment variable `README_URL`.
fn readme_program(page: &str) -> Result<String, &'static str> {
    let (_, rest) = page.split_once("\n```rust\n").ok_or("the program is missing")?;
    let (program, rest) = rest.split_once("\n```\n").ok_or("the program has no end")?;
    if rest.contains("\n```rust") {
        return Err("only the first program has a test");
    }
    if !program.contains(README_URL) {
        return Err("the program has another address");
    }
    Ok(install_ring(program, "")?.replace(README_URL, "std::env::var(\"README_URL\")?"))
}

/// Installs a provider of cryptography in the first line of a program.
///
/// A user's reqwest has its default features, and needs no such line. The workspace's reqwest has
/// no provider of cryptography.
fn install_ring(program: &str, prefix: &str) -> Result<String, &'static str> {
    prepend_to_main(program, &format!("{prefix}test_servers::install_ring();"))
}

/// Adds a first line to the `main` of a program.
fn prepend_to_main(program: &str, line: &str) -> Result<String, &'static str> {
    let main = program.find("fn main()").ok_or("a program has no `main`")?;
    let body = program[main..].find("{\n").ok_or("a `main` has no body")? + main + 2;
    Ok(format!("{}{line}\n{}", &program[..body], &program[body..]))
}
