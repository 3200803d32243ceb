//! The configuration: a builder that lets no invalid one exist.

mod builder;
mod getters;
#[cfg(feature = "keyed")]
mod keyed;
mod name;

pub use builder::BreakerConfigBuilder;
#[cfg(feature = "serde")]
pub(crate) use builder::{DURATIONS, GROWTH, PROBES, SHARES, WINDOW_CALLS};
#[cfg(feature = "keyed")]
pub use keyed::{KeyedConfig, KeyedConfigBuilder, Overflow};

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use tower_fault_classify::__internals::Clock;

use self::name::intern;
use crate::circuit::CircuitConfig;

/// When a circuit opens and how it closes again.
///
/// | what | default |
/// |---|---|
/// | [`name`](BreakerConfigBuilder::name) | `"breaker"` |
/// | [`consecutive_failures`](BreakerConfigBuilder::consecutive_failures) | opens after 5 failures in a row |
/// | [`failure_rate`](BreakerConfigBuilder::failure_rate) | opens at 50 % |
/// | [`slow_call_rate`](BreakerConfigBuilder::slow_call_rate) | no call is slow |
/// | [`minimum_calls`](BreakerConfigBuilder::minimum_calls) | of at least 10 calls |
/// | [`time_window`](BreakerConfigBuilder::time_window) | in the last 60 s |
/// | [`cancelled`](BreakerConfigBuilder::cancelled) | ignored, unless no call is completed |
/// | [`open_for`](BreakerConfigBuilder::open_for) | stays open 30 s |
/// | [`open_backoff`](BreakerConfigBuilder::open_backoff), [`open_jitter`](BreakerConfigBuilder::open_jitter) | each time as long |
/// | [`open_until_reset`](BreakerConfigBuilder::open_until_reset) | no |
/// | [`probes`](BreakerConfigBuilder::probes) | then lets 3 calls through at once |
/// | [`successes_to_close`](BreakerConfigBuilder::successes_to_close) | closes after 2 of them succeeded |
/// | [`probe_lease`](BreakerConfigBuilder::probe_lease) | a probe keeps its place as long as the open time |
/// | [`slow_start`](BreakerConfigBuilder::slow_start) | lets all calls through when it has closed |
/// | [`mode`](BreakerConfigBuilder::mode) | [`Mode::Enforce`] |
/// | [`clock`](BreakerConfigBuilder::clock) | [`Clock::coarse`] |
///
/// ```
/// use std::time::Duration;
/// use tower_breaker::BreakerConfig;
///
/// let default = BreakerConfig::default();
/// let patient = BreakerConfig::builder()
///     .name("reports")
///     .consecutive_failures(0)
///     .failure_rate(0.8)
///     .time_window(Duration::from_secs(300))
///     .build()?;
/// let busy = BreakerConfig::high_traffic().name("search").build()?;
/// # Ok::<(), tower_breaker::ConfigError>(())
/// ```
///
/// # Configuration files
///
/// With the feature `serde`, a configuration is read from a file and written to one. The fields
/// have the names of the setters.
///
/// ```
/// # #[cfg(feature = "serde")] {
/// # use tower_breaker::BreakerConfig;
/// let file = r#"
///     name = "search"
///     consecutive_failures = "none"
///     failure_rate = 0.8
///     slow_call_rate = { threshold = "2s", rate = 0.5 }
///     time_window = "5m"
///     open_backoff = { multiplier = 2.0, max = "10m" }
/// "#;
/// let config: BreakerConfig = toml::from_str(file)?;
/// # }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// - A field that is left out has its default.
/// - `"none"` turns off: `consecutive_failures`, `failure_rate`, `slow_call_rate`, `open_backoff`,
///   `open_jitter`, `slow_start`.
/// - `null` is an error, because it could mean either.
/// - A duration is a text of numbers, each with its unit: d, h, m, s, ms, us or ns. Examples are
///   `"1m 30s"` and `"1.5s"`.
/// - An unknown field, and a field that is there twice, are errors.
/// - An error names the field, its value and what is allowed.
///
/// A file has no clock: a circuit that is created from it reads the default clock, and
/// [`Circuit::reconfigure`](crate::Circuit::reconfigure) keeps the circuit's. A configuration that
/// is written and read back is the same, except for the clock. Rates with more than 15 digits need
/// a format that reads them exactly: TOML does, and `serde_json` with its feature
/// `float_roundtrip`.
#[derive(Clone, Debug, PartialEq)]
pub struct BreakerConfig {
    pub(crate) circuit: CircuitConfig,
    /// As it was set.
    pub(crate) clock: Option<Clock>,
}

/// What a call counts for that its caller gave up: the future was dropped, or the service while it waited for the inner one's readiness.
///
/// A client that times out *outside* of the breaker gives its calls up. One that hangs up because its own caller did does, too. So one call that
/// is given up says nothing of the server.
///
/// A call that is dropped while the tracked body of its request waits for its source (see
/// [`upload`](tower_fault_classify::upload)) counts for nothing with every policy: the server could
/// not answer yet. A probe returns its place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum CancelledPolicy {
    /// Ignored, unless the server hangs: the circuit opens if the window holds
    /// [`minimum_calls`](BreakerConfigBuilder::minimum_calls) cancelled calls and no completed
    /// call. The default.
    ///
    /// These calls are completed:
    ///
    /// - a call that succeeded or failed;
    /// - a call that the server answered neutrally, such as with a 429, though it counts in no
    ///   rate;
    /// - a call whose [tracked body](crate::BreakerLayer::track_body) has delivered data, also if
    ///   its reader then drops it.
    ///
    /// A rejection from a layer below is not: the server answered nothing.
    ///
    /// In a time window a completed call counts for the span of the window. In a count window it
    /// counts until as many calls in a row as the window holds were cancelled. A half-open circuit
    /// opens again when [`minimum_calls`](BreakerConfigBuilder::minimum_calls) probes were
    /// cancelled since the last completed probe.
    #[default]
    IfNoneCompletes,
    /// For nothing.
    Ignore,
    /// For a failure.
    Failure,
    /// For a failure if it had run so long, for nothing if not. 1 ms to 365 days.
    FailureAfter(Duration),
}

impl CancelledPolicy {
    /// The name in `snake_case`, as in configuration files.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::IfNoneCompletes => "if_none_completes",
            Self::Ignore => "ignore",
            Self::Failure => "failure",
            Self::FailureAfter(_) => "failure_after",
        }
    }
}

impl fmt::Display for CancelledPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whether a circuit acts on what it decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mode {
    /// It rejects calls. The default.
    #[default]
    Enforce,
    /// It changes its state and tells of it, and rejects no call. What it would have rejected goes through and is not counted.
    ObserveOnly,
    /// It lets all calls through and counts none.
    Disabled,
}

impl Mode {
    /// The name in `snake_case`, as in configuration files.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::ObserveOnly => "observe_only",
            Self::Disabled => "disabled",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl BreakerConfig {
    /// A builder with the defaults.
    pub fn builder() -> BreakerConfigBuilder {
        BreakerConfigBuilder::new()
    }

    /// For many calls a second: the rate alone decides, over the last 10 s and at least 100 calls; the circuit stays open for 5 s and lets the
    /// traffic back in over 5 s.
    ///
    /// A run of k failures comes by chance every (p⁻ᵏ − 1) / (1 − p) calls on average, where p is the share of calls that fail (Feller, *An
    /// Introduction to Probability Theory and Its Applications*, vol. 1, XIII.7). With a fifth of them failing, five in a row come every
    /// 3,905 calls: at 1,000 calls a second every four seconds, though four fifths of the calls are answered.
    pub fn high_traffic() -> BreakerConfigBuilder {
        Self::builder()
            .consecutive_failures(0)
            .minimum_calls(100)
            .time_window(Duration::from_secs(10))
            .open_for(Duration::from_secs(5))
            .slow_start(Duration::from_secs(5))
    }

    /// For a worker that makes one call at a time: five failures in a row open the circuit, and it stays open until somebody resets it.
    ///
    /// A rate says little of so few calls. A batch that stops keeps what it has done, and goes on when a person, or a health check that calls
    /// [`Circuit::reset`](crate::Circuit::reset), says that the server is back.
    pub fn single_flight() -> BreakerConfigBuilder {
        Self::builder().failure_rate(None).open_until_reset().probes(1).successes_to_close(1)
    }

    /// The same limits for a circuit of another name.
    pub fn named(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.circuit.name = intern(name.into());
        self
    }

    /// Returns the clock that a new circuit reads.
    pub fn clock(&self) -> Clock {
        self.circuit.fit(self.clock.unwrap_or_default())
    }

    /// The circuit's name.
    pub const fn name(&self) -> &'static str {
        self.circuit.name
    }
}

impl Default for BreakerConfig {
    fn default() -> Self {
        let config = Self::builder().build();
        // A test holds that the defaults are in their ranges.
        config.unwrap_or_else(|error| unreachable!("the defaults are valid: {error}"))
    }
}
