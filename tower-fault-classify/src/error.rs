//! The error that carries a verdict, and the conversion of any error to `dyn Error`.

#[cfg(feature = "__internals-notes")]
mod note;

#[cfg(feature = "__internals-notes")]
use std::any::Any;
use std::any::type_name;
use std::error::Error;
use std::fmt;
use std::ops::Deref;
#[cfg(feature = "__internals-notes")]
use std::sync::Arc;
#[cfg(feature = "tonic")]
use std::sync::OnceLock;

#[cfg(feature = "__internals-notes")]
pub(crate) use self::note::Note;

#[cfg(feature = "__internals")]
use crate::circuit_rejection::CircuitRejection;
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
pub struct ClassifiedError(Repr);

/// A rejection is stored in place: an open circuit may reject many calls. The rest is boxed,
/// because a large error makes each `Result` large.
enum Repr {
    #[cfg(feature = "__internals")]
    Rejection(CircuitRejection),
    Boxed(Box<Boxed>),
}

struct Boxed {
    fault: Fault,
    /// The error that was classified, and the name of the type that it had then. `None`: there is
    /// no other error, and the fault is the cause.
    source: Option<(BoxError, &'static str)>,
    #[cfg(feature = "__internals-notes")]
    note: Note,
    #[cfg(feature = "tonic")]
    status: OnceLock<Box<tonic::Status>>,
}

impl ClassifiedError {
    /// Wraps an error together with its fault.
    ///
    /// A `source` that is a `ClassifiedError` itself is not wrapped again: its fault is replaced.
    pub fn new<E: Into<BoxError>>(fault: Fault, source: E) -> Self {
        match source.into().downcast::<Self>() {
            Ok(classified) => match classified.0 {
                Repr::Boxed(mut boxed) => {
                    *boxed = Boxed::new(fault, boxed.source.take());
                    Self(Repr::Boxed(boxed))
                }
                #[cfg(feature = "__internals")]
                Repr::Rejection(_) => Self::from_fault(fault),
            },
            Err(source) => Self::boxed(fault, Some((source, type_name::<E>()))),
        }
    }

    /// Creates an error that consists of a fault alone, without another error as its cause.
    ///
    /// A layer that rejects a call uses it as the source of its own error.
    pub fn from_fault(fault: Fault) -> Self {
        Self::boxed(fault, None)
    }

    /// Creates an error for the rejection of a circuit breaker. It allocates nothing.
    #[cfg(feature = "__internals")]
    #[doc(hidden)]
    #[inline]
    pub const fn from_rejection(rejection: CircuitRejection) -> Self {
        Self(Repr::Rejection(rejection))
    }

    /// Returns the rejection of a circuit breaker that this error was made from.
    #[cfg(feature = "__internals")]
    #[doc(hidden)]
    #[inline]
    pub const fn rejection(&self) -> Option<&CircuitRejection> {
        match &self.0 {
            Repr::Rejection(rejection) => Some(rejection),
            Repr::Boxed(_) => None,
        }
    }

    fn boxed(fault: Fault, source: Option<(BoxError, &'static str)>) -> Self {
        Self(Repr::Boxed(Box::new(Boxed::new(fault, source))))
    }

    /// Returns the fault that the error was classified as.
    pub const fn fault(&self) -> Fault {
        match &self.0 {
            #[cfg(feature = "__internals")]
            Repr::Rejection(rejection) => rejection.fault(),
            Repr::Boxed(boxed) => boxed.fault,
        }
    }

    fn source_and_type(&self) -> Option<&(BoxError, &'static str)> {
        match &self.0 {
            #[cfg(feature = "__internals")]
            Repr::Rejection(_) => None,
            Repr::Boxed(boxed) => boxed.source.as_ref(),
        }
    }

    /// Returns the error that was classified, or `None` for a fault alone.
    pub fn get_ref(&self) -> Option<&(dyn Error + Send + Sync + 'static)> {
        self.source_and_type().map(|(error, _)| &**error)
    }

    /// Returns the name of the type that the error had when it was classified.
    #[doc(hidden)]
    pub fn source_type(&self) -> Option<&'static str> {
        self.source_and_type().map(|(_, type_name)| *type_name)
    }

    #[cfg(feature = "__internals-notes")]
    const fn note_slot(&self) -> &Note {
        match &self.0 {
            #[cfg(feature = "__internals")]
            Repr::Rejection(rejection) => &rejection.note,
            Repr::Boxed(boxed) => &boxed.note,
        }
    }

    /// Attaches a note to this error, and replaces an earlier note.
    #[cfg(feature = "__internals-notes")]
    #[doc(hidden)]
    pub fn set_note(&self, note: impl Any + Send + Sync) {
        self.note_slot().replace(Arc::new(note));
    }

    /// Returns the note that is attached to this error, if it has the type `T`.
    #[cfg(feature = "__internals-notes")]
    #[doc(hidden)]
    pub fn note<T: Any + Copy>(&self) -> Option<T> {
        self.note_slot().get()?.downcast_ref().copied()
    }

    /// Attaches the note of `other` to this error, which is a copy of `other`.
    #[doc(hidden)]
    #[must_use]
    pub fn with_note_of(self, other: &Self) -> Self {
        #[cfg(feature = "__internals-notes")]
        if let Some(note) = other.note_slot().get() {
            self.note_slot().replace(note);
        }
        #[cfg(not(feature = "__internals-notes"))]
        let _ = other;
        self
    }

    /// Returns the error that was classified, or `None` for a fault alone.
    pub fn into_inner(self) -> Option<BoxError> {
        match self.0 {
            #[cfg(feature = "__internals")]
            Repr::Rejection(_) => None,
            Repr::Boxed(boxed) => boxed.source.map(|(error, _)| error),
        }
    }
}

impl Boxed {
    fn new(fault: Fault, source: Option<(BoxError, &'static str)>) -> Self {
        Self {
            fault,
            source,
            #[cfg(feature = "__internals-notes")]
            note: Note::new(),
            #[cfg(feature = "tonic")]
            status: OnceLock::new(),
        }
    }
}

impl fmt::Debug for ClassifiedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut fields = f.debug_struct("ClassifiedError");
        fields.field("fault", &self.fault());
        match &self.0 {
            #[cfg(feature = "__internals")]
            Repr::Rejection(rejection) => {
                fields.field("circuit", &rejection.name()).field("condition", &rejection.condition().as_str())
            }
            Repr::Boxed(boxed) => fields.field("source", &boxed.source.as_ref().map(|(error, _)| error)),
        };
        #[cfg(feature = "__internals-notes")]
        fields.field("note", self.note_slot());
        fields.finish_non_exhaustive()
    }
}

impl fmt::Display for ClassifiedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fault = self.fault();
        match self.source_and_type() {
            Some(_) => write!(f, "call failed, classified as {fault}"),
            None => fault.fmt(f),
        }
    }
}

impl Error for ClassifiedError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        if let Some((error, _)) = self.source_and_type() {
            return Some(&**error);
        }
        #[cfg(feature = "tonic")]
        if self.fault().kind() == Kind::Rejected {
            return Some(self.status());
        }
        None
    }
}

/// The status that a gRPC client gets for a call that was rejected on this side.
#[cfg(feature = "tonic")]
impl ClassifiedError {
    fn status(&self) -> &tonic::Status {
        let status = match &self.0 {
            #[cfg(feature = "__internals")]
            Repr::Rejection(rejection) => &rejection.status,
            Repr::Boxed(boxed) => &boxed.status,
        };
        status.get_or_init(|| Box::new(self.make_status()))
    }

    fn make_status(&self) -> tonic::Status {
        let fault = self.fault();
        let text = match &self.0 {
            #[cfg(feature = "__internals")]
            Repr::Rejection(rejection) => {
                format!("circuit breaker `{}` is {}", rejection.name(), rejection.condition().as_str())
            }
            Repr::Boxed(_) => "a layer on this side rejected the call".to_owned(),
        };
        let delay = fault.retry_after();
        let mut status = match delay {
            Some(delay) => {
                tonic::Status::unavailable(format!("{text}; retry after {}", DisplayDuration(delay)))
            }
            None => tonic::Status::unavailable(text),
        };
        // A server that forwards the status forwards the delay to its own client too.
        if (delay.is_some() || fault.retryable() == Retryable::Never)
            && let Ok(pushback) = pushback_value(delay).to_str().unwrap_or_default().parse()
        {
            status.metadata_mut().insert("grpc-retry-pushback-ms", pushback);
        }
        status
    }
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
        #[cfg(feature = "__internals")]
        {
            use crate::circuit_rejection::{CircuitCondition, CircuitRecord};

            let rejection =
                CircuitRejection::new(CircuitRecord::of("stock"), CircuitCondition::HalfOpen, None);
            let named = found(&ClassifiedError::from_rejection(rejection)).unwrap();
            assert_eq!(named.1, "circuit breaker `stock` is half-open");
        }
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

    #[test]
    fn classified_error_size_is_at_most_three_words() {
        // With the feature `tonic`, a rejection contains the cell of its status.
        let words = if cfg!(feature = "tonic") { 5 } else { 3 };
        assert!(size_of::<Option<ClassifiedError>>() <= words * 8, "{}", size_of::<ClassifiedError>());
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
