//! Waiting for a circuit that refuses calls, for services that must not be ready meanwhile.

#[cfg(feature = "tokio")]
pub(crate) use timed::Patience;
#[cfg(not(feature = "tokio"))]
pub(crate) use untimed::Patience;

#[cfg(feature = "tokio")]
mod timed {
    use std::future::Future;
    use std::pin::Pin;
    use std::task::{Context, Poll};
    use std::time::Duration;

    use tokio::time::{Sleep, sleep};

    /// A timer, made when it is needed first.
    #[derive(Debug, Default)]
    pub(crate) struct Patience(Option<Pin<Box<Sleep>>>);

    impl Patience {
        /// Waits so long from now on, at least a millisecond. `None`: for ever, for somebody else will wake the task.
        pub(crate) fn poll(&mut self, cx: &mut Context<'_>, left: Option<Duration>) -> Poll<()> {
            let Some(left) = left else { return Poll::Pending };
            let sleep = sleep(left.max(Duration::from_millis(1)));
            let timer = match &mut self.0 {
                Some(timer) => {
                    timer.set(sleep);
                    timer
                }
                none => none.insert(Box::pin(sleep)),
            };
            timer.as_mut().poll(cx)
        }
    }
}

#[cfg(not(feature = "tokio"))]
mod untimed {
    use std::task::{Context, Poll};
    use std::time::Duration;

    /// There is no timer, so that nobody has any.
    #[derive(Debug)]
    pub(crate) enum Patience {}

    impl Patience {
        pub(crate) fn poll(&mut self, _: &mut Context<'_>, _: Option<Duration>) -> Poll<()> {
            match *self {}
        }
    }
}
