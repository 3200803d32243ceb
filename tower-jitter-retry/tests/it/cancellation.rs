//! A dropped call leaves nothing behind, and a call without delays needs no runtime.

use std::future::{Future, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::runtime;
use tokio_test::{assert_pending, assert_ready, task};
use tower::limit::ConcurrencyLimit;
use tower::{Layer, Service, service_fn};
use tower_fault_classify::ClassifiedError;
use tower_jitter_retry::fault_classify::{Fault, Health, Kind, Origin, Retryable};
use tower_jitter_retry::{Budget, Clock, Jitter, JitterRetryLayer, RequestInfo, RetryPolicy};

use crate::support::{Broken, Calls, block_on, immediate, send};

const SECOND: Duration = Duration::from_secs(1);

/// A request whose clones can be counted.
#[derive(Clone, Default)]
struct Traced(Arc<()>);

impl RequestInfo for Traced {}

impl Traced {
    fn count(&self) -> usize {
        Arc::strong_count(&self.0)
    }
}

/// Fails immediately, or hangs from a given attempt on. Holds its token until it is dropped.
struct Attempt {
    _token: Traced,
    hangs: bool,
}

impl Future for Attempt {
    type Output = Result<(), Broken>;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        if self.hangs { Poll::Pending } else { Poll::Ready(Err(Broken(0))) }
    }
}

fn slow() -> RetryPolicy {
    let builder = RetryPolicy::builder().budget(None::<Budget>).clock(Clock::tokio()).jitter(Jitter::None);
    builder.initial_backoff(SECOND).max_attempts(5).build().unwrap()
}

#[test]
fn completed_future_holds_no_request() {
    let not_found = Fault::new(Kind::Client, Retryable::Never, Health::Neutral, Origin::Remote);
    for fault in [None, Some(REFUSED), Some(not_found)] {
        let result = || fault.map_or(Ok(()), |fault| Err(ClassifiedError::from_fault(fault)));
        let request = Traced::default();
        let mut service = JitterRetryLayer::new(immediate().build().unwrap())
            .clone_requests()
            .layer(service_fn(|_: Traced| ready(result())));
        let mut call = task::spawn(service.call(request.clone()));
        assert_eq!(request.count(), 2, "the saved request");
        let _ = assert_ready!(call.poll());
        assert_eq!(request.count(), 1, "{fault:?}");
    }
}

#[test]
fn dropped_future_drops_running_attempt() {
    for hangs_from in [1, 2, 3] {
        let (calls, token, request) = (Calls::default(), Traced::default(), Traced::default());
        let mut service = JitterRetryLayer::new(immediate().build().unwrap()).clone_requests().layer(
            service_fn(|_: Traced| Attempt { _token: token.clone(), hangs: calls.next() >= hangs_from }),
        );
        let mut call = task::spawn(send(&mut service, request.clone()));
        assert_pending!(call.poll());
        assert_eq!(calls.made(), hangs_from);
        assert_eq!(token.count(), 2, "only the attempt that hangs is alive");
        drop(call);
        assert_eq!(token.count(), 1, "the attempt outlives its call");
        assert_eq!(request.count(), 1, "the request outlives its call");
    }
}

#[tokio::test(start_paused = true)]
async fn dropped_future_ends_delay() {
    let (calls, token, request) = (Calls::default(), Traced::default(), Traced::default());
    let mut service = JitterRetryLayer::new(slow()).clone_requests().layer(service_fn(|_: Traced| {
        calls.next();
        Attempt { _token: token.clone(), hangs: false }
    }));
    let mut call = task::spawn(send(&mut service, request.clone()));
    assert_pending!(call.poll());
    assert_eq!(token.count(), 1, "the failed attempt is dropped before the sleep");
    drop(call);
    assert_eq!(request.count(), 1, "the request outlives its call");
    tokio::time::advance(100 * SECOND).await;
    tokio::task::yield_now().await;
    assert_eq!(calls.made(), 1);
}

#[tokio::test(start_paused = true)]
async fn dropped_future_ends_readiness_wait() {
    let calls = Calls::default();
    let limited = ConcurrencyLimit::new(
        service_fn(|hangs: bool| {
            calls.next();
            Attempt { _token: Traced::default(), hangs }
        }),
        1,
    );
    let mut rival = limited.clone();
    let mut service = JitterRetryLayer::new(slow()).clone_requests().layer(limited);
    let mut call = task::spawn(send(&mut service, false));
    assert_pending!(call.poll());
    // While the call sleeps, another call takes its permit, so that the call waits after its delay.
    let mut hung = task::spawn(send(&mut rival, true));
    assert_pending!(hung.poll());
    tokio::time::advance(SECOND).await;
    assert!(call.is_woken());
    assert_pending!(call.poll());
    assert_eq!(calls.made(), 2);
    drop(call);
    drop(hung);
    // The permit that the dropped call waited for is free.
    assert_pending!(task::spawn(send(&mut rival, true)).poll());
    assert_eq!(calls.made(), 3);
}

#[tokio::test(start_paused = true)]
async fn call_spawns_no_task() {
    let metrics = runtime::Handle::current().metrics();
    let mut service = JitterRetryLayer::new(slow()).layer(service_fn(|_: u32| {
        assert_eq!(metrics.num_alive_tasks(), 0);
        async { Err::<(), _>(Broken(0)) }
    }));
    let mut call = task::spawn(send(&mut service, 7));
    assert_pending!(call.poll());
    assert_eq!(metrics.num_alive_tasks(), 0);
    drop(call);
    assert_eq!(send(&mut service, 7).await, Err(Broken(0)));
    assert_eq!(metrics.num_alive_tasks(), 0);
}

#[tokio::test(start_paused = true)]
async fn delay_wakes_its_task_once() {
    let calls = Calls::default();
    let mut service = JitterRetryLayer::new(slow()).layer(service_fn(|_: u32| {
        let call = calls.next();
        async move { Err::<(), _>(Broken(call)) }
    }));
    let mut call = task::spawn(send(&mut service, 7));
    assert_pending!(call.poll());
    tokio::time::advance(Duration::from_millis(999)).await;
    assert_pending!(call.poll());
    assert_eq!(calls.made(), 1, "the retry was sent too early");
    tokio::time::advance(Duration::from_millis(1)).await;
    assert!(call.is_woken());
    assert_pending!(call.poll());
    assert_eq!(calls.made(), 2);
}

/// [`block_on`] polls on this thread, without a runtime. A sleep would panic, because it needs a
/// runtime.
#[test]
fn zero_backoff_uses_no_timer() {
    assert!(runtime::Handle::try_current().is_err());
    for jitter in [Jitter::None, Jitter::Full] {
        let calls = Calls::default();
        let policy = immediate().jitter(jitter).max_attempts(1_000).build().unwrap();
        let mut service = JitterRetryLayer::new(policy).layer(service_fn(|_: u32| {
            calls.next();
            async { Err::<(), _>(Broken(0)) }
        }));
        assert_eq!(block_on(send(&mut service, 7)), Err(Broken(0)));
        assert_eq!(calls.made(), 1_000);
    }
}

#[test]
fn call_without_retry_uses_no_timer() {
    let mut service =
        JitterRetryLayer::new(RetryPolicy::default()).layer(service_fn(async |request: u32| {
            if request == 0 { Ok(()) } else { Err(ClassifiedError::from_fault(REFUSED)) }
        }));
    block_on(send(&mut service, 0)).unwrap();
    block_on(send(&mut service, 7)).unwrap_err();
}

const REFUSED: Fault = Fault::new(Kind::Rejected, Retryable::Never, Health::Neutral, Origin::Local);

#[test]
#[should_panic(expected = "no reactor running")]
fn delayed_retry_without_runtime_panics() {
    let policy = RetryPolicy::builder().jitter(Jitter::None).build().unwrap();
    let mut service = JitterRetryLayer::new(policy).layer(service_fn(async |_: u32| Err::<(), _>(Broken(0))));
    let _ = block_on(send(&mut service, 7));
}
