//! Markers for the error type that the layer returns.
//!
//! | marker | error type of the service | selected by |
//! |---|---|---|
//! | [`WrapErrors`] | [`ClassifiedError`], around the inner error | **Default** |
//! | [`KeepErrors`] | the inner error, unchanged | [`keep_errors`](crate::FaultClassifyLayer::keep_errors) |

use crate::error::{BoxError, ClassifiedError};
use crate::fault::Fault;
use crate::table;
use crate::telemetry;

/// Maps the inner service's error to the error that the layer returns.
///
/// The trait is sealed: [`WrapErrors`] and [`KeepErrors`] implement it.
#[diagnostic::on_unimplemented(
    message = "a `FaultClassifyLayer` cannot wrap the error `{E}` in a `ClassifiedError`",
    note = "the error must convert into a `BoxError`: implement `std::error::Error` for `{E}`, which must be `Send + Sync + 'static`",
    note = "to return the error as it is, call `.keep_errors()` on the layer"
)]
pub trait ErrorMode<E>: sealed::Sealed {
    /// The error that the layer returns.
    type Error;

    /// Returns the error that the layer returns, with the verdict if the mode carries it.
    ///
    /// `classify` is called only if the verdict is needed. It returns `None` for an error that is
    /// classified as a success.
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

/// Wraps each error in a [`ClassifiedError`].
#[derive(Clone, Copy, Debug, Default)]
pub struct WrapErrors;

/// Returns each error unchanged.
#[derive(Clone, Copy, Debug, Default)]
pub struct KeepErrors;

mod sealed {
    pub trait Sealed {}

    impl Sealed for super::KeepErrors {}
    impl Sealed for super::WrapErrors {}
}
