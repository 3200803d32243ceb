//! Connect errors that do not mean that the server is down: a proxy that refuses, and a client
//! without TLS.

use std::convert::Infallible;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::{SocksV5, Tunnel};
use hyper_util::client::legacy::{self as client, Client};
use hyper_util::rt::{TokioExecutor, TokioIo};
use integration_tests::reqwest_without_tls;
use reqwest_middleware::ClientBuilder;
use test_servers::{Action, Http, RefusedPort};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tower::{BoxError, Layer, ServiceExt};
use tower_breaker::{BreakerConfig, BreakerLayer, CircuitState};
use tower_fault_classify::middleware::TowerMiddleware;
use tower_fault_classify::{
    Classify, FaultClassifyLayer, Health, Kind, Origin, Retryable, Verdict, classify_error,
};
use tower_jitter_retry::{JitterRetryLayer, RetryPolicy};

use super::{
    Axes, BROKEN_UNSENT, CALLER, Table, UNAVAILABLE_UNSENT, axes, expect_error, hyper_util_client,
    reqwest_client,
};

/// A proxy rejects this client. The server was not reached, and a retry would be rejected again.
const PROXY_AUTH: Axes = axes(Kind::Auth, Retryable::Never, Health::Neutral);
/// A proxy does not open a tunnel, and the error does not contain the reason.
const TUNNEL_FAILED: Axes = axes(Kind::Unavailable, Retryable::Unsent, Health::Neutral);
/// A proxy sends an invalid answer to `CONNECT`.
const PROXY_INVALID_RESPONSE: Axes = axes(Kind::Protocol, Retryable::Never, Health::Neutral);

/// Sends a request through a proxy's tunnel, and returns the error.
async fn tunnel_error(proxy: &str) -> BoxError {
    let tunnel = Tunnel::new(proxy.parse().unwrap(), HttpConnector::new());
    let client = hyper_util_client::client_with(tunnel);
    expect_error(hyper_util_client::exchange(&client, "http://server.invalid:80").await)
}

#[tokio::test]
async fn connect_tunnel_refused_by_proxy_is_neutral() {
    let mut table = Table::default();
    let refusals = [403, 429, 500, 502, 503, 504].map(|status| (status, TUNNEL_FAILED));
    for (status, want) in [(407, PROXY_AUTH)].into_iter().chain(refusals) {
        let proxy = Http::start().await;
        proxy.set_default(Action::status(status));
        let error = tunnel_error(&proxy.url()).await;
        table.error(&status, &*error, want);
        table.check(classify_error(&*error).origin() == Origin::Remote, || format!("origin of {status}"));
        table.check(proxy.requests()[0].method == "CONNECT", || format!("{:?}", proxy.requests()));
    }
}

/// Sends a POST through a proxy that always answers with this status. Returns the number of tunnel
/// requests.
async fn tunnel_requests(status: u16) -> usize {
    let proxy = Http::start().await;
    proxy.set_default(Action::status(status));
    let tunnel = Tunnel::new(proxy.url().parse().unwrap(), HttpConnector::new());
    let policy = RetryPolicy::builder().max_attempts(3).initial_backoff(Duration::ZERO).build().unwrap();
    let client = JitterRetryLayer::new(policy).layer(hyper_util_client::client_with(tunnel));
    let request = Request::post("http://server.invalid:80").body(Full::<Bytes>::default()).unwrap();
    expect_error(client.oneshot(request).await);
    proxy.requests().len()
}

#[tokio::test]
async fn post_after_failed_tunnel_is_retried_except_for_407() {
    for (status, times) in [(407, 1), (403, 3), (502, 3), (503, 3), (504, 3)] {
        assert_eq!(tunnel_requests(status).await, times, "{status}");
    }
}

/// The rule from the crate documentation of tower-fault-classify.
fn unavailable_is_unhealthy<R>(outcome: Result<&R, &client::Error>) -> Option<Verdict> {
    let fault = classify_error(outcome.err()?);
    (fault.kind() == Kind::Unavailable).then(|| fault.with_health(Health::Unhealthy).into())
}

/// Returns the state of a circuit after one call through a proxy that does not reach the server.
async fn state_after_proxy_503<C>(classify: FaultClassifyLayer<C>) -> CircuitState
where
    C: Classify<Response<Incoming>, client::Error> + Clone,
{
    let proxy = Http::start().await;
    proxy.set_default(Action::status(503));
    let tunnel = Tunnel::new(proxy.url().parse().unwrap(), HttpConnector::new());
    let config = BreakerConfig::builder()
        .consecutive_failures(1)
        .consecutive_failures_span(Duration::ZERO)
        .build()
        .unwrap();
    let breaker = BreakerLayer::new(config);
    let circuit = breaker.circuit();
    let client = breaker.layer(classify.layer(hyper_util_client::client_with(tunnel)));
    let request = Request::post("http://server.invalid:80").body(Full::<Bytes>::default()).unwrap();
    expect_error(client.oneshot(request).await);
    circuit.status().state
}

#[tokio::test]
async fn failed_tunnel_opens_circuit_only_with_rule() {
    assert_eq!(state_after_proxy_503(FaultClassifyLayer::new()).await, CircuitState::Closed);
    let with_rule = FaultClassifyLayer::new().rule(unavailable_is_unhealthy);
    assert_eq!(state_after_proxy_503(with_rule).await, CircuitState::Open);
}

#[tokio::test]
async fn connect_tunnel_with_other_fault_keeps_its_verdict() {
    let mut table = Table::default();
    let proxy = Http::start().await;
    proxy.script([
        Action::CloseAfterRequest,
        Action::ResetAfterRequest,
        Action::raw(format!("HTTP/1.1 200 OK\r\nx-large: {}", "a".repeat(9000))),
    ]);
    table.error(&"FIN", &*tunnel_error(&proxy.url()).await, BROKEN_UNSENT);
    table.error(&"RST", &*tunnel_error(&proxy.url()).await, BROKEN_UNSENT);
    table.error(&"large head", &*tunnel_error(&proxy.url()).await, PROXY_INVALID_RESPONSE);
    let refused = RefusedPort::bind();
    table.error(&"refused", &*tunnel_error(&refused.url()).await, UNAVAILABLE_UNSENT);
}

/// Starts a proxy that answers each message of one client with the next of `replies`.
async fn socks_proxy(replies: &'static [&'static [u8]]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        for reply in replies {
            let _ = stream.read(&mut [0; 512]).await.unwrap();
            stream.write_all(reply).await.unwrap();
        }
        let _ = stream.read(&mut [0; 512]).await;
    });
    url
}

/// Sends a request through a SOCKS proxy, and returns the error.
async fn socks_error(replies: &'static [&'static [u8]]) -> BoxError {
    let proxy: Uri = socks_proxy(replies).await.parse().unwrap();
    let socks = SocksV5::new(proxy, HttpConnector::new()).with_auth("user".to_owned(), "password".to_owned());
    let client = hyper_util_client::client_with(socks);
    expect_error(hyper_util_client::exchange(&client, "http://server.invalid:80").await)
}

#[tokio::test]
async fn socks_proxy_refusal_is_auth_never_neutral() {
    let mut table = Table::default();
    // The proxy chooses "user name and password", and rejects the password.
    let error = socks_error(&[&[5, 2], &[1, 1]]).await;
    table.error(&"password", &*error, PROXY_AUTH);
    // The proxy accepts the password, but its rules do not allow the connection.
    let error = socks_error(&[&[5, 2], &[1, 0], &[5, 2, 0, 1, 0, 0, 0, 0, 0, 0]]).await;
    table.error(&"not allowed", &*error, PROXY_AUTH);
    // The proxy could not connect to the server.
    let error = socks_error(&[&[5, 2], &[1, 0], &[5, 5, 0, 1, 0, 0, 0, 0, 0, 0]]).await;
    table.error(&"server refused", &*error, UNAVAILABLE_UNSENT);
}

const HTTPS: &str = "https://127.0.0.1:1/";

#[tokio::test]
async fn https_without_tls_over_hyper_util_is_client_never_neutral() {
    let mut table = Table::default();
    let client = hyper_util_client::client_with(HttpConnector::new());
    let error = expect_error(hyper_util_client::exchange(&client, HTTPS).await);
    table.error(&HTTPS, &*error, CALLER);
    table.check(classify_error(&*error).origin() == Origin::Caller, || "origin".to_owned());

    let client: Client<_, Full<Bytes>> =
        Client::builder(TokioExecutor::new()).http2_only(true).build(HttpConnector::new());
    let request = Request::post(HTTPS).body(Full::default()).unwrap();
    let error = expect_error(FaultClassifyLayer::new().layer(client).oneshot(request).await);
    table.error(&"HTTP/2", &*error, CALLER);
}

#[tokio::test]
async fn https_without_tls_over_reqwest_is_client_never_neutral() {
    let mut table = Table::default();
    let client = reqwest_without_tls().build().unwrap();
    table.error(&HTTPS, &*expect_error(reqwest_client::exchange(&client, HTTPS).await), CALLER);
    let layer = TowerMiddleware::new(FaultClassifyLayer::new());
    let middleware = ClientBuilder::new(client).with(layer).build();
    table.error(&"middleware", &middleware.get(HTTPS).send().await.unwrap_err(), CALLER);
}

/// Some clients report a configuration mistake only in the text of the error. The clients here are
/// built without TLS, so the test constructs the errors.
#[tokio::test]
async fn unsupported_scheme_is_client_never_neutral() {
    let mut table = Table::default();
    let error = tonic::ConnectError("Connecting to HTTPS without TLS enabled".into());
    table.error(&"tonic", &error, CALLER);
    for text in ["unsupported scheme http", "https required but URI was not https"] {
        let connector = tower::service_fn(move |_: Uri| {
            Box::pin(async move { Err::<TokioIo<TcpStream>, _>(io::Error::other(text)) })
        });
        let client = hyper_util_client::client_with(connector);
        let error = expect_error(hyper_util_client::exchange(&client, "http://127.0.0.1:1/").await);
        table.error(&text, &*error, CALLER);
    }
}

/// Outside of a connect error, the same text can come from any source.
#[tokio::test]
async fn proxy_text_outside_connect_error_is_unknown() {
    let service = tower::service_fn(async |()| {
        Err::<Infallible, BoxError>("tunnel error: proxy authorization required".into())
    });
    let error = FaultClassifyLayer::new().errors_only().layer(service).oneshot(()).await.unwrap_err();
    Table::default().error(&"text", &error, super::UNKNOWN);
}
