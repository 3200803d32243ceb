//! What makes no sense is an error of `build()`, or does what is documented; the caller always gets the last real outcome.

mod support;

use std::io;
use std::sync::Mutex;
use std::time::Duration;

use http::{Method, Request, Response};
use tokio::time::Instant;
use tower::{Layer, service_fn};
use tower_fault_classify::Judged;
use tower_jitter_retry::{
    Attempt, Budget, Clock, Fault, Health, Jitter, JitterRetryLayer, Kind, Origin, RequestInfo, RetryPolicy,
    RetryPolicyBuilder, RetryRequest, Retryable,
};

use support::{Broken, Calls, at_once, now, request, send};

const SECOND: Duration = Duration::from_secs(1);
const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 3_600);

fn refused(builder: RetryPolicyBuilder) -> String {
    builder.build().unwrap_err().to_string()
}

#[test]
fn a_policy_that_cannot_be_names_field_value_and_range() {
    let policy = RetryPolicy::builder;
    for (builder, says) in [
        (policy().max_attempts(0), "`max_attempts` is 0; allowed is 1 to 1000"),
        (policy().factor(0.5), "`factor` is 0.5; allowed is 1.0 to 1000.0"),
        (policy().factor(f64::NAN), "`factor` is NaN; allowed is 1.0 to 1000.0"),
        (policy().factor(f64::INFINITY), "`factor` is inf; allowed is 1.0 to 1000.0"),
        (policy().base(11 * SECOND), "`base` is 11s; allowed is 0ns to 10s"),
        (policy().base(SECOND).cap(SECOND / 2), "`base` is 1s; allowed is 0ns to 500ms"),
        (policy().jitter(Jitter::Proportional(f64::NAN)), "`jitter` is NaN; allowed is 0.0 to 1.0"),
        (policy().cap(CENTURY), "`cap` is 3153600000s; allowed is 0ns to 31536000s"),
        (
            policy().replay_limit(usize::MAX),
            "`replay_limit` is 18446744073709551615; allowed is 0 to 1073741824",
        ),
    ] {
        assert_eq!(refused(builder), says);
    }
}

#[test]
fn a_ratio_of_nothing_and_of_a_thousand_are_budgets() {
    for (ratio, expected) in [(0.0, 0), (1_000.0, 999)] {
        let budget =
            Budget::builder().ratio(ratio).min_per_second(0).clock(Clock::manual().0).build().unwrap();
        let calls = Calls::default();
        let policy = at_once().max_attempts(1_000).budget(budget).build().unwrap();
        let error = policy.retry_blocking(|| Err::<(), _>(Broken(calls.next()))).unwrap_err();
        assert_eq!((calls.made(), error), (1 + expected, Broken(1 + expected)));
    }
    for ratio in [-0.1, 1_000.1, f64::NAN] {
        assert_eq!(Budget::builder().ratio(ratio).build().unwrap_err().field(), "ratio");
    }
}

/// How often a request is sent to a server that always says this, and after which pauses.
async fn pauses(name: &'static str, value: &str) -> Vec<Duration> {
    let policy = RetryPolicy::builder().budget(None::<Budget>).clock(Clock::tokio()).jitter(Jitter::None);
    let sent = Mutex::new(Vec::new());
    let mut service =
        JitterRetryLayer::new(policy.build().unwrap()).layer(service_fn(|_: Request<String>| {
            sent.lock().unwrap().push(Instant::now());
            let answer = Response::builder().status(503).header(name, value).body("real").unwrap();
            async { Ok::<_, io::Error>(answer) }
        }));
    let answer = send(&mut service, request(Method::GET)).await.unwrap();
    assert_eq!(
        (answer.status().as_u16(), *answer.body(), answer.headers()[name].to_str().unwrap()),
        (503, "real", value)
    );
    let sent = sent.into_inner().unwrap();
    sent.windows(2).map(|pair| pair[1] - pair[0]).collect()
}

#[tokio::test(start_paused = true)]
async fn hints_of_nothing_of_a_century_garbled_and_negative() {
    let own = [SECOND / 10, SECOND / 5];
    for (name, value) in [
        ("retry-after", "0"),
        ("retry-after", "-1"),
        ("retry-after", "soon"),
        ("retry-after", "NaN"),
        ("retry-after-ms", "0"),
        ("retry-after-ms", "-5"),
        ("retry-after-ms", "1e9"),
        ("x-should-retry", "perhaps"),
    ] {
        assert_eq!(pauses(name, value).await, own, "{name}: {value}: the backoff's own");
    }
    for (name, value) in [
        ("retry-after", "3153600000"),
        ("retry-after", "99999999999999999999999999"),
        ("retry-after", "Fri, 31 Dec 9999 23:59:59 GMT"),
        ("retry-after-ms", "3153600000000"),
        ("x-should-retry", "false"),
    ] {
        assert_eq!(pauses(name, value).await, [], "{name}: {value}: nobody waits for that");
    }
}

/// One whose second clone fails; `reqwest`'s `try_clone` is such a thing.
#[derive(Debug)]
struct Fickle;

impl RequestInfo for Fickle {}

impl RetryRequest for Fickle {
    type Saved = ();

    fn save(self, _: usize) -> (Self, Option<()>) {
        (self, Some(()))
    }

    fn again((): (), _: Attempt, _: bool) -> Option<(Self, Option<()>)> {
        None
    }
}

#[test]
fn a_clone_that_fails_leaves_the_last_outcome() {
    let calls = Calls::default();
    let budget = Budget::aws().build().unwrap();
    let policy = at_once().budget(budget).build().unwrap();
    let mut service = JitterRetryLayer::new(policy).layer(service_fn(|_: Fickle| {
        let call = calls.next();
        async move { Err::<(), _>(Broken(call)) }
    }));
    assert_eq!(now(send(&mut service, Fickle)), Err(Broken(1)));
}

#[tokio::test(start_paused = true)]
async fn a_fault_of_ones_own_with_an_absurd_delay_does_no_harm() {
    let fault = Fault::new(Kind::Unavailable, Retryable::Unsent, Health::Failure, Origin::Remote);
    for delay in [Duration::MAX, CENTURY] {
        let calls = Calls::default();
        let policy = RetryPolicy::builder().clock(Clock::tokio()).max_elapsed(None).build().unwrap();
        let error = policy
            .retry(async || {
                calls.next();
                Err::<(), _>(Judged::bare(fault.with_retry_after(delay)))
            })
            .await
            .unwrap_err();
        assert_eq!((calls.made(), error.fault().retry_after()), (1, Some(delay)));
    }
}
