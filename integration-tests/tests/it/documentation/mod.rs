//! What the pages say, held against real clients and servers where no other test does: see `docs` and the READMEs of the crates.

mod breaker;
mod charged;
mod configuration;
mod elsewhere;
mod errors;
mod pages;
mod retry;
mod unknown;

use std::sync::mpsc;
use std::time::Duration;

use reqwest::{Client, Method, Request};
use test_servers::Http;
use tower_breaker::{BreakerConfig, BreakerConfigBuilder, Clock};
use tower_jitter_retry::{Jitter, RetryPolicy, RetryPolicyBuilder};

const SECOND: Duration = Duration::from_secs(1);

/// Far more than anything over loopback takes: no test waits for it.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Three attempts without a delay.
fn at_once() -> RetryPolicyBuilder {
    RetryPolicy::builder().initial_backoff(Duration::ZERO).jitter(Jitter::None)
}

/// A circuit on tokio's clock, which the tests pause.
fn circuit() -> BreakerConfigBuilder {
    BreakerConfig::builder().name("claims").clock(Clock::tokio())
}

/// A client that resends nothing by itself.
fn client() -> Client {
    Client::builder().no_proxy().retry(reqwest::retry::never()).build().unwrap()
}

fn request(method: Method, server: &Http) -> Request {
    Request::new(method, server.url().parse().unwrap())
}

/// Keeps paused time where it is while a test waits for a socket. Tokio moves it on by itself as soon as all tasks wait, but not while a
/// blocking task runs: this one runs until it is dropped.
struct Standstill {
    _end: mpsc::Sender<()>,
}

impl Standstill {
    fn begin() -> Self {
        let (end, ended) = mpsc::channel::<()>();
        tokio::task::spawn_blocking(move || ended.recv().expect_err("nothing is sent"));
        Self { _end: end }
    }
}
