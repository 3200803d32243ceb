//! The service of the layer.

use std::marker::PhantomData;
use std::task::{Context, Poll};

use tower_service::Service;

use crate::body::{Head, Peek, Track};
use crate::classifiers::Auto;
use crate::classify::Classify;
use crate::error::BoxedError;
use crate::error_mode::{ErrorMode, WrapErrors};
use crate::future::{ResponseFuture, classify_and_emit};
use crate::telemetry::Reporter;

/// A service that classifies the outcomes of its inner service.
///
/// It is created by [`FaultClassifyLayer`](crate::FaultClassifyLayer), which has the settings.
///
/// # Type parameters
///
/// The defaults are those of [`FaultClassifyLayer::new`](crate::FaultClassifyLayer::new) over a
/// service with a boxed error, such as tower's `Timeout`. `FaultClassify<Timeout<Client>>` names
/// such a stack. If the inner service's error implements `Error`, write
/// `FaultClassify<Client, Auto>`.
///
/// # Readiness
///
/// The service is ready when the inner service is ready. An error of the inner service's
/// `poll_ready` is classified like the error of a call.
#[derive(Clone, Copy, Debug)]
pub struct FaultClassify<S, C = Auto<BoxedError>, M = WrapErrors, P = Head, B = Head> {
    inner: S,
    classify: C,
    peek: P,
    track: B,
    reporter: Reporter,
    errors: PhantomData<fn() -> M>,
}

impl<S, C, M, P, B> FaultClassify<S, C, M, P, B> {
    pub(crate) const fn new(inner: S, classify: C, peek: P, track: B, reporter: Reporter) -> Self {
        Self { inner, classify, peek, track, reporter, errors: PhantomData }
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
}

impl<S, C, M, P, B, Req> Service<Req> for FaultClassify<S, C, M, P, B>
where
    S: Service<Req>,
    C: Classify<S::Response, S::Error> + Clone,
    M: ErrorMode<S::Error>,
    P: Peek<S::Response, C> + Clone,
    B: Track<P::Response, C> + Clone,
{
    type Response = B::Response;
    type Error = M::Error;
    type Future = ResponseFuture<S::Future, C, M, P, B, P::Reading>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx).map_err(|error| {
            M::map_error(error, |error| {
                classify_and_emit::<C, S::Response, _>(&self.classify, self.reporter, error)
            })
        })
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let Self { classify, peek, track, reporter, .. } = self;
        let (classify, peek, track) = (classify.clone(), peek.clone(), track.clone());
        ResponseFuture::new(self.inner.call(request), classify, peek, track, *reporter)
    }
}

/// Passes on the load of the inner service.
#[cfg(feature = "tower")]
impl<S: tower::load::Load, C, M, P, B> tower::load::Load for FaultClassify<S, C, M, P, B> {
    type Metric = S::Metric;

    fn load(&self) -> S::Metric {
        self.inner.load()
    }
}
