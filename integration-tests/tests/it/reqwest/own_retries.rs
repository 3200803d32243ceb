//! What reqwest and hyper-util send again by themselves, and what that makes of a stack above.
//!
//! reqwest resends what an HTTP/2 server says that it did not look at, twice at most, each time a
//! retry above asks it: the attempts multiply. With `reqwest::retry::never()` the stack alone
//! decides. hyper-util resends a request that found its kept connection closed before anything was
//! written: nobody has seen that one, so that no attempt is counted twice.

use integration_tests::reqwest_client;
use reqwest::{Client, Method, Request};
use test_servers::{Action, Grpc, Http, Reason, Reply};

use super::{send, stack};

fn request(method: Method, url: &str) -> Request {
    let mut request = Request::new(method, url.parse().unwrap());
    *request.body_mut() = Some("once".into());
    request
}

/// How often a server that answers every request with `reply` over HTTP/2 is asked by one request.
async fn asked(client: reqwest::ClientBuilder, method: Method, reply: Reply) -> usize {
    let server = Grpc::start().await;
    server.set_default(reply);
    let client = client.no_proxy().http2_prior_knowledge().build().unwrap();
    send(&mut stack(client), request(method, &server.url())).await.unwrap_err();
    server.requests().len()
}

#[tokio::test]
async fn refused_stream_with_reqwest_retries_is_sent_nine_times() {
    let refused = || Reply::nothing().rst_stream(Reason::REFUSED_STREAM);
    assert_eq!(asked(Client::builder(), Method::PUT, refused()).await, 9);
    assert_eq!(asked(reqwest_client(), Method::PUT, refused()).await, 3);
    // reqwest follows redirects, and does not say which hop refused the stream: the layer does not
    // send a POST again.
    assert_eq!(asked(Client::builder(), Method::POST, refused()).await, 3);
    assert_eq!(asked(reqwest_client(), Method::POST, refused()).await, 1);
}

#[tokio::test]
async fn post_maybe_processed_with_reqwest_retries_is_sent_once() {
    let gone = || Reply::nothing().go_away_at_once(Reason::NO_ERROR);
    assert_eq!(asked(Client::builder(), Method::POST, gone()).await, 1);
    assert_eq!(asked(reqwest_client(), Method::POST, gone()).await, 1);
}

#[tokio::test]
async fn closed_kept_connection_costs_no_attempt() {
    let server = Http::start().await;
    let client = reqwest_client().build().unwrap();
    let mut stack = stack(client);
    for connection in 1..=20 {
        server.script([Action::status(200).then_close()]);
        send(&mut stack, request(Method::POST, &server.url())).await.unwrap();
        assert_eq!(server.requests().len(), connection, "each POST came once");
    }
    assert!(server.requests().iter().all(|request| request.body == "once"));
}
