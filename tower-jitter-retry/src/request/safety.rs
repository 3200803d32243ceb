//! The faults after which a request may be sent again: by this layer, and by the outer layers.
//!
//! [`ResendAfter`] is the set of faults for one request of one layer. It follows from the request's
//! [`RetrySafety`] and idempotency, and from the policy's [`NonIdempotent`]. [`Coverage`] is the
//! union of such sets over nested layers. An [`Attempt`] carries the coverage to the inner layers,
//! which leave these faults to the outer layers ([`OuterMark`]).

use std::fmt;

use tower_fault_classify::Retryable;
use tower_fault_classify::classifiers::ResponseCoverage;

/// Whether one request may be sent more than once.
///
/// Set it for a policy with [`RetryPolicyBuilder::safety`](crate::RetryPolicyBuilder::safety). As
/// an extension of an `http::Request` or a `reqwest::Request`, it applies to that request and takes
/// precedence over the policy:
///
/// ```
/// use tower_jitter_retry::RetrySafety;
/// use tower_jitter_retry::request::RequestExt;
///
/// let request = http::Request::post("/orders/42/confirm").body(String::new())?;
/// let request = request.with_extension(RetrySafety::Always);
/// # Ok::<(), http::Error>(())
/// ```
///
/// | request | is sent again after |
/// |---|---|
/// | is idempotent, or has `Always` | every fault except [`Retryable::Never`] |
/// | is not idempotent | the faults that [`NonIdempotent`] allows |
/// | has `Never` | no fault |
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RetrySafety {
    /// The request decides by its method or its idempotency key; the default.
    ///
    /// - An HTTP request is idempotent by its method (RFC 9110 §9.2.2: GET, HEAD, OPTIONS, TRACE,
    ///   PUT, DELETE), or by an `Idempotency-Key` header that is not blank. `""` is blank.
    /// - A gRPC call is idempotent if its method is in
    ///   [`idempotent_methods`](crate::RetryPolicyBuilder::idempotent_methods).
    /// - Any other request counts as idempotent unless its [`RequestInfo`](crate::RequestInfo) says
    ///   otherwise, because the user put it behind a retry layer.
    #[default]
    ByRequest,
    /// Like `ByRequest`, but an `Idempotency-Key` header has no effect.
    ///
    /// Use it where remote clients write the headers and the backend may not support such keys.
    /// [`RetryPolicy::gateway`](crate::RetryPolicy::gateway) uses it.
    ByMethod,
    /// The request counts as idempotent.
    Always,
    /// The request is sent once, even if the first attempt did not reach the server.
    Never,
}

impl RetrySafety {
    /// Returns the name of the value, in `snake_case`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ByRequest => "by_request",
            Self::ByMethod => "by_method",
            Self::Always => "always",
            Self::Never => "never",
        }
    }
}

impl fmt::Display for RetrySafety {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The faults after which a request that is not idempotent is sent again.
///
/// ```
/// use tower_jitter_retry::{NonIdempotent, RetryPolicy};
///
/// // Retry a POST only if it was not sent, whatever the server says about processing it.
/// let policy = RetryPolicy::builder().non_idempotent(NonIdempotent::Unsent).build()?;
/// # Ok::<(), tower_jitter_retry::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum NonIdempotent {
    /// No fault.
    Never,
    /// Faults which prove that the request was not sent ([`Retryable::Unsent`]).
    ///
    /// Examples are a refused connection and load shedding below. RFC 9110 §9.2.2 allows a proxy
    /// no other automatic retry of such a request.
    Unsent,
    /// The faults of `Unsent`, and responses that say the request was not processed; the default.
    ///
    /// These responses are [`Retryable::Refused`], for example 421, 425 and 429.
    #[default]
    UnsentOrRefused,
}

impl NonIdempotent {
    /// Returns the name of the value, in `snake_case`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Never => "never",
            Self::Unsent => "unsent",
            Self::UnsentOrRefused => "unsent_or_refused",
        }
    }
}

impl fmt::Display for NonIdempotent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The faults after which one request may be sent again. Each level includes the levels before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum ResendAfter {
    Nothing,
    Unsent,
    Refused,
    /// Every fault except [`Retryable::Never`].
    Any,
}

impl ResendAfter {
    /// Returns the level of a request.
    ///
    /// - `own` is the request's own [`RetrySafety`].
    /// - `idempotent` is whether sending the request twice has the same effect as sending it once.
    /// - `has_key` returns whether the request carries an idempotency key.
    #[inline]
    pub(crate) fn of(
        own: Option<RetrySafety>,
        policy: RetrySafety,
        level: NonIdempotent,
        idempotent: bool,
        has_key: impl FnOnce() -> bool,
    ) -> Self {
        let idempotent = match own.unwrap_or(policy) {
            RetrySafety::Never => return Self::Nothing,
            RetrySafety::Always => true,
            RetrySafety::ByMethod => idempotent,
            RetrySafety::ByRequest => idempotent || has_key(),
        };
        match level {
            _ if idempotent => Self::Any,
            NonIdempotent::Never => Self::Nothing,
            NonIdempotent::Unsent => Self::Unsent,
            NonIdempotent::UnsentOrRefused => Self::Refused,
        }
    }

    /// Returns whether the request is sent again after a fault of this kind.
    #[inline]
    pub(crate) const fn includes(self, retryable: Retryable) -> bool {
        match retryable {
            Retryable::Unsent => !matches!(self, Self::Nothing),
            Retryable::Refused => matches!(self, Self::Refused | Self::Any),
            Retryable::IfIdempotent => matches!(self, Self::Any),
            _ => false,
        }
    }
}

/// The number of an attempt and the mark of a retry layer; the first attempt has the number 1.
///
/// It marks an `http::Request` or a `reqwest::Request` that an outer retry layer may send again.
/// [`Attempt::of`] reads it from the request's extensions. The number counts the attempts of all
/// layers. A layer that does not send the request again does not mark it.
///
/// The mark also says:
///
/// - after which faults the outer layers send the request again,
/// - whether they classify all responses, the responses of a rule, or only errors
///   ([`ResponseCoverage`]).
///
/// An inner layer retries only the other faults. Three nested layers of three attempts therefore
/// make three attempts, and not 27. That requires that the layers classify alike: put a rule that
/// changes what is retried into a `FaultClassifyLayer` below all of them.
///
/// One combination retries twice: below a layer with `errors_only().rule(…)`, a layer that
/// classifies all responses retries every response. Both layers then retry the responses that the
/// rule covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Attempt {
    pub(super) number: u32,
    pub(super) coverage: Coverage,
}

impl Attempt {
    /// Creates an attempt of a layer that covers nothing.
    #[cfg(all(test, not(loom_models)))]
    pub(crate) const fn new(number: u32) -> Self {
        Self { number, coverage: Coverage::of(ResendAfter::Nothing, ResponseCoverage::Nothing) }
    }

    /// Returns the number of the attempt, from 1.
    pub const fn number(self) -> u32 {
        self.number
    }
}

/// The mark of the outer layers, if there are any.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct OuterMark(Option<Attempt>);

impl OuterMark {
    #[inline]
    pub(crate) const fn new(mark: Option<Attempt>) -> Self {
        Self(mark)
    }

    /// Returns whether the outer layers send the request again after this fault. `response` is
    /// `None` for an error; for a response, it is the coverage of the layer that classified the
    /// response.
    #[inline]
    pub(crate) fn includes(self, retryable: Retryable, response: Option<ResponseCoverage>) -> bool {
        self.0.is_some_and(|mark| mark.coverage.includes(retryable, response))
    }

    /// Returns whether the outer layers cover everything that a layer with the coverage `own`
    /// retries.
    #[inline]
    pub(crate) fn contains(self, own: Coverage) -> bool {
        self.0.is_some_and(|mark| mark.coverage.contains(own))
    }

    /// Returns the mark of this layer's attempt `number`. The outer layers have counted up to this
    /// layer's first attempt.
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

/// The outcomes of one request after which some layers send it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Coverage {
    /// The faults in errors, of all layers.
    errors: ResendAfter,
    /// The faults in responses, of the layers that classify responses: by rule, or all of them.
    by_rule: ResendAfter,
    /// The faults in responses, of the layers that classify all responses.
    all: ResendAfter,
}

impl Coverage {
    /// Returns the coverage of one layer.
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

    /// Returns the coverage of two layers together.
    #[inline]
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            errors: self.errors.max(other.errors),
            by_rule: self.by_rule.max(other.by_rule),
            all: self.all.max(other.all),
        }
    }

    /// Returns whether this coverage includes everything in `other`.
    #[inline]
    pub(crate) fn contains(self, other: Self) -> bool {
        self.and(other) == self
    }

    /// Returns whether a request is sent again after this fault. `response` is `None` for an error;
    /// for a response, it is the coverage of the layer that classified the response.
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

    const SAFETIES: [RetrySafety; 4] =
        [RetrySafety::ByRequest, RetrySafety::ByMethod, RetrySafety::Always, RetrySafety::Never];
    const LEVELS: [NonIdempotent; 3] =
        [NonIdempotent::Never, NonIdempotent::Unsent, NonIdempotent::UnsentOrRefused];
    const AXIS: [Retryable; 4] =
        [Retryable::Unsent, Retryable::Refused, Retryable::IfIdempotent, Retryable::Never];

    /// Returns the decisions on unsent, refused, if-idempotent and never; `x` means sent again.
    fn row(
        own: Option<RetrySafety>,
        policy: RetrySafety,
        level: NonIdempotent,
        traits: (bool, bool),
    ) -> String {
        let (idempotent, has_key) = traits;
        let after = ResendAfter::of(own, policy, level, idempotent, || has_key);
        AXIS.map(|retryable| if after.includes(retryable) { 'x' } else { '-' }).iter().collect()
    }

    /// The columns are the levels `Never`, `Unsent` and `UnsentOrRefused`.
    #[test]
    fn resend_after_truth_table() {
        let all = ["xxx-"; 3];
        let none = ["----"; 3];
        let level = ["----", "x---", "xx--"];
        // Safety; (idempotent by itself, has a key); the row.
        let table = [
            (RetrySafety::ByRequest, (true, true), all),
            (RetrySafety::ByRequest, (true, false), all),
            (RetrySafety::ByRequest, (false, true), all),
            (RetrySafety::ByRequest, (false, false), level),
            (RetrySafety::ByMethod, (true, true), all),
            (RetrySafety::ByMethod, (true, false), all),
            (RetrySafety::ByMethod, (false, true), level),
            (RetrySafety::ByMethod, (false, false), level),
            (RetrySafety::Always, (true, true), all),
            (RetrySafety::Always, (true, false), all),
            (RetrySafety::Always, (false, true), all),
            (RetrySafety::Always, (false, false), all),
            (RetrySafety::Never, (true, true), none),
            (RetrySafety::Never, (true, false), none),
            (RetrySafety::Never, (false, true), none),
            (RetrySafety::Never, (false, false), none),
        ];
        for (safety, traits, expected) in table {
            for (level, expected) in LEVELS.into_iter().zip(expected) {
                assert_eq!(row(None, safety, level, traits), expected, "{safety:?} {level:?} {traits:?}");
                for policy in SAFETIES {
                    let own = row(Some(safety), policy, level, traits);
                    assert_eq!(own, expected, "own {safety:?} over {policy:?} {level:?} {traits:?}");
                }
            }
        }
    }

    const RESEND_LEVELS: [ResendAfter; 4] =
        [ResendAfter::Nothing, ResendAfter::Unsent, ResendAfter::Refused, ResendAfter::Any];

    const OUTCOMES: [Option<ResponseCoverage>; 3] =
        [None, Some(ResponseCoverage::ByRule), Some(ResponseCoverage::All)];

    fn every() -> impl Iterator<Item = Coverage> {
        RESEND_LEVELS.into_iter().flat_map(|errors| {
            RESEND_LEVELS
                .into_iter()
                .flat_map(move |by_rule| RESEND_LEVELS.map(move |all| Coverage { errors, by_rule, all }))
        })
    }

    /// Returns the faults that a coverage includes, for errors and for responses.
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
        for level in RESEND_LEVELS {
            let included = |responses| faults(Coverage::of(level, responses));
            let errors = included(ResponseCoverage::Nothing);
            assert!(errors.iter().all(|(_, outcome)| outcome.is_none()));
            assert_eq!(included(ResponseCoverage::ByRule).len(), 2 * errors.len());
            assert_eq!(included(ResponseCoverage::All).len(), 3 * errors.len());
        }
    }
}
