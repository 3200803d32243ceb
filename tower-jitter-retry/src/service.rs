//! The service.

use std::task::{Context, Poll};

use tower_fault_classify::Classify;
use tower_service::Service;

use crate::backoff::Position;
use crate::budget::Budget;
use crate::future::{Call, ResponseFuture, Spare};
use crate::policy::RetryPolicy;
use crate::request::Resend;
use crate::rng::Seeds;

/// How much of a streaming body is kept so that it can be sent again: 64 KiB.
const REPLAY_LIMIT: usize = 64 * 1024;

/// Sends failed requests of its inner service again. Made by [`JitterRetryLayer`](crate::JitterRetryLayer).
///
/// The first attempt takes the readiness that this service was polled for; every further one goes to a clone and waits for that
/// clone's own. The inner service is cloned once a call, and not at all for a request that cannot be sent again.
#[derive(Clone, Debug)]
pub struct JitterRetry<S, C, Q> {
    inner: S,
    policy: RetryPolicy,
    classify: C,
    resend: Q,
}

impl<S, C, Q> JitterRetry<S, C, Q> {
    pub(crate) const fn new(inner: S, policy: RetryPolicy, classify: C, resend: Q) -> Self {
        Self { inner, policy, classify, resend }
    }

    /// The inner service.
    pub const fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The inner service, to be changed.
    pub const fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// Gives the inner service back.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S, C, Q, Req> Service<Req> for JitterRetry<S, C, Q>
where
    S: Service<Req> + Clone,
    C: Classify<S::Response, S::Error> + Clone,
    Q: Resend<Req> + Clone,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S, Req, C, Q>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let RetryPolicy { limits, budget, clock, seeds } = &self.policy;
        let safety = self.resend.safety(&request).unwrap_or(limits.safety);
        let idempotent = safety.decide(self.resend.is_idempotent(&request));
        let (request, saved) =
            if limits.max_attempts > 1 { self.resend.save(request, REPLAY_LIMIT) } else { (request, None) };
        let spare = saved.map(|saved| Spare { service: self.inner.clone(), saved: Some(saved) });
        let call = Call {
            limits: *limits,
            account: budget.as_ref().map(Budget::account),
            ticket: None,
            started: None,
            clock: clock.clone(),
            seed: seeds.as_ref().map(Seeds::next),
            attempts: 1,
            idempotent,
            position: Position::START,
            randomness: None,
            classify: self.classify.clone(),
            resend: self.resend.clone(),
        };
        ResponseFuture::new(self.inner.call(request), call, spare)
    }
}
