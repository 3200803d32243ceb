//! The caller gets the outcome of the last attempt that was sent, and no attempt is sent too late.

use std::future::{Future, Ready, poll_fn, ready};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::Full;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_test::assert_pending;
use tower::limit::ConcurrencyLimit;
use tower::{Layer, Service, service_fn};
use tower_breaker::{BreakerConfig, BreakerLayer};
use tower_fault_classify::ClassifiedError;
use tower_jitter_retry::fault_classify::{Fault, Health, Kind, Origin, Retryable};
use tower_jitter_retry::{
    Budget, Clock, Deadline, GiveUp, Jitter, JitterRetryLayer, ManualClock, Retried, RetryPolicy,
    RetryPolicyBuilder,
};

use crate::support::{Calls, block_on, immediate, request, response, send};

const SECOND: Duration = Duration::from_secs(1);

/// One second before each retry.
fn policy() -> RetryPolicyBuilder {
    RetryPolicy::builder()
        .budget(None::<Budget>)
        .jitter(Jitter::None)
        .initial_backoff(SECOND)
        .backoff_multiplier(1.0)
        .max_attempts(9)
}

/// Responds to the first request with 503 immediately, and to every later request with 200 after
/// 20 s.
fn slow_after_first(
    calls: &Calls,
) -> impl Service<Request<String>, Response = Response<String>, Error = io::Error, Future: Send> + Clone + use<>
{
    let calls = calls.clone();
    service_fn(move |_: Request<String>| {
        let call = calls.next();
        async move {
            if call == 1 {
                return Ok(response(503));
            }
            tokio::time::sleep(20 * SECOND).await;
            Ok(response(200))
        }
    })
}

/// Sends a request whose retry finds the only permit of a concurrency limit taken by another call
/// for 20 s. Returns the response, the time that it took, and how many requests were sent until
/// then.
async fn retry_without_permit(
    policy: RetryPolicyBuilder,
    request: Request<String>,
) -> (Response<String>, Duration, usize) {
    let calls = Calls::default();
    let limited = ConcurrencyLimit::new(slow_after_first(&calls), 1);
    let mut service = JitterRetryLayer::new(policy.build().unwrap()).layer(limited.clone());
    let mut other = limited;
    let before = Instant::now();
    let call = send(&mut service, request);
    tokio::pin!(call);
    tokio::select! {
        biased;
        _ = &mut call => panic!("the retry has a delay of one second"),
        () = tokio::time::sleep(SECOND / 2) => {}
    }
    let other = tokio::spawn(async move { send(&mut other, crate::support::request(Method::GET)).await });
    let answer = call.await.unwrap();
    let (took, sent) = (before.elapsed(), calls.made());
    other.abort();
    (answer, took, sent)
}

/// Returns the number of attempts, and the reason why no other attempt followed.
fn attempts_and_end(answer: &Response<String>) -> (u32, Option<GiveUp>) {
    let retried = answer.extensions().get::<Retried>().expect("a retry was planned");
    (retried.attempts, retried.ended)
}

fn with_deadline(within: Duration) -> Request<String> {
    let mut request = request(Method::GET);
    request.extensions_mut().insert(Deadline::within(within));
    request
}

fn with_grpc_timeout(timeout: &str) -> Request<String> {
    let mut request = request(Method::GET);
    request.headers_mut().insert("grpc-timeout", timeout.parse().unwrap());
    request
}

#[tokio::test(start_paused = true)]
async fn readiness_wait_ends_at_deadline_with_last_response() {
    for request in [with_deadline(3 * SECOND), with_grpc_timeout("3S")] {
        let (answer, took, sent) = retry_without_permit(policy(), request).await;
        assert_eq!((answer.status().as_u16(), took, sent), (503, 3 * SECOND, 2));
        assert_eq!(attempts_and_end(&answer), (1, Some(GiveUp::Deadline)));
    }
}

#[tokio::test(start_paused = true)]
async fn readiness_wait_ends_at_max_elapsed_with_last_response() {
    let policy = policy().max_elapsed(5 * SECOND);
    let (answer, took, sent) = retry_without_permit(policy, request(Method::GET)).await;
    assert_eq!((answer.status().as_u16(), took, sent), (503, 5 * SECOND, 2));
    assert_eq!(attempts_and_end(&answer), (1, Some(GiveUp::MaxElapsed)));
}

/// Responds with 503. After its first request, it advances its clock at each poll for readiness,
/// and is then ready.
struct SlowReadiness {
    manual: ManualClock,
    by: Duration,
    sent: Calls,
    reserved: Option<Arc<()>>,
    reservations: Weak<()>,
}

impl SlowReadiness {
    /// Returns the service, and the counter of its reservations, which includes the counter itself.
    fn new(manual: ManualClock, by: Duration) -> (Self, Arc<()>) {
        let reservations = Arc::new(());
        let service = Self {
            manual,
            by,
            sent: Calls::default(),
            reserved: None,
            reservations: Arc::downgrade(&reservations),
        };
        (service, reservations)
    }
}

impl Clone for SlowReadiness {
    fn clone(&self) -> Self {
        let Self { manual, by, sent, reservations, .. } = self;
        Self {
            manual: manual.clone(),
            by: *by,
            sent: sent.clone(),
            reserved: None,
            reservations: reservations.clone(),
        }
    }
}

impl Service<Request<String>> for SlowReadiness {
    type Response = Response<String>;
    type Error = io::Error;
    type Future = Ready<io::Result<Response<String>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.sent.made() > 0 {
            self.manual.advance(self.by);
        }
        self.reserved = self.reservations.upgrade();
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<String>) -> Self::Future {
        self.reserved = None;
        self.sent.next();
        ready(Ok(response(503)))
    }
}

#[test]
fn readiness_granted_after_deadline_sends_nothing() {
    let policy = |clock| immediate().clock(clock).max_elapsed(5 * SECOND).max_attempts(9).build().unwrap();
    for (by, request, sent, ended) in [
        (SECOND, request(Method::GET), 6, GiveUp::MaxElapsed),
        (6 * SECOND, request(Method::GET), 1, GiveUp::MaxElapsed),
        (5 * SECOND, request(Method::GET), 2, GiveUp::MaxElapsed),
        (SECOND, with_deadline(SECOND), 1, GiveUp::Deadline),
        (SECOND, with_grpc_timeout("1S"), 1, GiveUp::Deadline),
    ] {
        let (clock, manual) = Clock::manual();
        let (inner, reservations) = SlowReadiness::new(manual, by);
        let calls = inner.sent.clone();
        let mut service = JitterRetryLayer::new(policy(clock)).layer(inner);
        block_on(poll_fn(|cx| service.poll_ready(cx))).unwrap();
        let mut call = tokio_test::task::spawn(service.call(request));
        let Poll::Ready(Ok(answer)) = call.poll() else { panic!("the call is pending") };
        assert_eq!((answer.status().as_u16(), calls.made()), (503, sent), "{by:?}");
        assert_eq!(attempts_and_end(&answer), (u32::try_from(sent).unwrap(), Some(ended)));
        assert_eq!(Arc::strong_count(&reservations), 1, "the future exists, but holds no reservation");
    }
}

#[test]
fn grpc_timeout_of_1n_leaves_the_first_attempt() {
    let (clock, manual) = Clock::manual();
    let (inner, _) = SlowReadiness::new(manual, Duration::ZERO);
    let calls = inner.sent.clone();
    let mut service = JitterRetryLayer::new(immediate().clock(clock).build().unwrap()).layer(inner);
    let answer = block_on(send(&mut service, with_grpc_timeout("1n"))).unwrap();
    assert_eq!((answer.status().as_u16(), calls.made()), (503, 1));
}

#[tokio::test(start_paused = true)]
async fn queued_permit_is_released_when_time_is_over() {
    let calls = Calls::default();
    let limited = ConcurrencyLimit::new(slow_after_first(&calls), 1);
    let mut service = JitterRetryLayer::new(policy().build().unwrap()).layer(limited.clone());
    poll_fn(|cx| service.poll_ready(cx)).await.unwrap();
    let call = service.call(with_deadline(3 * SECOND));
    tokio::pin!(call);
    let mut first_in_queue = limited.clone();
    let holder = async {
        tokio::time::sleep(SECOND / 2).await;
        send(&mut first_in_queue, request(Method::GET)).await
    };
    let (answer, holds) = tokio::join!(&mut call, holder);
    assert_eq!((answer.unwrap().status().as_u16(), holds.unwrap().status().as_u16()), (503, 200));
    // The future still exists, and queued for the permit before this request.
    let mut next = limited;
    let answer = tokio::time::timeout(60 * SECOND, send(&mut next, request(Method::GET))).await;
    assert_eq!(answer.expect("the permit is free").unwrap().status(), 200);
}

#[test]
fn readiness_wait_without_limit_needs_no_timer() {
    let (calls, policy) = (Calls::default(), immediate().max_elapsed(None::<Duration>).build().unwrap());
    let limited = ConcurrencyLimit::new(
        service_fn(|_: Request<String>| {
            let call = calls.next();
            async move {
                tokio::task::yield_now().await;
                Ok::<_, io::Error>(response(if call == 1 { 503 } else { 200 }))
            }
        }),
        1,
    );
    let mut service = JitterRetryLayer::new(policy).layer(limited.clone());
    let mut other = limited;
    let both = async {
        tokio::join!(send(&mut service, request(Method::GET)), send(&mut other, request(Method::GET)))
    };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let (answer, other) = runtime.block_on(both);
    assert_eq!((answer.unwrap().status().as_u16(), other.unwrap().status().as_u16()), (200, 200));
    assert_eq!(calls.made(), 3);
}

/// During the delay, the clock advances far beyond the limits, as if the machine had been
/// suspended.
#[tokio::test(start_paused = true)]
async fn delay_that_ends_too_late_sends_nothing() {
    let policy = |clock| policy().clock(clock).max_elapsed(5 * SECOND).build().unwrap();
    let oversleep = |manual: ManualClock| async move {
        tokio::time::sleep(SECOND / 2).await;
        manual.advance(6 * SECOND);
    };

    let (clock, manual) = Clock::manual();
    let (inner, _) = SlowReadiness::new(manual.clone(), Duration::ZERO);
    let calls = inner.sent.clone();
    let mut service = JitterRetryLayer::new(policy(clock)).layer(inner);
    let (answer, ()) = tokio::join!(send(&mut service, request(Method::GET)), oversleep(manual));
    assert_eq!(attempts_and_end(&answer.unwrap()), (1, Some(GiveUp::MaxElapsed)));
    assert_eq!(calls.made(), 1);

    let (clock, manual) = Clock::manual();
    let (policy, calls) = (policy(clock), Calls::default());
    let attempt = async || {
        calls.next();
        Ok::<_, io::Error>(response(503))
    };
    let (answer, ()) = tokio::join!(policy.retry(attempt), oversleep(manual));
    assert_eq!(attempts_and_end(&answer.unwrap()), (1, Some(GiveUp::MaxElapsed)));
    assert_eq!(calls.made(), 1);
}

const OPEN: Fault = Fault::new(Kind::Rejected, Retryable::Never, Health::Neutral, Origin::Local);
const SHED: Fault = OPEN.with_retryable(Retryable::Unsent);
const DOWN: Fault = Fault::new(Kind::Unavailable, Retryable::IfIdempotent, Health::Unhealthy, Origin::Remote);
const HUNG: Fault = DOWN.with_kind(Kind::Timeout).with_origin(Origin::Transport);

/// The scripted result of an attempt.
#[derive(Clone, Copy, Debug)]
enum Step {
    Answers(u16),
    Fails(Fault),
    /// Is pending at its first poll, and fails at its second.
    FailsLate(Fault),
    /// The attempt is not sent, because the service does not become ready.
    NotReady,
}

use Step::{Answers, Fails, FailsLate, NotReady};

impl Step {
    async fn run(self) -> Result<Response<String>, ClassifiedError> {
        match self {
            Answers(status) => Ok(response(status)),
            Fails(fault) => Err(ClassifiedError::from_fault(fault)),
            FailsLate(fault) => {
                tokio::task::yield_now().await;
                Err(ClassifiedError::from_fault(fault))
            }
            NotReady => unreachable!("the attempt is not sent"),
        }
    }
}

/// A service that follows a script with one step per attempt.
#[derive(Clone)]
struct Script {
    steps: &'static [Step],
    calls: Calls,
}

impl Service<Request<String>> for Script {
    type Response = Response<String>;
    type Error = ClassifiedError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<String>, ClassifiedError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ClassifiedError>> {
        match self.steps.get(self.calls.made()) {
            Some(NotReady) => Poll::Ready(Err(ClassifiedError::from_fault(DOWN.with_kind(Kind::Local)))),
            _ => Poll::Ready(Ok(())),
        }
    }

    fn call(&mut self, _: Request<String>) -> Self::Future {
        Box::pin(self.steps[self.calls.next() - 1].run())
    }
}

/// The status or the fault that a caller gets, the number of attempts, the reason for their end,
/// and the fault of the last attempt that was sent.
type Seen = (Result<u16, Fault>, u32, Option<GiveUp>, Option<Fault>);

fn seen(result: Result<Response<String>, ClassifiedError>) -> Seen {
    let retried = match &result {
        Ok(answer) => answer.extensions().get().copied(),
        Err(error) => Retried::of(error),
    };
    let Retried { attempts, ended, last_sent, .. } = retried.expect("the call was retried");
    (result.map(|answer| answer.status().as_u16()).map_err(|error| error.fault()), attempts, ended, last_sent)
}

const SCRIPTS: &[(&[Step], Seen)] = {
    use GiveUp::{Attempts, Rejected};
    const DOWN_AGAIN: Option<Fault> = Some(DOWN);
    &[
        (&[Answers(502), Fails(OPEN)], (Ok(502), 2, Some(Rejected), DOWN_AGAIN)),
        (&[Answers(502), Fails(SHED), Fails(OPEN)], (Ok(502), 3, Some(Rejected), DOWN_AGAIN)),
        (&[Answers(502), Fails(SHED), Fails(SHED)], (Ok(502), 3, Some(Attempts), DOWN_AGAIN)),
        (&[Answers(502), Fails(SHED), Answers(200)], (Ok(200), 3, None, None)),
        (&[Answers(502), Answers(503), Fails(OPEN)], (Ok(503), 3, Some(Rejected), DOWN_AGAIN)),
        (&[Fails(SHED), Answers(502), Fails(OPEN)], (Ok(502), 3, Some(Rejected), DOWN_AGAIN)),
        (&[Fails(HUNG), Fails(OPEN)], (Err(HUNG), 2, Some(Rejected), Some(HUNG))),
        (&[Fails(HUNG), Answers(502), Fails(HUNG)], (Err(HUNG), 3, Some(Attempts), Some(HUNG))),
        // No attempt was sent, so the caller gets the latest rejection.
        (&[Fails(SHED), Fails(OPEN)], (Err(OPEN), 2, Some(Rejected), None)),
        // The last response was dropped while the attempt was pending.
        (&[Answers(502), FailsLate(OPEN)], (Err(OPEN), 2, Some(Rejected), DOWN_AGAIN)),
        (&[Fails(HUNG), FailsLate(SHED), Fails(OPEN)], (Err(OPEN), 3, Some(Rejected), Some(HUNG))),
        (&[FailsLate(HUNG), Answers(502), Fails(OPEN)], (Ok(502), 3, Some(Rejected), DOWN_AGAIN)),
    ]
};

#[tokio::test]
async fn retry_rejected_below_returns_last_sent_outcome() {
    for (steps, expected) in SCRIPTS {
        let inner = Script { steps, calls: Calls::default() };
        let calls = inner.calls.clone();
        let mut service = JitterRetryLayer::new(immediate().build().unwrap()).layer(inner);
        let result = send(&mut service, request(Method::GET)).await;
        assert_eq!((seen(result), calls.made()), (*expected, steps.len()), "{steps:?}");
    }
}

#[tokio::test]
async fn closure_rejected_returns_last_sent_outcome() {
    for (steps, expected) in SCRIPTS {
        let mut steps = steps.iter();
        let policy = immediate().build().unwrap();
        let result = policy.retry(|| steps.next().expect("no further attempt").run()).await;
        assert_eq!((seen(result), steps.next().is_none()), (*expected, true));
    }
}

#[test]
fn blocking_closure_rejected_returns_last_sent_error() {
    use GiveUp::Rejected;
    let tests: [(&[Step], Seen); 3] = [
        (&[Fails(HUNG), Fails(SHED), Fails(OPEN)], (Err(HUNG), 3, Some(Rejected), Some(HUNG))),
        (&[Fails(SHED), Fails(OPEN)], (Err(OPEN), 2, Some(Rejected), None)),
        // The failed response is dropped before the next attempt.
        (&[Answers(502), Fails(OPEN)], (Err(OPEN), 2, Some(Rejected), Some(DOWN))),
    ];
    for (steps, expected) in tests {
        let mut steps = steps.iter();
        let policy = immediate().build().unwrap();
        let result = policy.retry_blocking(|| block_on(steps.next().expect("no further attempt").run()));
        assert_eq!(seen(result), expected);
    }
}

/// tower drops each result before the next attempt.
#[cfg(feature = "tower-retry")]
#[tokio::test]
async fn rejection_under_tower_policy_reports_last_sent_fault() {
    let inner = Script { steps: &[Answers(502), Fails(OPEN)], calls: Calls::default() };
    let policy = immediate().build().unwrap().for_tower();
    let mut service = tower::retry::RetryLayer::new(policy).layer(inner);
    let result = send(&mut service, request(Method::GET)).await;
    assert_eq!(seen(result), (Err(OPEN), 2, Some(GiveUp::Rejected), Some(DOWN)));
}

#[tokio::test]
async fn readiness_error_returns_last_sent_outcome() {
    use GiveUp::NotReady as Unready;
    let tests: [(&'static [Step], Seen); 3] = [
        (&[Answers(502), NotReady], (Ok(502), 1, Some(Unready), Some(DOWN))),
        (&[Answers(502), Fails(SHED), NotReady], (Ok(502), 2, Some(Unready), Some(DOWN))),
        (&[Fails(SHED), NotReady], (Err(DOWN.with_kind(Kind::Local)), 1, Some(Unready), None)),
    ];
    for (steps, expected) in tests {
        let inner = Script { steps, calls: Calls::default() };
        let mut service = JitterRetryLayer::new(immediate().build().unwrap()).layer(inner);
        assert_eq!(seen(send(&mut service, request(Method::GET)).await), expected, "{steps:?}");
    }
}

#[tokio::test]
async fn rejected_retry_of_post_returns_429() {
    let inner = Script { steps: &[Answers(429), Fails(OPEN)], calls: Calls::default() };
    let mut service = JitterRetryLayer::new(immediate().build().unwrap()).layer(inner);
    assert_eq!(send(&mut service, request(Method::POST)).await.unwrap().status(), 429);
}

/// Returns a response whose body is `body`, to observe or hold a resource.
fn holding<T>(status: u16, body: T) -> Response<T> {
    Response::builder().status(status).body(body).unwrap()
}

#[tokio::test(start_paused = true)]
async fn last_response_is_kept_until_next_attempt_is_pending() {
    let (calls, alive) = (Calls::default(), Arc::new(()));
    let inner = service_fn(|_: Request<String>| {
        let (call, alive) = (calls.next(), Arc::clone(&alive));
        async move {
            if call == 1 {
                return Ok::<_, io::Error>(holding(503, alive));
            }
            assert_eq!(Arc::strong_count(&alive), 3, "at the first poll, the last response exists");
            tokio::task::yield_now().await;
            assert_eq!(Arc::strong_count(&alive), 2, "at the second poll, it has been dropped");
            Ok(holding(200, alive))
        }
    });
    let limited = ConcurrencyLimit::new(inner, 1);
    let mut other = limited.clone();
    let mut service = JitterRetryLayer::new(policy().build().unwrap()).layer(limited);
    let mut call = tokio_test::task::spawn(send(&mut service, request(Method::GET)));
    assert_pending!(call.poll());
    assert_eq!(Arc::strong_count(&alive), 2, "during the delay");
    poll_fn(|cx| Service::<Request<String>>::poll_ready(&mut other, cx)).await.unwrap();
    tokio::time::advance(SECOND).await;
    assert_pending!(call.poll());
    assert_eq!((calls.made(), Arc::strong_count(&alive)), (1, 2), "during the wait for readiness");
    drop(other);
    assert_pending!(call.poll());
    assert_eq!(Arc::strong_count(&alive), 2, "only the attempt's own clone");
    assert_eq!(tokio_test::assert_ready!(call.poll()).unwrap().status(), 200);
}

#[tokio::test(start_paused = true)]
async fn response_holding_only_permit_does_not_block_next_attempt() {
    let (calls, permits) = (Calls::default(), Arc::new(Semaphore::new(1)));
    let attempt = |calls: Calls, permits: Arc<Semaphore>| async move {
        let permit = permits.acquire_owned().await.expect("the semaphore is open");
        Ok::<_, io::Error>(holding(if calls.next() < 3 { 503 } else { 200 }, permit))
    };
    let policy = policy().build().unwrap();
    let mut service = JitterRetryLayer::new(policy.clone())
        .layer(service_fn(|_: Request<String>| attempt(calls.clone(), Arc::clone(&permits))));
    let answer = tokio::time::timeout(60 * SECOND, send(&mut service, request(Method::GET))).await;
    assert_eq!(answer.expect("the call does not wait for itself").unwrap().status(), 200);

    let calls = Calls::default();
    let closure = policy.retry(|| attempt(calls.clone(), Arc::clone(&permits)));
    let answer = tokio::time::timeout(60 * SECOND, closure).await;
    assert_eq!(answer.expect("the closure does not wait for itself").unwrap().status(), 200);
}

#[tokio::test]
async fn circuit_opened_by_502_returns_502() {
    async fn check<S, B>(calls: &Calls, mut service: S)
    where
        S: Service<Request<String>, Response = Response<B>, Error: std::fmt::Debug>,
    {
        let answer = send(&mut service, request(Method::GET)).await.unwrap();
        let retried = answer.extensions().get::<Retried>().unwrap();
        assert_eq!((answer.status().as_u16(), retried.attempts), (502, 2));
        assert_eq!((retried.ended, calls.made()), (Some(GiveUp::Rejected), 1));
    }
    let breaker = || {
        let config = BreakerConfig::builder().consecutive_failures(1);
        BreakerLayer::new(config.consecutive_failures_span(Duration::ZERO).build().unwrap())
    };
    let retry = || JitterRetryLayer::new(immediate().build().unwrap());
    for track_body in [false, true] {
        let calls = Calls::default();
        let counted = calls.clone();
        let client = service_fn(move |_: Request<String>| bad_gateway(&counted));
        if track_body {
            check(&calls, retry().layer(breaker().track_body().layer(client))).await;
        } else {
            check(&calls, retry().layer(breaker().layer(client))).await;
        }
    }
}

fn bad_gateway(calls: &Calls) -> Ready<io::Result<Response<Full<Bytes>>>> {
    calls.next();
    ready(Ok(holding(502, Full::from("the gateway is down"))))
}

/// The breaker counts every response as a success, and the response's body holds its permit.
#[tokio::test]
async fn permit_in_tracked_body_is_released_during_next_attempt() {
    let (clock, manual) = tower_breaker::Clock::manual();
    let config = BreakerConfig::builder().clock(clock).probes(2).successes_to_close(9).build().unwrap();
    let layer = BreakerLayer::new(config).errors_only().track_body();
    let circuit = layer.circuit();
    let calls = Calls::default();
    let breaker = layer.layer(service_fn(|_: Request<String>| {
        let call = calls.next();
        async move {
            if call == 1 {
                return Ok::<_, io::Error>(holding(502, Full::<Bytes>::from("the gateway is down")));
            }
            std::future::pending().await
        }
    }));
    circuit.trip().unwrap();
    manual.advance(3600 * SECOND);
    let mut other = breaker.clone();
    let mut service = JitterRetryLayer::new(immediate().build().unwrap()).layer(breaker);
    let mut retried = tokio_test::task::spawn(send(&mut service, request(Method::GET)));
    assert_pending!(retried.poll());
    assert_eq!(calls.made(), 2, "the retry is the second probe");
    let mut third = tokio_test::task::spawn(send(&mut other, request(Method::GET)));
    assert_pending!(third.poll());
    assert_eq!(calls.made(), 3, "the slot of the first probe is free");
}

#[cfg(feature = "metrics")]
#[test]
fn rejection_and_readiness_error_are_counted_with_reason() {
    let recorder = metrics_util::debugging::DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    metrics::with_local_recorder(&recorder, || {
        for steps in [&[Answers(502), Fails(OPEN)] as &[Step], &[Answers(502), NotReady]] {
            let inner = Script { steps, calls: Calls::default() };
            let mut service = JitterRetryLayer::new(immediate().build().unwrap()).layer(inner);
            block_on(send(&mut service, request(Method::GET))).unwrap();
        }
    });
    let keys = snapshotter.snapshot().into_vec().into_iter().map(|(key, ..)| key);
    let give_ups = keys.filter(|key| key.key().name() == "tower_jitter_retry_give_ups_total");
    let mut reasons: Vec<Vec<_>> =
        give_ups.map(|key| key.key().labels().map(|label| label.value().to_owned()).collect()).collect();
    reasons.sort();
    assert_eq!(reasons, [["retry", "local", "not_ready"], ["retry", "rejected", "rejected"]]);
}
