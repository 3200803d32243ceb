//! Single rows of the built-in tables, changed.

use std::sync::Arc;

use http::StatusCode;

use crate::body::BodyEnd;
use crate::classify::Rule;
use crate::fault::{Fault, Retryable, Verdict};
use crate::grpc;
use crate::outcome::{Outcome, delay_on};
use crate::table;

/// Rows for HTTP statuses that go before the built-in ones.
///
/// It is a [`Rule`]: it has an opinion on the statuses that it was told of, and on no others. A delay that the server asked for is
/// kept where a retry may follow.
///
/// ```
/// use tower_fault_classify::{FaultClassifyLayer, Retryable, StatusRules, Verdict};
///
/// let rules = StatusRules::new()
///     // This API means "try again" by it.
///     .treat(409, StatusRules::row(409).with_retryable(Retryable::IfIdempotent))
///     // And has no rows to show.
///     .treat(404, Verdict::Success);
/// # let service = tower::ServiceBuilder::new()
/// #     .layer(FaultClassifyLayer::new().rule(rules))
/// #     .service(tower::service_fn(async |_: ()| Ok::<_, std::io::Error>(http::Response::new(()))));
/// # fn check<R, S: tower::Service<R>>(_: &S) {}
/// # check::<(), _>(&service);
/// ```
#[derive(Clone, Debug, Default)]
pub struct StatusRules(Rows<u16>);

/// Rows for gRPC codes that go before the built-in ones.
///
/// It is a [`Rule`] for responses that carry a code in their head (trailers-only answers), and, under a layer that tracks bodies, for those
/// that carry it in their trailers, or none at all, which is UNKNOWN. It has no opinion on others. What a row says of retries stands, also
/// at the end of a body, where the built-in rows say never.
#[derive(Clone, Debug, Default)]
pub struct GrpcRules(Rows<u32>);

/// Shared by clones, for a classifier is cloned with every call.
#[derive(Clone, Debug)]
struct Rows<N>(Arc<[(N, Verdict)]>);

impl<N> Default for Rows<N> {
    fn default() -> Self {
        Self(Arc::new([]))
    }
}

impl<N: Copy + PartialEq> Rows<N> {
    fn with(&self, number: N, verdict: Verdict) -> Self {
        let others = self.0.iter().filter(|(other, _)| *other != number).copied();
        Self(others.chain([(number, verdict)]).collect())
    }

    fn get(&self, number: N) -> Option<Verdict> {
        self.0.iter().find(|(other, _)| *other == number).map(|(_, verdict)| *verdict)
    }
}

impl StatusRules {
    /// No rows: no opinion on anything.
    pub fn new() -> Self {
        Self::default()
    }

    /// What a status is taken for, in place of an earlier word on it. A number that is no status never comes.
    pub fn treat(self, status: u16, verdict: impl Into<Verdict>) -> Self {
        Self(self.0.with(status, verdict.into()))
    }

    /// The built-in row of a status, to be changed; for one below 400, which has none, that of 500.
    pub fn row(status: u16) -> Fault {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let verdict = table::http::judge(status, || None);
        verdict.fault().copied().unwrap_or_else(|| Self::row(500))
    }
}

impl GrpcRules {
    /// No rows: no opinion on anything.
    pub fn new() -> Self {
        Self::default()
    }

    /// What a code is taken for, in place of an earlier word on it. A number that is no code never comes.
    pub fn treat(self, code: u32, verdict: impl Into<Verdict>) -> Self {
        Self(self.0.with(code, verdict.into()))
    }

    /// The built-in row of a code, to be changed; for 0, which has none, and for a number that is no code, that of UNKNOWN.
    pub fn row(code: u32) -> Fault {
        table::grpc::fault(code)
    }
}

impl<Res: Outcome, Err> Rule<Res, Err> for StatusRules {
    fn opinion(&self, outcome: Result<&Res, &Err>) -> Option<Verdict> {
        let response = outcome.ok()?;
        let verdict = self.0.get(response.status()?.as_u16())?;
        Some(with_hint(verdict, response))
    }
}

impl<Res: Outcome, Err> Rule<Res, Err> for GrpcRules {
    fn opinion(&self, outcome: Result<&Res, &Err>) -> Option<Verdict> {
        let response = outcome.ok()?;
        self.0.get(grpc::code(response.headers()?)?)
    }

    fn opinion_on_end(&self, end: &BodyEnd<'_>) -> Option<Verdict> {
        self.0.get(end.grpc_code()?)
    }
}

/// Keeps the server's delay, if the row has none of its own and a retry may follow.
fn with_hint(verdict: Verdict, response: &impl Outcome) -> Verdict {
    match verdict {
        Verdict::Fault(fault) if fault.retry_after().is_none() && fault.retryable() != Retryable::Never => {
            Verdict::Fault(delay_on(response).map_or(fault, |delay| fault.with_retry_after(delay)))
        }
        verdict => verdict,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::fault::Kind;

    type Response = http::Response<()>;

    fn opinion(rules: &impl Rule<Response, std::io::Error>, response: &Response) -> Option<Verdict> {
        rules.opinion(Ok(response))
    }

    fn response(status: u16) -> Response {
        http::Response::builder().status(status).header("retry-after", "3").body(()).unwrap()
    }

    #[test]
    fn only_what_was_named_is_changed() {
        let rules = StatusRules::new()
            .treat(409, StatusRules::row(409).with_retryable(Retryable::IfIdempotent))
            .treat(404, StatusRules::row(404))
            .treat(404, Verdict::Success);
        assert_eq!(opinion(&rules, &response(404)), Some(Verdict::Success));
        assert_eq!(opinion(&rules, &response(503)), None);
        let conflict = opinion(&rules, &response(409)).unwrap();
        let fault = conflict.fault().unwrap();
        assert_eq!((fault.kind(), fault.retryable()), (Kind::Conflict, Retryable::IfIdempotent));
        assert_eq!(fault.retry_after(), Some(Duration::from_secs(3)), "the server's delay is kept");
    }

    #[test]
    fn a_delay_of_the_rules_own_stays() {
        let own = StatusRules::row(503).with_retry_after(Duration::from_secs(1));
        let verdict = opinion(&StatusRules::new().treat(503, own), &response(503)).unwrap();
        assert_eq!(verdict.fault().unwrap().retry_after(), Some(Duration::from_secs(1)));
    }

    #[test]
    fn a_number_without_a_row_has_a_row_to_start_from() {
        assert_eq!(StatusRules::row(200), StatusRules::row(500));
        assert_eq!(StatusRules::row(7), StatusRules::row(500));
        assert_eq!(GrpcRules::row(0), GrpcRules::row(2));
        assert_eq!(GrpcRules::row(99), GrpcRules::row(2));
    }

    #[test]
    fn a_code_is_changed_in_a_trailers_only_answer() {
        let rules = GrpcRules::new().treat(10, GrpcRules::row(10).with_retryable(Retryable::IfIdempotent));
        let answer = |code: &str| {
            let answer = http::Response::builder().header("content-type", "application/grpc");
            answer.header("grpc-status", code).body(()).unwrap()
        };
        let aborted = opinion(&rules, &answer("10")).unwrap();
        assert_eq!(aborted.fault().unwrap().retryable(), Retryable::IfIdempotent);
        assert_eq!(opinion(&rules, &answer("14")), None);
        assert_eq!(opinion(&rules, &http::Response::new(())), None);
    }
}
