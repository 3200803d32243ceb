//! Connections that are lost while they are idle or during a request.
//!
//! The client itself behaves as follows. Its option `retry_canceled_requests` is on by default:
//!
//! - It does not take a connection from the pool that is known to be closed.
//! - If a kept connection turns out to be closed *before a byte of the request was written*, the
//!   client sends the request on another connection, whatever its method. This is not another
//!   attempt, and the layers above do not notice it. With the option off, the caller gets the
//!   error.
//! - If a part of the request was written, the client never sends it again, whatever its method.
//!   The caller gets the error.
//! - The client does not resend a request on a new connection either, even if nothing was written.
//!
//! A retry layer above therefore sees only requests that were written, and retries only those that
//! are idempotent.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use test_servers::{Action, Http};
use tower::{Service, ServiceBuilder, ServiceExt};
use tower_breaker::{BreakerConfig, BreakerLayer, Clock, Counts};
use tower_fault_classify::{FaultClassifyLayer, Kind, classify_error};
use tower_jitter_retry::{Jitter, JitterRetryLayer, RetryPolicy};

/// The results of several requests that were sent one after the other.
#[derive(Debug, PartialEq, Eq)]
struct Observed {
    /// The status of each request, or the kind of its fault.
    results: Vec<Result<u16, Kind>>,
    /// The number of attempts, counted directly around the client.
    attempts: usize,
    /// The number of requests that the server has read. All of them have the tested method.
    requests: usize,
}

fn client() -> Client<HttpConnector, Full<Bytes>> {
    Client::builder(TokioExecutor::new()).build_http()
}

/// Sends requests through the layers to a server with this script.
async fn send(
    client: Client<HttpConnector, Full<Bytes>>,
    method: Method,
    times: usize,
    actions: &[Action],
) -> (Observed, Counts) {
    let server = Http::start().await;
    server.script(actions.to_vec());
    let attempts = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&attempts);
    let policy = RetryPolicy::builder()
        .initial_backoff(std::time::Duration::ZERO)
        .jitter(Jitter::None)
        .build()
        .unwrap();
    let config = BreakerConfig::builder().name("kept").clock(Clock::manual().0).build().unwrap();
    let breaker = BreakerLayer::new(config);
    let circuit = breaker.circuit();
    let mut stack = ServiceBuilder::new()
        .layer(JitterRetryLayer::new(policy))
        .layer(breaker)
        .layer(FaultClassifyLayer::new())
        .map_request(move |request: Request<Full<Bytes>>| {
            counter.fetch_add(1, Ordering::Relaxed);
            request
        })
        .service(client);
    let mut results = Vec::new();
    for _ in 0..times {
        let request = Request::builder().method(&method).uri(server.url()).body(Full::from("once")).unwrap();
        match stack.ready().await.unwrap().call(request).await {
            Ok(response) => {
                results.push(Ok(response.status().as_u16()));
                // Reads the body to its end, so that the client keeps the connection.
                response.into_body().collect().await.unwrap();
            }
            Err(error) => results.push(Err(classify_error(&error).kind())),
        }
    }
    assert_eq!(server.remaining(), 0);
    let requests = server.requests();
    assert!(requests.iter().all(|request| request.method == method && request.body == "once"));
    let observed = Observed { results, attempts: attempts.load(Ordering::Relaxed), requests: requests.len() };
    (observed, circuit.status().window)
}

/// The server reads the request, and the kept connection breaks. The server may have processed the
/// request, so only an idempotent one is retried.
#[tokio::test]
async fn post_on_kept_connection_that_breaks_is_sent_once() {
    for fault in [Action::ResetAfterRequest, Action::CloseAfterRequest] {
        let actions = [Action::status(200), fault.clone(), Action::status(200)];
        let (observed, window) = send(client(), Method::POST, 3, &actions).await;
        let results = vec![Ok(200), Err(Kind::Transient), Ok(200)];
        assert_eq!(observed, Observed { results, attempts: 3, requests: 3 }, "{fault:?}");
        assert_eq!((window.calls, window.failures), (3, 1));

        let (observed, window) = send(client(), Method::PUT, 2, &actions).await;
        assert_eq!(observed, Observed { results: vec![Ok(200); 2], attempts: 3, requests: 3 }, "{fault:?}");
        assert_eq!((window.calls, window.failures), (3, 1));
    }
}

/// The server does not read the request. The client has written it, so it cannot exclude that the
/// server processed it.
#[tokio::test]
async fn post_written_but_never_read_is_sent_once() {
    let actions = [Action::status(200), Action::ResetBeforeRequest];
    let (observed, _) = send(client(), Method::POST, 2, &actions).await;
    assert_eq!(observed, Observed { results: vec![Ok(200), Err(Kind::Transient)], attempts: 2, requests: 1 });
    let (observed, _) = send(client(), Method::PUT, 2, &actions).await;
    assert_eq!(observed, Observed { results: vec![Ok(200); 2], attempts: 3, requests: 2 });
}
