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
}

#[derive(Debug)]
struct Entry<E> {
    at: u64,
    sequence: u64,
    event: E,
}

impl<E> Events<E> {
    /// Creates an empty queue.
    pub fn new() -> Self {
        Self { heap: BinaryHeap::new(), added: 0 }
    }

    /// Adds an event that happens at `at`, in nanoseconds.
    pub fn add(&mut self, at: u64, event: E) {
        let sequence = self.added;
        self.added += 1;
        self.heap.push(Reverse(Entry { at, sequence, event }));
    }

    /// Removes the next event and returns it with its time.
    pub fn pop(&mut self) -> Option<(u64, E)> {
        self.heap.pop().map(|Reverse(entry)| (entry.at, entry.event))
    }
}

impl<E> Default for Events<E> {
    fn default() -> Self {
        Self::new()
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
        fn events_leave_in_the_order_of_a_stable_sort(steps in prop::collection::vec(prop::option::of(0..20_u64), 0..200)) {
            let (mut events, mut model) = (Events::new(), Vec::new());
            for (number, step) in steps.into_iter().enumerate() {
                if let Some(at) = step {
                    events.add(at, number);
                    model.push((at, number));
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
