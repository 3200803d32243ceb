//! What lies between two attempts.

use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::task::coop;
use tokio::time::Sleep;

/// How many attempts without delay follow each other within one poll outside of a tokio runtime. As
/// many as the steps that tokio allows a task in one poll.
const ATTEMPTS_IN_A_POLL: u32 = 128;

pin_project! {
    /// The delay before a retry. A delay of zero uses no timer, and yields to the runtime from time
    /// to time.
    #[derive(Debug)]
    #[project = PauseProj]
    pub(crate) enum Pause {
        Sleep { #[pin] sleep: Sleep },
        Step { yields: bool },
    }
}

impl Pause {
    /// The delay after so many attempts.
    pub(crate) fn new(delay: Duration, attempts: u32) -> Self {
        if delay.is_zero() {
            Self::Step { yields: attempts.is_multiple_of(ATTEMPTS_IN_A_POLL) }
        } else {
            Self::Sleep { sleep: tokio::time::sleep(delay) }
        }
    }
}

impl Future for Pause {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match self.project() {
            PauseProj::Sleep { sleep } => sleep.poll(cx),
            PauseProj::Step { yields } => {
                if mem::take(yields) {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                // In a task of tokio, a retry is one of the steps that the task may make in a poll.
                ready!(coop::poll_proceed(cx)).made_progress();
                Poll::Ready(())
            }
        }
    }
}
