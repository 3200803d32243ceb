//! Spreads delays, so that clients that failed together do not return together.

use core::ops::RangeInclusive;

/// How a delay is drawn below the backoff's ceiling.
///
/// It is drawn uniformly, in nanoseconds, from a range that was cut at the cap; never drawn first and cut afterwards, which would
/// pile every client up at the cap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Jitter {
    /// The ceiling itself. For tests, and for a single client.
    None,
    /// Anything from 0 to the ceiling: the least load on the server for the same number of retries (M. Brooker, "Exponential
    /// Backoff and Jitter", AWS Architecture Blog, 2015).
    #[default]
    Full,
}

/// The longest that a server's own delay is stretched: 5 s.
const LONGEST_STRETCH: u64 = 5_000_000_000;

impl Jitter {
    /// A delay below a ceiling. `uniform` draws from a range.
    pub(crate) fn draw(self, ceiling: u64, uniform: impl FnOnce(RangeInclusive<u64>) -> u64) -> u64 {
        match self {
            Self::None => ceiling,
            Self::Full => uniform(0..=ceiling),
        }
    }

    /// A delay that a server asked for, stretched by up to half of it, never shortened: clients that were told the same do not
    /// come back in the same millisecond.
    pub(crate) fn stretch(self, delay: u64, uniform: impl FnOnce(RangeInclusive<u64>) -> u64) -> u64 {
        match self {
            Self::None => delay,
            Self::Full => delay.saturating_add(uniform(0..=(delay / 2).min(LONGEST_STRETCH))),
        }
    }
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn draws(draw: impl Fn(&mut fastrand::Rng) -> u64) -> Vec<u64> {
        let mut rng = fastrand::Rng::with_seed(7);
        (0..100_000).map(|_| draw(&mut rng)).collect()
    }

    fn mean(draws: &[u64]) -> f64 {
        draws.iter().map(|draw| *draw as f64).sum::<f64>() / draws.len() as f64
    }

    #[test]
    fn full_jitter_is_uniform_below_the_ceiling_in_nanoseconds() {
        let draws = draws(|rng| Jitter::Full.draw(SECOND, |range| rng.u64(range)));
        assert!(draws.iter().all(|draw| *draw <= SECOND));
        let mean = mean(&draws) / SECOND as f64;
        assert!((mean - 0.5).abs() < 0.005, "a mean of {mean}");
        let variance =
            draws.iter().map(|draw| (*draw as f64 / SECOND as f64 - mean).powi(2)).sum::<f64>() / 1e5;
        assert!((variance - 1.0 / 12.0).abs() < 0.002, "a variance of {variance}");
        let whole_millis = draws.iter().filter(|draw| *draw % 1_000_000 == 0).count();
        assert!(whole_millis < 10, "{whole_millis} draws are whole milliseconds");
        let at_the_cap = draws.iter().filter(|draw| **draw > SECOND - SECOND / 1_000).count();
        assert!((50..200).contains(&at_the_cap), "{at_the_cap} of 100,000 draws in the last thousandth");
    }

    #[test]
    fn a_servers_delay_is_stretched_by_half_at_most_and_never_shortened() {
        let draws = draws(|rng| Jitter::Full.stretch(4 * SECOND, |range| rng.u64(range)));
        assert!(draws.iter().all(|draw| (4 * SECOND..=6 * SECOND).contains(draw)));
        assert!((mean(&draws) / SECOND as f64 - 5.0).abs() < 0.01);
        assert_eq!(Jitter::Full.stretch(60 * SECOND, |range| *range.end()), 65 * SECOND);
        assert_eq!(Jitter::Full.stretch(u64::MAX, |range| *range.end()), u64::MAX);
        assert_eq!(Jitter::None.stretch(SECOND, |range| *range.end()), SECOND);
    }
}
