//! What the layer returns in place of an error.
//!
//! [`WrapErrors`], the default, wraps each error into a [`ClassifiedError`]. [`KeepErrors`] leaves each
//! error as it is. Both are markers in the type of the layer:
//! [`keep_errors`](crate::FaultClassifyLayer::keep_errors) changes it.

use crate::error::{BoxError, ClassifiedError};
use crate::fault::Fault;
use crate::table;
use crate::telemetry;

/// What the layer returns in place of an error. Sealed: [`WrapErrors`] or [`KeepErrors`].
#[diagnostic::on_unimplemented(
    message = "a `FaultClassifyLayer` cannot wrap the error `{E}` in a `ClassifiedError`",
    note = "the error must convert into a `BoxError`: implement `std::error::Error` for `{E}`, which must be `Send + Sync + 'static`",
    note = "to return the error as it is, call `.keep_errors()` on the layer"
)]
pub trait ErrorMode<E>: sealed::Sealed {
    /// The error that comes out.
    type Error;

    /// Passes the verdict on with the error. `classify` is called only if the mode needs the verdict.
    fn map_error(error: E, classify: impl FnOnce(&E) -> Option<Fault>) -> Self::Error;
}

#[diagnostic::do_not_recommend]
impl<E: Into<BoxError>> ErrorMode<E> for WrapErrors {
    type Error = ClassifiedError;

    fn map_error(error: E, classify: impl FnOnce(&E) -> Option<Fault>) -> ClassifiedError {
        let fault = classify(&error);
        ClassifiedError::new(fault.unwrap_or(table::SUCCESS_ERROR), error)
    }
}

impl<E> ErrorMode<E> for KeepErrors {
    type Error = E;

    fn map_error(error: E, classify: impl FnOnce(&E) -> Option<Fault>) -> E {
        if telemetry::ENABLED {
            classify(&error);
        }
        error
    }
}

/// Wraps each error into [`ClassifiedError`].
#[derive(Clone, Copy, Debug, Default)]
pub struct WrapErrors;

/// Leaves each error as it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct KeepErrors;

mod sealed {
    pub trait Sealed {}

    impl Sealed for super::KeepErrors {}
    impl Sealed for super::WrapErrors {}
}
