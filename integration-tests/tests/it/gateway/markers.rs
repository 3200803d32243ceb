//! A remote client cannot influence the gateway's retries.

use http::{HeaderMap, HeaderValue, Method};
use integration_tests::reqwest_client;
use reqwest::Response;
use test_servers::{Action, RecordedRequest};

use super::{Gateway, MARKER};

const PREVIOUS: &str = "grpc-previous-rpc-attempts";

/// Sends a request with these headers through the gateway. Returns the response and the requests
/// that the downstream service received.
async fn send(
    method: Method,
    action: Action,
    headers: &[(&'static str, &str)],
) -> (Response, Vec<RecordedRequest>) {
    let gateway = Gateway::start().await;
    gateway.orders.set_default(action);
    let mut request = reqwest_client()
        .build()
        .unwrap()
        .request(method, format!("{}/orders/1", gateway.url))
        .body("an order");
    for &(name, value) in headers {
        request = request.header(name, value);
    }
    let response = request.send().await.unwrap();
    (response, gateway.orders.requests())
}

/// Returns the values of a header in each request.
fn values<'s>(requests: &'s [RecordedRequest], name: &str) -> Vec<Vec<&'s str>> {
    let values = |headers: &'s HeaderMap| headers.get_all(name).into_iter().map(text).collect();
    requests.iter().map(|requests| values(&requests.headers)).collect()
}

fn text(value: &HeaderValue) -> &str {
    value.to_str().unwrap()
}

/// All markers that a remote client can forge over HTTP.
const FORGED: [(&str, &str); 4] =
    [(MARKER, "7"), (MARKER, "8"), (PREVIOUS, "9"), ("idempotency-key", "8e03978e")];

#[tokio::test]
async fn remote_idempotency_key_does_not_allow_post_retry() {
    for method in [Method::POST, Method::PATCH] {
        for status in [408, 421, 425, 429, 500, 502, 503, 504, 529] {
            let action = Action::status(status).header("x-should-retry", "true");
            let key = [("idempotency-key", "8e03978e")];
            let (response, requests) = send(method.clone(), action, &key).await;
            assert_eq!((response.status().as_u16(), requests.len()), (status, 1), "{method} {status}");
            assert_eq!(values(&requests, "idempotency-key"), [["8e03978e"]], "the key is forwarded");
        }
        let (response, requests) =
            send(method, Action::ResetAfterRequest, &[("idempotency-key", "8e03978e")]).await;
        assert_eq!((response.status().as_u16(), requests.len()), (502, 1));
    }
}

#[tokio::test]
async fn forged_markers_are_removed_and_do_not_stop_retries() {
    for grpc in [false, true] {
        let content_type = if grpc { "application/grpc" } else { "text/plain" };
        let forged = [&FORGED[..], &[("content-type", content_type)]].concat();
        let (response, requests) = send(Method::PUT, Action::status(429), &forged).await;
        assert_eq!(response.status(), 429);
        assert_eq!(values(&requests, MARKER), [["1"], ["2"], ["3"]], "the gateway sends its own marker once");
        let previous: [&[&str]; 3] = if grpc { [&[], &["1"], &["2"]] } else { [&[], &[], &[]] };
        assert_eq!(values(&requests, PREVIOUS), previous);
    }
}

#[tokio::test]
async fn forged_markers_on_request_sent_once_are_removed() {
    for status in [200, 429, 503] {
        let (response, requests) = send(Method::POST, Action::status(status), &FORGED).await;
        assert_eq!((response.status().as_u16(), requests.len()), (status, 1));
        // The gateway would retry this request if it was not sent, so it adds its own marker.
        assert_eq!(values(&requests, MARKER), [["1"]]);
        assert_eq!(values(&requests, PREVIOUS), [[""; 0]]);
    }
}

#[tokio::test]
async fn response_has_no_markers() {
    for (method, status) in [(Method::PUT, 429), (Method::PUT, 200), (Method::POST, 503)] {
        for headers in [&FORGED[..], &[]] {
            let (response, _) = send(method.clone(), Action::status(status), headers).await;
            assert_eq!(response.status(), status);
            assert!([MARKER, PREVIOUS].iter().all(|name| !response.headers().contains_key(*name)));
            assert_eq!(response.text().await.unwrap(), "");
        }
    }
}
