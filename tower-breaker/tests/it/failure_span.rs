//! Consecutive failures that must span a time, in a single circuit and in a keyed one.

use std::time::Duration;

use tower_breaker::keyed::{KeyedBreakerLayer, KeyedCircuit, KeyedConfig};
use tower_breaker::{
    BreakerConfigBuilder, CancelledPolicy, Circuit, CircuitState, ManualClock, Reason, Status, Verdict,
};

use crate::support::{FAILURE, NEUTRAL, OPEN_FOR, SECOND, config, timed};

const NANOSECOND: Duration = Duration::from_nanos(1);
/// A second without a nanosecond.
const JUST_UNDER: Duration = Duration::from_nanos(999_999_999);

/// Three failures that span a second open the circuit.
fn limits() -> BreakerConfigBuilder {
    config().failure_rate(None).consecutive_failures(3).consecutive_failures_span(SECOND)
}

/// A single circuit and a keyed one, which get the same calls at the same times.
struct Both {
    single: Circuit,
    keyed: KeyedCircuit<u64>,
    time: ManualClock,
}

impl Both {
    fn new(limits: BreakerConfigBuilder) -> Self {
        let (config, time) = timed(limits);
        let keyed = KeyedConfig::builder(config.clone()).build().unwrap();
        let layer = KeyedBreakerLayer::<_, _>::new(keyed, |key: &u64| *key);
        Self { single: Circuit::new(config), keyed: layer.circuits().get_or_insert(7).unwrap(), time }
    }

    fn record(&self, verdict: Verdict) {
        self.single.try_acquire().expect("the single circuit admits the call").record(verdict);
        self.keyed.try_acquire().expect("the keyed circuit admits the call").record(verdict);
    }

    fn fail(&self, times: usize) {
        (0..times).for_each(|_| self.record(FAILURE));
    }

    /// Records a failure after this time.
    fn fail_after(&self, wait: Duration) {
        self.time.advance(wait);
        self.fail(1);
    }

    /// Returns the status of the single circuit. Asserts that the keyed circuit has the same state.
    fn status(&self) -> Status {
        let (single, keyed) = (self.single.status(), self.keyed.status());
        assert_eq!(
            (single.state, single.consecutive_failures),
            (keyed.state, keyed.consecutive_failures),
            "the two circuits agree"
        );
        single
    }

    fn state(&self) -> CircuitState {
        self.status().state
    }
}

#[test]
fn run_opens_at_first_failure_that_reaches_number_and_span() {
    let both = Both::new(limits());
    both.fail(1);
    both.fail_after(SECOND);
    assert_eq!(both.state(), CircuitState::Closed, "two failures, although they span a second");
    both.fail(1);
    assert_eq!(both.state(), CircuitState::Open);

    let both = Both::new(limits());
    both.fail(100);
    both.fail_after(JUST_UNDER);
    assert_eq!((both.state(), both.status().consecutive_failures), (CircuitState::Closed, 101));
    both.fail_after(NANOSECOND);
    let trip = both.status().last_trip.unwrap();
    assert_eq!((trip.reason, trip.consecutive_failures), (Reason::ConsecutiveFailures, 102));
}

#[test]
fn success_restarts_span_and_neutral_outcome_does_not() {
    let both = Both::new(limits());
    both.fail(3);
    both.time.advance(SECOND / 2);
    both.record(Verdict::Success);
    both.fail(3);
    both.fail_after(JUST_UNDER);
    assert_eq!(both.state(), CircuitState::Closed, "the second run began half a second later");
    both.record(NEUTRAL);
    both.fail_after(NANOSECOND);
    assert_eq!(both.state(), CircuitState::Open);
}

#[test]
fn run_after_closing_starts_its_own_span() {
    let both = Both::new(limits().successes_to_close(1));
    both.fail(2);
    both.fail_after(SECOND);
    both.time.advance(OPEN_FOR);
    both.record(Verdict::Success);
    assert_eq!(both.state(), CircuitState::Closed);
    both.fail(3);
    both.fail_after(JUST_UNDER);
    assert_eq!(both.state(), CircuitState::Closed);
    both.fail_after(NANOSECOND);
    assert_eq!(both.state(), CircuitState::Open);
}

#[test]
fn failing_probe_opens_without_span() {
    let both = Both::new(limits());
    both.fail(2);
    both.fail_after(SECOND);
    both.time.advance(OPEN_FOR);
    both.fail(1);
    assert_eq!(both.status().last_trip.unwrap().reason, Reason::ProbeFailed);
}

#[test]
fn failure_rate_opens_without_span() {
    let both = Both::new(limits().failure_rate(0.5).minimum_calls(4));
    both.fail(4);
    assert_eq!(both.status().last_trip.unwrap().reason, Reason::FailureRate);
}

#[test]
fn timed_and_cancelled_failures_need_span() {
    let slow = limits().slow_call_rate(60 * SECOND, 1.0);
    let cancelled = limits().cancelled(CancelledPolicy::Failure);
    for (limits, cancel) in [(slow, false), (cancelled, true)] {
        let both = Both::new(limits);
        let fail = || {
            if cancel {
                drop((both.single.try_acquire(), both.keyed.try_acquire()));
            } else {
                both.fail(1);
            }
        };
        (0..9).for_each(|_| fail());
        both.time.advance(JUST_UNDER);
        fail();
        assert_eq!(both.state(), CircuitState::Closed, "cancelled: {cancel}");
        both.time.advance(NANOSECOND);
        fail();
        assert_eq!(both.status().last_trip.unwrap().reason, Reason::ConsecutiveFailures);
    }
}

#[test]
fn clock_that_runs_back_before_run_restarts_its_span() {
    let both = Both::new(limits());
    both.fail(5);
    both.time.set(10 * SECOND);
    both.fail(1);
    both.fail_after(JUST_UNDER);
    assert_eq!(both.state(), CircuitState::Closed);
    both.fail_after(NANOSECOND);
    assert_eq!(both.state(), CircuitState::Open);

    // The clock runs back between two runs.
    let both = Both::new(limits());
    both.fail(5);
    both.record(Verdict::Success);
    both.time.set(10 * SECOND);
    both.fail(3);
    both.fail_after(JUST_UNDER);
    assert_eq!(both.state(), CircuitState::Closed);
    both.fail_after(NANOSECOND);
    assert_eq!(both.state(), CircuitState::Open);
}

#[test]
fn reconfigured_span_applies_to_current_run() {
    let both = Both::new(limits());
    let reconfigure = |span| {
        both.single.reconfigure(limits().consecutive_failures_span(span).build().unwrap()).unwrap();
    };
    let fail_after = |wait| {
        both.time.advance(wait);
        both.single.try_acquire().unwrap().record(FAILURE);
        both.single.status().state
    };
    fail_after(Duration::ZERO);
    fail_after(Duration::ZERO);
    reconfigure(2 * SECOND);
    assert_eq!(fail_after(SECOND + JUST_UNDER), CircuitState::Closed);
    assert_eq!(fail_after(NANOSECOND), CircuitState::Open, "the run kept its start");
    both.single.reset().unwrap();
    reconfigure(Duration::ZERO);
    fail_after(Duration::ZERO);
    fail_after(Duration::ZERO);
    both.time.advance(9 * SECOND);
    // Without a span the circuit does not keep the time of the first failure.
    reconfigure(SECOND);
    assert_eq!(fail_after(JUST_UNDER), CircuitState::Closed);
    assert_eq!(fail_after(NANOSECOND), CircuitState::Open, "the span began at the reconfiguration");
    both.single.reset().unwrap();
    (0..5).for_each(|_| assert_eq!(fail_after(Duration::ZERO), CircuitState::Closed));
    reconfigure(Duration::ZERO);
    assert_eq!(fail_after(Duration::ZERO), CircuitState::Open, "the number alone decides");
}

#[test]
fn limit_of_one_failure_opens_at_the_first_one_by_default() {
    let both = Both::new(config().failure_rate(None).consecutive_failures(1));
    both.fail(1);
    assert_eq!(both.state(), CircuitState::Open);
}
