//! The fields of a snapshot.

use std::time::Duration;

use ::serde::de::Error;
use ::serde::de::value::{Error as AnyError, StrDeserializer};
use ::serde::{Deserialize, Deserializer};
use tower_fault_classify::{Fault, Health, Kind, Origin, Retryable};

use crate::machine::{CircuitState, Reason};
use crate::snapshot::SnapshotTrip;

pub(crate) fn open_remaining<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    optional_duration("open_remaining_seconds", from)
}

pub(crate) fn override_remaining<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    optional_duration("override_remaining_seconds", from)
}

pub(crate) fn last_open_period<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    duration("last_open_period_seconds", f64::deserialize(from)?)
}

pub(crate) fn open_periods_end_in<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    optional_duration("open_periods_end_in_seconds", from)
}

fn optional_duration<'de, D: Deserializer<'de>>(name: &str, from: D) -> Result<Option<Duration>, D::Error> {
    Option::<f64>::deserialize(from)?.map(|seconds| duration(name, seconds)).transpose()
}

/// Returns a number of seconds as a duration. A number that is too large becomes the longest
/// duration, which a restore limits.
fn duration<E: Error>(name: &str, seconds: f64) -> Result<Duration, E> {
    if seconds.is_nan() || seconds < 0.0 {
        return Err(E::custom(format_args!("`{name}` is {seconds}; allowed is a number of seconds from 0")));
    }
    Ok(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX))
}

/// Reads the last trip. `None`: one of its values is of a later version of the crate.
pub(crate) fn last_trip<'de, D: Deserializer<'de>>(from: D) -> Result<Option<SnapshotTrip>, D::Error> {
    Ok(Option::<ReadTrip>::deserialize(from)?.and_then(ReadTrip::trip))
}

#[derive(Deserialize)]
struct ReadTrip {
    from: String,
    reason: String,
    fault: Option<ReadFault>,
    consecutive_failures: u64,
    at: String,
}

#[derive(Deserialize)]
struct ReadFault {
    kind: String,
    retryable: String,
    health: String,
    origin: String,
    retry_after_seconds: Option<f64>,
}

impl ReadTrip {
    fn trip(self) -> Option<SnapshotTrip> {
        Some(SnapshotTrip {
            from: CircuitState::deserialize(name(&self.from)).ok()?,
            reason: Reason::deserialize(name(&self.reason)).ok()?,
            fault: match self.fault {
                Some(fault) => Some(fault.fault()?),
                None => None,
            },
            consecutive_failures: self.consecutive_failures,
            at: humantime::parse_rfc3339(&self.at).ok()?,
        })
    }
}

impl ReadFault {
    fn fault(self) -> Option<Fault> {
        let fault = Fault::new(
            Kind::__from_name(&self.kind)?,
            Retryable::__from_name(&self.retryable)?,
            Health::__from_name(&self.health)?,
            Origin::__from_name(&self.origin)?,
        );
        let delay = |seconds| Duration::try_from_secs_f64(seconds).ok();
        Some(match self.retry_after_seconds.and_then(delay) {
            Some(delay) => fault.with_retry_after(delay),
            None => fault,
        })
    }
}

fn name(text: &str) -> StrDeserializer<'_, AnyError> {
    StrDeserializer::new(text)
}

/// A wall-clock time in the format of RFC 3339, with nanoseconds.
pub(crate) mod time {
    use std::time::SystemTime;

    use ::serde::de::Error;
    use ::serde::{Deserialize, Deserializer, Serializer};

    use crate::serde::with_four_digits;

    pub(crate) fn serialize<S: Serializer>(time: &SystemTime, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&humantime::format_rfc3339_nanos(with_four_digits(*time)))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<SystemTime, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(from)?;
        humantime::parse_rfc3339(&text).map_err(|_| {
            D::Error::custom(format_args!(
                "`taken_at` is {text:?}; allowed is a time such as \"2026-01-31T12:00:00Z\""
            ))
        })
    }
}
