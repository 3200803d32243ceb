//! What the pages say, held against real clients and servers where no other test does: see `docs`
//! and the READMEs of the crates.

mod breaker;
mod configuration;
mod errors;
mod migrating;
mod pages;
mod retry;
mod stacking;
mod unknown_errors;

use std::time::Duration;

use integration_tests::reqwest_client;
use reqwest::{Client, Method, Request};
use test_servers::Http;
use tower_breaker::{BreakerConfig, BreakerConfigBuilder, Clock};

const SECOND: Duration = Duration::from_secs(1);

/// A circuit on tokio's clock, which the tests pause.
fn circuit() -> BreakerConfigBuilder {
    BreakerConfig::builder().name("documentation").clock(Clock::tokio())
}

/// A client that resends nothing by itself.
fn client() -> Client {
    reqwest_client().build().unwrap()
}

fn request(method: Method, server: &Http) -> Request {
    Request::new(method, server.url().parse().unwrap())
}
