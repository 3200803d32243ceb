//! Retries over reqwest's `Client`.

use integration_tests::{TIMEOUT, reqwest_client, retry_at_once};
use reqwest::{Body, Method, Request};
use test_servers::{Action, Http};
use tower::{Service, ServiceBuilder, ServiceExt};
use tower_fault_classify::FaultClassifyLayer;
use tower_fault_classify::body::{ErrorBodies, LlmErrors};
use tower_jitter_retry::{JitterRetryLayer, Retried};

use super::hyper_client::Stream;

fn request(method: Method, server: &Http) -> Request {
    let mut request = Request::new(method, server.url().parse().unwrap());
    *request.body_mut() = Some("the body".into());
    request
}

/// Sends a request. Returns the status, the number of attempts and the number of requests.
async fn sent(request: Request, server: &Http) -> (u16, u32, usize) {
    let before = server.requests().len();
    let mut stack = ServiceBuilder::new()
        .layer(JitterRetryLayer::new(retry_at_once().build().unwrap()))
        .layer(FaultClassifyLayer::new())
        .timeout(TIMEOUT)
        .service(reqwest_client().build().unwrap());
    let answer = stack.ready().await.unwrap().call(request).await.unwrap();
    let attempts = answer.extensions().get::<Retried>().map_or(1, |retried| retried.attempts);
    (answer.status().as_u16(), attempts, server.requests().len() - before)
}

#[tokio::test]
async fn server_failing_n_times_gets_n_plus_one_requests() {
    let server = Http::start().await;
    for failures in 0..5_usize {
        server.script(std::iter::repeat_n(Action::status(503), failures));
        server.script([Action::status(200)]);
        let (status, attempts, request_count) = sent(request(Method::PUT, &server), &server).await;
        let expected = if failures < 3 { (200, failures + 1) } else { (503, 3) };
        assert_eq!(
            (status, attempts as usize, request_count),
            (expected.0, expected.1, expected.1),
            "{failures}"
        );
        // Removes the rest of the script.
        while server.remaining() > 0 {
            sent(request(Method::POST, &server), &server).await;
        }
    }
    assert!(server.requests().iter().all(|request| request.body == "the body"));
}

#[tokio::test]
async fn post_is_sent_once_unless_rule_allows_more() {
    let server = Http::start().await;
    server.set_default(Action::status(503));
    assert_eq!(sent(request(Method::POST, &server), &server).await, (503, 1, 1));
    let mut keyed = request(Method::POST, &server);
    keyed.headers_mut().insert("idempotency-key", "8e03978e".parse().unwrap());
    assert_eq!(sent(keyed, &server).await, (503, 3, 3));
    server.set_default(Action::status(429).header("retry-after", "0"));
    assert_eq!(sent(request(Method::POST, &server), &server).await, (429, 3, 3));
    server.set_default(Action::status(503).header("x-should-retry", "false"));
    assert_eq!(sent(request(Method::PUT, &server), &server).await, (503, 1, 1));
}

#[tokio::test]
async fn request_with_stream_over_reqwest_is_sent_once() {
    let server = Http::start().await;
    server.set_default(Action::status(503));
    let mut streaming = request(Method::PUT, &server);
    *streaming.body_mut() = Some(Body::wrap(Stream::of(["the ", "body"])));
    assert_eq!(sent(streaming, &server).await, (503, 1, 1));
    assert_eq!(server.requests()[0].body, "the body");
}

#[tokio::test]
async fn three_nested_retry_layers_send_three_requests() {
    let server = Http::start().await;
    server.set_default(Action::status(503));
    let layer = || JitterRetryLayer::new(retry_at_once().build().unwrap());
    let mut stack = ServiceBuilder::new()
        .layer(layer())
        .layer(layer())
        .layer(layer())
        .timeout(TIMEOUT)
        .service(reqwest_client().build().unwrap());
    stack.ready().await.unwrap().call(request(Method::GET, &server)).await.unwrap();
    assert_eq!(server.requests().len(), 3);
    assert!(server.requests().iter().all(|request| !request.headers.contains_key("x-attempt")));
}

/// The retry layer reads the available part of an error body before the retry, so that the
/// connection can be used again.
#[tokio::test]
async fn retries_with_read_error_bodies_reuse_connection() {
    let server = Http::start().await;
    server.script([Action::status(503).body("x".repeat(3_000)), Action::status(503).body("y".repeat(3_000))]);
    let bodies = ErrorBodies::new(LlmErrors::new()).timeout(TIMEOUT);
    let mut stack = ServiceBuilder::new()
        .layer(JitterRetryLayer::new(retry_at_once().build().unwrap()))
        .layer(FaultClassifyLayer::new().read_error_bodies(bodies))
        .timeout(TIMEOUT)
        .service(reqwest_client().build().unwrap());
    let answer = stack.ready().await.unwrap().call(request(Method::GET, &server)).await.unwrap();
    assert_eq!((answer.status().as_u16(), server.requests().len()), (200, 3));
    let connections: Vec<_> = server.requests().iter().map(|request| request.connection).collect();
    assert_eq!(connections, [1, 1, 1]);
}
