//! Tasks that wait for something else and want to hear of a change of the circuit.

use std::mem;
use std::task::Waker;

/// Where a task is registered. It is void once the round is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seat {
    round: u64,
    index: usize,
}

/// What a task waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WaitsFor {
    /// A change of the circuit.
    Change,
    /// A change of the circuit, or a free place for a probe.
    Place,
}

/// The wakers of one round. A change of the circuit ends the round and wakes them all.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    round: u64,
    seats: Vec<Option<Waker>>,
    free: Vec<usize>,
    /// Somebody waits for a place.
    places: bool,
}

impl Waiters {
    /// Registers a task, at the seat that it has already if that is still its own. The waker that
    /// is registered no longer is returned, so that it is dropped outside the lock.
    pub(crate) fn register(
        &mut self,
        seat: Option<Seat>,
        waker: Waker,
        what: WaitsFor,
    ) -> (Seat, Option<Waker>) {
        self.places |= what == WaitsFor::Place;
        if let Some(seat) = seat.filter(|seat| seat.round == self.round)
            && let Some(Some(registered)) = self.seats.get_mut(seat.index)
        {
            return (seat, Some(mem::replace(registered, waker)));
        }
        let index = if let Some(index) = self.free.pop() {
            self.seats[index] = Some(waker);
            index
        } else {
            self.seats.push(Some(waker));
            self.seats.len() - 1
        };
        (Seat { round: self.round, index }, None)
    }

    /// Frees a seat. The waker is returned so that it is dropped outside the lock.
    pub(crate) fn leave(&mut self, seat: Seat) -> Option<Waker> {
        if seat.round != self.round {
            return None;
        }
        let waker = self.seats.get_mut(seat.index)?.take();
        if waker.is_some() {
            self.free.push(seat.index);
        }
        waker
    }

    /// Whether a free place is worth ending the round.
    pub(crate) const fn want_places(&self) -> bool {
        self.places
    }

    /// Ends the round. The wakers are to be woken outside the lock.
    pub(crate) fn drain(&mut self) -> Vec<Option<Waker>> {
        self.round = self.round.wrapping_add(1);
        self.free.clear();
        self.places = false;
        mem::take(&mut self.seats)
    }
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use super::*;

    #[test]
    fn a_task_keeps_its_seat_until_the_round_ends() {
        let waker = || Waker::noop().clone();
        let mut waiters = Waiters::default();
        let (seat, _) = waiters.register(None, waker(), WaitsFor::Change);
        let (same, former) = waiters.register(Some(seat), waker(), WaitsFor::Change);
        assert_eq!((same, former.is_some()), (seat, true));
        let (other, _) = waiters.register(None, waker(), WaitsFor::Change);
        assert_ne!(seat, other);
        assert!(waiters.leave(seat).is_some());
        assert!(waiters.leave(seat).is_none(), "a seat is left once");
        assert_eq!(waiters.register(None, waker(), WaitsFor::Change).0, seat, "a free seat is taken again");
        assert_eq!(waiters.drain().into_iter().flatten().count(), 2);
        assert!(waiters.leave(other).is_none(), "the round is over");
        let (next, _) = waiters.register(Some(other), waker(), WaitsFor::Place);
        assert_ne!(next, other);
        assert!(waiters.want_places());
        assert_eq!(waiters.drain().len(), 1);
        assert!(!waiters.want_places(), "nobody waits in the next round");
    }

    #[test]
    fn memory_is_bounded_by_those_who_wait_at_once() {
        let mut waiters = Waiters::default();
        for _ in 0..10_000 {
            let (seat, _) = waiters.register(None, Waker::noop().clone(), WaitsFor::Change);
            waiters.leave(seat);
        }
        assert_eq!(waiters.drain().len(), 1);
    }
}
