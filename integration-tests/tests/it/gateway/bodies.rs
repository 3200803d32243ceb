//! Streaming bodies through the gateway.

use std::io;

use bytes::Bytes;
use integration_tests::reqwest_client;
use reqwest::{Body, Method};
use test_servers::Action;

use super::Gateway;

/// Returns the frames of a body of unknown length. Each frame has its number.
fn frames(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{number:->1000}")).collect()
}

/// Sends a streaming request, and returns the status.
async fn send(gateway: &Gateway, method: Method, count: usize) -> u16 {
    let body = frames(count).into_iter().map(io::Result::Ok);
    let request = reqwest_client().build().unwrap().request(method, format!("{}/orders/1", gateway.url));
    let response = request.body(Body::wrap_stream(tokio_stream::iter(body))).send().await.unwrap();
    response.status().as_u16()
}

#[tokio::test]
async fn stream_within_replay_limit_arrives_whole_each_time() {
    let gateway = Gateway::start().await;
    for failure in [Action::status(503), Action::ResetAfterRequest] {
        let before = gateway.orders.requests().len();
        gateway.orders.script([failure.clone(), failure.clone()]);
        assert_eq!(send(&gateway, Method::PUT, 50).await, 200, "{failure:?}");
        let requests = gateway.orders.requests().split_off(before);
        assert_eq!(requests.len(), 3);
        assert!(requests.iter().all(|request| request.body == frames(50).concat()), "{failure:?}");
    }
}

#[tokio::test]
async fn stream_over_replay_limit_arrives_whole_and_once() {
    let gateway = Gateway::start().await;
    gateway.orders.script([Action::status(503)]);
    assert_eq!(send(&gateway, Method::PUT, 1_000).await, 503);
    assert_eq!(send(&gateway, Method::PUT, 1_000).await, 200);
    let bodies: Vec<_> = gateway.orders.requests().into_iter().map(|request| request.body).collect();
    assert!(bodies == [Bytes::from(frames(1_000).concat()), Bytes::from(frames(1_000).concat())]);
}

#[tokio::test]
async fn post_already_sent_arrives_once() {
    for failure in [Action::status(500), Action::CloseAfterRequest, Action::status(429)] {
        let gateway = Gateway::start().await;
        gateway.orders.script([failure.clone()]);
        send(&gateway, Method::POST, 20).await;
        let requests = gateway.orders.requests();
        assert_eq!(requests.len(), 1, "{failure:?}");
        assert!(requests.iter().all(|request| request.body == frames(20).concat()), "{failure:?}");
    }
}

#[tokio::test]
async fn truncated_response_is_truncated_for_client() {
    let gateway = Gateway::start().await;
    gateway.orders.script([
        Action::status(200).body("half").content_length(8).then_close(),
        Action::status(200).body("half").chunked_without_end().then_close(),
    ]);
    for _ in 0..2 {
        let response =
            reqwest_client().build().unwrap().get(format!("{}/orders/1", gateway.url)).send().await.unwrap();
        assert_eq!(response.status(), 200);
        response.text().await.unwrap_err();
    }
    assert_eq!(gateway.orders.requests().len(), 2, "a response that has begun is not retried");
}
