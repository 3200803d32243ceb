//! A handle that does not keep its circuit alive.

use std::fmt;

use tower_fault_classify::__internals::CircuitRecord;

use super::{Circuit, CircuitRef, Static};

/// A handle that does not keep its circuit alive.
///
/// [`Circuit::downgrade`] returns it. Use it in an observer that needs its own circuit. An observer
/// that holds a [`Circuit`] keeps the circuit alive, and the circuit keeps the observer: neither is
/// ever dropped.
///
/// It does not prevent the eviction of a keyed circuit.
///
/// # Example
///
/// ```
/// use tower_breaker::{BreakerConfig, Circuit, CircuitState};
///
/// let circuit = Circuit::new(BreakerConfig::default());
/// let weak = circuit.downgrade();
/// circuit.on_transition(move |transition| {
///     if let Some(circuit) = weak.upgrade()
///         && transition.to == CircuitState::Open
///     {
///         println!("probes begin in {:?}", circuit.status().retry_after);
///     }
/// });
/// # let weak = circuit.downgrade();
/// # circuit.trip().unwrap();
/// # drop(circuit);
/// # assert!(weak.upgrade().is_none());
/// ```
pub struct WeakCircuit<R: CircuitRef = Static> {
    weak: R::Weak,
    record: &'static CircuitRecord,
}

impl<R: CircuitRef> WeakCircuit<R> {
    /// Returns the circuit's name.
    pub const fn name(&self) -> &'static str {
        self.record.name()
    }

    /// Returns a handle to the circuit; `None` if the circuit has ended.
    ///
    /// An evicted keyed circuit ends with its last handle and its last running call. Until then,
    /// this method returns a handle to it, although calls with the key no longer use it.
    pub fn upgrade(&self) -> Option<Circuit<R>> {
        Some(Circuit { owner: R::upgrade(&self.weak)?, record: self.record })
    }
}

impl<R: CircuitRef> Circuit<R> {
    /// Returns a handle that does not keep the circuit alive.
    pub fn downgrade(&self) -> WeakCircuit<R> {
        WeakCircuit { weak: R::downgrade(&self.owner), record: self.record }
    }
}

impl<R: CircuitRef> Clone for WeakCircuit<R> {
    fn clone(&self) -> Self {
        Self { weak: self.weak.clone(), record: self.record }
    }
}

impl<R: CircuitRef> fmt::Debug for WeakCircuit<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WeakCircuit").field("name", &self.name()).finish_non_exhaustive()
    }
}
