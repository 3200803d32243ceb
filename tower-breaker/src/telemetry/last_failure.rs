//! The last failure of a circuit, and how a layer keeps it.

use std::any::type_name;
use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::SystemTime;

use tower_fault_classify::__internals::{error_chain, error_type_name, system_time};
use tower_fault_classify::classifiers::{AsError, TypedError};
use tower_fault_classify::{ClassifiedError, Fault, Health, Verdict};

use crate::circuit::{CircuitRef, Permit};
use crate::error::{BreakerError, Rejection, TimedOut};
use crate::sealed::Sealed;

/// The last failure of a circuit: the last outcome with an unhealthy fault.
///
/// [`Status::last_failure`](crate::Status::last_failure) contains it, if it is kept:
///
/// | circuit | kept by |
/// |---|---|
/// | of a layer or of a registry | [`keep_last_failure`](crate::BreakerLayer::keep_last_failure), [`keep_last_failure_by`](crate::BreakerLayer::keep_last_failure_by) |
/// | of a key | the same methods of the `KeyedBreakerLayer` (feature `keyed`) |
/// | without a layer | `keep_last_failure` of a [`Circuit`](crate::Circuit::keep_last_failure) or a [`Guard`](crate::call::Guard::keep_last_failure); [`Permit::fail`], [`Permit::fail_as`] |
///
/// It is also kept if the failure does not count, such as that of a retry, or of a call while the
/// circuit is forced closed. A panic is not kept.
///
/// [`Circuit::reset`](crate::Circuit::reset) removes it. A call that began before the reset does
/// not set it again.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct LastFailure {
    /// The fault of the failure, from the classifier.
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::serde::one_fault"))]
    pub fault: Fault,
    /// The name of the error's type, for display. The compiler determines the text.
    ///
    /// It names the first error of the chain that is not a wrapper of these crates:
    /// [`BreakerError`] and [`ClassifiedError`] are skipped.
    ///
    /// The type of a boxed error (`BoxError`, `anyhow::Error`) or of a source is known only if it
    /// is `std::io::Error`, or an error of a client whose feature is enabled. Otherwise, the name
    /// is that of the next error whose type is known. If there is none, it is that of `dyn Error`.
    ///
    /// For a response, this is the type of the response.
    pub type_name: &'static str,
    /// The text of the error that is not a wrapper of these crates, and the texts of its sources,
    /// separated by colons.
    ///
    /// It omits a source whose text is the end of the text before it. For a response, this is the
    /// text of its fault.
    pub message: String,
    /// The subject of the call: a constant, or a text that was made from the request.
    ///
    /// The subject is `(readiness)` if it is made from the request, and the inner service failed
    /// before there was a request.
    pub subject: String,
    /// The wall-clock time of the failure, for display. No decision uses it.
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::serde::time"))]
    pub at: SystemTime,
}

impl LastFailure {
    /// Creates the record of a failed call. This formats `cause` and `subject`, which runs user
    /// code, so it must not be called under a lock.
    pub(crate) fn new(fault: Fault, cause: &Cause<'_>, subject: &dyn fmt::Display) -> Self {
        let Description { type_name, message } = Description::of(&fault, cause);
        Self { fault, type_name, message, subject: display_text(subject), at: system_time() }
    }
}

/// What a failed call has returned.
pub(crate) enum Cause<'a> {
    /// A response, whose type has this name.
    Response(&'static str),
    /// An error, and the name of its type, if the type is known.
    Error(&'a (dyn Error + 'static), Option<&'static str>),
}

/// The type and the text of a failure.
struct Description {
    type_name: &'static str,
    message: String,
}

impl Description {
    fn of(fault: &Fault, cause: &Cause<'_>) -> Self {
        match *cause {
            Cause::Response(type_name) => Self { type_name, message: fault.to_string() },
            Cause::Error(error, type_name) => {
                let mut chain = ChainReader { static_type: type_name, type_name: None, text: String::new() };
                // A panic of an error's `source` must not affect the call.
                let _ = catch_unwind(AssertUnwindSafe(|| chain.read(error)));
                let type_name = chain.type_name.unwrap_or_else(type_name_of_dyn_error);
                Self { type_name, message: chain.text }
            }
        }
    }
}

fn type_name_of_dyn_error() -> &'static str {
    type_name::<dyn Error>()
}

/// Reads the name and the texts of an error chain.
struct ChainReader {
    /// The name of the type of the next error, from the types around it. It is wrong if the next
    /// error is not the inner one of a [`BreakerError`], but one of this crate.
    static_type: Option<&'static str>,
    /// The first known name.
    type_name: Option<&'static str>,
    text: String,
}

impl ChainReader {
    fn read(&mut self, error: &(dyn Error + 'static)) {
        for error in error_chain(error) {
            let static_type = self.static_type.take();
            if let Some(classified) = error.downcast_ref::<ClassifiedError>() {
                if classified.get_ref().is_some() {
                    self.static_type = classified.source_type();
                    continue;
                }
                // A fault alone: `LastFailure::fault` contains it.
                if self.text.is_empty() {
                    self.type_name = Some(type_name::<ClassifiedError>());
                    self.push_text(error);
                }
                return;
            }
            if let Some(inner) = static_type.and_then(type_in_breaker_error) {
                self.static_type = Some(inner);
                continue;
            }
            if error.is::<BreakerError<ClassifiedError>>() {
                continue;
            }
            let type_name = known_type(error).or(static_type.filter(|name| !is_box(name)));
            self.type_name = self.type_name.or(type_name);
            self.push_text(error);
        }
    }

    /// Adds the text of an error, unless the text of the outer errors already ends with it.
    fn push_text(&mut self, error: &(dyn Error + 'static)) {
        let text = display_text(&error);
        if self.text.is_empty() {
            self.text = text;
        } else if !self.text.ends_with(&text) {
            self.text.push_str(": ");
            self.text.push_str(&text);
        }
    }
}

/// Returns the name of an error's type, if it is a known type.
fn known_type(error: &(dyn Error + 'static)) -> Option<&'static str> {
    if error.is::<TimedOut>() {
        return Some(type_name::<TimedOut>());
    }
    if error.is::<Rejection>() {
        return Some(type_name::<Rejection>());
    }
    error_type_name(error)
}

/// Returns `E` if `name` is the name of the type `BreakerError<E>`.
fn type_in_breaker_error(name: &'static str) -> Option<&'static str> {
    let prefix = type_name::<BreakerError<()>>().strip_suffix("()>")?;
    name.strip_prefix(prefix)?.strip_suffix('>')
}

/// Returns whether a type with this name is a box of any error.
fn is_box(name: &str) -> bool {
    name.contains("dyn ") || matches!(name, "anyhow::Error" | "eyre::Report")
}

/// Returns the text of a value. If its `Display` fails or panics, returns the text that it has
/// written so far: a panic must not affect the call.
fn display_text(value: &dyn fmt::Display) -> String {
    use fmt::Write;

    let mut text = String::new();
    let _ = catch_unwind(AssertUnwindSafe(|| write!(text, "{value}")));
    text
}

/// Determines whether a layer keeps the last failure, and how it obtains the subject of a call.
///
/// Sealed: [`NoLastFailure`], [`KeepLastFailure`] and [`KeepLastFailureBy`] implement it.
pub trait LastFailureMode<Req>: Sealed {
    /// The part of it that one call carries.
    type Call;

    /// Begins a call. `None`: the inner service is polled for readiness, without a request.
    #[doc(hidden)]
    fn begin(&self, request: Option<&Req>) -> Self::Call;
}

/// Keeps the failure of one call, or nothing.
///
/// Sealed: [`NoLastFailure`] and [`FailureKeeper`] implement it.
pub trait KeepFailure: Sealed + Sized {
    /// Keeps a response that is a failure.
    #[doc(hidden)]
    fn keep_response<R: CircuitRef>(&self, permit: &Permit<R>, verdict: &Verdict, type_name: &'static str);

    /// Keeps an error of the response's body, or an elapsed timeout. `type_name` is the name of its
    /// type, if known.
    #[doc(hidden)]
    fn keep_dyn_error<R: CircuitRef>(
        &self,
        permit: &Permit<R>,
        verdict: &Verdict,
        error: &(dyn Error + 'static),
        type_name: Option<&'static str>,
    );

    /// Moves the value to the response's body.
    #[doc(hidden)]
    fn take(&mut self) -> Self;
}

/// Keeps errors of the type `E`.
///
/// Sealed: [`NoLastFailure`] and [`FailureKeeper`] implement it.
pub trait KeepError<E>: KeepFailure {
    /// Keeps an error that is a failure.
    #[doc(hidden)]
    fn keep_error<R: CircuitRef>(&self, permit: &Permit<R>, verdict: &Verdict, error: &E);
}

/// Does not keep the last failure. The default.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoLastFailure;

impl Sealed for NoLastFailure {}

impl<Req> LastFailureMode<Req> for NoLastFailure {
    type Call = Self;

    #[inline]
    fn begin(&self, _: Option<&Req>) -> Self {
        Self
    }
}

impl KeepFailure for NoLastFailure {
    #[inline]
    fn keep_response<R: CircuitRef>(&self, _: &Permit<R>, _: &Verdict, _: &'static str) {}

    #[inline]
    fn keep_dyn_error<R: CircuitRef>(
        &self,
        _: &Permit<R>,
        _: &Verdict,
        _: &(dyn Error + 'static),
        _: Option<&'static str>,
    ) {
    }

    #[inline]
    fn take(&mut self) -> Self {
        Self
    }
}

impl<E> KeepError<E> for NoLastFailure {
    #[inline]
    fn keep_error<R: CircuitRef>(&self, _: &Permit<R>, _: &Verdict, _: &E) {}
}

/// Keeps the last failure, with one subject for all calls.
///
/// Set by [`keep_last_failure`](crate::BreakerLayer::keep_last_failure).
pub struct KeepLastFailure<K = TypedError> {
    subject: SameSubject,
    kind: PhantomData<fn() -> K>,
}

impl<K> KeepLastFailure<K> {
    pub(crate) fn new(subject: Cow<'static, str>) -> Self {
        let subject = match subject {
            Cow::Borrowed(text) => SameSubject::Static(text),
            Cow::Owned(text) => SameSubject::Shared(text.into()),
        };
        Self { subject, kind: PhantomData }
    }
}

impl<K> Sealed for KeepLastFailure<K> {}

impl<Req, K> LastFailureMode<Req> for KeepLastFailure<K> {
    type Call = FailureKeeper<SameSubject, K>;

    fn begin(&self, _: Option<&Req>) -> Self::Call {
        FailureKeeper::new(Some(self.subject.clone()))
    }
}

impl<K> Clone for KeepLastFailure<K> {
    fn clone(&self) -> Self {
        Self { subject: self.subject.clone(), kind: PhantomData }
    }
}

impl<K> fmt::Debug for KeepLastFailure<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeepLastFailure").field("subject", &self.subject).finish()
    }
}

/// Keeps the last failure, with a subject that the closure `F` makes from the request.
///
/// Set by [`keep_last_failure_by`](crate::BreakerLayer::keep_last_failure_by).
pub struct KeepLastFailureBy<F, K = TypedError> {
    subject: F,
    kind: PhantomData<fn() -> K>,
}

impl<F, K> KeepLastFailureBy<F, K> {
    pub(crate) const fn new(subject: F) -> Self {
        Self { subject, kind: PhantomData }
    }
}

impl<F, K> Sealed for KeepLastFailureBy<F, K> {}

impl<Req, F, T, K> LastFailureMode<Req> for KeepLastFailureBy<F, K>
where
    F: Fn(&Req) -> T,
{
    type Call = FailureKeeper<T, K>;

    fn begin(&self, request: Option<&Req>) -> Self::Call {
        FailureKeeper::new(request.map(&self.subject))
    }
}

impl<F: Clone, K> Clone for KeepLastFailureBy<F, K> {
    fn clone(&self) -> Self {
        Self::new(self.subject.clone())
    }
}

impl<F, K> fmt::Debug for KeepLastFailureBy<F, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeepLastFailureBy").finish_non_exhaustive()
    }
}

/// One subject for all calls.
#[derive(Clone, Debug)]
pub enum SameSubject {
    /// A constant, which no call copies.
    Static(&'static str),
    /// A text that all calls share.
    Shared(Arc<str>),
}

impl fmt::Display for SameSubject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Static(text) => text,
            Self::Shared(text) => text,
        })
    }
}

/// Keeps the failure of one call with the subject `T`.
pub struct FailureKeeper<T, K = TypedError> {
    /// `None`: there is no request.
    subject: Option<T>,
    kind: PhantomData<fn() -> K>,
}

impl<T, K> FailureKeeper<T, K> {
    pub(crate) const fn new(subject: Option<T>) -> Self {
        Self { subject, kind: PhantomData }
    }
}

impl<T: fmt::Display, K> FailureKeeper<T, K> {
    #[cold]
    fn keep<R: CircuitRef>(&self, permit: &Permit<R>, fault: Fault, cause: &Cause<'_>) {
        let subject: &dyn fmt::Display = match &self.subject {
            Some(subject) => subject,
            None => &"(readiness)",
        };
        permit.keep_failure(LastFailure::new(fault, cause, subject));
    }
}

/// Returns the fault, if it makes the call a failure.
pub(crate) fn failure_in(verdict: &Verdict) -> Option<Fault> {
    verdict.fault().copied().filter(|fault| fault.health() == Health::Unhealthy)
}

impl<T, K> Sealed for FailureKeeper<T, K> {}

impl<T: fmt::Display, K> KeepFailure for FailureKeeper<T, K> {
    #[inline]
    fn keep_response<R: CircuitRef>(&self, permit: &Permit<R>, verdict: &Verdict, type_name: &'static str) {
        if let Some(fault) = failure_in(verdict) {
            self.keep(permit, fault, &Cause::Response(type_name));
        }
    }

    fn keep_dyn_error<R: CircuitRef>(
        &self,
        permit: &Permit<R>,
        verdict: &Verdict,
        error: &(dyn Error + 'static),
        type_name: Option<&'static str>,
    ) {
        if let Some(fault) = failure_in(verdict) {
            self.keep(permit, fault, &Cause::Error(error, type_name));
        }
    }

    fn take(&mut self) -> Self {
        Self::new(self.subject.take())
    }
}

impl<E, T, K> KeepError<E> for FailureKeeper<T, K>
where
    E: AsError<K>,
    T: fmt::Display,
{
    #[inline]
    fn keep_error<R: CircuitRef>(&self, permit: &Permit<R>, verdict: &Verdict, error: &E) {
        if let Some(fault) = failure_in(verdict) {
            self.keep(permit, fault, &Cause::Error(error.as_error(), E::error_type()));
        }
    }
}

impl<T: Clone, K> Clone for FailureKeeper<T, K> {
    fn clone(&self) -> Self {
        Self::new(self.subject.clone())
    }
}

impl<T, K> fmt::Debug for FailureKeeper<T, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FailureKeeper").finish_non_exhaustive()
    }
}
