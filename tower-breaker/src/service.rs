//! The service: where the circuit meets tower.

use std::fmt;
use std::mem;
use std::task::{Context, Poll, Waker, ready};

use tower_fault_classify::Classify;
use tower_service::Service;

use crate::circuit::{Circuit, Core, Permit, Refusal, Seat, WaitsFor};
use crate::error::Rejection;
use crate::future::ResponseFuture;
use crate::patience::Patience;
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
/// A service that is `not_ready_when_open` waits instead, and then takes a half-open circuit's place.
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
    /// Of a service that is not ready while its circuit refuses calls.
    patience: Option<Patience>,
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
        let core = circuit.core();
        let waiting = Waiting { core, seat: None, outside: false, since: 0, promise: Promise::Nothing };
        let (inner_ready, refused_for, patience) = (false, 0, None);
        Self { inner, renew, inner_ready, waiting, refused_for, circuit, patience, classify, reject, settle }
    }

    /// The same service, not ready while its circuit refuses calls.
    #[cfg(feature = "tokio")]
    pub(crate) fn not_ready_when_open(self) -> Self {
        Self { patience: Some(Patience::default()), ..self }
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

    /// Remembers an answer for the call. True: it is refused, and the inner service need not be asked. Pending: it is refused, and this service
    /// is not ready meanwhile.
    fn promise(&mut self, answer: Result<Permit, Refusal>, cx: &mut Context<'_>) -> Poll<bool> {
        match self.outlast(answer, cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(permit)) => {
                self.waiting.promise = if self.circuit.is_closed() {
                    permit.cancel();
                    Promise::Nothing
                } else {
                    Promise::Admitted(Unused(Some(permit)))
                };
                Poll::Ready(false)
            }
            Poll::Ready(Err(refusal)) => {
                self.waiting.leave();
                self.give_back();
                self.waiting.promise = Promise::Refused(refusal);
                Poll::Ready(true)
            }
        }
    }

    /// The answer, once it is no refusal, if this service is not ready before.
    fn outlast(
        &mut self,
        mut answer: Result<Permit, Refusal>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Permit, Refusal>> {
        if self.patience.is_none() {
            return Poll::Ready(answer);
        }
        let mut registered = false;
        loop {
            let refusal = match answer {
                Ok(permit) => {
                    self.waiting.come_in();
                    return Poll::Ready(Ok(permit));
                }
                Err(refusal) => refusal,
            };
            if registered {
                let left = self.circuit.worth_waiting(refusal);
                let Some(patience) = &mut self.patience else { return Poll::Ready(Err(refusal)) };
                ready!(patience.poll(cx, left));
            } else {
                self.give_back();
                self.waiting.stay_out(cx.waker());
                registered = true;
            }
            // The timer's clock is not the circuit's, and whoever changed it before the registration has woken nobody.
            answer = self.circuit.admit();
        }
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
        B: Settle<S::Response, C> + Clone,
        C: Clone,
        R: OnReject<Req, S::Response, S::Error>,
    {
        self.inner_ready = false;
        let mut permit = Some(permit);
        let inner = Permit::guard(&mut permit, || self.inner.call(request));
        ResponseFuture::calling(inner, permit, self.classify.clone(), self.settle.clone())
    }

    /// Asks a circuit that is not closed, and then the inner service.
    #[inline(never)]
    fn poll_ready_slowly<Req>(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), R::Error>>
    where
        S: Service<Req>,
        C: Classify<S::Response, S::Error>,
        R: OnReject<Req, S::Response, S::Error>,
    {
        let answer = self.ask();
        if ready!(self.promise(answer, cx)) {
            return Poll::Ready(Ok(()));
        }
        let ready = self.inner.poll_ready(cx);
        self.not_ready_yet(ready, cx)
    }

    /// Goes on after the inner service's word on its readiness.
    #[inline(never)]
    fn not_ready_yet<Req>(
        &mut self,
        mut ready: Poll<Result<(), S::Error>>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), R::Error>>
    where
        S: Service<Req>,
        C: Classify<S::Response, S::Error>,
        R: OnReject<Req, S::Response, S::Error>,
    {
        loop {
            match ready {
                Poll::Ready(Ok(())) => {
                    self.waiting.leave();
                    self.inner_ready = true;
                    return Poll::Ready(Ok(()));
                }
                Poll::Ready(Err(error)) => {
                    self.waiting.leave();
                    if let Ok(permit) = self.ask() {
                        permit.settle(self.classify.classify(Err(&error)));
                    }
                    return Poll::Ready(Err(R::inner(error)));
                }
                Poll::Pending => {}
            }
            self.waiting.wait(cx.waker(), WaitsFor::Change);
            // A transition between the first answer and the registration has woken nobody.
            let answer = self.ask();
            let refused = answer.is_err();
            if ready!(self.promise(answer, cx)) {
                return Poll::Ready(Ok(()));
            }
            if !refused {
                return Poll::Pending;
            }
            // It was refused, and is let in by now: the inner service has heard nothing of this task.
            ready = self.inner.poll_ready(cx);
        }
    }

    #[inline]
    fn rejected<Req>(
        &self,
        request: Req,
        rejection: Rejection,
    ) -> ResponseFuture<S::Future, C, R, B, R::Future>
    where
        S: Service<Req>,
        B: Clone,
        R: OnReject<Req, S::Response, S::Error>,
    {
        self.waiting.core.tell_refused(rejection.circuit(), rejection.state());
        ResponseFuture::rejected(self.reject.reject(request, rejection), self.settle.clone())
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
    B: Settle<S::Response, C> + Clone,
    R: OnReject<Req, S::Response, S::Error>,
{
    type Response = B::Response;
    type Error = R::Error;
    type Future = ResponseFuture<S::Future, C, R, B, R::Future>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.refused_for = 0;
        let usual = matches!(self.waiting.promise, Promise::Nothing);
        if usual && self.circuit.is_closed() {
            let ready = self.inner.poll_ready(cx);
            if let Poll::Ready(Ok(())) = ready {
                self.waiting.leave();
                self.inner_ready = true;
                return ready.map_err(R::inner);
            }
            return self.not_ready_yet(ready, cx);
        }
        if self.patience.is_none() {
            self.refused_for = self.circuit.refuses_for();
            if self.refused_for > 0 {
                self.forget_readiness();
                return Poll::Ready(Ok(()));
            }
        }
        self.poll_ready_slowly(cx)
    }

    #[inline]
    fn call(&mut self, request: Req) -> Self::Future {
        if self.refused_for > 0 {
            let rejection = self.circuit.open_rejection(mem::take(&mut self.refused_for));
            return self.rejected(request, rejection);
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
                self.rejected(request, self.circuit.rejection(refusal))
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
        let clone = Self::new(
            self.inner.clone(),
            self.renew,
            self.circuit.clone(),
            self.classify.clone(),
            self.reject.clone(),
            self.settle.clone(),
        );
        #[cfg(feature = "tokio")]
        if self.patience.is_some() {
            return clone.not_ready_when_open();
        }
        clone
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
    /// It waits for the circuit itself: nobody was let in.
    outside: bool,
    /// When the wait for the inner service began.
    since: u64,
    promise: Promise,
}

impl Waiting {
    fn wait(&mut self, waker: &Waker, what: WaitsFor) {
        if self.seat.is_none() {
            self.since = self.core.clock().now();
        }
        self.core.wait(&mut self.seat, waker, what);
    }

    /// Waits to be let in.
    fn stay_out(&mut self, waker: &Waker) {
        self.outside = true;
        self.wait(waker, WaitsFor::Place);
    }

    /// Is let in.
    fn come_in(&mut self) {
        if mem::take(&mut self.outside) {
            self.leave();
        }
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
                _ if self.outside => {}
                _ => self.core.give_up_waiting(self.since),
            }
        }
    }
}
