//! Tests of the configuration and of the retry decision.

use std::borrow::Cow;
use std::error::Error;
use std::time::Duration;

use http::{HeaderMap, HeaderName, StatusCode};
use tower_fault_classify::__internals::Clock;
use tower_fault_classify::classifiers::ResponseCoverage;
use tower_fault_classify::{
    ClassifiedError, Classify, Fault, Health, Kind, Origin, Outcome, Retryable, Verdict,
};

use super::decide::Limits;
use super::*;
use crate::backoff::{Jitter, Position};
use crate::budget::{Budget, BudgetSettings};
use crate::request::{
    Attempt, Coverage, NonIdempotent, Notes, OuterMark, RequestInfo, ResendAfter, RetrySafety,
};

const SECOND: u64 = 1_000_000_000;

const FAULT: Fault =
    Fault::new(Kind::Unavailable, Retryable::IfIdempotent, Health::Unhealthy, Origin::Remote);

const FIRST: CallProgress = CallProgress { elapsed: 0, deadline: None, position: Position::START };

/// A request with configurable properties.
#[derive(Clone, Copy, Debug, Default)]
struct Request {
    idempotent: bool,
    key: bool,
    method: Option<&'static str>,
}

impl RequestInfo for Request {
    fn is_idempotent(&self) -> bool {
        self.idempotent
    }

    fn has_idempotency_key(&self) -> bool {
        self.key
    }

    fn grpc_method(&self) -> Option<&str> {
        self.method
    }
}

/// A response that may come from a URL.
#[derive(Debug, Default)]
struct Response {
    head: http::Response<()>,
    url: Option<&'static str>,
}

impl Response {
    fn from_url(url: &'static str) -> Self {
        Self { url: Some(url), ..Self::default() }
    }

    fn with_headers(headers: &[(&'static str, &'static str)]) -> Self {
        let mut response = Self::default();
        for &(name, value) in headers {
            response.head.headers_mut().insert(name, value.parse().unwrap());
        }
        response
    }
}

impl Outcome for Response {
    fn status(&self) -> Option<StatusCode> {
        Some(self.head.status())
    }

    fn headers(&self) -> Option<&HeaderMap> {
        Some(self.head.headers())
    }

    fn url(&self) -> Option<Cow<'_, str>> {
        self.url.map(Cow::from)
    }
}

/// A classifier with a given coverage of responses. The tests pass the verdicts to the decision.
struct Classifier(ResponseCoverage);

impl Classify<Response, ClassifiedError> for Classifier {
    fn classify(&self, _: Result<&Response, &ClassifiedError>) -> Verdict {
        unreachable!("the attempt is classified before")
    }

    fn outcome<'r>(&self, response: &'r mut Response) -> Option<&'r mut (dyn Outcome + 'r)> {
        Some(response)
    }

    fn error<'e>(&self, error: &'e ClassifiedError) -> Option<&'e (dyn Error + 'static)> {
        Some(error)
    }

    fn response_coverage(&self) -> ResponseCoverage {
        self.0
    }
}

/// Returns why no attempt may follow an outcome. Neither the request nor the outcome shows a
/// redirect.
fn blocked(
    coverage: ResponseCoverage,
    mut result: Result<Response, ClassifiedError>,
    verdict: impl Into<Verdict>,
    outer: OuterMark,
) -> Option<GiveUp> {
    let classifier = Classifier(coverage);
    let verdict = before_redirect(verdict.into(), None, &classifier, &mut result, || None);
    AttemptOutcome::new(&classifier, &mut result, &verdict).blocked(outer)
}

fn error(fault: Fault) -> ClassifiedError {
    ClassifiedError::new(fault, "failed")
}

fn limits(builder: RetryPolicyBuilder) -> Limits {
    *builder.build().unwrap().config.limits()
}

/// The timer tick that a cut keeps free.
const TICK: u64 = 1_000_000;

/// Returns the delay if every draw returns the end of its range.
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
fn hint_longer_than_backoff_is_stretched_and_never_shortened() {
    let limits = limits(RetryPolicy::builder());
    let hinted = |delay| FAULT.with_retry_after(delay);
    let four = hinted(Duration::from_secs(4));
    assert_eq!(limits.delay(&four, &mut { FIRST }, |range| *range.start()), Ok(4 * SECOND));
    assert_eq!(longest(&limits, &four, FIRST), Some(6 * SECOND));
    assert_eq!(longest(&limits, &hinted(Duration::from_secs(60)), FIRST), Some(65 * SECOND), "at the cap");
    assert_eq!(longest(&limits, &hinted(Duration::from_millis(60_001)), FIRST), None, "over the cap");
    assert_eq!(longest(&limits, &hinted(Duration::MAX), FIRST), None);
    assert_eq!(longest(&limits, &hinted(Duration::ZERO), FIRST), Some(SECOND / 10), "zero is no minimum");
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
    assert_eq!(hinted(8, 0), Some(10 * SECOND - TICK), "only the stretch of a hint is cut");
    assert_eq!(hinted(8, 2 * SECOND), Some(8 * SECOND));
    assert_eq!(hinted(8, 2 * SECOND + 1), None, "the hint itself does not fit");
    let unbounded = limits(RetryPolicy::builder().max_elapsed(None));
    assert!(longest(&unbounded, &FAULT, CallProgress { elapsed: u64::MAX, ..FIRST }).is_some());
}

#[test]
fn policy_value_out_of_range_names_field_and_range() {
    let field = |builder: RetryPolicyBuilder| builder.build().expect_err("value out of range").field();
    let policy = RetryPolicy::builder;
    assert_eq!(field(policy().max_attempts(0)), "max_attempts");
    assert_eq!(field(policy().max_attempts(1_001)), "max_attempts");
    let error = policy().max_attempts(None).max_elapsed(None).build().unwrap_err();
    let expected =
        "`max_attempts` is None; allowed is 1 to 1000; without a limit, a `max_elapsed` is required";
    assert_eq!(error.to_string(), expected);
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
    assert_eq!(
        error.to_string(),
        "`initial_backoff` is 11s; allowed is 0ns to 10s, because `max_backoff` is 10s"
    );
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
        .name("search")
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
        .retry_while(|| true)
        .build()
        .unwrap();
    for policy in [policy.clone(), policy.to_builder().build().unwrap()] {
        let backoff = policy.backoff();
        assert_eq!(policy.name(), "search");
        assert_eq!(policy.max_attempts(), Some(7));
        assert_eq!(backoff.initial_backoff(), Duration::from_millis(20));
        assert!((backoff.backoff_multiplier() - 3.0).abs() < f64::EPSILON);
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
        assert!(policy.config.cold().is_some_and(|cold| cold.observer.is_some() && cold.condition.is_some()));
    }
    assert_eq!(policy.to_builder().build().unwrap().budget(), policy.budget(), "the budget is shared");
}

#[test]
fn default_policy_to_builder_builds_the_default() {
    let policy = RetryPolicy::default();
    let rebuilt = policy.to_builder().build().unwrap();
    assert_eq!(rebuilt.config.limits(), policy.config.limits());
    assert_eq!((rebuilt.clock(), rebuilt.budget()), (policy.clock(), policy.budget()));
    assert!(rebuilt.config.cold().is_none() && rebuilt.methods.is_none() && rebuilt.seed().is_none());
}

#[test]
fn gateway_policy_differs_from_default_in_four_settings() {
    let gateway = RetryPolicy::gateway().build().unwrap();
    assert_eq!(gateway.safety(), RetrySafety::ByMethod);
    assert_eq!(gateway.non_idempotent(), NonIdempotent::Unsent);
    assert!(gateway.remove_marker());
    let default = RetryPolicy::default();
    assert_eq!(default.safety(), RetrySafety::ByRequest);
    assert_eq!(default.non_idempotent(), NonIdempotent::UnsentOrRefused);
    assert!(!default.remove_marker());
    assert_eq!(gateway.config.limits(), default.config.limits());
    let tokens = |capacity| {
        Some(BudgetSettings::Tokens { capacity, initial: capacity, per_success: 0.2, timeout_cost: 6.0 })
    };
    let [gateway_budget, default_budget] = [&gateway, &default].map(|policy| policy.budget().unwrap());
    assert_eq!(gateway_budget.settings(), tokens(100));
    assert_eq!(default_budget.settings(), tokens(10));
}

#[test]
fn default_budget_is_new_for_each_policy_of_a_builder() {
    for builder in [RetryPolicy::builder(), RetryPolicy::gateway()] {
        let [one, other] = [builder.clone(), builder].map(|builder| builder.build().unwrap());
        assert_ne!(one.budget(), other.budget());
    }
}

#[test]
fn policy_returns_the_budget_it_was_given() {
    let budget = Budget::aws().build().unwrap();
    let policy = RetryPolicy::builder().budget(budget.clone()).build().unwrap();
    assert_eq!(policy.budget(), Some(&budget));
    assert_eq!(RetryPolicy::builder().budget(None).build().unwrap().budget(), None);
}

#[test]
fn observer_condition_header_and_custom_budget_are_each_kept_alone() {
    let kept = |builder: RetryPolicyBuilder| {
        let policy = builder.build().unwrap();
        let cold = policy.config.cold();
        let has = |part: fn(&ColdConfig) -> bool| cold.is_some_and(part);
        (
            has(|cold| cold.observer.is_some()),
            has(|cold| cold.condition.is_some()),
            has(|cold| cold.header.is_some()),
            has(|cold| cold.budget.is_some()),
        )
    };
    let builder = RetryPolicy::builder;
    assert_eq!(kept(builder().on_retry(|_| ())), (true, false, false, false));
    assert_eq!(kept(builder().retry_while(|| true)), (false, true, false, false));
    assert_eq!(
        kept(builder().marker_header(HeaderName::from_static("x-attempt"))),
        (false, false, true, false)
    );
    assert_eq!(kept(builder().budget(Budget::custom(Budget::default()))), (false, false, false, true));
    assert!(RetryPolicy::default().config.cold().is_none(), "a policy without them allocates nothing");
}

#[test]
fn observer_is_called_with_the_event() {
    let (sender, events) = std::sync::mpsc::channel();
    let observer = Observer::new(move |event: &RetryEvent| sender.send(event.attempt).unwrap());
    let (delay, elapsed) = (Duration::from_millis(1), Duration::from_millis(2));
    observer.notify(&RetryEvent { attempt: 2, fault: FAULT, delay, elapsed });
    assert_eq!(events.try_iter().collect::<Vec<_>>(), [2]);
    assert_eq!(format!("{observer:?}"), "Observer");
    assert_eq!(format!("{:?}", Condition::new(|| true)), "Condition");
}

#[test]
fn single_attempt_reason_is_the_first_of_limit_safety_and_nesting() {
    let reason = |attempts, resend_after| {
        let policy = RetryPolicy::builder().max_attempts(attempts).build().unwrap();
        policy.single_attempt_reason(resend_after)
    };
    assert_eq!(reason(1, ResendAfter::Any), GiveUp::Attempts);
    assert_eq!(reason(1, ResendAfter::Nothing), GiveUp::Attempts);
    assert_eq!(reason(2, ResendAfter::Nothing), GiveUp::NotIdempotent);
    assert_eq!(reason(2, ResendAfter::Any), GiveUp::Nested);
}

#[test]
fn outer_mark_is_ignored_by_policy_without_marker() {
    let own = Coverage::of(ResendAfter::Any, ResponseCoverage::All);
    let mark = OuterMark::new(None).attempt(1, own);
    let notes = Notes { attempt: Some(mark), ..Notes::default() };
    let reads_mark = |marker| {
        let policy = RetryPolicy::builder().marker(marker).build().unwrap();
        policy.outer(&notes).includes(Retryable::IfIdempotent, None)
    };
    assert!(reads_mark(true));
    assert!(!reads_mark(false));
}

#[test]
fn first_mark_carries_marker_header_and_time_left() {
    let name = HeaderName::from_static("x-attempt");
    let policy = RetryPolicy::builder().marker_header(name.clone()).build().unwrap();
    let second = Duration::from_secs(1);
    let mark = policy.first_mark(Attempt::new(1), Some(second));
    assert_eq!((mark.attempt.number(), mark.remaining), (1, Some(second)));
    assert_eq!((mark.marker, mark.header), (true, Some(&name)));
}

#[test]
fn request_is_idempotent_by_itself_its_key_or_a_listed_method() {
    let policy = RetryPolicy::builder().idempotent_methods(["shop.Orders/Get"]).build().unwrap();
    let after = |request: Request| policy.resend_after(&request, None);
    let post = Request::default();
    assert_eq!(after(post), ResendAfter::Refused);
    assert_eq!(after(Request { idempotent: true, ..post }), ResendAfter::Any);
    assert_eq!(after(Request { key: true, ..post }), ResendAfter::Any);
    assert_eq!(after(Request { method: Some("/shop.Orders/Get"), ..post }), ResendAfter::Any);
    assert_eq!(after(Request { method: Some("/shop.Orders/Put"), ..post }), ResendAfter::Refused);
    let own = policy.resend_after(&Request { idempotent: true, ..post }, Some(RetrySafety::Never));
    assert_eq!(own, ResendAfter::Nothing, "the request's own setting takes precedence");
    let by_method = RetryPolicy::gateway().build().unwrap();
    assert_eq!(by_method.resend_after(&Request { key: true, ..post }, None), ResendAfter::Unsent);
    assert_eq!(
        RetryPolicy::default().resend_after(&Request { method: Some("/shop.Orders/Get"), ..post }, None),
        ResendAfter::Refused,
        "no method is listed"
    );
}

#[test]
fn policy_values_at_the_end_of_their_range_are_valid() {
    let year = Duration::from_secs(31_536_000);
    let more = year + Duration::from_nanos(1);
    let policy = RetryPolicy::builder;
    for (field, set) in [
        (
            "max_backoff",
            (|time| RetryPolicy::builder().max_backoff(time)) as fn(Duration) -> RetryPolicyBuilder,
        ),
        ("max_elapsed", |time| RetryPolicy::builder().max_elapsed(time)),
        ("max_retry_after", |time| RetryPolicy::builder().max_retry_after(time)),
        ("jitter", |time| RetryPolicy::builder().jitter(Jitter::Additive(time))),
        ("jitter", |time| RetryPolicy::builder().jitter(Jitter::TenacityAdditive(time))),
    ] {
        assert!(set(year).build().is_ok(), "{field}");
        assert_eq!(set(more).build().unwrap_err().field(), field);
    }
    for attempts in [1, 1_000] {
        assert_eq!(policy().max_attempts(attempts).build().unwrap().max_attempts(), Some(attempts));
    }
    let unlimited = policy().max_attempts(None).build().unwrap();
    assert_eq!(
        (unlimited.max_attempts(), unlimited.to_builder().build().unwrap().max_attempts()),
        (None, None)
    );
    for multiplier in [1.0, 1_000.0] {
        assert!(policy().backoff_multiplier(multiplier).build().is_ok());
    }
    assert!(policy().backoff_multiplier(1_000.1).build().is_err());
    for share in [0.0, 1.0] {
        assert!(policy().jitter(Jitter::Proportional(share)).build().is_ok());
        assert!(policy().jitter(Jitter::CenkaltiProportional(share)).build().is_ok());
    }
    for limit in [0, 1_073_741_824] {
        assert_eq!(policy().replay_limit(limit).build().unwrap().replay_limit(), limit);
    }
}

#[test]
fn earlier_of_deadline_and_max_elapsed_limits_a_retry() {
    let bounded = limits(RetryPolicy::builder().max_elapsed(Duration::from_secs(10)));
    let limit = |deadline| bounded.time_limit(deadline).limit;
    let left = |elapsed, deadline| bounded.time_left(elapsed, deadline);
    assert_eq!(limit(None), GiveUp::MaxElapsed);
    assert_eq!(limit(Some(10 * SECOND - 1)), GiveUp::Deadline);
    assert_eq!(limit(Some(10 * SECOND)), GiveUp::Deadline, "a retry must start before it");
    assert_eq!(limit(Some(10 * SECOND + 1)), GiveUp::MaxElapsed);
    assert_eq!(left(SECOND, None), Ok(9 * SECOND));
    assert_eq!(left(SECOND, Some(4 * SECOND)), Ok(3 * SECOND - 1));
    assert_eq!(left(SECOND, Some(20 * SECOND)), Ok(9 * SECOND));
    assert_eq!(left(10 * SECOND, None), Ok(0));
    assert_eq!(left(10 * SECOND + 1, None), Err(GiveUp::MaxElapsed));
    assert_eq!(left(4 * SECOND, Some(4 * SECOND)), Err(GiveUp::Deadline));
    let unbounded = limits(RetryPolicy::builder().max_elapsed(None));
    assert_eq!(
        unbounded.time_left(SECOND, None),
        Ok(u64::MAX),
        "without a limit, elapsed time does not count"
    );
}

#[test]
fn rejection_is_a_local_fault_that_was_not_sent() {
    let fault = |kind, retryable, origin| Fault::new(kind, retryable, Health::Neutral, origin);
    for origin in [Origin::Local, Origin::Remote, Origin::Caller] {
        let local = origin == Origin::Local;
        assert_eq!(is_rejection(&fault(Kind::Rejected, Retryable::Never, origin)), local, "{origin:?}");
        assert_eq!(is_rejection(&fault(Kind::Overloaded, Retryable::Unsent, origin)), local, "{origin:?}");
        assert!(!is_rejection(&fault(Kind::Overloaded, Retryable::Never, origin)), "{origin:?}");
    }
    let is_final = |kind, retryable, origin| is_final_rejection(&fault(kind, retryable, origin).into());
    assert!(is_final(Kind::Rejected, Retryable::Never, Origin::Local));
    assert!(!is_final(Kind::Rejected, Retryable::Never, Origin::Remote));
    assert!(!is_final(Kind::Rejected, Retryable::Unsent, Origin::Local));
    assert!(!is_final(Kind::Client, Retryable::Never, Origin::Local));
    assert!(!is_final_rejection(&Verdict::Success));
    let limits = limits(RetryPolicy::builder());
    let permits = |fault: Fault| limits.permits(&fault, 1, ResendAfter::Any);
    assert_eq!(permits(fault(Kind::Rejected, Retryable::Never, Origin::Local)), Err(GiveUp::Rejected));
    assert_eq!(permits(fault(Kind::Client, Retryable::Never, Origin::Local)), Err(GiveUp::NotRetryable));
}

#[test]
fn give_up_reasons_have_names_in_snake_case() {
    for (reason, name) in [
        (GiveUp::NotRetryable, "not_retryable"),
        (GiveUp::NotIdempotent, "not_idempotent"),
        (GiveUp::Attempts, "attempts"),
        (GiveUp::Nested, "nested"),
        (GiveUp::Committed, "committed"),
        (GiveUp::NotReplayable, "not_replayable"),
        (GiveUp::HintTooLong, "hint_too_long"),
        (GiveUp::Deadline, "deadline"),
        (GiveUp::MaxElapsed, "max_elapsed"),
        (GiveUp::Stopped, "stopped"),
        (GiveUp::Budget, "budget"),
        (GiveUp::Rejected, "rejected"),
        (GiveUp::NotReady, "not_ready"),
    ] {
        assert_eq!(reason.as_str(), name);
        assert_eq!(reason.to_string(), name);
    }
}

#[test]
fn grpc_response_that_has_begun_is_not_retried() {
    let grpc = ("content-type", "application/grpc");
    let blocked =
        |result, verdict: Verdict| blocked(ResponseCoverage::All, result, verdict, OuterMark::default());
    let begun = || Ok(Response::with_headers(&[grpc]));
    assert_eq!(blocked(begun(), FAULT.into()), Some(GiveUp::Committed));
    assert_eq!(blocked(begun(), Verdict::Success), None);
    let trailers_only = Response::with_headers(&[grpc, ("grpc-status", "14")]);
    assert_eq!(blocked(Ok(trailers_only), FAULT.into()), None);
    assert_eq!(blocked(Ok(Response::default()), FAULT.into()), None);
    assert_eq!(blocked(Err(error(FAULT)), FAULT.into()), None);
}

#[test]
fn fault_that_an_outer_layer_retries_is_left_to_it() {
    let marked = |coverage| {
        let coverage = Coverage::of(ResendAfter::Refused, coverage);
        OuterMark::new(Some(OuterMark::default().attempt(1, coverage)))
    };
    let (all, errors_only) = (marked(ResponseCoverage::All), marked(ResponseCoverage::Nothing));
    let refused = FAULT.with_retryable(Retryable::Refused);
    let response = |outer| blocked(ResponseCoverage::All, Ok(Response::default()), refused, outer);
    let failed = |fault, outer| blocked(ResponseCoverage::All, Err(error(fault)), fault, outer);
    assert_eq!(response(all), Some(GiveUp::Nested));
    assert_eq!(response(errors_only), None, "the outer layer classifies errors only");
    assert_eq!(response(OuterMark::default()), None);
    assert_eq!(failed(refused, errors_only), Some(GiveUp::Nested));
    assert_eq!(failed(FAULT, errors_only), None, "the outer layer retries refused requests only");
    let success = blocked(ResponseCoverage::All, Ok(Response::default()), Verdict::Success, all);
    assert_eq!(success, None);
}

#[test]
fn redirect_makes_unsent_and_refused_count_as_if_idempotent() {
    const URL: &str = "http://a/b";
    let retryable =
        |result: Result<Response, ClassifiedError>, fault: Fault, follows, url: Option<&'static str>| {
            let mut result = result;
            let classifier = Classifier(ResponseCoverage::All);
            let url = || url.map(Cow::from);
            let verdict = before_redirect(fault.into(), follows, &classifier, &mut result, url);
            verdict.fault().unwrap().retryable()
        };
    let here = || Ok(Response::from_url(URL));
    let elsewhere = || Ok(Response::from_url("http://a/c"));
    for unprocessed in [Retryable::Unsent, Retryable::Refused] {
        let fault = FAULT.with_retryable(unprocessed);
        let redirected = fault.with_maybe_redirected(true);
        // Not set: the URL of a response or the fault of an error decides.
        assert_eq!(retryable(here(), fault, None, Some(URL)), unprocessed);
        assert_eq!(retryable(elsewhere(), fault, None, Some(URL)), Retryable::IfIdempotent);
        assert_eq!(retryable(elsewhere(), fault, None, None), unprocessed, "the request's URL is unknown");
        assert_eq!(retryable(Ok(Response::default()), fault, None, Some(URL)), unprocessed);
        assert_eq!(retryable(here(), redirected, None, Some(URL)), Retryable::IfIdempotent);
        assert_eq!(retryable(Err(error(fault)), fault, None, Some(URL)), unprocessed);
        assert_eq!(retryable(Err(error(redirected)), fault, None, Some(URL)), Retryable::IfIdempotent);
        // The setting takes precedence.
        assert_eq!(retryable(here(), fault, Some(true), Some(URL)), Retryable::IfIdempotent);
        assert_eq!(retryable(elsewhere(), redirected, Some(false), Some(URL)), unprocessed);
    }
    for processed in [Retryable::IfIdempotent, Retryable::Never] {
        let fault = FAULT.with_retryable(processed).with_maybe_redirected(true);
        assert_eq!(retryable(elsewhere(), fault, Some(true), Some(URL)), processed);
    }
}
