//! Snapshots of a circuit, and their restore.

use std::sync::Arc;

use tower_fault_classify::__internals::sync::lock;

use super::{Core, PendingNotification, Store};
use crate::circuit::locked::Locked;
#[cfg(doc)]
use crate::machine::Machine;
use crate::machine::Saved;
use crate::snapshot::SnapshotTrip;

impl<S: Store> Core<S> {
    /// Returns the state of the circuit for a snapshot, and its last trip.
    pub(crate) fn save(&self) -> (Saved, Option<SnapshotTrip>) {
        let now = self.hot_config().now();
        let Some(locked) = self.store().locked_if_any() else {
            // There was no transition.
            return (Saved { state: self.state_word().initial_state(), ..Saved::default() }, None);
        };
        let locked = lock(locked);
        (locked.machine.save(now), locked.last_trip.as_deref().map(SnapshotTrip::of))
    }

    /// Restores the state of a snapshot; see [`Machine::restore`]. Returns `false`, and changes
    /// nothing, if the circuit has had a transition.
    pub(crate) fn restore(&self, saved: &Saved, last_trip: Option<&SnapshotTrip>) -> bool {
        let (applied, pending) = self.begin_restore(saved, last_trip);
        self.notify(pending);
        applied
    }

    /// Restores the state of a snapshot, without its notification. It runs no user code. The caller
    /// sends the notification once it holds no lock.
    pub(crate) fn begin_restore(
        &self,
        saved: &Saved,
        last_trip: Option<&SnapshotTrip>,
    ) -> (bool, Option<PendingNotification>) {
        let now = self.hot_config().now();
        let mut locked = self.locked();
        if locked.last_transition.is_some() {
            return (false, None);
        }
        let Locked { machine, limits, .. } = &mut *locked;
        let change = machine.restore(saved, now, limits);
        let pending = change.map(|change| self.apply(&mut locked, change, None, None, now));
        if let Some(trip) = last_trip {
            locked.last_trip = Some(Arc::new(trip.transition(locked.name)));
        }
        (true, pending)
    }
}
