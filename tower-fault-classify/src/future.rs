//! The future of a call whose outcome is judged.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::StatusCode;
use pin_project_lite::pin_project;

use crate::classify::Classify;
use crate::fault::{Fault, Verdict};
use crate::observe;
use crate::outcome::{Carried, Outcome};
use crate::service::ErrorMode;

pin_project! {
    /// Comes to what the inner future comes to, with the verdict on it. Dropping it drops the inner future.
    pub struct ResponseFuture<F, C, M> {
        #[pin]
        inner: F,
        classify: C,
        errors: PhantomData<fn() -> M>,
    }
}

impl<F, C, M> ResponseFuture<F, C, M> {
    pub(crate) const fn new(inner: F, classify: C) -> Self {
        Self { inner, classify, errors: PhantomData }
    }
}

impl<F, C, M, Res, Err> Future for ResponseFuture<F, C, M>
where
    F: Future<Output = Result<Res, Err>>,
    C: Classify<Res, Err>,
    M: ErrorMode<Err>,
{
    type Output = Result<Res, M::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        Poll::Ready(match ready!(this.inner.poll(cx)) {
            Ok(mut response) => {
                let verdict = this.classify.classify(Ok(&response));
                let outcome = this.classify.outcome(&mut response);
                if let Some(fault) = verdict.fault() {
                    observe::tell(fault, outcome.as_ref().and_then(|outcome| outcome.status()));
                }
                if let Some(outcome) = outcome {
                    pass_on(outcome, verdict);
                }
                Ok(response)
            }
            Err(error) => Err(M::pass_on(error, |error| judge::<C, Res, _>(this.classify, error))),
        })
    }
}

/// Judges an error and tells of its fault.
pub(crate) fn judge<C, Res, Err>(classify: &C, error: &Err) -> Option<Fault>
where
    C: Classify<Res, Err>,
{
    let verdict = classify.classify(Err(error));
    let fault = verdict.fault().copied();
    if let Some(fault) = &fault {
        observe::tell(fault, None);
    }
    fault
}

/// Leaves the verdict on the response, unless every layer above would come to the same one by itself.
#[inline]
fn pass_on(outcome: &mut (impl Outcome + ?Sized), verdict: Verdict) {
    let plain = match verdict {
        Verdict::Success => outcome.status().is_none_or(|status| status < StatusCode::BAD_REQUEST),
        Verdict::Fault(_) => false,
    };
    if !plain || Carried::on(outcome).is_some_and(|carried| carried != verdict) {
        Carried::put(outcome, verdict);
    }
}

impl<F: fmt::Debug, C, M> fmt::Debug for ResponseFuture<F, C, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").field("inner", &self.inner).finish_non_exhaustive()
    }
}
