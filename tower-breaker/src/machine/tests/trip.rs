//! When a closed circuit opens.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::machine::trip::reaches;

const TRIP: TripLimits = TripLimits {
    consecutive_failures: 5,
    consecutive_failures_span: 0,
    failure_rate: Some(0.5),
    slow: None,
    minimum_calls: 10,
    cancelled: CancelledPolicy::IfNoneCompletes,
};

const SLOW: SlowCallLimits = SlowCallLimits { threshold: SECOND, rate: 0.8 };

fn rate(limits: &TripLimits, failures: u64, calls: u64) -> Option<Reason> {
    trip_reason(
        limits,
        &Sample {
            consecutive_failures: 1,
            failing_for: 0,
            window: Some(Counts { calls, failures, ..Counts::default() }),
        },
    )
}

#[test]
fn consecutive_failures_at_limit_trip() {
    let reason = |limits, consecutive_failures, failing_for| {
        trip_reason(limits, &Sample { consecutive_failures, failing_for, window: None })
    };
    let reached = Some(Reason::ConsecutiveFailures);
    assert_eq!([4, 5, 6].map(|failures| reason(&TRIP, failures, 0)), [None, reached, reached]);
    let spanned = TripLimits { consecutive_failures_span: SECOND, ..TRIP };
    for (failures, failing_for, expected) in [
        (4, SECOND, None),
        (5, SECOND - 1, None),
        (5, SECOND, reached),
        (9, SECOND - 1, None),
        (9, SECOND + 1, reached),
    ] {
        assert_eq!(reason(&spanned, failures, failing_for), expected, "{failures} in {failing_for} ns");
    }
    let off = TripLimits { consecutive_failures: 0, ..spanned };
    assert_eq!(reason(&off, u64::MAX, u64::MAX), None);
}

#[test]
fn failure_rate_at_limit_trips_from_minimum_calls() {
    assert_eq!(rate(&TRIP, 5, 10), Some(Reason::FailureRate));
    assert_eq!(rate(&TRIP, 4, 10), None);
    assert_eq!(rate(&TRIP, 9, 9), None, "below the minimum");
    assert_eq!(rate(&TripLimits { failure_rate: None, ..TRIP }, 10, 10), None);
}

#[test]
fn decimal_rate_is_reached_exactly() {
    for percent in 1..=100_u64 {
        let decimal = format!("{}.{:02}", percent / 100, percent % 100);
        let limits = TripLimits { failure_rate: decimal.parse().ok(), ..TRIP };
        assert_eq!(rate(&limits, percent, 100), Some(Reason::FailureRate), "{percent} of 100");
        assert_eq!(rate(&limits, percent - 1, 100), None, "one fewer than {percent} of 100");
    }
}

#[test]
fn rate_of_zero_trips_on_first_failure() {
    let limits = TripLimits { failure_rate: Some(0.0), ..TRIP };
    assert_eq!(rate(&limits, 1, 1_000_000), Some(Reason::FailureRate));
    assert_eq!(rate(&limits, 0, 1_000_000), None);
}

#[test]
fn min_failures_for_rate_is_fewest_that_reach_the_rate() {
    let fewest = |rate, minimum_calls| {
        min_failures_for_rate(&TripLimits { failure_rate: Some(rate), minimum_calls, ..TRIP })
    };
    assert_eq!(
        (fewest(0.5, 10), fewest(0.07, 100), fewest(0.0, 1), fewest(1.0, u32::MAX)),
        (5, 7, 1, u32::MAX.into())
    );
    assert_eq!(min_failures_for_rate(&TripLimits { failure_rate: None, ..TRIP }), u64::MAX);
    for minimum in 1..200 {
        for percent in 0..=100 {
            let rate = f64::from(percent) / 100.0;
            let (fewest, calls) = (fewest(rate, minimum), minimum.into());
            assert!(reaches(fewest, calls, rate), "{percent} % of {minimum}");
            assert!(fewest == 1 || !reaches(fewest - 1, calls, rate), "{percent} % of {minimum}");
        }
    }
}

#[test]
fn call_duration_is_needed_for_slow_calls_and_timed_cancellations() {
    let needs = |slow, cancelled| TripLimits { slow, cancelled, ..TRIP }.needs_duration();
    for cancelled in [CancelledPolicy::IfNoneCompletes, CancelledPolicy::Ignore, CancelledPolicy::Failure] {
        assert!(!needs(None, cancelled), "{cancelled:?}");
        assert!(needs(Some(SLOW), cancelled), "{cancelled:?}");
    }
    assert!(needs(None, CancelledPolicy::FailureAfter(Duration::from_nanos(SECOND))));
}

#[test]
fn call_that_reaches_threshold_is_slow() {
    let limits = TripLimits { slow: Some(SLOW), ..TRIP };
    let slow = [None, Some(SECOND - 1), Some(SECOND), Some(u64::MAX)].map(|took| limits.is_slow(took));
    assert_eq!(slow, [false, false, true, true]);
    assert!(!TRIP.is_slow(Some(u64::MAX)), "no slow-call rate is set");
}

#[test]
fn few_slow_calls_cannot_reach_slow_rate() {
    let limits = TripLimits { slow: Some(SLOW), ..TRIP };
    assert!(!may_reach_slow_rate(&limits, 7), "7 of the minimum of 10 calls");
    assert!(may_reach_slow_rate(&limits, 8));
    assert!(!may_reach_slow_rate(&TRIP, u64::MAX), "no slow-call rate is set");
}

#[test]
fn slow_success_trips_by_slow_rate_not_by_failure_rate() {
    let limits = TripLimits { slow: Some(SLOW), ..TRIP };
    let reason = |consecutive_failures, failures, slow| {
        let window = Some(Counts { calls: 10, failures, slow, cancelled: 0 });
        trip_reason(&limits, &Sample { consecutive_failures, failing_for: 0, window })
    };
    assert_eq!(reason(0, 10, 7), None);
    assert_eq!(reason(0, 10, 8), Some(Reason::SlowRate));
    assert_eq!(reason(1, 5, 8), Some(Reason::FailureRate));
    assert_eq!(reason(1, 4, 8), Some(Reason::SlowRate));
}

#[test]
fn cancelled_run_trips_at_number_and_span() {
    // The number of calls at one time, how much later the last one is, and the result.
    let trips = |minimum_calls, calls, wait| {
        let limits = TripLimits { minimum_calls, ..TRIP };
        let mut run = CancelledRun::default();
        (0..calls).for_each(|_| assert!(!run.record(&limits, SECOND), "they span no time"));
        run.record(&limits, SECOND + wait)
    };
    for (minimum_calls, number) in [(1, 1), (2, 2), (9, 9), (10, 10), (11, 10), (u32::MAX, 10)] {
        assert!(trips(minimum_calls, number.max(2) - 1, SECOND), "{minimum_calls}");
        assert!(number < 2 || !trips(minimum_calls, number - 2, SECOND), "one fewer than {number}");
        assert!(!trips(minimum_calls, number, SECOND - 1), "{minimum_calls}");
        assert!(!trips(minimum_calls, 0, SECOND), "a single call spans no time");
    }
}

#[test]
fn clock_running_back_restarts_span_of_cancelled_run() {
    let mut run = CancelledRun::default();
    (0..20).for_each(|_| assert!(!run.record(&TRIP, 100 * SECOND)));
    assert!(!run.record(&TRIP, 50 * SECOND));
    assert!(!run.record(&TRIP, 51 * SECOND - 1));
    assert!(run.record(&TRIP, 51 * SECOND));
}

#[test]
#[expect(clippy::float_cmp, reason = "these shares are exact in binary")]
fn counts_return_failure_rate_and_slow_rate() {
    let rates = |counts: Counts| [counts.failure_rate(), counts.slow_rate()];
    assert_eq!(rates(Counts { calls: 8, failures: 2, slow: 6, cancelled: 3 }), [0.25, 0.75]);
    assert_eq!(rates(Counts { calls: 3, failures: 3, slow: 0, cancelled: 0 }), [1.0, 0.0]);
    assert_eq!(rates(Counts { cancelled: 3, ..Counts::default() }), [0.0, 0.0], "no calls");
}

proptest! {
    /// Compares the search with every number of failures in turn, with or without more successes.
    #[test]
    fn failures_until_rate_is_first_number_that_can_trip(
        percent in proptest::option::of(0_u32..=100),
        minimum_calls in 1_u32..300,
        failures in 0_u64..200,
        successes in 0_u64..200,
        most in 1_u64..300,
    ) {
        let failure_rate = percent.map(|percent| f64::from(percent) / 100.0);
        let limits = TripLimits { consecutive_failures: 0, failure_rate, minimum_calls, ..TRIP };
        let trips = |more: u64| {
            let failures = failures + more;
            // With the successes that the minimum needs.
            let calls = (failures + successes).max(minimum_calls.into());
            rate(&limits, failures, calls).is_some()
        };
        let expected = (1..most).find(|more| trips(*more)).unwrap_or(most);
        prop_assert_eq!(failures_until_rate(&limits, failures, failures + successes, most), expected);
    }
}
