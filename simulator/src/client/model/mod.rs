//! Models of breakers of other projects, with their default settings.
//!
//! | model | opens at | open time | half-open |
//! |---|---|---|---|
//! | [`Resilience4j`] | 50 % of the last 100 calls | 60 s | ten calls, closes below 50 % |
//! | [`Polly`] | 10 % of 100 calls or more in 30 s | 5 s | one call |
//! | [`Envoy`] | five failures in a row | 30 s to 300 s, in sweeps of 10 s | none |
//! | [`Gobreaker`] | six failures in a row | 60 s | one call |
//! | [`Linkerd`] | seven failures in a row | 1 s to 60 s, with jitter | one call |
//! | [`Hystrix`] | 50 % of 20 calls or more in 10 s | 5 s | one call |
//!
//! Each model documents the source of its settings, and how it differs from the original. These
//! differences are common to all models:
//!
//! - At the exact end of an open time, a model admits a request. Some originals admit it a moment
//!   later.
//! - A request that its caller cancels has no outcome for a model.

mod envoy;
mod gobreaker;
mod hystrix;
mod linkerd;
mod polly;
mod resilience4j;

pub use self::envoy::Envoy;
pub use self::gobreaker::Gobreaker;
pub use self::hystrix::Hystrix;
pub use self::linkerd::Linkerd;
pub use self::polly::Polly;
pub use self::resilience4j::Resilience4j;

use std::fmt;

use tower_breaker::Verdict;
use tower_fault_classify::{Fault, Health, Kind, Origin, Retryable};

/// A breaker of another project, reduced to its rules.
///
/// A model has no clock, and draws random numbers only from the seed that it is created with: the
/// same calls give the same decisions. Times are in nanoseconds.
pub trait Model: fmt::Debug + Send {
    /// Returns a ticket for a request that may be sent now. `None`: the request is rejected.
    ///
    /// A model can use the ticket to ignore an outcome of a request that was sent in an earlier
    /// state.
    fn admit(&mut self, now: u64) -> Option<u64>;

    /// Records the outcome of an admitted request.
    fn record(&mut self, now: u64, ticket: u64, success: bool);
}

/// Returns the verdict of a rejected request, which the retry may send again or not.
pub(super) fn rejected(resend: bool) -> Verdict {
    let retryable = if resend { Retryable::Unsent } else { Retryable::Never };
    Fault::new(Kind::Rejected, retryable, Health::Neutral, Origin::Local).into()
}

#[cfg(test)]
mod testing {
    use super::Model;

    /// A success, for lists of outcomes.
    pub(super) const OK: bool = true;
    /// A failure, for lists of outcomes.
    pub(super) const FAILED: bool = false;

    /// Sends a request for each outcome, and records the outcome immediately. Returns how many
    /// requests the model has admitted.
    pub(super) fn send(model: &mut impl Model, now: u64, outcomes: &[bool]) -> usize {
        let mut admitted = 0;
        for &success in outcomes {
            if let Some(ticket) = model.admit(now) {
                model.record(now, ticket, success);
                admitted += 1;
            }
        }
        admitted
    }
}
