//! The mark by which nested retry layers know of each other.

use tower_fault_classify::Retryable;
use tower_fault_classify::classifiers::ResponseCoverage;

use super::safety::ResendAfter;

/// The number of an attempt; the first is 1.
///
/// In the extensions of an `http::Request` or a `reqwest::Request` it marks a request that a layer
/// may send again. It also carries after which faults that layer, and the layers further out, send
/// the request again, and whether they judge all responses, those with a rule, or errors only
/// ([`ResponseCoverage`]). A layer further in retries the other faults by itself: three nested
/// layers of three attempts make three calls, and not 27. That holds if the layers classify alike:
/// put a rule that changes what is retried into a `FaultClassifyLayer` below all of them.
///
/// A layer that judges all responses below one with `errors_only().rule(…)` retries every response,
/// also those that the rule covers: both layers retry these.
///
/// The number counts the attempts of all layers. A layer that does not send the request again does
/// not mark it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Attempt {
    number: u32,
    coverage: Coverage,
}

impl Attempt {
    /// An attempt of a layer that covers nothing.
    #[cfg(all(test, not(loom_models)))]
    pub(crate) const fn new(number: u32) -> Self {
        Self { number, coverage: Coverage::of(ResendAfter::Nothing, ResponseCoverage::Nothing) }
    }

    /// The number, from 1.
    pub const fn number(self) -> u32 {
        self.number
    }
}

/// The mark of the layers further out, if there are any.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct OuterMark(Option<Attempt>);

impl OuterMark {
    #[inline]
    pub(crate) const fn new(mark: Option<Attempt>) -> Self {
        Self(mark)
    }

    /// Whether the layers further out send the request again after an error with this fault, or
    /// after a response that a layer with this coverage of responses judges so.
    #[inline]
    pub(crate) fn includes(self, retryable: Retryable, response: Option<ResponseCoverage>) -> bool {
        self.0.is_some_and(|mark| mark.coverage.includes(retryable, response))
    }

    /// Whether a layer with this coverage has nothing left to retry.
    #[inline]
    pub(crate) fn contains(self, own: Coverage) -> bool {
        self.0.is_some_and(|mark| mark.coverage.contains(own))
    }

    /// The mark of a layer's attempt with a number of its own. The layers further out have counted
    /// up to its first.
    #[inline]
    pub(crate) fn attempt(self, number: u32, own: Coverage) -> Attempt {
        match self.0 {
            None => Attempt { number, coverage: own },
            Some(mark) => {
                let number = mark.number.saturating_add(number - 1);
                Attempt { number, coverage: own.and(mark.coverage) }
            }
        }
    }
}

/// After which outcomes of one request some layers send it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Coverage {
    errors: ResendAfter,
    /// Of the layers that judge responses by rule, or all of them.
    by_rule: ResendAfter,
    /// Of the layers that judge all responses.
    all: ResendAfter,
}

impl Coverage {
    /// The coverage of one layer.
    #[inline]
    pub(crate) const fn of(resend_after: ResendAfter, responses: ResponseCoverage) -> Self {
        let none = ResendAfter::Nothing;
        let (by_rule, all) = match responses {
            ResponseCoverage::Nothing => (none, none),
            ResponseCoverage::ByRule => (resend_after, none),
            ResponseCoverage::All => (resend_after, resend_after),
        };
        Self { errors: resend_after, by_rule, all }
    }

    /// The coverage of two layers together.
    #[inline]
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            errors: self.errors.max(other.errors),
            by_rule: self.by_rule.max(other.by_rule),
            all: self.all.max(other.all),
        }
    }

    /// Whether everything that `other` covers is covered.
    #[inline]
    pub(crate) fn contains(self, other: Self) -> bool {
        self.and(other) == self
    }

    /// Whether a request is sent again after an error with this fault, or after a response that a
    /// layer with this coverage of responses judges so.
    #[inline]
    pub(crate) const fn includes(self, retryable: Retryable, response: Option<ResponseCoverage>) -> bool {
        let after = match response {
            None => self.errors,
            Some(ResponseCoverage::All) => self.all,
            Some(_) => self.by_rule,
        };
        after.includes(retryable)
    }
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use super::*;

    const LEVELS: [ResendAfter; 4] =
        [ResendAfter::Nothing, ResendAfter::Unsent, ResendAfter::Refused, ResendAfter::Any];
    const AXIS: [Retryable; 4] =
        [Retryable::Unsent, Retryable::Refused, Retryable::IfIdempotent, Retryable::Never];

    const OUTCOMES: [Option<ResponseCoverage>; 3] =
        [None, Some(ResponseCoverage::ByRule), Some(ResponseCoverage::All)];

    fn every() -> impl Iterator<Item = Coverage> {
        LEVELS.into_iter().flat_map(|errors| {
            LEVELS
                .into_iter()
                .flat_map(move |by_rule| LEVELS.map(move |all| Coverage { errors, by_rule, all }))
        })
    }

    /// The faults that a coverage includes, of errors and of responses.
    fn faults(coverage: Coverage) -> Vec<(Retryable, Option<ResponseCoverage>)> {
        let every = AXIS.into_iter().flat_map(|retryable| OUTCOMES.map(|outcome| (retryable, outcome)));
        every.filter(|(retryable, outcome)| coverage.includes(*retryable, *outcome)).collect()
    }

    #[test]
    fn coverage_is_a_set_of_faults() {
        for one in every() {
            for other in every() {
                let union = faults(one.and(other));
                assert!(
                    union.iter().all(|fault| faults(one).contains(fault) || faults(other).contains(fault))
                );
                assert!(faults(one).iter().chain(&faults(other)).all(|fault| union.contains(fault)));
                let contains = faults(other).iter().all(|fault| faults(one).contains(fault));
                assert_eq!(one.contains(other), contains, "{one:?} {other:?}");
            }
        }
    }

    #[test]
    fn coverage_of_responses_grows_with_its_level() {
        for level in LEVELS {
            let included = |responses| faults(Coverage::of(level, responses));
            let errors = included(ResponseCoverage::Nothing);
            assert!(errors.iter().all(|(_, outcome)| outcome.is_none()));
            assert_eq!(included(ResponseCoverage::ByRule).len(), 2 * errors.len());
            assert_eq!(included(ResponseCoverage::All).len(), 3 * errors.len());
        }
    }
}
