//! Loom models of the promise that the next failures cannot open the circuit.

use super::*;

/// Returns a circuit after some successes and one failure, whose evaluation has left a promise.
fn promised(minimum_calls: u32, successes: u32) -> (Arc<StaticCore>, ManualClock) {
    let (core, time) = core_with(&config(minimum_calls));
    (0..successes).for_each(|_| core.record(core.admit().unwrap(), &Verdict::Success));
    core.record(core.admit().unwrap(), &FAILURE);
    (core, time)
}

fn config(minimum_calls: u32) -> BreakerConfig {
    let trip = TripLimits { failure_rate: Some(0.5), minimum_calls, ..CONFIG.trip };
    BreakerConfig { trip, ..CONFIG }
}

#[test]
fn loom_promise_ends_at_failure_that_reaches_rate() {
    model(|| {
        // Of six calls, three must fail: the promise covers one of the two failures.
        let (core, _time) = promised(6, 3);
        let admissions = [core.admit().unwrap(), core.admit().unwrap()];
        let other = Arc::clone(&core);
        let thread = thread::spawn(move || other.record(admissions[1], &FAILURE));
        core.record(admissions[0], &FAILURE);
        thread.join().unwrap();
        assert_eq!(consistent_state(&core), CircuitState::Open);
        assert_eq!(core.snapshot().last_transition.unwrap().epoch, 1, "it opened once");
    });
}

#[test]
fn loom_promises_of_concurrent_failures_allow_next_to_open() {
    model(|| {
        let (core, _time) = core_with(&config(6));
        (0..3).for_each(|_| core.record(core.admit().unwrap(), &Verdict::Success));
        let admissions = [core.admit().unwrap(), core.admit().unwrap(), core.admit().unwrap()];
        let other = Arc::clone(&core);
        let thread = thread::spawn(move || other.record(admissions[1], &FAILURE));
        core.record(admissions[0], &FAILURE);
        thread.join().unwrap();
        assert_eq!(consistent_state(&core), CircuitState::Closed);
        core.record(admissions[2], &FAILURE);
        assert_eq!(consistent_state(&core), CircuitState::Open, "three of six calls have failed");
    });
}

/// Runs a model in which a failure is recorded while the circuit is reconfigured. The next failure
/// opens the circuit.
///
/// Each thread is preempted once at most: a configuration is many words, so more preemptions would
/// take minutes. The main thread does not run meanwhile, so that one preemption is enough.
fn check_during_reconfigure(make: fn() -> (Arc<StaticCore>, ManualClock)) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(1);
    builder.max_branches = 4_000;
    builder.check(move || {
        let (core, _time) = make();
        let admissions = [core.admit().unwrap(), core.admit().unwrap()];
        let (recording, writing) = (Arc::clone(&core), Arc::clone(&core));
        let threads = [
            thread::spawn(move || recording.record(admissions[1], &FAILURE)),
            thread::spawn(move || writing.reconfigure(&config(4))),
        ];
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(consistent_state(&core), CircuitState::Closed);
        core.record(admissions[0], &FAILURE);
        assert_eq!(consistent_state(&core), CircuitState::Open, "half of four calls or more have failed");
    });
}

#[test]
fn loom_promise_does_not_outlast_its_limits() {
    check_during_reconfigure(|| promised(20, 1));
}

#[test]
fn loom_evaluation_during_reconfigure_makes_no_promise() {
    // There is no promise yet, so that the failure evaluates the limits.
    check_during_reconfigure(|| {
        let (core, time) = core_with(&config(20));
        (0..2).for_each(|_| core.record(core.admit().unwrap(), &Verdict::Success));
        (core, time)
    });
}

#[test]
fn loom_late_failure_in_earlier_bucket_is_covered_or_evaluated() {
    model(|| {
        let (core, time) = promised(6, 3);
        let admissions = [core.admit().unwrap(), core.admit().unwrap()];
        let other = Arc::clone(&core);
        // It may read the clock before the next bucket begins, and be recorded after that.
        let thread = thread::spawn(move || other.record(admissions[1], &FAILURE));
        thread::yield_now();
        time.advance(Duration::from_nanos(BUCKET));
        core.record(admissions[0], &FAILURE);
        thread.join().unwrap();
        assert_eq!(consistent_state(&core), CircuitState::Open);
    });
}
