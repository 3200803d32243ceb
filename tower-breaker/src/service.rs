//! The service: where the circuit meets tower.

use std::fmt;
use std::mem;
use std::task::{Context, Poll, Waker};

use tower_fault_classify::Classify;
use tower_service::Service;

use crate::circuit::{Circuit, Core, Permit, Refusal, Seat, WaitsFor};
use crate::future::ResponseFuture;
use crate::reject::OnReject;
use crate::settle::Settle;

/// Guards its inner service with a circuit. Made by [`BreakerLayer`](crate::BreakerLayer).
///
/// # Readiness
///
/// While the circuit refuses calls, `poll_ready` answers that it is ready without touching the inner service, and the call that
/// follows is rejected, even if the circuit has half-opened since. Otherwise it is ready when the inner service is; a task that
/// waits for that is woken when the circuit changes. A half-open circuit's place is taken when readiness is asked for, so that
/// no more tasks wait for a service that may be dead than there are places.
///
/// An error of the inner service's readiness is judged like that of a call. A clone inherits neither readiness nor place.
///
/// # Cancellation
///
/// Dropping the future of a call drops the inner call, and a probe's place is free again at once. What an abandoned call counts for is said
/// by [`AbandonedPolicy`](crate::AbandonedPolicy); a service that is dropped while it waits for the inner one's readiness is one, too.
///
/// # Panics
///
/// A panic of the inner service's `call` or of its future counts as a failure, and goes on to the caller.
pub struct Breaker<S, C, R, B> {
    inner: S,
    /// Makes a service without the reservation that this one holds.
    renew: Option<fn(&S) -> S>,
    /// The inner service has promised to take a call, and may have reserved something for it.
    inner_ready: bool,
    waiting: Waiting,
    /// The last `poll_ready` found the circuit open for so many nanoseconds, and the call is refused; 0: it did not.
    refused_for: u64,
    circuit: Circuit,
    classify: C,
    reject: R,
    settle: B,
}

/// What the last `poll_ready` promised, beyond a closed circuit's readiness, which the call asks for again.
#[derive(Debug)]
enum Promise {
    Nothing,
    /// The call was let in already: it is a probe, whose place is taken, or one that a ramp lets through.
    Admitted(Unused),
    /// The call is refused. That is kept: the inner service was not asked.
    Refused(Refusal),
}

impl<S, C, R, B> Breaker<S, C, R, B> {
    pub(crate) fn new(
        inner: S,
        renew: Option<fn(&S) -> S>,
        circuit: Circuit,
        classify: C,
        reject: R,
        settle: B,
    ) -> Self {
        let waiting = Waiting { core: circuit.core(), seat: None, since: 0, promise: Promise::Nothing };
        let (inner_ready, refused_for) = (false, 0);
        Self { inner, renew, inner_ready, waiting, refused_for, circuit, classify, reject, settle }
    }

    /// A handle to the circuit.
    pub fn circuit(&self) -> Circuit {
        self.circuit.clone()
    }

    /// The inner service.
    pub const fn get_ref(&self) -> &S {
        &self.inner
    }

    /// Gives the inner service back.
    pub fn into_inner(self) -> S {
        self.inner
    }

    /// Asks the circuit about the next call. A probe keeps its place while that is its own.
    fn ask(&mut self) -> Result<Permit, Refusal> {
        match mem::replace(&mut self.waiting.promise, Promise::Nothing) {
            Promise::Admitted(unused) if unused.0.as_ref().is_some_and(Permit::renew) => Ok(unused.begin()),
            _ => self.circuit.admit(),
        }
    }

    fn promise(&mut self, answer: Result<Permit, Refusal>) {
        self.waiting.promise = match answer {
            Ok(permit) if self.circuit.is_closed() => {
                permit.cancel();
                Promise::Nothing
            }
            Ok(permit) => Promise::Admitted(Unused(Some(permit))),
            Err(refusal) => {
                self.waiting.leave();
                self.give_back();
                Promise::Refused(refusal)
            }
        };
    }

    /// The answer for a call that begins otherwise than closed after closed.
    fn admit(&mut self) -> Result<Permit, Refusal> {
        match self.waiting.promise {
            Promise::Refused(refusal) => {
                self.waiting.promise = Promise::Nothing;
                Err(refusal)
            }
            Promise::Nothing | Promise::Admitted(_) => self.ask(),
        }
    }

    fn begin<Req>(&mut self, permit: Permit, request: Req) -> ResponseFuture<S::Future, C, R, B, R::Future>
    where
        S: Service<Req>,
        B: Settle<S::Response> + Clone,
        C: Clone,
        R: OnReject<Req, B::Response, S::Error>,
    {
        self.inner_ready = false;
        let mut permit = Some(permit);
        let inner = Permit::guard(&mut permit, || self.inner.call(request));
        ResponseFuture::calling(inner, permit, self.classify.clone(), self.settle.clone())
    }

    /// Gives up the wait for the inner service, its readiness, and what the last `poll_ready` promised.
    #[inline]
    fn forget_readiness(&mut self) {
        if self.inner_ready
            || self.waiting.seat.is_some()
            || !matches!(self.waiting.promise, Promise::Nothing)
        {
            self.waiting.leave();
            self.give_back();
            self.waiting.promise = Promise::Nothing;
        }
    }

    /// Gives back what the inner service reserved for a call that it will not get.
    fn give_back(&mut self) {
        if self.inner_ready
            && let Some(renew) = self.renew
        {
            self.inner = renew(&self.inner);
            self.inner_ready = false;
        }
    }
}

impl<S, C, R, B, Req> Service<Req> for Breaker<S, C, R, B>
where
    S: Service<Req>,
    C: Classify<S::Response, S::Error> + Clone,
    B: Settle<S::Response> + Clone,
    R: OnReject<Req, B::Response, S::Error>,
{
    type Response = B::Response;
    type Error = R::Error;
    type Future = ResponseFuture<S::Future, C, R, B, R::Future>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.refused_for = 0;
        if !self.circuit.is_closed() || !matches!(self.waiting.promise, Promise::Nothing) {
            self.refused_for = self.circuit.refuses_for();
            if self.refused_for > 0 {
                self.forget_readiness();
                return Poll::Ready(Ok(()));
            }
            let answer = self.ask();
            let refused = answer.is_err();
            self.promise(answer);
            if refused {
                return Poll::Ready(Ok(()));
            }
        }
        match self.inner.poll_ready(cx) {
            Poll::Ready(Ok(())) => {
                self.waiting.leave();
                self.inner_ready = true;
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => {
                self.waiting.leave();
                if let Ok(permit) = self.ask() {
                    permit.settle(self.classify.classify(Err(&error)));
                }
                Poll::Ready(Err(R::inner(error)))
            }
            Poll::Pending => {
                self.waiting.wait(cx.waker());
                // A transition between the first answer and the registration has woken nobody.
                let answer = self.ask();
                let refused = answer.is_err();
                self.promise(answer);
                if refused { Poll::Ready(Ok(())) } else { Poll::Pending }
            }
        }
    }

    #[inline]
    fn call(&mut self, request: Req) -> Self::Future {
        if self.refused_for > 0 {
            let rejection = self.circuit.open_rejection(mem::take(&mut self.refused_for));
            return ResponseFuture::rejected(self.reject.reject(request, rejection));
        }
        // The usual case, with nothing to carry over from `poll_ready` and nothing that passes through memory.
        if let Promise::Nothing = self.waiting.promise
            && let Some(permit) = self.circuit.admit_closed()
        {
            return self.begin(permit, request);
        }
        match self.admit() {
            Ok(permit) => self.begin(permit, request),
            Err(refusal) => {
                self.give_back();
                ResponseFuture::rejected(self.reject.reject(request, self.circuit.rejection(refusal)))
            }
        }
    }
}

impl<S, C, R, B> Clone for Breaker<S, C, R, B>
where
    S: Clone,
    C: Clone,
    R: Clone,
    B: Clone,
{
    fn clone(&self) -> Self {
        Self::new(
            self.inner.clone(),
            self.renew,
            self.circuit.clone(),
            self.classify.clone(),
            self.reject.clone(),
            self.settle.clone(),
        )
    }
}

impl<S: fmt::Debug, C, R, B> fmt::Debug for Breaker<S, C, R, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Breaker")
            .field("inner", &self.inner)
            .field("circuit", &self.circuit)
            .finish_non_exhaustive()
    }
}

/// A permit of a call that has not begun. Dropping it gives it back.
#[derive(Debug)]
struct Unused(Option<Permit>);

impl Unused {
    fn begin(mut self) -> Permit {
        self.0.take().expect("it is there until it is dropped")
    }
}

impl Drop for Unused {
    fn drop(&mut self) {
        if let Some(permit) = self.0.take() {
            permit.cancel();
        }
    }
}

/// What was promised to the caller, and his registration with the circuit while he waits for the inner service. Dropping it while he waits
/// means that he gave up.
struct Waiting {
    core: &'static Core,
    seat: Option<Seat>,
    /// When the wait began.
    since: u64,
    promise: Promise,
}

impl Waiting {
    fn wait(&mut self, waker: &Waker) {
        if self.seat.is_none() {
            self.since = self.core.clock().now();
        }
        self.core.wait(&mut self.seat, waker, WaitsFor::Change);
    }

    #[inline]
    fn leave(&mut self) {
        if let Some(seat) = self.seat.take() {
            self.core.leave(seat);
        }
    }
}

impl Drop for Waiting {
    #[inline]
    fn drop(&mut self) {
        if self.seat.is_some() {
            self.leave();
            match mem::replace(&mut self.promise, Promise::Nothing) {
                // A permit that is dropped is that of an abandoned call.
                Promise::Admitted(unused) => drop(unused.begin()),
                _ => self.core.give_up_waiting(self.since),
            }
        }
    }
}
