//! The future of a call through a circuit, with a timeout.

use std::any::type_name;
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::time::{Timeout, timeout};
use tower_fault_classify::classifiers::TypedError;
use tower_fault_classify::{Classify, Verdict, classify_error};

use super::CallError;
use super::future::{Admitted, KeepResult};
use crate::circuit::{Circuit, CircuitRef, Permit, Static};
use crate::error::TimedOut;
use crate::telemetry::{KeepError, NoLastFailure};

pin_project! {
    /// The future of `call_within` of a [`Guard`](super::Guard) or a [`Circuit`].
    ///
    /// The type parameters are those of [`Call`](super::Call).
    #[must_use = "futures do nothing unless polled"]
    pub struct CallWithin<F, C, K = TypedError, R: CircuitRef = Static, L = NoLastFailure> {
        #[pin]
        admitted: Admitted<Limited<F>, ClassifyLimited<C>, R, KeepLimited<L>>,
        kind: PhantomData<fn() -> K>,
    }
}

impl<F, C, K, R: CircuitRef, L> CallWithin<F, C, K, R, L> {
    pub(super) fn new(circuit: &Circuit<R>, time: Duration, call: F, classify: C, last_failure: L) -> Self {
        let limited = Limited { time, state: LimitedState::Unpolled { call: Some(call) } };
        let admitted = Admitted::new(circuit, limited, ClassifyLimited(classify), KeepLimited(last_failure));
        Self { admitted, kind: PhantomData }
    }
}

impl<F, T, E, C, K, R, L> Future for CallWithin<F, C, K, R, L>
where
    F: Future<Output = Result<T, E>>,
    C: Classify<T, E>,
    E: CallError<K>,
    R: CircuitRef,
    L: KeepError<E>,
{
    type Output = Result<T, E::Returned>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(match ready!(self.project().admitted.poll(cx)) {
            Ok(Ok(result)) => result.map_err(E::into_returned),
            Ok(Err(timed_out)) => Err(E::timed_out(timed_out)),
            Err(rejection) => Err(E::rejected(rejection)),
        })
    }
}

impl<F, C, K, R: CircuitRef, L> fmt::Debug for CallWithin<F, C, K, R, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallWithin")
            .field("circuit", &self.admitted.circuit.name())
            .field("time", &self.admitted.inner.time)
            .finish_non_exhaustive()
    }
}

/// Classifies the result of a [`Limited`] call: by `C`, or as an elapsed timeout.
struct ClassifyLimited<C>(C);

impl<C, T, E> Classify<Result<T, E>, TimedOut> for ClassifyLimited<C>
where
    C: Classify<T, E>,
{
    fn classify(&self, outcome: Result<&Result<T, E>, &TimedOut>) -> Verdict {
        match outcome {
            Ok(result) => self.0.classify(result.as_ref()),
            Err(timed_out) => timed_out.fault().into(),
        }
    }
}

/// Keeps the failure of a [`Limited`] call: by `L`, or the elapsed timeout.
struct KeepLimited<L>(L);

impl<T, E, L: KeepError<E>> KeepResult<Result<T, E>, TimedOut> for KeepLimited<L> {
    fn keep<R: CircuitRef>(
        &self,
        permit: &Permit<R>,
        verdict: &Verdict,
        result: &Result<Result<T, E>, TimedOut>,
    ) {
        match result {
            Ok(result) => self.0.keep(permit, verdict, result),
            Err(timed_out) => {
                self.0.keep_dyn_error(permit, verdict, timed_out, Some(type_name::<TimedOut>()));
            }
        }
    }
}

pin_project! {
    /// A future with a timeout, whose time starts at the first poll.
    struct Limited<F> {
        time: Duration,
        #[pin]
        state: LimitedState<F>,
    }
}

pin_project! {
    #[project = LimitedProj]
    enum LimitedState<F> {
        Unpolled {
            call: Option<F>,
        },
        Polled {
            #[pin]
            call: Timeout<F>,
        },
    }
}

impl<F: Future> Future for Limited<F> {
    type Output = Result<F::Output, TimedOut>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let (time, mut state) = (*this.time, this.state);
        if let LimitedProj::Unpolled { call } = state.as_mut().project()
            && let Some(call) = call.take()
        {
            state.set(LimitedState::Polled { call: timeout(time, call) });
        }
        let LimitedProj::Polled { call } = state.as_mut().project() else {
            panic!("`CallWithin` polled after completion");
        };
        let result = ready!(call.poll(cx));
        // The call is dropped before its outcome is recorded, so that it has ended when a probe's
        // slot is free again.
        state.set(LimitedState::Unpolled { call: None });
        // Classified inside of the poll, where it is known whether the request's body waits.
        Poll::Ready(result.map_err(|elapsed| TimedOut::with_fault(time, classify_error(&elapsed))))
    }
}
