//! Calls, and the attempts whose clients wait.

use std::collections::VecDeque;

use tower_jitter_retry::decision::RetryCall;

use super::ProcessId;
use crate::client::Permit;
use crate::server::AttemptId;

/// A call, which makes one attempt or more.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) process: ProcessId,
    pub(super) shard: u32,
    /// When the call began, in nanoseconds.
    pub(super) began: u64,
    /// Whether a request was sent.
    pub(super) sent: bool,
    /// The retries, if the process has a policy.
    pub(super) retry: Option<RetryCall>,
}

/// An attempt whose client waits.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) call: Box<Call>,
    pub(super) permit: Permit,
}

/// The attempts whose clients wait, by their number.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    /// The number of the first entry.
    first: AttemptId,
    entries: VecDeque<Option<Attempt>>,
}

impl Attempts {
    /// Adds an attempt and returns its number.
    pub(super) fn add(&mut self, attempt: Attempt) -> AttemptId {
        self.entries.push_back(Some(attempt));
        self.first + self.entries.len() as u64 - 1
    }

    /// Returns whether the client of an attempt waits.
    pub(super) fn waits(&self, id: AttemptId) -> bool {
        let index = id.checked_sub(self.first).map(|index| index as usize);
        index.and_then(|index| self.entries.get(index)).is_some_and(Option::is_some)
    }

    /// Removes an attempt. `None`: it has already ended.
    pub(super) fn remove(&mut self, id: AttemptId) -> Option<Attempt> {
        let index = id.checked_sub(self.first)? as usize;
        let attempt = self.entries.get_mut(index)?.take();
        while let Some(None) = self.entries.front() {
            self.entries.pop_front();
            self.first += 1;
        }
        attempt
    }
}
