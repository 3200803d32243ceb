//! What the test files share.

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::error::Error;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use http::{Method, Request, Response};
use tower::Service;
use tower_jitter_retry::{Budget, JitterRetryLayer, RetryPolicy, RetryPolicyBuilder};

/// Counts calls, across clones of a service.
#[derive(Clone, Debug, Default)]
pub(crate) struct Calls(Arc<AtomicUsize>);

impl Calls {
    /// Counts one more and tells its number, from 1.
    pub(crate) fn next(&self) -> usize {
        self.0.fetch_add(1, Ordering::SeqCst) + 1
    }

    pub(crate) fn made(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

/// An error of which nothing is known: it may be sent again if that is the same as once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Broken(pub(crate) usize);

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "broken for the {}. time", self.0)
    }
}

impl Error for Broken {}

/// Retries without delay and without a budget, so that they need no timer.
pub(crate) fn at_once() -> RetryPolicyBuilder {
    RetryPolicy::builder().initial_backoff(Duration::ZERO).budget(None::<Budget>)
}

/// A layer with the default classification.
pub(crate) fn layer(builder: RetryPolicyBuilder) -> JitterRetryLayer {
    JitterRetryLayer::new(builder.build().unwrap())
}

/// Waits for readiness and calls.
pub(crate) async fn send<S, R>(service: &mut S, request: R) -> Result<S::Response, S::Error>
where
    S: Service<R>,
{
    poll_fn(|cx| service.poll_ready(cx)).await?;
    service.call(request).await
}

/// The output of a future that waits for nothing. There is no runtime, no timer and nobody to wake
/// it. It may yield: a thousand retries without delay take eight polls.
pub(crate) fn now<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let mut cx = Context::from_waker(Waker::noop());
    let ready = (0..8).find_map(|_| match future.as_mut().poll(&mut cx) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    });
    ready.expect("the future waits for something")
}

pub(crate) fn request(method: Method) -> Request<String> {
    Request::builder().method(method).uri("/orders/42").body("the body".to_owned()).unwrap()
}

pub(crate) fn response(status: u16) -> Response<String> {
    Response::builder().status(status).body(format!("it is {status}")).unwrap()
}
