//! Cuts time into the buckets of a [`PaddedRing`](super::PaddedRing).

use super::ring::TAGS_PER_EPOCH;

/// Fifteen buckets of a span, and the one that is being filled: what a ring holds is as long as the span, and up to a bucket
/// longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeBuckets {
    /// 2⁶⁴ over a bucket's length, rounded up: a bucket's number is then a multiplication instead of a division.
    scale: u64,
    /// What is added to every tag.
    offset: u64,
}

impl TimeBuckets {
    /// Divides a span in nanoseconds into the buckets that a [`PaddedRing`](super::PaddedRing) holds.
    pub const fn new(span: u64) -> Self {
        Self::with_count(span, 15)
    }

    /// Divides a span in nanoseconds into `parts` buckets.
    pub const fn with_count(span: u64, parts: u64) -> Self {
        let bucket = span.div_ceil(parts);
        let bucket = if bucket < 2 { 2 } else { bucket };
        Self { scale: u64::MAX / bucket + 1, offset: 0 }
    }

    /// The same buckets, to be used from `now` on in the rings where `others` were used until
    /// `others_now`, which may be the time of another clock. The rings start empty.
    pub const fn continue_after(self, others: Self, others_now: u64, now: u64) -> Self {
        let offset = others.tag(others_now, 1).wrapping_sub(Self { offset: 0, ..self }.tag(now, 0));
        Self { offset, ..self }
    }

    /// The tag of the bucket at a time of an epoch.
    #[inline]
    pub const fn tag(&self, now: u64, epoch: u32) -> u64 {
        let bucket = ((now as u128 * self.scale as u128) >> 64) as u64;
        bucket.wrapping_add((epoch as u64).wrapping_mul(TAGS_PER_EPOCH)).wrapping_add(self.offset)
    }

    /// The two words that they can be kept as.
    pub const fn to_words(self) -> [u64; 2] {
        [self.scale, self.offset]
    }

    /// The buckets that were kept as these words.
    #[inline]
    pub const fn from_words([scale, offset]: [u64; 2]) -> Self {
        Self { scale, offset }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bucket_is_a_fifteenth_of_the_window() {
        let buckets = TimeBuckets::new(60_000_000_000);
        assert_eq!((buckets.tag(0, 0), buckets.tag(3_999_999_999, 0)), (0, 0));
        assert_eq!((buckets.tag(4_000_000_000, 0), buckets.tag(60_000_000_000, 0)), (1, 15));
        assert_eq!(buckets.tag(4_000_000_000, 3), 1 + 3 * TAGS_PER_EPOCH);
    }

    #[test]
    fn bucket_change_starts_a_new_epoch() {
        for (old, new, times) in [
            (60, 600, [10_000_000, 10_000_000]),
            (600, 60, [10_000_000, 10_000_000]),
            (1, 1_000_000, [7, 7]),
            (60, 60, [10_000_000, 0]),
            (60, 1, [0, 10_000_000]),
        ] {
            let [old, new] = [old, new].map(|seconds| TimeBuckets::new(seconds * 1_000_000_000));
            let [old_now, now] = times.map(|seconds| seconds * 1_000_000_000);
            let after = new.continue_after(old, old_now, now);
            assert_eq!(after.tag(now, 5), old.tag(old_now, 6));
            assert_eq!(TimeBuckets::from_words(after.to_words()), after);
            assert_eq!(old.continue_after(after, now, old_now).tag(old_now, 5), old.tag(old_now, 7));
        }
    }

    proptest! {
        #[test]
        fn bucket_tags_are_monotonic_and_cover_window(span in 1..u64::MAX / 4, now in 0..u64::MAX / 4, later in 0..u64::MAX / 4) {
            let buckets = TimeBuckets::new(span);
            let age = buckets.tag(now + later, 0) - buckets.tag(now, 0);
            prop_assert!(later > span || age <= 16, "{age} buckets in a span");
        }
    }
}
