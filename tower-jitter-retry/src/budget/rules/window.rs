//! When a window budget grants a retry: a pure function in exact fixed point.

/// One request or retry, in millionths.
const ONE: u128 = 1_000_000;

/// The settings of a window budget. They are in millionths, so that a ratio of 0.2 is exact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WindowRules {
    ratio: u64,
    min_per_second: u64,
    /// In nanoseconds.
    span: u64,
    /// The retries of [`min_per_second`](Self::min_per_second) over the span, in millionths.
    reserve: u128,
}

impl WindowRules {
    /// Rules that grant nothing.
    pub(in crate::budget) const NONE: Self = Self { ratio: 0, min_per_second: 0, span: 0, reserve: 0 };

    /// Creates the rules: `ratio` retries per request, and `min_per_second` over a span in
    /// nanoseconds. Both numbers are rounded to a millionth.
    pub(in crate::budget) fn new(ratio: f64, min_per_second: f64, span: u64) -> Self {
        let [ratio, min_per_second] = [ratio, min_per_second].map(millionths);
        // Rounding down changes no decision: the other amounts are whole millionths.
        let reserve = u128::from(min_per_second) * u128::from(span) / 1_000_000_000;
        Self { ratio, min_per_second, span, reserve }
    }

    /// Returns the settings: ratio, retries per second, and the span in nanoseconds.
    pub(in crate::budget) const fn settings(&self) -> (f64, f64, u64) {
        (self.ratio as f64 / ONE as f64, self.min_per_second as f64 / ONE as f64, self.span)
    }

    /// Returns whether one more retry stays within the limit that the requests of the span allow.
    pub(in crate::budget) fn grants(&self, requests: u64, retries: u64) -> bool {
        self.left(requests, retries) >= ONE
    }

    /// Returns the retries that the requests of the span allow in addition to `retries`.
    pub(in crate::budget) fn available(&self, requests: u64, retries: u64) -> f64 {
        self.left(requests, retries) as f64 / ONE as f64
    }

    /// Returns the retries that are left, in millionths.
    fn left(&self, requests: u64, retries: u64) -> u128 {
        let allowed = u128::from(requests) * u128::from(self.ratio) + self.reserve;
        allowed.saturating_sub(u128::from(retries) * ONE)
    }
}

/// Converts a number that is not negative.
fn millionths(number: f64) -> u64 {
    #[expect(clippy::cast_sign_loss, reason = "the number is not negative")]
    let millionths = (number * ONE as f64).round() as u64;
    millionths
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn grant_extreme_values_do_not_overflow() {
        let most = WindowRules::new(1_000.0, 1e9, 3_600_000_000_000);
        assert!(most.grants(u64::MAX, u64::MAX));
        assert!(!WindowRules::new(1.0, 0.0, 1_000_000_000).grants(u64::MAX, u64::MAX));
        assert!(!WindowRules::new(0.0, 0.0, 1_000_000_000).grants(u64::MAX, 0));
        assert!(WindowRules::new(0.0, 1.0, 1_000_000_000).grants(0, 0));
        assert!(!WindowRules::new(0.0, 1.0, 1_000_000_000).grants(0, 1));
    }

    #[test]
    fn window_grants_share_of_requests_and_reserve_exactly() {
        let granted = |rules: WindowRules, requests| {
            (0..1_000).take_while(|&retries| rules.grants(requests, retries)).count()
        };
        let ratio = WindowRules::new(0.2, 0.0, SECOND);
        assert_eq!([0, 4, 5, 9, 10].map(|requests| granted(ratio, requests)), [0, 0, 1, 1, 2]);
        let reserve = WindowRules::new(0.0, 10.0, 10 * SECOND);
        assert_eq!([0, 1_000].map(|requests| granted(reserve, requests)), [100, 100]);
        let both = WindowRules::new(0.2, 10.0, SECOND / 2);
        assert_eq!([0, 4, 5, 50].map(|requests| granted(both, requests)), [5, 5, 6, 15]);
        assert_eq!(granted(WindowRules::NONE, u64::MAX), 0);
    }

    #[test]
    #[expect(clippy::float_cmp, reason = "a quotient is rounded once, as the literal is")]
    fn window_available_is_what_requests_allow_and_retries_leave() {
        let rules = WindowRules::new(0.2, 1.0, 2 * SECOND);
        let available = [(0, 0), (1, 0), (7, 3), (5, 3), (5, 4)]
            .map(|(requests, retries)| rules.available(requests, retries));
        assert_eq!(available, [2.0, 2.2, 0.4, 0.0, 0.0]);
        let most = WindowRules::new(1_000.0, 0.0, SECOND).available(u64::MAX, 0);
        assert_eq!(most, u64::MAX as f64 * 1_000.0);
    }

    #[test]
    fn fraction_per_second_is_exact_over_the_span() {
        let granted = |min_per_second, span| {
            let rules = WindowRules::new(0.0, min_per_second, span);
            (0..1_000).take_while(|&retries| rules.grants(0, retries)).count()
        };
        assert_eq!([9, 10, 19, 20].map(|seconds| granted(0.1, seconds * SECOND)), [0, 1, 1, 2]);
        assert_eq!([10 * SECOND - 1, 10 * SECOND].map(|span| granted(0.3, span)), [2, 3]);
        assert_eq!(granted(0.000_001, 3_600 * SECOND), 0);
        // Half a retry of the reserve, and half a retry of the requests.
        assert!(WindowRules::new(0.5, 0.05, 10 * SECOND).grants(1, 0));
        assert!(!WindowRules::new(0.5, 0.049_999, 10 * SECOND).grants(1, 0));
    }

    #[test]
    fn window_rules_return_their_settings() {
        let settings = WindowRules::new(0.25, 0.1, 5 * SECOND).settings();
        assert_eq!(settings, (0.25, 0.1, 5 * SECOND));
    }

    proptest! {
        #[test]
        fn window_settings_round_trip(ratio in 0.0..=1_000.0, min_per_second in 0.0..=1e9, span: u64) {
            let rules = WindowRules::new(ratio, min_per_second, span);
            let (ratio, min_per_second, span) = rules.settings();
            prop_assert_eq!(WindowRules::new(ratio, min_per_second, span), rules);
        }

        /// Compares the rules with integers: `retries + 1` at most `ratio · requests + min · span`.
        #[test]
        fn window_grants_fractions_as_exact_arithmetic(
            (ratio, min_per_second) in (0_u32..3_000_000, 0_u32..3_000_000),
            millis in 1_000_u64..3_600_000,
            (requests, retries) in (0_u64..1_000, 0_u64..10_000),
        ) {
            let [share, per_second] = [ratio, min_per_second].map(|millionths| f64::from(millionths) / 1e6);
            let rules = WindowRules::new(share, per_second, millis * 1_000_000);
            // In thousandths of a millionth.
            let reserve = u64::from(min_per_second) * millis;
            let allowed = u64::from(ratio) * 1_000 * requests + reserve;
            prop_assert_eq!(rules.grants(requests, retries), (retries + 1) * 1_000_000_000 <= allowed);
            // The largest number of retries, where an error of a millionth would show.
            let most = allowed / 1_000_000_000;
            prop_assert!(!rules.grants(requests, most));
            prop_assert!(most == 0 || rules.grants(requests, most - 1));
        }
    }
}
