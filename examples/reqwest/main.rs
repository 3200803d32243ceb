//! A client struct around a `reqwest::Client`, with retries, circuit breakers and a timeout.
//!
//! The program shows:
//!
//! - a file of settings, with limits of its own for one host, and the error for a bad value;
//! - a circuit for each host, and settings of one request: a POST that may be sent twice, a
//!   deadline, a key;
//! - request and response bodies that stream;
//! - how to handle an error, read the number of attempts, and find the last failure of a circuit.
//!
//! ```text
//! cargo run --example reqwest
//! ```

use std::fmt;
use std::future::{Ready, pending, ready};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::StatusCode;
use axum::routing::{get, post, put};
use reqwest::{Client, Request, Response};
use serde::Deserialize;
use tokio::net::TcpListener;
use tower::timeout::TimeoutLayer;
use tower::util::BoxCloneSyncService;
use tower::{BoxError, ServiceBuilder, ServiceExt};
use tower_breaker::keyed::{KeyedBreakerLayer, KeyedCircuits, KeyedConfig};
use tower_breaker::{BreakerError, HumanDuration};
use tower_fault_classify::{ClassifiedError, ErrorChain, FaultClassifyLayer, Kind};
use tower_jitter_retry::request::RequestExt;
use tower_jitter_retry::{Deadline, JitterRetryLayer, Retried, RetryPolicy, RetrySafety};

/// The settings file. It is compiled in so that the example needs no path. A service would call
/// `std::fs::read_to_string` instead.
const SETTINGS: &str = include_str!("settings.toml");

/// The settings of the program. A table that is left out has the defaults.
#[derive(Deserialize)]
// An unknown table is an error. Without this line, a misspelled name would mean the defaults.
#[serde(deny_unknown_fields)]
struct Settings {
    /// The time limit of an attempt.
    attempt_timeout: HumanDuration,
    #[serde(default)]
    breaker: KeyedConfig,
    #[serde(default)]
    retry: RetryPolicy,
}

/// The key of a circuit: a host, or a group of requests.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Upstream(String);

/// The label of the circuit in the settings file, in rejections and in the status.
impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn host(request: &Request) -> Upstream {
    Upstream(request.url().host_str().unwrap_or_default().to_owned())
}

/// The subject of the last failure of a circuit.
fn subject(request: &Request) -> String {
    format!("{} {}", request.method(), request.url().path())
}

type ShopError = BreakerError<ClassifiedError>;

/// The client of a shop. Clones share connections, circuits and the retry budget.
#[derive(Clone)]
struct Shop {
    /// Builds requests.
    client: Client,
    /// Sends requests. The box hides the types of the layers.
    service: BoxCloneSyncService<Request, Response, ShopError>,
    circuits: KeyedCircuits<Upstream>,
}

impl Shop {
    fn new(settings: Settings, client: Client) -> Self {
        let breakers = KeyedBreakerLayer::new(settings.breaker, host)
            // An `Upstream` in the extensions of a request replaces the host.
            .key_from_extension()
            .keep_last_failure_by(subject);
        let circuits = breakers.circuits();
        let service = ServiceBuilder::new()
            .layer(BoxCloneSyncService::layer())
            // The breaker sees each attempt, and rejects attempts while the circuit is open.
            .layer(JitterRetryLayer::new(settings.retry))
            .layer(breakers)
            // Classifies each outcome once. The two layers above read the verdict.
            .layer(FaultClassifyLayer::new())
            // Innermost: the limit applies to each attempt, and a timeout is classified.
            .layer(TimeoutLayer::new(settings.attempt_timeout.into()))
            .service(client.clone());
        Self { client, service, circuits }
    }

    async fn send(&self, request: Request) -> Result<Response, ShopError> {
        // A clone for each call, so that calls can run at the same time.
        self.service.clone().oneshot(request).await
    }

    /// A GET is idempotent, so the retry layer may send it again.
    fn price(&self) -> reqwest::Result<Request> {
        self.client.get("http://prices.example/price").build()
    }

    /// The retry layer keeps a streaming body while it is sent, up to 64 KiB, to send it again.
    fn archive(&self) -> reqwest::Result<Request> {
        let chunks = ["one ", "chunk ", "after ", "another"].map(Ok::<_, io::Error>);
        let body = reqwest::Body::wrap_stream(tokio_stream::iter(chunks));
        self.client.put("http://files.example/archive").body(body).build()
    }

    /// A POST is not sent again after a 500, because the server may have processed it.
    fn order(&self) -> reqwest::Result<Request> {
        self.client.post("http://orders.example/order").build()
    }

    /// This POST may be sent again: the server detects a repeated confirmation. It has a circuit of
    /// its own, so that failed orders do not stop confirmations.
    fn confirmation(&self) -> reqwest::Result<Request> {
        let request = self.client.post("http://orders.example/confirmation").build()?;
        let circuit = Upstream("confirmations".to_owned());
        Ok(request.with_extension(RetrySafety::Always).with_extension(circuit))
    }

    /// No retry of this request starts after the deadline. Any attempt may run past it, up to the
    /// time limit of an attempt.
    fn report(&self) -> reqwest::Result<Request> {
        let request = self.client.get("http://reports.example/report").build()?;
        Ok(request.with_extension(Deadline::within(Duration::from_millis(200))))
    }
}

/// Sends a request and prints how the call ended.
async fn send(shop: &Shop, request: Request) -> Result<(), BoxError> {
    let name = subject(&request);
    match shop.send(request).await {
        Ok(response) => println!("{name}: {}", describe_response(response).await?),
        Err(error) => println!("{name}: {}", describe_error(&error)),
    }
    Ok(())
}

/// Describes a response, and reads its body to the end.
async fn describe_response(mut response: Response) -> reqwest::Result<String> {
    let status = response.status().as_u16();
    // The retry layer adds `Retried` to a response after a retry.
    let attempts = response.extensions().get::<Retried>().map_or(1, |retried| retried.attempts);
    let mut length = 0;
    while let Some(chunk) = response.chunk().await? {
        length += chunk.len();
    }
    Ok(format!("status {status}, {attempts} attempt(s), {length} bytes"))
}

fn describe_error(error: &ShopError) -> String {
    match error {
        BreakerError::Rejected(rejection) => format!("not sent: {rejection}"),
        BreakerError::Inner(error) if error.fault().kind() == Kind::Timeout => {
            "no response in time".to_owned()
        }
        // An error prints only its own message. `ErrorChain` adds its sources.
        error => ErrorChain(error).to_string(),
    }
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    // `ring` does the cryptography, because it needs only a C compiler. With the default features
    // of reqwest, this line is not needed.
    rustls::crypto::ring::default_provider().install_default().expect("no other provider is installed");
    let client = demo_client(start_server().await?)?;
    let shop = Shop::new(toml::from_str(SETTINGS)?, client);

    send(&shop, shop.price()?).await?;
    send(&shop, shop.archive()?).await?;
    send(&shop, shop.confirmation()?).await?;
    send(&shop, shop.report()?).await?;

    // Two failures open the circuit of the host, as `settings.toml` says. The third order is
    // rejected. The circuits of other keys stay closed.
    for _ in 0..3 {
        send(&shop, shop.order()?).await?;
    }
    send(&shop, shop.confirmation()?).await?;
    // The status says which request failed last, and why. Its JSON form suits a status page.
    let orders = shop.circuits.circuit(&Upstream("orders.example".to_owned()));
    if let Some(failure) = orders.status().last_failure {
        println!("last failure: {}: {}", failure.subject, failure.message);
    }

    // The circuit stays open for 500 to 750 ms. Two successful probes close it.
    tokio::time::sleep(orders.status().retry_after.unwrap_or_default()).await;
    for _ in 0..2 {
        send(&shop, shop.order()?).await?;
        println!("orders.example is {}", orders.status().state);
    }

    // The error shows the line, and names the setting, its value and the allowed range.
    let bad_settings = SETTINGS.replace("failure_rate = 0.5", "failure_rate = 1.5");
    if let Err(error) = toml::from_str::<Settings>(&bad_settings) {
        println!("invalid settings: {error}");
    }
    Ok(())
}

/// Builds a client that resolves the hosts of the shop to the demo's server.
fn demo_client(server: SocketAddr) -> reqwest::Result<Client> {
    let mut client = Client::builder()
        // The stack retries, so reqwest does not need its own retries of refused HTTP/2 requests.
        .retry(reqwest::retry::never())
        // The demo's server is on loopback. Leave this line out if your program may use a proxy.
        .no_proxy();
    for host in ["prices.example", "files.example", "orders.example", "reports.example"] {
        client = client.resolve(host, server);
    }
    client.build()
}

/// Starts a server on a loopback port, which plays all hosts.
async fn start_server() -> io::Result<SocketAddr> {
    let reports = Arc::new(AtomicUsize::new(0));
    let report = async move || {
        // The first request gets no answer.
        if reports.fetch_add(1, Ordering::Relaxed) == 0 {
            pending::<()>().await;
        }
    };
    let router = Router::new()
        .route("/price", get(fails_at_first(2, StatusCode::SERVICE_UNAVAILABLE)))
        .route("/archive", put(async |body: Body| body))
        .route("/confirmation", post(fails_at_first(1, StatusCode::INTERNAL_SERVER_ERROR)))
        .route("/order", post(fails_at_first(2, StatusCode::INTERNAL_SERVER_ERROR)))
        .route("/report", get(report));
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(address)
}

/// Returns a handler that answers its first `count` requests with the status `failure`.
fn fails_at_first(count: usize, failure: StatusCode) -> impl Fn() -> Ready<StatusCode> + Clone + Send + Sync {
    let requests = Arc::new(AtomicUsize::new(0));
    move || {
        let is_failure = requests.fetch_add(1, Ordering::Relaxed) < count;
        ready(if is_failure { failure } else { StatusCode::OK })
    }
}
