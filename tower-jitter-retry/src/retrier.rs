//! Retries without tower: for workers, batch jobs and scripts.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::thread;
use std::time::Duration;

use pin_project_lite::pin_project;
use tower_fault_classify::__internals::RetryScope;
use tower_fault_classify::Classify;
use tower_fault_classify::classifiers::{Auto, ErrorsOnly, RuleFirst};

use crate::attempt::{AttemptState, LastOutcome, RetryDelay};
use crate::policy::{Condition, RetryPolicy};
use crate::request::Deadline;

impl RetryPolicy {
    /// Calls an async closure until its result is not retried, and resolves to that result.
    ///
    /// Budget, delays, hints and limits are those of the layer. The call counts as
    /// [idempotent](Self::idempotent), unless [`safety`](crate::RetryPolicyBuilder::safety) is
    /// `Never`: the closure is then called once. A [`deadline`](Self::deadline) limits the time of
    /// all attempts.
    ///
    /// An async closure that changes a captured variable does not compile. Change the variable in a
    /// closure that returns an async block, or use a [`Cell`](std::cell::Cell).
    ///
    /// The result is classified by [`Auto`]: a response by its status, an error by its source
    /// chain. If the closure returns a type that is not an
    /// [`Outcome`](crate::fault_classify::Outcome), such as a file or a database row, use
    /// `policy.errors_only().retry(…)`.
    ///
    /// ```
    /// use std::io;
    /// use tower_jitter_retry::RetryPolicy;
    ///
    /// # async fn fetch(page: u32) -> io::Result<String> { Ok(page.to_string()) }
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
    /// let policy = RetryPolicy::default();
    /// let page = policy.retry(async || fetch(7).await).await?;
    /// # assert_eq!(page, "7");
    /// # Ok::<(), io::Error>(())
    /// # })?;
    /// # Ok::<(), io::Error>(())
    /// ```
    ///
    /// # Cancellation
    ///
    /// The future does nothing before it is polled. Dropping it drops the running attempt, or the
    /// delay before the next attempt. No task is spawned.
    ///
    /// # Errors
    ///
    /// Returns the error of the last attempt, unchanged.
    ///
    /// The last attempt may be rejected on this side at its first poll, for example by a circuit
    /// breaker in the closure. The outcome of the attempt before it is then returned.
    ///
    /// # Panics
    ///
    /// Panics if a retry has to wait and there is no tokio runtime with its timer enabled.
    pub fn retry<F, Fut, T, E, K>(&self, attempt: F) -> Retrying<F, Fut, Auto<K>>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<T, E>>,
        Auto<K>: Classify<T, E>,
    {
        Retrying::new(self, attempt, Auto::new(), Options::DEFAULT)
    }

    /// Calls a closure on this thread until its result is not retried, and returns that result.
    ///
    /// The thread sleeps between the attempts. Classification, budget, delays, hints and limits are
    /// those of [`retry`](Self::retry). If the policy's clock is
    /// [`Clock::tokio`](crate::Clock::tokio), the default,
    /// [`Clock::precise`](crate::Clock::precise) is used instead.
    ///
    /// ```
    /// use tower_jitter_retry::RetryPolicy;
    ///
    /// let text = RetryPolicy::default().retry_blocking(|| std::fs::read_to_string("/dev/null"))?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Returns the error of the last attempt, unchanged.
    ///
    /// The last attempt may be rejected on this side, for example by a circuit breaker in the
    /// closure. The error of the attempt before it is then returned.
    ///
    /// A failed *response* is not kept for that. It is dropped before the next attempt, because
    /// that attempt may block this thread until it gets a resource that the response holds.
    pub fn retry_blocking<T, E, K>(&self, attempt: impl FnMut() -> Result<T, E>) -> Result<T, E>
    where
        Auto<K>: Classify<T, E>,
    {
        blocking(self, attempt, &Auto::new(), Options::DEFAULT, sleep)
    }

    /// Classifies errors only: every returned value counts as a success and may have any type.
    ///
    /// A response that is itself a `Result`, such as that of `tokio::time::timeout`, then counts as
    /// a success even if it is an `Err`. For such responses, do not call `errors_only`, or use
    /// `.classify(NestedErrors::new())`.
    pub fn errors_only<K>(&self) -> Retrier<ErrorsOnly<K>> {
        self.classify(ErrorsOnly::new())
    }

    /// Sets the classifier, in place of [`Auto`].
    pub fn classify<C>(&self, classify: C) -> Retrier<C> {
        Retrier { policy: self.clone(), classify, options: Options::DEFAULT }
    }

    /// Adds a rule that is checked before [`Auto`].
    ///
    /// For values that are not an [`Outcome`](crate::fault_classify::Outcome), use
    /// `policy.errors_only().rule(…)`.
    pub fn rule<N, K>(&self, rule: N) -> Retrier<RuleFirst<N, Auto<K>>> {
        self.classify(Auto::new()).rule(rule)
    }

    /// Sets the time after which no further attempt of a call starts; see [`Retrier::deadline`].
    ///
    /// The result is classified by [`Auto`]. Around a circuit of `tower-breaker`, whose rejection
    /// is not retried:
    ///
    /// ```
    /// use std::time::Duration;
    /// use tower_breaker::{BreakerConfig, Circuit};
    /// use tower_jitter_retry::{Deadline, RetryPolicy};
    ///
    /// # async fn query() -> std::io::Result<u32> { Ok(7) }
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
    /// let (policy, circuit) = (RetryPolicy::default(), Circuit::new(BreakerConfig::default()));
    ///
    /// let deadline = Deadline::within(Duration::from_secs(5));
    /// let rows = policy.deadline(deadline).retry(|| circuit.call(query())).await?;
    /// # assert_eq!(rows, 7);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn deadline<K>(&self, deadline: Deadline) -> Retrier<Auto<K>> {
        self.classify(Auto::new()).deadline(deadline)
    }

    /// Sets whether calling a closure twice has the same effect as calling it once; see
    /// [`Retrier::idempotent`].
    ///
    /// The result is classified by [`Auto`].
    pub fn idempotent<K>(&self, idempotent: bool) -> Retrier<Auto<K>> {
        self.classify(Auto::new()).idempotent(idempotent)
    }

    /// Adds a condition that ends the retries of a call; see [`Retrier::retry_while`].
    ///
    /// The result is classified by [`Auto`].
    pub fn retry_while<K>(&self, condition: impl Fn() -> bool + Send + Sync + 'static) -> Retrier<Auto<K>> {
        self.classify(Auto::new()).retry_while(condition)
    }
}

/// Retries closures with a policy, a classifier, and the options of a call.
///
/// | setting | sets | default |
/// |---|---|---|
/// | [`RetryPolicy::classify`], [`RetryPolicy::errors_only`], [`rule`](Self::rule) | how results are classified | [`Auto`] |
/// | [`deadline`](Self::deadline) | when no further attempt of a call starts | none: only `max_elapsed` of the policy applies |
/// | [`idempotent`](Self::idempotent) | whether a call may be repeated after any retryable fault | `true` |
/// | [`retry_while`](Self::retry_while) | a condition that ends the retries when it is `false` | none: only that of the policy applies |
///
/// It is returned by the methods of [`RetryPolicy`] with these names.
#[derive(Clone, Debug)]
pub struct Retrier<C = Auto> {
    policy: RetryPolicy,
    classify: C,
    options: Options,
}

/// The options of a call.
#[derive(Clone, Copy, Debug)]
struct Options {
    idempotent: bool,
    deadline: Option<Deadline>,
}

impl Options {
    const DEFAULT: Self = Self { idempotent: true, deadline: None };
}

impl<C> Retrier<C> {
    /// Adds a rule that is checked before the existing rules and the classifier.
    ///
    /// The rule that was added last is checked first.
    pub fn rule<N>(self, rule: N) -> Retrier<RuleFirst<N, C>> {
        Retrier { policy: self.policy, classify: RuleFirst::new(rule, self.classify), options: self.options }
    }

    /// Sets the time after which no further attempt of a call starts.
    ///
    /// No retry starts at the deadline or later. If a delay would not end before it, no delay
    /// begins, and the call immediately returns the result of the last attempt.
    ///
    /// With [`Deadline::within`], the time of each call starts when its future is first polled, or
    /// when [`retry_blocking`](Self::retry_blocking) is called. **Default**: none.
    ///
    /// # Running attempts
    ///
    /// A running attempt is not cut short, so the call may end after the deadline. To stop it,
    /// limit each attempt to the time that is left:
    ///
    /// ```
    /// use std::time::{Duration, Instant};
    /// use tokio::time::timeout;
    /// use tower_jitter_retry::{Deadline, RetryPolicy};
    ///
    /// # async fn query() -> std::io::Result<u32> { Ok(7) }
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
    /// let limit = Duration::from_secs(2);
    /// let deadline = Deadline::at(Instant::now() + Duration::from_secs(5));
    ///
    /// let rows = RetryPolicy::default()
    ///     .deadline(deadline)
    ///     .retry(async || timeout(limit.min(deadline.remaining()), query()).await?)
    ///     .await?;
    /// # assert_eq!(rows, 7);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn deadline(mut self, deadline: Deadline) -> Self {
        self.options.deadline = Some(deadline);
        self
    }

    /// Sets whether calling a closure twice has the same effect as calling it once.
    ///
    /// A closure that is not idempotent is called again only after the faults that the policy's
    /// [`non_idempotent`](crate::RetryPolicyBuilder::non_idempotent) allows. The policy's
    /// [`safety`](crate::RetryPolicyBuilder::safety) takes precedence if it is `Always` or `Never`.
    /// **Default**: `true`.
    pub fn idempotent(mut self, idempotent: bool) -> Self {
        self.options.idempotent = idempotent;
        self
    }

    /// Adds a condition that ends the retries when it returns `false`.
    ///
    /// The condition of the policy, and those that were added before, still apply: every one has to
    /// be `true`. [`RetryPolicyBuilder::retry_while`](crate::RetryPolicyBuilder::retry_while) says
    /// when they are checked. **Default**: none.
    ///
    /// Around a circuit, the condition skips the delay before an attempt that the circuit would
    /// reject:
    ///
    /// ```
    /// use tower_breaker::{BreakerConfig, Circuit};
    /// use tower_jitter_retry::RetryPolicy;
    ///
    /// # async fn query() -> std::io::Result<u32> { Ok(7) }
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
    /// let (policy, circuit) = (RetryPolicy::default(), Circuit::new(BreakerConfig::default()));
    ///
    /// let checked = circuit.clone();
    /// let retry = policy.retry_while(move || !checked.status().rejects_calls());
    /// let rows = retry.retry(|| circuit.call(query())).await?;
    /// # assert_eq!(rows, 7);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn retry_while(mut self, condition: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        self.policy = self.policy.with_condition(Condition::new(condition));
        self
    }

    /// Calls an async closure until its result is not retried; see [`RetryPolicy::retry`].
    ///
    /// # Errors
    ///
    /// See [`RetryPolicy::retry`].
    ///
    /// # Panics
    ///
    /// See [`RetryPolicy::retry`].
    pub fn retry<F, Fut, T, E>(&self, attempt: F) -> Retrying<F, Fut, C>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<T, E>>,
        C: Classify<T, E> + Clone,
    {
        Retrying::new(&self.policy, attempt, self.classify.clone(), self.options)
    }

    /// Calls a closure on this thread until its result is not retried.
    ///
    /// See [`RetryPolicy::retry_blocking`].
    ///
    /// # Errors
    ///
    /// See [`RetryPolicy::retry_blocking`].
    pub fn retry_blocking<T, E>(&self, attempt: impl FnMut() -> Result<T, E>) -> Result<T, E>
    where
        C: Classify<T, E>,
    {
        blocking(&self.policy, attempt, &self.classify, self.options, sleep)
    }
}

/// Returns the state of a call. Its deadline is set when the call begins.
fn new_state(policy: &RetryPolicy, options: Options) -> AttemptState {
    let resend_after = policy.resend_if(None, options.idempotent);
    AttemptState::new(policy, resend_after, None, None, policy.randomness())
}

/// Marks the current attempt for breakers in the closure, unless it is the first one.
fn retry_scope(call: &AttemptState) -> Option<RetryScope> {
    (call.attempts() > 1).then(RetryScope::enter)
}

#[expect(clippy::disallowed_methods, reason = "the caller asked for a thread that sleeps")]
fn sleep(delay: Duration) {
    thread::sleep(delay);
}

fn blocking<T, E, C: Classify<T, E>>(
    policy: &RetryPolicy,
    mut attempt: impl FnMut() -> Result<T, E>,
    classify: &C,
    options: Options,
    mut sleep: impl FnMut(Duration),
) -> Result<T, E> {
    let mut call = new_state(policy, options).for_blocking();
    match options.deadline {
        Some(deadline) => call.start_with_deadline(deadline),
        // No poll shows when a blocking call first waits.
        None => call.start_time(),
    }
    let mut last = None;
    loop {
        let scope = retry_scope(&call);
        let result = attempt();
        drop(scope);
        let verdict = classify.classify(result.as_ref());
        let delay = match call.record_result(classify, &mut last, result, &verdict, || None) {
            Ok(retry) => retry,
            Err(result) => return result,
        };
        call.report_retry(&verdict, delay);
        if !delay.is_zero() {
            sleep(delay);
        }
        if let Some(limit) = call.exceeded_limit()
            && let Some(last) = last.take()
        {
            return call.stop(limit, classify, last);
        }
        // The next attempt may block this thread until it gets a resource that a response holds: a
        // connection or a permit.
        last.take_if(|last| last.result.is_ok());
    }
}

pin_project! {
    /// A future that resolves to the outcome of the last attempt.
    ///
    /// It is returned by [`RetryPolicy::retry`] and [`Retrier::retry`].
    pub struct Retrying<F, Fut, C = Auto>
    where
        Fut: Future,
    {
        attempt: F,
        #[pin]
        state: State<Fut>,
        // The outcome of the last attempt, while the next one waits.
        last: Option<LastOutcome<Fut::Output>>,
        call: AttemptState,
        // The deadline, until the first poll.
        deadline: Option<Deadline>,
        classify: C,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<Fut> {
        Idle,
        Calling { #[pin] attempt: Fut },
        Waiting { #[pin] pause: RetryDelay },
    }
}

impl<F, Fut: Future, C> Retrying<F, Fut, C> {
    fn new(policy: &RetryPolicy, attempt: F, classify: C, options: Options) -> Self {
        let call = new_state(policy, options);
        Self { attempt, state: State::Idle, last: None, call, deadline: options.deadline, classify }
    }
}

impl<F, Fut, T, E, C> Future for Retrying<F, Fut, C>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, E>>,
    C: Classify<T, E>,
{
    type Output = Result<T, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            match this.state.as_mut().project() {
                StateProj::Idle => {
                    if let Some(deadline) = this.deadline.take() {
                        this.call.start_with_deadline(deadline);
                    }
                    if let Some(limit) = this.call.exceeded_limit()
                        && let Some(last) = this.last.take()
                    {
                        return Poll::Ready(this.call.stop(limit, this.classify, last));
                    }
                    let scope = retry_scope(this.call);
                    let attempt = (this.attempt)();
                    drop(scope);
                    this.state.set(State::Calling { attempt });
                }
                StateProj::Calling { attempt } => {
                    let scope = retry_scope(this.call);
                    let polled = attempt.poll(cx);
                    drop(scope);
                    let Poll::Ready(result) = polled else {
                        // The attempt may wait for a resource that the last response holds.
                        *this.last = None;
                        this.call.start_time();
                        return Poll::Pending;
                    };
                    let verdict = this.classify.classify(result.as_ref());
                    let after = this.call.record_result(this.classify, this.last, result, &verdict, || None);
                    let delay = match after {
                        Ok(retry) => retry,
                        Err(result) => return Poll::Ready(result),
                    };
                    let pause = RetryDelay::new(delay, this.call.retries());
                    this.call.report_retry(&verdict, delay);
                    this.state.set(State::Waiting { pause });
                }
                StateProj::Waiting { pause } => {
                    ready!(pause.poll(cx));
                    this.state.set(State::Idle);
                }
            }
        }
    }
}

impl<F, Fut: Future, C> fmt::Debug for Retrying<F, Fut, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retrying").field("attempts", &self.call.attempts()).finish_non_exhaustive()
    }
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use std::io;

    use tower_fault_classify::__internals::Clock;
    use tower_fault_classify::classifiers::TypedError;

    use super::*;
    use crate::backoff::Jitter;
    use crate::budget::Budget;
    use crate::policy::RetryPolicyBuilder;

    /// Delays of 1 s, 2 s, 4 s and so on.
    fn delayed(clock: Clock) -> RetryPolicyBuilder {
        let policy = RetryPolicy::builder().budget(None::<Budget>).clock(clock);
        policy.jitter(Jitter::None).initial_backoff(Duration::from_secs(1))
    }

    #[test]
    fn blocking_retry_sleeps_between_attempts_while_time_is_left() {
        let (clock, manual) = Clock::manual();
        let second = Duration::from_secs(1);
        let policy = delayed(clock).max_attempts(10).max_elapsed(18 * second).build().unwrap();
        let (mut calls, mut slept) = (0, Vec::new());
        let attempt = || {
            calls += 1;
            manual.advance(second);
            Err::<(), _>(io::Error::from(io::ErrorKind::TimedOut))
        };
        let sleep = |delay| {
            manual.advance(delay);
            slept.push(delay.as_secs());
        };
        let classify = Auto::<TypedError>::new();
        let error = blocking(&policy, attempt, &classify, Options::DEFAULT, sleep).unwrap_err();
        // 1 + 1 + 1 + 2 + 1 + 4 + 1 = 11 s have elapsed, including the first attempt. A delay of
        // eight more seconds does not fit.
        assert_eq!((error.kind(), calls, slept), (io::ErrorKind::TimedOut, 4, vec![1, 2, 4]));
    }

    #[test]
    fn blocking_retry_that_sleeps_past_the_end_stops() {
        let (clock, manual) = Clock::manual();
        let second = Duration::from_secs(1);
        let policy = delayed(clock).max_elapsed(5 * second).build().unwrap();
        let mut calls = 0;
        let attempt = || {
            calls += 1;
            Err::<(), _>(io::Error::from(io::ErrorKind::TimedOut))
        };
        let oversleep = |_| manual.advance(6 * second);
        let classify = Auto::<TypedError>::new();
        let error = blocking(&policy, attempt, &classify, Options::DEFAULT, oversleep).unwrap_err();
        assert_eq!((error.kind(), calls), (io::ErrorKind::TimedOut, 1));
    }
}
