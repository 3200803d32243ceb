//! The circuit without tower: permits, futures on any executor, threads, and extreme values.

use std::future::{Future, pending};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use tower_breaker::{
    BreakerError, CancelledPolicy, Circuit, CircuitState, Counts, Health, ManualClock, Reason, Verdict,
};

use crate::support::{FAILURE, FAULT, OPEN_FOR, SECOND, circuit, config, refused, send, state};

fn half_open(circuit: &Circuit, time: &ManualClock) {
    circuit.trip().unwrap();
    time.advance(OPEN_FOR);
    circuit.try_acquire().unwrap().cancel();
    assert_eq!(state(circuit), CircuitState::HalfOpen);
}

/// Returns the number of free probe slots.
fn free_slots(circuit: &Circuit) -> usize {
    let permits: Vec<_> = std::iter::from_fn(|| circuit.try_acquire().ok()).collect();
    let slots = permits.len();
    permits.into_iter().for_each(tower_breaker::Permit::cancel);
    slots
}

/// Runs a future on this thread, which is parked between the polls.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(value) => return value,
            Poll::Pending => thread::park(),
        }
    }
}

#[test]
fn permit_counts_verdicts_but_not_cancel_and_drop() {
    let (circuit, time) = circuit(config());
    assert!(send(&circuit, Verdict::Success) && send(&circuit, FAILURE));
    assert!(send(&circuit, FAULT.with_health(Health::Healthy).into()));
    assert!(send(&circuit, FAULT.with_health(Health::Neutral).into()));
    circuit.try_acquire().unwrap().cancel();
    drop(circuit.try_acquire().unwrap());
    let Counts { calls, failures, .. } = circuit.status().window;
    assert_eq!((calls, failures), (3, 1));
    half_open(&circuit, &time);
    for end_permit in [
        |circuit: &Circuit| circuit.try_acquire().unwrap().cancel(),
        |circuit: &Circuit| drop(circuit.try_acquire().unwrap()),
        |circuit: &Circuit| assert!(send(circuit, FAULT.with_health(Health::Neutral).into())),
    ] {
        end_permit(&circuit);
        assert_eq!((state(&circuit), free_slots(&circuit)), (CircuitState::HalfOpen, 3));
    }
    assert!(send(&circuit, Verdict::Success) && send(&circuit, Verdict::Success));
    assert_eq!(state(&circuit), CircuitState::Closed);
}

#[test]
fn late_probe_is_counted_and_frees_no_other_slot() {
    let (circuit, time) = circuit(config().probes(1));
    half_open(&circuit, &time);
    let late = circuit.try_acquire().unwrap();
    time.advance(OPEN_FOR);
    let successor = circuit.try_acquire().unwrap();
    late.record(Verdict::Success);
    assert!(circuit.try_acquire().is_err(), "the successor holds the slot");
    successor.record(Verdict::Success);
    assert_eq!(state(&circuit), CircuitState::Closed, "both successes are counted");
}

#[test]
fn slow_probe_reopens_after_its_slot_was_reused() {
    let (circuit, time) = circuit(config().slow_call_rate(SECOND, 1.0).probes(1));
    half_open(&circuit, &time);
    let slow = circuit.try_acquire().unwrap();
    time.advance(OPEN_FOR);
    let successor = circuit.try_acquire().unwrap();
    slow.record(Verdict::Success);
    assert_eq!(circuit.status().last_trip.unwrap().reason, Reason::ProbeSlow);
    drop(successor);
}

#[test]
fn probe_cancelled_after_limit_and_slot_reuse_counts_as_failure() {
    let (circuit, time) = circuit(config().cancelled(CancelledPolicy::FailureAfter(SECOND)).probes(1));
    half_open(&circuit, &time);
    let hung = circuit.try_acquire().unwrap();
    time.advance(OPEN_FOR);
    let successor = circuit.try_acquire().unwrap();
    drop(hung);
    assert_eq!(circuit.status().last_trip.unwrap().reason, Reason::ProbeFailed);
    successor.cancel();
}

#[test]
fn permit_outlives_circuit() {
    let (circuit, time) = circuit(config());
    let early: Vec<_> = (0..10).map(|_| circuit.try_acquire().unwrap()).collect();
    half_open(&circuit, &time);
    for permit in early {
        permit.record(FAILURE);
    }
    assert_eq!(state(&circuit), CircuitState::HalfOpen);
    let last = circuit.try_acquire().unwrap();
    drop(circuit);
    last.record(FAILURE);
}

#[test]
fn call_runs_on_any_executor() {
    let (circuit, time) = circuit(config());
    let result = block_on(circuit.call(async { Ok::<_, io::Error>(7) }));
    assert_eq!(result.unwrap(), 7);
    // A future that waits for another thread.
    let cell = Arc::new((AtomicUsize::new(0), std::sync::Mutex::new(None::<Waker>)));
    let shared = Arc::clone(&cell);
    let waits = std::future::poll_fn(move |cx| {
        *shared.1.lock().unwrap() = Some(cx.waker().clone());
        let value = shared.0.load(Ordering::SeqCst);
        if value == 0 { Poll::Pending } else { Poll::Ready(Ok::<_, io::Error>(value)) }
    });
    let waker = thread::spawn(move || {
        cell.0.store(8, Ordering::SeqCst);
        cell.1.lock().unwrap().take().map(Waker::wake)
    });
    assert_eq!(block_on(circuit.call(waits)).unwrap(), 8);
    waker.join().unwrap();
    for _ in 0..5 {
        let error = block_on(circuit.call(async { Err::<(), _>(refused()) })).unwrap_err();
        assert!(matches!(error, BreakerError::Inner(_)));
    }
    let rejected = circuit.call::<_, (), io::Error, _>(async { unreachable!("the call is rejected") });
    assert!(block_on(rejected).unwrap_err().rejection().is_some());
    time.advance(OPEN_FOR);
    // A call acquires its permit when it is polled first, not when it is created.
    let calls: Vec<_> = (0..10).map(|_| circuit.call(async { Ok::<_, io::Error>(()) })).collect();
    assert_eq!(state(&circuit), CircuitState::Open);
    for call in calls {
        block_on(call).unwrap();
    }
    assert_eq!(state(&circuit), CircuitState::Closed);
}

#[test]
fn call_dropped_before_first_poll_is_not_counted() {
    let (circuit, _time) = circuit(config().cancelled(CancelledPolicy::Failure));
    let hangs = || circuit.call(pending::<io::Result<()>>());
    drop(hangs());
    assert_eq!(circuit.status().consecutive_failures, 0);
    for failures in 1..5 {
        let polled = pin!(hangs()).poll(&mut Context::from_waker(Waker::noop())).is_pending();
        assert_eq!((polled, circuit.status().consecutive_failures), (true, failures));
    }
}

#[test]
fn threads_count_every_call_and_open_once() {
    let (circuit, time) = circuit(config().consecutive_failures(0).failure_rate(0.5).minimum_calls(16_000));
    let on_8_threads = |call: fn() -> io::Result<()>, calls: usize| {
        thread::scope(|scope| {
            let run = || (0..calls).filter(|_| circuit.call_blocking(call).is_ok()).count();
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(run)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum::<usize>()
        })
    };
    assert_eq!(on_8_threads(|| Ok(()), 1_000), 8_000);
    assert_eq!(circuit.status().window.calls, 8_000);
    assert_eq!(on_8_threads(|| Err(refused()), 1_000), 0);
    let trip = circuit.status().last_trip.expect("half of 16,000 calls have failed");
    assert_eq!((trip.epoch, trip.counts.unwrap().calls), (1, 16_000));
    assert_eq!(on_8_threads(|| unreachable!("the circuit is open"), 1_000), 0);
    time.advance(OPEN_FOR);
    assert!(on_8_threads(|| Ok(()), 100) > 2);
    assert_eq!(state(&circuit), CircuitState::Closed);
}

#[test]
fn status_rejects_calls_until_open_time_ends() {
    let (circuit, time) = circuit(config());
    assert!(!circuit.status().rejects_calls(), "closed");
    circuit.trip().unwrap();
    assert!(circuit.status().rejects_calls());
    time.advance(OPEN_FOR);
    assert_eq!(state(&circuit), CircuitState::Open, "no call has arrived yet");
    assert!(!circuit.status().rejects_calls());
    let probe = circuit.try_acquire().unwrap();
    assert!(!circuit.status().rejects_calls(), "half-open");
    drop(probe);
    circuit.force_open().unwrap();
    time.advance(OPEN_FOR);
    assert!(circuit.status().rejects_calls(), "forced open");
}

#[test]
fn circuit_open_until_reset_rejects_calls_forever() {
    let (circuit, time) = circuit(config().open_until_reset(true));
    circuit.trip().unwrap();
    time.advance(1_000 * OPEN_FOR);
    assert!(circuit.status().rejects_calls());
    circuit.reset().unwrap();
    assert!(!circuit.status().rejects_calls());
}

#[test]
fn clock_that_stands_still_counts_and_trips() {
    let (circuit, _time) = circuit(config().consecutive_failures(0).slow_call_rate(SECOND, 0.1));
    (0..1_000).for_each(|_| assert!(send(&circuit, Verdict::Success)));
    for failure in 1..=1_000 {
        assert_eq!(send(&circuit, FAILURE), failure <= 1_000);
    }
    assert_eq!(circuit.status().last_trip.unwrap().reason, Reason::FailureRate);
    assert_eq!(circuit.try_acquire().unwrap_err().retry_after(), Some(OPEN_FOR));
}

#[test]
fn outcome_after_clock_ran_back_is_counted_in_newest_bucket() {
    for back_to in [999, 940, 500, 1, 0] {
        let (circuit, time) = circuit(config().consecutive_failures(0).slow_call_rate(SECOND, 1.0));
        let early = circuit.try_acquire().unwrap();
        (0..8).for_each(|_| assert!(send(&circuit, FAILURE)));
        time.set(Duration::from_secs(back_to));
        early.record(FAILURE);
        assert_eq!(circuit.status().window.slow, 0, "the duration of a call is never negative");
        time.set(Duration::from_secs(1_059));
        assert_eq!(circuit.status().window.failures, 9, "back to {back_to} s");
    }
}

#[test]
fn clock_that_runs_back_neither_closes_nor_blocks() {
    for back_to in [999, 940, 500, 1, 0] {
        let (circuit, time) = circuit(config().slow_start(10 * SECOND));
        (0..5).for_each(|_| assert!(send(&circuit, FAILURE)));
        time.set(Duration::from_secs(back_to));
        let left = Duration::from_secs(1_030 - back_to);
        assert_eq!(circuit.try_acquire().unwrap_err().retry_after(), Some(left));
        time.set(Duration::from_secs(1_030));
        assert!(send(&circuit, Verdict::Success));
        time.set(Duration::from_secs(back_to));
        assert!(send(&circuit, Verdict::Success));
        assert_eq!(state(&circuit), CircuitState::Closed);
        (0..5).for_each(|_| _ = send(&circuit, FAILURE));
        time.set(Duration::from_secs(2_000));
        assert!(send(&circuit, Verdict::Success));
        assert_eq!((state(&circuit), circuit.status().slow_start), (CircuitState::Closed, None));
    }
}

#[test]
fn circuit_works_at_end_of_clock() {
    let year = Duration::from_secs(365 * 86_400);
    let limits =
        config().open_for(year).probe_lease(year).time_window(year).slow_start(year).open_jitter(1.0);
    let (circuit, time) = circuit(limits.open_backoff(100.0, year));
    time.set(Duration::MAX);
    (0..5).for_each(|_| assert!(send(&circuit, FAILURE)));
    assert_eq!(circuit.status().last_trip.unwrap().reason, Reason::ConsecutiveFailures);
    drop(circuit.try_acquire());
    circuit.reset().unwrap();
    assert!(send(&circuit, Verdict::Success));
}

#[test]
fn largest_limits_neither_overflow_nor_trip() {
    let most = config().consecutive_failures(1_000_000).minimum_calls(u32::MAX).probes(10_000);
    let (circuit, time) = circuit(most.successes_to_close(u32::MAX).slow_call_rate(SECOND, 1.0));
    (0..10_000).for_each(|_| assert!(send(&circuit, FAILURE)));
    assert_eq!((state(&circuit), circuit.status().consecutive_failures), (CircuitState::Closed, 10_000));
    half_open(&circuit, &time);
    assert_eq!(free_slots(&circuit), 10_000);
    (0..20_000).for_each(|_| assert!(send(&circuit, Verdict::Success)));
    assert_eq!(state(&circuit), CircuitState::HalfOpen);
    let (circuit, _time) =
        self::circuit(config().count_window(1_000_000).minimum_calls(10).consecutive_failures(0));
    (0..9).for_each(|_| assert!(send(&circuit, FAILURE)));
    assert!(send(&circuit, Verdict::Success));
    assert_eq!(state(&circuit), CircuitState::Closed, "the failure rate is checked only when a call fails");
    assert!(send(&circuit, FAILURE));
    assert_eq!(state(&circuit), CircuitState::Open);
}

#[test]
fn rates_of_zero_and_one_and_limit_of_one_trip() {
    let rate = |rate: f64| circuit(config().consecutive_failures(0).failure_rate(rate).minimum_calls(1)).0;
    let zero = rate(0.0);
    (0..1_000).for_each(|_| assert!(send(&zero, Verdict::Success)));
    assert_eq!(state(&zero), CircuitState::Closed, "a rate of 0 is not reached without a failure");
    assert!(send(&zero, FAILURE));
    assert_eq!(state(&zero), CircuitState::Open);
    let one = rate(1.0);
    assert!(send(&one, Verdict::Success));
    (0..1_000).for_each(|_| assert!(send(&one, FAILURE)));
    assert_eq!(state(&one), CircuitState::Closed, "one call has succeeded");
    let first = circuit(config().consecutive_failures(1).failure_rate(None)).0;
    assert!(send(&first, Verdict::Success) && send(&first, FAILURE));
    assert_eq!(state(&first), CircuitState::Open);
    let never = circuit(config().consecutive_failures(0).failure_rate(None)).0;
    (0..1_000).for_each(|_| assert!(send(&never, FAILURE)));
    assert_eq!(state(&never), CircuitState::Closed);
}

#[test]
fn failure_rate_is_checked_at_failure_not_at_slow_call() {
    let (circuit, time) = circuit(config().consecutive_failures(0).slow_call_rate(SECOND, 1.0));
    (0..5).for_each(|_| assert!(send(&circuit, FAILURE)));
    for _ in 0..5 {
        let permit = circuit.try_acquire().unwrap();
        time.advance(SECOND);
        permit.record(Verdict::Success);
    }
    assert_eq!(state(&circuit), CircuitState::Closed, "half of ten calls have failed, but not the last one");
}

#[test]
fn reconfigure_without_name_keeps_name() {
    let circuit = Circuit::new(tower_breaker::BreakerConfig::builder().name("named").build().unwrap());
    let unnamed = tower_breaker::BreakerConfig::builder().probes(2).build().unwrap();
    circuit.reconfigure(unnamed.clone()).unwrap();
    assert_eq!((circuit.config().name(), circuit.config().probes()), ("named", 2));
    circuit.reconfigure(circuit.config()).unwrap();
    assert_eq!(circuit.status().circuit, "named");
    let error = circuit.reconfigure(unnamed.named("breaker")).unwrap_err();
    assert_eq!(error.to_string(), "`name` is \"breaker\"; allowed is \"named\", the circuit's own");
}

#[cfg(feature = "keyed")]
#[test]
fn keyed_reconfigure_without_name_keeps_name() {
    use tower_breaker::keyed::{KeyedCircuits, KeyedConfig};

    let each = tower_breaker::BreakerConfig::builder().name("named by key").build().unwrap();
    let circuits = KeyedCircuits::<u8>::new(KeyedConfig::builder(each).build().unwrap());
    let unnamed = tower_breaker::BreakerConfig::builder().probes(2).build().unwrap();
    let config = KeyedConfig::builder(unnamed.clone()).key("1", unnamed).build().unwrap();
    circuits.reconfigure(config).unwrap();
    let names = |config: KeyedConfig| {
        let keys = config.keys().map(|(_, config)| config.name()).collect::<Vec<_>>();
        (config.each().name(), keys)
    };
    assert_eq!(names(circuits.config()), ("named by key", vec!["named by key"]));
    let other =
        KeyedConfig::builder(tower_breaker::BreakerConfig::default().named("breaker")).build().unwrap();
    assert_eq!(circuits.reconfigure(other).unwrap_err().field(), "name");
}
