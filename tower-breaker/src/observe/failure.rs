//! The last failure, kept for people.

use std::any::type_name;
use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use tower_fault_classify::{AsError, BodyEnd, Classify, Fault, Health, How, Outcome, Typed, Verdict};

use crate::circuit::Core;

/// The last failure that a circuit heard of.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct LastFailure {
    /// What it was judged to be.
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::serde::one_fault"))]
    pub fault: Fault,
    /// The type of the error, or of the response, as the compiler calls it: it is for people.
    pub type_name: &'static str,
    /// What the error says; of a response, what it was judged to be.
    pub message: String,
    /// The label that the layer was given.
    pub label: Cow<'static, str>,
}

/// A classifier that keeps the last failure; see [`keep_last_failure`](crate::BreakerLayer::keep_last_failure).
pub struct KeepFailures<C, K = Typed> {
    classify: C,
    core: &'static Core,
    owner: u64,
    label: Cow<'static, str>,
    kind: PhantomData<fn() -> K>,
}

impl<C, K> KeepFailures<C, K> {
    pub(crate) fn new(classify: C, core: &'static Core, label: Cow<'static, str>) -> Self {
        Self { classify, core, owner: core.owner(), label, kind: PhantomData }
    }
}

impl<C, K> KeepFailures<C, K> {
    fn keep(&self, verdict: &Verdict, tell: impl FnOnce(&Fault) -> (&'static str, String)) {
        if let Verdict::Fault(fault) = *verdict
            && fault.health() == Health::Failure
        {
            let (type_name, message) = tell(&fault);
            let label = self.label.clone();
            self.core.keep(self.owner, LastFailure { fault, type_name, message, label });
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
            Err(error) => (type_name::<Err>(), error.as_error().to_string()),
        });
        verdict
    }

    fn outcome<'r>(&self, response: &'r mut Res) -> Option<&'r mut (dyn Outcome + 'r)> {
        self.classify.outcome(response)
    }

    fn classify_end(&self, end: &BodyEnd<'_>) -> Verdict {
        let verdict = self.classify.classify_end(end);
        self.keep(&verdict, |fault| match end.how() {
            How::Failed(error) => (type_name::<Res>(), error.to_string()),
            _ => (type_name::<Res>(), fault.to_string()),
        });
        verdict
    }
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
