//! Models of breakers of other projects.

use std::fmt;

use tower_breaker::Verdict;
use tower_fault_classify::{Fault, Health, Kind, Origin, Retryable};

/// A breaker of another project, reduced to its rules.
///
/// A model has no clock and no random numbers: the same calls give the same decisions.
pub trait Model: fmt::Debug + Send {
    /// Returns a ticket for a request that may be sent now, in nanoseconds. `None`: the request is
    /// rejected.
    ///
    /// An outcome with a ticket of an earlier state can be ignored.
    fn admit(&mut self, now: u64) -> Option<u64>;

    /// Records the outcome of an admitted request.
    fn record(&mut self, now: u64, ticket: u64, success: bool);
}

/// Returns the verdict of a request that a model rejects. It is not sent again.
pub(super) fn rejected() -> Verdict {
    Fault::new(Kind::Rejected, Retryable::Never, Health::Neutral, Origin::Local).into()
}
