//! The layer that tracks request bodies, its service and its future.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::body::{TrackUpload, Tracking};
use super::progress::{CurrentUpload, UploadGuard, UploadSource};

/// A layer that tracks request bodies, and notes when a body waits for its source.
///
/// A timeout does not count against the server while the request's body waits for its source. The
/// [module](crate::upload) has the verdicts, and says what is tracked without this layer.
///
/// # Layer order
///
/// Put it below a retry layer, and above a breaker and a
/// [`FaultClassifyLayer`](crate::FaultClassifyLayer).
///
/// The layers below get an `http::Request<UploadBody<B>>`, or a `reqwest::Request`. A client with a
/// fixed body type (tonic's `Channel`) needs a `map_request` below that boxes the body again.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct UploadLayer;

impl UploadLayer {
    /// Creates a layer that tracks the bodies of all requests. It has no settings.
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

/// A service that tracks the bodies of requests to its inner service.
///
/// [`UploadLayer`] creates it.
#[derive(Clone, Copy, Debug)]
pub struct Upload<S> {
    inner: S,
}

impl<S> Upload<S> {
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

/// Passes on the load of the inner service.
#[cfg(feature = "tower")]
impl<S: tower::load::Load> tower::load::Load for Upload<S> {
    type Metric = S::Metric;

    fn load(&self) -> S::Metric {
        self.inner.load()
    }
}

pin_project! {
    /// The response future of [`Upload`].
    ///
    /// # Cancellation
    ///
    /// Dropping it drops the inner future. If the request's body waits for its source at that time,
    /// a breaker below does not count the call as cancelled.
    #[derive(Debug)]
    pub struct ResponseFuture<F> {
        // `None` only while this future is dropped.
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
