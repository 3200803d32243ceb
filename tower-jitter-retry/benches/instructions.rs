//! The calls of the retry, alone and with the other layers, that `.ci/instructions` counts.

use std::time::Duration;

use http::Request;
use tower::{Layer, Service, ServiceBuilder};
use tower_breaker::{BreakerConfig, BreakerConfigBuilder, BreakerLayer};
use tower_fault_classify::FaultClassifyLayer;
use tower_jitter_retry::{Budget, Clock, JitterRetryLayer, RetryPolicy, RetryPolicyBuilder};

#[path = "../../tower-breaker/benches/bare/mod.rs"]
mod bare;
#[path = "../../tower-breaker/benches/counted/mod.rs"]
mod counted;
mod server;

use bare::{Bare, FailsTwice};
use counted::Rows;
use server::{Body, Server};

fn main() {
    let rows = Rows::from_arguments();
    plain(&rows);
    http(&rows);
}

fn plain(rows: &Rows) {
    let succeeds = |_| false;
    rows.add("retry-no-budget", || retry(policy().budget(None)).layer(Bare), succeeds);
    rows.add("retry-default-budget", || retry(policy()).layer(Bare), succeeds);
    let window = || Budget::window().clock(clock()).build().expect("the budget is valid");
    rows.add("retry-window-budget", || retry(policy().budget(window())).layer(Bare), succeeds);
    rows.add("retry-two-retries", || retry(at_once()).layer(FailsTwice), succeeds);
    let ample = || Budget::window().ratio(3.0).clock(clock()).build().expect("the budget is valid");
    rows.add(
        "retry-two-retries-window-budget",
        || retry(at_once().budget(ample())).layer(FailsTwice),
        succeeds,
    );

    let both = |policy, breaker| ServiceBuilder::new().layer(retry(policy)).layer(breaker);
    rows.add("retry-over-breaker", || both(policy(), breaker(config())).service(Bare), succeeds);
    rows.add(
        "retry-over-breaker-two-retries",
        || both(at_once(), breaker(tolerant())).service(FailsTwice),
        succeeds,
    );
    rows.add("retry-over-breaker-rejected", || both(policy(), open_breaker()).service(Bare), succeeds);
}

fn http(rows: &Rows) {
    rows.add("http-bare", || Server::Healthy, get);
    rows.add("http-classify", || FaultClassifyLayer::new().layer(Server::Healthy), get);
    rows.add("http-breaker", || breaker(config()).layer(Server::Healthy), get);
    rows.add("http-breaker-body-end", || breaker(config()).track_body().layer(Server::Healthy), get);
    rows.add("http-retry", || retry(policy()).layer(Server::Healthy), get);

    rows.add("http-success", || stack(policy(), breaker(config()), Server::Healthy), get);
    rows.add("http-two-retries", || stack(at_once(), breaker(tolerant()), Server::FailsTwice), get);
    rows.add("http-rejected", || stack(policy(), open_breaker(), Server::Healthy), get);
}

/// Returns the three layers around a server.
fn stack(
    policy: RetryPolicyBuilder,
    breaker: BreakerLayer,
    server: Server,
) -> impl Service<Request<Body>> + Clone + Send {
    let layers = ServiceBuilder::new().layer(retry(policy)).layer(breaker).layer(FaultClassifyLayer::new());
    layers.service(server)
}

fn retry(policy: RetryPolicyBuilder) -> JitterRetryLayer {
    JitterRetryLayer::new(policy.build().expect("the policy is valid"))
}

/// The default policy, with a clock that runs under valgrind.
fn policy() -> RetryPolicyBuilder {
    RetryPolicy::builder().clock(clock())
}

/// A policy whose retries have no delay, and no limit but the number of attempts.
fn at_once() -> RetryPolicyBuilder {
    policy().initial_backoff(Duration::ZERO).budget(None)
}

fn breaker(config: BreakerConfigBuilder) -> BreakerLayer {
    BreakerLayer::new(config.build().expect("the configuration is valid"))
}

fn open_breaker() -> BreakerLayer {
    let layer = breaker(config());
    layer.circuit().trip().expect("the circuit is not forced");
    layer
}

fn config() -> BreakerConfigBuilder {
    BreakerConfig::builder().clock(clock())
}

/// A configuration with which a circuit stays closed if two of three attempts fail.
fn tolerant() -> BreakerConfigBuilder {
    config().failure_rate(0.9)
}

fn clock() -> Clock {
    Clock::manual().0
}

/// Returns the request of a call. Its creation is part of each row, also of the bare service.
fn get(_: u32) -> Request<Body> {
    let request = Request::get("https://api.example.com/search")
        .header("accept", "application/json")
        .header("user-agent", "benchmark");
    request.body(Body::default()).expect("the request is valid")
}
