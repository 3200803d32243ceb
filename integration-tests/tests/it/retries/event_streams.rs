//! Retries of event streams that break before their first event.

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use integration_tests::{TIMEOUT, reqwest_client, retry_at_once};
use test_servers::{Action, Http};
use tower::{Service, ServiceBuilder, ServiceExt};
use tower_fault_classify::body::{ErrorBodies, LlmErrors};
use tower_fault_classify::{CarriedVerdict, FaultClassifyLayer, Kind};
use tower_jitter_retry::{Budget, JitterRetryLayer};

const STREAM: &str = "event: message_start\ndata: {}\n\ndata: Hello\n\ndata: [DONE]\n\n";
const OVERLOADED: &str =
    "event: error\ndata: {\"type\": \"error\", \"error\": {\"type\": \"overloaded_error\"}}\n\n";

fn stream(text: &str) -> Action {
    Action::status(200).header("content-type", "text/event-stream").body(text).chunked()
}

/// A stream that is cut after this text.
fn broken(text: &str) -> Action {
    Action::status(200)
        .header("content-type", "text/event-stream")
        .body(text)
        .chunked_without_end()
        .then_close()
}

fn bodies() -> ErrorBodies<LlmErrors> {
    ErrorBodies::new(LlmErrors::new()).first_event_timeout(TIMEOUT)
}

/// What the caller of a request gets.
#[derive(Debug, PartialEq)]
struct Received {
    text: String,
    /// Whether the body broke after the text.
    broken: bool,
    kind: Option<Kind>,
    requests: usize,
}

fn clean(requests: usize) -> Received {
    Received { text: STREAM.to_owned(), broken: false, kind: None, requests }
}

/// Sends a request over reqwest to a server with this script. The response's type stays reqwest's.
async fn over_reqwest(script: Vec<Action>, method: reqwest::Method, budget: Option<Budget>) -> Received {
    let server = Http::start().await;
    server.script(script);
    server.set_default(stream(STREAM));
    let retry = JitterRetryLayer::new(retry_at_once().budget(budget).build().unwrap());
    let mut stack = ServiceBuilder::new()
        .layer(retry)
        .layer(FaultClassifyLayer::new().read_error_bodies(bodies()))
        .service(reqwest_client().build().unwrap());
    let request = reqwest::Request::new(method, server.url().parse().unwrap());
    let mut response: reqwest::Response = stack.ready().await.unwrap().call(request).await.unwrap();
    let kind = CarriedVerdict::get(&response).and_then(|verdict| Some(verdict.fault()?.kind()));
    let mut text = Vec::new();
    let broken = loop {
        match response.chunk().await {
            Ok(Some(chunk)) => text.extend_from_slice(&chunk),
            Ok(None) => break false,
            Err(_) => break true,
        }
    };
    Received { text: String::from_utf8(text).unwrap(), broken, kind, requests: server.requests().len() }
}

/// Sends a request over hyper-util.
async fn over_hyper_util(script: Vec<Action>, method: http::Method, budget: Option<Budget>) -> Received {
    let server = Http::start().await;
    server.script(script);
    server.set_default(stream(STREAM));
    let mut stack = ServiceBuilder::new()
        .layer(JitterRetryLayer::new(retry_at_once().budget(budget).build().unwrap()))
        .layer(FaultClassifyLayer::new().read_error_bodies(bodies()))
        .service(Client::builder(TokioExecutor::new()).build_http());
    let request = Request::builder().method(method).uri(server.url()).body(Full::<Bytes>::default()).unwrap();
    let response: Response<_> = stack.ready().await.unwrap().call(request).await.unwrap();
    let kind = CarriedVerdict::get(&response).and_then(|verdict| Some(verdict.fault()?.kind()));
    let (mut body, mut text) = (response.into_body(), Vec::new());
    let broken = loop {
        match body.frame().await {
            Some(Ok(frame)) => text.extend_from_slice(&frame.into_data().unwrap()),
            Some(Err(_)) => break true,
            None => break false,
        }
    };
    Received { text: String::from_utf8(text).unwrap(), broken, kind, requests: server.requests().len() }
}

/// What the retry budget grants.
#[derive(Clone, Copy)]
enum Retries {
    Unlimited,
    None,
}

impl Retries {
    fn budget(self) -> Option<Budget> {
        match self {
            Self::Unlimited => None,
            Self::None => Some(Budget::window().ratio(0.0).min_per_second(0.0).build().unwrap()),
        }
    }
}

/// Sends the same request over both clients, which must receive the same.
async fn received(script: Vec<Action>, method: http::Method, retries: Retries) -> Received {
    let first = over_reqwest(script.clone(), method.clone(), retries.budget()).await;
    assert_eq!(over_hyper_util(script, method, retries.budget()).await, first);
    first
}

#[tokio::test]
async fn stream_broken_before_first_event_is_sent_again() {
    for beginning in ["", ": ping\n\n", "event: message_start\ndata: {}\n"] {
        let received = received(vec![broken(beginning)], http::Method::GET, Retries::Unlimited).await;
        assert_eq!(received, clean(2), "{beginning}");
    }
    // A stream with a clean end, but without an event.
    let received = received(vec![stream(": ping\n\n")], http::Method::GET, Retries::Unlimited).await;
    assert_eq!(received, clean(2));
}

#[tokio::test]
async fn stream_overloaded_in_first_event_is_sent_again_for_post() {
    let received = received(vec![stream(OVERLOADED); 2], http::Method::POST, Retries::Unlimited).await;
    assert_eq!(received, clean(3));
}

#[tokio::test]
async fn broken_stream_of_post_is_not_sent_again() {
    let received = received(vec![broken(": ping\n\n")], http::Method::POST, Retries::Unlimited).await;
    let expected =
        Received { text: ": ping\n\n".to_owned(), broken: true, kind: Some(Kind::Transient), requests: 1 };
    assert_eq!(received, expected);
}

#[tokio::test]
async fn stream_broken_after_first_event_is_not_sent_again() {
    let beginning = "data: Hello\n\n";
    let received = received(vec![broken(beginning)], http::Method::GET, Retries::Unlimited).await;
    let expected = Received { text: beginning.to_owned(), broken: true, kind: None, requests: 1 };
    assert_eq!(received, expected);
}

#[tokio::test]
async fn caller_gets_last_stream_when_attempts_or_budget_are_exhausted() {
    let expected = |requests| Received {
        text: OVERLOADED.to_owned(),
        broken: false,
        kind: Some(Kind::Overloaded),
        requests,
    };
    let script = vec![stream(OVERLOADED); 5];
    assert_eq!(received(script.clone(), http::Method::GET, Retries::Unlimited).await, expected(3));
    assert_eq!(received(script, http::Method::GET, Retries::None).await, expected(1));
}

#[tokio::test]
async fn head_response_of_event_stream_is_success() {
    let server = Http::start().await;
    server.set_default(Action::status(200).header("content-type", "text/event-stream").content_length(100));
    let retry = JitterRetryLayer::new(retry_at_once().build().unwrap());
    let mut stack = ServiceBuilder::new()
        .layer(retry)
        .layer(FaultClassifyLayer::new().read_error_bodies(bodies()))
        .service(reqwest_client().build().unwrap());
    let request = reqwest::Request::new(http::Method::HEAD, server.url().parse().unwrap());
    let response = stack.ready().await.unwrap().call(request).await.unwrap();
    assert_eq!((CarriedVerdict::get(&response), server.requests().len()), (None, 1));
}
