//! Retries of closures.

use std::error::Error;
use std::future::{Future, pending, ready};
use std::io::{self, ErrorKind};
use std::time::Duration;

use http::Response;
use tokio::time::Instant;
use tower::BoxError;
use tower_fault_classify::classifiers::NestedErrors;
use tower_jitter_retry::fault_classify::rules::StatusRules;
use tower_jitter_retry::fault_classify::{Fault, Health, Kind, Origin, Retryable, Verdict};
use tower_jitter_retry::{
    Budget, Clock, Deadline, Jitter, Retried, RetryPolicy, RetryPolicyBuilder, RetrySafety,
};

use crate::support::{Broken, Calls, block_on, immediate, response};

const UNAVAILABLE: Fault =
    Fault::new(Kind::Unavailable, Retryable::Unsent, Health::Unhealthy, Origin::Remote);

fn policy(builder: RetryPolicyBuilder) -> RetryPolicy {
    builder.build().unwrap()
}

#[test]
fn closure_is_called_until_success() {
    let calls = Calls::default();
    let policy = policy(immediate().max_attempts(9));
    let attempt = async || {
        let call = calls.next();
        if call < 5 { Err(Broken(call)) } else { Ok(call) }
    };
    assert_eq!(block_on(policy.retry(attempt)), Ok(5));
    let calls = Calls::default();
    let attempt = || {
        let call = calls.next();
        if call < 5 { Err(Broken(call)) } else { Ok(call) }
    };
    assert_eq!(policy.retry_blocking(attempt), Ok(5));
}

#[test]
fn closure_of_any_kind_runs_only_when_polled() {
    struct Worker(Calls);
    impl Worker {
        async fn once(&self) -> io::Result<usize> {
            ready(Ok(self.0.next())).await
        }
    }
    async fn free() -> io::Result<u32> {
        ready(Ok(7)).await
    }
    fn is_send<T: Send>(value: T) -> T {
        value
    }

    let (policy, worker) = (policy(immediate()), Worker(Calls::default()));
    drop(policy.retry(|| worker.once()));
    assert_eq!(worker.0.made(), 0);
    assert_eq!(block_on(policy.retry(|| worker.once())).unwrap(), 1);
    assert_eq!(block_on(policy.retry(free)).unwrap(), 7);
    assert_eq!(block_on(is_send(policy.retry(|| async { free().await }))).unwrap(), 7);
    let mut made = 0;
    let counted = policy.retry(|| {
        made += 1;
        ready(Ok::<_, io::Error>(made))
    });
    assert_eq!(block_on(counted).unwrap(), 1);
    assert_eq!(
        block_on(policy.retry(|| ready(Err::<(), BoxError>("no".into())))).unwrap_err().to_string(),
        "no"
    );
}

#[test]
fn closure_response_is_classified_like_in_layer() {
    let calls = Calls::default();
    let policy = policy(immediate());
    let answer = block_on(policy.retry(async || {
        calls.next();
        Ok::<_, io::Error>(response(503))
    }))
    .unwrap();
    assert_eq!((answer.status().as_u16(), calls.made()), (503, 3));
    assert_eq!(answer.extensions().get::<Retried>().unwrap().attempts, 3);
    let answer = policy.retry_blocking(|| Ok::<_, io::Error>(response(404))).unwrap();
    assert_eq!(answer.extensions().get::<Retried>(), None, "a 404 is not retried");
}

#[test]
fn closure_returns_any_type_with_errors_only_or_classifier() {
    struct Opaque;
    let calls = Calls::default();
    let policy = policy(immediate());
    block_on(policy.errors_only().retry(async || {
        calls.next();
        Ok::<_, io::Error>(Opaque)
    }))
    .unwrap();
    assert_eq!(calls.made(), 1);
    policy.errors_only().retry_blocking(|| Ok::<_, io::Error>(Opaque)).unwrap();

    let classifier = |outcome: Result<&u32, &Broken>| {
        if outcome.is_ok_and(|row| *row < 3) { Verdict::Fault(UNAVAILABLE) } else { Verdict::Success }
    };
    let mut row = 0;
    let next = || {
        row += 1;
        Ok::<_, Broken>(row)
    };
    assert_eq!(policy.classify(classifier).retry_blocking(next), Ok(3));

    let rule =
        |outcome: Result<&u32, &io::Error>| (outcome.is_ok_and(|row| *row < 2)).then_some(UNAVAILABLE.into());
    let mut row = 0;
    let next = || {
        row += 1;
        Ok::<_, io::Error>(row)
    };
    assert_eq!(policy.errors_only().rule(rule).retry_blocking(next).unwrap(), 2);
}

#[test]
fn closure_with_safety_never_is_called_once() {
    for (safety, kind, expected) in [
        (RetrySafety::Never, ErrorKind::TimedOut, 1),
        (RetrySafety::Never, ErrorKind::ConnectionRefused, 1),
        (RetrySafety::ByRequest, ErrorKind::TimedOut, 3),
        (RetrySafety::ByRequest, ErrorKind::PermissionDenied, 1),
    ] {
        let policy = policy(immediate().safety(safety));
        let calls = Calls::default();
        let error = policy
            .retry_blocking(|| {
                calls.next();
                Err::<(), _>(io::Error::from(kind))
            })
            .unwrap_err();
        assert_eq!((calls.made(), error.kind()), (expected, kind));
    }
}

#[test]
fn closures_share_the_budget() {
    let budget = Budget::window().ratio(0.1).min_per_second(0).clock(Clock::manual().0).build().unwrap();
    let policy = policy(immediate().budget(budget));
    let calls = Calls::default();
    for call in 0..1_000 {
        let attempt = || {
            calls.next();
            Err::<(), _>(Broken(0))
        };
        let failed: Result<(), Broken> = if call % 2 == 0 {
            policy.retry_blocking(attempt)
        } else {
            block_on(policy.retry(|| ready(attempt())))
        };
        failed.unwrap_err();
    }
    assert_eq!(calls.made(), 1_100);
}

#[tokio::test(start_paused = true)]
async fn closure_delays_and_limits_are_those_of_the_layer() {
    let base = Duration::from_secs(1);
    let policy = policy(
        RetryPolicy::builder()
            .budget(None::<Budget>)
            .clock(Clock::tokio())
            .jitter(Jitter::None)
            .initial_backoff(base),
    );
    let (before, calls) = (Instant::now(), Calls::default());
    let attempt = async || {
        calls.next();
        Err::<(), _>(Broken(0))
    };
    policy.retry(attempt).await.unwrap_err();
    assert_eq!((calls.made(), before.elapsed()), (3, 3 * base));
    let hinted = || {
        let response = Response::builder().status(503).header("retry-after", "7").body(()).unwrap();
        ready(Ok::<_, io::Error>(response))
    };
    let before = Instant::now();
    policy.retry(hinted).await.unwrap();
    assert_eq!(before.elapsed(), 14 * base);
}

#[tokio::test(start_paused = true)]
async fn closure_future_dropped_drops_attempt_and_delay() {
    let calls = Calls::default();
    let policy = policy(RetryPolicy::builder().jitter(Jitter::None));
    let mut sleeping = tokio_test::task::spawn(policy.retry(async || {
        calls.next();
        Err::<(), _>(Broken(0))
    }));
    tokio_test::assert_pending!(sleeping.poll());
    drop(sleeping);
    tokio::time::advance(Duration::from_secs(60)).await;
    tokio::task::yield_now().await;
    assert_eq!(calls.made(), 1);

    let token = std::sync::Arc::new(());
    let mut hung = tokio_test::task::spawn(policy.retry(|| {
        let held = std::sync::Arc::clone(&token);
        async move {
            let hung = pending::<Result<(), Broken>>().await;
            drop(held);
            hung
        }
    }));
    tokio_test::assert_pending!(hung.poll());
    assert_eq!(std::sync::Arc::strong_count(&token), 2);
    drop(hung);
    assert_eq!(std::sync::Arc::strong_count(&token), 1);
}

#[tokio::test]
async fn closure_future_can_be_spawned() {
    async fn query(id: &str) -> Result<usize, Box<dyn Error + Send + Sync>> {
        ready(Ok(id.len())).await
    }
    fn spawn<F: Future<Output: Send> + Send + 'static>(future: F) -> tokio::task::JoinHandle<F::Output> {
        tokio::spawn(future)
    }
    let policy = RetryPolicy::default();
    let task = spawn(async move {
        let id = "forty-two".to_owned();
        policy.retry(|| query(&id)).await
    });
    assert_eq!(task.await.unwrap().unwrap(), 9);
}

/// A query under a timeout: the query's own error is nested in the result of the timeout.
#[test]
fn closure_nested_result_is_retried_by_inner_error() {
    type Nested<T> = Result<Result<T, io::Error>, io::Error>;
    struct Row;

    let (policy, calls) = (policy(immediate().max_attempts(3)), Calls::default());
    let refused = || io::Error::from(ErrorKind::ConnectionRefused);
    let fails = || {
        calls.next();
        Nested::<u32>::Ok(Err(refused()))
    };
    assert!(block_on(policy.retry(async || fails())).unwrap().is_err());
    assert_eq!(calls.made(), 3);
    assert!(policy.retry_blocking(fails).unwrap().is_err());
    assert_eq!(calls.made(), 6);

    // A value without an `Outcome`.
    let fails = || {
        calls.next();
        Nested::<Row>::Ok(Err(refused()))
    };
    let nested = policy.classify(NestedErrors::new());
    assert!(block_on(nested.retry(async || fails())).unwrap().is_err());
    assert!(nested.retry_blocking(fails).unwrap().is_err());
    assert_eq!(calls.made(), 12);
}

/// One second between attempts, without another limit.
fn every_second() -> RetryPolicy {
    let policy = RetryPolicy::builder().budget(None::<Budget>).clock(Clock::tokio()).jitter(Jitter::None);
    let policy = policy.initial_backoff(Duration::from_secs(1)).backoff_multiplier(1.0);
    policy.max_attempts(1_000).max_elapsed(None::<Duration>).build().unwrap()
}

#[tokio::test(start_paused = true)]
async fn closure_deadline_counts_from_first_poll_of_each_call() {
    let (second, calls) = (Duration::from_secs(1), Calls::default());
    let retrier = every_second().deadline(Deadline::within(Duration::from_millis(3_500)));
    for expected in [4, 8] {
        let call = retrier.retry(async || {
            calls.next();
            Err::<(), _>(Broken(0))
        });
        tokio::time::sleep(60 * second).await;
        let began = Instant::now();
        call.await.unwrap_err();
        assert_eq!((calls.made(), began.elapsed()), (expected, 3 * second));
    }
}

#[tokio::test(start_paused = true)]
async fn closure_deadline_at_a_moment_is_shared_by_calls() {
    let calls = Calls::default();
    let moment = (Instant::now() + Duration::from_millis(2_500)).into_std();
    let retrier = every_second().errors_only().deadline(Deadline::at(moment));
    for expected in [3, 4] {
        let attempt = async || {
            calls.next();
            Err::<(), _>(Broken(0))
        };
        retrier.retry(attempt).await.unwrap_err();
        assert_eq!(calls.made(), expected, "after the moment, a call makes one attempt");
    }
}

#[tokio::test(start_paused = true)]
async fn closure_attempt_limited_to_remaining_time_ends_at_deadline() {
    let (second, calls) = (Duration::from_secs(1), Calls::default());
    let began = Instant::now();
    let deadline = Deadline::at((began + 5 * second).into_std());
    let attempt = async || {
        calls.next();
        let limit = (2 * second).min(deadline.remaining());
        tokio::time::timeout(limit, pending::<io::Result<()>>()).await?
    };
    let error = every_second().deadline(deadline).retry(attempt).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert_eq!((calls.made(), began.elapsed()), (2, 5 * second), "the second attempt had 2 s of 2 s");
    assert_eq!(deadline.remaining(), Duration::ZERO);
}

#[test]
fn blocking_closure_deadline_limits_attempts() {
    let (clock, time) = Clock::manual();
    let policy = policy(immediate().max_attempts(1_000).max_elapsed(None::<Duration>).clock(clock));
    let retrier = policy.deadline(Deadline::within(Duration::from_secs(10)));
    let calls = Calls::default();
    for expected in [4, 8] {
        let attempt = || {
            calls.next();
            time.advance(Duration::from_secs(3));
            Err::<(), _>(Broken(0))
        };
        retrier.retry_blocking(attempt).unwrap_err();
        assert_eq!(calls.made(), expected, "each call has the whole time");
    }
}

#[test]
fn closure_that_is_not_idempotent_is_repeated_only_if_unsent_or_refused() {
    for (kind, expected) in [(ErrorKind::ConnectionRefused, 3), (ErrorKind::TimedOut, 1)] {
        let calls = Calls::default();
        let retrier = policy(immediate()).idempotent(false);
        let attempt = || {
            calls.next();
            Err::<(), _>(io::Error::from(kind))
        };
        retrier.retry_blocking(attempt).unwrap_err();
        assert_eq!(calls.made(), expected, "{kind}");
        block_on(retrier.retry(|| ready(attempt()))).unwrap_err();
        assert_eq!(calls.made(), 2 * expected, "{kind}");
    }
}

#[test]
fn closure_rule_is_checked_before_status() {
    let calls = Calls::default();
    let retrier = policy(immediate()).rule(StatusRules::new().status(503, Verdict::Success));
    let attempt = |status: u16| {
        calls.next();
        Ok::<_, io::Error>(response(status))
    };
    retrier.retry_blocking(|| attempt(503)).unwrap();
    assert_eq!(calls.made(), 1);
    retrier.idempotent(true).retry_blocking(|| attempt(502)).unwrap();
    assert_eq!(calls.made(), 4);
}
