//! What may be done with a response beyond judging its head.

use std::future::{Future, Pending};

use super::end::ClassifyEnd;
use crate::fault::Verdict;

/// Takes a response whose head was judged, and may put something around its body.
pub trait Track<Res, C> {
    /// The response that goes on.
    type Response;

    /// Puts it around.
    fn track(
        &self,
        response: Res,
        head: Verdict,
        classify: &C,
        classify_end: ClassifyEnd<C>,
    ) -> Self::Response;
}

/// The head has the last word. The default.
#[derive(Clone, Copy, Debug, Default)]
pub struct Head;

impl<Res, C> Track<Res, C> for Head {
    type Response = Res;

    #[inline]
    fn track(&self, response: Res, _: Verdict, _: &C, _: ClassifyEnd<C>) -> Res {
        response
    }
}

/// Takes a response before it is judged for good, and may read on in it.
pub trait Peek<Res> {
    /// The response that goes on.
    type Response;
    /// Reads on. It comes to the response and to what it says, if it says anything that the head does not.
    type Reading: Future<Output = (Self::Response, Option<Verdict>)>;

    /// Takes the response.
    fn peek(&self, response: Res) -> Peeked<Self::Response, Self::Reading>;
}

/// A response, or the reading that it must wait for.
#[derive(Debug)]
pub enum Peeked<Res, F> {
    /// It goes on.
    Done(Res),
    /// It waits.
    Reading(F),
}

impl<Res> Peek<Res> for Head {
    type Response = Res;
    type Reading = Pending<(Res, Option<Verdict>)>;

    #[inline]
    fn peek(&self, response: Res) -> Peeked<Res, Self::Reading> {
        Peeked::Done(response)
    }
}
