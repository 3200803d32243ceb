//! Ready-made rules that change parts of the built-in tables.
//!
//! | rule | changes |
//! |---|---|
//! | [`StatusRules`] | single HTTP statuses |
//! | [`GrpcRules`] | single gRPC codes |
//! | [`GrpcOnly`] | responses that are not gRPC, in a stack that carries nothing else |
//! | [`UnknownErrors`] | errors that no table has a row for |
//! | `TowerHttp` (feature `tower-http`) | responses, by a classifier of `tower_http::classify` |
//!
//! Add a rule with `.rule(…)` of a layer. For a rule of your own, implement [`Rule`], or write a
//! closure.

use std::sync::Arc;

use http::StatusCode;

use crate::body::BodyEnd;
use crate::classify::Rule;
use crate::fault::{Fault, Kind, Origin, Retryable, Verdict};
use crate::grpc;
use crate::outcome::{Outcome, add_requested_delay, requested_delay};
use crate::table;
#[cfg(feature = "tower-http")]
pub use crate::tower_http::TowerHttp;

/// A rule with verdicts for single HTTP statuses, which replace the built-in rows.
///
/// It returns a verdict on responses with a listed status, and on nothing else. As a [`Rule`], it
/// takes precedence over everything that the classifier reads: a verdict that the response carries,
/// a gRPC code, and `x-should-retry`.
///
/// A delay that the server asks for ([`hint::delay`](crate::hint::delay)) is added to the verdict,
/// if the row has no delay and is not [`Retryable::Never`].
///
/// **Default**: no rows.
///
/// ```
/// use tower_fault_classify::rules::StatusRules;
/// use tower_fault_classify::{FaultClassifyLayer, Retryable, Verdict};
///
/// let rules = StatusRules::new()
///     // This API asks for another attempt with a 409.
///     .status(409, StatusRules::row(409).with_retryable(Retryable::IfIdempotent))
///     // This API returns 404 for an empty result.
///     .status(404, Verdict::Success);
/// # let service = tower::ServiceBuilder::new()
/// #     .layer(FaultClassifyLayer::new().rule(rules))
/// #     .service(tower::service_fn(async |_: ()| Ok::<_, std::io::Error>(http::Response::new(()))));
/// # fn check<R, S: tower::Service<R>>(_: &S) {}
/// # check::<(), _>(&service);
/// ```
#[derive(Clone, Debug, Default)]
pub struct StatusRules(Overrides<u16>);

/// A rule with verdicts for single gRPC codes, which replace the built-in rows.
///
/// It returns a verdict on:
///
/// - a response whose head contains a code (a trailers-only response);
/// - the end of a body, under a layer that tracks bodies: by the code in the trailers, or UNKNOWN
///   (2) if they contain none.
///
/// It returns no verdict on anything else. The verdict is the row as it is: pushback and
/// `RetryInfo` are not added. Its [`Retryable`] also applies at the end of a body, where the
/// built-in rows are never retried.
///
/// **Default**: no rows.
///
/// ```
/// use tower_fault_classify::rules::GrpcRules;
/// use tower_fault_classify::{FaultClassifyLayer, Retryable};
///
/// // Every call of this service is idempotent, so ABORTED (10) can be retried.
/// let row = GrpcRules::row(10).with_retryable(Retryable::IfIdempotent);
/// let layer = FaultClassifyLayer::new().rule(GrpcRules::new().code(10, row));
/// # type Response = http::Response<()>;
/// # let service = tower::ServiceBuilder::new()
/// #     .layer(layer)
/// #     .service(tower::service_fn(async |_: ()| Ok::<_, std::io::Error>(Response::new(()))));
/// # fn check<R, S: tower::Service<R>>(_: &S) {}
/// # check::<(), _>(&service);
/// ```
#[derive(Clone, Debug, Default)]
pub struct GrpcRules(Overrides<u32>);

/// A rule for stacks that carry gRPC calls only: a response that is not gRPC is a failure.
///
/// | response | with the rule | without the rule |
/// |---|---|---|
/// | status below 400, `content-type` of gRPC or gRPC-Web | no change | gRPC: as its status says; gRPC-Web: a success |
/// | status below 400, any other or no `content-type` | the fault [`GrpcRules::row`]`(2)` | a success |
/// | status of 400 or more | no change | the row of the gRPC code if the response is trailers-only, otherwise the row of the HTTP status |
///
/// A status below 400 with another `content-type` comes from something that does not speak gRPC,
/// such as the login page of a proxy. gRPC clients report it with the code UNKNOWN ([HTTP to gRPC
/// status code mapping](https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md)),
/// and the rule returns the fault of that code.
///
/// Without the rule such a response is a success, because a layer does not see the request when it
/// classifies the response: for other requests, an HTML page is the expected response.
///
/// ```
/// use tower_fault_classify::rules::GrpcOnly;
/// use tower_fault_classify::FaultClassifyLayer;
///
/// let layer = FaultClassifyLayer::new().rule(GrpcOnly);
/// # let service = tower::ServiceBuilder::new()
/// #     .layer(layer)
/// #     .service(tower::service_fn(async |_: ()| Ok::<_, std::io::Error>(http::Response::new(()))));
/// # fn check<R, S: tower::Service<R>>(_: &S) {}
/// # check::<(), _>(&service);
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct GrpcOnly;

/// A rule that changes the verdict on errors that no table has a row for.
///
/// **Default**, without the rule: such an error counts as a failure of the server, and the request
/// is sent again if it is idempotent ([`row`](Self::row)). A breaker then opens on errors of a
/// driver or a library that the tables do not list.
///
/// In [`FaultClassifyLayer`](crate::FaultClassifyLayer), next to the client, the rule applies to
/// every layer above. The layers of the breaker and of the retry also accept it with `.rule(…)`,
/// and so do a `Circuit` and `RetryPolicy::errors_only` without tower:
///
/// ```
/// use tower_fault_classify::rules::UnknownErrors;
/// use tower_fault_classify::{FaultClassifyLayer, Health, Retryable};
///
/// let row = UnknownErrors::row().with_health(Health::Neutral).with_retryable(Retryable::Never);
/// let layer = FaultClassifyLayer::new().rule(UnknownErrors::new(row));
/// # let service = tower::ServiceBuilder::new()
/// #     .layer(layer)
/// #     .service(tower::service_fn(async |_: ()| Ok::<_, std::io::Error>(http::Response::new(()))));
/// # fn check<R, S: tower::Service<R>>(_: &S) {}
/// # check::<(), _>(&service);
/// ```
///
/// An error in the chain may show that the request was not sent, or that its response had begun.
/// This then decides whether the request is sent again, unless the row is [`Retryable::Never`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownErrors(Verdict);

impl UnknownErrors {
    /// Creates a rule that returns `verdict` on every error that no table has a row for.
    ///
    /// With `Verdict::Success`, such errors count as successes.
    pub fn new(verdict: impl Into<Verdict>) -> Self {
        Self(verdict.into())
    }

    /// Returns the built-in row for unknown errors, as the base of a row of your own.
    ///
    /// It has kind `unknown`, is retried if the request is idempotent, and counts against the
    /// server.
    pub const fn row() -> Fault {
        table::UNKNOWN
    }

    fn revise_verdict(self, verdict: Verdict) -> Verdict {
        match (verdict, self.0) {
            (Verdict::Fault(classified), Verdict::Fault(row)) if is_unknown(&classified) => {
                let retryable = match (classified.retryable(), row.retryable()) {
                    (Retryable::IfIdempotent, row) | (_, row @ Retryable::Never) => row,
                    (known, _) => known,
                };
                row.with_retryable(retryable).into()
            }
            (Verdict::Fault(classified), Verdict::Success) if is_unknown(&classified) => Verdict::Success,
            (verdict, _) => verdict,
        }
    }
}

/// Returns whether no table had a row for the error.
///
/// The origin is compared too: a fault with another origin has a known cause. A panic has kind
/// `Unknown` and origin `Local`.
fn is_unknown(fault: &Fault) -> bool {
    (fault.kind(), fault.origin()) == (Kind::Unknown, Origin::Unknown)
}

/// Rows by number. Clones share them, because a classifier is cloned for every call.
#[derive(Clone, Debug)]
struct Overrides<N>(Arc<[(N, Verdict)]>);

impl<N> Default for Overrides<N> {
    fn default() -> Self {
        Self(Arc::new([]))
    }
}

impl<N: Copy + PartialEq> Overrides<N> {
    fn with(&self, number: N, verdict: Verdict) -> Self {
        let others = self.0.iter().filter(|(other, _)| *other != number).copied();
        Self(others.chain([(number, verdict)]).collect())
    }

    fn get(&self, number: N) -> Option<Verdict> {
        self.0.iter().find(|(other, _)| *other == number).map(|(_, verdict)| *verdict)
    }
}

impl StatusRules {
    /// Creates a rule without rows, which returns no verdict on any outcome.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the verdict on an HTTP status, and replaces an earlier row for it.
    ///
    /// A number that is not a valid HTTP status (100 to 999) never matches.
    ///
    /// **Default**: the built-in row.
    pub fn status(self, status: u16, verdict: impl Into<Verdict>) -> Self {
        Self(self.0.with(status, verdict.into()))
    }

    /// Returns the built-in row of a status, as the base of a row of your own.
    ///
    /// The row keeps the built-in kind, origin, health and retryable until a setter changes them. A
    /// 404 that you make retryable still has kind `client` and origin `caller` in logs and metrics.
    /// To change these too, call [`with_kind`](Fault::with_kind) and
    /// [`with_origin`](Fault::with_origin).
    ///
    /// A status below 400 and an invalid number have no row: the row of 500 is returned.
    pub fn row(status: u16) -> Fault {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let verdict = table::http::classify(status, || None);
        verdict.fault().copied().unwrap_or_else(|| Self::row(500))
    }
}

impl GrpcRules {
    /// Creates a rule without rows, which returns no verdict on any outcome.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the verdict on a gRPC code, and replaces an earlier row for it.
    ///
    /// A number above 16 never matches: such a code is read as UNKNOWN (2).
    ///
    /// **Default**: the built-in row.
    pub fn code(self, code: u32, verdict: impl Into<Verdict>) -> Self {
        Self(self.0.with(code, verdict.into()))
    }

    /// Returns the built-in row of a gRPC code, as the base of a row of your own.
    ///
    /// The row keeps the built-in kind, origin, health and retryable until a setter changes them.
    /// For 0 (OK) and for a number that is not a code, the row of UNKNOWN (2) is returned.
    pub fn row(code: u32) -> Fault {
        table::grpc::fault(code)
    }
}

impl<Res: Outcome, Err> Rule<Res, Err> for StatusRules {
    fn verdict(&self, outcome: Result<&Res, &Err>) -> Option<Verdict> {
        let response = outcome.ok()?;
        let verdict = self.0.get(response.status()?.as_u16())?;
        Some(keep_requested_delay(verdict, response))
    }
}

impl<Res: Outcome, Err> Rule<Res, Err> for GrpcRules {
    fn verdict(&self, outcome: Result<&Res, &Err>) -> Option<Verdict> {
        let response = outcome.ok()?;
        self.0.get(grpc::code(response.headers()?)?)
    }

    fn verdict_on_end(&self, end: &BodyEnd<'_>) -> Option<Verdict> {
        self.0.get(end.grpc_code()?)
    }
}

impl<Res: Outcome, Err> Rule<Res, Err> for GrpcOnly {
    fn verdict(&self, outcome: Result<&Res, &Err>) -> Option<Verdict> {
        let response = outcome.ok()?;
        let is_success = response.status()? < StatusCode::BAD_REQUEST;
        let speaks_grpc = response.headers().is_some_and(grpc::is_grpc_or_web);
        (is_success && !speaks_grpc).then(|| table::grpc::fault(grpc::UNKNOWN).into())
    }
}

impl<Res, Err> Rule<Res, Err> for UnknownErrors {
    #[inline]
    fn verdict(&self, _: Result<&Res, &Err>) -> Option<Verdict> {
        None
    }

    #[inline]
    fn revise(&self, verdict: Verdict) -> Verdict {
        self.revise_verdict(verdict)
    }
}

/// Adds the delay that the server asks for, if the row has no delay and can be retried.
fn keep_requested_delay(verdict: Verdict, response: &impl Outcome) -> Verdict {
    match verdict {
        Verdict::Fault(fault) => add_requested_delay(fault, || requested_delay(response)).into(),
        Verdict::Success => Verdict::Success,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::classifiers::{Auto, ErrorsOnly, RuleFirst};
    use crate::classify::Classify;
    use crate::error::{BoxError, ClassifiedError};
    use crate::error_chain::classify_error;
    use crate::fault::Health;

    type Response = http::Response<()>;

    fn verdict_of(rules: &impl Rule<Response, std::io::Error>, response: &Response) -> Option<Verdict> {
        rules.verdict(Ok(response))
    }

    fn response(status: u16) -> Response {
        http::Response::builder().status(status).header("retry-after", "3").body(()).unwrap()
    }

    #[test]
    fn status_rules_change_listed_statuses_only() {
        let rules = StatusRules::new()
            .status(409, StatusRules::row(409).with_retryable(Retryable::IfIdempotent))
            .status(404, StatusRules::row(404))
            .status(404, Verdict::Success);
        assert_eq!(verdict_of(&rules, &response(404)), Some(Verdict::Success));
        assert_eq!(verdict_of(&rules, &response(503)), None);
        let conflict = verdict_of(&rules, &response(409)).unwrap();
        let fault = conflict.fault().unwrap();
        assert_eq!((fault.kind(), fault.retryable()), (Kind::Conflict, Retryable::IfIdempotent));
        assert_eq!(fault.retry_after(), Some(Duration::from_secs(3)), "the server's delay is kept");
    }

    #[test]
    fn status_rules_own_delay_is_kept() {
        let own = StatusRules::row(503).with_retry_after(Duration::from_secs(1));
        let verdict = verdict_of(&StatusRules::new().status(503, own), &response(503)).unwrap();
        assert_eq!(verdict.fault().unwrap().retry_after(), Some(Duration::from_secs(1)));
    }

    #[test]
    fn grpc_only_other_content_type_is_unknown() {
        let of_type = |status: u16, content_type: &str| {
            let response = http::Response::builder().status(status).header("content-type", content_type);
            verdict_of(&GrpcOnly, &response.body(()).unwrap())
        };
        let unknown = Some(GrpcRules::row(2).into());
        for status in [200, 204, 302] {
            for content_type in ["text/html", "application/json", "application/grpcs", ""] {
                assert_eq!(of_type(status, content_type), unknown, "{status} {content_type}");
            }
        }
        for content_type in ["application/grpc", "application/grpc+proto", "application/grpc-web-text+proto"]
        {
            assert_eq!(of_type(200, content_type), None, "{content_type}");
        }
        assert_eq!(of_type(503, "text/html"), None, "the HTTP row decides");
        assert_eq!(verdict_of(&GrpcOnly, &Response::new(())), unknown, "no content type");
    }

    #[derive(Debug)]
    struct Foreign;

    impl std::fmt::Display for Foreign {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("foreign")
        }
    }

    impl std::error::Error for Foreign {}

    #[test]
    fn unknown_errors_changes_unknown_faults_only() {
        let row = UnknownErrors::row().with_health(Health::Neutral).with_retryable(Retryable::Never);
        let rules = RuleFirst::new(UnknownErrors::new(row), ErrorsOnly::new());
        let classified = |error: BoxError| Classify::<(), BoxError>::classify(&rules, Err(&error));
        assert_eq!(classified(Foreign.into()), Verdict::Fault(row));
        assert_eq!(classified("text".into()), Verdict::Fault(row));
        assert_eq!(
            classified(ClassifiedError::new(UnknownErrors::row(), Foreign).into()),
            Verdict::Fault(row),
            "carried"
        );
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        let kept = classify_error(&refused);
        assert_eq!(classified(refused.into()), Verdict::Fault(kept));
        assert_eq!(
            classified(ClassifiedError::from_fault(table::PANICKED).into()),
            Verdict::Fault(table::PANICKED)
        );
        // The rule also applies to the inner error of a nested result.
        let nested = RuleFirst::new(UnknownErrors::new(row), Auto::new());
        let verdict = nested.classify(Ok::<_, &std::io::Error>(&Err::<(), _>(Foreign)));
        assert_eq!(verdict, Verdict::Fault(row));
        assert_eq!(nested.classify(Ok::<_, &std::io::Error>(&Ok::<_, Foreign>(()))), Verdict::Success);
    }

    #[test]
    fn unknown_errors_keeps_known_retryable() {
        let neutral = UnknownErrors::new(UnknownErrors::row().with_health(Health::Neutral));
        let never = UnknownErrors::new(UnknownErrors::row().with_retryable(Retryable::Never));
        let retryable = |rule: UnknownErrors, known| {
            let verdict = rule.revise_verdict(UnknownErrors::row().with_retryable(known).into());
            verdict.fault().unwrap().retryable()
        };
        for known in [Retryable::Unsent, Retryable::IfIdempotent, Retryable::Never] {
            assert_eq!(retryable(neutral, known), known);
            assert_eq!(retryable(never, known), Retryable::Never);
        }
        let success = UnknownErrors::new(Verdict::Success);
        assert_eq!(success.revise_verdict(UnknownErrors::row().into()), Verdict::Success);
    }

    #[test]
    fn rules_row_without_built_in_row_is_500_or_unknown() {
        assert_eq!(StatusRules::row(200), StatusRules::row(500));
        assert_eq!(StatusRules::row(7), StatusRules::row(500));
        assert_eq!(GrpcRules::row(0), GrpcRules::row(2));
        assert_eq!(GrpcRules::row(99), GrpcRules::row(2));
    }

    #[test]
    fn grpc_rules_change_code_in_trailers_only_response() {
        let rules = GrpcRules::new().code(10, GrpcRules::row(10).with_retryable(Retryable::IfIdempotent));
        let answer = |code: &str| {
            let answer = http::Response::builder().header("content-type", "application/grpc");
            answer.header("grpc-status", code).body(()).unwrap()
        };
        let aborted = verdict_of(&rules, &answer("10")).unwrap();
        assert_eq!(aborted.fault().unwrap().retryable(), Retryable::IfIdempotent);
        assert_eq!(verdict_of(&rules, &answer("14")), None);
        assert_eq!(verdict_of(&rules, &http::Response::new(())), None);
    }
}
