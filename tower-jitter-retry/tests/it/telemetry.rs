//! Callbacks, the history on outcomes, and metrics.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{Method, Request};
use tower::{Layer, service_fn};
use tower_jitter_retry::fault_classify::Kind;
use tower_jitter_retry::{Budget, Clock, Jitter, JitterRetryLayer, Retried, RetryEvent, RetryPolicy};

use crate::support::{Broken, Calls, block_on, immediate, request, response, send};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn on_retry_is_called_before_each_delay() {
    let events = Arc::<Mutex<Vec<RetryEvent>>>::default();
    let policy = RetryPolicy::builder()
        .budget(None::<Budget>)
        .clock(Clock::tokio())
        .jitter(Jitter::None)
        .initial_backoff(SECOND)
        .on_retry({
            let events = Arc::clone(&events);
            move |event| events.lock().unwrap().push(*event)
        });
    let (calls, seen) = (Calls::default(), Arc::clone(&events));
    let mut service =
        JitterRetryLayer::new(policy.build().unwrap()).layer(service_fn(move |_: Request<String>| {
            let call = calls.next();
            assert_eq!(seen.lock().unwrap().len(), call - 1, "the callback runs before the attempt");
            async { Ok::<_, io::Error>(response(503)) }
        }));
    send(&mut service, request(Method::GET)).await.unwrap();
    let events = events.lock().unwrap();
    let seen: Vec<_> = events.iter().map(|event| (event.attempt, event.delay, event.elapsed)).collect();
    assert_eq!(seen, [(1, SECOND, Duration::ZERO), (2, 2 * SECOND, SECOND)]);
    assert!(events.iter().all(|event| event.fault.kind() == Kind::Unavailable));
}

#[test]
fn on_retry_is_not_called_without_retry() {
    let refused = Budget::window().ratio(0.0).min_per_second(0).build().unwrap();
    for (policy, status) in [
        (immediate(), 200),
        (immediate(), 404),
        (immediate().max_attempts(1), 503),
        (immediate().budget(refused), 503),
    ] {
        let policy = policy.on_retry(|event| panic!("{event:?}")).build().unwrap();
        let mut service = JitterRetryLayer::new(policy)
            .layer(service_fn(move |_: Request<String>| async move { Ok::<_, io::Error>(response(status)) }));
        let answer = block_on(send(&mut service, request(Method::GET))).unwrap();
        assert_eq!(answer.extensions().get::<Retried>(), None);
    }
}

#[test]
fn on_retry_panic_is_caught() {
    let policy = immediate().on_retry(|_| panic!("intended panic")).build().unwrap();
    let mut service = JitterRetryLayer::new(policy).layer(service_fn(async |_: u32| Err::<(), _>(Broken(7))));
    assert_eq!(block_on(send(&mut service, 7)), Err(Broken(7)));
}

#[tokio::test(start_paused = true)]
async fn retried_response_carries_attempts_and_elapsed_time() {
    let calls = Calls::default();
    let policy = RetryPolicy::builder()
        .budget(None::<Budget>)
        .clock(Clock::tokio())
        .jitter(Jitter::None)
        .initial_backoff(SECOND);
    let mut service =
        JitterRetryLayer::new(policy.build().unwrap()).layer(service_fn(|_: Request<String>| {
            let status = if calls.next() < 3 { 503 } else { 200 };
            async move {
                tokio::time::sleep(SECOND).await;
                Ok::<_, io::Error>(response(status))
            }
        }));
    let answer = send(&mut service, request(Method::GET)).await.unwrap();
    let retried = answer.extensions().get::<Retried>().unwrap();
    assert_eq!((retried.attempts, retried.elapsed), (3, 6 * SECOND));
    let answer = send(&mut service, request(Method::GET)).await.unwrap();
    assert!(answer.extensions().is_empty(), "a success on the first attempt carries no history");
}

/// The metrics after several calls.
#[cfg(feature = "metrics")]
#[test]
fn metrics_count_attempts_retries_delays_and_give_ups() {
    use std::collections::BTreeMap;

    use metrics_util::debugging::{DebugValue, DebuggingRecorder};
    use tower_fault_classify::ClassifiedError;
    use tower_jitter_retry::RetrySafety;
    use tower_jitter_retry::fault_classify::{Fault, Health, Origin, Retryable};

    const REJECTED: Fault = Fault::new(Kind::Rejected, Retryable::Never, Health::Neutral, Origin::Local);

    fn run(policy: tower_jitter_retry::RetryPolicyBuilder, status: u16, method: Method) {
        let mut service = JitterRetryLayer::new(policy.build().unwrap())
            .layer(service_fn(move |_: Request<String>| async move { Ok::<_, io::Error>(response(status)) }));
        block_on(send(&mut service, request(method))).unwrap();
    }

    /// A request whose replay fails.
    struct ReplayFails;
    impl tower_jitter_retry::RequestInfo for ReplayFails {}
    impl tower_jitter_retry::request::RetryRequest for ReplayFails {
        type Saved = ();
        fn save(&mut self, _: usize) -> Option<()> {
            Some(())
        }
        fn replay(_: &mut Option<()>, _: tower_jitter_retry::request::Attempt, _: bool) -> Option<Self> {
            None
        }
    }

    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    metrics::with_local_recorder(&recorder, || {
        let events = immediate().on_retry(|event| panic!("{event:?}")).build().unwrap();
        let mut service = JitterRetryLayer::new(events)
            .layer(service_fn(async |_: ReplayFails| Err::<(), _>(io::Error::from(io::ErrorKind::TimedOut))));
        block_on(send(&mut service, ReplayFails)).unwrap_err();
        let rejects = async |_: u32| Err::<(), _>(ClassifiedError::from_fault(REJECTED));
        let mut service = JitterRetryLayer::new(immediate().build().unwrap()).layer(service_fn(rejects));
        block_on(send(&mut service, 7)).unwrap_err();
        run(immediate(), 200, Method::GET);
        run(immediate(), 503, Method::GET);
        run(immediate(), 404, Method::GET);
        run(immediate(), 503, Method::POST);
        run(immediate().retry_while(|| false), 503, Method::GET);
        run(immediate().safety(RetrySafety::Always), 429, Method::POST);
        run(
            immediate().max_elapsed(Duration::ZERO).initial_backoff(SECOND).jitter(Jitter::None),
            503,
            Method::GET,
        );
        run(
            immediate().budget(Budget::window().ratio(0.0).min_per_second(0).build().unwrap()),
            503,
            Method::GET,
        );
    });
    let mut counted = BTreeMap::new();
    for (key, _, _, value) in snapshotter.snapshot().into_vec() {
        let labels = key.key().labels().map(|label| format!("{}={}", label.key(), label.value()));
        let name = key.key().name().trim_start_matches("tower_jitter_retry_");
        let value = match value {
            DebugValue::Counter(count) => count,
            DebugValue::Histogram(delays) => delays.len() as u64,
            DebugValue::Gauge(_) => unreachable!("there are no gauges"),
        };
        counted.insert(format!("{name}{{{}}}", labels.collect::<Vec<_>>().join(",")), value);
    }
    let expected = [
        ("attempts_total{policy=retry}", 14),
        ("budget_refusals_total{policy=retry}", 1),
        ("delay_seconds{policy=retry}", 4),
        ("give_ups_total{policy=retry,error.type=client,reason=not_retryable}", 1),
        ("give_ups_total{policy=retry,error.type=rejected,reason=rejected}", 1),
        ("give_ups_total{policy=retry,error.type=throttled,reason=attempts}", 1),
        ("give_ups_total{policy=retry,error.type=timeout,reason=not_replayable}", 1),
        ("give_ups_total{policy=retry,error.type=unavailable,reason=attempts}", 1),
        ("give_ups_total{policy=retry,error.type=unavailable,reason=budget}", 1),
        ("give_ups_total{policy=retry,error.type=unavailable,reason=not_idempotent}", 1),
        ("give_ups_total{policy=retry,error.type=unavailable,reason=max_elapsed}", 1),
        ("give_ups_total{policy=retry,error.type=unavailable,reason=stopped}", 1),
        ("retries_total{policy=retry,error.type=throttled}", 2),
        ("retries_total{policy=retry,error.type=unavailable}", 2),
    ];
    let expected: BTreeMap<_, _> =
        expected.into_iter().map(|(name, count)| (name.to_owned(), count)).collect();
    assert_eq!(counted, expected);
}

#[cfg(feature = "metrics")]
#[test]
fn metrics_have_name_of_policy_and_descriptions() {
    use metrics::Unit;
    use metrics_util::debugging::{DebugValue, DebuggingRecorder};

    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    metrics::with_local_recorder(&recorder, || {
        // A name that is built at run time.
        for name in ["search".to_owned(), "stock".to_owned()] {
            let policy = immediate().name(name).build().unwrap();
            assert_eq!(policy.to_builder().build().unwrap().name(), policy.name());
            let refused = || Err::<(), _>(io::Error::from(io::ErrorKind::ConnectionRefused));
            policy.retry_blocking(refused).unwrap_err();
        }
    });
    let mut attempts = Vec::new();
    for (key, unit, text, value) in snapshotter.snapshot().into_vec() {
        let name = key.key().name().to_owned();
        let policy = key.key().labels().find(|label| label.key() == "policy");
        let policy = policy.unwrap_or_else(|| panic!("{name} has no policy")).value().to_owned();
        let expected = if name.ends_with("_seconds") { Unit::Seconds } else { Unit::Count };
        assert_eq!(unit, Some(expected), "{name}");
        assert!(text.is_some_and(|text| text.ends_with('.')), "{name}");
        if name == "tower_jitter_retry_attempts_total" {
            let DebugValue::Counter(count) = value else { panic!("{name} is not a counter") };
            attempts.push((policy, count));
        }
    }
    attempts.sort();
    assert_eq!(attempts, [("search".to_owned(), 3), ("stock".to_owned(), 3)]);
}

/// A recorder that makes a call of its own for each count, like a recorder that sends its counts to
/// a server.
#[cfg(feature = "metrics")]
mod recorder {
    use std::cell::Cell;
    use std::sync::Arc;

    use metrics::{
        Counter, CounterFn, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit,
    };

    pub(crate) struct Calls(pub(crate) fn());

    struct Count(fn());

    impl CounterFn for Count {
        fn increment(&self, _: u64) {
            thread_local! {
                /// Whether the recorder's own call is running. That call is counted too, and makes
                /// no further call.
                static WITHIN: Cell<bool> = const { Cell::new(false) };
            }
            if !WITHIN.replace(true) {
                (self.0)();
                WITHIN.set(false);
            }
        }

        fn absolute(&self, _: u64) {}
    }

    impl Recorder for Calls {
        fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

        fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
            Counter::from_arc(Arc::new(Count(self.0)))
        }

        fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
            Gauge::noop()
        }

        fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
            Histogram::noop()
        }
    }
}

#[cfg(feature = "metrics")]
#[test]
fn metrics_recorder_that_retries_counts_its_own_calls() {
    fn call() {
        let policy = immediate().build().unwrap();
        let refused =
            policy.retry_blocking(|| Err::<(), _>(io::Error::from(io::ErrorKind::ConnectionRefused)));
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }
    metrics::with_local_recorder(&recorder::Calls(call), call);
}
