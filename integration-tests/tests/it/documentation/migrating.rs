//! `docs/migrating.md`: each configuration behaves like the one that it replaces.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use std::{fs, io};

use async_trait::async_trait;
use integration_tests::reqwest_without_tls;
use reqwest::{Method, Request, Response, ResponseBuilderExt};
use reqwest_middleware::{ClientBuilder, Middleware, Next};
use reqwest_retry::RetryTransientMiddleware;
use reqwest_retry::policies::ExponentialBackoff;
use test_servers::{Action, Http};
use tokio::time::{Instant, advance};
use tower::{Layer, ServiceBuilder, ServiceExt, service_fn};
use tower_breaker::{
    BreakerConfig, BreakerLayer, CancelledPolicy, Circuit, CircuitState, Clock, Reason, Verdict,
};
use tower_fault_classify::middleware::TowerMiddleware;
use tower_jitter_retry::fault_classify::classifiers::ErrorsOnly;
use tower_jitter_retry::{Jitter, JitterRetryLayer, RetryPolicy, RetrySafety};

use super::{SECOND, client, request};

fn failure() -> Verdict {
    tower_fault_classify::classify_error(&io::Error::from(io::ErrorKind::ConnectionReset)).into()
}

fn fail(circuit: &Circuit) {
    circuit.try_acquire().unwrap().record(failure());
}

fn succeed(circuit: &Circuit) {
    circuit.try_acquire().unwrap().record(Verdict::Success);
}

fn tower_resilience_circuit() -> (Circuit, tower_breaker::ManualClock) {
    let (clock, time) = Clock::manual();
    let config = BreakerConfig::builder()
        .consecutive_failures(0)
        .failure_rate(0.5)
        .count_window(100)
        .minimum_calls(20)
        .slow_call_rate(2 * SECOND, 0.8)
        .count_failed_retries(true)
        .open_for(30 * SECOND)
        .open_jitter(0.0)
        .probes(3)
        .successes_to_close(3)
        .clock(clock);
    (Circuit::new(config.build().unwrap()), time)
}

#[test]
fn tower_resilience_breaker_opens_at_half_of_twenty() {
    let (circuit, time) = tower_resilience_circuit();
    for _ in 0..19 {
        fail(&circuit);
    }
    assert_eq!(circuit.status().state, CircuitState::Closed, "failures in a row do not open it");
    fail(&circuit);
    assert_eq!(circuit.status().state, CircuitState::Open);
    time.advance(29 * SECOND);
    circuit.try_acquire().unwrap_err();
    time.advance(SECOND);
    let probes: Vec<_> = (0..3).map(|_| circuit.try_acquire().unwrap()).collect();
    circuit.try_acquire().unwrap_err();
    for probe in probes {
        assert_eq!(circuit.status().state, CircuitState::HalfOpen);
        probe.record(Verdict::Success);
    }
    assert_eq!(circuit.status().state, CircuitState::Closed);
}

#[test]
fn tower_resilience_breaker_counts_last_hundred_and_slow_calls() {
    let (circuit, _time) = tower_resilience_circuit();
    for _ in 0..100 {
        succeed(&circuit);
    }
    for _ in 0..49 {
        fail(&circuit);
    }
    assert_eq!(circuit.status().state, CircuitState::Closed);
    fail(&circuit);
    assert_eq!(circuit.status().state, CircuitState::Open);

    let (circuit, time) = tower_resilience_circuit();
    for _ in 0..4 {
        succeed(&circuit);
    }
    for _ in 0..16 {
        assert_eq!(circuit.status().state, CircuitState::Closed);
        let permit = circuit.try_acquire().unwrap();
        time.advance(2 * SECOND);
        permit.record(Verdict::Success);
    }
    let trip = circuit.status().last_trip.unwrap();
    assert_eq!((circuit.status().state, trip.reason), (CircuitState::Open, Reason::SlowRate));
}

/// The equivalent of `.manual_mode()`: outcomes do not open the circuit, manual control does.
#[test]
fn circuit_without_trigger_opens_only_by_manual_control() {
    let config = BreakerConfig::builder().consecutive_failures(0).failure_rate(None);
    let config = config.cancelled(CancelledPolicy::Ignore).clock(Clock::manual().0);
    let circuit = Circuit::new(config.build().unwrap());
    for _ in 0..100 {
        fail(&circuit);
    }
    circuit.reset().unwrap();
    for _ in 0..100 {
        drop(circuit.try_acquire().unwrap());
    }
    assert_eq!(circuit.status().state, CircuitState::Closed);
    circuit.force_open().unwrap();
    circuit.try_acquire().unwrap_err();
}

#[test]
fn seatbelt_breaker_opens_at_ten_of_hundred_in_30_seconds() {
    let breaker = || {
        let (clock, time) = Clock::manual();
        let config = BreakerConfig::builder()
            .name("search")
            .consecutive_failures(0)
            .failure_rate(0.1)
            .minimum_calls(100)
            .time_window(30 * SECOND)
            .count_failed_retries(true)
            .open_for(5 * SECOND)
            .open_jitter(0.0)
            .clock(clock);
        (Circuit::new(config.build().unwrap()), time)
    };
    let (circuit, time) = breaker();
    for _ in 0..99 {
        fail(&circuit);
    }
    assert_eq!(circuit.status().state, CircuitState::Closed);
    fail(&circuit);
    assert_eq!(circuit.status().state, CircuitState::Open);
    time.advance(5 * SECOND);
    circuit.try_acquire().unwrap().record(Verdict::Success);

    let (circuit, time) = breaker();
    for _ in 0..91 {
        succeed(&circuit);
    }
    for _ in 0..9 {
        fail(&circuit);
    }
    assert_eq!(circuit.status().state, CircuitState::Closed);
    fail(&circuit);
    assert_eq!(circuit.status().state, CircuitState::Closed, "ten of 101");
    // One window and one bucket later, the window is empty.
    time.advance(32 * SECOND);
    assert_eq!(circuit.status().window.calls, 0);
}

/// Returns when the attempts of a failing call start. Each attempt takes `duration`.
async fn attempt_starts(policy: RetryPolicy, duration: Duration) -> Vec<Duration> {
    let start = Instant::now();
    let times = std::sync::Mutex::new(Vec::new());
    let stack =
        ServiceBuilder::new().layer(JitterRetryLayer::new(policy)).service(service_fn(async |_: u32| {
            times.lock().unwrap().push(start.elapsed());
            tokio::time::sleep(duration).await;
            Err::<(), _>(io::Error::from(io::ErrorKind::TimedOut))
        }));
    stack.oneshot(7).await.unwrap_err();
    times.into_inner().unwrap()
}

#[tokio::test(start_paused = true)]
async fn tower_resilience_retry_makes_four_attempts() {
    let times = attempt_starts(tower_resilience_policy(), Duration::ZERO).await;
    assert_eq!(times, [0, 100, 300, 700].map(Duration::from_millis));
}

fn tower_resilience_policy() -> RetryPolicy {
    RetryPolicy::builder()
        .max_attempts(4)
        .initial_backoff(Duration::from_millis(100))
        .safety(RetrySafety::Always)
        .jitter(Jitter::None)
        .max_elapsed(None)
        .budget(None)
        .build()
        .unwrap()
}

#[tokio::test(start_paused = true)]
async fn tower_resilience_retry_repeats_errors_of_posts_and_no_response() {
    for (fails, attempts) in [(true, 4), (false, 1)] {
        let calls = AtomicUsize::new(0);
        let layer: JitterRetryLayer<ErrorsOnly> =
            JitterRetryLayer::new(tower_resilience_policy()).errors_only();
        let stack = layer.layer(service_fn(async |_: http::Request<String>| {
            calls.fetch_add(1, Ordering::Relaxed);
            if fails {
                return Err(io::Error::from(io::ErrorKind::TimedOut));
            }
            Ok(http::Response::builder().status(503).body(()).unwrap())
        }));
        let _ = stack.oneshot(http::Request::post("/").body(String::new()).unwrap()).await;
        assert_eq!(calls.load(Ordering::Relaxed), attempts);
    }
}

fn reqwest_retry_policy(initial_backoff: Duration) -> RetryPolicy {
    RetryPolicy::builder()
        .max_attempts(4)
        .initial_backoff(initial_backoff)
        .max_backoff(60 * SECOND)
        .safety(RetrySafety::Always)
        .max_elapsed(None)
        .budget(None)
        .clock(Clock::tokio())
        .build()
        .unwrap()
}

/// A policy of reqwest-retry has no limit on the elapsed time.
#[tokio::test(start_paused = true)]
async fn without_max_elapsed_all_attempts_of_a_minute_are_made() {
    assert_eq!(attempt_starts(reqwest_retry_policy(SECOND), 60 * SECOND).await.len(), 4);
    let limited =
        RetryPolicy::builder().max_attempts(4).initial_backoff(SECOND).clock(Clock::tokio()).build().unwrap();
    assert!(attempt_starts(limited, 60 * SECOND).await.len() < 4);
}

/// A client with reqwest-retry, configured as on the page but without delays.
fn with_reqwest_retry(client: ClientBuilder) -> ClientBuilder {
    let policy =
        ExponentialBackoff::builder().retry_bounds(Duration::ZERO, Duration::ZERO).build_with_max_retries(3);
    client.with(RetryTransientMiddleware::new_with_policy(policy))
}

/// A client with the equivalent configuration of the page, without delays of its own.
fn with_retry_layer(client: ClientBuilder) -> ClientBuilder {
    let layer = JitterRetryLayer::new(reqwest_retry_policy(Duration::ZERO));
    client.with(TowerMiddleware::new(layer))
}

#[tokio::test]
async fn reqwest_retry_and_equivalent_send_equally_often() {
    let rows = [
        (Action::status(200), 1, 1),
        (Action::status(404), 1, 1),
        (Action::status(408), 4, 4),
        (Action::status(429), 4, 4),
        (Action::status(503), 4, 4),
        (Action::status(501), 4, 1),
        (Action::status(425), 1, 4),
        (Action::ResetAfterRequest, 4, 4),
        (Action::CloseAfterRequest, 4, 4),
    ];
    for (action, reqwest_retry, retry_layer) in rows {
        for method in [Method::GET, Method::POST] {
            let server = Http::start().await;
            server.set_default(action.clone());
            let client = || ClientBuilder::new(client());
            let _ = with_reqwest_retry(client()).build().execute(request(method.clone(), &server)).await;
            assert_eq!(server.requests().len(), reqwest_retry, "reqwest-retry: {method}, {action:?}");
            let _ = with_retry_layer(client()).build().execute(request(method.clone(), &server)).await;
            assert_eq!(
                server.requests().len() - reqwest_retry,
                retry_layer,
                "retry layer: {method}, {action:?}"
            );
        }
    }
}

/// A middleware that counts the requests and passes them on.
struct Counting(Arc<AtomicUsize>);

#[async_trait]
impl Middleware for Counting {
    async fn handle(
        &self,
        request: Request,
        extensions: &mut http::Extensions,
        next: Next<'_>,
    ) -> reqwest_middleware::Result<Response> {
        self.0.fetch_add(1, Ordering::Relaxed);
        next.run(request, extensions).await
    }
}

#[tokio::test]
async fn connect_error_that_cannot_succeed_is_retried_by_reqwest_retry_only() {
    for (retry, attempts) in [(with_reqwest_retry as fn(_) -> _, 4), (with_retry_layer, 1)] {
        let requests = Arc::new(AtomicUsize::new(0));
        let client = reqwest_without_tls().build().unwrap();
        let client = retry(ClientBuilder::new(client)).with(Counting(Arc::clone(&requests))).build();
        let request = Request::new(Method::GET, "https://127.0.0.1:9/".parse().unwrap());
        let error = client.execute(request).await.unwrap_err();
        assert_eq!(requests.load(Ordering::Relaxed), attempts, "{error:?}");
    }
}

#[tokio::test]
async fn streaming_body_is_an_error_of_reqwest_retry_and_sent_once_by_retry_layer() {
    for (retry, attempts) in [(with_reqwest_retry as fn(_) -> _, 0), (with_retry_layer, 1)] {
        let server = Http::start().await;
        server.set_default(Action::status(503));
        let mut request = request(Method::PUT, &server);
        let chunks = tokio_stream::iter([Ok::<_, io::Error>("chunk")]);
        *request.body_mut() = Some(reqwest::Body::wrap_stream(chunks));
        let result = retry(ClientBuilder::new(client())).build().execute(request).await;
        assert_eq!((server.requests().len(), result.is_ok()), (attempts, attempts == 1));
    }
}

/// A middleware at the end of a chain, which answers every request in place of a server.
struct Answering {
    status: u16,
    retry_after: Option<&'static str>,
    requests: Arc<AtomicUsize>,
}

#[async_trait]
impl Middleware for Answering {
    async fn handle(
        &self,
        request: Request,
        _: &mut http::Extensions,
        _: Next<'_>,
    ) -> reqwest_middleware::Result<Response> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let mut response = http::Response::builder().status(self.status).url(request.url().clone());
        if let Some(delay) = self.retry_after {
            response = response.header("retry-after", delay);
        }
        Ok(response.body("").unwrap().into())
    }
}

/// Returns how often a client with the retry sends a request that always gets this response.
async fn sent(
    retry: fn(ClientBuilder) -> ClientBuilder,
    method: &Method,
    status: u16,
    retry_after: Option<&'static str>,
) -> usize {
    let requests = Arc::new(AtomicUsize::new(0));
    let server = Answering { status, retry_after, requests: Arc::clone(&requests) };
    let client = retry(ClientBuilder::new(client())).with(server).build();
    let request = Request::new(method.clone(), "http://host.invalid/".parse().unwrap());
    client.execute(request).await.unwrap();
    requests.load(Ordering::Relaxed)
}

/// Statuses. The flag is set if the response has a `Retry-After`.
type Statuses = BTreeSet<(u16, bool)>;

/// Parses the statuses of a cell, such as "501, 505 to 508, 413 with `Retry-After`".
fn statuses(cell: &str) -> Statuses {
    let mut statuses = Statuses::new();
    for item in cell.split(", ") {
        let (range, only_with_hint) = match item.strip_suffix(" with `Retry-After`") {
            Some(range) => (range, true),
            None => (item, false),
        };
        let (first, last) = range.split_once(" to ").unwrap_or((range, range));
        for status in first.parse().unwrap()..=last.parse().unwrap() {
            statuses.insert((status, true));
            if !only_with_hint {
                statuses.insert((status, false));
            }
        }
    }
    statuses
}

/// Returns the statuses of the page's table: those that only reqwest-retry retries, and those that
/// only the retry layer retries.
fn differences_on_the_page() -> [Statuses; 2] {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/migrating.md");
    let page = fs::read_to_string(path).unwrap();
    let [mut only_reqwest_retry, mut only_retry_layer] = [const { Statuses::new() }; 2];
    let header = "| status | reqwest-retry | here | reason |";
    for row in
        page.lines().skip_while(|line| *line != header).skip(2).take_while(|line| line.starts_with('|'))
    {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        match cells[2..4] {
            ["retries", "does not retry"] => only_reqwest_retry.append(&mut statuses(cells[1])),
            ["does not retry", "retries"] => only_retry_layer.append(&mut statuses(cells[1])),
            _ => panic!("the row has no difference: {row}"),
        }
    }
    [only_reqwest_retry, only_retry_layer]
}

/// Returns the differences that are observed with each status and one method.
async fn differences_observed(method: &Method) -> [Statuses; 2] {
    let [mut only_reqwest_retry, mut only_retry_layer] = [const { Statuses::new() }; 2];
    for status in 100..=999 {
        for retry_after in [None, Some("1")] {
            let reqwest_retry = sent(with_reqwest_retry, method, status, retry_after).await;
            let retry_layer = sent(with_retry_layer, method, status, retry_after).await;
            let row = (status, retry_after.is_some());
            match (reqwest_retry, retry_layer) {
                (1, 1) | (4, 4) => {}
                (4, 1) => drop(only_reqwest_retry.insert(row)),
                (1, 4) => drop(only_retry_layer.insert(row)),
                other => panic!("{method} {row:?}: {other:?}"),
            }
        }
    }
    [only_reqwest_retry, only_retry_layer]
}

#[tokio::test(start_paused = true)]
async fn page_lists_every_status_that_reqwest_retry_treats_differently() {
    for method in [Method::GET, Method::POST] {
        assert_eq!(differences_observed(&method).await, differences_on_the_page(), "{method}");
    }
}

#[tokio::test(start_paused = true)]
async fn retry_after_above_a_minute_is_retried_by_reqwest_retry_only() {
    for (retry_after, retry_layer) in [("60", 4), ("61", 1)] {
        assert_eq!(sent(with_reqwest_retry, &Method::GET, 503, Some(retry_after)).await, 4);
        assert_eq!(sent(with_retry_layer, &Method::GET, 503, Some(retry_after)).await, retry_layer);
    }
}

/// Returns the shortest and the longest delays of a policy.
fn range(policy: &RetryPolicy) -> [Vec<u128>; 2] {
    let least = policy.backoff().delays(|range| *range.start()).take(6);
    let most = policy.backoff().delays(|range| *range.end()).take(6);
    [least.map(|delay| delay.as_millis()).collect(), most.map(|delay| delay.as_millis()).collect()]
}

#[test]
fn tower_backoff_delays_spread_to_both_sides() {
    let policy = RetryPolicy::builder()
        .initial_backoff(Duration::from_millis(50))
        .max_backoff(SECOND)
        .jitter(Jitter::Proportional(0.5))
        .build()
        .unwrap();
    assert_eq!(range(&policy), [vec![25, 50, 100, 200, 400, 500], vec![75, 150, 300, 600, 1_000, 1_000]]);
}

#[tokio::test(start_paused = true)]
async fn errors_only_counts_errors_not_responses() {
    let calls = AtomicUsize::new(0);
    let layer = BreakerLayer::new(super::circuit().consecutive_failures(2).build().unwrap()).errors_only();
    let circuit = layer.circuit();
    let stack = ServiceBuilder::new().layer(layer).service(service_fn(async |ok: bool| {
        calls.fetch_add(1, Ordering::Relaxed);
        if ok {
            return Ok(http::Response::builder().status(503).body(()).unwrap());
        }
        Err(io::Error::from(io::ErrorKind::ConnectionReset))
    }));
    for _ in 0..10 {
        assert_eq!(stack.clone().oneshot(true).await.unwrap().status(), 503);
    }
    assert_eq!((circuit.status().window.failures, circuit.status().window.calls), (0, 10));
    for _ in 0..2 {
        stack.clone().oneshot(false).await.unwrap_err();
    }
    assert_eq!(circuit.status().state, CircuitState::Open);
    advance(SECOND).await;
    stack.oneshot(true).await.unwrap_err();
    assert_eq!(calls.load(Ordering::Relaxed), 12);
}
