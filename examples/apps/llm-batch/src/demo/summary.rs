//! The table at the end of the demo.

use std::collections::BTreeSet;
use std::fmt;

use test_servers::Llm;

use super::api::ITEMS;
use crate::unit::{self, Unit};

/// What the job has done.
#[derive(Debug)]
pub(super) struct Summary {
    /// The number of items with a good result.
    results: usize,
    requests: u32,
    answered: u32,
    /// The answers to prompts that were answered before.
    repeated: u32,
}

impl Summary {
    /// Counts the results of the output, and the requests to the API.
    pub(super) fn new(output: &str, llm: &Llm) -> serde_json::Result<Self> {
        let mut indices = BTreeSet::new();
        for line in output.lines() {
            let result: Unit = serde_json::from_str(line)?;
            if !unit::is_failed(&result) {
                indices.extend(unit::index(&result));
            }
        }
        let counts = llm.all_counts();
        let answered = counts.values().map(|count| count.answered).sum();
        Ok(Self {
            results: indices.len(),
            requests: counts.values().map(|count| count.requests).sum(),
            answered,
            repeated: counts.values().map(|count| count.answered.saturating_sub(1)).sum(),
        })
    }

    /// Returns the number of items with a good result.
    pub(super) fn results(&self) -> usize {
        self.results
    }

    /// Returns whether no result is lost, and no more answers were repeated than calls were in
    /// flight when the process was killed.
    pub(super) fn is_complete(&self, batch_size: usize) -> bool {
        self.lost() == 0 && self.repeated as usize <= batch_size
    }

    fn lost(&self) -> usize {
        ITEMS - self.results
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let failed = self.requests - self.answered;
        writeln!(f, "items                                  {ITEMS:>5}")?;
        writeln!(f, "results                                {:>5}", self.results)?;
        writeln!(f, "requests                               {:>5}", self.requests)?;
        writeln!(f, "failed requests                        {failed:>5}")?;
        writeln!(f, "repeated requests, in flight at SIGKILL{:>5}", self.repeated)?;
        write!(f, "lost results                           {:>5}", self.lost())
    }
}
