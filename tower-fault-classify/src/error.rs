//! The error that carries a verdict, and the text of a whole chain of errors.

#[cfg(feature = "__shared-notes")]
use std::any::Any;
use std::any::type_name;
use std::error::Error;
use std::fmt;
use std::iter::successors;
#[cfg(any(feature = "tonic", feature = "__shared-notes"))]
use std::sync::OnceLock;
#[cfg(feature = "__shared-notes")]
use std::sync::{Mutex, PoisonError};

use crate::error_chain::{LONGEST_WALK, errors};
#[cfg(feature = "tonic")]
use crate::duration::Readable;
use crate::fault::Fault;
#[cfg(feature = "tonic")]
use crate::fault::{Kind, Retryable};
#[cfg(feature = "tonic")]
use crate::grpc::pushback;

/// An error of any type.
pub type BoxError = Box<dyn Error + Send + Sync + 'static>;

/// An error that was judged, with its verdict.
///
/// It is one concrete type, so that every layer above finds it in a chain of [`source`](Error::source)s, however deep
/// and whatever lies around it. [`FaultClassifyLayer`](crate::FaultClassifyLayer) puts it around the error of the
/// inner service. A layer that makes an error of its own (a circuit breaker's rejection) has a bare one as its source.
///
/// With the feature `tonic`, a bare rejection's cause is a `tonic::Status` with the code `UNAVAILABLE` and the time to wait in
/// `grpc-retry-pushback-ms` (-1 if there is none and no retry is allowed), made when somebody asks for it: a generated client takes the
/// status that it finds among an error's sources, and `UNKNOWN` if there is none.
#[derive(Debug)]
pub struct Judged {
    fault: Fault,
    cause: Cause,
    /// What most errors never have. It is boxed, because a large error makes each `Result` large.
    /// Even empty it costs each call some instructions, so it is left out where nothing fills it.
    #[cfg(any(feature = "tonic", feature = "__shared-notes"))]
    late: OnceLock<Box<Late>>,
}

#[derive(Debug)]
enum Cause {
    /// The verdict is its own cause.
    Verdict,
    /// An error, and the name of the type that it had when it was judged.
    Error(BoxError, &'static str),
    /// A circuit breaker that rejected the call: its name and its condition.
    #[cfg_attr(not(feature = "tonic"), expect(dead_code, reason = "only a status prints it"))]
    Breaker(&'static str, &'static str),
}

/// What is added to an error after it was made.
#[cfg(any(feature = "tonic", feature = "__shared-notes"))]
#[derive(Debug, Default)]
struct Late {
    #[cfg(feature = "__shared-notes")]
    note: Note,
    #[cfg(feature = "tonic")]
    status: OnceLock<tonic::Status>,
}

/// A note for the caller, by a layer further out. The layer does not own the error that it passes
/// on, and reaches this one by reference.
#[cfg(feature = "__shared-notes")]
#[derive(Default)]
struct Note(Mutex<Option<Box<dyn Any + Send + Sync>>>);

impl Judged {
    /// A verdict around the error that it was given on. Judging a `Judged` again keeps one wrapper, not two.
    pub fn new<E: Into<BoxError>>(fault: Fault, source: E) -> Self {
        match source.into().downcast::<Self>() {
            Ok(judged) => Self::of(fault, judged.cause),
            Err(source) => Self::of(fault, Cause::Error(source, type_name::<E>())),
        }
    }

    /// A verdict that is its own cause.
    pub const fn bare(fault: Fault) -> Self {
        Self::of(fault, Cause::Verdict)
    }

    /// As [`bare`](Self::bare), for the rejection of a circuit breaker. The message of the
    /// `tonic::Status` begins with ``circuit breaker `NAME` is CONDITION``.
    pub const fn bare_by(fault: Fault, name: &'static str, condition: &'static str) -> Self {
        Self::of(fault, Cause::Breaker(name, condition))
    }

    const fn of(fault: Fault, cause: Cause) -> Self {
        Self {
            fault,
            cause,
            #[cfg(any(feature = "tonic", feature = "__shared-notes"))]
            late: OnceLock::new(),
        }
    }

    /// What went wrong.
    pub const fn fault(&self) -> &Fault {
        &self.fault
    }

    /// The error that was judged.
    pub fn get_ref(&self) -> Option<&(dyn Error + Send + Sync + 'static)> {
        match &self.cause {
            Cause::Error(error, _) => Some(&**error),
            _ => None,
        }
    }

    /// The name of the type that the error had when it was judged.
    #[doc(hidden)]
    pub fn source_type(&self) -> Option<&'static str> {
        match self.cause {
            Cause::Error(_, type_name) => Some(type_name),
            _ => None,
        }
    }

    /// Returns the outermost judged error of a chain.
    #[doc(hidden)]
    pub fn find<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a Self> {
        errors(error).find_map(|error| error.downcast_ref())
    }

    /// Leaves a note on this error, in place of an earlier one.
    #[cfg(feature = "__shared-notes")]
    #[doc(hidden)]
    pub fn put_note(&self, note: impl Any + Send + Sync) {
        let note: Box<dyn Any + Send + Sync> = Box::new(note);
        let slot = &self.late.get_or_init(Box::default).note.0;
        let before = slot.lock().unwrap_or_else(PoisonError::into_inner).replace(note);
        // A note may run code of its own: outside of the lock.
        drop(before);
    }

    /// Returns the note that was left on this error, if it is of the type.
    #[cfg(feature = "__shared-notes")]
    #[doc(hidden)]
    pub fn note<T: Any + Copy>(&self) -> Option<T> {
        let note = self.late.get()?.note.0.lock().unwrap_or_else(PoisonError::into_inner);
        note.as_ref()?.downcast_ref().copied()
    }

    /// Gives the error back that was judged.
    pub fn into_inner(self) -> Option<BoxError> {
        match self.cause {
            Cause::Error(error, _) => Some(error),
            _ => None,
        }
    }
}

#[cfg(feature = "__shared-notes")]
impl fmt::Debug for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_set = self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        f.write_str(if is_set { "Some(..)" } else { "None" })
    }
}

impl fmt::Display for Judged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.cause {
            Cause::Error(..) => write!(f, "call failed, classified as {}", self.fault),
            _ => self.fault.fmt(f),
        }
    }
}

impl Error for Judged {
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

/// Prints an error and all its sources in one line, from the outermost to the cause.
///
/// The `Display` of this workspace's errors says what one layer knows, and leaves the rest to
/// [`source`](Error::source). Where a program prints one line, it prints the chain:
///
/// ```
/// use std::io::{Error, ErrorKind};
/// use tower_fault_classify::{ErrorChain, Judged, judge_error};
///
/// let refused = Error::from(ErrorKind::ConnectionRefused);
/// let error = Judged::new(judge_error(&refused), refused);
/// assert_eq!(error.to_string(), "call failed, classified as unavailable (origin: transport)");
/// assert_eq!(
///     ErrorChain(&error).to_string(),
///     "call failed, classified as unavailable (origin: transport): connection refused"
/// );
/// ```
///
/// If the `Display` of an error fails, what it has written before is printed. A source that the
/// error before it has printed already is left out, and so is the bare verdict of a rejection. The
/// `{:#}` of `anyhow::Error` prints the same chain with them.
#[derive(Clone, Copy, Debug)]
pub struct ErrorChain<'a>(pub &'a (dyn Error + 'a));

impl fmt::Display for ErrorChain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = text_of(self.0);
        f.write_str(&text)?;
        for source in successors(self.0.source(), |&error| error.source()).take(LONGEST_WALK) {
            if source.downcast_ref::<Judged>().is_some_and(|judged| judged.get_ref().is_none()) {
                break;
            }
            let cause = text_of(source);
            if !text.ends_with(&cause) {
                write!(f, ": {cause}")?;
            }
            text = cause;
        }
        Ok(())
    }
}

/// The text of an error. If its `Display` fails, the text that it has written before, where
/// `to_string` would panic.
#[allow(unreachable_pub, reason = "the feature `__shared` exports it")]
pub fn text_of(error: &dyn Error) -> String {
    use fmt::Write;

    let mut text = String::new();
    let _ = write!(text, "{error}");
    text
}

/// The status that a gRPC client gets for a call that was rejected on this side.
#[cfg(feature = "tonic")]
fn rejected(fault: &Fault, cause: &Cause) -> tonic::Status {
    let text = match cause {
        Cause::Breaker(name, condition) => format!("circuit breaker `{name}` is {condition}"),
        _ => "a layer on this side rejected the call".to_owned(),
    };
    let mut status = match fault.retry_after() {
        Some(delay) => tonic::Status::unavailable(format!("{text}; retry after {}", Readable(delay))),
        None => tonic::Status::unavailable(text),
    };
    let delay = fault.retry_after();
    // A server that hands the status on tells its own client the same.
    if (delay.is_some() || fault.retryable() == Retryable::Never)
        && let Ok(pushback) = pushback(delay).to_str().unwrap_or_default().parse()
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
    fn the_source_is_the_original() {
        let judged = Judged::new(FAULT, std::io::Error::other("pipe"));
        assert!(judged.source().is_some_and(<dyn Error>::is::<std::io::Error>));
        assert!(judged.get_ref().is_some_and(<dyn Error + Send + Sync>::is::<std::io::Error>));
        assert_eq!(judged.to_string(), "call failed, classified as server (origin: remote)");
        assert_eq!(Judged::bare(FAULT).to_string(), "server (origin: remote)");
    }

    #[cfg(feature = "tonic")]
    #[test]
    fn a_grpc_client_finds_a_status_behind_a_rejection_and_behind_no_other_fault() {
        use std::time::Duration;

        let rejected = Fault::new(Kind::Rejected, Retryable::Never, Health::Neutral, Origin::Local);
        let found = |judged: &Judged| {
            let status = judged.source()?.downcast_ref::<tonic::Status>()?;
            let pushback = status.metadata().get("grpc-retry-pushback-ms");
            let pushback = pushback.map(|pushback| pushback.to_str().unwrap_or_default().to_owned());
            Some((status.code(), status.message().to_owned(), pushback))
        };
        let text = "a layer on this side rejected the call";
        let unavailable = tonic::Code::Unavailable;
        assert_eq!(
            found(&Judged::bare(rejected)),
            Some((unavailable, text.to_owned(), Some("-1".to_owned())))
        );
        let anytime = Judged::bare(rejected.with_retryable(Retryable::Unsent));
        assert_eq!(found(&anytime), Some((unavailable, text.to_owned(), None)));
        let later = Judged::bare(rejected.with_retry_after(Duration::from_millis(2_340)));
        assert_eq!(
            found(&later),
            Some((unavailable, format!("{text}; retry after 2.3 s"), Some("2340".to_owned())))
        );
        let named = found(&Judged::bare_by(rejected, "stock", "half-open")).unwrap();
        assert_eq!(named.1, "circuit breaker `stock` is half-open");
        assert_eq!(found(&Judged::bare(FAULT)), None);
        assert_eq!(found(&Judged::new(rejected, "cause")), None, "it has a cause of its own");
    }

    #[test]
    fn error_chain_prints_each_text_once() {
        #[derive(Debug)]
        struct Layer(&'static str, BoxError);
        impl fmt::Display for Layer {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
        impl Error for Layer {
            fn source(&self) -> Option<&(dyn Error + 'static)> {
                Some(&*self.1)
            }
        }
        let io = || Judged::new(FAULT, std::io::Error::other("pipe"));
        let judged = "call failed, classified as server (origin: remote): pipe";
        assert_eq!(ErrorChain(&io()).to_string(), judged);
        assert_eq!(ErrorChain(&Layer("outer", io().into())).to_string(), format!("outer: {judged}"));
        // Some errors repeat their source, such as those of tower's buffer.
        let repeats = Layer("buffer failed: pipe", Layer("pipe", "deeper".into()).into());
        assert_eq!(ErrorChain(&repeats).to_string(), "buffer failed: pipe: deeper");
        let rejection = Layer("circuit breaker is open", Judged::bare(FAULT).into());
        assert_eq!(ErrorChain(&rejection).to_string(), "circuit breaker is open");
        assert_eq!(ErrorChain(&Judged::bare(FAULT)).to_string(), "server (origin: remote)");
    }

    #[cfg(feature = "__shared-notes")]
    #[test]
    fn note_is_found_in_any_wrapping_and_replaced() {
        let error = std::io::Error::other(std::io::Error::other(Judged::bare(FAULT)));
        let judged = Judged::find(&error).unwrap();
        assert_eq!(judged.note::<u8>(), None);
        judged.put_note(1_u8);
        judged.put_note(2_u8);
        assert_eq!((judged.note::<u8>(), judged.note::<u16>()), (Some(2), None));
        assert!(Judged::find(&std::io::Error::other("nothing")).is_none());
    }

    /// clippy warns of results with larger errors in its users' code.
    #[test]
    fn error_is_small_enough_for_a_result() {
        assert!(size_of::<Judged>() <= 88, "{}", size_of::<Judged>());
    }

    #[test]
    fn error_chain_prints_what_failing_display_has_written() {
        #[derive(Debug)]
        struct Fails(Option<Box<Fails>>);
        impl fmt::Display for Fails {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(if self.0.is_some() { "outer" } else { "inner" })?;
                Err(fmt::Error)
            }
        }
        impl Error for Fails {
            fn source(&self) -> Option<&(dyn Error + 'static)> {
                self.0.as_deref().map(|error| error as _)
            }
        }
        let error = Fails(Some(Box::new(Fails(None))));
        assert_eq!(ErrorChain(&error).to_string(), "outer: inner");
    }

    #[test]
    fn judging_twice_wraps_once() {
        let twice = Judged::new(FAULT.with_retryable(Retryable::Unsent), Judged::new(FAULT, "cause"));
        assert_eq!(twice.fault().retryable(), Retryable::Unsent);
        assert_eq!(twice.into_inner().unwrap().to_string(), "cause");
    }
}
