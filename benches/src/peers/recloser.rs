//! recloser, which wraps futures. Each call of the service is wrapped, as its documentation shows.

use std::pin::pin;
use std::task::{Context, Poll};

use recloser::{AnyError, AsyncRecloser, Error, Recloser, RecloserBuilder, RecloserFuture};
use tower::{Layer, Service};

use super::AN_HOUR;
use super::tower::{Attempts, retry_layer};
use crate::bare::{Bare, FailsTwice};
use crate::call::finish;
use crate::variant::{Expect, Variants};

const RECLOSER: &str = "recloser";
const TOWER_AND_RECLOSER: &str = "tower, recloser";

pub(crate) fn add(variants: &mut Variants) {
    let succeeds = |_| false;
    let default = default_breaker;
    variants.add("breaker, success", RECLOSER, Expect::Success, default, succeeds);
    let never_trips = || shared(Recloser::custom().error_rate(2.0), Bare);
    variants.add("breaker, failure", RECLOSER, Expect::Failure, never_trips, |_| true);
    variants.add("breaker, every fourth fails", RECLOSER, Expect::ThreeOfFour, default, |call| call % 4 == 0);
    variants.add("breaker, rejected", RECLOSER, Expect::Failure, open, succeeds);
    variants.add_cloned("breaker, a clone per call", RECLOSER, Expect::Success, default, succeeds);
    variants.add("breaker, window of 100 calls", RECLOSER, Expect::Success, default, succeeds);

    let retried = move || under_retry(default());
    variants.add("retry over breaker, success", TOWER_AND_RECLOSER, Expect::Success, retried, succeeds);
    let two_retries = || under_retry(shared(Recloser::custom().error_rate(0.9), FailsTwice));
    variants.add(
        "retry over breaker, two retries",
        TOWER_AND_RECLOSER,
        Expect::Success,
        two_retries,
        succeeds,
    );
    let rejected = || under_retry(open());
    variants.add("retry over breaker, rejected", TOWER_AND_RECLOSER, Expect::Failure, rejected, succeeds);
}

fn open() -> impl Fn() -> Guarded<Bare> {
    let service = shared(Recloser::custom().open_wait(AN_HOUR), Bare);
    let mut opening = service();
    while !matches!(finish(pin!(opening.call(true))), Err(Error::Rejected)) {}
    service
}

fn shared<S: Clone>(breaker: RecloserBuilder, inner: S) -> impl Fn() -> Guarded<S> {
    let guarded = Guarded { breaker: AsyncRecloser::from(breaker.build()), inner };
    move || guarded.clone()
}

fn under_retry<S>(service: impl Fn() -> S) -> impl Fn() -> tower::retry::Retry<Attempts, S> {
    move || retry_layer().layer(service())
}

/// A service whose calls are wrapped.
#[derive(Clone)]
pub(super) struct Guarded<S> {
    breaker: AsyncRecloser,
    inner: S,
}

impl<S: Service<bool>> Service<bool> for Guarded<S> {
    type Response = S::Response;
    type Error = Error<S::Error>;
    type Future = RecloserFuture<S::Future, AnyError>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx).map_err(Error::Inner)
    }

    fn call(&mut self, request: bool) -> Self::Future {
        self.breaker.call(self.inner.call(request))
    }
}

pub(super) fn default_breaker() -> impl Fn() -> Guarded<Bare> {
    shared(Recloser::custom(), Bare)
}
