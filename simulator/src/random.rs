//! Streams of random numbers, derived from one seed.
//!
//! All values are the same on every machine. The generator is PCG64, whose output is defined by its
//! authors. Logarithms come from `libm`: those of the standard library depend on the system.

use std::ops::RangeInclusive;

use rand_pcg::Pcg64;
use rand_pcg::rand_core::Rng;

/// The use of a stream.
///
/// Each use has a stream of its own. A change of one part of a run therefore leaves the random
/// numbers of the other parts unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// The times between arrivals.
    Arrivals,
    /// The process and the shard of each request.
    Choices,
    /// How long the server works on a request, and which requests fail.
    Server,
    /// The seeds of policies, circuits and models.
    Seeds,
    /// The random numbers of a model.
    Model,
    /// The times of messages.
    Network,
}

/// A stream of random numbers.
#[derive(Clone, Debug)]
pub struct Random(Pcg64);

impl Random {
    /// Creates the stream for one use in the run with this seed.
    pub fn new(seed: u64, stream: Stream) -> Self {
        let stream = stream as u64;
        // Adjacent seeds and streams must share no bits of the generator's initial state.
        let high = mixed(seed);
        let low = mixed(high ^ mixed(stream));
        Self(Pcg64::new(u128::from(high) << 64 | u128::from(low), u128::from(stream)))
    }

    /// Returns 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// Returns a uniform number below `bound`, or 0 if `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        // Lemire's method: the high half of a product. A low half below `reject` would make some
        // numbers more frequent than others.
        let reject = if bound == 0 { 0 } else { bound.wrapping_neg() % bound };
        loop {
            let product = u128::from(self.bits()) * u128::from(bound);
            if product as u64 >= reject {
                return (product >> 64) as u64;
            }
        }
    }

    /// Returns a uniform number of the range.
    pub fn within(&mut self, range: RangeInclusive<u64>) -> u64 {
        let (first, last) = range.into_inner();
        match (last - first).checked_add(1) {
            Some(count) => first + self.below(count),
            None => self.bits(),
        }
    }

    /// Returns whether an event happens whose probability is `per_mille` / 1000.
    pub fn happens(&mut self, per_mille: u32) -> bool {
        self.below(1_000) < u64::from(per_mille)
    }

    /// Returns a nearly normally distributed number with this mean and standard deviation, or 0 if
    /// it would be negative.
    pub fn normal(&mut self, mean: u64, deviation: u64) -> u64 {
        // The sum of twelve uniform numbers below `deviation` has the mean `6 * deviation`. Its
        // variance is twelve times `deviation² / 12`.
        let sum: u64 = (0..12).map(|_| self.within(0..=deviation)).sum();
        (mean + sum).saturating_sub(6 * deviation)
    }

    /// Returns an exponentially distributed number with this mean, rounded down.
    #[expect(clippy::cast_sign_loss, reason = "the logarithm of a number up to 1 is not positive")]
    pub fn exponential(&mut self, mean: u64) -> u64 {
        // A multiple of 2⁻⁵³, in 2⁻⁵³ ..= 1. Each operation is rounded as IEEE 754 defines.
        let uniform = ((self.bits() >> 11) + 1) as f64 / (1_u64 << 53) as f64;
        (mean as f64 * -libm::log(uniform)) as u64
    }
}

/// Mixes the bits of a number, as the generator `SplitMix64` does.
const fn mixed(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_have_the_same_values_on_every_machine() {
        let mut random = Random::new(1, Stream::Arrivals);
        let drawn = [random.bits(), random.below(1_000), random.exponential(1_000_000_000)];
        assert_eq!(drawn, [15_969_376_285_601_686_428, 228, 3_418_902_561]);
    }

    #[test]
    fn streams_of_seeds_and_uses_differ() {
        let first = |seed, stream| Random::new(seed, stream).bits();
        let mut all: Vec<_> = (0..100)
            .flat_map(|seed| {
                [Stream::Arrivals, Stream::Choices, Stream::Server].map(|stream| first(seed, stream))
            })
            .collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 300);
    }

    #[test]
    fn exponential_has_its_mean_and_variance() {
        let mut random = Random::new(7, Stream::Arrivals);
        let drawn: Vec<_> = (0..100_000).map(|_| random.exponential(1_000_000)).collect();
        let mean = drawn.iter().sum::<u64>() / 100_000;
        assert!((990_000..1_010_000).contains(&mean), "{mean}");
        // e⁻¹ of all values exceed the mean.
        let above = drawn.iter().filter(|&&value| value > 1_000_000).count();
        assert!((36_200..37_400).contains(&above), "{above}");
    }

    #[test]
    fn normal_has_its_mean_and_deviation() {
        let mut random = Random::new(7, Stream::Network);
        let drawn: Vec<_> = (0..100_000).map(|_| random.normal(10_000, 2_000)).collect();
        let mean = drawn.iter().sum::<u64>() / 100_000;
        assert!((9_980..10_020).contains(&mean), "{mean}");
        // 68.3 % of a normal distribution are within one deviation, and 95.4 % within two.
        for (width, share) in [(2_000, 67_700..68_900), (4_000, 95_000..95_900)] {
            let within = drawn.iter().filter(|value| value.abs_diff(10_000) <= width).count();
            assert!(share.contains(&within), "{width}: {within}");
        }
        assert_eq!(random.normal(5, 0), 5);
    }

    #[test]
    fn uniform_draws_cover_the_range_evenly() {
        let mut random = Random::new(7, Stream::Choices);
        let mut counts = [0; 7];
        for _ in 0..70_000 {
            counts[random.within(3..=9) as usize - 3] += 1;
        }
        assert!(counts.iter().all(|count| (9_600..10_400).contains(count)), "{counts:?}");
        assert_eq!((random.below(0), random.below(1), random.within(5..=5)), (0, 0, 5));
        random.within(0..=u64::MAX);
        // 2⁶⁴ is no multiple of this bound. Without a rejection, a third of the numbers would be
        // drawn twice as often as the others.
        let mut thirds = [0; 3];
        for _ in 0..30_000 {
            thirds[(random.below(3 << 62) % 3) as usize] += 1;
        }
        assert!(thirds.iter().all(|count| (9_700..10_300).contains(count)), "{thirds:?}");
    }
}
