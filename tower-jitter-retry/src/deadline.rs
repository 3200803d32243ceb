//! Until when a call must be done.

use std::time::{Duration, Instant};

/// The time by which one call must be done, as an extension of its `http::Request`.
///
/// No retry is sent after it. A delay that would not end before it is not begun: the caller gets
/// the outcome of the last attempt at once. A retry that waits for the inner service's readiness
/// stops waiting at the deadline, with the same result. The attempt that runs is not cut short;
/// that is what a timeout is for. A deadline that has passed already, or a time of zero, leaves the
/// first attempt and no retry.
///
/// gRPC's own `grpc-timeout` is a deadline as well, and the earlier of the two counts; each attempt carries the time that is left.
///
/// ```
/// use std::time::Duration;
/// use tower_jitter_retry::Deadline;
///
/// let mut request = http::Request::new(());
/// request.extensions_mut().insert(Deadline::within(Duration::from_millis(300)));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline(When);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    Within(Duration),
    At(tokio::time::Instant),
}

impl Deadline {
    /// So long after the call began, which is when it comes to the layer.
    pub const fn within(time: Duration) -> Self {
        Self(When::Within(time))
    }

    /// At a moment, which a request that came in may bring along. Under `tokio::time::pause` it is one of tokio's clock.
    pub fn at(moment: Instant) -> Self {
        Self(When::At(moment.into()))
    }

    /// How long there is, from now on.
    pub(crate) fn remaining(self) -> Duration {
        match self.0 {
            When::Within(time) => time,
            When::At(moment) => moment.saturating_duration_since(tokio::time::Instant::now()),
        }
    }
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_moment_that_has_passed_leaves_nothing() {
        let now = tokio::time::Instant::now().into_std();
        let (soon, late) = (Deadline::at(now + Duration::from_secs(3)), Deadline::at(now));
        assert_eq!((soon.remaining(), late.remaining()), (Duration::from_secs(3), Duration::ZERO));
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!((soon.remaining(), late.remaining()), (Duration::from_secs(1), Duration::ZERO));
        assert_eq!(Deadline::within(Duration::from_secs(3)).remaining(), Duration::from_secs(3));
    }
}
