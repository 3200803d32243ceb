//! What the program prints for people and for machines.

use std::fmt::{self, Display};
use std::io::{self, Write};
use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::state::CircuitState;

/// An event of a worker: a JSON object with `--json`, or else a line of text.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum Event<'a> {
    /// The breaker is ready.
    Started {
        breaker: &'a str,
        instance: &'a str,
        state: CircuitState,
        /// How long the circuit stays open.
        #[serde(rename = "retry_after_seconds", serialize_with = "seconds")]
        retry_after: Option<Duration>,
        /// Whether the store answers.
        attached: bool,
    },
    /// A call has ended.
    Call(Call<'a>),
    /// The worker has ended.
    Ended { calls: u64, succeeded: u64, failed: u64, rejected: u64, state: CircuitState, exit_code: u8 },
}

/// The outcome of a call.
#[derive(Debug, Serialize)]
pub(crate) struct Call<'a> {
    pub(crate) number: u64,
    pub(crate) outcome: Outcome,
    /// The state after the call.
    pub(crate) state: CircuitState,
    /// The kind of the error, such as `quota`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) kind: Option<&'static str>,
    #[serde(
        skip_serializing_if = "Option::is_none",
        rename = "retry_after_seconds",
        serialize_with = "seconds"
    )]
    pub(crate) retry_after: Option<Duration>,
    /// The reply, or the error.
    pub(crate) text: &'a str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    Succeeded,
    Failed,
    Rejected,
}

impl Outcome {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Rejected => "rejected",
        }
    }
}

impl Display for Event<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Started { breaker, instance, state, retry_after, attached } => {
                write!(f, "worker {instance} uses the circuit breaker {breaker}: {state}")?;
                if let Some(left) = retry_after {
                    write!(f, " for {:.1} s", left.as_secs_f64())?;
                }
                if !attached {
                    f.write_str("; the store does not answer, so this worker decides for itself")?;
                }
                Ok(())
            }
            Self::Call(Call { number, outcome, state, text, .. }) => {
                write!(f, "call {number} {}, {state}: {}", outcome.as_str(), printable(text))
            }
            Self::Ended { calls, succeeded, failed, rejected, .. } => {
                write!(f, "{calls} calls: {succeeded} succeeded, {failed} failed, {rejected} rejected")
            }
        }
    }
}

/// Prints for people or for machines.
///
/// Errors of writes are ignored: the reader may have closed the pipe, and the worker goes on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Console {
    json: bool,
}

impl Console {
    pub(crate) fn new(json: bool) -> Self {
        Self { json }
    }

    /// Prints a value as JSON with `--json`, or else as text.
    pub(crate) fn print(self, value: &(impl Serialize + Display)) {
        if self.json {
            json_line(value);
        } else {
            line(value);
        }
    }

    pub(crate) fn is_json(self) -> bool {
        self.json
    }
}

/// Returns a text as one line without control characters, which could change a terminal.
pub(crate) fn printable(text: &str) -> String {
    let text = text.replace("\r\n", "\n").replace('\n', " / ").replace('\t', " ");
    text.replace(char::is_control, "\u{fffd}")
}

/// Prints a value as one line of JSON on stdout.
pub(crate) fn json_line(value: &impl Serialize) {
    if let Ok(text) = serde_json::to_string(value) {
        line(text);
    }
}

/// Prints a line on stdout.
pub(crate) fn line(text: impl Display) {
    let mut stdout = io::stdout().lock();
    let _ = writeln!(stdout, "{text}").and_then(|()| stdout.flush());
}

#[expect(clippy::ref_option, reason = "serde calls it so")]
fn seconds<S: Serializer>(time: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    time.map(|time| time.as_secs_f64()).serialize(serializer)
}
