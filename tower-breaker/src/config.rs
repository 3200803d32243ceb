//! The configuration: a builder that lets no invalid one exist.

use std::borrow::Cow;
use std::ops::RangeInclusive;
use std::time::Duration;

use tower_fault_classify::__shared::{Clock, ConfigError};

use crate::circuit::{Shape, intern};
use crate::machine::{RecoveryLimits, TripLimits};

/// What open times, leases and time windows may be.
const DURATIONS: RangeInclusive<Duration> =
    Duration::from_millis(1)..=Duration::from_secs(365 * 24 * 60 * 60);

/// How many calls a count window may hold.
const WINDOW_CALLS: RangeInclusive<u32> = 1..=1_000_000;

/// How many probes may run at once.
const PROBES: RangeInclusive<u32> = 1..=10_000;

const MINIMUM_CALLS: u32 = 10;

/// When a circuit opens and how it closes again.
///
/// | what | default |
/// |---|---|
/// | [`name`](BreakerConfigBuilder::name) | `"breaker"` |
/// | [`consecutive_failures`](BreakerConfigBuilder::consecutive_failures) | opens after 5 failures in a row |
/// | [`failure_rate`](BreakerConfigBuilder::failure_rate) | opens at 50 % |
/// | [`minimum_calls`](BreakerConfigBuilder::minimum_calls) | of at least 10 calls |
/// | [`time_window`](BreakerConfigBuilder::time_window) | in the last 60 s |
/// | [`open_for`](BreakerConfigBuilder::open_for) | stays open 30 s |
/// | [`probes`](BreakerConfigBuilder::probes) | then lets 3 calls through at once |
/// | [`successes_to_close`](BreakerConfigBuilder::successes_to_close) | closes after 2 of them succeeded |
/// | [`probe_lease`](BreakerConfigBuilder::probe_lease) | a probe keeps its place as long as the open time |
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
/// # Ok::<(), tower_breaker::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct BreakerConfig {
    pub(crate) name: &'static str,
    pub(crate) trip: TripLimits,
    pub(crate) recovery: RecoveryLimits,
    pub(crate) shape: Shape,
    pub(crate) clock: Clock,
}

impl BreakerConfig {
    /// A builder with the defaults.
    pub fn builder() -> BreakerConfigBuilder {
        BreakerConfigBuilder {
            name: Cow::Borrowed("breaker"),
            consecutive_failures: 5,
            failure_rate: Some(0.5),
            minimum_calls: None,
            window: Span::Time(Duration::from_secs(60)),
            open_for: Duration::from_secs(30),
            probes: 3,
            successes_to_close: 2,
            probe_lease: None,
            clock: Clock::default(),
        }
    }

    /// The circuit's name.
    pub const fn name(&self) -> &'static str {
        self.name
    }
}

impl Default for BreakerConfig {
    fn default() -> Self {
        let config = Self::builder().build();
        // A test holds that the defaults are in their ranges.
        config.unwrap_or_else(|error| unreachable!("the defaults are valid: {error}"))
    }
}

/// Builds a [`BreakerConfig`].
#[derive(Clone, Debug)]
#[must_use]
pub struct BreakerConfigBuilder {
    name: Cow<'static, str>,
    consecutive_failures: u32,
    failure_rate: Option<f64>,
    minimum_calls: Option<u32>,
    window: Span,
    open_for: Duration,
    probes: u32,
    successes_to_close: u32,
    probe_lease: Option<Duration>,
    clock: Clock,
}

#[derive(Clone, Copy, Debug)]
enum Span {
    Time(Duration),
    Calls(u32),
}

impl BreakerConfigBuilder {
    /// What rejections, transitions and the status call the circuit. A name that is made at run time is kept for as long as
    /// the program runs, once. **Default**: `"breaker"`.
    pub fn name(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.name = name.into();
        self
    }

    /// Opens after so many failures without a success between them; 0: never. It is for little traffic: among many calls a second a
    /// few failures in a row come by chance, and the failure rate alone is the better judge. Attempts of a retry above count one by
    /// one. **Default**: 5.
    pub fn consecutive_failures(mut self, failures: u32) -> Self {
        self.consecutive_failures = failures;
        self
    }

    /// Opens when this share of the calls in the window failed, 0 to 1; `None`: never. 0 opens at the first failure after
    /// [`minimum_calls`](Self::minimum_calls). The share is looked at when a call fails. **Default**: 0.5.
    pub fn failure_rate(mut self, rate: impl Into<Option<f64>>) -> Self {
        self.failure_rate = rate.into();
        self
    }

    /// The failure rate counts from so many calls in the window, at least 1. **Default**: 10, or the size of a smaller
    /// [`count_window`](Self::count_window).
    pub fn minimum_calls(mut self, calls: u32) -> Self {
        self.minimum_calls = Some(calls);
        self
    }

    /// The failure rate is taken over a span of time, 1 ms to 365 days, in sixteen aligned buckets: the span is as long as
    /// asked, and up to a fifteenth longer. **Default**: 60 s.
    pub fn time_window(mut self, span: Duration) -> Self {
        self.window = Span::Time(span);
        self
    }

    /// The failure rate is taken over the last `calls` calls exactly, 1 to 1,000,000. It costs an uncontended lock a call, for
    /// the order of all calls is one. **Default**: off, see [`time_window`](Self::time_window).
    pub fn count_window(mut self, calls: u32) -> Self {
        self.window = Span::Calls(calls);
        self
    }

    /// How long the circuit stays open before it lets probes through, 1 ms to 365 days, kept to the millisecond. A server's
    /// `Retry-After` on the call that opened it lengthens the time, up to 5 minutes. **Default**: 30 s.
    pub fn open_for(mut self, time: Duration) -> Self {
        self.open_for = time;
        self
    }

    /// How many calls a half-open circuit lets through at once, 1 to 10,000. **Default**: 3.
    pub fn probes(mut self, probes: u32) -> Self {
        self.probes = probes;
        self
    }

    /// How many successes of a half-open circuit close it, at least 1. It may be more than [`probes`](Self::probes): a probe
    /// that ends gives its place to the next. **Default**: 2.
    pub fn successes_to_close(mut self, successes: u32) -> Self {
        self.successes_to_close = successes;
        self
    }

    /// How long a probe keeps its place, 1 ms to 365 days. It is not cancelled then, and what it comes to still counts while
    /// the circuit is half-open. **Default**: the open time.
    pub fn probe_lease(mut self, lease: Duration) -> Self {
        self.probe_lease = Some(lease);
        self
    }

    /// Where the time is read. A coarse clock gives way to the precise one if a configured time is under 100 ms.
    /// **Default**: [`Clock::coarse`].
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Checks every value.
    ///
    /// # Errors
    ///
    /// The first value that is out of its range, with its field and the range.
    pub fn build(self) -> Result<BreakerConfig, ConfigError> {
        if let Some(rate) = self.failure_rate {
            ConfigError::check("failure_rate", rate, 0.0..=1.0)?;
        }
        let (shape, most_calls, mut shortest) = match self.window {
            Span::Time(span) => {
                ConfigError::check("time_window", span, DURATIONS)?;
                (Shape::Time(nanos(span)), u32::MAX, span)
            }
            Span::Calls(calls) => {
                ConfigError::check("count_window", calls, WINDOW_CALLS)?;
                (Shape::Count(calls), calls, Duration::MAX)
            }
        };
        let minimum_calls = self.minimum_calls.unwrap_or(MINIMUM_CALLS.min(most_calls));
        ConfigError::check("minimum_calls", minimum_calls, 1..=most_calls)?;
        ConfigError::check("open_for", self.open_for, DURATIONS)?;
        ConfigError::check("probes", self.probes, PROBES)?;
        ConfigError::check("successes_to_close", self.successes_to_close, 1..=u32::MAX)?;
        let probe_lease = self.probe_lease.unwrap_or(self.open_for);
        ConfigError::check("probe_lease", probe_lease, DURATIONS)?;
        shortest = shortest.min(self.open_for).min(probe_lease);
        Ok(BreakerConfig {
            name: intern(self.name),
            trip: TripLimits {
                consecutive_failures: self.consecutive_failures,
                failure_rate: self.failure_rate,
                minimum_calls,
            },
            recovery: RecoveryLimits {
                open_for: nanos(self.open_for),
                probes: self.probes,
                successes_to_close: self.successes_to_close,
                probe_lease: nanos(probe_lease),
            },
            shape,
            clock: self.clock.fit_for(shortest),
        })
    }
}

/// Whole nanoseconds of a duration that was checked: 365 days fit 500 times.
const fn nanos(duration: Duration) -> u64 {
    duration.as_nanos() as u64
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use super::*;

    fn refused(builder: BreakerConfigBuilder) -> (&'static str, String) {
        let error = builder.build().expect_err("it is out of range");
        (error.field(), error.to_string())
    }

    #[test]
    fn the_defaults_are_valid_and_those_of_the_docs() {
        let config = BreakerConfig::default();
        assert_eq!(config, BreakerConfig::builder().build().unwrap());
        let trip = TripLimits { consecutive_failures: 5, failure_rate: Some(0.5), minimum_calls: 10 };
        assert_eq!((config.name(), config.trip), ("breaker", trip));
        let thirty_seconds = 30_000_000_000;
        let recovery = RecoveryLimits {
            open_for: thirty_seconds,
            probes: 3,
            successes_to_close: 2,
            probe_lease: thirty_seconds,
        };
        assert_eq!((config.recovery, config.shape), (recovery, Shape::Time(60_000_000_000)));
        assert_eq!(config.clock, Clock::coarse());
    }

    #[test]
    fn what_is_out_of_range_is_named_with_value_and_range() {
        let config = BreakerConfig::builder;
        let century = Duration::from_secs(100 * 365 * 24 * 60 * 60);
        for rate in [-0.1, 1.000_001, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let (field, text) = refused(config().failure_rate(rate));
            assert_eq!(field, "failure_rate");
            assert_eq!(text, format!("`failure_rate` is {rate:?}; allowed is 0.0 to 1.0"));
        }
        for duration in [Duration::ZERO, Duration::from_nanos(999_999), century, Duration::MAX] {
            assert_eq!(refused(config().time_window(duration)).0, "time_window");
            assert_eq!(refused(config().open_for(duration)).0, "open_for");
            assert_eq!(refused(config().probe_lease(duration)).0, "probe_lease");
        }
        assert_eq!(refused(config().count_window(0)).0, "count_window");
        assert_eq!(refused(config().count_window(1_000_001)).0, "count_window");
        assert_eq!(refused(config().minimum_calls(0)).0, "minimum_calls");
        let (field, text) = refused(config().count_window(20).minimum_calls(21));
        assert_eq!((field, &*text), ("minimum_calls", "`minimum_calls` is 21; allowed is 1 to 20"));
        assert_eq!(refused(config().probes(0)).0, "probes");
        assert_eq!(refused(config().probes(10_001)).0, "probes");
        assert_eq!(refused(config().successes_to_close(0)).0, "successes_to_close");
    }

    #[test]
    fn the_edges_of_the_ranges_are_allowed() {
        for duration in [*DURATIONS.start(), *DURATIONS.end()] {
            let config =
                BreakerConfig::builder().time_window(duration).open_for(duration).probe_lease(duration);
            assert!(config.build().is_ok());
        }
        for rate in [0.0, 1.0] {
            assert!(BreakerConfig::builder().failure_rate(rate).build().is_ok());
        }
        let least = BreakerConfig::builder().count_window(1).probes(1).successes_to_close(u32::MAX);
        assert_eq!(least.build().unwrap().trip.minimum_calls, 1);
        let off = BreakerConfig::builder().failure_rate(None).consecutive_failures(0);
        assert!(off.build().is_ok());
    }

    #[test]
    fn short_times_take_the_precise_clock() {
        let short = BreakerConfig::builder().open_for(Duration::from_millis(50)).build().unwrap();
        assert_eq!(short.clock, Clock::precise());
    }
}
