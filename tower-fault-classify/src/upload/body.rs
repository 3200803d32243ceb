//! A request body that notes whether it waits for its source.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::error::UploadError;
use super::progress::{FAILED, MOVING, STALLED, UploadSource};
use crate::error::BoxError;

pin_project! {
    /// The request body that an [`UploadLayer`](super::UploadLayer) tracks.
    ///
    /// Frames, trailers, size hint and [`is_end_stream`](Body::is_end_stream) are those of the
    /// inner body. Its error is an [`UploadError`].
    ///
    /// A body costs one allocation of a few bytes, even a body in memory. An empty body
    /// (`is_end_stream`) allocates nothing.
    #[derive(Debug)]
    pub struct UploadBody<B> {
        #[pin]
        inner: B,
        source: UploadSource,
    }
}

impl<B: Body> UploadBody<B> {
    fn track(inner: B) -> (Self, UploadSource) {
        let source = UploadSource::of(&inner);
        (Self { inner, source: source.clone() }, source)
    }
}

impl<B> Body for UploadBody<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    type Data = B::Data;
    type Error = UploadError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, UploadError>>> {
        let this = self.project();
        let polled = this.inner.poll_frame(cx);
        this.source.note(match &polled {
            Poll::Pending => STALLED,
            Poll::Ready(Some(Err(_))) => FAILED,
            Poll::Ready(_) => MOVING,
        });
        Poll::Ready(ready!(polled).map(|frame| frame.map_err(UploadError::new)))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// A request whose body an [`UploadLayer`](super::UploadLayer) can track.
///
/// The trait is sealed. `http::Request` implements it, and `reqwest::Request` with the feature
/// `reqwest`.
pub trait TrackUpload: sealed::Sealed {
    /// The request with a tracked body.
    type Tracked;

    #[doc(hidden)]
    fn track(self) -> sealed::Tracking<Self::Tracked>;
}

mod sealed {
    pub trait Sealed {}

    #[derive(Debug)]
    pub struct Tracking<R>(pub(in crate::upload) R, pub(in crate::upload) super::UploadSource);
}

pub(super) use sealed::Tracking;

impl<B> sealed::Sealed for http::Request<B> {}

impl<B: Body> TrackUpload for http::Request<B> {
    type Tracked = http::Request<UploadBody<B>>;

    fn track(self) -> Tracking<Self::Tracked> {
        let (parts, body) = self.into_parts();
        let (body, source) = UploadBody::track(body);
        Tracking(http::Request::from_parts(parts, body), source)
    }
}

#[cfg(feature = "reqwest")]
impl sealed::Sealed for reqwest::Request {}

/// A body in memory is not wrapped: reqwest must be able to clone it when it follows a redirect.
#[cfg(feature = "reqwest")]
impl TrackUpload for reqwest::Request {
    type Tracked = Self;

    fn track(mut self) -> Tracking<Self> {
        let streams = self.body().is_some_and(|body| body.as_bytes().is_none());
        let Some(body) = self.body_mut().take_if(|_| streams) else {
            return Tracking(self, UploadSource::default());
        };
        let (body, source) = UploadBody::track(body);
        *self.body_mut() = Some(reqwest::Body::wrap(body));
        Tracking(self, source)
    }
}
