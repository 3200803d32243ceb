//! Counters and gauges for the recorder of the crate `metrics`. `docs/observability.md` lists
//! their names.
//!
//! The instruments of a circuit name are registered once, and a circuit stores their number. With a
//! recorder, a counted call costs one look-up. Without a recorder, a call costs one comparison.

use std::collections::BTreeMap;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;

use metrics::{Counter, Gauge, counter, gauge};
use tower_fault_classify::{Health, Verdict};

use super::{TARGET, Transition};
use crate::machine::CircuitState;

/// The instruments of all circuits with one name.
#[derive(Debug)]
pub(crate) struct Instruments {
    success: Counter,
    failure: Counter,
    neutral: Counter,
    cancelled: Counter,
    slow: Counter,
    /// In the order of [`STATES`].
    rejections: [Counter; STATES.len()],
    circuits: [Gauge; STATES.len()],
    #[cfg(feature = "keyed")]
    evictions: Counter,
    #[cfg(feature = "keyed")]
    overflows: Counter,
}

const STATES: [CircuitState; 6] = [
    CircuitState::Closed,
    CircuitState::Open,
    CircuitState::HalfOpen,
    CircuitState::ForcedOpen,
    CircuitState::ForcedClosed,
    CircuitState::Disabled,
];

static ALL: boxcar::Vec<Instruments> = boxcar::Vec::new();

/// Returns the number of a name's instruments, and registers them if they are new. 0: there is no
/// recorder. This function calls the recorder, so it must not run under a lock.
pub(crate) fn register(circuit: &'static str) -> u32 {
    static NUMBERS: Mutex<BTreeMap<&'static str, u32>> = Mutex::new(BTreeMap::new());
    let numbers = || NUMBERS.lock().unwrap_or_else(PoisonError::into_inner);
    let registered = numbers().get(circuit).copied();
    if let Some(number) = registered {
        return number;
    }
    if !has_recorder() {
        return 0;
    }
    let instruments = Instruments::new(circuit);
    let mut numbers = numbers();
    if let Some(number) = numbers.get(circuit).copied() {
        // Another thread was first. The instruments are dropped after the lock is released.
        drop(numbers);
        return number;
    }
    let number = ALL.push(instruments) as u32 + 1;
    numbers.insert(circuit, number);
    number
}

/// Returns the instruments with this number.
#[inline]
pub(crate) fn instruments(number: u32) -> Option<&'static Instruments> {
    if number == 0 { None } else { ALL.get(number as usize - 1) }
}

/// Returns whether a recorder is installed.
fn has_recorder() -> bool {
    possible_placeholder().is_none_or(|address| !is_placeholder(address))
}

/// Returns the address of the current recorder, if the recorder may be the placeholder.
///
/// While no recorder is installed, the crate `metrics` passes a placeholder: a zero-sized static. A
/// recorder for the whole program is boxed, and a box of a zero-sized value has a dangling address
/// that equals the alignment.
fn possible_placeholder() -> Option<usize> {
    metrics::with_recorder(|recorder| {
        let address = std::ptr::from_ref(recorder).addr();
        (size_of_val(recorder) == 0 && address != align_of_val(recorder)).then_some(address)
    })
}

/// Distinguishes the placeholder from a zero-sized recorder that is installed for this thread only.
/// A new thread has no recorder of its own, so it shows the placeholder. One such thread is spawned
/// per program.
fn is_placeholder(address: usize) -> bool {
    static PLACEHOLDER: OnceLock<usize> = OnceLock::new();
    if let Some(placeholder) = PLACEHOLDER.get() {
        return *placeholder == address;
    }
    match thread::Builder::new().spawn(possible_placeholder).map(thread::JoinHandle::join) {
        Ok(Ok(Some(placeholder))) => *PLACEHOLDER.get_or_init(|| placeholder) == address,
        // A recorder is installed for the whole program: the placeholder is no longer in use.
        Ok(Ok(None)) => false,
        // This platform cannot spawn threads.
        Ok(Err(_)) | Err(_) => true,
    }
}

impl Instruments {
    fn new(circuit: &'static str) -> Self {
        let calls = |outcome: &'static str| {
            let name = "tower_breaker_calls_total";
            counter!(target: TARGET, name, "circuit" => circuit, "outcome" => outcome)
        };
        Self {
            success: calls("success"),
            failure: calls("failure"),
            neutral: calls("neutral"),
            cancelled: calls("cancelled"),
            slow: counter!(target: TARGET, "tower_breaker_slow_calls_total", "circuit" => circuit),
            rejections: STATES.map(|state| {
                let name = "tower_breaker_rejections_total";
                counter!(target: TARGET, name, "circuit" => circuit, "state" => state.as_str())
            }),
            circuits: STATES.map(|state| {
                let name = "tower_breaker_circuits";
                let circuits = gauge!(target: TARGET, name, "circuit" => circuit, "state" => state.as_str());
                // Registers the gauge, so that it exists before the first circuit.
                circuits.increment(0.0);
                circuits
            }),
            #[cfg(feature = "keyed")]
            evictions: counter!(target: TARGET, "tower_breaker_evictions_total", "circuit" => circuit),
            #[cfg(feature = "keyed")]
            overflows: counter!(target: TARGET, "tower_breaker_overflows_total", "circuit" => circuit),
        }
    }

    /// Counts the outcome of an admitted call.
    #[inline]
    pub(crate) fn outcome(&self, verdict: &Verdict) {
        let outcome = match verdict {
            Verdict::Success => &self.success,
            Verdict::Fault(fault) => match fault.health() {
                Health::Healthy => &self.success,
                Health::Unhealthy => &self.failure,
                _ => &self.neutral,
            },
        };
        outcome.increment(1);
    }

    pub(crate) fn cancelled(&self) {
        self.cancelled.increment(1);
    }

    pub(crate) fn slow(&self) {
        self.slow.increment(1);
    }

    pub(crate) fn rejected(&self, state: CircuitState) {
        self.rejections[index_of(state)].increment(1);
    }

    #[cfg(feature = "keyed")]
    pub(crate) fn evicted(&self) {
        self.evictions.increment(1);
    }

    #[cfg(feature = "keyed")]
    pub(crate) fn overflowed(&self) {
        self.overflows.increment(1);
    }

    /// Counts a new circuit.
    pub(crate) fn circuit_created(&self, state: CircuitState) {
        self.circuits[index_of(state)].increment(1.0);
    }

    /// Removes a circuit from the gauge of its state.
    pub(crate) fn circuit_dropped(&self, state: CircuitState) {
        self.circuits[index_of(state)].decrement(1.0);
    }

    pub(crate) fn transition(&self, Transition { circuit, from, to, reason, .. }: &Transition) {
        self.circuit_dropped(*from);
        self.circuit_created(*to);
        counter!(
            target: TARGET,
            "tower_breaker_transitions_total",
            "circuit" => *circuit,
            "from" => from.as_str(),
            "to" => to.as_str(),
            "reason" => reason.as_str(),
        )
        .increment(1);
    }
}

fn index_of(state: CircuitState) -> usize {
    // `STATES` contains every state.
    STATES.iter().position(|other| *other == state).unwrap_or_default()
}
