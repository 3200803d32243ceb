//! The one word that every call reads: which state, since when, and what goes with it.
//!
//! ```text
//!  63           40 39     37 36                                  0
//! ┌───────────────┬─────────┬─────────────────────────────────────┐
//! │ epoch         │ state   │ closed: the run of failures         │
//! │               │         │ open: the deadline, in milliseconds │
//! └───────────────┴─────────┴─────────────────────────────────────┘
//! ```
//!
//! State and deadline stand in one word, so that they never disagree. A permit holds the word of its admission with an empty
//! run: if the gate still equals it, nothing has changed and no failure is counted, all known from one comparison.
//!
//! An epoch starts over after 2²⁴ changes of one circuit; an outcome would have to be as many changes late to be taken for a
//! current one. Deadlines compare by wrap, half of the range ahead: an open circuit that nobody asks for more than two years
//! refuses once more.

const PAYLOAD_BITS: u32 = 37;
const STATE_BITS: u32 = 3;
const PAYLOAD: u64 = (1 << PAYLOAD_BITS) - 1;
const STATE: u64 = (1 << STATE_BITS) - 1;

/// The largest epoch.
pub(crate) const LAST_EPOCH: u32 = (1 << (64 - PAYLOAD_BITS - STATE_BITS)) - 1;

const CLOSED: u64 = 0;
const OPEN: u64 = 1;
const HALF_OPEN: u64 = 2;

const NANOS_PER_MILLI: u64 = 1_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gate(u64);

impl Gate {
    pub(crate) const fn from_word(word: u64) -> Self {
        Self(word)
    }

    pub(crate) const fn word(self) -> u64 {
        self.0
    }

    const fn pack(epoch: u32, state: u64, payload: u64) -> Self {
        Self(((epoch as u64) << (PAYLOAD_BITS + STATE_BITS)) | (state << PAYLOAD_BITS) | payload)
    }

    /// Closed, with no failure counted.
    pub(crate) const fn closed(epoch: u32) -> Self {
        Self::pack(epoch, CLOSED, 0)
    }

    /// Open until a time on the circuit's clock, rounded up to the millisecond.
    pub(crate) const fn open(epoch: u32, until: u64) -> Self {
        Self::pack(epoch, OPEN, until.div_ceil(NANOS_PER_MILLI) & PAYLOAD)
    }

    pub(crate) const fn half_open(epoch: u32) -> Self {
        Self::pack(epoch, HALF_OPEN, 0)
    }

    pub(crate) const fn epoch(self) -> u32 {
        (self.0 >> (PAYLOAD_BITS + STATE_BITS)) as u32
    }

    const fn state(self) -> u64 {
        (self.0 >> PAYLOAD_BITS) & STATE
    }

    #[inline]
    pub(crate) const fn is_closed(self) -> bool {
        self.state() == CLOSED
    }

    /// The word of a permit that is given out at this gate, which is closed.
    #[inline]
    pub(crate) const fn stamp(self) -> Self {
        Self(self.0 & !PAYLOAD)
    }

    /// The failures since the last success, of a closed gate.
    pub(crate) const fn run(self) -> u64 {
        self.0 & PAYLOAD
    }

    /// The gate after one more failure. The count stays at its end.
    pub(crate) const fn one_more_failure(self) -> Self {
        if self.run() == PAYLOAD { self } else { Self(self.0 + 1) }
    }

    /// How many nanoseconds an open gate stays open. `None`: it is not open, or its time is over.
    #[inline]
    pub(crate) const fn open_for(self, now: u64) -> Option<u64> {
        if self.state() != OPEN {
            return None;
        }
        let left = self.run().wrapping_sub(now / NANOS_PER_MILLI) & PAYLOAD;
        if left == 0 || left > PAYLOAD / 2 {
            None
        } else {
            Some(left * NANOS_PER_MILLI - now % NANOS_PER_MILLI)
        }
    }
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const YEAR: u64 = 365 * 24 * 60 * 60 * 1_000_000_000;

    #[test]
    fn each_state_is_told_with_its_epoch() {
        for epoch in [0, 1, LAST_EPOCH] {
            assert!(Gate::closed(epoch).is_closed());
            assert!(!Gate::open(epoch, 5).is_closed());
            assert!(!Gate::half_open(epoch).is_closed());
            for gate in [Gate::closed(epoch), Gate::open(epoch, u64::MAX), Gate::half_open(epoch)] {
                assert_eq!(gate.epoch(), epoch);
                assert_eq!(Gate::from_word(gate.word()), gate);
            }
            assert_eq!(Gate::half_open(epoch).open_for(0), None);
        }
    }

    #[test]
    fn a_run_counts_up_and_stays_at_its_end() {
        let gate = Gate::closed(7).one_more_failure().one_more_failure();
        assert_eq!((gate.run(), gate.epoch(), gate.is_closed()), (2, 7, true));
        assert_eq!(gate.stamp(), Gate::closed(7));
        let full = Gate(Gate::closed(7).word() | PAYLOAD);
        assert_eq!(full.one_more_failure(), full);
    }

    proptest! {
        #[test]
        fn a_deadline_is_kept_to_the_millisecond_and_never_early(now in 0..u64::MAX / 2, open_for in 0..=YEAR, later in 0..2 * YEAR) {
            let gate = Gate::open(3, now + open_for);
            let asked = now + later;
            match gate.open_for(asked) {
                Some(left) => {
                    let deadline = asked + left;
                    prop_assert!(deadline >= now + open_for && deadline < now + open_for + NANOS_PER_MILLI);
                }
                None => prop_assert!(asked >= now + open_for),
            }
        }
    }
}
