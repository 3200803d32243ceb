//! The three layers around a client whose proxy or resolver fails.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::proxy::{SocksV4, SocksV5, Tunnel};
use hyper_util::client::legacy::connect::{Connect, HttpConnector};
use test_servers::{Action, Http, Socks, SocksAction};
use tower::{Layer, ServiceExt};
use tower_breaker::{BreakerConfig, BreakerLayer, CircuitState};
use tower_fault_classify::{Classify, FaultClassifyLayer, Health, Kind, Verdict, classify_error};
use tower_jitter_retry::JitterRetryLayer;

use super::super::{expect_error, hyper_util_client, reqwest_client};
use super::SERVER;

/// Sends a POST through the connector. Returns the state of the circuit after the call.
///
/// The breaker is above the retry, and opens after one call that failed. The call has up to three
/// attempts.
async fn state_after_post<C, F>(connector: C, classify: FaultClassifyLayer<F>) -> CircuitState
where
    C: Connect + Clone + Send + Sync + 'static,
    F: Classify<Response<Incoming>, legacy::Error> + Clone,
{
    let config = BreakerConfig::builder()
        .consecutive_failures(1)
        .consecutive_failures_span(Duration::ZERO)
        .build()
        .unwrap();
    let breaker = BreakerLayer::new(config);
    let circuit = breaker.circuit();
    let retry = JitterRetryLayer::new(integration_tests::retry_at_once().max_attempts(3).build().unwrap());
    let client = classify.layer(hyper_util_client::client_with(connector));
    let request = Request::post(format!("http://{SERVER}")).body(Full::<Bytes>::default()).unwrap();
    expect_error(breaker.layer(retry.layer(client)).oneshot(request).await);
    circuit.status().state
}

/// Returns the number of attempts of a POST through an HTTP proxy, and the state of the circuit.
async fn through_http_proxy(action: Action) -> (usize, CircuitState) {
    let proxy = Http::start().await;
    proxy.set_default(action);
    let tunnel = Tunnel::new(proxy.url().parse().unwrap(), HttpConnector::new());
    let state = state_after_post(tunnel, FaultClassifyLayer::new()).await;
    (proxy.connections(), state)
}

#[tokio::test]
async fn post_through_failing_http_proxy_is_retried_if_unsent() {
    use CircuitState::{Closed, Open};
    for (action, attempts, state) in [
        (Action::status(407), 1, Closed),
        (Action::status(403), 3, Closed),
        (Action::status(502), 3, Closed),
        (Action::status(503), 3, Closed),
        (Action::CloseAfterRequest, 3, Open),
        (Action::ResetAfterRequest, 3, Open),
    ] {
        assert_eq!(through_http_proxy(action.clone()).await, (attempts, state), "{action:?}");
    }
}

#[tokio::test]
async fn post_through_failing_socks_proxy_is_retried_if_unsent() {
    use CircuitState::{Closed, Open};
    for (action, attempts, state) in [
        (SocksAction::RejectMethods, 1, Closed),
        (SocksAction::Refuse(2), 1, Closed),
        (SocksAction::Refuse(8), 1, Closed),
        (SocksAction::Refuse(5), 3, Open),
        (SocksAction::CloseAfterRequest, 3, Open),
    ] {
        let proxy = Socks::start().await;
        proxy.set_default(action.clone());
        let socks = SocksV5::new(proxy.url().parse().unwrap(), HttpConnector::new());
        let got = state_after_post(socks, FaultClassifyLayer::new()).await;
        assert_eq!((proxy.connections(), got), (attempts, state), "{action:?}");
    }
    let proxy = Socks::start().await;
    proxy.set_default(SocksAction::Refuse(91));
    let socks = SocksV4::new(proxy.url().parse().unwrap(), HttpConnector::new());
    let got = state_after_post(socks, FaultClassifyLayer::new()).await;
    assert_eq!((proxy.connections(), got), (3, Closed));
}

/// Sends a POST to `https` through a proxy that always answers with this status, over reqwest.
/// Returns the number of attempts.
async fn reqwest_attempts(status: u16, follows_redirects: Option<bool>) -> usize {
    let proxy = Http::start().await;
    proxy.set_default(Action::status(status));
    let proxied = reqwest_client::builder().proxy(reqwest::Proxy::all(proxy.url()).unwrap());
    let client = proxied.redirect(reqwest::redirect::Policy::none()).build().unwrap();
    let policy = integration_tests::retry_at_once().max_attempts(3).follows_redirects(follows_redirects);
    let request = client.post(format!("https://{SERVER}/")).body("body").build().unwrap();
    expect_error(JitterRetryLayer::new(policy.build().unwrap()).layer(client).oneshot(request).await);
    proxy.requests().len()
}

/// An error of reqwest does not say whether the first hop failed or a later one.
#[tokio::test]
async fn reqwest_post_through_failing_proxy_is_retried_without_redirects() {
    for (status, attempts) in [(407, 1), (403, 3), (502, 3)] {
        assert_eq!(reqwest_attempts(status, Some(false)).await, attempts, "{status}");
        assert_eq!(reqwest_attempts(status, None).await, 1, "{status}");
    }
}

/// A POST whose response never came is sent once, although the tunnel was open for it.
#[tokio::test]
async fn post_lost_in_open_tunnel_is_sent_once() {
    let (proxy, server) = (Http::start().await, Http::start().await);
    proxy.set_default(Action::tunnel());
    server.set_default(Action::CloseAfterRequest);
    let tunnel = Tunnel::new(proxy.url().parse().unwrap(), HttpConnector::new());
    let retry = JitterRetryLayer::new(integration_tests::retry_at_once().max_attempts(3).build().unwrap());
    let client = retry.layer(hyper_util_client::client_with(tunnel));
    let request = Request::post(server.url()).body(Full::<Bytes>::from("body")).unwrap();
    expect_error(client.oneshot(request).await);
    assert_eq!(server.requests().len(), 1);
}

/// The rule from the crate documentation of tower-fault-classify.
fn unavailable_is_unhealthy<R>(outcome: Result<&R, &legacy::Error>) -> Option<Verdict> {
    let fault = classify_error(outcome.err()?);
    (fault.kind() == Kind::Unavailable).then(|| fault.with_health(Health::Unhealthy).into())
}

#[tokio::test]
async fn failed_tunnel_opens_circuit_only_with_rule() {
    let proxy = Http::start().await;
    proxy.set_default(Action::status(503));
    let tunnel = Tunnel::new(proxy.url().parse().unwrap(), HttpConnector::new());
    assert_eq!(state_after_post(tunnel.clone(), FaultClassifyLayer::new()).await, CircuitState::Closed);
    let with_rule = FaultClassifyLayer::new().rule(unavailable_is_unhealthy);
    assert_eq!(state_after_post(tunnel, with_rule).await, CircuitState::Open);
}
