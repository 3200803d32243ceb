//! A rule that calls a classifier of tower-http.

use http::Response;
use tower_http::classify::{ClassifiedResponse, ClassifyResponse};

use crate::classify::Rule;
use crate::fault::{Fault, Health, Verdict};
use crate::outcome::classify_response;
use crate::table;

/// A rule that classifies responses by a classifier of `tower_http::classify`.
///
/// The classifier decides whether a response is a failure. The failure always counts against the
/// server; its other axes are those of this crate's own classification.
///
/// | outcome | verdict |
/// |---|---|
/// | a response that the classifier accepts | a success |
/// | a response that the classifier accepts or rejects only at the end of its body | a success |
/// | a response that the classifier rejects | the fault that [`classify_response`] returns, with health `unhealthy`; if that is a success, the row of an unlisted 5xx |
/// | an error | no verdict, because the classifier knows only that errors are failures |
///
/// ```
/// use tower::{ServiceBuilder, service_fn};
/// use tower_fault_classify::rules::TowerHttp;
/// use tower_fault_classify::FaultClassifyLayer;
/// use tower_http::classify::ServerErrorsAsFailures;
///
/// let service = ServiceBuilder::new()
///     .layer(FaultClassifyLayer::new().rule(TowerHttp::new(ServerErrorsAsFailures::new())))
///     .service(service_fn(async |_: ()| Ok::<_, std::io::Error>(http::Response::new(()))));
/// # fn check<R, S: tower::Service<R>>(_: &S) {}
/// # check::<(), _>(&service);
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct TowerHttp<C>(C);

impl<C> TowerHttp<C> {
    /// Creates a rule that calls `classifier`.
    pub const fn new(classifier: C) -> Self {
        Self(classifier)
    }
}

impl<C, B, E> Rule<Response<B>, E> for TowerHttp<C>
where
    C: ClassifyResponse + Clone,
{
    fn verdict(&self, outcome: Result<&Response<B>, &E>) -> Option<Verdict> {
        let response = outcome.ok()?;
        Some(match self.0.clone().classify_response(response) {
            ClassifiedResponse::Ready(Ok(())) | ClassifiedResponse::RequiresEos(_) => Verdict::Success,
            ClassifiedResponse::Ready(Err(_)) => failure(response).into(),
        })
    }
}

/// Returns the fault of a response that is a failure, by this crate's tables.
fn failure<B>(response: &Response<B>) -> Fault {
    let known = classify_response(response);
    known.fault().map_or(table::http::OTHER_5XX, |fault| fault.with_health(Health::Unhealthy))
}

#[cfg(test)]
mod tests {
    use tower_http::classify::{GrpcErrorsAsFailures, ServerErrorsAsFailures, StatusInRangeAsFailures};

    use super::*;
    use crate::fault::{Kind, Retryable};

    fn verdict_of<C: ClassifyResponse + Clone>(classifier: C, status: u16) -> Verdict {
        let response = Response::builder().status(status).header("retry-after", "2").body(()).unwrap();
        Rule::<_, std::io::Error>::verdict(&TowerHttp::new(classifier), Ok(&response)).unwrap()
    }

    #[test]
    fn tower_http_classifier_decides_and_table_adds_axes() {
        let verdict = verdict_of(ServerErrorsAsFailures::new(), 503);
        let fault = verdict.fault().unwrap();
        assert_eq!(
            (fault.kind(), fault.retryable(), fault.health()),
            (Kind::Unavailable, Retryable::IfIdempotent, Health::Unhealthy)
        );
        assert!(fault.retry_after().is_some());
        assert_eq!(verdict_of(ServerErrorsAsFailures::new(), 404), Verdict::Success);
        assert_eq!(verdict_of(ServerErrorsAsFailures::new(), 200), Verdict::Success);
    }

    #[test]
    fn tower_http_failure_of_healthy_status_is_unhealthy() {
        let ranged = || StatusInRangeAsFailures::new(200..=404);
        assert_eq!(verdict_of(ranged(), 200).fault().unwrap().kind(), Kind::Server);
        let verdict = verdict_of(ranged(), 404);
        assert_eq!((verdict.fault().unwrap().kind(), verdict.health()), (Kind::Client, Health::Unhealthy));
    }

    #[test]
    fn tower_http_end_of_stream_classifier_is_a_success() {
        assert_eq!(verdict_of(GrpcErrorsAsFailures::new(), 200), Verdict::Success);
    }

    #[test]
    fn tower_http_rule_has_no_verdict_on_errors() {
        let error = std::io::Error::other("down");
        let rule = TowerHttp::new(ServerErrorsAsFailures::new());
        assert_eq!(Rule::<Response<()>, _>::verdict(&rule, Err(&error)), None);
    }
}
