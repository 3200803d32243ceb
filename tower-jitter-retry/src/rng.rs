//! The random numbers of the delays.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A stream of random numbers for one call. It is opened at the call's first retry, so that a call
/// without a retry costs nothing.
#[derive(Clone, Debug)]
pub(crate) struct RandomStream(fastrand::Rng);

impl RandomStream {
    pub(crate) fn open(seed: Option<u64>) -> Self {
        Self(seed.map_or_else(fastrand::Rng::new, fastrand::Rng::with_seed))
    }

    pub(crate) fn uniform(&mut self, range: RangeInclusive<u64>) -> u64 {
        self.0.u64(range)
    }
}

/// The stream of a call, or the seed to open it from.
#[derive(Clone, Debug)]
pub(crate) enum Randomness {
    Unseeded,
    Seeded(u64),
    Open(RandomStream),
}

impl Randomness {
    /// Returns the randomness of a new call.
    #[inline]
    pub(crate) fn of(seeds: Option<&Seeds>) -> Self {
        seeds.map_or(Self::Unseeded, |seeds| Self::Seeded(seeds.next()))
    }

    pub(crate) fn uniform(&mut self, range: RangeInclusive<u64>) -> u64 {
        let stream = match self {
            Self::Open(stream) => return stream.uniform(range),
            Self::Unseeded => RandomStream::open(None),
            Self::Seeded(seed) => RandomStream::open(Some(*seed)),
        };
        *self = Self::Open(stream);
        self.uniform(range)
    }
}

/// Generates a seed for each call, in a reproducible order.
#[derive(Clone, Debug)]
pub(crate) struct Seeds {
    first: u64,
    calls: Arc<AtomicU64>,
}

impl Seeds {
    pub(crate) fn from(first: u64) -> Self {
        Self { first, calls: Arc::default() }
    }

    /// Returns the seed that all other seeds are derived from.
    pub(crate) const fn first(&self) -> u64 {
        self.first
    }

    pub(crate) fn next(&self) -> u64 {
        // Drawn twice, so that adjacent seeds share no calls and adjacent calls share no bits.
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        let first = fastrand::Rng::with_seed(self.first).u64(..);
        fastrand::Rng::with_seed(first.wrapping_add(call)).u64(..)
    }
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use super::*;

    fn draws(seed: Option<u64>) -> Vec<u64> {
        let mut stream = RandomStream::open(seed);
        (0..8).map(|_| stream.uniform(0..=u64::MAX)).collect()
    }

    #[test]
    fn calls_draw_from_separate_streams() {
        let seeds = Seeds::from(7);
        let shared = seeds.clone();
        assert_ne!(draws(Some(seeds.next())), draws(Some(shared.next())));
        assert_ne!(draws(None), draws(None));
        let adjacent = Seeds::from(8);
        let of = |seeds: &Seeds| (0..100).map(|_| draws(Some(seeds.next()))).collect::<Vec<_>>();
        let (one, other) = (of(&seeds), of(&adjacent));
        assert!(one.iter().all(|draws| !other.contains(draws)));
    }

    #[test]
    fn seeded_stream_is_reproducible() {
        assert_eq!(draws(Some(Seeds::from(7).next())), draws(Some(Seeds::from(7).next())));
    }
}
