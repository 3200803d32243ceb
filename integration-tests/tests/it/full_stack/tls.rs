//! The layers over `https`: the requests that the server sees, and the state of the circuit.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::Version;
use integration_tests::{TIMEOUT, reqwest_client, retry_at_once};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::Policy;
use reqwest::{Body, Certificate, Client, ClientBuilder, Method, Request, Response};
use test_servers::{Grpc, Handshake, Http, Reason, Reply, Tls};
use tower::{BoxError, ServiceBuilder, ServiceExt};
use tower_breaker::{BreakerLayer, Circuit, CircuitState};
use tower_fault_classify::{ClassifiedError, FaultClassifyLayer, Kind};
use tower_jitter_retry::JitterRetryLayer;

use super::circuit;

/// Returns the builder of a client that trusts an authority, and does not follow redirects.
fn trusting(tls: &Tls) -> ClientBuilder {
    let authority = Certificate::from_der(&tls.ca_der()).unwrap();
    reqwest_client().tls_certs_only([authority]).redirect(Policy::none())
}

/// Sends a POST through the three layers.
async fn post(client: Client, circuit: &Circuit, url: &str) -> Result<Response, BoxError> {
    // Otherwise the retry layer assumes that any hop may have failed, and does not resend a POST.
    let policy = retry_at_once().follows_redirects(false).build().unwrap();
    let stack = ServiceBuilder::new()
        .layer(JitterRetryLayer::new(policy))
        .layer(BreakerLayer::with_circuit(circuit.clone()))
        .layer(FaultClassifyLayer::new())
        .timeout(TIMEOUT)
        .service(client);
    let mut request = Request::new(Method::POST, url.parse().unwrap());
    *request.body_mut() = Some(Body::from("body"));
    Ok(stack.oneshot(request).await?)
}

fn new_circuit() -> Circuit {
    Circuit::new(circuit())
}

#[tokio::test]
async fn post_is_sent_once_after_failed_handshakes() {
    for handshakes in [[Handshake::Close, Handshake::Reset], [Handshake::Alert(80), Handshake::Close]] {
        let tls = Tls::new();
        let server = Http::start_tls(&tls).await;
        tls.handshakes(handshakes);
        let client = trusting(&tls).build().unwrap();
        let response = post(client, &new_circuit(), &server.url()).await.unwrap();
        assert_eq!((response.status().as_u16(), server.connections()), (200, 3));
        assert_eq!((server.requests().len(), &*server.requests()[0].body), (1, &b"body"[..]));
    }
}

#[tokio::test]
async fn rejected_certificate_is_not_retried() {
    let other = Tls::new();
    let demanding = Tls::new().demand_client_certificate();
    for (tls, trusted, kind) in [
        (&Tls::new(), &other, Kind::Protocol),
        (&demanding.clone().only_tls12(), &demanding, Kind::Auth),
        (&demanding.clone().only_tls13(), &demanding, Kind::Auth),
    ] {
        let server = Http::start_tls(tls).await;
        let client = trusting(trusted).build().unwrap();
        let error = post(client, &new_circuit(), &server.url()).await.unwrap_err();
        assert_eq!(ClassifiedError::find(&*error).unwrap().fault().kind(), kind);
        assert_eq!((server.connections(), server.requests().len()), (1, 0));
    }
}

#[tokio::test]
async fn expired_certificate_opens_circuit() {
    let tls = Tls::new().expired();
    let server = Http::start_tls(&tls).await;
    let (client, circuit) = (trusting(&tls).build().unwrap(), new_circuit());
    for _ in 0..6 {
        post(client.clone(), &circuit, &server.url()).await.unwrap_err();
    }
    assert_eq!(circuit.status().state, CircuitState::Open);
    post(client, &circuit, &server.url()).await.unwrap_err();
    assert_eq!((server.connections(), server.requests().len()), (6, 0));
}

#[tokio::test]
async fn missing_client_certificate_leaves_circuit_closed() {
    let tls = Tls::new().demand_client_certificate();
    let server = Http::start_tls(&tls).await;
    let (client, circuit) = (trusting(&tls).build().unwrap(), new_circuit());
    for _ in 0..8 {
        post(client.clone(), &circuit, &server.url()).await.unwrap_err();
    }
    assert_eq!((circuit.status().state, server.connections()), (CircuitState::Closed, 8));
}

/// A resolver that returns the addresses in turn.
struct InTurn {
    addresses: [SocketAddr; 2],
    calls: AtomicUsize,
}

impl Resolve for InTurn {
    fn resolve(&self, _: Name) -> Resolving {
        let address = self.addresses[self.calls.fetch_add(1, Ordering::Relaxed) % 2];
        Box::pin(async move { Ok(Box::new([address].into_iter()) as Addrs) })
    }
}

/// Behind one name, a server speaks HTTP/2 and another one HTTP/1.1.
#[tokio::test]
async fn alpn_switch_leaves_circuit_closed() {
    let tls = Tls::new().names(["api.example.com"]);
    let (http2, http1) = (Grpc::start_tls(&tls).await, Http::start_tls(&tls).await);
    http2.set_default(Reply::http(200));
    let addresses = [http2.address(), http1.address()];
    let resolver = Arc::new(InTurn { addresses, calls: AtomicUsize::new(0) });
    let circuit = new_circuit();
    for version in [Version::HTTP_2, Version::HTTP_11, Version::HTTP_2, Version::HTTP_11] {
        // A new client opens a new connection.
        let client = trusting(&tls).dns_resolver(Arc::clone(&resolver)).build().unwrap();
        let response = post(client, &circuit, "https://api.example.com/").await.unwrap();
        assert_eq!((response.status().as_u16(), response.version()), (200, version));
    }
    let status = circuit.status();
    assert_eq!((status.state, status.consecutive_failures), (CircuitState::Closed, 0));
}

#[tokio::test]
async fn stream_refused_over_tls_is_sent_again() {
    for refusal in [
        Reply::nothing().rst_stream(Reason::REFUSED_STREAM),
        Reply::nothing().go_away_below(Reason::NO_ERROR),
    ] {
        let tls = Tls::new();
        let server = Grpc::start_tls(&tls).await;
        server.script([refusal.clone(), refusal]);
        server.set_default(Reply::http(200));
        let circuit = new_circuit();
        let client = trusting(&tls).build().unwrap();
        let response = post(client, &circuit, &server.url()).await.unwrap();
        assert_eq!((response.status().as_u16(), response.version()), (200, Version::HTTP_2));
        assert_eq!((server.requests().len(), circuit.status().state), (3, CircuitState::Closed));
    }
}

/// The server may have processed the request, so it is not sent again.
#[tokio::test]
async fn post_lost_over_http2_and_tls_is_sent_once() {
    let tls = Tls::new();
    let server = Grpc::start_tls(&tls).await;
    server.set_default(Reply::nothing().reset_connection());
    let client = trusting(&tls).build().unwrap();
    post(client, &new_circuit(), &server.url()).await.unwrap_err();
    assert_eq!(server.requests().len(), 1);
}
