//! The functions of the user that a policy calls.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use tower_fault_classify::Fault;

/// Describes a retry before its delay begins.
///
/// It is passed to the function that is set with [`on_retry`](super::RetryPolicyBuilder::on_retry).
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct RetryEvent {
    /// The number of the attempt that failed, from 1.
    ///
    /// It equals the number of the retry that follows, as `http.request.resend_count` counts
    /// retries.
    pub attempt: u32,
    /// The fault of the failed attempt.
    pub fault: Fault,
    /// The delay before the next attempt.
    pub delay: Duration,
    /// The time since the start of the call.
    ///
    /// [`max_elapsed`](super::RetryPolicyBuilder::max_elapsed) defines the start.
    pub elapsed: Duration,
}

/// The callback of [`on_retry`](super::RetryPolicyBuilder::on_retry).
#[derive(Clone)]
pub(crate) struct Observer(Arc<dyn Fn(&RetryEvent) + Send + Sync>);

impl Observer {
    pub(crate) fn new(callback: impl Fn(&RetryEvent) + Send + Sync + 'static) -> Self {
        Self(Arc::new(callback))
    }

    pub(crate) fn notify(&self, event: &RetryEvent) {
        (self.0)(event);
    }
}

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Observer")
    }
}

/// The condition of [`retry_while`](super::RetryPolicyBuilder::retry_while).
#[derive(Clone)]
pub(crate) struct Condition(Arc<dyn Fn() -> bool + Send + Sync>);

impl Condition {
    pub(crate) fn new(condition: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(condition))
    }

    /// Returns a condition that holds while both conditions hold.
    pub(crate) fn and(self, other: Self) -> Self {
        Self::new(move || self.holds() && other.holds())
    }

    /// Returns whether a retry may follow.
    pub(crate) fn holds(&self) -> bool {
        // The panic hook has already reported a panic, which must not affect the call.
        catch_unwind(AssertUnwindSafe(|| (self.0)())).unwrap_or(true)
    }
}

impl fmt::Debug for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Condition")
    }
}
