//! reqwest-middleware, both ways: the layers over a client that has middleware, and the layers
//! inside its chain.
//!
//! `cargo run --example reqwest_middleware`

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::http::{Extensions, StatusCode};
use axum::routing::get;
use reqwest::{Client, Method, Request, Response};
use reqwest_middleware::{ClientBuilder, Middleware, Next};
use tokio::net::TcpListener;
use tower::{Service, ServiceBuilder, ServiceExt};
use tower_breaker::{BreakerConfig, BreakerError, BreakerLayer};
use tower_fault_classify::middleware::TowerMiddleware;
use tower_fault_classify::{ClassifiedError, ErrorChain, FaultClassifyLayer, classify_error};
use tower_jitter_retry::{Jitter, JitterRetryLayer, RetryPolicy};

/// A middleware as users have them: it counts what passes it.
struct Count(Arc<AtomicUsize>);

#[async_trait::async_trait]
impl Middleware for Count {
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

/// Fails always, and says where it is.
async fn upstream() -> std::io::Result<String> {
    let router = Router::new().route("/", get(async || StatusCode::SERVICE_UNAVAILABLE));
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let url = format!("http://{}/", listener.local_addr()?);
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(url)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = upstream().await?;
    let policy = RetryPolicy::builder().initial_backoff(Duration::ZERO).jitter(Jitter::None).build()?;
    let circuit = |name| BreakerConfig::builder().name(name).consecutive_failures(6).build();

    // Over the client: a `ClientWithMiddleware` is a service like any other. Its middleware sees
    // every attempt.
    let passed = Arc::new(AtomicUsize::new(0));
    let client = ClientBuilder::new(Client::new()).with(Count(Arc::clone(&passed))).build();
    let mut over = ServiceBuilder::new()
        .layer(JitterRetryLayer::new(policy.clone()))
        .layer(BreakerLayer::new(circuit("over")?))
        .layer(FaultClassifyLayer::new())
        .timeout(Duration::from_secs(5))
        .service(client);
    for _ in 0..3 {
        match over.ready().await?.call(Request::new(Method::GET, url.parse()?)).await {
            Ok(response) => println!("over: {}", response.status().as_u16()),
            Err(BreakerError::Rejected(rejection)) => println!("over: {rejection}"),
            Err(error) => println!("over: {}", ErrorChain(&error)),
        }
    }
    println!("over: {} requests passed the chain", passed.swap(0, Ordering::Relaxed));

    // Inside the chain: middleware outside of the layers sees a request once, middleware inside of
    // them every attempt. The client stays a `ClientWithMiddleware`, with all its methods.
    let calls = Arc::new(AtomicUsize::new(0));
    let stack = ServiceBuilder::new()
        .layer(JitterRetryLayer::new(policy))
        .layer(BreakerLayer::new(circuit("inside")?))
        .layer(FaultClassifyLayer::new())
        .timeout(Duration::from_secs(5))
        .into_inner();
    let client = ClientBuilder::new(Client::new())
        .with(Count(Arc::clone(&calls)))
        .with(TowerMiddleware::new(stack))
        .with(Count(Arc::clone(&passed)))
        .build();
    for _ in 0..3 {
        match client.get(&url).send().await {
            Ok(response) => println!("inside: {}", response.status().as_u16()),
            // The chain's error type has no room for ours: it is found in the chain of sources, as
            // is the verdict.
            Err(error) => println!("inside: {} ({})", classify_error(&error).kind(), rejection(&error)),
        }
    }
    let (calls, passed) = (calls.load(Ordering::Relaxed), passed.load(Ordering::Relaxed));
    println!("inside: {calls} calls, {passed} requests passed the rest of the chain");
    Ok(())
}

fn rejection(error: &reqwest_middleware::Error) -> String {
    let reqwest_middleware::Error::Middleware(error) = error else { return "none".to_owned() };
    let found = error.chain().find_map(|error| error.downcast_ref::<BreakerError<ClassifiedError>>());
    match found {
        Some(BreakerError::Rejected(rejection)) => rejection.to_string(),
        _ => "none".to_owned(),
    }
}
