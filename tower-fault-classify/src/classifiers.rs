//! Ready-made classifiers, and the markers for the kinds of errors.
//!
//! | item | use |
//! |---|---|
//! | [`Auto`] | the default: classifies responses and errors |
//! | [`ErrorsOnly`] | classifies errors; every response is a success |
//! | [`NestedErrors`] | classifies a result within a result, as `tokio::time::timeout` returns it |
//! | [`RuleFirst`] | checks a rule before a classifier; `.rule(…)` of the layers creates it |
//! | [`ResponseCoverage`] | which responses a classifier can classify as a fault |
//! | [`TypedError`], [`BoxedError`], [`AsError`] | the kind of error that a classifier reads |

use std::error::Error;
use std::fmt;
use std::marker::PhantomData;

use crate::body::end::{BodyEnd, EndReason, classify_end_by_tables};
use crate::classify::{Classify, Rule};
use crate::fault::Verdict;
use crate::outcome::{Outcome, classify_response};

pub use crate::classify::ResponseCoverage;
pub use crate::error::{AsError, BoxedError, TypedError};

macro_rules! marked_by_error_kind {
    ($($(#[$doc:meta])* $classifier:ident),+ $(,)?) => {
        $(
            $(#[$doc])*
            pub struct $classifier<K = TypedError>(PhantomData<fn() -> K>);

            impl<K> $classifier<K> {
                /// Creates the classifier. `K` is inferred from the error type.
                pub const fn new() -> Self {
                    Self(PhantomData)
                }
            }

            impl<K> Clone for $classifier<K> {
                fn clone(&self) -> Self {
                    *self
                }
            }

            impl<K> Copy for $classifier<K> {}

            impl<K> Default for $classifier<K> {
                fn default() -> Self {
                    Self::new()
                }
            }

            impl<K> fmt::Debug for $classifier<K> {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.write_str(stringify!($classifier))
                }
            }
        )+
    };
}

marked_by_error_kind! {
    /// The default classifier: classifies responses and errors by the tables.
    ///
    /// - A response is classified by [`classify_response`]: by the verdict it carries, its own
    ///   verdict, or its status. A response without a status is a success.
    /// - An error is classified by [`classify_error`](crate::classify_error): by its chain of sources.
    Auto,
    /// Classifies errors as [`Auto`] does; every response is a success.
    ///
    /// A response can have any type. A response that is itself a `Result` is a success too, even an
    /// `Err`: see [`NestedErrors`].
    ErrorsOnly,
    /// Classifies a result within a result, as `tokio::time::timeout` returns it.
    ///
    /// The outer and the inner error are classified as [`Auto`] does. A value of any type is a
    /// success.
    ///
    /// ```
    /// use std::io::{Error, ErrorKind};
    /// use tower_fault_classify::classifiers::NestedErrors;
    /// use tower_fault_classify::Classify;
    ///
    /// let refused = Ok::<Result<u32, Error>, Error>(Err(ErrorKind::ConnectionRefused.into()));
    /// assert!(NestedErrors::new().classify(refused.as_ref()).fault().is_some());
    /// ```
    NestedErrors,
}

impl<K, Res, Err> Classify<Res, Err> for Auto<K>
where
    Res: Outcome,
    Err: AsError<K>,
{
    #[expect(clippy::inline_always, reason = "out of line, the verdict passes through memory")]
    #[inline(always)]
    fn classify(&self, outcome: Result<&Res, &Err>) -> Verdict {
        match outcome {
            Ok(response) => classify_response(response),
            Err(error) => error.classify_chain().into(),
        }
    }

    #[inline]
    fn outcome<'r>(&self, response: &'r mut Res) -> Option<&'r mut (dyn Outcome + 'r)> {
        Some(response)
    }

    #[inline]
    fn error<'e>(&self, error: &'e Err) -> Option<&'e (dyn Error + 'static)> {
        Some(error.as_error())
    }
}

impl<K, Res, Err> Classify<Res, Err> for ErrorsOnly<K>
where
    Err: AsError<K>,
{
    #[inline]
    fn classify(&self, outcome: Result<&Res, &Err>) -> Verdict {
        match outcome {
            Ok(_) => Verdict::Success,
            Err(error) => error.classify_chain().into(),
        }
    }

    #[inline]
    fn error<'e>(&self, error: &'e Err) -> Option<&'e (dyn Error + 'static)> {
        Some(error.as_error())
    }

    #[inline]
    fn response_coverage(&self) -> ResponseCoverage {
        ResponseCoverage::Nothing
    }

    fn classify_end(&self, end: &BodyEnd<'_>) -> Verdict {
        match end.reason() {
            EndReason::Complete(_) => Verdict::Success,
            _ => classify_end_by_tables(end),
        }
    }
}

impl<K, J, T, E, Err> Classify<Result<T, E>, Err> for NestedErrors<(K, J)>
where
    E: AsError<J>,
    Err: AsError<K>,
{
    #[inline]
    fn classify(&self, outcome: Result<&Result<T, E>, &Err>) -> Verdict {
        match outcome {
            Ok(Ok(_)) => Verdict::Success,
            Ok(Err(error)) => error.classify_chain().into(),
            Err(error) => error.classify_chain().into(),
        }
    }

    #[inline]
    fn error<'e>(&self, error: &'e Err) -> Option<&'e (dyn Error + 'static)> {
        Some(error.as_error())
    }
}

/// A classifier that checks a rule before another classifier.
///
/// The `.rule(…)` of a layer creates it. If the rule returns no verdict, the other classifier
/// decides, and the rule can [revise](Rule::revise) that verdict.
#[derive(Clone, Copy, Debug, Default)]
pub struct RuleFirst<R, C> {
    rule: R,
    otherwise: C,
}

impl<R, C> RuleFirst<R, C> {
    /// Creates a classifier that uses `otherwise` if `rule` returns no verdict.
    pub const fn new(rule: R, otherwise: C) -> Self {
        Self { rule, otherwise }
    }
}

impl<R, C, Res, Err> Classify<Res, Err> for RuleFirst<R, C>
where
    R: Rule<Res, Err>,
    C: Classify<Res, Err>,
{
    #[inline]
    fn classify(&self, outcome: Result<&Res, &Err>) -> Verdict {
        self.rule.verdict(outcome).unwrap_or_else(|| self.rule.revise(self.otherwise.classify(outcome)))
    }

    #[inline]
    fn outcome<'r>(&self, response: &'r mut Res) -> Option<&'r mut (dyn Outcome + 'r)> {
        self.otherwise.outcome(response)
    }

    #[inline]
    fn error<'e>(&self, error: &'e Err) -> Option<&'e (dyn Error + 'static)> {
        self.otherwise.error(error)
    }

    /// Returns at least `ByRule`, because it is not known which responses the rule classifies.
    #[inline]
    fn response_coverage(&self) -> ResponseCoverage {
        self.otherwise.response_coverage().max(ResponseCoverage::ByRule)
    }

    fn classify_end(&self, end: &BodyEnd<'_>) -> Verdict {
        self.rule.verdict_on_end(end).unwrap_or_else(|| self.rule.revise(self.otherwise.classify_end(end)))
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use std::sync::Arc;

    use crate::classify::{classify_fn, rule_fn};
    use crate::error::BoxError;
    use crate::fault::{Fault, Health, Kind, Origin, Retryable};

    type Response = http::Response<()>;

    const FAULT: Fault = Fault::new(Kind::Quota, Retryable::Never, Health::Neutral, Origin::Remote);

    fn response(status: u16) -> Response {
        http::Response::builder().status(status).body(()).unwrap()
    }

    fn kind<K, E: AsError<K>>(error: &E) -> Kind
    where
        Auto<K>: Classify<Response, E>,
    {
        let verdict = Classify::<Response, E>::classify(&Auto::<K>::new(), Err(error));
        verdict.fault().unwrap().kind()
    }

    #[test]
    fn auto_marker_is_inferred_for_typed_and_boxed_errors() {
        let typed = io::Error::from(io::ErrorKind::TimedOut);
        assert_eq!(kind(&typed), Kind::Timeout);
        let boxed: BoxError = typed.into();
        assert_eq!(kind(&boxed), Kind::Timeout);
    }

    #[test]
    fn rule_first_match_wins() {
        let rule = |status: u16, verdict: Verdict| {
            move |outcome: Result<&Response, &io::Error>| {
                outcome.ok().filter(|response| response.status() == status).map(|_| verdict)
            }
        };
        let rules = RuleFirst::new(
            rule(503, Verdict::Success),
            RuleFirst::new(
                rule(503, FAULT.into()),
                RuleFirst::new(rule(200, FAULT.into()), Auto::<TypedError>::new()),
            ),
        );
        assert_eq!(rules.classify(Ok(&response(503))), Verdict::Success);
        assert_eq!(rules.classify(Ok(&response(200))), Verdict::Fault(FAULT));
        assert_eq!(rules.classify(Ok(&response(404))).fault().unwrap().kind(), Kind::Client);
    }

    #[test]
    fn response_coverage_display_is_as_str() {
        let levels = [ResponseCoverage::Nothing, ResponseCoverage::ByRule, ResponseCoverage::All];
        assert_eq!(levels.map(ResponseCoverage::as_str), ["nothing", "by_rule", "all"]);
        assert_eq!(levels.map(|level| level.to_string()), levels.map(ResponseCoverage::as_str));
    }

    #[test]
    fn errors_only_accepts_any_response_type() {
        struct Foreign;
        let classifier = ErrorsOnly::<TypedError>::new();
        let verdict = Classify::<Foreign, io::Error>::classify(&classifier, Ok(&Foreign));
        assert_eq!(verdict, Verdict::Success);
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        let verdict = Classify::<Foreign, io::Error>::classify(&classifier, Err(&refused));
        assert_eq!(verdict.fault().unwrap().kind(), Kind::Unavailable);
        let rule = rule_fn(|outcome: Result<&Foreign, &io::Error>| outcome.is_ok().then_some(FAULT.into()));
        let classifier = RuleFirst::new(rule, classifier);
        assert_eq!(classifier.classify(Ok(&Foreign)), Verdict::Fault(FAULT));
    }

    #[test]
    fn nested_errors_classifies_typed_and_boxed_inner_errors() {
        struct Foreign;
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        let kind = |verdict: Verdict| verdict.fault().map(Fault::kind);
        let typed = |outcome: Result<Result<Foreign, io::Error>, io::Error>| {
            kind(NestedErrors::new().classify(outcome.as_ref()))
        };
        assert_eq!(typed(Ok(Ok(Foreign))), None);
        assert_eq!(typed(Ok(Err(refused()))), Some(Kind::Unavailable));
        assert_eq!(typed(Err(refused())), Some(Kind::Unavailable));
        let boxed = Ok::<Result<Foreign, BoxError>, io::Error>(Err(refused().into()));
        assert_eq!(kind(NestedErrors::new().classify(boxed.as_ref())), Some(Kind::Unavailable));
        let boxed = Ok::<Result<Foreign, io::Error>, BoxError>(Err(refused()));
        assert_eq!(kind(NestedErrors::new().classify(boxed.as_ref())), Some(Kind::Unavailable));
    }

    #[test]
    fn closure_and_arc_implement_classify() {
        let classifier = Arc::new(classify_fn(|_: Result<&Response, &io::Error>| Verdict::Fault(FAULT)));
        assert_eq!(classifier.classify(Ok(&response(200))), Verdict::Fault(FAULT));
        assert!(classifier.outcome(&mut response(200)).is_some());
    }
}
