//! The mark by which nested retry layers know of each other.

use tower_fault_classify::Retryable;

use super::safety::ResendAfter;

/// The number of an attempt; the first is 1.
///
/// In the extensions of an `http::Request` or a `reqwest::Request` it marks a request that a layer may send again. It
/// also carries after which faults that layer, and the layers further out, send the request again, and whether they
/// judge responses or errors only. A layer further in retries the other faults by itself, and no fault is retried by two
/// layers: three nested layers of three attempts make three calls, and not 27. That holds if the layers classify alike:
/// put a rule that changes what is retried into a `FaultClassifyLayer` below all of them.
///
/// The number counts the attempts of all layers. A layer that does not send the request again does not mark it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Attempt {
    number: u32,
    coverage: Coverage,
}

impl Attempt {
    /// An attempt of a layer that covers nothing.
    #[cfg(all(test, not(loom_models)))]
    pub(crate) const fn new(number: u32) -> Self {
        Self { number, coverage: Coverage::of(ResendAfter::Nothing, false) }
    }

    /// The number, from 1.
    pub const fn number(self) -> u32 {
        self.number
    }
}

/// The mark of the layers further out, if there are any.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Outer(Option<Attempt>);

impl Outer {
    #[inline]
    pub(crate) const fn new(mark: Option<Attempt>) -> Self {
        Self(mark)
    }

    /// Whether the layers further out send the request again after a response, or an error, with this fault.
    #[inline]
    pub(crate) fn includes(self, retryable: Retryable, is_response: bool) -> bool {
        self.0.is_some_and(|mark| mark.coverage.includes(retryable, is_response))
    }

    /// Whether a layer with this coverage has nothing left to retry.
    #[inline]
    pub(crate) fn contains(self, own: Coverage) -> bool {
        self.0.is_some_and(|mark| mark.coverage.contains(own))
    }

    /// The mark of a layer's attempt with a number of its own. The layers further out have counted up to its first.
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
    responses: ResendAfter,
}

impl Coverage {
    /// The coverage of one layer.
    #[inline]
    pub(crate) const fn of(resend_after: ResendAfter, judges_responses: bool) -> Self {
        let responses = if judges_responses { resend_after } else { ResendAfter::Nothing };
        Self { errors: resend_after, responses }
    }

    /// The coverage of two layers together.
    #[inline]
    pub(crate) fn and(self, other: Self) -> Self {
        Self { errors: self.errors.max(other.errors), responses: self.responses.max(other.responses) }
    }

    /// Whether everything that `other` covers is covered.
    #[inline]
    pub(crate) fn contains(self, other: Self) -> bool {
        self.and(other) == self
    }

    /// Whether a request is sent again after a response, or an error, with this fault.
    #[inline]
    pub(crate) const fn includes(self, retryable: Retryable, is_response: bool) -> bool {
        let after = if is_response { self.responses } else { self.errors };
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

    fn every() -> impl Iterator<Item = Coverage> {
        let errors_and_responses = |errors| LEVELS.map(move |responses| Coverage { errors, responses });
        LEVELS.into_iter().flat_map(errors_and_responses)
    }

    /// The faults that a coverage includes, of responses and of errors.
    fn faults(coverage: Coverage) -> Vec<(Retryable, bool)> {
        let both = AXIS.into_iter().flat_map(|retryable| [(retryable, true), (retryable, false)]);
        both.filter(|(retryable, is_response)| coverage.includes(*retryable, *is_response)).collect()
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
    fn coverage_of_errors_only_has_no_responses() {
        for level in LEVELS {
            let errors_only = faults(Coverage::of(level, false));
            assert!(errors_only.iter().all(|(_, is_response)| !is_response));
            assert_eq!(faults(Coverage::of(level, true)).len(), 2 * errors_only.len());
        }
    }
}
