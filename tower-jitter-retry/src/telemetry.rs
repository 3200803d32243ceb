//! Reports to the user's callback, to `tracing` and to `metrics`.
//!
//! The names are those of OpenTelemetry where it defines one: `error.type` is the kind of a fault,
//! and `http.request.resend_count` is the number of a retry, from 1.
//!
//! | metric (feature `metrics`) | kind | labels |
//! |---|---|---|
//! | `tower_jitter_retry_attempts_total` | counter | |
//! | `tower_jitter_retry_retries_total` | counter | `error.type` |
//! | `tower_jitter_retry_delay_seconds` | histogram | |
//! | `tower_jitter_retry_budget_refusals_total` | counter | |
//! | `tower_jitter_retry_give_ups_total` | counter | `reason` ([`GiveUp`]), `error.type` |

use std::error::Error;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use tower_fault_classify::{ClassifiedError, Fault};

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

/// Counts an attempt that has ended.
#[inline]
pub(crate) fn record_attempt() {
    counters::attempt();
}

/// Reports a retry.
pub(crate) fn emit_retry(event: &RetryEvent, observer: Option<&Observer>) {
    counters::retry(event);
    events::retry(event);
    if let Some(observer) = observer {
        // The panic hook has already reported the panic, which must not affect the call.
        drop(catch_unwind(AssertUnwindSafe(|| observer.notify(event))));
    }
}

/// Reports that no attempt follows after a fault.
pub(crate) fn emit_give_up(reason: GiveUp, fault: &Fault, attempts: u32) {
    counters::give_up(reason, fault);
    events::give_up(reason, fault, attempts);
}

/// The metrics.
#[cfg(feature = "metrics")]
mod counters {
    use std::cell::RefCell;
    use std::collections::HashMap;
    use std::rc::Rc;

    use metrics::{Key, Label, Level, Metadata, with_recorder};
    use tower_fault_classify::{Fault, Kind};

    use crate::policy::{GiveUp, RetryEvent};

    const METADATA: Metadata<'static> = Metadata::new(super::TARGET, Level::INFO, Some(module_path!()));

    static ATTEMPTS: Key = Key::from_static_name("tower_jitter_retry_attempts_total");
    static DELAYS: Key = Key::from_static_name("tower_jitter_retry_delay_seconds");
    static REFUSALS: Key = Key::from_static_name("tower_jitter_retry_budget_refusals_total");

    /// The keys by their labels.
    type Keys = HashMap<(Kind, Option<GiveUp>), Rc<Key>>;

    thread_local! {
        /// A key with labels allocates. There are few of them, so each thread creates each key
        /// once.
        static KEYS: RefCell<Keys> = RefCell::default();
    }

    pub(super) fn attempt() {
        increment(&ATTEMPTS);
    }

    pub(super) fn retry(event: &RetryEvent) {
        labelled(&event.fault, None);
        with_recorder(|recorder| recorder.register_histogram(&DELAYS, &METADATA))
            .record(event.delay.as_secs_f64());
    }

    pub(super) fn give_up(reason: GiveUp, fault: &Fault) {
        labelled(fault, Some(reason));
        if reason == GiveUp::Budget {
            increment(&REFUSALS);
        }
    }

    fn labelled(fault: &Fault, reason: Option<GiveUp>) {
        let key = KEYS.with_borrow_mut(|keys| {
            let key = keys.entry((fault.kind(), reason)).or_insert_with(|| {
                let mut labels = vec![Label::from_static_parts("error.type", fault.kind().as_str())];
                Rc::new(match reason {
                    None => Key::from_parts("tower_jitter_retry_retries_total", labels),
                    Some(reason) => {
                        labels.push(Label::from_static_parts("reason", reason.as_str()));
                        Key::from_parts("tower_jitter_retry_give_ups_total", labels)
                    }
                })
            });
            Rc::clone(key)
        });
        // After the borrow has ended: the recorder may make calls of its own, which are counted
        // too.
        increment(&key);
    }

    fn increment(key: &Key) {
        with_recorder(|recorder| recorder.register_counter(key, &METADATA)).increment(1);
    }
}

/// No metrics.
#[cfg(not(feature = "metrics"))]
mod counters {
    use tower_fault_classify::Fault;

    use crate::policy::{GiveUp, RetryEvent};

    #[inline]
    pub(super) const fn attempt() {}

    #[inline]
    pub(super) const fn retry(_: &RetryEvent) {}

    #[inline]
    pub(super) const fn give_up(_: GiveUp, _: &Fault) {}
}

/// The events for `tracing`.
#[cfg(feature = "tracing")]
mod events {
    use tower_fault_classify::Fault;

    use super::TARGET;
    use crate::policy::{GiveUp, RetryEvent};

    pub(super) fn retry(event: &RetryEvent) {
        tracing::debug!(
            target: TARGET,
            {
                "http.request.resend_count" = event.attempt,
                "error.type" = event.fault.kind().as_str(),
                "fault.origin" = event.fault.origin().as_str(),
                "retry.delay" = ?event.delay,
                "retry.elapsed" = ?event.elapsed,
            },
            "retry",
        );
    }

    pub(super) fn give_up(reason: GiveUp, fault: &Fault, attempts: u32) {
        tracing::debug!(
            target: TARGET,
            {
                "retry.reason" = reason.as_str(),
                "retry.attempts" = attempts,
                "error.type" = fault.kind().as_str(),
                "fault.origin" = fault.origin().as_str(),
            },
            "no retry",
        );
    }
}

/// No events.
#[cfg(not(feature = "tracing"))]
mod events {
    use tower_fault_classify::Fault;

    use crate::policy::{GiveUp, RetryEvent};

    #[inline]
    pub(super) const fn retry(_: &RetryEvent) {}

    #[inline]
    pub(super) const fn give_up(_: GiveUp, _: &Fault, _: u32) {}
}
