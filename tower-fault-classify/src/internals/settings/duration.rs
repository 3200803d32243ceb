//! Durations with units, such as `1m 30s`.

#[cfg(feature = "__internals-schemars")]
use std::borrow::Cow;
use std::fmt::{self, Display};
use std::time::Duration;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::read::alternatives;

/// The units with their lengths in nanoseconds, the longest first.
const UNITS: [(&str, u64); 7] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

/// The form of a duration, as a regular expression of ECMA-262.
pub(super) const PATTERN: &str = "^\\s*([0-9]+([.][0-9]+)?(d|h|m|s|ms|us|ns)\\s*)+$";

pub(super) fn unit_names() -> String {
    alternatives(UNITS.iter().rev().map(|(name, _)| (*name).to_owned()))
}

/// A duration that configuration files contain as a string with units, such as `"1m 30s"`.
///
/// Use it in your own settings for values that have no field in the configurations of this crate:
/// the timeout of a layer, or a setter that takes a [`Duration`]. With the feature `schemars`, it
/// implements `JsonSchema`.
///
/// The string is a sum of numbers, each with a unit: d, h, m, s, ms, us or ns. `"1m 30s"`, `"90s"`
/// and `"1.5m"` are the same duration. There are no months and years, because their lengths vary.
///
/// # Errors
///
/// A number without a unit, another unit, a negative number and a fraction of a nanosecond are
/// errors when a file is read. The error shows the value and the units.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HumanDuration(pub Duration);

impl From<Duration> for HumanDuration {
    fn from(duration: Duration) -> Self {
        Self(duration)
    }
}

impl From<HumanDuration> for Duration {
    fn from(HumanDuration(duration): HumanDuration) -> Self {
        duration
    }
}

impl HumanDuration {
    /// Parses a sum of numbers, each with its unit.
    ///
    /// `None`: the text has another form, the sum does not fit into a `Duration`, or a number
    /// contains a fraction of a nanosecond.
    pub(super) fn parse(text: &str) -> Option<Duration> {
        let mut rest = text.trim();
        if rest.is_empty() {
            return None;
        }
        let mut nanos = 0_u128;
        while !rest.is_empty() {
            let (number, after) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit() && c != '.')?);
            let end_of_unit = after.find(|c: char| !c.is_alphabetic()).unwrap_or(after.len());
            let (unit, after) = after.split_at(end_of_unit);
            let (_, length) = UNITS.iter().find(|(name, _)| *name == unit)?;
            nanos = nanos.checked_add(times(number, (*length).into())?)?;
            rest = after.trim_start();
        }
        let seconds = u64::try_from(nanos / 1_000_000_000).ok()?;
        Some(Duration::new(seconds, (nanos % 1_000_000_000) as u32))
    }
}

/// Returns the product of a decimal number and a unit's length, if it is a whole number.
fn times(number: &str, length: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let denominator = 10_u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let numerator = length.checked_mul(fraction.parse::<u64>().ok()?.into())?;
    if numerator % denominator != 0 {
        return None;
    }
    length.checked_mul(whole.parse::<u64>().ok()?.into())?.checked_add(numerator / denominator)
}

impl Display for HumanDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0.as_nanos();
        if rest == 0 {
            return f.write_str("0s");
        }
        let mut separator = "";
        for (unit, length) in UNITS {
            let number = rest / u128::from(length);
            rest %= u128::from(length);
            if number > 0 {
                write!(f, "{separator}{number}{unit}")?;
                separator = " ";
            }
        }
        Ok(())
    }
}

impl Serialize for HumanDuration {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for HumanDuration {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_str(DurationVisitor)
    }
}

struct DurationVisitor;

impl Visitor<'_> for DurationVisitor {
    type Value = HumanDuration;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a duration such as \"1m 30s\", with the units {}", unit_names())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<HumanDuration, E> {
        let invalid = || {
            let units = unit_names();
            E::custom(format_args!(
                "invalid duration {text:?}; allowed are numbers such as \"1m 30s\", with the units {units}"
            ))
        };
        HumanDuration::parse(text).map(HumanDuration).ok_or_else(invalid)
    }
}

#[cfg(feature = "__internals-schemars")]
impl schemars::JsonSchema for HumanDuration {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "HumanDuration".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "pattern": PATTERN })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DAY: u64 = 24 * 60 * 60;

    #[test]
    fn duration_with_units_is_parsed() {
        for (text, nanos) in [
            ("1d 2h 3m 4s 5ms 6us 7ns", 93_784_005_006_007),
            ("1m30s", 90_000_000_000),
            (" 1m  30s ", 90_000_000_000),
            ("90s", 90_000_000_000),
            ("1.5s", 1_500_000_000),
            ("0.25ms", 250_000),
            ("0s", 0),
            ("0.1d", 8_640_000_000_000),
        ] {
            assert_eq!(HumanDuration::parse(text), Some(Duration::from_nanos(nanos)), "{text}");
        }
    }

    #[test]
    fn duration_malformed_is_rejected() {
        for text in [
            "",
            " ",
            "s",
            "soon",
            "30",
            "0",
            "1M",
            "1month",
            "1y",
            "1w",
            "1S",
            "-5s",
            "+5s",
            "1m -30s",
            "1e3s",
            ".5s",
            "5.s",
            "1.2.3s",
            "1 30s",
            "1,5s",
            "NaNs",
            "inf",
            "infs",
            "0.5ns",
            "0.3333333333333333333s",
            "18446744073709551616s",
            "213503982334602d",
            "18446744073709551615s 1000000000ns",
            "99999999999999999999999999999999999999999s",
            "\u{ff15}s",
        ] {
            assert_eq!(HumanDuration::parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn duration_display_parses_back(seconds: u64, nanos in 0..1_000_000_000_u32) {
            for duration in [Duration::new(seconds, nanos), Duration::new(seconds % (365 * DAY), nanos)] {
                prop_assert_eq!(HumanDuration::parse(&HumanDuration(duration).to_string()), Some(duration));
            }
        }
    }
}
