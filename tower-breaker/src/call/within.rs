//! The future of a call through a circuit, with a timeout.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::time::error::Elapsed;
use tokio::time::{Timeout, timeout};
use tower_fault_classify::classifiers::TypedError;
use tower_fault_classify::{Classify, Verdict, classify_error};

use super::CallError;
use super::future::Admitted;
use crate::circuit::{Circuit, CircuitRef, Static};
use crate::error::TimedOut;

pin_project! {
    /// The future of `call_within` of a [`Guard`](super::Guard) or a [`Circuit`].
    ///
    /// The type parameters are those of [`Call`](super::Call).
    #[must_use = "futures do nothing unless polled"]
    pub struct CallWithin<F, C, K = TypedError, R: CircuitRef = Static> {
        #[pin]
        admitted: Admitted<Limited<F>, ClassifyLimited<C>, R>,
        time: Duration,
        kind: PhantomData<fn() -> K>,
    }
}

impl<F, C, K, R: CircuitRef> CallWithin<F, C, K, R> {
    pub(super) fn new(circuit: &Circuit<R>, time: Duration, call: F, classify: C) -> Self {
        let limited = Limited::Unpolled { call: Some(call), time };
        let admitted = Admitted::new(circuit, limited, ClassifyLimited(classify));
        Self { admitted, time, kind: PhantomData }
    }
}

impl<F, T, E, C, K, R> Future for CallWithin<F, C, K, R>
where
    F: Future<Output = Result<T, E>>,
    C: Classify<T, E>,
    E: CallError<K>,
    R: CircuitRef,
{
    type Output = Result<T, E::Returned>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        Poll::Ready(match ready!(this.admitted.poll(cx)) {
            Ok(Ok(result)) => result.map_err(E::into_returned),
            // Classified inside of the poll, where it is known whether the request's body waits.
            Ok(Err(elapsed)) => Err(E::timed_out(TimedOut::with_fault(*this.time, classify_error(&elapsed)))),
            Err(rejection) => Err(E::rejected(rejection)),
        })
    }
}

impl<F, C, K, R: CircuitRef> fmt::Debug for CallWithin<F, C, K, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallWithin")
            .field("circuit", &self.admitted.circuit.name())
            .field("time", &self.time)
            .finish_non_exhaustive()
    }
}

/// Classifies the result of a [`Limited`] call: by `C`, or as an elapsed timeout.
struct ClassifyLimited<C>(C);

impl<C, T, E> Classify<Result<T, E>, Elapsed> for ClassifyLimited<C>
where
    C: Classify<T, E>,
{
    fn classify(&self, outcome: Result<&Result<T, E>, &Elapsed>) -> Verdict {
        match outcome {
            Ok(result) => self.0.classify(result.as_ref()),
            Err(elapsed) => classify_error(elapsed).into(),
        }
    }
}

pin_project! {
    /// A timeout whose time starts at the first poll.
    #[project = LimitedProj]
    enum Limited<F> {
        Unpolled {
            call: Option<F>,
            time: Duration,
        },
        Polled {
            #[pin]
            call: Timeout<F>,
        },
    }
}

impl<F: Future> Future for Limited<F> {
    type Output = Result<F::Output, Elapsed>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let LimitedProj::Unpolled { call, time } = self.as_mut().project()
            && let Some(call) = call.take()
        {
            let call = timeout(*time, call);
            self.set(Self::Polled { call });
        }
        let LimitedProj::Polled { call } = self.as_mut().project() else {
            panic!("`CallWithin` polled after completion");
        };
        let result = ready!(call.poll(cx));
        // The call is dropped before its outcome is recorded, so that it has ended when a probe's
        // slot is free again.
        self.set(Self::Unpolled { call: None, time: Duration::ZERO });
        Poll::Ready(result)
    }
}
