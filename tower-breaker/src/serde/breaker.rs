//! The settings of a circuit breaker in a file.

use std::ops::RangeInclusive;
use std::time::Duration;

use tower_fault_classify::__internals::settings::{
    Bool, Choice, DurationIn, DurationOrZero, Either, Float, Integer, Invalid, Nested, OneOf, OrNone,
    Presets, Seed, Table, Text, Visit,
};

use crate::config::{
    BreakerConfig, BreakerConfigBuilder, CONSECUTIVE_FAILURES, CancelledPolicy, DURATIONS, GROWTH, Mode,
    PROBES, RETRY_AFTER, SHARES, SLOW_START_SUCCESSES, WINDOW_CALLS,
};

pub(super) const MODES: Choice<Mode> = Choice(&[
    (Mode::Enforce.as_str(), Mode::Enforce),
    (Mode::ObserveOnly.as_str(), Mode::ObserveOnly),
    (Mode::Disabled.as_str(), Mode::Disabled),
]);

pub(super) const AT_LEAST_ONE: RangeInclusive<u32> = 1..=u32::MAX;

/// The table of a configuration.
pub(super) struct Breaker;

impl Table for Breaker {
    type Builder = BreakerConfigBuilder;
    type Value = BreakerConfig;

    fn allowed(&self) -> String {
        "a table with the settings of a circuit breaker".to_owned()
    }

    fn start(&self) -> BreakerConfigBuilder {
        BreakerConfig::builder()
    }

    fn presets(&self) -> Presets<BreakerConfigBuilder> {
        &[("single_flight", BreakerConfig::single_flight)]
    }

    fn exclusive(&self) -> &'static [[&'static str; 2]] {
        &[["time_window", "count_window"], ["slow_start", "slow_start_successes"]]
    }

    fn visit(&self, to: &mut impl Visit<BreakerConfigBuilder>) {
        to.setting(
            "name",
            "name in rejections, logs, metrics and the status. A file without it keeps the name of a circuit that runs",
            Text,
            BreakerConfigBuilder::name,
        );
        visit_trip_limits(to);
        visit_recovery_limits(to);
        to.setting(
            "mode",
            "`observe_only` changes its state and rejects no call; `disabled` counts nothing",
            MODES,
            BreakerConfigBuilder::mode,
        );
    }

    fn build(&self, builder: BreakerConfigBuilder) -> Result<BreakerConfig, Invalid> {
        Ok(builder.build()?)
    }
}

/// Visits the settings that decide when a closed circuit opens.
fn visit_trip_limits(to: &mut impl Visit<BreakerConfigBuilder>) {
    to.setting(
        "consecutive_failures",
        "opens after this number of failures without a success in between, if they span the next setting; 0 turns it off",
        OrNone(Integer(CONSECUTIVE_FAILURES)),
        |builder, failures| builder.consecutive_failures(failures.unwrap_or(0)),
    );
    to.setting(
        "consecutive_failures_span",
        "time that the consecutive failures must span: the failure that opens comes at least this long after the first one. If `consecutive_failures` is 1, the default is `\"none\"`",
        OrNone(DurationOrZero(DURATIONS)),
        |builder, span| builder.consecutive_failures_span(span.unwrap_or_default()),
    );
    to.setting(
        "failure_rate",
        "opens if at least this share of the calls in the window failed",
        OrNone(Float(SHARES)),
        BreakerConfigBuilder::failure_rate,
    );
    to.setting(
        "slow_call_rate",
        "opens if at least the share `rate` of the calls in the window took `threshold` or longer",
        OrNone(Nested(SlowCallRate)),
        |builder, slow| match slow {
            Some((threshold, rate)) => builder.slow_call_rate(threshold, rate),
            None => builder.no_slow_call_rate(),
        },
    );
    to.setting(
        "minimum_calls",
        "number of calls that the window must hold before the rates can open the circuit. With a `count_window`: at most its size, which is also the default if it is below 20",
        Integer(AT_LEAST_ONE),
        BreakerConfigBuilder::minimum_calls,
    );
    to.setting(
        "time_window",
        "window of the rates: the calls of this time",
        DurationIn(DURATIONS),
        BreakerConfigBuilder::time_window,
    );
    to.setting(
        "count_window",
        "window of the rates: this number of calls, in place of `time_window`. A call that is not a fast success then takes a lock",
        Integer(WINDOW_CALLS),
        BreakerConfigBuilder::count_window,
    );
    to.setting(
        "count_failed_retries",
        "whether a closed circuit counts the failures of retries: see [what the breaker counts](https://github.com/OWNER/tower-resilience-layers/blob/main/docs/layer-order.md#what-the-breaker-counts-below-a-retry)",
        Bool,
        BreakerConfigBuilder::count_failed_retries,
    );
    to.setting(
        "cancelled",
        "how dropped calls are counted. By default they are ignored, unless ten calls (or `minimum_calls`, if that is smaller) were cancelled since the last completed call, over at least 1 s. `failure_after`: a failure if the call ran at least this long",
        Either(CANCELLED, OneOf(FailureAfter)),
        BreakerConfigBuilder::cancelled,
    );
}

/// Visits the settings that decide how an open circuit closes.
fn visit_recovery_limits(to: &mut impl Visit<BreakerConfigBuilder>) {
    to.setting(
        "open_for",
        "open time, before the first probe. A longer `Retry-After` of the server, of up to `max_retry_after`, replaces it. The jitter is added to either",
        DurationIn(DURATIONS),
        BreakerConfigBuilder::open_for,
    );
    to.setting(
        "open_backoff",
        "each open time is `multiplier` times as long as the one before, up to `max`, which is at least `open_for`",
        OrNone(Nested(OpenBackoff)),
        |builder, backoff| match backoff {
            Some((multiplier, max)) => builder.open_backoff(multiplier, max),
            None => builder.no_open_backoff(),
        },
    );
    to.setting(
        "open_jitter",
        "adds up to this share to each open time, at random. With the default, a circuit is open for 3 s to 4.5 s",
        OrNone(Float(SHARES)),
        |builder, share| builder.open_jitter(share.unwrap_or(0.0)),
    );
    to.setting(
        "max_retry_after",
        "longest delay of a server that lengthens the open time. A longer one counts as this one; `\"0s\"` ignores them",
        DurationIn(RETRY_AFTER),
        BreakerConfigBuilder::max_retry_after,
    );
    to.setting(
        "seed",
        "makes the random times of `open_jitter` reproducible. Each circuit of a configuration has its own; those of two tables with the same seed have the same: see [seeds](https://github.com/OWNER/tower-resilience-layers/blob/main/docs/testing.md#seeds)",
        OrNone(Seed),
        BreakerConfigBuilder::seed,
    );
    to.setting(
        "open_until_reset",
        "stays open until `Circuit::reset`",
        Bool,
        BreakerConfigBuilder::open_until_reset,
    );
    to.setting(
        "probes",
        "number of concurrent calls that a half-open circuit admits",
        Integer(PROBES),
        BreakerConfigBuilder::probes,
    );
    to.setting(
        "successes_to_close",
        "number of successful probes that closes the circuit",
        Integer(AT_LEAST_ONE),
        BreakerConfigBuilder::successes_to_close,
    );
    to.setting(
        "probe_lease",
        "time after which a running probe, or a running call of `slow_start_successes`, frees its slot for another. The default is `open_for`",
        DurationIn(DURATIONS),
        BreakerConfigBuilder::probe_lease,
    );
    to.setting(
        "slow_start",
        "time over which a circuit that has closed admits a growing share of the calls",
        OrNone(DurationOrZero(DURATIONS)),
        |builder, time| builder.slow_start(time.unwrap_or_default()),
    );
    to.setting(
        "slow_start_successes",
        "slow start by successes, in place of `slow_start`: see [slow start](https://github.com/OWNER/tower-resilience-layers/blob/main/docs/configuration.md#slow-start)",
        Integer(SLOW_START_SUCCESSES),
        BreakerConfigBuilder::slow_start_successes,
    );
}

/// The table of `slow_call_rate`.
struct SlowCallRate;

impl Table for SlowCallRate {
    type Builder = (Duration, f64);
    type Value = (Duration, f64);

    fn allowed(&self) -> String {
        "a table such as { threshold = \"2s\", rate = 0.8 }".to_owned()
    }

    fn start(&self) -> (Duration, f64) {
        // Both are required.
        Default::default()
    }

    fn visit(&self, to: &mut impl Visit<(Duration, f64)>) {
        to.required(
            "threshold",
            "a call that takes this time or longer is slow",
            DurationIn(DURATIONS),
            |(_, rate), threshold| (threshold, rate),
        );
        to.required(
            "rate",
            "share of slow calls that opens the circuit",
            Float(SHARES),
            |(threshold, _), rate| (threshold, rate),
        );
    }

    fn build(&self, slow: (Duration, f64)) -> Result<(Duration, f64), Invalid> {
        Ok(slow)
    }
}

/// The table of `open_backoff`.
struct OpenBackoff;

impl Table for OpenBackoff {
    type Builder = (f64, Duration);
    type Value = (f64, Duration);

    fn allowed(&self) -> String {
        "a table such as { multiplier = 2.0, max = \"10m\" }".to_owned()
    }

    fn start(&self) -> (f64, Duration) {
        // Both are required.
        Default::default()
    }

    fn visit(&self, to: &mut impl Visit<(f64, Duration)>) {
        to.required(
            "multiplier",
            "factor by which each open time is longer than the one before",
            Float(GROWTH),
            |(_, max), multiplier| (multiplier, max),
        );
        to.required("max", "longest open time", DurationIn(DURATIONS), |(multiplier, _), max| {
            (multiplier, max)
        });
    }

    fn build(&self, backoff: (f64, Duration)) -> Result<(f64, Duration), Invalid> {
        Ok(backoff)
    }
}

pub(super) const CANCELLED: Choice<CancelledPolicy> = Choice(&[
    ("if_none_completes", CancelledPolicy::IfNoneCompletes),
    ("ignore", CancelledPolicy::Ignore),
    ("failure", CancelledPolicy::Failure),
]);

/// The table of `cancelled`.
struct FailureAfter;

impl Table for FailureAfter {
    type Builder = CancelledPolicy;
    type Value = CancelledPolicy;

    fn allowed(&self) -> String {
        "a table such as { failure_after = \"5s\" }".to_owned()
    }

    fn start(&self) -> CancelledPolicy {
        CancelledPolicy::default()
    }

    fn visit(&self, to: &mut impl Visit<CancelledPolicy>) {
        to.setting(
            "failure_after",
            "a cancelled call that ran at least this long is a failure",
            DurationIn(DURATIONS),
            |_, time| CancelledPolicy::FailureAfter(time),
        );
    }

    fn build(&self, policy: CancelledPolicy) -> Result<CancelledPolicy, Invalid> {
        Ok(policy)
    }
}
