//! Counters and gauges, for whatever recorder the crate `metrics` was given. The README has their names.
//!
//! Instruments are registered for each name once, and a circuit knows their number: a call that is counted costs one look-up, and one that is not,
//! for there is no recorder, a comparison.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use metrics::{Counter, Gauge, counter, gauge};
use tower_fault_classify::{Health, Verdict};

use super::Transition;
use crate::machine::CircuitState;

/// The instruments of the circuits of one name.
#[derive(Debug)]
pub(crate) struct Meters {
    success: Counter,
    failure: Counter,
    neutral: Counter,
    abandoned: Counter,
    slow: Counter,
    /// By [`STATES`].
    rejections: [Counter; STATES.len()],
    circuits: [Gauge; STATES.len()],
    #[cfg(feature = "keyed")]
    pub(crate) evictions: Counter,
    #[cfg(feature = "keyed")]
    pub(crate) overflows: Counter,
}

const STATES: [CircuitState; 6] = [
    CircuitState::Closed,
    CircuitState::Open,
    CircuitState::HalfOpen,
    CircuitState::ForcedOpen,
    CircuitState::ForcedClosed,
    CircuitState::Disabled,
];

static ALL: boxcar::Vec<Meters> = boxcar::Vec::new();

/// The number of a name's meters, which are registered once; 0 while there is no recorder.
pub(crate) fn number(circuit: &'static str) -> u32 {
    static NUMBERS: Mutex<Option<HashMap<&'static str, u32>>> = Mutex::new(None);
    let mut numbers = NUMBERS.lock().unwrap_or_else(PoisonError::into_inner);
    let numbers = numbers.get_or_insert_default();
    if let Some(number) = numbers.get(circuit) {
        return *number;
    }
    if !has_recorder() {
        return 0;
    }
    let number = ALL.push(Meters::register(circuit)) as u32 + 1;
    numbers.insert(circuit, number);
    number
}

/// The meters of a number.
#[inline]
pub(crate) fn meters(number: u32) -> Option<&'static Meters> {
    if number == 0 { None } else { ALL.get(number as usize - 1) }
}

/// Whether anybody counts. The recorder that stands in for none has no state, and a real one has some.
fn has_recorder() -> bool {
    metrics::with_recorder(|recorder| size_of_val(recorder) > 0)
}

impl Meters {
    fn register(circuit: &'static str) -> Self {
        let calls = |outcome: &'static str| counter!("tower_breaker_calls_total", "circuit" => circuit, "outcome" => outcome);
        Self {
            success: calls("success"),
            failure: calls("failure"),
            neutral: calls("neutral"),
            abandoned: calls("abandoned"),
            slow: counter!("tower_breaker_slow_calls_total", "circuit" => circuit),
            rejections: STATES.map(|state| {
                counter!("tower_breaker_rejections_total", "circuit" => circuit, "state" => state.label())
            }),
            circuits: STATES.map(|state| {
                let circuits = gauge!("tower_breaker_circuits", "circuit" => circuit, "state" => state.label());
                // So that it is there before its first circuit is.
                circuits.increment(0.0);
                circuits
            }),
            #[cfg(feature = "keyed")]
            evictions: counter!("tower_breaker_evictions_total", "circuit" => circuit),
            #[cfg(feature = "keyed")]
            overflows: counter!("tower_breaker_overflows_total", "circuit" => circuit),
        }
    }

    /// A call that was let through came to something.
    #[inline]
    pub(crate) fn settled(&self, verdict: &Verdict) {
        let outcome = match verdict {
            Verdict::Success => &self.success,
            Verdict::Fault(fault) => match fault.health() {
                Health::Success => &self.success,
                Health::Failure => &self.failure,
                _ => &self.neutral,
            },
        };
        outcome.increment(1);
    }

    pub(crate) fn abandoned(&self) {
        self.abandoned.increment(1);
    }

    pub(crate) fn slow(&self) {
        self.slow.increment(1);
    }

    pub(crate) fn rejected(&self, state: CircuitState) {
        self.rejections[place(state)].increment(1);
    }

    /// A circuit begins.
    pub(crate) fn begins(&self, state: CircuitState) {
        self.circuits[place(state)].increment(1.0);
    }

    /// A circuit ends.
    pub(crate) fn ends(&self, state: CircuitState) {
        self.circuits[place(state)].decrement(1.0);
    }

    pub(crate) fn changed(&self, Transition { circuit, from, to, reason, .. }: &Transition) {
        self.ends(*from);
        self.begins(*to);
        counter!(
            "tower_breaker_transitions_total",
            "circuit" => *circuit,
            "from" => from.label(),
            "to" => to.label(),
            "reason" => reason.label(),
        )
        .increment(1);
    }
}

fn place(state: CircuitState) -> usize {
    // They are all there.
    STATES.iter().position(|other| *other == state).unwrap_or_default()
}
