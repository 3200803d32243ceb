//! A counter that many threads add to without meeting each other.

use super::ring::PaddedRing;
use super::thread_slot;

/// A ring for each thread's number, and one for the threads without.
///
/// An addition is a load and a store in the thread's own ring; a sum reads them all. A sum sees every addition that
/// happened before it in the order that the caller's own synchronisation makes, and may miss those that run beside it.
#[derive(Debug)]
pub struct StripedCounter {
    owned: Box<[PaddedRing]>,
    shared: PaddedRing,
}

impl StripedCounter {
    /// Empty, with a ring for each number that [`thread_slot`](thread_slot::thread_slot) gives out.
    pub fn new() -> Self {
        Self::with_stripes(thread_slot::slot_count())
    }

    /// Empty, with `stripes` owned rings. A slot beyond them shares.
    pub fn with_stripes(stripes: usize) -> Self {
        Self { owned: (0..stripes).map(|_| PaddedRing::default()).collect(), shared: PaddedRing::default() }
    }

    /// Adds `count` to the bucket `tag`. `slot` is the calling thread's own number, from [`thread_slot`](thread_slot::thread_slot).
    #[inline]
    pub fn add(&self, slot: Option<usize>, tag: u64, count: u32) {
        match slot.and_then(|slot| self.owned.get(slot)) {
            Some(ring) => ring.add_exclusive(tag, count),
            None => self.add_shared(tag, count),
        }
    }

    #[cold]
    fn add_shared(&self, tag: u64, count: u32) {
        self.shared.add(tag, count);
    }

    /// The sum over the span that ends with the bucket `tag`.
    pub fn sum(&self, tag: u64) -> u64 {
        self.rings().map(|ring| ring.sum(tag)).sum()
    }

    /// Whether the sum over the span that ends with the bucket `tag` is `enough`. A larger sum must be so too: the rest of the rings is
    /// not read once a part of it is.
    pub fn sum_satisfies(&self, tag: u64, enough: impl Fn(u64) -> bool) -> bool {
        let mut sum = 0;
        let mut rings = self.rings();
        loop {
            if enough(sum) {
                return true;
            }
            let Some(ring) = rings.next() else { return false };
            sum += ring.sum(tag);
        }
    }

    /// Clears the cells that are not in the span that ends with the bucket `keep`; `None`: all
    /// cells. See [`BucketRing::clear_expired`](super::BucketRing::clear_expired).
    pub fn clear_expired(&self, keep: Option<u64>) {
        self.rings().for_each(|ring| ring.clear_expired(keep));
    }

    fn rings(&self) -> impl Iterator<Item = &PaddedRing> {
        self.owned.iter().chain([&self.shared])
    }
}

impl Default for StripedCounter {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn striped_concurrent_adds_are_all_counted() {
        let striped = StripedCounter::with_stripes(4);
        thread::scope(|scope| {
            for thread in 0..8 {
                let striped = &striped;
                scope.spawn(move || {
                    // Four threads own a stripe, four share.
                    let slot = (thread < 4).then_some(thread);
                    for _ in 0..10_000 {
                        striped.add(slot, 7, 1);
                    }
                });
            }
        });
        assert_eq!(striped.sum(7), 80_000);
        assert!(striped.sum_satisfies(7, |sum| sum == 80_000) && striped.sum_satisfies(7, |_| true));
        assert!(
            !striped.sum_satisfies(7, |sum| sum > 80_000) && !striped.sum_satisfies(8 + 16, |sum| sum > 0)
        );
    }
}

#[cfg(all(test, loom_models))]
mod models {
    use loom::thread;

    use super::*;
    use crate::__internals::sync::{AtomicU64, Ordering};
    use loom::sync::Arc;

    /// Two threads share a ring, one owns a stripe; whoever is told that all are done sees every addition.
    #[test]
    fn loom_striped_sum_sees_earlier_adds() {
        loom::model(|| {
            let striped = Arc::new((StripedCounter::with_stripes(1), AtomicU64::new(0)));
            let add = |slot: Option<usize>| {
                let striped = Arc::clone(&striped);
                thread::spawn(move || {
                    striped.0.add(slot, 7, 1);
                    striped.1.fetch_add(1, Ordering::AcqRel) == 1
                })
            };
            let shares = add(None);
            let owns = add(Some(0));
            let last = [shares.join().unwrap(), owns.join().unwrap()];
            assert_eq!(last.iter().filter(|last| **last).count(), 1);
            assert_eq!(striped.0.sum(7), 2);
        });
    }

    #[test]
    fn loom_striped_bucket_replaced_keeps_concurrent_add() {
        loom::model(|| {
            let striped = Arc::new(StripedCounter::with_stripes(0));
            striped.add(None, 3, 9);
            let beside = Arc::clone(&striped);
            let other = thread::spawn(move || beside.add(None, 19, 1));
            striped.add(None, 19, 1);
            other.join().unwrap();
            assert_eq!(striped.sum(19), 2);
        });
    }
}
