//! The builder, which checks every value.

use std::borrow::Cow;
use std::ops::RangeInclusive;
use std::time::Duration;

use tower_fault_classify::__internals::{Clock, ConfigError};

use super::name::intern;
use super::{BreakerConfig, CancelledPolicy, Mode};
use crate::machine::{OpenDuration, RecoveryLimits, SlowCallLimits, TripLimits, WindowShape};

/// What open times, leases and time windows may be.
pub(crate) const DURATIONS: RangeInclusive<Duration> =
    Duration::from_millis(1)..=Duration::from_secs(365 * 24 * 60 * 60);

/// What shares and rates may be.
pub(crate) const SHARES: RangeInclusive<f64> = 0.0..=1.0;

/// How many calls a count window may hold.
pub(crate) const WINDOW_CALLS: RangeInclusive<u32> = 1..=1_000_000;

/// How many probes may run at once.
pub(crate) const PROBES: RangeInclusive<u32> = 1..=10_000;

const MINIMUM_CALLS: u32 = 10;

/// How much the time of a growing open period may grow at once.
pub(crate) const GROWTH: RangeInclusive<f64> = 1.0..=100.0;

/// Builds a [`BreakerConfig`].
#[derive(Clone, Debug)]
#[must_use]
pub struct BreakerConfigBuilder {
    name: Cow<'static, str>,
    consecutive_failures: u32,
    failure_rate: Option<f64>,
    slow_call_rate: Option<(Duration, f64)>,
    minimum_calls: Option<u32>,
    window: WindowSetting,
    cancelled: CancelledPolicy,
    open_for: Duration,
    open_backoff: Option<(f64, Duration)>,
    open_jitter: f64,
    open_until_reset: bool,
    probes: u32,
    successes_to_close: u32,
    probe_lease: Option<Duration>,
    slow_start: Duration,
    mode: Mode,
    clock: Option<Clock>,
}

#[derive(Clone, Copy, Debug)]
enum WindowSetting {
    Time(Duration),
    Calls(u32),
}

impl BreakerConfigBuilder {
    /// The value of `minimum_calls` if it is not set.
    pub(super) fn default_minimum_calls(&self) -> u32 {
        match self.window {
            WindowSetting::Time(_) => MINIMUM_CALLS,
            WindowSetting::Calls(calls) => MINIMUM_CALLS.min(calls),
        }
    }

    pub(super) fn new() -> Self {
        Self {
            name: Cow::Borrowed("breaker"),
            consecutive_failures: 5,
            failure_rate: Some(0.5),
            slow_call_rate: None,
            minimum_calls: None,
            window: WindowSetting::Time(Duration::from_secs(60)),
            cancelled: CancelledPolicy::IfNoneCompletes,
            open_for: Duration::from_secs(30),
            open_backoff: None,
            open_jitter: 0.0,
            open_until_reset: false,
            probes: 3,
            successes_to_close: 2,
            probe_lease: None,
            slow_start: Duration::ZERO,
            mode: Mode::Enforce,
            clock: None,
        }
    }

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

    /// Opens when this share of the calls in the window, 0 to 1, took so long or longer, 1 ms to 365 days, whatever they came to. A probe that
    /// is slow opens the circuit again. Every call then reads the clock when it begins. **Default**: off.
    ///
    /// A call that never ends is not slow, it is cancelled: see [`cancelled`](Self::cancelled).
    ///
    /// The time of a call includes the upload of its request. A remote client with a slow uplink
    /// makes a slow call of a server that answers at once, and a few such clients open the circuit.
    /// In a gateway that passes uploads on, do one of these:
    ///
    /// - Give the routes with uploads a circuit of their own, without slow calls.
    /// - Read small bodies into memory above the breaker.
    /// - Set `threshold` above the longest upload that you allow.
    pub fn slow_call_rate(mut self, threshold: Duration, rate: f64) -> Self {
        self.slow_call_rate = Some((threshold, rate));
        self
    }

    /// The rates count from so many calls in the window, at least 1. **Default**: 10, or the size of a smaller
    /// [`count_window`](Self::count_window).
    pub fn minimum_calls(mut self, calls: u32) -> Self {
        self.minimum_calls = Some(calls);
        self
    }

    /// The rates are taken over a span of time, 1 ms to 365 days, in sixteen aligned buckets: the span is as long as
    /// asked, and up to a fifteenth longer; a tenth, in eleven buckets, for circuits by a key. **Default**: 60 s.
    pub fn time_window(mut self, span: Duration) -> Self {
        self.window = WindowSetting::Time(span);
        self
    }

    /// The rates are taken over the last `calls` calls exactly, 1 to 1,000,000. It costs an uncontended lock a call, for
    /// the order of all calls is one. **Default**: off, see [`time_window`](Self::time_window).
    pub fn count_window(mut self, calls: u32) -> Self {
        self.window = WindowSetting::Calls(calls);
        self
    }

    /// What a call counts for that its caller gave up. **Default**: [`CancelledPolicy::IfNoneCompletes`].
    pub fn cancelled(mut self, policy: CancelledPolicy) -> Self {
        self.cancelled = policy;
        self
    }

    /// How long the circuit stays open before it lets probes through, 1 ms to 365 days. A server's
    /// `Retry-After` on the call that opened it lengthens the time, up to 5 minutes. **Default**: 30 s.
    pub fn open_for(mut self, time: Duration) -> Self {
        self.open_for = time;
        self
    }

    /// Each open period is `multiplier` times as long as the one before, 1 to 100, up to `max`, at least the open time and at most 365 days. It
    /// starts over when the circuit has stayed closed as long as its last open period. **Default**: each is as long.
    pub fn open_backoff(mut self, multiplier: f64, max: Duration) -> Self {
        self.open_backoff = Some((multiplier, max));
        self
    }

    /// Up to this share of an open period, 0 to 1, is added to it, drawn evenly, so that the circuits of a fleet do not probe at once.
    /// **Default**: 0.
    pub fn open_jitter(mut self, share: f64) -> Self {
        self.open_jitter = share;
        self
    }

    /// The circuit stays open until [`Circuit::reset`](crate::Circuit::reset). **Default**: off.
    pub fn open_until_reset(mut self) -> Self {
        self.open_until_reset = true;
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

    /// How long the share of calls grows, evenly from none to all, that a circuit lets through when it has closed, 1 ms to 365 days; zero: it
    /// lets all through at once. The first call always goes through, and when the time is over all do, however few there were.
    ///
    /// The share is one of calls that begin. A service that is polled for its readiness and not
    /// called does not count, and neither does a permit that is cancelled. A service that is not
    /// ready when open counts once when it begins to wait, and then each time that a sixteenth of
    /// the time that is left is over.
    ///
    /// **Default**: zero.
    pub fn slow_start(mut self, time: Duration) -> Self {
        self.slow_start = time;
        self
    }

    /// Whether the circuit acts on what it decides. **Default**: [`Mode::Enforce`].
    pub fn mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }

    /// Sets the clock of the circuit. **Default**: [`Clock::coarse`]; for
    /// [`Circuit::reconfigure`](crate::Circuit::reconfigure), the circuit's own clock.
    ///
    /// If a configured time is under 100 ms, the circuit reads [`Clock::precise`] in place of
    /// [`Clock::coarse`]. Both show the same time, so that `reconfigure` may change from one to the
    /// other.
    ///
    /// If the clock runs back, a time window stands still until the clock has caught up: its newest
    /// bucket counts all calls meanwhile. An open circuit and the lease of a probe last as much
    /// longer. Only a [`Clock::manual`] runs back.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = Some(clock);
        self
    }

    /// Checks every value.
    ///
    /// # Errors
    ///
    /// The first value that is out of its range, with its field and the range.
    pub fn build(self) -> Result<BreakerConfig, ConfigError> {
        let time = |field, time| ConfigError::check(field, time, DURATIONS).map(nanos);
        if let Some(rate) = self.failure_rate {
            ConfigError::check("failure_rate", rate, SHARES)?;
        }
        let (window, most_calls) = match self.window {
            WindowSetting::Time(span) => (WindowShape::Time(time("time_window", span)?), u32::MAX),
            WindowSetting::Calls(calls) => {
                (WindowShape::Count(ConfigError::check("count_window", calls, WINDOW_CALLS)?), calls)
            }
        };
        let slow = match self.slow_call_rate {
            None => None,
            Some((from, rate)) => Some(SlowCallLimits {
                threshold: time("slow_call_rate", from)?,
                rate: ConfigError::check("slow_call_rate", rate, SHARES)?,
            }),
        };
        if let CancelledPolicy::FailureAfter(after) = self.cancelled {
            time("cancelled", after)?;
        }
        let minimum_calls = self.minimum_calls.unwrap_or(self.default_minimum_calls());
        let trip = TripLimits {
            consecutive_failures: self.consecutive_failures,
            failure_rate: self.failure_rate,
            slow,
            minimum_calls: ConfigError::check("minimum_calls", minimum_calls, 1..=most_calls)?,
            cancelled: self.cancelled,
        };
        let first = time("open_for", self.open_for)?;
        let (factor, cap) = match self.open_backoff {
            None => (1.0, first),
            Some((factor, cap)) => {
                ConfigError::check("open_backoff", factor, GROWTH)?;
                (factor, nanos(ConfigError::check("open_backoff", cap, self.open_for..=*DURATIONS.end())?))
            }
        };
        let jitter = ConfigError::check("open_jitter", self.open_jitter, SHARES)?;
        let recovery = RecoveryLimits {
            open: OpenDuration {
                initial: first,
                multiplier: factor,
                max: cap,
                jitter,
                until_reset: self.open_until_reset,
            },
            probes: ConfigError::check("probes", self.probes, PROBES)?,
            successes_to_close: ConfigError::check(
                "successes_to_close",
                self.successes_to_close,
                1..=u32::MAX,
            )?,
            probe_lease: time("probe_lease", self.probe_lease.unwrap_or(self.open_for))?,
            slow_start: if self.slow_start.is_zero() { 0 } else { time("slow_start", self.slow_start)? },
        };
        Ok(BreakerConfig {
            name: intern(self.name),
            trip,
            recovery,
            window,
            mode: self.mode,
            clock: self.clock,
        })
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
}

impl Default for BreakerConfig {
    fn default() -> Self {
        let config = Self::builder().build();
        // A test holds that the defaults are in their ranges.
        config.unwrap_or_else(|error| unreachable!("the defaults are valid: {error}"))
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
    fn defaults_are_valid_and_as_documented() {
        let config = BreakerConfig::default();
        assert_eq!(config, BreakerConfig::builder().build().unwrap());
        let trip = TripLimits {
            consecutive_failures: 5,
            failure_rate: Some(0.5),
            slow: None,
            minimum_calls: 10,
            cancelled: CancelledPolicy::IfNoneCompletes,
        };
        assert_eq!((config.name(), config.trip), ("breaker", trip));
        let thirty_seconds = 30_000_000_000;
        let recovery = RecoveryLimits {
            open: OpenDuration::constant(thirty_seconds),
            probes: 3,
            successes_to_close: 2,
            probe_lease: thirty_seconds,
            slow_start: 0,
        };
        assert_eq!((config.recovery, config.window), (recovery, WindowShape::Time(60_000_000_000)));
        assert_eq!(config.mode, Mode::Enforce);
        assert_eq!((config.clock(), config.fitted_clock()), (None, Clock::coarse()));
    }

    #[test]
    fn value_out_of_range_is_named_with_value_and_range() {
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
            assert_eq!(refused(config().slow_call_rate(duration, 0.5)).0, "slow_call_rate");
            let cancelled = CancelledPolicy::FailureAfter(duration);
            assert_eq!(refused(config().cancelled(cancelled)).0, "cancelled");
            if !duration.is_zero() {
                assert_eq!(refused(config().slow_start(duration)).0, "slow_start");
            }
        }
        assert_eq!(refused(config().slow_call_rate(Duration::from_secs(1), 1.1)).0, "slow_call_rate");
        let minute = Duration::from_secs(60);
        for factor in [0.9, 101.0, f64::NAN] {
            assert_eq!(refused(config().open_backoff(factor, minute)).0, "open_backoff");
        }
        let (field, text) = refused(config().open_backoff(2.0, Duration::from_secs(29)));
        assert_eq!((field, &*text), ("open_backoff", "`open_backoff` is 29s; allowed is 30s to 31536000s"));
        assert_eq!(refused(config().open_jitter(1.5)).0, "open_jitter");
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
    fn range_edges_are_allowed() {
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
    fn presets_are_valid() {
        let busy = BreakerConfig::high_traffic().build().unwrap();
        assert_eq!((busy.trip.consecutive_failures, busy.trip.minimum_calls), (0, 100));
        let single = BreakerConfig::single_flight().build().unwrap();
        assert!(single.recovery.open.until_reset && single.trip.failure_rate.is_none());
    }

    #[test]
    fn failures_in_a_row_by_chance_match_the_docs() {
        let (p, k) = (0.2_f64, 5);
        let calls = (p.powi(-k) - 1.0) / (1.0 - p);
        assert!((calls - 3_905.0).abs() < 0.5, "{calls}");
    }

    #[test]
    fn short_times_select_the_precise_clock() {
        let config = BreakerConfig::builder;
        let short = Duration::from_millis(99);
        let builders = [
            config().time_window(short),
            config().slow_call_rate(short, 0.5),
            config().cancelled(CancelledPolicy::FailureAfter(short)),
            config().open_for(short),
            config().probe_lease(short),
            config().slow_start(short),
        ];
        for builder in builders {
            assert_eq!(builder.clone().build().unwrap().fitted_clock(), Clock::precise(), "{builder:?}");
            let (manual, _hand) = Clock::manual();
            assert_eq!(builder.clock(manual).build().unwrap().fitted_clock(), manual);
        }
    }
}
