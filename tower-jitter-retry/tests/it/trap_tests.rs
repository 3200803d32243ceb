//! The traps that the field fell into, a test each. The numbers are those of the list that they were collected in.

mod support;

use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use tokio::time::Instant;
use tower::{Layer, Service, ServiceBuilder, service_fn};
use tower_jitter_retry::{
    Budget, BudgetBuilder, Clock, Jitter, JitterRetryLayer, ReplayBody, RequestInfo, RetryPolicy,
    RetryPolicyBuilder,
};

use support::{Broken, Calls, at_once, now, request, response, send};

const MILLI: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

fn layer(builder: RetryPolicyBuilder) -> JitterRetryLayer {
    JitterRetryLayer::new(builder.build().unwrap())
}

fn slow() -> RetryPolicyBuilder {
    RetryPolicy::builder().budget(None::<Budget>).clock(Clock::tokio())
}

/// The pauses between the attempts of one call against a server that always gives this answer.
async fn pauses(layer: &JitterRetryLayer, answer: impl Fn() -> http::response::Builder) -> Vec<Duration> {
    let sent = Mutex::new(Vec::new());
    let mut service = layer.layer(service_fn(|_: Request<String>| {
        sent.lock().unwrap().push(Instant::now());
        let answer = answer().body(()).unwrap();
        async { Ok::<_, io::Error>(answer) }
    }));
    send(&mut service, request(Method::GET)).await.unwrap();
    let sent = sent.into_inner().unwrap();
    sent.windows(2).map(|pair| pair[1] - pair[0]).collect()
}

fn ill() -> http::response::Builder {
    Response::builder().status(503)
}

/// How often a plain request is sent that always fails, beyond the first time.
fn retries(layer: &JitterRetryLayer, requests: usize) -> usize {
    let calls = Calls::default();
    let mut service = layer.layer(service_fn(|_: u32| {
        calls.next();
        async { Err::<(), _>(Broken(0)) }
    }));
    for _ in 0..requests {
        now(send(&mut service, 7)).unwrap_err();
    }
    calls.made() - requests
}

#[tokio::test(start_paused = true)]
async fn trap_19_a_base_of_a_second_is_jittered_in_nanoseconds_and_no_two_calls_alike() {
    let policy = || slow().base(SECOND).max_attempts(4).seed(1);
    let backoff = policy().build().unwrap().backoff();
    let mut rng = fastrand::Rng::with_seed(1);
    let fine = backoff.delays(|range| rng.u64(range)).take(1_000);
    assert!(fine.filter(|delay| delay.subsec_nanos() % 1_000_000 != 0).count() > 990);
    // The services are clones of one, as tower's `Buffer`, `axum` and `tonic` make them.
    let one = layer(policy());
    let mut seen = BTreeSet::new();
    for _ in 0..100 {
        assert!(seen.insert(pauses(&one.clone(), ill).await), "two calls wait alike");
    }
}

#[tokio::test(start_paused = true)]
async fn trap_20_no_delay_passes_the_cap() {
    for jitter in [
        Jitter::Full,
        Jitter::Equal,
        Jitter::Decorrelated,
        Jitter::Proportional(1.0),
        Jitter::Additive(SECOND),
    ] {
        let capped = layer(slow().base(SECOND).cap(SECOND).jitter(jitter).max_attempts(50).max_elapsed(None));
        let pauses = pauses(&capped, ill).await;
        assert_eq!(pauses.len(), 49);
        // Tokio's timer rounds up to a millisecond.
        assert!(pauses.iter().all(|pause| *pause <= SECOND + MILLI), "{jitter:?}: {pauses:?}");
    }
}

fn budget(builder: BudgetBuilder) -> (Budget, tower_jitter_retry::ManualClock) {
    let (clock, hand) = Clock::manual();
    (builder.clock(clock).build().unwrap(), hand)
}

#[test]
fn trap_21_a_ratio_of_six_tenths_grants_six_of_ten_also_to_threads_at_once() {
    let (budget, _hand) = budget(Budget::builder().ratio(0.6).min_per_second(0));
    let layer = layer(at_once().budget(budget).max_attempts(4));
    assert_eq!(retries(&layer, 10), 6);
    let granted = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| granted.fetch_add(retries(&layer, 1_000), Ordering::Relaxed));
        }
    });
    let granted = granted.into_inner();
    assert!(
        (4_790..=4_800).contains(&granted),
        "{granted} of 4,800: no overshoot, and what is left is a rest"
    );
}

#[test]
fn trap_21_a_budget_that_was_idle_for_a_century_answers_and_one_that_ran_dry_comes_back() {
    let (budget, hand) = budget(Budget::builder().ratio(0.5).min_per_second(0).span(SECOND));
    let layer = layer(at_once().budget(budget));
    assert_eq!(retries(&layer, 100), 50);
    hand.advance(100 * 365 * 24 * 3_600 * SECOND);
    // One pass over sixteen cells a ring, and nothing that expires one by one: else this would not end.
    for _ in 0..20 {
        assert_eq!(retries(&layer, 100), 50, "what ran dry comes back whole");
        hand.advance(100 * 365 * 24 * 3_600 * SECOND / 50);
    }
}

#[tokio::test(start_paused = true)]
async fn trap_22_a_servers_delay_is_capped_read_to_the_millisecond_and_never_shortened() {
    let two = layer(slow().max_attempts(2).max_elapsed(None).seed(5));
    let after = |name: &'static str, value: &'static str| move || ill().header(name, value);
    assert_eq!(pauses(&two, after("retry-after", "3600")).await, [], "an hour is not waited for");
    let mut seen = BTreeSet::new();
    for _ in 0..50 {
        let pause = pauses(&two, after("retry-after-ms", "1500")).await[0];
        assert!((1_500 * MILLI..=2_251 * MILLI).contains(&pause), "{pause:?}");
        seen.insert(pause);
    }
    assert!(seen.len() > 40, "clients that were told the same do not come back in the same millisecond");
    let date = || {
        ill()
            .header("date", "Sun, 06 Nov 1994 08:49:30 GMT")
            .header("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT")
    };
    let pause = pauses(&two, date).await[0];
    assert!((7 * SECOND..=10_501 * MILLI).contains(&pause), "{pause:?}");
}

#[test]
fn trap_22_a_negative_pushback_stops() {
    let calls = Calls::default();
    let policy = at_once().safety(tower_jitter_retry::RetrySafety::Always);
    let mut service = layer(policy).layer(service_fn(|_: Request<String>| {
        calls.next();
        let answer =
            Response::builder().header("content-type", "application/grpc").header("grpc-status", "14");
        let answer = answer.header("grpc-retry-pushback-ms", "-1").body(()).unwrap();
        async { Ok::<_, io::Error>(answer) }
    }));
    now(send(&mut service, request(Method::POST))).unwrap();
    assert_eq!(calls.made(), 1);
}

#[test]
fn trap_23_a_post_is_not_sent_again_after_a_timeout() {
    let calls = Calls::default();
    let mut service = layer(at_once()).layer(service_fn(|_: Request<String>| {
        calls.next();
        async { Err::<Response<()>, _>(io::Error::from(ErrorKind::TimedOut)) }
    }));
    now(send(&mut service, request(Method::POST))).unwrap_err();
    assert_eq!(calls.made(), 1);
}

#[test]
fn trap_24_a_streaming_body_is_sent_again_whole_or_once_and_never_empty() {
    for (limit, expected) in [(1_024, 3), (4, 1)] {
        let bodies = Mutex::new(Vec::new());
        let mut service = layer(at_once().replay_limit(limit)).layer(service_fn(
            |request: Request<ReplayBody<Full<Bytes>>>| {
                bodies.lock().unwrap().push(now(request.into_body().collect()).unwrap().to_bytes());
                async { Ok::<_, io::Error>(response(503)) }
            },
        ));
        let body = ReplayBody::new(Full::new(Bytes::from_static(b"the body")));
        let answer = now(send(&mut service, Request::put("/").body(body).unwrap())).unwrap();
        assert_eq!(
            (answer.status().as_u16(), bodies.into_inner().unwrap()),
            (503, vec!["the body".into(); expected])
        );
    }
}

#[test]
fn trap_25_every_attempt_is_made_on_a_service_that_was_polled_ready() {
    struct Strict {
        ready: bool,
        calls: Calls,
    }
    impl Clone for Strict {
        fn clone(&self) -> Self {
            Self { ready: false, calls: self.calls.clone() }
        }
    }
    impl Service<u32> for Strict {
        type Response = ();
        type Error = Broken;
        type Future = std::future::Ready<Result<(), Broken>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Broken>> {
            self.ready = true;
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: u32) -> Self::Future {
            assert!(
                std::mem::take(&mut self.ready),
                "it was not polled ready, or its readiness was used already"
            );
            std::future::ready(Err(Broken(self.calls.next())))
        }
    }
    let calls = Calls::default();
    let mut service = layer(at_once().max_attempts(5)).layer(Strict { ready: false, calls: calls.clone() });
    for _ in 0..3 {
        now(send(&mut service, 7)).unwrap_err();
    }
    assert_eq!(calls.made(), 15);
}

#[test]
fn trap_26_a_request_is_not_cloned_when_no_retry_can_follow() {
    #[derive(Debug)]
    struct Counted(Arc<AtomicUsize>);
    impl Clone for Counted {
        fn clone(&self) -> Self {
            self.0.fetch_add(1, Ordering::Relaxed);
            Self(Arc::clone(&self.0))
        }
    }
    impl RequestInfo for Counted {}
    for (attempts, expected) in [(1, 0), (2, 1), (3, 2)] {
        let clones = Arc::default();
        let mut service = JitterRetryLayer::new(at_once().max_attempts(attempts).build().unwrap())
            .clone_requests()
            .layer(service_fn(async |_: Counted| Err::<(), _>(Broken(0))));
        now(send(&mut service, Counted(Arc::clone(&clones)))).unwrap_err();
        assert_eq!(clones.load(Ordering::Relaxed), expected, "{attempts} attempts");
    }
}

#[tokio::test(start_paused = true)]
async fn trap_27_time_is_checked_against_the_sleep_and_no_delay_overflows() {
    let constant = || slow().jitter(Jitter::None).base(10 * SECOND).factor(1.0).max_attempts(100);
    let before = Instant::now();
    assert_eq!(pauses(&layer(constant().max_elapsed(25 * SECOND)), ill).await, [10 * SECOND; 2]);
    assert_eq!(before.elapsed(), 20 * SECOND, "no sleep is begun that would end at 30");
    let year = 365 * 24 * 3_600 * SECOND;
    let huge = slow().jitter(Jitter::Additive(year)).base(year).cap(year).factor(1_000.0).max_attempts(1_000);
    assert_eq!(pauses(&layer(huge.max_elapsed(None)), ill).await.len(), 999);
}

#[test]
fn trap_28_an_error_is_the_inner_one_retried_or_not() {
    for (attempts, kind) in
        [(1, ErrorKind::TimedOut), (3, ErrorKind::TimedOut), (3, ErrorKind::PermissionDenied)]
    {
        let mut service = layer(at_once().max_attempts(attempts))
            .layer(service_fn(move |_: u32| async move { Err::<(), _>(io::Error::new(kind, Broken(7))) }));
        let error: io::Error = now(send(&mut service, 7)).unwrap_err();
        assert_eq!((error.kind(), error.downcast::<Broken>().unwrap()), (kind, Broken(7)));
    }
}

/// Ours is a scope of methods: it holds before the first retry.
#[test]
fn trap_29_a_scope_holds_from_the_first_retry_on() {
    let calls = Calls::default();
    let mut service =
        layer(at_once().idempotent_methods(["shop.Orders/Get"])).layer(service_fn(|_: Request<String>| {
            calls.next();
            let answer =
                Response::builder().header("content-type", "application/grpc").header("grpc-status", "14");
            async { Ok::<_, io::Error>(answer.body(()).unwrap()) }
        }));
    let call = |path: &str| {
        Request::post(path).header("content-type", "application/grpc").body(String::new()).unwrap()
    };
    now(send(&mut service, call("/shop.Orders/Put"))).unwrap();
    assert_eq!(calls.made(), 1);
    now(send(&mut service, call("/shop.Orders/Get"))).unwrap();
    assert_eq!(calls.made(), 1 + 3);
}

#[test]
fn trap_30_three_nested_layers_of_three_make_three_calls() {
    let calls = Calls::default();
    let three = || layer(at_once());
    let mut service = ServiceBuilder::new().layer(three()).layer(three()).layer(three()).service(service_fn(
        |_: Request<String>| {
            calls.next();
            async { Ok::<_, io::Error>(response(503)) }
        },
    ));
    now(send(&mut service, request(Method::GET))).unwrap();
    assert_eq!(calls.made(), 3);
}
