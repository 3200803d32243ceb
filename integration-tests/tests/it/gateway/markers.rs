//! What a remote client can do about the gateway's retries: nothing.

use http::{HeaderMap, HeaderValue, Method};
use reqwest::Response;
use test_servers::{Action, RecordedRequest};

use super::{Gateway, MARKER};

const PREVIOUS: &str = "grpc-previous-rpc-attempts";

/// The answer that a remote client gets to a request with these headers, and what came to the
/// downstream.
async fn send(
    method: Method,
    act: Action,
    headers: &[(&'static str, &str)],
) -> (Response, Vec<RecordedRequest>) {
    let gateway = Gateway::start().await;
    gateway.orders.set_default(act);
    let mut request =
        reqwest::Client::new().request(method, format!("{}/orders/1", gateway.url)).body("an order");
    for &(name, value) in headers {
        request = request.header(name, value);
    }
    let response = request.send().await.unwrap();
    (response, gateway.orders.requests())
}

/// The values of a header, request by request.
fn values<'s>(seen: &'s [RecordedRequest], name: &str) -> Vec<Vec<&'s str>> {
    let values = |headers: &'s HeaderMap| headers.get_all(name).into_iter().map(text).collect();
    seen.iter().map(|seen| values(&seen.headers)).collect()
}

fn text(value: &HeaderValue) -> &str {
    value.to_str().unwrap()
}

/// All the marks that a remote client can forge over HTTP.
const FORGED: [(&str, &str); 4] =
    [(MARKER, "7"), (MARKER, "8"), (PREVIOUS, "9"), ("idempotency-key", "8e03978e")];

#[tokio::test]
async fn remote_idempotency_key_does_not_allow_post_retry() {
    for method in [Method::POST, Method::PATCH] {
        for status in [408, 421, 425, 429, 500, 502, 503, 504, 529] {
            let act = Action::status(status).header("x-should-retry", "true");
            let key = [("idempotency-key", "8e03978e")];
            let (response, seen) = send(method.clone(), act, &key).await;
            assert_eq!((response.status().as_u16(), seen.len()), (status, 1), "{method} {status}");
            assert_eq!(values(&seen, "idempotency-key"), [["8e03978e"]], "the downstream gets the key");
        }
        let (response, seen) =
            send(method, Action::ResetAfterRequest, &[("idempotency-key", "8e03978e")]).await;
        assert_eq!((response.status().as_u16(), seen.len()), (502, 1));
    }
}

#[tokio::test]
async fn forged_markers_are_removed_and_do_not_stop_retries() {
    for grpc in [false, true] {
        let content_type = if grpc { "application/grpc" } else { "text/plain" };
        let forged = [&FORGED[..], &[("content-type", content_type)]].concat();
        let (response, seen) = send(Method::PUT, Action::status(429), &forged).await;
        assert_eq!(response.status(), 429);
        assert_eq!(values(&seen, MARKER), [["1"], ["2"], ["3"]], "the gateway's own, once each");
        let previous: [&[&str]; 3] = if grpc { [&[], &["1"], &["2"]] } else { [&[], &[], &[]] };
        assert_eq!(values(&seen, PREVIOUS), previous);
    }
}

#[tokio::test]
async fn forged_markers_on_request_sent_once_are_removed() {
    for status in [200, 429, 503] {
        let (response, seen) = send(Method::POST, Action::status(status), &FORGED).await;
        assert_eq!((response.status().as_u16(), seen.len()), (status, 1));
        // It may be sent again if it was not sent, so that it bears the gateway's mark.
        assert_eq!(values(&seen, MARKER), [["1"]]);
        assert_eq!(values(&seen, PREVIOUS), [[""; 0]]);
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
