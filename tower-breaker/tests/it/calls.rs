//! Calls through a circuit without a service: nested results and timeouts.
//!
//! `guards.rs` has the classifiers and the error types.

use std::future::{Future, pending, poll_fn, ready};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use tokio::time::{Instant, advance, sleep, timeout};
use tokio_test::{assert_pending, task};
use tower::BoxError;
use tower_breaker::fault_classify::classifiers::NestedErrors;
use tower_breaker::fault_classify::{ErrorChain, Origin, Retryable, classify_error};
use tower_breaker::{
    BreakerConfigBuilder, BreakerError, CancelledPolicy, Circuit, CircuitState, Clock, Health, Kind, Reason,
    Rejection, TimedOut,
};
use tower_fault_classify::__internals::UploadGuard;

use crate::support::{OPEN_FOR, SECOND, refused, state};

fn config() -> BreakerConfigBuilder {
    crate::support::config().clock(Clock::tokio()).open_for(OPEN_FOR)
}

fn circuit() -> Circuit {
    Circuit::new(config().build().unwrap())
}

/// A query to a server that refuses connections.
fn query() -> impl Future<Output = io::Result<u32>> {
    ready(Err(refused()))
}

/// Runs the call five times, which opens the circuit if each call fails. Returns whether it is
/// open.
async fn is_opened_by<F: Future>(circuit: &Circuit, call: impl Fn() -> F) -> bool {
    for _ in 0..5 {
        call().await;
    }
    state(circuit) == CircuitState::Open
}

#[tokio::test(start_paused = true)]
async fn call_with_error_within_ok_counts_failure_unless_errors_only() {
    let circuit = circuit();
    let errors_only = circuit.errors_only();
    let opened = is_opened_by(&circuit, || errors_only.call(timeout(SECOND, query()))).await;
    assert!(!opened, "the documentation of `errors_only` warns of this");
    assert_eq!(circuit.status().window.failures, 0);
    assert!(is_opened_by(&circuit, || circuit.call(timeout(SECOND, query()))).await);
}

#[tokio::test(start_paused = true)]
async fn call_within_with_error_counts_failure() {
    let circuit = circuit();
    let call = || circuit.call_within(SECOND, query());
    let error = call().await.unwrap_err();
    assert!(matches!(&error, BreakerError::Inner(error) if error.kind() == io::ErrorKind::ConnectionRefused));
    assert!(is_opened_by(&circuit, call).await);
    assert!(matches!(call().await, Err(BreakerError::Rejected(_))));
}

#[tokio::test(start_paused = true)]
async fn call_within_with_elapsed_timeout_counts_failure() {
    let circuit = circuit();
    let call = || circuit.call_within(5 * SECOND, pending::<io::Result<u32>>());
    let began = Instant::now();
    let error = call().await.unwrap_err();
    assert_eq!(began.elapsed(), 5 * SECOND);
    let BreakerError::TimedOut(timed_out) = &error else { panic!("{error:?}") };
    assert_eq!(timed_out.after(), 5 * SECOND);
    let fault = classify_error(&error);
    assert_eq!((fault.kind(), fault.health()), (Kind::Timeout, Health::Unhealthy));
    assert_eq!(fault, timed_out.fault());
    let elapsed = timeout(SECOND, pending::<()>()).await.unwrap_err();
    assert_eq!(fault, classify_error(&elapsed), "equals the fault of tokio's timeout");
    assert_eq!(TimedOut::new(SECOND).fault(), fault);
    assert_eq!(ErrorChain(&error).to_string(), "call timed out after 5 s");
    assert!(is_opened_by(&circuit, call).await);
    let trip = circuit.status().last_trip.unwrap();
    assert_eq!((trip.reason, trip.fault.unwrap().kind()), (Reason::ConsecutiveFailures, Kind::Timeout));
}

#[tokio::test(start_paused = true)]
async fn call_within_timeout_in_stalled_upload_is_neutral() {
    let circuit = circuit();
    let mut call = task::spawn(circuit.call_within(SECOND, pending::<io::Result<u32>>()));
    let upload = UploadGuard::enter(true);
    assert_pending!(call.poll());
    advance(SECOND).await;
    let Poll::Ready(Err(BreakerError::TimedOut(error))) = call.poll() else { panic!("it must time out") };
    drop(upload);
    let fault = error.fault();
    assert_eq!((fault.kind(), fault.retryable()), (Kind::Timeout, Retryable::Never));
    assert_eq!((fault.health(), fault.origin()), (Health::Neutral, Origin::Caller));
    assert_eq!(error.clone().fault(), fault);
    assert_eq!(
        classify_error(&error),
        fault,
        "an outer layer, which does not see the upload, classifies it equally"
    );
    assert_eq!(circuit.status().window.failures, 0);
}

#[tokio::test(start_paused = true)]
async fn call_within_in_time_returns_value() {
    let circuit = circuit();
    let call = async {
        sleep(SECOND).await;
        Ok::<_, io::Error>(7)
    };
    assert_eq!(circuit.call_within(2 * SECOND, call).await.unwrap(), 7);
    assert_eq!((circuit.status().window.calls, circuit.status().window.failures), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn call_within_accepts_boxed_errors() {
    let circuit = circuit();
    let call = || circuit.call_within(SECOND, async { Err::<u32, BoxError>(refused().into()) });
    assert!(is_opened_by(&circuit, call).await);
    let error: BoxError = call().await.unwrap_err();
    assert!(error.is::<Rejection>());
}

#[tokio::test(start_paused = true)]
async fn call_within_starts_timeout_at_first_poll() {
    let circuit = circuit();
    let mut call = task::spawn(circuit.call_within(SECOND, pending::<io::Result<u32>>()));
    advance(10 * SECOND).await;
    assert_pending!(call.poll());
    advance(SECOND / 2).await;
    assert_pending!(call.poll());
    advance(SECOND / 2).await;
    assert!(call.is_woken());
    assert!(call.poll().is_ready());
}

#[tokio::test(start_paused = true)]
async fn call_within_drops_call_before_slot_is_free() {
    struct SetOnDrop(Arc<AtomicBool>);
    impl Drop for SetOnDrop {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let circuit = circuit();
    let is_dropped = Arc::new(AtomicBool::new(false));
    let guard = SetOnDrop(Arc::clone(&is_dropped));
    let hangs = async move {
        let _guard = guard;
        pending::<io::Result<u32>>().await
    };
    let mut call = task::spawn(circuit.call_within(SECOND, hangs));
    assert_pending!(call.poll());
    advance(SECOND).await;
    assert!(call.poll().is_ready());
    assert!(is_dropped.load(Ordering::Relaxed), "dropped although the outer future still exists");
}

#[tokio::test(start_paused = true)]
async fn call_within_dropped_counts_as_cancelled() {
    let config = config().cancelled(CancelledPolicy::Failure).build().unwrap();
    let circuit = Circuit::new(config);
    drop(circuit.call_within(SECOND, pending::<io::Result<u32>>()));
    assert_eq!(circuit.status().window.calls, 0, "a call that was never polled is not counted");
    let mut call = task::spawn(circuit.call_within(SECOND, pending::<io::Result<u32>>()));
    assert_pending!(call.poll());
    drop(call);
    assert_eq!(circuit.status().window.failures, 1);
}

#[tokio::test(start_paused = true)]
async fn call_within_rejected_does_not_poll_call() {
    let circuit = circuit();
    circuit.trip().unwrap();
    let call = poll_fn(|_| -> Poll<io::Result<u32>> { unreachable!("the circuit is open") });
    let result = circuit.call_within(SECOND, call).await;
    assert!(result.unwrap_err().rejection().is_some());
}

#[tokio::test(start_paused = true)]
async fn nested_call_with_inner_error_counts_failure_and_keeps_output() {
    let circuit = circuit();
    let call = || circuit.classify(NestedErrors::new()).call(timeout(SECOND, query()));
    assert!(matches!(call().await, Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused));
    assert!(is_opened_by(&circuit, call).await);
    assert!(matches!(call().await, Err(BreakerError::Rejected(_))));
}

#[tokio::test(start_paused = true)]
async fn nested_call_with_outer_error_counts_failure() {
    let circuit = circuit();
    let call =
        || circuit.classify(NestedErrors::new()).call(timeout(SECOND, pending::<Result<u32, BoxError>>()));
    assert!(matches!(call().await, Err(BreakerError::Inner(_))));
    assert!(is_opened_by(&circuit, call).await);
}

#[tokio::test(start_paused = true)]
async fn nested_call_with_two_oks_counts_success() {
    let circuit = circuit();
    let result =
        circuit.classify(NestedErrors::new()).call(timeout(SECOND, async { Ok::<_, io::Error>(7) })).await;
    assert_eq!(result.unwrap().unwrap(), 7);
    assert_eq!((circuit.status().window.calls, circuit.status().window.failures), (1, 0));
}

#[test]
fn nested_blocking_call_with_either_error_counts_failure() {
    type Nested = Result<io::Result<u32>, io::Error>;
    let calls: [(fn() -> Nested, bool); 3] =
        [(|| Ok(Ok(7)), false), (|| Ok(Err(refused())), true), (|| Err(refused()), true)];
    for (call, opens) in calls {
        let circuit = Circuit::new(crate::support::config().build().unwrap());
        for _ in 0..5 {
            let result = circuit.classify(NestedErrors::new()).call_blocking(call);
            assert_eq!(matches!(result, Ok(Ok(7))), !opens);
        }
        assert_eq!(state(&circuit) == CircuitState::Open, opens);
        let rejected = circuit
            .classify(NestedErrors::new())
            .call_blocking(call)
            .is_err_and(|error| error.rejection().is_some());
        assert_eq!(rejected, opens);
    }
}
