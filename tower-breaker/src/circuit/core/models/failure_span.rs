//! Loom models of consecutive failures that must span a time.

use super::*;

/// Returns a circuit that opens after this number of failures in a row that span a second.
fn spanned(consecutive_failures: u32) -> (Arc<StaticCore>, ManualClock) {
    core_with(&with_span(consecutive_failures, SECOND))
}

fn with_span(consecutive_failures: u32, consecutive_failures_span: u64) -> BreakerConfig {
    let trip = TripLimits { consecutive_failures, consecutive_failures_span, ..CONFIG.trip };
    BreakerConfig { trip, ..CONFIG }
}

fn fail(core: &StaticCore) {
    core.record(core.admit().unwrap(), &FAILURE);
}

#[test]
fn loom_concurrent_first_failures_start_one_span() {
    model(|| {
        let (core, time) = spanned(2);
        let other = Arc::clone(&core);
        let admission = core.admit().unwrap();
        let thread = thread::spawn(move || other.record(admission, &FAILURE));
        fail(&core);
        thread.join().unwrap();
        assert_eq!(consistent_state(&core), CircuitState::Closed, "two failures at the same time");
        time.advance(Duration::from_nanos(SECOND - 1));
        fail(&core);
        assert_eq!(consistent_state(&core), CircuitState::Closed);
        time.advance(Duration::from_nanos(1));
        fail(&core);
        assert_eq!(consistent_state(&core), CircuitState::Open);
    });
}

#[test]
fn loom_concurrent_failures_after_span_open_once() {
    model(|| {
        let (core, time) = spanned(3);
        fail(&core);
        time.advance(Duration::from_nanos(SECOND));
        let other = Arc::clone(&core);
        let admissions = [core.admit().unwrap(), core.admit().unwrap()];
        let thread = thread::spawn(move || other.record(admissions[1], &FAILURE));
        core.record(admissions[0], &FAILURE);
        thread.join().unwrap();
        assert_eq!(consistent_state(&core), CircuitState::Open, "the later failure sees the first time");
        assert_eq!(core.snapshot().last_transition.unwrap().epoch, 1);
    });
}

#[test]
fn loom_success_concurrent_with_failure_restarts_span() {
    model(|| {
        let (core, time) = spanned(3);
        fail(&core);
        fail(&core);
        time.advance(Duration::from_nanos(SECOND));
        let other = Arc::clone(&core);
        let admission = core.admit().unwrap();
        let thread = thread::spawn(move || other.record(admission, &Verdict::Success));
        let admission = core.admit().unwrap();
        core.record(admission, &FAILURE);
        thread.join().unwrap();
        if consistent_state(&core) == CircuitState::Closed {
            // The success came before the failure, which then began a run.
            fail(&core);
            fail(&core);
            time.advance(Duration::from_nanos(SECOND - 1));
            fail(&core);
            assert_eq!(consistent_state(&core), CircuitState::Closed);
            time.advance(Duration::from_nanos(1));
            fail(&core);
            assert_eq!(consistent_state(&core), CircuitState::Open);
        }
    });
}

/// The late thread has read the clock before the current run began.
#[test]
fn loom_late_first_failure_does_not_move_start_back() {
    model(|| {
        let (core, time) = spanned(3);
        let other = Arc::clone(&core);
        let admissions = [0; 5].map(|_| core.admit().unwrap());
        let thread = thread::spawn(move || other.record(admissions[4], &FAILURE));
        thread::yield_now();
        time.advance(Duration::from_nanos(SECOND));
        core.record(admissions[0], &FAILURE);
        core.record(admissions[1], &Verdict::Success);
        core.record(admissions[2], &FAILURE);
        core.record(admissions[3], &FAILURE);
        thread.join().unwrap();
        // The success comes after the first failure at the later time. So every run with three
        // failures began at the later time.
        assert_eq!(consistent_state(&core), CircuitState::Closed);
    });
}

#[test]
fn loom_span_turned_on_during_run_starts_then() {
    let mut builder = loom::model::Builder::new();
    // A configuration is many words, so more preemptions would take minutes. The main thread does
    // not run meanwhile, so that one preemption is enough.
    builder.preemption_bound = Some(1);
    builder.max_branches = 4_000;
    builder.check(|| {
        let (core, time) = core(0, None);
        fail(&core);
        time.advance(Duration::from_secs(9));
        let admission = core.admit().unwrap();
        let (recording, writing) = (Arc::clone(&core), Arc::clone(&core));
        let threads = [
            // Only step ②, because the sum reads many words.
            thread::spawn(move || {
                let (stamp, now) = (admission.stamp, recording.hot_config().now());
                let span = recording.hot_config().trip_thresholds().consecutive_failures_span;
                let (sample, _) = recording.count_failure(stamp, span, now).unwrap();
                assert!(sample.failing_for < SECOND);
            }),
            thread::spawn(move || writing.reconfigure(&with_span(2, SECOND))),
        ];
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(consistent_state(&core), CircuitState::Closed);
        time.advance(Duration::from_nanos(SECOND));
        fail(&core);
        assert_eq!(consistent_state(&core), CircuitState::Open);
    });
}

/// A failure of a former owner is counted while the next circuit begins, on a clock that is a year
/// ahead or behind. The next circuit never opens early, and opens late by at most one span.
#[test]
fn loom_failure_of_former_owner_delays_next_circuit_by_one_span() {
    const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

    for [before, after] in [[Duration::ZERO, YEAR], [YEAR, Duration::ZERO]] {
        model(move || {
            let (core, time) = spanned(2);
            time.set(before);
            // Only step ②, because the window has many cells.
            let count = |core: &StaticCore, stamp| core.count_failure(stamp, SECOND, core.hot_config().now());
            let (admission, other) = (core.admit().unwrap(), Arc::clone(&core));
            let thread = thread::spawn(move || count(&other, admission.stamp).is_some());
            core.retire();
            let (clock, time) = Clock::manual();
            time.set(after);
            core.adopt(&BreakerConfig { clock: Some(clock), ..with_span(2, SECOND) });
            let failing_for = || count(&core, core.state_word().stamp()).unwrap().0.failing_for;
            assert_eq!(failing_for(), 0);
            time.advance(Duration::from_nanos(SECOND - 1));
            assert!(failing_for() < SECOND);
            thread.join().unwrap();
            assert!(failing_for() < SECOND);
            time.advance(Duration::from_nanos(SECOND));
            assert!(failing_for() >= SECOND);
        });
    }
}
