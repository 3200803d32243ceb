//! The body modes of the layer: whether it reads error bodies, and whether it tracks bodies.

use std::future::{Future, Pending};

use super::end::ClassifyEnd;
use crate::fault::Verdict;
use crate::telemetry::Reporter;

/// A body mode that decides whether the layer tracks the body of a response.
///
/// The trait is sealed. [`Head`] does not track, [`TrackBody`](super::TrackBody) does.
pub trait Track<Res, C>: sealed::Sealed {
    /// The response that the layer returns.
    type Response;

    /// Wraps the body of a response whose head was classified. `reporter` reports a fault at the
    /// end of the body.
    fn track(
        &self,
        response: Res,
        head: Verdict,
        classify: &C,
        classify_end: ClassifyEnd<C>,
        reporter: Reporter,
    ) -> Self::Response;
}

/// The default mode: the response's head alone decides.
#[derive(Clone, Copy, Debug, Default)]
pub struct Head;

impl<Res, C> Track<Res, C> for Head {
    type Response = Res;

    #[inline]
    fn track(&self, response: Res, _: Verdict, _: &C, _: ClassifyEnd<C>, _: Reporter) -> Res {
        response
    }
}

/// A body mode that decides whether the layer reads the beginning of a response's body.
///
/// The trait is sealed. [`Head`] does not read, `ErrorBodies` does.
pub trait Peek<Res, C>: sealed::Sealed {
    /// The response that the layer returns.
    type Response;
    /// The future that reads the body.
    ///
    /// It resolves to the response, and to a verdict if the body overrides the verdict on the head.
    type Reading: Future<Output = (Self::Response, Option<Verdict>)>;

    /// Starts to read the body, if the mode reads the body of this response.
    ///
    /// `classify` classifies an error that breaks the body.
    fn peek(
        &self,
        response: Res,
        head: &Verdict,
        classify: &C,
        classify_end: ClassifyEnd<C>,
    ) -> Peeked<Self::Response, Self::Reading>;
}

/// A response, or the future that reads its body.
#[derive(Debug)]
pub enum Peeked<Res, F> {
    /// The response, whose body is not read.
    Done(Res),
    /// The future that reads the body.
    Reading(F),
}

impl<Res, C> Peek<Res, C> for Head {
    type Response = Res;
    type Reading = Pending<(Res, Option<Verdict>)>;

    #[inline]
    fn peek(&self, response: Res, _: &Verdict, _: &C, _: ClassifyEnd<C>) -> Peeked<Res, Self::Reading> {
        Peeked::Done(response)
    }
}

pub(super) mod sealed {
    pub trait Sealed {}

    impl Sealed for super::Head {}
}
