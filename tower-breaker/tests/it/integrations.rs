//! Rejections as texts, errors, axum responses and tonic statuses; and fallbacks in their place.

use std::convert::Infallible;
use std::error::Error;
use std::future::{Ready, pending, ready};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::error_handling::HandleErrorLayer;
use axum::http::{Request, Response, StatusCode};
use axum::response::IntoResponse;
use axum::routing::get;
use futures::{FutureExt, StreamExt};
use http_body_util::BodyExt;
use tokio_test::{assert_pending, assert_ready, assert_ready_ok, task};
use tonic::{Code, Status};
use tower::{BoxError, Layer, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_breaker::fault_classify::{
    ClassifiedError, ErrorChain, Origin, Retryable, classify_error, classify_response,
};
use tower_breaker::keyed::{KeyedBreakerLayer, KeyedConfig};
use tower_breaker::{
    BreakerConfig, BreakerError, BreakerLayer, Circuit, CircuitRegistry, CircuitState, Fault, Health, Kind,
    ManualClock, Mode, Rejection, Verdict,
};

use crate::support::{FAILURE, OPEN_FOR, config, timed};

fn circuit(name: &'static str) -> (Circuit, ManualClock) {
    let (config, time) = timed(config().name(name));
    (Circuit::new(config), time)
}

/// Returns the rejection of a circuit that stays open for `left`.
fn rejection(left: Duration) -> Rejection {
    let (circuit, time) = circuit("billing");
    circuit.trip().unwrap();
    time.advance(OPEN_FOR.checked_sub(left).unwrap());
    let rejection = circuit.try_acquire().unwrap_err();
    assert_eq!(rejection.retry_after(), Some(left));
    rejection
}

fn forced() -> Rejection {
    let (circuit, _time) = circuit("billing");
    circuit.force_open().unwrap();
    circuit.try_acquire().unwrap_err()
}

fn until_reset() -> Rejection {
    let (config, _time) = timed(config().name("billing").open_until_reset(true));
    let circuit = Circuit::new(config);
    circuit.trip().unwrap();
    circuit.try_acquire().unwrap_err()
}

/// Returns whether the fault is a rejection: not retried and not counted.
fn is_rejected(fault: &Fault, retry_after: Option<Duration>) -> bool {
    let axes = (fault.kind(), fault.retryable(), fault.health(), fault.origin());
    axes == (Kind::Rejected, Retryable::Never, Health::Neutral, Origin::Local)
        && fault.retry_after() == retry_after
}

#[test]
fn rejection_display_names_circuit_state_and_retry_after() {
    let text = rejection(Duration::from_secs(20)).to_string();
    assert_eq!(text, "circuit breaker `billing` is open; retry after 20 s");
    assert_eq!(forced().to_string(), "circuit breaker `billing` is forced open until it is released");
    assert_eq!(until_reset().to_string(), "circuit breaker `billing` is open until it is reset");
    let (circuit, time) = circuit("billing");
    circuit.trip().unwrap();
    time.advance(OPEN_FOR);
    let _probes: Vec<_> = (0..3).map(|_| circuit.try_acquire().unwrap()).collect();
    let rejection = circuit.try_acquire().unwrap_err();
    assert_eq!(rejection.to_string(), "circuit breaker `billing` is half-open; retry after 1 s");
}

#[test]
fn control_error_display_names_next_step() {
    let (forced, _time) = circuit("billing");
    forced.force_closed().unwrap();
    let text = forced.trip().unwrap_err().to_string();
    assert!(
        text.contains("`billing`") && text.contains("forced closed") && text.contains("release"),
        "{text}"
    );
    let disabled = Circuit::new(config().mode(Mode::Disabled).build().unwrap());
    let text = disabled.force_open().unwrap_err().to_string();
    assert!(text.contains("disabled") && text.contains("configure another mode"), "{text}");
    let text = CircuitRegistry::new(BreakerConfig::default()).trip("biling").unwrap_err().to_string();
    assert!(text.contains("`biling`") && text.contains("no circuit"), "{text}");
}

#[test]
fn missed_display_has_number_of_transitions() {
    let (circuit, _time) = circuit("billing");
    let mut transitions = circuit.transitions();
    for _ in 0..150 {
        circuit.trip().unwrap();
        circuit.reset().unwrap();
    }
    let missed = transitions.next().now_or_never().unwrap().unwrap().unwrap_err();
    assert_eq!(missed.transitions(), 44);
    assert!(missed.to_string().contains("44"), "{missed}");
    let _: &(dyn Error + Send + Sync) = &missed;
}

#[test]
fn breaker_error_display_and_source_have_inner_error_once() {
    let error = BreakerError::<io::Error>::Rejected(rejection(OPEN_FOR));
    let inner = BreakerError::Inner(io::Error::other("connection closed"));
    let rejected = "circuit breaker `billing` is open; retry after 30 s";
    for (error, text) in [(&error as &(dyn Error + 'static), rejected), (&inner, "connection closed")] {
        assert_eq!(error.to_string(), text);
        assert_eq!(ErrorChain(error).to_string(), text, "the chain has the text once");
    }
    assert!(
        chain(&error).any(<dyn Error>::is::<Rejection>) && chain(&inner).any(<dyn Error>::is::<io::Error>)
    );
    assert!(inner.rejection().is_none());
    assert_eq!(inner.into_inner().unwrap().to_string(), "connection closed");
    assert!(error.rejection().is_some() && error.into_inner().is_none());
}

fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

#[test]
fn error_around_rejection_is_classified_as_rejected() {
    let error = BreakerError::<io::Error>::Rejected(rejection(OPEN_FOR));
    assert!(chain(&error).any(<dyn Error>::is::<ClassifiedError>));
    assert!(is_rejected(&classify_error(&error), Some(OPEN_FOR)));
    assert!(is_rejected(&classify_error(&rejection(OPEN_FOR)), Some(OPEN_FOR)));
    assert!(is_rejected(&classify_error(&forced()), None));
    let boxed: BoxError = error.into();
    assert!(
        is_rejected(&classify_error(&io::Error::other(boxed)), Some(OPEN_FOR)),
        "wrapped by another error"
    );
    let nested = BreakerError::Inner(BreakerError::<io::Error>::Rejected(forced()));
    assert!(is_rejected(&classify_error(&nested), None), "an outer breaker over an inner one");
    let inner = BreakerError::Inner(io::Error::from(io::ErrorKind::ConnectionRefused));
    assert_eq!(classify_error(&inner).kind(), Kind::Unavailable, "an inner error is classified by itself");
}

/// Returns the error of a call that timed out.
async fn timed_out() -> BreakerError<StatusCode> {
    let circuit = Circuit::new(BreakerConfig::default());
    let hangs = pending::<Result<(), io::Error>>();
    let Err(BreakerError::TimedOut(error)) = circuit.call_within(Duration::from_secs(5), hangs).await else {
        panic!("the call must time out");
    };
    BreakerError::TimedOut(error)
}

#[tokio::test(start_paused = true)]
async fn timed_out_call_is_504_with_verdict() {
    let response = timed_out().await.into_response();
    assert_eq!(response.status(), StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(classify_response(&response).fault().unwrap().kind(), Kind::Timeout);
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(&body[..], b"call timed out after 5 s");
}

#[tokio::test(start_paused = true)]
async fn timed_out_call_is_grpc_deadline_exceeded_with_source() {
    let BreakerError::TimedOut(error) = timed_out().await else { panic!("the call must time out") };
    let status = Status::from(BreakerError::<Status>::TimedOut(error));
    assert_eq!((status.code(), status.message()), (Code::DeadlineExceeded, "call timed out after 5 s"));
    assert_eq!(classify_error(&status).kind(), Kind::Timeout);
}

fn retry_after<B>(response: &Response<B>) -> Option<&str> {
    Some(response.headers().get("retry-after")?.to_str().unwrap())
}

/// Times until a call is admitted, and their `Retry-After` in whole seconds.
const SECONDS: [(Duration, &str); 7] = [
    (Duration::from_secs(30), "30"),
    (Duration::from_secs(20), "20"),
    (Duration::from_nanos(19_000_000_001), "20"),
    (Duration::from_millis(1_001), "2"),
    (Duration::from_secs(1), "1"),
    (Duration::from_millis(999), "1"),
    (Duration::from_nanos(1), "1"),
];

#[tokio::test]
async fn rejection_is_503_with_text_and_retry_after() {
    for (left, seconds) in SECONDS {
        let response = rejection(left).into_response();
        assert_eq!(
            (response.status(), retry_after(&response)),
            (StatusCode::SERVICE_UNAVAILABLE, Some(seconds))
        );
        let verdict = classify_response(&response);
        assert!(is_rejected(verdict.fault().unwrap(), Some(left)), "{verdict:?}");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let text = std::str::from_utf8(&body).unwrap();
        assert!(text.starts_with("circuit breaker `billing` is open; retry after "), "{text}");
    }
    for rejection in [forced(), until_reset()] {
        let response = rejection.into_response();
        assert_eq!((response.status(), retry_after(&response)), (StatusCode::SERVICE_UNAVAILABLE, None));
        assert!(is_rejected(classify_response(&response).fault().unwrap(), None));
    }
}

#[test]
fn breaker_error_is_converted_to_response_of_inner_error() {
    let rejected = BreakerError::<StatusCode>::Rejected(rejection(OPEN_FOR)).into_response();
    assert_eq!((rejected.status(), retry_after(&rejected)), (StatusCode::SERVICE_UNAVAILABLE, Some("30")));
    let inner = BreakerError::Inner(StatusCode::IM_A_TEAPOT).into_response();
    assert_eq!((inner.status(), retry_after(&inner)), (StatusCode::IM_A_TEAPOT, None));
}

#[tokio::test]
async fn axum_router_responds_with_breaker_error() {
    let layer: BreakerLayer = BreakerLayer::new(BreakerConfig::default());
    let circuit = layer.circuit();
    let stack = ServiceBuilder::new()
        .layer(HandleErrorLayer::new(async |error: BreakerError<Infallible>| error))
        .layer(layer);
    let router = Router::new().route("/", get(async || StatusCode::OK)).layer(stack);
    let get = || router.clone().oneshot(Request::get("/").body(Body::empty()).unwrap());
    assert_eq!(get().await.unwrap().status(), StatusCode::OK);
    circuit.force_open().unwrap();
    let response = get().await.unwrap();
    assert_eq!((response.status(), retry_after(&response)), (StatusCode::SERVICE_UNAVAILABLE, None));
}

fn pushback(status: &Status) -> Option<&str> {
    Some(status.metadata().get("grpc-retry-pushback-ms")?.to_str().unwrap())
}

/// Times until a call is admitted, and their pushback in milliseconds.
const MILLIS: [(Duration, &str); 4] = [
    (Duration::from_secs(30), "30000"),
    (Duration::from_millis(1_001), "1001"),
    (Duration::from_nanos(1_000_001), "2"),
    (Duration::from_nanos(1), "1"),
];

#[test]
fn rejection_is_grpc_unavailable_with_pushback_and_source() {
    for (left, millis) in MILLIS {
        let status = Status::from(rejection(left));
        assert_eq!((status.code(), pushback(&status)), (Code::Unavailable, Some(millis)));
        assert!(status.message().contains("`billing`"), "{}", status.message());
        assert!(chain(&status).any(<dyn Error>::is::<Rejection>));
        assert!(is_rejected(&classify_error(&status), Some(left)), "{:?}", classify_error(&status));
    }
    let status = Status::from(forced());
    assert_eq!((status.code(), pushback(&status)), (Code::Unavailable, Some("-1")));
    assert!(is_rejected(&classify_error(&status), None));
}

#[test]
fn breaker_error_is_converted_to_grpc_status_of_inner_error() {
    let status = Status::from(BreakerError::<Status>::Rejected(rejection(OPEN_FOR)));
    assert_eq!((status.code(), pushback(&status)), (Code::Unavailable, Some("30000")));
    let status = Status::from(BreakerError::Inner(Status::not_found("no such bill")));
    assert_eq!((status.code(), status.message()), (Code::NotFound, "no such bill"));
}

#[test]
fn boxed_rejection_is_unavailable_to_generated_client() {
    let boxes: [(&str, BoxError); 4] = [
        ("breaker over a typed error", BreakerError::<io::Error>::Rejected(rejection(OPEN_FOR)).into()),
        ("breaker over a status", BreakerError::<Status>::Rejected(rejection(OPEN_FOR)).into()),
        ("rejection without a breaker error", rejection(OPEN_FOR).into()),
        (
            "wrapped by another layer",
            io::Error::other(BreakerError::<io::Error>::Rejected(rejection(OPEN_FOR))).into(),
        ),
    ];
    for (name, error) in boxes {
        let found = chain(error.as_ref()).find_map(|error| error.downcast_ref::<Status>());
        assert_eq!(found.map(Status::code), Some(Code::Unavailable), "{name}");
        assert!(
            is_rejected(&classify_error(error.as_ref()), Some(OPEN_FOR)),
            "{name}: the verdict is a rejection"
        );
        assert_eq!(Status::from_error(error).code(), Code::Unavailable, "{name}");
    }
    let until_released: BoxError = BreakerError::<io::Error>::Rejected(forced()).into();
    assert_eq!(Status::from_error(until_released).code(), Code::Unavailable);
    let inner: BoxError = BreakerError::Inner(Status::not_found("no such bill")).into();
    let status = Status::from_error(inner);
    assert_eq!((status.code(), status.message()), (Code::NotFound, "no such bill"));
}

/// A service that responds with the request, and counts its calls.
#[derive(Clone, Default)]
struct Echo(Arc<AtomicUsize>);

impl<T> Service<T> for Echo {
    type Response = Response<T>;
    type Error = Infallible;
    type Future = Ready<Result<Response<T>, Infallible>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Infallible>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: T) -> Self::Future {
        self.0.fetch_add(1, Ordering::Relaxed);
        ready(Ok(Response::new(request)))
    }
}

/// Makes one call, which must complete immediately.
fn call<S: Service<T>, T>(service: &mut S, request: T) -> Result<S::Response, S::Error> {
    assert!(task::spawn(()).enter(|cx, _| service.poll_ready(cx)).is_ready());
    assert_ready!(task::spawn(service.call(request)).poll())
}

#[test]
fn http_503_is_empty_with_retry_after() {
    for (left, seconds) in SECONDS {
        let (config, time) = timed(config());
        let layer = BreakerLayer::new(config).http_fallback();
        let mut service = layer.layer(Echo::default());
        assert_eq!(call(&mut service, String::from("a")).unwrap().status(), StatusCode::OK);
        layer.circuit().trip().unwrap();
        time.advance(OPEN_FOR.checked_sub(left).unwrap());
        let response = call(&mut service, String::from("a")).unwrap();
        assert_eq!(
            (response.status(), retry_after(&response)),
            (StatusCode::SERVICE_UNAVAILABLE, Some(seconds))
        );
        assert!(response.body().get_ref().is_none());
        assert!(is_rejected(classify_response(&response).fault().unwrap(), Some(left)));
        layer.circuit().force_open().unwrap();
        let response = call(&mut service, String::from("a")).unwrap();
        assert_eq!((response.status(), retry_after(&response)), (StatusCode::SERVICE_UNAVAILABLE, None));
        assert_eq!(
            service.get_ref().0.load(Ordering::Relaxed),
            1,
            "the inner service was not called for the rejected calls"
        );
    }
}

#[test]
fn grpc_unavailable_is_in_head_with_pushback() {
    for (left, millis) in MILLIS {
        let (config, time) = timed(config().name("bücher 100%"));
        let layer = BreakerLayer::new(config).grpc_fallback();
        let mut service = layer.layer(Echo::default());
        layer.circuit().trip().unwrap();
        time.advance(OPEN_FOR.checked_sub(left).unwrap());
        for (force, millis, left) in [(false, millis, Some(left)), (true, "-1", None)] {
            if force {
                layer.circuit().force_open().unwrap();
            }
            let response = call(&mut service, String::from("a")).unwrap();
            assert_eq!((response.status(), response.body().get_ref()), (StatusCode::OK, None));
            assert_eq!(response.headers()["content-type"], "application/grpc");
            let status = Status::from_header_map(response.headers()).unwrap();
            assert_eq!((status.code(), pushback(&status)), (Code::Unavailable, Some(millis)));
            assert!(status.message().contains("`bücher 100%`"), "{}", status.message());
            let verdict = classify_response(&response);
            assert!(is_rejected(verdict.fault().unwrap(), left), "{verdict:?}");
        }
    }
}

#[test]
fn outer_breaker_does_not_count_fallbacks_of_inner_one() {
    let outer: BreakerLayer = BreakerLayer::new(BreakerConfig::default());
    let http = BreakerLayer::new(BreakerConfig::default()).http_fallback();
    http.circuit().force_open().unwrap();
    let mut service = outer.layer(http.layer(Echo::default()));
    (0..20).for_each(|_| assert_eq!(call(&mut service, String::new()).unwrap().status(), 503));
    let grpc = BreakerLayer::new(BreakerConfig::default()).grpc_fallback();
    grpc.circuit().force_open().unwrap();
    let mut service = outer.layer(grpc.layer(Echo::default()));
    (0..20).for_each(|_| assert_eq!(call(&mut service, String::new()).unwrap().status(), 200));
    let without_fallback: BreakerLayer = BreakerLayer::new(BreakerConfig::default());
    without_fallback.circuit().force_open().unwrap();
    let mut service = outer.layer(without_fallback.layer(Echo::default()));
    for _ in 0..20 {
        let error = call(&mut service, String::new()).unwrap_err();
        assert!(matches!(error, BreakerError::Inner(BreakerError::Rejected(_))));
    }
    let status = outer.circuit().status();
    assert_eq!(
        (status.state, status.window.calls, status.consecutive_failures),
        (CircuitState::Closed, 0, 0)
    );
}

#[test]
fn fallback_gets_request_and_rejection() {
    let (config, _time) = timed(config().name("words").consecutive_failures(2));
    let layer = BreakerLayer::new(config).fallback(|word: String, rejection: &Rejection| {
        format!("{word} of {} in {:?}", rejection.circuit(), rejection.retry_after().unwrap())
    });
    let mut service = layer.layer(service_fn(async |word: String| match word.as_str() {
        "bad" => Err(io::Error::from(io::ErrorKind::TimedOut)),
        _ => Ok(word.to_uppercase()),
    }));
    assert_eq!(call(&mut service, "good".to_owned()).unwrap(), "GOOD");
    for _ in 0..2 {
        let error: io::Error = call(&mut service, "bad".to_owned()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut, "the fallback does not replace an inner error");
    }
    assert_eq!(call(&mut service, "good".to_owned()).unwrap(), "good of words in 30s");
}

#[test]
fn fallback_panic_propagates_and_is_not_counted() {
    let (config, time) = timed(config());
    let layer = BreakerLayer::new(config).fallback(|(), _: &Rejection| panic!("no fallback"));
    let mut service = layer.layer(service_fn(async |()| Ok::<(), io::Error>(())));
    layer.circuit().trip().unwrap();
    let epoch = || layer.circuit().status().last_transition.unwrap().epoch;
    let opened = epoch();
    for _ in 0..20 {
        catch_unwind(AssertUnwindSafe(|| call(&mut service, ()))).unwrap_err();
    }
    assert_eq!(epoch(), opened);
    time.advance(OPEN_FOR);
    let probes: Vec<_> = (0..3).map(|_| layer.circuit().try_acquire().expect("a free slot")).collect();
    for _ in 0..20 {
        catch_unwind(AssertUnwindSafe(|| call(&mut service, ()))).unwrap_err();
    }
    for probe in probes {
        probe.record(Verdict::Success);
    }
    call(&mut service, ()).unwrap();
}

#[test]
fn fallback_async_may_fail_and_is_dropped_with_call() {
    let (config, _time) = timed(config());
    let dropped = Arc::new(());
    let held = Arc::clone(&dropped);
    let layer = BreakerLayer::new(config).fallback_async(move |key: u32, _: Rejection| {
        let held = Arc::clone(&held);
        async move {
            match key {
                0 => pending().await,
                1 => Err(io::Error::other("not cached")),
                _ => Ok(()),
            }
            .inspect(|()| drop(held))
        }
    });
    let mut service = layer.layer(service_fn(async |_: u32| Ok::<(), io::Error>(())));
    layer.circuit().trip().unwrap();
    assert_eq!(call(&mut service, 1).unwrap_err().to_string(), "not cached");
    call(&mut service, 2).unwrap();
    let mut hangs = task::spawn(service.call(0));
    let others = Arc::strong_count(&dropped);
    assert_pending!(hangs.poll());
    drop(hangs);
    assert_eq!(Arc::strong_count(&dropped), others - 1);
    let status = layer.circuit().status();
    assert_eq!((status.state, status.window.cancelled), (CircuitState::Open, 0), "fallbacks are not counted");
    layer.circuit().reset().unwrap();
    call(&mut service, 1).expect("a closed circuit calls the inner service");
}

#[test]
fn keyed_layer_has_same_fallbacks() {
    let key = |request: &String| request.len();
    let config = || KeyedConfig::builder(timed(config()).0).build().unwrap();
    let force =
        |circuit: Option<tower_breaker::keyed::KeyedCircuit<usize>>| circuit.unwrap().force_open().unwrap();

    let layer = KeyedBreakerLayer::new(config(), key).http_fallback();
    force(layer.circuits().get_or_insert(3));
    let mut service = layer.layer(Echo::default());
    assert_eq!(call(&mut service, "bad".to_owned()).unwrap().status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(call(&mut service, "good".to_owned()).unwrap().status(), StatusCode::OK);

    let layer = KeyedBreakerLayer::new(config(), key).grpc_fallback();
    force(layer.circuits().get_or_insert(3));
    let response = call(&mut layer.layer(Echo::default()), "bad".to_owned()).unwrap();
    assert_eq!(response.headers()["grpc-status"], "14");

    let layer = KeyedBreakerLayer::new(config(), key)
        .fallback(|request: String, _: &Rejection| Response::new(format!("no {request}")));
    force(layer.circuits().get_or_insert(3));
    assert_eq!(call(&mut layer.layer(Echo::default()), "bad".to_owned()).unwrap().body(), "no bad");

    let layer = KeyedBreakerLayer::new(config(), key)
        .fallback_async(async |request: String, _: Rejection| Ok(Response::new(format!("no {request}"))));
    force(layer.circuits().get_or_insert(3));
    assert_eq!(call(&mut layer.layer(Echo::default()), "bad".to_owned()).unwrap().body(), "no bad");
}

#[test]
fn keyed_call_that_waits_gets_fallback_when_circuit_opens() {
    let config = KeyedConfig::builder(timed(config()).0).build().unwrap();
    let layer = KeyedBreakerLayer::new(config, |request: &String| request.len())
        .fallback(|request: String, _: &Rejection| Response::new(format!("no {request}")));
    let inner = tower::limit::ConcurrencyLimit::new(Echo::default(), 0);
    let mut waiting = task::spawn(layer.layer(inner).call("bad".to_owned()));
    assert_pending!(waiting.poll());
    layer.circuits().get(&3).unwrap().try_acquire().unwrap().record(FAILURE);
    assert_pending!(waiting.poll());
    layer.circuits().get(&3).unwrap().trip().unwrap();
    assert!(waiting.is_woken());
    assert_eq!(assert_ready_ok!(waiting.poll()).body(), "no bad");
}

#[tokio::test]
async fn axum_router_keyed_by_path_stays_infallible() {
    fn path(request: &Request<Body>) -> &str {
        request.uri().path()
    }
    let each = config().consecutive_failures(2).build().unwrap();
    let layer = KeyedBreakerLayer::by_ref(KeyedConfig::builder(each).build().unwrap(), path);
    let circuits = layer.circuits();
    let router = Router::new()
        .route("/failing", get(async || StatusCode::INTERNAL_SERVER_ERROR))
        .route("/healthy", get(async || StatusCode::OK))
        .layer(layer.http_fallback());
    let status = async |path: &str| {
        let request = Request::get(path).body(Body::empty()).unwrap();
        // `tokio::spawn` requires the future to be `Send`.
        tokio::spawn(router.clone().oneshot(request)).await.unwrap().unwrap().status()
    };
    for _ in 0..2 {
        assert_eq!(status("/failing").await, StatusCode::INTERNAL_SERVER_ERROR);
    }
    assert_eq!(status("/failing").await, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(status("/healthy").await, StatusCode::OK);
    assert_eq!(circuits.get("/failing").unwrap().status().state, CircuitState::Open);
}

#[tokio::test]
async fn keyed_rejection_response_does_not_name_key() {
    let each = config().name("tenants").build().unwrap();
    let layer =
        KeyedBreakerLayer::<_, _>::new(KeyedConfig::builder(each).build().unwrap(), |(): &()| "secret");
    let circuit = layer.circuits().get_or_insert("secret").unwrap();
    circuit.force_open().unwrap();
    let rejected = || circuit.try_acquire().unwrap_err();
    assert!(rejected().to_string().contains("for key `secret`"));
    let text = "circuit breaker `tenants` is forced open until it is released";
    assert_eq!(Status::from(rejected()).message(), text);
    let body = rejected().into_response().into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, text);
    // A generated client finds this status among the sources.
    let error = BreakerError::<io::Error>::Rejected(rejected());
    let status = chain(&error).find_map(|error| error.downcast_ref::<Status>()).unwrap();
    assert_eq!(status.message(), text);
}
