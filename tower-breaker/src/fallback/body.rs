//! The body of a response that may be the answer to a rejected call.

use std::pin::Pin;
use std::task::{Context, Poll};

use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

pin_project! {
    /// The inner service's body, or the empty body of an answer to a rejected call.
    ///
    /// It is the body of the responses with [`http_fallback`](crate::BreakerLayer::http_fallback)
    /// and [`grpc_fallback`](crate::BreakerLayer::grpc_fallback). Frames, trailers, size hint and
    /// [`is_end_stream`](Body::is_end_stream) are those of the inner body. The body of an answer
    /// has no frames, and its size is 0.
    ///
    /// [`Default`] is the empty body.
    #[derive(Clone, Debug)]
    pub struct FallbackBody<B> {
        #[pin]
        inner: Option<B>,
    }
}

impl<B> FallbackBody<B> {
    #[inline]
    pub(crate) const fn new(inner: B) -> Self {
        Self { inner: Some(inner) }
    }

    pub(crate) const fn empty() -> Self {
        Self { inner: None }
    }

    /// Returns the inner service's body, or `None` if the call was rejected.
    pub fn into_inner(self) -> Option<B> {
        self.inner
    }

    /// Returns a reference to the inner service's body, or `None` if the call was rejected.
    pub const fn get_ref(&self) -> Option<&B> {
        self.inner.as_ref()
    }
}

impl<B> Default for FallbackBody<B> {
    fn default() -> Self {
        Self::empty()
    }
}

impl<B: Body> Body for FallbackBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    #[inline]
    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        match self.project().inner.as_pin_mut() {
            Some(inner) => inner.poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}
