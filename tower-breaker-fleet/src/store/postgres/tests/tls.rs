//! TLS, to a proxy that encrypts in front of the shared server.

use std::path::Path;
use std::sync::Arc;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio_rustls::TlsAcceptor;

use super::server::shared;
use super::{connect, connection_error, vote};
use crate::store::StoreErrorKind::Refused;
use crate::store::postgres::PostgresStore;

/// Answers the request for TLS as the server does, and forwards to the server.
async fn serve(mut client: TcpStream, tls: Option<TlsAcceptor>, socket: &Path) -> std::io::Result<()> {
    let mut server = UnixStream::connect(socket).await?;
    let mut request = [0; 8];
    client.read_exact(&mut request).await?;
    let Some(tls) = tls else {
        client.write_all(b"N").await?;
        copy_bidirectional(&mut client, &mut server).await?;
        return Ok(());
    };
    client.write_all(b"S").await?;
    copy_bidirectional(&mut tls.accept(client).await?, &mut server).await?;
    Ok(())
}

/// Starts a proxy, and returns its port. It ends with the runtime of the test.
async fn proxy(tls: Option<TlsAcceptor>, socket: &Path) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let socket = socket.to_owned();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let (tls, socket) = (tls.clone(), socket.clone());
            tokio::spawn(async move { serve(client, tls, &socket).await });
        }
    });
    port
}

fn acceptor(key: &CertifiedKey<rcgen::KeyPair>) -> TlsAcceptor {
    let private = PrivateKeyDer::try_from(key.signing_key.serialize_der()).unwrap();
    let config = ServerConfig::builder().with_no_client_auth();
    TlsAcceptor::from(Arc::new(config.with_single_cert(vec![key.cert.der().clone()], private).unwrap()))
}

#[tokio::test]
async fn connection_is_encrypted_and_certificate_is_verified() {
    let server = shared().await;
    test_servers::install_ring();
    let key = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let roots = folder.path().join("roots.pem");
    std::fs::write(&roots, key.cert.pem()).unwrap();
    let port = proxy(Some(acceptor(&key)), &server.socket()).await;
    let url = |host: &str| format!("postgresql://postgres:secret@{host}:{port}/postgres?sslmode=require");

    let store = PostgresStore::open(&url("localhost")).unwrap();
    let error = connection_error(&store).await;
    assert_eq!(error.kind, Refused);
    assert!(
        error.message.contains("TLS handshake") && error.message.contains("root_cert"),
        "{}",
        error.message
    );
    let store = store.listen_at(&url("localhost")).unwrap().root_certificates(&roots).unwrap();
    connect(&store, "encrypted").await.sync(&vote("search")).await.unwrap();

    let other = PostgresStore::open(&url("127.0.0.1")).unwrap().root_certificates(&roots).unwrap();
    let error = connection_error(&other).await;
    assert!(error.message.contains("valid for this host"), "{}", error.message);
}

#[tokio::test]
async fn server_without_tls_is_refused_only_if_required() {
    let server = shared().await;
    test_servers::install_ring();
    let port = proxy(None, &server.socket()).await;
    let url = format!("postgresql://postgres:secret@127.0.0.1:{port}/postgres");
    connect(&PostgresStore::open(&url).unwrap(), "plain").await;
    let error = connection_error(&PostgresStore::open(&format!("{url}?sslmode=require")).unwrap()).await;
    assert_eq!(error.kind, Refused);
    assert!(error.message.contains("server does not support TLS"), "{}", error.message);
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
