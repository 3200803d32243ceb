//! When a call that was answered is over for the circuit.

use tower_fault_classify::Verdict;

use crate::circuit::Permit;

/// Settles the permit of a call that was answered, at once or later by what it puts around the response.
pub trait Settle<Res> {
    /// The response that the caller gets.
    type Response;

    /// Takes the response with its permit, and the verdict on what has come of it so far.
    fn settle(&self, response: Res, permit: Permit, verdict: Verdict) -> Self::Response;
}

/// Settles when the response comes, its body unread. The default.
#[derive(Clone, Copy, Debug, Default)]
pub struct Head;

impl<Res> Settle<Res> for Head {
    type Response = Res;

    #[inline]
    fn settle(&self, response: Res, permit: Permit, verdict: Verdict) -> Res {
        permit.settle(verdict);
        response
    }
}
