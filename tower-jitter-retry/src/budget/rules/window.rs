//! When a window budget grants a retry: a pure function in exact fixed point.

/// One request or retry, in millionths.
const ONE: u128 = 1_000_000;

/// The settings of a window budget. Ratios are in millionths, so that a ratio of 0.2 is exact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WindowRules {
    ratio: u64,
    min_per_second: u32,
    /// In nanoseconds.
    span: u64,
    /// The retries of [`min_per_second`](Self::min_per_second) over the span, in millionths.
    reserve: u128,
}

impl WindowRules {
    /// Rules that grant nothing.
    pub(in crate::budget) const NONE: Self = Self { ratio: 0, min_per_second: 0, span: 0, reserve: 0 };

    /// Creates the rules: `ratio` retries per request, and `min_per_second` over a span in
    /// nanoseconds.
    pub(in crate::budget) fn new(ratio: f64, min_per_second: u32, span: u64) -> Self {
        #[expect(clippy::cast_sign_loss, reason = "a ratio is not negative")]
        let ratio = (ratio * ONE as f64).round() as u64;
        let reserve = u128::from(min_per_second) * u128::from(span) * ONE / 1_000_000_000;
        Self { ratio, min_per_second, span, reserve }
    }

    /// Returns the settings: ratio, retries per second, and the span in nanoseconds.
    pub(in crate::budget) const fn settings(&self) -> (f64, u32, u64) {
        (self.ratio as f64 / ONE as f64, self.min_per_second, self.span)
    }

    /// Returns whether one more retry stays within the limit that the requests of the span allow.
    pub(in crate::budget) fn grants(&self, requests: u64, retries: u64) -> bool {
        (u128::from(retries) + 1) * ONE <= u128::from(requests) * u128::from(self.ratio) + self.reserve
    }
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn grant_extreme_values_do_not_overflow() {
        let most = WindowRules::new(1_000.0, u32::MAX, 3_600_000_000_000);
        assert!(most.grants(u64::MAX, u64::MAX));
        assert!(!WindowRules::new(1.0, 0, 1_000_000_000).grants(u64::MAX, u64::MAX));
        assert!(!WindowRules::new(0.0, 0, 1_000_000_000).grants(u64::MAX, 0));
        assert!(WindowRules::new(0.0, 1, 1_000_000_000).grants(0, 0));
        assert!(!WindowRules::new(0.0, 1, 1_000_000_000).grants(0, 1));
    }

    #[test]
    fn window_grants_share_of_requests_and_reserve_exactly() {
        let granted = |rules: WindowRules, requests| {
            (0..1_000).take_while(|&retries| rules.grants(requests, retries)).count()
        };
        let ratio = WindowRules::new(0.2, 0, SECOND);
        assert_eq!([0, 4, 5, 9, 10].map(|requests| granted(ratio, requests)), [0, 0, 1, 1, 2]);
        let reserve = WindowRules::new(0.0, 10, 10 * SECOND);
        assert_eq!([0, 1_000].map(|requests| granted(reserve, requests)), [100, 100]);
        let both = WindowRules::new(0.2, 10, SECOND / 2);
        assert_eq!([0, 4, 5, 50].map(|requests| granted(both, requests)), [5, 5, 6, 15]);
        assert_eq!(granted(WindowRules::NONE, u64::MAX), 0);
    }

    #[test]
    fn window_rules_return_their_settings() {
        let settings = WindowRules::new(0.25, 3, 5 * SECOND).settings();
        assert_eq!(settings, (0.25, 3, 5 * SECOND));
    }
}
