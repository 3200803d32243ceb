//! The helpers for users' tests decide as the layer does, and create the values that it creates.

use std::error::Error;
use std::iter::repeat_n;
use std::panic::catch_unwind;
use std::sync::mpsc;
use std::time::Duration;

use http::{Method, Request};
use tower::{ServiceBuilder, service_fn};
use tower_jitter_retry::budget::RetryBudget;
use tower_jitter_retry::decision::{CallOptions, Decision};
use tower_jitter_retry::fault_classify::{
    ClassifiedError, Fault, Health, Kind, Origin, Retryable, Verdict, classify_error, classify_response,
};
use tower_jitter_retry::test_util::{self, CountingBudget};
use tower_jitter_retry::{
    Budget, GiveUp, Jitter, JitterRetryLayer, Retried, RetryPolicy, RetryPolicyBuilder,
};

use crate::support::{Calls, immediate, layer, request, response, send};

const SECOND: Duration = Duration::from_secs(1);
const FAULT: Fault = Fault::new(Kind::Server, Retryable::IfIdempotent, Health::Unhealthy, Origin::Remote);

/// Sends a request through the layer. The server answers 503 to the first `failures` attempts.
/// Returns the decisions that the caller can observe.
async fn decisions_of_layer(policy: RetryPolicyBuilder, method: Method, failures: usize) -> Vec<Decision> {
    let (sender, delays) = mpsc::channel();
    let policy = policy.on_retry(move |event| sender.send(event.delay).unwrap()).build().unwrap();
    let calls = Calls::default();
    let server = service_fn(async |_: Request<String>| {
        Ok::<_, std::io::Error>(response(if calls.next() <= failures { 503 } else { 200 }))
    });
    let mut client = ServiceBuilder::new().layer(JitterRetryLayer::new(policy)).service(server);
    let answer = send(&mut client, request(method)).await.unwrap();
    let mut decisions: Vec<_> = delays.try_iter().map(|delay| Decision::Retry { delay }).collect();
    decisions.push(match answer.extensions().get::<Retried>().and_then(|retried| retried.ended) {
        Some(reason) => Decision::GiveUp(reason),
        // A call that was not retried has no history.
        None if answer.status() == 503 => Decision::GiveUp(GiveUp::NotIdempotent),
        None => Decision::Done,
    });
    decisions
}

#[tokio::test(start_paused = true)]
async fn decisions_equal_those_of_layer() {
    let unavailable = classify_response(&response(503));
    let seeded = || RetryPolicy::builder().seed(7).max_attempts(6);
    let policies: [fn(RetryPolicyBuilder) -> RetryPolicyBuilder; 4] = [
        |policy| policy,
        // In whole milliseconds, which tokio's timers keep exactly.
        |policy| {
            policy
                .jitter(Jitter::None)
                .initial_backoff(10 * SECOND)
                .max_backoff(20 * SECOND)
                .max_elapsed(30 * SECOND)
        },
        |policy| policy.budget(Budget::tokens().initial(2).build().unwrap()),
        |policy| policy.initial_backoff(Duration::ZERO).budget(None),
    ];
    for (method, options) in
        [(Method::GET, CallOptions::new()), (Method::POST, CallOptions::new().idempotent(false))]
    {
        for failures in [0, 2, 9] {
            for settings in policies {
                let real = decisions_of_layer(settings(seeded()), method.clone(), failures).await;
                let outcomes = repeat_n(unavailable, failures).chain([Verdict::Success]);
                let policy = settings(seeded()).build().unwrap();
                assert_eq!(test_util::decisions(&policy, options, outcomes), real, "{failures} {method}");
            }
        }
    }
}

#[test]
fn decisions_end_with_outcomes_or_with_call() {
    let policy = immediate().max_attempts(2).build().unwrap();
    let retry = Decision::Retry { delay: Duration::ZERO };
    let decisions =
        |outcomes: &[Verdict]| test_util::decisions(&policy, CallOptions::new(), outcomes.iter().copied());
    let fault = Verdict::Fault(FAULT);
    assert_eq!(decisions(&[]), []);
    assert_eq!(decisions(&[fault]), [retry]);
    assert_eq!(decisions(&[fault, fault, fault]), [retry, Decision::GiveUp(GiveUp::Attempts)]);
    assert_eq!(decisions(&[Verdict::Success, fault]), [Decision::Done]);
}

/// Makes twenty calls with up to three retries each. Returns which retries the budget grants.
fn use_budget(budget: &Budget) -> Vec<bool> {
    let mut granted = Vec::new();
    for call in 0..20 {
        budget.deposit(&Verdict::Success);
        for _ in 0..call % 4 {
            let ticket = budget.withdraw(&FAULT);
            granted.push(ticket.is_some());
            match ticket {
                Some(ticket) if call % 2 == 0 => ticket.succeeded(),
                Some(ticket) => ticket.failed(&FAULT),
                None => {}
            }
        }
    }
    granted
}

#[tokio::test]
async fn counting_budget_decides_as_the_budget_in_it() {
    let tokens = || Budget::tokens().capacity(3).per_success(0.5).build().unwrap();
    let window = || Budget::window().ratio(0.5).min_per_second(0).build().unwrap();
    for (plain, counting) in [(tokens(), tokens()), (window(), window())] {
        let counting = CountingBudget::new(counting);
        let granted = use_budget(&plain);
        assert_eq!(use_budget(&counting.budget()), granted);
        let grants = granted.iter().filter(|granted| **granted).count();
        assert!(0 < grants && grants < granted.len());
        assert_eq!(counting.deposits(), 20);
        assert_eq!(counting.withdrawals(), grants as u64);
        assert_eq!(counting.refusals(), (granted.len() - grants) as u64);
        assert_eq!(counting.status(), plain.status());
    }
}

#[tokio::test]
async fn counting_budget_counts_calls_of_layer() {
    let counting = CountingBudget::new(Budget::tokens().initial(3).per_success(0.0).build().unwrap());
    let layer = layer(immediate().max_attempts(3).budget(counting.budget()));
    let server = service_fn(async |_: Request<String>| Ok::<_, std::io::Error>(response(503)));
    let mut client = ServiceBuilder::new().layer(layer).service(server);
    for (deposits, withdrawals, refusals) in [(1, 2, 0), (2, 3, 1), (3, 3, 2)] {
        send(&mut client, request(Method::GET)).await.unwrap();
        let counted = (counting.deposits(), counting.withdrawals(), counting.refusals());
        assert_eq!(counted, (deposits, withdrawals, refusals));
    }
    assert_eq!(counting.status().unwrap().tokens, Some(0.0));
}

#[tokio::test(start_paused = true)]
async fn retried_and_retry_event_equal_those_of_layer() {
    let calls = Calls::default();
    let (sender, events) = mpsc::channel();
    let policy = immediate().initial_backoff(SECOND).on_retry(move |event| sender.send(*event).unwrap());
    let server = service_fn(async |_: Request<String>| {
        Ok::<_, std::io::Error>(response(if calls.next() < 3 { 503 } else { 200 }))
    });
    let mut client = ServiceBuilder::new().layer(layer(policy)).service(server);
    let answer = send(&mut client, request(Method::GET)).await.unwrap();

    let mut real = *answer.extensions().get::<Retried>().unwrap();
    real.elapsed = Duration::ZERO;
    assert_eq!(test_util::retried(3), real);

    let first = events.recv().unwrap();
    let made = test_util::retry_event(1, first.fault, first.delay);
    assert_eq!(format!("{made:?}"), format!("{first:?}"));
}

/// An error of a user, around the error of a stack.
#[derive(Debug)]
struct Wrapped(ClassifiedError);

impl std::fmt::Display for Wrapped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the call failed")
    }
}

impl Error for Wrapped {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.0)
    }
}

#[test]
fn attach_retried_is_found_on_errors_with_verdict_only() {
    let reset = || std::io::Error::from(std::io::ErrorKind::ConnectionReset);
    let error = Wrapped(ClassifiedError::new(classify_error(&reset()), reset()));
    let mut retried = test_util::retried(2);
    retried.ended = Some(GiveUp::Budget);
    test_util::attach_retried(&error, retried);
    assert_eq!(Retried::of(&error), Some(retried));

    let panic = catch_unwind(|| test_util::attach_retried(&std::fmt::Error, retried)).unwrap_err();
    assert!(panic.downcast_ref::<String>().unwrap().contains("contains no `ClassifiedError`"));
}

#[tokio::test(start_paused = true)]
async fn clock_advance_lets_backoffs_pass_one_after_the_other() {
    let (_, time) = test_util::clock();
    let calls = Calls::default();
    let sent = calls.clone();
    let policy = immediate().initial_backoff(SECOND).jitter(Jitter::None).build().unwrap();
    let call = tokio::spawn(async move {
        let attempt = async || {
            sent.next();
            Err::<http::Response<()>, _>(std::io::Error::from(std::io::ErrorKind::ConnectionReset))
        };
        policy.retry(attempt).await
    });
    time.advance(Duration::ZERO).await;
    assert_eq!(calls.made(), 1);
    time.advance(SECOND).await;
    assert_eq!(calls.made(), 2);
    time.advance(2 * SECOND).await;
    assert_eq!(calls.made(), 3);
    assert!(call.is_finished());
    call.await.unwrap().unwrap_err();
}
