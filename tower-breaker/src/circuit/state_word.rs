//! The one word that every call reads: which state, since when, and what goes with it.
//!
//! ```text
//!  63           40 39     37 36                                  0
//! ┌───────────────┬─────────┬──────┬──────────────────────────────┐
//! │ epoch         │ closed  │ ramp │ the run of failures          │
//! │               │ others  │                                     │
//! └───────────────┴─────────┴──────┴──────────────────────────────┘
//! ```
//!
//! The deadline of an open circuit is in a word of its own, which is written before the gate opens:
//! see [`Core::open_for`](super::Core::open_for). A permit holds the word of its admission with an
//! empty payload: if the gate still equals it, nothing has changed, no failure is counted and no
//! ramp is on, all known from one comparison.
//!
//! An epoch starts over after 2²⁴ changes of one circuit; an outcome would have to be as many changes late to be taken for a
//! current one.

use crate::machine::{CircuitState, Sign};

const PAYLOAD_BITS: u32 = 37;
const STATE_BITS: u32 = 3;
const PAYLOAD: u64 = (1 << PAYLOAD_BITS) - 1;
const STATE: u64 = (1 << STATE_BITS) - 1;
/// Not every call is let through yet.
const RAMP: u64 = 1 << (PAYLOAD_BITS - 1);
const RUN: u64 = RAMP - 1;

/// The largest epoch.
pub(crate) const LAST_EPOCH: u32 = (1 << (64 - PAYLOAD_BITS - STATE_BITS)) - 1;

const CLOSED: u64 = 0;
const OPEN: u64 = 1;
const HALF_OPEN: u64 = 2;
const HELD: u64 = 3;
const FREE: u64 = 4;

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

    /// The gate at which a machine's sign stands.
    pub(crate) const fn of(sign: Sign, epoch: u32) -> Self {
        match sign {
            Sign::Closed { ramping: false } => Self::pack(epoch, CLOSED, 0),
            Sign::Closed { ramping: true } => Self::pack(epoch, CLOSED, RAMP),
            Sign::OpenUntil(_) => Self::pack(epoch, OPEN, 0),
            Sign::Held => Self::pack(epoch, HELD, 0),
            Sign::HalfOpen => Self::pack(epoch, HALF_OPEN, 0),
            Sign::Free => Self::pack(epoch, FREE, 0),
        }
    }

    /// The gate of a new circuit.
    pub(crate) const fn at_first(disabled: bool) -> Self {
        Self::of(if disabled { Sign::Free } else { Sign::Closed { ramping: false } }, 0)
    }

    /// Closed, with no failure counted, letting all through.
    pub(crate) const fn closed(epoch: u32) -> Self {
        Self::pack(epoch, CLOSED, 0)
    }

    /// Where a circuit stands that has never changed.
    pub(crate) const fn untroubled_state(self) -> CircuitState {
        if self.is_free() { CircuitState::Disabled } else { CircuitState::Closed }
    }

    /// The word of a permit whose call is not counted in the window.
    pub(crate) const fn free(epoch: u32) -> Self {
        Self::pack(epoch, FREE, 0)
    }

    pub(crate) const fn epoch(self) -> u32 {
        (self.0 >> (PAYLOAD_BITS + STATE_BITS)) as u32
    }

    const fn state(self) -> u64 {
        (self.0 >> PAYLOAD_BITS) & STATE
    }

    /// Whether every call is let through and counted.
    #[inline]
    pub(crate) const fn lets_all_through(self) -> bool {
        self.0 & (STATE << PAYLOAD_BITS | RAMP) == CLOSED << PAYLOAD_BITS
    }

    pub(crate) const fn is_closed(self) -> bool {
        self.state() == CLOSED
    }

    pub(crate) const fn is_half_open(self) -> bool {
        self.state() == HALF_OPEN
    }

    pub(crate) const fn is_free(self) -> bool {
        self.state() == FREE
    }

    /// The word of a permit that is given out at this gate, which is closed.
    #[inline]
    pub(crate) const fn stamp(self) -> Self {
        Self(self.0 & !PAYLOAD)
    }

    /// The failures since the last success, of a closed gate.
    pub(crate) const fn run(self) -> u64 {
        self.0 & RUN
    }

    /// The gate without its failures.
    pub(crate) const fn without_run(self) -> Self {
        Self(self.0 & !RUN)
    }

    /// The gate without its ramp.
    pub(crate) const fn without_ramp(self) -> Self {
        Self(self.0 & !RAMP)
    }

    /// The gate after one more failure. The count stays at its end.
    pub(crate) const fn one_more_failure(self) -> Self {
        if self.run() == RUN { self } else { Self(self.0 + 1) }
    }

    /// Whether it is open until a deadline, which may be over.
    #[inline]
    pub(crate) const fn is_timed(self) -> bool {
        self.state() == OPEN
    }
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use super::*;

    const SIGNS: [Sign; 6] = [
        Sign::Closed { ramping: false },
        Sign::Closed { ramping: true },
        Sign::OpenUntil(u64::MAX),
        Sign::Held,
        Sign::HalfOpen,
        Sign::Free,
    ];

    #[test]
    fn each_state_is_told_with_its_epoch() {
        for epoch in [0, 1, LAST_EPOCH] {
            for (place, sign) in SIGNS.into_iter().enumerate() {
                let gate = Gate::of(sign, epoch);
                assert_eq!(gate.epoch(), epoch);
                assert_eq!(Gate::from_word(gate.word()), gate);
                assert_eq!(gate.lets_all_through(), place == 0, "{sign:?}");
                let tells = [gate.is_closed(), gate.is_half_open(), gate.is_free()];
                let expected = [place < 2, place == 4, place == 5];
                assert_eq!(tells, expected, "{sign:?}");
                assert_eq!(gate.is_timed(), place == 2, "{sign:?}");
            }
        }
    }

    #[test]
    fn a_run_counts_up_beside_a_ramp_and_stays_at_its_end() {
        for ramping in [false, true] {
            let gate = Gate::of(Sign::Closed { ramping }, 7);
            let run = gate.one_more_failure().one_more_failure();
            assert_eq!((run.run(), run.epoch(), run.is_closed()), (2, 7, true));
            assert_eq!((run.without_run(), run.stamp()), (gate, Gate::closed(7)));
            assert_eq!(run.without_ramp().without_run(), Gate::closed(7));
            let full = Gate(gate.word() | RUN);
            assert_eq!(full.one_more_failure(), full);
        }
    }
}
