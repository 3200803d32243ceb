//! The records of keys that do not take part in this process: open, or with an override.

use std::collections::BTreeMap;

use super::is_closed;
use crate::agent::{GRACE, Time};
use crate::record::CircuitRecord;

/// Records by name, with the time at which they were valid.
#[derive(Default)]
pub(super) struct Records(BTreeMap<String, (CircuitRecord, Time)>);

impl Records {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Keeps a record, unless a later one is kept. A closed record removes an earlier one. Returns
    /// `false` if `most` records are kept already.
    pub(super) fn insert(&mut self, record: CircuitRecord, now: Time, most: usize) -> bool {
        let name = &record.circuit;
        if self.0.get(name).is_some_and(|(kept, _)| kept.epoch > record.epoch) {
            return true;
        }
        if is_closed(&record) {
            self.0.remove(name);
            return true;
        }
        let has_space = self.0.len() < most || self.0.contains_key(name);
        if has_space {
            self.0.insert(name.clone(), (record, now));
        }
        has_space
    }

    /// Returns a record with its times as of now.
    pub(super) fn get(&self, name: &str, now: Time) -> Option<CircuitRecord> {
        let (record, at) = self.0.get(name).filter(|kept| is_current(kept, now))?;
        Some(record.clone().aged(now.saturating_sub(*at)))
    }

    /// Removes and returns a record with its times as of now.
    pub(super) fn take(&mut self, name: &str, now: Time) -> Option<CircuitRecord> {
        let (record, at) = self.0.remove(name).filter(|kept| is_current(kept, now))?;
        Some(record.aged(now.saturating_sub(at)))
    }

    /// Removes the records that the store has forgotten.
    pub(super) fn remove_outdated(&mut self, now: Time) {
        self.0.retain(|_, kept| is_current(kept, now));
    }
}

/// Whether the store still has a record.
fn is_current((record, at): &(CircuitRecord, Time), now: Time) -> bool {
    let end = record.remaining.map(|remaining| at.saturating_add(remaining).saturating_add(GRACE));
    record.manual.is_some() || end.is_none_or(|end| now < end)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::record::FleetState;

    fn open(circuit: &str, epoch: u64) -> CircuitRecord {
        let remaining = Some(Duration::from_secs(3));
        CircuitRecord {
            circuit: circuit.into(),
            epoch,
            state: FleetState::Open,
            remaining,
            ..Default::default()
        }
    }

    #[test]
    fn records_are_bounded_and_the_latest_is_kept() {
        let mut records = Records::default();
        assert!(records.insert(open("a", 2), Time::ZERO, 1));
        assert!(!records.insert(open("b", 2), Time::ZERO, 1));
        assert!(records.insert(open("a", 1), Time::ZERO, 1));
        assert_eq!(records.get("a", Time::from_secs(1)).unwrap().epoch, 2);
        assert_eq!(records.get("a", Time::from_secs(1)).unwrap().remaining, Some(Duration::from_secs(2)));
        let closed = |epoch| CircuitRecord { state: FleetState::Closed, ..open("a", epoch) };
        assert!(records.insert(closed(1), Time::ZERO, 1) && records.contains("a"), "it is an earlier one");
        assert!(records.insert(closed(3), Time::ZERO, 1) && records.is_empty());
    }

    #[test]
    fn outdated_record_is_not_returned() {
        let mut records = Records::default();
        records.insert(open("a", 1), Time::ZERO, 10);
        let end = Duration::from_secs(3) + GRACE;
        assert!(records.get("a", Duration::from_secs(2) + GRACE).is_some());
        assert!(records.get("a", end).is_none());
        records.remove_outdated(end);
        assert!(records.is_empty());
    }
}
