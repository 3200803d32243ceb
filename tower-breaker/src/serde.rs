//! Configurations and statuses in files: by the setters' names, with durations as people write them.

#![expect(clippy::ref_option, reason = "serde hands a field on so")]

use std::time::Duration;

use ::serde::de::Error as _;
use ::serde::ser::SerializeStruct;
use ::serde::{Deserialize, Deserializer, Serialize, Serializer};
use tower_fault_classify::__shared::ConfigError;
use tower_fault_classify::Fault;

use crate::circuit::Shape;
use crate::config::{AbandonedPolicy, BreakerConfig, Mode};
use crate::machine::{Abandoned, OpenTime, RecoveryLimits, TripLimits};

/// A duration as people write it: `"1m 30s"`.
pub(crate) mod duration {
    use std::time::Duration;

    use ::serde::de::Error as _;
    use ::serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&humantime::format_duration(*duration))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(from)?;
        humantime::parse_duration(&text).map_err(|error| {
            D::Error::custom(format_args!("`{text}` is no duration such as \"1m 30s\": {error}"))
        })
    }
}

/// The same, where there may be none.
pub(crate) mod optional_duration {
    use std::time::Duration;

    use ::serde::{Serialize, Serializer};

    use super::Human;

    pub(crate) fn serialize<S: Serializer>(duration: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
        duration.map(Human).serialize(to)
    }
}

/// A time of the wall clock as RFC 3339 writes it.
pub(crate) fn time<S: Serializer>(time: &std::time::SystemTime, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&humantime::format_rfc3339_millis(*time))
}

/// A fault by its axes.
pub(crate) fn one_fault<S: Serializer>(fault: &Fault, to: S) -> Result<S::Ok, S::Error> {
    let mut axes = to.serialize_struct("Fault", 5)?;
    axes.serialize_field("kind", fault.kind().as_str())?;
    axes.serialize_field("retryable", fault.retryable().as_str())?;
    axes.serialize_field("health", fault.health().as_str())?;
    axes.serialize_field("origin", fault.origin().as_str())?;
    axes.serialize_field("retry_after", &fault.retry_after().map(Human))?;
    axes.end()
}

/// The same, where there may be none.
pub(crate) fn fault<S: Serializer>(fault: &Option<Fault>, to: S) -> Result<S::Ok, S::Error> {
    struct Axes<'a>(&'a Fault);

    impl Serialize for Axes<'_> {
        fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
            one_fault(self.0, to)
        }
    }

    fault.as_ref().map(Axes).serialize(to)
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(transparent)]
struct Human(#[serde(with = "duration")] Duration);

impl Human {
    const fn nanos(nanos: u64) -> Self {
        Self(Duration::from_nanos(nanos))
    }
}

/// A configuration as it stands in a file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct File {
    name: String,
    consecutive_failures: u32,
    failure_rate: Option<f64>,
    slow_calls: Option<SlowCalls>,
    minimum_calls: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    time_window: Option<Human>,
    #[serde(skip_serializing_if = "Option::is_none")]
    count_window: Option<u32>,
    abandoned: AbandonedPolicy,
    open_for: Human,
    open_growth: Option<OpenGrowth>,
    open_jitter: f64,
    open_until_reset: bool,
    probes: u32,
    successes_to_close: u32,
    probe_lease: Option<Human>,
    ramp_for: Human,
    mode: Mode,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SlowCalls {
    from: Human,
    rate: f64,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OpenGrowth {
    factor: f64,
    cap: Human,
}

impl Default for File {
    /// What follows from other fields is left out, so that it follows from those of the file.
    fn default() -> Self {
        let default = Self::from(&BreakerConfig::default());
        Self { minimum_calls: None, time_window: None, probe_lease: None, ..default }
    }
}

impl From<&BreakerConfig> for File {
    fn from(config: &BreakerConfig) -> Self {
        let setup = &config.setup;
        let TripLimits { consecutive_failures, failure_rate, slow, minimum_calls, abandoned } = setup.trip;
        let RecoveryLimits { open, probes, successes_to_close, probe_lease, ramp } = setup.recovery;
        let OpenTime { first, factor, cap, jitter, held } = open;
        let (time_window, count_window) = match setup.shape {
            Shape::Time(nanos) => (Some(Human::nanos(nanos)), None),
            Shape::Count(calls) => (None, Some(calls)),
        };
        Self {
            name: setup.name.to_owned(),
            consecutive_failures,
            failure_rate,
            slow_calls: slow.map(|slow| SlowCalls { from: Human::nanos(slow.from), rate: slow.rate }),
            minimum_calls: Some(minimum_calls),
            time_window,
            count_window,
            abandoned: match abandoned {
                Abandoned::IfNoneCompletes => AbandonedPolicy::IfNoneCompletes,
                Abandoned::Ignored => AbandonedPolicy::Ignore,
                Abandoned::Failure => AbandonedPolicy::Failure,
                Abandoned::FailureFrom(nanos) => AbandonedPolicy::FailureAfter(Duration::from_nanos(nanos)),
            },
            open_for: Human::nanos(first),
            open_growth: (factor > 1.0 || cap > first).then(|| OpenGrowth { factor, cap: Human::nanos(cap) }),
            open_jitter: jitter,
            open_until_reset: held,
            probes,
            successes_to_close,
            probe_lease: Some(Human::nanos(probe_lease)),
            ramp_for: Human::nanos(ramp),
            mode: match (setup.disabled, setup.observing) {
                (true, _) => Mode::Disabled,
                (false, true) => Mode::ObserveOnly,
                (false, false) => Mode::Enforce,
            },
        }
    }
}

impl File {
    fn build(self) -> Result<BreakerConfig, ConfigError> {
        let mut builder = BreakerConfig::builder()
            .name(self.name)
            .consecutive_failures(self.consecutive_failures)
            .failure_rate(self.failure_rate)
            .abandoned(self.abandoned)
            .open_for(self.open_for.0)
            .open_jitter(self.open_jitter)
            .probes(self.probes)
            .successes_to_close(self.successes_to_close)
            .ramp_for(self.ramp_for.0)
            .mode(self.mode);
        builder = match (self.time_window, self.count_window) {
            (None, None) => builder,
            (Some(span), None) => builder.time_window(span.0),
            (None, Some(calls)) => builder.count_window(calls),
            (Some(_), Some(calls)) => {
                return Err(ConfigError::new(
                    "count_window",
                    calls,
                    "one of `time_window` and `count_window`",
                ));
            }
        };
        if let Some(SlowCalls { from, rate }) = self.slow_calls {
            builder = builder.slow_calls(from.0, rate);
        }
        if let Some(calls) = self.minimum_calls {
            builder = builder.minimum_calls(calls);
        }
        if let Some(OpenGrowth { factor, cap }) = self.open_growth {
            builder = builder.open_growth(factor, cap.0);
        }
        if self.open_until_reset {
            builder = builder.open_until_reset();
        }
        if let Some(lease) = self.probe_lease {
            builder = builder.probe_lease(lease.0);
        }
        builder.build()
    }
}

impl Serialize for BreakerConfig {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        File::from(self).serialize(to)
    }
}

impl<'de> Deserialize<'de> for BreakerConfig {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        File::deserialize(from)?.build().map_err(D::Error::custom)
    }
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use super::*;
    use crate::circuit::Circuit;

    fn read(text: &str) -> Result<BreakerConfig, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_left_out_has_its_default() {
        assert_eq!(read("{}"), Ok(BreakerConfig::default()));
        let short = read(r#"{"open_for": "2s", "count_window": 4}"#).unwrap();
        let built = BreakerConfig::builder().open_for(Duration::from_secs(2)).count_window(4).build();
        assert_eq!(short, built.unwrap(), "what follows from other fields follows from these");
    }

    #[test]
    fn every_field_is_written_and_read() {
        let configs = [
            BreakerConfig::builder(),
            BreakerConfig::high_traffic(),
            BreakerConfig::single_flight(),
            BreakerConfig::builder()
                .name("search")
                .consecutive_failures(7)
                .failure_rate(0.25)
                .slow_calls(Duration::from_millis(1_500), 0.1)
                .minimum_calls(3)
                .count_window(50)
                .abandoned(AbandonedPolicy::FailureAfter(Duration::from_millis(250)))
                .open_for(Duration::from_millis(90_500))
                .open_growth(1.5, Duration::from_secs(600))
                .open_jitter(0.2)
                .probes(4)
                .successes_to_close(9)
                .probe_lease(Duration::from_secs(5))
                .ramp_for(Duration::from_secs(7))
                .mode(Mode::ObserveOnly),
        ];
        for config in configs {
            let config = config.build().unwrap();
            let text = serde_json::to_string(&config).unwrap();
            assert_eq!(read(&text), Ok(config), "{text}");
        }
    }

    #[test]
    fn durations_are_written_as_people_do() {
        let text = r#"{"open_for": "1m 30s", "ramp_for": "250ms", "abandoned": {"failure_after": "5s"}}"#;
        let config = read(text).unwrap();
        assert_eq!(config.setup.recovery.open.first, 90_000_000_000);
        assert!(serde_json::to_string(&config).unwrap().contains(r#""open_for":"1m 30s""#));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, says) in [
            (r#"{"failure_rate": 1.5}"#, "`failure_rate` is 1.5; allowed is 0.0 to 1.0"),
            (r#"{"open_for": "soon"}"#, "`soon` is no duration"),
            (r#"{"open_for": 30}"#, "expected a string"),
            (r#"{"opened_for": "30s"}"#, "unknown field `opened_for`"),
            (r#"{"count_window": 5, "time_window": "1s"}"#, "`count_window` is 5"),
            (r#"{"mode": "off"}"#, "unknown variant `off`"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn a_status_is_written() {
        let circuit = Circuit::new(BreakerConfig::builder().name("search").build().unwrap());
        circuit.trip().unwrap();
        let status = serde_json::to_value(circuit.status()).unwrap();
        assert_eq!((&status["circuit"], &status["state"]), (&"search".into(), &"open".into()));
        assert_eq!(status["last_trip"]["reason"], "tripped");
        assert!(status["retry_after"].as_str().is_some_and(|time| time.contains('s')), "{status}");
    }
}
