//! How long to wait before the next attempt: pure mathematics, in nanoseconds, the cap applied last.

mod jitter;

pub use jitter::Jitter;

/// A ceiling that grows by a factor with every retry, up to a cap. Times are in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Exponential {
    pub(crate) base: u64,
    pub(crate) factor: f64,
    pub(crate) cap: u64,
}

impl Exponential {
    /// The ceiling before a retry, the first one being number 1: `min(cap, base · factor^(retry - 1))`.
    pub(crate) fn ceiling(&self, retry: u32) -> u64 {
        let exponent = i32::try_from(retry.saturating_sub(1)).unwrap_or(i32::MAX);
        let grown = self.base as f64 * self.factor.powi(exponent);
        #[expect(clippy::cast_sign_loss, reason = "neither factor is negative")]
        // The conversion saturates, and makes 0 of a NaN, which an infinite power of nothing would be.
        let grown = grown as u64;
        grown.min(self.cap)
    }
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MILLI: u64 = 1_000_000;

    #[test]
    fn it_doubles_up_to_its_cap() {
        let backoff = Exponential { base: 100 * MILLI, factor: 2.0, cap: 10_000 * MILLI };
        let ceilings: Vec<_> = (1..=9).map(|retry| backoff.ceiling(retry) / MILLI).collect();
        assert_eq!(ceilings, [100, 200, 400, 800, 1_600, 3_200, 6_400, 10_000, 10_000]);
    }

    #[test]
    fn extremes_saturate() {
        let backoff = Exponential { base: 1, factor: 1_000.0, cap: u64::MAX };
        assert_eq!(backoff.ceiling(u32::MAX), u64::MAX);
        let nothing = Exponential { base: 0, factor: 1_000.0, cap: u64::MAX };
        assert_eq!(nothing.ceiling(u32::MAX), 0);
        let level = Exponential { base: 7, factor: 1.0, cap: 9 };
        assert_eq!((level.ceiling(0), level.ceiling(1), level.ceiling(u32::MAX)), (7, 7, 7));
    }

    proptest! {
        #[test]
        fn it_never_falls_and_never_passes_the_cap(base in 0..u64::MAX, cap in 0..u64::MAX, factor in 1.0..1_000.0, retry in 0_u32..2_000) {
            let backoff = Exponential { base: base.min(cap), factor, cap };
            let ceiling = backoff.ceiling(retry);
            prop_assert!(ceiling <= cap);
            prop_assert!(backoff.ceiling(retry + 1) >= ceiling);
        }
    }
}
