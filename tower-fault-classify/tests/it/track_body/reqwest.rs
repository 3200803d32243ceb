//! Tracked bodies of `reqwest::Response`, whose type does not change.

use std::io::{self, ErrorKind};

use http::Response;
use http_body::Body as _;
use reqwest::{Body, ResponseBuilderExt, Url};
use tower_fault_classify::{FaultClassifyLayer, Health, Kind};

use super::{CODES, Log, row};
use crate::support::bodies::{BodyHints, Script, Step, drip, frame, through, trailers};
use crate::support::call::now;

const URL: &str = "http://upstream.test/path?query";

/// Returns a tracked response of reqwest and the log of its hook.
fn tracked(content: &str, body: Script) -> (reqwest::Response, Log) {
    let log = Log::default();
    let response = Response::builder().url(URL.parse().unwrap()).header("content-type", content);
    let mut response = reqwest::Response::from(response.body(Body::wrap(body)).unwrap());
    response.extensions_mut().insert(7_u32);
    (now(through(&FaultClassifyLayer::new().track_body(log.clone()), response)), log)
}

#[test]
fn reqwest_tracked_response_is_unchanged() {
    let (response, log) = tracked("text/plain", Script::new(drip(b"body")).body_hints(BodyHints::Correct));
    assert_eq!(response.url(), &URL.parse::<Url>().unwrap());
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "text/plain");
    assert_eq!(response.extensions().get(), Some(&7_u32));
    assert_eq!(response.content_length(), Some(4));
    assert_eq!(log.count(), 0);
    assert_eq!(now(response.text()).unwrap(), "body");
    assert!(log.only().is_success());
}

#[test]
fn reqwest_body_error_is_found_in_reqwest_error() {
    let (response, log) =
        tracked("text/plain", Script::new([frame("a"), Step::Fail(ErrorKind::ConnectionReset)]));
    let error = now(response.text()).unwrap_err();
    let cause = std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source())
        .find_map(|error| error.downcast_ref::<io::Error>());
    assert_eq!(cause.unwrap().kind(), ErrorKind::ConnectionReset);
    assert_eq!(row(log.only()), Some((Kind::Transient, Health::Unhealthy)));
}

#[test]
fn reqwest_trailers_are_classified_and_forwarded() {
    let steps = [frame("message"), trailers(&[("grpc-status", "14")])];
    let (response, log) = tracked("application/grpc", Script::new(steps));
    let body = Response::<Body>::from(response).into_body();
    let all = now(http_body_util::BodyExt::collect(body)).unwrap();
    assert_eq!(all.trailers().unwrap()["grpc-status"], "14");
    assert_eq!(all.to_bytes(), "message");
    assert_eq!(row(log.only()), CODES[14]);
}

#[test]
fn reqwest_response_dropped_halfway_is_cancelled() {
    let (response, log) = tracked("text/plain", Script::new([frame("a"), frame("b")]));
    let mut body = Response::<Body>::from(response).into_body();
    now(http_body_util::BodyExt::frame(&mut body)).unwrap().unwrap();
    drop(body);
    assert_eq!(row(log.only()), super::DROPPED);
    let (response, log) = tracked("text/plain", Script::new([frame("a")]));
    assert!(!Response::<Body>::from(response).body().is_end_stream());
    assert!(log.only().is_success());
}
