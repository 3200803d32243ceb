//! Transitions and audit entries that are not in the log yet.

use std::collections::VecDeque;

use tower_breaker::telemetry::Transition;

use crate::audit::AuditEntry;

/// The entries that are kept if the sampler does not run.
///
/// More than the log keeps for streams that resume, so that many circuits can open at once.
const CAPACITY: usize = 1024;

/// An event that has an id.
pub(super) enum Entry {
    Transition(Transition),
    Audit(AuditEntry),
}

/// The newest entries, oldest first.
#[derive(Default)]
pub(super) struct Inbox {
    pub(super) entries: VecDeque<Entry>,
    /// How many older entries were dropped.
    pub(super) dropped: u64,
}

impl Inbox {
    pub(super) fn push(&mut self, entry: Entry) {
        if self.entries.len() == CAPACITY {
            self.entries.pop_front();
            self.dropped += 1;
        }
        self.entries.push_back(entry);
    }
}
