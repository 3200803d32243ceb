//! Servers with TLS, and ports whose TLS the URL does not name.

use std::path::{Path, PathBuf};
use std::process::Command;

use test_servers::{Redis, Tls};

use super::super::RedisStore;
use super::errors::{answering, assert_error};
use super::{DEADLINE, heartbeat, next_update, refusal, trip};
use crate::store::StoreErrorKind::{Refused, Unreachable};
use crate::store::{Session, Update};

/// Writes the certificate of the authority into a file.
fn authority(tls: &Tls, folder: &Path) -> PathBuf {
    test_servers::install_ring();
    let file = folder.join("roots.pem");
    std::fs::write(&file, tls.ca_pem()).unwrap();
    file
}

async fn assert_works(store: &RedisStore) {
    let mut session = store.open_session("orders").await.unwrap();
    session.sync(&heartbeat(None)).await.unwrap();
    let tripped = trip(&mut session).await;
    let update = next_update(&mut session).await.unwrap();
    assert!(matches!(&update, Update::Record(record) if record.epoch == tripped.epoch), "{update:?}");
}

#[tokio::test]
async fn certificate_of_authority_in_file_is_accepted() {
    let (tls, folder) = (Tls::new(), tempfile::tempdir().unwrap());
    let roots = authority(&tls, folder.path());
    let server = Redis::start_tls(&tls);
    let store = RedisStore::open(&server.tcp_url()).unwrap();
    assert_error(&refusal(&store).await, Refused, "`RedisStore::root_certificates`");
    assert_works(&store.root_certificates(&roots).unwrap()).await;

    let node = Redis::start_cluster_tls(&tls);
    let store = RedisStore::cluster(&[&node.tcp_url()]).unwrap();
    assert_works(&store.root_certificates(&roots).unwrap()).await;
}

#[tokio::test]
async fn wrong_certificate_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let valid = Tls::new();
    let roots = authority(&valid, folder.path());
    for (tls, cause) in [
        (valid.clone().names(["redis.example.com"]), "not valid for name"),
        (valid.expired(), "expired"),
        (Tls::new(), "UnknownIssuer"),
    ] {
        let server = Redis::start_tls(&tls);
        let store = RedisStore::open(&server.tcp_url()).unwrap().root_certificates(&roots).unwrap();
        let error = refusal(&store).await;
        assert_error(&error, Refused, "the TLS handshake failed; check the host name, the certificates");
        let source = error.source.unwrap().to_string();
        assert!(source.contains(cause), "{source}");
    }
}

#[tokio::test]
async fn demanded_client_certificate_is_named() {
    let (tls, folder) = (Tls::new(), tempfile::tempdir().unwrap());
    let roots = authority(&tls, folder.path());
    let server = Redis::start_tls(&tls);
    server.command("CONFIG SET tls-auth-clients yes");
    let store = RedisStore::open(&server.tcp_url()).unwrap().root_certificates(roots).unwrap();
    assert_error(&refusal(&store).await, Refused, "set `tls-auth-clients no` in the server");
}

#[tokio::test]
async fn port_without_tls_is_named_within_the_timeout() {
    test_servers::install_ring();
    let server = Redis::start_tcp();
    // A server that answers without a password, and one that demands a password.
    for password in ["", "secret"] {
        server.command(&format!("CONFIG SET requirepass \"{password}\""));
        let url = server.tcp_url().replace("redis://", "rediss://:secret@");
        let store = RedisStore::open(&url).unwrap();
        let error = tokio::time::timeout(DEADLINE, refusal(&store)).await.expect("the attempt ends");
        assert_error(&error, Refused, "it answers without TLS; use a URL with `redis://`");
    }
}

#[tokio::test]
async fn other_answer_than_tls_is_refused() {
    test_servers::install_ring();
    // Redis answers so if the first message of TLS happens to have a line end.
    let plain = answering(b"-ERR unknown command\r\n").await;
    let store = RedisStore::open(&format!("rediss://:secret@{plain}")).unwrap();
    assert_error(&refusal(&store).await, Refused, "whether the port expects TLS");
}

#[tokio::test]
async fn port_with_tls_is_named_if_the_url_has_none() {
    let server = Redis::start_tls(&Tls::new());
    let store = RedisStore::open(&format!("redis://{}", server.address())).unwrap();
    let advice = "if the port expects TLS, use a URL with `rediss://`";
    assert_error(&refusal(&store).await, Unreachable, advice);
}

#[test]
fn unusable_root_certificates_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str| {
        let file = folder.path().join(name);
        std::fs::write(&file, content).unwrap();
        file
    };
    let empty = "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n";
    for (file, problem) in [
        (folder.path().join("missing.pem"), "missing.pem: No such file"),
        (file("empty.pem", ""), "empty.pem: it has no certificate; allowed is a file"),
        (file("broken.pem", empty), "broken.pem: "),
    ] {
        let store = RedisStore::open("rediss://host").unwrap();
        let error = store.root_certificates(file).unwrap_err().to_string();
        assert!(error.starts_with("`root_certificates` is ") && error.contains(problem), "{error}");
    }
    let plain = RedisStore::open("redis://:secret@host").unwrap();
    let error = plain.root_certificates("roots.pem").unwrap_err().to_string();
    assert!(error.contains("set for `redis://***@host`; allowed is URLs with `rediss://`"), "{error}");
}

const URL: &str = "REDIS_STORE_TEST_URL";

/// The variable concerns a process, so the test runs itself.
#[test]
fn certificates_of_variable_are_used() {
    let (tls, folder) = (Tls::new(), tempfile::tempdir().unwrap());
    let roots = authority(&tls, folder.path());
    let server = Redis::start_tls(&tls);
    for (roots, expected) in [(roots, "connected"), (folder.path().join("missing.pem"), "missing.pem")] {
        let mut test = Command::new(std::env::current_exe().unwrap());
        test.args(["--exact", "store::redis::tests::tls::process_with_variable", "--ignored", "--nocapture"]);
        let output = test.env(URL, server.tcp_url()).env("SSL_CERT_FILE", roots).output().unwrap();
        let printed = String::from_utf8_lossy(&output.stdout);
        assert!(printed.contains(expected), "{printed}");
    }
}

#[tokio::test]
#[ignore = "another test starts it as a process"]
async fn process_with_variable() {
    let Ok(url) = std::env::var(URL) else { return };
    test_servers::install_ring();
    match RedisStore::open(&url).unwrap().open_session("orders").await {
        Ok(_) => println!("connected"),
        Err(error) => println!("{:?} {} {:?}", error.kind, error.message, error.source),
    }
}
