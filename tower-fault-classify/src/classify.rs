//! The traits of classifiers and rules.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use crate::body::end::{BodyEnd, classify_end_by_tables};
use crate::fault::Verdict;
use crate::outcome::Outcome;

/// Classifies the outcome of a call: returns a verdict on every response and every error.
///
/// [`Auto`](crate::classifiers::Auto) is the default of every layer. A closure that returns a
/// [`Verdict`] is a classifier too, if the response implements [`Outcome`]. Annotate the type of
/// the closure's parameter, or pass the closure through [`classify_fn`]:
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
/// To change the verdict on some outcomes only, add a [`Rule`] instead.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot classify a `Result<{Res}, {Err}>`",
    label = "one of the conditions below is not met",
    note = "`{Res}` must implement `Outcome`: write `impl Outcome for {Res} {{}}`, or call `.errors_only()` on the layer, which counts each response as a success",
    note = "for `reqwest::Response`, enable the cargo feature `reqwest` of the layer's crate",
    note = "`{Err}` must implement `std::error::Error` and be `'static`, or be `BoxError` or `anyhow::Error`",
    note = "a closure in `.rule(...)` must have the form `|outcome: Result<&{Res}, &{Err}>| ...` and return `Option<Verdict>`; a closure in `.classify(...)` returns `Verdict`",
    note = "for a response that is a `Result` with a boxed error, or with a value of any type, use `.classify(NestedErrors::new())`",
    note = "a generic function needs the bounds `S::Response: Outcome` and `S::Error: std::error::Error + 'static`"
)]
pub trait Classify<Res, Err> {
    /// Returns the verdict on the outcome of a call.
    fn classify(&self, outcome: Result<&Res, &Err>) -> Verdict;

    /// Returns the response as an [`Outcome`], so that a layer can attach a verdict to it.
    ///
    /// A retry layer also attaches its number of attempts.
    ///
    /// **Default**: `None`, nothing can be attached.
    fn outcome<'r>(&self, response: &'r mut Res) -> Option<&'r mut (dyn Outcome + 'r)> {
        let _ = response;
        None
    }

    /// Returns the error as a `dyn Error`, so that a layer can search its chain of sources.
    ///
    /// A layer attaches data, such as the number of attempts, to a
    /// [`ClassifiedError`](crate::ClassifiedError) in the chain.
    ///
    /// **Default**: `None`, the chain cannot be searched.
    fn error<'e>(&self, error: &'e Err) -> Option<&'e (dyn Error + 'static)> {
        let _ = error;
        None
    }

    /// Returns which responses can be a fault.
    ///
    /// A retry layer reads it, and informs nested retry layers about what it covers.
    ///
    /// **Default**: [`ResponseCoverage::All`].
    fn response_coverage(&self) -> ResponseCoverage {
        ResponseCoverage::All
    }

    /// Returns the verdict on the end of a response's body.
    ///
    /// Only a layer that tracks bodies calls it, and only for a response whose head was a success.
    ///
    /// **Default**: classifies gRPC's trailers, and an error that breaks the body, by the tables.
    fn classify_end(&self, end: &BodyEnd<'_>) -> Verdict {
        classify_end_by_tables(end)
    }
}

/// Which responses a classifier can classify as a fault.
///
/// Each level includes the levels before it. A retry layer leaves a response to an outer retry
/// layer that has at least the same level and retries after the same fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ResponseCoverage {
    /// No response: `errors_only()`.
    Nothing,
    /// The responses that a rule classifies: `errors_only()` with a rule.
    ByRule,
    /// All responses.
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
/// Add a rule with `.rule(…)` of a layer. Rules are checked before the classifier, and the rule
/// that was added last is checked first. The first verdict decides.
///
/// A closure that returns `Option<Verdict>` is a rule. Annotate the type of its parameter, or pass
/// the closure through [`rule_fn`]:
///
/// ```
/// use tower_fault_classify::{Verdict, rule_fn};
///
/// let not_found_is_a_success = rule_fn(|outcome: Result<&http::Response<()>, &std::io::Error>| {
///     let response = outcome.ok()?;
///     (response.status() == 404).then_some(Verdict::Success)
/// });
/// # use tower_fault_classify::Rule;
/// # let response = http::Response::builder().status(404).body(()).unwrap();
/// # assert_eq!(not_found_is_a_success.verdict(Ok(&response)), Some(Verdict::Success));
/// ```
///
/// The module [`rules`](crate::rules) has ready-made rules.
pub trait Rule<Res, Err> {
    /// Returns the verdict on the outcome of a call, or `None` to defer to the next rule.
    fn verdict(&self, outcome: Result<&Res, &Err>) -> Option<Verdict>;

    /// Returns the verdict that replaces the verdict of the later rules and the classifier.
    ///
    /// It is called only if this rule returns no verdict of its own.
    ///
    /// **Default**: returns the verdict unchanged.
    #[inline]
    fn revise(&self, verdict: Verdict) -> Verdict {
        verdict
    }

    /// Returns the verdict on the end of a response's body, or `None` to defer to the next rule.
    ///
    /// Only a layer that tracks bodies calls it, and only for a response whose head was a success.
    ///
    /// **Default**: `None`.
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

/// Returns the closure unchanged; helps the compiler to infer the lifetimes of a classifier.
pub fn classify_fn<F, Res, Err>(classifier: F) -> F
where
    F: Fn(Result<&Res, &Err>) -> Verdict,
{
    classifier
}

/// Returns the closure unchanged; helps the compiler to infer the lifetimes of a rule.
pub fn rule_fn<F, Res, Err>(rule: F) -> F
where
    F: Fn(Result<&Res, &Err>) -> Option<Verdict>,
{
    rule
}
