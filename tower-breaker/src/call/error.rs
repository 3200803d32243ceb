//! The error of a call without tower.

use std::error::Error;
use std::ops::Deref;

use tower_fault_classify::classifiers::{AsError, BoxedError, TypedError};

use crate::error::{BreakerError, Rejection, TimedOut};

/// Determines the error of a guarded call from the error of the future or closure.
///
/// The marker `K` is inferred from the error type.
///
/// | `K` | error of the future or closure | [`Returned`](Self::Returned) |
/// |---|---|---|
/// | [`TypedError`] | a type `E` that implements [`Error`] and is `'static` | [`BreakerError<E>`] |
/// | [`BoxedError`] | boxed: `BoxError`, `anyhow::Error`, `eyre::Report` | the same type; a [`Rejection`] or [`TimedOut`] is boxed directly: `error.is::<Rejection>()` |
///
/// These are the error types of a [`BreakerLayer`](crate::BreakerLayer), too.
///
/// Sealed: it is implemented for the errors of the table.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is neither a `'static` type that implements `std::error::Error` nor a box of one",
    note = "implement `std::error::Error` for it, or convert it, for example with `.map_err(std::io::Error::other)`",
    note = "boxes of errors are `BoxError` (`Box<dyn Error + Send + Sync>`), `anyhow::Error` and `eyre::Report`"
)]
pub trait CallError<K>: AsError<K> + Sized {
    /// The error of the guarded call.
    type Returned;

    /// Converts an error of the future or closure.
    #[doc(hidden)]
    fn into_returned(self) -> Self::Returned;

    /// Converts the rejection of a call.
    #[doc(hidden)]
    fn rejected(rejection: Rejection) -> Self::Returned;

    /// Converts the elapsed timeout of a call.
    #[doc(hidden)]
    fn timed_out(error: TimedOut) -> Self::Returned;
}

impl<E: Error + 'static> CallError<TypedError> for E {
    type Returned = BreakerError<E>;

    fn into_returned(self) -> BreakerError<E> {
        BreakerError::Inner(self)
    }

    fn rejected(rejection: Rejection) -> BreakerError<E> {
        BreakerError::Rejected(rejection)
    }

    fn timed_out(error: TimedOut) -> BreakerError<E> {
        BreakerError::TimedOut(error)
    }
}

impl<E> CallError<BoxedError> for E
where
    E: Deref<Target = dyn Error + Send + Sync> + From<Rejection> + From<TimedOut>,
{
    type Returned = E;

    fn into_returned(self) -> E {
        self
    }

    fn rejected(rejection: Rejection) -> E {
        rejection.into()
    }

    fn timed_out(error: TimedOut) -> E {
        error.into()
    }
}
