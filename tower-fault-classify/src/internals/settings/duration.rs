//! Durations with units, such as `1m 30s`.

use std::fmt::{self, Display};
use std::time::Duration;

use serde::{Serialize, Serializer};

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

/// A duration that is written with units: `1m 30s`, `1.5s`.
///
/// There are no months and years, because their lengths vary.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HumanDuration(pub Duration);

impl HumanDuration {
    /// Parses a sum of numbers, each with its unit.
    ///
    /// `None`: the text has another form, the sum does not fit into a `Duration`, or a number
    /// contains a fraction of a nanosecond.
    pub fn parse(text: &str) -> Option<Duration> {
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
