//! The layers with reqwest-middleware, in two arrangements.
//!
//! | arrangement | the program calls | middleware sees |
//! |---|---|---|
//! | the layers around the client | a tower service | each attempt |
//! | the layers as a middleware of the client | a `ClientWithMiddleware` | each call before the layers, each attempt after them |
//!
//! The calls are POSTs that may be sent twice. An extension of the request says so, in both
//! arrangements.
//!
//! The server always answers 503, so each of the first four calls makes three attempts. The circuit
//! does not count the failures of retries. The first attempt of the fifth call is the fifth failure
//! in a row. It opens the circuit, because it is more than a second after the first failure. The
//! sixth call is rejected.
//!
//! ```text
//! cargo run --example reqwest_middleware
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::http::{Extensions, StatusCode};
use axum::routing::post;
use reqwest::{Client, Method, Request, Response};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware, Middleware, Next};
use tokio::net::TcpListener;
use tower::timeout::TimeoutLayer;
use tower::{BoxError, Service, ServiceBuilder, ServiceExt};
use tower_breaker::{BreakerConfig, BreakerError, BreakerLayer, Rejection};
use tower_fault_classify::middleware::TowerMiddleware;
use tower_fault_classify::{ErrorChain, FaultClassifyLayer, classify_error};
use tower_jitter_retry::request::RequestExt;
use tower_jitter_retry::{JitterRetryLayer, RetryPolicy, RetrySafety};

const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);

/// The number of calls in each arrangement.
const CALLS: u32 = 6;

/// The pause between two calls.
const CALL_INTERVAL: Duration = Duration::from_millis(300);

fn reqwest_client() -> reqwest::Result<Client> {
    Client::builder()
        // The stack retries, so reqwest does not need its own retries of refused HTTP/2 requests.
        .retry(reqwest::retry::never())
        // The demo's server is on loopback. Leave this line out if your program may use a proxy.
        .no_proxy()
        .build()
}

/// A middleware that counts the requests that pass through it.
#[derive(Clone, Default)]
struct Counter(Arc<AtomicUsize>);

impl Counter {
    fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

#[async_trait::async_trait]
impl Middleware for Counter {
    async fn handle(
        &self,
        request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> reqwest_middleware::Result<Response> {
        self.0.fetch_add(1, Ordering::Relaxed);
        next.run(request, extensions).await
    }
}

/// Puts the layers around a client that has a middleware.
async fn layers_around_client(url: &str) -> Result<(), BoxError> {
    let attempts = Counter::default();
    let client = ClientBuilder::new(reqwest_client()?).with(attempts.clone()).build();
    // A `ClientWithMiddleware` is a tower service.
    let breaker = BreakerLayer::new(BreakerConfig::builder().name("around").build()?);
    let mut service = ServiceBuilder::new()
        .layer(JitterRetryLayer::new(RetryPolicy::default()))
        .layer(breaker)
        .layer(FaultClassifyLayer::new())
        .layer(TimeoutLayer::new(ATTEMPT_TIMEOUT))
        .service(client);

    for _ in 0..CALLS {
        // Without this extension, a POST is not sent again after a 503.
        let request = Request::new(Method::POST, url.parse()?).with_extension(RetrySafety::Always);
        match service.ready().await?.call(request).await {
            Ok(response) => println!("around: status {}", response.status().as_u16()),
            Err(BreakerError::Rejected(rejection)) => println!("around: {rejection}"),
            Err(error) => println!("around: {}", ErrorChain(&error)),
        }
        tokio::time::sleep(CALL_INTERVAL).await;
    }
    println!("around: the middleware counted {} attempts", attempts.count());
    Ok(())
}

/// Builds a client that has the layers as a middleware, between two counters.
fn client_with_layers(calls: Counter, attempts: Counter) -> Result<ClientWithMiddleware, BoxError> {
    let breaker = BreakerLayer::new(BreakerConfig::builder().name("inside").build()?);
    let layers = ServiceBuilder::new()
        .layer(JitterRetryLayer::new(RetryPolicy::default()))
        .layer(breaker)
        .layer(FaultClassifyLayer::new())
        .layer(TimeoutLayer::new(ATTEMPT_TIMEOUT))
        .into_inner();
    // The adapter makes a service for each call. The circuit and the retry budget belong to the
    // layers, so all calls of this client share them.
    let client = ClientBuilder::new(reqwest_client()?)
        // Before the layers: sees each call once.
        .with(calls)
        .with(TowerMiddleware::new(layers))
        // After the layers: sees each attempt.
        .with(attempts)
        .build();
    Ok(client)
}

/// Puts the layers inside a client's chain of middleware.
async fn layers_inside_client(url: &str) -> Result<(), BoxError> {
    let calls = Counter::default();
    let attempts = Counter::default();
    // The client keeps its own methods, such as `post`.
    let client = client_with_layers(calls.clone(), attempts.clone())?;

    for _ in 0..CALLS {
        // The adapter passes the extensions to the layers.
        match client.post(url).with_extension(RetrySafety::Always).send().await {
            Ok(response) => println!("inside: status {}", response.status().as_u16()),
            Err(error) => {
                // Both functions search the sources of the error.
                let kind = classify_error(&error).kind();
                match Rejection::of(&error) {
                    Some(rejection) => println!("inside: {kind}: {rejection}"),
                    None => println!("inside: {kind}: {}", ErrorChain(&error)),
                }
            }
        }
        tokio::time::sleep(CALL_INTERVAL).await;
    }
    println!("inside: the middleware counted {} calls and {} attempts", calls.count(), attempts.count());
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    // `ring` does the cryptography, because it needs only a C compiler. With the default features
    // of reqwest, this line is not needed.
    rustls::crypto::ring::default_provider().install_default().expect("no other provider is installed");
    let url = start_server().await?;
    layers_around_client(&url).await?;
    layers_inside_client(&url).await
}

/// Starts a server on a loopback port that always answers 503.
async fn start_server() -> std::io::Result<String> {
    let router = Router::new().route("/", post(async || StatusCode::SERVICE_UNAVAILABLE));
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let url = format!("http://{}/", listener.local_addr()?);
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(url)
}
