//! A service that does nothing, and a function that calls a service.

use std::cell::Cell;
use std::future::Future;
use std::hint::black_box;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use tower::Service;

/// A service that fails if the request [says so](Fails).
#[derive(Clone, Copy)]
pub(crate) struct Bare;

/// A request that says whether its call fails. A call with a key does not fail.
pub(crate) trait Fails {
    fn fails(&self) -> bool {
        false
    }
}

impl Fails for bool {
    fn fails(&self) -> bool {
        *self
    }
}

impl Fails for u64 {}

impl<Req: Fails> Service<Req> for Bare {
    type Response = u32;
    type Error = io::Error;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), io::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Req) -> Self::Future {
        Answer { fails: black_box(request.fails()) }
    }
}

/// A service whose calls fail twice and then succeed once.
#[allow(dead_code, reason = "used only by programs with retries")]
#[derive(Clone, Copy)]
pub(crate) struct FailsTwice;

#[allow(dead_code, reason = "used only by programs with retries")]
impl FailsTwice {
    /// Returns whether the next call of this thread fails.
    pub(crate) fn next_fails() -> bool {
        thread_local! {
            /// The number of calls since the last success. A count in the service would be cloned
            /// with it.
            static FAILURES: Cell<u32> = const { Cell::new(0) };
        }
        let failures = FAILURES.get();
        FAILURES.set((failures + 1) % 3);
        failures < 2
    }
}

impl<Req> Service<Req> for FailsTwice {
    type Response = u32;
    type Error = io::Error;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), io::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Req) -> Answer {
        Answer { fails: black_box(Self::next_fails()) }
    }
}

/// The future of a call, which completes at its first poll.
pub(crate) struct Answer {
    fails: bool,
}

impl Future for Answer {
    type Output = Result<u32, io::Error>;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(if self.fails { Err(io::ErrorKind::TimedOut.into()) } else { Ok(1) })
    }
}

/// Makes one call: polls the readiness, calls the service, and polls the future. Returns whether
/// the call succeeded.
#[inline]
pub(crate) fn call<S: Service<Req>, Req>(service: &mut S, request: Req) -> bool {
    let mut cx = Context::from_waker(Waker::noop());
    let ready = service.poll_ready(&mut cx).is_ready();
    let done = match pin!(service.call(request)).poll(&mut cx) {
        Poll::Ready(result) => result.is_ok(),
        Poll::Pending => false,
    };
    ready && done
}
