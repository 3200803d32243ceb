//! The random numbers of the open jitter.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Generates a seed for each circuit of a configuration, in a reproducible order.
///
/// The clones of a configuration share the sequence.
#[derive(Clone, Debug)]
pub(crate) struct Seeds {
    first: u64,
    circuits: Arc<AtomicU64>,
}

impl Seeds {
    /// A constant of this crate, so that the same seed in another crate gives unrelated numbers.
    const OWN: u64 = 0x6f70_656e_6a69_7474;

    pub(crate) fn from(first: u64) -> Self {
        Self { first, circuits: Arc::default() }
    }

    /// Returns the seed that all other seeds are derived from.
    pub(crate) const fn first(&self) -> u64 {
        self.first
    }

    /// Returns the seed of a new circuit.
    fn next(&self) -> u64 {
        // Drawn twice, so that adjacent seeds share no circuits and adjacent circuits share no
        // bits.
        let circuit = self.circuits.fetch_add(1, Ordering::Relaxed);
        let first = fastrand::Rng::with_seed(self.first ^ Self::OWN).u64(..);
        fastrand::Rng::with_seed(first.wrapping_add(circuit)).u64(..)
    }
}

/// The position in the sequence is not a setting, so it is not compared.
impl PartialEq for Seeds {
    fn eq(&self, other: &Self) -> bool {
        self.first == other.first
    }
}

/// The random numbers of one circuit, each of them for one open period.
#[derive(Debug)]
pub(crate) enum JitterStream {
    Unseeded {
        /// The number of the next open period, once it has been drawn.
        next: Option<f64>,
    },
    Seeded {
        /// The seed of the configuration.
        first: u64,
        rng: fastrand::Rng,
    },
}

impl JitterStream {
    /// Returns the stream of a new circuit.
    pub(crate) fn of(seeds: Option<&Seeds>) -> Self {
        seeds.map_or(Self::Unseeded { next: None }, |seeds| Self::Seeded {
            first: seeds.first(),
            rng: fastrand::Rng::with_seed(seeds.next()),
        })
    }

    /// Changes to the stream of another configuration. A stream of the configuration's seed
    /// continues.
    pub(crate) fn reconfigure(&mut self, seeds: Option<&Seeds>) {
        let own = match self {
            Self::Unseeded { .. } => None,
            Self::Seeded { first, .. } => Some(*first),
        };
        if own != seeds.map(Seeds::first) {
            *self = Self::of(seeds);
        }
    }

    /// Returns the number of the next open period, from 0 to 1.
    ///
    /// It is the same number until [`advance`](Self::advance). So a decision that does not open the
    /// circuit changes no later number.
    pub(crate) fn peek(&mut self) -> f64 {
        match self {
            Self::Unseeded { next } => *next.get_or_insert_with(fastrand::f64),
            Self::Seeded { rng, .. } => rng.clone().f64(),
        }
    }

    /// Moves on to the number of the open period after the next one.
    pub(crate) fn advance(&mut self) {
        match self {
            Self::Unseeded { next } => *next = None,
            Self::Seeded { rng, .. } => {
                rng.f64();
            }
        }
    }
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use super::*;

    fn draws(mut stream: JitterStream) -> Vec<u64> {
        let next = |_| {
            let draw = stream.peek();
            stream.advance();
            assert!((0.0..1.0).contains(&draw), "{draw}");
            draw.to_bits()
        };
        (0..8).map(next).collect()
    }

    #[test]
    fn circuits_draw_from_separate_streams() {
        let of = |seeds: &Seeds| (0..100).map(|_| draws(JitterStream::of(Some(seeds)))).collect::<Vec<_>>();
        let seeds = Seeds::from(7);
        let (one, clone, adjacent) = (of(&seeds), of(&seeds.clone()), of(&Seeds::from(8)));
        assert!(one.iter().all(|draws| !clone.contains(draws) && !adjacent.contains(draws)));
        assert_eq!(one, of(&Seeds::from(7)));
        assert_ne!(draws(JitterStream::of(None)), draws(JitterStream::of(None)));
    }

    #[test]
    fn seeded_stream_changes_only_with_advance_or_another_seed() {
        let mut stream = JitterStream::of(Some(&Seeds::from(7)));
        let first = stream.peek().to_bits();
        assert_eq!(stream.peek().to_bits(), first);
        stream.reconfigure(Some(&Seeds::from(7)));
        assert_eq!(stream.peek().to_bits(), first);
        stream.advance();
        let second = stream.peek().to_bits();
        assert_ne!(second, first);
        stream.reconfigure(Some(&Seeds::from(7)));
        assert_eq!(stream.peek().to_bits(), second, "the stream does not start again");
        stream.reconfigure(Some(&Seeds::from(8)));
        assert_eq!(draws(stream), draws(JitterStream::of(Some(&Seeds::from(8)))));
    }
}
