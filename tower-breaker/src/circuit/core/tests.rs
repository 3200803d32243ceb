use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Barrier};
use std::task::{Wake, Waker};
use std::thread;
use std::time::Duration;

use tower_fault_classify::__internals::{ManualClock, PoolItem, StripedCounter};
use tower_fault_classify::{Fault, Health, Kind, Origin, Retryable, Verdict};

use super::*;
use crate::circuit::StaticCore;
use crate::circuit::wakers::WakeOn;
use crate::config::{BreakerConfig, Mode};
use crate::machine::{
    CancelledPolicy, CircuitState, Counts, OpenDuration, Reason, RecoveryLimits, SlowStartKind, TripLimits,
    WindowShape,
};
use crate::telemetry::Transition;

pub(super) const SECOND: u64 = 1_000_000_000;

pub(super) const TRIP: TripLimits = TripLimits {
    consecutive_failures: 5,
    consecutive_failures_span: 0,
    failure_rate: Some(0.5),
    slow: None,
    minimum_calls: 10,
    cancelled: CancelledPolicy::IfNoneCompletes,
};

pub(super) const RECOVERY: RecoveryLimits = RecoveryLimits {
    open: OpenDuration::constant(30 * SECOND),
    probes: 3,
    successes_to_close: 2,
    probe_lease: 30 * SECOND,
    slow_start: SlowStartKind::Off,
};

pub(super) const CONFIG: BreakerConfig = BreakerConfig {
    name: Some("test"),
    trip: TRIP,
    recovery: RECOVERY,
    window: WindowShape::Time(60 * SECOND),
    mode: Mode::Enforce,
    count_failed_retries: false,
    clock: None,
    seeds: None,
};

pub(super) const FAILURE: Verdict =
    Verdict::Fault(Fault::new(Kind::Server, Retryable::Never, Health::Unhealthy, Origin::Remote));

pub(super) fn core(trip: TripLimits) -> (StaticCore, ManualClock) {
    core_with(&BreakerConfig { trip, ..CONFIG })
}

pub(super) fn core_with(config: &BreakerConfig) -> (StaticCore, ManualClock) {
    let (clock, time) = Clock::manual();
    time.set(Duration::from_secs(1_000));
    let config = BreakerConfig { clock: Some(clock), ..config.clone() };
    let core = StaticCore::with_successes(clock, StripedCounter::with_stripes(4), &config);
    core.adopt(&config);
    (core, time)
}

fn counts(calls: u64, failures: u64) -> Counts {
    Counts { calls, failures, ..Counts::default() }
}

pub(super) fn run(core: &StaticCore, verdict: Verdict) -> bool {
    core.admit().map(|admission| core.record(admission, &verdict)).is_ok()
}

pub(super) fn state(core: &StaticCore) -> CircuitState {
    core.snapshot().state
}

pub(super) fn tripped() -> (StaticCore, ManualClock) {
    let (core, time) = core(TRIP);
    for _ in 0..5 {
        run(&core, FAILURE);
    }
    assert_eq!(state(&core), CircuitState::Open);
    (core, time)
}

#[test]
fn success_between_failures_resets_the_count() {
    let (core, _time) = core(TripLimits { failure_rate: None, ..TRIP });
    for _ in 0..4 {
        run(&core, FAILURE);
    }
    run(&core, Verdict::Success);
    for _ in 0..4 {
        run(&core, FAILURE);
    }
    assert_eq!((state(&core), core.snapshot().consecutive_failures), (CircuitState::Closed, 4));
    run(&core, FAILURE);
    assert_eq!(state(&core), CircuitState::Open);
    assert!(!run(&core, Verdict::Success));
}

#[test]
fn failure_rate_of_50_percent_opens_from_ten_calls() {
    for window in [WindowShape::Time(60 * SECOND), WindowShape::Count(10)] {
        let (core, _time) = core_with(&BreakerConfig {
            trip: TripLimits { consecutive_failures: 0, ..TRIP },
            window,
            ..CONFIG
        });
        for _ in 0..5 {
            run(&core, Verdict::Success);
        }
        for failures in 0..5 {
            assert_eq!(state(&core), CircuitState::Closed, "{failures} failures, {window:?}");
            run(&core, FAILURE);
        }
        assert_eq!(state(&core), CircuitState::Open, "{window:?}");
        let last = core.snapshot().last_transition.unwrap();
        assert_eq!(last.reason, Reason::FailureRate);
        assert_eq!(last.counts, Some(counts(10, 5)));
    }
}

#[test]
fn neutral_outcome_neither_counts_nor_resets() {
    let (core, _time) = core(TRIP);
    let neutral = FAILURE.fault().unwrap().with_health(Health::Neutral);
    for _ in 0..4 {
        run(&core, FAILURE);
        run(&core, neutral.into());
    }
    assert_eq!(core.snapshot().counts, counts(4, 4));
    run(&core, FAILURE);
    assert_eq!(state(&core), CircuitState::Open);
}

#[test]
fn healthy_fault_resets_failures_and_counts_as_call() {
    let (core, _time) = core(TRIP);
    let healthy = FAILURE.fault().unwrap().with_health(Health::Healthy);
    for _ in 0..4 {
        run(&core, FAILURE);
    }
    run(&core, healthy.into());
    assert_eq!((core.snapshot().consecutive_failures, core.snapshot().counts), (0, counts(5, 4)));
}

#[test]
fn closing_and_opening_empty_the_window() {
    let (core, time) = tripped();
    assert_eq!(core.snapshot().counts, Counts::default());
    time.advance(Duration::from_secs(30));
    run(&core, Verdict::Success);
    run(&core, Verdict::Success);
    assert_eq!((state(&core), core.snapshot().counts), (CircuitState::Closed, Counts::default()));
    run(&core, FAILURE);
    assert_eq!(core.snapshot().counts, counts(1, 1));
}

#[test]
fn outcomes_of_earlier_epoch_do_not_change_later_states() {
    let (core, time) = core(TRIP);
    let early: Vec<_> = (0..20).map(|_| core.admit().unwrap()).collect();
    for _ in 0..5 {
        run(&core, FAILURE);
    }
    time.advance(Duration::from_secs(30));
    let probe = core.admit().unwrap();
    for &admission in &early[..10] {
        core.record(admission, &Verdict::Success);
    }
    for &admission in &early[10..] {
        core.record(admission, &FAILURE);
    }
    assert_eq!(state(&core), CircuitState::HalfOpen);
    core.record(probe, &Verdict::Success);
    run(&core, Verdict::Success);
    assert_eq!((state(&core), core.snapshot().counts), (CircuitState::Closed, Counts::default()));
    run(&core, FAILURE);
    core.record(early[0], &Verdict::Success);
    assert_eq!(core.snapshot().consecutive_failures, 1, "an early success does not reset later failures");
}

#[test]
fn probes_of_one_round_do_not_count_in_the_next() {
    let (core, time) = tripped();
    time.advance(Duration::from_secs(30));
    let first_round = [core.admit().unwrap(), core.admit().unwrap()];
    run(&core, FAILURE);
    time.advance(Duration::from_secs(30));
    let second_round = core.admit().unwrap();
    for probe in first_round {
        core.record(probe, &Verdict::Success);
    }
    assert_eq!(state(&core), CircuitState::HalfOpen);
    core.record(second_round, &Verdict::Success);
    assert_eq!(state(&core), CircuitState::HalfOpen, "only one success belongs to this round");
}

#[test]
fn failure_of_earlier_epoch_is_not_in_window() {
    let (core, _time) = core(TRIP);
    let early = core.admit().unwrap();
    for _ in 0..5 {
        run(&core, FAILURE);
    }
    core.record(early, &FAILURE);
    assert_eq!(core.snapshot().counts, Counts::default());
}

#[test]
fn retired_core_ignores_calls_of_last_owner() {
    let (core, _time) = core(TRIP);
    let calls: Vec<_> = (0..5).map(|_| core.admit().unwrap()).collect();
    core.retire();
    for call in calls {
        core.record(call, &FAILURE);
    }
    let snapshot = core.snapshot();
    assert_eq!(
        (snapshot.state, snapshot.consecutive_failures, snapshot.counts),
        (CircuitState::Closed, 0, Counts::default())
    );
}

#[test]
fn concurrent_calls_get_each_probe_slot_once() {
    let (core, time) = tripped();
    for _ in 0..50 {
        time.advance(Duration::from_secs(30));
        let barrier = Barrier::new(8);
        let admitted: Vec<Admission> = thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| {
                        barrier.wait();
                        (0..125).filter_map(|_| core.admit().ok()).collect::<Vec<_>>()
                    })
                })
                .collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(admitted.len(), 3);
        core.record(admitted[0], &FAILURE);
    }
}

#[test]
fn failures_on_many_threads_are_all_counted() {
    let trip = TripLimits { consecutive_failures: 0, failure_rate: None, ..TRIP };
    let (core, _time) = core(trip);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..1_000 {
                    run(&core, FAILURE);
                    run(&core, Verdict::Success);
                }
            });
        }
    });
    assert_eq!(core.snapshot().counts, counts(16_000, 8_000));
}

#[test]
fn open_circuit_idle_for_years_admits_a_probe() {
    const DAY: u64 = 86_400;
    for days in [1, 365, 3 * 365, 797, 1_592, 2_000, 5 * 365, 100 * 365] {
        let (core, time) = tripped();
        time.advance(Duration::from_secs(days * DAY));
        assert_eq!(core.remaining_open(), None, "{days} days");
        assert!(core.admit().is_ok(), "{days} days");
        assert_eq!(state(&core), CircuitState::HalfOpen, "{days} days");
    }
}

#[test]
fn open_time_is_exact_to_the_nanosecond() {
    let open = OpenDuration::constant(30 * SECOND + 7);
    let (core, time) = core_with(&BreakerConfig { recovery: RecoveryLimits { open, ..RECOVERY }, ..CONFIG });
    (0..5).for_each(|_| assert!(run(&core, FAILURE)));
    time.advance(Duration::from_secs(30) + Duration::from_nanos(6));
    assert_eq!(core.admit().unwrap_err().left, Some(1));
    time.advance(Duration::from_nanos(1));
    assert!(core.admit().is_ok());
}

struct CountWakes(AtomicUsize);

impl Wake for CountWakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn transition_wakes_tasks_and_notifies_outside_the_lock() {
    use CircuitState::{Closed, HalfOpen, Open};
    let (core, time) = core(TRIP);
    let core = Arc::new(core);
    let woken = Arc::new(CountWakes(AtomicUsize::new(0)));
    let waker = Waker::from(Arc::clone(&woken));
    let mut waker_key = None;
    core.register_waker(&mut waker_key, &waker, WakeOn::Change);
    let observed = Arc::new(std::sync::Mutex::new(Vec::new()));
    core.observers().on_transition({
        let (core, observed) = (Arc::downgrade(&core), Arc::clone(&observed));
        move |transition: &Transition| {
            // This would deadlock if the observer were called under the lock.
            let state = core.upgrade().unwrap().snapshot().state;
            observed.lock().unwrap().push((transition.from, transition.to, state));
            panic!("this panic must be caught");
        }
    });
    for _ in 0..5 {
        run(&core, FAILURE);
    }
    assert_eq!(woken.0.load(Ordering::Relaxed), 1);
    time.advance(Duration::from_secs(30));
    run(&core, Verdict::Success);
    run(&core, Verdict::Success);
    assert_eq!(
        *observed.lock().unwrap(),
        [(Closed, Open, Open), (Open, HalfOpen, HalfOpen), (HalfOpen, Closed, Closed)]
    );
}

#[test]
fn clock_running_back_keeps_circuit_open() {
    let (core, time) = tripped();
    time.set(Duration::ZERO);
    let denied = core.admit().unwrap_err();
    assert_eq!(denied.left, Some(1_030 * SECOND));
    time.set(Duration::from_secs(1_030));
    assert!(core.admit().is_ok());
}

mod control;
mod policies;
mod promise;
mod slow_start;
