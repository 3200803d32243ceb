//! What others are told: the layer's user, and whoever listens to `tracing` and `metrics`.
//!
//! Names are OpenTelemetry's where it has one: `error.type` is the kind of a fault, `http.request.resend_count` the number of a retry, from 1.
//!
//! | metric (feature `metrics`) | kind | labels |
//! |---|---|---|
//! | `tower_jitter_retry_attempts_total` | counter | |
//! | `tower_jitter_retry_retries_total` | counter | `error.type` |
//! | `tower_jitter_retry_delay_seconds` | histogram | |
//! | `tower_jitter_retry_budget_refusals_total` | counter | |
//! | `tower_jitter_retry_give_ups_total` | counter | `reason` ([`GiveUp`]), `error.type` |

#[cfg(feature = "metrics")]
mod count;

use std::error::Error;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use tower_fault_classify::{Fault, Judged};

use crate::policy::GiveUp;

/// A retry that was decided on.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct RetryEvent {
    /// The number of the attempt that failed, from 1: that of the retry that follows, as `http.request.resend_count` counts them.
    pub attempt: u32,
    /// What went wrong.
    pub fault: Fault,
    /// How long the next attempt waits.
    pub delay: Duration,
    /// How long ago the call began, or first had to wait.
    pub elapsed: Duration,
}

/// What happened to a call that was retried: in its response's extensions, or on its error
/// ([`Retried::of`]).
///
/// ```
/// use tower_jitter_retry::Retried;
///
/// fn log<B>(response: &http::Response<B>) {
///     if let Some(retried) = response.extensions().get::<Retried>() {
///         println!("{} attempts in {:?}", retried.attempts, retried.elapsed);
///     }
/// }
/// # log(&http::Response::new(()));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Retried {
    /// How many attempts were made, the first included, and those that were rejected on this side.
    /// 1 if a retry was decided on and then not sent.
    pub attempts: u32,
    /// From the beginning of the call, or when it first had to wait, to its end, delays included.
    pub elapsed: Duration,
    /// Why no further attempt followed. `None`: the last attempt was a success.
    pub ended: Option<GiveUp>,
    /// The fault of the last attempt that was sent, even if the caller gets the rejection of a
    /// later one. `None`: that attempt was a success, or no attempt was sent.
    pub last_sent: Option<Fault>,
}

impl Retried {
    /// Returns what happened to a call that ended in this error.
    ///
    /// `None` if the call was not retried, or if there is no place for it in the error's chain:
    /// only a [`Judged`] has one, as each error of a `FaultClassifyLayer` and each rejection of a
    /// circuit breaker contains it.
    ///
    /// ```
    /// use tower_jitter_retry::Retried;
    ///
    /// fn log(error: &(dyn std::error::Error + 'static)) {
    ///     if let Some(retried) = Retried::of(error) {
    ///         println!("{error} after {} attempts", retried.attempts);
    ///     }
    /// }
    /// # log(&std::io::Error::other("no"));
    /// ```
    pub fn of(error: &(dyn Error + 'static)) -> Option<Self> {
        Judged::find(error)?.note()
    }
}

/// Who is told of retries.
#[derive(Clone)]
pub(crate) struct Observer(Arc<dyn Fn(&RetryEvent) + Send + Sync>);

impl Observer {
    pub(crate) fn new(told: impl Fn(&RetryEvent) + Send + Sync + 'static) -> Self {
        Self(Arc::new(told))
    }
}

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Observer")
    }
}

/// Whether anybody but the user is told.
pub(crate) const LISTENED_TO: bool = cfg!(any(feature = "metrics", feature = "tracing"));

/// Tells that an attempt has ended.
#[inline]
pub(crate) fn attempt() {
    #[cfg(feature = "metrics")]
    count::attempt();
}

/// Tells of a retry.
pub(crate) fn retry(event: &RetryEvent, observer: Option<&Observer>) {
    #[cfg(feature = "metrics")]
    count::retry(event);
    #[cfg(feature = "tracing")]
    tracing::debug!(
        "http.request.resend_count" = event.attempt,
        "error.type" = event.fault.kind().as_str(),
        "fault.origin" = event.fault.origin().as_str(),
        "retry.delay" = ?event.delay,
        "retry.elapsed" = ?event.elapsed,
        "retry",
    );
    if let Some(Observer(told)) = observer {
        // The panic hook has reported it; the call has no part in it.
        drop(catch_unwind(AssertUnwindSafe(|| told(event))));
    }
}

/// Tells that a call that failed is not made again.
pub(crate) fn give_up(reason: GiveUp, fault: &Fault, attempts: u32) {
    #[cfg(feature = "metrics")]
    count::give_up(reason, fault);
    #[cfg(feature = "tracing")]
    tracing::debug!(
        "retry.reason" = reason.as_str(),
        "retry.attempts" = attempts,
        "error.type" = fault.kind().as_str(),
        "fault.origin" = fault.origin().as_str(),
        "no retry",
    );
    let _ = (reason, fault, attempts);
}
