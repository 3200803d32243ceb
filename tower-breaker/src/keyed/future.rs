//! The future of a call that has a circuit and waits for a service.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use pin_project_lite::pin_project;
use tower_fault_classify::Classify;
use tower_service::Service;

use crate::circuit::{OneOf, Permit, Refusal, Seat};
use crate::error::Rejection;
use crate::future::ResponseFuture;
use crate::reject::OnReject;
use crate::settle::Settle;

pin_project! {
    /// Waits for the inner service's readiness, and comes to what the inner call comes to, or to the answer to a rejected call.
    ///
    /// Dropping it gives the call up, as that of a [`ResponseFuture`].
    pub struct KeyedResponseFuture<S, Req, K, C, R, B, F, J> {
        #[pin]
        state: State<S, Req, K, C, R, B, F, J>,
    }
}

pin_project! {
    #[project = StateProj]
    #[project_replace = StateOwn]
    enum State<S, Req, K, C, R, B, F, J> {
        Waiting {
            // Before the permit: it must be gone when the place is free again.
            service: S,
            request: Req,
            waits: Waits<K>,
            classify: C,
            reject: R,
            settle: B,
        },
        Calling {
            #[pin]
            future: ResponseFuture<F, C, R, B, J, OneOf<K>>,
        },
        Done,
    }
}

/// A call that was let in and waits for its service. Dropping it means that the caller gave up.
pub(super) struct Waits<K> {
    permit: Option<Permit<OneOf<K>>>,
    seat: Option<Seat>,
    circuit: &'static str,
    slack: Duration,
}

impl<K> Waits<K> {
    pub(super) const fn new(permit: Permit<OneOf<K>>, circuit: &'static str, slack: Duration) -> Self {
        Self { permit: Some(permit), seat: None, circuit, slack }
    }

    /// Asks the circuit again, if it has changed since it was asked.
    fn ask(&mut self) -> Result<(), Rejection> {
        match self.permit.take() {
            Some(permit) if !permit.renew() => {
                let uncounted = permit.is_uncounted();
                match permit.ask_again(self.circuit) {
                    Ok(permit) => {
                        if !(uncounted && permit.is_uncounted()) {
                            self.leave(&permit);
                        }
                        self.permit = Some(permit);
                    }
                    Err(Refusal { state, left }) => {
                        let retry_after = left.map(|left| Duration::from_nanos(left) + self.slack);
                        return Err(Rejection::new(self.circuit, state, retry_after));
                    }
                }
            }
            same => self.permit = same,
        }
        Ok(())
    }

    /// Waits to hear of a change of the circuit.
    fn wait(&mut self, waker: &Waker) -> Result<(), Rejection> {
        while let Some(permit) = &self.permit {
            permit.wait(&mut self.seat, waker);
            // A change between the question and the registration has woken nobody.
            self.ask()?;
            if self.seat.is_some() {
                break;
            }
        }
        Ok(())
    }

    /// The wait is over.
    fn enter(&mut self) -> Option<Permit<OneOf<K>>> {
        let permit = self.permit.take();
        if let Some(permit) = &permit {
            self.leave(permit);
        }
        permit
    }

    fn leave(&mut self, permit: &Permit<OneOf<K>>) {
        if let Some(seat) = self.seat.take() {
            permit.leave(seat);
        }
    }
}

impl<K> Drop for Waits<K> {
    #[inline]
    fn drop(&mut self) {
        if self.permit.is_some() {
            // A permit that is dropped is that of a call that was given up.
            drop(self.enter());
        }
    }
}

impl<S, Req, K, C, R, B, F, J> KeyedResponseFuture<S, Req, K, C, R, B, F, J> {
    #[inline]
    pub(super) const fn waiting(
        service: S,
        request: Req,
        waits: Waits<K>,
        classify: C,
        reject: R,
        settle: B,
    ) -> Self {
        Self { state: State::Waiting { service, request, waits, classify, reject, settle } }
    }

    pub(super) const fn rejected(answer: J, settle: B) -> Self {
        Self { state: State::Calling { future: ResponseFuture::rejected(answer, settle) } }
    }
}

impl<S, Req, K, C, R, B> Future for KeyedResponseFuture<S, Req, K, C, R, B, S::Future, R::Future>
where
    S: Service<Req>,
    C: Classify<S::Response, S::Error>,
    B: Settle<S::Response, C, OneOf<K>>,
    R: OnReject<Req, S::Response, S::Error>,
{
    type Output = Result<B::Response, R::Error>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        if let StateProj::Waiting { service, waits, classify, .. } = state.as_mut().project() {
            let asked = match waits.ask() {
                Err(rejection) => Err(rejection),
                Ok(()) => match Permit::guard(&mut waits.permit, || service.poll_ready(cx)) {
                    Poll::Ready(Ok(())) => Ok(()),
                    Poll::Ready(Err(error)) => {
                        if let Some(permit) = waits.enter() {
                            permit.settle(classify.classify(Err(&error)));
                        }
                        return Poll::Ready(Err(R::inner(error)));
                    }
                    Poll::Pending => match waits.wait(cx.waker()) {
                        Ok(()) => return Poll::Pending,
                        Err(rejection) => Err(rejection),
                    },
                },
            };
            if let StateOwn::Waiting { mut service, request, mut waits, classify, reject, settle } =
                state.as_mut().project_replace(State::Done)
            {
                let future = match asked {
                    Ok(()) => {
                        let mut permit = waits.enter();
                        let inner = Permit::guard(&mut permit, || service.call(request));
                        ResponseFuture::calling(inner, permit, classify, settle)
                    }
                    Err(rejection) => ResponseFuture::rejected(reject.reject(request, rejection), settle),
                };
                state.set(State::Calling { future });
            }
        }
        match state.project() {
            StateProj::Calling { future } => future.poll(cx),
            _ => panic!("`KeyedResponseFuture` is not polled after it was ready"),
        }
    }
}

impl<S, Req, K, C, R, B, F, J> fmt::Debug for KeyedResponseFuture<S, Req, K, C, R, B, F, J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedResponseFuture")
            .field("waiting", &matches!(self.state, State::Waiting { .. }))
            .finish_non_exhaustive()
    }
}
