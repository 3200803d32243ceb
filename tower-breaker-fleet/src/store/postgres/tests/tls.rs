//! TLS, to a server of its own.

use std::path::{Path, PathBuf};

use test_servers::{Postgres, Tls};

use super::server::Admin;
use super::{connect, connection_error, update, vote};
use crate::store::StoreErrorKind::Refused;
use crate::store::postgres::PostgresStore;

/// Writes the certificate of the authority into a file.
fn authority(tls: &Tls, folder: &Path) -> PathBuf {
    test_servers::install_ring();
    let file = folder.join("roots.pem");
    std::fs::write(&file, tls.ca_pem()).unwrap();
    file
}

fn open(server: &Postgres, parameters: &str) -> PostgresStore {
    PostgresStore::open(&format!("{}{parameters}", server.url_at(server.address()))).unwrap()
}

async fn assert_refused(store: &PostgresStore, part: &str) {
    let error = connection_error(store).await;
    assert_eq!(error.kind, Refused, "{}", error.message);
    assert!(error.message.contains(part), "{}", error.message);
}

#[tokio::test]
async fn certificate_of_authority_in_file_is_accepted() {
    let (tls, folder) = (Tls::new(), tempfile::tempdir().unwrap());
    let roots = authority(&tls, folder.path());
    let server = Postgres::start_tls(&tls);
    for parameters in ["?sslmode=require", ""] {
        let store = open(&server, parameters);
        assert_refused(&store, "`PostgresStore::root_certificates` has its root").await;
        let store = store.listen_at(&server.url_at(server.address())).unwrap();
        let store = store.root_certificates(&roots).unwrap();
        store.migrate().await.unwrap();
        let mut session = connect(&store, "encrypted").await;
        session.sync(&vote(parameters)).await.unwrap();
        update(&mut *session).await.unwrap();
    }
    let encrypted = "SELECT count(*) FROM pg_stat_ssl WHERE ssl";
    let store = open(&server, "").root_certificates(&roots).unwrap();
    let _session = connect(&store, "encrypted").await;
    assert_eq!(Admin::connect(&server.url()).await.number(encrypted).await, 1);
}

#[tokio::test]
async fn wrong_certificate_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let valid = Tls::new();
    let roots = authority(&valid, folder.path());
    for (tls, cause) in [
        (valid.clone().names(["db.example.com"]), "not valid for name"),
        (valid.expired(), "expired"),
        (Tls::new(), "UnknownIssuer"),
    ] {
        let server = Postgres::start_tls(&tls);
        let store = open(&server, "").root_certificates(&roots).unwrap();
        assert_refused(&store, cause).await;
        assert_refused(&store, "check that the certificate is valid for this host").await;
    }
}

#[tokio::test]
async fn server_without_tls_is_refused_only_if_required() {
    test_servers::install_ring();
    let server = Postgres::start_tcp_with(&[]);
    open(&server, "").migrate().await.unwrap();
    connect(&open(&server, ""), "plain").await;
    let step = "does not support TLS; enable it in the server (`ssl = on`), or remove `sslmode`";
    assert_refused(&open(&server, "?sslmode=require"), step).await;
}

#[tokio::test]
async fn demanded_tls_is_named_if_the_url_forbids_it() {
    let (tls, folder) = (Tls::new(), tempfile::tempdir().unwrap());
    let roots = authority(&tls, folder.path());
    let server = Postgres::start_tls(&tls);
    // Later lines do not count.
    let rules = server.socket().with_file_name("data").join("pg_hba.conf");
    let text = format!(
        "hostssl all all all scram-sha-256\nhost all all all reject\n{}",
        std::fs::read_to_string(&rules).unwrap()
    );
    std::fs::write(&rules, text).unwrap();
    let mut admin = Admin::connect(&server.url()).await;
    admin.run("SELECT pg_reload_conf()").await;
    let store = open(&server, "").root_certificates(roots).unwrap();
    store.migrate().await.unwrap();
    assert_refused(&open(&server, "?sslmode=disable"), "remove `sslmode=disable` from the URL").await;
}

#[test]
fn unusable_file_of_roots_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let (missing, empty) = (folder.path().join("missing.pem"), folder.path().join("empty.pem"));
    std::fs::write(&empty, "").unwrap();
    for (file, problem) in
        [(&missing, "missing.pem: "), (&empty, "empty.pem: it has no certificate; allowed is a file")]
    {
        let error = PostgresStore::open("postgresql://db").unwrap().root_certificates(file).unwrap_err();
        assert!(error.to_string().contains(problem), "{error}");
    }
}
