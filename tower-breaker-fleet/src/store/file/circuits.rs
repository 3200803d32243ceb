//! The data of circuits in the files of a folder.

use super::folder::{Folder, Locked, Unsynced};
use super::updates::publish;
use crate::record::CircuitRecord;
use crate::rules::CircuitData;
use crate::store::{StoreError, Update};

/// Returns up to `limit` records, in the order of the names, after the name `after`.
pub(super) fn list(
    folder: &Folder,
    after: Option<&str>,
    limit: usize,
    now: u64,
) -> Result<Vec<CircuitRecord>, StoreError> {
    let mut records = Vec::new();
    for circuit in folder.circuits::<CircuitData>()? {
        if records.len() == limit {
            break;
        }
        if after.is_none_or(|after| circuit.as_str() > after) {
            let record = folder.read::<CircuitData>(&circuit)?.record(&circuit, now);
            records.extend((record.epoch > 0).then_some(record));
        }
    }
    Ok(records)
}

/// Applies a rule to the data of a circuit, and publishes the updates.
///
/// Returns the file if a decision was written, which must survive a power cut. A heartbeat need
/// not, because the next one repeats it.
pub(super) fn apply<T>(
    locked: &Locked<'_>,
    circuit: &str,
    now: u64,
    rule: impl FnOnce(&mut CircuitData, u64) -> (T, Vec<Update>),
) -> Result<(T, Option<Unsynced>), StoreError> {
    let before: CircuitData = locked.folder.read(circuit)?;
    let mut data = before.clone();
    let (reply, updates) = rule(&mut data, now);
    if data.is_empty(now) {
        locked.remove(circuit)?;
        publish(locked, &updates, now)?;
        return Ok((reply, None));
    }
    if data == before {
        return Ok((reply, None));
    }
    let written = locked.write(circuit, &data)?;
    publish(locked, &updates, now)?;
    let is_decision = updates.iter().any(|update| matches!(update, Update::Record(_)));
    Ok((reply, is_decision.then_some(written)))
}
