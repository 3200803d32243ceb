//! Snapshots of the circuits of a registry.

use super::CircuitRegistry;
use super::creation::Entry;
use crate::circuit::Circuit;
use crate::snapshot::{CircuitSnapshot, RestoreReport};

/// How many snapshots of circuits that do not exist a registry keeps at most.
const MOST_KEPT: usize = 10_000;

impl CircuitRegistry {
    /// Takes a snapshot of every circuit, sorted by name: see [`Circuit::snapshot`].
    ///
    /// The snapshots that [`restore`](Self::restore) keeps for circuits that do not exist yet are
    /// included, as they were restored. So they are not lost if the process ends before the
    /// circuits are created.
    pub fn snapshots(&self) -> Vec<CircuitSnapshot> {
        // In one critical section, because a circuit that is created takes its snapshot.
        let entries = self.entries();
        let kept: Vec<_> = entries.snapshots.values().cloned().collect();
        let circuits: Vec<_> = entries.by_name.values().filter_map(Entry::circuit).cloned().collect();
        drop(entries);
        let taken = circuits.iter().map(Circuit::snapshot);
        let mut snapshots: Vec<_> = taken.chain(kept.into_iter().filter(|kept| !kept.is_stale())).collect();
        snapshots.sort_by(|one, other| one.circuit.cmp(&other.circuit));
        snapshots
    }

    /// Restores the snapshots of circuits: see [`Circuit::restore`].
    ///
    /// It creates no circuit. The snapshot of a circuit that does not exist is kept, and restored
    /// when the circuit is created, before its first call. At most 10,000 snapshots are kept. A
    /// later snapshot of the same name replaces the one that is kept. [`remove`](Self::remove)
    /// removes it.
    ///
    /// A snapshot that cannot be restored does not prevent the restore of the others.
    ///
    /// ```
    /// use tower_breaker::{BreakerConfig, CircuitRegistry};
    ///
    /// let registry = CircuitRegistry::new(BreakerConfig::default());
    /// registry.circuit("search").trip()?;
    /// let snapshots = registry.snapshots();
    ///
    /// // The next process.
    /// let registry = CircuitRegistry::new(BreakerConfig::default());
    /// let report = registry.restore(snapshots);
    /// assert_eq!((report.kept, report.errors.len()), (1, 0));
    /// assert!(registry.circuit("search").try_acquire().is_err(), "the circuit is open");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn restore(&self, snapshots: impl IntoIterator<Item = CircuitSnapshot>) -> RestoreReport {
        let mut report = RestoreReport::default();
        for snapshot in snapshots {
            self.restore_one(snapshot, &mut report);
        }
        report
    }

    fn restore_one(&self, snapshot: CircuitSnapshot, report: &mut RestoreReport) {
        if let Err(error) = snapshot.check_version() {
            return report.errors.push(error);
        }
        let is_stale = snapshot.is_stale();
        let mut entries = self.entries();
        let name = &*snapshot.circuit;
        if let Some(circuit) = entries.by_name.get(name).and_then(Entry::circuit) {
            let circuit = circuit.clone();
            drop(entries);
            return report.add(circuit.restore(&snapshot));
        }
        let is_full = entries.snapshots.len() >= MOST_KEPT && !entries.snapshots.contains_key(name);
        if is_stale {
            report.stale += 1;
        } else if is_full {
            report.dropped += 1;
        } else {
            let name = name.to_owned();
            entries.snapshots.insert(name, snapshot);
            report.kept += 1;
        }
    }
}
