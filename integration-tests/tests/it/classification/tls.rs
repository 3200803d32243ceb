//! TLS failures over reqwest, hyper-util and tonic. The situations and their verdicts are those of
//! `TABLES.md`, section "TLS".

use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Uri};
use http_body_util::{BodyExt, Full};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::rt::TokioIo;
use integration_tests::echo::echo_client::EchoClient;
use integration_tests::{TIMEOUT, reqwest_client, words};
use reqwest::{Certificate, Method};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use test_servers::{Action, Grpc, Handshake, Http, Reply, Tls, install_ring};
use tokio::net::TcpStream;
use tonic::transport::ClientTlsConfig;
use tower::{BoxError, ServiceBuilder, ServiceExt, service_fn};
use tower_fault_classify::{FaultClassifyLayer, Retryable, classify_error};

use super::hyper_util_client::client_with;
use super::tonic_channel::endpoint;
use super::{INVALID_RESPONSE, SHORT, Table, axes, debug_chain, expect_error, verdict};

/// A server and a client that cause a situation.
struct Setup {
    tls: Tls,
    /// The client trusts the server's authority.
    trusted: bool,
    /// The handshake of each connection.
    handshake: Handshake,
    action: Action,
    reply: Reply,
    versions: &'static [&'static SupportedProtocolVersion],
    scheme: &'static str,
    connect_timeout: Duration,
    timeout: Duration,
    /// Whether a gRPC client can be in this situation.
    grpc: bool,
}

impl Setup {
    fn new() -> Self {
        Self {
            tls: Tls::new(),
            trusted: true,
            handshake: Handshake::Complete,
            action: Action::status(200),
            reply: Reply::ok("ok"),
            versions: rustls::ALL_VERSIONS,
            scheme: "https",
            connect_timeout: TIMEOUT,
            timeout: TIMEOUT,
            grpc: true,
        }
    }

    fn with_tls(tls: Tls) -> Self {
        Self { tls, ..Self::new() }
    }

    fn with_handshake(handshake: Handshake) -> Self {
        Self { handshake, ..Self::new() }
    }

    /// Sets what the servers do with a request.
    fn with_answer(action: Action, reply: Reply) -> Self {
        Self { action, reply, ..Self::new() }
    }

    /// Scripts the handshakes of more connections than a client opens by itself.
    fn script(&self) {
        self.tls.handshakes(vec![self.handshake.clone(); 4]);
    }
}

static ONLY_TLS12: [&SupportedProtocolVersion; 1] = [&TLS12];
static ONLY_TLS13: [&SupportedProtocolVersion; 1] = [&TLS13];

/// Returns the ways to cause a situation of `TABLES.md`.
fn setups(situation: &str) -> Vec<Setup> {
    match situation {
        "the issuer of the server's certificate is unknown" => vec![Setup { trusted: false, ..Setup::new() }],
        "the server's certificate has expired" => vec![Setup::with_tls(Tls::new().expired())],
        "the server's certificate is not valid yet" => vec![Setup::with_tls(Tls::new().not_yet_valid())],
        "the server's certificate is for another name" => {
            vec![Setup::with_tls(Tls::new().names(["other.example"]))]
        }
        "client and server have no TLS version in common" => vec![
            Setup { versions: &ONLY_TLS12, grpc: false, ..Setup::with_tls(Tls::new().only_tls13()) },
            Setup { versions: &ONLY_TLS13, grpc: false, ..Setup::with_tls(Tls::new().only_tls12()) },
            // What such a server sends: tonic has no setting for versions.
            Setup::with_handshake(Handshake::Alert(70)),
        ],
        "client and server have no cipher suite in common" => {
            vec![Setup::with_tls(Tls::new().without_common_cipher())]
        }
        "client and server have no protocol in common (ALPN)" => {
            vec![Setup::with_tls(Tls::new().alpn(["other"]))]
        }
        "the server answers the handshake in plain HTTP" => vec![Setup::with_handshake(Handshake::PlainHttp)],
        "an HTTP/1.1 client sends plain HTTP to a TLS port" => {
            vec![Setup { scheme: "http", grpc: false, ..Setup::new() }]
        }
        "the server rejects the client's certificate, or demands one that the client does not have" => {
            let demanding = || Tls::new().demand_client_certificate();
            let alerts = [42, 43, 44, 45, 46, 48, 49, 116].map(Handshake::Alert);
            let mut setups =
                vec![Setup::with_tls(demanding().only_tls12()), Setup::with_tls(demanding().only_tls13())];
            setups.extend(alerts.map(Setup::with_handshake));
            setups
        }
        "the server sends the alert `internal_error` in the handshake" => {
            vec![Setup::with_handshake(Handshake::Alert(80))]
        }
        "the connection ends during the handshake" => {
            vec![Setup::with_handshake(Handshake::Close), Setup::with_handshake(Handshake::Reset)]
        }
        "the handshake does not end within the connect timeout" => {
            vec![Setup { connect_timeout: SHORT, ..Setup::with_handshake(Handshake::Stall) }]
        }
        "the handshake does not end within a timeout around the client" => {
            vec![Setup { timeout: SHORT, ..Setup::with_handshake(Handshake::Stall) }]
        }
        "the connection is reset after the handshake" => vec![
            Setup::with_answer(Action::ResetBeforeRequest, Reply::nothing().reset_connection()),
            Setup::with_answer(Action::ResetAfterRequest, Reply::nothing().reset_connection()),
        ],
        "the connection ends within the response's body, without `close_notify`" => {
            let truncated = Action::status(200).body("0123").content_length(10).then_close();
            let setup = Setup::with_answer(truncated, Reply::nothing());
            // gRFC A6: a gRPC call is committed, which is another row.
            vec![Setup { tls: Tls::new().without_close_notify(), grpc: false, ..setup }]
        }
        other => panic!("no test for: {other}"),
    }
}

/// Returns the situations of `TABLES.md`, each with the cells of its axes.
fn situations() -> Vec<(&'static str, String)> {
    let page = include_str!("../../../../tower-fault-classify/TABLES.md");
    let (_, section) = page.split_once("\n# TLS\n").unwrap();
    let rows = section.lines().skip_while(|line| !line.starts_with("| situation"));
    let rows = rows.take_while(|line| line.starts_with('|')).skip(2);
    rows.map(|row| {
        let cells: Vec<_> = row.trim_matches('|').split('|').map(str::trim).collect();
        (cells[0], cells[1..5].join(" "))
    })
    .collect()
}

/// Checks that a client gets the verdict of the page in every situation.
async fn check(error: impl AsyncFn(&Setup) -> Option<BoxError>) {
    let mut table = Table::default();
    let mut checked = BTreeSet::new();
    for (situation, want) in situations() {
        for setup in setups(situation) {
            let Some(error) = error(&setup).await else { continue };
            // Checks that the layer and the client's own error have the same verdict.
            verdict(&*error);
            let fault = classify_error(&*error);
            let got = format!(
                "`{}` `{}` `{}` `{}`",
                fault.kind(),
                fault.retryable(),
                fault.health(),
                fault.origin()
            );
            table.check(got == want, || {
                format!("{situation}\n  {:?}\n  got      {got}\n  expected {want}", debug_chain(&*error))
            });
            checked.insert(situation);
        }
    }
    table.check(checked.len() >= 13, || format!("only {checked:?}"));
}

/// Starts an HTTP/1.1 server, and returns it with its URL.
async fn http_server(setup: &Setup) -> (Http, String) {
    setup.script();
    let server = Http::start_tls(&setup.tls).await;
    server.set_default(setup.action.clone());
    let url = format!("{}://{}/", setup.scheme, server.address());
    (server, url)
}

async fn reqwest_error(setup: &Setup) -> Option<BoxError> {
    let (_server, url) = http_server(setup).await;
    let mut builder = reqwest_client().connect_timeout(setup.connect_timeout);
    if setup.trusted {
        builder = builder.tls_certs_only([Certificate::from_der(&setup.tls.ca_der()).unwrap()]);
    }
    if setup.versions == &ONLY_TLS12[..] {
        builder = builder.tls_version_max(reqwest::tls::Version::TLS_1_2);
    } else if setup.versions == &ONLY_TLS13[..] {
        builder = builder.tls_version_min(reqwest::tls::Version::TLS_1_3);
    }
    let client = ServiceBuilder::new()
        .layer(FaultClassifyLayer::new())
        .timeout(setup.timeout)
        .service(builder.build().unwrap());
    let mut request = reqwest::Request::new(Method::POST, url.parse().unwrap());
    *request.body_mut() = Some("body".into());
    Some(match client.oneshot(request).await {
        Ok(response) => response.bytes().await.unwrap_err().into(),
        Err(error) => error.into(),
    })
}

/// Returns rustls' configuration of a client.
fn client_config(setup: &Setup) -> ClientConfig {
    install_ring();
    let mut roots = RootCertStore::empty();
    if setup.trusted {
        roots.add(setup.tls.ca_der()).unwrap();
    }
    ClientConfig::builder_with_protocol_versions(setup.versions)
        .with_root_certificates(roots)
        .with_no_client_auth()
}

async fn hyper_util_error(setup: &Setup) -> Option<BoxError> {
    let (_server, url) = http_server(setup).await;
    let https = HttpsConnectorBuilder::new()
        .with_tls_config(client_config(setup))
        .https_or_http()
        .enable_all_versions()
        .build();
    let limit = setup.connect_timeout;
    // The connect timeout of hyper-util's connector does not include the handshake.
    let connector = service_fn(move |url: Uri| {
        let connecting = https.clone().oneshot(url);
        Box::pin(async move { tokio::time::timeout(limit, connecting).await? })
    });
    let client = ServiceBuilder::new()
        .layer(FaultClassifyLayer::new())
        .timeout(setup.timeout)
        .service(client_with(connector));
    let request = Request::post(url).body(Full::<Bytes>::from("body")).unwrap();
    Some(match client.oneshot(request).await {
        Ok(response) => response.into_body().collect().await.unwrap_err().into(),
        Err(error) => error.into(),
    })
}

async fn tonic_error(setup: &Setup) -> Option<BoxError> {
    if !setup.grpc {
        return None;
    }
    setup.script();
    let server = Grpc::start_tls(&setup.tls).await;
    server.set_default(setup.reply.clone());
    // The connect timeout of the endpoint does not include the handshake.
    let mut config = ClientTlsConfig::new().timeout(setup.connect_timeout);
    if setup.trusted {
        config = config.ca_certificate(tonic::transport::Certificate::from_pem(setup.tls.ca_pem()));
    }
    let endpoint = endpoint(&server.url()).tls_config(config).unwrap();
    let channel = endpoint.connect_timeout(setup.connect_timeout).connect_lazy();
    let client =
        ServiceBuilder::new().layer(FaultClassifyLayer::new()).timeout(setup.timeout).service(channel);
    Some(expect_error(EchoClient::new(client).say(words("hi")).await))
}

#[tokio::test]
async fn tls_failure_over_reqwest_matches_table() {
    check(reqwest_error).await;
}

#[tokio::test]
async fn tls_failure_over_hyper_util_matches_table() {
    check(hyper_util_error).await;
}

#[tokio::test]
async fn tls_failure_over_tonic_matches_table() {
    check(tonic_error).await;
}

/// The server accepts the handshake, but speaks another protocol.
#[tokio::test]
async fn tonic_without_negotiated_http2_is_protocol_never() {
    let tls = Tls::new().alpn::<&str>([]);
    let server = Grpc::start_tls(&tls).await;
    let config = ClientTlsConfig::new().ca_certificate(tonic::transport::Certificate::from_pem(tls.ca_pem()));
    let channel = endpoint(&server.url()).tls_config(config).unwrap().connect_lazy();
    let error = expect_error(EchoClient::new(channel).say(words("hi")).await);
    Table::default().error(&"ALPN", &*error, INVALID_RESPONSE);
}

/// The errors of native-tls with OpenSSL 3, in a failure to connect and in an I/O error.
#[tokio::test]
async fn openssl_error_is_classified_by_its_code() {
    let mut table = Table::default();
    let rejected =
        "error:0A000086:SSL routines:tls_post_process_server_certificate:certificate verify failed:";
    let demanded = "error:0A00045C:SSL routines:ssl3_read_bytes:tlsv13 alert certificate required:";
    let cut = "error:0A000126:SSL routines:ssl3_read_n:unexpected eof while reading:";
    for (text, want) in [(rejected, INVALID_RESPONSE), (cut, super::BROKEN_UNSENT)] {
        let connector = service_fn(move |_: Uri| {
            Box::pin(async move { Err::<TokioIo<TcpStream>, BoxError>(text.into()) })
        });
        let client = client_with(connector);
        let error = expect_error(super::hyper_util_client::exchange(&client, "http://127.0.0.1:1/").await);
        table.error(&text, &*error, want);
    }
    let auth =
        axes(tower_fault_classify::Kind::Auth, Retryable::Never, tower_fault_classify::Health::Neutral);
    table.error(&demanded, &io::Error::other(demanded), auth);
    // A text that only begins like a code.
    table.error(&"other", &io::Error::other("error:0A is not a code"), super::UNKNOWN);
}
