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
use crate::policy::{AttemptOutcome, RetryPolicy, before_redirect};
use crate::request::{ByTrait, CloneRequests, Deadline, OuterMark, RequestInfo, Resend};

impl RetryPolicy {
    /// The same policy for [`tower::retry::RetryLayer`]; clones and services share its budget.
    ///
    /// It is a type of its own, since tower's policy is also what tells one request's attempts
    /// apart, and since what kind of errors are judged has to be inferred. tower shows it the
    /// request and the result by reference only, and that costs something:
    ///
    /// | | [`JitterRetryLayer`](crate::JitterRetryLayer) | this |
    /// |---|---|---|
    /// | a streaming body | is kept while it is read | goes out once |
    /// | the mark of the first attempt | is set | cannot be: retries further in stay quiet from the second on |
    /// | [`remove_marker`](crate::RetryPolicyBuilder::remove_marker) | from every attempt | from retries only: remove the marks above this layer with [`remove_marker`](crate::request::remove_marker) |
    /// | a retry that waits for the inner service's readiness | waits until the deadline or `max_elapsed` at most | waits without end, and is sent even if it is too late: tower asks no policy there |
    /// | a later attempt that is rejected on this side | the outcome of the last attempt that was sent | the rejection, with [`Retried::last_sent`](crate::Retried::last_sent): tower drops each result before the next attempt |
    /// | clones of a request | one for each attempt that another may follow | one for each attempt, for tower asks no policy about one without |
    /// | deadlines, hints, budget, gRPC, marks from further out, `on_retry`, `Retried` | yes | yes |
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
        TowerPolicy { policy: self.clone(), classify: Auto::new(), resend: ByTrait, call: None }
    }
}

/// A [`RetryPolicy`] as tower's [`Policy`]. Made by [`RetryPolicy::for_tower`].
#[derive(Clone)]
pub struct TowerPolicy<C = Auto, Q = ByTrait> {
    policy: RetryPolicy,
    classify: C,
    resend: Q,
    /// Of the request that this clone is for. The policy of the service itself has that of the last request, to be cloned with it.
    call: Option<Running>,
}

#[derive(Clone)]
struct Running {
    call: AttemptState,
    outer: OuterMark,
    /// It has made an attempt.
    begun: bool,
}

impl<Q> TowerPolicy<Auto<TypedError>, Q> {
    /// Judges by `classify` instead.
    pub fn classify<C>(self, classify: C) -> TowerPolicy<C, Q> {
        TowerPolicy { policy: self.policy, classify, resend: self.resend, call: None }
    }
}

impl<K, Q> TowerPolicy<Auto<K>, Q> {
    /// Takes every response for a success, so that a response of any type will do.
    pub fn errors_only(self) -> TowerPolicy<ErrorsOnly<K>, Q> {
        TowerPolicy { policy: self.policy, classify: ErrorsOnly::new(), resend: self.resend, call: None }
    }
}

impl<C, Q> TowerPolicy<C, Q> {
    /// Asks `rule` first. The rule that was added last is asked first.
    pub fn rule<N>(self, rule: N) -> TowerPolicy<RuleFirst<N, C>, Q> {
        let classify = RuleFirst::new(rule, self.classify);
        TowerPolicy { policy: self.policy, classify, resend: self.resend, call: None }
    }

    /// As [`JitterRetryLayer::clone_requests`](crate::JitterRetryLayer::clone_requests).
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
        let (fault, delay) = match call.record_attempt(outcome.verdict, blocked) {
            Ok(retry) => retry,
            Err(ended) => {
                call.attach_retried(classify, result, ended);
                return None;
            }
        };
        let pause = RetryDelay::new(delay, call.attempts());
        call.begin_retry(&fault, delay);
        // The time that is left is what there is after the sleep.
        request.mark(call.mark_after(*outer, classify.response_coverage(), delay));
        Some(Delay { pause })
    }

    fn clone_request(&mut self, request: &Req) -> Option<Req> {
        let Self { policy, resend, call, .. } = self;
        if call.as_ref().is_some_and(|running| running.begun) {
            return resend.duplicate(request, policy.replay_limit);
        }
        if policy.hot.limits.max_attempts == 1 {
            return None;
        }
        let mut request = resend.duplicate(request, policy.replay_limit)?;
        if policy.remove_marker {
            request.unmark(policy.marker_header());
        }
        let notes = request.notes();
        let resend_after = policy.resend_after(&request, notes.safety);
        let running = AttemptState::new(policy, resend_after, notes.deadline.map(Deadline::remaining));
        *call = Some(Running { call: running, outer: policy.outer(&notes), begun: false });
        Some(request)
    }
}

pin_project! {
    /// The delay before a retry. A delay of zero uses no timer, and yields to the runtime from time
    /// to time.
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
