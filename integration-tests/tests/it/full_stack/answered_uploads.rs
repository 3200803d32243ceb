//! Uploads that fail, stall or are dropped after the head of the response has arrived. With
//! `track_body`, they do not count as failures of the server.

use std::io::{self, ErrorKind};

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use integration_tests::TIMEOUT;
use integration_tests::{Frames, put, upload};
use tower::{BoxError, Layer, Service, ServiceBuilder, ServiceExt};
use tower_breaker::BreakerLayer;
use tower_fault_classify::upload::UploadLayer;
use tower_fault_classify::{FaultClassifyLayer, Kind, Origin, classify_error};
use tower_http::timeout::ResponseBodyTimeoutLayer;

use super::circuit;

/// Starts a server that answers immediately, with the request's body as the response's body.
async fn echo() -> String {
    let echo = async |request: Request| Response::new(Body::new(request.into_body()));
    format!("http://{}/", integration_tests::serve(axum::Router::new().fallback(echo)).await)
}

/// How an upload continues after its first four bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Then {
    Fails,
    Stalls,
    IsDropped,
}

/// Makes a call, reads the beginning of its response, and continues its upload.
async fn answered<S, B>(url: &str, service: S, then: Then)
where
    S: Service<http::Request<Frames<io::Error>>, Response = http::Response<B>>,
    S::Error: std::fmt::Debug,
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    let (sender, frames) = upload().await;
    let request = put(url, frames);
    let mut body = Box::pin(service.oneshot(request).await.unwrap().into_body());
    body.frame().await.unwrap().map_err(Into::into).unwrap();
    match then {
        Then::Fails => {
            sender.send(Err(ErrorKind::ConnectionRefused.into())).await.unwrap();
            assert!(body.frame().await.unwrap().is_err());
        }
        Then::Stalls => {
            // All tasks wait, so the paused clock advances to the timeout of the stack.
            tokio::time::pause();
            assert!(body.frame().await.unwrap().is_err());
            tokio::time::resume();
        }
        Then::IsDropped => {}
    }
}

/// Makes three calls. Returns the numbers of failures and cancelled calls that the circuit counted.
async fn make_three_calls(tracked: bool, http2: bool, then: Then) -> (u64, u64) {
    let url = echo().await;
    let breaker = BreakerLayer::new(circuit());
    let circuit = breaker.circuit();
    let stack = ServiceBuilder::new()
        .layer(breaker.track_body())
        .layer(FaultClassifyLayer::new())
        .layer(ResponseBodyTimeoutLayer::new(TIMEOUT));
    let mut client = Client::builder(TokioExecutor::new());
    client.http2_only(http2);
    for _ in 0..3 {
        if tracked {
            answered(&url, UploadLayer::new().layer(stack.service(client.build_http())), then).await;
        } else {
            answered(&url, stack.service(client.build_http()), then).await;
        }
    }
    let window = circuit.status().window;
    (window.failures, window.cancelled)
}

#[tokio::test]
async fn upload_failed_after_head_is_fault_of_caller() {
    for http2 in [false, true] {
        assert_eq!(make_three_calls(true, http2, Then::Fails).await, (0, 0), "HTTP/2: {http2}");
    }
}

#[tokio::test]
async fn body_timeout_while_upload_stalls_is_not_failure() {
    for http2 in [false, true] {
        assert_eq!(make_three_calls(true, http2, Then::Stalls).await, (0, 0), "HTTP/2: {http2}");
        assert_eq!(
            make_three_calls(false, http2, Then::Stalls).await,
            (3, 0),
            "the documented limit without tracking"
        );
    }
}

/// A remote client that disconnects during its upload.
#[tokio::test]
async fn response_dropped_while_upload_waits_is_not_counted() {
    for http2 in [false, true] {
        assert_eq!(make_three_calls(true, http2, Then::IsDropped).await, (0, 0), "HTTP/2: {http2}");
    }
}

/// hyper's HTTP/1 client reports an error without a cause.
#[tokio::test]
async fn body_error_without_cause_after_head_is_broken_connection() {
    let url = echo().await;
    let client = Client::builder(TokioExecutor::new()).build_http();
    let (sender, frames) = upload::<io::Error>().await;
    let request = put(&url, frames);
    let mut body = client.request(request).await.unwrap().into_body();
    body.frame().await.unwrap().unwrap();
    sender.send(Err(ErrorKind::ConnectionRefused.into())).await.unwrap();
    let fault = classify_error(&body.frame().await.unwrap().unwrap_err());
    assert_eq!((fault.kind(), fault.origin()), (Kind::Transient, Origin::Transport));
}
