//! The last failure of a circuit over the errors of real clients and of boxes.

use std::any::type_name;
use std::error::Error;
use std::future::ready;
use std::io;

use integration_tests::reqwest_client;
use reqwest::{Method, Request};
use tower::{BoxError, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_breaker::telemetry::LastFailure;
use tower_breaker::{BreakerLayer, Circuit, CircuitRegistry, Kind};
use tower_fault_classify::FaultClassifyLayer;
use tower_jitter_retry::JitterRetryLayer;

use super::{Upstream, circuit, policy};

/// Makes one call, which fails, and returns the failure that the circuit keeps.
async fn last_failure<S, Req>(mut service: S, request: Req, circuit: &Circuit) -> LastFailure
where
    S: Service<Req>,
{
    let Ok(ready) = service.ready().await else { panic!("the service must be ready") };
    assert!(ready.call(request).await.is_err());
    circuit.status().last_failure.expect("the layer must keep it")
}

/// Returns the address of a port that refuses connections.
fn refusing_url() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}/orders/7", listener.local_addr().unwrap())
}

fn assert_refused(last: &LastFailure, url: &str) {
    assert_eq!(last.type_name, type_name::<reqwest::Error>());
    assert_eq!((last.subject.as_str(), last.fault.kind()), (url, Kind::Unavailable));
    let request = format!("error sending request for url ({url})");
    assert!(last.message.starts_with(&request), "{}", last.message);
    assert!(last.message.contains("refused"), "the cause follows: {}", last.message);
}

#[tokio::test]
async fn last_failure_over_reqwest_names_its_error_and_cause() {
    let url = refusing_url();
    let request = || Request::new(Method::GET, url.parse().unwrap());
    let layer = || {
        let layer = BreakerLayer::new(circuit());
        let circuit = layer.circuit();
        (layer.keep_last_failure_by(|request: &Request| request.url().clone()), circuit)
    };

    let (breaker, circuit) = layer();
    let client = ServiceBuilder::new().layer(breaker).service(reqwest_client().build().unwrap());
    assert_refused(&last_failure(client, request(), &circuit).await, &url);

    let (breaker, circuit) = layer();
    let client = ServiceBuilder::new()
        .layer(JitterRetryLayer::new(policy()))
        .layer(breaker)
        .layer(FaultClassifyLayer::new())
        .service(reqwest_client().build().unwrap());
    assert_refused(&last_failure(client, request(), &circuit).await, &url);
}

#[tokio::test]
async fn last_failure_of_response_has_its_fault_and_subject() {
    let upstream = Upstream::start().await;
    let registry = CircuitRegistry::new(circuit());
    let layer = BreakerLayer::with_circuit(registry.circuit("search"));
    let layer = layer.keep_last_failure_by(|request: &Request| request.url().path().to_owned());
    let mut client = ServiceBuilder::new().layer(layer).service(reqwest_client().build().unwrap());
    let request = Request::new(Method::GET, upstream.url(503).parse().unwrap());
    client.ready().await.unwrap().call(request).await.unwrap();
    let last = registry.statuses().remove(0).last_failure.expect("the layer must keep it");
    assert_eq!((last.subject.as_str(), last.type_name), ("/503", type_name::<reqwest::Response>()));
    assert_eq!(last.message, last.fault.to_string());
}

#[derive(Debug)]
struct PageError(io::Error);

impl std::fmt::Display for PageError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("no page")
    }
}

impl Error for PageError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.0)
    }
}

fn page_error() -> PageError {
    PageError(io::ErrorKind::ConnectionRefused.into())
}

#[tokio::test]
async fn last_failure_of_anyhow_error_names_no_box() {
    use anyhow::Context;

    let failures: [(fn() -> anyhow::Error, _, _); 4] = [
        (
            || io::Error::from(io::ErrorKind::ConnectionRefused).into(),
            type_name::<io::Error>(),
            "connection refused",
        ),
        (|| page_error().into(), type_name::<io::Error>(), "no page: connection refused"),
        (
            || Err::<(), _>(page_error()).context("page 7").unwrap_err(),
            type_name::<io::Error>(),
            "page 7: no page: connection refused",
        ),
        (|| anyhow::anyhow!("no page"), type_name::<dyn Error>(), "no page"),
    ];
    for (error, type_name, message) in failures {
        let layer = BreakerLayer::new(circuit());
        let circuit = layer.circuit();
        let service = service_fn(move |_: u32| ready(Err::<(), anyhow::Error>(error())));
        let layer = layer.errors_only().keep_last_failure_by(|request: &u32| *request);
        let last = last_failure(ServiceBuilder::new().layer(layer).service(service), 7, &circuit).await;
        assert_eq!((last.type_name, last.message.as_str(), last.subject.as_str()), (type_name, message, "7"));
    }
}

#[tokio::test]
async fn last_failure_of_classified_anyhow_error_names_its_cause() {
    let layer = BreakerLayer::new(circuit());
    let circuit = layer.circuit();
    let stack = ServiceBuilder::new()
        .layer(layer.errors_only().keep_last_failure("pages"))
        .layer(FaultClassifyLayer::new().errors_only())
        .service(service_fn(async |_: u32| Err::<(), anyhow::Error>(page_error().into())));
    let last = last_failure(stack, 7, &circuit).await;
    assert_eq!(
        (last.type_name, last.message.as_str()),
        (type_name::<io::Error>(), "no page: connection refused")
    );
}

#[tokio::test]
async fn last_failure_over_buffer_names_cause() {
    let layer = BreakerLayer::new(circuit());
    let circuit = layer.circuit();
    let stack = ServiceBuilder::new()
        .layer(layer.errors_only().keep_last_failure("pages"))
        .buffer(8)
        .layer(FaultClassifyLayer::new().errors_only())
        .service(service_fn(async |_: u32| Err::<(), BoxError>(page_error().into())));
    let last = last_failure(stack, 7, &circuit).await;
    assert_eq!(
        (last.type_name, last.message.as_str()),
        (type_name::<io::Error>(), "no page: connection refused")
    );
}
