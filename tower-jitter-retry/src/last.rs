//! The outcome that the caller gets if no further attempt is sent.

use tower_fault_classify::Fault;

/// The result of the last attempt, while another one is to follow.
pub(crate) struct Last<R> {
    pub(crate) result: R,
    pub(crate) fault: Fault,
}
