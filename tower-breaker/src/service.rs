//! The service. It connects the circuit with tower's `Service`.

use std::fmt;
use std::task::{Context, Poll, ready};

use tower_fault_classify::Classify;
use tower_fault_classify::classifiers::Auto;
use tower_service::Service;

use crate::circuit::{Arrival, Circuit, Denied, Permit, Reservation};
use crate::error::Rejection;
use crate::fallback::{OnReject, ResponseMode, ReturnError};
use crate::future::{BeginRecord, OnHead, RecordOutcome, ResponseFuture};
use crate::readiness::Readiness;

/// Guards its inner service with a circuit.
///
/// Made by [`BreakerLayer`](crate::BreakerLayer), which documents the states of the circuit.
///
/// # Readiness
///
/// | circuit | `poll_ready` | `call` |
/// |---|---|---|
/// | closed, forced closed or disabled | polls the inner service | sends the request, unless the circuit has changed since |
/// | slow start | polls the inner service | sends or rejects the request: the slow start counts calls, not polls |
/// | open, open until it is reset, or forced open | ready immediately; the inner service is not polled | rejects the request, even if the circuit has changed since |
/// | open, and the open duration is over | the circuit becomes half-open, see the next rows | |
/// | half-open with a free probe slot | reserves the slot, then polls the inner service | sends the request as a probe, unless the circuit has changed or the lease has ended since |
/// | half-open without a free slot | ready immediately; the inner service is not polled | rejects the request, even if the circuit has changed since |
///
/// If the circuit has changed, or a probe's lease has ended, `call` decides again.
///
/// If a task waits for the inner service, a change of the circuit wakes it.
///
/// A service that is `not_ready_when_open` is pending where the table says "ready immediately". In
/// a slow start it is pending until the circuit admits a call.
///
/// An error of the inner service's `poll_ready` is classified and recorded like an error of a call.
/// A clone inherits neither readiness nor a probe slot.
///
/// # Reservations
///
/// After a poll, the inner service may hold a reservation or wait for one in a queue: a permit of a
/// `ConcurrencyLimit`, a slot of a `Buffer`. When the call is rejected, the breaker replaces the
/// inner service with a clone of it, which releases the reservation immediately. An inner service
/// that is not `Clone` keeps it: see [`without_clone`](crate::BreakerLayer::without_clone).
///
/// # Cancellation
///
/// Dropping the future of a call drops the inner call, and frees a probe's slot immediately. A
/// service that is dropped while it waits for the inner service's readiness is a cancelled call,
/// too. [`CancelledPolicy`](crate::CancelledPolicy) determines how cancelled calls are counted.
///
/// # Panics
///
/// A panic of the inner service's `call`, or of its future, counts as a failure and propagates to
/// the caller.
///
/// # Naming the type
///
/// A struct can hold a stack without a boxed service. The type depends on the inner error:
///
/// | inner error | type |
/// |---|---|
/// | a concrete type; [`FaultClassify`](tower_fault_classify::FaultClassify) below | `Breaker<S>` |
/// | boxed, such as that of tower's `Timeout` or `Buffer` | `Breaker<S, Auto<BoxedError>, ReturnError<BoxedError>>` |
///
/// ```
/// use std::time::Duration;
/// use tower::ServiceBuilder;
/// use tower::timeout::Timeout;
/// use tower_breaker::fallback::ReturnError;
/// use tower_breaker::fault_classify::classifiers::{Auto, BoxedError};
/// use tower_breaker::{Breaker, BreakerConfig, BreakerLayer};
///
/// /// The client's error is a concrete type.
/// struct Catalog<Client> {
///     client: Breaker<Client>,
/// }
///
/// impl<Client: Clone> Catalog<Client> {
///     fn new(client: Client) -> Self {
///         let layer = BreakerLayer::new(BreakerConfig::default());
///         Self { client: ServiceBuilder::new().layer(layer).service(client) }
///     }
/// }
///
/// /// `Timeout` boxes its errors.
/// struct Search<Client> {
///     client: Breaker<Timeout<Client>, Auto<BoxedError>, ReturnError<BoxedError>>,
/// }
///
/// impl<Client: Clone> Search<Client> {
///     fn new(client: Client) -> Self {
///         let client = ServiceBuilder::new()
///             .layer(BreakerLayer::new(BreakerConfig::default()))
///             .timeout(Duration::from_secs(10))
///             .service(client);
///         Self { client }
///     }
/// }
/// # fn check<R, S: tower::Service<R>>(_: &S) {}
/// # let client = tower::service_fn(async |_: ()| Ok::<_, std::io::Error>(http::Response::new(())));
/// # check::<(), _>(&Catalog::new(client).client);
/// # check::<(), _>(&Search::new(client).client);
/// ```
///
/// `KeyedBreaker` (feature `keyed`) has an example for circuits by key.
pub struct Breaker<S, C = Auto, R = ReturnError, B = OnHead> {
    inner: S,
    /// Returns a service without the reservation that this service holds.
    renew: Option<fn(&S) -> S>,
    readiness: Readiness,
    circuit: Circuit,
    not_ready_when_open: bool,
    classify: C,
    reject: R,
    record: B,
}

impl<S, C, R, B> Breaker<S, C, R, B> {
    pub(crate) fn new(
        inner: S,
        renew: Option<fn(&S) -> S>,
        circuit: Circuit,
        classify: C,
        reject: R,
        record: B,
        not_ready_when_open: bool,
    ) -> Self {
        let readiness = Readiness::Idle;
        Self { inner, renew, readiness, circuit, not_ready_when_open, classify, reject, record }
    }

    /// Returns a handle to the circuit.
    pub fn circuit(&self) -> Circuit {
        self.circuit.clone()
    }

    /// Returns a reference to the inner service.
    pub const fn get_ref(&self) -> &S {
        &self.inner
    }

    /// Returns a mutable reference to the inner service.
    pub const fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// Returns the inner service.
    pub fn into_inner(self) -> S {
        self.inner
    }

    fn reserve(&mut self, arrival: Arrival) -> Result<Option<Reservation>, Denied> {
        self.readiness.reserve(self.circuit.core(), arrival)
    }

    /// Polls the circuit for its decision on the next call. With `not_ready_when_open`, the result
    /// is pending while the circuit denies the call.
    fn poll_circuit(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Reservation>, Denied>> {
        if !self.not_ready_when_open {
            return Poll::Ready(self.reserve(Arrival::AtCall));
        }
        let is_waiting = self.readiness.waits_for_circuit();
        let mut decision = self.reserve(if is_waiting { Arrival::Again } else { Arrival::Now });
        let mut is_registered = false;
        loop {
            let Err(denied) = decision else { return Poll::Ready(decision) };
            if is_registered {
                ready!(self.readiness.poll_timer(cx, self.circuit.retry_timer(denied)));
                decision = self.reserve(Arrival::Now);
            } else {
                if !is_waiting {
                    self.release_reservations();
                }
                self.readiness.wait_for_circuit(self.circuit.core(), cx.waker());
                is_registered = true;
                // A change between the first decision and the registration has not woken the task.
                decision = self.reserve(Arrival::Again);
            }
        }
    }

    /// Returns the permit of a call if the circuit was closed in `poll_ready` and is still closed.
    #[inline]
    fn acquire_closed(&mut self) -> Option<Permit> {
        if !self.readiness.holds_nothing() {
            return None;
        }
        let permit = Permit::acquire_closed(self.circuit.core())?;
        self.readiness.overwrite(Readiness::Idle);
        Some(permit)
    }

    /// Returns the permit of a call in the cases that [`acquire_closed`](Self::acquire_closed) leaves
    /// out.
    #[inline(never)]
    fn acquire(&mut self) -> Result<Permit, Denied> {
        let permit = match self.readiness {
            Readiness::Rejected(denied) => Err(denied),
            _ => match self.readiness.take_reserved() {
                Some(reserved) if reserved.renew() => Ok(reserved.begin()),
                _ => self.circuit.admit(),
            },
        };
        match permit {
            Ok(_) => self.readiness.transition_to(Readiness::Idle),
            Err(_) => self.release_reservations(),
        }
        permit
    }

    #[expect(clippy::inline_always, reason = "out of line, the future is copied through memory")]
    #[inline(always)]
    fn begin<Req>(
        &mut self,
        permit: Permit,
        request: Req,
    ) -> ResponseFuture<S::Future, C, R, B::Record, R::Future>
    where
        S: Service<Req>,
        B: BeginRecord<Req>,
        C: Clone,
        R: OnReject<Req, S::Response, S::Error>,
    {
        let record = self.record.begin(Some(&request));
        let mut permit = Some(permit);
        let inner = Permit::guard(&mut permit, || self.inner.call(request));
        ResponseFuture::calling(inner, permit, self.classify.clone(), record)
    }

    /// Polls the circuit and then the inner service. If `polled` is set, it is the result of the
    /// inner service.
    #[inline(never)]
    fn poll_ready_slow_path<Req>(
        &mut self,
        mut polled: Option<Poll<Result<(), S::Error>>>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), R::Error>>
    where
        S: Service<Req>,
        C: Classify<S::Response, S::Error>,
        B: BeginRecord<Req, Record: RecordOutcome<S::Response, S::Error, C>>,
        R: OnReject<Req, S::Response, S::Error>,
    {
        loop {
            let ready = match polled.take() {
                Some(ready) => ready,
                None => match ready!(self.poll_circuit(cx)) {
                    Ok(reserved) => {
                        self.readiness.set_admitted(reserved);
                        self.inner.poll_ready(cx)
                    }
                    Err(denied) => {
                        self.release_reservations();
                        self.readiness = Readiness::Rejected(denied);
                        return Poll::Ready(Ok(()));
                    }
                },
            };
            match ready {
                Poll::Ready(Ok(())) => {
                    self.readiness.end_inner_wait();
                    return Poll::Ready(Ok(()));
                }
                Poll::Ready(Err(error)) => {
                    self.readiness.end_inner_wait();
                    self.record_readiness_error(&error);
                    return Poll::Ready(Err(R::inner(error)));
                }
                Poll::Pending => {}
            }
            self.readiness.wait_for_inner(self.circuit.core(), cx.waker());
            // A change between the first decision and the registration has not woken the task.
            if let Ok(reserved) = self.reserve(Arrival::AtCall) {
                self.readiness.set_admitted(reserved);
                return Poll::Pending;
            }
        }
    }

    /// Records an error of the inner service's readiness as the outcome of a call.
    fn record_readiness_error<Req>(&mut self, error: &S::Error)
    where
        S: Service<Req>,
        C: Classify<S::Response, S::Error>,
        B: BeginRecord<Req, Record: RecordOutcome<S::Response, S::Error, C>>,
    {
        let verdict = self.classify.classify(Err(error));
        let reserved = self.readiness.take_reserved().map(Reservation::begin);
        if let Some(permit) = reserved.or_else(|| Permit::if_closed(self.circuit.core())) {
            self.record.begin(None).record_error(error, permit, &verdict);
        }
    }

    #[expect(clippy::inline_always, reason = "out of line, the future is copied through memory")]
    #[inline(always)]
    fn rejected<Req>(
        &self,
        request: Req,
        rejection: Rejection,
    ) -> ResponseFuture<S::Future, C, R, B::Record, R::Future>
    where
        S: Service<Req>,
        B: BeginRecord<Req>,
        R: OnReject<Req, S::Response, S::Error>,
    {
        self.circuit.core().emit_rejection(rejection.circuit(), rejection.state());
        ResponseFuture::rejected(self.reject.reject(request, rejection))
    }

    /// Drops the reservations of the inner service and of the circuit for the next call.
    fn release_reservations(&mut self) {
        if self.readiness.has_polled()
            && let Some(renew) = self.renew
        {
            self.inner = renew(&self.inner);
        }
        self.readiness.transition_to(Readiness::Idle);
    }
}

/// The response of the service `S` after `B` has recorded its outcome.
type Recorded<B, S, Req, C> = <<B as BeginRecord<Req>>::Record as RecordOutcome<
    <S as Service<Req>>::Response,
    <S as Service<Req>>::Error,
    C,
>>::Response;

impl<S, C, R, B, Req> Service<Req> for Breaker<S, C, R, B>
where
    S: Service<Req>,
    C: Classify<S::Response, S::Error> + Clone,
    B: BeginRecord<Req, Record: RecordOutcome<S::Response, S::Error, C>>,
    R: OnReject<Req, S::Response, S::Error> + ResponseMode<S::Response, S::Error, Recorded<B, S, Req, C>>,
{
    type Response = <R as ResponseMode<S::Response, S::Error, Recorded<B, S, Req, C>>>::Response;
    type Error = R::Error;
    type Future = ResponseFuture<S::Future, C, R, B::Record, R::Future>;

    #[expect(clippy::inline_always, reason = "out of line, the result is copied through memory")]
    #[inline(always)]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        if self.readiness.holds_nothing() && self.circuit.core().is_closed() {
            // Set before the inner service is polled, because that poll may panic.
            self.readiness.overwrite(Readiness::Ready);
            let ready = self.inner.poll_ready(cx);
            if let Poll::Ready(Ok(())) = ready {
                return ready.map_err(R::inner);
            }
            return self.poll_ready_slow_path(Some(ready), cx);
        }
        if !self.not_ready_when_open
            && let Some(left) = self.circuit.core().remaining_open()
        {
            if !matches!(self.readiness, Readiness::Idle | Readiness::Open(_)) {
                self.release_reservations();
            }
            self.readiness.overwrite(Readiness::Open(left));
            return Poll::Ready(Ok(()));
        }
        self.poll_ready_slow_path(None, cx)
    }

    #[expect(clippy::inline_always, reason = "out of line, the future is copied through memory")]
    #[inline(always)]
    fn call(&mut self, request: Req) -> Self::Future {
        if let Readiness::Open(left) = self.readiness {
            self.readiness.overwrite(Readiness::Idle);
            return self.rejected(request, self.circuit.open_rejection(left));
        }
        let permit = match self.acquire_closed() {
            Some(permit) => permit,
            None => match self.acquire() {
                Ok(permit) => permit,
                Err(denied) => return self.rejected(request, self.circuit.rejection(denied)),
            },
        };
        self.begin(permit, request)
    }
}

/// Passes on the load of the inner service.
#[cfg(feature = "tower")]
impl<S: tower::load::Load, C, R, B> tower::load::Load for Breaker<S, C, R, B> {
    type Metric = S::Metric;

    fn load(&self) -> S::Metric {
        self.inner.load()
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
            self.record.clone(),
            self.not_ready_when_open,
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
