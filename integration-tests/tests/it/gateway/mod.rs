//! Tests of an axum gateway, as its clients and its downstream services see it.

mod bodies;
mod circuits;
mod disconnect;
mod markers;
mod reload;
mod shutdown;
mod uploads;

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderName, StatusCode, Version, header};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use integration_tests::{TIMEOUT, reqwest_client};
use test_servers::Http;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::{JoinHandle, yield_now};
use tokio::time::timeout;
use tower::util::BoxCloneSyncService;
use tower::{ServiceBuilder, ServiceExt};
use tower_breaker::keyed::{KeyedBreakerLayer, KeyedCircuits, KeyedConfig};
use tower_breaker::{BreakerConfig, BreakerError, BreakerLayer, Clock, ManualClock};
use tower_fault_classify::upload::{UploadBody, UploadLayer};
use tower_fault_classify::{ClassifiedError, FaultClassifyLayer};
use tower_jitter_retry::{Jitter, JitterRetryLayer, RetryPolicy};

const OPEN_FOR: Duration = Duration::from_secs(30);

type Stack = BoxCloneSyncService<Request, http::Response<Incoming>, BreakerError<ClassifiedError>>;

/// The gateway of the example, with downstream services and a clock that the test controls.
struct Gateway {
    url: String,
    clock: ManualClock,
    circuits: KeyedCircuits<String>,
    orders: Http,
    prices: Http,
    /// The status that the guarded route answers with.
    report: Arc<AtomicU16>,
    stop: Arc<Notify>,
    serving: JoinHandle<std::io::Result<()>>,
}

/// The header in which the gateway sends the number of the attempt to its downstream services.
const MARKER: &str = "x-attempt";

/// Returns the preset of the example, with a marker header and without a delay.
fn policy() -> RetryPolicy {
    let policy = RetryPolicy::gateway().initial_backoff(Duration::ZERO).jitter(Jitter::None);
    policy.marker_header(HeaderName::from_static(MARKER)).build().unwrap()
}

/// Returns settings of a circuit that opens after three failed attempts in a row, and closes after
/// one successful probe.
fn config(clock: Clock) -> BreakerConfig {
    BreakerConfig::builder()
        .consecutive_failures(3)
        .consecutive_failures_span(Duration::ZERO)
        .count_failed_retries(true)
        .open_for(OPEN_FOR)
        .open_jitter(0.0)
        .successes_to_close(1)
        .clock(clock)
        .build()
        .unwrap()
}

fn authority(server: &Http) -> String {
    server.url().replace("http://", "")
}

async fn forward(State((stack, to)): State<(Stack, String)>, mut request: Request) -> Response {
    let path = request.uri().path_and_query().unwrap().as_str();
    *request.uri_mut() = format!("{to}{path}").parse().unwrap();
    *request.version_mut() = Version::HTTP_11;
    request.headers_mut().remove(header::HOST);
    request.headers_mut().remove(header::CONNECTION);
    match stack.oneshot(request).await {
        Ok(response) => response.map(Body::new),
        Err(BreakerError::Rejected(rejection)) => rejection.into_response(),
        Err(_) => StatusCode::BAD_GATEWAY.into_response(),
    }
}

/// Waits until a condition is true, by yielding to the other tasks.
async fn wait_until(condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            yield_now().await;
        }
    };
    timeout(TIMEOUT, wait).await.unwrap();
}

impl Gateway {
    async fn start() -> Self {
        let (orders, prices) = (Http::start().await, Http::start().await);
        let (clock, clock_handle) = Clock::manual();
        let keyed = KeyedConfig::builder(config(clock)).build().unwrap();
        let breaker = KeyedBreakerLayer::by_ref(keyed, |request: &http::Request<UploadBody<Body>>| {
            request.uri().authority().unwrap().as_str()
        });
        let circuits = breaker.circuits();
        let stack: Stack = BoxCloneSyncService::new(
            ServiceBuilder::new()
                .layer(JitterRetryLayer::new(policy()))
                .layer(UploadLayer::new())
                .layer(breaker)
                .layer(FaultClassifyLayer::new())
                .timeout(TIMEOUT)
                .service(Client::builder(TokioExecutor::new()).build_http()),
        );
        let to = |server: &Http| Router::new().fallback(forward).with_state((stack.clone(), server.url()));
        let report = Arc::new(AtomicU16::new(200));
        let report_status = Arc::clone(&report);
        let answer = async move || StatusCode::from_u16(report_status.load(Ordering::Relaxed)).unwrap();
        let (ready_circuits, keys) =
            (circuits.clone(), [("orders", authority(&orders)), ("prices", authority(&prices))]);
        let ready = async move || {
            let is_open =
                |key: &str| ready_circuits.get(key).is_some_and(|circuit| circuit.status().rejects_calls());
            let open: Vec<_> = keys.iter().filter(|(_, key)| is_open(key)).map(|(name, _)| *name).collect();
            let status =
                if open.contains(&"orders") { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
            (status, open.join(" "))
        };
        let app = Router::new()
            .nest("/orders", to(&orders))
            .nest("/prices", to(&prices))
            .route("/report", any(answer).layer(BreakerLayer::new(config(clock)).http_fallback()))
            .route("/ready", any(ready));

        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let stop = Arc::new(Notify::new());
        let stopped = Arc::clone(&stop);
        let serving =
            axum::serve(listener, app).with_graceful_shutdown(async move { stopped.notified().await });
        let serving = tokio::spawn(serving.into_future());
        Self { url, clock: clock_handle, circuits, orders, prices, report, stop, serving }
    }

    /// Sends a GET. Returns the status, the value of `Retry-After`, and the body.
    async fn get(&self, path: &str) -> (u16, Option<String>, String) {
        let response =
            reqwest_client().build().unwrap().get(format!("{}{path}", self.url)).send().await.unwrap();
        let after =
            response.headers().get(header::RETRY_AFTER).map(|value| value.to_str().unwrap().to_owned());
        (response.status().as_u16(), after, response.text().await.unwrap())
    }

    async fn status(&self, path: &str) -> u16 {
        self.get(path).await.0
    }
}
