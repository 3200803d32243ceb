//! Requests of HTTP through a retry, a circuit breaker and, if the crate has one, a classifier.

use std::future::{Ready, ready};
use std::io;
use std::pin::pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, USER_AGENT};
use http::{HeaderValue, StatusCode, Uri};
use http_body_util::Full;
use layered::Layer as _;
use seatbelt::breaker::{Breaker, BreakerLayer as SeatbeltBreaker};
use seatbelt::retry::{Retry, RetryLayer as SeatbeltRetry};
use seatbelt::typestates::Set;
use seatbelt::{RecoveryInfo, ResilienceContext};
use tower::{Service, ServiceBuilder};
use tower_breaker::{BreakerConfig, BreakerLayer};
use tower_fault_classify::FaultClassifyLayer;
use tower_jitter_retry::{JitterRetryLayer, RetryPolicy};
use tower_resilience_circuitbreaker::{CircuitBreakerError, CircuitBreakerLayer};
use tower_resilience_retry::RetryLayer;

use crate::OURS;
use crate::bare::FailsTwice;
use crate::call::finish;
use crate::peers::AN_HOUR;
use crate::peers::seatbelt::{add_both, clock, is_rejection, shared};
use crate::variant::{Expect, Variants};

const HTTP_BARE: &str = "HTTP, bare service";
const SUCCESS: &str = "HTTP, success";
const TWO_RETRIES: &str = "HTTP, two retries";
const REJECTED: &str = "HTTP, rejected";

type Request = http::Request<Full<Bytes>>;
type Response = http::Response<Full<Bytes>>;

/// Answers 200, or twice 503 and then 200.
#[derive(Clone, Copy)]
struct Server {
    fails_twice: bool,
}

const WORKS: Server = Server { fails_twice: false };
const FAILS_TWICE: Server = Server { fails_twice: true };

impl Server {
    fn answer(self) -> Response {
        let mut response = Response::new(Full::new(Bytes::from_static(br#"{"found":[1,2,3]}"#)));
        if self.fails_twice && FailsTwice::next_fails() {
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        }
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }
}

impl Service<Request> for Server {
    type Response = Response;
    type Error = io::Error;
    type Future = Ready<io::Result<Response>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request) -> Self::Future {
        ready(Ok(self.answer()))
    }
}

impl layered::Service<Request> for Server {
    type Out = io::Result<Response>;

    async fn execute(&self, _: Request) -> io::Result<Response> {
        Ok(self.answer())
    }
}

fn request(_: u32) -> Request {
    let mut request = Request::new(Full::new(Bytes::new()));
    *request.uri_mut() = Uri::from_static("https://api.example.com/v1/search?q=rust");
    request.headers_mut().insert(ACCEPT, HeaderValue::from_static("application/json"));
    request.headers_mut().insert(USER_AGENT, HeaderValue::from_static("benchmarks/1.0"));
    request
}

pub(crate) fn add(variants: &mut Variants) {
    variants.bare = HTTP_BARE;
    variants.add(HTTP_BARE, "", Expect::Success, || || WORKS, request);
    ours(variants);
    seatbelt(variants);
    tower_resilience(variants);
}

fn ours(variants: &mut Variants) {
    let success = || {
        let layers = ServiceBuilder::new()
            .layer(JitterRetryLayer::new(RetryPolicy::default()))
            .layer(BreakerLayer::new(BreakerConfig::default()))
            .layer(FaultClassifyLayer::new());
        move || layers.service(WORKS)
    };
    variants.add(SUCCESS, OURS, Expect::Success, success, request);
    let two_retries = || {
        let policy = RetryPolicy::builder().initial_backoff(Duration::ZERO).budget(None).build();
        let config = BreakerConfig::builder().failure_rate(0.9).build();
        let layers = ServiceBuilder::new()
            .layer(JitterRetryLayer::new(policy.expect("the policy is valid")))
            .layer(BreakerLayer::new(config.expect("the configuration is valid")))
            .layer(FaultClassifyLayer::new());
        move || layers.service(FAILS_TWICE)
    };
    variants.add(TWO_RETRIES, OURS, Expect::Success, two_retries, request);
    let rejected = || {
        let config = BreakerConfig::builder().open_for(AN_HOUR).build();
        let breaker: BreakerLayer = BreakerLayer::new(config.expect("the configuration is valid"));
        breaker.circuit().trip().expect("the circuit is not forced");
        let layers = ServiceBuilder::new()
            .layer(JitterRetryLayer::new(RetryPolicy::default()))
            .layer(breaker)
            .layer(FaultClassifyLayer::new());
        move || layers.service(WORKS)
    };
    variants.add(REJECTED, OURS, Expect::Failure, rejected, request);
    let marker = || {
        let layer = JitterRetryLayer::new(RetryPolicy::default());
        move || layer.layer(WORKS)
    };
    variants.add("HTTP, retry alone", OURS, Expect::Success, marker, request);
    let no_marker = || {
        let policy = RetryPolicy::builder().marker(false).build().expect("the policy is valid");
        let layer = JitterRetryLayer::new(policy);
        move || layer.layer(WORKS)
    };
    variants.add("HTTP, retry alone, no marker", OURS, Expect::Success, no_marker, request);
}

fn seatbelt(variants: &mut Variants) {
    let success = || shared(seatbelt_retry().layer(seatbelt_breaker().layer(WORKS)));
    add_both(variants, SUCCESS, Expect::Success, success, request);
    let two_retries = || {
        let breaker = seatbelt_breaker().failure_threshold(0.9).layer(FAILS_TWICE);
        shared(seatbelt_retry().base_delay(Duration::ZERO).layer(breaker))
    };
    add_both(variants, TWO_RETRIES, Expect::Success, two_retries, request);
    let rejected = || {
        let mut breaker = seatbelt_breaker().break_duration(AN_HOUR).layer(FAILS_TWICE);
        while !is_rejection(&finish(pin!(Service::call(&mut breaker, request(0))))) {}
        shared(seatbelt_retry().layer(breaker))
    };
    add_both(variants, REJECTED, Expect::Failure, rejected, request);
}

fn seatbelt_breaker() -> SeatbeltBreaker<Request, io::Result<Response>, Set, Set> {
    Breaker::layer("breaker", &ResilienceContext::new(clock()))
        .recovery_with(|result: &io::Result<Response>, _| recovery(result))
        .rejected_input_error(|_, _| io::ErrorKind::Other.into())
}

fn seatbelt_retry() -> SeatbeltRetry<Request, io::Result<Response>, Set, Set> {
    Retry::layer("retry", &ResilienceContext::new(clock()))
        .clone_input()
        .recovery_with(|result: &io::Result<Response>, _| recovery(result))
}

fn recovery(result: &io::Result<Response>) -> RecoveryInfo {
    if !is_rejection(result) && is_failure(result) { RecoveryInfo::retry() } else { RecoveryInfo::never() }
}

fn is_failure<E>(result: &Result<Response, E>) -> bool {
    result.as_ref().map_or(true, |response| response.status().is_server_error())
}

fn tower_resilience(variants: &mut Variants) {
    let breaker = || CircuitBreakerLayer::builder().failure_classifier(is_failure::<io::Error>);
    let retry = || {
        RetryLayer::<Request, Response, CircuitBreakerError<io::Error>>::builder()
            .retry_on(|error| !error.is_circuit_open())
            .retry_on_response(|response| response.status().is_server_error())
            .build()
    };
    let success = move || {
        let breaker = breaker().build().expect("the configuration is valid").layer(WORKS);
        let service = retry().layer(breaker);
        move || service.clone()
    };
    variants.add(SUCCESS, "tower-resilience", Expect::Success, success, request);
    let rejected = move || {
        let layer = breaker().wait_duration_in_open(AN_HOUR).build().expect("the configuration is valid");
        let mut breaker = layer.layer(FAILS_TWICE);
        while !matches!(finish(pin!(breaker.call(request(0)))), Err(CircuitBreakerError::OpenCircuit)) {}
        let service = retry().layer(breaker);
        move || service.clone()
    };
    variants.add(REJECTED, "tower-resilience", Expect::Failure, rejected, request);
}
