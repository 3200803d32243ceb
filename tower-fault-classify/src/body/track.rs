//! Telling a hook at the end of a body.

use std::fmt;
use std::marker::PhantomData;

use http::StatusCode;
use http_body::Body;

use super::end::OnEnd;
use super::judged::JudgedBody;
use super::mode::{JudgeEnd, Track};
use super::part::{PutBody, TakeBody};
use super::watch::{Unwatched, Watch};
use crate::classify::{AsError, Typed};
use crate::fault::Verdict;
use crate::grpc;
use crate::telemetry;

/// Tells a hook at the end of each response's body; see [`track_body`](crate::FaultClassifyLayer::track_body).
pub struct TrackBody<H, W = Unwatched, K = Typed> {
    hook: H,
    kind: PhantomData<fn() -> (W, K)>,
}

impl<H, W, K> TrackBody<H, W, K> {
    pub(crate) const fn new(hook: H) -> Self {
        Self { hook, kind: PhantomData }
    }

    /// The same, with its data watched by `V`.
    #[cfg(feature = "llm")]
    pub(crate) fn watched<V>(self) -> TrackBody<H, V, K> {
        TrackBody::new(self.hook)
    }
}

impl<Res, C, H, W, K> Track<Res, C> for TrackBody<H, W, K>
where
    C: Clone,
    H: OnEnd + Clone,
    W: Watch<<Res::Body as Body>::Data>,
    Res: TakeBody + PutBody<JudgedBody<<Res as TakeBody>::Body, Told<H>, C, W>>,
    <Res::Body as Body>::Error: AsError<K>,
{
    type Response = <Res as PutBody<JudgedBody<Res::Body, Told<H>, C, W>>>::Response;

    #[inline]
    fn track(&self, response: Res, head: Verdict, classify: &C, judge: JudgeEnd<C>) -> Self::Response {
        // A fault of the head was told of already.
        let tell = head.is_success();
        let hook = Told { hook: self.hook.clone(), tell, status: response.status() };
        let watch = response.headers().map_or_else(W::default, W::of);
        judge_body(response, head, watch, hook, classify, judge)
    }
}

/// Puts a [`JudgedBody`] around a response's body, whose data `watch` looks at. If the head has the last word, because it is a fault or tells gRPC's status, `hook`
/// is called here.
#[inline]
pub fn judge_body<Res, H, C, W, K>(
    response: Res,
    head: Verdict,
    watch: W,
    hook: H,
    classify: &C,
    judge: JudgeEnd<C>,
) -> <Res as PutBody<JudgedBody<Res::Body, H, C, W>>>::Response
where
    C: Clone,
    H: OnEnd,
    W: Watch<<Res::Body as Body>::Data>,
    Res: TakeBody + PutBody<JudgedBody<<Res as TakeBody>::Body, H, C, W>>,
    <Res::Body as Body>::Error: AsError<K>,
{
    let grpc = response.headers().filter(|headers| grpc::is_grpc(headers));
    let ended = !head.is_success() || grpc.is_some_and(|headers| grpc::code_in(headers).is_some());
    let grpc = grpc.is_some();
    if ended {
        hook.on_end(head);
        response.map_body(|body| JudgedBody::settled(body, watch))
    } else {
        response.map_body(|body| JudgedBody::new(body, watch, grpc, hook, classify.clone(), judge))
    }
}

impl<H: Clone, W, K> Clone for TrackBody<H, W, K> {
    fn clone(&self) -> Self {
        Self::new(self.hook.clone())
    }
}

impl<H, W, K> fmt::Debug for TrackBody<H, W, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TrackBody")
    }
}

/// A hook, after whoever listens to the layer's faults (features `metrics`, `tracing`).
#[derive(Clone, Copy, Debug)]
pub struct Told<H> {
    hook: H,
    tell: bool,
    status: Option<StatusCode>,
}

impl<H> Told<H> {
    /// Tells those who listen, and gives the hook.
    fn listened(self, verdict: Verdict) -> H {
        if let Some(fault) = verdict.fault().filter(|_| self.tell) {
            telemetry::tell(fault, self.status);
        }
        self.hook
    }
}

impl<H: OnEnd> OnEnd for Told<H> {
    #[inline]
    fn on_data(&mut self) {
        self.hook.on_data();
    }

    fn on_end(self, verdict: Verdict) {
        self.listened(verdict).on_end(verdict);
    }

    fn on_drop(self, verdict: Verdict) {
        self.listened(verdict).on_drop(verdict);
    }
}
