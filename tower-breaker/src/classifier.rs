//! The classifier that wraps the layer's classifier: [`HealthBy`], which
//! [`health`](crate::BreakerLayer::health) sets.

use std::fmt;

use tower_fault_classify::body::BodyEnd;
use tower_fault_classify::{Classify, Fault, Health, Outcome, Verdict};

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
