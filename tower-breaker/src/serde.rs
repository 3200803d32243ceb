//! Serialization: configurations in files, statuses, transitions and snapshots.
//!
//! The fields of a configuration have the names of the setters, and its durations are strings such
//! as `"1m 30s"`. A status, a transition and a snapshot contain durations as seconds, in fields
//! whose names end in `_seconds`.

#![expect(clippy::ref_option, reason = "serde passes a field as a reference")]

mod breaker;
#[cfg(feature = "keyed")]
mod keyed;
pub(crate) mod snapshot;

#[cfg(feature = "schemars")]
use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use ::serde::ser::{SerializeMap, SerializeStruct};
use ::serde::{Deserialize, Deserializer, Serialize, Serializer};
#[cfg(feature = "schemars")]
use tower_fault_classify::__internals::settings::TableSchema;
use tower_fault_classify::__internals::settings::{HumanDuration, Nested, OrNone, WrittenSeed, read_table};
use tower_fault_classify::Fault;

use self::breaker::{Breaker, CANCELLED, MODES};
#[cfg(feature = "schemars")]
use crate::config::DEFAULT_NAME;
use crate::config::{BreakerConfig, CancelledPolicy};
use crate::machine::{OpenDuration, RecoveryLimits, SlowCallLimits, SlowStartKind, TripLimits, WindowShape};

/// Writes a duration as a number of seconds. The field's name ends in `_seconds`.
pub(crate) fn seconds<S: Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_f64(duration.as_secs_f64())
}

/// Writes an optional duration as a number of seconds.
pub(crate) fn optional_seconds<S: Serializer>(duration: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
    duration.map(|duration| duration.as_secs_f64()).serialize(to)
}

/// Writes a wall-clock time in the format of RFC 3339.
pub(crate) fn time<S: Serializer>(time: &SystemTime, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&humantime::format_rfc3339_millis(with_four_digits(*time)))
}

/// Limits a time to the years 1970 to 9999, outside of which `humantime` panics.
fn with_four_digits(time: SystemTime) -> SystemTime {
    const LAST: Duration = Duration::from_secs(253_402_300_799);
    SystemTime::UNIX_EPOCH + time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().min(LAST)
}

/// Writes a fault as its axes.
pub(crate) fn one_fault<S: Serializer>(fault: &Fault, to: S) -> Result<S::Ok, S::Error> {
    let mut axes = to.serialize_struct("Fault", 5)?;
    axes.serialize_field("kind", fault.kind().as_str())?;
    axes.serialize_field("retryable", fault.retryable().as_str())?;
    axes.serialize_field("health", fault.health().as_str())?;
    axes.serialize_field("origin", fault.origin().as_str())?;
    axes.serialize_field("retry_after_seconds", &fault.retry_after().map(|delay| delay.as_secs_f64()))?;
    axes.end()
}

/// Writes an optional fault.
pub(crate) fn fault<S: Serializer>(fault: &Option<Fault>, to: S) -> Result<S::Ok, S::Error> {
    struct Axes<'a>(&'a Fault);

    impl Serialize for Axes<'_> {
        fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
            one_fault(self.0, to)
        }
    }

    fault.as_ref().map(Axes).serialize(to)
}

#[cfg(feature = "schemars")]
impl schemars::JsonSchema for BreakerConfig {
    fn schema_name() -> Cow<'static, str> {
        "BreakerConfig".into()
    }

    fn schema_id() -> Cow<'static, str> {
        "tower_breaker::BreakerConfig".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        TableSchema::new(&Breaker, "The settings of a circuit breaker.")
            .with_defaults(&Self::default().named(DEFAULT_NAME))
            .into()
    }
}

impl<'de> Deserialize<'de> for BreakerConfig {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        read_table(Nested(Breaker), from)
    }
}

/// Writes all settings except the clock, so that reading them again gives the same configuration
/// and nothing depends on a default. A name that is not set is not written.
impl Serialize for BreakerConfig {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        // Destructured, so that a new setting does not compile until it is written.
        let Self { name, trip, recovery, window, mode, count_failed_retries, clock: _, seeds } = self;
        let TripLimits {
            consecutive_failures,
            consecutive_failures_span,
            failure_rate,
            slow,
            minimum_calls,
            cancelled,
        } = *trip;
        let RecoveryLimits { open, probes, successes_to_close, probe_lease, slow_start } = *recovery;
        let OpenDuration { initial, multiplier, max, jitter, max_retry_after, until_reset } = open;
        let slow = slow.map(|SlowCallLimits { threshold, rate }| WrittenSlowCallRate {
            threshold: human(threshold),
            rate,
        });
        let open_backoff =
            (multiplier > 1.0 || max > initial).then(|| WrittenOpenBackoff { multiplier, max: human(max) });
        let seed = seeds.as_ref().map(|seeds| WrittenSeed(seeds.first()));
        let mut table = to.serialize_map(None)?;
        if let Some(name) = name {
            table.serialize_entry("name", name)?;
        }
        table.serialize_entry("consecutive_failures", &consecutive_failures)?;
        table.serialize_entry("consecutive_failures_span", &human(consecutive_failures_span))?;
        table.serialize_entry("failure_rate", &OrNone(failure_rate))?;
        table.serialize_entry("slow_call_rate", &OrNone(slow))?;
        table.serialize_entry("minimum_calls", &minimum_calls)?;
        match *window {
            WindowShape::Time(nanos) => table.serialize_entry("time_window", &human(nanos))?,
            WindowShape::Count(calls) => table.serialize_entry("count_window", &calls)?,
        }
        table.serialize_entry("count_failed_retries", count_failed_retries)?;
        table.serialize_entry("cancelled", &WrittenPolicy(cancelled))?;
        table.serialize_entry("open_for", &human(initial))?;
        table.serialize_entry("open_backoff", &OrNone(open_backoff))?;
        table.serialize_entry("open_jitter", &jitter)?;
        table.serialize_entry("max_retry_after", &human(max_retry_after))?;
        table.serialize_entry("seed", &OrNone(seed))?;
        table.serialize_entry("open_until_reset", &until_reset)?;
        table.serialize_entry("probes", &probes)?;
        table.serialize_entry("successes_to_close", &successes_to_close)?;
        table.serialize_entry("probe_lease", &human(probe_lease))?;
        match slow_start {
            SlowStartKind::Off => table.serialize_entry("slow_start", &human(0))?,
            SlowStartKind::Time(nanos) => table.serialize_entry("slow_start", &human(nanos))?,
            SlowStartKind::Successes(successes) => {
                table.serialize_entry("slow_start_successes", &successes)?;
            }
        }
        table.serialize_entry("mode", &MODES.of(mode))?;
        table.end()
    }
}

const fn human(nanos: u64) -> HumanDuration {
    HumanDuration(Duration::from_nanos(nanos))
}

#[derive(Serialize)]
struct WrittenSlowCallRate {
    threshold: HumanDuration,
    rate: f64,
}

#[derive(Serialize)]
struct WrittenOpenBackoff {
    multiplier: f64,
    max: HumanDuration,
}

struct WrittenPolicy(CancelledPolicy);

impl Serialize for WrittenPolicy {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let CancelledPolicy::FailureAfter(after) = self.0 else {
            return CANCELLED.of(&self.0).serialize(to);
        };
        let mut table = to.serialize_struct("FailureAfter", 1)?;
        table.serialize_field("failure_after", &HumanDuration(after))?;
        table.end()
    }
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use proptest::prelude::*;
    use tower_fault_classify::__internals::settings::{Kind, Setting};

    use super::breaker::AT_LEAST_ONE;
    use super::*;
    use crate::circuit::Circuit;
    use crate::config::{
        CONSECUTIVE_FAILURES, DURATIONS, GROWTH, Mode, PROBES, SHARES, SLOW_START_SUCCESSES, WINDOW_CALLS,
    };

    /// The names of all settings in files.
    fn fields() -> Vec<&'static str> {
        let Kind::Table(table) = Nested(Breaker).kind() else { unreachable!() };
        table.settings.iter().map(|setting| setting.name).collect()
    }

    fn from_json(text: &str) -> Result<BreakerConfig, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    fn from_toml(text: &str) -> Result<BreakerConfig, String> {
        toml::from_str(text).map_err(|error| error.to_string())
    }

    /// Writes a configuration and reads it back, in both formats.
    fn round_trip(config: &BreakerConfig) {
        let json = serde_json::to_string(config).unwrap();
        assert_eq!(from_json(&json).as_ref(), Ok(config), "{json}");
        let toml = toml::to_string(config).unwrap();
        assert_eq!(from_toml(&toml).as_ref(), Ok(config), "{toml}");
    }

    #[test]
    fn times_outside_of_the_years_1970_to_9999_are_limited() {
        let text = |time: SystemTime| {
            let mut text = Vec::new();
            super::time(&time, &mut serde_json::Serializer::new(&mut text)).unwrap();
            String::from_utf8(text).unwrap()
        };
        let later = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        assert_eq!(text(SystemTime::UNIX_EPOCH - Duration::from_secs(1)), r#""1970-01-01T00:00:00.000Z""#);
        assert_eq!(text(later(253_402_300_799)), r#""9999-12-31T23:59:59.000Z""#);
        assert_eq!(text(later(253_402_300_800)), r#""9999-12-31T23:59:59.000Z""#);
    }

    #[test]
    fn missing_field_has_its_default() {
        assert_eq!(from_json("{}"), Ok(BreakerConfig::default()));
        assert_eq!(from_toml(""), Ok(BreakerConfig::default()));
        let short = from_json(r#"{"open_for": "2s", "count_window": 4}"#).unwrap();
        let built = BreakerConfig::builder().open_for(Duration::from_secs(2)).count_window(4).build();
        assert_eq!(
            short,
            built.unwrap(),
            "defaults that depend on other settings use the values of the file"
        );
    }

    #[test]
    fn preset_is_start_of_table_wherever_it_is_written() {
        let preset = || BreakerConfig::single_flight().name("worker").open_until_reset(false).probes(2);
        let expected = Ok(preset().failure_rate(0.5).build().unwrap());
        let rest = r#""name": "worker", "open_until_reset": false, "probes": 2, "failure_rate": 0.5"#;
        assert_eq!(from_json(&format!(r#"{{"preset": "single_flight", {rest}}}"#)), expected);
        assert_eq!(from_json(&format!(r#"{{{rest}, "preset": "single_flight"}}"#)), expected);
        let error = from_json(r#"{"preset": "many"}"#).unwrap_err();
        assert!(error.starts_with("`preset` is \"many\"; allowed is \"single_flight\" at line"), "{error}");
    }

    #[test]
    fn preset_round_trips() {
        for builder in [BreakerConfig::builder(), BreakerConfig::single_flight()] {
            round_trip(&builder.build().unwrap());
        }
    }

    #[test]
    fn none_turns_setting_off() {
        let off = BreakerConfig::builder()
            .consecutive_failures(0)
            .consecutive_failures_span(Duration::ZERO)
            .failure_rate(None)
            .open_jitter(0.0)
            .slow_start(Duration::ZERO)
            .build()
            .unwrap();
        let fields = [
            "consecutive_failures",
            "consecutive_failures_span",
            "failure_rate",
            "slow_call_rate",
            "open_backoff",
            "open_jitter",
            "seed",
            "slow_start",
        ];
        let json = fields.map(|field| format!(r#""{field}": "none""#)).join(", ");
        assert_eq!(from_json(&format!("{{{json}}}")).as_ref(), Ok(&off));
        let toml = fields.map(|field| format!("{field} = \"none\"")).join("\n");
        assert_eq!(from_toml(&toml).as_ref(), Ok(&off));
    }

    #[test]
    fn null_is_rejected_for_every_field() {
        for field in fields() {
            let error = from_json(&format!(r#"{{"{field}": null}}"#)).unwrap_err();
            assert!(error.starts_with(&format!("`{field}` is null; allowed is ")), "{error}");
            assert!(error.contains("; leave the field out for its default at line 1"), "{error}");
        }
    }

    /// Values in JSON, which are also valid TOML, and how the error begins.
    const WRONG: [(&str, &str, &str); 47] = [
        ("name", "5", "`name` is 5; allowed is a string"),
        ("consecutive_failures", "-1", "`consecutive_failures` is -1; allowed is 0 to 1000000, or \"none\""),
        ("consecutive_failures", "1000001", "`consecutive_failures` is 1000001; allowed is 0 to"),
        (
            "consecutive_failures_span",
            "\"1us\"",
            "`consecutive_failures_span` is \"1us\"; allowed is 1ms to 365d",
        ),
        ("consecutive_failures_span", "1", "`consecutive_failures_span` is 1; allowed is 1ms to 365d"),
        ("failure_rate", "1.5", "`failure_rate` is 1.5; allowed is 0.0 to 1.0, or \"none\" to turn it off"),
        ("failure_rate", "-0.5", "`failure_rate` is -0.5; allowed is 0.0 to 1.0"),
        ("failure_rate", "50", "`failure_rate` is 50; allowed is 0.0 to 1.0"),
        ("failure_rate", "\"half\"", "`failure_rate` is \"half\"; allowed is 0.0 to 1.0"),
        ("failure_rate", "\"0.5\"", "`failure_rate` is \"0.5\"; allowed is 0.0 to 1.0"),
        ("failure_rate", "[0.5]", "`failure_rate` is a list; allowed is 0.0 to 1.0"),
        ("failure_rate", "false", "`failure_rate` is false; allowed is 0.0 to 1.0"),
        (
            "slow_call_rate",
            "\"2s\"",
            "`slow_call_rate` is \"2s\"; allowed is a table such as { threshold = \"2s\", rate = 0.8 }",
        ),
        ("slow_call_rate", "{}", "field `slow_call_rate.threshold` is missing"),
        ("minimum_calls", "0", "`minimum_calls` is 0; allowed is 1 to 4294967295"),
        ("minimum_calls", "2.5", "`minimum_calls` is 2.5; allowed is 1 to 4294967295"),
        ("minimum_calls", "\"none\"", "`minimum_calls` is \"none\"; allowed is 1 to 4294967295"),
        ("time_window", "\"0s\"", "`time_window` is \"0s\"; allowed is 1ms to 365d"),
        ("time_window", "\"366d\"", "`time_window` is \"366d\"; allowed is 1ms to 365d"),
        ("count_window", "0", "`count_window` is 0; allowed is 1 to 1000000"),
        ("count_failed_retries", "0", "`count_failed_retries` is 0; allowed is true or false"),
        (
            "cancelled",
            "\"fail\"",
            "`cancelled` is \"fail\"; allowed is \"if_none_completes\", \"ignore\" or \"failure\",",
        ),
        ("cancelled", "{}", "`cancelled` is a table; allowed is "),
        ("open_for", "30", "`open_for` is 30; allowed is 1ms to 365d, such as \"1m 30s\""),
        ("open_for", "\"30\"", "`open_for` is \"30\"; allowed is 1ms to 365d"),
        ("open_for", "\"soon\"", "`open_for` is \"soon\"; allowed is 1ms to 365d"),
        ("open_for", "\"-30s\"", "`open_for` is \"-30s\"; allowed is 1ms to 365d"),
        ("open_for", "\"NaN\"", "`open_for` is \"NaN\"; allowed is 1ms to 365d"),
        (
            "open_for",
            "\"1M\"",
            "`open_for` is \"1M\"; allowed is 1ms to 365d, such as \"1m 30s\", with the units ns, us, ms, s, m, h or d",
        ),
        ("open_for", "\"99999999999999999999d\"", "`open_for` is \"99999999999999999999d\"; allowed is 1ms"),
        (
            "open_backoff",
            "2.0",
            "`open_backoff` is 2.0; allowed is a table such as { multiplier = 2.0, max = \"10m\" }",
        ),
        ("open_jitter", "1.1", "`open_jitter` is 1.1; allowed is 0.0 to 1.0"),
        ("max_retry_after", "\"366d\"", "`max_retry_after` is \"366d\"; allowed is 0s to 365d"),
        ("seed", "-1", "`seed` is -1; allowed is 0 to 18446744073709551615"),
        ("seed", "1.5", "`seed` is 1.5; allowed is 0 to 18446744073709551615"),
        ("seed", "\"many\"", "`seed` is \"many\"; allowed is 0 to 18446744073709551615"),
        ("open_until_reset", "\"yes\"", "`open_until_reset` is \"yes\"; allowed is true or false"),
        ("open_until_reset", "1", "`open_until_reset` is 1; allowed is true or false"),
        ("probes", "0", "`probes` is 0; allowed is 1 to 10000"),
        ("probes", "10001", "`probes` is 10001; allowed is 1 to 10000"),
        ("successes_to_close", "0", "`successes_to_close` is 0; allowed is 1 to 4294967295"),
        ("probe_lease", "\"0s\"", "`probe_lease` is \"0s\"; allowed is 1ms to 365d"),
        ("slow_start", "\"1ns\"", "`slow_start` is \"1ns\"; allowed is 1ms to 365d"),
        ("slow_start_successes", "0", "`slow_start_successes` is 0; allowed is 1 to 10000"),
        ("slow_start_successes", "10001", "`slow_start_successes` is 10001; allowed is 1 to 10000"),
        ("mode", "\"off\"", "`mode` is \"off\"; allowed is \"enforce\", \"observe_only\" or \"disabled\""),
        ("mode", "true", "`mode` is true; allowed is \"enforce\""),
    ];

    /// Asserts that both files are rejected with this error.
    fn assert_rejected(json: &str, toml: &str, expected: &str) {
        let error = from_json(json).unwrap_err();
        assert!(error.starts_with(expected), "{error}\n{expected}");
        let error = from_toml(toml).unwrap_err();
        assert!(error.contains(expected), "{error}\n{expected}");
    }

    #[test]
    fn error_names_field_value_and_range() {
        for (field, value, expected) in WRONG {
            assert_rejected(&format!("{{\"{field}\": {value}}}"), &format!("{field} = {value}"), expected);
        }
        assert_rejected(
            r#"{"slow_call_rate": {"threshold": "1s", "rate": 2}}"#,
            r#"slow_call_rate = {threshold = "1s", rate = 2}"#,
            "`slow_call_rate.rate` is 2; allowed is 0.0 to 1.0",
        );
        assert_rejected(
            r#"{"open_backoff": {"multiplier": 2, "max": "2s"}}"#,
            r#"open_backoff = {multiplier = 2, max = "2s"}"#,
            "`open_backoff` is 2s; allowed is 3s to 31536000s, because `open_for` is 3s",
        );
        assert_rejected(
            r#"{"cancelled": {"failure_after": "1M"}}"#,
            r#"cancelled = {failure_after = "1M"}"#,
            "`cancelled.failure_after` is \"1M\"; allowed is 1ms to 365d",
        );
        for number in ["nan", "inf", "-inf"] {
            let error = from_toml(&format!("failure_rate = {number}")).unwrap_err();
            let number = number.replace("nan", "NaN");
            assert!(error.contains(&format!("`failure_rate` is {number}; allowed is 0.0 to 1.0")), "{error}");
        }
    }

    #[test]
    fn error_contains_position_in_file() {
        let error = from_json("{\n  \"probes\": 2,\n  \"failure_rate\": 1.5\n}").unwrap_err();
        assert!(error.contains("at line 3"), "{error}");
        let error = from_toml("probes = 2\nfailure_rate = 1.5\n").unwrap_err();
        assert!(error.contains("line 2, column 16"), "{error}");
    }

    #[test]
    fn error_names_unknown_or_duplicate_field() {
        for (text, expected) in [
            (
                r#"{"opened_for": "30s"}"#,
                "unknown field `opened_for`; allowed is `preset`, `name`, `consecutive_failures`,",
            ),
            (r#"{"probes": 1, "probes": 2}"#, "field `probes` appears twice; remove one of them"),
            (
                r#"{"slow_call_rate": {"rate": 0.5, "after": "1s"}}"#,
                "unknown field `slow_call_rate.after`; allowed is `threshold` or `rate`",
            ),
            (r#"{"open_backoff": {"multiplier": 2.0}}"#, "field `open_backoff.max` is missing"),
            (
                r#"{"cancelled": {"after": "1s"}}"#,
                "unknown field `cancelled.after`; allowed is `failure_after`",
            ),
            (
                r#"{"cancelled": {"failure_after": "1s", "x": 1}}"#,
                "`cancelled.failure_after` and `cancelled.x` are set; set only one of them",
            ),
            (
                r#"{"count_window": 5, "time_window": "1s"}"#,
                "`time_window` and `count_window` are set; set only one of them",
            ),
            (
                r#"{"slow_start": "1s", "slow_start_successes": 5}"#,
                "`slow_start` and `slow_start_successes` are set; set only one of them",
            ),
            (
                r#"{"count_window": 5, "minimum_calls": 6}"#,
                "`minimum_calls` is 6; allowed is 1 to 5, because `count_window` is 5",
            ),
            ("5", "invalid type: integer `5`, expected a table with the settings of a circuit breaker"),
        ] {
            let error = from_json(text).unwrap_err();
            assert!(error.starts_with(expected), "{error}");
        }
    }

    fn duration() -> impl Strategy<Value = Duration> {
        let [least, most] = [DURATIONS.start(), DURATIONS.end()].map(|end| end.as_nanos() as u64);
        prop_oneof![least..=most, least..=1_000_000_000].prop_map(Duration::from_nanos)
    }

    fn cancelled() -> impl Strategy<Value = CancelledPolicy> {
        prop_oneof![
            Just(CancelledPolicy::IfNoneCompletes),
            Just(CancelledPolicy::Ignore),
            Just(CancelledPolicy::Failure),
            duration().prop_map(CancelledPolicy::FailureAfter),
        ]
    }

    /// A window, and the minimum number of calls.
    fn window() -> impl Strategy<Value = (Result<Duration, u32>, Option<u32>)> {
        let by_time = (duration().prop_map(Ok), proptest::option::of(AT_LEAST_ONE));
        let by_count =
            WINDOW_CALLS.prop_flat_map(|calls| (Just(Err(calls)), proptest::option::of(1..=calls)));
        prop_oneof![by_time, by_count]
    }

    fn max_retry_after() -> impl Strategy<Value = Duration> {
        prop_oneof![Just(Duration::ZERO), duration()]
    }

    /// The time or the number of successes of a slow start.
    fn slow_start() -> impl Strategy<Value = Result<Duration, u32>> {
        prop_oneof![Just(Ok(Duration::ZERO)), duration().prop_map(Ok), SLOW_START_SUCCESSES.prop_map(Err),]
    }

    prop_compose! {
        /// Any valid configuration on the default clock.
        fn config()(
            name in proptest::option::of(".*"),
            (consecutive_failures, failure_rate) in (CONSECUTIVE_FAILURES, proptest::option::of(SHARES)),
            failures_span in prop_oneof![Just(Duration::ZERO), duration()],
            (window, minimum_calls) in window(),
            slow in proptest::option::of((duration(), SHARES)),
            (cancelled, failed_retries) in (cancelled(), any::<bool>()),
            (open_for, longer, max_retry_after) in (duration(), duration(), max_retry_after()),
            growth in proptest::option::of(GROWTH),
            (jitter, seed, until_reset) in (SHARES, proptest::option::of(any::<u64>()), any::<bool>()),
            (probes, successes, lease) in (PROBES, AT_LEAST_ONE, proptest::option::of(duration())),
            slow_start in slow_start(),
            mode in prop_oneof![Just(Mode::Enforce), Just(Mode::ObserveOnly), Just(Mode::Disabled)],
        ) -> BreakerConfig {
            let mut builder = BreakerConfig::builder()
                .consecutive_failures(consecutive_failures)
                .consecutive_failures_span(failures_span)
                .failure_rate(failure_rate)
                .count_failed_retries(failed_retries)
                .cancelled(cancelled)
                .open_for(open_for)
                .open_jitter(jitter)
                .max_retry_after(max_retry_after)
                .probes(probes)
                .successes_to_close(successes)
                .seed(seed)
                .open_until_reset(until_reset)
                .minimum_calls(minimum_calls)
                .probe_lease(lease)
                .mode(mode);
            if let Some(name) = name {
                builder = builder.name(name);
            }
            builder = match slow_start {
                Ok(time) => builder.slow_start(time),
                Err(successes) => builder.slow_start_successes(successes),
            };
            builder = match window {
                Ok(span) => builder.time_window(span),
                Err(calls) => builder.count_window(calls),
            };
            if let Some((threshold, rate)) = slow {
                builder = builder.slow_call_rate(threshold, rate);
            }
            if let Some(multiplier) = growth {
                builder = builder.open_backoff(multiplier, open_for.max(longer));
            }
            builder.build().unwrap()
        }
    }

    proptest! {
        #[test]
        fn any_configuration_round_trips(config in config()) {
            round_trip(&config);
        }

        #[test]
        fn to_builder_builds_same_configuration(config in config()) {
            prop_assert_eq!(config.to_builder().build(), Ok(config));
        }
    }

    #[test]
    fn status_serializes_state_and_seconds() {
        let circuit = Circuit::new(BreakerConfig::builder().name("search").build().unwrap());
        circuit.trip().unwrap();
        let status = serde_json::to_value(circuit.status()).unwrap();
        assert_eq!((&status["circuit"], &status["state"]), (&"search".into(), &"open".into()));
        assert_eq!(status["last_trip"]["reason"], "tripped");
        let left = status["retry_after_seconds"].as_f64().unwrap();
        assert!((2.0..=4.6).contains(&left), "{status}");
        assert!(status["lasted_seconds"].as_f64().unwrap() < 1.0, "{status}");
        assert!(status["override_ends_in_seconds"].is_null());
        assert!(status["since_last_success_seconds"].is_null(), "{status}");
        assert!(status["since_last_failure_seconds"].is_null(), "{status}");
        circuit.force_closed_for(Duration::from_secs(9)).unwrap();
        let status = serde_json::to_value(circuit.status()).unwrap();
        let left = status["override_ends_in_seconds"].as_f64().unwrap();
        assert!((8.0..=9.1).contains(&left), "{status}");
    }
}
