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
    #[expect(clippy::float_cmp, reason = "a quotient is rounded once, as the literal is")]
    fn window_available_is_what_requests_allow_and_retries_leave() {
        let rules = WindowRules::new(0.2, 1, 2 * SECOND);
        let available = [(0, 0), (1, 0), (7, 3), (5, 3), (5, 4)]
            .map(|(requests, retries)| rules.available(requests, retries));
        assert_eq!(available, [2.0, 2.2, 0.4, 0.0, 0.0]);
        let most = WindowRules::new(1_000.0, 0, SECOND).available(u64::MAX, 0);
        assert_eq!(most, u64::MAX as f64 * 1_000.0);
    }

    #[test]
    fn window_rules_return_their_settings() {
        let settings = WindowRules::new(0.25, 3, 5 * SECOND).settings();
        assert_eq!(settings, (0.25, 3, 5 * SECOND));
    }
}
