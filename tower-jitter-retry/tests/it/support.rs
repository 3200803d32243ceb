//! The code that the test files share.

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
    /// Counts one more call and returns its number, from 1.
    pub(crate) fn next(&self) -> usize {
        self.0.fetch_add(1, Ordering::SeqCst) + 1
    }

    pub(crate) fn made(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

/// An error without a classification: an idempotent request may be sent again after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Broken(pub(crate) usize);

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "failure number {}", self.0)
    }
}

impl Error for Broken {}

/// Returns a policy that retries without a delay and without a budget, so that it needs no timer.
pub(crate) fn immediate() -> RetryPolicyBuilder {
    RetryPolicy::builder().initial_backoff(Duration::ZERO).budget(None::<Budget>)
}

/// Returns a layer with the default classification.
pub(crate) fn layer(builder: RetryPolicyBuilder) -> JitterRetryLayer {
    JitterRetryLayer::new(builder.build().unwrap())
}

/// Waits for readiness and calls the service.
pub(crate) async fn send<S, R>(service: &mut S, request: R) -> Result<S::Response, S::Error>
where
    S: Service<R>,
{
    poll_fn(|cx| service.poll_ready(cx)).await?;
    service.call(request).await
}

/// Returns the output of a future that does not wait. There is no runtime, no timer and no waker.
/// The future may yield: a thousand retries without a delay take eight polls.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
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
