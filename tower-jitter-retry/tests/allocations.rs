//! The allocations of a call: none, except for the timer of a delay.

#[path = "it/support.rs"]
mod support;

use std::future::{Future, Ready, ready};
use std::pin::Pin;
use std::sync::Mutex;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use allocation_counter::measure;
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, Uri};
use http_body::Body;
use http_body_util::Full;
use tower::{Layer, Service, ServiceBuilder, service_fn};
use tower_breaker::{BreakerConfig, BreakerLayer};
use tower_jitter_retry::fault_classify::FaultClassifyLayer;
use tower_jitter_retry::replay::RetryBody;
use tower_jitter_retry::request::remove_marker;
use tower_jitter_retry::{
    Budget, JitterRetryLayer, ReplayBody, RetryPolicy, RetryPolicyBuilder, RetrySafety,
};

use support::{Broken, Calls, block_on, immediate, response, send};

/// Returns the number of allocations of one call, after a first call on the same thread.
fn allocations<S>(service: &mut S) -> u64
where
    S: Service<u32, Response = u32, Error = Broken>,
{
    let _ = block_on(send(service, 7));
    let allocated = measure(|| {
        let _ = block_on(send(service, 7));
    });
    allocated.count_total
}

fn succeeding(request: u32) -> Ready<Result<u32, Broken>> {
    ready(Ok(request))
}

fn failing(_: u32) -> Ready<Result<u32, Broken>> {
    ready(Err(Broken(0)))
}

#[test]
fn first_attempt_success_allocates_nothing() {
    let mut service = JitterRetryLayer::new(RetryPolicy::default()).layer(service_fn(succeeding));
    assert_eq!(block_on(send(&mut service, 7)), Ok(7));
    assert_eq!(allocations(&mut service), 0);
}

#[test]
fn retry_without_delay_allocates_nothing() {
    for budget in [None, Some(Budget::window().build().unwrap())] {
        for seeded in [false, true] {
            let calls = Calls::default();
            let mut policy = immediate().max_attempts(20).budget(budget.clone());
            if seeded {
                policy = policy.seed(7);
            }
            let mut service =
                JitterRetryLayer::new(policy.build().unwrap()).layer(service_fn(|request: u32| {
                    calls.next();
                    failing(request)
                }));
            assert_eq!(allocations(&mut service), 0);
            assert_eq!(calls.made(), 40, "the request was retried");
        }
    }
}

#[test]
fn retry_refused_by_budget_allocates_nothing() {
    let budget = Budget::window().ratio(0.0).min_per_second(0).build().unwrap();
    let mut service =
        JitterRetryLayer::new(immediate().budget(budget).build().unwrap()).layer(service_fn(failing));
    assert_eq!(allocations(&mut service), 0);
}

#[test]
fn request_sent_once_allocates_nothing() {
    let mut service =
        JitterRetryLayer::new(immediate().max_attempts(1).build().unwrap()).layer(service_fn(failing));
    assert_eq!(allocations(&mut service), 0);
}

/// Returns the number of allocations of a call with an HTTP request that succeeds on its first
/// attempt.
fn allocations_of<B: RetryBody + 'static>(policy: RetryPolicyBuilder, make: impl Fn() -> Request<B>) -> u64 {
    let mut service = JitterRetryLayer::new(policy.build().unwrap())
        .layer(service_fn(|_: Request<B>| ready(Ok::<_, Broken>(1_u32))));
    block_on(send(&mut service, make())).unwrap();
    let request = make();
    let allocated = measure(|| {
        block_on(send(&mut service, request)).unwrap();
    });
    allocated.count_total
}

/// The allocations of the usual mark in empty extensions: their box, and the map in it.
const MARK: u64 = 2;

/// The memory of the saved head is used again.
#[test]
fn http_request_allocates_mark_and_stream_handle() {
    let plain = || Request::new("the body");
    let with_headers =
        || Request::builder().header("x-one", "1").header("x-two", "2").body("the body").unwrap();
    let streaming = || Request::new(ReplayBody::new(Full::new(Bytes::from_static(b"the body"))));
    let unmarked = || immediate().marker(false);
    assert_eq!(allocations_of(unmarked(), plain), 0);
    assert_eq!(allocations_of(immediate(), plain), MARK);
    assert_eq!(allocations_of(unmarked(), with_headers), 0);
    assert_eq!(allocations_of(immediate(), with_headers), MARK);
    assert_eq!(allocations_of(unmarked(), streaming), 1, "only the handle, because no data was read");
    assert_eq!(allocations_of(immediate(), streaming), 1 + MARK);
    // In extensions that are not empty, the usual mark allocates nothing.
    let extended = || {
        let mut request = plain();
        request.extensions_mut().insert(7_u8);
        request
    };
    let extensions = measure(|| drop(extended().extensions().clone())).count_total
        - measure(|| drop(extended())).count_total;
    assert_eq!(allocations_of(immediate(), extended), extensions);
}

/// A server that fails this many calls, and then succeeds. Its calls are counted.
#[derive(Clone)]
struct Recovering {
    failures: usize,
    calls: Calls,
}

impl Service<Request<Full<Bytes>>> for Recovering {
    type Response = Response<Full<Bytes>>;
    type Error = Broken;
    type Future = Ready<Result<Self::Response, Broken>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Full<Bytes>>) -> Self::Future {
        let status = if self.calls.next().is_multiple_of(self.failures + 1) { 200 } else { 503 };
        let mut response = Response::new(Full::new(Bytes::from_static(b"{}")));
        *response.status_mut() = status.try_into().unwrap();
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        ready(Ok(response))
    }
}

/// Returns the number of allocations of one HTTP call through retry, breaker and classification,
/// with its request and its responses.
fn allocations_of_three_layers(policy: RetryPolicyBuilder, failures: usize, is_open: bool) -> u64 {
    let breaker = BreakerLayer::new(BreakerConfig::default());
    if is_open {
        breaker.circuit().force_open().unwrap();
    }
    let mut service = ServiceBuilder::new()
        .layer(JitterRetryLayer::new(policy.build().unwrap()))
        .layer(breaker)
        .layer(FaultClassifyLayer::new())
        .service(Recovering { failures, calls: Calls::default() });
    let mut call = || drop(block_on(send(&mut service, put_request())));
    // The second call is retried if the server fails: the memory of the headers is then shared.
    call();
    call();
    measure(call).count_total
}

fn put_request() -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::new(Bytes::from_static(b"the body")));
    *request.method_mut() = Method::PUT;
    *request.uri_mut() = Uri::from_static("http://example.org/orders/42");
    request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    request.headers_mut().insert(ACCEPT, HeaderValue::from_static("application/json"));
    request
}

#[test]
fn three_layers_over_http_allocate_mark_headers_and_history() {
    // The two parts of a header map.
    const HEADERS: u64 = 2;
    // The history of a call that was retried, in the empty extensions of its response.
    const RETRIED: u64 = 3;
    assert_eq!(measure(|| drop(put_request())).count_total, HEADERS);

    let success = |policy| allocations_of_three_layers(policy, 0, false) - 2 * HEADERS;
    assert_eq!(success(immediate()), MARK);
    assert_eq!(success(immediate().marker(false)), 0);

    // Three responses, and the requests of three attempts.
    let retried = |policy| allocations_of_three_layers(policy, 2, false) - 6 * HEADERS;
    assert_eq!(retried(immediate()), 3 * MARK + RETRIED);
    assert_eq!(retried(immediate().marker(false)), RETRIED);

    let rejected = |policy| allocations_of_three_layers(policy, 0, true) - HEADERS;
    assert_eq!(rejected(immediate()), MARK);
    assert_eq!(rejected(immediate().marker(false)), 0);
}

#[test]
fn http_request_sent_once_allocates_nothing() {
    let with_headers = || Request::builder().header("x-one", "1").body("the body").unwrap();
    assert_eq!(allocations_of(immediate().max_attempts(1), with_headers), 0);
    let marked = || {
        let mut request = with_headers();
        remove_marker(&mut request);
        request
    };
    assert_eq!(allocations_of(immediate().max_attempts(1), marked), 0);
}

#[test]
fn retry_paid_with_tokens_allocates_nothing() {
    let tokens = Budget::tokens().capacity(1_000);
    for budget in [tokens.build(), Budget::grpc().max_tokens(1_000).build(), Budget::aws().build()] {
        let budget = budget.unwrap();
        let policy = immediate().max_attempts(20).budget(budget).build().unwrap();
        let mut service = JitterRetryLayer::new(policy).layer(service_fn(failing));
        assert_eq!(allocations(&mut service), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn retry_with_delay_allocates_only_its_timer() {
    let policy = RetryPolicy::builder()
        .budget(None::<Budget>)
        .initial_backoff(Duration::from_secs(1))
        .build()
        .unwrap();
    let mut service = JitterRetryLayer::new(policy).layer(service_fn(failing));
    let _ = send(&mut service, 7).await;
    let mut call = tokio_test::task::spawn(send(&mut service, 7));
    let allocated = measure(|| assert!(call.poll().is_pending()));
    assert_eq!(allocated.count_total, 1);
}

/// Sends a request to a server that fails. Returns the bytes that one call allocates in addition to
/// its request, and how many times the request was sent.
fn copied<B: RetryBody + 'static>(policy: RetryPolicyBuilder, body: impl Fn() -> B) -> (u64, usize) {
    let calls = Calls::default();
    let mut service = JitterRetryLayer::new(policy.marker(false).build().unwrap()).layer(service_fn(
        |request: Request<B>| {
            calls.next();
            drop(request);
            ready(Err::<u32, _>(Broken(0)))
        },
    ));
    let request = || Request::put("/").body(body()).unwrap();
    block_on(send(&mut service, request())).unwrap_err();
    let warm = calls.made();
    let mut request = Some(request());
    let allocated = measure(|| {
        block_on(send(&mut service, request.take().unwrap())).unwrap_err();
    });
    (allocated.bytes_total, calls.made() - warm)
}

/// Returns a buffer whose clones are copies.
fn cursor(length: usize) -> Full<std::io::Cursor<Vec<u8>>> {
    Full::new(std::io::Cursor::new(vec![7; length]))
}

#[test]
fn body_in_memory_over_replay_limit_is_sent_once() {
    let policy = |limit| immediate().max_attempts(2).replay_limit(limit);
    for (limit, length, copies, sent) in
        [(1_000, 1_000, 1, 2), (1_000, 1_001, 0, 1), (0, 1, 0, 1), (0, 0, 0, 2)]
    {
        let expected = (copies * length as u64, sent);
        assert_eq!(copied(policy(limit), || "x".repeat(length)), expected, "string, {length} of {limit}");
        assert_eq!(copied(policy(limit), || vec![7_u8; length]), expected, "vector, {length} of {limit}");
        assert_eq!(copied(policy(limit), || cursor(length)), expected, "cursor, {length} of {limit}");
    }
}

#[test]
fn body_in_memory_with_shared_data_is_not_copied() {
    let policy = || immediate().replay_limit(0);
    let bytes = || {
        let bytes = Bytes::from(vec![7; 1_000_000]);
        // The first clone makes the data shared.
        drop(bytes.clone());
        bytes
    };
    assert_eq!(copied(policy(), bytes), (0, 3));
    assert_eq!(copied(policy(), || Full::new(bytes())), (0, 3));
    assert_eq!(copied(policy(), || "text"), (0, 3));
    assert_eq!(copied(policy(), || Full::new(b"text".as_slice())), (0, 3));
}

#[test]
fn body_in_memory_of_request_sent_once_is_not_copied() {
    let body = || "x".repeat(10_000);
    assert_eq!(copied(immediate().max_attempts(1), body), (0, 1));
    assert_eq!(copied(immediate().safety(RetrySafety::Never), body), (0, 1));
}

#[cfg(feature = "reqwest")]
#[test]
fn reqwest_body_in_memory_is_shared_not_copied() {
    let body = || {
        let bytes = Bytes::from(vec![7; 1_000_000]);
        drop(bytes.clone());
        reqwest::Body::from(bytes)
    };
    assert_eq!(copied(immediate().replay_limit(0), body), (0, 3));
}

#[cfg(feature = "tower-retry")]
#[test]
fn tower_policy_copies_body_in_memory_up_to_replay_limit() {
    use tower::retry::{Policy, RetryLayer};

    let made = |limit: usize| {
        let calls = Calls::default();
        let policy = immediate().max_attempts(2).replay_limit(limit).marker(false).build().unwrap();
        let mut service = RetryLayer::new(policy.for_tower()).layer(service_fn(|_: Request<String>| {
            calls.next();
            ready(Err::<u32, _>(Broken(0)))
        }));
        block_on(send(&mut service, Request::put("/").body("x".repeat(1_000)).unwrap())).unwrap_err();
        calls.made()
    };
    assert_eq!((made(1_000), made(999)), (2, 1));

    let policy = immediate().replay_limit(999).build().unwrap();
    let request = Request::put("/").body("x".repeat(1_000)).unwrap();
    let allocated = measure(|| {
        let mut policy = policy.for_tower();
        let duplicate = Policy::<_, u32, Broken>::clone_request(&mut policy, &request);
        assert!(duplicate.is_none());
    });
    assert!(allocated.bytes_total < 1_000, "{} bytes", allocated.bytes_total);
}

/// An upload that has sent one frame and waits for the rest.
struct StalledUpload(Option<Bytes>);

impl Body for StalledUpload {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Broken>>> {
        self.0.take().map_or(Poll::Pending, |data| Poll::Ready(Some(Ok(http_body::Frame::data(data)))))
    }
}

/// A server that responds with this status before the request's body is complete, and continues to
/// read.
fn responds_early(
    status: u16,
    running: &Mutex<Vec<ReplayBody<StalledUpload>>>,
) -> impl Service<
    Request<ReplayBody<StalledUpload>>,
    Response = Response<String>,
    Error = Broken,
    Future = impl Unpin,
> + Clone {
    service_fn(move |request: Request<ReplayBody<StalledUpload>>| {
        let mut body = request.into_body();
        let _ = Pin::new(&mut body).poll_frame(&mut Context::from_waker(Waker::noop()));
        running.lock().unwrap().push(body);
        ready(Ok(response(status)))
    })
}

#[test]
fn stream_after_response_keeps_no_replay_buffer() {
    const LARGE: usize = 60_000;
    const STREAMS: i64 = 200;
    let running = Mutex::new(Vec::with_capacity(600));
    let data = Bytes::from(vec![7; LARGE]);
    for status in [200, 503] {
        let mut service =
            JitterRetryLayer::new(immediate().build().unwrap()).layer(responds_early(status, &running));
        let held = measure(|| {
            for _ in 0..STREAMS {
                let request =
                    Request::put("/").body(ReplayBody::new(StalledUpload(Some(data.clone())))).unwrap();
                assert_eq!(block_on(send(&mut service, request)).unwrap().status(), status);
            }
        });
        let each = held.bytes_current / STREAMS;
        assert!(each < 1_024, "{each} bytes per stream after a response of {status}");
        running.lock().unwrap().clear();
    }
}

/// A future that is kept after it has returned its response holds no buffer.
#[test]
fn ended_future_keeps_no_replay_buffer() {
    let running = Mutex::new(Vec::with_capacity(3));
    let mut service =
        JitterRetryLayer::new(immediate().build().unwrap()).layer(responds_early(200, &running));
    let data = Bytes::from_static(&[7; 16_000]);
    let request = Request::put("/").body(ReplayBody::new(StalledUpload(Some(data)))).unwrap();
    let mut call = None;
    let held = measure(|| {
        let call = call.insert(Box::pin(service.call(request)));
        assert!(call.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready());
    });
    assert!(held.bytes_current < 4_096, "{} bytes", held.bytes_current);
}
