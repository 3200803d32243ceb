//! The builder, and the methods of [`RetryPolicy`] that return it.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use tower_fault_classify::__internals::{Clock, ConfigError};

use super::config::{ColdConfig, HotConfig, Observer, RetryEvent, RetryPolicy};
use super::decide::Limits;
use super::grpc_methods::GrpcMethods;
use crate::backoff::{Backoff, Jitter, nanos};
use crate::budget::Budget;
use crate::request::{NonIdempotent, RetrySafety};
use crate::rng::Seeds;

pub(crate) const ATTEMPT_RANGE: RangeInclusive<u32> = 1..=1_000;
pub(crate) const MULTIPLIER_RANGE: RangeInclusive<f64> = 1.0..=1_000.0;
pub(crate) const SHARE_RANGE: RangeInclusive<f64> = 0.0..=1.0;
pub(crate) const MAX_DURATION: Duration = Duration::from_secs(365 * 24 * 60 * 60);
pub(crate) const REPLAY_LIMIT_RANGE: RangeInclusive<usize> = 0..=1 << 30;

/// Builds a [`RetryPolicy`].
#[derive(Clone, Debug)]
#[must_use]
pub struct RetryPolicyBuilder {
    max_attempts: u32,
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
}

#[derive(Clone, Debug)]
enum BudgetChoice {
    Default,
    Given(Option<Budget>),
}

impl RetryPolicy {
    /// A builder with the defaults.
    pub fn builder() -> RetryPolicyBuilder {
        RetryPolicyBuilder::default()
    }

    /// A builder for a gateway or another proxy, whose requests come from remote clients. It
    /// differs from the defaults in:
    ///
    /// | what | value | reason |
    /// |---|---|---|
    /// | [`safety`](RetryPolicyBuilder::safety) | [`RetrySafety::ByMethod`] | the backend may not know the `Idempotency-Key` that a remote client sends |
    /// | [`non_idempotent`](RetryPolicyBuilder::non_idempotent) | [`NonIdempotent::Unsent`] | RFC 9110 §9.2.2 forbids a proxy to send anything else again |
    /// | [`remove_marker`](RetryPolicyBuilder::remove_marker) | on | a remote client must not write the marks of retries |
    ///
    /// ```
    /// use tower_jitter_retry::RetryPolicy;
    ///
    /// let policy = RetryPolicy::gateway().max_attempts(2).build()?;
    /// # Ok::<(), tower_jitter_retry::ConfigError>(())
    /// ```
    pub fn gateway() -> RetryPolicyBuilder {
        Self::builder()
            .safety(RetrySafety::ByMethod)
            .non_idempotent(NonIdempotent::Unsent)
            .remove_marker(true)
    }

    /// Returns a builder with the settings of this policy.
    ///
    /// A policy that is built from it shares the budget, unless another one is set. A seed starts its
    /// sequence again.
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
        // A test holds that the defaults are in their ranges.
        policy.unwrap_or_else(|error| unreachable!("the defaults are valid: {error}"))
    }
}

impl Default for RetryPolicyBuilder {
    fn default() -> Self {
        Self {
            max_attempts: 3,
            initial_backoff: Duration::from_millis(100),
            backoff_multiplier: 2.0,
            max_backoff: Duration::from_secs(10),
            jitter: Jitter::Full,
            max_elapsed: Some(Duration::from_secs(120)),
            max_retry_after: Duration::from_secs(60),
            safety: RetrySafety::ByRequest,
            non_idempotent: NonIdempotent::UnsentOrRefused,
            follows_redirects: None,
            budget: BudgetChoice::Default,
            clock: None,
            seed: None,
            replay_limit: 64 * 1024,
            track_uploads: true,
            methods: Vec::new(),
            marker: true,
            header: None,
            remove_marker: false,
            observer: None,
        }
    }
}

impl RetryPolicyBuilder {
    /// The builder that makes this policy.
    fn from_policy(policy: &RetryPolicy) -> Self {
        let backoff = policy.backoff();
        Self {
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
            budget: BudgetChoice::Given(policy.budget().cloned()),
            clock: Some(policy.clock()),
            seed: policy.seed(),
            replay_limit: policy.replay_limit(),
            track_uploads: policy.track_uploads(),
            methods: policy.idempotent_methods().collect(),
            marker: policy.marker(),
            header: policy.marker_header().cloned(),
            remove_marker: policy.remove_marker(),
            observer: policy.cold.as_ref().and_then(|cold| cold.observer.clone()),
        }
    }

    /// How often a request is sent at most, the first time included, 1 to 1,000. 1: never again. **Default**: 3.
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.max_attempts = attempts;
        self
    }

    /// The longest delay before the first retry, 0 to [`max_backoff`](Self::max_backoff). 0: retries follow at
    /// once, without a timer. They yield to the runtime: each takes a unit of the cooperative
    /// budget of a tokio task, and outside of tokio at most 128 follow each other in one poll.
    /// **Default**: 100 ms.
    pub fn initial_backoff(mut self, delay: Duration) -> Self {
        self.initial_backoff = delay;
        self
    }

    /// What the longest delay is multiplied with at every further retry, 1 to 1,000. **Default**: 2.
    pub fn backoff_multiplier(mut self, multiplier: f64) -> Self {
        self.backoff_multiplier = multiplier;
        self
    }

    /// What the longest delay grows to, 0 to 365 days. **Default**: 10 s.
    pub fn max_backoff(mut self, delay: Duration) -> Self {
        self.max_backoff = delay;
        self
    }

    /// How a delay is drawn around or below the longest one; a share in it is 0 to 1, a time 0 to 365 days. **Default**:
    /// [`Jitter::Full`].
    pub fn jitter(mut self, jitter: Jitter) -> Self {
        self.jitter = jitter;
        self
    }

    /// Sets how long after the call began (when it first had to wait) the last retry may start, up
    /// to 365 days; `None`: at any time. A delay that would end later is not begun, and a wait for
    /// the inner service's readiness ends then. The caller gets the outcome of the last attempt.
    /// **Default**: 2 minutes.
    pub fn max_elapsed(mut self, time: impl Into<Option<Duration>>) -> Self {
        self.max_elapsed = time.into();
        self
    }

    /// The longest delay that a server may ask for, 0 to 365 days. A longer one ends the retries,
    /// and so does one that does not fit into [`max_elapsed`](Self::max_elapsed). **Default**: 60
    /// s.
    ///
    /// `Retry-After`, `retry-after-ms` and gRPC's `RetryInfo` are minimums: the retry waits for the
    /// longer of the hint and the backoff's own delay, and the backoff goes on growing. A hint of 0
    /// and a header that makes no sense leave the backoff's delay.
    ///
    /// `grpc-retry-pushback-ms` is exact: it replaces the backoff, which starts again after it. 0
    /// means at once.
    ///
    /// Either is stretched by up to half of it, at most 5 s and at most to the time that is left,
    /// so that clients that received the same hint do not return at once.
    pub fn max_retry_after(mut self, delay: Duration) -> Self {
        self.max_retry_after = delay;
        self
    }

    /// Sets whether requests may be sent more than once. A request's own [`RetrySafety`] takes
    /// precedence. **Default**: [`RetrySafety::ByRequest`].
    pub fn safety(mut self, safety: RetrySafety) -> Self {
        self.safety = safety;
        self
    }

    /// Sets the faults after which a request that is not idempotent is sent again. [`RetrySafety`]
    /// decides whether a request is idempotent. **Default**: [`NonIdempotent::UnsentOrRefused`].
    pub fn non_idempotent(mut self, level: NonIdempotent) -> Self {
        self.non_idempotent = level;
        self
    }

    /// Sets whether redirects are followed below this layer. A fault after a redirect says nothing
    /// about the request that was sent first: a POST may have been processed before its redirect
    /// led to a server that refuses connections or answers 429.
    /// [`Retryable::Unsent`](crate::fault_classify::Retryable::Unsent) and [`Refused`](crate::fault_classify::Retryable::Refused)
    /// then count as [`IfIdempotent`](crate::fault_classify::Retryable::IfIdempotent). The method of the original
    /// request decides.
    ///
    /// | value | Unsent and Refused count as `IfIdempotent` |
    /// |---|---|
    /// | not set (**default**) | in each error of reqwest; in a response of reqwest or of tower-http's `FollowRedirect` (feature `follow-redirect`) whose URL is not the request's |
    /// | `true` | always |
    /// | `false` | never |
    ///
    /// - Set `true` if tower-http's `FollowRedirect` is below this layer: nothing tells its errors apart. Better, put
    ///   `FollowRedirect` above this layer, where each hop is a request of its own.
    /// - Set `false` for a reqwest client with `redirect::Policy::none()`. reqwest does not say
    ///   which hop failed, so that without it a POST is not sent again after a refused connection.
    ///   Set `false` too if a layer in between changes URLs.
    /// - Set `true` if a [`classify_fn`](tower_fault_classify::classify_fn) makes faults with
    ///   `Unsent` for reqwest's errors by itself. What [`classify_error`](tower_fault_classify::classify_error)
    ///   returns is recognised, and so is a `rule` on an error.
    /// - A redirect to the URL of the request itself cannot be told from none in a response. Set
    ///   `true` if your server does that.
    pub fn follows_redirects(mut self, follows: bool) -> Self {
        self.follows_redirects = Some(follows);
        self
    }

    /// What retries are paid from; `None`: without bound. **Default**: a [`Budget::default`] of the policy's own.
    pub fn budget(mut self, budget: impl Into<Option<Budget>>) -> Self {
        self.budget = BudgetChoice::Given(budget.into());
        self
    }

    /// The clock of [`max_elapsed`](Self::max_elapsed) and of deadlines. Delays are slept on
    /// tokio's timer whatever the clock. A budget has a clock of its own; the default budget of a
    /// policy with a clock takes that.
    ///
    /// **Default**: [`Clock::tokio`], the clock of the timer. It is first read when a call waits or
    /// fails: an immediate success reads none. [`retry_blocking`](RetryPolicy::retry_blocking),
    /// whose thread sleeps, reads [`Clock::precise`] instead.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = Some(clock);
        self
    }

    /// Makes the delays reproducible: the calls draw from streams that follow from the seed, each from its own. **Default**: off.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Sets how many bytes of a request's body are kept so that it can be sent again, 0 to 1 GiB:
    /// of a streaming body ([`ReplayBody`](crate::ReplayBody)), and of one in memory that has to be
    /// copied (`String`, `Vec<u8>`). A larger body goes out once. Data that is shared (`Bytes`)
    /// does not count. **Default**: 64 KiB.
    pub fn replay_limit(mut self, bytes: usize) -> Self {
        self.replay_limit = bytes;
        self
    }

    /// The methods of gRPC that may be sent twice, as `package.Service/Method`, or `package.Service/*` for all of a service. They replace
    /// those given before. gRPC sends everything by POST, so that without them nothing that a server may have processed is sent
    /// again. **Default**: none.
    pub fn idempotent_methods<M: Into<String>>(mut self, methods: impl IntoIterator<Item = M>) -> Self {
        self.methods = methods.into_iter().map(Into::into).collect();
        self
    }

    /// Sets whether streaming bodies that are kept to be sent again are tracked: while such a body
    /// waits for its source, a timeout or a lost connection is not charged to the server and not
    /// retried, and a call that is dropped is not counted as cancelled; see
    /// [`upload`](tower_fault_classify::upload). **Default**: on.
    ///
    /// Turn it off for bidirectional and client-streaming calls of gRPC whose client waits for an
    /// answer before it sends more. Its stream waits whenever the server has to speak, so that a
    /// server that hangs would never count as a failure. For the same reason, these calls must not
    /// pass through an [`UploadLayer`](tower_fault_classify::upload::UploadLayer).
    pub fn track_uploads(mut self, on: bool) -> Self {
        self.track_uploads = on;
        self
    }

    /// Sets whether requests that this layer may send again are marked with their
    /// [`Attempt`](crate::request::Attempt). A layer further in then leaves the faults to this layer that
    /// this layer retries; without marks, three layers of three attempts make 27 of one call. Off:
    /// this layer writes no mark and ignores the marks of others. Requests of `http` and of reqwest
    /// carry marks; attempts of any other request multiply. **Default**: on.
    pub fn marker(mut self, on: bool) -> Self {
        self.marker = on;
        self
    }

    /// A header of HTTP requests that says the number of the attempt, from 1. gRPC's own, `grpc-previous-rpc-attempts`, stands on the
    /// retries of gRPC in any case, as long as the [`marker`](Self::marker) is on. **Default**: none.
    pub fn marker_header(mut self, name: HeaderName) -> Self {
        self.header = Some(name);
        self
    }

    /// Removes the marks of other retry layers from every request before this layer reads or writes
    /// any: the [`Attempt`](crate::request::Attempt) in the extensions, the
    /// [`marker_header`](Self::marker_header), and gRPC's `grpc-previous-rpc-attempts`. Set it
    /// where requests come from remote clients, which then can neither write these marks nor
    /// silence this layer. **Default**: off, and on with [`RetryPolicy::gateway`].
    pub fn remove_marker(mut self, on: bool) -> Self {
        self.remove_marker = on;
        self
    }

    /// Sets a function that is called before the delay of each retry. It must not block. A panic in it
    /// is caught. A policy with such a function counts a reference in each call. **Default**: none.
    pub fn on_retry(mut self, callback: impl Fn(&RetryEvent) + Send + Sync + 'static) -> Self {
        self.observer = Some(Observer::new(callback));
        self
    }

    /// Checks every value.
    ///
    /// # Errors
    ///
    /// The first value that is out of its range, with its field and the range.
    pub fn build(self) -> Result<RetryPolicy, ConfigError> {
        ConfigError::check("max_attempts", self.max_attempts, ATTEMPT_RANGE)?;
        ConfigError::check("max_backoff", self.max_backoff, Duration::ZERO..=MAX_DURATION)?;
        ConfigError::check("initial_backoff", self.initial_backoff, Duration::ZERO..=self.max_backoff)?;
        ConfigError::check("backoff_multiplier", self.backoff_multiplier, MULTIPLIER_RANGE)?;
        check_jitter(self.jitter)?;
        if let Some(time) = self.max_elapsed {
            ConfigError::check("max_elapsed", time, Duration::ZERO..=MAX_DURATION)?;
        }
        ConfigError::check("max_retry_after", self.max_retry_after, Duration::ZERO..=MAX_DURATION)?;
        ConfigError::check("replay_limit", self.replay_limit, REPLAY_LIMIT_RANGE)?;
        let methods =
            if self.methods.is_empty() { None } else { Some(Arc::new(GrpcMethods::parse(self.methods)?)) };
        let budget = match self.budget {
            BudgetChoice::Given(budget) => budget,
            BudgetChoice::Default => match &self.clock {
                // The budget of a test stands on the test's clock.
                Some(clock) => Some(Budget::window().clock(*clock).build()?),
                None => Some(Budget::default()),
            },
        };
        let clock = self.clock.unwrap_or(Clock::tokio());
        let limits = Limits {
            max_attempts: self.max_attempts,
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
            header: self.header,
        };
        Ok(RetryPolicy {
            hot: HotConfig { limits, clock, budget_ref: budget.as_ref().and_then(Budget::budget_ref) },
            budget,
            seeds: self.seed.map(Seeds::from),
            replay_limit: self.replay_limit,
            safety: self.safety,
            non_idempotent: self.non_idempotent,
            remove_marker: self.remove_marker,
            methods,
            cold: cold.into_shared(),
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
