//! Durations in messages.

use std::fmt;
use std::time::Duration;

/// Prints a duration with its unit: `250 ms`, `2.3 s`, `30 s`.
///
/// A duration of less than a millisecond is printed as `1 ms`, and zero as `0 s`.
#[derive(Clone, Copy, Debug)]
#[allow(unreachable_pub, reason = "the feature `__internals` exports it")]
pub struct DisplayDuration(pub Duration);

impl fmt::Display for DisplayDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.as_nanos();
        let rounded = |unit: u128| nanos.saturating_add(unit / 2) / unit;
        let (millis, tenths, seconds) = (rounded(1_000_000), rounded(100_000_000), rounded(1_000_000_000));
        match (millis, tenths) {
            (0, _) if nanos == 0 => f.write_str("0 s"),
            (0..1_000, _) => write!(f, "{} ms", millis.max(1)),
            (_, 10..100) if tenths % 10 != 0 => write!(f, "{}.{} s", tenths / 10, tenths % 10),
            _ => write!(f, "{seconds} s"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duration_display_has_unit_and_few_digits() {
        let texts = [
            (0, "0 s"),
            (1, "1 ms"),
            (1_400_000, "1 ms"),
            (250_000_000, "250 ms"),
            (999_499_999, "999 ms"),
            (999_500_000, "1 s"),
            (1_049_000_000, "1 s"),
            (2_340_000_000, "2.3 s"),
            (9_949_000_000, "9.9 s"),
            (9_960_000_000, "10 s"),
            (29_996_000_000, "30 s"),
            (30_004_000_000, "30 s"),
            (90_500_000_000, "91 s"),
        ];
        for (nanos, text) in texts {
            assert_eq!(DisplayDuration(Duration::from_nanos(nanos)).to_string(), text, "{nanos}");
        }
        assert_eq!(DisplayDuration(Duration::MAX).to_string(), "18446744073709551616 s");
    }
}
