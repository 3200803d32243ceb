//! Connections that die while they are idle, or under a request.
//!
//! By itself the client does this, with `retry_canceled_requests`, which is on by default:
//!
//! - A connection that is known to be closed is not taken from the pool.
//! - A request that got a kept connection which turns out to be closed *before a byte of the request was written* is sent over another one, whatever its
//!   method: nobody has seen it. It is not an attempt: no layer above hears of it. Turned off, the error is the caller's.
//! - A request of which something was written is never sent again, whatever its method: the error is the caller's.
//! - Nor is one whose connection was new, though nothing was written.
//!
//! So all that is left for a retry above is what was written, and that is sent again only if the
//! request may be made twice.

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

/// What happened to some requests that were sent one after the other.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    /// The status of each, or the kind of its fault.
    came: Vec<Result<u16, Kind>>,
    /// Attempts, directly above the client.
    attempts: usize,
    /// Requests that the server has read, of this method alone.
    requests: usize,
}

fn client() -> Client<HttpConnector, Full<Bytes>> {
    Client::builder(TokioExecutor::new()).build_http()
}

/// Sends a request for each act.
async fn send(
    client: Client<HttpConnector, Full<Bytes>>,
    method: Method,
    times: usize,
    acts: &[Action],
) -> (Seen, Counts) {
    let server = Http::start().await;
    server.script(acts.to_vec());
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
    let mut came = Vec::new();
    for _ in 0..times {
        let request = Request::builder().method(&method).uri(server.url()).body(Full::from("once")).unwrap();
        match stack.ready().await.unwrap().call(request).await {
            Ok(response) => {
                came.push(Ok(response.status().as_u16()));
                // Read to its end, so that the connection is kept.
                response.into_body().collect().await.unwrap();
            }
            Err(error) => came.push(Err(classify_error(&error).kind())),
        }
    }
    assert_eq!(server.remaining(), 0);
    let requests = server.requests();
    assert!(requests.iter().all(|request| request.method == method && request.body == "once"));
    let seen = Seen { came, attempts: attempts.load(Ordering::Relaxed), requests: requests.len() };
    (seen, circuit.status().window)
}

/// The request is written, read by the server, and the kept connection dies: nothing is known, and
/// only what may be made twice is sent again.
#[tokio::test]
async fn post_on_kept_connection_that_breaks_is_sent_once() {
    for death in [Action::ResetAfterRequest, Action::CloseAfterRequest] {
        let acts = [Action::status(200), death.clone(), Action::status(200)];
        let (seen, window) = send(client(), Method::POST, 3, &acts).await;
        let came = vec![Ok(200), Err(Kind::Transient), Ok(200)];
        assert_eq!(seen, Seen { came, attempts: 3, requests: 3 }, "{death:?}");
        assert_eq!((window.calls, window.failures), (3, 1));

        let (seen, window) = send(client(), Method::PUT, 2, &acts).await;
        assert_eq!(seen, Seen { came: vec![Ok(200); 2], attempts: 3, requests: 3 }, "{death:?}");
        assert_eq!((window.calls, window.failures), (3, 1));
    }
}

/// The server leaves the request unread: the client has written it, and cannot know.
#[tokio::test]
async fn post_written_but_never_read_is_sent_once() {
    let acts = [Action::status(200), Action::ResetBeforeRequest];
    let (seen, _) = send(client(), Method::POST, 2, &acts).await;
    assert_eq!(seen, Seen { came: vec![Ok(200), Err(Kind::Transient)], attempts: 2, requests: 1 });
    let (seen, _) = send(client(), Method::PUT, 2, &acts).await;
    assert_eq!(seen, Seen { came: vec![Ok(200); 2], attempts: 3, requests: 2 });
}
