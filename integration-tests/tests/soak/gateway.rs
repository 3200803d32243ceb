//! The soak through an axum gateway: client, gateway, downstream.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{StatusCode, Version, header};
use axum::response::IntoResponse;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tower::{ServiceBuilder, ServiceExt};
use tower_breaker::Counts;
use tower_breaker::keyed::{KeyedBreakerLayer, KeyedConfig};
use tower_fault_classify::{ClassifiedError, FaultClassifyLayer, Health};
use tower_jitter_retry::JitterRetryLayer;

use crate::hyper_client::attempt_outcome;
use crate::load::{Ledger, Order, Upstream, number, run};
use crate::{TIMEOUT, circuit, policy};

/// The client uses HTTP/2, because another socket for each request would exceed the limit of open
/// files on many systems.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_requests_through_gateway_add_up() {
    let (upstream, ledger) = (Upstream::start().await, Ledger::default());
    let keyed = KeyedConfig::builder(circuit()).build().unwrap();
    let breaker =
        KeyedBreakerLayer::by_ref(keyed, |request: &Request| request.uri().authority().unwrap().as_str());
    let circuits = breaker.circuits();
    // Counts connections that the upstream closed while the client was still sending its body.
    let excused = Arc::new(AtomicU64::new(0));
    let excuse = Arc::clone(&excused);
    let stack = ServiceBuilder::new()
        .layer(JitterRetryLayer::new(policy()))
        .layer(breaker)
        .map_err(move |error: ClassifiedError| {
            if error.fault().health() == Health::Neutral {
                excuse.fetch_add(1, Ordering::Relaxed);
            }
            error
        })
        .layer(FaultClassifyLayer::new())
        .timeout(TIMEOUT)
        .layer(ledger.layer(|request: &Request| number(request.uri().path()), attempt_outcome))
        .service(Client::builder(TokioExecutor::new()).build_http());
    let base = upstream.base();
    let forward = async move |mut request: Request| {
        let path = request.uri().path().to_owned();
        *request.uri_mut() = (base(&Order::new(number(&path))) + &path).parse().unwrap();
        *request.version_mut() = Version::HTTP_11;
        request.headers_mut().remove(header::HOST);
        match stack.clone().oneshot(request).await {
            Ok(response) => response.map(Body::new),
            Err(_) => StatusCode::BAD_GATEWAY.into_response(),
        }
    };
    let gateway = format!("http://{}", integration_tests::serve(Router::new().fallback(forward)).await);

    let client = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
    let outcomes = run(move |order| {
        let (client, url) = (client.clone(), format!("{gateway}{}", order.path));
        async move {
            let request = Request::builder().method(order.method).uri(url).body(Full::new(order.body))?;
            let response = client.request(request).await?;
            let status = response.status().as_u16();
            Ok((status, response.into_body().collect().await?.to_bytes()))
        }
    })
    .await;

    // The sum of the circuits of the server and of the refused port.
    let excused = excused.load(Ordering::Relaxed);
    let mut window = Counts::default();
    window.calls += excused;
    window.failures += excused;
    for circuit in circuits.circuits() {
        let counts = circuit.status().window;
        window.calls += counts.calls;
        window.failures += counts.failures;
        window.slow += counts.slow;
        window.cancelled += counts.cancelled;
    }
    assert_eq!(circuits.len(), 2);
    upstream.check(&outcomes, &ledger, window);
}
