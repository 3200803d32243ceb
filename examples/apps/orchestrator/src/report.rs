//! The events of a run, and the results of its tasks.

use std::time::Duration;

use serde::{Serialize, Serializer};
use tower_breaker::{Circuit, Reason, Status};

/// An event of a run.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A task was started.
    Started {
        /// The ID of the task.
        task: String,
    },
    /// The prompt of a task is sent to its backend.
    Sent {
        /// The ID of the task.
        task: String,
        /// The number of the attempt, from 1.
        attempt: u32,
    },
    /// An attempt has failed. The task is sent again, or fails.
    AttemptFailed {
        /// The ID of the task.
        task: String,
        /// The number of the attempt, from 1.
        attempt: u32,
        /// The error with its causes.
        error: String,
    },
    /// A task has ended, or will not start. This is the last event of the task.
    Ended(TaskResult),
}

/// The result of a task.
#[derive(Clone, Debug, Serialize)]
pub struct TaskResult {
    /// The ID of the task.
    #[serde(rename = "task")]
    pub id: String,
    /// The type of the task's backend.
    pub agent: String,
    /// How the task ended.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// How often the prompt was sent.
    pub attempts: u32,
    /// The time from the start of the task to its end. Zero if the task was not started.
    #[serde(rename = "duration_seconds", serialize_with = "seconds")]
    pub duration: Duration,
}

impl TaskResult {
    /// Returns whether the task is completed.
    pub fn is_success(&self) -> bool {
        matches!(self.outcome, Outcome::Completed { .. })
    }
}

/// How a task ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Outcome {
    /// The backend has answered.
    Completed {
        /// The answer.
        response: String,
    },
    /// The task failed.
    Failed {
        /// The error with its causes.
        error: String,
        /// Why the circuit of the backend is open; `None` if it is closed.
        circuit: Option<Trip>,
    },
    /// The task was not started, because a task that it depends on has failed.
    Skipped {
        /// The ID of the task that failed.
        because: String,
    },
    /// The run was cancelled before the task ended.
    Cancelled,
}

/// Why a circuit opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Trip {
    /// The reason.
    pub reason: Reason,
    /// The number of failures in a row; 0 if a probe failed.
    pub consecutive_failures: u64,
}

impl Trip {
    /// Returns why a circuit is open or half-open; `None` if it is closed.
    pub(crate) fn of(circuit: &Circuit) -> Option<Self> {
        let status = circuit.status();
        if status.state == tower_breaker::CircuitState::Closed {
            return None;
        }
        let trip = status.last_trip?;
        Some(Self { reason: trip.reason, consecutive_failures: trip.consecutive_failures })
    }
}

/// The results of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The results of all tasks, in the order of the plan.
    pub tasks: Vec<TaskResult>,
    /// The circuits of the backends that were used, sorted by name.
    pub circuits: Vec<Status>,
    /// The duration of the run.
    #[serde(rename = "duration_seconds", serialize_with = "seconds")]
    pub duration: Duration,
}

impl Report {
    /// Returns whether all tasks are completed.
    pub fn is_success(&self) -> bool {
        self.tasks.iter().all(TaskResult::is_success)
    }

    /// Returns whether a task was cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.tasks.iter().any(|task| task.outcome == Outcome::Cancelled)
    }
}

fn seconds<S: Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_f64(duration.as_secs_f64())
}
