//! Validators: a command, and the commands for a Rust package.

use std::fmt;
use std::path::Path;

use futures::future::BoxFuture;

use crate::error::CheckError;
use crate::result::Verdict;

/// A check of one dimension of a project.
pub trait Validator: fmt::Debug + Send + Sync {
    /// Returns what the validator checks, such as `lint`. It selects the time limit.
    fn dimension(&self) -> &str;

    /// Returns the importance of the validator. Tier 1 is the most important one.
    fn tier(&self) -> u8;

    /// Checks the project.
    ///
    /// The future must not block its thread: a time limit cannot end it then. It is dropped when
    /// the time is over.
    ///
    /// An error says that the validator has no verdict.
    fn validate(&self) -> BoxFuture<'_, Result<Verdict, CheckError>>;
}
