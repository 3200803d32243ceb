//! [`Circuit::snapshot`] and [`Circuit::restore`].

use super::{Circuit, CircuitRef, PendingNotification};
use crate::snapshot::{CircuitSnapshot, RestoreError, Restored};

impl<R: CircuitRef> Circuit<R> {
    /// Takes a snapshot of the circuit, to restore its state after a restart of the process.
    ///
    /// The [module `snapshot`](crate::snapshot) describes its content.
    pub fn snapshot(&self) -> CircuitSnapshot {
        let (saved, last_trip) = self.owner.save();
        CircuitSnapshot::new(self.name(), &saved, last_trip)
    }

    /// Restores the state of a snapshot, if the circuit has had no transition since it was created.
    ///
    /// Call it before the first call, so that an open circuit rejects it. A circuit that has had a
    /// transition keeps its state, because the transition is newer than the snapshot: a trip, a
    /// manual operation, or an earlier restore. The result is then [`Restored::Superseded`].
    ///
    /// If the state changes, observers are notified of a transition with
    /// [`Reason::Restored`](crate::Reason::Restored). The [module `snapshot`](crate::snapshot) lists
    /// what is restored, and how times are limited.
    ///
    /// # Errors
    ///
    /// Returns an error, and changes nothing, if the snapshot has another circuit name, or another
    /// version.
    pub fn restore(&self, snapshot: &CircuitSnapshot) -> Result<Restored, RestoreError> {
        snapshot.check(self.name())?;
        let applied = self.owner.restore(&snapshot.saved_now(), snapshot.last_trip.as_ref());
        Ok(if applied { Restored::Applied } else { Restored::Superseded })
    }

    /// Restores a snapshot of this circuit, whose version is supported. Runs no user code.
    ///
    /// The caller passes the result to [`notify_restored`](Self::notify_restored) once it holds no
    /// lock.
    pub(crate) fn begin_restore(&self, snapshot: &CircuitSnapshot) -> Option<PendingNotification> {
        self.owner.begin_restore(&snapshot.saved_now(), snapshot.last_trip.as_ref()).1
    }

    pub(crate) fn notify_restored(&self, pending: Option<PendingNotification>) {
        self.owner.notify(pending);
    }
}
