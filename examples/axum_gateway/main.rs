//! An axum gateway in front of two services, one of which is down.
//!
//! The program shows:
//!
//! - one client for all downstream services, with a circuit for each of them;
//! - a route of the gateway that answers 503 itself while its circuit is open;
//! - a readiness page that reads the circuits;
//! - an operator who takes a service out for maintenance;
//! - a graceful shutdown that completes the running request.
//!
//! ```text
//! cargo run --example axum_gateway
//! ```

use std::future::IntoFuture;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, StatusCode, Version, header};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tower::timeout::TimeoutLayer;
use tower::util::BoxCloneSyncService;
use tower::{BoxError, ServiceBuilder, ServiceExt};
use tower_breaker::keyed::{KeyedBreakerLayer, KeyedCircuits, KeyedConfig};
use tower_breaker::{BreakerConfig, BreakerError, BreakerLayer};
use tower_fault_classify::upload::{UploadBody, UploadLayer};
use tower_fault_classify::{ClassifiedError, ErrorChain, FaultClassifyLayer, Kind, classify_error};
use tower_jitter_retry::{JitterRetryLayer, RetryPolicy};

/// The pause between two requests for the prices.
const PRICES_INTERVAL: Duration = Duration::from_millis(300);

/// The client for the downstream services. Clones share connections, circuits and retry budget.
/// It is boxed because the type of its key function cannot be written.
type DownstreamClient = BoxCloneSyncService<Request, http::Response<Incoming>, BreakerError<ClassifiedError>>;

/// Builds the client, and returns it with a handle to its circuits.
fn downstream_client() -> Result<(DownstreamClient, KeyedCircuits<String>), BoxError> {
    let each_circuit = BreakerConfig::builder().name("downstreams").build()?;
    let breaker = KeyedBreakerLayer::by_ref(KeyedConfig::builder(each_circuit).build()?, authority);
    let circuits = breaker.circuits();
    // This preset is for proxies. It retries only what RFC 9110 allows a proxy to send again, and
    // does not trust headers of remote clients.
    let retry_policy = RetryPolicy::gateway().build()?;

    let client = ServiceBuilder::new()
        .layer(JitterRetryLayer::new(retry_policy))
        // Outside the breaker: a timeout is not a failure of the downstream service if the upload
        // of a remote client stalls.
        .layer(UploadLayer::new())
        .layer(breaker)
        .layer(FaultClassifyLayer::new())
        .layer(TimeoutLayer::new(Duration::from_secs(5)))
        .service(Client::builder(TokioExecutor::new()).build_http());
    Ok((BoxCloneSyncService::new(client), circuits))
}

/// Returns the key of a request's circuit: host and port of the downstream service.
fn authority(request: &http::Request<UploadBody<Body>>) -> &str {
    request.uri().authority().map_or("", |authority| authority.as_str())
}

/// The state of the gateway's handlers.
#[derive(Clone)]
struct Gateway {
    client: DownstreamClient,
    circuits: KeyedCircuits<String>,
    orders: String,
    prices: String,
}

impl Gateway {
    fn router(self) -> Result<Router, BoxError> {
        // This handler always fails. axum's handlers have no error type, so `http_fallback` turns a
        // rejection into a response.
        let config = BreakerConfig::builder().name("report").build()?;
        let report_breaker = BreakerLayer::new(config).http_fallback();
        let report = any(async || StatusCode::INTERNAL_SERVER_ERROR).layer(report_breaker);
        Ok(Router::new()
            .nest("/orders", Router::new().fallback(forward_order))
            .nest("/prices", Router::new().fallback(forward_price))
            .route("/report", report)
            .route("/ready", any(ready))
            .with_state(self))
    }

    fn is_open(&self, address: &str) -> bool {
        // `rejects_calls` returns false as soon as the open duration is over. The instance then
        // gets requests again, and one of them is the probe that can close the circuit.
        self.circuits.get(address).is_some_and(|circuit| circuit.status().rejects_calls())
    }
}

/// Fails while orders cannot be forwarded. The gateway is useful without prices.
async fn ready(State(gateway): State<Gateway>) -> Response {
    let orders_open = gateway.is_open(&gateway.orders);
    let prices_open = gateway.is_open(&gateway.prices);
    let status = if orders_open { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    (status, format!("open circuits: orders {orders_open}, prices {prices_open}")).into_response()
}

async fn forward_order(State(gateway): State<Gateway>, request: Request) -> Response {
    forward(gateway.client, &gateway.orders, request).await
}

async fn forward_price(State(gateway): State<Gateway>, request: Request) -> Response {
    forward(gateway.client, &gateway.prices, request).await
}

async fn forward(client: DownstreamClient, address: &str, mut request: Request) -> Response {
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let Ok(uri) = format!("http://{address}{path}").parse() else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    *request.uri_mut() = uri;
    *request.version_mut() = Version::HTTP_11;
    // The client adds the `Host` of the new URI.
    request.headers_mut().remove(header::HOST);
    remove_connection_headers(request.headers_mut());

    match client.oneshot(request).await {
        Ok(mut response) => {
            remove_connection_headers(response.headers_mut());
            response.map(Body::new)
        }
        // A 503 with `Retry-After`.
        Err(BreakerError::Rejected(rejection)) => rejection.into_response(),
        Err(error) => {
            eprintln!("cannot forward a request to {address}: {}", ErrorChain(&error));
            let status = match classify_error(&error).kind() {
                Kind::Timeout => StatusCode::GATEWAY_TIMEOUT,
                _ => StatusCode::BAD_GATEWAY,
            };
            status.into_response()
        }
    }
}

/// The headers that belong to one connection, so that a proxy does not forward them (RFC 9110,
/// section 7.6.1).
const CONNECTION_HEADERS: [HeaderName; 8] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Removes the headers of the connection, and those that `Connection` names.
fn remove_connection_headers(headers: &mut HeaderMap) {
    let mut names = CONNECTION_HEADERS.to_vec();
    for value in headers.get_all(header::CONNECTION) {
        let listed = value.to_str().unwrap_or_default().split(',');
        names.extend(listed.filter_map(|name| name.trim().parse::<HeaderName>().ok()));
    }
    for name in names {
        headers.remove(name);
    }
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let slow_order_received = Arc::new(Notify::new());
    let finish_slow_order = Arc::new(Notify::new());
    let orders = orders_service(Arc::clone(&slow_order_received), Arc::clone(&finish_slow_order));
    let prices = Router::new().fallback(async || StatusCode::SERVICE_UNAVAILABLE);
    // The downstream services are never stopped.
    let (orders, _) = serve(orders, Arc::default()).await?;
    let (prices, _) = serve(prices, Arc::default()).await?;

    let (client, circuits) = downstream_client()?;
    let gateway = Gateway { client, circuits: circuits.clone(), orders: orders.clone(), prices };
    let stop = Arc::new(Notify::new());
    let (address, server) = serve(gateway.router()?, Arc::clone(&stop)).await?;

    put(&address, "/orders").await?;
    // The gateway sends a PUT to the prices three times, and passes the last response on. Their
    // circuit counts the first of the three attempts. Five failures in a row open both circuits,
    // because they span more than a second.
    for _ in 0..5 {
        put(&address, "/prices").await?;
        put(&address, "/report").await?;
        tokio::time::sleep(PRICES_INTERVAL).await;
    }
    for path in ["/prices", "/report", "/orders", "/ready"] {
        put(&address, path).await?;
    }

    println!("an operator takes the orders out of service");
    let orders_circuit = circuits.get(&orders).ok_or("no order was forwarded")?;
    orders_circuit.force_open()?;
    put(&address, "/ready").await?;
    orders_circuit.release();

    println!("the gateway shuts down while a request is running");
    let request = tokio::spawn(async move { put(&address, "/orders/slow").await });
    slow_order_received.notified().await;
    stop.notify_one();
    finish_slow_order.notify_one();
    request.await??;
    Ok(server.await??)
}

/// Serves on a loopback port until `stop` is notified, and then completes the running requests.
async fn serve(router: Router, stop: Arc<Notify>) -> io::Result<(String, JoinHandle<io::Result<()>>)> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?.to_string();
    let server = axum::serve(listener, router).with_graceful_shutdown(async move { stop.notified().await });
    Ok((address, tokio::spawn(server.into_future())))
}

fn orders_service(slow_order_received: Arc<Notify>, finish_slow_order: Arc<Notify>) -> Router {
    let slow = async move || {
        slow_order_received.notify_one();
        finish_slow_order.notified().await;
        "slow order accepted"
    };
    let order = async |body: Bytes| format!("order of {} bytes accepted", body.len());
    Router::new().route("/slow", any(slow)).fallback(order)
}

/// Sends a PUT to the gateway, and prints the response.
async fn put(gateway: &str, path: &str) -> Result<(), BoxError> {
    let request = http::Request::put(format!("http://{gateway}{path}")).body(Body::from("order"))?;
    let response = Client::builder(TokioExecutor::new()).build_http().request(request).await?;
    let status = response.status();
    let retry_after = response.headers().contains_key(header::RETRY_AFTER);
    let text = to_bytes(Body::new(response.into_body()), 1024).await?;
    let note = if retry_after { " with Retry-After" } else { "" };
    println!("PUT {path}: {status}{note} {:?}", String::from_utf8_lossy(&text));
    Ok(())
}
