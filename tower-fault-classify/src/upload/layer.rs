//! The layer that tracks request bodies.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::body::{TrackUpload, Tracking};
use super::progress::{CurrentUpload, UploadGuard, UploadSource};

/// Tracks the bodies of requests, so that a timeout is not charged to the server while a body waits
/// for its source.
///
/// It belongs beneath a retry layer, and above a breaker and a
/// [`FaultClassifyLayer`](crate::FaultClassifyLayer). The layers beneath get an
/// `http::Request<UploadBody<B>>`, or a `reqwest::Request`. A client that fixes the type of its
/// body (tonic's `Channel`) needs a `map_request` beneath that boxes the body again.
///
/// See the [module](crate::upload) for what is tracked without it.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct UploadLayer;

impl UploadLayer {
    /// Tracks the bodies of all requests.
    pub const fn new() -> Self {
        Self
    }
}

impl<S> Layer<S> for UploadLayer {
    type Service = Upload<S>;

    fn layer(&self, inner: S) -> Upload<S> {
        Upload { inner }
    }
}

/// Tracks the bodies of requests to its inner service. Made by [`UploadLayer`].
#[derive(Clone, Copy, Debug)]
pub struct Upload<S> {
    inner: S,
}

impl<S, R> Service<R> for Upload<S>
where
    R: TrackUpload,
    S: Service<R::Tracked>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: R) -> Self::Future {
        let Tracking(request, source) = request.track();
        ResponseFuture { inner: Some(self.inner.call(request)), source }
    }
}

pin_project! {
    /// The response future of [`Upload`].
    ///
    /// Dropping it drops the inner future. If the request's body waits for its source at that time,
    /// a breaker beneath does not count the call as cancelled.
    #[derive(Debug)]
    pub struct ResponseFuture<F> {
        // `None` only while it is dropped.
        #[pin]
        inner: Option<F>,
        source: UploadSource,
    }

    impl<F> PinnedDrop for ResponseFuture<F> {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            let _note = UploadGuard::of(this.source);
            this.inner.set(None);
        }
    }
}

impl<F: Future> Future for ResponseFuture<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let _note = CurrentUpload::enter(this.source);
        match this.inner.as_pin_mut() {
            Some(inner) => inner.poll(cx),
            None => Poll::Pending,
        }
    }
}
