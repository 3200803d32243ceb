//! Calls, and the attempts whose clients wait.

use std::collections::VecDeque;

use tower_jitter_retry::decision::RetryCall;

use super::ProcessId;
use crate::client::Permit;
use crate::reply::Reply;
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
    /// The answer and when it arrives, in nanoseconds, once the server has answered.
    pub(super) answer: Option<(u64, Reply)>,
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
        self.index(id).is_some_and(|index| self.entries[index].is_some())
    }

    /// Sets the answer of an attempt that arrives at `at`, if its client waits.
    pub(super) fn set_answer(&mut self, id: AttemptId, at: u64, reply: Reply) {
        if let Some(index) = self.index(id)
            && let Some(attempt) = &mut self.entries[index]
        {
            attempt.answer = Some((at, reply));
        }
    }

    /// Removes an attempt. `None`: it has already ended.
    pub(super) fn remove(&mut self, id: AttemptId) -> Option<Attempt> {
        let index = self.index(id)?;
        let attempt = self.entries[index].take();
        while let Some(None) = self.entries.front() {
            self.entries.pop_front();
            self.first += 1;
        }
        attempt
    }

    /// Returns the position of an attempt. `None`: it has ended long ago.
    fn index(&self, id: AttemptId) -> Option<usize> {
        let index = id.checked_sub(self.first)? as usize;
        (index < self.entries.len()).then_some(index)
    }
}
