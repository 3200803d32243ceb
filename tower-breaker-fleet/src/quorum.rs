//! How many processes must agree to open a circuit.

use std::time::Duration;

use tower_breaker::ConfigError;

use crate::store::QuorumRule;

/// How many processes must vote to open a circuit for the whole fleet.
///
/// A circuit opens when the votes reach `max(at_least, share × members)`, rounded up. The members
/// are the processes that use the circuit now.
///
/// | quorum | 1 process | 2 | 3 | 10 | 100 |
/// |---|---|---|---|---|---|
/// | [`majority()`](Self::majority) | never | 2 | 2 | 5 | 50 |
/// | [`at_least(1)`](Self::at_least) | 1 | 1 | 1 | 1 | 1 |
/// | `at_least(3).share(0.2)` | never | never | 3 | 3 | 20 |
///
/// If a quorum is not reached, each process still opens its own circuit on its own evidence.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quorum {
    at_least: u32,
    share: f64,
}

impl Quorum {
    /// At least 2 processes, and half of the members. The **default**.
    pub const fn majority() -> Self {
        Self { at_least: 2, share: 0.5 }
    }

    /// A fixed number of processes, whatever the number of members. Allowed: 1 or more.
    ///
    /// With 1, the first process that opens its circuit opens it for all, which suits a pool of
    /// workers. The circuit then also opens when the failures of all members since the last success
    /// of any member reach
    /// [`consecutive_failures`](tower_breaker::BreakerConfigBuilder::consecutive_failures) of the
    /// circuit, and the first of them was
    /// [`consecutive_failures_span`](tower_breaker::BreakerConfigBuilder::consecutive_failures_span)
    /// ago. A member reports a success with its next heartbeat.
    pub const fn at_least(votes: u32) -> Self {
        Self { at_least: votes, share: 0.0 }
    }

    /// Sets the least share of the members that must vote. Allowed: 0 to 1.
    ///
    /// With 0, the number of members has no influence.
    pub const fn share(self, share: f64) -> Self {
        Self { share, ..self }
    }

    pub(crate) fn validate(self) -> Result<(), ConfigError> {
        ConfigError::check("quorum.at_least", self.at_least, 1..=u32::MAX)?;
        ConfigError::check("quorum.share", self.share, 0.0..=1.0)?;
        Ok(())
    }

    /// Returns the rule for a circuit whose consecutive failures have this limit and span.
    pub(crate) const fn rule(self, limit: u32, consecutive_failures_span: Duration) -> QuorumRule {
        let consecutive_failures = if self.sums_failures() { limit } else { 0 };
        QuorumRule {
            at_least: self.at_least,
            share: self.share,
            consecutive_failures,
            consecutive_failures_span,
        }
    }

    /// Whether the number of members has no influence.
    #[cfg(feature = "keyed")]
    pub(crate) fn is_absolute(self) -> bool {
        self.share <= 0.0
    }

    /// Returns the least share of the members.
    #[cfg(feature = "keyed")]
    pub(crate) const fn least_share(self) -> f64 {
        self.share
    }

    /// Whether consecutive failures of several processes are added up.
    pub(crate) const fn sums_failures(self) -> bool {
        self.at_least == 1 && self.share <= 0.0
    }
}

impl Default for Quorum {
    fn default() -> Self {
        Self::majority()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quorum_of_one_carries_the_limit_of_consecutive_failures() {
        let limit = |quorum: Quorum| quorum.rule(5, Duration::ZERO).consecutive_failures;
        assert_eq!(limit(Quorum::at_least(1)), 5);
        assert_eq!(limit(Quorum::at_least(2)), 0);
        assert_eq!(limit(Quorum::at_least(1).share(0.1)), 0);
        assert_eq!(limit(Quorum::majority()), 0);
    }

    #[test]
    fn quorum_out_of_range_is_an_error() {
        let error = |quorum: Quorum| quorum.validate().unwrap_err().to_string();
        assert_eq!(error(Quorum::at_least(0)), "`quorum.at_least` is 0; allowed is 1 to 4294967295");
        assert_eq!(error(Quorum::majority().share(1.5)), "`quorum.share` is 1.5; allowed is 0.0 to 1.0");
        assert!(Quorum::majority().share(f64::NAN).validate().is_err());
    }
}
