//! The results of validators, and the report of a run.

use std::any::Any;
use std::borrow::Cow;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value};
use subprocess::SubprocessError;
use tower_fault_classify::{Kind, classify_error};

use crate::error::CheckError;

/// The maximum length of a foreign text in a message, in characters.
const MAX_CHARS: usize = 100;

/// The key in [`ValidationResult::details`] that a validator without a verdict has.
const ERROR: &str = "error";

/// The key in [`ValidationResult::details`] that the whole text of a shortened error has.
const TEXT: &str = "text";

/// The reason of a validator without a verdict that was interrupted.
const INTERRUPTED: &str = "interrupted";

/// Further facts about a result, as JSON.
pub type Details = Map<String, Value>;

/// The verdict of a validator that has run.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// Whether the check passed.
    pub passed: bool,
    /// What the check found, in one line.
    pub message: String,
    /// Further facts. The key `error` is reserved for validators without a verdict.
    pub details: Details,
}

/// The result of one validator.
///
/// A validator that gave no verdict has not passed. [`details`](Self::details) then contains the
/// key `error`:
///
/// | `details.error` | `message` | reason |
/// |---|---|---|
/// | `timeout` | `Timeout after Ns` | the validator did not finish in its time limit |
/// | `timeout` | `Error: …` | an external call of the validator did not finish in its time limit |
/// | `circuit_open` | `Circuit open: …` | a circuit rejected the validator's external call |
/// | `not_found` | `Error: …` | the validator's program is not installed |
/// | `panic` | `Error: …` | the validator panicked |
/// | `interrupted` | `Interrupted` | the run was interrupted before the validator finished |
/// | the path of the error's type | `Error: …` | any other error |
///
/// The text of an error has at most 100 characters. If the error is longer, its text ends with `…`,
/// and [`details`](Self::details) contains all of it under the key `text`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ValidationResult {
    /// What the validator checks, such as `lint` or `security`.
    pub dimension: String,
    /// The importance of the validator. Tier 1 is the most important one.
    pub tier: u8,
    /// Whether the check passed.
    pub passed: bool,
    /// What the check found, or why it gave no verdict, in one line.
    pub message: String,
    /// Further facts, such as the command and its output.
    pub details: Details,
}

impl ValidationResult {
    /// Creates the result of a validator that gave a verdict.
    pub fn from_verdict(dimension: &str, tier: u8, verdict: Verdict) -> Self {
        let Verdict { passed, message, details } = verdict;
        Self { dimension: dimension.to_owned(), tier, passed, message, details }
    }

    /// Creates the result of a validator that did not finish in its time limit.
    pub fn from_timeout(dimension: &str, tier: u8, timeout: Duration) -> Self {
        let message = format!("Timeout after {}s", timeout.as_secs_f64());
        Self::without_verdict(dimension, tier, message, "timeout")
    }

    /// Creates the result of a validator that failed with an error.
    pub fn from_error(dimension: &str, tier: u8, error: &CheckError) -> Self {
        let kind = match classify_error(&**error).kind() {
            Kind::Rejected => {
                let message = format!("Circuit open: {error}");
                return Self::without_verdict(dimension, tier, message, "circuit_open");
            }
            _ if is_not_found(error) => "not_found",
            Kind::Timeout => "timeout",
            _ => error.type_name(),
        };
        Self::from_error_text(dimension, tier, &error.to_string(), kind)
    }

    /// Creates the result of a validator that panicked with `payload`.
    pub fn from_panic(dimension: &str, tier: u8, payload: &(dyn Any + Send)) -> Self {
        let text = match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
            (Some(text), _) => *text,
            (None, Some(text)) => text.as_str(),
            (None, None) => "the validator panicked",
        };
        Self::from_error_text(dimension, tier, text, "panic")
    }

    fn from_error_text(dimension: &str, tier: u8, text: &str, error: &str) -> Self {
        let short = shorten(text);
        let mut result = Self::without_verdict(dimension, tier, format!("Error: {short}"), error);
        if short != text {
            result.details.insert(TEXT.to_owned(), text.into());
        }
        result
    }

    /// Creates the result of a validator that did not finish before the run was interrupted.
    pub fn from_interrupt(dimension: &str, tier: u8) -> Self {
        Self::without_verdict(dimension, tier, "Interrupted".to_owned(), INTERRUPTED)
    }

    fn without_verdict(dimension: &str, tier: u8, message: String, error: &str) -> Self {
        let details = Details::from_iter([(ERROR.to_owned(), error.into())]);
        Self { dimension: dimension.to_owned(), tier, passed: false, message, details }
    }

    /// Returns why the validator gave no verdict. `None`: it gave one.
    pub fn error(&self) -> Option<&str> {
        self.details.get(ERROR).and_then(Value::as_str)
    }

    /// Returns the whole text of an error that is cut in the message.
    pub fn error_text(&self) -> Option<&str> {
        self.error().and(self.details.get(TEXT)).and_then(Value::as_str)
    }
}

/// Cuts a text to [`MAX_CHARS`], of which the last one is then `…`.
pub(crate) fn shorten(text: &str) -> Cow<'_, str> {
    if text.chars().nth(MAX_CHARS).is_none() {
        return text.into();
    }
    text.chars().take(MAX_CHARS - 1).chain(['…']).collect::<String>().into()
}

fn is_not_found(error: &CheckError) -> bool {
    matches!(error.downcast_ref(), Some(SubprocessError::NotFound { .. }))
}

/// The results of a run.
///
/// As JSON:
///
/// ```json
/// {
///   "results": [
///     {
///       "dimension": "visual",
///       "tier": 1,
///       "passed": false,
///       "message": "Timeout after 30s",
///       "details": { "error": "timeout" }
///     }
///   ],
///   "passed": false,
///   "degraded": true
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The result of each validator, in the order of the validators.
    pub results: Vec<ValidationResult>,
    /// Whether all validators passed.
    pub passed: bool,
    /// Whether a validator gave no verdict: [`ValidationResult::error`] says why.
    pub degraded: bool,
}

impl Report {
    /// Creates the report of these results.
    pub fn new(results: Vec<ValidationResult>) -> Self {
        let passed = results.iter().all(|result| result.passed);
        let degraded = results.iter().any(|result| result.error().is_some());
        Self { results, passed, degraded }
    }

    /// Returns whether a validator gave the verdict that its check failed.
    ///
    /// A report that has not passed and has no failed check is only degraded.
    pub fn has_failed_check(&self) -> bool {
        self.results.iter().any(|result| !result.passed && result.error().is_none())
    }

    /// Returns whether the run was interrupted before all validators had finished.
    pub fn is_interrupted(&self) -> bool {
        self.results.iter().any(|result| result.error() == Some(INTERRUPTED))
    }
}
