//! The configuration: from the values that the user sets to the words that calls read.
//!
//! | step | type | purpose |
//! |---|---|---|
//! | 1 | [`BreakerConfigBuilder`], [`KeyedConfigBuilder`] | holds what the user sets: durations, any value |
//! | 2 | [`BreakerConfig`], [`KeyedConfig`] | validated by `build`, so that every instance is valid; times are nanoseconds. It consists of [`TripLimits`] (when a closed circuit opens), [`RecoveryLimits`] (how an open circuit closes) and [`WindowShape`], which are the input of the decisions in `machine/` |
//! | 3 | `circuit/hot_config.rs`: `HotConfig` | the part that calls read without a lock, as atomic words: mode and flags, clock, trip limits, and the window divided into buckets |
//! | 3 | `circuit/locked.rs`: `Locked` | the part that only transitions and probes read, behind the circuit's lock: recovery limits, name |
//!
//! A new circuit and [`Circuit::reconfigure`](crate::Circuit::reconfigure) perform step 3. The
//! words are read in three ways, because each load costs time: a success reads only the window, a
//! failure the thresholds, and all other calls all limits.

mod builder;
mod getters;
#[cfg(feature = "keyed")]
mod keyed;

pub use builder::BreakerConfigBuilder;
#[cfg(feature = "serde")]
pub(crate) use builder::{
    CONSECUTIVE_FAILURES, GROWTH, PROBES, RETRY_AFTER, SHARES, SLOW_START_SUCCESSES, WINDOW_CALLS,
};
pub(crate) use builder::{DEFAULT_NAME, DURATIONS};
#[cfg(feature = "keyed")]
pub(crate) use keyed::of_key;
#[cfg(all(feature = "keyed", feature = "serde"))]
pub(crate) use keyed::{KEY_LABELS, MAX_KEYS};
#[cfg(feature = "keyed")]
pub use keyed::{KeyedConfig, KeyedConfigBuilder, Overflow};

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use tower_fault_classify::__internals::{Clock, intern};

use crate::machine::{RecoveryLimits, SlowStartKind, TripLimits, WindowShape};
use crate::rng::Seeds;

pub use crate::machine::CancelledPolicy;

/// The configuration of a circuit: when it opens and how it closes again.
///
/// | setting | default | range | meaning |
/// |---|---|---|---|
/// | [`name`](BreakerConfigBuilder::name) | `"breaker"` | any text | the name in rejections, status, logs and metrics |
/// | [`consecutive_failures`](BreakerConfigBuilder::consecutive_failures) | 5 | 0 (off) to 1,000,000 | failures in a row that open the circuit |
/// | [`consecutive_failures_span`](BreakerConfigBuilder::consecutive_failures_span) | 1 s; zero if `consecutive_failures` is 1 | 1 ms to 365 days, or zero | time that the failures in a row must span |
/// | [`failure_rate`](BreakerConfigBuilder::failure_rate) | 0.5 | 0 to 1, or `None` (off) | share of failed calls that opens the circuit |
/// | [`slow_call_rate`](BreakerConfigBuilder::slow_call_rate) | off | threshold 1 ms to 365 days; rate 0 to 1 | share of slow calls that opens the circuit |
/// | [`minimum_calls`](BreakerConfigBuilder::minimum_calls) | 20, or a smaller count window | 1 or more; at most the count window | calls in the window before the rates apply |
/// | [`time_window`](BreakerConfigBuilder::time_window) | 10 s | 1 ms to 365 days | span over which the rates are computed |
/// | [`count_window`](BreakerConfigBuilder::count_window) | off | 1 to 1,000,000 | last calls over which the rates are computed, instead of a time window |
/// | [`count_failed_retries`](BreakerConfigBuilder::count_failed_retries) | off | | whether a closed circuit counts the failures of retries |
/// | [`cancelled`](BreakerConfigBuilder::cancelled) | [`IfNoneCompletes`](CancelledPolicy::IfNoneCompletes) | `FailureAfter`: 1 ms to 365 days | how cancelled calls are counted |
/// | [`open_for`](BreakerConfigBuilder::open_for) | 3 s | 1 ms to 365 days | time before an open circuit admits probes |
/// | [`open_backoff`](BreakerConfigBuilder::open_backoff) | off | multiplier 1 to 100; maximum `open_for` to 365 days | growth of the open time from one open period to the next |
/// | [`open_jitter`](BreakerConfigBuilder::open_jitter) | 0.5 | 0 to 1 | random time that is added to the open time, at most this share of it |
/// | [`max_retry_after`](BreakerConfigBuilder::max_retry_after) | 5 min | 0 to 365 days | longest delay of a server that lengthens the open time; 0 ignores them |
/// | [`seed`](BreakerConfigBuilder::seed) | none | any `u64` | makes the random times of `open_jitter` reproducible |
/// | [`open_until_reset`](BreakerConfigBuilder::open_until_reset) | off | | an open circuit admits no probes until it is reset |
/// | [`probes`](BreakerConfigBuilder::probes) | 1 | 1 to 10,000 | concurrent calls that a half-open circuit admits |
/// | [`successes_to_close`](BreakerConfigBuilder::successes_to_close) | 2 | 1 or more | successful probes that close the circuit |
/// | [`probe_lease`](BreakerConfigBuilder::probe_lease) | the value of `open_for` | 1 ms to 365 days | time for which a probe, or a call of `slow_start_successes`, holds its slot |
/// | [`slow_start`](BreakerConfigBuilder::slow_start) | 0 (off) | 0, or 1 ms to 365 days | time in which the share of admitted calls grows after closing |
/// | [`slow_start_successes`](BreakerConfigBuilder::slow_start_successes) | off | 1 to 10,000 | successes after closing until all calls are admitted; each admits one more concurrent call, instead of a slow start by time |
/// | [`mode`](BreakerConfigBuilder::mode) | [`Mode::Enforce`] | | whether the circuit rejects and counts calls |
/// | [`clock`](BreakerConfigBuilder::clock) | [`Clock::coarse`] | | the clock that the circuit reads |
///
/// The first limit that is reached opens the circuit. [`single_flight`](Self::single_flight) is a
/// preset for workers.
///
/// # Reasons for the defaults
///
/// Most defaults were chosen by simulations of this crate. The figure
/// [The defaults against other values] shows what another value of each costs. The guide
/// [Simulations] has all figures.
///
/// | default | reason | figure |
/// |---|---|---|
/// | 5 failures in a row that span 1 s | the circuit opens a second after the server begins to fail, or at the fifth failure if calls are rare. Random failures do not open the circuit of a busy client: at 1,000 calls/s, five of them in a row are frequent, but a second without a success is not | [The defaults against other values], [Metastable outage] |
/// | failures of retries do not count | if one shard of four is dead, a quarter of the calls fail. With three attempts for each call, half of the attempts fail | [The defaults against other values], [Dead shard] |
/// | failure rate 0.5 of at least 20 calls in 10 s | among fewer calls, a quarter of failures reaches one half by chance | [The defaults against other values] |
/// | open for 3 s | with a longer time, more calls are rejected after the server has recovered. With a shorter one, a large fleet probes too often | [The defaults against other values] |
/// | up to half as long again by jitter | without jitter, processes that failed together probe at the same time | [Retry-After] |
/// | 1 probe at a time, 2 successes | each process sends its own probes, so in a large fleet more probes are too much load. A second success costs hardly any time | [The defaults against other values] |
/// | ten cancelled calls over 1 s since the last completed call | with a timeout outside of the breaker, a server that hangs is found as early as with one inside, from 10 calls/s on | [Slow backend] |
///
/// [Simulations]: https://github.com/OWNER/tower-resilience-layers/blob/main/docs/simulations.md
/// [The defaults against other values]: https://github.com/OWNER/tower-resilience-layers/blob/main/docs/simulations.md#the-defaults-against-other-values
/// [Slow backend]: https://github.com/OWNER/tower-resilience-layers/blob/main/docs/simulations.md#slow-backend
/// [Metastable outage]: https://github.com/OWNER/tower-resilience-layers/blob/main/docs/simulations.md#metastable-outage
/// [Random failures]: https://github.com/OWNER/tower-resilience-layers/blob/main/docs/simulations.md#random-failures
/// [Dead shard]: https://github.com/OWNER/tower-resilience-layers/blob/main/docs/simulations.md#dead-shard
/// [Retry-After]: https://github.com/OWNER/tower-resilience-layers/blob/main/docs/simulations.md#retry-after
///
/// # Example
///
/// ```
/// use std::time::Duration;
/// use tower_breaker::BreakerConfig;
///
/// // The defaults:
/// let default = BreakerConfig::default();
/// // Opens only if 80 % of the calls in 5 minutes fail:
/// let patient = BreakerConfig::builder()
///     .name("reports")
///     .consecutive_failures(0)
///     .failure_rate(0.8)
///     .time_window(Duration::from_secs(300))
///     .build()?;
/// // A preset:
/// let worker = BreakerConfig::single_flight().name("search").build()?;
/// # Ok::<(), tower_breaker::ConfigError>(())
/// ```
///
/// # Configuration files
///
/// With the feature `serde`, a configuration can be read from a file and written to a file. The
/// fields have the names of the setters.
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
/// - A missing field has its default. With `preset = "single_flight"`, it has the value of
///   [`single_flight`](Self::single_flight).
/// - `"none"` turns these settings off: `consecutive_failures`, `consecutive_failures_span`,
///   `failure_rate`, `slow_call_rate`, `open_backoff`, `open_jitter`, `seed`, `slow_start`.
/// - `null` is an error, because it could mean the default or "off".
/// - A duration is a string of numbers, each with its unit: d, h, m, s, ms, us or ns. Examples are
///   `"1m 30s"` and `"1.5s"`.
/// - A seed above 9223372036854775807 is written in quotes, because TOML has no such integers.
/// - An unknown field and a duplicate field are errors.
/// - An error names the field, its value and the allowed values.
///
/// A file contains no clock. A circuit that is created from a file reads the default clock, and
/// [`Circuit::reconfigure`](crate::Circuit::reconfigure) keeps the circuit's clock. In the same
/// way, it keeps the name of the circuit if the file has none. Apart from the clock, a
/// configuration that is written and read again is equal to the original.
///
/// Rates with more than 15 digits need a format that reads them exactly: TOML does, and
/// `serde_json` does with its feature `float_roundtrip`.
#[derive(Clone, Debug, PartialEq)]
pub struct BreakerConfig {
    /// The name that the user set. `None`: the default name, or the circuit's current name.
    pub(crate) name: Option<&'static str>,
    pub(crate) trip: TripLimits,
    pub(crate) recovery: RecoveryLimits,
    pub(crate) window: WindowShape,
    pub(crate) mode: Mode,
    /// Whether the failures of retries count while the circuit is closed.
    pub(crate) count_failed_retries: bool,
    /// The clock that the user set. `None`: the default clock, or the circuit's current clock.
    pub(crate) clock: Option<Clock>,
    /// The seeds of the circuits' jitter. `None`: the jitter is not reproducible.
    pub(crate) seeds: Option<Seeds>,
}

/// Whether a circuit rejects and counts calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mode {
    /// The circuit rejects calls. The default.
    #[default]
    Enforce,
    /// The circuit changes its state and notifies observers, but rejects no call.
    ///
    /// A call that would have been rejected is admitted and not counted.
    ObserveOnly,
    /// The circuit admits all calls and counts none.
    Disabled,
}

impl Mode {
    /// Returns the name in `snake_case`, as in configuration files.
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
    /// Returns this configuration with another circuit name.
    ///
    /// See [`BreakerConfigBuilder::name`] for names that are built at run time.
    pub fn named(self, name: impl Into<Cow<'static, str>>) -> Self {
        Self { name: Some(intern(name.into())), ..self }
    }

    /// Returns the circuit's name; `"breaker"` if the name was not set.
    pub const fn name(&self) -> &'static str {
        match self.name {
            Some(name) => name,
            None => DEFAULT_NAME,
        }
    }

    /// Whether the circuit admits all calls and counts none.
    pub(crate) fn is_disabled(&self) -> bool {
        self.mode == Mode::Disabled
    }

    /// Returns the clock that a new circuit reads.
    pub(crate) fn fitted_clock(&self) -> Clock {
        self.clock_for(self.clock.unwrap_or_default())
    }

    /// Returns the clock that a circuit on `clock` reads.
    ///
    /// While one of its times is short, a coarse clock is replaced by the precise one: see
    /// [`Clock::fit_for`].
    pub(crate) fn clock_for(&self, clock: Clock) -> Clock {
        let mut shortest = self.recovery.open.initial.min(self.recovery.probe_lease);
        if let WindowShape::Time(nanos) = self.window {
            shortest = shortest.min(nanos);
        }
        if let Some(slow) = self.trip.slow {
            shortest = shortest.min(slow.threshold);
        }
        let failures_span = self.trip.consecutive_failures_span;
        if failures_span > 0 {
            shortest = shortest.min(failures_span);
        }
        if let SlowStartKind::Time(nanos) = self.recovery.slow_start {
            shortest = shortest.min(nanos);
        }
        let mut shortest = Duration::from_nanos(shortest);
        if let CancelledPolicy::FailureAfter(after) = self.trip.cancelled {
            shortest = shortest.min(after);
        }
        clock.fit_for(shortest)
    }
}
