//! The services at the bottom of each stack.

use std::cell::Cell;
use std::future::Future;
use std::hint::black_box;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tower::Service;

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

/// A service that fails if the request says so.
#[derive(Clone, Copy)]
pub(crate) struct Bare;

impl<Req: Fails> Service<Req> for Bare {
    type Response = u32;
    type Error = io::Error;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Req) -> Answer {
        Answer { fails: black_box(request.fails()) }
    }
}

/// A service whose calls fail twice and then succeed once.
#[derive(Clone, Copy)]
pub(crate) struct FailsTwice;

thread_local! {
    /// The number of calls since the last success. A count in the service would be cloned with it.
    static FAILURES: Cell<u32> = const { Cell::new(0) };
}

/// Returns whether the next call of a service on this thread fails: twice, and then not once.
pub(crate) fn next_fails() -> bool {
    let failures = FAILURES.get();
    FAILURES.set((failures + 1) % 3);
    failures < 2
}

impl Service<bool> for FailsTwice {
    type Response = u32;
    type Error = io::Error;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: bool) -> Answer {
        Answer { fails: next_fails() }
    }
}

/// The future of a call. It completes at the first poll.
pub(crate) struct Answer {
    fails: bool,
}

impl Future for Answer {
    type Output = io::Result<u32>;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<u32>> {
        Poll::Ready(if self.fails { Err(io::ErrorKind::TimedOut.into()) } else { Ok(1) })
    }
}
