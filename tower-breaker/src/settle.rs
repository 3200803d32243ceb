//! When a call that was answered is over for the circuit.

use std::task::Poll;

use tower_fault_classify::Verdict;
use tower_fault_classify::body::ClassifyEnd;

use crate::circuit::{Hold, Own, Permit};

/// Settles the permit of a call that was answered, at once or later by what it puts around the response.
pub trait Settle<Res, C, H: Hold = Own> {
    /// The response that the caller gets.
    type Response;

    /// Takes the response with its permit, and the verdict of `classify` on what has come of it so far. `judge` judges its end.
    fn settle(
        &self,
        response: Res,
        permit: Permit<H>,
        verdict: &Verdict,
        classify: &C,
        judge: ClassifyEnd<C>,
    ) -> Self::Response;

    /// Takes the answer to a rejected call: there is no permit. What only goes through is not taken apart, which would copy it.
    fn pass<E>(&self, answer: Poll<Result<Res, E>>) -> Poll<Result<Self::Response, E>>;
}

/// Settles when the response comes, its body unread. The default.
#[derive(Clone, Copy, Debug, Default)]
pub struct Head;

impl<Res, C, H: Hold> Settle<Res, C, H> for Head {
    type Response = Res;

    #[inline]
    fn settle(&self, response: Res, permit: Permit<H>, verdict: &Verdict, _: &C, _: ClassifyEnd<C>) -> Res {
        permit.record_by_ref(verdict);
        response
    }

    #[inline]
    fn pass<E>(&self, answer: Poll<Result<Res, E>>) -> Poll<Result<Res, E>> {
        answer
    }
}
