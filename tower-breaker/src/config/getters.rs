//! The getters of a configuration, named like the setters, and the way back to a builder.

use std::time::Duration;

use tower_fault_classify::__internals::Clock;

use super::{BreakerConfig, BreakerConfigBuilder, CancelledPolicy, Mode};
use crate::machine::{SlowStartKind, WindowShape};
use crate::rng::Seeds;

/// Each getter has the name of its [setter](BreakerConfigBuilder), which documents it.
impl BreakerConfig {
    /// Returns a builder with these values, the clock included. A name or a clock that is not set
    /// stays unset.
    ///
    /// If this configuration has a [`seed`](BreakerConfigBuilder::seed), the new configuration starts
    /// the seed's sequence from its beginning.
    ///
    /// Two defaults depend on other settings, and are derived again:
    ///
    /// - The probe lease follows [`open_for`](BreakerConfigBuilder::open_for) if the two are equal.
    /// - [`minimum_calls`](BreakerConfigBuilder::minimum_calls) follows the count window if it has
    ///   its default.
    /// - [`consecutive_failures_span`](BreakerConfigBuilder::consecutive_failures_span) follows
    ///   `consecutive_failures` if it has its default.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tower_breaker::BreakerConfig;
    ///
    /// let config = BreakerConfig::builder().name("search").open_for(Duration::from_secs(5)).build()?;
    /// let patient = config.to_builder().failure_rate(0.8).build()?;
    /// assert_eq!(patient.open_for(), Duration::from_secs(5));
    /// # Ok::<(), tower_breaker::ConfigError>(())
    /// ```
    pub fn to_builder(&self) -> BreakerConfigBuilder {
        let mut builder = Self::builder()
            .consecutive_failures(self.consecutive_failures())
            .failure_rate(self.failure_rate())
            .count_failed_retries(self.count_failed_retries())
            .cancelled(self.cancelled())
            .open_for(self.open_for())
            .open_jitter(self.open_jitter())
            .max_retry_after(self.max_retry_after())
            .probes(self.probes())
            .successes_to_close(self.successes_to_close())
            .open_until_reset(self.open_until_reset())
            .seed(self.seed())
            .mode(self.mode());
        if let Some((threshold, rate)) = self.slow_call_rate() {
            builder = builder.slow_call_rate(threshold, rate);
        }
        builder = match self.window {
            WindowShape::Time(span) => builder.time_window(Duration::from_nanos(span)),
            WindowShape::Count(calls) => builder.count_window(calls),
        };
        builder = match self.slow_start_successes() {
            Some(successes) => builder.slow_start_successes(successes),
            None => builder.slow_start(self.slow_start()),
        };
        if self.consecutive_failures_span() != builder.default_failures_span() {
            builder = builder.consecutive_failures_span(self.consecutive_failures_span());
        }
        if self.minimum_calls() != builder.default_minimum_calls() {
            builder = builder.minimum_calls(self.minimum_calls());
        }
        if let Some((multiplier, max)) = self.open_backoff() {
            builder = builder.open_backoff(multiplier, max);
        }
        if self.probe_lease() != self.open_for() {
            builder = builder.probe_lease(self.probe_lease());
        }
        if let Some(name) = self.name {
            builder = builder.name(name);
        }
        match self.clock() {
            Some(clock) => builder.clock(clock),
            None => builder,
        }
    }

    /// Returns the number of failures in a row that opens the circuit; 0 if the limit is off.
    pub const fn consecutive_failures(&self) -> u32 {
        self.trip.consecutive_failures
    }

    /// Returns the time that the failures in a row must span; zero if it is off.
    pub const fn consecutive_failures_span(&self) -> Duration {
        Duration::from_nanos(self.trip.consecutive_failures_span)
    }

    /// Returns the share of failed calls that opens the circuit; `None` if the limit is off.
    pub const fn failure_rate(&self) -> Option<f64> {
        self.trip.failure_rate
    }

    /// Returns the slow-call threshold and the share of slow calls that opens the circuit.
    ///
    /// `None`: the limit is off, and no call is slow.
    pub fn slow_call_rate(&self) -> Option<(Duration, f64)> {
        self.trip.slow.map(|slow| (Duration::from_nanos(slow.threshold), slow.rate))
    }

    /// Returns how many calls the window must hold before the rates apply.
    pub const fn minimum_calls(&self) -> u32 {
        self.trip.minimum_calls
    }

    /// Returns the span of the time window; `None` if the window is a count window.
    pub const fn time_window(&self) -> Option<Duration> {
        match self.window {
            WindowShape::Time(span) => Some(Duration::from_nanos(span)),
            WindowShape::Count(_) => None,
        }
    }

    /// Returns the size of the count window; `None` if the window is a time window.
    pub const fn count_window(&self) -> Option<u32> {
        match self.window {
            WindowShape::Time(_) => None,
            WindowShape::Count(calls) => Some(calls),
        }
    }

    /// Returns how cancelled calls are counted.
    pub const fn cancelled(&self) -> CancelledPolicy {
        self.trip.cancelled
    }

    /// Returns how long the circuit stays open, before backoff and jitter.
    pub const fn open_for(&self) -> Duration {
        Duration::from_nanos(self.recovery.open.initial)
    }

    /// Returns the multiplier and the maximum of growing open durations.
    ///
    /// `None`: they do not grow.
    pub fn open_backoff(&self) -> Option<(f64, Duration)> {
        let open = &self.recovery.open;
        let grows = open.multiplier > 1.0 || open.max > open.initial;
        grows.then(|| (open.multiplier, Duration::from_nanos(open.max)))
    }

    /// Returns the largest share of an open duration that jitter adds.
    pub const fn open_jitter(&self) -> f64 {
        self.recovery.open.jitter
    }

    /// Returns the longest delay of a server that lengthens an open duration; zero if none does.
    pub const fn max_retry_after(&self) -> Duration {
        Duration::from_nanos(self.recovery.open.max_retry_after)
    }

    /// Returns the seed of the jitter, or `None` if the jitter is not reproducible.
    pub fn seed(&self) -> Option<u64> {
        self.seeds.as_ref().map(Seeds::first)
    }

    /// Returns whether the circuit stays open until it is reset.
    pub const fn open_until_reset(&self) -> bool {
        self.recovery.open.until_reset
    }

    /// Returns how many probes may run at the same time.
    pub const fn probes(&self) -> u32 {
        self.recovery.probes
    }

    /// Returns how many probes must succeed to close the circuit.
    pub const fn successes_to_close(&self) -> u32 {
        self.recovery.successes_to_close
    }

    /// Returns how long a probe, or a call in a slow start by successes, holds its slot.
    pub const fn probe_lease(&self) -> Duration {
        Duration::from_nanos(self.recovery.probe_lease)
    }

    /// Returns the duration of the slow start; zero if there is none, or if it is by successes.
    pub const fn slow_start(&self) -> Duration {
        match self.recovery.slow_start {
            SlowStartKind::Time(span) => Duration::from_nanos(span),
            SlowStartKind::Off | SlowStartKind::Successes(_) => Duration::ZERO,
        }
    }

    /// Returns how many successes end the slow start; `None` if there is none, or if it is by time.
    pub const fn slow_start_successes(&self) -> Option<u32> {
        match self.recovery.slow_start {
            SlowStartKind::Successes(successes) => Some(successes),
            SlowStartKind::Off | SlowStartKind::Time(_) => None,
        }
    }

    /// Returns whether a closed circuit counts the failures of retries.
    pub const fn count_failed_retries(&self) -> bool {
        self.count_failed_retries
    }

    /// Returns the mode: whether the circuit rejects and counts calls.
    pub const fn mode(&self) -> Mode {
        self.mode
    }

    /// Returns the clock that was set.
    ///
    /// `None`: the circuit reads the default clock. For
    /// [`Circuit::reconfigure`](crate::Circuit::reconfigure), the circuit keeps its current clock.
    pub const fn clock(&self) -> Option<Clock> {
        self.clock
    }
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use super::*;

    #[test]
    fn getters_return_values_of_setters() {
        let second = Duration::from_secs(1);
        let config = BreakerConfig::builder()
            .name("search")
            .consecutive_failures(7)
            .consecutive_failures_span(3 * second)
            .failure_rate(0.25)
            .slow_call_rate(2 * second, 0.75)
            .minimum_calls(3)
            .count_window(50)
            .cancelled(CancelledPolicy::FailureAfter(4 * second))
            .open_for(5 * second)
            .open_backoff(2.0, 60 * second)
            .open_jitter(0.125)
            .max_retry_after(13 * second)
            .seed(11)
            .open_until_reset(true)
            .probes(6)
            .successes_to_close(8)
            .probe_lease(9 * second)
            .slow_start(10 * second)
            .count_failed_retries(true)
            .mode(Mode::ObserveOnly)
            .build()
            .unwrap();
        assert_eq!((config.name(), config.consecutive_failures()), ("search", 7));
        assert_eq!(config.consecutive_failures_span(), 3 * second);
        assert_eq!(config.failure_rate(), Some(0.25));
        assert_eq!(config.slow_call_rate(), Some((2 * second, 0.75)));
        assert_eq!(
            (config.minimum_calls(), config.count_window(), config.time_window()),
            (3, Some(50), None)
        );
        assert_eq!(config.cancelled(), CancelledPolicy::FailureAfter(4 * second));
        assert_eq!((config.open_for(), config.open_backoff()), (5 * second, Some((2.0, 60 * second))));
        assert_eq!((config.open_jitter().to_bits(), config.open_until_reset()), (0.125_f64.to_bits(), true));
        assert_eq!((config.max_retry_after(), config.seed()), (13 * second, Some(11)));
        assert_eq!((config.probes(), config.successes_to_close()), (6, 8));
        assert_eq!((config.probe_lease(), config.slow_start()), (9 * second, 10 * second));
        assert_eq!(config.slow_start_successes(), None);
        assert!(config.count_failed_retries());
        assert_eq!(config.mode(), Mode::ObserveOnly);
        assert_eq!(config.clock(), None);
        assert_eq!(config.to_builder().build().unwrap(), config);
        let by_successes = config.to_builder().slow_start_successes(12).build().unwrap();
        assert_eq!(
            (by_successes.slow_start(), by_successes.slow_start_successes()),
            (Duration::ZERO, Some(12))
        );
        assert_eq!(by_successes.to_builder().build().unwrap(), by_successes);
    }

    #[test]
    fn clock_getter_returns_configured_clock_with_short_times() {
        let short = BreakerConfig::builder().open_for(Duration::from_millis(9));
        let config = short.clone().clock(Clock::coarse()).build().unwrap();
        assert_eq!((config.clock(), config.fitted_clock()), (Some(Clock::coarse()), Clock::precise()));
        let long = config.to_builder().open_for(Duration::from_secs(9)).build().unwrap();
        assert_eq!((long.clock(), long.fitted_clock()), (Some(Clock::coarse()), Clock::coarse()));
        assert_eq!(short.build().unwrap().to_builder().build().unwrap().clock(), None);
    }

    #[test]
    fn to_builder_keeps_presets_and_clock() {
        for builder in [
            BreakerConfig::builder(),
            BreakerConfig::single_flight(),
            BreakerConfig::builder().clock(Clock::precise()).mode(Mode::Disabled),
        ] {
            let config = builder.build().unwrap();
            assert_eq!(config.to_builder().build().unwrap(), config);
        }
    }

    #[test]
    fn to_builder_derives_defaults_again() {
        let config = BreakerConfig::default().to_builder().count_window(4).build().unwrap();
        assert_eq!(config.minimum_calls(), 4);
        let minute = Duration::from_secs(60);
        let config = BreakerConfig::default().to_builder().open_for(minute).build().unwrap();
        assert_eq!(config.probe_lease(), minute);
        let span = |failures| {
            let config = BreakerConfig::default().to_builder().consecutive_failures(failures);
            config.build().unwrap().consecutive_failures_span()
        };
        assert_eq!([1, 2, 0].map(span), [Duration::ZERO, Duration::from_secs(1), Duration::from_secs(1)]);
        let one = BreakerConfig::builder().consecutive_failures(1).consecutive_failures_span(minute);
        assert_eq!(one.build().unwrap().to_builder().build().unwrap().consecutive_failures_span(), minute);
    }
}
