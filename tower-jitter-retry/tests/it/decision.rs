//! The retry decision without I/O, and its agreement with the layer.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{Method, Request, Response};
use proptest::prelude::*;
use proptest::sample::select;
use tokio::runtime;
use tokio::time::{Instant, sleep};
use tower::{Layer, service_fn};
use tower_fault_classify::ClassifiedError;
use tower_jitter_retry::budget::{RetryBudget, Ticket};
use tower_jitter_retry::decision::{CallOptions, Decision, RetryCall};
use tower_jitter_retry::fault_classify::{Fault, Health, Kind, Origin, Retryable, Verdict};
use tower_jitter_retry::{
    Budget, Clock, Deadline, GiveUp, Jitter, JitterRetryLayer, NonIdempotent, Retried, RetryPolicy,
    RetryPolicyBuilder, RetrySafety,
};

use crate::support::send;

const MILLI: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

const FAULT: Fault =
    Fault::new(Kind::Unavailable, Retryable::IfIdempotent, Health::Unhealthy, Origin::Remote);
const REJECTED: Fault = Fault::new(Kind::Rejected, Retryable::Never, Health::Neutral, Origin::Local);

/// A policy whose delays are 100 ms, 200 ms, 400 ms and so on, without a budget.
fn exact() -> RetryPolicyBuilder {
    RetryPolicy::builder().jitter(Jitter::None).budget(None).max_attempts(10)
}

fn begin(policy: RetryPolicyBuilder) -> RetryCall {
    policy.build().unwrap().begin(CallOptions::new(), Duration::ZERO)
}

/// Records a fault at the given time, in milliseconds.
fn fail(call: &mut RetryCall, fault: Fault, now: u64) -> Decision {
    call.record(&fault.into(), Duration::from_millis(now))
}

const fn retry_after(millis: u64) -> Decision {
    Decision::Retry { delay: Duration::from_millis(millis) }
}

#[test]
fn success_is_done_at_every_attempt() {
    assert_eq!(begin(exact()).record(&Verdict::Success, SECOND), Decision::Done);
    let mut call = begin(exact());
    assert_eq!(fail(&mut call, FAULT, 0), retry_after(100));
    assert_eq!(call.record(&Verdict::Success, SECOND), Decision::Done);
    assert_eq!(call.attempts(), 2);
}

#[test]
fn attempts_are_counted_and_limited() {
    let mut call = begin(exact().max_attempts(3));
    assert_eq!(call.attempts(), 1);
    assert_eq!(fail(&mut call, FAULT, 0), retry_after(100));
    assert_eq!(call.attempts(), 2);
    assert_eq!(fail(&mut call, FAULT, 100), retry_after(200));
    assert_eq!(call.attempts(), 3);
    assert_eq!(fail(&mut call, FAULT, 300), Decision::GiveUp(GiveUp::Attempts));
    assert_eq!(call.attempts(), 3);
}

#[test]
fn fault_and_idempotency_decide() {
    let decide = |options, fault| {
        let mut call = exact().build().unwrap().begin(options, Duration::ZERO);
        fail(&mut call, fault, 0)
    };
    let post = CallOptions::default().idempotent(false);
    let refused = FAULT.with_retryable(Retryable::Refused);
    let never = FAULT.with_retryable(Retryable::Never);
    assert_eq!(decide(CallOptions::new(), FAULT), retry_after(100));
    assert_eq!(decide(post, FAULT), Decision::GiveUp(GiveUp::NotIdempotent));
    assert_eq!(decide(post, refused), retry_after(100));
    assert_eq!(decide(CallOptions::new(), never), Decision::GiveUp(GiveUp::NotRetryable));
    assert_eq!(decide(CallOptions::new(), REJECTED), Decision::GiveUp(GiveUp::Rejected));
}

#[test]
fn policy_safety_overrides_idempotency() {
    let decide = |safety, idempotent| {
        let policy = exact().safety(safety).build().unwrap();
        fail(&mut policy.begin(CallOptions::new().idempotent(idempotent), Duration::ZERO), FAULT, 0)
    };
    assert_eq!(decide(RetrySafety::Always, false), retry_after(100));
    assert_eq!(decide(RetrySafety::Never, true), Decision::GiveUp(GiveUp::NotIdempotent));
}

#[test]
fn grpc_method_is_idempotent_if_the_policy_lists_it() {
    let policy = exact().idempotent_methods(["shop.Orders/Get"]).build().unwrap();
    let decision = |options: CallOptions<'_>, policy: &RetryPolicy| {
        fail(&mut policy.begin(options, Duration::ZERO), FAULT, 0)
    };
    let stopped = Decision::GiveUp(GiveUp::NotIdempotent);
    let (get, create) = ("/shop.Orders/Get", "/shop.Orders/Create");
    for idempotent in [false, true] {
        let options = CallOptions::new().idempotent(idempotent);
        assert_eq!(decision(options.grpc_method(get), &policy), retry_after(100));
        assert_eq!(decision(options.grpc_method(create), &policy), stopped);
        assert_eq!(decision(options.grpc_method(get), &exact().build().unwrap()), stopped);
    }
}

#[test]
fn own_safety_overrides_policy_and_idempotency() {
    let stopped = Decision::GiveUp(GiveUp::NotIdempotent);
    let own = CallOptions::new().grpc_method("/shop.Orders/Create");
    for policy in [RetrySafety::ByRequest, RetrySafety::Always, RetrySafety::Never] {
        let policy = exact().safety(policy).build().unwrap();
        let decision = |safety| {
            let mut call = policy.begin(own.safety(safety), Duration::ZERO);
            fail(&mut call, FAULT, 0)
        };
        assert_eq!(decision(RetrySafety::Always), retry_after(100));
        assert_eq!(decision(RetrySafety::Never), stopped);
        assert_eq!(decision(RetrySafety::ByRequest), stopped);
    }
}

#[test]
fn max_elapsed_counts_from_the_beginning() {
    let policy = exact().max_elapsed(SECOND).build().unwrap();
    for begun in [Duration::ZERO, 1_000_000 * SECOND] {
        let decide = |elapsed| {
            let mut call = policy.begin(CallOptions::new(), begun);
            call.record(&FAULT.into(), begun + elapsed)
        };
        assert_eq!(decide(900 * MILLI), retry_after(100));
        assert_eq!(decide(901 * MILLI), Decision::GiveUp(GiveUp::MaxElapsed));
        assert_eq!(decide(3 * SECOND), Decision::GiveUp(GiveUp::MaxElapsed));
    }
}

#[test]
fn deadline_counts_from_the_beginning_and_ends_earlier() {
    let policy = exact().max_elapsed(2 * SECOND).build().unwrap();
    let decide = |deadline, elapsed| {
        let mut call = policy.begin(CallOptions::new().deadline(deadline), 7 * SECOND);
        call.record(&FAULT.into(), 7 * SECOND + elapsed)
    };
    assert_eq!(decide(SECOND, 899 * MILLI), retry_after(100));
    assert_eq!(decide(SECOND, 900 * MILLI), Decision::GiveUp(GiveUp::Deadline));
    assert_eq!(decide(3 * SECOND, 1_950 * MILLI), Decision::GiveUp(GiveUp::MaxElapsed));
    assert_eq!(decide(Duration::ZERO, Duration::ZERO), Decision::GiveUp(GiveUp::Deadline));
}

#[test]
fn time_before_the_beginning_counts_as_the_beginning() {
    let policy = exact().max_elapsed(100 * MILLI).build().unwrap();
    let mut call = policy.begin(CallOptions::new(), SECOND);
    assert_eq!(call.time_left(Duration::ZERO), Ok(Some(100 * MILLI)));
    assert_eq!(fail(&mut call, FAULT, 0), retry_after(100));
}

#[test]
fn time_left_shrinks_and_names_the_limit() {
    let bounded = |options| exact().max_elapsed(SECOND).build().unwrap().begin(options, SECOND);
    let call = bounded(CallOptions::new());
    assert_eq!(call.time_left(SECOND), Ok(Some(SECOND)));
    assert_eq!(call.time_left(2 * SECOND), Ok(Some(Duration::ZERO)));
    assert_eq!(call.time_left(2 * SECOND + MILLI), Err(GiveUp::MaxElapsed));
    let call = bounded(CallOptions::new().deadline(500 * MILLI));
    assert_eq!(call.time_left(1_500 * MILLI), Err(GiveUp::Deadline));
    assert_eq!(begin(exact().max_elapsed(None)).time_left(Duration::MAX), Ok(None));
}

#[test]
fn hint_is_a_minimum_and_pushback_is_exact() {
    let mut call = begin(exact().max_retry_after(5 * SECOND));
    assert_eq!(fail(&mut call, FAULT.with_retry_after(30 * MILLI), 0), retry_after(100));
    assert_eq!(fail(&mut call, FAULT.with_retry_after(5 * SECOND), 0), retry_after(5_000));
    assert_eq!(fail(&mut call, FAULT, 0), retry_after(400));
    assert_eq!(fail(&mut call, FAULT.with_exact_retry_after(30 * MILLI), 0), retry_after(30));
    assert_eq!(fail(&mut call, FAULT, 0), retry_after(100));
    let long = FAULT.with_retry_after(5_001 * MILLI);
    assert_eq!(fail(&mut call, long, 0), Decision::GiveUp(GiveUp::HintTooLong));
}

#[test]
fn seed_determines_the_delays_of_each_call() {
    let delays = |seed| {
        let policy = exact().jitter(Jitter::Full).max_attempts(6).seed(seed).build().unwrap();
        let call = || {
            let mut call = policy.begin(CallOptions::new(), Duration::ZERO);
            (0..5).map(|_| fail(&mut call, FAULT, 0)).collect::<Vec<_>>()
        };
        [call(), call()]
    };
    let [first, second] = delays(7);
    assert_ne!(first, second);
    assert_eq!(delays(7), [first, second]);
    assert_ne!(delays(7), delays(8));
}

/// A budget that logs its use, and grants the given number of retries.
#[derive(Debug)]
struct LoggedBudget {
    log: Arc<Mutex<Vec<&'static str>>>,
    granted: Mutex<u32>,
}

impl RetryBudget for LoggedBudget {
    fn deposit(&self, verdict: &Verdict) {
        self.log.lock().unwrap().push(if verdict.is_success() { "deposit success" } else { "deposit fault" });
    }

    fn withdraw(&self, _: &Fault) -> Option<Ticket> {
        let mut granted = self.granted.lock().unwrap();
        *granted = granted.checked_sub(1)?;
        self.log.lock().unwrap().push("withdraw");
        let log = Arc::clone(&self.log);
        Some(Ticket::new(move |verdict| {
            log.lock().unwrap().push(match verdict {
                Some(Verdict::Success) => "settle success",
                Some(_) => "settle fault",
                None => "not sent",
            });
        }))
    }
}

/// Runs a call with a custom budget, and returns the log of the budget.
fn budget_log(granted: u32, run: impl FnOnce(RetryCall)) -> Vec<&'static str> {
    let log = Arc::new(Mutex::new(Vec::new()));
    let budget = LoggedBudget { log: Arc::clone(&log), granted: Mutex::new(granted) };
    let policy = exact().budget(Budget::custom(budget)).build().unwrap();
    run(policy.begin(CallOptions::new(), Duration::ZERO));
    std::mem::take(&mut *log.lock().unwrap())
}

#[test]
fn first_outcome_deposits_and_each_retry_withdraws_and_settles() {
    let log = budget_log(9, |mut call| {
        assert_eq!(fail(&mut call, FAULT, 0), retry_after(100));
        assert_eq!(fail(&mut call, FAULT, 0), retry_after(200));
        assert_eq!(call.record(&Verdict::Success, SECOND), Decision::Done);
    });
    assert_eq!(log, ["deposit fault", "withdraw", "settle fault", "withdraw", "settle success"]);
    let log = budget_log(9, |mut call| assert_eq!(call.record(&Verdict::Success, SECOND), Decision::Done));
    assert_eq!(log, ["deposit success"]);
}

#[test]
fn budget_that_grants_nothing_ends_the_call() {
    let log = budget_log(0, |mut call| {
        assert_eq!(fail(&mut call, FAULT, 0), Decision::GiveUp(GiveUp::Budget));
        assert_eq!(call.attempts(), 1);
    });
    assert_eq!(log, ["deposit fault"]);
}

#[test]
fn retry_that_does_not_fit_withdraws_nothing() {
    let log = budget_log(9, |mut call| {
        assert_eq!(fail(&mut call, FAULT, 1_000_000), Decision::GiveUp(GiveUp::MaxElapsed));
    });
    assert_eq!(log, ["deposit fault"]);
}

#[test]
fn cancelled_retry_returns_its_ticket_and_is_not_counted() {
    let log = budget_log(9, |mut call| {
        assert_eq!(fail(&mut call, FAULT, 0), retry_after(100));
        call.cancel_retry();
        assert_eq!(call.attempts(), 1);
        // Without a scheduled retry, nothing changes.
        call.cancel_retry();
        assert_eq!(call.attempts(), 1);
    });
    assert_eq!(log, ["deposit fault", "withdraw", "not sent"]);
    let mut call = begin(exact());
    assert_eq!(fail(&mut call, FAULT, 0), retry_after(100));
    call.cancel_retry();
    assert_eq!(call.attempts(), 1, "without a budget");
}

#[test]
fn dropped_call_returns_its_ticket() {
    let log = budget_log(9, |mut call| assert_eq!(fail(&mut call, FAULT, 0), retry_after(100)));
    assert_eq!(log, ["deposit fault", "withdraw", "not sent"]);
}

#[test]
fn last_outcome_reaches_budget_without_withdrawal() {
    let log = budget_log(9, |mut call| call.record_last(&FAULT.into()));
    assert_eq!(log, ["deposit fault"]);
    let log = budget_log(9, |mut call| {
        assert_eq!(fail(&mut call, FAULT, 0), retry_after(100));
        call.record_last(&FAULT.into());
        assert_eq!(call.attempts(), 2);
    });
    assert_eq!(log, ["deposit fault", "withdraw", "settle fault"]);
}

#[test]
fn clone_has_the_state_and_no_ticket() {
    let log = budget_log(9, |mut call| {
        assert_eq!(fail(&mut call, FAULT, 0), retry_after(100));
        let mut clone = call.clone();
        assert_eq!(clone.attempts(), 2);
        clone.cancel_retry();
        assert_eq!((clone.attempts(), call.attempts()), (1, 2));
        drop(clone);
        assert_eq!(call.record(&Verdict::Success, SECOND), Decision::Done);
    });
    assert_eq!(log, ["deposit fault", "withdraw", "settle success"]);
}

#[test]
fn each_kind_of_budget_gets_back_what_it_returns() {
    // Quotas of one retry: a cancelled retry returns its cost, a failed one keeps it.
    let aws = Budget::aws().capacity(5).cost(5).timeout_cost(5).build().unwrap();
    let tokens = Budget::tokens().capacity(1).build().unwrap();
    for quota in [aws, tokens] {
        let policy = exact().budget(quota).build().unwrap();
        for _ in 0..3 {
            let mut call = policy.begin(CallOptions::new(), Duration::ZERO);
            assert_eq!(fail(&mut call, FAULT, 0), retry_after(100));
            call.cancel_retry();
        }
        let mut call = policy.begin(CallOptions::new(), Duration::ZERO);
        assert_eq!(fail(&mut call, FAULT, 0), retry_after(100));
        assert_eq!(fail(&mut call, FAULT, 100), Decision::GiveUp(GiveUp::Budget));
    }
    // A window returns nothing.
    let (clock, _manual) = Clock::manual();
    let window = Budget::window().ratio(0.0).min_per_second(1).span(SECOND).clock(clock).build().unwrap();
    let policy = exact().budget(window).build().unwrap();
    let mut call = policy.begin(CallOptions::new(), Duration::ZERO);
    assert_eq!(fail(&mut call, FAULT, 0), retry_after(100));
    call.cancel_retry();
    let mut call = policy.begin(CallOptions::new(), Duration::ZERO);
    assert_eq!(fail(&mut call, FAULT, 0), Decision::GiveUp(GiveUp::Budget));
}

#[test]
fn call_can_move_to_another_thread() {
    fn check<T: Send + Sync + Unpin>(_: &T) {}
    check(&begin(exact()));
}

/// The settings of a random policy. Each driver builds its own policy and budget from them.
#[derive(Clone, Debug)]
struct Settings {
    max_attempts: u32,
    initial: Duration,
    max_backoff: Duration,
    jitter: Jitter,
    max_elapsed: Option<Duration>,
    max_retry_after: Duration,
    budget: &'static str,
    safety: RetrySafety,
    non_idempotent: NonIdempotent,
    seed: u64,
}

impl Settings {
    fn builder(&self) -> RetryPolicyBuilder {
        let budget = match self.budget {
            "window" => {
                let (clock, _manual) = Clock::manual();
                Some(Budget::window().ratio(0.5).min_per_second(1).span(SECOND).clock(clock).build().unwrap())
            }
            "tokens" => Some(Budget::tokens().capacity(4).initial(2).build().unwrap()),
            "grpc" => Some(Budget::grpc().max_tokens(10).build().unwrap()),
            "aws" => Some(Budget::aws().capacity(20).build().unwrap()),
            _ => None,
        };
        RetryPolicy::builder()
            .max_attempts(self.max_attempts)
            .initial_backoff(self.initial)
            .max_backoff(self.initial.max(self.max_backoff))
            .jitter(self.jitter)
            .max_elapsed(self.max_elapsed)
            .max_retry_after(self.max_retry_after)
            .budget(budget)
            .safety(self.safety)
            .non_idempotent(self.non_idempotent)
            .seed(self.seed)
    }
}

/// One call: its request, and the outcomes and durations of its attempts.
#[derive(Clone, Debug)]
struct Call {
    idempotent: bool,
    deadline: Option<Duration>,
    attempts: Vec<(Verdict, Duration)>,
}

/// The observable course of a call.
#[derive(Debug, Default, PartialEq)]
struct Course {
    /// When each attempt began, since the beginning of the call.
    begun: Vec<Duration>,
    delays: Vec<Duration>,
    /// The number of attempts and the reason for the end, if a retry was planned.
    retried: Option<(u32, Option<GiveUp>)>,
}

/// Waits without the timer if there is nothing to wait for, as the layer does.
async fn wait(time: Duration) {
    if !time.is_zero() {
        sleep(time).await;
    }
}

/// Makes the calls through the layer.
async fn through_layer(settings: &Settings, calls: &[Call]) -> Vec<Course> {
    let delays = Arc::new(Mutex::new(Vec::new()));
    let observed = Arc::clone(&delays);
    let policy = settings.builder().on_retry(move |event| observed.lock().unwrap().push(event.delay));
    let layer = JitterRetryLayer::new(policy.build().unwrap());
    let mut courses = Vec::new();
    for call in calls {
        let origin = Instant::now();
        let begun = Mutex::new(Vec::new());
        let mut service = layer.layer(service_fn(|_: Request<&'static str>| {
            let mut begun = begun.lock().unwrap();
            let (verdict, time) = call.attempts[begun.len()];
            begun.push(origin.elapsed());
            async move {
                wait(time).await;
                match verdict {
                    Verdict::Fault(fault) => Err(ClassifiedError::from_fault(fault)),
                    Verdict::Success => Ok(Response::new(())),
                }
            }
        }));
        let mut request = Request::new("the body");
        *request.method_mut() = if call.idempotent { Method::GET } else { Method::POST };
        if let Some(deadline) = call.deadline {
            request.extensions_mut().insert(Deadline::within(deadline));
        }
        let retried = match send(&mut service, request).await {
            Ok(response) => response.extensions().get::<Retried>().copied(),
            Err(error) => Retried::of(&error),
        };
        drop(service);
        courses.push(Course {
            begun: begun.into_inner().unwrap(),
            delays: std::mem::take(&mut *delays.lock().unwrap()),
            retried: retried.map(|retried| (retried.attempts, retried.ended)),
        });
    }
    courses
}

/// Makes one call with the decision alone. Its clock has an origin of its own.
async fn run_call(policy: &RetryPolicy, call: &Call) -> Course {
    let origin = Instant::now();
    let now = || 100 * SECOND + origin.elapsed();
    let mut options = CallOptions::new().idempotent(call.idempotent);
    if let Some(deadline) = call.deadline {
        options = options.deadline(deadline);
    }
    let mut state = policy.begin(options, now());
    let mut course = Course::default();
    let ended = loop {
        let (verdict, time) = call.attempts[course.begun.len()];
        course.begun.push(origin.elapsed());
        wait(time).await;
        let delay = match state.record(&verdict, now()) {
            Decision::Retry { delay } => delay,
            Decision::GiveUp(reason) => break Some(reason),
            Decision::Done => break None,
        };
        course.delays.push(delay);
        wait(delay).await;
        if let Err(limit) = state.time_left(now()) {
            state.cancel_retry();
            break Some(limit);
        }
    };
    course.retried = (!course.delays.is_empty()).then_some((state.attempts(), ended));
    course
}

async fn through_decision(settings: &Settings, calls: &[Call]) -> Vec<Course> {
    let policy = settings.builder().build().unwrap();
    let mut courses = Vec::new();
    for call in calls {
        courses.push(run_call(&policy, call).await);
    }
    courses
}

/// Runs a future in paused time that starts at a whole millisecond of the timer.
fn paused<F: Future>(future: F) -> F::Output {
    runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(future)
}

fn millis(range: std::ops::Range<u64>) -> impl Strategy<Value = Duration> {
    range.prop_map(Duration::from_millis)
}

fn settings() -> impl Strategy<Value = Settings> {
    let jitter = select(vec![
        Jitter::None,
        Jitter::Full,
        Jitter::Equal,
        Jitter::Decorrelated,
        Jitter::Proportional(0.5),
        Jitter::Additive(SECOND),
        Jitter::AwsDecorrelated,
    ]);
    let safeties =
        vec![RetrySafety::ByRequest, RetrySafety::ByRequest, RetrySafety::Always, RetrySafety::Never];
    let levels = vec![NonIdempotent::Never, NonIdempotent::Unsent, NonIdempotent::UnsentOrRefused];
    let times = (
        prop_oneof![1 => Just(Duration::ZERO), 5 => millis(1..1_000)],
        millis(0..5_000),
        proptest::option::of(millis(0..10_000)),
        millis(0..5_000),
    );
    let budget = select(vec!["none", "window", "tokens", "grpc", "aws"]);
    (1_u32..7, times, jitter, budget, select(safeties), select(levels), any::<u64>()).prop_map(
        |(max_attempts, times, jitter, budget, safety, non_idempotent, seed)| {
            let (initial, max_backoff, max_elapsed, max_retry_after) = times;
            Settings {
                max_attempts,
                initial,
                max_backoff,
                jitter,
                max_elapsed,
                max_retry_after,
                budget,
                safety,
                non_idempotent,
                seed,
            }
        },
    )
}

fn verdict() -> impl Strategy<Value = Verdict> {
    let retryable = prop_oneof![
        6 => Just(Retryable::IfIdempotent),
        2 => Just(Retryable::Refused),
        2 => Just(Retryable::Unsent),
        1 => Just(Retryable::Never),
    ];
    let kind = prop_oneof![4 => Just(Kind::Unavailable), 1 => Just(Kind::Timeout), 1 => Just(Kind::Rejected)];
    let origin = prop_oneof![4 => Just(Origin::Remote), 1 => Just(Origin::Local)];
    let hint = prop_oneof![3 => Just(None), 1 => (millis(0..6_000), any::<bool>()).prop_map(Some)];
    let fault = (retryable, kind, origin, hint).prop_map(|(retryable, kind, origin, hint)| {
        let fault = FAULT.with_retryable(retryable).with_kind(kind).with_origin(origin);
        Verdict::Fault(match hint {
            Some((delay, true)) => fault.with_exact_retry_after(delay),
            Some((delay, false)) => fault.with_retry_after(delay),
            None => fault,
        })
    });
    prop_oneof![1 => Just(Verdict::Success), 6 => fault]
}

fn call() -> impl Strategy<Value = Call> {
    let time =
        prop_oneof![1 => Just(Duration::ZERO), 3 => (0_u64..2_000_000_000).prop_map(Duration::from_nanos)];
    let attempts = proptest::collection::vec((verdict(), time), 6);
    let idempotent = prop_oneof![3 => Just(true), 1 => Just(false)];
    (idempotent, proptest::option::of(millis(0..8_000)), attempts)
        .prop_map(|(idempotent, deadline, attempts)| Call { idempotent, deadline, attempts })
}

proptest! {
    /// The layer and a loop around the decision make the same attempts at the same times, wait the
    /// same delays, and end for the same reasons.
    #[test]
    fn layer_and_decision_agree(settings in settings(), calls in proptest::collection::vec(call(), 1..8)) {
        let layer = paused(through_layer(&settings, &calls));
        prop_assert_eq!(layer, paused(through_decision(&settings, &calls)));
    }
}
