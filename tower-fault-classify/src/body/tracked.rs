//! A response body that is classified at its end.

use std::error::Error;
use std::fmt;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};
#[cfg(feature = "tokio")]
use std::time::Duration;

use bytes::Buf;
use http::{HeaderMap, StatusCode};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::end::{BodyEnd, ClassifyEnd, EndReason, OnEnd};
#[cfg(feature = "tokio")]
use super::idle::IdleLimit;
use super::idle::{Idle, NoIdleLimit};
use super::mode::{Track, sealed};
use super::replace::{ReplaceBody, TakeBody};
use crate::error::{AsError, TypedError};
use crate::fault::Verdict;
use crate::grpc;
use crate::telemetry::Reporter;
use crate::upload::{self, UploadGuard, UploadSource};

/// A body mode that calls a hook at the end of each response's body.
///
/// [`track_body`](crate::FaultClassifyLayer::track_body) creates it.
pub struct TrackBody<H, W = NoInspector, K = TypedError, I = NoIdleLimit> {
    hook: H,
    inspector: W,
    idle: I,
    kind: PhantomData<fn() -> K>,
}

impl<H, W, K> TrackBody<H, W, K> {
    pub(crate) const fn new(hook: H, inspector: W) -> Self {
        Self { hook, inspector, idle: NoIdleLimit, kind: PhantomData }
    }
}

impl<H, W, K, I> TrackBody<H, W, K, I> {
    /// Sets the inspector of the body's data.
    #[cfg(feature = "llm")]
    pub(crate) fn with_inspector<V>(self, inspector: V) -> TrackBody<H, V, K, I> {
        TrackBody { hook: self.hook, inspector, idle: self.idle, kind: PhantomData }
    }

    /// Sets the idle limit of the bodies.
    #[cfg(feature = "tokio")]
    pub(crate) fn idle_limit(self, limit: Duration) -> TrackBody<H, W, K, IdleLimit> {
        let Self { hook, inspector, .. } = self;
        TrackBody { hook, inspector, idle: IdleLimit::new(limit), kind: PhantomData }
    }
}

impl<H, W, K, I> sealed::Sealed for TrackBody<H, W, K, I> {}

impl<Res, C, H, W, K, I> Track<Res, C> for TrackBody<H, W, K, I>
where
    C: Clone,
    H: OnEnd + Clone,
    I: Idle,
    W: DataInspector<<Res::Body as Body>::Data>,
    Res: TakeBody + ReplaceBody<TrackedBody<<Res as TakeBody>::Body, ObservedHook<H>, C, W, I>>,
    <Res::Body as Body>::Error: AsError<K>,
{
    type Response = <Res as ReplaceBody<TrackedBody<Res::Body, ObservedHook<H>, C, W, I>>>::Response;

    #[inline]
    fn track(
        &self,
        response: Res,
        head: Verdict,
        classify: &C,
        classify_end: ClassifyEnd<C>,
        reporter: Reporter,
    ) -> Self::Response {
        // A fault of the head has already been reported.
        let reporter = head.is_success().then_some(reporter);
        let hook = ObservedHook { hook: self.hook.clone(), reporter, status: response.status() };
        let inspector = self.inspector.start(response.headers());
        track_response(response, head, inspector, self.idle.begin(), hook, classify, classify_end)
    }
}

/// Wraps a response's body in a [`TrackedBody`] that calls `hook` at its end.
///
/// If the head decides, because it is a fault or contains gRPC's status, `hook` is called before
/// this function returns. `inspector` gets the data of the body. `idle` is its idle limit.
#[inline]
pub fn track_response<Res, H, C, W, K, I>(
    response: Res,
    head: Verdict,
    inspector: W,
    idle: I,
    hook: H,
    classify: &C,
    classify_end: ClassifyEnd<C>,
) -> <Res as ReplaceBody<TrackedBody<Res::Body, H, C, W, I>>>::Response
where
    C: Clone,
    H: OnEnd,
    I: Idle,
    W: DataInspector<<Res::Body as Body>::Data>,
    Res: TakeBody + ReplaceBody<TrackedBody<<Res as TakeBody>::Body, H, C, W, I>>,
    <Res::Body as Body>::Error: AsError<K>,
{
    let grpc = response.headers().filter(|headers| grpc::is_grpc(headers));
    let ended = !head.is_success() || grpc.is_some_and(|headers| grpc::code_in(headers).is_some());
    let grpc = grpc.is_some();
    if ended {
        hook.on_end(head);
        response.map_body(TrackedBody::finished)
    } else {
        response.map_body(|body| {
            TrackedBody::new(body, inspector, idle, grpc, hook, classify.clone(), classify_end)
        })
    }
}

impl<H: Clone, W: Clone, K, I: Clone> Clone for TrackBody<H, W, K, I> {
    fn clone(&self) -> Self {
        let Self { hook, inspector, idle, .. } = self;
        let (hook, inspector, idle) = (hook.clone(), inspector.clone(), idle.clone());
        Self { hook, inspector, idle, kind: PhantomData }
    }
}

impl<H, W, K, I> fmt::Debug for TrackBody<H, W, K, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TrackBody")
    }
}

/// A hook that reports the fault and then calls the inner hook.
///
/// The fault is reported with the features `metrics` and `tracing`.
#[derive(Clone, Copy, Debug)]
pub struct ObservedHook<H> {
    hook: H,
    reporter: Option<Reporter>,
    status: Option<StatusCode>,
}

impl<H> ObservedHook<H> {
    /// Reports the fault, and returns the hook.
    fn emit(self, verdict: Verdict) -> H {
        if let (Some(fault), Some(reporter)) = (verdict.fault(), self.reporter) {
            reporter.emit(fault, self.status);
        }
        self.hook
    }
}

impl<H: OnEnd> OnEnd for ObservedHook<H> {
    #[inline]
    fn on_data(&mut self) {
        self.hook.on_data();
    }

    fn on_end(self, verdict: Verdict) {
        self.emit(verdict).on_end(verdict);
    }

    fn on_error(self, verdict: Verdict, error: &(dyn Error + 'static)) {
        self.emit(verdict).on_error(verdict, error);
    }

    fn on_drop(self, verdict: Verdict) {
        self.emit(verdict).on_drop(verdict);
    }
}

pin_project! {
    /// A response's body that calls a hook with the verdict on the call when it ends.
    ///
    /// Frames, trailers, size hint and [`is_end_stream`](Body::is_end_stream) are those of the
    /// inner body. Nothing is buffered, and no frame costs an allocation.
    ///
    /// The hook is called exactly once:
    ///
    /// | when | verdict |
    /// |---|---|
    /// | the body ends, with or without trailers | gRPC: that of `grpc-status`, UNKNOWN without one; otherwise a success |
    /// | reading fails | that of the error. The request counts as processed: a gRPC call is never retried, another request at most if it is idempotent |
    /// | the inspector returns a verdict, such as on an error or the last event of an LLM API | that verdict |
    /// | the body has been pending for longer than its idle limit ([`EndReason::Stalled`]) | kind `timeout`, a failure, never retried. The body itself continues |
    /// | the body is dropped before its end | kind `cancelled`, neutral, never retried |
    /// | the body is dropped and was never polled | gRPC: kind `cancelled` as above, because its trailers are unknown; otherwise a success, because the head was a success |
    /// | reading panics | kind `unknown`, a failure; the hook is called when the body is dropped |
    ///
    /// If an [`UploadLayer`](crate::upload::UploadLayer) tracks the request's body, that body's
    /// progress is taken into account. An error is the caller's fault if the request's body has
    /// failed. A timeout does not count against the server while the request's body waits for its
    /// source.
    ///
    /// A body may report with its last data that it has ended. It is then classified immediately,
    /// because its reader may not poll it again. A gRPC body is classified at its trailers or at
    /// the end of the reading, because not every body knows about trailers before they arrive.
    pub struct TrackedBody<B: Body, H: OnEnd, C, W = NoInspector, I = NoIdleLimit>
    where
        W: DataInspector<B::Data>,
    {
        #[pin]
        inner: B,
        idle: I,
        unfinished: Option<Unfinished<B::Error, H, C, W>>,
        in_poll: bool,
        polled_once: bool,
    }

    impl<B: Body, H: OnEnd, C, W, I> PinnedDrop for TrackedBody<B, H, C, W, I>
    where
        W: DataInspector<B::Data>,
    {
        fn drop(this: Pin<&mut Self>) {
            let this = this.project();
            if *this.in_poll {
                finish(this.unfinished, |_| EndReason::Panicked);
            } else if this.inner.is_end_stream()
                || (!*this.polled_once && this.unfinished.as_ref().is_some_and(|unfinished| !unfinished.grpc))
            {
                // The reader saw `is_end_stream` and stopped polling, or needed only the head.
                finish_complete(this.unfinished, None);
            } else {
                finish(this.unfinished, |_| EndReason::Dropped);
            }
        }
    }
}

/// The state that classifies the end, until the body has ended.
struct Unfinished<E, H, C, W> {
    hook: H,
    inspector: W,
    classify: C,
    classify_end: ClassifyEnd<C>,
    as_error: fn(&E) -> &(dyn Error + 'static),
    grpc: bool,
    /// The source of the request's body.
    upload: UploadSource,
}

/// Calls the hook with the verdict on the end, unless it was called before.
fn finish<'a, E, H: OnEnd, C, W>(
    unfinished: &mut Option<Unfinished<E, H, C, W>>,
    how: impl FnOnce(&Unfinished<E, H, C, W>) -> EndReason<'a>,
) {
    if let Some(unfinished) = unfinished.take() {
        let _note = UploadGuard::of(&unfinished.upload);
        let end = BodyEnd::new(how(&unfinished), unfinished.grpc);
        let verdict = (unfinished.classify_end)(&unfinished.classify, &end);
        match end.reason() {
            EndReason::Dropped => unfinished.hook.on_drop(verdict),
            EndReason::Failed(error) => unfinished.hook.on_error(verdict, error),
            _ => unfinished.hook.on_end(verdict),
        }
    }
}

/// Calls the hook with the inspector's verdict, or else with the verdict on a complete body.
fn finish_complete<E, H: OnEnd, C, D, W: DataInspector<D>>(
    unfinished: &mut Option<Unfinished<E, H, C, W>>,
    trailers: Option<&HeaderMap>,
) {
    match unfinished.as_mut().and_then(|unfinished| unfinished.inspector.finish()) {
        Some(verdict) => report(unfinished, verdict),
        None => finish(unfinished, |_| EndReason::Complete(trailers)),
    }
}

/// Calls the hook with a verdict, unless it was called before.
fn report<E, H: OnEnd, C, W>(unfinished: &mut Option<Unfinished<E, H, C, W>>, verdict: Verdict) {
    if let Some(unfinished) = unfinished.take() {
        unfinished.hook.on_end(verdict);
    }
}

impl<B: Body, H: OnEnd, C, W: DataInspector<B::Data>, I: Idle> TrackedBody<B, H, C, W, I> {
    /// Creates a body whose end `classify_end` classifies by `classify`.
    ///
    /// `grpc`: the body is that of a gRPC call, which must end in a `grpc-status`.
    #[inline]
    pub fn new<K>(
        inner: B,
        inspector: W,
        idle: I,
        grpc: bool,
        hook: H,
        classify: C,
        classify_end: ClassifyEnd<C>,
    ) -> Self
    where
        B::Error: AsError<K>,
    {
        let unfinished = Unfinished {
            hook,
            inspector,
            classify,
            classify_end,
            as_error: B::Error::as_error,
            grpc,
            upload: upload::current_source(),
        };
        let unfinished = Some(unfinished);
        let mut body = Self { inner, idle, unfinished, in_poll: false, polled_once: false };
        // A gRPC call ends in trailers, and not every body knows about them before they arrive.
        if !grpc && body.inner.is_end_stream() {
            finish(&mut body.unfinished, |_| EndReason::Complete(None));
        }
        body
    }

    /// Creates a body that calls no hook, because the head of its response has decided.
    pub fn finished(inner: B) -> Self {
        Self { inner, idle: I::default(), unfinished: None, in_poll: false, polled_once: false }
    }
}

impl<B, H, C, W, I> Body for TrackedBody<B, H, C, W, I>
where
    B: Body,
    H: OnEnd,
    I: Idle,
    W: DataInspector<B::Data>,
{
    type Data = B::Data;
    type Error = B::Error;

    #[inline]
    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let mut this = self.project();
        *this.in_poll = true;
        *this.polled_once = true;
        let polled = this.inner.as_mut().poll_frame(cx);
        *this.in_poll = false;
        if this.unfinished.is_none() {
            return polled;
        }
        if let Poll::Ready(frame) = &polled {
            this.idle.on_frame();
            match frame {
                None => finish_complete(this.unfinished, None),
                Some(Err(error)) => {
                    finish(this.unfinished, |unfinished| EndReason::Failed((unfinished.as_error)(error)));
                }
                Some(Ok(frame)) => {
                    let found =
                        frame.data_ref().zip(this.unfinished.as_mut()).and_then(|(data, unfinished)| {
                            if data.has_remaining() {
                                unfinished.hook.on_data();
                            }
                            unfinished.inspector.inspect(data)
                        });
                    if let Some(trailers) = frame.trailers_ref() {
                        finish_complete(this.unfinished, Some(trailers));
                    } else if let Some(verdict) = found {
                        report(this.unfinished, verdict);
                    } else if this.inner.is_end_stream()
                        && this.unfinished.as_ref().is_some_and(|unfinished| !unfinished.grpc)
                    {
                        finish_complete(this.unfinished, None);
                    }
                }
            }
        } else if let Poll::Ready(limit) = this.idle.poll_stalled(cx) {
            finish(this.unfinished, |_| EndReason::Stalled(limit));
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl<B, H, C, W, I> fmt::Debug for TrackedBody<B, H, C, W, I>
where
    B: Body + fmt::Debug,
    H: OnEnd,
    W: DataInspector<B::Data>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrackedBody")
            .field("inner", &self.inner)
            .field("finished", &self.unfinished.is_none())
            .finish_non_exhaustive()
    }
}

/// Inspects the data of a response's body, and may return a verdict before the body ends.
///
/// A layer holds one inspector with its settings, and starts another one for each response.
pub trait DataInspector<D>: Sized {
    /// Creates the inspector of one response, with the settings of this inspector.
    ///
    /// `headers` are the response's headers, or `None` for a response type without headers.
    #[must_use]
    fn start(&self, headers: Option<&HeaderMap>) -> Self;

    /// Inspects the data of one frame. A verdict is final, and the hook is called with it.
    fn inspect(&mut self, data: &D) -> Option<Verdict>;

    /// Called at the end of the body. A verdict takes precedence over the verdict on the end.
    ///
    /// **Default**: `None`.
    fn finish(&mut self) -> Option<Verdict> {
        None
    }
}

/// An inspector that inspects nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoInspector;

impl<D> DataInspector<D> for NoInspector {
    #[inline]
    fn start(&self, _: Option<&HeaderMap>) -> Self {
        Self
    }

    #[inline]
    fn inspect(&mut self, _: &D) -> Option<Verdict> {
        None
    }
}
