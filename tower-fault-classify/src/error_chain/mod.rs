//! Finds the cause in a chain of errors.
//!
//! A client wraps an error several times: `reqwest::Error` contains hyper-util's error, which
//! contains hyper's, which contains an `io::Error`, which may contain another error.
//!
//! The walk goes to the end of that chain and combines what it finds:
//!
//! - The deepest error that has a verdict decides.
//! - The facts that the other errors provide modify that verdict: no connection yet, nothing
//!   written, timed out, response begun.
//! - A [`ClassifiedError`] ends the walk with its verdict: the layer that classified it had more
//!   information.
//! - The error of the request's own body ends the walk too: its causes say nothing about the
//!   server.

mod inspectors;
mod text;

use std::any::Any;
use std::error::Error;
use std::io;
use std::iter::successors;
use std::ptr;
use std::sync::Arc;

use crate::error::ClassifiedError;
use crate::fault::{Fault, Retryable};
use crate::table;
use crate::upload::{self, UploadError, UploadGuard, excuse_stalled_disconnect, excuse_stalled_timeout};

use text::Text;

pub use text::ErrorChain;
#[cfg(feature = "__internals")]
pub use text::error_text;

/// The maximum number of errors that the walk visits.
///
/// A longer or cyclic chain is classified by these.
pub(crate) const MAX_CHAIN_LENGTH: usize = 128;

/// Classifies an error by its whole chain of sources.
///
/// The deepest error with a row in the [tables](crate::tables) decides. The errors around it say
/// whether the request was sent and whether the response had begun. A [`ClassifiedError`] in the
/// chain decides with its own fault.
///
/// An error that no table has a row for counts as a failure of the server, and is retried if the
/// request is idempotent. At most 128 errors of a chain are read, so a cyclic chain is safe.
///
/// ```
/// use std::io::{Error, ErrorKind};
/// use tower_fault_classify::{Kind, classify_error};
///
/// let cause = Error::from(ErrorKind::ConnectionRefused);
/// let wrapped = Error::other(Error::other(cause));
/// assert_eq!(classify_error(&wrapped).kind(), Kind::Unavailable);
/// ```
pub fn classify_error(error: &(dyn Error + 'static)) -> Fault {
    classify_chain(error, Phase::Unknown)
}

/// Classifies an error whose type is known, as [`classify_error`] does.
///
/// The compiler decides which branch a type takes. A type that is known to end the chain needs no
/// walk, which calls several functions through pointers. Nor does an error that the walk takes
/// nothing from but its source, such as the error of a circuit breaker, if its source ends the
/// chain.
#[inline]
pub(crate) fn classify_typed<E: Error + 'static>(error: &E) -> Fault {
    let any: &dyn Any = error;
    if let Some(error) = any.downcast_ref::<io::Error>() {
        if error.get_ref().is_none() {
            return classify_plain_io(error);
        }
    } else if let Some(classified) = any.downcast_ref::<ClassifiedError>() {
        return classified.fault();
    } else if !inspectors::is_inspected(error)
        && let Some(source) = error.source()
        && let Some(fault) = classify_short_chain(source)
    {
        return fault;
    }
    classify_error(error)
}

/// Classifies the source of an error from which the walk takes nothing else.
///
/// A plain I/O error and a [`ClassifiedError`] end the chain. One more error may be around them,
/// such as the rejection of a circuit breaker. `None`: the walk is needed.
fn classify_short_chain(source: &(dyn Error + 'static)) -> Option<Fault> {
    if let Some(error) = source.downcast_ref::<io::Error>() {
        return error.get_ref().is_none().then(|| classify_plain_io(error));
    }
    if let Some(classified) = source.downcast_ref::<ClassifiedError>() {
        return Some(classified.fault());
    }
    let last = source.source()?;
    let classified = last.downcast_ref::<ClassifiedError>();
    // The usual case is the rejection of a circuit breaker. Its only field is its source, so that
    // both have one address. The inspected types hold their sources behind pointers.
    if let Some(classified) = classified
        && ptr::addr_eq(source, last)
    {
        return Some(classified.fault());
    }
    if inspectors::is_inspected(source) {
        return None;
    }
    match classified {
        Some(classified) => Some(classified.fault()),
        None => {
            last.downcast_ref().filter(|error: &&io::Error| error.get_ref().is_none()).map(classify_plain_io)
        }
    }
}

/// Classifies an I/O error without a payload, as the walk does.
#[inline]
fn classify_plain_io(error: &io::Error) -> Fault {
    let fault = table::io::classify(error, false).unwrap_or(&table::UNKNOWN);
    if UploadGuard::is_stalled_or_failed() { excuse_plain_io(error, *fault) } else { *fault }
}

/// Returns the fault of an I/O error while the request's body waits for its source, or has failed.
#[cold]
fn excuse_plain_io(error: &io::Error, fault: Fault) -> Fault {
    if upload::upload_failed() {
        return table::REQUEST_BODY;
    }
    let fault = excuse_stalled_disconnect(fault);
    // An error number means that the operating system reported the error.
    if error.raw_os_error().is_some() { fault } else { excuse_stalled_timeout(fault) }
}

/// Classifies an error that broke the body of a response. `grpc`: it is a gRPC response.
pub(crate) fn classify_body_error(error: &(dyn Error + 'static), grpc: bool) -> Fault {
    classify_chain(error, if grpc { Phase::Committed } else { Phase::Answered })
}

fn classify_chain(error: &(dyn Error + 'static), reached: Phase) -> Fault {
    let mut facts = ErrorFacts { reached, ..ErrorFacts::default() };
    let fault = facts.collect_from(error);
    // This also applies to a carried verdict: the inner classifier could not see that the worker
    // around it ended.
    let fault = if facts.worker_ended { fault.with_retryable(Retryable::Never) } else { fault };
    if facts.maybe_redirected { fault.with_maybe_redirected(true) } else { fault }
}

/// How far the request is known to have got.
///
/// The furthest phase that any error of the chain reports counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(
    not(all(feature = "hyper", feature = "hyper-util")),
    allow(dead_code, reason = "no enabled client reports it")
)]
enum Phase {
    #[default]
    Unknown,
    /// The connection was not open yet.
    Connecting,
    /// The connection was open, and nothing was written to it.
    Unsent,
    /// The response had begun.
    Answered,
    /// The response of a gRPC call had begun: the call must not be sent again.
    Committed,
}

/// The facts that the walk has found so far.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "facts that do not depend on each other")]
struct ErrorFacts {
    reached: Phase,
    timed_out: bool,
    /// The errors below are about data that was received, which the caller did not cause.
    on_the_wire: bool,
    /// The client follows redirects, and its errors do not say which hop failed.
    maybe_redirected: bool,
    /// The peer is gone, regardless of the request's body: the operating system reported it, or the
    /// peer did not answer a ping or a proxy's attempt to connect.
    peer_lost: bool,
    /// A fault that ends the walk, because the errors below are not about the call.
    final_fault: Option<&'static Fault>,
    /// The worker behind the service's handle has ended, so every later call through the handle
    /// fails too.
    worker_ended: bool,
    /// The deepest verdict.
    ///
    /// It is a reference, because copying a fault at each replacement costs more than the walk.
    verdict: Option<&'static Fault>,
    /// The deepest fault that was reported without knowledge of the cause.
    fallback: Option<Fault>,
}

impl ErrorFacts {
    /// Walks the chain to its end, or to an error that ends the walk, and returns the fault.
    fn collect_from(&mut self, error: &(dyn Error + 'static)) -> Fault {
        let mut next = Some(error);
        for _ in 0..MAX_CHAIN_LENGTH {
            let Some(error) = next else { break };
            if let Some(error) = error.downcast_ref::<io::Error>() {
                self.io(error);
                next = error.get_ref().map(|payload| payload as &(dyn Error + 'static));
                continue;
            }
            if let Some(classified) = error.downcast_ref::<ClassifiedError>() {
                return classified.fault();
            }
            if error.is::<UploadError>() {
                return table::REQUEST_BODY;
            }
            for inspect in inspectors::INSPECTORS {
                inspect(error, self);
            }
            if let Some(fault) = self.final_fault {
                return *fault;
            }
            next = next_source(error);
        }
        self.resolve()
    }

    fn io(&mut self, error: &io::Error) {
        // A decoder's own error has a payload; a socket's error has an OS error number.
        let decoder = self.on_the_wire && error.get_ref().is_some();
        let verdict = if let Some(fault) = tls_fault(error) {
            Some(fault)
        } else if decoder && error.kind() == io::ErrorKind::InvalidInput {
            Some(&table::io::MALFORMED)
        } else {
            table::io::classify(error, self.reached == Phase::Connecting)
        };
        self.verdict = verdict.or(self.verdict);
        self.peer_lost |= error.raw_os_error().is_some();
    }

    #[cfg_attr(
        not(all(feature = "reqwest", feature = "tower")),
        allow(dead_code, reason = "no enabled client calls it")
    )]
    fn set(&mut self, fault: &'static Fault) {
        self.verdict = Some(fault);
    }

    #[cfg_attr(
        not(any(feature = "h2", feature = "hyper")),
        allow(dead_code, reason = "no enabled client reports a failed request body")
    )]
    fn finish(&mut self, fault: &'static Fault) {
        self.final_fault = Some(fault);
    }

    #[cfg_attr(
        not(all(feature = "reqwest", feature = "tower")),
        allow(dead_code, reason = "no enabled client calls it")
    )]
    fn fallback(&mut self, fault: Fault) {
        self.fallback = Some(fault);
    }

    #[cfg_attr(
        not(any(feature = "hyper", feature = "tonic")),
        allow(dead_code, reason = "no enabled client reports it")
    )]
    fn reached(&mut self, reached: Phase) {
        self.reached = self.reached.max(reached);
    }

    fn resolve(&self) -> Fault {
        let fault = *self
            .verdict
            .or_else(|| self.default_for_phase())
            .or(self.fallback.as_ref())
            .unwrap_or(&table::UNKNOWN);
        let fault = match self.reached {
            Phase::Connecting | Phase::Unsent => return table::io::unsent(fault),
            _ if upload::upload_failed() => return table::REQUEST_BODY,
            Phase::Unknown => excuse_stalled_disconnect(fault),
            Phase::Answered => table::io::answered(fault),
            Phase::Committed => fault.with_retryable(Retryable::Never),
        };
        if self.peer_lost { fault } else { excuse_stalled_timeout(fault) }
    }

    /// Returns the fault of a timeout or a failure to connect that has no deeper cause.
    ///
    /// Examples are a name that does not resolve, and a client that hides the cause.
    fn default_for_phase(&self) -> Option<&'static Fault> {
        match self.reached {
            _ if self.timed_out => Some(&table::io::TIMED_OUT),
            Phase::Connecting => Some(&table::io::REFUSED),
            _ => None,
        }
    }
}

/// Returns the fault of the TLS error inside an I/O error, if that error has a row.
fn tls_fault(error: &io::Error) -> Option<&'static Fault> {
    let payload = error.get_ref()?;
    // The kinds that tokio-rustls and native-tls use.
    let may_be_tls = matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::Other);
    may_be_tls.then(|| table::tls::classify(Text::of(payload).as_bytes())).flatten()
}

impl ClassifiedError {
    /// Returns the outermost `ClassifiedError` of a chain.
    #[doc(hidden)]
    pub fn find<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a Self> {
        errors(error).find_map(|error| error.downcast_ref())
    }
}

/// Returns the errors of a chain, the outermost first.
fn errors<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    let next = |error: &&'a (dyn Error + 'static)| match error.downcast_ref::<io::Error>() {
        Some(error) => error.get_ref().map(|payload| payload as &(dyn Error + 'static)),
        None => next_source(*error),
    };
    successors(Some(error), next).take(MAX_CHAIN_LENGTH)
}

/// Returns the next error of the chain, also an error that `source()` skips.
fn next_source<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    // `source()` of an `Arc` returns the source of the error inside it. `redis::RedisError` has
    // such a source.
    if let Some(shared) = error.downcast_ref::<Arc<dyn Error + Send + Sync>>() {
        return Some(shared.as_ref());
    }
    #[cfg(feature = "reqwest-middleware")]
    if let Some(error) = error.downcast_ref::<reqwest_middleware::Error>() {
        return Some(match error {
            reqwest_middleware::Error::Middleware(error) => {
                let error: &'a (dyn Error + Send + Sync + 'static) = error.as_ref();
                error
            }
            reqwest_middleware::Error::Reqwest(error) => error,
        });
    }
    error.source()
}

#[cfg(test)]
mod typed_tests;

#[cfg(test)]
mod tests {
    use std::fmt;

    use super::*;
    use crate::fault::{Health, Kind, Origin};

    #[derive(Debug)]
    struct Wrapped(Box<dyn Error + Send + Sync>);

    impl fmt::Display for Wrapped {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("wrapped")
        }
    }

    impl Error for Wrapped {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&*self.0)
        }
    }

    fn wrapped(times: usize, cause: impl Error + Send + Sync + 'static) -> Wrapped {
        (1..times).fold(Wrapped(Box::new(cause)), |error, _| Wrapped(Box::new(error)))
    }

    #[test]
    fn error_chain_cause_found_through_payloads_and_sources() {
        let cause = io::Error::from(io::ErrorKind::ConnectionRefused);
        let chain = io::Error::other(wrapped(3, io::Error::other(cause)));
        assert_eq!(classify_error(&chain).kind(), Kind::Unavailable);
    }

    #[test]
    fn error_chain_cause_found_in_shared_error() {
        let cause = io::Error::from(io::ErrorKind::ConnectionRefused);
        let shared: Arc<dyn Error + Send + Sync> = Arc::new(cause);
        assert_eq!(classify_error(&wrapped(2, shared)).kind(), Kind::Unavailable);
    }

    #[test]
    fn error_chain_deepest_verdict_wins() {
        let cause = io::Error::from(io::ErrorKind::ConnectionReset);
        let chain = io::Error::new(io::ErrorKind::InvalidData, wrapped(2, cause));
        assert_eq!(classify_error(&chain).kind(), Kind::Transient);
        let chain = io::Error::new(io::ErrorKind::InvalidData, wrapped(2, fmt::Error));
        assert_eq!(classify_error(&chain).kind(), Kind::Protocol);
    }

    #[test]
    fn error_chain_carried_verdict_ends_search() {
        let fault = Fault::new(Kind::Quota, Retryable::Never, Health::Neutral, Origin::Remote);
        let inner =
            ClassifiedError::new(fault.with_kind(Kind::Auth), io::Error::from(io::ErrorKind::TimedOut));
        let chain = wrapped(4, ClassifiedError::new(fault, wrapped(2, inner)));
        assert_eq!(classify_error(&chain), fault);
    }

    #[test]
    fn unknown_error_is_unhealthy_and_retried_if_idempotent() {
        let fault = classify_error(&wrapped(2, fmt::Error));
        assert_eq!((fault.kind(), fault.retryable()), (Kind::Unknown, Retryable::IfIdempotent));
        assert_eq!((fault.health(), fault.origin()), (Health::Unhealthy, Origin::Unknown));
    }

    #[test]
    fn error_chain_of_ten_thousand_terminates() {
        let chain = wrapped(10_000, io::Error::from(io::ErrorKind::ConnectionRefused));
        assert_eq!(classify_error(&chain).kind(), Kind::Unknown);
        // Dropped in a loop: dropping such a deep chain at once would overflow the stack.
        let mut error = chain.0;
        while let Ok(next) = error.downcast::<Wrapped>() {
            error = next.0;
        }
    }

    #[test]
    fn classify_typed_equals_walk_for_plain_io_error() {
        let kinds = table::io::ROWS.iter().map(|row| row.kind).chain([io::ErrorKind::Other]);
        let by_kind = kinds.map(io::Error::from);
        let by_number = (0..200).map(io::Error::from_raw_os_error);
        for error in by_kind.chain(by_number) {
            assert_eq!(classify_typed(&error), classify_error(&error), "{error:?}");
            for waits in [false, true] {
                let _upload = UploadGuard::enter(waits);
                assert_eq!(classify_typed(&error), classify_error(&error), "{error:?}, stalled: {waits}");
            }
            let _upload = UploadGuard::failed();
            assert_eq!(classify_typed(&error), classify_error(&error), "{error:?}, upload failed");
        }
    }

    #[test]
    fn classify_typed_equals_walk_for_other_errors() {
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        let with_payload = io::Error::new(io::ErrorKind::InvalidData, wrapped(2, refused()));
        assert_eq!(classify_typed(&with_payload), classify_error(&with_payload));
        let with_text = io::Error::new(io::ErrorKind::InvalidData, "bad record");
        assert_eq!(classify_typed(&with_text), classify_error(&with_text));
        let fault = Fault::new(Kind::Quota, Retryable::Never, Health::Neutral, Origin::Remote);
        for classified in [ClassifiedError::from_fault(fault), ClassifiedError::new(fault, refused())] {
            assert_eq!((classify_typed(&classified), classify_error(&classified)), (fault, fault));
        }
        let other = wrapped(2, refused());
        assert_eq!(classify_typed(&other), classify_error(&other));
    }

    #[test]
    fn error_chain_cyclic_terminates() {
        #[derive(Debug)]
        struct Loop;
        impl fmt::Display for Loop {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("loop")
            }
        }
        impl Error for Loop {
            fn source(&self) -> Option<&(dyn Error + 'static)> {
                Some(self)
            }
        }
        assert_eq!(classify_error(&Loop).kind(), Kind::Unknown);
    }
}
