//! The error that carries a verdict, and the conversion of any error to `dyn Error`.

#[cfg(feature = "__internals-notes")]
use std::any::Any;
use std::any::type_name;
use std::error::Error;
use std::fmt;
use std::ops::Deref;
#[cfg(any(feature = "tonic", feature = "__internals-notes"))]
use std::sync::OnceLock;
#[cfg(feature = "__internals-notes")]
use std::sync::{Arc, Mutex, PoisonError};

#[cfg(feature = "tonic")]
use crate::duration::DisplayDuration;
use crate::error_chain::{classify_error, classify_typed};
use crate::fault::Fault;
#[cfg(feature = "tonic")]
use crate::fault::{Kind, Retryable};
#[cfg(feature = "tonic")]
use crate::grpc::pushback_value;

/// A boxed error of any type.
pub type BoxError = Box<dyn Error + Send + Sync + 'static>;

/// A marker for errors whose type implements [`Error`].
#[derive(Clone, Copy, Debug)]
pub struct TypedError;

/// A marker for boxed errors: `BoxError`, `anyhow::Error`, `eyre::Report`.
///
/// Their type does not implement [`Error`], but dereferences to a `dyn Error`.
#[derive(Clone, Copy, Debug)]
pub struct BoxedError;

/// A typed or boxed error that can be read as a `dyn Error`.
///
/// No single trait covers both a `Box<dyn Error>` and every type that implements [`Error`]. The
/// marker `K` ([`TypedError`] or [`BoxedError`]) distinguishes them, and is inferred from the
/// error's type.
///
/// The trait is sealed. It is implemented for every type that implements [`Error`], and for every
/// pointer to a `dyn Error`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is neither a `'static` type that implements `std::error::Error` nor a box of one",
    note = "implement `std::error::Error` for it, or convert it, for example with `.map_err(std::io::Error::other)`; or give the layer a classifier of your own",
    note = "boxes of errors are `BoxError` (`Box<dyn Error + Send + Sync>`), `anyhow::Error` and `eyre::Report`"
)]
pub trait AsError<K>: sealed::Sealed<K> {
    /// Returns the error as a `dyn Error`.
    fn as_error(&self) -> &(dyn Error + 'static);

    /// Returns the name of the type of the `dyn Error`. `None`: the type is not known, because the
    /// error is boxed.
    #[doc(hidden)]
    fn error_type() -> Option<&'static str>;

    /// Classifies the error, as [`classify_error`](crate::classify_error) does. Some known types
    /// need no walk.
    #[doc(hidden)]
    fn classify_chain(&self) -> Fault;
}

impl<E> AsError<TypedError> for E
where
    E: Error + 'static,
{
    #[inline]
    fn as_error(&self) -> &(dyn Error + 'static) {
        self
    }

    fn error_type() -> Option<&'static str> {
        Some(type_name::<E>())
    }

    #[inline]
    fn classify_chain(&self) -> Fault {
        classify_typed(self)
    }
}

impl<E> AsError<BoxedError> for E
where
    E: Deref<Target = dyn Error + Send + Sync>,
{
    #[inline]
    fn as_error(&self) -> &(dyn Error + 'static) {
        &**self
    }

    fn error_type() -> Option<&'static str> {
        None
    }

    #[inline]
    fn classify_chain(&self) -> Fault {
        classify_error(self.as_error())
    }
}

mod sealed {
    use std::error::Error;
    use std::ops::Deref;

    pub trait Sealed<K> {}

    impl<E: Error + 'static> Sealed<super::TypedError> for E {}
    impl<E: Deref<Target = dyn Error + Send + Sync>> Sealed<super::BoxedError> for E {}
}

/// An error together with the fault that it was classified as.
///
/// Every layer above finds it in the chain of [`source`](Error::source)s, at any depth: it is one
/// concrete type, whatever the types around it are.
///
/// | made by | [`source`](Error::source) | [`Display`](fmt::Display) |
/// |---|---|---|
/// | [`FaultClassifyLayer`](crate::FaultClassifyLayer), around the inner service's error | the inner service's error | `call failed, classified as …` |
/// | a layer that rejects a call, as the source of its own error | none; with the feature `tonic`, a `tonic::Status` | the fault |
///
/// `Display` does not print the source. To log the whole chain, use
/// [`ErrorChain`](crate::ErrorChain).
///
/// # gRPC
///
/// A generated client returns the `tonic::Status` that it finds among an error's sources, and
/// `UNKNOWN` if it finds none. With the feature `tonic`, the source of a rejection (kind
/// `rejected`) is therefore a status with the code `UNAVAILABLE`. It is created when `source()` is
/// called first. Its `grpc-retry-pushback-ms` contains:
///
/// - the time to wait, if the fault has one;
/// - -1, if the fault has none and must not be retried.
///
/// It is absent if the fault has none and can be retried.
#[derive(Debug)]
pub struct ClassifiedError {
    fault: Fault,
    cause: Cause,
    /// Data that few errors have.
    ///
    /// It is boxed, because a large error makes each `Result` large. Even if empty, it costs each
    /// call some instructions, so the field exists only with the features that fill it.
    #[cfg(any(feature = "tonic", feature = "__internals-notes"))]
    late: OnceLock<Box<Late>>,
}

#[derive(Debug)]
enum Cause {
    /// There is no other error: the fault is the cause.
    Verdict,
    /// The error that was classified, and the name of the type that it had then.
    Error(BoxError, &'static str),
    /// A circuit breaker rejected the call: its name and its state.
    #[cfg_attr(not(feature = "tonic"), expect(dead_code, reason = "only a status prints it"))]
    Breaker(&'static str, &'static str),
}

/// Data that is added to an error after its creation.
#[cfg(any(feature = "tonic", feature = "__internals-notes"))]
#[derive(Debug, Default)]
struct Late {
    #[cfg(feature = "__internals-notes")]
    note: Note,
    #[cfg(feature = "tonic")]
    status: OnceLock<tonic::Status>,
}

/// Data that an outer layer attaches for the caller.
///
/// It has interior mutability: the outer layer does not own this error, but finds it by reference
/// in the chain of the error that it returns.
#[cfg(feature = "__internals-notes")]
#[derive(Default)]
struct Note(Mutex<Option<Arc<dyn Any + Send + Sync>>>);

impl ClassifiedError {
    /// Wraps an error together with its fault.
    ///
    /// A `source` that is a `ClassifiedError` itself is not wrapped again: its fault is replaced.
    pub fn new<E: Into<BoxError>>(fault: Fault, source: E) -> Self {
        match source.into().downcast::<Self>() {
            Ok(classified) => Self::of(fault, classified.cause),
            Err(source) => Self::of(fault, Cause::Error(source, type_name::<E>())),
        }
    }

    /// Creates an error that consists of a fault alone, without another error as its cause.
    ///
    /// A layer that rejects a call uses it as the source of its own error.
    pub const fn from_fault(fault: Fault) -> Self {
        Self::of(fault, Cause::Verdict)
    }

    /// Creates an error for the rejection of a circuit breaker.
    ///
    /// It differs from [`from_fault`](Self::from_fault) in the message of the `tonic::Status` only:
    /// the message begins with ``circuit breaker `NAME` is CONDITION``.
    pub const fn circuit_rejection(fault: Fault, name: &'static str, condition: &'static str) -> Self {
        Self::of(fault, Cause::Breaker(name, condition))
    }

    const fn of(fault: Fault, cause: Cause) -> Self {
        Self {
            fault,
            cause,
            #[cfg(any(feature = "tonic", feature = "__internals-notes"))]
            late: OnceLock::new(),
        }
    }

    /// Returns the fault that the error was classified as.
    pub const fn fault(&self) -> &Fault {
        &self.fault
    }

    /// Returns the error that was classified, or `None` for a fault alone.
    pub fn get_ref(&self) -> Option<&(dyn Error + Send + Sync + 'static)> {
        match &self.cause {
            Cause::Error(error, _) => Some(&**error),
            _ => None,
        }
    }

    /// Returns the name of the type that the error had when it was classified.
    #[doc(hidden)]
    pub fn source_type(&self) -> Option<&'static str> {
        match self.cause {
            Cause::Error(_, type_name) => Some(type_name),
            _ => None,
        }
    }

    /// Attaches a note to this error, and replaces an earlier note.
    #[cfg(feature = "__internals-notes")]
    #[doc(hidden)]
    pub fn set_note(&self, note: impl Any + Send + Sync) {
        self.replace_note(Arc::new(note));
    }

    #[cfg(feature = "__internals-notes")]
    fn replace_note(&self, note: Arc<dyn Any + Send + Sync>) {
        let slot = &self.late.get_or_init(Box::default).note.0;
        let before = slot.lock().unwrap_or_else(PoisonError::into_inner).replace(note);
        // The note's destructor may be user code, so it runs after the lock is released.
        drop(before);
    }

    /// Attaches the note of `other` to this error, which is a copy of `other`.
    #[doc(hidden)]
    #[must_use]
    pub fn with_note_of(self, other: &Self) -> Self {
        #[cfg(feature = "__internals-notes")]
        {
            let of = |late: &Late| late.note.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
            if let Some(note) = other.late.get().and_then(|late| of(late)) {
                self.replace_note(note);
            }
        }
        #[cfg(not(feature = "__internals-notes"))]
        let _ = other;
        self
    }

    /// Returns the note that is attached to this error, if it has the type `T`.
    #[cfg(feature = "__internals-notes")]
    #[doc(hidden)]
    pub fn note<T: Any + Copy>(&self) -> Option<T> {
        let note = self.late.get()?.note.0.lock().unwrap_or_else(PoisonError::into_inner);
        note.as_ref()?.downcast_ref().copied()
    }

    /// Returns the error that was classified, or `None` for a fault alone.
    pub fn into_inner(self) -> Option<BoxError> {
        match self.cause {
            Cause::Error(error, _) => Some(error),
            _ => None,
        }
    }
}

#[cfg(feature = "__internals-notes")]
impl fmt::Debug for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_set = self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        f.write_str(if is_set { "Some(..)" } else { "None" })
    }
}

impl fmt::Display for ClassifiedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.cause {
            Cause::Error(..) => write!(f, "call failed, classified as {}", self.fault),
            _ => self.fault.fmt(f),
        }
    }
}

impl Error for ClassifiedError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        if let Cause::Error(error, _) = &self.cause {
            return Some(&**error);
        }
        #[cfg(feature = "tonic")]
        if self.fault.kind() == Kind::Rejected {
            let late = self.late.get_or_init(Box::default);
            return Some(late.status.get_or_init(|| rejected(&self.fault, &self.cause)));
        }
        None
    }
}

/// Returns the status that a gRPC client gets for a call that was rejected on this side.
#[cfg(feature = "tonic")]
fn rejected(fault: &Fault, cause: &Cause) -> tonic::Status {
    let text = match cause {
        Cause::Breaker(name, condition) => format!("circuit breaker `{name}` is {condition}"),
        _ => "a layer on this side rejected the call".to_owned(),
    };
    let mut status = match fault.retry_after() {
        Some(delay) => tonic::Status::unavailable(format!("{text}; retry after {}", DisplayDuration(delay))),
        None => tonic::Status::unavailable(text),
    };
    let delay = fault.retry_after();
    // A server that forwards the status forwards the delay to its own client too.
    if (delay.is_some() || fault.retryable() == Retryable::Never)
        && let Ok(pushback) = pushback_value(delay).to_str().unwrap_or_default().parse()
    {
        status.metadata_mut().insert("grpc-retry-pushback-ms", pushback);
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::{Health, Kind, Origin, Retryable};

    const FAULT: Fault = Fault::new(Kind::Server, Retryable::Never, Health::Unhealthy, Origin::Remote);

    #[test]
    fn classified_error_source_is_the_original_error() {
        let classified = ClassifiedError::new(FAULT, std::io::Error::other("pipe"));
        assert!(classified.source().is_some_and(<dyn Error>::is::<std::io::Error>));
        assert!(classified.get_ref().is_some_and(<dyn Error + Send + Sync>::is::<std::io::Error>));
        assert_eq!(classified.to_string(), "call failed, classified as server (origin: remote)");
        assert_eq!(ClassifiedError::from_fault(FAULT).to_string(), "server (origin: remote)");
    }

    #[cfg(feature = "tonic")]
    #[test]
    fn rejection_alone_has_tonic_status_as_source() {
        use std::time::Duration;

        let rejected = Fault::new(Kind::Rejected, Retryable::Never, Health::Neutral, Origin::Local);
        let found = |classified: &ClassifiedError| {
            let status = classified.source()?.downcast_ref::<tonic::Status>()?;
            let pushback = status.metadata().get("grpc-retry-pushback-ms");
            let pushback = pushback.map(|pushback| pushback.to_str().unwrap_or_default().to_owned());
            Some((status.code(), status.message().to_owned(), pushback))
        };
        let text = "a layer on this side rejected the call";
        let unavailable = tonic::Code::Unavailable;
        assert_eq!(
            found(&ClassifiedError::from_fault(rejected)),
            Some((unavailable, text.to_owned(), Some("-1".to_owned())))
        );
        let retryable = ClassifiedError::from_fault(rejected.with_retryable(Retryable::Unsent));
        assert_eq!(found(&retryable), Some((unavailable, text.to_owned(), None)));
        let later = ClassifiedError::from_fault(rejected.with_retry_after(Duration::from_millis(2_340)));
        assert_eq!(
            found(&later),
            Some((unavailable, format!("{text}; retry after 2.3 s"), Some("2340".to_owned())))
        );
        let named = found(&ClassifiedError::circuit_rejection(rejected, "stock", "half-open")).unwrap();
        assert_eq!(named.1, "circuit breaker `stock` is half-open");
        assert_eq!(found(&ClassifiedError::from_fault(FAULT)), None);
        assert_eq!(found(&ClassifiedError::new(rejected, "cause")), None, "it has a cause of its own");
    }

    #[cfg(feature = "__internals-notes")]
    #[test]
    fn classified_error_note_is_found_in_chain_and_replaced() {
        let error = std::io::Error::other(std::io::Error::other(ClassifiedError::from_fault(FAULT)));
        let classified = ClassifiedError::find(&error).unwrap();
        assert_eq!(classified.note::<u8>(), None);
        classified.set_note(1_u8);
        classified.set_note(2_u8);
        assert_eq!((classified.note::<u8>(), classified.note::<u16>()), (Some(2), None));
        assert!(ClassifiedError::find(&std::io::Error::other("nothing")).is_none());
    }

    #[cfg(feature = "__internals-notes")]
    #[test]
    fn note_copied_from_another_error_is_independent() {
        let error = ClassifiedError::from_fault(FAULT);
        assert_eq!(ClassifiedError::from_fault(FAULT).with_note_of(&error).note::<u8>(), None);
        error.set_note(1_u8);
        let copy = ClassifiedError::from_fault(FAULT).with_note_of(&error);
        error.set_note(2_u8);
        assert_eq!((copy.note::<u8>(), error.note::<u8>()), (Some(1), Some(2)));
    }

    /// clippy warns about larger errors in the `Result`s of users' code.
    #[test]
    fn classified_error_size_fits_in_a_result() {
        assert!(size_of::<ClassifiedError>() <= 88, "{}", size_of::<ClassifiedError>());
    }

    #[test]
    fn classified_error_of_classified_error_keeps_one_wrapper() {
        let twice = ClassifiedError::new(
            FAULT.with_retryable(Retryable::Unsent),
            ClassifiedError::new(FAULT, "cause"),
        );
        assert_eq!(twice.fault().retryable(), Retryable::Unsent);
        assert_eq!(twice.into_inner().unwrap().to_string(), "cause");
    }
}
