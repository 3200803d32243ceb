//! The storage of an ended circuit is reused. The next circuit has no state of the previous one.
//!
//! The tests run one after the other, so that no other test reuses the storage first.
#![cfg(all(feature = "keyed", feature = "stream", feature = "tokio"))]

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use futures::{FutureExt, StreamExt};
use tokio::sync::oneshot;
use tokio_test::{assert_pending, assert_ready, task};
use tower::{Layer, Service, service_fn};
use tower_breaker::fault_classify::{Origin, Retryable};
use tower_breaker::keyed::{KeyedBreakerLayer, KeyedConfig};
use tower_breaker::{
    BreakerConfig, BreakerConfigBuilder, BreakerLayer, Circuit, CircuitState, Clock, Counts, Fault, Health,
    HealthReport, Kind, ManualClock, Mode, Permit, Verdict,
};

const FAILURE: Verdict =
    Verdict::Fault(Fault::new(Kind::Server, Retryable::Never, Health::Unhealthy, Origin::Remote));
const SECOND: Duration = Duration::from_secs(1);
const OPEN_FOR: Duration = Duration::from_secs(30);

/// Creates circuits on one clock, one after the other, which use the same storage.
struct Storage {
    clock: Clock,
    time: ManualClock,
    _alone: MutexGuard<'static, ()>,
}

impl Storage {
    fn new() -> Self {
        static ALONE: Mutex<()> = Mutex::new(());
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let (clock, time) = Clock::manual();
        time.set(1_000 * SECOND);
        Self { clock, time, _alone: alone }
    }

    /// Replaces the clock with a new one, which shows the time `at`.
    fn change_clock(&mut self, at: Duration) {
        (self.clock, self.time) = Clock::manual();
        self.time.set(at);
    }

    fn config(&self, name: &'static str) -> BreakerConfigBuilder {
        BreakerConfig::builder()
            .name(name)
            .clock(self.clock)
            .consecutive_failures_span(Duration::ZERO)
            .open_for(OPEN_FOR)
            .open_jitter(0.0)
    }

    fn circuit(&self, name: &'static str) -> Circuit {
        Circuit::new(self.config(name).build().unwrap())
    }
}

fn trip(circuit: &Circuit) {
    (0..5).for_each(|_| circuit.try_acquire().unwrap().record(FAILURE));
    assert_eq!(circuit.status().state, CircuitState::Open);
}

fn assert_is_new(circuit: &Circuit, previous: &str) {
    let status = circuit.status();
    assert_eq!(status.circuit, circuit.name(), "after {previous}");
    assert_eq!((status.state, status.slow_start), (CircuitState::Closed, None), "after {previous}");
    assert_eq!((status.consecutive_failures, status.window), (0, Counts::default()), "after {previous}");
    assert_eq!((status.retry_after, status.lasted), (None, Duration::ZERO), "after {previous}");
    assert_eq!((status.rejected_calls, status.rejected_since_transition), (0, 0), "after {previous}");
    assert_eq!(status.half_open, None, "after {previous}");
    assert!(status.last_transition.is_none() && status.last_trip.is_none(), "after {previous}");
    assert_eq!((status.since_last_success, status.since_last_failure), (None, None), "after {previous}");
    assert!(status.last_failure.is_none(), "after {previous}: {:?}", status.last_failure);
}

#[test]
fn new_circuit_has_no_state_of_previous_one() {
    type Use = fn(&Storage, &Circuit);
    let uses: [(&str, Use); 13] = [
        ("rejections", |_, circuit| {
            trip(circuit);
            (0..7).for_each(|_| drop(circuit.try_acquire().unwrap_err()));
            assert_eq!(circuit.status().rejected_calls, 7);
        }),
        ("failures", |_, circuit| (0..4).for_each(|_| circuit.try_acquire().unwrap().record(FAILURE))),
        ("successes", |_, circuit| circuit.try_acquire().unwrap().record(Verdict::Success)),
        ("cancelled calls", |_, circuit| drop(circuit.try_acquire().unwrap())),
        ("an open circuit", |_, circuit| trip(circuit)),
        ("a half-open circuit", |storage, circuit| {
            trip(circuit);
            storage.time.advance(OPEN_FOR);
            circuit.try_acquire().unwrap().cancel();
        }),
        ("a slow start", |storage, circuit| {
            circuit.reconfigure(storage.config("a").slow_start(100 * SECOND).build().unwrap()).unwrap();
            trip(circuit);
            storage.time.advance(OPEN_FOR);
            (0..2).for_each(|_| circuit.try_acquire().unwrap().record(Verdict::Success));
            assert!(circuit.status().slow_start.is_some());
        }),
        ("a slow start by successes", |storage, circuit| {
            circuit.reconfigure(storage.config("a").slow_start_successes(9).build().unwrap()).unwrap();
            trip(circuit);
            storage.time.advance(OPEN_FOR);
            (0..3).for_each(|_| circuit.try_acquire().unwrap().record(Verdict::Success));
            std::mem::forget(circuit.try_acquire().unwrap());
            assert!(circuit.status().slow_start.is_some());
        }),
        ("a forced circuit", |_, circuit| circuit.force_open().unwrap()),
        ("a circuit that is forced closed", |_, circuit| circuit.force_closed().unwrap()),
        ("a health report", |_, circuit| circuit.report(HealthReport::Critical)),
        ("a disabled circuit", |storage, circuit| {
            let config = storage.config("a").mode(Mode::Disabled).build().unwrap();
            circuit.reconfigure(config).unwrap();
        }),
        ("other limits", |storage, circuit| {
            let config = storage.config("a").mode(Mode::ObserveOnly).consecutive_failures(1).count_window(3);
            circuit.reconfigure(config.build().unwrap()).unwrap();
        }),
    ];
    let mut storage = Storage::new();
    // The next circuit has a clock at the same time, far behind, or far ahead.
    for at in [1_000 * SECOND, Duration::ZERO, 1_000_000_000 * SECOND] {
        for (previous, use_circuit) in uses {
            let circuit = storage.circuit("a");
            use_circuit(&storage, &circuit);
            drop(circuit);
            storage.change_clock(at);
            let next = storage.circuit("b");
            assert_is_new(&next, previous);
            (0..4).for_each(|_| next.try_acquire().unwrap().record(FAILURE));
            next.try_acquire().unwrap().record(Verdict::Success);
            (0..4).for_each(|_| next.try_acquire().unwrap().record(FAILURE));
            let Counts { calls, failures, slow, cancelled, .. } = next.status().window;
            assert_eq!([calls, failures, slow, cancelled], [9, 8, 0, 0], "after {previous}");
            trip_by_one_more(&next, previous);
            storage.time.advance(OPEN_FOR);
            (0..2).for_each(|_| next.try_acquire().unwrap().record(Verdict::Success));
            assert_eq!(next.status().state, CircuitState::Closed, "after {previous}");
            drop(next);
            storage.change_clock(1_000 * SECOND);
        }
    }
}

#[test]
fn new_circuit_does_not_keep_first_failure_of_previous_one() {
    let mut storage = Storage::new();
    let spanned = |storage: &Storage| {
        let config = storage.config("a").failure_rate(None).consecutive_failures_span(SECOND);
        Circuit::new(config.build().unwrap())
    };
    for at in [1_000 * SECOND, Duration::ZERO, 1_000_000_000 * SECOND] {
        let circuit = spanned(&storage);
        (0..9).for_each(|_| circuit.try_acquire().unwrap().record(FAILURE));
        drop(circuit);
        storage.change_clock(at);
        let next = spanned(&storage);
        (0..9).for_each(|_| next.try_acquire().unwrap().record(FAILURE));
        storage.time.advance(Duration::from_nanos(999_999_999));
        next.try_acquire().unwrap().record(FAILURE);
        assert_eq!(next.status().state, CircuitState::Closed, "{at:?}");
        storage.time.advance(Duration::from_nanos(1));
        next.try_acquire().unwrap().record(FAILURE);
        assert_eq!(next.status().state, CircuitState::Open, "{at:?}");
        drop(next);
        storage.change_clock(1_000 * SECOND);
    }
}

fn trip_by_one_more(circuit: &Circuit, previous: &str) {
    circuit.try_acquire().unwrap().record(FAILURE);
    let status = circuit.status();
    assert_eq!(status.state, CircuitState::Open, "after {previous}");
    assert_eq!(status.last_transition.unwrap().epoch, 1, "after {previous}: its first transition");
    assert!(circuit.try_acquire().is_err(), "after {previous}");
}

/// Returns a service whose calls fail with an error that the test sends later.
fn failing_later(
    storage: &Storage,
    name: &'static str,
) -> (impl Service<oneshot::Receiver<io::Error>, Response = (), Error: std::fmt::Debug>, Circuit) {
    let layer = BreakerLayer::new(storage.config(name).build().unwrap());
    let circuit = layer.circuit();
    let service = layer
        .errors_only()
        .keep_last_failure("subject")
        .layer(service_fn(async |error: oneshot::Receiver<io::Error>| Err::<(), _>(error.await.unwrap())));
    (service, circuit)
}

#[test]
fn last_failure_of_ended_circuit_is_not_shown_by_next() {
    for ends_late in [false, true] {
        let storage = Storage::new();
        let (mut service, circuit) = failing_later(&storage, "a");
        let (sender, receiver) = oneshot::channel();
        assert!(service.poll_ready(&mut Context::from_waker(Waker::noop())).is_ready());
        let mut call = task::spawn(service.call(receiver));
        assert_pending!(call.poll());
        drop((service, circuit));
        let early = ends_late.then(|| storage.circuit("b"));
        sender.send(io::Error::other("a's secret token")).unwrap();
        assert!(assert_ready!(call.poll()).is_err());
        let next = early.unwrap_or_else(|| storage.circuit("b"));
        assert_is_new(&next, "a call that failed after its circuit had ended");
    }
}

#[test]
fn last_failures_of_thousand_tasks_stay_with_their_circuit() {
    let storage = Storage::new();
    let run = |thread: u32| {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut tasks = tokio::task::JoinSet::new();
            for task in 0..250 {
                let config = storage.config("jobs").build().unwrap();
                tasks.spawn(keep_own_failures(config, format!("task {task} of thread {thread}")));
            }
            tasks.join_all().await;
        });
    };
    std::thread::scope(|scope| (0..4).for_each(|thread| drop(scope.spawn(move || run(thread)))));
}

/// Checks that a circuit keeps the failures of its own calls, and that another circuit, which may
/// use its storage next, does not.
async fn keep_own_failures(config: BreakerConfig, subject: String) {
    let circuit = Circuit::new(config);
    let [early, late] = [(); 2].map(|()| circuit.try_acquire().unwrap());
    tokio::task::yield_now().await;
    early.fail(&io::Error::other("early"), &subject);
    tokio::task::yield_now().await;
    let last = circuit.status().last_failure.expect("the circuit keeps it");
    assert_eq!((&*last.subject, &*last.message), (&*subject, "early"));
    drop(circuit);
    let next = Circuit::new(BreakerConfig::default());
    tokio::task::yield_now().await;
    late.fail(&io::Error::other("late"), &subject);
    tokio::task::yield_now().await;
    let shown = next.status().last_failure;
    assert!(shown.is_none(), "{shown:?}");
}

#[test]
fn permit_of_ended_circuit_changes_nothing_in_next() {
    type Record = fn(Permit);
    let records: [Record; 5] = [
        |permit| permit.record(FAILURE),
        |permit| {
            permit.fail(&io::Error::other("a's secret token"), "a");
        },
        |permit| permit.record(Verdict::Success),
        drop,
        Permit::cancel,
    ];
    let times = [1_000 * SECOND, Duration::ZERO, 1_000_000_000 * SECOND];
    for (record, at) in records.into_iter().flat_map(|record| times.map(|at| (record, at))) {
        let mut storage = Storage::new();
        let circuit = storage.circuit("a");
        let closed = circuit.try_acquire().unwrap();
        drop(circuit);
        storage.change_clock(at);
        let next = storage.circuit("b");
        record(closed);
        assert_is_new(&next, "a permit");

        trip(&next);
        storage.time.advance(OPEN_FOR);
        let probe = next.try_acquire().unwrap();
        drop(next);
        storage.change_clock(at);
        let last = storage.circuit("c");
        trip(&last);
        storage.time.advance(OPEN_FOR);
        let own = last.try_acquire().unwrap();
        record(probe);
        assert_eq!(last.status().state, CircuitState::HalfOpen, "at {at:?}");
        own.cancel();
    }
}

#[test]
fn observers_and_streams_of_ended_circuit_are_not_notified_by_next() {
    let storage = Storage::new();
    let circuit = storage.circuit("a");
    let calls = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&calls);
    circuit.on_transition(move |_| {
        counter.fetch_add(1, Ordering::Relaxed);
    });
    let mut stream = circuit.transitions();
    drop(circuit);
    let next = storage.circuit("b");
    trip(&next);
    assert_eq!(calls.load(Ordering::Relaxed), 0);
    assert_eq!(Arc::strong_count(&calls), 1, "the observer was dropped with its circuit");
    assert!(stream.next().now_or_never().expect("the stream has ended").is_none());
}

#[test]
fn task_that_waited_with_ended_circuit_is_not_woken_by_next() {
    #[derive(Default)]
    struct CountWakes(AtomicUsize);
    impl Wake for CountWakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    let storage = Storage::new();
    let count = Arc::new(CountWakes::default());
    let waker = Waker::from(Arc::clone(&count));
    let never = tower::limit::ConcurrencyLimit::new(service_fn(async |()| Ok::<_, io::Error>(())), 0);
    let layer = BreakerLayer::new(storage.config("a").build().unwrap());
    let mut service = layer.errors_only().layer(never);
    let polled: Poll<Result<(), _>> = service.poll_ready(&mut Context::from_waker(&waker));
    assert!(polled.is_pending());
    drop(service);
    let next = storage.circuit("b");
    trip(&next);
    assert_eq!(count.0.load(Ordering::Relaxed), 0);
    drop(waker);
    assert_eq!(Arc::strong_count(&count), 1, "the waker was dropped with its service");
}

#[test]
fn disabled_circuit_has_no_failures_of_previous_one() {
    let storage = Storage::new();
    trip(&storage.circuit("first"));
    let second = Circuit::new(storage.config("second").mode(Mode::Disabled).build().unwrap());
    assert_eq!((second.status().state, second.status().consecutive_failures), (CircuitState::Disabled, 0));
}

#[test]
fn key_that_replaces_evicted_key_has_no_state_of_it() {
    let storage = Storage::new();
    let config =
        KeyedConfig::builder(storage.config("tenants").build().unwrap()).max_keys(1).build().unwrap();
    let layer = KeyedBreakerLayer::<_, _>::new(config, |key: &u64| *key);
    let circuits = layer.circuits();
    let evicted = circuits.get_or_insert(1).unwrap();
    (0..5).for_each(|_| evicted.try_acquire().unwrap().record(FAILURE));
    drop(evicted);
    storage.time.advance(2 * OPEN_FOR);
    let status = circuits.get_or_insert(2).unwrap().status();
    assert_eq!((status.key.as_deref(), status.state), (Some("2"), CircuitState::Closed));
    assert_eq!((status.consecutive_failures, status.window), (0, Counts::default()));
    assert!(status.last_transition.is_none() && status.last_trip.is_none() && status.last_failure.is_none());
}

#[test]
fn weak_handle_never_refers_to_next_circuit() {
    let storage = Storage::new();
    let weak = storage.circuit("first").downgrade();
    assert!(weak.upgrade().is_none());
    let second = storage.circuit("second");
    assert!(weak.upgrade().is_none(), "the storage belongs to another circuit now");
    assert_eq!(second.downgrade().upgrade().unwrap().name(), "second");
}
