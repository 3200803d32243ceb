//! A body that is judged at its end.

use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Buf;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::end::{BodyEnd, How, OnEnd};
use super::mode::JudgeEnd;
use super::watch::{Unwatched, Watch};
use crate::classify::AsError;
use crate::fault::Verdict;
use crate::upload::{self, Source, Waiting};

pin_project! {
    /// A response's body, which tells a hook at its end what the call came to.
    ///
    /// Frames, trailers, size hint and [`is_end_stream`](Body::is_end_stream) are the inner body's. Nothing is buffered, and no frame costs
    /// an allocation. The hook is called exactly once:
    ///
    /// | when | the verdict |
    /// |---|---|
    /// | the trailers have come, or the end without any | gRPC: that of `grpc-status`, UNKNOWN without one; else a success |
    /// | reading fails | that of the error, of a request that was processed: never sent again if it is gRPC's, else if it is idempotent |
    /// | what watches the data has seen enough (an `error` event) | its own |
    /// | the body is dropped before its end | kind `cancelled`: neutral, never to be sent again |
    /// | it is dropped and was never asked for anything | gRPC: as above, for its trailers are unknown; else a success: the head was one, and nobody wanted more |
    /// | reading panics | kind `unknown`: a failure, told when the body is dropped |
    ///
    /// If an [`UploadLayer`](crate::upload::UploadLayer) tracks the request's body, an error is
    /// judged in the light of it: the error is the caller's if that body has failed, and a timeout
    /// is not the server's while that body waits for its source.
    ///
    /// A body that says that it has ended when its last data comes is judged then, for its reader may not ask again. One of gRPC waits for its
    /// trailers, or for the end of the reading: not every body knows of trailers before they come.
    pub struct JudgedBody<B: Body, H: OnEnd, C, W = Unwatched>
    where
        W: Watch<B::Data>,
    {
        #[pin]
        inner: B,
        watch: W,
        open: Option<Open<B::Error, H, C>>,
        polling: bool,
        asked: bool,
    }

    impl<B: Body, H: OnEnd, C, W> PinnedDrop for JudgedBody<B, H, C, W>
    where
        W: Watch<B::Data>,
    {
        fn drop(this: Pin<&mut Self>) {
            let this = this.project();
            if *this.polling {
                settle(this.open, |_| How::Panicked);
            } else if this.inner.is_end_stream()
                || (!*this.asked && this.open.as_ref().is_some_and(|open| !open.grpc))
            {
                // Its reader knew the end when it saw it, and asked no more; or wanted no more than the head.
                complete(this.open, this.watch, None);
            } else {
                settle(this.open, |_| How::Dropped);
            }
        }
    }
}

/// What is needed to judge the end that has not come yet.
struct Open<E, H, C> {
    hook: H,
    classify: C,
    judge: JudgeEnd<C>,
    as_error: fn(&E) -> &(dyn Error + 'static),
    grpc: bool,
    /// The source of the request's body.
    upload: Source,
}

/// Tells the hook how the body ended, unless it was told before.
fn settle<'a, E, H: OnEnd, C>(open: &mut Option<Open<E, H, C>>, how: impl FnOnce(&Open<E, H, C>) -> How<'a>) {
    if let Some(open) = open.take() {
        let _note = Waiting::of(&open.upload);
        let end = BodyEnd::new(how(&open), open.grpc);
        let verdict = (open.judge)(&open.classify, &end);
        match end.how() {
            How::Dropped => open.hook.on_drop(verdict),
            _ => open.hook.on_end(verdict),
        }
    }
}

/// Tells the hook that the body is complete, or what has been seen in it.
fn complete<E, H: OnEnd, C, D>(
    open: &mut Option<Open<E, H, C>>,
    watch: &mut impl Watch<D>,
    trailers: Option<&HeaderMap>,
) {
    match watch.end() {
        Some(verdict) => tell(open, verdict),
        None => settle(open, |_| How::Complete(trailers)),
    }
}

/// Tells the hook what is known already, unless it was told before.
fn tell<E, H: OnEnd, C>(open: &mut Option<Open<E, H, C>>, verdict: Verdict) {
    if let Some(open) = open.take() {
        open.hook.on_end(verdict);
    }
}

impl<B: Body, H: OnEnd, C, W: Watch<B::Data>> JudgedBody<B, H, C, W> {
    /// A body whose end `judge` judges by `classify`. `grpc`: it is that of a gRPC call, which must end in a `grpc-status`.
    #[inline]
    pub fn new<K>(inner: B, watch: W, grpc: bool, hook: H, classify: C, judge: JudgeEnd<C>) -> Self
    where
        B::Error: AsError<K>,
    {
        let open =
            Open { hook, classify, judge, as_error: B::Error::as_error, grpc, upload: upload::source() };
        let mut body = Self { inner, watch, open: Some(open), polling: false, asked: false };
        // gRPC's end is in its trailers, and not every body knows of them before they come.
        if !grpc && body.inner.is_end_stream() {
            settle(&mut body.open, |_| How::Complete(None));
        }
        body
    }

    /// A body on whose call the head had the last word.
    pub fn settled(inner: B, watch: W) -> Self {
        Self { inner, watch, open: None, polling: false, asked: false }
    }
}

impl<B, H, C, W> Body for JudgedBody<B, H, C, W>
where
    B: Body,
    H: OnEnd,
    W: Watch<B::Data>,
{
    type Data = B::Data;
    type Error = B::Error;

    #[inline]
    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let mut this = self.project();
        *this.polling = true;
        *this.asked = true;
        let polled = this.inner.as_mut().poll_frame(cx);
        *this.polling = false;
        if this.open.is_some()
            && let Poll::Ready(frame) = &polled
        {
            match frame {
                None => complete(this.open, this.watch, None),
                Some(Err(error)) => settle(this.open, |open| How::Failed((open.as_error)(error))),
                Some(Ok(frame)) => {
                    if frame.data_ref().is_some_and(Buf::has_remaining)
                        && let Some(open) = this.open
                    {
                        open.hook.on_data();
                    }
                    if let Some(trailers) = frame.trailers_ref() {
                        complete(this.open, this.watch, Some(trailers));
                    } else if let Some(verdict) = frame.data_ref().and_then(|data| this.watch.data(data)) {
                        tell(this.open, verdict);
                    } else if this.inner.is_end_stream() && this.open.as_ref().is_some_and(|open| !open.grpc)
                    {
                        complete(this.open, this.watch, None);
                    }
                }
            }
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

impl<B: Body + fmt::Debug, H: OnEnd, C, W: Watch<B::Data>> fmt::Debug for JudgedBody<B, H, C, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JudgedBody")
            .field("inner", &self.inner)
            .field("settled", &self.open.is_none())
            .finish_non_exhaustive()
    }
}
