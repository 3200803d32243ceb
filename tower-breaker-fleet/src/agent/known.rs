//! The last record that a process has seen, and how it ages.

use std::time::Duration;

use super::Time;
use crate::record::{CircuitRecord, FleetState, Override};

/// The last record of the store, with the times of this process.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    record: CircuitRecord,
    /// When the open time is over. `None`: never, until another decision.
    until: Option<Time>,
    /// When the manual override ends. `None`: there is none, or it has no end.
    manual_until: Option<Time>,
    /// When this process saw the epoch first.
    since: Time,
}

impl Known {
    /// Returns a record that was received at `now`.
    ///
    /// The open time is at most `max_open`, so that a wrong record cannot hold a circuit open for
    /// longer. `may_be_endless`: a record without an end is valid for this circuit.
    pub(crate) fn new(record: CircuitRecord, now: Time, max_open: Duration, may_be_endless: bool) -> Self {
        let mut known = Self { record, until: None, manual_until: None, since: now };
        known.set_times(now, max_open, may_be_endless);
        known
    }

    /// Takes the times of a later record of the same epoch.
    pub(crate) fn refresh(
        &mut self,
        record: CircuitRecord,
        now: Time,
        max_open: Duration,
        may_be_endless: bool,
    ) {
        self.record = record;
        self.set_times(now, max_open, may_be_endless);
    }

    fn set_times(&mut self, now: Time, max_open: Duration, may_be_endless: bool) {
        let manual_remaining = self.record.manual.and(self.record.manual_remaining);
        self.manual_until = manual_remaining.map(|remaining| now.saturating_add(remaining));
        self.until = match (self.record.state, self.record.remaining) {
            (FleetState::Open, None) if may_be_endless => None,
            (FleetState::Open, remaining) => {
                let remaining = remaining.unwrap_or(max_open).min(max_open);
                // Times are relative to the reply. That of a late message ends too late.
                let earlier = self.until.unwrap_or(Time::MAX);
                Some(now.saturating_add(remaining).min(earlier))
            }
            _ => Some(self.since),
        };
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.record.epoch
    }

    /// Whether a record is of this decision: it has its epoch, and says what the decision says now
    /// or said before its override ended.
    pub(crate) fn is_of(&self, record: &CircuitRecord, now: Time) -> bool {
        let content = |record: &CircuitRecord| (record.manual, record.state == FleetState::Closed);
        self.epoch() == record.epoch
            && [&self.record, &self.record(now)].map(content).contains(&content(record))
    }

    /// Returns the manual override that is in force.
    pub(crate) fn manual(&self, now: Time) -> Option<Override> {
        self.record.manual.filter(|_| self.manual_until.is_none_or(|until| now < until))
    }

    /// Returns when the manual override ends. `None`: there is none, or it has no end.
    pub(crate) fn manual_until(&self) -> Option<Time> {
        self.manual_until
    }

    /// Returns the state. After an override to forced open, the circuit is open with its time over.
    pub(crate) fn state(&self, now: Time) -> FleetState {
        match (self.record.manual, self.manual(now)) {
            (Some(Override::ForcedOpen), None) => FleetState::Open,
            (Some(Override::ForcedClosed), None) => FleetState::Closed,
            _ => self.record.state,
        }
    }

    /// Whether the fleet does not admit calls, without a manual override.
    pub(crate) fn is_unclosed(&self, now: Time) -> bool {
        self.manual(now).is_none() && self.state(now) != FleetState::Closed
    }

    /// When the open time is over. `None`: never.
    pub(crate) fn until(&self) -> Option<Time> {
        self.until
    }

    pub(crate) fn since(&self) -> Time {
        self.since
    }

    /// Whether the open time is over, so that the fleet may probe.
    pub(crate) fn is_time_over(&self, now: Time) -> bool {
        self.until.is_some_and(|until| until <= now)
    }

    /// Returns the record with its remaining times at `now`.
    pub(crate) fn record(&self, now: Time) -> CircuitRecord {
        let mut record = self.record.clone();
        record.state = self.state(now);
        record.manual = self.manual(now);
        record.remaining = match record.state {
            FleetState::Open | FleetState::HalfOpen => self.until.map(|until| until.saturating_sub(now)),
            FleetState::Closed => Some(Duration::ZERO),
        };
        record.manual_remaining = record.manual.and(self.manual_until).map(|until| until.saturating_sub(now));
        record
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: Duration = Duration::from_secs(600);

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn open(remaining: Option<Duration>) -> CircuitRecord {
        CircuitRecord { epoch: 1, state: FleetState::Open, remaining, ..CircuitRecord::default() }
    }

    #[test]
    fn record_ages() {
        let known = Known::new(open(Some(seconds(3))), seconds(10), MAX, false);
        assert_eq!(known.record(seconds(11)).remaining, Some(seconds(2)));
        assert_eq!(known.record(seconds(20)).remaining, Some(seconds(0)));
        assert!(!known.is_time_over(seconds(12)));
        assert!(known.is_time_over(seconds(13)));
    }

    #[test]
    fn open_time_is_capped_and_does_not_grow_in_its_epoch() {
        let mut known = Known::new(open(Some(Duration::MAX)), seconds(10), MAX, false);
        assert_eq!(known.until(), Some(seconds(610)));
        known.refresh(open(Some(Duration::MAX)), seconds(300), MAX, false);
        assert_eq!(known.until(), Some(seconds(610)));
        known.refresh(open(Some(seconds(1))), seconds(300), MAX, false);
        assert_eq!(known.until(), Some(seconds(301)));
    }

    #[test]
    fn endless_open_time_is_capped_unless_the_circuit_is_open_until_reset() {
        assert_eq!(Known::new(open(None), seconds(10), MAX, false).until(), Some(seconds(610)));
        assert_eq!(Known::new(open(None), seconds(10), MAX, true).until(), None);
    }

    #[test]
    fn override_ends_by_itself_as_a_release() {
        for (manual, state) in
            [(Override::ForcedOpen, FleetState::Open), (Override::ForcedClosed, FleetState::Closed)]
        {
            let record = CircuitRecord {
                epoch: 1,
                manual: Some(manual),
                manual_remaining: Some(seconds(5)),
                remaining: Some(Duration::ZERO),
                ..CircuitRecord::default()
            };
            let known = Known::new(record, seconds(10), MAX, false);
            assert_eq!(known.manual(seconds(14)), Some(manual));
            assert_eq!(known.record(seconds(14)).manual_remaining, Some(seconds(1)));
            assert_eq!(known.manual(seconds(15)), None);
            assert_eq!(known.state(seconds(15)), state);
            let aged = known.record(seconds(16));
            assert_eq!((aged.state, aged.manual, aged.manual_remaining), (state, None, None));
            assert_eq!(aged.remaining, Some(Duration::ZERO));
        }
    }
}
