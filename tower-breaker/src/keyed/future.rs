//! The future of a call that has a circuit and waits for a service.

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
use crate::fallback::OnReject;
use crate::future::{RecordOutcome, finish};

pin_project! {
    /// Waits for the inner service's readiness, and comes to what the inner call comes to, or to the answer to a rejected call.
    ///
    /// Dropping it gives the call up, as that of a [`ResponseFuture`](crate::ResponseFuture).
    pub struct KeyedResponseFuture<S, Req, K, C, R, B, F, J> {
        // Before the permit: it must be gone when the place is free again.
        #[pin]
        phase: Phase<F, J>,
        // What waits for each other, until the call begins.
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

/// A call that was let in and waits for its service. Dropping it means that the caller gave up.
pub(super) struct Waits<K> {
    permit: Option<Permit<Shared<K>>>,
    waker_key: Option<WakerKey>,
}

impl<K> Waits<K> {
    /// Asks the circuit again, if it has changed since it was asked.
    #[inline]
    fn ask(&mut self) -> Result<(), Rejection> {
        if self.permit.as_ref().is_none_or(Permit::renew) { Ok(()) } else { self.ask_again() }
    }

    #[cold]
    fn ask_again(&mut self) -> Result<(), Rejection> {
        let Some(permit) = self.permit.take() else { return Ok(()) };
        let uncounted = permit.is_uncounted();
        match permit.reacquire() {
            Ok(permit) => {
                let still_uncounted = uncounted && permit.is_uncounted();
                self.permit = Some(permit);
                if !still_uncounted {
                    self.leave();
                }
                Ok(())
            }
            Err((circuit, denied)) => {
                if let Some(waker_key) = self.waker_key.take() {
                    circuit.core().deregister_waker(waker_key);
                }
                Err(circuit.reject(denied))
            }
        }
    }

    /// Asks the service for its readiness, as long as the circuit lets the call through.
    #[inline]
    fn poll<E>(
        &mut self,
        cx: &mut Context<'_>,
        poll_ready: impl FnOnce(&mut Context<'_>) -> Poll<Result<(), E>>,
    ) -> Poll<Result<Result<(), E>, Rejection>> {
        if let Err(rejection) = self.ask() {
            return Poll::Ready(Err(rejection));
        }
        // Before the service is asked: it may panic, and the permit is gone then.
        self.leave();
        match Permit::guard(&mut self.permit, || poll_ready(cx)) {
            Poll::Ready(ready) => Poll::Ready(Ok(ready)),
            Poll::Pending => match self.wait(cx.waker()) {
                Ok(()) => Poll::Pending,
                Err(rejection) => Poll::Ready(Err(rejection)),
            },
        }
    }

    /// Waits to hear of a change of the circuit.
    fn wait(&mut self, waker: &Waker) -> Result<(), Rejection> {
        while let Some(permit) = &self.permit {
            permit.register_waker(&mut self.waker_key, waker);
            // A change between the question and the registration has woken nobody.
            self.ask()?;
            if self.waker_key.is_some() {
                break;
            }
        }
        Ok(())
    }

    /// Waits no longer to hear of a change.
    #[inline]
    fn leave(&mut self) {
        if let (Some(waker_key), Some(permit)) = (self.waker_key.take(), &self.permit) {
            permit.deregister_waker(waker_key);
        }
    }
}

impl<K> Drop for Waits<K> {
    #[inline]
    fn drop(&mut self) {
        self.leave();
        // A permit that is still there is that of a call that was given up.
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

impl<S, Req, K, C, R, B> Future for KeyedResponseFuture<S, Req, K, C, R, B, S::Future, R::Future>
where
    S: Service<Req>,
    C: Classify<S::Response, S::Error>,
    B: RecordOutcome<S::Response, C, Shared<K>>,
    R: OnReject<Req, S::Response, S::Error>,
{
    type Output = Result<B::Response, R::Error>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if let Some((service, _)) = this.waiting {
            let asked = ready!(this.waits.poll(cx, |cx| service.poll_ready(cx)));
            if let Some((mut service, request)) = this.waiting.take() {
                match asked {
                    Ok(Ok(())) => {
                        let inner = Permit::guard(&mut this.waits.permit, || service.call(request));
                        this.phase.set(Phase::Calling { inner });
                    }
                    Ok(Err(error)) => {
                        let failed = Err::<S::Response, _>(error);
                        return Poll::Ready(finish::<R, _, _, _, _, _>(
                            failed,
                            &mut this.waits.permit,
                            this.classify,
                            this.record,
                        ));
                    }
                    Err(rejection) => {
                        // With what it has reserved, before the user's answer runs.
                        drop(service);
                        this.phase.set(Phase::Rejected { answer: this.reject.reject(request, rejection) });
                    }
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
            PhaseProj::Rejected { answer } => this.record.pass(answer.poll(cx)),
            PhaseProj::Waiting => panic!("`KeyedResponseFuture` is not polled after it was ready"),
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
