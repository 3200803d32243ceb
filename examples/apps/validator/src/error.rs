//! The error of a validator or of an external call.

use std::any::type_name;
use std::error::Error;
use std::fmt;
use std::ops::Deref;

use tower_fault_classify::{BoxError, ErrorChain};

/// Any error of a validator or of an external call, with the name of its type.
///
/// Every error converts with `?`. The type implements `Deref` to an error instead of `Error`, as
/// `anyhow::Error` does, so the circuits and the retries return it unchanged.
pub struct CheckError {
    error: BoxError,
    type_name: &'static str,
}

impl CheckError {
    /// Returns the path of the error's type, such as `std::io::error::Error`.
    pub const fn type_name(&self) -> &'static str {
        self.type_name
    }
}

impl<E: Error + Send + Sync + 'static> From<E> for CheckError {
    fn from(error: E) -> Self {
        Self { error: Box::new(error), type_name: type_name::<E>() }
    }
}

impl Deref for CheckError {
    type Target = dyn Error + Send + Sync;

    fn deref(&self) -> &Self::Target {
        &*self.error
    }
}

/// Prints the error and all its sources in one line.
impl fmt::Display for CheckError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        ErrorChain(&*self.error).fmt(f)
    }
}

impl fmt::Debug for CheckError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}
