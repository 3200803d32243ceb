//! Statements of the front page of `tower-jitter-retry`.

use std::io;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use integration_tests::{FrozenTime, TIMEOUT, retry_at_once};
use reqwest::{Method, Request};
use reqwest_middleware::ClientBuilder;
use test_servers::{Action, Http};
use tokio::task::{JoinSet, yield_now};
use tokio::time::advance;
use tower::{ServiceBuilder, ServiceExt, service_fn};
use tower_breaker::keyed::{KeyedBreakerLayer, KeyedConfig};
use tower_breaker::{BreakerConfig, BreakerLayer, CircuitState, Clock};
use tower_fault_classify::classifiers::Auto;
use tower_fault_classify::middleware::TowerMiddleware;
use tower_fault_classify::{ClassifiedError, FaultClassifyLayer};
use tower_jitter_retry::request::{Attempt, RequestExt};
use tower_jitter_retry::{
    Budget, Deadline, Jitter, JitterRetryLayer, ReplayBody, RetryPolicy, RetryPolicyBuilder, RetrySafety,
};

use super::{SECOND, circuit, client, request};

fn retry<K>(policy: RetryPolicyBuilder) -> JitterRetryLayer<Auto<K>> {
    JitterRetryLayer::new(policy.build().unwrap())
}

#[tokio::test(start_paused = true)]
async fn safety_and_deadline_on_reqwest_request_apply() {
    let _frozen = FrozenTime::start();
    let requests_sent =
        async |method: Method, settings: fn(Request) -> Request, policy: RetryPolicyBuilder| {
            let server = Http::start().await;
            server.set_default(Action::status(503));
            let request = client().request(method, server.url()).body("the body").build().unwrap();
            let stack = ServiceBuilder::new().layer(retry(policy)).service(client());
            let response = stack.oneshot(settings(request)).await.unwrap();
            assert_eq!(response.status(), 503);
            server.requests().len()
        };
    assert_eq!(requests_sent(Method::POST, |request| request, retry_at_once()).await, 1);
    let always = |request: Request| request.with_extension(RetrySafety::Always);
    assert_eq!(requests_sent(Method::POST, always, retry_at_once()).await, 3);
    let never = |request: Request| request.with_extension(RetrySafety::Never);
    assert_eq!(requests_sent(Method::PUT, never, retry_at_once()).await, 1);
    let soon = |request: Request| request.with_extension(Deadline::within(SECOND));
    let slow = retry_at_once().initial_backoff(2 * SECOND).max_backoff(2 * SECOND);
    assert_eq!(requests_sent(Method::GET, soon, slow).await, 1);
}

/// A chain of reqwest-middleware has its own way to set extensions.
#[tokio::test(start_paused = true)]
async fn safety_deadline_and_key_in_reqwest_chain_apply() {
    #[derive(Clone, Debug, PartialEq, Eq, Hash)]
    struct Tenant(&'static str);

    let _frozen = FrozenTime::start();
    let server = Http::start().await;
    server.set_default(Action::status(503));
    let config = KeyedConfig::default();
    let breakers = KeyedBreakerLayer::new(config, |_: &Request| Tenant("other")).key_from_extension();
    let circuits = breakers.circuits();
    let layers = ServiceBuilder::new().layer(retry(retry_at_once())).layer(breakers).into_inner();
    let chain = ClientBuilder::new(client()).with(TowerMiddleware::new(layers)).build();
    let post = || chain.post(server.url()).body("the body");

    post().with_extension(Tenant("blue")).send().await.unwrap();
    assert_eq!(server.requests().len(), 1);
    assert!(circuits.get(&Tenant("blue")).is_some() && circuits.get(&Tenant("other")).is_none());
    let passed = Deadline::within(Duration::ZERO);
    post().with_extension(RetrySafety::Always).with_extension(passed).send().await.unwrap();
    assert_eq!(server.requests().len(), 2, "no retry follows after the deadline");
    assert!(circuits.get(&Tenant("other")).is_some());
    post().with_extension(RetrySafety::Always).send().await.unwrap();
    assert_eq!(server.requests().len(), 5);
}

#[tokio::test]
async fn key_on_reqwest_request_selects_circuit_of_each_attempt() {
    #[derive(Clone, Debug, PartialEq, Eq, Hash)]
    struct Tenant(String);

    let server = Http::start().await;
    server.set_default(Action::status(503));
    let each = BreakerConfig::builder()
        .consecutive_failures(1)
        .consecutive_failures_span(Duration::ZERO)
        .build()
        .unwrap();
    let config = KeyedConfig::builder(each).build().unwrap();
    let host = |request: &Request| Tenant(request.url().host_str().unwrap_or_default().to_owned());
    let breakers = KeyedBreakerLayer::new(config, host).key_from_extension();
    let circuits = breakers.circuits();
    let stack = ServiceBuilder::new().layer(retry(retry_at_once())).layer(breakers).service(client());
    let get = || client().get(server.url()).build().unwrap();

    let blue = get().with_extension(Tenant("blue".to_owned()));
    stack.clone().oneshot(blue).await.unwrap();
    assert_eq!(server.requests().len(), 1, "the second attempt is rejected by the circuit of the key");
    stack.clone().oneshot(get()).await.unwrap();
    assert_eq!(server.requests().len(), 2, "the circuit of the host is closed");
    let state = |key: &str| circuits.get(&Tenant(key.to_owned())).map(|circuit| circuit.status().state);
    assert_eq!((state("blue"), state("127.0.0.1")), (Some(CircuitState::Open), Some(CircuitState::Open)));
}

/// `Retry-After` headers of a server, with the range of the delay before the retry. The range
/// includes the spread of up to half of the hint. `None`: no retry.
#[tokio::test(start_paused = true)]
async fn hostile_hints_are_capped_or_ignored() {
    let _frozen = FrozenTime::start();
    // In milliseconds. The backoff's own delay is between half a second and one second.
    let backoff = || Some(500..=1_000);
    let rows: [(&[&str], Option<RangeInclusive<u128>>); 14] = [
        (&["0"], backoff()),
        (&["soon"], backoff()),
        (&["-5"], backoff()),
        (&[""], backoff()),
        (&["Thu, 01 Jan 1970 00:00:00 GMT"], backoff()),
        (&["Thu, 32 Foo 1970 00:00:00 GMT"], backoff()),
        (&["20"], Some(20_000..=25_000)),
        (&["4"], Some(4_000..=6_000)),
        (&["60"], Some(60_000..=65_000)),
        (&["61"], None),
        (&["3155760000"], None),
        (&["99999999999999999999999999"], None),
        (&["Fri, 31 Dec 9999 23:59:59 GMT"], None),
        (&["soon", "4"], Some(4_000..=6_000)),
    ];
    for (hints, expected) in rows {
        let server = Http::start().await;
        let mut action = Action::status(429);
        for hint in hints {
            action = action.header("retry-after", hint.as_bytes());
        }
        server.script([action]);
        let delays = Arc::new(Mutex::new(Vec::new()));
        let recorded = Arc::clone(&delays);
        let policy = RetryPolicy::builder()
            .initial_backoff(SECOND)
            .jitter(Jitter::Equal)
            .seed(7)
            .on_retry(move |event| recorded.lock().unwrap().push(event.delay));
        let stack = ServiceBuilder::new().layer(retry(policy)).service(client());
        let call = tokio::spawn(stack.oneshot(request(Method::POST, &server)));
        while delays.lock().unwrap().is_empty() && !call.is_finished() {
            yield_now().await;
        }
        let delay = delays.lock().unwrap().first().copied();
        match (delay, expected) {
            (None, None) => assert_eq!(call.await.unwrap().unwrap().status(), 429),
            (Some(delay), Some(range)) => {
                assert!(range.contains(&delay.as_millis()), "{hints:?}: {delay:?}");
                advance(delay + Duration::from_millis(2)).await;
                assert_eq!(call.await.unwrap().unwrap().status(), 200);
            }
            (delay, expected) => panic!("{hints:?}: {delay:?} instead of {expected:?}"),
        }
    }
}

/// One retry layer is above the client, and two are in its chain. The mark passes through all of
/// them.
#[tokio::test]
async fn retry_over_client_in_chain_and_over_buffer_sends_three() {
    let server = Http::start().await;
    server.set_default(Action::status(503));
    let chain = ClientBuilder::new(client())
        .with(TowerMiddleware::new(retry(retry_at_once())))
        .with(TowerMiddleware::new(retry(retry_at_once())))
        .build();
    let stack = ServiceBuilder::new()
        .layer(retry(retry_at_once()))
        .buffer(4)
        .layer(FaultClassifyLayer::new())
        .service(chain);
    let response = stack.oneshot(request(Method::GET, &server)).await.unwrap();
    assert_eq!((response.status().as_u16(), server.requests().len()), (503, 3));
}

/// A request is marked only if the layer may send it again.
#[tokio::test]
async fn marker_is_only_on_replayable_http_requests() {
    let marks = Mutex::new(Vec::new());
    let stack = ServiceBuilder::new().layer(retry(retry_at_once())).service(service_fn(
        async |request: http::Request<String>| {
            marks.lock().unwrap().push(Attempt::of(request.extensions()).map(Attempt::number));
            Ok::<_, io::Error>(http::Response::builder().status(503).body(()).unwrap())
        },
    ));
    stack.clone().oneshot(http::Request::get("/").body(String::new()).unwrap()).await.unwrap();
    assert_eq!(marks.lock().unwrap().drain(..).collect::<Vec<_>>(), [Some(1), Some(2), Some(3)]);
    // A POST may be sent again after a refusal, so it is marked.
    stack.oneshot(http::Request::post("/").body(String::new()).unwrap()).await.unwrap();
    assert_eq!(marks.lock().unwrap().drain(..).collect::<Vec<_>>(), [Some(1)]);
    let once = ServiceBuilder::new()
        .layer(retry(retry_at_once().max_attempts(1)))
        .layer(retry(retry_at_once()))
        .service(service_fn(async |_: http::Request<String>| {
            marks.lock().unwrap().push(None);
            Ok::<_, io::Error>(http::Response::builder().status(503).body(()).unwrap())
        }));
    once.oneshot(http::Request::get("/").body(String::new()).unwrap()).await.unwrap();
    assert_eq!(marks.lock().unwrap().len(), 3, "a layer with one attempt writes no mark");
}

/// The default budget grants ten retries while no call succeeds.
#[tokio::test(start_paused = true)]
async fn default_budget_under_1000_calls_grants_its_limit() {
    let attempts = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&attempts);
    let stack = ServiceBuilder::new()
        .layer(retry(RetryPolicy::builder()))
        .layer(FaultClassifyLayer::new())
        .service(service_fn(move |_: u32| {
            counter.fetch_add(1, Ordering::Relaxed);
            async {
                tokio::time::sleep(SECOND).await;
                Err::<(), _>(io::Error::from(io::ErrorKind::ConnectionReset))
            }
        }));
    let mut tasks = JoinSet::new();
    for item in 0..1_000 {
        tasks.spawn(stack.clone().oneshot(item));
    }
    let answers: Vec<Result<(), ClassifiedError>> = tasks.join_all().await;
    assert!(answers.iter().all(Result::is_err));
    assert_eq!(attempts.load(Ordering::Relaxed), 1_010);
}

/// Deposits in a runtime whose paused time was advanced far have no effect on the budget of the
/// next runtime.
#[test]
fn budget_in_runtime_with_earlier_time_still_grants() {
    let granted = |step: Duration| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.unwrap().block_on(async {
            let budget = Budget::window().ratio(0.2).min_per_second(0).clock(Clock::tokio()).build().unwrap();
            let policy = retry_at_once().max_attempts(2).budget(budget).build().unwrap();
            let attempts = AtomicUsize::new(0);
            for _ in 0..100 {
                advance(step).await;
                let failed = async || {
                    attempts.fetch_add(1, Ordering::Relaxed);
                    Err::<(), _>(io::Error::from(io::ErrorKind::ConnectionReset))
                };
                policy.retry(failed).await.unwrap_err();
            }
            attempts.into_inner() - 100
        })
    };
    assert!(granted(Duration::from_millis(300)) > 0 && granted(60 * SECOND) == 0);
    assert_eq!(granted(Duration::ZERO), 20);
}

/// The layers, handles and service are dropped while the call runs and while it sleeps.
#[tokio::test(start_paused = true)]
async fn call_outlives_its_layer_handles_and_service() {
    let frozen = FrozenTime::start();
    let server = Http::start().await;
    server.script([Action::status(503), Action::status(500)]);
    let call = {
        let breaker = BreakerLayer::new(circuit().build().unwrap());
        let stack = ServiceBuilder::new()
            .layer(retry(retry_at_once().initial_backoff(SECOND)))
            .layer(breaker)
            .layer(FaultClassifyLayer::new())
            .timeout(TIMEOUT)
            .service(client());
        tokio::spawn(stack.oneshot(request(Method::GET, &server)))
    };
    // Circuits that are created meanwhile do not take over the storage of the call's circuit.
    let others: Vec<_> = (0..100).map(|_| BreakerLayer::<Auto>::new(circuit().build().unwrap())).collect();
    server.wait_for_requests(1).await;
    for count in [2, 3] {
        while server.requests().len() < count {
            advance(Duration::from_millis(100)).await;
            for _ in 0..100 {
                yield_now().await;
            }
        }
    }
    assert_eq!(call.await.unwrap().unwrap().status(), 200);
    assert!(others.iter().all(|layer| layer.circuit().status().window.calls == 0));
    drop(frozen);
}

#[tokio::test(start_paused = true)]
async fn dropped_call_sends_no_further_attempt() {
    let _frozen = FrozenTime::start();
    let server = Http::start().await;
    server.script([Action::Hang, Action::status(503)]);
    let breaker = BreakerLayer::new(circuit().build().unwrap());
    let circuit = breaker.circuit();
    let delays = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&delays);
    let policy = retry_at_once()
        .initial_backoff(SECOND)
        .on_retry(move |_| _ = counter.fetch_add(1, Ordering::Relaxed));
    let stack = ServiceBuilder::new()
        .layer(retry(policy))
        .layer(breaker)
        .layer(FaultClassifyLayer::new())
        .service(client());
    // The call is dropped before its first poll, during an attempt, and during a delay.
    drop(stack.clone().oneshot(request(Method::GET, &server)));
    let call = tokio::spawn(stack.clone().oneshot(request(Method::GET, &server)));
    server.wait_for_requests(1).await;
    call.abort();
    assert!(call.await.unwrap_err().is_cancelled());
    let window = circuit.status().window;
    assert_eq!((window.calls, window.cancelled), (0, 1));

    let call = tokio::spawn(stack.oneshot(request(Method::GET, &server)));
    while delays.load(Ordering::Relaxed) == 0 {
        yield_now().await;
    }
    call.abort();
    assert!(call.await.unwrap_err().is_cancelled());
    advance(10 * SECOND).await;
    for _ in 0..100 {
        yield_now().await;
    }
    let window = circuit.status().window;
    assert_eq!((server.requests().len(), window.calls, window.failures, window.cancelled), (2, 1, 1, 1));
}

/// Returns a stream of frames without a known length.
fn stream(frames: usize) -> impl http_body::Body<Data = Bytes, Error = std::convert::Infallible> + Send {
    let frames = (0..frames).map(|_| Ok(http_body::Frame::data(Bytes::from_static(&[b'x'; 1_024]))));
    http_body_util::StreamBody::new(tokio_stream::iter(frames))
}

/// The whole stack above hyper-util's client: a body of 64 KiB is kept, and one of 65 KiB is not.
#[tokio::test]
async fn stream_over_64_kib_is_sent_once_shorter_is_replayed() {
    for (frames, expected) in [(0, 3), (1, 3), (64, 3), (65, 1), (200, 1)] {
        let server = Http::start().await;
        server.set_default(Action::status(503));
        let client = Client::builder(TokioExecutor::new()).build_http();
        let stack = ServiceBuilder::new()
            .layer(retry(retry_at_once()))
            .layer(BreakerLayer::new(circuit().build().unwrap()))
            .layer(FaultClassifyLayer::new())
            .timeout(TIMEOUT)
            .service(client);
        let request = http::Request::put(server.url()).body(ReplayBody::new(stream(frames))).unwrap();
        assert_eq!(stack.oneshot(request).await.unwrap().status(), 503);
        let requests = server.requests();
        assert_eq!(requests.len(), expected, "{frames}");
        assert!(requests.iter().all(|request| request.body.len() == frames * 1_024), "{frames}");
    }
}

/// Each attempt has the caller's body and headers, and no header of the layer.
#[tokio::test]
async fn attempt_sends_request_of_caller_unchanged() {
    let server = Http::start().await;
    server.script([Action::status(503), Action::CloseAfterRequest]);
    let stack = ServiceBuilder::new()
        .layer(retry(retry_at_once()))
        .service(Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>());
    let request = http::Request::post(server.url())
        .header("idempotency-key", "one")
        .header("x-twice", "a")
        .header("x-twice", "b")
        .body(Full::from("the body"))
        .unwrap();
    assert_eq!(stack.oneshot(request).await.unwrap().status(), 200);
    let requests = server.requests();
    assert_eq!(requests.len(), 3);
    for request in &requests {
        assert_eq!((&request.headers, &request.body), (&requests[0].headers, &requests[0].body));
    }
    assert_eq!(requests[2].headers.get_all("x-twice").iter().count(), 2);
}
