//! What the integration tests share.

use std::net::SocketAddr;
use std::process::{Command, Output};

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

/// Runs an example from a test, as its users do, and waits for its end.
///
/// # Panics
///
/// If it was not built: a run of one test alone builds no example.
pub fn run_example(name: &str, arguments: &[&str]) -> Output {
    // Cargo names the path of no example to a test; both lie under the profile's folder.
    let this = std::env::current_exe().expect("a test knows where it is");
    let mut program = this.ancestors().nth(2).expect("it lies in `deps`").join("examples").join(name);
    program.set_extension(std::env::consts::EXE_EXTENSION);
    Command::new(&program).args(arguments).output().unwrap_or_else(|error| {
        panic!("{error}: {} is built by `cargo build --example {name}`", program.display())
    })
}

/// What an example prints that is run from a test and succeeds.
///
/// # Panics
///
/// See [`run_example`]; and if it fails.
pub fn text_of_example(name: &str) -> String {
    let output = run_example(name, &[]);
    let text = String::from_utf8(output.stdout).expect("it prints text");
    assert!(output.status.success(), "{text}");
    text
}

/// The gRPC client and server of `examples/proto/echo.proto`.
#[allow(missing_docs, unreachable_pub, clippy::pedantic, reason = "the code is generated")]
pub mod echo {
    tonic::include_proto!("echo");
}

/// Compiles and runs the README's example.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;

/// Runs its programs.
#[cfg(doctest)]
#[doc = include_str!("../../docs/errors.md")]
struct Errors;

/// Compiles its configurations.
#[cfg(doctest)]
#[doc = include_str!("../../docs/coming-from-elsewhere.md")]
struct ComingFromElsewhere;
