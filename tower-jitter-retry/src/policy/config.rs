//! The policy as the layer reads it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use tower_fault_classify::__internals::Clock;
use tower_fault_classify::Fault;

use super::decide::{GiveUp, Limits};
use super::grpc_methods::GrpcMethods;
use crate::backoff::Backoff;
use crate::budget::{Budget, BudgetRef, RetryBudget};
use crate::request::{Attempt, Mark, NonIdempotent, Notes, OuterMark, RequestInfo, ResendAfter, RetrySafety};
use crate::rng::Seeds;

/// What is retried, how often and after which delay.
///
/// | what | default |
/// |---|---|
/// | [`max_attempts`](super::RetryPolicyBuilder::max_attempts) | 3, the first included |
/// | [`initial_backoff`](super::RetryPolicyBuilder::initial_backoff), [`backoff_multiplier`](super::RetryPolicyBuilder::backoff_multiplier), [`max_backoff`](super::RetryPolicyBuilder::max_backoff) | 100 ms, doubled with every retry, up to 10 s |
/// | [`jitter`](super::RetryPolicyBuilder::jitter) | [`Jitter::Full`](crate::Jitter::Full) |
/// | [`max_elapsed`](super::RetryPolicyBuilder::max_elapsed) | 2 minutes |
/// | [`max_retry_after`](super::RetryPolicyBuilder::max_retry_after) | a server's own delay is kept up to 60 s |
/// | [`budget`](super::RetryPolicyBuilder::budget) | [`Budget::default`]: 20 % of the requests, and 10 retries a second |
/// | [`safety`](super::RetryPolicyBuilder::safety) | [`RetrySafety::ByRequest`](crate::RetrySafety::ByRequest) |
/// | [`non_idempotent`](super::RetryPolicyBuilder::non_idempotent) | [`NonIdempotent::UnsentOrRefused`] |
/// | [`follows_redirects`](super::RetryPolicyBuilder::follows_redirects) | as URLs tell; each error of reqwest may come after a redirect |
/// | [`idempotent_methods`](super::RetryPolicyBuilder::idempotent_methods) | no method of gRPC |
/// | [`replay_limit`](super::RetryPolicyBuilder::replay_limit) | 64 KiB of a body that streams or has to be copied |
/// | [`track_uploads`](super::RetryPolicyBuilder::track_uploads) | on |
/// | [`marker`](super::RetryPolicyBuilder::marker), [`marker_header`](super::RetryPolicyBuilder::marker_header) | on, no header |
/// | [`remove_marker`](super::RetryPolicyBuilder::remove_marker) | off |
/// | [`on_retry`](super::RetryPolicyBuilder::on_retry) | no callback |
///
/// Clones share the budget.
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
/// With the feature `serde`, a policy is read from a file and written to one. The fields have the
/// names of the setters.
///
/// ```
/// # #[cfg(feature = "serde")] {
/// # use tower_jitter_retry::RetryPolicy;
/// let file = r#"
///     max_attempts = 5
///     initial_backoff = "50ms"
///     jitter = { proportional = 0.5 }
///     max_elapsed = "none"
///     budget = { window = { ratio = 0.1, min_per_second = 3 } }
/// "#;
/// let policy: RetryPolicy = toml::from_str(file)?;
/// # }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// - A field that is left out has its default.
/// - `"none"` turns off: `jitter`, `max_elapsed`, `budget`, `seed`.
/// - `null` is an error, because it could mean either.
/// - A duration is a text of numbers, each with its unit: d, h, m, s, ms, us or ns. Examples are
///   `"1m 30s"` and `"1.5s"`.
/// - An unknown field, and a field that is there twice, are errors.
/// - An error names the field, its value and what is allowed.
///
/// A policy that is written and read back has the same settings, and a budget of its own. The clock
/// and [`on_retry`](super::RetryPolicyBuilder::on_retry) are not written. A policy with a custom budget
/// cannot be written. Ratios with more than 15 digits need a format that reads them exactly: TOML
/// does, and `serde_json` with its feature `float_roundtrip`.
#[derive(Clone, Debug)]
pub struct RetryPolicy {
    pub(crate) hot: HotConfig,
    pub(crate) budget: Option<Budget>,
    pub(crate) seeds: Option<Seeds>,
    pub(crate) replay_limit: usize,
    pub(crate) safety: RetrySafety,
    pub(crate) non_idempotent: NonIdempotent,
    pub(crate) remove_marker: bool,
    pub(crate) methods: Option<Arc<GrpcMethods>>,
    /// What costs a call the counting of a reference, so that it is there only if it is used.
    pub(crate) cold: Option<Arc<ColdConfig>>,
}

/// What every call copies, so that it reaches nothing of its policy: a copy is cheaper than the counting of a reference.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HotConfig {
    pub(crate) limits: Limits,
    pub(crate) clock: Clock,
    /// The policy's budget, if it is a ready-made one. The policy's own handle keeps it.
    pub(crate) budget_ref: Option<BudgetRef>,
}

/// What few policies have.
#[derive(Debug, Default)]
pub(crate) struct ColdConfig {
    pub(crate) budget: Option<Arc<dyn RetryBudget>>,
    pub(crate) observer: Option<Observer>,
    pub(crate) header: Option<HeaderName>,
}

impl ColdConfig {
    /// Nothing, if there is nothing in it.
    pub(super) fn into_shared(self) -> Option<Arc<Self>> {
        let any = self.budget.is_some() || self.observer.is_some() || self.header.is_some();
        any.then(|| Arc::new(self))
    }
}

impl RetryPolicy {
    /// Returns how often a request is sent at most, the first time included.
    pub const fn max_attempts(&self) -> u32 {
        self.hot.limits.max_attempts
    }

    /// Returns the time after which no retry starts. `None`: no limit.
    pub fn max_elapsed(&self) -> Option<Duration> {
        self.hot.limits.max_elapsed.map(Duration::from_nanos)
    }

    /// Returns the longest delay that a server may ask for.
    pub const fn max_retry_after(&self) -> Duration {
        Duration::from_nanos(self.hot.limits.max_retry_after)
    }

    /// Returns whether requests may be sent more than once.
    pub const fn safety(&self) -> RetrySafety {
        self.safety
    }

    /// Returns the faults after which a request that is not idempotent is sent again.
    pub const fn non_idempotent(&self) -> NonIdempotent {
        self.non_idempotent
    }

    /// Returns whether redirects are followed below. `None`: not set.
    pub const fn follows_redirects(&self) -> Option<bool> {
        self.hot.limits.follows_redirects
    }

    /// Returns the clock of [`max_elapsed`](Self::max_elapsed) and of deadlines.
    pub const fn clock(&self) -> Clock {
        self.hot.clock
    }

    /// Returns the seed of the delays. `None`: they are not reproducible.
    pub fn seed(&self) -> Option<u64> {
        self.seeds.as_ref().map(Seeds::first)
    }

    /// Returns how many bytes of a request's body are kept or copied.
    pub const fn replay_limit(&self) -> usize {
        self.replay_limit
    }

    /// Returns whether uploads are tracked.
    pub const fn track_uploads(&self) -> bool {
        self.hot.limits.track_uploads
    }

    /// Returns the gRPC methods that may be sent twice, sorted.
    pub fn idempotent_methods(&self) -> impl Iterator<Item = String> {
        self.methods.as_deref().into_iter().flat_map(GrpcMethods::names)
    }

    /// Returns whether requests are marked with their attempt.
    pub const fn marker(&self) -> bool {
        self.hot.limits.marker
    }

    /// Returns the header that carries the number of the attempt.
    pub fn marker_header(&self) -> Option<&HeaderName> {
        self.cold.as_ref()?.header.as_ref()
    }

    /// Returns whether the marks of other retry layers are removed.
    pub const fn remove_marker(&self) -> bool {
        self.remove_marker
    }

    /// How its delays grow and are drawn.
    pub const fn backoff(&self) -> Backoff {
        self.hot.limits.backoff
    }

    /// What its retries are paid from: give it to another policy to bound both together. `None`: they are without bound.
    pub const fn budget(&self) -> Option<&Budget> {
        self.budget.as_ref()
    }
}

impl RetryPolicy {
    /// What is written on the request of a first attempt.
    #[inline]
    pub(crate) fn first_mark(&self, attempt: Attempt, remaining: Option<Duration>) -> Mark<'_> {
        Mark { attempt, remaining, marker: self.hot.limits.marker, header: self.marker_header() }
    }

    /// Why a request is sent once, if it is.
    #[cold]
    pub(crate) fn single_attempt_reason(&self, resend_after: ResendAfter) -> GiveUp {
        match (self.hot.limits.max_attempts, resend_after) {
            (1, _) => GiveUp::Attempts,
            (_, ResendAfter::Nothing) => GiveUp::NotIdempotent,
            _ => GiveUp::Nested,
        }
    }

    /// The mark of the layers further out, unless this policy ignores marks.
    #[inline]
    pub(crate) fn outer(&self, notes: &Notes) -> OuterMark {
        OuterMark::new(if self.hot.limits.marker { notes.attempt } else { None })
    }

    /// The faults after which one request may be sent again. `own` is the request's own word.
    #[inline]
    pub(crate) fn resend_after(&self, request: &impl RequestInfo, own: Option<RetrySafety>) -> ResendAfter {
        let listed = || {
            let listed =
                |methods: &GrpcMethods| request.grpc_method().is_some_and(|method| methods.contains(method));
            self.methods.as_deref().is_some_and(listed)
        };
        let idempotent = request.is_idempotent() || listed();
        let has_key = || request.has_idempotency_key();
        ResendAfter::of(own, self.safety, self.non_idempotent, idempotent, has_key)
    }
}

/// A retry that was decided on.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct RetryEvent {
    /// The number of the attempt that failed, from 1: that of the retry that follows, as `http.request.resend_count` counts them.
    pub attempt: u32,
    /// What went wrong.
    pub fault: Fault,
    /// How long the next attempt waits.
    pub delay: Duration,
    /// How long ago the call began, or first had to wait.
    pub elapsed: Duration,
}

/// The callback of [`on_retry`](super::RetryPolicyBuilder::on_retry).
#[derive(Clone)]
pub(crate) struct Observer(Arc<dyn Fn(&RetryEvent) + Send + Sync>);

impl Observer {
    pub(crate) fn new(callback: impl Fn(&RetryEvent) + Send + Sync + 'static) -> Self {
        Self(Arc::new(callback))
    }

    pub(crate) fn notify(&self, event: &RetryEvent) {
        (self.0)(event);
    }
}

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Observer")
    }
}
