//! The timer of a task that waits for a circuit.

#[cfg(feature = "tokio")]
pub(crate) use self::timed::OpenTimer;
#[cfg(not(feature = "tokio"))]
pub(crate) use self::untimed::OpenTimer;

#[cfg(feature = "tokio")]
mod timed {
    use std::future::Future;
    use std::pin::Pin;
    use std::task::{Context, Poll};
    use std::time::Duration;

    use tokio::time::{Instant, Sleep, sleep_until};

    /// Wakes the task when the circuit may decide differently.
    #[derive(Debug, Default)]
    pub(crate) struct OpenTimer(Option<Pin<Box<Sleep>>>);

    impl OpenTimer {
        /// Completes after `left`, at least a millisecond from now. With `None` it never completes:
        /// a change of the circuit wakes the task.
        ///
        /// A running timer is only shortened, so that frequent polls do not postpone it. A timer
        /// that fires too early costs one more decision.
        pub(crate) fn poll(&mut self, cx: &mut Context<'_>, left: Option<Duration>) -> Poll<()> {
            const SHORTEST: Duration = Duration::from_millis(1);
            // The limit that tokio uses for times that its clock cannot reach.
            const LONGEST: Duration = Duration::from_secs(30 * 365 * 86_400);

            let Some(left) = left else {
                self.0 = None;
                return Poll::Pending;
            };
            let deadline = Instant::now() + left.clamp(SHORTEST, LONGEST);
            let timer = self.0.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
            if deadline < timer.deadline() {
                timer.as_mut().reset(deadline);
            }
            let fired = timer.as_mut().poll(cx);
            if fired.is_ready() {
                self.0 = None;
            }
            fired
        }
    }
}

#[cfg(not(feature = "tokio"))]
mod untimed {
    use std::task::{Context, Poll};
    use std::time::Duration;

    /// Without the feature `tokio`, no service waits for its circuit.
    #[derive(Debug, Default)]
    pub(crate) struct OpenTimer(());

    impl OpenTimer {
        #[expect(clippy::unused_self, reason = "the signature is that of the timer with the feature `tokio`")]
        pub(crate) fn poll(&mut self, _: &mut Context<'_>, _: Option<Duration>) -> Poll<()> {
            Poll::Pending
        }
    }
}
