//! Fallbacks: responses in place of a rejection.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::io;
use std::panic::AssertUnwindSafe;
use std::task::{Context, Poll};
use std::time::Duration;
use std::vec;

use axum::Router;
use axum::routing::get;
use futures::FutureExt;
use futures::stream::{self, Iter};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Full, StreamBody};
use tower::{BoxError, Layer, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_breaker::fallback::FallbackBody;
use tower_breaker::fault_classify::classifiers::Auto;
use tower_breaker::fault_classify::{CarriedVerdict, Classify, Retryable, classify_response};
use tower_breaker::{
    BreakerConfig, BreakerLayer, Circuit, CircuitState, Clock, Health, Kind, ManualClock, Rejection, Verdict,
};

fn config() -> (BreakerConfig, ManualClock) {
    let (clock, time) = Clock::manual();
    time.set(Duration::from_secs(1_000));
    (crate::support::config().name("search").clock(clock).build().unwrap(), time)
}

/// A service that always fails, with a typed error.
#[derive(Clone, Debug)]
struct Broken;

impl Service<&'static str> for Broken {
    type Response = String;
    type Error = io::Error;
    type Future = Ready<Result<String, io::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), io::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: &'static str) -> Self::Future {
        ready(Err(io::ErrorKind::ConnectionRefused.into()))
    }
}

async fn call<S: Service<Req>, Req>(service: &mut S, request: Req) -> Result<S::Response, S::Error> {
    service.ready().await?.call(request).await
}

#[tokio::test]
async fn fallback_gets_request_and_rejection_and_keeps_error_type() {
    let (config, _time) = config();
    let layer = BreakerLayer::new(config).fallback(|request: &'static str, rejection: &Rejection| {
        format!("{request}: {} is {}", rejection.circuit(), rejection.state())
    });
    let mut service = layer.layer(Broken);
    let error: io::Error = call(&mut service, "one").await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    layer.circuit().trip().unwrap();
    assert_eq!(call(&mut service, "two").await.unwrap(), "two: search is open");
}

#[tokio::test]
async fn fallback_async_may_wait_and_fail_with_inner_error() {
    let (config, _time) = config();
    let layer = BreakerLayer::new(config).fallback_async(async |request: &'static str, _: Rejection| {
        tokio::task::yield_now().await;
        if request == "known" { Ok("cached".to_owned()) } else { Err(io::ErrorKind::NotFound.into()) }
    });
    let mut service = layer.layer(Broken);
    layer.circuit().force_open().unwrap();
    assert_eq!(call(&mut service, "known").await.unwrap(), "cached");
    assert_eq!(call(&mut service, "new").await.unwrap_err().kind(), io::ErrorKind::NotFound);
    assert_eq!(layer.circuit().status().window.calls, 0, "a fallback is not counted");
}

#[tokio::test]
async fn fallback_panic_propagates_and_leaves_circuit_usable() {
    let (config, time) = config();
    let layer = BreakerLayer::new(config).fallback(|_: &'static str, _: &Rejection| panic!("no fallback"));
    let mut service = layer.layer(service_fn(async |text: &'static str| Ok::<_, io::Error>(text)));
    let circuit = layer.circuit();
    circuit.trip().unwrap();
    for _ in 0..3 {
        let panicked = AssertUnwindSafe(call(&mut service, "one")).catch_unwind().await;
        assert!(panicked.is_err());
    }
    assert_eq!(circuit.status().last_transition.unwrap().epoch, 1, "the panic changes nothing");
    time.advance(Duration::from_secs(31));
    for _ in 0..2 {
        assert_eq!(call(&mut service, "two").await.unwrap(), "two");
    }
    assert_eq!(circuit.status().state, CircuitState::Closed);
}

#[tokio::test]
async fn fallback_async_is_dropped_with_its_call() {
    let (config, _time) = config();
    let (dropped, is_dropped) = std::sync::mpsc::channel::<()>();
    let layer = BreakerLayer::new(config).fallback_async(move |_: &'static str, _: Rejection| {
        let dropped = dropped.clone();
        async move {
            std::future::pending::<()>().await;
            drop(dropped);
            Ok::<_, io::Error>(String::new())
        }
    });
    let mut service = layer.layer(Broken);
    layer.circuit().trip().unwrap();
    let result = tokio::time::timeout(Duration::from_millis(1), call(&mut service, "one")).await;
    assert!(result.is_err());
    drop((service, layer));
    assert_eq!(is_dropped.recv(), Err(std::sync::mpsc::RecvError), "the future is dropped");
}

fn responding() -> impl Service<Request<()>, Response = Response<String>, Error = Infallible> + Clone {
    service_fn(async |_: Request<()>| Ok(Response::new("fresh".to_owned())))
}

fn open(circuit: &Circuit, time: &ManualClock, left: Duration) {
    circuit.trip().unwrap();
    time.advance(Duration::from_secs(30).saturating_sub(left));
}

#[tokio::test]
async fn http_503_rounds_retry_after_up_to_seconds() {
    for (left, seconds) in [(30_000, "30"), (29_001, "30"), (29_000, "29"), (1_000, "1"), (1, "1")] {
        let (config, time) = config();
        let layer = BreakerLayer::new(config).http_fallback();
        open(&layer.circuit(), &time, Duration::from_millis(left));
        let response = call(&mut layer.layer(responding()), Request::new(())).await.unwrap();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()["retry-after"], seconds, "{left} ms");
        assert!(response.body().get_ref().is_none());
        assert!(response.body().is_end_stream());
        assert_eq!(response.body().size_hint().exact(), Some(0));
    }
    let (config, _time) = config();
    let layer = BreakerLayer::new(config).http_fallback();
    layer.circuit().force_open().unwrap();
    let response = call(&mut layer.layer(responding()), Request::new(())).await.unwrap();
    assert!(response.headers().get("retry-after").is_none(), "the time of the release is not known");
}

#[tokio::test]
async fn grpc_unavailable_is_trailers_only_with_pushback() {
    let (config, time) = config();
    let layer = BreakerLayer::new(config).grpc_fallback();
    let circuit = layer.circuit();
    open(&circuit, &time, Duration::from_millis(2_340));
    let mut service = layer.layer(responding());
    let response = call(&mut service, Request::new(())).await.unwrap();
    let field = |name| response.headers()[name].to_str().unwrap();
    assert_eq!((response.status(), field("content-type")), (StatusCode::OK, "application/grpc"));
    assert_eq!((field("grpc-status"), field("grpc-retry-pushback-ms")), ("14", "2340"));
    let text = "circuit breaker `search` is open; retry after 2.3 s";
    assert_eq!(field("grpc-message"), text);
    circuit.force_open().unwrap();
    let response = call(&mut service, Request::new(())).await.unwrap();
    assert_eq!(response.headers()["grpc-retry-pushback-ms"], "-1", "the client must not retry");
}

#[tokio::test]
async fn http_and_grpc_fallback_in_half_open_and_slow_start_have_1s() {
    let (clock, time) = Clock::manual();
    let config = crate::support::config().clock(clock).probes(1).successes_to_close(1);
    let config = config.slow_start(Duration::from_secs(100)).build().unwrap();
    let http = BreakerLayer::new(config.clone()).http_fallback();
    let grpc = BreakerLayer::new(config).grpc_fallback();
    let retry_after = async || {
        let http = call(&mut http.layer(responding()), Request::new(())).await.unwrap();
        let grpc = call(&mut grpc.layer(responding()), Request::new(())).await.unwrap();
        [(http, "retry-after"), (grpc, "grpc-retry-pushback-ms")]
            .map(|(response, name)| response.headers().get(name).unwrap().to_str().unwrap().to_owned())
    };
    let circuits = [http.circuit(), grpc.circuit()];
    for circuit in &circuits {
        circuit.trip().unwrap();
    }
    time.advance(Duration::from_secs(30));
    let probes = circuits.clone().map(|circuit| circuit.try_acquire().unwrap());
    assert_eq!(retry_after().await, ["1", "1000"], "half-open");
    for (circuit, probe) in circuits.iter().zip(probes) {
        probe.record(Verdict::Success);
        circuit
            .try_acquire()
            .expect("the first call of a slow start must be admitted")
            .record(Verdict::Success);
    }
    assert_eq!(retry_after().await, ["1", "1000"], "slow start");
}

#[tokio::test]
async fn http_and_grpc_fallback_carry_rejected_verdict() {
    let assert_rejected = |response: &Response<FallbackBody<String>>| {
        assert!(CarriedVerdict::get(response).is_some());
        let verdict = classify_response(response);
        let fault = *verdict.fault().expect("a rejection is a fault");
        assert_eq!((fault.kind(), fault.retryable()), (Kind::Rejected, Retryable::Never));
        assert_eq!(fault.health(), Health::Neutral);
    };
    let (config, _time) = config();
    let layer = BreakerLayer::new(config.clone()).http_fallback();
    layer.circuit().trip().unwrap();
    assert_rejected(&call(&mut layer.layer(responding()), Request::new(())).await.unwrap());
    let layer = BreakerLayer::new(config).grpc_fallback();
    layer.circuit().trip().unwrap();
    let response = call(&mut layer.layer(responding()), Request::new(())).await.unwrap();
    assert_rejected(&response);
    let outcome: Result<_, &io::Error> = Ok(&response);
    assert_ne!(
        Auto::<tower_breaker::fault_classify::classifiers::TypedError>::new().classify(outcome),
        Verdict::Success
    );
}

#[tokio::test]
async fn outer_breaker_does_not_count_http_fallback_of_inner_one() {
    let (config, _time) = config();
    let inner = BreakerLayer::new(config.clone()).http_fallback();
    let outer = BreakerLayer::new(config).http_fallback();
    let circuit = outer.circuit();
    inner.circuit().force_open().unwrap();
    let mut stack = ServiceBuilder::new().layer(outer).layer(inner).service(responding());
    for _ in 0..50 {
        assert_eq!(call(&mut stack, Request::new(())).await.unwrap().status(), 503);
    }
    assert_eq!(circuit.status().state, CircuitState::Closed);
    assert_eq!(circuit.status().window.calls, 0);
}

/// A body without `Default`, with data and trailers.
type Streamed = StreamBody<Iter<vec::IntoIter<Result<Frame<&'static [u8]>, io::Error>>>>;

fn streamed() -> Streamed {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let frames = vec![Ok(Frame::data(&b"fresh"[..])), Ok(Frame::trailers(trailers))];
    StreamBody::new(stream::iter(frames))
}

fn streaming() -> impl Service<Request<()>, Response = Response<Streamed>, Error = Infallible> + Clone {
    service_fn(async |_: Request<()>| Ok(Response::new(streamed())))
}

/// Calls a service whose circuit is closed, opens the circuit, and calls the service again.
async fn assert_fallback_over_stream<S, B>(mut service: S, circuit: &Circuit)
where
    S: Service<Request<()>, Response = Response<FallbackBody<B>>, Error = Infallible>,
    B: Body<Error = io::Error>,
{
    let Ok(response) = call(&mut service, Request::new(())).await;
    assert!(!response.body().is_end_stream());
    let body = response.into_body().collect().await.unwrap();
    assert_eq!(body.trailers().unwrap()["grpc-status"], "0");
    assert_eq!(body.to_bytes(), "fresh");
    circuit.trip().unwrap();
    let Ok(response) = call(&mut service, Request::new(())).await;
    assert!(response.headers().contains_key("retry-after"));
    assert!(response.into_body().into_inner().is_none());
}

#[tokio::test]
async fn http_fallback_fits_body_without_default() {
    let layer = BreakerLayer::new(config().0).http_fallback();
    assert_fallback_over_stream(layer.layer(streaming()), &layer.circuit()).await;
    let layer = BreakerLayer::new(config().0).track_body().http_fallback();
    assert_fallback_over_stream(layer.layer(streaming()), &layer.circuit()).await;
    assert_eq!(layer.circuit().status().window.calls, 0, "the circuit is open");
}

#[tokio::test]
async fn fallback_body_passes_hints_of_inner_body() {
    let layer = BreakerLayer::new(config().0).track_body().grpc_fallback();
    let full =
        service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(Full::new(&b"fresh"[..]))));
    let Ok(response) = call(&mut layer.layer(full), Request::new(())).await;
    let body = response.into_body();
    assert_eq!((body.size_hint().exact(), body.is_end_stream()), (Some(5), false));
    let tracked = body.into_inner().expect("the call was admitted");
    assert_eq!(tracked.collect().await.unwrap().to_bytes(), "fresh");
    assert_eq!(layer.circuit().status().window.calls, 1, "the tracked body is inside");
}

#[tokio::test]
async fn axum_route_with_fallback_stays_infallible() {
    let (config, _time) = config();
    let layer = BreakerLayer::new(config).http_fallback();
    let circuit = layer.circuit();
    let mut app: Router = Router::new().route("/", get(async || "fresh")).layer(layer);
    let get = || Request::new(axum::body::Body::empty());
    assert_eq!(call(&mut app, get()).await.unwrap().status(), StatusCode::OK);
    circuit.trip().unwrap();
    let response = call(&mut app, get()).await.unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(response.headers()["retry-after"], "30");
}

#[tokio::test]
async fn fallback_with_boxed_error_keeps_error_type() {
    let (config, _time) = config();
    let layer = BreakerLayer::new(config)
        .classify(Auto::<tower_breaker::fault_classify::classifiers::BoxedError>::new())
        .fallback(|text: &'static str, _: &Rejection| text.to_owned());
    layer.circuit().trip().unwrap();
    let inner = service_fn(async |_: &'static str| Err::<String, BoxError>("broken".into()));
    assert_eq!(call(&mut layer.layer(inner), "kept").await.unwrap(), "kept");
}
