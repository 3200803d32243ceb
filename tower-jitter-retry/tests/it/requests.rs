//! The data that is kept of a request, and the requests that are sent again.

use std::convert::Infallible;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Method, Request, Response, Version};
use http_body_util::{BodyExt, Empty, Full};
use tower::{Layer, service_fn};
use tower_jitter_retry::replay::RetryBody;
use tower_jitter_retry::request::{Attempt, RetryRequest};
use tower_jitter_retry::{Budget, JitterRetryLayer, ReplayBody, RequestInfo};

use crate::support::{Broken, Calls, block_on, immediate, layer, request, response, send};

/// Counts its clones.
#[derive(Debug)]
struct Counted(Arc<AtomicUsize>);

impl Clone for Counted {
    fn clone(&self) -> Self {
        self.0.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(&self.0))
    }
}

impl RequestInfo for Counted {}

/// Returns how many times a request is cloned if its first `failures` attempts fail.
fn clones(attempts: u32, failures: usize) -> usize {
    let (calls, clones) = (Calls::default(), Arc::new(AtomicUsize::new(0)));
    let mut service =
        layer(immediate().max_attempts(attempts)).clone_requests().layer(service_fn(|_: Counted| {
            let call = calls.next();
            async move { if call <= failures { Err(Broken(call)) } else { Ok(()) } }
        }));
    let _ = block_on(send(&mut service, Counted(Arc::clone(&clones))));
    assert_eq!(calls.made(), (failures + 1).min(attempts as usize));
    clones.load(Ordering::SeqCst)
}

#[test]
fn request_is_not_cloned_when_no_retry_can_follow() {
    assert_eq!(clones(1, 0), 0);
    assert_eq!(clones(1, 1), 0);
}

#[test]
fn request_is_cloned_once_per_attempt_that_is_not_the_last() {
    assert_eq!(clones(3, 0), 1);
    assert_eq!(clones(3, 1), 2);
    assert_eq!(clones(10, 4), 5);
}

#[test]
fn request_is_not_cloned_for_last_attempt() {
    assert_eq!(clones(2, 2), 1);
    assert_eq!(clones(3, 2), 2);
    assert_eq!(clones(3, 3), 2);
}

#[test]
fn http_body_is_cloned_once_per_possible_attempt() {
    for (attempts, failures, expected) in [(1, 1, 0), (3, 0, 1), (3, 1, 2), (3, 3, 2)] {
        let (calls, clones) = (Calls::default(), Arc::new(AtomicUsize::new(0)));
        let mut service =
            layer(immediate().max_attempts(attempts)).layer(service_fn(|_: Request<Full<Noted>>| {
                let status = if calls.next() <= failures { 503 } else { 200 };
                async move { Ok::<_, io::Error>(response(status)) }
            }));
        let body = Full::new(Noted { _count: Counted(Arc::clone(&clones)), bytes: Bytes::from_static(b"x") });
        block_on(send(&mut service, Request::new(body))).unwrap();
        assert_eq!(clones.load(Ordering::SeqCst), expected);
    }
}

#[derive(Clone, Debug)]
struct Noted {
    _count: Counted,
    bytes: Bytes,
}

impl bytes::Buf for Noted {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
    }
}

/// Returns the requests that reach a server that always responds with 503.
fn sent<B: RetryBody + 'static>(request: Request<B>) -> Vec<Request<B>> {
    let sent = Mutex::new(Vec::new());
    let mut service = layer(immediate()).layer(service_fn(|request: Request<B>| {
        sent.lock().unwrap().push(request);
        async { Ok::<_, io::Error>(response(503)) }
    }));
    assert_eq!(block_on(send(&mut service, request)).unwrap().status(), 503);
    sent.into_inner().unwrap()
}

fn whole<B>(body: B) -> Request<B> {
    let mut request = Request::builder()
        .method(Method::PUT)
        .uri("https://example.org/orders/42?x=1")
        .version(Version::HTTP_2)
        .header("x-one", "1")
        .header("x-two", "2")
        .header("x-two", "3")
        .extension(Broken(42))
        .body(body)
        .unwrap();
    request.headers_mut().insert("content-length", 8.into());
    request
}

#[test]
fn request_is_sent_again_unchanged() {
    let sent = sent(whole("the body".to_owned()));
    assert_eq!(sent.len(), 3);
    for request in sent {
        let original = whole("the body".to_owned());
        assert_eq!(request.method(), original.method());
        assert_eq!(request.uri(), original.uri());
        assert_eq!(request.version(), original.version());
        assert_eq!(request.headers(), original.headers());
        assert_eq!(request.extensions().get(), Some(&Broken(42)));
        assert_eq!(request.body(), original.body());
    }
}

#[test]
fn full_body_is_sent_again_whole() {
    let long = Bytes::from(vec![7; 1_000_000]);
    let sent = sent(whole(Full::new(long.clone())));
    assert_eq!(sent.len(), 3);
    for request in sent {
        let mut body = task_body(request.into_body());
        assert_eq!(body.remove(0), long);
        assert!(body.is_empty());
    }
}

/// Returns the frames of a body that does not wait.
fn task_body<B>(mut body: B) -> Vec<B::Data>
where
    B: http_body_util::BodyExt + http_body::Body<Error = Infallible> + Unpin,
{
    let mut frames = Vec::new();
    while let Some(frame) = block_on(body.frame()) {
        let Ok(frame) = frame;
        frames.push(frame.into_data().unwrap_or_else(|_| panic!("unexpected trailers")));
    }
    frames
}

#[test]
fn full_body_read_by_server_is_sent_again_whole() {
    let bodies = Mutex::new(Vec::new());
    let mut service = layer(immediate()).layer(service_fn(|request: Request<Full<Bytes>>| {
        bodies.lock().unwrap().push(task_body(request.into_body()));
        async { Ok::<_, io::Error>(response(503)) }
    }));
    block_on(send(&mut service, whole(Full::new(Bytes::from_static(b"the body"))))).unwrap();
    assert_eq!(*bodies.lock().unwrap(), vec![vec![Bytes::from_static(b"the body")]; 3]);
}

#[test]
fn bodies_in_memory_are_sent_again() {
    assert_eq!(sent(whole(())).len(), 3);
    assert_eq!(sent(whole(Empty::<Bytes>::new())).len(), 3);
    assert!(sent(whole("the body")).iter().all(|request| *request.body() == "the body"));
    assert!(sent(whole(b"the body".to_vec())).iter().all(|request| request.body() == b"the body"));
    assert!(sent(whole(b"the body".as_slice())).iter().all(|request| request.body() == b"the body"));
    assert!(
        sent(whole(Bytes::from_static(b"the body"))).iter().all(|request| &**request.body() == b"the body")
    );
}

/// A body that cannot be sent again.
#[derive(Debug, PartialEq)]
struct Once(u32);

impl RetryBody for Once {
    type Saved = Infallible;

    fn save(&mut self, _: usize) -> Option<Infallible> {
        None
    }

    fn replay(saved: Infallible, _: bool) -> Option<(Self, Option<Infallible>)> {
        match saved {}
    }
}

#[test]
fn body_not_replayable_is_sent_once_unchanged() {
    let sent = sent(whole(Once(7)));
    assert_eq!(sent.len(), 1);
    assert_eq!(*sent[0].body(), Once(7));
    assert_eq!(sent[0].headers(), whole(Once(7)).headers());
    assert_eq!(sent[0].extensions().get(), Some(&Broken(42)));
}

/// A request that records the calls of its methods.
#[derive(Debug)]
struct ObservedHook {
    log: Arc<Mutex<Vec<String>>>,
    usable: bool,
    again: bool,
}

impl ObservedHook {
    fn twin(&self) -> Self {
        Self { log: Arc::clone(&self.log), ..*self }
    }

    fn note(&self, what: impl Into<String>) {
        self.log.lock().unwrap().push(what.into());
    }
}

impl RequestInfo for ObservedHook {}

impl RetryRequest for ObservedHook {
    type Saved = Self;

    fn save(&mut self, limit: usize) -> Option<Self> {
        self.note(format!("save {limit}"));
        Some(self.twin())
    }

    fn can_replay(saved: &Self) -> bool {
        saved.usable
    }

    fn replay(saved: &mut Option<Self>, attempt: Attempt, last: bool) -> Option<Self> {
        let request = saved.take()?;
        request.note(format!("replay {} {last}", attempt.number()));
        *saved = (!last).then(|| request.twin());
        request.again.then_some(request)
    }
}

/// Returns the recorded calls, how many times the request was sent, and the error of the call.
fn logged_call(attempts: u32, usable: bool, again: bool) -> (Vec<String>, usize, Broken) {
    let (calls, log) = (Calls::default(), Arc::<Mutex<Vec<String>>>::default());
    let mut service = layer(immediate().max_attempts(attempts)).layer(service_fn(|_: ObservedHook| {
        let call = calls.next();
        async move { Err::<(), _>(Broken(call)) }
    }));
    let error =
        block_on(send(&mut service, ObservedHook { log: Arc::clone(&log), usable, again })).unwrap_err();
    let log = log.lock().unwrap().clone();
    (log, calls.made(), error)
}

#[test]
fn replay_receives_attempt_number_and_last_flag() {
    let (log, calls, error) = logged_call(4, true, true);
    assert_eq!(log, ["save 65536", "replay 2 false", "replay 3 false", "replay 4 true"]);
    assert_eq!((calls, error), (4, Broken(4)));
}

#[test]
fn request_sent_once_is_not_saved() {
    assert_eq!(logged_call(1, true, true), (vec![], 1, Broken(1)));
}

#[test]
fn request_no_longer_usable_returns_last_outcome() {
    assert_eq!(logged_call(3, false, true), (vec!["save 65536".to_owned()], 1, Broken(1)));
}

#[test]
fn request_not_repeatable_returns_last_outcome() {
    let (log, calls, error) = logged_call(3, true, false);
    assert_eq!(log, ["save 65536", "replay 2 false"]);
    assert_eq!((calls, error), (1, Broken(1)));
}

#[test]
fn plain_requests_are_sent_again() {
    fn twice<R: RetryRequest + PartialEq + Clone + std::fmt::Debug + 'static>(request: R) {
        let sent = Mutex::new(Vec::new());
        let mut service = layer(immediate().max_attempts(2)).layer(service_fn(|request: R| {
            sent.lock().unwrap().push(request);
            async { Err::<(), _>(Broken(0)) }
        }));
        block_on(send(&mut service, request.clone())).unwrap_err();
        assert_eq!(*sent.lock().unwrap(), [request.clone(), request]);
    }
    twice(());
    twice(true);
    twice('x');
    twice(-7_i64);
    twice(0.5_f32);
    twice("ping");
    twice("ping".to_owned());
    twice(vec![1, 2, 3]);
    twice(Some("ping"));
    twice(Bytes::from_static(b"ping"));
}

/// reqwest clones such a body when it follows a 307 or 308.
#[cfg(feature = "reqwest")]
#[test]
fn reqwest_body_in_memory_stays_in_memory_in_each_attempt() {
    for text in ["", "the body"] {
        let sent = sent(whole(reqwest::Body::from(text)));
        assert_eq!(sent.len(), 3);
        for request in sent {
            assert_eq!(request.body().as_bytes(), Some(text.as_bytes()));
            assert_eq!(http_body::Body::size_hint(request.body()).exact(), Some(text.len() as u64));
        }
    }
}

/// Returns the data that the server reads in each attempt. In each attempt it reads the given
/// number of frames, and then responds with 503.
#[cfg(any(feature = "axum", feature = "reqwest", feature = "tonic"))]
fn read_by_frames<B>(body: B, frames: &[usize]) -> Vec<(Vec<u8>, bool)>
where
    B: RetryBody + http_body::Body<Data = Bytes> + Unpin + 'static,
    B::Error: std::fmt::Debug,
{
    let (read, calls) = (Mutex::new(Vec::new()), Calls::default());
    let policy = immediate().max_attempts(frames.len() as u32);
    let mut service = layer(policy).layer(service_fn(|request: Request<B>| {
        let (mut body, mut bytes, mut ended) = (request.into_body(), Vec::new(), false);
        for _ in 0..frames[calls.next() - 1] {
            match block_on(http_body_util::BodyExt::frame(&mut body)) {
                Some(frame) => bytes.extend(frame.unwrap().into_data().unwrap()),
                None => ended = true,
            }
        }
        read.lock().unwrap().push((bytes, ended));
        async { Ok::<_, io::Error>(response(503)) }
    }));
    assert_eq!(block_on(send(&mut service, whole(body))).unwrap().status(), 503);
    read.into_inner().unwrap()
}

/// Returns a body of three frames without a size hint.
#[cfg(any(feature = "axum", feature = "reqwest", feature = "tonic"))]
fn stream() -> three::Three {
    three::Three::default()
}

#[cfg(any(feature = "axum", feature = "reqwest", feature = "tonic"))]
fn is_sent_again<B>(make: impl Fn() -> B)
where
    B: RetryBody + http_body::Body<Data = Bytes> + Unpin + 'static,
    B::Error: std::fmt::Debug,
{
    let read = read_by_frames(make(), &[1, 2, 100]);
    let expected =
        [(b"one ".to_vec(), false), (b"one two ".to_vec(), false), (b"one two three".to_vec(), true)];
    assert_eq!(read, expected);
}

#[cfg(any(feature = "axum", feature = "reqwest", feature = "tonic"))]
mod three {
    use std::convert::Infallible;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use bytes::Bytes;
    use http_body::{Body, Frame};

    #[derive(Default)]
    pub(crate) struct Three(usize);

    impl Body for Three {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            let data = ["one ", "two ", "three"].get(self.0).copied();
            self.0 += 1;
            Poll::Ready(data.map(|data| Ok(Frame::data(data.into()))))
        }
    }
}

#[cfg(feature = "axum")]
#[test]
fn axum_body_is_sent_again_with_its_type() {
    use axum_core::body::Body;

    assert_eq!(sent(whole(Body::empty())).len(), 3);
    is_sent_again(|| Body::new(stream()));
}

#[cfg(feature = "tonic")]
#[test]
fn tonic_body_is_sent_again_with_its_type() {
    use tonic::body::Body;

    assert_eq!(sent(whole(Body::empty())).len(), 3);
    is_sent_again(|| Body::new(stream()));
}

#[cfg(feature = "reqwest")]
#[test]
fn reqwest_body_is_sent_again_with_its_type() {
    use reqwest::Body;

    assert_eq!(sent(whole(Body::default())).len(), 3);
    is_sent_again(|| Body::wrap(stream()));
}

#[cfg(feature = "reqwest")]
#[test]
fn reqwest_request_with_stream_is_sent_once() {
    let sent = Mutex::new(Vec::new());
    let mut service = layer(immediate()).layer(service_fn(|request: reqwest::Request| {
        sent.lock().unwrap().push(request);
        async { Ok::<_, io::Error>(response(503)) }
    }));
    let mut request = reqwest::Request::new(Method::PUT, "http://example.org/".parse().unwrap());
    *request.body_mut() = Some(reqwest::Body::wrap(stream()));
    block_on(send(&mut service, request)).unwrap();
    assert_eq!(sent.lock().unwrap().len(), 1);
}

#[cfg(feature = "reqwest")]
#[test]
fn reqwest_request_with_body_in_memory_is_sent_again() {
    for (method, sends) in [(Method::PUT, 3), (Method::POST, 1)] {
        let sent = Mutex::new(Vec::new());
        let mut service = layer(immediate()).layer(service_fn(|request: reqwest::Request| {
            sent.lock().unwrap().push(request);
            async { Ok::<_, io::Error>(response(503)) }
        }));
        let mut request = reqwest::Request::new(method, "http://example.org/orders/42".parse().unwrap());
        *request.body_mut() = Some("the body".into());
        request.headers_mut().insert("x-one", 1.into());
        block_on(send(&mut service, request)).unwrap();
        let sent = sent.into_inner().unwrap();
        assert_eq!(sent.len(), sends);
        for request in sent {
            assert_eq!(request.body().unwrap().as_bytes(), Some(b"the body".as_slice()));
            assert_eq!(request.headers()["x-one"], "1");
            assert_eq!(request.url().path(), "/orders/42");
        }
    }
}

#[test]
fn response_is_dropped_when_next_attempt_is_answered() {
    let alive = Arc::new(());
    let mut service = layer(immediate().max_attempts(9)).layer(service_fn(|_: Request<String>| {
        let (before, held) = (Arc::strong_count(&alive), Arc::clone(&alive));
        async move {
            assert!(before <= 2, "a response before the last one was not dropped");
            Ok::<_, io::Error>(Response::builder().status(503).body(held).unwrap())
        }
    }));
    let answer = block_on(send(&mut service, request(Method::GET))).unwrap();
    assert_eq!(Arc::strong_count(answer.body()), 2);
}

#[test]
fn streaming_body_is_sent_again_whole_or_once() {
    for (limit, expected) in [(1_024, 3), (4, 1)] {
        let bodies = Mutex::new(Vec::new());
        let mut service = layer(immediate().replay_limit(limit)).layer(service_fn(
            |request: Request<ReplayBody<Full<Bytes>>>| {
                bodies.lock().unwrap().push(block_on(request.into_body().collect()).unwrap().to_bytes());
                async { Ok::<_, io::Error>(response(503)) }
            },
        ));
        let body = ReplayBody::new(Full::new(Bytes::from_static(b"the body")));
        let answer = block_on(send(&mut service, Request::put("/").body(body).unwrap())).unwrap();
        assert_eq!(
            (answer.status().as_u16(), bodies.into_inner().unwrap()),
            (503, vec!["the body".into(); expected])
        );
    }
}

#[test]
fn request_clones_are_one_fewer_than_attempts() {
    #[derive(Debug)]
    struct Counted(Arc<AtomicUsize>);
    impl Clone for Counted {
        fn clone(&self) -> Self {
            self.0.fetch_add(1, Ordering::Relaxed);
            Self(Arc::clone(&self.0))
        }
    }
    impl RequestInfo for Counted {}
    for (attempts, expected) in [(1, 0), (2, 1), (3, 2)] {
        let clones = Arc::default();
        let mut service = JitterRetryLayer::new(immediate().max_attempts(attempts).build().unwrap())
            .clone_requests()
            .layer(service_fn(async |_: Counted| Err::<(), _>(Broken(0))));
        block_on(send(&mut service, Counted(Arc::clone(&clones)))).unwrap_err();
        assert_eq!(clones.load(Ordering::Relaxed), expected, "{attempts} attempts");
    }
}

/// A request whose replay fails, as `reqwest`'s `try_clone` may.
#[derive(Debug)]
struct ReplayFails;

impl RequestInfo for ReplayFails {}

impl RetryRequest for ReplayFails {
    type Saved = ();

    fn save(&mut self, _: usize) -> Option<()> {
        Some(())
    }

    fn replay(_: &mut Option<()>, _: Attempt, _: bool) -> Option<Self> {
        None
    }
}

#[test]
fn failed_request_clone_returns_last_outcome() {
    let calls = Calls::default();
    let budget = Budget::aws().build().unwrap();
    let policy = immediate().budget(budget).build().unwrap();
    let mut service = JitterRetryLayer::new(policy).layer(service_fn(|_: ReplayFails| {
        let call = calls.next();
        async move { Err::<(), _>(Broken(call)) }
    }));
    assert_eq!(block_on(send(&mut service, ReplayFails)), Err(Broken(1)));
}
