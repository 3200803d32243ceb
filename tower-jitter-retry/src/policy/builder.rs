//! The builder of a [`RetryPolicy`], and the methods of [`RetryPolicy`] that return one.

use std::borrow::Cow;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use tower_fault_classify::__internals::{Clock, ConfigError, intern};

use super::call_config::{CallConfig, ColdConfig};
use super::callbacks::{Condition, Observer, RetryEvent};
use super::config::RetryPolicy;
use super::decide::Limits;
use super::grpc_methods::GrpcMethods;
use crate::backoff::{Backoff, Jitter, nanos};
use crate::budget::{Budget, TokenBudgetBuilder};
use crate::request::{NonIdempotent, RetrySafety};
use crate::rng::Seeds;
use crate::telemetry::Reporter;

pub(crate) const ATTEMPT_RANGE: RangeInclusive<u32> = 1..=1_000;

/// The number of attempts of a policy without a limit. Time runs out earlier.
pub(crate) const UNLIMITED_ATTEMPTS: u32 = u32::MAX;

pub(crate) const MULTIPLIER_RANGE: RangeInclusive<f64> = 1.0..=1_000.0;
pub(crate) const SHARE_RANGE: RangeInclusive<f64> = 0.0..=1.0;
pub(crate) const MAX_DURATION: Duration = Duration::from_secs(365 * 24 * 60 * 60);
pub(crate) const REPLAY_LIMIT_RANGE: RangeInclusive<usize> = 0..=1 << 30;

/// Builds a [`RetryPolicy`].
///
/// [`RetryPolicy`] has a table of all settings with their ranges and defaults.
/// [`build`](Self::build) checks the ranges.
#[derive(Clone, Debug)]
#[must_use]
pub struct RetryPolicyBuilder {
    name: Cow<'static, str>,
    max_attempts: Option<u32>,
    initial_backoff: Duration,
    backoff_multiplier: f64,
    max_backoff: Duration,
    jitter: Jitter,
    max_elapsed: Option<Duration>,
    max_retry_after: Duration,
    safety: RetrySafety,
    non_idempotent: NonIdempotent,
    follows_redirects: Option<bool>,
    budget: BudgetChoice,
    clock: Option<Clock>,
    seed: Option<u64>,
    replay_limit: usize,
    track_uploads: bool,
    methods: Vec<String>,
    marker: bool,
    header: Option<HeaderName>,
    remove_marker: bool,
    observer: Option<Observer>,
    condition: Option<Condition>,
}

#[derive(Clone, Debug)]
enum BudgetChoice {
    /// Each policy that is built gets a budget of its own.
    New(TokenBudgetBuilder),
    /// `given`: the budget was given in code, so that other policies may share it.
    Of { budget: Option<Budget>, given: bool },
}

impl RetryPolicy {
    /// Returns a builder with the default settings.
    pub fn builder() -> RetryPolicyBuilder {
        RetryPolicyBuilder::default()
    }

    /// Returns a builder for a gateway or another proxy, whose requests come from remote clients.
    ///
    /// It differs from the defaults in four settings:
    ///
    /// | setting | value | reason |
    /// |---|---|---|
    /// | [`safety`](RetryPolicyBuilder::safety) | [`RetrySafety::ByMethod`] | the backend may not support the `Idempotency-Key` that a remote client sends |
    /// | [`non_idempotent`](RetryPolicyBuilder::non_idempotent) | [`NonIdempotent::Unsent`] | RFC 9110 §9.2.2 forbids a proxy to retry any other request that is not idempotent |
    /// | [`remove_marker`](RetryPolicyBuilder::remove_marker) | on | a remote client must not be able to write retry marks |
    /// | [`budget`](RetryPolicyBuilder::budget) | a [`Budget::default`] with a capacity of 100 tokens | gateways are few and make many calls, and the capacity limits concurrent retries; see [the figures](crate::budget#default) |
    ///
    /// ```
    /// use tower_jitter_retry::RetryPolicy;
    ///
    /// let policy = RetryPolicy::gateway().max_attempts(2).build()?;
    /// # Ok::<(), tower_jitter_retry::ConfigError>(())
    /// ```
    pub fn gateway() -> RetryPolicyBuilder {
        let builder = Self::builder()
            .safety(RetrySafety::ByMethod)
            .non_idempotent(NonIdempotent::Unsent)
            .remove_marker(true);
        RetryPolicyBuilder { budget: BudgetChoice::New(Budget::tokens().capacity(100)), ..builder }
    }

    /// Returns a builder with the settings of this policy.
    ///
    /// A policy that is built from it shares the budget of this policy, unless you set another
    /// budget. If this policy has a seed, the new policy starts the seed's sequence from its
    /// beginning.
    ///
    /// ```
    /// use tower_jitter_retry::RetryPolicy;
    ///
    /// let policy = RetryPolicy::default();
    /// let patient = policy.to_builder().max_attempts(10).build()?;
    /// assert_eq!(patient.budget(), policy.budget());
    /// # Ok::<(), tower_jitter_retry::ConfigError>(())
    /// ```
    pub fn to_builder(&self) -> RetryPolicyBuilder {
        RetryPolicyBuilder::from_policy(self)
    }
}

impl Default for RetryPolicy {
    fn default() -> Self {
        let policy = Self::builder().build();
        // A test checks that the defaults are in their ranges.
        policy.unwrap_or_else(|error| unreachable!("the defaults are valid: {error}"))
    }
}

impl Default for RetryPolicyBuilder {
    fn default() -> Self {
        Self {
            name: Cow::Borrowed("retry"),
            max_attempts: Some(3),
            initial_backoff: Duration::from_millis(100),
            backoff_multiplier: 2.0,
            max_backoff: Duration::from_secs(10),
            jitter: Jitter::Full,
            max_elapsed: Some(Duration::from_secs(120)),
            max_retry_after: Duration::from_secs(60),
            safety: RetrySafety::ByRequest,
            non_idempotent: NonIdempotent::UnsentOrRefused,
            follows_redirects: None,
            budget: BudgetChoice::New(Budget::tokens()),
            clock: None,
            seed: None,
            replay_limit: 64 * 1024,
            track_uploads: true,
            methods: Vec::new(),
            marker: true,
            header: None,
            remove_marker: false,
            observer: None,
            condition: None,
        }
    }
}

impl RetryPolicyBuilder {
    /// Returns a builder with the settings of `policy`.
    fn from_policy(policy: &RetryPolicy) -> Self {
        let backoff = policy.backoff();
        Self {
            name: Cow::Borrowed(policy.name()),
            max_attempts: policy.max_attempts(),
            initial_backoff: backoff.initial_backoff(),
            backoff_multiplier: backoff.backoff_multiplier(),
            max_backoff: backoff.max_backoff(),
            jitter: backoff.jitter(),
            max_elapsed: policy.max_elapsed(),
            max_retry_after: policy.max_retry_after(),
            safety: policy.safety(),
            non_idempotent: policy.non_idempotent(),
            follows_redirects: policy.follows_redirects(),
            budget: BudgetChoice::Of { budget: policy.budget().cloned(), given: policy.has_given_budget },
            clock: policy.has_own_clock.then_some(policy.clock()),
            seed: policy.seed(),
            replay_limit: policy.replay_limit(),
            track_uploads: policy.track_uploads(),
            methods: policy.idempotent_methods().collect(),
            marker: policy.marker(),
            header: policy.marker_header().cloned(),
            remove_marker: policy.remove_marker(),
            observer: policy.config.cold().and_then(|cold| cold.observer.clone()),
            condition: policy.config.cold().and_then(|cold| cold.condition.clone()),
        }
    }

    /// Sets the name of the policy: the label and the field `policy` in metrics and logs.
    ///
    /// Give each policy a name if a program has several. **Default**: `"retry"`.
    ///
    /// A name that is built at run time is leaked: the program keeps one copy of each distinct name
    /// until it ends.
    pub fn name(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.name = name.into();
        self
    }

    /// Sets how many times a request is sent at most, including the first attempt.
    ///
    /// Range: 1 to 1,000, or `None` for no limit. With 1, a request is never retried. **Default**:
    /// 3. The default [`budget`](Self::budget) pays for only one retry if the attempts time out.
    ///
    /// `None` requires a [`max_elapsed`](Self::max_elapsed), so that every call ends. A request's
    /// [`Deadline`](crate::Deadline) is a further limit. If every request has a deadline, set
    /// `max_elapsed` to the longest of them.
    pub fn max_attempts(mut self, attempts: impl Into<Option<u32>>) -> Self {
        self.max_attempts = attempts.into();
        self
    }

    /// Sets the ceiling of the delay before the first retry.
    ///
    /// [`jitter`](Self::jitter) draws the delay in relation to the ceiling. Range: 0 to
    /// [`max_backoff`](Self::max_backoff). **Default**: 100 ms.
    ///
    /// With 0, and a jitter that adds no time of its own ([`Additive`](Jitter::Additive) does),
    /// retries follow immediately and without a timer. They yield to the runtime: in a tokio task,
    /// each retry takes a unit of the task's cooperative budget. Outside of tokio, at most 128
    /// attempts follow each other in one poll.
    pub fn initial_backoff(mut self, delay: Duration) -> Self {
        self.initial_backoff = delay;
        self
    }

    /// Sets the factor by which the ceiling of the delay grows with every further retry.
    ///
    /// Range: 1 to 1,000. **Default**: 2.
    pub fn backoff_multiplier(mut self, multiplier: f64) -> Self {
        self.backoff_multiplier = multiplier;
        self
    }

    /// Sets the maximum that the ceiling of the delay grows to.
    ///
    /// Range: 0 to 365 days. **Default**: 10 s.
    pub fn max_backoff(mut self, delay: Duration) -> Self {
        self.max_backoff = delay;
        self
    }

    /// Sets how a delay is drawn in relation to its ceiling.
    ///
    /// A share in it has the range 0 to 1, and a time the range 0 to 365 days. **Default**:
    /// [`Jitter::Full`].
    pub fn jitter(mut self, jitter: Jitter) -> Self {
        self.jitter = jitter;
        self
    }

    /// Sets how long after the start of the call the last retry may start.
    ///
    /// Range: 0 to 365 days; `None` means no limit. **Default**: 2 minutes.
    ///
    /// The first row that applies determines the start:
    ///
    /// | call | start |
    /// |---|---|
    /// | with a [`Deadline`](crate::Deadline) or `grpc-timeout` | when the call begins |
    /// | [`retry_blocking`](RetryPolicy::retry_blocking) | before the first attempt |
    /// | through tower's own retry layer (`TowerPolicy`) | when the first attempt fails |
    /// | any other | when the call first has to wait or fails |
    ///
    /// - A delay that would end later is not begun. The caller then gets the outcome of the last
    ///   attempt.
    /// - A retry that waits for the inner service's readiness stops waiting when the time is over.
    ///   The caller gets the outcome of the last attempt.
    /// - A running attempt is not cut short. Use a timeout for that.
    pub fn max_elapsed(mut self, time: impl Into<Option<Duration>>) -> Self {
        self.max_elapsed = time.into();
        self
    }

    /// Sets the longest delay that a server may ask for.
    ///
    /// A longer delay ends the retries. So does a delay that does not fit into
    /// [`max_elapsed`](Self::max_elapsed) or the request's [`Deadline`](crate::Deadline). Range: 0
    /// to 365 days. **Default**: 60 s.
    ///
    /// | hint | effect |
    /// |---|---|
    /// | `Retry-After`, `retry-after-ms`, gRPC's `RetryInfo` | A minimum: the retry waits for the longer of the hint and the backoff's own delay. The backoff continues to grow. |
    /// | `grpc-retry-pushback-ms` | Exact: the hint replaces the backoff's delay, and the backoff starts again after it. 0 means immediately. |
    /// | a `grpc-retry-pushback-ms` that is negative or invalid | Ends the retries. |
    /// | a `Retry-After`, `retry-after-ms` or `RetryInfo` that is 0 or invalid | None on the delay: the backoff's own delay applies. |
    ///
    /// Every hint is stretched by up to half of it, at most 5 s. Clients that received the same
    /// hint therefore do not return at the same moment. The stretched delay never passes the time
    /// that is left. [`Jitter::None`] turns the stretch off.
    pub fn max_retry_after(mut self, delay: Duration) -> Self {
        self.max_retry_after = delay;
        self
    }

    /// Sets whether requests may be sent more than once.
    ///
    /// A request's own [`RetrySafety`] takes precedence. **Default**: [`RetrySafety::ByRequest`].
    pub fn safety(mut self, safety: RetrySafety) -> Self {
        self.safety = safety;
        self
    }

    /// Sets the faults after which a request that is not idempotent is sent again.
    ///
    /// [`RetrySafety`] decides whether a request is idempotent. **Default**:
    /// [`NonIdempotent::UnsentOrRefused`].
    pub fn non_idempotent(mut self, level: NonIdempotent) -> Self {
        self.non_idempotent = level;
        self
    }

    /// Sets whether a client below this layer follows redirects.
    ///
    /// A fault after a redirect says nothing about the request that was sent first: a server may
    /// have processed a POST before it redirected the client to a server that refuses connections
    /// or answers 429. After a redirect,
    /// [`Retryable::Unsent`](crate::fault_classify::Retryable::Unsent) and
    /// [`Refused`](crate::fault_classify::Retryable::Refused) therefore count as
    /// [`IfIdempotent`](crate::fault_classify::Retryable::IfIdempotent). The method of the original
    /// request decides whether it is idempotent.
    ///
    /// | value | `Unsent` and `Refused` count as `IfIdempotent` |
    /// |---|---|
    /// | `None` (**default**) | in every error of reqwest; in a response of reqwest or of tower-http's `FollowRedirect` (feature `follow-redirect`) whose URL is not the request's |
    /// | `true` | always |
    /// | `false` | never |
    ///
    /// When to set it:
    ///
    /// - `true` if tower-http's `FollowRedirect` is below this layer, because its errors do not
    ///   show whether a redirect was followed. It is better to put `FollowRedirect` above this
    ///   layer: each hop is then a request of its own.
    /// - `true` if a [`classify_fn`](tower_fault_classify::classify_fn) creates faults with
    ///   `Unsent` for reqwest's errors itself. Faults that
    ///   [`classify_error`](tower_fault_classify::classify_error) returns are recognized without
    ///   it, and so is a `rule` on an error.
    /// - `true` if your server redirects a request to the request's own URL. In the response, such
    ///   a redirect cannot be distinguished from no redirect.
    /// - `false` for a reqwest client with `redirect::Policy::none()`. An error of reqwest does not
    ///   say which hop failed. Without this setting, a POST is therefore not sent again after a
    ///   refused connection.
    /// - `false` if a layer in between changes URLs.
    pub fn follows_redirects(mut self, follows: impl Into<Option<bool>>) -> Self {
        self.follows_redirects = follows.into();
        self
    }

    /// Sets the budget that retries are paid from.
    ///
    /// `None` means that the number of retries has no limit. **Default**: a [`Budget::default`]
    /// that only this policy and its clones use. The module [`budget`](crate::budget) compares the
    /// kinds, and has [the reasons](crate::budget#default) for the default.
    pub fn budget(mut self, budget: impl Into<Option<Budget>>) -> Self {
        self.budget = BudgetChoice::Of { budget: budget.into(), given: true };
        self
    }

    /// Sets a budget that was made for this policy alone.
    #[cfg(feature = "serde")]
    pub(crate) fn own_budget(mut self, budget: Option<Budget>) -> Self {
        self.budget = BudgetChoice::Of { budget, given: false };
        self
    }

    /// Sets the clock of [`max_elapsed`](Self::max_elapsed) and of deadlines.
    ///
    /// **Default**: [`Clock::tokio`], the clock of tokio's timer.
    /// [`retry_blocking`](RetryPolicy::retry_blocking) reads [`Clock::precise`] in its place,
    /// because its thread sleeps.
    ///
    /// - Delays do not depend on this clock. They use tokio's timer, or the thread's sleep with
    ///   `retry_blocking`.
    /// - A window budget reads a [clock of its own](crate::budget::WindowBudgetBuilder::clock). Other
    ///   budgets of this crate read none.
    /// - This clock is first read at the start of [`max_elapsed`](Self::max_elapsed).
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = Some(clock);
        self
    }

    /// Makes the delays reproducible: all random numbers are derived from the seed.
    ///
    /// Each call has a stream of its own. The streams are assigned in the order in which the
    /// futures of the calls are created. `None` removes the seed. **Default**: no seed; the delays
    /// differ from run to run.
    pub fn seed(mut self, seed: impl Into<Option<u64>>) -> Self {
        self.seed = seed.into();
        self
    }

    /// Sets how many bytes of a request's body are kept so that the request can be sent again.
    ///
    /// The limit applies to a streaming body ([`ReplayBody`](crate::ReplayBody)), and to a body in
    /// memory that has to be copied (`String`, `Vec<u8>`). A request with a larger body is sent
    /// once. Data that is shared (`Bytes`) does not count. Range: 0 to 1 GiB. **Default**: 64 KiB.
    pub fn replay_limit(mut self, bytes: usize) -> Self {
        self.replay_limit = bytes;
        self
    }

    /// Sets the gRPC methods that may be sent more than once.
    ///
    /// Write them as `package.Service/Method`, or `package.Service/*` for all methods of a service.
    /// The list replaces a list that was set before. **Default**: empty.
    ///
    /// gRPC sends every call as a POST. Without this list, no gRPC call that a server may have
    /// processed is sent again.
    pub fn idempotent_methods<M: Into<String>>(mut self, methods: impl IntoIterator<Item = M>) -> Self {
        self.methods = methods.into_iter().map(Into::into).collect();
        self
    }

    /// Sets whether streaming bodies that are kept for a replay are tracked.
    ///
    /// While a tracked body waits for its source:
    ///
    /// - a timeout or a lost connection does not count against the server and is not retried,
    /// - a call that is dropped is not counted as cancelled.
    ///
    /// See [`upload`](tower_fault_classify::upload). **Default**: on.
    ///
    /// Turn it off for bidirectional and client-streaming gRPC calls whose client waits for a
    /// response message before it sends more. The stream of such a client waits whenever it is the
    /// server's turn, so a server that hangs would never count as a failure. For the same reason,
    /// these calls must not pass through an
    /// [`UploadLayer`](tower_fault_classify::upload::UploadLayer).
    pub fn track_uploads(mut self, on: bool) -> Self {
        self.track_uploads = on;
        self
    }

    /// Sets whether requests that this layer may send again are marked.
    ///
    /// The mark is in the request's extensions: see [`Attempt`](crate::request::Attempt). An inner
    /// retry layer reads it, and leaves the faults that this layer retries to this layer. Without
    /// marks, three nested layers of three attempts make 27 attempts of one call. **Default**: on.
    ///
    /// - Off: this layer writes no mark and ignores the marks of other layers. Each attempt then
    ///   needs two allocations less.
    /// - Only requests of `http` and of reqwest can carry marks. For other request types, the
    ///   attempts of nested layers multiply.
    pub fn marker(mut self, on: bool) -> Self {
        self.marker = on;
        self
    }

    /// Sets an HTTP request header that carries the number of the attempt, from 1.
    ///
    /// It is written while the [`marker`](Self::marker) is on. `None` removes the header.
    /// **Default**: no header.
    ///
    /// The retries of a gRPC call always carry gRPC's own header, `grpc-previous-rpc-attempts`,
    /// while the [`marker`](Self::marker) is on.
    pub fn marker_header(mut self, name: impl Into<Option<HeaderName>>) -> Self {
        self.header = name.into();
        self
    }

    /// Sets whether the marks of other retry layers are removed from every request.
    ///
    /// Turn it on where requests come from remote clients, so that a client can neither write these
    /// marks nor prevent the retries of this layer. **Default**: off; on with
    /// [`RetryPolicy::gateway`].
    ///
    /// The marks are removed before this layer reads or writes any:
    ///
    /// - the [`Attempt`](crate::request::Attempt) in the extensions,
    /// - the [`marker_header`](Self::marker_header),
    /// - gRPC's `grpc-previous-rpc-attempts`.
    pub fn remove_marker(mut self, on: bool) -> Self {
        self.remove_marker = on;
        self
    }

    /// Sets a function that is called before the delay of each retry.
    ///
    /// The function must not block. A panic in it is caught. A policy with such a function adds a
    /// reference count to the cost of each call. **Default**: none.
    pub fn on_retry(mut self, callback: impl Fn(&RetryEvent) + Send + Sync + 'static) -> Self {
        self.observer = Some(Observer::new(callback));
        self
    }

    /// Sets a condition that ends the retries when it returns `false`.
    ///
    /// It is checked after each failed attempt that all other settings allow to be retried: before
    /// the delay, and before the [`budget`](Self::budget). If it returns `false`, the caller
    /// immediately gets the outcome of the last attempt, unchanged, and the reason is
    /// [`GiveUp::Stopped`](crate::GiveUp::Stopped). **Default**: none.
    ///
    /// Use it to
    ///
    /// - skip a delay before an attempt that an open circuit would reject,
    /// - end the retries when the program shuts down:
    ///   `.retry_while(move || !token.is_cancelled())`.
    ///
    /// ```
    /// use tower::{ServiceBuilder, service_fn};
    /// use tower_breaker::{BreakerConfig, BreakerLayer, Circuit};
    /// use tower_jitter_retry::{JitterRetryLayer, RetryPolicy};
    ///
    /// let circuit = Circuit::new(BreakerConfig::default());
    /// let breaker = BreakerLayer::with_circuit(circuit.clone());
    /// let policy = RetryPolicy::builder()
    ///     .retry_while(move || !circuit.status().rejects_calls())
    ///     .build()?;
    /// let service = ServiceBuilder::new()
    ///     .layer(JitterRetryLayer::new(policy))
    ///     .layer(breaker)
    ///     .service(service_fn(async |_: http::Request<String>| Ok::<_, std::io::Error>(http::Response::new(()))));
    /// # fn check<R, S: tower::Service<R>>(_: &S) {}
    /// # check::<http::Request<String>, _>(&service);
    /// # Ok::<(), tower_jitter_retry::ConfigError>(())
    /// ```
    ///
    /// - A delay that has begun is not ended. To end it, drop the future of the call.
    /// - A circuit that becomes half-open during the delay would have admitted the retry. Do not
    ///   set the condition if such a retry is worth the wait.
    /// - If this layer [marks](Self::marker) its requests, an inner retry layer leaves the faults to
    ///   this layer, also while the condition is `false`.
    ///
    /// The function must not block. A panic in it is caught, and the retry follows. A policy with a
    /// condition adds a reference count to the cost of each call.
    pub fn retry_while(mut self, condition: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        self.condition = Some(Condition::new(condition));
        self
    }

    /// Checks every setting and builds the policy.
    ///
    /// # Memory
    ///
    /// The numbers that decide on a retry are never freed, so that a call counts no references.
    /// Policies with equal numbers share them. After 1,000 policies with different numbers (about
    /// 100 KB), each call of a further policy adds a reference count to its cost.
    ///
    /// # Errors
    ///
    /// Returns the first invalid setting, with its field, its value and the allowed values.
    pub fn build(self) -> Result<RetryPolicy, ConfigError> {
        let max_attempts = match self.max_attempts {
            Some(attempts) => ConfigError::check("max_attempts", attempts, ATTEMPT_RANGE)?,
            None if self.max_elapsed.is_none() => {
                let allowed = "1 to 1000; without a limit, a `max_elapsed` is required";
                return Err(ConfigError::new("max_attempts", self.max_attempts, allowed));
            }
            None => UNLIMITED_ATTEMPTS,
        };
        ConfigError::check("max_backoff", self.max_backoff, Duration::ZERO..=MAX_DURATION)?;
        ConfigError::check("initial_backoff", self.initial_backoff, Duration::ZERO..=self.max_backoff)
            .map_err(|error| error.because("max_backoff", self.max_backoff))?;
        ConfigError::check("backoff_multiplier", self.backoff_multiplier, MULTIPLIER_RANGE)?;
        check_jitter(self.jitter)?;
        if let Some(time) = self.max_elapsed {
            ConfigError::check("max_elapsed", time, Duration::ZERO..=MAX_DURATION)?;
        }
        ConfigError::check("max_retry_after", self.max_retry_after, Duration::ZERO..=MAX_DURATION)?;
        ConfigError::check("replay_limit", self.replay_limit, REPLAY_LIMIT_RANGE)?;
        let methods =
            if self.methods.is_empty() { None } else { Some(Arc::new(GrpcMethods::parse(self.methods)?)) };
        let (budget, has_given_budget) = match self.budget {
            BudgetChoice::Of { budget, given } => (budget, given),
            BudgetChoice::New(builder) => (Some(builder.build()?), false),
        };
        let clock = self.clock.unwrap_or(Clock::tokio());
        let limits = Limits {
            max_attempts,
            backoff: Backoff {
                initial: nanos(self.initial_backoff),
                multiplier: self.backoff_multiplier,
                max: nanos(self.max_backoff),
                jitter: self.jitter,
            },
            max_elapsed: self.max_elapsed.map(nanos),
            marker: self.marker,
            track_uploads: self.track_uploads,
            follows_redirects: self.follows_redirects,
            max_retry_after: nanos(self.max_retry_after),
        };
        let cold = ColdConfig {
            budget: budget.as_ref().and_then(Budget::custom_budget).cloned(),
            observer: self.observer,
            condition: self.condition,
            header: self.header,
        };
        let name = intern(self.name);
        Ok(RetryPolicy {
            name,
            reporter: Reporter::of(name),
            config: CallConfig::new(limits, cold),
            budget_ref: budget.as_ref().and_then(Budget::budget_ref),
            clock,
            has_own_clock: self.clock.is_some(),
            budget,
            has_given_budget,
            seeds: self.seed.map(Seeds::from),
            replay_limit: self.replay_limit,
            safety: self.safety,
            non_idempotent: self.non_idempotent,
            remove_marker: self.remove_marker,
            methods,
        })
    }
}

fn check_jitter(jitter: Jitter) -> Result<(), ConfigError> {
    match jitter {
        Jitter::Proportional(share) | Jitter::CenkaltiProportional(share) => {
            ConfigError::check("jitter", share, SHARE_RANGE)?;
        }
        Jitter::Additive(most) | Jitter::TenacityAdditive(most) => {
            ConfigError::check("jitter", most, Duration::ZERO..=MAX_DURATION)?;
        }
        _ => {}
    }
    Ok(())
}
