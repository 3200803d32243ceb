//! The outcome that the caller gets if no further attempt is sent.

use std::time::Duration;

use tower_fault_classify::Fault;

use crate::policy::is_rejection;

/// The failed result of an attempt, while another attempt is to follow.
pub(crate) struct Last<R> {
    pub(crate) result: R,
    pub(crate) fault: Fault,
}

impl<R> Last<R> {
    /// Returns the outcome for the caller after another attempt failed: the newer one, unless that
    /// attempt was rejected on this side and the one before was sent.
    pub(crate) fn or_newer(kept: Option<Self>, result: R, fault: &Fault) -> Self {
        match kept {
            Some(kept) if is_rejection(fault) && kept.was_sent() => kept,
            _ => Self { result, fault: *fault },
        }
    }

    pub(crate) fn was_sent(&self) -> bool {
        !is_rejection(&self.fault)
    }
}

/// Another attempt that follows after a delay.
pub(crate) struct Retry<R> {
    pub(crate) last: Last<R>,
    /// The fault of the attempt that has just ended.
    pub(crate) fault: Fault,
    pub(crate) delay: Duration,
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use tower_fault_classify::{Health, Kind, Origin, Retryable};

    use super::*;

    const SENT: Fault =
        Fault::new(Kind::Unavailable, Retryable::IfIdempotent, Health::Failure, Origin::Remote);
    const UNREACHED: Fault = SENT.with_retryable(Retryable::Unsent).with_origin(Origin::Transport);
    const OPEN: Fault = Fault::new(Kind::Rejected, Retryable::Never, Health::Neutral, Origin::Local);
    const SHED: Fault = OPEN.with_retryable(Retryable::Unsent);
    const NO_PORT: Fault = SHED.with_kind(Kind::Local);

    #[test]
    fn rejection_does_not_replace_outcome_that_was_sent() {
        for (kept, newer, expected) in [
            (SENT, OPEN, SENT),
            (SENT, SHED, SENT),
            (SENT, NO_PORT, SENT),
            (UNREACHED, OPEN, UNREACHED),
            (SENT, UNREACHED, UNREACHED),
            (UNREACHED, SENT, SENT),
            (SHED, OPEN, OPEN),
            (OPEN, SHED, SHED),
            (SHED, SENT, SENT),
        ] {
            let last = Last { result: kept, fault: kept };
            assert_eq!(Last::or_newer(Some(last), newer, &newer).result, expected, "{kept} {newer}");
        }
        assert_eq!(Last::or_newer(None, OPEN, &OPEN).result, OPEN);
    }
}
