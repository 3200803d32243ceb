//! The layer that injects faults: which calls get one, and what they get.

mod bodies;

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use tokio::time::{Instant, timeout};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_fault_classify::test_util::{
    ErrorType, FaultInjection, FaultInjectionLayer, Injection, InjectionCounts, MatchRequest,
};
use tower_fault_classify::{
    BoxError, Fault, Health, Kind, Origin, Retryable, Verdict, classify_error, classify_response,
};

use crate::support::call::{now, send};

const SECOND: Duration = Duration::from_secs(1);

type Requests = Arc<AtomicUsize>;

/// A client that answers with the body `fine`, and counts its requests.
#[derive(Clone, Default)]
struct Client(Requests);

impl Service<Request<()>> for Client {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<()>) -> Self::Future {
        self.0.fetch_add(1, Ordering::Relaxed);
        std::future::ready(Ok(Response::new(Full::new(Bytes::from("fine")))))
    }
}

/// Returns a client below the layer, and the number of its requests.
fn layered<K: ErrorType, M: Clone>(
    layer: &FaultInjectionLayer<K, M>,
) -> (FaultInjection<Client, K, M>, Requests) {
    let client = Client::default();
    let requests = Arc::clone(&client.0);
    (layer.layer(client), requests)
}

fn count(requests: &Requests) -> usize {
    requests.load(Ordering::Relaxed)
}

fn counts(passed: u64, injected: u64) -> (u64, u64) {
    (passed, injected)
}

fn read(counts: InjectionCounts) -> (u64, u64) {
    (counts.passed, counts.injected)
}

/// Returns the verdict on the head of one call with the injection.
fn verdict(injection: Injection) -> Verdict {
    let (mut service, requests) = layered(&FaultInjectionLayer::new().inject(injection));
    let verdict = match now(send(&mut service, Request::new(()))) {
        Ok(response) => classify_response(&response),
        Err(error) => classify_error(&*error).into(),
    };
    assert_eq!(count(&requests), 0);
    verdict
}

#[test]
fn injection_of_each_kind_is_classified_as_that_kind() {
    let kinds = [
        Kind::Client,
        Kind::Auth,
        Kind::Conflict,
        Kind::Throttled,
        Kind::Timeout,
        Kind::Transient,
        Kind::Unavailable,
        Kind::Overloaded,
        Kind::Server,
        Kind::Protocol,
        Kind::Cancelled,
        Kind::Rejected,
        Kind::Local,
        Kind::Unknown,
    ];
    for kind in kinds {
        let verdict = verdict(Injection::kind(kind));
        assert_eq!(verdict.fault().map(Fault::kind), Some(kind), "{kind}");
    }
    let throttled = verdict(Injection::kind(Kind::Throttled));
    assert_eq!(throttled.fault().unwrap().retry_after(), Some(SECOND));
    let rejected = verdict(Injection::kind(Kind::Rejected));
    let rejected = rejected.fault().unwrap();
    assert_eq!(
        (rejected.retryable(), rejected.health(), rejected.origin()),
        (Retryable::Unsent, Health::Neutral, Origin::Local)
    );
}

#[cfg(feature = "llm")]
#[tokio::test]
async fn injected_quota_is_classified_by_its_body() {
    use tower_fault_classify::body::{ErrorBodies, LlmErrors};
    use tower_fault_classify::{CarriedVerdict, FaultClassifyLayer};

    let (service, _) = layered(&FaultInjectionLayer::new().inject(Injection::kind(Kind::Quota)));
    let layer = FaultClassifyLayer::new().read_error_bodies(ErrorBodies::new(LlmErrors::new()));
    let response = layer.layer(service).oneshot(Request::new(())).await.unwrap();
    assert_eq!(CarriedVerdict::get(&response).unwrap().fault().unwrap().kind(), Kind::Quota);
}

#[test]
fn refused_connection_is_unsent_and_broken_connection_is_not() {
    let refused = verdict(Injection::io_error(io::ErrorKind::ConnectionRefused));
    assert_eq!(refused.fault().unwrap().retryable(), Retryable::Unsent);
    let reset = verdict(Injection::io_error(io::ErrorKind::ConnectionReset));
    assert_eq!(reset.fault().unwrap().retryable(), Retryable::IfIdempotent);
}

#[test]
fn grpc_status_is_trailers_only_with_pushback() {
    let injection = Injection::grpc_status(14, "down").retry_after(Duration::from_millis(20));
    let unavailable = *verdict(injection).fault().unwrap();
    assert_eq!(unavailable.kind(), Kind::Unavailable);
    assert_eq!(unavailable.retry_after(), Some(Duration::from_millis(20)));
    assert!(unavailable.retry_after_is_exact());
}

#[test]
fn retry_after_is_in_injected_response() {
    let unavailable = verdict(Injection::status(503).retry_after(2 * SECOND));
    assert_eq!(unavailable.fault().unwrap().retry_after(), Some(2 * SECOND));
}

#[test]
fn response_and_error_of_closures_are_returned() {
    let teapot = || Response::builder().status(418).header("x-pot", "tea").body("short and stout").unwrap();
    let steps = [
        Injection::response(teapot),
        Injection::error(|| io::Error::other("of the test")),
        Injection::pass(),
    ];
    let layer = FaultInjectionLayer::typed::<io::Error>().script(steps.map(after_none));
    let mut service = layer.layer(service_fn(async |_: Request<()>| {
        Ok::<_, io::Error>(Response::new(Full::new(Bytes::from("fine"))))
    }));
    let response = now(send(&mut service, Request::new(()))).unwrap();
    assert_eq!((response.status().as_u16(), &response.headers()["x-pot"]), (418, &"tea".parse().unwrap()));
    assert_eq!(now(response.into_body().collect()).unwrap().to_bytes(), "short and stout");
    let error: io::Error = now(send(&mut service, Request::new(()))).unwrap_err();
    assert_eq!(error.to_string(), "of the test");
    let response = now(send(&mut service, Request::new(()))).unwrap();
    assert_eq!(now(response.into_body().collect()).unwrap().to_bytes(), "fine");
}

/// A delay of zero needs no timer and no runtime.
fn after_none<E>(injection: Injection<E>) -> Injection<E> {
    injection.delay(Duration::ZERO)
}

#[test]
fn layer_without_settings_changes_nothing() {
    let layer = FaultInjectionLayer::default();
    let handle = layer.handle();
    let (mut service, _) = layered(&layer);
    assert_eq!(now(send(&mut service, Request::new(()))).unwrap().status(), 200);
    assert_eq!(read(handle.counts()), counts(1, 0));
}

#[test]
fn infallible_service_stays_infallible() {
    let layer = FaultInjectionLayer::typed::<Infallible>().inject(Injection::status(500));
    let (mut service, _) = layered(&layer);
    let result: Result<_, Infallible> = now(send(&mut service, Request::new(())));
    assert_eq!(result.map(|response| response.status().as_u16()), Ok(500));
}

#[test]
fn disabled_layer_passes_calls_on_and_does_not_number_them() {
    let layer = FaultInjectionLayer::new().script([Injection::status(500), Injection::status(501)]);
    let handle = layer.handle();
    let (service, requests) = layered(&layer);
    let mut clone = service.clone();
    let mut status = || now(send(&mut clone, Request::new(()))).unwrap().status().as_u16();
    assert_eq!(status(), 500);
    handle.disable();
    assert!(!handle.clone().is_enabled());
    assert_eq!([status(), status()], [200, 200]);
    handle.enable();
    assert_eq!([status(), status()], [501, 200]);
    assert_eq!((read(handle.counts()), count(&requests)), (counts(3, 2), 3));
}

#[test]
fn only_matching_requests_are_numbered() {
    fn is_search(request: &Request<()>) -> bool {
        request.uri().path() == "/search"
    }
    let layer = FaultInjectionLayer::new().inject(Injection::status(500)).every_nth(2).matching(is_search);
    let handle = layer.handle();
    let (mut service, _) = layered(&layer);
    let mut status = |path: &str| {
        let request = Request::builder().uri(path).body(()).unwrap();
        now(send(&mut service, request)).unwrap().status().as_u16()
    };
    assert_eq!(
        [status("/search"), status("/other"), status("/other"), status("/search")],
        [200, 200, 200, 500]
    );
    assert_eq!(read(handle.counts()), counts(3, 1));
}

#[test]
fn clones_of_layer_and_services_share_numbers() {
    let layer = FaultInjectionLayer::new().inject(Injection::status(500)).every_nth(2);
    let (mut first, _) = layered(&layer.clone());
    let (mut second, _) = layered(&layer);
    let mut third = second.clone();
    let statuses = [
        now(send(&mut first, Request::new(()))).unwrap().status().as_u16(),
        now(send(&mut second, Request::new(()))).unwrap().status().as_u16(),
        now(send(&mut third, Request::new(()))).unwrap().status().as_u16(),
        now(send(&mut first, Request::new(()))).unwrap().status().as_u16(),
    ];
    assert_eq!(statuses, [200, 500, 200, 500]);
}

#[tokio::test(start_paused = true)]
async fn delay_precedes_call_and_injected_outcome() {
    let steps = [
        Injection::pass().delay(SECOND),
        Injection::status(503).delay(2 * SECOND),
        Injection::kind(Kind::Transient).delay(3 * SECOND),
    ];
    let (mut service, requests) = layered(&FaultInjectionLayer::new().script(steps));
    let mut elapsed = Vec::new();
    let mut outcomes = Vec::new();
    for _ in 0..3 {
        let start = Instant::now();
        let result = send(&mut service, Request::new(())).await;
        outcomes.push(result.map(|response| response.status().as_u16()).ok());
        elapsed.push(start.elapsed());
    }
    assert_eq!(elapsed, [SECOND, 2 * SECOND, 3 * SECOND]);
    assert_eq!((outcomes, count(&requests)), (vec![Some(200), Some(503), None], 1));
}

/// Returns the delays of ten calls.
async fn delays(seed: u64) -> Vec<Duration> {
    let injection = Injection::pass().delay_between(SECOND..=2 * SECOND);
    let (mut service, _) = layered(&FaultInjectionLayer::new().inject(injection).seed(seed));
    let mut delays = Vec::new();
    for _ in 0..10 {
        let start = Instant::now();
        send(&mut service, Request::new(())).await.unwrap();
        delays.push(start.elapsed());
    }
    delays
}

#[tokio::test(start_paused = true)]
async fn random_delays_are_in_range_and_reproducible() {
    let seven = delays(7).await;
    assert!(
        seven.iter().all(|delay| (SECOND..=2 * SECOND + Duration::from_millis(1)).contains(delay)),
        "{seven:?}"
    );
    assert!(seven.windows(2).any(|pair| pair[0] != pair[1]));
    assert_eq!(seven, delays(7).await);
    assert_ne!(seven, delays(8).await);
}

#[tokio::test(start_paused = true)]
async fn hanging_call_never_answers_and_releases_inner_service() {
    let (mut service, requests) =
        layered(&FaultInjectionLayer::new().inject(Injection::hang().delay(SECOND)));
    timeout(3_600 * SECOND, send(&mut service, Request::new(()))).await.expect_err("it hangs");
    assert_eq!(count(&requests), 0);
}

#[tokio::test(start_paused = true)]
async fn call_dropped_during_delay_is_not_passed_on() {
    let (mut service, requests) =
        layered(&FaultInjectionLayer::new().inject(Injection::pass().delay(2 * SECOND)));
    timeout(SECOND, send(&mut service, Request::new(()))).await.expect_err("the delay is longer");
    tokio::time::sleep(10 * SECOND).await;
    assert_eq!(count(&requests), 0);
}

/// A service whose readiness is a reservation that a clone does not have.
struct Reserved {
    /// The number of reservations that services hold.
    held: Arc<AtomicUsize>,
    has_one: bool,
}

impl Clone for Reserved {
    fn clone(&self) -> Self {
        Self { held: Arc::clone(&self.held), has_one: false }
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.held.fetch_sub(usize::from(self.has_one), Ordering::Relaxed);
    }
}

impl Service<Request<()>> for Reserved {
    type Response = Response<Full<Bytes>>;
    type Error = BoxError;
    type Future = std::future::Ready<Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.held.fetch_add(usize::from(!self.has_one), Ordering::Relaxed);
        self.has_one = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<()>) -> Self::Future {
        assert!(self.has_one, "the service is ready");
        self.has_one = false;
        self.held.fetch_sub(1, Ordering::Relaxed);
        std::future::ready(Ok(Response::default()))
    }
}

#[tokio::test(start_paused = true)]
async fn reservation_is_released_at_abort_and_used_after_delay() {
    let held = Arc::<AtomicUsize>::default();
    let steps =
        [Injection::status(503), Injection::hang(), Injection::pass().delay(SECOND), Injection::pass()];
    let layer = FaultInjectionLayer::new().script(steps);
    let mut service = layer.layer(Reserved { held: Arc::clone(&held), has_one: false });
    let mut left = Vec::new();
    let mut futures = Vec::new();
    for _ in 0..4 {
        futures.push(service.ready().await.unwrap().call(Request::new(())));
        left.push(held.load(Ordering::Relaxed));
    }
    assert_eq!(left, [0, 0, 1, 1]);
    assert_eq!(futures.swap_remove(2).await.unwrap().status(), 200);
    assert_eq!(held.load(Ordering::Relaxed), 0);
}

#[test]
fn readiness_error_of_inner_service_is_converted() {
    #[derive(Clone)]
    struct Closed;
    impl Service<Request<()>> for Closed {
        type Response = Response<Full<Bytes>>;
        type Error = io::Error;
        type Future = std::future::Pending<Result<Self::Response, io::Error>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), io::Error>> {
            Poll::Ready(Err(io::Error::other("closed")))
        }

        fn call(&mut self, _: Request<()>) -> Self::Future {
            std::future::pending()
        }
    }
    let mut service = FaultInjectionLayer::new().inject(Injection::status(500)).layer(Closed);
    let error: BoxError = now(send(&mut service, Request::new(()))).unwrap_err();
    assert_eq!(error.to_string(), "closed");
}

#[test]
fn debug_of_layer_prints_seed() {
    let text = format!("{:?}", FaultInjectionLayer::new().seed(4_711));
    assert!(text.contains("seed: 4711"), "{text}");
}

#[test]
#[should_panic(expected = "rate 1.5 is not valid")]
fn rate_above_one_panics() {
    let _ = FaultInjectionLayer::new().rate(1.5);
}

#[cfg(feature = "reqwest")]
#[test]
fn reqwest_response_has_url_of_request() {
    async fn client(_: reqwest::Request) -> Result<reqwest::Response, reqwest::Error> {
        Ok(Response::new("fine").into())
    }
    let mut service = FaultInjectionLayer::new().inject(Injection::status(503)).layer(service_fn(client));
    let url = reqwest::Url::parse("http://example.org/a?b=c").unwrap();
    let request = reqwest::Request::new(reqwest::Method::GET, url.clone());
    let response: reqwest::Response = now(send(&mut service, request)).unwrap();
    assert_eq!((response.status().as_u16(), response.url()), (503, &url));
}

/// The types of the layer are `Send` and `Sync` if their parts are.
#[test]
fn service_and_future_can_be_sent() {
    fn is_send<T: Send>(_: &T) {}
    fn is_future<T: Future + Send>(_: &T) {}
    fn has_matcher<M: MatchRequest<Request<()>>>(_: &M) {}
    has_matcher(&|_: &Request<()>| true);
    let (mut service, _) = layered(&FaultInjectionLayer::new());
    is_send(&service);
    is_future(&service.call(Request::new(())));
}
