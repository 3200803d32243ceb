//! HTTP proxies: tunnels, and requests for `http` URLs.

use std::time::Duration;

use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use integration_tests::TIMEOUT;
use reqwest::{Certificate, ClientBuilder, Proxy};
use test_servers::{Action, Grpc, Http, RefusedPort, Reply, Tls, install_ring};
use tonic::transport::{Certificate as TonicCertificate, ClientTlsConfig};
use tower::{BoxError, Layer, ServiceExt};
use tower_fault_classify::{CarriedVerdict, FaultClassifyLayer, Verdict};

use super::super::{
    Axes, SHORT, Table, expect_error, http1_rows, hyper_util_client, reqwest_client, tonic_channel,
};
use super::{SERVER, check, hyper_util_error, reqwest_error, tonic_error, with_timeout, with_tls};

fn tunnel(proxy: &str) -> Tunnel<HttpConnector> {
    Tunnel::new(proxy.parse().unwrap(), HttpConnector::new())
}

/// Returns the builder of a client that uses the proxy.
fn proxied(proxy: &str) -> ClientBuilder {
    reqwest_client::builder().proxy(Proxy::all(proxy).unwrap())
}

/// Sends a request to a server with TLS through the proxy, over the client with this name.
async fn https_exchange(client: &str, proxy: &str, tls: &Tls, url: &str) -> Result<(), BoxError> {
    if client == "reqwest" {
        let authority = Certificate::from_pem(tls.ca_pem().as_bytes())?;
        let client = proxied(proxy).tls_certs_merge([authority]).build()?;
        return reqwest_client::exchange(&client, url).await;
    }
    let client = hyper_util_client::client_with(with_tls(tunnel(proxy), tls));
    hyper_util_client::exchange(&client, url).await
}

/// Returns the error of a call over tonic's channel with TLS through the proxy.
async fn tonic_tls_error(proxy: &str, tls: &Tls, url: &str, limit: Duration) -> BoxError {
    install_ring();
    let authority = TonicCertificate::from_pem(tls.ca_pem());
    let config = ClientTlsConfig::new().ca_certificate(authority);
    let endpoint = tonic_channel::endpoint(url).tls_config(config).unwrap().connect_timeout(limit);
    expect_error(tonic_channel::layered(endpoint.connect_with_connector_lazy(tunnel(proxy))).await)
}

const HTTPS_CLIENTS: [&str; 2] = ["reqwest", "hyper-rustls"];

/// Returns the error of one call from each client that opens a tunnel to `server` through `proxy`.
///
/// `limit` is the connect timeout.
async fn errors(proxy: &str, server: &str, limit: Duration) -> Vec<(&'static str, BoxError)> {
    let (http, https) = (format!("http://{server}"), format!("https://{server}"));
    vec![
        ("hyper-util", hyper_util_error(with_timeout(tunnel(proxy), limit), &http).await),
        (
            "hyper-rustls",
            hyper_util_error(with_tls(with_timeout(tunnel(proxy), limit), &Tls::new()), &https).await,
        ),
        ("reqwest", reqwest_error(proxied(proxy).connect_timeout(limit), &https).await),
        ("tonic", tonic_error(tunnel(proxy), &http, limit).await),
        ("tonic with TLS", tonic_tls_error(proxy, &Tls::new(), &https, limit).await),
    ]
}

/// Returns the error of one call from each client through a proxy that always does this.
async fn errors_after(action: Action) -> Vec<(&'static str, BoxError)> {
    let proxy = Http::start().await;
    let limit = if matches!(action, Action::Hang) { SHORT } else { TIMEOUT };
    proxy.set_default(action);
    let errors = errors(&proxy.url(), SERVER, limit).await;
    let requests = proxy.requests();
    assert!(requests.iter().all(|request| request.method == "CONNECT" && request.path == SERVER));
    // A short timeout may end before the proxy has read the request.
    assert!(limit == SHORT || requests.len() == errors.len());
    errors
}

#[tokio::test]
async fn connect_refused_by_proxy_is_neutral() {
    let mut table = Table::default();
    check(
        &mut table,
        "an HTTP proxy answers `CONNECT` with 407",
        errors_after(Action::status(407).header("proxy-authenticate", "Basic")).await,
    );
    let others = [204, 302, 403, 429, 500, 502, 503, 504].map(Action::status);
    for action in others.into_iter().chain([Action::garbage()]) {
        check(
            &mut table,
            "an HTTP proxy answers `CONNECT` with any other status than 200, or with an invalid response",
            errors_after(action).await,
        );
    }
    check(
        &mut table,
        "the head of an HTTP proxy's response to `CONNECT` is larger than 8 KiB",
        errors_after(Action::raw(format!("HTTP/1.1 200 OK\r\nx-large: {}", "a".repeat(9000)))).await,
    );
}

#[tokio::test]
async fn connect_without_answer_is_unsent() {
    let mut table = Table::default();
    for action in [Action::CloseAfterRequest, Action::ResetAfterRequest] {
        check(
            &mut table,
            "an HTTP proxy closes the connection instead of answering `CONNECT`",
            errors_after(action).await,
        );
    }
    check(
        &mut table,
        "the proxy does not answer within the connect timeout",
        errors_after(Action::Hang).await,
    );
    let refused = RefusedPort::bind();
    check(&mut table, "the proxy refuses the connection", errors(&refused.url(), SERVER, TIMEOUT).await);
}

/// The tunnel ends before the client's first byte, after that byte, and after a part of its
/// `ClientHello`.
#[tokio::test]
async fn tunnel_closed_before_tls_is_unsent() {
    let (proxy, server, mut table) = (Http::start().await, Http::start().await, Table::default());
    let (proxy_url, server_url) = (proxy.url(), format!("https://{}", server.address()));
    for limit in [0, 1, 100] {
        proxy.set_default(Action::Tunnel { limit });
        check(
            &mut table,
            "a tunnel is closed before the end of the TLS handshake",
            vec![
                (
                    "hyper-rustls",
                    hyper_util_error(with_tls(tunnel(&proxy_url), &Tls::new()), &server_url).await,
                ),
                ("reqwest", reqwest_error(proxied(&proxy_url), &server_url).await),
                ("tonic", tonic_tls_error(&proxy_url, &Tls::new(), &server_url, TIMEOUT).await),
            ],
        );
    }
    assert!(server.connections() > 0 && server.requests().is_empty());
}

/// Dropping the proxy closes its tunnels.
#[tokio::test]
async fn tunnel_closed_after_request_is_if_idempotent() {
    const SITUATION: &str = "a tunnel is closed after the request was sent";
    let mut table = Table::default();

    let (proxy, server) = (Http::start().await, Http::start().await);
    proxy.set_default(Action::tunnel());
    server.set_default(Action::Hang);
    let call = tokio::spawn({
        let (tunnel, url) = (tunnel(&proxy.url()), server.url());
        async move { hyper_util_error(tunnel, &url).await }
    });
    server.wait_for_requests(1).await;
    drop(proxy);
    check(&mut table, SITUATION, vec![("hyper-util", call.await.unwrap())]);

    let (proxy, server) = (Http::start().await, Grpc::start().await);
    proxy.set_default(Action::tunnel());
    server.set_default(Reply::nothing());
    let call = tokio::spawn({
        let (tunnel, url) = (tunnel(&proxy.url()), server.url());
        async move { tonic_error(tunnel, &url, TIMEOUT).await }
    });
    server.wait_for_requests(1).await;
    drop(proxy);
    check(&mut table, SITUATION, vec![("tonic", call.await.unwrap())]);

    let tls = Tls::new();
    let (proxy, server) = (Http::start().await, Grpc::start_tls(&tls).await);
    proxy.set_default(Action::tunnel());
    server.set_default(Reply::nothing());
    let call = tokio::spawn({
        let (proxy_url, url) = (proxy.url(), server.url());
        async move { tonic_tls_error(&proxy_url, &tls, &url, TIMEOUT).await }
    });
    server.wait_for_requests(1).await;
    drop(proxy);
    check(&mut table, SITUATION, vec![("tonic with TLS", call.await.unwrap())]);

    for client in HTTPS_CLIENTS {
        let tls = Tls::new();
        let (proxy, server) = (Http::start().await, Http::start_tls(&tls).await);
        proxy.set_default(Action::tunnel());
        server.set_default(Action::Hang);
        let (proxy_url, url) = (proxy.url(), server.url());
        let call = tokio::spawn(async move { https_exchange(client, &proxy_url, &tls, &url).await });
        server.wait_for_requests(1).await;
        drop(proxy);
        check(&mut table, SITUATION, vec![(client, expect_error(call.await.unwrap()))]);
    }
}

#[tokio::test]
async fn call_through_tunnel_succeeds() {
    let (proxy, server) = (Http::start().await, Http::start().await);
    proxy.set_default(Action::tunnel());
    let client = hyper_util_client::client_with(tunnel(&proxy.url()));
    hyper_util_client::exchange(&client, &server.url()).await.unwrap();
    assert_eq!((proxy.requests().len(), server.requests().len()), (1, 1));

    let tls = Tls::new();
    let server = Http::start_tls(&tls).await;
    for client in HTTPS_CLIENTS {
        https_exchange(client, &proxy.url(), &tls, &server.url()).await.unwrap();
    }
    assert_eq!((proxy.requests().len(), server.requests().len()), (3, 2));
}

/// A proxy answers a request for an `http` URL itself if it does not reach the server.
#[tokio::test]
async fn response_of_forward_proxy_is_classified_by_status() {
    let (proxy, mut table) = (Http::start().await, Table::default());
    let client = FaultClassifyLayer::new().layer(proxied(&proxy.url()).build().unwrap());
    for status in [403, 407, 502, 503, 504] {
        proxy.script([Action::status(status)]);
        let request =
            reqwest::Request::new(reqwest::Method::POST, format!("http://{SERVER}/").parse().unwrap());
        let response = client.clone().oneshot(request).await.unwrap();
        let carried = CarriedVerdict::get(&response);
        let axes = carried.as_ref().and_then(Verdict::fault).map(Axes::of);
        table.row(&status, axes, http1_rows::row_of(status));
    }
    assert!(proxy.requests().iter().all(|request| request.path == "http://server.invalid/"));
}
