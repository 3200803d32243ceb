//! Calls that are over when the response's body is.

use std::fmt;
use std::marker::PhantomData;
use std::task::Poll;
use std::time::Duration;

use http::HeaderMap;
use http_body::Body;
use tower_fault_classify::__internals::Clock;
use tower_fault_classify::body::{
    ClassifyEnd, DataInspector, NoInspector, OnEnd, ReplaceBody, TakeBody, TrackedBody, track_response,
};
use tower_fault_classify::classifiers::{AsError, TypedError};
use tower_fault_classify::{Fault, Kind, Origin, Verdict};

use crate::circuit::{CallDuration, Hold, Permit};
use crate::settle::Settle;

/// Settles at the end of the response's body; see [`track_body`](crate::BreakerLayer::track_body).
pub struct TrackBody<W = NoInspector, K = TypedError> {
    clock: Clock,
    /// In nanoseconds.
    healthy_after: u64,
    kind: PhantomData<fn() -> (W, K)>,
}

impl<W, K> TrackBody<W, K> {
    pub(crate) const fn new(clock: Clock, healthy_after: u64) -> Self {
        Self { clock, healthy_after, kind: PhantomData }
    }

    pub(crate) fn healthy_after(self, time: Duration) -> Self {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        Self { healthy_after: nanos, ..self }
    }

    /// The same, with its data watched by `V`.
    #[cfg(feature = "llm")]
    pub(crate) fn watched<V>(self) -> TrackBody<V, K> {
        TrackBody::new(self.clock, self.healthy_after)
    }
}

/// A response of which a body was tracked by a permit that holds its circuit by `H`.
type Tracked<Res, C, H, W> =
    <Res as ReplaceBody<TrackedBody<<Res as TakeBody>::Body, AtEnd<H>, C, Healthy<W>>>>::Response;

impl<Res, C, H, W, K> Settle<Res, C, H> for TrackBody<W, K>
where
    C: Clone,
    H: Hold,
    W: DataInspector<<Res::Body as Body>::Data>,
    Res: TakeBody + ReplaceBody<TrackedBody<<Res as TakeBody>::Body, AtEnd<H>, C, Healthy<W>>>,
    <Res::Body as Body>::Error: AsError<K>,
{
    type Response = Tracked<Res, C, H, W>;

    fn settle(
        &self,
        response: Res,
        permit: Permit<H>,
        verdict: &Verdict,
        classify: &C,
        judge: ClassifyEnd<C>,
    ) -> Self::Response {
        let healthy_from = self.clock.now().saturating_add(self.healthy_after);
        let watch = response.headers().map_or_else(W::default, W::of);
        let watch = Healthy { watch, limit: Some((self.clock, healthy_from)) };
        let hook = AtEnd { duration: permit.duration(), permit, answered: false };
        track_response(response, *verdict, watch, hook, classify, judge)
    }

    fn pass<E>(&self, answer: Poll<Result<Res, E>>) -> Poll<Result<Self::Response, E>> {
        answer.map_ok(|response| response.map_body(|body| TrackedBody::settled(body, Healthy::default())))
    }
}

impl<W, K> Clone for TrackBody<W, K> {
    fn clone(&self) -> Self {
        Self::new(self.clock, self.healthy_after)
    }
}

impl<W, K> fmt::Debug for TrackBody<W, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let healthy_after = Duration::from_nanos(self.healthy_after);
        f.debug_struct("TrackBody").field("healthy_after", &healthy_after).finish_non_exhaustive()
    }
}

/// Settles a permit at the end of a body.
#[derive(Debug)]
pub struct AtEnd<H: Hold> {
    permit: Permit<H>,
    /// How long the head duration: a stream that goes on for hours is not slow.
    duration: CallDuration,
    /// Whether data has come.
    answered: bool,
}

impl<H: Hold> OnEnd for AtEnd<H> {
    #[inline]
    fn on_data(&mut self) {
        self.answered = true;
    }

    fn on_end(self, verdict: Verdict) {
        self.permit.record_with_duration(&verdict, self.duration);
    }

    fn on_drop(self, verdict: Verdict) {
        // A rule may read it another way.
        let given_up = |fault: &Fault| (fault.kind(), fault.origin()) == (Kind::Cancelled, Origin::Caller);
        if !verdict.fault().is_some_and(given_up) {
            self.on_end(verdict);
        } else if self.answered {
            self.permit.record_cancelled_after_answer();
        }
        // Otherwise the permit is dropped, which records a cancelled call.
    }
}

/// Takes a stream for a success whose data still comes after a time. One without a limit never does.
#[derive(Debug, Default)]
pub struct Healthy<W> {
    watch: W,
    limit: Option<(Clock, u64)>,
}

impl<D, W: DataInspector<D>> DataInspector<D> for Healthy<W> {
    fn of(headers: &HeaderMap) -> Self {
        Self { watch: W::of(headers), limit: None }
    }

    #[inline]
    fn data(&mut self, data: &D) -> Option<Verdict> {
        let seen = self.watch.data(data);
        let healthy = || self.limit.as_ref().is_some_and(|(clock, from)| clock.now() >= *from);
        seen.or_else(|| healthy().then_some(Verdict::Success))
    }

    fn end(&mut self) -> Option<Verdict> {
        self.watch.end()
    }
}
