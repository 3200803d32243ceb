//! Reports to the user's callback, to `tracing` and to `metrics`.
//!
//! The names are those of OpenTelemetry where it defines one: `error.type` is the kind of a fault,
//! and `http.request.resend_count` is the number of a retry, from 1.
//!
//! `telemetry/metrics.rs` has a table of all metrics.

#[cfg_attr(not(feature = "metrics"), path = "telemetry/metrics_noop.rs")]
#[cfg_attr(feature = "metrics", path = "telemetry/metrics.rs")]
mod metrics;

use std::error::Error;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use tower_fault_classify::{ClassifiedError, Fault};

use self::metrics::PolicyMetrics;
use crate::policy::{GiveUp, Observer, RetryEvent};

/// The history of a call that was retried, attached to its response or its error.
///
/// It is in the response's extensions, or on the error ([`Retried::of`]). A call for which no retry
/// was planned has none.
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
    /// The number of attempts.
    ///
    /// It includes the first attempt, and attempts that were rejected on this side. It is 1 if a
    /// retry was decided on and then not sent.
    pub attempts: u32,
    /// The time from the start of the call to its end, including the delays.
    ///
    /// [`max_elapsed`](crate::RetryPolicyBuilder::max_elapsed) defines the start.
    pub elapsed: Duration,
    /// The reason why no further attempt followed, or `None` if the last attempt was a success.
    pub ended: Option<GiveUp>,
    /// The fault of the last attempt that was sent.
    ///
    /// It is set even if the caller gets the rejection of a later attempt. `None` means that the
    /// last attempt was a success, or that no attempt was sent.
    pub last_sent: Option<Fault>,
}

impl Retried {
    /// Returns the history of a call that ended with this error.
    ///
    /// It returns `None` if the call was not retried, or if the error's source chain cannot carry
    /// the history. Only a [`ClassifiedError`] in the chain can carry it. Each error of a
    /// `FaultClassifyLayer` and each rejection of a circuit breaker contains one.
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
        ClassifiedError::find(error)?.note()
    }
}

/// The target of metrics and events. It does not change when a module moves.
#[cfg(any(feature = "metrics", feature = "tracing"))]
const TARGET: &str = "tower_jitter_retry";

/// Whether retries are counted or traced.
pub(crate) const ENABLED: bool = cfg!(any(feature = "metrics", feature = "tracing"));

/// Reports the attempts of the policies with one name. It has no size without the features
/// `metrics` and `tracing`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reporter {
    #[cfg(feature = "tracing")]
    policy: &'static str,
    metrics: PolicyMetrics,
}

impl Reporter {
    /// Returns the reporter of policies with this name.
    pub(crate) fn of(policy: &'static str) -> Self {
        Self {
            #[cfg(feature = "tracing")]
            policy,
            metrics: PolicyMetrics::of(policy),
        }
    }

    /// Counts an attempt that has ended.
    #[inline]
    pub(crate) fn attempt(self) {
        self.metrics.attempt();
    }

    /// Reports a retry.
    pub(crate) fn retry(self, event: &RetryEvent, observer: Option<&Observer>) {
        self.metrics.retry(event);
        #[cfg(feature = "tracing")]
        tracing::debug!(
            target: TARGET,
            {
                policy = self.policy,
                "http.request.resend_count" = event.attempt,
                "error.type" = event.fault.kind().as_str(),
                "fault.origin" = event.fault.origin().as_str(),
                "retry.delay" = ?event.delay,
                "retry.elapsed" = ?event.elapsed,
            },
            "retry",
        );
        if let Some(observer) = observer {
            // The panic hook has already reported the panic, which must not affect the call.
            drop(catch_unwind(AssertUnwindSafe(|| observer.notify(event))));
        }
    }

    /// Reports that no attempt follows after a fault.
    pub(crate) fn give_up(self, reason: GiveUp, fault: &Fault, attempts: u32) {
        self.metrics.give_up(reason, fault);
        #[cfg(feature = "tracing")]
        tracing::debug!(
            target: TARGET,
            {
                policy = self.policy,
                "retry.reason" = reason.as_str(),
                "retry.attempts" = attempts,
                "error.type" = fault.kind().as_str(),
                "fault.origin" = fault.origin().as_str(),
            },
            "no retry",
        );
        let _ = attempts;
    }
}
