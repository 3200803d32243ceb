//! `http_fallback` and `grpc_fallback` over the body types of clients and servers.

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use integration_tests::{TIMEOUT, reqwest_client};
use tower::{Layer, Service, ServiceBuilder, ServiceExt};
use tower_breaker::fallback::FallbackBody;
use tower_breaker::keyed::{KeyedBreakerLayer, KeyedConfig};
use tower_breaker::{BreakerLayer, Fault};
use tower_fault_classify::{FaultClassifyLayer, Kind, classify_response};
use tower_jitter_retry::JitterRetryLayer;

use super::{Upstream, circuit, policy};

type HyperClient = Client<HttpConnector, Empty<Bytes>>;

fn hyper_client() -> HyperClient {
    Client::builder(TokioExecutor::new()).build_http()
}

fn request(url: &str) -> Request<Empty<Bytes>> {
    Request::get(url).body(Empty::new()).unwrap()
}

async fn call<S: Service<Request<Empty<Bytes>>>>(service: &mut S, url: &str) -> S::Response {
    match service.ready().await {
        Ok(ready) => ready.call(request(url)).await.ok(),
        Err(_) => None,
    }
    .expect("the call must succeed")
}

fn assert_rejected<B>(response: &Response<FallbackBody<B>>) {
    assert_eq!(classify_response(response).fault().map(Fault::kind), Some(Kind::Rejected));
    assert!(response.body().get_ref().is_none());
}

/// A server that answers with its own text.
async fn upstream() -> String {
    let router = Router::new().route("/", get(async || "from the server"));
    format!("http://{}/", integration_tests::serve(router).await)
}

#[tokio::test]
async fn http_fallback_over_incoming_passes_body_and_sheds() {
    let url = upstream().await;
    let breaker = BreakerLayer::new(circuit());
    let handle = breaker.circuit();
    let mut stack = ServiceBuilder::new()
        .layer(JitterRetryLayer::new(policy()))
        .layer(breaker.http_fallback())
        .layer(FaultClassifyLayer::new())
        .timeout(TIMEOUT)
        .service(hyper_client());
    let response: Response<FallbackBody<Incoming>> = call(&mut stack, &url).await;
    let size = response.body().get_ref().map(|body| http_body::Body::size_hint(body).exact());
    assert_eq!(size, Some(Some(15)));
    assert_eq!(http_body::Body::size_hint(response.body()).exact(), Some(15));
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "from the server");

    handle.trip().unwrap();
    let response = call(&mut stack, &url).await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(response.headers().contains_key("retry-after"));
    assert_rejected(&response);
}

#[tokio::test]
async fn http_fallback_over_incoming_records_tracked_body() {
    let url = upstream().await;
    let breaker = BreakerLayer::new(circuit()).track_body().http_fallback();
    let handle = breaker.circuit();
    let mut stack = breaker.layer(hyper_client());
    let response = call(&mut stack, &url).await;
    assert_eq!(handle.status().window.calls, 0, "the body has not been read");
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "from the server");
    assert_eq!(handle.status().window.calls, 1);
    handle.trip().unwrap();
    assert_rejected(&call(&mut stack, &url).await);
}

#[tokio::test]
async fn keyed_fallbacks_over_incoming_shed_one_key() {
    fn path(request: &Request<Empty<Bytes>>) -> String {
        request.uri().path().to_owned()
    }
    let server = Upstream::start().await;
    let layer = KeyedBreakerLayer::new(KeyedConfig::default(), path);
    let circuits = layer.circuits();
    let mut http = layer.clone().http_fallback().layer(hyper_client());
    let mut grpc = layer.track_body().grpc_fallback().layer(hyper_client());
    circuits.get_or_insert("/200".to_owned()).unwrap().trip().unwrap();

    assert_rejected(&call(&mut http, &server.url(200)).await);
    let response = call(&mut grpc, &server.url(200)).await;
    assert_eq!(response.headers()["grpc-status"], "14");
    assert_rejected(&response);
    assert_eq!(server.requests(), 0);
    assert_eq!(call(&mut http, &server.url(201)).await.status(), StatusCode::CREATED);
    assert_eq!(call(&mut grpc, &server.url(201)).await.status(), StatusCode::CREATED);
}

/// A route that forwards requests with hyper-util. The breaker's own response is the route's.
#[tokio::test]
async fn axum_route_over_incoming_stays_infallible() {
    let url = upstream().await;
    let breaker = BreakerLayer::new(circuit()).http_fallback();
    let handle = breaker.circuit();
    let forward = move |_: Request<Body>| {
        let (client, url) = (hyper_client(), url.clone());
        async move { client.oneshot(request(&url)).await.map_err(|_| StatusCode::BAD_GATEWAY) }
    };
    let router = Router::new().route("/", get(forward).layer(breaker));
    let front = format!("http://{}/", integration_tests::serve(router).await);
    let client = reqwest_client().build().unwrap();
    let response = client.get(&front).send().await.unwrap();
    assert_eq!(
        (response.status().as_u16(), response.text().await.unwrap().as_str()),
        (200, "from the server")
    );
    handle.trip().unwrap();
    let response = client.get(&front).send().await.unwrap();
    assert_eq!((response.status().as_u16(), response.content_length()), (503, Some(0)));
    assert!(response.headers().contains_key("retry-after"));
}

/// The type of the response stays, so that code for a `reqwest::Client` takes the stack.
#[tokio::test]
async fn http_fallback_over_reqwest_keeps_response_type() {
    let url = upstream().await;
    let breaker = BreakerLayer::new(circuit());
    let handle = breaker.circuit();
    let client = reqwest_client().build().unwrap();
    let on_head = breaker.clone().http_fallback().layer(client.clone());
    let on_body = breaker.track_body().http_fallback().layer(client.clone());
    let request = || client.get(&url).build().unwrap();

    let response: reqwest::Response = on_head.clone().oneshot(request()).await.unwrap();
    assert_eq!(response.url().as_str(), url);
    assert_eq!(response.text().await.unwrap(), "from the server");
    let response: reqwest::Response = on_body.clone().oneshot(request()).await.unwrap();
    assert_eq!(response.text().await.unwrap(), "from the server");
    assert_eq!(handle.status().window.calls, 2);

    handle.trip().unwrap();
    for stack in [on_head.oneshot(request()).await, on_body.oneshot(request()).await] {
        let response: reqwest::Response = stack.unwrap();
        assert_eq!((response.status().as_u16(), response.content_length()), (503, Some(0)));
        assert_eq!(classify_response(&response).fault().map(Fault::kind), Some(Kind::Rejected));
        assert!(response.headers().contains_key("retry-after"));
        assert_eq!(response.text().await.unwrap(), "");
    }
}
