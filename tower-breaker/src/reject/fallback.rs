//! An answer of the user's own.

use std::fmt;
use std::future::{Future, Ready, ready};

use super::{ErrorMode, OnReject};
use crate::error::Rejection;

/// Answers with what a closure makes of the request; see [`fallback`](crate::BreakerLayer::fallback).
#[derive(Clone, Copy)]
pub struct Fallback<F>(F);

impl<F> Fallback<F> {
    pub(crate) const fn new(answer: F) -> Self {
        Self(answer)
    }
}

impl<F, E> ErrorMode<E> for Fallback<F> {
    type Error = E;

    #[inline]
    fn inner(error: E) -> E {
        error
    }
}

impl<F, Req, Res, E> OnReject<Req, Res, E> for Fallback<F>
where
    F: Fn(Req, &Rejection) -> Res,
{
    type Future = Ready<Result<Res, E>>;

    fn reject(&self, request: Req, rejection: Rejection) -> Self::Future {
        ready(Ok((self.0)(request, &rejection)))
    }
}

impl<F> fmt::Debug for Fallback<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fallback")
    }
}

/// Answers with what a future comes to; see [`fallback_async`](crate::BreakerLayer::fallback_async).
#[derive(Clone, Copy)]
pub struct FallbackAsync<F>(F);

impl<F> FallbackAsync<F> {
    pub(crate) const fn new(answer: F) -> Self {
        Self(answer)
    }
}

impl<F, E> ErrorMode<E> for FallbackAsync<F> {
    type Error = E;

    #[inline]
    fn inner(error: E) -> E {
        error
    }
}

impl<F, Fut, Req, Res, E> OnReject<Req, Res, E> for FallbackAsync<F>
where
    F: Fn(Req, Rejection) -> Fut,
    Fut: Future<Output = Result<Res, E>>,
{
    type Future = Fut;

    fn reject(&self, request: Req, rejection: Rejection) -> Fut {
        (self.0)(request, rejection)
    }
}

impl<F> fmt::Debug for FallbackAsync<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FallbackAsync")
    }
}
