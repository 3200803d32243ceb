//! A `reqwest::Client` with retries, a circuit breaker and a timeout.
//!
//! The program shows:
//!
//! - a GET that is retried, and a POST that is not;
//! - request and response bodies that stream;
//! - a circuit that opens after five failures, and closes after two successful probes.
//!
//! ```text
//! cargo run --example reqwest
//! ```

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::StatusCode;
use axum::routing::{get, post, put};
use reqwest::{Client, Method, Request, Response, Url};
use tokio::net::TcpListener;
use tower::timeout::{Timeout, TimeoutLayer};
use tower::{BoxError, Service, ServiceBuilder, ServiceExt};
use tower_breaker::{Breaker, BreakerConfig, BreakerError, BreakerLayer, Circuit};
use tower_fault_classify::{CarriedVerdict, ErrorChain, FaultClassify, FaultClassifyLayer, Verdict};
use tower_jitter_retry::{JitterRetry, JitterRetryLayer, Retried, RetryPolicy};

/// The pause between two orders.
const ORDER_INTERVAL: Duration = Duration::from_millis(300);

/// The client with its layers. The type has a name, so that a struct can hold the client.
type ShopClient = JitterRetry<Breaker<FaultClassify<Timeout<Client>>>>;

/// Builds the client, and returns it with a handle to its circuit.
fn shop_client() -> Result<(ShopClient, Circuit), BoxError> {
    // All other settings of the breaker have their defaults, as those of the retry layer do.
    let breaker_config = BreakerConfig::builder().name("shop").build()?;
    let breaker = BreakerLayer::new(breaker_config);
    let circuit = breaker.circuit();

    let client = Client::builder()
        // The stack retries, so reqwest does not need its own retries of refused HTTP/2 requests.
        .retry(reqwest::retry::never())
        // The demo's server is on loopback. Leave this line out if your program may use a proxy.
        .no_proxy()
        .build()?;

    let stack = ServiceBuilder::new()
        // Outermost: the breaker sees each attempt, and rejects attempts while it is open.
        .layer(JitterRetryLayer::new(RetryPolicy::default()))
        .layer(breaker)
        // Classifies each outcome once. The two layers above read the verdict.
        .layer(FaultClassifyLayer::new())
        // Innermost: the limit applies to each attempt, and a timeout is classified.
        .layer(TimeoutLayer::new(Duration::from_secs(5)))
        .service(client);
    Ok((stack, circuit))
}

/// Sends a request and prints how it ended.
async fn send(client: &mut ShopClient, request: Request) -> Result<(), BoxError> {
    let name = format!("{} {}", request.method(), request.url().path());
    match client.ready().await?.call(request).await {
        Ok(response) => println!("{name}: {}", describe(response).await?),
        Err(BreakerError::Rejected(rejection)) => println!("{name}: not sent: {rejection}"),
        // An error prints only its own message. `ErrorChain` adds its sources.
        Err(error) => println!("{name}: {}", ErrorChain(&error)),
    }
    Ok(())
}

/// Describes a response, and reads its body to the end.
async fn describe(mut response: Response) -> reqwest::Result<String> {
    let status = response.status().as_u16();
    let kind = fault_kind(&response);
    // The retry layer adds `Retried` to a response after a retry.
    let attempts = response.extensions().get::<Retried>().map_or(1, |retried| retried.attempts);
    let mut length = 0;
    while let Some(chunk) = response.chunk().await? {
        length += chunk.len();
    }
    Ok(format!("status {status}, classified as {kind}, {attempts} attempt(s), {length} bytes"))
}

/// Returns the kind of fault in the verdict that `FaultClassifyLayer` attached to a response. The
/// layer attaches nothing to a success.
fn fault_kind(response: &Response) -> &'static str {
    match CarriedVerdict::get(response) {
        Some(Verdict::Fault(fault)) => fault.kind().as_str(),
        Some(Verdict::Success) | None => "success",
    }
}

/// Builds a PUT request whose body is a stream.
///
/// The retry layer records the body while it is sent, up to 64 KiB, so that it can send it again.
fn streaming_upload(url: Url) -> Request {
    let chunks = ["one ", "chunk ", "after ", "another"].map(Ok::<_, io::Error>);
    let mut request = Request::new(Method::PUT, url);
    *request.body_mut() = Some(reqwest::Body::wrap_stream(tokio_stream::iter(chunks)));
    request
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let server = start_server().await?;
    let (mut client, circuit) = shop_client()?;

    // A GET is idempotent: the layer sends it again after a 503.
    send(&mut client, Request::new(Method::GET, server.join("/price")?)).await?;

    send(&mut client, streaming_upload(server.join("/archive")?)).await?;

    // The server may have processed a POST before it answered 500, so the layer does not send the
    // POST again. Five failures in a row open the circuit, because the last one is more than a
    // second after the first one. The sixth call is rejected.
    for _ in 0..6 {
        send(&mut client, Request::new(Method::POST, server.join("/order")?)).await?;
        tokio::time::sleep(ORDER_INTERVAL).await;
    }
    println!("the circuit is {}", circuit.status().state);

    // The circuit stays open for 3 to 4.5 s. The next two calls are probes: they succeed and close
    // the circuit.
    tokio::time::sleep(circuit.status().retry_after.unwrap_or_default()).await;
    for _ in 0..2 {
        send(&mut client, streaming_upload(server.join("/archive")?)).await?;
        println!("the circuit is {}", circuit.status().state);
    }
    Ok(())
}

/// Starts a server on a loopback port.
///
/// - `GET /price` answers 503 twice, then 200.
/// - `POST /order` answers 500.
/// - `PUT /archive` answers with the body of the request.
async fn start_server() -> Result<Url, BoxError> {
    let price_requests = Arc::new(AtomicUsize::new(0));
    let price = async move || {
        if price_requests.fetch_add(1, Ordering::Relaxed) < 2 {
            (StatusCode::SERVICE_UNAVAILABLE, "try later")
        } else {
            (StatusCode::OK, "12.50")
        }
    };
    let router = Router::new()
        .route("/price", get(price))
        .route("/order", post(async || StatusCode::INTERNAL_SERVER_ERROR))
        .route("/archive", put(async |body: Body| body));
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let url = Url::parse(&format!("http://{}", listener.local_addr()?))?;
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(url)
}
