//! The modes of the layer: whether it reads the body, and whether it tracks it.

use std::future::{Future, Pending};

use super::end::ClassifyEnd;
use crate::fault::Verdict;

/// Whether the layer tracks the body of a response: [`Head`] does not, [`TrackBody`](super::TrackBody)
/// does. Sealed.
pub trait Track<Res, C>: sealed::Sealed {
    /// The response that is returned.
    type Response;

    /// Wraps the body of a response whose head was classified.
    fn track(
        &self,
        response: Res,
        head: Verdict,
        classify: &C,
        classify_end: ClassifyEnd<C>,
    ) -> Self::Response;
}

/// The head alone decides. The default.
#[derive(Clone, Copy, Debug, Default)]
pub struct Head;

impl<Res, C> Track<Res, C> for Head {
    type Response = Res;

    #[inline]
    fn track(&self, response: Res, _: Verdict, _: &C, _: ClassifyEnd<C>) -> Res {
        response
    }
}

/// Whether the layer reads the beginning of an error's body: [`Head`] does not, `ErrorBodies` does.
/// Sealed.
pub trait Peek<Res>: sealed::Sealed {
    /// The response that is returned.
    type Response;
    /// Resolves to the response, and to a verdict if the body overrides that of the head.
    type Reading: Future<Output = (Self::Response, Option<Verdict>)>;

    /// Starts to read the body, if it has to be read.
    fn peek(&self, response: Res) -> Peeked<Self::Response, Self::Reading>;
}

/// A response, or the future that reads its body.
#[derive(Debug)]
pub enum Peeked<Res, F> {
    /// The response, whose body is not read.
    Done(Res),
    /// The future that reads the body.
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

pub(super) mod sealed {
    pub trait Sealed {}

    impl Sealed for super::Head {}
}
