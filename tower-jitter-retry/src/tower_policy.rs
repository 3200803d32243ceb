//! A [`RetryPolicy`] for tower's own [`RetryLayer`](tower::retry::RetryLayer).
//!
//! [`RetryPolicy::for_tower`] returns a [`TowerPolicy`]. Its future is [`Delay`].

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;
use tower::retry::Policy;
use tower_fault_classify::Classify;
use tower_fault_classify::classifiers::{Auto, ErrorsOnly, RuleFirst, TypedError};

use crate::attempt::{AttemptState, RetryDelay};
use crate::policy::{AttemptOutcome, CachedPolicy, PolicyHandle, RetryPolicy, before_redirect};
use crate::request::{ByTrait, CloneRequests, Deadline, OuterMark, RequestInfo, Resend};

impl RetryPolicy {
    /// Returns this policy in a form that tower's own [`tower::retry::RetryLayer`] accepts.
    ///
    /// Its clones and services share the budget of this policy. It is a separate type for two
    /// reasons: tower's policy also distinguishes the attempts of one request, and the kind of
    /// errors to classify has to be inferred.
    ///
    /// tower passes the request and the result to the policy only by reference, which causes these
    /// differences:
    ///
    /// | subject | [`JitterRetryLayer`](crate::JitterRetryLayer) | [`TowerPolicy`] |
    /// |---|---|---|
    /// | a streaming body | is kept while it is read | is sent once |
    /// | the mark of the first attempt | is set | is not set: inner retry layers leave faults to this layer from the second attempt on |
    /// | [`remove_marker`](crate::RetryPolicyBuilder::remove_marker) | applies to every attempt | applies to retries only: remove the marks above this layer with [`remove_marker`](crate::request::remove_marker) |
    /// | the start of [`max_elapsed`](crate::RetryPolicyBuilder::max_elapsed) without a deadline | when the call first has to wait or fails | when the first attempt fails, because tower does not call the policy earlier |
    /// | a retry that waits for the inner service's readiness | waits until the deadline or `max_elapsed` at most | waits without a limit, and is sent even if it is too late, because tower does not call the policy there |
    /// | a later attempt that is rejected on this side | the caller gets the outcome of the last attempt that was sent | the caller gets the rejection, with [`Retried::last_sent`](crate::Retried::last_sent), because tower drops each result before the next attempt |
    /// | clones of a request | one for each attempt that another attempt may follow | one for each attempt, because tower calls the policy only for requests that it has cloned |
    /// | deadlines, hints, budget, gRPC, marks of outer layers, `on_retry`, `retry_while`, `Retried` | yes | yes |
    ///
    /// ```
    /// use tower::{ServiceBuilder, retry::RetryLayer, service_fn};
    /// use tower_jitter_retry::RetryPolicy;
    ///
    /// let policy = RetryPolicy::builder().max_attempts(5).build()?;
    /// let service = ServiceBuilder::new()
    ///     .layer(RetryLayer::new(policy.for_tower()))
    ///     .service(service_fn(async |_: http::Request<String>| Ok::<_, std::io::Error>(http::Response::new(()))));
    /// # fn check<R, S: tower::Service<R>>(_: &S) {}
    /// # check::<http::Request<String>, _>(&service);
    /// # Ok::<(), tower_jitter_retry::ConfigError>(())
    /// ```
    pub fn for_tower<K>(&self) -> TowerPolicy<Auto<K>> {
        PolicyHandle::new(self.clone()).for_tower()
    }
}

impl PolicyHandle {
    /// Returns the policy in a form that tower's own retry layer accepts.
    ///
    /// See [`RetryPolicy::for_tower`]. A policy that replaces this one applies to the calls that
    /// begin afterwards.
    pub fn for_tower<K>(&self) -> TowerPolicy<Auto<K>> {
        let policy = CachedPolicy::new(self.clone());
        TowerPolicy { policy, classify: Auto::new(), resend: ByTrait, call: None }
    }
}

/// A [`RetryPolicy`] that implements tower's [`Policy`]; returned by [`RetryPolicy::for_tower`].
#[derive(Clone)]
pub struct TowerPolicy<C = Auto, Q = ByTrait> {
    policy: CachedPolicy,
    classify: C,
    resend: Q,
    /// The state of the request that this clone is for. The policy of the service itself holds the
    /// state of the last request, which is cloned with it.
    call: Option<Running>,
}

#[derive(Clone)]
struct Running {
    call: AttemptState,
    outer: OuterMark,
    /// Whether an attempt has ended.
    begun: bool,
}

impl<Q> TowerPolicy<Auto<TypedError>, Q> {
    /// Sets the classifier, in place of [`Auto`].
    pub fn classify<C>(self, classify: C) -> TowerPolicy<C, Q> {
        TowerPolicy { policy: self.policy, classify, resend: self.resend, call: None }
    }
}

impl<K, Q> TowerPolicy<Auto<K>, Q> {
    /// Classifies errors only: every response counts as a success and may have any type.
    pub fn errors_only(self) -> TowerPolicy<ErrorsOnly<K>, Q> {
        TowerPolicy { policy: self.policy, classify: ErrorsOnly::new(), resend: self.resend, call: None }
    }
}

impl<C, Q> TowerPolicy<C, Q> {
    /// Adds a rule that is checked before the existing rules and the classifier.
    ///
    /// The rule that was added last is checked first.
    pub fn rule<N>(self, rule: N) -> TowerPolicy<RuleFirst<N, C>, Q> {
        let classify = RuleFirst::new(rule, self.classify);
        TowerPolicy { policy: self.policy, classify, resend: self.resend, call: None }
    }

    /// Copies requests by their `Clone` implementation.
    ///
    /// See [`JitterRetryLayer::clone_requests`](crate::JitterRetryLayer::clone_requests).
    pub fn clone_requests(self) -> TowerPolicy<C, CloneRequests> {
        TowerPolicy { policy: self.policy, classify: self.classify, resend: CloneRequests, call: None }
    }
}

impl<C, Q, Req, Res, Err> Policy<Req, Res, Err> for TowerPolicy<C, Q>
where
    C: Classify<Res, Err>,
    Q: Resend<Req>,
    Req: RequestInfo,
{
    type Future = Delay;

    fn retry(&mut self, request: &mut Req, result: &mut Result<Res, Err>) -> Option<Delay> {
        let Self { classify, call, .. } = self;
        let Running { call, outer, begun } = call.as_mut()?;
        *begun = true;
        let verdict = classify.classify(result.as_ref());
        let follows = call.follows_redirects();
        let verdict = before_redirect(verdict, follows, classify, result, || request.url());
        let outcome = AttemptOutcome::new(classify, result, &verdict);
        let blocked = || outcome.blocked(*outer);
        let delay = match call.record_attempt(outcome.verdict, blocked) {
            Ok(retry) => retry,
            Err(ended) => {
                call.attach_retried(classify, result, ended);
                return None;
            }
        };
        let pause = RetryDelay::new(delay, call.retries());
        call.report_retry(outcome.verdict, delay);
        // The mark carries the time that will be left after the delay.
        request.mark(call.mark_after(*outer, classify.response_coverage(), delay));
        Some(Delay { pause })
    }

    fn clone_request(&mut self, request: &Req) -> Option<Req> {
        let Self { policy, resend, call, .. } = self;
        if call.as_ref().is_some_and(|running| running.begun) {
            return resend.duplicate(request, policy.last().replay_limit);
        }
        let policy = policy.current();
        if policy.config.limits().max_attempts == 1 {
            return None;
        }
        let mut request = resend.duplicate(request, policy.replay_limit)?;
        if policy.remove_marker {
            request.unmark(policy.marker_header());
        }
        let notes = request.notes();
        let resend_after = policy.resend_after(&request, notes.safety);
        let deadline = notes.deadline.map(Deadline::remaining);
        let started = deadline.map(|_| policy.clock.now());
        let running = AttemptState::new(policy, resend_after, started, deadline, policy.randomness());
        *call = Some(Running { call: running, outer: policy.outer(&notes), begun: false });
        Some(request)
    }
}

pin_project! {
    /// The delay before a retry, as the future of tower's policy.
    ///
    /// A delay of zero uses no timer, and yields to the runtime from time to time.
    #[derive(Debug)]
    pub struct Delay {
        #[pin]
        pause: RetryDelay,
    }
}

impl Future for Delay {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.project().pause.poll(cx)
    }
}

impl<C: fmt::Debug, Q: fmt::Debug> fmt::Debug for TowerPolicy<C, Q> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TowerPolicy")
            .field("policy", &self.policy)
            .field("classify", &self.classify)
            .field("resend", &self.resend)
            .finish_non_exhaustive()
    }
}
