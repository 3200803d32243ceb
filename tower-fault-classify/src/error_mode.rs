//! What the layer returns in place of an error.

use crate::error::{BoxError, Judged};
use crate::fault::Fault;
use crate::table;
use crate::telemetry;

/// What becomes of an error that was judged.
pub trait ErrorMode<E> {
    /// The error that comes out.
    type Error;

    /// Passes the verdict on with the error. `judge` is asked only if the mode needs the verdict.
    fn pass_on(error: E, judge: impl FnOnce(&E) -> Option<Fault>) -> Self::Error;
}

impl<E: Into<BoxError>> ErrorMode<E> for WrapErrors {
    type Error = Judged;

    fn pass_on(error: E, judge: impl FnOnce(&E) -> Option<Fault>) -> Judged {
        let fault = judge(&error);
        Judged::new(fault.unwrap_or(table::HARMLESS), error)
    }
}

impl<E> ErrorMode<E> for KeepErrors {
    type Error = E;

    fn pass_on(error: E, judge: impl FnOnce(&E) -> Option<Fault>) -> E {
        if telemetry::LISTENED_TO {
            judge(&error);
        }
        error
    }
}

/// Wraps each error into [`Judged`](crate::Judged).
#[derive(Clone, Copy, Debug, Default)]
pub struct WrapErrors;

/// Leaves each error as it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct KeepErrors;
