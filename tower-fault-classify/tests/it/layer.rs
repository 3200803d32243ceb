//! The layer over services: their responses, errors and readiness.

use std::convert::Infallible;
use std::error::Error;
use std::fmt;
use std::future::{Ready, ready};
use std::io;
use std::ops::Deref;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Response, StatusCode};
use tokio_test::{assert_pending, assert_ready, assert_ready_err, assert_ready_ok, task};
use tower::{Layer, Service, service_fn};
use tower_fault_classify::classifiers::NestedErrors;
use tower_fault_classify::rules::{GrpcRules, StatusRules};
use tower_fault_classify::{
    BoxError, CarriedVerdict, ClassifiedError, Classify, Fault, FaultClassifyLayer, Health, Kind, Origin,
    Outcome, Retryable, Rule, Verdict, classify_error, classify_fn, classify_response, rule_fn,
};
use tower_test::mock;

use crate::support::call::{now, send};

const UNHEALTHY: Fault = Fault::new(Kind::Overloaded, Retryable::Refused, Health::Unhealthy, Origin::Remote);
const OTHER: Fault = Fault::new(Kind::Quota, Retryable::Never, Health::Neutral, Origin::Remote);

#[derive(Debug, PartialEq, Eq)]
struct Broken(u32);

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "broken {}", self.0)
    }
}

impl Error for Broken {}

fn response(status: u16) -> Response<&'static str> {
    Response::builder().status(status).header("x-one", "1").body("the body").unwrap()
}

/// Sends a response through the default layer.
fn classified(response: Response<&'static str>) -> Response<&'static str> {
    let mut response = Some(response);
    let mut service = FaultClassifyLayer::new()
        .layer(service_fn(move |()| ready(Ok::<_, io::Error>(response.take().unwrap()))));
    now(send(&mut service, ())).unwrap()
}

fn fault(status: u16) -> Fault {
    match CarriedVerdict::get(&classified(response(status))) {
        Some(Verdict::Fault(fault)) => fault,
        other => panic!("{status} carries {other:?}"),
    }
}

/// Sends an error through the default layer.
fn wrapped(error: impl Error + Send + Sync + 'static) -> ClassifiedError {
    let mut error = Some(error);
    let mut service =
        FaultClassifyLayer::new().layer(service_fn(move |()| ready(Err::<(), _>(error.take().unwrap()))));
    now(send(&mut service, ())).unwrap_err()
}

#[test]
fn success_carries_no_verdict() {
    for status in [200, 201, 204, 206, 301, 304, 399] {
        let response = classified(response(status));
        assert_eq!(response.status(), status);
        assert_eq!(response.headers().len(), 1);
        assert_eq!(*response.body(), "the body");
        assert!(response.extensions().is_empty(), "{status}");
        assert_eq!(CarriedVerdict::get(&response), None);
        assert!(classify_response(&response).is_success());
    }
}

#[test]
fn fault_is_carried_and_response_otherwise_unchanged() {
    for status in [400, 401, 404, 408, 429, 500, 502, 503, 504, 529, 599] {
        let response = classified(response(status));
        assert_eq!(response.status(), status);
        assert_eq!(response.headers()["x-one"], "1");
        assert_eq!(*response.body(), "the body");
        let is_timeout = matches!(status, 408 | 504);
        assert_eq!(response.extensions().len(), usize::from(is_timeout), "{status}");
        let verdict = CarriedVerdict::get(&response).expect("a fault is carried");
        assert!(!verdict.is_success());
        assert_eq!(verdict, classify_response(&response));
    }
}

// Layers above read the verdict; without it they classify the response themselves.
#[test]
fn success_of_a_rule_is_carried_if_the_default_is_a_fault() {
    let trailers_only = |code: &str| {
        let response = Response::builder().header("content-type", "application/grpc");
        response.header("grpc-status", code).body(()).unwrap()
    };
    let mut service = FaultClassifyLayer::new()
        .rule(GrpcRules::new().code(14, Verdict::Success))
        .rule(StatusRules::new().status(503, Verdict::Success))
        .layer(service_fn(|response| ready(Ok::<_, io::Error>(response))));
    let unavailable = Response::builder().status(503).body(()).unwrap();
    for response in [trailers_only("14"), unavailable] {
        let response = now(send(&mut service, response)).unwrap();
        assert_eq!(CarriedVerdict::get(&response), Some(Verdict::Success));
        assert!(classify_response(&response).is_success());
    }
    for response in [trailers_only("0"), Response::new(())] {
        let response = now(send(&mut service, response)).unwrap();
        assert!(response.extensions().is_empty(), "{response:?}");
    }
}

#[test]
fn existing_extensions_are_kept() {
    let mut fault = response(503);
    fault.extensions_mut().insert(7_u32);
    let fault = classified(fault);
    assert_eq!(fault.extensions().get(), Some(&7_u32));
    assert!(CarriedVerdict::get(&fault).is_some());
}

#[test]
fn health_429_neutral_404_healthy_503_unhealthy() {
    assert_eq!(fault(429).health(), Health::Neutral);
    assert_eq!(fault(404).health(), Health::Healthy);
    assert_eq!(fault(401).health(), Health::Healthy);
    assert_eq!(fault(503).health(), Health::Unhealthy);
    assert_eq!(fault(503).kind(), Kind::Unavailable);
    assert_eq!(fault(429).kind(), Kind::Throttled);
}

#[test]
fn retryable_is_independent_of_health() {
    // The server is failing, and a POST must not be sent again.
    assert_eq!((fault(500).health(), fault(500).retryable()), (Health::Unhealthy, Retryable::IfIdempotent));
    // The server is not failing, and any request may be sent again.
    assert_eq!((fault(429).health(), fault(429).retryable()), (Health::Neutral, Retryable::Refused));
    // The server is failing, and another attempt does not help.
    assert_eq!((fault(508).health(), fault(508).retryable()), (Health::Unhealthy, Retryable::Never));
    // The server is healthy, and another attempt does not help.
    assert_eq!((fault(404).health(), fault(404).retryable()), (Health::Healthy, Retryable::Never));
    // The server is failing, and did not process the request.
    assert_eq!((fault(529).health(), fault(529).retryable()), (Health::Unhealthy, Retryable::Refused));
}

#[test]
fn server_delay_is_kept_on_retryable_faults() {
    for status in [408, 425, 429, 500, 502, 503, 504, 529] {
        let mut response = response(status);
        response.headers_mut().insert("retry-after", 7.into());
        let verdict = CarriedVerdict::get(&classified(response)).unwrap();
        assert_eq!(verdict.fault().unwrap().retry_after(), Some(Duration::from_secs(7)), "{status}");
    }
    let mut large = response(413);
    large.headers_mut().insert("retry-after", 7.into());
    let verdict = CarriedVerdict::get(&classified(large)).unwrap();
    assert_eq!(verdict.fault().unwrap().kind(), Kind::Throttled);
    assert_eq!(verdict.fault().unwrap().retry_after(), Some(Duration::from_secs(7)));
    assert_eq!(fault(413).kind(), Kind::Client);
}

#[test]
fn invalid_retry_after_is_ignored() {
    for invalid in ["-1", "1.5", "soon", "", "+5", "1e3"] {
        let mut response = response(503);
        response.headers_mut().insert("retry-after", invalid.parse().unwrap());
        let verdict = CarriedVerdict::get(&classified(response)).unwrap();
        assert_eq!(verdict.fault().unwrap().retry_after(), None, "{invalid:?}");
    }
}

#[test]
fn carried_verdict_is_stale_after_status_change() {
    let mut response = classified(response(503));
    assert!(CarriedVerdict::get(&response).is_some());
    *response.status_mut() = StatusCode::OK;
    assert_eq!(CarriedVerdict::get(&response), None);
    assert!(classify_response(&response).is_success());
    *response.status_mut() = StatusCode::NOT_FOUND;
    assert_eq!(classify_response(&response).fault().unwrap().kind(), Kind::Client);
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    assert!(CarriedVerdict::get(&response).is_some(), "the carried verdict is valid again");
}

#[test]
fn outer_layer_keeps_inner_verdict() {
    let mut service = FaultClassifyLayer::new().layer(
        FaultClassifyLayer::new()
            .rule(rule_fn(|outcome: Result<&Response<&'static str>, &io::Error>| {
                outcome.is_ok_and(|response| response.status() == 404).then_some(UNHEALTHY.into())
            }))
            .layer(service_fn(async |()| Ok::<_, io::Error>(response(404)))),
    );
    let response = now(send(&mut service, ())).unwrap();
    assert_eq!(CarriedVerdict::get(&response), Some(UNHEALTHY.into()));
    assert_eq!(response.extensions().len(), 1);
}

#[test]
fn outer_layer_replaces_stale_verdict() {
    let mut service = FaultClassifyLayer::new().layer(service_fn(async |()| {
        let mut response = classified(response(503));
        *response.status_mut() = StatusCode::UNAUTHORIZED;
        Ok::<_, io::Error>(response)
    }));
    let response = now(send(&mut service, ())).unwrap();
    assert_eq!(CarriedVerdict::get(&response).unwrap().fault().unwrap().kind(), Kind::Auth);
}

#[test]
fn rule_added_last_takes_precedence() {
    fn rule(status: u16, verdict: Verdict) -> impl Rule<Response<&'static str>, io::Error> + Clone {
        rule_fn(move |outcome: Result<&Response<&'static str>, &io::Error>| {
            outcome.is_ok_and(|response| response.status() == status).then_some(verdict)
        })
    }
    let layer = FaultClassifyLayer::new()
        .rule(rule(404, OTHER.into()))
        .rule(rule(404, UNHEALTHY.into()))
        .rule(rule(200, OTHER.into()))
        .rule(rule(503, Verdict::Success));
    let carried = |status| {
        let mut service = layer.clone().layer(service_fn(move |()| ready(Ok(response(status)))));
        CarriedVerdict::get(&now(send(&mut service, ())).unwrap())
    };
    assert_eq!(carried(404), Some(UNHEALTHY.into()));
    assert_eq!(carried(200), Some(OTHER.into()));
    assert_eq!(carried(201), None);
    assert_eq!(carried(503), Some(Verdict::Success), "carried, so that no layer above counts a failure");
    assert_eq!(carried(502).unwrap().fault().unwrap().kind(), Kind::Unavailable);
}

#[test]
fn rule_classifies_errors() {
    let rule = rule_fn(|outcome: Result<&(), &Broken>| match outcome {
        Err(Broken(1)) => Some(UNHEALTHY.into()),
        Err(Broken(2)) => Some(Verdict::Success),
        _ => None,
    });
    let mut service =
        FaultClassifyLayer::new().rule(rule).layer(service_fn(async |number| Err::<(), _>(Broken(number))));
    let mut fault = |number| now(send(&mut service, number)).unwrap_err().fault();
    assert_eq!(fault(1), UNHEALTHY);
    // An error that a rule classifies as a success must neither count nor be retried.
    assert_eq!((fault(2).health(), fault(2).retryable()), (Health::Healthy, Retryable::Never));
    assert_eq!(fault(3), classify_error(&Broken(3)));
}

#[test]
fn custom_classifier_ignores_carried_verdict() {
    let own = classify_fn(|outcome: Result<&Response<&'static str>, &ClassifiedError>| match outcome {
        Ok(response) if response.status() == 503 => OTHER.into(),
        _ => Verdict::Success,
    });
    let layer = FaultClassifyLayer::new().classify(own);
    let carried = |status| {
        let below = FaultClassifyLayer::new();
        let mut service = layer
            .clone()
            .layer(below.layer(service_fn(move |()| ready(Ok::<_, io::Error>(response(status))))));
        CarriedVerdict::get(&now(send(&mut service, ())).unwrap())
    };
    assert_eq!(carried(503), Some(OTHER.into()), "it replaces the verdict of the inner layer");
    assert_eq!(carried(500), Some(Verdict::Success), "it replaces the verdict of the inner layer");
    assert_eq!(carried(200), None);
}

#[test]
fn rule_takes_precedence_over_custom_classifier() {
    let own = classify_fn(|_: Result<&u32, &Broken>| OTHER.into());
    let rule = rule_fn(|outcome: Result<&u32, &Broken>| {
        outcome.is_err_and(|error| error.0 == 1).then_some(UNHEALTHY.into())
    });
    let mut service = FaultClassifyLayer::new()
        .classify(own)
        .rule(rule)
        .layer(service_fn(async |number| Err::<u32, _>(Broken(number))));
    assert_eq!(now(send(&mut service, 1)).unwrap_err().fault(), UNHEALTHY);
    assert_eq!(now(send(&mut service, 2)).unwrap_err().fault(), OTHER);
}

#[test]
fn arc_classifier_classifies() {
    let own: Arc<dyn Classify<u32, Broken> + Send + Sync> =
        Arc::new(classify_fn(|_: Result<&u32, &Broken>| UNHEALTHY.into()));
    let mut service = FaultClassifyLayer::new()
        .classify(own)
        .layer(service_fn(async |number| Err::<u32, _>(Broken(number))));
    assert_eq!(now(send(&mut service, 1)).unwrap_err().fault(), UNHEALTHY);
}

#[test]
fn errors_only_layer_accepts_any_response_type() {
    #[derive(Debug, PartialEq)]
    struct Foreign(u32);

    let mut service = FaultClassifyLayer::new().errors_only().layer(service_fn(async |number| {
        if number == 0 { Ok(Foreign(number)) } else { Err(io::Error::from(io::ErrorKind::ConnectionRefused)) }
    }));
    assert_eq!(now(send(&mut service, 0)).unwrap(), Foreign(0));
    let error = now(send(&mut service, 1)).unwrap_err();
    assert_eq!((error.fault().kind(), error.fault().retryable()), (Kind::Unavailable, Retryable::Unsent));
}

#[test]
fn errors_only_http_response_is_a_success() {
    let mut service = FaultClassifyLayer::new()
        .errors_only()
        .layer(service_fn(async |()| Ok::<_, io::Error>(response(503))));
    assert!(now(send(&mut service, ())).unwrap().extensions().is_empty());
}

#[test]
fn custom_outcome_verdict_is_used() {
    struct Rows(bool);
    impl Outcome for Rows {
        fn verdict(&self) -> Option<Verdict> {
            (!self.0).then_some(UNHEALTHY.into())
        }
    }
    // The response cannot carry a verdict, so every layer reads the response's own verdict.
    let mut service =
        FaultClassifyLayer::new().layer(service_fn(async |complete| Ok::<_, io::Error>(Rows(complete))));
    for (complete, verdict) in [(true, Verdict::Success), (false, UNHEALTHY.into())] {
        let rows = now(send(&mut service, complete)).unwrap();
        assert_eq!(CarriedVerdict::get(&rows), None);
        assert_eq!(classify_response(&rows), verdict);
    }
}

#[test]
fn error_is_wrapped_and_original_reachable() {
    let error = wrapped(io::Error::from(io::ErrorKind::ConnectionRefused));
    let fault = error.fault();
    assert_eq!(
        (fault.kind(), fault.retryable(), fault.health()),
        (Kind::Unavailable, Retryable::Unsent, Health::Unhealthy)
    );
    let source = error.source().unwrap();
    assert_eq!(source.downcast_ref::<io::Error>().unwrap().kind(), io::ErrorKind::ConnectionRefused);
    assert!(error.get_ref().unwrap().is::<io::Error>());
    assert_eq!(classify_error(&error), fault, "every layer above gets the same verdict");
    let original = error.into_inner().unwrap().downcast::<io::Error>().unwrap();
    assert_eq!(original.kind(), io::ErrorKind::ConnectionRefused);
}

#[test]
fn classified_error_into_inner_returns_original_error() {
    #[derive(Debug)]
    struct Holds(Arc<str>);
    impl fmt::Display for Holds {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(&self.0)
        }
    }
    impl Error for Holds {}

    let payload: Arc<str> = "x".into();
    let error = wrapped(Holds(Arc::clone(&payload)));
    assert!(Arc::ptr_eq(&error.source().unwrap().downcast_ref::<Holds>().unwrap().0, &payload));
}

/// A reporter that prints the whole chain must print each text once.
#[test]
fn classified_error_display_does_not_repeat_source() {
    let error = wrapped(Broken(7));
    assert!(!error.to_string().contains("broken 7"), "{error}");
    assert_eq!(error.source().unwrap().to_string(), "broken 7");
}

#[test]
fn classified_error_is_wrapped_once() {
    let mut service = FaultClassifyLayer::new().layer(
        FaultClassifyLayer::new()
            .layer(service_fn(async |()| Err::<(), _>(ClassifiedError::new(UNHEALTHY, Broken(7))))),
    );
    let error = now(send(&mut service, ())).unwrap_err();
    assert_eq!(error.fault(), UNHEALTHY);
    assert_eq!(error.source().unwrap().downcast_ref(), Some(&Broken(7)));
}

#[test]
fn carried_verdict_is_found_in_any_wrapper() {
    let deep = io::Error::other(io::Error::other(ClassifiedError::new(
        UNHEALTHY,
        io::Error::from(io::ErrorKind::InvalidInput),
    )));
    assert_eq!(wrapped(deep).fault(), UNHEALTHY);
}

#[test]
fn error_cause_is_found_in_any_wrapper() {
    let cause = io::Error::from(io::ErrorKind::ConnectionRefused);
    let deep = io::Error::other(io::Error::other(io::Error::other(cause)));
    assert_eq!(wrapped(deep).fault().kind(), Kind::Unavailable);
    assert_eq!(wrapped(Broken(7)).fault(), classify_error(&Broken(7)));
    assert_eq!(wrapped(Broken(7)).fault().kind(), Kind::Unknown);
}

#[test]
fn keep_errors_keeps_error_type() {
    let mut service =
        FaultClassifyLayer::new().keep_errors().layer(service_fn(async |()| Err::<(), _>(Broken(7))));
    let error: Broken = now(send(&mut service, ())).unwrap_err();
    assert_eq!(error, Broken(7));
}

#[test]
fn keep_errors_marks_responses_of_infallible_service() {
    let mut service = FaultClassifyLayer::new()
        .keep_errors()
        .layer(service_fn(async |status| Ok::<_, Infallible>(response(status))));
    let Ok(response) = now(send(&mut service, 503));
    assert_eq!(CarriedVerdict::get(&response).unwrap().fault().unwrap().kind(), Kind::Unavailable);
    let Ok(response) = now(send(&mut service, 200));
    assert!(response.extensions().is_empty());
}

#[test]
fn infallible_service_is_wrapped() {
    let mut service =
        FaultClassifyLayer::new().layer(service_fn(async |()| Ok::<_, Infallible>(response(503))));
    let response: Result<_, ClassifiedError> = now(send(&mut service, ()));
    assert!(CarriedVerdict::get(&response.unwrap()).is_some());
}

#[test]
fn boxed_error_is_wrapped_without_another_box() {
    let mut service = FaultClassifyLayer::new().layer(service_fn(async |()| {
        Err::<Response<()>, BoxError>(Box::new(io::Error::from(io::ErrorKind::TimedOut)))
    }));
    let error = now(send(&mut service, ())).unwrap_err();
    assert_eq!(error.fault().kind(), Kind::Timeout);
    assert!(error.source().unwrap().is::<io::Error>(), "the box is not a separate error in the chain");
}

#[test]
fn keep_errors_leaves_boxed_error() {
    let mut service = FaultClassifyLayer::new()
        .keep_errors()
        .layer(service_fn(async |()| Err::<Response<()>, BoxError>(Box::new(Broken(7)))));
    let error: BoxError = now(send(&mut service, ())).unwrap_err();
    assert_eq!(error.downcast_ref(), Some(&Broken(7)));
}

#[test]
fn error_pointing_to_dyn_error_is_classified() {
    /// Like `anyhow::Error` and `eyre::Report`, it does not implement `Error`.
    struct Report(BoxError);
    impl Deref for Report {
        type Target = dyn Error + Send + Sync;
        fn deref(&self) -> &Self::Target {
            &*self.0
        }
    }
    impl From<Report> for BoxError {
        fn from(report: Report) -> Self {
            report.0
        }
    }

    let report = || Report(io::Error::from(io::ErrorKind::ConnectionReset).into());
    let mut service =
        FaultClassifyLayer::new().layer(service_fn(async |()| Err::<Response<()>, _>(report())));
    let error = now(send(&mut service, ())).unwrap_err();
    assert_eq!(error.fault().kind(), Kind::Transient);
    assert!(error.source().unwrap().is::<io::Error>());

    let mut service = FaultClassifyLayer::new()
        .keep_errors()
        .layer(service_fn(async |()| Err::<Response<()>, _>(report())));
    let kept: Report = now(send(&mut service, ())).err().unwrap();
    assert!(kept.0.is::<io::Error>());
}

/// A service whose `poll_ready` fails.
#[derive(Clone, Debug)]
struct Unready(io::ErrorKind);

impl Service<()> for Unready {
    type Response = ();
    type Error = io::Error;
    type Future = Ready<io::Result<()>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Err(self.0.into()))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        unreachable!("the service is never ready")
    }
}

#[test]
fn readiness_error_is_classified() {
    let error =
        now(send(&mut FaultClassifyLayer::new().layer(Unready(io::ErrorKind::ConnectionRefused)), ()))
            .unwrap_err();
    assert_eq!((error.fault().kind(), error.fault().retryable()), (Kind::Unavailable, Retryable::Unsent));
    assert!(error.source().unwrap().is::<io::Error>());

    let rule = rule_fn(|outcome: Result<&(), &io::Error>| outcome.is_err().then_some(UNHEALTHY.into()));
    let mut service = FaultClassifyLayer::new().rule(rule).layer(Unready(io::ErrorKind::ConnectionRefused));
    assert_eq!(now(send(&mut service, ())).unwrap_err().fault(), UNHEALTHY);

    let mut service = FaultClassifyLayer::new().keep_errors().layer(Unready(io::ErrorKind::TimedOut));
    let kept: io::Error = now(send(&mut service, ())).unwrap_err();
    assert_eq!(kept.kind(), io::ErrorKind::TimedOut);
}

#[test]
fn readiness_is_forwarded() {
    let layer = FaultClassifyLayer::new();
    let (mut service, mut handle) = mock::spawn_with::<(), Response<()>, _, _>(|inner| layer.layer(inner));
    handle.allow(0);
    assert_pending!(service.poll_ready());
    handle.allow(1);
    assert_ready_ok!(service.poll_ready());
    let mut call = task::spawn(service.call(()));
    assert_pending!(call.poll());
    let ((), respond) = assert_ready!(task::spawn(handle.next_request()).poll()).unwrap();
    respond.send_error(io::Error::from(io::ErrorKind::TimedOut));
    assert_eq!(assert_ready_err!(call.poll()).fault().kind(), Kind::Timeout);
    assert_pending!(service.poll_ready());
}

#[test]
fn future_dropped_drops_inner_future() {
    let token = Arc::new(());
    let mut service = FaultClassifyLayer::new().layer(service_fn(|()| {
        let held = Arc::clone(&token);
        async move {
            std::future::pending::<()>().await;
            drop(held);
            Ok::<(), io::Error>(())
        }
    }));
    let mut call = task::spawn(send(&mut service, ()));
    assert_pending!(call.poll());
    assert_eq!(Arc::strong_count(&token), 2);
    drop(call);
    assert_eq!(Arc::strong_count(&token), 1);
}

#[test]
fn carried_verdict_inserted_is_read_back() {
    let mut response = response(200);
    CarriedVerdict::insert(&mut response, UNHEALTHY.into());
    CarriedVerdict::insert(&mut response, OTHER.into());
    assert_eq!(CarriedVerdict::get(&response), Some(OTHER.into()));
    assert_eq!(
        CarriedVerdict::get(&classified(response)),
        Some(OTHER.into()),
        "the carried verdict takes precedence over the status 200"
    );
    // A number cannot carry a verdict.
    let mut number = 7_u32;
    CarriedVerdict::insert(&mut number, UNHEALTHY.into());
    assert_eq!((number, CarriedVerdict::get(&number)), (7, None));
}

#[cfg(feature = "tower")]
mod tower_layers {
    use super::*;

    use tower::ServiceBuilder;
    use tower::load_shed::LoadShedLayer;
    use tower::timeout::{Timeout, TimeoutLayer};
    use tower_fault_classify::FaultClassify;

    #[tokio::test(start_paused = true)]
    async fn tower_timeout_is_unhealthy_and_retried_if_idempotent() {
        let inner = service_fn(|()| std::future::pending::<Result<Response<()>, io::Error>>());
        let mut service =
            FaultClassifyLayer::new().layer(TimeoutLayer::new(Duration::from_secs(1)).layer(inner));
        let error = send(&mut service, ()).await.unwrap_err();
        let fault = error.fault();
        assert_eq!(
            (fault.kind(), fault.retryable(), fault.health()),
            (Kind::Timeout, Retryable::IfIdempotent, Health::Unhealthy)
        );
        assert!(error.source().unwrap().is::<tower::timeout::error::Elapsed>());
    }

    /// A stack in a field, whose type is written with the default type parameters.
    struct Api {
        users: FaultClassify<Timeout<Unresponsive>>,
    }

    #[derive(Clone)]
    struct Unresponsive;

    impl Service<()> for Unresponsive {
        type Response = Response<()>;
        type Error = io::Error;
        type Future = std::future::Pending<io::Result<Response<()>>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, (): ()) -> Self::Future {
            std::future::pending()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn default_type_parameters_name_a_stack_over_a_timeout() {
        let users = ServiceBuilder::new()
            .layer(FaultClassifyLayer::new())
            .layer(TimeoutLayer::new(Duration::from_secs(1)))
            .service(Unresponsive);
        let mut api = Api { users };
        let error = send(&mut api.users, ()).await.unwrap_err();
        assert_eq!(error.fault().kind(), Kind::Timeout);
    }

    #[test]
    fn tower_load_shed_is_unsent_and_neutral() {
        let (inner, mut handle) = mock::pair::<(), Response<()>>();
        handle.allow(0);
        let mut service = FaultClassifyLayer::new().layer(LoadShedLayer::new().layer(inner));
        let error = now(send(&mut service, ())).unwrap_err();
        let fault = error.fault();
        assert_eq!(
            (fault.kind(), fault.retryable(), fault.health()),
            (Kind::Rejected, Retryable::Unsent, Health::Neutral)
        );
        assert_eq!(fault.origin(), Origin::Local);
        assert!(error.source().unwrap().is::<tower::load_shed::error::Overloaded>());
    }
}

/// The result of a call with its own error inside the result of a timeout, as
/// `tokio::time::timeout` returns it.
type Nested<E> = Result<Result<Response<&'static str>, E>, io::Error>;

fn refused() -> io::Error {
    io::ErrorKind::ConnectionRefused.into()
}

#[test]
fn nested_result_response_carries_verdict() {
    let call = |nested: fn() -> Nested<io::Error>| {
        let mut service = FaultClassifyLayer::new().layer(service_fn(move |()| ready(nested())));
        now(send(&mut service, ())).unwrap()
    };
    let error = call(|| Ok(Err(refused()))).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    let throttled = call(|| Ok(Ok(response(429)))).unwrap();
    assert_eq!(CarriedVerdict::get(&throttled).unwrap().fault().unwrap().kind(), Kind::Throttled);
    assert!(CarriedVerdict::get(&call(|| Ok(Ok(response(200)))).unwrap()).is_none());
}

#[test]
fn nested_errors_classifies_boxed_inner_error() {
    let classify = |nested: Nested<BoxError>| classify_nested(&nested);
    assert_eq!(classify(Ok(Err(refused().into()))), Some(Kind::Unavailable));
    assert_eq!(classify(Ok(Ok(response(503)))), None, "a value is a success");
}

fn classify_nested<T, E, K>(nested: &Result<T, E>) -> Option<Kind>
where
    NestedErrors<K>: Classify<T, E>,
{
    NestedErrors::<K>::new().classify(nested.as_ref()).fault().map(Fault::kind)
}

/// The type with its default parameters must have every setter, so that it can be a parameter or a
/// field.
#[test]
fn layer_named_by_defaults_accepts_classifier() {
    let layer: FaultClassifyLayer = FaultClassifyLayer::new();
    let nested = |()| ready(Ok::<_, io::Error>(Err::<(), _>(io::Error::from(io::ErrorKind::TimedOut))));
    let mut service = layer.classify(NestedErrors::new()).layer(service_fn(nested));
    now(send(&mut service, ())).unwrap().unwrap_err();
}
