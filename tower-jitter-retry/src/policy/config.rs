//! The policy in the form in which the layer reads it.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use tower_fault_classify::__internals::Clock;

use super::builder::UNLIMITED_ATTEMPTS;
use super::call_config::CallConfig;
use super::callbacks::Condition;
use super::decide::GiveUp;
use super::grpc_methods::GrpcMethods;
use crate::backoff::Backoff;
use crate::budget::{Budget, BudgetRef};
use crate::request::{Attempt, Mark, NonIdempotent, Notes, OuterMark, RequestInfo, ResendAfter, RetrySafety};
use crate::rng::{Randomness, Seeds};
use crate::telemetry::Reporter;

/// Decides which requests are retried, how many times and after which delay.
///
/// A policy is built by [`RetryPolicy::builder`]. Clones share the budget.
///
/// | setting | sets | range | default |
/// |---|---|---|---|
/// | [`name`](super::RetryPolicyBuilder::name) | name in metrics and logs | any text | `"retry"` |
/// | [`max_attempts`](super::RetryPolicyBuilder::max_attempts) | attempts per request, including the first | 1 to 1,000, or `None` with a `max_elapsed` | 3 |
/// | [`initial_backoff`](super::RetryPolicyBuilder::initial_backoff) | ceiling of the delay before the first retry | 0 to `max_backoff` | 100 ms |
/// | [`backoff_multiplier`](super::RetryPolicyBuilder::backoff_multiplier) | growth of the ceiling with every further retry | 1 to 1,000 | 2 |
/// | [`max_backoff`](super::RetryPolicyBuilder::max_backoff) | maximum of the ceiling | 0 to 365 days | 10 s |
/// | [`jitter`](super::RetryPolicyBuilder::jitter) | how a delay is drawn in relation to its ceiling | shares 0 to 1, times 0 to 365 days | [`Jitter::Full`](crate::Jitter::Full) |
/// | [`max_elapsed`](super::RetryPolicyBuilder::max_elapsed) | time after which no retry starts | 0 to 365 days, or `None` | 2 minutes |
/// | [`max_retry_after`](super::RetryPolicyBuilder::max_retry_after) | longest delay that a server may ask for | 0 to 365 days | 60 s |
/// | [`budget`](super::RetryPolicyBuilder::budget) | budget that retries are paid from | a [`Budget`], or `None` | [`Budget::default`]: 10 tokens, a retry costs 1, or 6 after a timeout, and a success adds 0.2 |
/// | [`safety`](super::RetryPolicyBuilder::safety) | whether requests may be sent more than once | [`RetrySafety`](crate::RetrySafety) | [`RetrySafety::ByRequest`](crate::RetrySafety::ByRequest) |
/// | [`non_idempotent`](super::RetryPolicyBuilder::non_idempotent) | faults after which a request that is not idempotent is sent again | [`NonIdempotent`] | [`NonIdempotent::UnsentOrRefused`] |
/// | [`follows_redirects`](super::RetryPolicyBuilder::follows_redirects) | whether a client below follows redirects | `true`, `false`, or not set | not set: URLs decide, and every error of reqwest may follow a redirect |
/// | [`idempotent_methods`](super::RetryPolicyBuilder::idempotent_methods) | gRPC methods that may be sent more than once | `package.Service/Method` or `package.Service/*` | none |
/// | [`replay_limit`](super::RetryPolicyBuilder::replay_limit) | bytes kept of a body that streams or has to be copied | 0 to 1 GiB | 64 KiB |
/// | [`track_uploads`](super::RetryPolicyBuilder::track_uploads) | whether kept streaming bodies are tracked | on or off | on |
/// | [`marker`](super::RetryPolicyBuilder::marker) | whether requests are marked with their attempt | on or off | on |
/// | [`marker_header`](super::RetryPolicyBuilder::marker_header) | header that carries the number of the attempt | any header name | none |
/// | [`remove_marker`](super::RetryPolicyBuilder::remove_marker) | whether marks of other retry layers are removed | on or off | off |
/// | [`on_retry`](super::RetryPolicyBuilder::on_retry) | function that is called before the delay of each retry | any function | none |
/// | [`retry_while`](super::RetryPolicyBuilder::retry_while) | condition that ends the retries when it is `false` | any function | none |
/// | [`clock`](super::RetryPolicyBuilder::clock) | clock of `max_elapsed` and of deadlines | any [`Clock`] | [`Clock::tokio`] |
/// | [`seed`](super::RetryPolicyBuilder::seed) | seed of the random numbers | any `u64` | none |
///
/// ```
/// use std::time::Duration;
/// use tower_jitter_retry::RetryPolicy;
///
/// let default = RetryPolicy::default();
/// let eager = RetryPolicy::builder().max_attempts(5).initial_backoff(Duration::from_millis(20)).build()?;
/// # Ok::<(), tower_jitter_retry::ConfigError>(())
/// ```
///
/// # Configuration files
///
/// With the feature `serde`, a policy can be read from a file and written to one. The fields have
/// the names of the setters.
///
/// ```
/// # #[cfg(feature = "serde")] {
/// # use tower_jitter_retry::RetryPolicy;
/// let file = r#"
///     max_attempts = 5
///     initial_backoff = "50ms"
///     jitter = { proportional = 0.5 }
///     max_elapsed = "none"
///     budget = { tokens = { capacity = 20, per_success = 0.1 } }
/// "#;
/// let policy: RetryPolicy = toml::from_str(file)?;
/// # }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// - A missing field has its default. With `preset = "gateway"`, it has the value of
///   [`gateway`](Self::gateway).
/// - `"none"` turns a setting off: `max_attempts`, `jitter`, `max_elapsed`, `budget`, `seed`,
///   `marker_header`.
/// - `null` is an error, because it could mean the default or `"none"`.
/// - A duration is a string of numbers, each with its unit: d, h, m, s, ms, us or ns. Examples are
///   `"1m 30s"` and `"1.5s"`.
/// - An unknown field and a duplicate field are errors.
/// - An error names the field, its value and the allowed range.
///
/// A policy that is written and read back has the same settings, and a budget of its own. Not
/// written are the clock, [`on_retry`](super::RetryPolicyBuilder::on_retry) and
/// [`retry_while`](super::RetryPolicyBuilder::retry_while). A policy with a custom
/// budget cannot be written. Ratios with more than 15 digits need a format that reads them exactly:
/// TOML does, and `serde_json` with its feature `float_roundtrip`.
///
/// # Replacing a policy
///
/// A policy never changes. To replace the policy of running services, for example after its
/// configuration file has changed, use [`PolicyHandle::reconfigure`](crate::PolicyHandle).
#[derive(Clone, Debug)]
pub struct RetryPolicy {
    pub(crate) name: &'static str,
    pub(crate) reporter: Reporter,
    pub(crate) config: CallConfig,
    /// The policy's budget, if it is a built-in one. A call copies this reference, and `budget`
    /// keeps the budget alive.
    pub(crate) budget_ref: Option<BudgetRef>,
    pub(crate) clock: Clock,
    /// Whether the clock was set. A policy without one takes over the clock of the policy that it
    /// replaces.
    pub(crate) has_own_clock: bool,
    pub(crate) budget: Option<Budget>,
    /// Whether the budget was given in code, so that other policies may share it.
    pub(crate) has_given_budget: bool,
    pub(crate) seeds: Option<Seeds>,
    pub(crate) replay_limit: usize,
    pub(crate) safety: RetrySafety,
    pub(crate) non_idempotent: NonIdempotent,
    pub(crate) remove_marker: bool,
    pub(crate) methods: Option<Arc<GrpcMethods>>,
}

impl RetryPolicy {
    /// Returns the name of the policy.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Returns how many times a request is sent at most, including the first attempt.
    ///
    /// `None`: only time limits the number of attempts.
    pub fn max_attempts(&self) -> Option<u32> {
        match self.config.limits().max_attempts {
            UNLIMITED_ATTEMPTS => None,
            attempts => Some(attempts),
        }
    }

    /// Returns the time after which no retry starts, or `None` if there is no limit.
    pub fn max_elapsed(&self) -> Option<Duration> {
        self.config.limits().max_elapsed.map(Duration::from_nanos)
    }

    /// Returns the longest delay that a server may ask for.
    pub fn max_retry_after(&self) -> Duration {
        Duration::from_nanos(self.config.limits().max_retry_after)
    }

    /// Returns whether requests may be sent more than once.
    pub const fn safety(&self) -> RetrySafety {
        self.safety
    }

    /// Returns the faults after which a request that is not idempotent is sent again.
    pub const fn non_idempotent(&self) -> NonIdempotent {
        self.non_idempotent
    }

    /// Returns whether a client below follows redirects, or `None` if that is not set.
    pub fn follows_redirects(&self) -> Option<bool> {
        self.config.limits().follows_redirects
    }

    /// Returns the clock of [`max_elapsed`](Self::max_elapsed) and of deadlines.
    pub const fn clock(&self) -> Clock {
        self.clock
    }

    /// Returns the seed of the delays, or `None` if the delays are not reproducible.
    pub fn seed(&self) -> Option<u64> {
        self.seeds.as_ref().map(Seeds::first)
    }

    /// Returns how many bytes of a request's body are kept or copied at most.
    pub const fn replay_limit(&self) -> usize {
        self.replay_limit
    }

    /// Returns whether streaming bodies that are kept for a replay are tracked.
    pub fn track_uploads(&self) -> bool {
        self.config.limits().track_uploads
    }

    /// Returns the gRPC methods that may be sent more than once, sorted.
    pub fn idempotent_methods(&self) -> impl Iterator<Item = String> {
        self.methods.as_deref().into_iter().flat_map(GrpcMethods::names)
    }

    /// Returns whether requests are marked with their attempt.
    pub fn marker(&self) -> bool {
        self.config.limits().marker
    }

    /// Returns the header that carries the number of the attempt.
    pub fn marker_header(&self) -> Option<&HeaderName> {
        self.config.cold()?.header.as_ref()
    }

    /// Returns whether the marks of other retry layers are removed.
    pub const fn remove_marker(&self) -> bool {
        self.remove_marker
    }

    /// Returns the backoff: how the delays grow and how they are drawn.
    pub fn backoff(&self) -> Backoff {
        self.config.limits().backoff
    }

    /// Returns the budget that retries are paid from, or `None` if retries have no budget.
    ///
    /// Give it to another policy to limit the retries of both policies together.
    pub const fn budget(&self) -> Option<&Budget> {
        self.budget.as_ref()
    }
}

impl RetryPolicy {
    /// Adds a condition to the policy's own.
    pub(crate) fn with_condition(mut self, condition: Condition) -> Self {
        let mut cold = self.config.cold().cloned().unwrap_or_default();
        cold.condition = Some(match cold.condition {
            Some(own) => own.and(condition),
            None => condition,
        });
        self.config = self.config.with_cold(cold);
        self
    }

    /// Returns the mark for the request of a first attempt.
    #[inline]
    pub(crate) fn first_mark(&self, attempt: Attempt, remaining: Option<Duration>) -> Mark<'_> {
        Mark { attempt, remaining, marker: self.config.limits().marker, header: self.marker_header() }
    }

    /// Returns the randomness of a new call.
    #[inline]
    pub(crate) fn randomness(&self) -> Randomness {
        Randomness::of(self.seeds.as_ref())
    }

    /// Returns why a request that cannot be retried is sent only once.
    #[cold]
    pub(crate) fn single_attempt_reason(&self, resend_after: ResendAfter) -> GiveUp {
        match (self.config.limits().max_attempts, resend_after) {
            (1, _) => GiveUp::Attempts,
            (_, ResendAfter::Nothing) => GiveUp::NotIdempotent,
            _ => GiveUp::Nested,
        }
    }

    /// Returns the mark of the outer layers, unless this policy ignores marks.
    #[inline]
    pub(crate) fn outer(&self, notes: &Notes) -> OuterMark {
        OuterMark::new(if self.config.limits().marker { notes.attempt } else { None })
    }

    /// Returns the faults after which a call without a request may be repeated. `own` is the call's
    /// own [`RetrySafety`].
    pub(crate) fn resend_if(&self, own: Option<RetrySafety>, idempotent: bool) -> ResendAfter {
        ResendAfter::of(own, self.safety, self.non_idempotent, idempotent, || false)
    }

    /// Returns whether the policy lists a gRPC method, as `/package.Service/Method`.
    pub(crate) fn lists_grpc_method(&self, method: &str) -> bool {
        self.methods.as_deref().is_some_and(|methods| methods.contains(method))
    }

    /// Returns the faults after which a request may be sent again. `own` is the request's own
    /// [`RetrySafety`].
    #[inline]
    pub(crate) fn resend_after(&self, request: &impl RequestInfo, own: Option<RetrySafety>) -> ResendAfter {
        let listed = || {
            // The method is read only if there is a list.
            self.methods.is_some()
                && request.grpc_method().is_some_and(|method| self.lists_grpc_method(method))
        };
        let idempotent = request.is_idempotent() || listed();
        let has_key = || request.has_idempotency_key();
        ResendAfter::of(own, self.safety, self.non_idempotent, idempotent, has_key)
    }
}
