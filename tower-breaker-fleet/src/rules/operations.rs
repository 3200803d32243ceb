//! Manual operations.

use std::time::Duration;

use super::deadline::Deadline;
use super::{CircuitData, Decision, clean_text};
use crate::record::{FleetState, Override};
use crate::store::{Action, Operation, OperationReply, Update};

impl CircuitData {
    /// Applies a manual operation, unless its epoch is another one or an override forbids it.
    ///
    /// A release without an override changes nothing, so that a repeated release closes no circuit.
    pub(crate) fn operate(&mut self, operation: &Operation, now: u64) -> (OperationReply, Vec<Update>) {
        let mut changed = self.update_to(now);
        let is_expected = operation.expected_epoch.is_none_or(|epoch| epoch == self.epoch);
        let is_blocked = self.manual.is_some() && matches!(operation.action, Action::Trip | Action::Reset);
        let applied = is_expected && !is_blocked;
        if applied {
            changed |= self.apply(operation, now);
        }
        let record = self.current_record(&operation.circuit, now);
        (OperationReply { applied, record }, self.updates(changed, &operation.circuit, now))
    }

    fn apply(&mut self, operation: &Operation, now: u64) -> bool {
        let (reason, by) = (&*clean_text(&operation.reason), &*clean_text(&operation.by));
        let grace = operation.grace;
        let ended = Some(Deadline::after(now, Duration::ZERO));
        let (state, until, manual) = match operation.action {
            Action::Trip => {
                let until = operation.open_for.map(|open_for| Deadline::after(now, open_for));
                (FleetState::Open, until, None)
            }
            Action::Reset => (FleetState::Closed, ended, None),
            Action::ForceOpen => (FleetState::Open, ended, Some(Override::ForcedOpen)),
            Action::ForceClosed => (FleetState::Closed, ended, Some(Override::ForcedClosed)),
            Action::Release => {
                let is_forced = self.manual.is_some();
                if is_forced {
                    self.release(now, reason, by, grace);
                }
                return is_forced;
            }
        };
        self.begin_epoch(now, Decision { state, until, reason, by, grace });
        self.manual = manual;
        let keep_for = manual.and(operation.keep_for);
        self.manual_until = keep_for.map(|keep_for| Deadline::after(now, keep_for));
        true
    }
}
