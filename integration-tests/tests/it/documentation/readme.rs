//! `README.md`: its program calls a server with TLS.
//!
//! The build script replaces the address in the program, and installs `ring`. The system's
//! certificates are those of `SSL_CERT_FILE`.

use std::path::Path;
use std::process::Command;
use std::{fs, str};

use test_servers::{Http, Tls};
use tokio::task::spawn_blocking;

/// Runs the program with the address of a server, on a system that trusts the authority of `tls`.
///
/// Returns what the program prints.
async fn output(test: &str, server: &Http, trusted: &Tls) -> String {
    let certificates = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("readme_{test}.pem"));
    fs::write(&certificates, trusted.ca_pem()).unwrap();
    let mut program = Command::new(env!("CARGO_BIN_EXE_readme"));
    // The environment may have a proxy.
    program.env_clear().env("README_URL", server.url()).env("SSL_CERT_FILE", certificates);
    let output = spawn_blocking(move || program.output().unwrap()).await.unwrap();
    assert!(output.status.success(), "{}", str::from_utf8(&output.stderr).unwrap());
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn readme_program_with_trusted_certificate_is_answered() {
    let tls = Tls::new();
    let server = Http::start_tls(&tls).await;
    assert_eq!(output("trusted", &server, &tls).await, "answered: 200 OK\n");
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn readme_program_with_unknown_issuer_fails_and_names_the_cause() {
    let server = Http::start_tls(&Tls::new()).await;
    let output = output("unknown_issuer", &server, &Tls::new()).await;
    assert!(output.starts_with("failed: call failed, classified as "), "{output}");
    assert!(output.contains("invalid peer certificate: UnknownIssuer"), "{output}");
    assert!(server.requests().is_empty());
}
