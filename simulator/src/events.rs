//! The queue of events, ordered by time.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

/// A queue that returns events in the order of their times.
///
/// Events with the same time are returned in the order in which they were added, so that the order
/// does not depend on the heap.
#[derive(Debug)]
pub struct Events<E> {
    heap: BinaryHeap<Reverse<Entry<E>>>,
    added: u64,
    step: u64,
}

#[derive(Debug)]
struct Entry<E> {
    at: u64,
    sequence: u64,
    event: E,
}

impl<E> Events<E> {
    /// Creates an empty queue. The times of its events are rounded up to multiples of `step`, in
    /// nanoseconds.
    ///
    /// # Panics
    ///
    /// Panics if `step` is 0.
    pub fn new(step: u64) -> Self {
        assert!(step > 0, "the step is 0 ns; it must be at least 1 ns");
        Self { heap: BinaryHeap::new(), added: 0, step }
    }

    /// Adds an event that happens at `at`, in nanoseconds. Returns its rounded time.
    pub fn add(&mut self, at: u64, event: E) -> u64 {
        let at = at.checked_next_multiple_of(self.step).unwrap_or(u64::MAX);
        let sequence = self.added;
        self.added += 1;
        self.heap.push(Reverse(Entry { at, sequence, event }));
        at
    }

    /// Removes the next event and returns it with its time.
    pub fn pop(&mut self) -> Option<(u64, E)> {
        self.heap.pop().map(|Reverse(entry)| (entry.at, entry.event))
    }
}

impl<E> Entry<E> {
    const fn key(&self) -> (u64, u64) {
        (self.at, self.sequence)
    }
}

impl<E> PartialEq for Entry<E> {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl<E> Eq for Entry<E> {}

impl<E> PartialOrd for Entry<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> Ord for Entry<E> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// `None` removes an event. The model is a list that is sorted again after each addition.
        #[test]
        fn events_leave_in_the_order_of_a_stable_sort(
            changes in prop::collection::vec(prop::option::of(0..20_u64), 0..200),
            step in 1..5_u64,
        ) {
            let (mut events, mut model) = (Events::new(step), Vec::new());
            for (number, change) in changes.into_iter().enumerate() {
                if let Some(at) = change {
                    let rounded = at.div_ceil(step) * step;
                    prop_assert_eq!(events.add(at, number), rounded);
                    model.push((rounded, number));
                    model.sort_by_key(|&(at, _)| at);
                } else {
                    let expected = (!model.is_empty()).then(|| model.remove(0));
                    prop_assert_eq!(events.pop(), expected);
                }
            }
            let rest: Vec<_> = std::iter::from_fn(|| events.pop()).collect();
            prop_assert_eq!(rest, model);
        }
    }
}
