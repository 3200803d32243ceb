//! An axum gateway: two downstreams behind one stack with a circuit for each, a route that answers
//! 503 by itself, a page of readiness.
//!
//! `cargo run --example axum_gateway`

use std::future::IntoFuture;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::{StatusCode, Version, header};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tower::util::BoxCloneSyncService;
use tower::{BoxError, ServiceBuilder, ServiceExt};
use tower_breaker::keyed::{KeyedBreakerLayer, KeyedCircuits, KeyedConfig};
use tower_breaker::{BreakerConfig, BreakerError, BreakerLayer};
use tower_fault_classify::upload::{UploadBody, UploadLayer};
use tower_fault_classify::{ClassifiedError, FaultClassifyLayer};
use tower_jitter_retry::{JitterRetryLayer, RetryPolicy};

/// Each request has a clone; all clones share connections, circuits and budget.
type Stack = BoxCloneSyncService<Request, http::Response<Incoming>, BreakerError<ClassifiedError>>;

fn stack() -> Result<(Stack, KeyedCircuits<String>), BoxError> {
    let each = BreakerConfig::builder().name("downstreams").consecutive_failures(3).build()?;
    let config = KeyedConfig::builder(each).build()?;
    let breaker = KeyedBreakerLayer::by_ref(config, |request: &http::Request<UploadBody<Body>>| {
        request.uri().authority().map_or("", |authority| authority.as_str())
    });
    let circuits = breaker.circuits();
    let stack = ServiceBuilder::new()
        .layer(JitterRetryLayer::new(RetryPolicy::gateway().build()?))
        // A remote client whose upload stalls is not a failure of the downstream.
        .layer(UploadLayer::new())
        .layer(breaker)
        .layer(FaultClassifyLayer::new())
        .timeout(Duration::from_secs(5))
        .service(Client::builder(TokioExecutor::new()).build_http());
    Ok((BoxCloneSyncService::new(stack), circuits))
}

async fn forward(State((stack, to)): State<(Stack, String)>, mut request: Request) -> Response {
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    match format!("http://{to}{path}").parse() {
        Ok(uri) => *request.uri_mut() = uri,
        Err(_) => return StatusCode::BAD_REQUEST.into_response(),
    }
    // They speak of the connection to the gateway.
    *request.version_mut() = Version::HTTP_11;
    request.headers_mut().remove(header::HOST);
    request.headers_mut().remove(header::CONNECTION);
    match stack.oneshot(request).await {
        Ok(response) => response.map(Body::new),
        Err(BreakerError::Rejected(rejection)) => rejection.into_response(),
        Err(_) => StatusCode::BAD_GATEWAY.into_response(),
    }
}

/// Without prices the shop goes on; without orders it does not. The page is ready again when the
/// open duration is over, because the circuit needs a call as a probe.
async fn ready(State((circuits, [orders, prices])): State<(KeyedCircuits<String>, [String; 2])>) -> Response {
    let open = |to| circuits.get(to).is_some_and(|circuit| circuit.status().rejects_calls());
    let (orders, prices) = (open(&orders), open(&prices));
    let status = if orders { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    (status, format!("open: orders {orders}, prices {prices}")).into_response()
}

/// Serves on loopback until `stop`, and then answers what is under way.
async fn serve(app: Router, stop: Arc<Notify>) -> io::Result<(String, JoinHandle<io::Result<()>>)> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?.to_string();
    let serving = axum::serve(listener, app).with_graceful_shutdown(async move { stop.notified().await });
    Ok((address, tokio::spawn(serving.into_future())))
}

async fn ask(gateway: String, path: &str) -> Result<String, BoxError> {
    let request = http::Request::put(format!("http://{gateway}{path}")).body(Body::from("five!"))?;
    let response = Client::builder(TokioExecutor::new()).build_http().request(request).await?;
    let (status, later) = (response.status(), response.headers().contains_key(header::RETRY_AFTER));
    if !status.is_success() {
        return Ok(format!("{path}: {status}{}", if later { ", come again later" } else { "" }));
    }
    let text = to_bytes(Body::new(response.into_body()), 1024).await?;
    Ok(format!("{path}: {}", String::from_utf8_lossy(&text)))
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let [begun, go_on, stop] = [(); 3].map(|()| Arc::new(Notify::new()));
    let under_way = (begun.clone(), go_on.clone());
    let slow = async move || (under_way.0.notify_one(), under_way.1.notified().await, "slow, and whole").2;
    let take = async |body: Bytes| format!("took {} bytes", body.len());
    let (orders, _) = serve(Router::new().route("/slow", any(slow)).fallback(take), Arc::default()).await?;
    let prices = Router::new().fallback(async || StatusCode::SERVICE_UNAVAILABLE);
    let (prices, _) = serve(prices, Arc::default()).await?;

    let (stack, circuits) = stack()?;
    let to = |name: &String| Router::new().fallback(forward).with_state((stack.clone(), name.clone()));
    let report = any(async || StatusCode::INTERNAL_SERVER_ERROR);
    let guard = BreakerLayer::new(BreakerConfig::builder().consecutive_failures(2).build()?).http_fallback();
    let app = Router::new()
        .nest("/orders", to(&orders))
        .nest("/prices", to(&prices))
        .route("/report", report.layer(guard))
        .route("/ready", any(ready).with_state((circuits.clone(), [orders.clone(), prices])));
    let (gateway, serving) = serve(app, stop.clone()).await?;

    for path in "/orders/1 /prices/1 /prices/1 /orders/2 /ready /report /report /report".split(' ') {
        println!("{}", ask(gateway.clone(), path).await?);
    }
    // Maintenance of the orders: an operator takes them out of service.
    let orders = circuits.get(&orders).ok_or("there was an order")?;
    orders.force_open()?;
    println!("{}", ask(gateway.clone(), "/ready").await?);
    orders.release();
    let under_way = tokio::spawn(async move { ask(gateway, "/orders/slow").await });
    begun.notified().await;
    stop.notify_one();
    go_on.notify_one();
    println!("told to stop, and then {}", under_way.await??);
    Ok(serving.await??)
}
