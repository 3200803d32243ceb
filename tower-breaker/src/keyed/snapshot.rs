//! Snapshots of keyed circuits.

use std::hash::Hash;

use super::map::KeyedCircuits;
use crate::snapshot::{CircuitSnapshot, RestoreReport};

/// The snapshot of the circuit of one key.
///
/// With the feature `serde` it can be serialized and deserialized if the key can.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct KeyedSnapshot<K> {
    /// The key of the circuit.
    pub key: K,
    /// The snapshot of the circuit.
    pub snapshot: CircuitSnapshot,
}

impl<K: Clone> KeyedCircuits<K> {
    /// Takes snapshots of the circuits that have something to restore, in no particular order.
    ///
    /// These are the circuits that are not closed, and those whose number of open periods in a row
    /// still counts. The overflow circuit is not one of them. The
    /// [module `snapshot`](crate::snapshot) describes the content of a snapshot.
    pub fn snapshots(&self) -> Vec<KeyedSnapshot<K>> {
        let snapshots = self.circuits().into_iter().map(|circuit| {
            let (key, snapshot) = (circuit.key(), circuit.snapshot());
            (!snapshot.is_stale()).then(|| KeyedSnapshot { key: key.clone(), snapshot })
        });
        snapshots.flatten().collect()
    }
}

impl<K: Eq + Hash> KeyedCircuits<K> {
    /// Restores the snapshots of circuits: see [`Circuit::restore`](crate::Circuit::restore).
    ///
    /// It creates the circuits of keys that have none, within
    /// [`max_keys`](crate::keyed::KeyedConfigBuilder::max_keys). If the map is full, an idle circuit
    /// is evicted, as by [`get_or_insert`](Self::get_or_insert). If no circuit can be evicted, the
    /// snapshot is dropped. Restore the snapshots before the first call, so that an open circuit
    /// rejects it.
    ///
    /// A snapshot that cannot be restored does not prevent the restore of the others.
    ///
    /// ```
    /// use tower_breaker::BreakerConfig;
    /// use tower_breaker::keyed::{KeyedCircuits, KeyedConfig};
    ///
    /// let each = BreakerConfig::builder().name("tenants").build()?;
    /// let config = KeyedConfig::builder(each).build()?;
    /// let circuits: KeyedCircuits<String> = KeyedCircuits::new(config.clone());
    /// circuits.circuit("acme").trip()?;
    /// let snapshots = circuits.snapshots();
    ///
    /// // The next process.
    /// let circuits: KeyedCircuits<String> = KeyedCircuits::new(config);
    /// let report = circuits.restore(snapshots);
    /// assert_eq!((report.applied, report.errors.len()), (1, 0));
    /// assert!(circuits.try_acquire("acme").is_err(), "the circuit is open");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn restore(&self, snapshots: impl IntoIterator<Item = KeyedSnapshot<K>>) -> RestoreReport {
        let mut report = RestoreReport::default();
        for KeyedSnapshot { key, snapshot } in snapshots {
            self.restore_one(key, &snapshot, &mut report);
        }
        report
    }

    fn restore_one(&self, key: K, snapshot: &CircuitSnapshot, report: &mut RestoreReport) {
        // No circuit is created for a snapshot that cannot be restored.
        if let Err(error) = snapshot.check(self.name()) {
            return report.errors.push(error);
        }
        if let Some(circuit) = self.get(&key) {
            report.add(circuit.restore(snapshot));
        } else if snapshot.is_stale() {
            report.stale += 1;
        } else if let Some(circuit) = self.get_or_insert(key) {
            report.add(circuit.restore(snapshot));
        } else {
            report.dropped += 1;
        }
    }
}
