//! The future of a call with a circuit. It waits for the inner service.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use pin_project_lite::pin_project;
use tower_fault_classify::Classify;
use tower_service::Service;

use super::core::Shared;
use crate::circuit::{CircuitRef, Permit, WakerKey};
use crate::error::Rejection;
use crate::fallback::{OnReject, ResponseMode};
use crate::future::{RecordOutcome, finish};

pin_project! {
    /// Resolves to the inner service's result, or to the answer to a rejected call.
    ///
    /// It first waits for the readiness of a clone of the inner service. If the circuit opens
    /// meanwhile, the call is rejected.
    ///
    /// Dropping the future cancels the call, as with [`ResponseFuture`](crate::ResponseFuture).
    /// Polling it after it has completed may panic.
    pub struct KeyedResponseFuture<S, Req, K, C, R, B, F, J> {
        // Before the permit: the inner future must be dropped before the slot is free again.
        #[pin]
        phase: Phase<F, J>,
        // The service and its request, until the call begins.
        waiting: Option<(S, Req)>,
        waits: Waits<K>,
        classify: C,
        reject: R,
        record: B,
    }
}

pin_project! {
    #[project = PhaseProj]
    enum Phase<F, J> {
        Waiting,
        Calling {
            #[pin]
            inner: F,
        },
        Rejected {
            #[pin]
            answer: J,
        },
    }
}

/// The permit of an admitted call, and the registration of its task while the call waits for its
/// service. Dropping it with a permit records a cancelled call.
pub(super) struct Waits<K> {
    permit: Option<Permit<Shared<K>>>,
    waker_key: Option<WakerKey>,
}

impl<K> Waits<K> {
    /// Returns whether the permit is still valid. Otherwise, the circuit must be checked again.
    #[inline]
    fn is_permit_valid(&self) -> bool {
        self.permit.as_ref().is_none_or(Permit::renew)
    }

    /// Checks the circuit, which has changed since the permit was acquired. Returns the rejection
    /// of the call.
    #[cold]
    #[inline(never)]
    fn recheck_circuit(&mut self) -> Option<Rejection> {
        let permit = self.permit.take()?;
        let uncounted = permit.is_uncounted();
        match permit.reacquire() {
            Ok(permit) => {
                let still_uncounted = uncounted && permit.is_uncounted();
                self.permit = Some(permit);
                if !still_uncounted {
                    self.leave();
                }
                None
            }
            Err((circuit, denied)) => {
                if let Some(waker_key) = self.waker_key.take() {
                    circuit.core().deregister_waker(waker_key);
                }
                Some(circuit.reject(denied))
            }
        }
    }

    /// Registers the task, so that a change of the circuit wakes it. Returns the rejection of the
    /// call if the circuit has changed already.
    #[cold]
    #[inline(never)]
    fn wait(&mut self, waker: &Waker) -> Option<Rejection> {
        while let Some(permit) = &self.permit {
            permit.register_waker(&mut self.waker_key, waker);
            // A change between the last check and the registration has not woken the task.
            if !self.is_permit_valid()
                && let Some(rejection) = self.recheck_circuit()
            {
                return Some(rejection);
            }
            if self.waker_key.is_some() {
                break;
            }
        }
        None
    }

    /// Ends the registration of the task.
    #[inline]
    fn leave(&mut self) {
        if self.waker_key.is_some() {
            self.deregister();
        }
    }

    #[cold]
    fn deregister(&mut self) {
        if let (Some(waker_key), Some(permit)) = (self.waker_key.take(), &self.permit) {
            permit.deregister_waker(waker_key);
        }
    }
}

impl<K> Drop for Waits<K> {
    #[inline]
    fn drop(&mut self) {
        self.leave();
        // If the permit is still there, the call was cancelled. Dropping the permit records that.
    }
}

impl<S, Req, K, C, R, B, F, J> KeyedResponseFuture<S, Req, K, C, R, B, F, J> {
    #[inline]
    pub(super) const fn waiting(
        service: S,
        request: Req,
        permit: Permit<Shared<K>>,
        classify: C,
        reject: R,
        record: B,
    ) -> Self {
        let waits = Waits { permit: Some(permit), waker_key: None };
        Self { phase: Phase::Waiting, waiting: Some((service, request)), waits, classify, reject, record }
    }

    pub(super) const fn rejected(answer: J, classify: C, reject: R, record: B) -> Self {
        let waits = Waits { permit: None, waker_key: None };
        Self { phase: Phase::Rejected { answer }, waiting: None, waits, classify, reject, record }
    }
}

/// Answers a call that was rejected while it waited for its service.
#[cold]
#[inline(never)]
fn answer<S, Req, F, J>(
    waiting: &mut Option<(S, Req)>,
    mut phase: Pin<&mut Phase<F, J>>,
    reject: impl FnOnce(Req) -> J,
) {
    if let Some((service, request)) = waiting.take() {
        // Drops what the service has reserved, before the user's fallback runs.
        drop(service);
        phase.set(Phase::Rejected { answer: reject(request) });
    }
}

impl<S, Req, K, C, R, B> Future for KeyedResponseFuture<S, Req, K, C, R, B, S::Future, R::Future>
where
    S: Service<Req>,
    C: Classify<S::Response, S::Error>,
    B: RecordOutcome<S::Response, S::Error, C, Shared<K>>,
    R: OnReject<Req, S::Response, S::Error> + ResponseMode<S::Response, S::Error, B::Response>,
{
    type Output = Result<<R as ResponseMode<S::Response, S::Error, B::Response>>::Response, R::Error>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        // The usual case is inline. A rejection is made out of line, because the usual case would
        // otherwise copy the space for it.
        if let Some((service, _)) = this.waiting {
            if !this.waits.is_permit_valid()
                && let Some(rejection) = this.waits.recheck_circuit()
            {
                answer(this.waiting, this.phase.as_mut(), |request| this.reject.reject(request, rejection));
            } else {
                // The registration must end before the service is polled. If that poll panics, the
                // guard takes the permit, and `leave` needs the permit.
                this.waits.leave();
                match Permit::guard(&mut this.waits.permit, || service.poll_ready(cx)) {
                    Poll::Ready(Ok(())) => {
                        if let Some((mut service, request)) = this.waiting.take() {
                            let inner = Permit::guard(&mut this.waits.permit, || service.call(request));
                            this.phase.set(Phase::Calling { inner });
                        }
                    }
                    Poll::Ready(Err(error)) => {
                        let _waiting = this.waiting.take();
                        let (permit, result) = (&mut this.waits.permit, Err::<S::Response, _>(error));
                        return Poll::Ready(finish::<R, _, _, _, _, _>(
                            result,
                            permit,
                            this.classify,
                            this.record,
                        ));
                    }
                    Poll::Pending => match this.waits.wait(cx.waker()) {
                        None => return Poll::Pending,
                        Some(rejection) => answer(this.waiting, this.phase.as_mut(), |request| {
                            this.reject.reject(request, rejection)
                        }),
                    },
                }
            }
        }
        match this.phase.project() {
            PhaseProj::Calling { inner } => {
                let result = ready!(Permit::guard(&mut this.waits.permit, || inner.poll(cx)));
                Poll::Ready(finish::<R, _, _, _, _, _>(
                    result,
                    &mut this.waits.permit,
                    this.classify,
                    this.record,
                ))
            }
            PhaseProj::Rejected { answer } => R::rejected(answer.poll(cx), B::pass),
            PhaseProj::Waiting => panic!("`KeyedResponseFuture` polled after completion"),
        }
    }
}

impl<S, Req, K, C, R, B, F, J> fmt::Debug for KeyedResponseFuture<S, Req, K, C, R, B, F, J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedResponseFuture")
            .field("waiting", &self.waiting.is_some())
            .finish_non_exhaustive()
    }
}
