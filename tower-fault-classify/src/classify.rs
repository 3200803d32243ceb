//! Who judges: classifiers, rules, and the default that fits every client.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use crate::body::end::{BodyEnd, classify_end_by_tables};
use crate::fault::Verdict;
use crate::outcome::Outcome;

/// Judges what a call came to. It has an answer for every outcome.
///
/// [`Auto`](crate::classifiers::Auto) is the default everywhere. A closure over a response that is an [`Outcome`] is a classifier as well; its
/// parameter's type must be written, or given through [`classify_fn`]:
///
/// ```
/// use tower_fault_classify::{Verdict, classify_fn, classify_error, classify_response};
///
/// let lenient = classify_fn(|outcome: Result<&http::Response<String>, &std::io::Error>| match outcome {
///     Ok(response) if response.status() == 503 => Verdict::Success,
///     Ok(response) => classify_response(response),
///     Err(error) => classify_error(error).into(),
/// });
/// # use tower_fault_classify::Classify;
/// # let response = http::Response::builder().status(503).body(String::new()).unwrap();
/// # assert!(lenient.classify(Ok(&response)).is_success());
/// ```
///
/// To change a single case and leave the rest as it is, prepend a [`Rule`] instead.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot classify a `Result<{Res}, {Err}>`",
    label = "one of the conditions below is not met",
    note = "`{Res}` must implement `Outcome`: write `impl Outcome for {Res} {{}}`, or call `.errors_only()` on the layer, which counts each response as a success",
    note = "for `reqwest::Response`, enable the cargo feature `reqwest` of the layer's crate",
    note = "`{Err}` must implement `std::error::Error` and be `'static`, or be `BoxError` or `anyhow::Error`",
    note = "a closure in `.rule(...)` must have the form `|outcome: Result<&{Res}, &{Err}>| ...` and return `Option<Verdict>`; a closure in `.classify(...)` returns `Verdict`",
    note = "for a `Result` as the response whose error type does not implement `Error`, use `.classify(NestedErrors::new())`",
    note = "a generic function needs the bounds `S::Response: Outcome` and `S::Error: std::error::Error + 'static`"
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
        classify_end_by_tables(end)
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
    /// Those that a rule decides on: `errors_only()` with a rule.
    ByRule,
    /// All.
    All,
}

impl ResponseCoverage {
    /// Returns the name of the level, in `snake_case`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::ByRule => "by_rule",
            Self::All => "all",
        }
    }
}

impl fmt::Display for ResponseCoverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
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

/// Overrides the classification of some outcomes; returns `None` to defer.
///
/// Rules stand before a classifier, the last one added first; the first verdict wins. A closure that returns
/// `Option<Verdict>` is a rule; its parameter's type must be written, or given through [`rule_fn`].
pub trait Rule<Res, Err> {
    /// What the call came to, if this rule has a word on it.
    fn verdict(&self, outcome: Result<&Res, &Err>) -> Option<Verdict>;

    /// Changes the verdict of the rules and the classifier behind this rule. It is called only
    /// where this rule returns no verdict.
    ///
    /// **Default**: leaves it as it is.
    #[inline]
    fn revise(&self, verdict: Verdict) -> Verdict {
        verdict
    }

    /// What the end of a response's body makes of the call, if this rule has a word on it. It is asked only under a layer that tracks
    /// bodies.
    ///
    /// **Default**: no verdict.
    fn verdict_on_end(&self, end: &BodyEnd<'_>) -> Option<Verdict> {
        let _ = end;
        None
    }
}

impl<F, Res, Err> Rule<Res, Err> for F
where
    F: Fn(Result<&Res, &Err>) -> Option<Verdict>,
{
    #[inline]
    fn verdict(&self, outcome: Result<&Res, &Err>) -> Option<Verdict> {
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
