//! The service.

use std::task::{Context, Poll};

use tower_fault_classify::Classify;
use tower_fault_classify::classifiers::Auto;
use tower_service::Service;

use crate::attempt::AttemptState;
use crate::future::{Replayable, ResponseFuture};
use crate::policy::{CachedPolicy, GiveUp, PolicyHandle};
use crate::request::{ByTrait, Coverage, Deadline, RequestInfo, Resend, ResendAfter};

/// Retries failed requests of its inner service.
///
/// It is made by [`JitterRetryLayer`](crate::JitterRetryLayer). The first attempt uses the
/// readiness that this service was polled for. Every further attempt uses a clone of the inner
/// service, and waits for that clone's own readiness. The inner service is cloned once per call,
/// and not at all for a request that cannot be sent again.
#[derive(Clone, Debug)]
pub struct JitterRetry<S, C = Auto, Q = ByTrait> {
    inner: S,
    policy: CachedPolicy,
    classify: C,
    resend: Q,
}

impl<S, C, Q> JitterRetry<S, C, Q> {
    pub(crate) const fn new(inner: S, policy: CachedPolicy, classify: C, resend: Q) -> Self {
        Self { inner, policy, classify, resend }
    }

    /// Returns a handle to the policy, which can replace it while services use it.
    pub fn handle(&self) -> PolicyHandle {
        self.policy.handle()
    }

    /// Returns a reference to the inner service.
    pub const fn get_ref(&self) -> &S {
        &self.inner
    }

    /// Returns a mutable reference to the inner service.
    pub const fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// Returns the inner service.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S, C, Q, Req> Service<Req> for JitterRetry<S, C, Q>
where
    S: Service<Req> + Clone,
    C: Classify<S::Response, S::Error> + Clone,
    Q: Resend<Req> + Clone,
    Req: RequestInfo,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S, Req, C, Q>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    #[expect(clippy::inline_always, reason = "otherwise the future is built here and then moved")]
    #[inline(always)]
    fn call(&mut self, mut request: Req) -> Self::Future {
        let Self { inner, policy, classify, resend } = self;
        let policy = policy.current();
        let limits = policy.config.limits();
        if policy.remove_marker {
            request.unmark(policy.marker_header());
        }
        let notes = request.notes();
        let resend_after = policy.resend_after(&request, notes.safety);
        let deadline = notes.deadline.map(Deadline::remaining);
        let started = deadline.map(|_| policy.clock.now());
        let outer = policy.outer(&notes);
        let own = Coverage::of(resend_after, classify.response_coverage());
        let once = if limits.max_attempts == 1 || resend_after == ResendAfter::Nothing || outer.contains(own)
        {
            Some(policy.single_attempt_reason(resend_after))
        } else {
            None
        };
        let saved = match once {
            Some(reason) => Err(reason),
            None => match resend.save(&mut request, policy.replay_limit) {
                Some(saved) => {
                    request.mark(policy.first_mark(outer.attempt(1, own), deadline));
                    Ok(saved)
                }
                None => Err(GiveUp::NotReplayable),
            },
        };
        // Before the inner call, because it may unwind: see below.
        let randomness = policy.randomness();
        let attempt = inner.call(request);
        let (classify, resend) = (classify.clone(), resend.clone());
        let replayable = match saved {
            // Cloned after the call: a clone before it would have to be dropped if the call panics.
            Ok(saved) => Replayable::Yes { service: inner.clone(), saved: Some(saved), outer },
            Err(reason) => Replayable::No(reason),
        };
        // Last, because it cannot unwind: every part is then built in its final place.
        let call = AttemptState::new(policy, resend_after, started, deadline, randomness);
        ResponseFuture::new(attempt, call, replayable, classify, resend)
    }
}

/// Passes on the load of the inner service.
#[cfg(feature = "tower")]
impl<S: tower::load::Load, C, Q> tower::load::Load for JitterRetry<S, C, Q> {
    type Metric = S::Metric;

    fn load(&self) -> S::Metric {
        self.inner.load()
    }
}
