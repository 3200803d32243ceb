//! Managers for tests.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use circuit_manager::manager::Manager;
use circuit_manager::settings::CircuitSettings;
use tower_breaker::{CircuitState, Clock, ManualClock};

/// The agent of tests that need only one.
pub(crate) const AGENT: &str = "search";

/// Returns a manager with the default limits, and its clock.
pub(crate) fn manager() -> (Manager, ManualClock) {
    manager_with(CircuitSettings::default(), BTreeMap::new())
}

pub(crate) fn manager_with(
    default: CircuitSettings,
    own: BTreeMap<String, CircuitSettings>,
) -> (Manager, ManualClock) {
    let (clock, time) = Clock::manual();
    (Manager::with_clock(default, own, clock).unwrap(), time)
}

/// Records failures of [`AGENT`].
pub(crate) fn fail(manager: &Manager, failures: u32) {
    for _ in 0..failures {
        manager.record_failure(AGENT).unwrap();
    }
}

/// A change of a circuit, as callbacks get it.
pub(crate) type Change = (String, CircuitState, CircuitState);

/// Returns the changes of all circuits, which are added from now on.
pub(crate) fn changes(manager: &Manager) -> Arc<Mutex<Vec<Change>>> {
    let changes = Arc::<Mutex<Vec<Change>>>::default();
    let seen = Arc::clone(&changes);
    manager.on_state_change(move |agent, from, to| seen.lock().unwrap().push((agent.to_owned(), from, to)));
    changes
}
