//! reqwest's client under the three layers: a GET that is retried, a POST that is not, bodies that
//! stream both ways, and a circuit that opens and closes again.
//!
//! `cargo run --example reqwest`

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::StatusCode;
use axum::routing::{get, post, put};
use reqwest::{Client, Method, Request};
use tokio::net::TcpListener;
use tower::{Service, ServiceBuilder, ServiceExt};
use tower_breaker::{BreakerConfig, BreakerError, BreakerLayer};
use tower_fault_classify::{CarriedVerdict, ClassifiedError, ErrorChain, FaultClassifyLayer};
use tower_jitter_retry::{JitterRetryLayer, Retried, RetryPolicy};

/// Prices are there at every third request, orders fail, and what is put into the archive comes
/// back.
async fn upstream() -> io::Result<String> {
    let asked = Arc::new(AtomicUsize::new(0));
    let price = async move || {
        if asked.fetch_add(1, Ordering::Relaxed) % 3 < 2 {
            (StatusCode::SERVICE_UNAVAILABLE, "later")
        } else {
            (StatusCode::OK, "12.50")
        }
    };
    let router = Router::new()
        .route("/price", get(price))
        .route("/order", post(async || StatusCode::INTERNAL_SERVER_ERROR))
        .route("/archive", put(async |body: Body| body));
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let url = format!("http://{}", listener.local_addr()?);
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(url)
}

type Answer = Result<reqwest::Response, BreakerError<ClassifiedError>>;

/// What became of a request, for people.
async fn tell(what: &str, answer: Answer) {
    match answer {
        Ok(mut response) => {
            let attempts = response.extensions().get::<Retried>().map_or(1, |retried| retried.attempts);
            let kind = CarriedVerdict::get(&response)
                .and_then(|verdict| verdict.fault().map(|fault| fault.kind().as_str()))
                .unwrap_or("success");
            let (status, mut bytes) = (response.status(), 0);
            // The body comes in pieces, as the server sends it.
            while let Ok(Some(chunk)) = response.chunk().await {
                bytes += chunk.len();
            }
            println!("{what}: {}, {bytes} bytes, {attempts} attempt(s), judged as {kind}", status.as_u16());
        }
        Err(BreakerError::Rejected(rejection)) => println!("{what}: not sent, {rejection}"),
        Err(error) => println!("{what}: {}", ErrorChain(&error)),
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = upstream().await?;
    let request = |method, path: &str| -> Result<Request, Box<dyn std::error::Error>> {
        Ok(Request::new(method, format!("{url}{path}").parse()?))
    };

    let breaker = BreakerConfig::builder()
        .name("shop")
        .consecutive_failures(3)
        .open_for(Duration::from_millis(150))
        .successes_to_close(1)
        .build()?;
    let breaker = BreakerLayer::new(breaker);
    let circuit = breaker.circuit();
    let policy = RetryPolicy::builder().initial_backoff(Duration::from_millis(10)).build()?;
    let mut shop = ServiceBuilder::new()
        .layer(JitterRetryLayer::new(policy))
        .layer(breaker)
        .layer(FaultClassifyLayer::new())
        .timeout(Duration::from_secs(5))
        // The stack retries what HTTP/2 turned away: reqwest need not.
        .service(Client::builder().retry(reqwest::retry::never()).build()?);

    tell("price", shop.ready().await?.call(request(Method::GET, "/price")?).await).await;

    let mut archive = request(Method::PUT, "/archive")?;
    let parts = ["one ", "piece ", "after ", "another"].map(Ok::<_, io::Error>);
    *archive.body_mut() = Some(reqwest::Body::wrap_stream(tokio_stream::iter(parts)));
    tell("archive", shop.ready().await?.call(archive).await).await;

    // A POST may have been processed, so that it is sent once each time; three failures in a row
    // open the circuit.
    for _ in 0..4 {
        tell("order", shop.ready().await?.call(request(Method::POST, "/order")?).await).await;
    }
    println!("the circuit is {}", circuit.status().state);

    // Long enough for the circuit to let a probe through.
    tokio::time::sleep(Duration::from_millis(200)).await;
    tell("archive", shop.ready().await?.call(request(Method::PUT, "/archive")?).await).await;
    println!("the circuit is {}", circuit.status().state);
    Ok(())
}
