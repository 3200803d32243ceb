//! When the outcome of a call is recorded: at the response's head, or at the end of its body.
//!
//! | item | |
//! |---|---|
//! | [`OnHead`] | the default: records the outcome when the head arrives, before the body is read |
//! | [`OnBodyEnd`] | records the outcome at the end of the body; set by [`track_body`](crate::BreakerLayer::track_body) |
//! | [`RecordMode`], [`BeginRecord`], [`RecordOutcome`] | the traits that both implement, sealed |
//! | [`RecordAtEnd`], [`HealthyAfter`] | parts of the type of a tracked body |

use std::any::type_name;
use std::error::Error;
use std::fmt;
use std::marker::PhantomData;
use std::task::Poll;
use std::time::Duration;

use http::HeaderMap;
use http_body::Body;
use tower_fault_classify::__internals::Clock;
#[cfg(feature = "tokio")]
use tower_fault_classify::body::IdleLimit;
use tower_fault_classify::body::{
    ClassifyEnd, DataInspector, Idle, NoIdleLimit, NoInspector, OnEnd, ReplaceBody, TakeBody, TrackedBody,
    track_response,
};
use tower_fault_classify::classifiers::{AsError, TypedError};
use tower_fault_classify::{Fault, Kind, Origin, Verdict};

use crate::circuit::{CallDuration, CircuitRef, Permit};
pub use crate::future::{BeginRecord, OnHead, RecordMode, RecordOutcome};
use crate::sealed::Sealed;
use crate::telemetry::{KeepError, KeepFailure, LastFailureMode, NoLastFailure};

/// Records the outcome at the end of the response's body.
///
/// Set by [`track_body`](crate::BreakerLayer::track_body). `L` determines whether the last failure
/// is kept.
pub struct OnBodyEnd<W = NoInspector, K = TypedError, L = NoLastFailure, I = NoIdleLimit> {
    clock: Clock,
    /// In nanoseconds.
    healthy_after: u64,
    last_failure: L,
    inspector: W,
    idle: I,
    kind: PhantomData<fn() -> K>,
}

impl<W, K, L> OnBodyEnd<W, K, L> {
    pub(crate) const fn new(clock: Clock, healthy_after: u64, last_failure: L, inspector: W) -> Self {
        Self { clock, healthy_after, last_failure, inspector, idle: NoIdleLimit, kind: PhantomData }
    }
}

impl<W, K, L, I> OnBodyEnd<W, K, L, I> {
    pub(crate) fn healthy_after(self, time: Duration) -> Self {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        Self { healthy_after: nanos, ..self }
    }

    /// Sets the inspector of the bodies' data.
    #[cfg(feature = "llm")]
    pub(crate) fn with_inspector<V>(self, inspector: V) -> OnBodyEnd<V, K, L, I> {
        let Self { clock, healthy_after, last_failure, idle, .. } = self;
        OnBodyEnd { clock, healthy_after, last_failure, inspector, idle, kind: PhantomData }
    }

    /// Sets the idle limit of the bodies.
    #[cfg(feature = "tokio")]
    pub(crate) fn idle_limit(self, limit: Duration) -> OnBodyEnd<W, K, L, IdleLimit> {
        let Self { clock, healthy_after, last_failure, inspector, .. } = self;
        let idle = IdleLimit::new(limit);
        OnBodyEnd { clock, healthy_after, last_failure, inspector, idle, kind: PhantomData }
    }
}

impl<W, K, L, I> Sealed for OnBodyEnd<W, K, L, I> {}

impl<W, K, L, I> RecordMode for OnBodyEnd<W, K, L, I> {
    type With<M> = OnBodyEnd<W, K, M, I>;

    fn with_last_failure<M>(self, last_failure: M) -> OnBodyEnd<W, K, M, I> {
        let Self { clock, healthy_after, inspector, idle, .. } = self;
        OnBodyEnd { clock, healthy_after, last_failure, inspector, idle, kind: PhantomData }
    }
}

impl<Req, W: Clone, K, L: LastFailureMode<Req>, I: Idle> BeginRecord<Req> for OnBodyEnd<W, K, L, I> {
    type Record = OnBodyEnd<W, K, L::Call, I>;

    #[inline]
    fn begin(&self, request: Option<&Req>) -> Self::Record {
        OnBodyEnd {
            clock: self.clock,
            healthy_after: self.healthy_after,
            last_failure: self.last_failure.begin(request),
            inspector: self.inspector.clone(),
            idle: self.idle.begin(),
            kind: PhantomData,
        }
    }
}

/// The response with a tracked body. `H` is how the permit refers to its circuit.
type Tracked<Res, C, H, W, L, I> = <Res as ReplaceBody<
    TrackedBody<<Res as TakeBody>::Body, RecordAtEnd<H, L>, C, HealthyAfter<W>, I>,
>>::Response;

impl<Res, E, C, H, W, K, L, I> RecordOutcome<Res, E, C, H> for OnBodyEnd<W, K, L, I>
where
    C: Clone,
    H: CircuitRef,
    I: Idle,
    L: KeepError<E>,
    W: DataInspector<<Res::Body as Body>::Data>,
    Res: TakeBody
        + ReplaceBody<TrackedBody<<Res as TakeBody>::Body, RecordAtEnd<H, L>, C, HealthyAfter<W>, I>>,
    <Res::Body as Body>::Error: AsError<K>,
{
    type Response = Tracked<Res, C, H, W, L, I>;

    fn record(
        &mut self,
        response: Res,
        permit: Permit<H>,
        verdict: &Verdict,
        classify: &C,
        classify_end: ClassifyEnd<C>,
    ) -> Self::Response {
        let healthy_at = self.clock.now().saturating_add(self.healthy_after);
        let inspector = self.inspector.start(response.headers());
        let inspector = HealthyAfter { inspector, limit: Some((self.clock, healthy_at)) };
        let hook = RecordAtEnd {
            duration: permit.duration(),
            permit,
            answered: false,
            last_failure: self.last_failure.take(),
            types: || (type_name::<Res>(), <Res::Body as Body>::Error::error_type()),
        };
        track_response(response, *verdict, inspector, self.idle.begin(), hook, classify, classify_end)
    }

    fn record_error(&self, error: &E, permit: Permit<H>, verdict: &Verdict) {
        self.last_failure.keep_error(&permit, verdict, error);
        permit.record_by_ref(verdict);
    }

    fn pass<A>(answer: Poll<Result<Res, A>>) -> Poll<Result<Self::Response, A>> {
        answer.map_ok(|response| response.adapt_body(TrackedBody::finished))
    }
}

impl<W: Clone, K, L: Clone, I: Clone> Clone for OnBodyEnd<W, K, L, I> {
    fn clone(&self) -> Self {
        Self {
            clock: self.clock,
            healthy_after: self.healthy_after,
            last_failure: self.last_failure.clone(),
            inspector: self.inspector.clone(),
            idle: self.idle.clone(),
            kind: PhantomData,
        }
    }
}

impl<W, K, L: fmt::Debug, I: fmt::Debug> fmt::Debug for OnBodyEnd<W, K, L, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let healthy_after = Duration::from_nanos(self.healthy_after);
        f.debug_struct("OnBodyEnd")
            .field("healthy_after", &healthy_after)
            .field("last_failure", &self.last_failure)
            .field("idle", &self.idle)
            .finish_non_exhaustive()
    }
}

/// Records the outcome of a call at the end of its body. Part of the type of a tracked body.
#[derive(Debug)]
pub struct RecordAtEnd<H: CircuitRef, L = NoLastFailure> {
    permit: Permit<H>,
    /// The time to the head. Slow calls are classified by this time, so that a long stream is not
    /// slow.
    duration: CallDuration,
    /// Whether the body has delivered data.
    answered: bool,
    last_failure: L,
    /// Returns the name of the response's type, and the name of the body's error type, if known.
    types: fn() -> (&'static str, Option<&'static str>),
}

impl<H: CircuitRef, L: KeepFailure> OnEnd for RecordAtEnd<H, L> {
    #[inline]
    fn on_data(&mut self) {
        self.answered = true;
    }

    fn on_end(self, verdict: Verdict) {
        let (response, _) = (self.types)();
        self.last_failure.keep_response(&self.permit, &verdict, response);
        self.permit.record_measured(&verdict, self.duration);
    }

    fn on_error(self, verdict: Verdict, error: &(dyn Error + 'static)) {
        let (_, error_type) = (self.types)();
        self.last_failure.keep_dyn_error(&self.permit, &verdict, error, error_type);
        self.permit.record_measured(&verdict, self.duration);
    }

    fn on_drop(self, verdict: Verdict) {
        // The user's rule may classify a dropped body differently.
        let is_cancelled_by_caller =
            |fault: &Fault| (fault.kind(), fault.origin()) == (Kind::Cancelled, Origin::Caller);
        if !verdict.fault().is_some_and(is_cancelled_by_caller) {
            self.on_end(verdict);
        } else if self.answered {
            self.permit.record_cancelled_after_answer();
        }
        // Otherwise the permit is dropped, which records a cancelled call.
    }
}

/// Classifies a stream that still delivers data after a time as a success.
///
/// Part of the type of a tracked body. Without a limit, it never does.
#[derive(Debug)]
pub struct HealthyAfter<W> {
    inspector: W,
    limit: Option<(Clock, u64)>,
}

impl<D, W: DataInspector<D>> DataInspector<D> for HealthyAfter<W> {
    fn start(&self, headers: Option<&HeaderMap>) -> Self {
        Self { inspector: self.inspector.start(headers), limit: self.limit }
    }

    #[inline]
    fn inspect(&mut self, data: &D) -> Option<Verdict> {
        let verdict = self.inspector.inspect(data);
        let is_healthy = || self.limit.as_ref().is_some_and(|(clock, at)| clock.now() >= *at);
        verdict.or_else(|| is_healthy().then_some(Verdict::Success))
    }

    fn finish(&mut self) -> Option<Verdict> {
        self.inspector.finish()
    }
}
