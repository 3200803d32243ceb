//! The builder of a configuration. It validates every value.

use std::borrow::Cow;
use std::ops::RangeInclusive;
use std::time::Duration;

use tower_fault_classify::__internals::{Clock, ConfigError, intern};

use super::{BreakerConfig, CancelledPolicy, Mode};
use crate::machine::{OpenDuration, RecoveryLimits, SlowCallLimits, SlowStartKind, TripLimits, WindowShape};
use crate::rng::Seeds;

/// The allowed open durations, leases and time windows.
pub(crate) const DURATIONS: RangeInclusive<Duration> =
    Duration::from_millis(1)..=Duration::from_secs(365 * 24 * 60 * 60);

/// The allowed delays of servers that lengthen an open period. Zero ignores all delays.
pub(crate) const RETRY_AFTER: RangeInclusive<Duration> = Duration::ZERO..=*DURATIONS.end();

/// The allowed shares and rates.
pub(crate) const SHARES: RangeInclusive<f64> = 0.0..=1.0;

/// The allowed numbers of calls in a count window.
pub(crate) const WINDOW_CALLS: RangeInclusive<u32> = 1..=1_000_000;
pub(crate) const CONSECUTIVE_FAILURES: RangeInclusive<u32> = 0..=TripLimits::MAX_CONSECUTIVE_FAILURES;

/// The allowed numbers of concurrent probes.
pub(crate) const PROBES: RangeInclusive<u32> = 1..=10_000;

/// The allowed numbers of successes that end a slow start.
pub(crate) const SLOW_START_SUCCESSES: RangeInclusive<u32> = 1..=10_000;

/// The name of a circuit whose configuration sets no name.
pub(crate) const DEFAULT_NAME: &str = "breaker";

const MINIMUM_CALLS: u32 = 20;

const FAILURES_SPAN: Duration = Duration::from_secs(1);

/// The allowed multipliers of the open duration.
pub(crate) const GROWTH: RangeInclusive<f64> = 1.0..=100.0;

/// Builds a [`BreakerConfig`].
///
/// [`BreakerConfig::builder`] returns a builder with the defaults. The table of [`BreakerConfig`]
/// lists all settings with their defaults and ranges. A setter accepts any value;
/// [`build`](Self::build) validates all of them.
#[derive(Clone, Debug)]
#[must_use]
pub struct BreakerConfigBuilder {
    /// `None`: not set.
    name: Option<Cow<'static, str>>,
    consecutive_failures: u32,
    consecutive_failures_span: Option<Duration>,
    failure_rate: Option<f64>,
    slow_call_rate: Option<(Duration, f64)>,
    minimum_calls: Option<u32>,
    window: WindowSetting,
    cancelled: CancelledPolicy,
    open_for: Duration,
    open_backoff: Option<(f64, Duration)>,
    open_jitter: f64,
    max_retry_after: Duration,
    seed: Option<u64>,
    open_until_reset: bool,
    probes: u32,
    successes_to_close: u32,
    probe_lease: Option<Duration>,
    slow_start: SlowStartSetting,
    mode: Mode,
    count_failed_retries: bool,
    clock: Option<Clock>,
}

#[derive(Clone, Copy, Debug)]
enum WindowSetting {
    Time(Duration),
    Calls(u32),
}

#[derive(Clone, Copy, Debug)]
enum SlowStartSetting {
    /// Zero: there is no slow start.
    Time(Duration),
    Successes(u32),
}

impl BreakerConfigBuilder {
    /// The value of `consecutive_failures_span` if the user does not set it.
    pub(super) const fn default_failures_span(&self) -> Duration {
        if self.consecutive_failures == 1 { Duration::ZERO } else { FAILURES_SPAN }
    }

    /// The value of `minimum_calls` if the user does not set it.
    pub(super) fn default_minimum_calls(&self) -> u32 {
        match self.window {
            WindowSetting::Time(_) => MINIMUM_CALLS,
            WindowSetting::Calls(calls) => MINIMUM_CALLS.min(calls),
        }
    }

    pub(super) fn new() -> Self {
        // The docs of `BreakerConfig` name the figure that chose each value.
        Self {
            name: None,
            consecutive_failures: 5,
            consecutive_failures_span: None,
            failure_rate: Some(0.5),
            slow_call_rate: None,
            minimum_calls: None,
            window: WindowSetting::Time(Duration::from_secs(10)),
            cancelled: CancelledPolicy::IfNoneCompletes,
            open_for: Duration::from_secs(3),
            open_backoff: None,
            open_jitter: 0.5,
            max_retry_after: Duration::from_secs(5 * 60),
            seed: None,
            open_until_reset: false,
            probes: 1,
            successes_to_close: 2,
            probe_lease: None,
            slow_start: SlowStartSetting::Time(Duration::ZERO),
            mode: Mode::Enforce,
            count_failed_retries: false,
            clock: None,
        }
    }

    /// Sets the name of the circuit.
    ///
    /// **Default**: `"breaker"`. A configuration whose name is not set keeps the name of a circuit
    /// in [`Circuit::reconfigure`](crate::Circuit::reconfigure).
    ///
    /// Rejections, transitions, the status, logs and metrics contain the name. A name that is built
    /// at run time is leaked: the program keeps one copy of each distinct name until it ends.
    pub fn name(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Sets how many failures in a row open the circuit.
    ///
    /// **Range**: 0 to 1,000,000; 0 turns the limit off. **Default**: 5.
    ///
    /// A success between two failures restarts the count. The failures of retries do not count: see
    /// [`count_failed_retries`](Self::count_failed_retries).
    ///
    /// Among many calls per second, a few failures in a row occur by chance. Let p be the share of
    /// calls that fail. A run of k failures then occurs every (p⁻ᵏ − 1) / (1 − p) calls on average
    /// (Feller, *An Introduction to Probability Theory and Its Applications*, vol. 1, XIII.7). If
    /// a fifth of the calls fail, five failures in a row occur every 3,905 calls. So the run must
    /// also span a time: see [`consecutive_failures_span`](Self::consecutive_failures_span).
    pub fn consecutive_failures(mut self, failures: u32) -> Self {
        self.consecutive_failures = failures;
        self
    }

    /// Sets the time that the [`consecutive_failures`](Self::consecutive_failures) must span.
    ///
    /// **Range**: 1 ms to 365 days, or zero (off). **Default**: 1 s, or zero if
    /// `consecutive_failures` is 1.
    ///
    /// The circuit opens at the first failure for which both are true:
    ///
    /// - It is at least the `consecutive_failures`-th since the last success.
    /// - It is recorded at least this time after the first of them.
    ///
    /// So a burst of concurrent calls that fail together does not open the circuit, if a call
    /// succeeds soon afterwards. The failure rate does not depend on this time.
    ///
    /// A success restarts the time, like the count. If a manual clock runs back before the first
    /// failure, the time starts again at the next failure.
    pub fn consecutive_failures_span(mut self, span: Duration) -> Self {
        self.consecutive_failures_span = Some(span);
        self
    }

    /// Sets the share of failed calls in the window that opens the circuit.
    ///
    /// **Range**: 0 to 1; `None` turns the limit off. **Default**: 0.5.
    ///
    /// The rate is compared when a call fails and the window, including this call, holds at least
    /// [`minimum_calls`](Self::minimum_calls) calls. With a rate of 0, such a call opens the
    /// circuit.
    pub fn failure_rate(mut self, rate: impl Into<Option<f64>>) -> Self {
        self.failure_rate = rate.into();
        self
    }

    /// Sets when a call is slow, and the share of slow calls that opens the circuit.
    ///
    /// **Range**: `threshold` 1 ms to 365 days, `rate` 0 to 1. **Default**: off.
    /// [`no_slow_call_rate`](Self::no_slow_call_rate) turns it off again.
    ///
    /// A call is slow if it took `threshold` or longer, and succeeded or failed. A call with a
    /// neutral outcome is never slow, nor is a cancelled call that is ignored. A slow probe opens a
    /// half-open circuit again. With this setting, every call reads the clock when it begins.
    ///
    /// A call that never ends is not slow either. It is only recorded when its caller cancels it:
    /// see [`cancelled`](Self::cancelled).
    ///
    /// # Uploads
    ///
    /// The duration of a call includes the upload of its request. If a remote client has a slow
    /// uplink, its call is slow although the server responds immediately. A few such clients open
    /// the circuit. In a gateway that forwards uploads, do one of these:
    ///
    /// - Give the routes with uploads a separate circuit without this setting.
    /// - Read small bodies into memory in a layer outside of the breaker.
    /// - Set `threshold` above the longest upload that you allow.
    pub fn slow_call_rate(mut self, threshold: Duration, rate: f64) -> Self {
        self.slow_call_rate = Some((threshold, rate));
        self
    }

    /// Turns off the limit of [`slow_call_rate`](Self::slow_call_rate): no call is slow.
    pub fn no_slow_call_rate(mut self) -> Self {
        self.slow_call_rate = None;
        self
    }

    /// Sets how many calls the window must hold before the rates can open the circuit.
    ///
    /// **Range**: at least 1; with a [`count_window`](Self::count_window), at most its size. `None`
    /// restores the default. **Default**: 20, or the size of the count window if that is smaller.
    ///
    /// [`CancelledPolicy::IfNoneCompletes`] uses the same number for cancelled calls, but at most
    /// 10.
    pub fn minimum_calls(mut self, calls: impl Into<Option<u32>>) -> Self {
        self.minimum_calls = calls.into();
        self
    }

    /// Sets the span of time over which the rates are computed.
    ///
    /// **Range**: 1 ms to 365 days. **Default**: 10 s.
    ///
    /// It replaces a [`count_window`](Self::count_window). The window consists of sixteen aligned
    /// buckets, so it covers `span` and up to a fifteenth more. The window of a keyed circuit
    /// consists of eleven buckets and covers up to a tenth more.
    pub fn time_window(mut self, span: Duration) -> Self {
        self.window = WindowSetting::Time(span);
        self
    }

    /// Sets the number of most recent calls over which the rates are computed.
    ///
    /// **Range**: 1 to 1,000,000. **Default**: off; the window is a time window.
    ///
    /// It replaces the [`time_window`](Self::time_window), and counts exactly the last `calls`
    /// calls. A call that failed, was slow or was cancelled then takes a lock, because all calls
    /// need one common order. A success takes no lock, except for every 1,024th one of a thread.
    pub fn count_window(mut self, calls: u32) -> Self {
        self.window = WindowSetting::Calls(calls);
        self
    }

    /// Sets whether a closed circuit counts the failures of retries.
    ///
    /// **Default**: off. The failure of a retry counts in no rate and in no run of failures. Its
    /// success counts like any other.
    ///
    /// The attempts of one call fail for the same reason, so they are not independent. If one of
    /// four shards is dead, a quarter of the calls fails. With three attempts for each, half of the
    /// requests fail, and a failure rate of 0.5 would open the circuit.
    ///
    /// A retry is known as such in two cases:
    ///
    /// - A `JitterRetryLayer`, `RetryPolicy::retry` or `RetryPolicy::retry_blocking` of the same
    ///   version is outside of the breaker, and nothing between them moves the call to another
    ///   task.
    /// - The permit is marked with [`Permit::retry`](crate::Permit::retry).
    ///
    /// All calls that a retried attempt makes on its task are retries, also the first attempts of
    /// an inner retry layer. These rules apply to them:
    ///
    /// - A failed retry counts in the metrics, and as a completed call for
    ///   [`CancelledPolicy::IfNoneCompletes`].
    /// - With `IfNoneCompletes`, a cancelled retry is a cancelled call like any other. With a
    ///   policy that makes it a failure, it is a failed retry.
    /// - A panic is a failure, so it does not count either.
    /// - A failed probe opens a half-open circuit again, also if it is a retry.
    ///
    /// Turn the setting on for a worker that makes few calls with many attempts.
    pub fn count_failed_retries(mut self, on: bool) -> Self {
        self.count_failed_retries = on;
        self
    }

    /// Sets how cancelled calls are counted.
    ///
    /// **Range**: the time of [`CancelledPolicy::FailureAfter`] is 1 ms to 365 days. **Default**:
    /// [`CancelledPolicy::IfNoneCompletes`].
    pub fn cancelled(mut self, policy: CancelledPolicy) -> Self {
        self.cancelled = policy;
        self
    }

    /// Sets how long the circuit stays open before it admits probes.
    ///
    /// **Range**: 1 ms to 365 days. **Default**: 3 s.
    ///
    /// The circuit becomes half-open at the first call, or readiness poll, after this time. It has
    /// no timer of its own: without calls and readiness polls, it stays in the state `Open`, with a
    /// [`retry_after`](crate::Status::retry_after) of zero.
    ///
    /// A longer `Retry-After` of the fault that opened the circuit lengthens the time: see
    /// [`max_retry_after`](Self::max_retry_after).
    pub fn open_for(mut self, time: Duration) -> Self {
        self.open_for = time;
        self
    }

    /// Sets how the open duration grows from one open period to the next.
    ///
    /// **Range**: `multiplier` 1 to 100, `max` from [`open_for`](Self::open_for) to 365 days.
    /// **Default**: off; every period lasts `open_for`. [`no_open_backoff`](Self::no_open_backoff)
    /// turns it off again.
    ///
    /// Each open period is `multiplier` times as long as the one before, up to `max`. The duration
    /// starts again at `open_for` when the circuit has stayed closed for as long as its last open
    /// period.
    pub fn open_backoff(mut self, multiplier: f64, max: Duration) -> Self {
        self.open_backoff = Some((multiplier, max));
        self
    }

    /// Turns off [`open_backoff`](Self::open_backoff): every open period lasts
    /// [`open_for`](Self::open_for).
    pub fn no_open_backoff(mut self) -> Self {
        self.open_backoff = None;
        self
    }

    /// Sets the largest share of an open period that jitter adds to it.
    ///
    /// **Range**: 0 to 1. **Default**: 0.5.
    ///
    /// The additional time is drawn evenly from zero to this share of the period. It prevents the
    /// circuits of a fleet from probing at the same time.
    pub fn open_jitter(mut self, share: f64) -> Self {
        self.open_jitter = share;
        self
    }

    /// Sets the longest delay that a server may ask for to lengthen an open period.
    ///
    /// **Range**: zero to 365 days; zero ignores the delays of servers. **Default**: 5 minutes.
    ///
    /// If the fault that opened the circuit has a `Retry-After` that is longer than the open time,
    /// the circuit stays open for that delay, and for the jitter in addition. A longer delay than
    /// this maximum counts as the maximum. A delay never shortens the open time.
    pub fn max_retry_after(mut self, delay: Duration) -> Self {
        self.max_retry_after = delay;
        self
    }

    /// Makes the jitter of open periods reproducible: all random numbers are derived from the seed.
    ///
    /// **Range**: any `u64`; `None` removes the seed. **Default**: no seed; the jitter differs from
    /// run to run.
    ///
    /// A circuit draws one random number each time that it opens. Each circuit has a stream of its
    /// own, which depends on the seed and on the circuit's position in this order:
    ///
    /// - A configuration and its clones share one sequence of streams. New circuits take the
    ///   streams in the order of their creation, whatever their name is.
    /// - A layer creates its circuit with the layer, and a registry creates a circuit at the first
    ///   use of its name. A keyed circuit is created by the first call with its key, also if the
    ///   key was evicted before.
    /// - A configuration that is built or read again starts the sequence from its beginning. So two
    ///   configurations that are built with the same seed have the same streams.
    /// - The overflow circuit of a keyed layer takes a stream at the first overflow. Two threads
    ///   that create a circuit of a registry by the same name at the same time may take two.
    ///
    /// A keyed circuit with a seed takes about 1 KB more memory from the start, which is allocated
    /// under the lock of the map.
    ///
    /// In production, use no seed, or another seed in each process. Otherwise the circuits of a
    /// fleet probe at the same time, although they have a jitter.
    pub fn seed(mut self, seed: impl Into<Option<u64>>) -> Self {
        self.seed = seed.into();
        self
    }

    /// Sets whether the circuit stays open until [`Circuit::reset`](crate::Circuit::reset).
    ///
    /// **Default**: off.
    ///
    /// If it is on, the circuit does not become half-open by itself. A health checker can make it
    /// half-open: see [`HealthReport::Recovered`](crate::HealthReport::Recovered).
    pub fn open_until_reset(mut self, on: bool) -> Self {
        self.open_until_reset = on;
        self
    }

    /// Sets how many probes a half-open circuit admits at the same time.
    ///
    /// **Range**: 1 to 10,000. **Default**: 1.
    pub fn probes(mut self, probes: u32) -> Self {
        self.probes = probes;
        self
    }

    /// Sets how many successful probes close a half-open circuit.
    ///
    /// **Range**: at least 1. **Default**: 2.
    ///
    /// The number can be larger than [`probes`](Self::probes): a probe that ends frees its slot for
    /// the next probe.
    pub fn successes_to_close(mut self, successes: u32) -> Self {
        self.successes_to_close = successes;
        self
    }

    /// Sets how long a probe holds its slot.
    ///
    /// **Range**: 1 ms to 365 days; `None` restores the default. **Default**: the value of
    /// [`open_for`](Self::open_for).
    ///
    /// When the lease ends, another call can take the slot. The probe is not cancelled: its outcome
    /// counts as long as the circuit is half-open.
    ///
    /// The lease also applies to the calls of a slow start by successes: see
    /// [`slow_start_successes`](Self::slow_start_successes).
    pub fn probe_lease(mut self, lease: impl Into<Option<Duration>>) -> Self {
        self.probe_lease = lease.into();
        self
    }

    /// Sets how long the share of admitted calls grows after the circuit has closed.
    ///
    /// **Range**: 1 ms to 365 days, or zero (off). **Default**: zero.
    ///
    /// It replaces [`slow_start_successes`](Self::slow_start_successes). Zero turns off both.
    ///
    /// The share grows evenly from no calls to all. The first call is always admitted. When the
    /// time is over, all calls are admitted, regardless of how many there were.
    ///
    /// The share is a share of calls that begin. These do not count:
    ///
    /// - a service that is polled for readiness and not called;
    /// - a permit that is cancelled.
    ///
    /// A service that is not ready while the circuit is open
    /// ([`not_ready_when_open`](crate::BreakerLayer)) counts once when it begins to wait. It counts
    /// again each time a sixteenth of the remaining time has passed.
    pub fn slow_start(mut self, time: Duration) -> Self {
        self.slow_start = SlowStartSetting::Time(time);
        self
    }

    /// Sets how many calls must succeed after the circuit has closed before it admits all calls.
    ///
    /// **Range**: 1 to 10,000. **Default**: off.
    ///
    /// It replaces [`slow_start`](Self::slow_start). Use it for clients with a backlog: workers
    /// that wait for the circuit, and that would all start at once when it closes. It limits the
    /// number of concurrent calls, as the slow start of TCP does:
    ///
    /// - After the circuit has closed by its probes, it admits one call at a time.
    /// - Each success raises the limit by one. So the limit doubles while one group of concurrent
    ///   calls succeeds.
    /// - After this number of successes, the slow start is over.
    ///
    /// A failed, [slow](Self::slow_call_rate), neutral or cancelled call frees its slot and does
    /// not raise the limit. The limits that open the circuit apply as usual.
    ///
    /// A call over the limit is rejected. Its `retry_after` is at most one second, because a slot
    /// may become free at any time. A service that is not ready while the circuit is open
    /// ([`not_ready_when_open`](crate::BreakerLayer)) waits. A slot that becomes free wakes all
    /// waiting services.
    ///
    /// A call holds its slot for at most the [`probe_lease`](Self::probe_lease). When the lease
    /// ends, another call can take the slot, so calls that never end cannot block the circuit. The
    /// call is not cancelled, and its success still raises the limit. If usual calls take longer
    /// than the lease, more calls than the limit run at the same time.
    ///
    /// There is no maximum time: without successes, the slow start does not end.
    ///
    /// In the slow start, each call takes a lock when it begins and when it ends.
    pub fn slow_start_successes(mut self, successes: u32) -> Self {
        self.slow_start = SlowStartSetting::Successes(successes);
        self
    }

    /// Sets the mode: whether the circuit rejects and counts calls.
    ///
    /// **Default**: [`Mode::Enforce`].
    pub fn mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }

    /// Sets the clock of the circuit.
    ///
    /// **Default**: [`Clock::coarse`]; for [`Circuit::reconfigure`](crate::Circuit::reconfigure),
    /// the circuit's current clock.
    ///
    /// If a configured duration is under 100 ms, the circuit reads [`Clock::precise`] instead of
    /// [`Clock::coarse`]. Both show the same time, so `reconfigure` can switch between them.
    ///
    /// Only a [`Clock::manual`] can run backwards. Until it has caught up, a time window does not
    /// advance: its newest bucket counts all calls. An open circuit and the lease of a probe last
    /// longer by the same amount.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = Some(clock);
        self
    }

    /// Validates all values and returns the configuration.
    ///
    /// # Errors
    ///
    /// Returns an error if a value is out of its range. It names the first such field, its value
    /// and the range.
    pub fn build(self) -> Result<BreakerConfig, ConfigError> {
        let time = |field, time| ConfigError::check(field, time, DURATIONS).map(nanos);
        let failures_span = self.consecutive_failures_span.unwrap_or(self.default_failures_span());
        let failures_span = match failures_span {
            Duration::ZERO => 0,
            span => time("consecutive_failures_span", span)?,
        };
        if let Some(rate) = self.failure_rate {
            ConfigError::check("failure_rate", rate, SHARES)?;
        }
        let window = match self.window {
            WindowSetting::Time(span) => WindowShape::Time(time("time_window", span)?),
            WindowSetting::Calls(calls) => {
                WindowShape::Count(ConfigError::check("count_window", calls, WINDOW_CALLS)?)
            }
        };
        let slow = match self.slow_call_rate {
            None => None,
            Some((threshold, rate)) => Some(SlowCallLimits {
                threshold: time("slow_call_rate", threshold)?,
                rate: ConfigError::check("slow_call_rate", rate, SHARES)?,
            }),
        };
        if let CancelledPolicy::FailureAfter(after) = self.cancelled {
            time("cancelled", after)?;
        }
        let minimum_calls = self.minimum_calls.unwrap_or(self.default_minimum_calls());
        match window {
            WindowShape::Time(_) => ConfigError::check("minimum_calls", minimum_calls, 1..=u32::MAX)?,
            WindowShape::Count(calls) => ConfigError::check("minimum_calls", minimum_calls, 1..=calls)
                .map_err(|error| error.because("count_window", calls))?,
        };
        let trip = TripLimits {
            consecutive_failures: ConfigError::check(
                "consecutive_failures",
                self.consecutive_failures,
                CONSECUTIVE_FAILURES,
            )?,
            consecutive_failures_span: failures_span,
            failure_rate: self.failure_rate,
            slow,
            minimum_calls,
            cancelled: self.cancelled,
        };
        let initial = time("open_for", self.open_for)?;
        let (multiplier, max) = match self.open_backoff {
            None => (1.0, initial),
            Some((multiplier, max)) => {
                ConfigError::check("open_backoff", multiplier, GROWTH)?;
                let max = ConfigError::check("open_backoff", max, self.open_for..=*DURATIONS.end())
                    .map_err(|error| error.because("open_for", self.open_for))?;
                (multiplier, nanos(max))
            }
        };
        let jitter = ConfigError::check("open_jitter", self.open_jitter, SHARES)?;
        let recovery = RecoveryLimits {
            open: OpenDuration {
                initial,
                multiplier,
                max,
                jitter,
                max_retry_after: nanos(ConfigError::check(
                    "max_retry_after",
                    self.max_retry_after,
                    RETRY_AFTER,
                )?),
                until_reset: self.open_until_reset,
            },
            probes: ConfigError::check("probes", self.probes, PROBES)?,
            successes_to_close: ConfigError::check(
                "successes_to_close",
                self.successes_to_close,
                1..=u32::MAX,
            )?,
            probe_lease: time("probe_lease", self.probe_lease.unwrap_or(self.open_for))?,
            slow_start: match self.slow_start {
                SlowStartSetting::Time(Duration::ZERO) => SlowStartKind::Off,
                SlowStartSetting::Time(span) => SlowStartKind::Time(time("slow_start", span)?),
                SlowStartSetting::Successes(successes) => SlowStartKind::Successes(ConfigError::check(
                    "slow_start_successes",
                    successes,
                    SLOW_START_SUCCESSES,
                )?),
            },
        };
        Ok(BreakerConfig {
            name: self.name.map(intern),
            trip,
            recovery,
            window,
            mode: self.mode,
            count_failed_retries: self.count_failed_retries,
            clock: self.clock,
            seeds: self.seed.map(Seeds::from),
        })
    }
}

impl BreakerConfig {
    /// Returns a builder with the defaults.
    pub fn builder() -> BreakerConfigBuilder {
        BreakerConfigBuilder::new()
    }

    /// Returns a builder for a worker that makes one call at a time.
    ///
    /// The figure [A worker](https://github.com/OWNER/tower-resilience-layers/blob/main/docs/simulations.md#a-worker)
    /// compares it with the default.
    ///
    /// | setting | value |
    /// |---|---|
    /// | `consecutive_failures_span` | zero: the failures of one call at a time span some time anyway |
    /// | `failure_rate` | `None`: only five failures in a row open the circuit |
    /// | `count_failed_retries` | on: each attempt of the few calls counts |
    /// | `open_until_reset` | on |
    /// | `probes` | 1 |
    /// | `successes_to_close` | 1 |
    ///
    /// All other settings have their defaults.
    ///
    /// A rate means little among so few calls. A batch job that stops keeps its results. It
    /// continues when an operator or a health check calls [`Circuit::reset`](crate::Circuit::reset)
    /// after the server has recovered.
    pub fn single_flight() -> BreakerConfigBuilder {
        Self::builder()
            .consecutive_failures_span(Duration::ZERO)
            .failure_rate(None)
            .count_failed_retries(true)
            .open_until_reset(true)
            .probes(1)
            .successes_to_close(1)
    }
}

impl Default for BreakerConfig {
    fn default() -> Self {
        let config = Self::builder().build();
        // A test checks that the defaults are in their ranges.
        config.unwrap_or_else(|error| unreachable!("the defaults are valid: {error}"))
    }
}

/// Converts a validated duration to nanoseconds. 365 days fit into a `u64` 500 times.
const fn nanos(duration: Duration) -> u64 {
    duration.as_nanos() as u64
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use super::*;

    fn build_error(builder: BreakerConfigBuilder) -> (&'static str, String) {
        let error = builder.build().expect_err("the value is out of range");
        (error.field(), error.to_string())
    }

    #[test]
    fn defaults_are_valid_and_as_documented() {
        let config = BreakerConfig::default();
        assert_eq!(config, BreakerConfig::builder().build().unwrap());
        let trip = TripLimits {
            consecutive_failures: 5,
            consecutive_failures_span: 1_000_000_000,
            failure_rate: Some(0.5),
            slow: None,
            minimum_calls: 20,
            cancelled: CancelledPolicy::IfNoneCompletes,
        };
        assert_eq!((config.name(), config.trip), ("breaker", trip));
        let three_seconds = 3_000_000_000;
        let recovery = RecoveryLimits {
            open: OpenDuration { jitter: 0.5, ..OpenDuration::constant(three_seconds) },
            probes: 1,
            successes_to_close: 2,
            probe_lease: three_seconds,
            slow_start: SlowStartKind::Off,
        };
        assert_eq!((config.recovery, config.window), (recovery, WindowShape::Time(10_000_000_000)));
        assert_eq!((config.mode, config.seed()), (Mode::Enforce, None));
        assert!(!config.count_failed_retries());
        assert_eq!((config.clock(), config.fitted_clock()), (None, Clock::coarse()));
    }

    #[test]
    fn build_error_names_field_value_and_range() {
        let config = BreakerConfig::builder;
        let century = Duration::from_secs(100 * 365 * 24 * 60 * 60);
        for rate in [-0.1, 1.000_001, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let (field, text) = build_error(config().failure_rate(rate));
            assert_eq!(field, "failure_rate");
            assert_eq!(text, format!("`failure_rate` is {rate:?}; allowed is 0.0 to 1.0"));
        }
        for duration in [Duration::ZERO, Duration::from_nanos(999_999), century, Duration::MAX] {
            assert_eq!(build_error(config().time_window(duration)).0, "time_window");
            assert_eq!(build_error(config().open_for(duration)).0, "open_for");
            assert_eq!(build_error(config().probe_lease(duration)).0, "probe_lease");
            assert_eq!(build_error(config().slow_call_rate(duration, 0.5)).0, "slow_call_rate");
            let cancelled = CancelledPolicy::FailureAfter(duration);
            assert_eq!(build_error(config().cancelled(cancelled)).0, "cancelled");
            if !duration.is_zero() {
                assert_eq!(build_error(config().slow_start(duration)).0, "slow_start");
                let (field, text) = build_error(config().consecutive_failures_span(duration));
                assert_eq!(field, "consecutive_failures_span");
                let range = format!("`{field}` is {duration:?}; allowed is 1ms to 31536000s");
                assert_eq!(text, range);
            }
        }
        assert_eq!(build_error(config().slow_call_rate(Duration::from_secs(1), 1.1)).0, "slow_call_rate");
        let minute = Duration::from_secs(60);
        for multiplier in [0.9, 101.0, f64::NAN] {
            assert_eq!(build_error(config().open_backoff(multiplier, minute)).0, "open_backoff");
        }
        let (field, text) = build_error(config().open_backoff(2.0, Duration::from_secs(2)));
        assert_eq!(
            (field, &*text),
            ("open_backoff", "`open_backoff` is 2s; allowed is 3s to 31536000s, because `open_for` is 3s")
        );
        assert_eq!(build_error(config().open_jitter(1.5)).0, "open_jitter");
        let (field, text) = build_error(config().max_retry_after(century));
        assert_eq!(field, "max_retry_after");
        assert_eq!(text, format!("`max_retry_after` is {century:?}; allowed is 0ns to 31536000s"));
        assert_eq!(build_error(config().count_window(0)).0, "count_window");
        assert_eq!(build_error(config().count_window(1_000_001)).0, "count_window");
        assert_eq!(build_error(config().minimum_calls(0)).0, "minimum_calls");
        let (field, text) = build_error(config().count_window(20).minimum_calls(21));
        assert_eq!(
            (field, &*text),
            ("minimum_calls", "`minimum_calls` is 21; allowed is 1 to 20, because `count_window` is 20")
        );
        assert_eq!(build_error(config().probes(0)).0, "probes");
        assert_eq!(build_error(config().probes(10_001)).0, "probes");
        assert_eq!(build_error(config().successes_to_close(0)).0, "successes_to_close");
        assert_eq!(build_error(config().slow_start_successes(0)).0, "slow_start_successes");
        let (field, text) = build_error(config().slow_start_successes(10_001));
        assert_eq!(
            (field, &*text),
            ("slow_start_successes", "`slow_start_successes` is 10001; allowed is 1 to 10000")
        );
    }

    #[test]
    fn build_accepts_edges_of_ranges() {
        for duration in [*DURATIONS.start(), *DURATIONS.end()] {
            let config =
                BreakerConfig::builder().time_window(duration).open_for(duration).probe_lease(duration);
            let config = config.consecutive_failures_span(duration).build().unwrap();
            assert_eq!(config.consecutive_failures_span(), duration);
        }
        for delay in [*RETRY_AFTER.start(), *RETRY_AFTER.end()] {
            let config = BreakerConfig::builder().max_retry_after(delay).build().unwrap();
            assert_eq!(config.max_retry_after(), delay);
        }
        for rate in [0.0, 1.0] {
            assert!(BreakerConfig::builder().failure_rate(rate).build().is_ok());
        }
        let smallest = BreakerConfig::builder().count_window(1).probes(1).successes_to_close(u32::MAX);
        assert_eq!(smallest.build().unwrap().trip.minimum_calls, 1);
        let off = BreakerConfig::builder().failure_rate(None).consecutive_failures(0);
        assert!(off.build().is_ok());
    }

    #[test]
    fn last_kind_of_slow_start_replaces_the_other() {
        let slow_start = |builder: BreakerConfigBuilder| builder.build().unwrap().recovery.slow_start;
        let by_time = BreakerConfig::builder().slow_start(Duration::from_secs(5));
        assert_eq!(slow_start(by_time.clone()), SlowStartKind::Time(5_000_000_000));
        let by_successes = by_time.slow_start_successes(10_000);
        assert_eq!(slow_start(by_successes.clone()), SlowStartKind::Successes(10_000));
        assert_eq!(slow_start(by_successes.slow_start(Duration::ZERO)), SlowStartKind::Off);
    }

    #[test]
    fn unset_values_have_their_defaults_again() {
        let minute = Duration::from_secs(60);
        let all_set = BreakerConfig::builder()
            .slow_call_rate(minute, 0.5)
            .minimum_calls(3)
            .open_backoff(2.0, minute)
            .seed(7)
            .open_until_reset(true)
            .probe_lease(minute)
            .slow_start_successes(5);
        let unset = all_set
            .no_slow_call_rate()
            .minimum_calls(None)
            .no_open_backoff()
            .seed(None)
            .open_until_reset(false)
            .probe_lease(None)
            .slow_start(Duration::ZERO);
        assert_eq!(unset.build().unwrap(), BreakerConfig::default());
    }

    #[test]
    fn preset_builds() {
        let single_flight = BreakerConfig::single_flight().build().unwrap();
        assert!(single_flight.recovery.open.until_reset && single_flight.trip.failure_rate.is_none());
        assert_eq!(single_flight.trip.consecutive_failures_span, 0);
        assert!(single_flight.count_failed_retries);
    }

    #[test]
    fn docs_of_consecutive_failures_match_formula() {
        let (p, k) = (0.2_f64, 5);
        let calls = (p.powi(-k) - 1.0) / (1.0 - p);
        assert!((calls - 3_905.0).abs() < 0.5, "{calls}");
    }

    #[test]
    fn short_times_select_the_precise_clock() {
        let config = BreakerConfig::builder;
        let short = Duration::from_millis(99);
        let builders = [
            config().consecutive_failures_span(short),
            config().time_window(short),
            config().slow_call_rate(short, 0.5),
            config().cancelled(CancelledPolicy::FailureAfter(short)),
            config().open_for(short),
            config().probe_lease(short),
            config().slow_start(short),
        ];
        for builder in builders {
            assert_eq!(builder.clone().build().unwrap().fitted_clock(), Clock::precise(), "{builder:?}");
            let (manual, _manual_clock) = Clock::manual();
            assert_eq!(builder.clock(manual).build().unwrap().fitted_clock(), manual);
        }
    }
}
