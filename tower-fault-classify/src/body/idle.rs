//! The idle limit of a tracked body: how long its reader may wait for the next frame.

use std::task::{Context, Poll};
use std::time::Duration;

/// Determines whether a tracked body has an idle limit.
///
/// The trait is sealed. [`NoIdleLimit`] has none, `IdleLimit` (feature `tokio`) has one.
pub trait Idle: Default + sealed::Sealed {
    /// Returns the limit of a new body, whose timer does not run.
    #[doc(hidden)]
    fn begin(&self) -> Self;

    /// Called when the inner body is pending. Resolves to the limit when the body has been pending
    /// for longer.
    #[doc(hidden)]
    fn poll_stalled(&mut self, cx: &mut Context<'_>) -> Poll<Duration>;

    /// Called when the inner body has returned a frame.
    #[doc(hidden)]
    fn on_frame(&mut self);
}

/// A tracked body may be pending for any time. The default.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoIdleLimit;

impl Idle for NoIdleLimit {
    #[inline]
    fn begin(&self) -> Self {
        Self
    }

    #[inline]
    fn poll_stalled(&mut self, _: &mut Context<'_>) -> Poll<Duration> {
        Poll::Pending
    }

    #[inline]
    fn on_frame(&mut self) {}
}

mod sealed {
    pub trait Sealed {}

    impl Sealed for super::NoIdleLimit {}
    #[cfg(feature = "tokio")]
    impl Sealed for super::IdleLimit {}
}

#[cfg(feature = "tokio")]
pub use self::timed::IdleLimit;

#[cfg(feature = "tokio")]
mod timed {
    use std::fmt;
    use std::future::Future;
    use std::pin::Pin;
    use std::task::{Context, Poll, ready};
    use std::time::Duration;

    use tokio::time::{Instant, Sleep, sleep_until};

    use super::Idle;

    /// The limit that tokio uses for times that its clock cannot reach: 30 years.
    const LONGEST: Duration = Duration::from_secs(30 * 365 * 86_400);

    /// A tracked body that is pending for longer than a limit is a stalled stream.
    ///
    /// [`Default`] is no limit.
    #[derive(Default)]
    pub struct IdleLimit {
        /// Zero: no limit.
        limit: Duration,
        /// Allocated when the body is pending for the first time.
        timer: Option<Pin<Box<Sleep>>>,
        /// Whether the timer runs for the present wait.
        is_waiting: bool,
    }

    impl IdleLimit {
        /// Creates a limit. Zero: no limit.
        pub fn new(limit: Duration) -> Self {
            Self { limit: limit.min(LONGEST), timer: None, is_waiting: false }
        }
    }

    impl Idle for IdleLimit {
        #[inline]
        fn begin(&self) -> Self {
            Self::new(self.limit)
        }

        fn poll_stalled(&mut self, cx: &mut Context<'_>) -> Poll<Duration> {
            if self.limit.is_zero() {
                return Poll::Pending;
            }
            if !self.is_waiting {
                let deadline = Instant::now() + self.limit;
                match &mut self.timer {
                    Some(timer) => timer.as_mut().reset(deadline),
                    None => self.timer = Some(Box::pin(sleep_until(deadline))),
                }
                self.is_waiting = true;
            }
            if let Some(timer) = &mut self.timer {
                ready!(timer.as_mut().poll(cx));
            }
            self.timer = None;
            Poll::Ready(self.limit)
        }

        #[inline]
        fn on_frame(&mut self) {
            self.is_waiting = false;
        }
    }

    /// Copies the limit. The timer of the copy does not run.
    impl Clone for IdleLimit {
        fn clone(&self) -> Self {
            self.begin()
        }
    }

    impl fmt::Debug for IdleLimit {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.debug_tuple("IdleLimit").field(&self.limit).finish()
        }
    }
}
