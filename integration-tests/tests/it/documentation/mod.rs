//! Tests of statements in the guides (`docs/`) and on the front pages of the crates that no other
//! test covers, with real clients and servers.

mod breaker;
mod configuration;
mod errors;
mod features;
// The page shows an error number of Linux.
#[cfg(target_os = "linux")]
mod getting_started;
mod layer_order;
mod manual_control;
mod migrating;
mod pages;
mod readme;
mod retry;
mod schema;
mod unknown_errors;

use std::time::Duration;

use integration_tests::reqwest_client;
use reqwest::{Client, Method, Request};
use test_servers::Http;
use tower_breaker::{BreakerConfig, BreakerConfigBuilder, Clock};

const SECOND: Duration = Duration::from_secs(1);

/// Returns the configuration of a circuit on tokio's clock, which the tests pause.
///
/// Consecutive failures open it at any moment, and it is open for exactly 30 s.
fn circuit() -> BreakerConfigBuilder {
    BreakerConfig::builder()
        .name("documentation")
        .consecutive_failures_span(Duration::ZERO)
        .open_for(30 * SECOND)
        .open_jitter(0.0)
        .clock(Clock::tokio())
}

/// Returns a client that does not retry by itself.
fn client() -> Client {
    reqwest_client().build().unwrap()
}

fn request(method: Method, server: &Http) -> Request {
    Request::new(method, server.url().parse().unwrap())
}
