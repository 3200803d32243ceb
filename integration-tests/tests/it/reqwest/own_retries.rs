//! The retries of reqwest and of hyper-util, and their effect on a stack around them.
//!
//! reqwest resends a request that an HTTP/2 server refused, at most twice for each attempt of a
//! retry layer: the attempts multiply. With `reqwest::retry::never()`, only the stack retries.
//! hyper-util resends a request whose kept connection was closed before anything was written. No
//! server has received that request, so no attempt is counted twice.

use integration_tests::{reqwest_client, reqwest_with_own_retries};
use reqwest::{Method, Request};
use test_servers::{Action, Grpc, Http, Reason, Reply};

use super::{send, stack};

fn request(method: Method, url: &str) -> Request {
    let mut request = Request::new(method, url.parse().unwrap());
    *request.body_mut() = Some("once".into());
    request
}

/// Sends one request to an HTTP/2 server that always sends `reply`. Returns the number of requests
/// that the server received.
async fn request_count(client: reqwest::ClientBuilder, method: Method, reply: Reply) -> usize {
    let server = Grpc::start().await;
    server.set_default(reply);
    let client = client.no_proxy().http2_prior_knowledge().build().unwrap();
    send(&mut stack(client), request(method, &server.url())).await.unwrap_err();
    server.requests().len()
}

#[tokio::test]
async fn refused_stream_with_reqwest_retries_is_sent_nine_times() {
    let refused = || Reply::nothing().rst_stream(Reason::REFUSED_STREAM);
    assert_eq!(request_count(reqwest_with_own_retries(), Method::PUT, refused()).await, 9);
    assert_eq!(request_count(reqwest_client(), Method::PUT, refused()).await, 3);
    // reqwest follows redirects, and does not report which hop refused the stream. The layer
    // therefore does not retry a POST.
    assert_eq!(request_count(reqwest_with_own_retries(), Method::POST, refused()).await, 3);
    assert_eq!(request_count(reqwest_client(), Method::POST, refused()).await, 1);
}

#[tokio::test]
async fn post_maybe_processed_with_reqwest_retries_is_sent_once() {
    let shutdown = || Reply::nothing().go_away_at_once(Reason::NO_ERROR);
    assert_eq!(request_count(reqwest_with_own_retries(), Method::POST, shutdown()).await, 1);
    assert_eq!(request_count(reqwest_client(), Method::POST, shutdown()).await, 1);
}

#[tokio::test]
async fn closed_kept_connection_costs_no_attempt() {
    let server = Http::start().await;
    let client = reqwest_client().build().unwrap();
    let mut stack = stack(client);
    for connection in 1..=20 {
        server.script([Action::status(200).then_close()]);
        send(&mut stack, request(Method::POST, &server.url())).await.unwrap();
        assert_eq!(server.requests().len(), connection, "each POST is sent once");
    }
    assert!(server.requests().iter().all(|request| request.body == "once"));
}
