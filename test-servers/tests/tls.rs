//! Checks TLS of the servers with a client of rustls.

use std::io::{self, ErrorKind};
use std::sync::Arc;

use rustls::AlertDescription::{
    CertificateRequired, HandshakeFailure, InternalError, NoApplicationProtocol, ProtocolVersion,
};
use rustls::CertificateError::{ExpiredContext, NotValidForNameContext, NotValidYetContext, UnknownIssuer};
use rustls::crypto::ring;
use rustls::pki_types::ServerName;
use rustls::version::{TLS12, TLS13};
use rustls::{ALL_VERSIONS, ClientConfig, Error, InvalidMessage, RootCertStore, SupportedProtocolVersion};
use test_servers::{Action, Grpc, Handshake, Http, Tls};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

type Versions = &'static [&'static SupportedProtocolVersion];
static TLS12_ONLY: [&SupportedProtocolVersion; 1] = [&TLS12];
static TLS13_ONLY: [&SupportedProtocolVersion; 1] = [&TLS13];

/// Returns a client that trusts an authority and offers HTTP/1.1 and HTTP/2.
fn client(tls: &Tls, versions: Versions) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(tls.ca_der()).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config
}

/// Connects under the name `localhost`.
async fn connect<S: Clone>(
    server: &test_servers::ScriptedServer<S>,
    config: ClientConfig,
) -> io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(server.address()).await?;
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost").unwrap(), stream).await
}

/// Returns the error of a handshake.
async fn handshake_error(tls: Tls, versions: Versions) -> io::Error {
    let server = Http::start_tls(&tls).await;
    connect(&server, client(&tls, versions)).await.expect_err("the handshake should fail")
}

/// Returns rustls' error from an I/O error.
fn reason(error: &io::Error) -> Option<&Error> {
    error.get_ref()?.downcast_ref()
}

const GET: &[u8] = b"GET / HTTP/1.1\r\n\r\n";

/// Sends a request, and reads until the connection ends.
async fn exchange(stream: &mut TlsStream<TcpStream>) -> io::Result<String> {
    stream.write_all(GET).await?;
    let mut response = String::new();
    stream.read_to_string(&mut response).await?;
    Ok(response)
}

#[tokio::test]
async fn tls_server_answers_trusting_client_in_each_version() {
    for versions in [&TLS12_ONLY, &TLS13_ONLY] {
        let tls = Tls::new();
        let server = Http::start_tls(&tls).await;
        server.set_default(Action::status(200).body("ok").then_close());
        let mut stream = connect(&server, client(&tls, versions)).await.unwrap();
        assert_eq!(stream.get_ref().1.protocol_version(), Some(versions[0].version));
        assert!(exchange(&mut stream).await.unwrap().starts_with("HTTP/1.1 200 OK"));
        assert_eq!((server.connections(), server.requests().len()), (1, 1));
    }
}

#[tokio::test]
async fn alpn_chooses_protocol_of_server() {
    let tls = Tls::new();
    let http = connect(&Http::start_tls(&tls).await, client(&tls, ALL_VERSIONS)).await.unwrap();
    assert_eq!(http.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    let grpc = connect(&Grpc::start_tls(&tls).await, client(&tls, ALL_VERSIONS)).await.unwrap();
    assert_eq!(grpc.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let error = handshake_error(tls.alpn(["other"]), ALL_VERSIONS).await;
    assert_eq!(reason(&error), Some(&Error::AlertReceived(NoApplicationProtocol)));
}

#[tokio::test]
async fn invalid_certificate_is_rejected_by_client() {
    let tls = Tls::new();
    let server = Http::start_tls(&Tls::new()).await;
    let error = connect(&server, client(&tls, ALL_VERSIONS)).await.unwrap_err();
    assert_eq!(reason(&error), Some(&Error::InvalidCertificate(UnknownIssuer)));

    let error = handshake_error(tls.clone().expired(), ALL_VERSIONS).await;
    assert!(matches!(reason(&error), Some(Error::InvalidCertificate(ExpiredContext { .. }))), "{error}");
    let error = handshake_error(tls.clone().not_yet_valid(), ALL_VERSIONS).await;
    assert!(matches!(reason(&error), Some(Error::InvalidCertificate(NotValidYetContext { .. }))), "{error}");
    let error = handshake_error(tls.names(["other.example"]), ALL_VERSIONS).await;
    assert!(
        matches!(reason(&error), Some(Error::InvalidCertificate(NotValidForNameContext { .. }))),
        "{error}"
    );
}

#[tokio::test]
async fn handshake_without_common_ground_ends_with_alert() {
    for (tls, versions, alert) in [
        (Tls::new().only_tls12(), &TLS13_ONLY[..], ProtocolVersion),
        (Tls::new().only_tls13(), &TLS12_ONLY[..], ProtocolVersion),
        (Tls::new().without_common_cipher(), ALL_VERSIONS, HandshakeFailure),
    ] {
        let error = handshake_error(tls, versions).await;
        assert_eq!(reason(&error), Some(&Error::AlertReceived(alert)));
    }
}

#[tokio::test]
async fn missing_client_certificate_ends_with_alert() {
    let tls = Tls::new().demand_client_certificate();
    let error = handshake_error(tls.clone(), &TLS12_ONLY).await;
    assert_eq!(reason(&error), Some(&Error::AlertReceived(CertificateRequired)));
    // In TLS 1.3 the client's handshake is complete before the server reads the certificate.
    let server = Http::start_tls(&tls).await;
    let mut stream = connect(&server, client(&tls, &TLS13_ONLY)).await.unwrap();
    let error = exchange(&mut stream).await.unwrap_err();
    assert_eq!(reason(&error), Some(&Error::AlertReceived(CertificateRequired)));
    assert!(server.requests().is_empty());
}

#[tokio::test]
async fn scripted_handshakes_fail_in_order_and_then_complete() {
    let tls = Tls::new();
    let server = Http::start_tls(&tls).await;
    server.set_default(Action::status(200).then_close());
    tls.handshakes([Handshake::Close, Handshake::Reset, Handshake::Alert(80), Handshake::PlainHttp]);
    let connect = || connect(&server, client(&tls, ALL_VERSIONS));
    assert_eq!(connect().await.unwrap_err().kind(), ErrorKind::UnexpectedEof);
    assert_eq!(connect().await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(reason(&connect().await.unwrap_err()), Some(&Error::AlertReceived(InternalError)));
    let error = connect().await.unwrap_err();
    assert_eq!(reason(&error), Some(&Error::InvalidMessage(InvalidMessage::InvalidContentType)));
    exchange(&mut connect().await.unwrap()).await.unwrap();
    assert_eq!((server.connections(), server.requests().len()), (5, 1));
}

#[tokio::test(start_paused = true)]
async fn stalled_handshake_never_answers() {
    let tls = Tls::new();
    let server = Http::start_tls(&tls).await;
    tls.handshakes([Handshake::Stall]);
    let connecting = connect(&server, client(&tls, ALL_VERSIONS));
    timeout(std::time::Duration::from_secs(60), connecting).await.unwrap_err();
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn connection_ends_after_handshake_as_scripted() {
    let tls = Tls::new();
    for action in [Action::ResetOnAccept, Action::ResetBeforeRequest, Action::ResetAfterRequest] {
        let server = Http::start_tls(&tls).await;
        server.script([action.clone()]);
        let mut stream = connect(&server, client(&tls, ALL_VERSIONS)).await.unwrap();
        let error = exchange(&mut stream).await.unwrap_err();
        let kinds = [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
        assert!(kinds.contains(&error.kind()), "{action:?}: {error:?}");
        assert_eq!(server.remaining(), 0);
    }
}

#[tokio::test]
async fn close_without_notify_is_unexpected_eof() {
    for (tls, kind) in
        [(Tls::new(), None), (Tls::new().without_close_notify(), Some(ErrorKind::UnexpectedEof))]
    {
        let server = Http::start_tls(&tls).await;
        server.set_default(Action::status(200).then_close());
        let mut stream = connect(&server, client(&tls, ALL_VERSIONS)).await.unwrap();
        assert_eq!(exchange(&mut stream).await.err().map(|error| error.kind()), kind);
    }
}

#[tokio::test]
async fn plain_request_to_tls_port_is_answered_with_alert() {
    let server = Http::start_tls(&Tls::new()).await;
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    stream.write_all(GET).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    // The type of an alert record.
    assert_eq!(answer.first(), Some(&21));
    assert!(server.requests().is_empty());
}
