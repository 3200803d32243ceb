//! Loom models: every interleaving of a few threads on one core.

mod cancelled;
mod commands;
mod due;
mod failure_span;
mod overrides;
mod slow_start;
mod snapshots;

use std::sync::Arc as StdArc;
use std::task::{Wake, Waker};
use std::time::Duration;

use loom::sync::Arc;
use loom::sync::atomic::AtomicUsize;
use loom::thread;
use tower_fault_classify::__internals::{ManualClock, PoolItem, RING_CELLS, StripedCounter};
use tower_fault_classify::{Fault, Health, Kind, Origin, Retryable, Verdict};

use super::*;
use crate::circuit::StaticCore;
use crate::circuit::wakers::WakeOn;
use crate::config::{BreakerConfig, Mode};
use crate::machine::{
    Arrival, CancelledPolicy, CircuitState, Counts, Force, OpenDuration, Reason, RecoveryLimits,
    SlowCallLimits, SlowStartKind, TripLimits, WindowShape,
};

const SECOND: u64 = 1_000_000_000;
/// The length of a bucket of the window.
const BUCKET: u64 = 4 * SECOND;
/// The length of the window.
const WINDOW: u64 = (RING_CELLS as u64 - 1) * BUCKET;

pub(crate) const CONFIG: BreakerConfig = BreakerConfig {
    name: Some("model"),
    trip: TripLimits {
        consecutive_failures: 0,
        consecutive_failures_span: 0,
        failure_rate: None,
        slow: None,
        minimum_calls: 2,
        cancelled: CancelledPolicy::IfNoneCompletes,
    },
    recovery: RecoveryLimits {
        open: OpenDuration::constant(30 * SECOND),
        probes: 1,
        successes_to_close: 1,
        probe_lease: 30 * SECOND,
        slow_start: SlowStartKind::Off,
    },
    window: WindowShape::Time(WINDOW),
    mode: Mode::Enforce,
    count_failed_retries: false,
    clock: None,
    seeds: None,
};

pub(crate) const FAILURE: Verdict =
    Verdict::Fault(Fault::new(Kind::Server, Retryable::Never, Health::Unhealthy, Origin::Remote));

/// Runs a model with a bounded number of preemptions, so that it takes seconds.
/// `LOOM_MAX_PREEMPTIONS` overrides the bound.
pub(crate) fn model(run: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(3));
    // A transition sums the cells of the window more than once, which takes many branches.
    builder.max_branches = 4_000;
    builder.check(run);
}

fn core(consecutive_failures: u32, failure_rate: Option<f64>) -> (Arc<StaticCore>, ManualClock) {
    core_with(&BreakerConfig {
        trip: TripLimits { consecutive_failures, failure_rate, ..CONFIG.trip },
        ..CONFIG
    })
}

fn core_with(config: &BreakerConfig) -> (Arc<StaticCore>, ManualClock) {
    let (clock, time) = Clock::manual();
    time.set(Duration::from_secs(1_000));
    let config = BreakerConfig { clock: Some(clock), ..config.clone() };
    let core = StaticCore::with_successes(clock, StripedCounter::with_stripes(0), &config);
    core.adopt(&config);
    (Arc::new(core), time)
}

fn tripped() -> (Arc<StaticCore>, ManualClock) {
    let (core, time) = core(1, None);
    let admission = core.admit().unwrap();
    core.record(admission, &FAILURE);
    (core, time)
}

#[test]
fn loom_concurrent_failures_reach_consecutive_limit() {
    model(|| {
        let (core, _time) = core(2, None);
        let other = Arc::clone(&core);
        let admissions = [core.admit().unwrap(), core.admit().unwrap()];
        let thread = thread::spawn(move || other.record(admissions[1], &FAILURE));
        core.record(admissions[0], &FAILURE);
        thread.join().unwrap();
        assert_eq!(core.snapshot().state, CircuitState::Open);
        assert_eq!(core.snapshot().last_transition.unwrap().epoch, 1, "it opened once");
    });
}

#[test]
fn loom_concurrent_failures_reach_failure_rate() {
    model(|| {
        let (core, _time) = core(0, Some(1.0));
        let other = Arc::clone(&core);
        let admissions = [core.admit().unwrap(), core.admit().unwrap()];
        let thread = thread::spawn(move || other.record(admissions[1], &FAILURE));
        core.record(admissions[0], &FAILURE);
        thread.join().unwrap();
        assert_eq!(core.snapshot().state, CircuitState::Open, "the later of two failures sees both");
    });
}

/// Runs two parts of a model concurrently, one of them on a thread of its own.
///
/// Loom does not explore that a load precedes the exchange of a thread that loads the same word in
/// between. It explores more if the thread that loads is the main thread, whose steps come first.
/// So a model runs its parts in both roles.
fn run_concurrently(spawned: impl FnOnce() + Send + 'static, main: impl FnOnce()) {
    let thread = thread::spawn(spawned);
    main();
    thread.join().unwrap();
}

/// The failures are in different cells, so that only the state word orders them.
#[test]
fn loom_failures_in_two_buckets_reach_failure_rate() {
    let slow = Some(SlowCallLimits { threshold: 9 * SECOND, rate: 1.0 });
    for (slow, first_on_main) in [(None, false), (None, true), (slow, false), (slow, true)] {
        model(move || {
            let trip = TripLimits { failure_rate: Some(1.0), slow, ..CONFIG.trip };
            let (core, time) = core_with(&BreakerConfig { trip, ..CONFIG });
            let admissions = [core.admit().unwrap(), core.admit().unwrap()];
            let (one, other) = (Arc::clone(&core), Arc::clone(&core));
            let first = move || one.record(admissions[0], &FAILURE);
            let second = move || {
                // Another bucket of the same window.
                time.advance(Duration::from_nanos(BUCKET));
                other.record(admissions[1], &FAILURE);
            };
            if first_on_main {
                run_concurrently(second, first);
            } else {
                run_concurrently(first, || {
                    // The first failure may be interrupted before or after it reads the clock.
                    thread::yield_now();
                    second();
                });
            }
            assert_eq!(core.snapshot().state, CircuitState::Open, "the later failure sees both");
        });
    }
}

#[test]
fn loom_sum_with_failure_contains_earlier_success() {
    for reader_on_main in [false, true] {
        model(move || {
            let trip = TripLimits { failure_rate: Some(0.82), minimum_calls: 4, ..CONFIG.trip };
            let (core, _time) = core_with(&BreakerConfig { trip, ..CONFIG });
            let record = |verdict| core.record(core.admit().unwrap(), &verdict);
            [Verdict::Success, FAILURE, FAILURE, FAILURE].into_iter().for_each(record);
            let admissions = [0; 3].map(|_| core.admit().unwrap());
            let (one, other) = (Arc::clone(&core), Arc::clone(&core));
            let read = move || one.record(admissions[0], &FAILURE);
            let write = move || {
                other.record(admissions[1], &Verdict::Success);
                other.record(admissions[2], &FAILURE);
            };
            if reader_on_main {
                run_concurrently(write, read);
            } else {
                run_concurrently(read, write);
            }
            assert_eq!(consistent_state(&core), CircuitState::Closed, "four of five, or five of seven calls");
        });
    }
}

#[test]
fn loom_success_concurrent_with_failure_resets_failures() {
    model(|| {
        let (core, _time) = core(3, None);
        let admissions = [core.admit().unwrap(), core.admit().unwrap(), core.admit().unwrap()];
        core.record(admissions[0], &FAILURE);
        let other = Arc::clone(&core);
        let thread = thread::spawn(move || other.record(admissions[1], &Verdict::Success));
        core.record(admissions[2], &FAILURE);
        thread.join().unwrap();
        let snapshot = core.snapshot();
        assert!(snapshot.consecutive_failures <= 1, "{} failures", snapshot.consecutive_failures);
        assert_eq!(snapshot.counts, Counts { calls: 3, failures: 2, ..Counts::default() });
    });
}

#[test]
fn loom_outcome_of_earlier_epoch_changes_nothing() {
    model(|| {
        let (core, time) = core(1, None);
        let admissions = [core.admit().unwrap(), core.admit().unwrap()];
        let other = Arc::clone(&core);
        let thread = thread::spawn(move || other.record(admissions[1], &Verdict::Success));
        core.record(admissions[0], &FAILURE);
        time.advance(Duration::from_secs(30));
        let probe = core.admit().unwrap();
        core.record(probe, &Verdict::Success);
        thread.join().unwrap();
        let snapshot = core.snapshot();
        assert_eq!((snapshot.state, snapshot.consecutive_failures), (CircuitState::Closed, 0));
        assert_eq!(snapshot.counts, Counts::default(), "the new window is empty");
    });
}

#[test]
fn loom_half_open_admits_one_probe_per_slot() {
    model(|| {
        let (core, time) = tripped();
        time.advance(Duration::from_secs(30));
        let admitted = Arc::new(AtomicUsize::new(0));
        let try_admit = |core: Arc<StaticCore>, admitted: Arc<AtomicUsize>| {
            move || {
                if core.admit().is_ok() {
                    admitted.fetch_add(1, Ordering::Relaxed);
                }
            }
        };
        let threads = [0, 1].map(|_| thread::spawn(try_admit(Arc::clone(&core), Arc::clone(&admitted))));
        try_admit(Arc::clone(&core), Arc::clone(&admitted))();
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(admitted.load(Ordering::Relaxed), 1);
    });
}

#[test]
fn loom_lease_end_frees_slot_once() {
    model(|| {
        let (core, time) = tripped();
        time.advance(Duration::from_secs(30));
        let hung = core.admit().unwrap();
        time.advance(Duration::from_secs(30));
        let other = Arc::clone(&core);
        let thread = thread::spawn(move || other.record_cancelled(hung));
        let successors = usize::from(core.admit().is_ok()) + usize::from(core.admit().is_ok());
        thread.join().unwrap();
        assert_eq!(successors, 1);
        assert!(core.admit().is_err(), "the successor holds the slot");
    });
}

#[test]
fn loom_failed_and_successful_probe_leave_one_state() {
    model(|| {
        let (core, time) = tripped();
        time.advance(Duration::from_secs(30));
        let late = core.admit().unwrap();
        time.advance(Duration::from_secs(30));
        let probe = core.admit().unwrap();
        let other = Arc::clone(&core);
        let thread = thread::spawn(move || other.record(late, &FAILURE));
        core.record(probe, &Verdict::Success);
        thread.join().unwrap();
        let snapshot = core.snapshot();
        assert!(matches!(snapshot.state, CircuitState::Open | CircuitState::Closed), "{snapshot:?}");
        assert_eq!(snapshot.last_transition.unwrap().epoch, 3, "only the first outcome is counted");
    });
}

struct CountWakes(std::sync::atomic::AtomicUsize);

impl Wake for CountWakes {
    fn wake(self: StdArc<Self>) {
        self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
    }
}

#[test]
fn loom_registered_task_misses_no_transition() {
    model(|| {
        let (core, _time) = core(1, None);
        let admission = core.admit().unwrap();
        let other = Arc::clone(&core);
        let thread = thread::spawn(move || other.record(admission, &FAILURE));
        let woken = StdArc::new(CountWakes(0.into()));
        let mut waker_key = None;
        core.register_waker(&mut waker_key, &Waker::from(StdArc::clone(&woken)), WakeOn::Change);
        let sees_open = core.admit().is_err();
        thread.join().unwrap();
        let woken = woken.0.load(std::sync::atomic::Ordering::SeqCst) > 0;
        assert!(sees_open || woken);
    });
}

#[test]
fn loom_registered_task_misses_no_reconfiguration() {
    model(|| {
        let (core, _time) = tripped();
        let other = Arc::clone(&core);
        let config = BreakerConfig {
            trip: TripLimits { consecutive_failures: 1, ..CONFIG.trip },
            mode: Mode::ObserveOnly,
            ..CONFIG
        };
        let thread = thread::spawn(move || other.reconfigure(&config));
        let woken = StdArc::new(CountWakes(0.into()));
        let mut waker_key = None;
        core.register_waker(&mut waker_key, &Waker::from(StdArc::clone(&woken)), WakeOn::FreeSlot);
        let admitted = core.reserve(Arrival::Now).is_ok();
        thread.join().unwrap();
        let woken = woken.0.load(std::sync::atomic::Ordering::SeqCst) > 0;
        assert!(admitted || woken);
    });
}

#[test]
fn loom_task_in_turn_misses_no_free_slot() {
    model(|| {
        let (core, time) = tripped();
        time.advance(Duration::from_secs(30));
        let probe = core.admit().unwrap();
        let other = Arc::clone(&core);
        let thread = thread::spawn(move || other.cancel_admission(probe));
        let woken = StdArc::new(CountWakes(0.into()));
        let mut waker_key = None;
        core.register_waker(&mut waker_key, &Waker::from(StdArc::clone(&woken)), WakeOn::Turn);
        let admitted = core.would_admit(Arrival::Again).is_ok();
        thread.join().unwrap();
        let woken = woken.0.load(std::sync::atomic::Ordering::SeqCst) > 0;
        assert!(admitted || woken);
    });
}

#[test]
fn loom_task_that_ends_its_turn_passes_free_slot_on() {
    model(|| {
        let (core, time) = tripped();
        time.advance(Duration::from_secs(30));
        let probe = core.admit().unwrap();
        let (mut first, mut second) = (None, None);
        core.register_waker(&mut first, Waker::noop(), WakeOn::Turn);
        let woken = StdArc::new(CountWakes(0.into()));
        core.register_waker(&mut second, &Waker::from(StdArc::clone(&woken)), WakeOn::Turn);
        let other = Arc::clone(&core);
        let thread = thread::spawn(move || other.cancel_admission(probe));
        core.end_turn(first.unwrap());
        thread.join().unwrap();
        assert!(woken.0.load(std::sync::atomic::Ordering::SeqCst) > 0);
    });
}

#[test]
fn loom_retired_core_ignores_last_owner() {
    model(|| {
        let (core, _time) = core(1, None);
        let admission = core.admit().unwrap();
        let other = Arc::clone(&core);
        let thread = thread::spawn(move || other.record(admission, &FAILURE));
        core.retire();
        thread.join().unwrap();
        // The circuit of the next owner is closed, whether the failure or `retire` came first.
        core.adopt(&BreakerConfig { name: Some("next"), clock: Some(core.clock()), ..CONFIG });
        let snapshot = core.snapshot();
        assert_eq!(
            (snapshot.state, snapshot.consecutive_failures, snapshot.counts),
            (CircuitState::Closed, 0, Counts::default())
        );
    });
}

#[test]
fn loom_outcome_of_ended_circuit_never_reads_flags_of_next() {
    model(|| {
        let (core, _time) = core(1, None);
        let admission = core.admit().unwrap();
        let other = Arc::clone(&core);
        let thread = thread::spawn(move || other.flags_of(admission.stamp));
        core.retire();
        let observing = BreakerConfig { mode: Mode::ObserveOnly, clock: Some(core.clock()), ..CONFIG };
        core.adopt(&observing);
        let flags = thread.join().unwrap();
        assert!(flags.is_none_or(|flags| !flags.is_observing()), "{flags:?}");
        let own = core.admit().unwrap();
        assert!(core.flags_of(own.stamp).is_some_and(|flags| flags.is_observing()));
    });
}

const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

#[test]
fn loom_failure_concurrent_with_adopt_is_not_counted() {
    // Each thread is interrupted once. More preemptions would take minutes, because the first call
    // of an owner clears all cells.
    outcome_concurrent_with_adopt_is_not_counted(FAILURE, [Duration::ZERO, YEAR], 2);
}

#[test]
fn loom_success_concurrent_with_adopt_is_not_counted() {
    // A second preemption would take minutes.
    outcome_concurrent_with_adopt_is_not_counted(Verdict::Success, [YEAR, Duration::ZERO], 1);
}

/// The clocks are a year apart, and the windows have buckets of different sizes.
fn outcome_concurrent_with_adopt_is_not_counted(
    verdict: Verdict,
    [before, after]: [Duration; 2],
    preemptions: usize,
) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = 4_000;
    builder.check(move || {
        let (core, time) = core(9, None);
        time.set(before);
        let admission = core.admit().unwrap();
        let other = Arc::clone(&core);
        let thread = thread::spawn(move || other.record(admission, &verdict));
        core.retire();
        let (clock, time) = Clock::manual();
        time.set(after);
        let window = WindowShape::Time(SECOND);
        core.adopt(&BreakerConfig { window, clock: Some(clock), ..CONFIG });
        let own = core.admit().unwrap();
        core.record(own, &FAILURE);
        thread.join().unwrap();
        let own = core.admit().unwrap();
        core.record(own, &FAILURE);
        let snapshot = core.snapshot();
        assert_eq!(
            (snapshot.consecutive_failures, snapshot.counts.calls, snapshot.counts.failures),
            (2, 2, 2)
        );
    });
}

/// Returns the state after all threads are done. Asserts that the state word admits all calls if
/// and only if the machine does.
fn consistent_state(core: &StaticCore) -> CircuitState {
    let snapshot = core.snapshot();
    assert_eq!(
        core.is_closed(),
        snapshot.state == CircuitState::Closed && snapshot.slow_start.is_none(),
        "{snapshot:?}"
    );
    snapshot.state
}

#[test]
fn loom_force_concurrent_with_failure_takes_precedence() {
    model(|| {
        let (core, _time) = core(1, None);
        let admission = core.admit().unwrap();
        let other = Arc::clone(&core);
        let thread = thread::spawn(move || other.record(admission, &FAILURE));
        core.force(Force::Open, None).unwrap();
        thread.join().unwrap();
        assert_eq!(consistent_state(&core), CircuitState::ForcedOpen);
        assert!(core.admit().is_err());
        core.release();
        core.record(core.admit().unwrap(), &Verdict::Success);
        assert_eq!(consistent_state(&core), CircuitState::Closed);
        let snapshot = core.snapshot();
        // The failure belongs to an epoch that is over.
        assert_eq!((snapshot.consecutive_failures, snapshot.counts), (0, Counts::default()));
    });
}

#[test]
fn loom_outcomes_of_calls_before_release_change_nothing() {
    model(|| {
        let (core, _time) = core(1, None);
        let early = core.admit().unwrap();
        core.force(Force::Closed, None).unwrap();
        let uncounted = core.admit().unwrap();
        let other = Arc::clone(&core);
        let thread = thread::spawn(move || {
            other.record(early, &FAILURE);
            other.record(uncounted, &FAILURE);
        });
        core.release();
        thread.join().unwrap();
        assert_eq!(consistent_state(&core), CircuitState::Closed);
        let snapshot = core.snapshot();
        assert_eq!(
            (snapshot.consecutive_failures, snapshot.counts, snapshot.last_transition.unwrap().epoch),
            (0, Counts::default(), 2)
        );
    });
}

#[test]
fn loom_probe_before_force_does_not_count_after_release() {
    for verdict in [Verdict::Success, FAILURE] {
        model(move || {
            let (core, time) = tripped();
            time.advance(Duration::from_secs(30));
            let early = core.admit().unwrap();
            core.force(Force::Open, None).unwrap();
            let other = Arc::clone(&core);
            let thread = thread::spawn(move || other.record(early, &verdict));
            core.release();
            let probe = core.admit().expect("the new round has a free slot");
            thread.join().unwrap();
            assert_eq!(consistent_state(&core), CircuitState::HalfOpen);
            assert!(core.admit().is_err(), "the early probe frees no slot of the new round");
            core.record(probe, &Verdict::Success);
            assert_eq!(consistent_state(&core), CircuitState::Closed);
        });
    }
}

#[test]
fn loom_reconfigured_limit_applies_to_next_outcome() {
    model(|| {
        let (core, _time) = core(9, None);
        let admissions = [core.admit().unwrap(), core.admit().unwrap(), core.admit().unwrap()];
        core.record(admissions[0], &FAILURE);
        let other = Arc::clone(&core);
        let thread = thread::spawn(move || other.record(admissions[1], &FAILURE));
        core.reconfigure(&BreakerConfig {
            trip: TripLimits { consecutive_failures: 2, ..CONFIG.trip },
            ..CONFIG
        });
        thread.join().unwrap();
        match consistent_state(&core) {
            CircuitState::Closed => {
                assert_eq!(core.snapshot().consecutive_failures, 2, "the failures are kept");
                core.record(admissions[2], &FAILURE);
                assert_eq!(consistent_state(&core), CircuitState::Open);
            }
            state => assert_eq!(state, CircuitState::Open, "the new limit applied to the second failure"),
        }
        assert_eq!(core.snapshot().last_transition.unwrap().epoch, 1, "it opened once");
    });
}

/// Asserts that a failure does not open the circuit while the configuration changes from `before`
/// to `after`. Neither of the two opens the circuit after `outcomes` and the failure.
fn assert_stays_closed(before: BreakerConfig, after: BreakerConfig, outcomes: &'static [Verdict]) {
    // A configuration is many words, so more preemptions would take minutes. The model needs only
    // one preemption between two reads, because the main thread does not run meanwhile.
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(1);
    builder.check(move || {
        let (core, _time) = core_with(&before);
        outcomes.iter().for_each(|outcome| core.record(core.admit().unwrap(), outcome));
        let (admission, after) = (core.admit().unwrap(), after.clone());
        let (recording, writing) = (Arc::clone(&core), Arc::clone(&core));
        let threads = [
            thread::spawn(move || recording.record(admission, &FAILURE)),
            thread::spawn(move || writing.reconfigure(&after)),
        ];
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(consistent_state(&core), CircuitState::Closed);
    });
}

#[test]
fn loom_failure_is_checked_against_one_configuration() {
    let limits = |rate, minimum_calls, shape| {
        let trip = TripLimits { failure_rate: Some(rate), minimum_calls, ..CONFIG.trip };
        BreakerConfig { trip, window: shape, ..CONFIG }
    };
    let (strict, early) = (limits(0.5, 4, CONFIG.window), limits(1.0, 2, CONFIG.window));
    assert_stays_closed(early, strict, &[Verdict::Success]);
    // The second window starts empty. Its limits do not apply to the four calls in the first
    // window, of which three failed.
    let (time, count) = (limits(1.0, 3, CONFIG.window), limits(0.5, 2, WindowShape::Count(9)));
    assert_stays_closed(time, count, &[Verdict::Success, FAILURE, FAILURE]);
}

#[test]
fn loom_concurrent_slow_successes_reach_slow_rate() {
    let slow = Some(SlowCallLimits { threshold: SECOND, rate: 1.0 });
    model(move || {
        let (core, time) = core_with(&BreakerConfig { trip: TripLimits { slow, ..CONFIG.trip }, ..CONFIG });
        let admissions = [core.admit().unwrap(), core.admit().unwrap()];
        time.advance(Duration::from_secs(2));
        let other = Arc::clone(&core);
        let thread = thread::spawn(move || other.record(admissions[1], &Verdict::Success));
        thread::yield_now();
        time.advance(Duration::from_secs(5));
        core.record(admissions[0], &Verdict::Success);
        thread.join().unwrap();
        assert_eq!(consistent_state(&core), CircuitState::Open, "the later of two slow calls sees both");
        let last = core.snapshot().last_transition.unwrap();
        assert_eq!((last.reason, last.epoch), (Reason::SlowRate, 1));
    });
}

#[test]
fn loom_slow_start_end_loses_no_concurrent_outcome() {
    for (verdict, failures) in [(FAILURE, 2), (Verdict::Success, 0)] {
        model(move || {
            let recovery = RecoveryLimits { slow_start: SlowStartKind::Time(10 * SECOND), ..CONFIG.recovery };
            let trip = TripLimits { consecutive_failures: 9, ..CONFIG.trip };
            let (core, time) = core_with(&BreakerConfig { trip, recovery, ..CONFIG });
            core.trip_manually().unwrap();
            time.advance(Duration::from_secs(30));
            core.record(core.admit().unwrap(), &Verdict::Success);
            assert!(!core.is_closed(), "it is in slow start");
            time.advance(Duration::from_secs(9));
            core.record(core.admit().unwrap(), &FAILURE);
            let admission = core.admit().unwrap();
            time.advance(Duration::from_secs(1));
            let other = Arc::clone(&core);
            let thread = thread::spawn(move || other.record(admission, &verdict));
            assert!(core.admit().is_ok());
            thread.join().unwrap();
            assert_eq!(consistent_state(&core), CircuitState::Closed);
            assert!(core.is_closed(), "all calls are admitted");
            assert_eq!((core.snapshot().consecutive_failures, core.snapshot().counts.calls), (failures, 2));
        });
    }
}

#[test]
fn loom_reset_concurrent_with_tripping_failure_closes() {
    model(|| {
        let (core, _time) = core(1, None);
        let admission = core.admit().unwrap();
        let other = Arc::clone(&core);
        let thread = thread::spawn(move || other.record(admission, &FAILURE));
        core.reset().unwrap();
        thread.join().unwrap();
        assert_eq!(consistent_state(&core), CircuitState::Closed);
        let snapshot = core.snapshot();
        assert_eq!((snapshot.consecutive_failures, snapshot.counts), (0, Counts::default()));
        assert_eq!(
            snapshot.last_transition.unwrap().reason,
            Reason::Reset,
            "either the reset came last, or the failure was of an earlier epoch"
        );
    });
}

#[test]
fn loom_reset_concurrent_with_manual_trip_last_one_applies() {
    model(|| {
        let (core, _time) = core(1, None);
        let other = Arc::clone(&core);
        let thread = thread::spawn(move || other.trip_manually().unwrap());
        core.reset().unwrap();
        thread.join().unwrap();
        let state = consistent_state(&core);
        let last = core.snapshot().last_transition.unwrap();
        assert_eq!((last.to, last.epoch), (state, 2));
        assert_eq!(state == CircuitState::Open, last.reason == Reason::Tripped);
    });
}

#[test]
fn loom_slow_calls_are_never_more_than_calls() {
    let slow = Some(SlowCallLimits { threshold: SECOND, rate: 1.0 });
    for verdict in [Verdict::Success, FAILURE] {
        model(move || {
            let trip = TripLimits { slow, minimum_calls: 9, ..CONFIG.trip };
            let (core, time) = core_with(&BreakerConfig { trip, ..CONFIG });
            let admission = core.admit().unwrap();
            time.advance(Duration::from_secs(2));
            let other = Arc::clone(&core);
            // The reader is the spawned thread, because loom then lets it read a mix of old and new
            // values.
            let reader = thread::spawn(move || other.snapshot().counts);
            core.record(admission, &verdict);
            let Counts { calls, failures, slow, .. } = reader.join().unwrap();
            assert!(slow <= calls && failures <= calls, "{slow} slow and {failures} failed of {calls}");
        });
    }
}

#[test]
fn loom_bucket_ending_during_sum_does_not_open() {
    model(|| {
        let (core, time) = core(0, Some(0.6));
        let record = |verdict| core.record(core.admit().unwrap(), &verdict);
        [FAILURE, Verdict::Success, Verdict::Success].into_iter().for_each(record);
        let admissions = [core.admit().unwrap(), core.admit().unwrap()];
        // The first bucket is now the oldest of the window. With one more failure, two of four
        // calls in the window have failed.
        time.advance(Duration::from_nanos(WINDOW));
        let other = Arc::clone(&core);
        let thread = thread::spawn(move || {
            // The first bucket has left the window: one of two calls has failed.
            time.advance(Duration::from_nanos(BUCKET));
            other.record(admissions[1], &Verdict::Success);
        });
        core.record(admissions[0], &FAILURE);
        thread.join().unwrap();
        assert_eq!(consistent_state(&core), CircuitState::Closed);
    });
}

#[test]
fn loom_open_state_word_shows_its_deadline() {
    model(|| {
        let (core, _time) = core(1, None);
        // The deadline of this first open period is later than that of the next one.
        core.trip_for(900 * SECOND).unwrap();
        core.reset().unwrap();
        let admission = core.admit().unwrap();
        let other = Arc::clone(&core);
        // The reader is the spawned thread, because loom then lets it read a mix of old and new
        // values.
        let reader = thread::spawn(move || other.admit());
        core.record(admission, &FAILURE);
        if let Err(denied) = reader.join().unwrap() {
            assert_eq!(denied.left, Some(30 * SECOND));
        } else {
            assert_eq!(consistent_state(&core), CircuitState::Open, "the call was admitted before it opened");
        }
    });
}
