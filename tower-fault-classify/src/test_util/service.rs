//! The service and its future.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::Extensions;
use pin_project_lite::pin_project;
use tokio::time::Sleep;
use tower_service::Service;

use super::body::InjectedBody;
use super::injection::{Action, BodyFault, Injection};
use super::layer::{AllRequests, BoxErrors, ErrorType, MatchRequest};
use super::schedule::{Calls, Plan};
use crate::body::{ReplaceBody, TakeBody};

/// A service that injects faults into some calls to its inner service.
///
/// [`FaultInjectionLayer`](super::FaultInjectionLayer) creates it, and has the settings.
///
/// # Response and error
///
/// | inner service | this service |
/// |---|---|
/// | `http::Response<B>` | `http::Response<InjectedBody<B>>` |
/// | `reqwest::Response` (feature `reqwest`) | `reqwest::Response` |
/// | any error that converts into that of this service | [`BoxError`](crate::BoxError), or the type of [`typed`](super::FaultInjectionLayer::typed) |
///
/// # Readiness
///
/// `poll_ready` polls the inner service, also before a call that gets a fault.
///
/// A call that is not passed on does not use the inner service. Its reservation, such as a permit
/// of a `ConcurrencyLimit`, is released immediately: a clone replaces the inner service. A delayed
/// call keeps its reservation during the delay, as a call to a slow server does.
///
/// # Cancellation
///
/// Dropping the future drops the inner call. A call that is dropped during its delay is not passed
/// on.
///
/// # Panics
///
/// `call` panics outside a tokio runtime with its timer enabled, if the call has a delay.
pub struct FaultInjection<S, K: ErrorType = BoxErrors, M = AllRequests> {
    inner: S,
    plan: Arc<Plan<K::Error>>,
    matches: M,
    calls: Arc<Calls>,
}

impl<S, K: ErrorType, M> FaultInjection<S, K, M> {
    pub(super) const fn new(inner: S, plan: Arc<Plan<K::Error>>, matches: M, calls: Arc<Calls>) -> Self {
        Self { inner, plan, matches, calls }
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

impl<S, K, M, Req> Service<Req> for FaultInjection<S, K, M>
where
    S: Service<Req> + Clone,
    K: ErrorType,
    S::Error: Into<K::Error>,
    S::Response: ReplaceBody<InjectedBody<<S::Response as TakeBody>::Body>>,
    M: MatchRequest<Req>,
    Req: 'static,
{
    type Response = <S::Response as ReplaceBody<InjectedBody<<S::Response as TakeBody>::Body>>>::Response;
    type Error = K::Error;
    type Future = InjectionFuture<S, Req, K>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), K::Error>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let matches = self.matches.matches(&request);
        let Some((injection, call)) = self.calls.next(&self.plan, matches) else {
            return InjectionFuture::calling(self.inner.call(request), None);
        };
        let delay = self.plan.schedule.delay(call, injection.delay);
        if matches!(injection.action, Action::Pass) && delay.is_zero() {
            return InjectionFuture::calling(self.inner.call(request), injection.body);
        }
        // Readiness belongs to this service, and not to its clone.
        let clone = self.inner.clone();
        let ready = std::mem::replace(&mut self.inner, clone);
        let next = match injection.action {
            Action::Pass => Next::Call { service: ready, request, body: injection.body },
            Action::Hang => Next::Hang,
            Action::Respond(_) | Action::Fail(_) => {
                Next::End { injection: injection.clone(), extensions: extensions_for(&request) }
            }
        };
        InjectionFuture::delayed(delay, next)
    }
}

/// Returns the extensions of an injected response: for reqwest, the URL that it came from.
///
/// A retry layer compares this URL with the request's URL to find out whether a redirect was
/// followed.
fn extensions_for<Req: 'static>(request: &Req) -> Extensions {
    #[cfg(feature = "reqwest")]
    if let Some(request) = (request as &dyn std::any::Any).downcast_ref::<reqwest::Request>() {
        use reqwest::ResponseBuilderExt;

        let head = http::Response::builder().url(request.url().clone()).body(());
        return head.map(|head| head.into_parts().0.extensions).unwrap_or_default();
    }
    let _ = request;
    Extensions::new()
}

pin_project! {
    /// The response future of [`FaultInjection`].
    pub struct InjectionFuture<S: Service<Req>, Req, K: ErrorType = BoxErrors> {
        #[pin]
        state: State<S::Future>,
        // What follows the delay.
        next: Option<Next<S, Req, K::Error>>,
        body: Option<BodyFault>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F> {
        Ready,
        Delayed { #[pin] sleep: Sleep },
        Calling { #[pin] inner: F },
    }
}

enum Next<S, Req, E> {
    Call { service: S, request: Req, body: Option<BodyFault> },
    End { injection: Injection<E>, extensions: Extensions },
    Hang,
}

impl<S: Service<Req>, Req, K: ErrorType> InjectionFuture<S, Req, K> {
    const fn calling(inner: S::Future, body: Option<BodyFault>) -> Self {
        Self { state: State::Calling { inner }, next: None, body }
    }

    fn delayed(delay: Duration, next: Next<S, Req, K::Error>) -> Self {
        let state = match delay {
            Duration::ZERO => State::Ready,
            delay => State::Delayed { sleep: tokio::time::sleep(delay) },
        };
        Self { state, next: Some(next), body: None }
    }
}

impl<S, Req, K> Future for InjectionFuture<S, Req, K>
where
    S: Service<Req>,
    K: ErrorType,
    S::Error: Into<K::Error>,
    S::Response: ReplaceBody<InjectedBody<<S::Response as TakeBody>::Body>>,
{
    type Output = Result<
        <S::Response as ReplaceBody<InjectedBody<<S::Response as TakeBody>::Body>>>::Response,
        K::Error,
    >;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            match this.state.as_mut().project() {
                StateProj::Ready => {}
                StateProj::Delayed { sleep } => ready!(sleep.poll(cx)),
                StateProj::Calling { inner } => {
                    let response = ready!(inner.poll(cx)).map_err(Into::into)?;
                    return Poll::Ready(Ok(response.map_body(|body| InjectedBody::inner(body, *this.body))));
                }
            }
            match this.next.take() {
                Some(Next::Call { mut service, request, body }) => {
                    *this.body = body;
                    this.state.set(State::Calling { inner: service.call(request) });
                }
                Some(Next::End { injection, extensions }) => {
                    return Poll::Ready(end::<S::Response, _>(&injection, extensions));
                }
                // Nothing wakes the task.
                Some(Next::Hang) => {
                    this.state.set(State::Ready);
                    *this.next = Some(Next::Hang);
                    return Poll::Pending;
                }
                None => panic!("the future was polled after it was ready"),
            }
        }
    }
}

/// Returns the injected outcome.
fn end<Res, E>(injection: &Injection<E>, extensions: Extensions) -> Result<Res::Response, E>
where
    Res: ReplaceBody<InjectedBody<<Res as TakeBody>::Body>>,
{
    match &injection.action {
        Action::Fail(make) => Err(make()),
        Action::Respond(make) => {
            let mut response = make();
            injection.ask_for_delay(&mut response);
            let (mut head, data) = response.into_parts();
            head.extensions.extend(extensions);
            Ok(Res::from_parts(head, InjectedBody::injected(data, injection.body)))
        }
        Action::Pass | Action::Hang => unreachable!("these have no outcome of their own"),
    }
}

impl<S: Clone, K: ErrorType, M: Clone> Clone for FaultInjection<S, K, M> {
    fn clone(&self) -> Self {
        let Self { inner, plan, matches, calls } = self;
        Self::new(inner.clone(), Arc::clone(plan), matches.clone(), Arc::clone(calls))
    }
}

impl<S: fmt::Debug, K: ErrorType, M> fmt::Debug for FaultInjection<S, K, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultInjection")
            .field("inner", &self.inner)
            .field("plan", &self.plan)
            .field("calls", &self.calls)
            .finish_non_exhaustive()
    }
}

impl<S: Service<Req>, Req, K: ErrorType> fmt::Debug for InjectionFuture<S, Req, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InjectionFuture").field("body", &self.body).finish_non_exhaustive()
    }
}
