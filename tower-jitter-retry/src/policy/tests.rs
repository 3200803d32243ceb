//! What is decided, and what is not allowed.

use tower_fault_classify::{Fault, Health, Kind, Origin, Retryable};

use super::decide::{CallProgress, GiveUp, Limits};
use super::*;
use crate::backoff::{Jitter, Position};
use crate::request::ResendAfter;

const SECOND: u64 = 1_000_000_000;

const FAULT: Fault =
    Fault::new(Kind::Unavailable, Retryable::IfIdempotent, Health::Unhealthy, Origin::Remote);

const FIRST: CallProgress = CallProgress { elapsed: 0, deadline: None, position: Position::START };

fn limits(builder: RetryPolicyBuilder) -> Limits {
    builder.build().unwrap().hot.limits
}

/// The tick of the timer that a cut keeps free.
const TICK: u64 = 1_000_000;

/// The delay if every draw takes the largest.
fn longest(limits: &Limits, fault: &Fault, mut progress: CallProgress) -> Option<u64> {
    limits.delay(fault, &mut progress, |range| *range.end()).ok()
}

#[test]
fn retryability_and_idempotency_decide() {
    let limits = limits(RetryPolicy::builder());
    let permits = |retry, resend| limits.permits(&FAULT.with_retryable(retry), 1, resend);
    assert_eq!(permits(Retryable::Unsent, ResendAfter::Nothing), Err(GiveUp::NotIdempotent));
    assert_eq!(permits(Retryable::Unsent, ResendAfter::Unsent), Ok(()));
    assert_eq!(permits(Retryable::Refused, ResendAfter::Unsent), Err(GiveUp::NotIdempotent));
    assert_eq!(permits(Retryable::Refused, ResendAfter::Refused), Ok(()));
    assert_eq!(permits(Retryable::IfIdempotent, ResendAfter::Any), Ok(()));
    assert_eq!(permits(Retryable::IfIdempotent, ResendAfter::Refused), Err(GiveUp::NotIdempotent));
    assert_eq!(permits(Retryable::Never, ResendAfter::Any), Err(GiveUp::NotRetryable));
}

#[test]
fn default_policy_allows_three_attempts_with_growing_delays() {
    let limits = limits(RetryPolicy::builder());
    assert_eq!(
        [1, 2, 3].map(|attempts| limits.permits(&FAULT, attempts, ResendAfter::Any)),
        [Ok(()), Ok(()), Err(GiveUp::Attempts)]
    );
    let mut progress = FIRST;
    let mut delay = || limits.delay(&FAULT, &mut progress, |range| *range.end());
    assert_eq!((delay(), delay()), (Ok(SECOND / 10), Ok(SECOND / 5)));
}

#[test]
fn backoff_grows_after_minimum_and_restarts_after_pushback() {
    let limits = limits(RetryPolicy::builder().max_attempts(10));
    let two_seconds = Duration::from_secs(2);
    let (minimum, pushback) =
        (FAULT.with_retry_after(two_seconds), FAULT.with_exact_retry_after(two_seconds));
    let delays = |hinted| {
        let mut progress = FIRST;
        let mut delay = |fault| limits.delay(fault, &mut progress, |range| *range.end()).unwrap();
        [&FAULT, &FAULT, &FAULT, hinted, &FAULT, &FAULT].map(&mut delay)
    };
    let tenth = SECOND / 10;
    assert_eq!(delays(&minimum), [tenth, 2 * tenth, 4 * tenth, 3 * SECOND, 16 * tenth, 32 * tenth]);
    assert_eq!(delays(&pushback), [tenth, 2 * tenth, 4 * tenth, 3 * SECOND, tenth, 2 * tenth]);
}

#[test]
fn minimum_shorter_than_backoff_keeps_backoff() {
    let limits = limits(RetryPolicy::builder());
    let tiny = FAULT.with_retry_after(Duration::from_nanos(1));
    assert_eq!(longest(&limits, &tiny, FIRST), Some(SECOND / 10));
    let zero = FAULT.with_exact_retry_after(Duration::ZERO);
    assert_eq!(longest(&limits, &zero, FIRST), Some(0), "a pushback is exact");
    assert_eq!(longest(&limits, &FAULT.with_exact_retry_after(Duration::from_secs(61)), FIRST), None);
}

#[test]
fn retry_delay_ends_before_deadline() {
    let limits = limits(RetryPolicy::builder());
    let by = |deadline| {
        limits.delay(&FAULT, &mut CallProgress { deadline: Some(deadline), ..FIRST }, |range| *range.end())
    };
    assert_eq!(by(SECOND / 10 + 1), Ok(SECOND / 10));
    let cut = SECOND / 10 - 1 - TICK;
    assert_eq!(by(SECOND / 10), Ok(cut), "at the deadline it would have no time left");
    assert_eq!(by(1), Err(GiveUp::Deadline));
    assert_eq!(by(0), Err(GiveUp::Deadline));
}

#[test]
fn hint_replaces_backoff_and_is_never_shortened() {
    let limits = limits(RetryPolicy::builder());
    let hinted = |delay| FAULT.with_retry_after(delay);
    let four = hinted(Duration::from_secs(4));
    assert_eq!(limits.delay(&four, &mut { FIRST }, |range| *range.start()), Ok(4 * SECOND));
    assert_eq!(longest(&limits, &four, FIRST), Some(6 * SECOND));
    assert_eq!(longest(&limits, &hinted(Duration::from_secs(60)), FIRST), Some(65 * SECOND), "at the cap");
    assert_eq!(longest(&limits, &hinted(Duration::from_millis(60_001)), FIRST), None, "over the cap");
    assert_eq!(longest(&limits, &hinted(Duration::MAX), FIRST), None);
    assert_eq!(longest(&limits, &hinted(Duration::ZERO), FIRST), Some(SECOND / 10), "any time will do");
}

#[test]
fn delay_that_does_not_fit_is_not_started() {
    let bounded = limits(RetryPolicy::builder().max_elapsed(Duration::from_secs(10)));
    let at = |elapsed| longest(&bounded, &FAULT, CallProgress { elapsed, ..FIRST });
    assert_eq!(at(10 * SECOND - SECOND / 10), Some(SECOND / 10), "it ends just in time");
    assert_eq!(at(10 * SECOND - SECOND / 10 + 1), Some(SECOND / 10 - 1 - TICK), "the range is cut");
    assert_eq!(at(10 * SECOND - 1), Some(0));
    assert_eq!(at(10 * SECOND), None, "nothing is left");
    assert_eq!(at(u64::MAX), None);
    let hinted = |seconds, elapsed| {
        let fault = FAULT.with_retry_after(Duration::from_secs(seconds));
        longest(&bounded, &fault, CallProgress { elapsed, ..FIRST })
    };
    assert_eq!(hinted(8, 0), Some(10 * SECOND - TICK), "of a hint, the stretch is cut");
    assert_eq!(hinted(8, 2 * SECOND), Some(8 * SECOND));
    assert_eq!(hinted(8, 2 * SECOND + 1), None, "the hint itself does not fit");
    let unbounded = limits(RetryPolicy::builder().max_elapsed(None));
    assert!(longest(&unbounded, &FAULT, CallProgress { elapsed: u64::MAX, ..FIRST }).is_some());
}

#[test]
fn policy_value_out_of_range_is_named_with_range() {
    let field = |builder: RetryPolicyBuilder| builder.build().expect_err("it is out of range").field();
    let policy = RetryPolicy::builder;
    assert_eq!(field(policy().max_attempts(0)), "max_attempts");
    assert_eq!(field(policy().max_attempts(1_001)), "max_attempts");
    for factor in [0.0, 0.999, -1.0, f64::NAN, f64::INFINITY] {
        assert_eq!(field(policy().backoff_multiplier(factor)), "backoff_multiplier");
    }
    for share in [-0.1, 1.1, f64::NAN] {
        assert_eq!(field(policy().jitter(Jitter::Proportional(share))), "jitter");
        assert_eq!(field(policy().jitter(Jitter::CenkaltiProportional(share))), "jitter");
    }
    for jitter in [Jitter::Additive(Duration::MAX), Jitter::TenacityAdditive(Duration::MAX)] {
        assert_eq!(field(policy().jitter(jitter)), "jitter");
    }
    let error = policy().initial_backoff(Duration::from_secs(11)).build().unwrap_err();
    assert_eq!(error.to_string(), "`initial_backoff` is 11s; allowed is 0ns to 10s");
    for builder in [
        policy().max_backoff(Duration::MAX),
        policy().max_elapsed(Duration::MAX),
        policy().max_retry_after(Duration::MAX),
    ] {
        assert!(["max_backoff", "max_elapsed", "max_retry_after"].contains(&field(builder)));
    }
    assert_eq!(field(policy().replay_limit((1 << 30) + 1)), "replay_limit");
    assert_eq!(field(policy().idempotent_methods(["Get"])), "idempotent_methods");
    assert!(
        policy()
            .initial_backoff(Duration::ZERO)
            .max_backoff(Duration::ZERO)
            .max_elapsed(Duration::ZERO)
            .build()
            .is_ok()
    );
}

#[test]
fn policy_clones_share_budget_and_policies_do_not() {
    let policy = RetryPolicy::default();
    assert_eq!(policy.budget, policy.clone().budget);
    assert_ne!(policy.budget, RetryPolicy::default().budget);
    assert!(RetryPolicy::builder().budget(None).build().unwrap().budget.is_none());
}

#[test]
fn policy_to_builder_keeps_every_setting() {
    let name = http::HeaderName::from_static("x-attempt");
    let clock = Clock::manual().0;
    let policy = RetryPolicy::builder()
        .max_attempts(7)
        .initial_backoff(Duration::from_millis(20))
        .backoff_multiplier(3.0)
        .max_backoff(Duration::from_secs(5))
        .jitter(Jitter::Equal)
        .max_elapsed(Duration::from_secs(40))
        .max_retry_after(Duration::from_secs(9))
        .safety(RetrySafety::Always)
        .non_idempotent(NonIdempotent::Never)
        .follows_redirects(true)
        .budget(Budget::aws().build().unwrap())
        .clock(clock)
        .seed(11)
        .replay_limit(100)
        .track_uploads(false)
        .idempotent_methods(["shop.Orders/Get", "shop.Stock/*"])
        .marker(false)
        .marker_header(name.clone())
        .remove_marker(true)
        .on_retry(|_| ())
        .build()
        .unwrap();
    for policy in [policy.clone(), policy.to_builder().build().unwrap()] {
        let backoff = policy.backoff();
        assert_eq!(policy.max_attempts(), 7);
        assert_eq!(backoff.initial_backoff(), Duration::from_millis(20));
        assert_eq!(backoff.backoff_multiplier(), 3.0);
        assert_eq!(backoff.max_backoff(), Duration::from_secs(5));
        assert_eq!(backoff.jitter(), Jitter::Equal);
        assert_eq!(policy.max_elapsed(), Some(Duration::from_secs(40)));
        assert_eq!(policy.max_retry_after(), Duration::from_secs(9));
        assert_eq!(policy.safety(), RetrySafety::Always);
        assert_eq!(policy.non_idempotent(), NonIdempotent::Never);
        assert_eq!(policy.follows_redirects(), Some(true));
        assert_eq!(policy.clock(), clock);
        assert_eq!(policy.seed(), Some(11));
        assert_eq!(policy.replay_limit(), 100);
        assert!(!policy.track_uploads() && !policy.marker() && policy.remove_marker());
        let methods: Vec<_> = policy.idempotent_methods().collect();
        assert_eq!(methods, ["shop.Orders/Get", "shop.Stock/*"]);
        assert_eq!(policy.marker_header(), Some(&name));
        assert!(policy.cold.as_ref().is_some_and(|cold| cold.observer.is_some()));
    }
    assert_eq!(policy.to_builder().build().unwrap().budget(), policy.budget(), "the budget is shared");
}

#[test]
fn default_policy_to_builder_builds_the_default() {
    let policy = RetryPolicy::default();
    let rebuilt = policy.to_builder().build().unwrap();
    assert_eq!(rebuilt.hot.limits, policy.hot.limits);
    assert_eq!((rebuilt.clock(), rebuilt.budget()), (policy.clock(), policy.budget()));
    assert!(rebuilt.cold.is_none() && rebuilt.methods.is_none() && rebuilt.seed().is_none());
}
