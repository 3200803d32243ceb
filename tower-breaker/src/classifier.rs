//! Classifiers that wrap the layer's classifier.
//!
//! | item | |
//! |---|---|
//! | [`HealthBy`] | overrides the health of a fault: set by [`health`](crate::BreakerLayer::health) |
//! | [`KeepLastFailure`], [`KeepFailures`] | keep the last failure: set by [`keep_last_failure`](crate::BreakerLayer::keep_last_failure) |
//! | [`NoLastFailure`] | the default: does not keep the last failure |
//! | [`LastFailureMode`] | the trait of the modes, sealed |

use std::any::type_name;
use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::marker::PhantomData;

use tower_fault_classify::__internals::{error_chain, error_text, error_type_name};
use tower_fault_classify::body::{BodyEnd, EndReason};
use tower_fault_classify::classifiers::{AsError, TypedError};
use tower_fault_classify::{ClassifiedError, Classify, Fault, Health, Outcome, Verdict};

use crate::circuit::{Circuit, StaticCore};
use crate::sealed::Sealed;
use crate::telemetry::LastFailure;

/// Determines whether a layer keeps the last failure.
///
/// The layer wraps its whole classifier with the mode when it makes a service, so that rules that
/// were added later are inside.
///
/// Sealed: [`NoLastFailure`] and [`KeepLastFailure`] implement it.
pub trait LastFailureMode: Clone + Sealed {
    /// The classifier of the layer's services.
    type Classify<C>;

    /// Wraps the layer's classifier.
    #[doc(hidden)]
    fn around<C>(self, classify: C, circuit: &Circuit) -> Self::Classify<C>;
}

/// Does not keep the last failure. The default.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoLastFailure;

impl Sealed for NoLastFailure {}

impl LastFailureMode for NoLastFailure {
    type Classify<C> = C;

    fn around<C>(self, classify: C, _: &Circuit) -> C {
        classify
    }
}

/// Keeps the last failure. Set by [`keep_last_failure`](crate::BreakerLayer::keep_last_failure).
pub struct KeepLastFailure<K = TypedError> {
    label: Cow<'static, str>,
    kind: PhantomData<fn() -> K>,
}

impl<K> KeepLastFailure<K> {
    pub(crate) const fn new(label: Cow<'static, str>) -> Self {
        Self { label, kind: PhantomData }
    }
}

impl<K> Sealed for KeepLastFailure<K> {}

impl<K> LastFailureMode for KeepLastFailure<K> {
    type Classify<C> = KeepFailures<C, K>;

    fn around<C>(self, classify: C, circuit: &Circuit) -> KeepFailures<C, K> {
        KeepFailures::new(classify, circuit.core(), self.label)
    }
}

impl<K> Clone for KeepLastFailure<K> {
    fn clone(&self) -> Self {
        Self::new(self.label.clone())
    }
}

impl<K> fmt::Debug for KeepLastFailure<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeepLastFailure").field("label", &self.label).finish()
    }
}

/// A classifier that keeps the last failure.
///
/// Set by [`keep_last_failure`](crate::BreakerLayer::keep_last_failure).
pub struct KeepFailures<C, K = TypedError> {
    classify: C,
    core: &'static StaticCore,
    owner: u64,
    label: Cow<'static, str>,
    kind: PhantomData<fn() -> K>,
}

impl<C, K> KeepFailures<C, K> {
    pub(crate) fn new(classify: C, core: &'static StaticCore, label: Cow<'static, str>) -> Self {
        Self { classify, core, owner: core.owner(), label, kind: PhantomData }
    }
}

impl<C, K> KeepFailures<C, K> {
    fn keep(&self, verdict: &Verdict, describe: impl FnOnce(&Fault) -> (&'static str, String)) {
        if let Verdict::Fault(fault) = *verdict
            && fault.health() == Health::Unhealthy
        {
            let (type_name, message) = describe(&fault);
            let label = self.label.clone();
            self.core.keep_failure(self.owner, LastFailure { fault, type_name, message, label });
        }
    }
}

impl<C, K, Res, Err> Classify<Res, Err> for KeepFailures<C, K>
where
    C: Classify<Res, Err>,
    Err: AsError<K>,
{
    fn classify(&self, outcome: Result<&Res, &Err>) -> Verdict {
        let verdict = self.classify.classify(outcome);
        self.keep(&verdict, |fault| match outcome {
            Ok(_) => (type_name::<Res>(), fault.to_string()),
            Err(error) => {
                (cause_type(error.as_error()).unwrap_or(type_name::<Err>()), chain_text(error.as_error()))
            }
        });
        verdict
    }

    fn outcome<'r>(&self, response: &'r mut Res) -> Option<&'r mut (dyn Outcome + 'r)> {
        self.classify.outcome(response)
    }

    fn classify_end(&self, end: &BodyEnd<'_>) -> Verdict {
        let verdict = self.classify.classify_end(end);
        self.keep(&verdict, |fault| match end.reason() {
            EndReason::Failed(error) => (cause_type(error).unwrap_or(type_name::<Res>()), chain_text(error)),
            _ => (type_name::<Res>(), fault.to_string()),
        });
        verdict
    }
}

/// Returns the type name of the innermost error whose type is known.
fn cause_type(error: &(dyn Error + 'static)) -> Option<&'static str> {
    let names = error_chain(error).filter_map(|error| match error.downcast_ref::<ClassifiedError>() {
        Some(classified) => classified.source_type(),
        None => error_type_name(error),
    });
    // An error that was boxed before it was classified has lost its type name.
    names.reduce(|outer, inner| if inner.contains("dyn ") { outer } else { inner })
}

/// Returns the text of the error chain. It skips verdicts that wrap an error, and the text of an
/// error if the text of the outer errors already ends with it.
fn chain_text(error: &(dyn Error + 'static)) -> String {
    let is_wrapper = |error: &(dyn Error + 'static)| {
        error.downcast_ref::<ClassifiedError>().is_some_and(|classified| classified.get_ref().is_some())
    };
    let mut chain = String::new();
    for error in error_chain(error).filter(|error| !is_wrapper(*error)) {
        let text = error_text(error);
        if chain.is_empty() {
            chain = text;
        } else if !chain.ends_with(&text) {
            chain.push_str(": ");
            chain.push_str(&text);
        }
    }
    chain
}

impl<C: Clone, K> Clone for KeepFailures<C, K> {
    fn clone(&self) -> Self {
        let Self { core, owner, .. } = *self;
        Self { classify: self.classify.clone(), core, owner, label: self.label.clone(), kind: PhantomData }
    }
}

impl<C: fmt::Debug, K> fmt::Debug for KeepFailures<C, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeepFailures").field("classify", &self.classify).finish_non_exhaustive()
    }
}

/// A classifier that overrides the health of faults.
///
/// Set by [`health`](crate::BreakerLayer::health).
#[derive(Clone, Copy)]
pub struct HealthBy<C, F> {
    classify: C,
    health: F,
}

impl<C, F> HealthBy<C, F> {
    pub(crate) const fn new(classify: C, health: F) -> Self {
        Self { classify, health }
    }
}

impl<C, F: Fn(&Fault) -> Health> HealthBy<C, F> {
    #[inline]
    fn with_health(&self, verdict: Verdict) -> Verdict {
        match verdict {
            Verdict::Success => Verdict::Success,
            Verdict::Fault(fault) => fault.with_health((self.health)(&fault)).into(),
        }
    }
}

impl<C, F, Res, Err> Classify<Res, Err> for HealthBy<C, F>
where
    C: Classify<Res, Err>,
    F: Fn(&Fault) -> Health,
{
    #[inline]
    fn classify(&self, outcome: Result<&Res, &Err>) -> Verdict {
        self.with_health(self.classify.classify(outcome))
    }

    fn outcome<'r>(&self, response: &'r mut Res) -> Option<&'r mut (dyn Outcome + 'r)> {
        self.classify.outcome(response)
    }

    fn classify_end(&self, end: &BodyEnd<'_>) -> Verdict {
        self.with_health(self.classify.classify_end(end))
    }
}

impl<C: fmt::Debug, F> fmt::Debug for HealthBy<C, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HealthBy").field("classify", &self.classify).finish_non_exhaustive()
    }
}
