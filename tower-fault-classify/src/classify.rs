//! Who judges: classifiers, rules, and the default that fits every client.

use std::error::Error;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use crate::body::{BodyEnd, How, judge_end};
use crate::error::{AsError, Typed};
use crate::error_chain::judge_error;
use crate::fault::Verdict;
use crate::outcome::{Outcome, judge_outcome};

/// Judges what a call came to. It has an answer for every outcome.
///
/// [`Auto`] is the default everywhere. A closure over a response that is an [`Outcome`] is a classifier as well; its
/// parameter's type must be written, or given through [`classify_fn`]:
///
/// ```
/// use tower_fault_classify::{Verdict, classify_fn, judge_error, judge_outcome};
///
/// let lenient = classify_fn(|outcome: Result<&http::Response<String>, &std::io::Error>| match outcome {
///     Ok(response) if response.status() == 503 => Verdict::Success,
///     Ok(response) => judge_outcome(response),
///     Err(error) => judge_error(error).into(),
/// });
/// # use tower_fault_classify::Classify;
/// # let response = http::Response::builder().status(503).body(String::new()).unwrap();
/// # assert!(lenient.classify(Ok(&response)).is_success());
/// ```
///
/// To change a single case and leave the rest as it is, prepend a [`Rule`] instead.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot judge a `Result<{Res}, {Err}>`",
    note = "the default classifier reads responses that implement `Outcome` and errors that implement `Error` or are boxed",
    note = "for a response type of your own, write `impl Outcome for YourResponse {{}}`",
    note = "for a response type of somebody else, call `.errors_only()` on the layer: then every response is a success",
    note = "for a `Result` as the response, with an error that is boxed or a value of any type, use `.classify(NestedErrors::new())`"
)]
pub trait Classify<Res, Err> {
    /// What the call came to.
    fn classify(&self, outcome: Result<&Res, &Err>) -> Verdict;

    /// The response as something that a note (a verdict, the number of attempts) can be left on.
    ///
    /// **Default**: nothing can be left on it.
    fn outcome<'r>(&self, response: &'r mut Res) -> Option<&'r mut (dyn Outcome + 'r)> {
        let _ = response;
        None
    }

    /// The error as one whose chain of sources can be searched, for a note to be left on it.
    ///
    /// **Default**: not possible.
    fn error<'e>(&self, error: &'e Err) -> Option<&'e (dyn Error + 'static)> {
        let _ = error;
        None
    }

    /// Which responses can be a fault. A retry layer reads it to tell nested retry layers what it
    /// covers.
    ///
    /// **Default**: [`ResponseCoverage::All`].
    fn response_coverage(&self) -> ResponseCoverage {
        ResponseCoverage::All
    }

    /// What the end of a response's body makes of a call whose head was a success. It is asked only by a layer that tracks bodies.
    ///
    /// **Default**: what the tables say of gRPC's trailers and of the error that broke the body.
    fn classify_end(&self, end: &BodyEnd<'_>) -> Verdict {
        judge_end(end)
    }
}

/// Which responses a classifier can call a fault, each level with the responses of the levels
/// before it.
///
/// A retry layer leaves responses to the retry layers further out if one of them has at least its
/// own level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ResponseCoverage {
    /// None: `errors_only()`.
    Nothing,
    /// Those that a rule has an opinion on: `errors_only()` with a rule.
    ByRule,
    /// All.
    All,
}

impl<F, Res, Err> Classify<Res, Err> for F
where
    F: Fn(Result<&Res, &Err>) -> Verdict,
    Res: Outcome,
{
    #[inline]
    fn classify(&self, outcome: Result<&Res, &Err>) -> Verdict {
        self(outcome)
    }

    #[inline]
    fn outcome<'r>(&self, response: &'r mut Res) -> Option<&'r mut (dyn Outcome + 'r)> {
        Some(response)
    }
}

impl<C, Res, Err> Classify<Res, Err> for Arc<C>
where
    C: Classify<Res, Err> + ?Sized,
{
    #[inline]
    fn classify(&self, outcome: Result<&Res, &Err>) -> Verdict {
        (**self).classify(outcome)
    }

    #[inline]
    fn outcome<'r>(&self, response: &'r mut Res) -> Option<&'r mut (dyn Outcome + 'r)> {
        (**self).outcome(response)
    }

    #[inline]
    fn error<'e>(&self, error: &'e Err) -> Option<&'e (dyn Error + 'static)> {
        (**self).error(error)
    }

    #[inline]
    fn response_coverage(&self) -> ResponseCoverage {
        (**self).response_coverage()
    }

    fn classify_end(&self, end: &BodyEnd<'_>) -> Verdict {
        (**self).classify_end(end)
    }
}

/// Has an opinion on some outcomes and none on the others.
///
/// Rules stand before a classifier, the last one added first; the first opinion wins. A closure that returns
/// `Option<Verdict>` is a rule; its parameter's type must be written, or given through [`rule_fn`].
pub trait Rule<Res, Err> {
    /// What the call came to, if this rule has a word on it.
    fn opinion(&self, outcome: Result<&Res, &Err>) -> Option<Verdict>;

    /// Changes the verdict of the rules and the classifier behind this rule. It is called only
    /// where this rule has no opinion.
    ///
    /// **Default**: leaves it as it is.
    #[inline]
    fn revise(&self, verdict: Verdict) -> Verdict {
        verdict
    }

    /// What the end of a response's body makes of the call, if this rule has a word on it. It is asked only under a layer that tracks
    /// bodies.
    ///
    /// **Default**: no opinion.
    fn opinion_on_end(&self, end: &BodyEnd<'_>) -> Option<Verdict> {
        let _ = end;
        None
    }
}

impl<F, Res, Err> Rule<Res, Err> for F
where
    F: Fn(Result<&Res, &Err>) -> Option<Verdict>,
{
    #[inline]
    fn opinion(&self, outcome: Result<&Res, &Err>) -> Option<Verdict> {
        self(outcome)
    }
}

/// Gives a closure the shape of a classifier, so that it need not spell its lifetimes.
pub fn classify_fn<F, Res, Err>(classifier: F) -> F
where
    F: Fn(Result<&Res, &Err>) -> Verdict,
{
    classifier
}

/// Gives a closure the shape of a rule, so that it need not spell its lifetimes.
pub fn rule_fn<F, Res, Err>(rule: F) -> F
where
    F: Fn(Result<&Res, &Err>) -> Option<Verdict>,
{
    rule
}

/// A rule before a classifier.
#[derive(Clone, Copy, Debug, Default)]
pub struct RuleFirst<R, C> {
    rule: R,
    otherwise: C,
}

impl<R, C> RuleFirst<R, C> {
    /// Asks `rule` first, and `otherwise` where it has no opinion.
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
        self.rule.opinion(outcome).unwrap_or_else(|| self.rule.revise(self.otherwise.classify(outcome)))
    }

    #[inline]
    fn outcome<'r>(&self, response: &'r mut Res) -> Option<&'r mut (dyn Outcome + 'r)> {
        self.otherwise.outcome(response)
    }

    #[inline]
    fn error<'e>(&self, error: &'e Err) -> Option<&'e (dyn Error + 'static)> {
        self.otherwise.error(error)
    }

    /// At least by rule: which responses the rule judges is not known.
    #[inline]
    fn response_coverage(&self) -> ResponseCoverage {
        self.otherwise.response_coverage().max(ResponseCoverage::ByRule)
    }

    fn classify_end(&self, end: &BodyEnd<'_>) -> Verdict {
        self.rule.opinion_on_end(end).unwrap_or_else(|| self.rule.revise(self.otherwise.classify_end(end)))
    }
}

macro_rules! marked_by_error_kind {
    ($($(#[$doc:meta])* $classifier:ident),+ $(,)?) => {
        $(
            $(#[$doc])*
            pub struct $classifier<K = Typed>(PhantomData<fn() -> K>);

            impl<K> $classifier<K> {
                /// The classifier. `K` is inferred from the errors it meets.
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
    /// The default classifier: reads a response by the verdict it carries, its own word, or its status ([`judge_outcome`]),
    /// an error by its chain of sources ([`judge_error`]).
    ///
    /// A response without a status is a success.
    Auto,
    /// Takes every response for a success and reads errors as [`Auto`] does, so that a response of any type will do.
    ///
    /// A response that is itself a `Result` counts as a success too, also an `Err`: see
    /// [`NestedErrors`].
    ErrorsOnly,
    /// Classifies a result within a result, as `tokio::time::timeout` returns it: either error is
    /// read as [`Auto`] does, and a value of any type is a success.
    ///
    /// ```
    /// use std::io::{Error, ErrorKind};
    /// use tower_fault_classify::{Classify, NestedErrors};
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
    #[inline]
    fn classify(&self, outcome: Result<&Res, &Err>) -> Verdict {
        match outcome {
            Ok(response) => judge_outcome(response),
            Err(error) => judge_error(error.as_error()).into(),
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
            Err(error) => judge_error(error.as_error()).into(),
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
        match end.how() {
            How::Complete(_) => Verdict::Success,
            _ => judge_end(end),
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
            Ok(Err(error)) => judge_error(error.as_error()).into(),
            Err(error) => judge_error(error.as_error()).into(),
        }
    }

    #[inline]
    fn error<'e>(&self, error: &'e Err) -> Option<&'e (dyn Error + 'static)> {
        Some(error.as_error())
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
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
                RuleFirst::new(rule(200, FAULT.into()), Auto::<Typed>::new()),
            ),
        );
        assert_eq!(rules.classify(Ok(&response(503))), Verdict::Success);
        assert_eq!(rules.classify(Ok(&response(200))), Verdict::Fault(FAULT));
        assert_eq!(rules.classify(Ok(&response(404))).fault().unwrap().kind(), Kind::Client);
    }

    #[test]
    fn errors_only_accepts_any_response_type() {
        struct Foreign;
        let classifier = ErrorsOnly::<Typed>::new();
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
