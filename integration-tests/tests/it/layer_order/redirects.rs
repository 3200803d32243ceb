//! Redirects that are followed above the retry.

use std::io;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use tower::{ServiceBuilder, ServiceExt, service_fn};
use tower_breaker::CircuitState;
use tower_fault_classify::FaultClassifyLayer;
use tower_http::follow_redirect::FollowRedirectLayer;

use super::{ATTEMPT_TIMEOUT, breaker, retry};

#[tokio::test(start_paused = true)]
async fn redirected_post_is_sent_once_and_its_target_is_retried() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    // Processes the order, and redirects to its receipt. The receipt's server refuses the first two
    // connections.
    let client = service_fn(move |request: Request<Full<Bytes>>| {
        let attempt = {
            let mut log = log.lock().unwrap();
            log.push((request.method().clone(), request.uri().path().to_owned()));
            log.len()
        };
        async move {
            match request.uri().path() {
                "/orders" => Response::builder()
                    .status(StatusCode::SEE_OTHER)
                    .header("location", "http://receipts.example/7")
                    .body(())
                    .map_err(io::Error::other),
                _ if attempt < 4 => Err(io::ErrorKind::ConnectionRefused.into()),
                _ => Ok(Response::new(())),
            }
        }
    });
    let retry = retry();
    let (breaker, circuit) = breaker();
    let attempt_timeout = ATTEMPT_TIMEOUT;
    let stack = ServiceBuilder::new()
        .layer(FollowRedirectLayer::new())
        .layer(retry)
        .layer(breaker)
        .layer(FaultClassifyLayer::new())
        .timeout(attempt_timeout)
        .service(client);
    let post = Request::post("http://shop.example/orders").body(Full::from("an order")).unwrap();
    assert_eq!(stack.oneshot(post).await.unwrap().status(), StatusCode::OK);
    let receipt = (Method::GET, "/7".to_owned());
    let expected = [(Method::POST, "/orders".to_owned()), receipt.clone(), receipt.clone(), receipt];
    assert_eq!(*seen.lock().unwrap(), expected);
    assert_eq!(circuit.status().state, CircuitState::Closed);
}
