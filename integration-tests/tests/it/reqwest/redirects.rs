//! reqwest follows redirects below the stack. A chain of redirects is one attempt, classified by
//! its last response.

use std::time::Duration;

use bytes::Bytes;
use integration_tests::reqwest_client;
use reqwest::redirect::Policy;
use reqwest::{Body, Method, Request};
use test_servers::{Action, Http};
use tower::ServiceBuilder;
use tower_fault_classify::FaultClassifyLayer;
use tower_jitter_retry::{Jitter, JitterRetryLayer, RetryPolicy};

use super::{send, stack};

/// Sends a request. Returns the status, and method, path and body of each request at the server.
async fn sent(method: Method, actions: Vec<Action>) -> (u16, Vec<(Method, String, Bytes)>) {
    let server = Http::start().await;
    server.script(actions);
    let mut request = Request::new(method, format!("{}/first", server.url()).parse().unwrap());
    *request.body_mut() = Some("the body".into());
    let answer = send(&mut stack(reqwest_client().build().unwrap()), request).await.unwrap();
    let received =
        server.requests().into_iter().map(|received| (received.method, received.path, received.body));
    (answer.status().as_u16(), received.collect())
}

fn to(status: u16, path: &str) -> Action {
    Action::status(status).header("location", path)
}

fn row(method: Method, path: &str, body: &'static str) -> (Method, String, Bytes) {
    (method, path.to_owned(), Bytes::from(body))
}

#[tokio::test]
async fn retry_after_redirect_starts_at_first_url() {
    let actions = vec![to(307, "/second"), Action::status(503), to(307, "/third"), Action::status(200)];
    let (status, received) = sent(Method::PUT, actions).await;
    let paths: Vec<_> = received.iter().map(|(_, path, _)| &**path).collect();
    assert_eq!((status, paths), (200, vec!["/first", "/second", "/first", "/third"]));
    assert!(received.iter().all(|(_, _, body)| body == "the body"), "{received:?}");
}

#[tokio::test]
async fn post_redirected_as_get_is_retried_as_post() {
    let actions = vec![to(303, "/receipt"), Action::status(503)];
    let (status, received) = sent(Method::POST, actions).await;
    assert_eq!(status, 503);
    assert_eq!(received, [row(Method::POST, "/first", "the body"), row(Method::GET, "/receipt", "")]);
}

/// Clients that accept an `http::Request` convert it to a `reqwest::Request`.
#[tokio::test]
async fn body_in_memory_after_307_and_308_below_retry_is_resent() {
    let server = Http::start().await;
    let policy = RetryPolicy::builder().initial_backoff(Duration::ZERO).jitter(Jitter::None).build().unwrap();
    let mut stack = ServiceBuilder::new()
        .layer(JitterRetryLayer::new(policy))
        .layer(FaultClassifyLayer::new())
        .map_request(|request: http::Request<Body>| Request::try_from(request).unwrap())
        .service(reqwest_client().build().unwrap());
    for status in [307, 308] {
        for method in [Method::POST, Method::PUT] {
            let before = server.requests().len();
            server.script([to(status, "/second"), Action::status(200)]);
            let request =
                http::Request::builder().method(method.clone()).uri(format!("{}/first", server.url()));
            let request = request.body(Body::from("the body")).unwrap();
            let answer = send(&mut stack, request).await.unwrap();
            assert_eq!(answer.status(), 200, "{status} {method}");
            for (received, path) in server.requests()[before..].iter().zip(["/first", "/second"]) {
                assert_eq!(
                    (&*received.path, &received.body),
                    (path, &Bytes::from("the body")),
                    "{status} {method}"
                );
                assert_eq!(received.headers["content-length"], "8", "{status} {method}");
            }
        }
    }
    assert_eq!(server.requests().len(), 8);

    // A retry starts at the first URL again, and its redirects are followed as well.
    server.script([Action::status(503), to(307, "/second"), Action::status(200)]);
    let request = http::Request::put(format!("{}/first", server.url())).body(Body::from("the body")).unwrap();
    assert_eq!(send(&mut stack, request).await.unwrap().status(), 200);
    assert!(server.requests().iter().all(|received| received.body == "the body"));
}

#[tokio::test]
async fn redirect_that_is_not_followed_is_a_response() {
    let server = Http::start().await;
    server.set_default(to(307, "/second"));
    let mut stack = stack(reqwest_client().redirect(Policy::none()).build().unwrap());
    let request = Request::new(Method::GET, server.url().parse().unwrap());
    assert_eq!(send(&mut stack, request).await.unwrap().status(), 307);
    assert_eq!(server.requests().len(), 1);
}
