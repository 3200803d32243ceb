//! The configuration, from what the user sets to the words that calls read.
//!
//! | step | type | what it is for |
//! |---|---|---|
//! | 1 | [`BreakerConfigBuilder`], [`KeyedConfigBuilder`] | holds what the user sets: durations, any value |
//! | 2 | [`BreakerConfig`], [`KeyedConfig`] | checked by `build`: no invalid one exists. Times are nanoseconds. It is made of [`TripLimits`] (when a closed circuit opens), [`RecoveryLimits`] (how an open one closes) and [`WindowShape`], which the decisions in `machine/` take |
//! | 3 | `circuit/hot_config.rs`: `HotConfig` | the part that calls read without a lock, as atomic words: mode and flags, clock, trip limits, and the window cut into buckets |
//! | 3 | `circuit/locked.rs`: `Locked` | the part that only transitions and probes read, behind the circuit's lock: recovery limits, name |
//!
//! A new circuit, and [`Circuit::reconfigure`](crate::Circuit::reconfigure), take step 3. Three
//! readings of the words exist, because each costs loads: the window alone (a success), the
//! thresholds (a failure), all limits (the rest).

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
use crate::machine::{RecoveryLimits, TripLimits, WindowShape};

pub use crate::machine::CancelledPolicy;

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
    pub(crate) name: &'static str,
    pub(crate) trip: TripLimits,
    pub(crate) recovery: RecoveryLimits,
    pub(crate) window: WindowShape,
    pub(crate) mode: Mode,
    /// As it was set. `None`: the default clock, or the circuit's own.
    pub(crate) clock: Option<Clock>,
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
    /// The same limits for a circuit of another name.
    pub fn named(self, name: impl Into<Cow<'static, str>>) -> Self {
        Self { name: intern(name.into()), ..self }
    }

    /// Returns the circuit's name.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Whether the circuit admits all calls and counts none.
    pub(crate) fn is_disabled(&self) -> bool {
        self.mode == Mode::Disabled
    }

    /// The clock that a new circuit reads.
    pub(crate) fn fitted_clock(&self) -> Clock {
        self.clock_for(self.clock.unwrap_or_default())
    }

    /// The clock that a circuit on `clock` reads: the precise one in place of the coarse one while
    /// a time is short; see [`Clock::fit_for`].
    pub(crate) fn clock_for(&self, clock: Clock) -> Clock {
        let mut shortest = self.recovery.open.initial.min(self.recovery.probe_lease);
        if let WindowShape::Time(nanos) = self.window {
            shortest = shortest.min(nanos);
        }
        if let Some(slow) = self.trip.slow {
            shortest = shortest.min(slow.threshold);
        }
        if self.recovery.slow_start > 0 {
            shortest = shortest.min(self.recovery.slow_start);
        }
        let mut shortest = Duration::from_nanos(shortest);
        if let CancelledPolicy::FailureAfter(after) = self.trip.cancelled {
            shortest = shortest.min(after);
        }
        clock.fit_for(shortest)
    }
}
