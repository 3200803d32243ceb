//! The three layers and a timeout around every client and in a server. Each stack compiles,
//! answers, retries, and opens its circuit.

mod answered_uploads;
mod axum_route;
mod boxed;
mod errors;
mod failed_retries;
mod fallbacks;
mod fault_injection;
mod hyper_client;
mod last_failure;
mod lost_peers;
mod reqwest_chain;
mod reqwest_client;
mod reqwest_over_middleware;
mod service_fn;
mod tls;
mod tonic_channel;
mod uploads;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::Path;
use axum::http::StatusCode;
use integration_tests::retry_at_once;
use tower_breaker::{BreakerConfig, Clock};
use tower_jitter_retry::RetryPolicy;

/// Returns settings of a circuit that opens at the sixth failed attempt, and stays open during the
/// test.
fn circuit() -> BreakerConfig {
    BreakerConfig::builder()
        .name("stack")
        .consecutive_failures(6)
        .consecutive_failures_span(Duration::ZERO)
        .count_failed_retries(true)
        .clock(Clock::manual().0)
        .build()
        .unwrap()
}

/// Returns a policy of three attempts without a delay.
fn policy() -> RetryPolicy {
    retry_at_once().build().unwrap()
}

/// A server that answers with the status in the path, and counts requests.
struct Upstream {
    url: String,
    requests: Arc<AtomicUsize>,
}

impl Upstream {
    async fn start() -> Self {
        let requests = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&requests);
        let router = Router::new().route(
            "/{status}",
            axum::routing::any(async move |Path(status): Path<u16>| {
                counter.fetch_add(1, Ordering::Relaxed);
                StatusCode::from_u16(status).unwrap()
            }),
        );
        Self { url: format!("http://{}", integration_tests::serve(router).await), requests }
    }

    fn url(&self, status: u16) -> String {
        format!("{}/{status}", self.url)
    }

    /// Returns the number of requests since the last call of this function.
    fn requests(&self) -> usize {
        self.requests.swap(0, Ordering::Relaxed)
    }
}
