//! Breaker and retry settings from one TOML file, and a client struct that is built from them.
//!
//! The program shows:
//!
//! - `[breaker]`, `[retry]` and a timeout as fields of the program's own settings;
//! - a client struct that holds the layers by their types, without boxing;
//! - the error for a value that is out of range.
//!
//! The crates read settings with their feature `serde`.
//!
//! ```text
//! cargo run --example config
//! ```

use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use reqwest::{Client, Method, Request, Response, Url};
use serde::Deserialize;
use tokio::net::TcpListener;
use tower::timeout::{Timeout, TimeoutLayer};
use tower::{BoxError, ServiceBuilder, ServiceExt};
use tower_breaker::{Breaker, BreakerConfig, BreakerError, BreakerLayer, HumanDuration};
use tower_fault_classify::{ClassifiedError, ErrorChain, FaultClassify, FaultClassifyLayer};
use tower_jitter_retry::{JitterRetry, JitterRetryLayer, RetryPolicy};

/// The settings file. It is compiled in so that the example needs no path. A service would call
/// `std::fs::read_to_string` instead.
const SETTINGS: &str = include_str!("settings.toml");

/// The pause between two searches.
const SEARCH_INTERVAL: Duration = Duration::from_millis(250);

/// The settings of the program. A table that is left out has the defaults.
#[derive(Deserialize)]
// An unknown table is an error. Without this line, a misspelled name would mean the defaults.
#[serde(deny_unknown_fields)]
struct Settings {
    /// The time limit of an attempt.
    timeout: HumanDuration,
    #[serde(default)]
    breaker: BreakerConfig,
    #[serde(default)]
    retry: RetryPolicy,
}

/// A client for the search service. Clones share connections, circuit and retry budget.
#[derive(Clone)]
struct SearchClient {
    service: JitterRetry<Breaker<FaultClassify<Timeout<Client>>>>,
    url: Url,
}

impl SearchClient {
    fn new(settings: Settings, url: Url) -> reqwest::Result<Self> {
        let client = Client::builder()
            // The stack retries, so reqwest does not need its own retries of refused HTTP/2
            // requests.
            .retry(reqwest::retry::never())
            // The demo's server is on loopback. Leave this line out if your program may use a
            // proxy.
            .no_proxy()
            .build()?;
        let service = ServiceBuilder::new()
            .layer(JitterRetryLayer::new(settings.retry))
            .layer(BreakerLayer::new(settings.breaker))
            .layer(FaultClassifyLayer::new())
            .layer(TimeoutLayer::new(settings.timeout.into()))
            .service(client);
        Ok(Self { service, url })
    }

    async fn search(&self) -> Result<Response, BreakerError<ClassifiedError>> {
        let request = Request::new(Method::GET, self.url.clone());
        // A clone for each call, so that calls can run at the same time.
        self.service.clone().oneshot(request).await
    }
}

/// Searches five times and prints how the calls end.
///
/// The server answers 503. Each call makes two attempts, and the circuit counts the first of them.
/// The fourth call opens the circuit, and the fifth call is rejected.
async fn search_five_times(client: &SearchClient) {
    for _ in 0..5 {
        match client.search().await {
            Ok(response) => println!("status {}", response.status().as_u16()),
            Err(BreakerError::Rejected(rejection)) => println!("not sent: {rejection}"),
            Err(error) => println!("failed: {}", ErrorChain(&error)),
        }
        tokio::time::sleep(SEARCH_INTERVAL).await;
    }
}

/// Reads a file with a value that is out of range, and prints the error.
fn print_error_for_bad_value() {
    let bad_settings = SETTINGS.replace("failure_rate = 0.5", "failure_rate = 1.5");
    match toml::from_str::<Settings>(&bad_settings) {
        Ok(_) => println!("the settings are valid"),
        // The error shows the line, and names the setting, its value and the allowed range.
        Err(error) => println!("invalid settings: {error}"),
    }
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let settings: Settings = toml::from_str(SETTINGS)?;
    println!(
        "breaker `{}` stays open for at least {:?}",
        settings.breaker.name(),
        settings.breaker.open_for()
    );
    if let Some(attempts) = settings.retry.max_attempts() {
        println!("each request is sent at most {attempts} times");
    }

    let client = SearchClient::new(settings, start_server().await?)?;
    search_five_times(&client).await;
    print_error_for_bad_value();
    Ok(())
}

/// Starts a server on a loopback port that always answers 503.
async fn start_server() -> Result<Url, BoxError> {
    let router = Router::new().route("/", get(async || StatusCode::SERVICE_UNAVAILABLE));
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let url = Url::parse(&format!("http://{}/", listener.local_addr()?))?;
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(url)
}
