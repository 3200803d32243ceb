//! The word that every call reads: the state, its epoch, and its payload.
//!
//! ```text
//!  63           40 39     37   36         35        34     20 19       0
//! ┌───────────────┬─────────┬────────────┬───────────┬────────┬──────────┐
//! │ epoch         │ closed  │ slow start │ cancelled │ number │ failures │
//! │               │ open    │ milliseconds of the coordinator            │
//! │               │ others  │ 0                                          │
//! └───────────────┴─────────┴────────────┴───────────┴────────┴──────────┘
//! ```
//!
//! The payload of an open circuit is the time before its deadline that belongs to its coordinator,
//! in whole milliseconds. It is 0 if no coordinator opened the circuit.
//!
//! The deadline of an open circuit is in a separate word, which is written before the state word:
//! see [`Core::open_for`](super::Core::open_for). The deadline of a circuit that is forced closed
//! is in a third word, so that a call that has read an older state word never confuses the two.
//!
//! - The bit "cancelled" is set while calls have been cancelled since the last completed call.
//! - The failures are those since the last success. Their count saturates at 2²⁰ − 1, which is more
//!   than the largest limit of consecutive failures.
//! - The number is that of the last failure in this epoch. It wraps around. A success keeps it. It
//!   shows whether a failure can open the circuit: see [`Due`](super::window::Due).
//!
//! A permit holds the state word of its admission, with an empty payload. For a fast success, one
//! comparison of this word with the current state word, without the number, usually suffices. If
//! they are equal, the state has not changed, no failure and no cancelled call is counted, and the
//! circuit is not in a slow start.
//!
//! A call that holds a slot of a slow start has a separate state in its permit, which is never the
//! state of a circuit. So its outcome takes another path, which releases the slot.
//!
//! Epochs wrap around after 2²⁴ transitions of a circuit. An outcome is recorded in a wrong epoch
//! only if exactly a multiple of 2²⁴ transitions happens during its call.

use crate::machine::{CircuitState, State, TripLimits};

const PAYLOAD_BITS: u32 = 37;
const STATE_BITS: u32 = 3;
const PAYLOAD: u64 = (1 << PAYLOAD_BITS) - 1;
const STATE: u64 = (1 << STATE_BITS) - 1;
/// Set during a slow start, in which not every call is admitted.
const SLOW_START: u64 = 1 << (PAYLOAD_BITS - 1);
/// Set while calls have been cancelled since the last completed call.
const CANCELLED: u64 = SLOW_START >> 1;
const FAILURES_BITS: u32 = PAYLOAD_BITS - 2 - NUMBER_BITS;
const FAILURES: u64 = (1 << FAILURES_BITS) - 1;
const NUMBER: u64 = CANCELLED - 1 - FAILURES;
/// The number of bits of a failure's number.
pub(crate) const NUMBER_BITS: u32 = 15;
/// The count reaches every limit.
const _: () = assert!(TripLimits::MAX_CONSECUTIVE_FAILURES as u64 <= FAILURES);

/// The largest epoch.
pub(crate) const LAST_EPOCH: u32 = (1 << (64 - PAYLOAD_BITS - STATE_BITS)) - 1;

const CLOSED: u64 = 0;
const OPEN: u64 = 1;
const HALF_OPEN: u64 = 2;
const OPEN_INDEFINITELY: u64 = 3;
const BYPASSED: u64 = 4;
/// The calls bypass the circuit until the deadline of the manual override.
const BYPASSED_UNTIL: u64 = 6;
/// Only in the stamp of a permit: the circuit was closed, and the call holds a slot of its slow
/// start.
const SLOW_START_SLOT: u64 = 5;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StateWord(u64);

impl StateWord {
    pub(crate) const fn from_word(word: u64) -> Self {
        Self(word)
    }

    pub(crate) const fn word(self) -> u64 {
        self.0
    }

    const fn pack(epoch: u32, state: u64, payload: u64) -> Self {
        Self(((epoch as u64) << (PAYLOAD_BITS + STATE_BITS)) | (state << PAYLOAD_BITS) | payload)
    }

    /// Returns the word of a machine's state.
    pub(crate) const fn of(state: State, epoch: u32) -> Self {
        match state {
            State::Closed { slow_start: false } => Self::pack(epoch, CLOSED, 0),
            State::Closed { slow_start: true } => Self::pack(epoch, CLOSED, SLOW_START),
            State::OpenUntil { takeover, .. } => Self::pack(epoch, OPEN, whole_millis(takeover)),
            State::OpenIndefinitely => Self::pack(epoch, OPEN_INDEFINITELY, 0),
            State::HalfOpen => Self::pack(epoch, HALF_OPEN, 0),
            State::Bypassed => Self::pack(epoch, BYPASSED, 0),
            State::BypassedUntil(_) => Self::pack(epoch, BYPASSED_UNTIL, 0),
        }
    }

    /// Returns the word of a new circuit.
    pub(crate) const fn initial(disabled: bool) -> Self {
        Self::of(if disabled { State::Bypassed } else { State::Closed { slow_start: false } }, 0)
    }

    /// Returns the word of a closed circuit without failures that is not in a slow start.
    pub(crate) const fn closed(epoch: u32) -> Self {
        Self::pack(epoch, CLOSED, 0)
    }

    /// Returns the state of a circuit that has had no transition.
    pub(crate) const fn initial_state(self) -> CircuitState {
        if self.is_bypassed() { CircuitState::Disabled } else { CircuitState::Closed }
    }

    /// Returns the word of a permit whose call is not counted.
    pub(crate) const fn bypassed(epoch: u32) -> Self {
        Self::pack(epoch, BYPASSED, 0)
    }

    /// Returns the word of a permit whose call holds a slot of a slow start.
    pub(crate) const fn slow_start_slot(epoch: u32) -> Self {
        Self::pack(epoch, SLOW_START_SLOT, 0)
    }

    pub(crate) const fn epoch(self) -> u32 {
        (self.0 >> (PAYLOAD_BITS + STATE_BITS)) as u32
    }

    const fn state(self) -> u64 {
        (self.0 >> PAYLOAD_BITS) & STATE
    }

    /// Returns whether every call is admitted and counted.
    #[inline]
    pub(crate) const fn admits_all(self) -> bool {
        self.0 & (STATE << PAYLOAD_BITS | SLOW_START) == CLOSED << PAYLOAD_BITS
    }

    pub(crate) const fn is_closed(self) -> bool {
        self.state() == CLOSED
    }

    pub(crate) const fn is_half_open(self) -> bool {
        self.state() == HALF_OPEN
    }

    pub(crate) const fn has_slow_start_slot(self) -> bool {
        self.state() == SLOW_START_SLOT
    }

    pub(crate) const fn is_bypassed(self) -> bool {
        self.state() == BYPASSED
    }

    /// Returns whether the calls bypass the circuit until a deadline. The deadline may have passed.
    pub(crate) const fn is_bypassed_until_deadline(self) -> bool {
        self.state() == BYPASSED_UNTIL
    }

    /// Returns the word of a permit that is acquired while this is the state word: a closed word
    /// without its payload.
    #[inline]
    pub(crate) const fn stamp(self) -> Self {
        Self(self.0 & !PAYLOAD)
    }

    /// Returns whether this word is the `stamp` of a call, apart from the number of the last
    /// failure: the epoch is the same, there was no failure and no cancelled call since the last
    /// success, and no slow start is in progress.
    #[inline]
    pub(crate) const fn is_unchanged_since(self, stamp: Self) -> bool {
        self.0 & !NUMBER == stamp.0
    }

    /// Returns the number of the last failure in this epoch. The word must be a closed one.
    pub(crate) const fn number(self) -> u64 {
        (self.0 & NUMBER) >> FAILURES_BITS
    }

    /// Returns the failures since the last success. The word must be a closed one.
    pub(crate) const fn consecutive_failures(self) -> u64 {
        self.0 & FAILURES
    }

    /// Returns whether calls have been cancelled since the last completed call.
    pub(crate) const fn has_cancelled(self) -> bool {
        self.0 & CANCELLED != 0
    }

    /// Returns the word after a success: without failures and cancelled calls.
    pub(crate) const fn with_success(self) -> Self {
        Self(self.0 & !(FAILURES | CANCELLED))
    }

    /// Returns the word after a cancelled call.
    pub(crate) const fn with_cancelled(self) -> Self {
        Self(self.0 | CANCELLED)
    }

    /// Returns the word after a completed call that counts in no rate.
    pub(crate) const fn with_answer(self) -> Self {
        Self(self.0 & !CANCELLED)
    }

    /// Returns the word without the slow start.
    pub(crate) const fn without_slow_start(self) -> Self {
        Self(self.0 & !SLOW_START)
    }

    /// Returns the word after one more failure, without cancelled calls. The count saturates, and
    /// the number wraps around.
    #[inline]
    pub(crate) const fn with_failure(self) -> Self {
        let Self(word) = self;
        let number = (word + (1 << FAILURES_BITS)) & NUMBER;
        let failures = (word & FAILURES) + (word & FAILURES != FAILURES) as u64;
        Self(word & !(CANCELLED | NUMBER | FAILURES) | number | failures)
    }

    /// Returns how many nanoseconds before the deadline belong to the coordinator, rounded down to
    /// milliseconds. The word must be that of a circuit that is open until a deadline.
    #[inline]
    pub(crate) const fn takeover(self) -> u64 {
        (self.0 & PAYLOAD) * MILLI
    }

    /// Returns whether the circuit is open until a deadline. The deadline may have passed.
    #[inline]
    pub(crate) const fn is_open_until_deadline(self) -> bool {
        self.state() == OPEN
    }
}

/// A millisecond, in nanoseconds.
const MILLI: u64 = 1_000_000;

const fn whole_millis(nanos: u64) -> u64 {
    let millis = nanos / MILLI;
    if millis < PAYLOAD { millis } else { PAYLOAD }
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use super::*;

    const STATES: [State; 7] = [
        State::Closed { slow_start: false },
        State::Closed { slow_start: true },
        State::OpenUntil { until: u64::MAX, takeover: u64::MAX },
        State::OpenIndefinitely,
        State::HalfOpen,
        State::Bypassed,
        State::BypassedUntil(u64::MAX),
    ];

    #[test]
    fn state_word_holds_each_state_and_its_epoch() {
        for epoch in [0, 1, LAST_EPOCH] {
            for (index, state) in STATES.into_iter().enumerate() {
                let word = StateWord::of(state, epoch);
                assert_eq!(word.epoch(), epoch);
                assert_eq!(StateWord::from_word(word.word()), word);
                assert_eq!(word.admits_all(), index == 0, "{state:?}");
                let flags = [word.is_closed(), word.is_half_open(), word.is_bypassed()];
                let expected = [index < 2, index == 4, index == 5];
                assert_eq!(flags, expected, "{state:?}");
                assert_eq!(word.is_open_until_deadline(), index == 2, "{state:?}");
                assert_eq!(word.is_bypassed_until_deadline(), index == 6, "{state:?}");
            }
        }
    }

    #[test]
    fn slow_start_slot_is_no_state_of_a_circuit() {
        let stamp = StateWord::slow_start_slot(LAST_EPOCH);
        assert_eq!((stamp.epoch(), stamp.has_slow_start_slot()), (LAST_EPOCH, true));
        assert!(!stamp.is_closed() && !stamp.admits_all() && !stamp.is_half_open() && !stamp.is_bypassed());
        assert!(STATES.iter().all(|state| !StateWord::of(*state, 0).has_slow_start_slot()));
    }

    #[test]
    fn failure_count_saturates_and_keeps_slow_start() {
        for slow_start in [false, true] {
            let word = StateWord::of(State::Closed { slow_start }, 7);
            let failed = word.with_failure().with_failure();
            assert_eq!((failed.consecutive_failures(), failed.epoch(), failed.is_closed()), (2, 7, true));
            assert_eq!((failed.number(), failed.stamp()), (2, StateWord::closed(7)));
            let success = failed.with_success();
            assert_eq!((success.consecutive_failures(), success.number()), (0, 2));
            assert_eq!(success.admits_all(), !slow_start);
            assert_eq!(success.is_unchanged_since(StateWord::closed(7)), !slow_start);
            assert!(failed.without_slow_start().with_success().is_unchanged_since(StateWord::closed(7)));
            assert!(!success.is_unchanged_since(StateWord::closed(8)));
            let full = StateWord(word.word() | FAILURES);
            for full in [full, full.with_cancelled()] {
                let failed = full.with_failure();
                assert_eq!((failed.consecutive_failures(), failed.number()), (FAILURES, 1));
                assert!(!failed.has_cancelled() && !failed.is_unchanged_since(StateWord::closed(7)));
            }
        }
    }

    #[test]
    fn failure_number_wraps_and_keeps_the_rest() {
        for slow_start in [false, true] {
            let word = StateWord::of(State::Closed { slow_start }, LAST_EPOCH);
            let last = StateWord(word.word() | NUMBER).with_failure();
            assert_eq!((last.number(), last.consecutive_failures()), (0, 1));
            assert_eq!((last.with_success(), last.has_cancelled()), (word, false));
            assert_eq!(word.with_failure().number(), 1);
        }
    }

    #[test]
    fn completed_call_clears_cancelled_and_keeps_slow_start() {
        for slow_start in [false, true] {
            let word = StateWord::of(State::Closed { slow_start }, 7);
            let failed = word.with_failure();
            let cancelled = failed.with_cancelled();
            assert!(cancelled.has_cancelled() && !word.has_cancelled());
            assert_eq!((cancelled.with_cancelled(), cancelled.consecutive_failures()), (cancelled, 1));
            assert_eq!((cancelled.with_answer(), cancelled.with_success()), (failed, failed.with_success()));
            assert_eq!(cancelled.with_failure(), failed.with_failure());
            assert_eq!((cancelled.stamp(), cancelled.admits_all()), (word.stamp(), !slow_start));
        }
    }
}
