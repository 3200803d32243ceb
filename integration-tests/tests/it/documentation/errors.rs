//! The statements of `docs/errors.md`, for stacks that the guide does not show.

use std::convert::Infallible;
use std::error::Error;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use axum::Router;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::StatusCode;
use integration_tests::echo::Words;
use integration_tests::echo::echo_client::EchoClient;
use integration_tests::{TIMEOUT, retry_at_once};
use reqwest::Method;
use reqwest_middleware::{ClientBuilder, Middleware, Next};
use test_servers::{Action, Grpc, Http, RefusedPort, Reply};
use tower::{BoxError, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_breaker::{BreakerConfig, BreakerError, BreakerLayer, Clock, Rejection};
use tower_fault_classify::middleware::TowerMiddleware;
use tower_fault_classify::{ClassifiedError, FaultClassifyLayer, Kind, classify_error};
use tower_jitter_retry::JitterRetryLayer;

use super::{circuit, client, request};

/// Returns the first error of type `T` in the source chain.
fn find<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    error.downcast_ref().or_else(|| find(error.source()?))
}

fn refused() -> io::Error {
    io::ErrorKind::ConnectionRefused.into()
}

/// Returns a breaker that opens at the first failure, on a clock that does not advance.
fn breaker_of_one_failure() -> BreakerLayer {
    BreakerLayer::new(circuit().consecutive_failures(1).clock(Clock::manual().0).build().unwrap())
}

#[tokio::test]
async fn breaker_over_buffer_over_classifier_keeps_boxed_error() {
    let breaker = BreakerLayer::new(circuit().consecutive_failures(1).build().unwrap());
    let stack = ServiceBuilder::new()
        .layer(breaker)
        .buffer(8)
        .layer(FaultClassifyLayer::new())
        .service(service_fn(async |_: u32| Err::<u32, _>(refused())));
    let error: BoxError = stack.clone().oneshot(7).await.unwrap_err();
    assert!(error.is::<ClassifiedError>());
    assert_eq!(find::<io::Error>(&*error).map(io::Error::kind), Some(io::ErrorKind::ConnectionRefused));
    assert_eq!(classify_error(&*error).kind(), Kind::Unavailable);
    let error: BoxError = stack.oneshot(7).await.unwrap_err();
    assert!(error.is::<Rejection>(), "the rejection is not wrapped");
}

/// A service whose readiness always fails.
#[derive(Clone)]
struct FailsToBeReady;

impl Service<u32> for FailsToBeReady {
    type Response = u32;
    type Error = io::Error;
    type Future = std::future::Ready<io::Result<u32>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Err(refused()))
    }

    fn call(&mut self, item: u32) -> Self::Future {
        std::future::ready(Ok(item))
    }
}

/// The worker of a buffer keeps the error that ended it, and returns it to every later call.
#[tokio::test]
async fn error_that_ended_buffer_is_classified_by_its_cause() {
    let stack = ServiceBuilder::new()
        .layer(BreakerLayer::new(circuit().consecutive_failures(2).build().unwrap()))
        .layer(FaultClassifyLayer::new())
        .buffer(8)
        .service(FailsToBeReady);
    for expected in [Kind::Unavailable, Kind::Unavailable, Kind::Rejected] {
        let error = stack.clone().oneshot(7).await.unwrap_err();
        assert_eq!(classify_error(&error).kind(), expected, "{error}");
    }
}

#[tokio::test]
async fn anyhow_error_is_classified_below_its_contexts() {
    use anyhow::Context;
    let calls = AtomicUsize::new(0);
    let breaker = circuit().consecutive_failures(3).count_failed_retries(true).build().unwrap();
    let mut stack = ServiceBuilder::new()
        .layer(JitterRetryLayer::new(retry_at_once().build().unwrap()))
        .layer(BreakerLayer::new(breaker))
        .service(service_fn(async |_: u32| {
            calls.fetch_add(1, Ordering::Relaxed);
            Err::<u32, _>(refused()).context("the socket").context("the stock")
        }));
    let error: anyhow::Error = stack.ready().await.unwrap().call(7).await.context("the page").unwrap_err();
    assert_eq!((classify_error(&*error).kind(), calls.load(Ordering::Relaxed)), (Kind::Unavailable, 3));
    assert_eq!(format!("{error}: {}", error.root_cause()), format!("the page: {}", refused()));

    let error = stack.ready().await.unwrap().call(7).await.context("the page").unwrap_err();
    assert_eq!((classify_error(&*error).kind(), calls.load(Ordering::Relaxed)), (Kind::Rejected, 3));
    assert!(error.is::<Rejection>());
}

/// A middleware that fails with an `anyhow::Error`, as no client does.
struct FailingMiddleware(Arc<AtomicUsize>);

#[async_trait::async_trait]
impl Middleware for FailingMiddleware {
    async fn handle(
        &self,
        _: reqwest::Request,
        _: &mut http::Extensions,
        _: Next<'_>,
    ) -> reqwest_middleware::Result<reqwest::Response> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Err(reqwest_middleware::Error::Middleware(anyhow::Error::new(refused()).context("the token")))
    }
}

#[tokio::test]
async fn anyhow_error_in_chain_is_classified_retried_and_returned() {
    let closed_port = RefusedPort::bind();
    let calls = Arc::new(AtomicUsize::new(0));
    let breaker = circuit().consecutive_failures(3).count_failed_retries(true);
    let stack = ServiceBuilder::new()
        .layer(JitterRetryLayer::new(retry_at_once().build().unwrap()))
        .map_err(|error: BreakerError<ClassifiedError>| anyhow::Error::new(error).context("the stack"))
        .layer(BreakerLayer::new(breaker.build().unwrap()))
        .layer(FaultClassifyLayer::new())
        .into_inner();
    let chain = ClientBuilder::new(client())
        .with(TowerMiddleware::new(stack))
        .with(FailingMiddleware(Arc::clone(&calls)))
        .build();
    for (kind, inner) in [(Kind::Unavailable, true), (Kind::Rejected, false)] {
        let error = chain.get(closed_port.url()).send().await.unwrap_err();
        assert_eq!((classify_error(&error).kind(), calls.load(Ordering::Relaxed)), (kind, 3));
        let reqwest_middleware::Error::Middleware(error) = error else { panic!("{error:?}") };
        let stack_error =
            error.chain().find_map(|error| error.downcast_ref::<BreakerError<ClassifiedError>>());
        assert_eq!(matches!(stack_error, Some(BreakerError::Inner(_))), inner, "{error:?}");
        assert_eq!(matches!(stack_error, Some(BreakerError::Rejected(_))), !inner, "{error:?}");
    }
}

#[tokio::test]
async fn fallback_under_retry_runs_once_and_keeps_error_type() {
    let (calls, fallbacks) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let outer = BreakerLayer::new(circuit().build().unwrap());
    let outer_circuit = outer.circuit();
    let stack = ServiceBuilder::new()
        .layer(outer)
        .layer(JitterRetryLayer::new(retry_at_once().max_attempts(5).build().unwrap()))
        .layer(breaker_of_one_failure().fallback(|_: u32, rejection: &Rejection| {
            fallbacks.fetch_add(1, Ordering::Relaxed);
            rejection.circuit().to_owned()
        }))
        .service(service_fn(async |_: u32| {
            calls.fetch_add(1, Ordering::Relaxed);
            Err::<String, _>(refused())
        }));
    // The first attempt opens the circuit. The second attempt gets the fallback.
    for expected_fallbacks in 1..=3 {
        let answer: Result<String, BreakerError<io::Error>> = stack.clone().oneshot(7).await;
        assert_eq!(answer.unwrap(), "documentation");
        assert_eq!(
            (calls.load(Ordering::Relaxed), fallbacks.load(Ordering::Relaxed)),
            (1, expected_fallbacks)
        );
    }
    assert_eq!(outer_circuit.status().window.failures, 0);
}

#[tokio::test]
async fn http_503_fallback_under_retry_and_breaker_is_not_counted() {
    let outer = breaker_of_one_failure();
    let outer_circuit = outer.circuit();
    let inner = breaker_of_one_failure();
    let inner_circuit = inner.circuit();
    let stack = ServiceBuilder::new()
        .layer(outer)
        .layer(JitterRetryLayer::new(retry_at_once().build().unwrap()))
        .layer(FaultClassifyLayer::new().keep_errors())
        .layer(inner.http_fallback())
        .service(service_fn(async |_: http::Request<()>| {
            Ok::<_, Infallible>(http::Response::new(String::new()))
        }));
    inner_circuit.trip().unwrap();
    for _ in 0..3 {
        let response = stack.clone().oneshot(http::Request::new(())).await.unwrap();
        assert_eq!(
            (response.status(), &response.headers()["retry-after"]),
            (StatusCode::SERVICE_UNAVAILABLE, &"30".parse().unwrap())
        );
    }
    assert_eq!(outer_circuit.status().window.calls, 0);
}

#[derive(Debug)]
struct Teapot;

impl fmt::Display for Teapot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a teapot")
    }
}

impl Error for Teapot {}

impl IntoResponse for Teapot {
    fn into_response(self) -> Response {
        StatusCode::IM_A_TEAPOT.into_response()
    }
}

/// The handler calls a service through a breaker, and returns its errors with `?`.
#[tokio::test]
async fn handler_returning_rejection_is_not_retried() {
    let layer = breaker_of_one_failure();
    let circuit = layer.circuit();
    let teapot = ServiceBuilder::new().layer(layer).service(service_fn(async |()| Err::<(), _>(Teapot)));
    let handled = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&handled);
    let router: Router = Router::new().route(
        "/",
        get(async move || -> Result<&'static str, BreakerError<Teapot>> {
            counter.fetch_add(1, Ordering::Relaxed);
            teapot.clone().oneshot(()).await?;
            Ok("tea")
        }),
    );
    let router =
        ServiceBuilder::new().layer(JitterRetryLayer::new(retry_at_once().build().unwrap())).service(router);
    let send = async || {
        let request = axum::extract::Request::get("/").body(axum::body::Body::empty()).unwrap();
        let response = router.clone().oneshot(request).await.unwrap();
        let after = response.headers().get("retry-after").map(|value| value.to_str().unwrap().to_owned());
        (response.status().as_u16(), after)
    };
    assert_eq!(send().await, (418, None));
    circuit.trip().unwrap();
    assert_eq!(send().await, (503, Some("30".to_owned())));
    circuit.force_open().unwrap();
    assert_eq!(send().await, (503, None), "a forced circuit has no retry time");
    assert_eq!(handled.load(Ordering::Relaxed), 3);
}

/// The test runs with each kind of layer between the generated client and the stack.
#[tokio::test]
async fn generated_client_gets_rejection_status_through_layers() {
    let server = Grpc::start().await;
    let not_found =
        || Reply::trailers_only(5).grpc_message("no such word").binary_trailer("details-bin", b"\0\xff");
    server.set_default(not_found());
    let channel = tonic::transport::Endpoint::from_shared(server.url()).unwrap().connect_lazy();
    let layer = BreakerLayer::new(BreakerConfig::default().named("echo"));
    let circuit = layer.circuit();
    let inner =
        ServiceBuilder::new().layer(layer).layer(FaultClassifyLayer::new()).timeout(TIMEOUT).service(channel);
    macro_rules! assert_statuses {
        ($layers:expr) => {{
            let mut echo = EchoClient::new($layers.service(inner.clone()));
            circuit.reset().unwrap();
            let status = echo.say(Words::default()).await.unwrap_err();
            assert_eq!((status.code(), status.message()), (tonic::Code::NotFound, "no such word"));
            let details = status.metadata().get_bin("details-bin").unwrap();
            assert_eq!(details.to_bytes().unwrap().as_ref(), b"\0\xff");
            circuit.trip().unwrap();
            let status = echo.say(Words::default()).await.unwrap_err();
            assert_eq!(status.code(), tonic::Code::Unavailable, "{status:?}");
        }};
    }
    let retry = || JitterRetryLayer::new(retry_at_once().build().unwrap());
    assert_statuses!(ServiceBuilder::new().layer(retry()));
    assert_statuses!(ServiceBuilder::new().buffer(4).layer(retry()));
    assert_statuses!(ServiceBuilder::new().timeout(TIMEOUT).load_shed().layer(retry()));
    assert_statuses!(ServiceBuilder::new().layer(FaultClassifyLayer::new()).buffer(4).layer(retry()));
    assert_statuses!(ServiceBuilder::new().layer(BreakerLayer::new(BreakerConfig::default())).layer(retry()));
    assert_statuses!(
        ServiceBuilder::new().map_err(|error| anyhow::Error::new(error).context("the inventory"))
    );
}

/// A retry and a classifier that keeps errors do not change the error type.
#[tokio::test]
async fn classifier_keeping_errors_under_retry_returns_reqwest_error() {
    let server = Http::start().await;
    server.set_default(Action::ResetAfterRequest);
    let stack = ServiceBuilder::new()
        .layer(JitterRetryLayer::new(retry_at_once().build().unwrap()))
        .layer(FaultClassifyLayer::new().keep_errors())
        .service(client());
    let error: reqwest::Error = stack.oneshot(request(Method::GET, &server)).await.unwrap_err();
    assert!(error.is_request());
    assert_eq!((classify_error(&error).kind(), server.requests().len()), (Kind::Transient, 3));
}
