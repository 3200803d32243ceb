//! Error bodies of `reqwest::Response`, whose type does not change.

use std::error::Error;
use std::io::{self, ErrorKind};
use std::iter::successors;

use http::Response;
use http_body_util::BodyExt;
use reqwest::{Body, ResponseBuilderExt, Url};
use tower_fault_classify::body::ErrorBodies;
use tower_fault_classify::{CarriedVerdict, FaultClassifyLayer};

use super::{OWN, RecordingRule};
use crate::support::bodies::{BodyHints, Script, Step, drip, frame, through, trailers};
use crate::support::call::now;

const URL: &str = "http://upstream.test/path?query";

/// Returns a response of reqwest whose body was read up to four bytes, and the rule.
fn read(status: u16, body: Script) -> (reqwest::Response, RecordingRule) {
    let response = Response::builder().status(status).url(URL.parse().unwrap()).header("x-one", "1");
    let mut response = reqwest::Response::from(response.body(Body::wrap(body)).unwrap());
    response.extensions_mut().insert(7_u32);
    let recorded = RecordingRule::with(OWN);
    let layer = FaultClassifyLayer::new().read_error_bodies(ErrorBodies::new(recorded.clone()).limit(4));
    (now(through(&layer, response)), recorded)
}

#[test]
fn reqwest_error_response_gets_verdict_and_is_unchanged() {
    for text in ["", "the", "body", "the body"] {
        let (response, recorded) =
            read(429, Script::new(drip(text.as_bytes())).body_hints(BodyHints::Correct));
        assert_eq!(recorded.only().0, text.as_bytes()[..text.len().min(4)]);
        assert_eq!(response.url(), &URL.parse::<Url>().unwrap());
        assert_eq!(response.status(), 429);
        assert_eq!((response.headers().len(), &response.headers()["x-one"]), (1, &"1".parse().unwrap()));
        assert_eq!(response.extensions().get(), Some(&7_u32));
        assert_eq!(response.content_length(), Some(text.len() as u64));
        assert_eq!(CarriedVerdict::get(&response), Some(OWN.into()));
        assert_eq!(now(response.text()).unwrap(), text);
    }
}

#[test]
fn reqwest_success_is_unchanged() {
    let (response, recorded) = read(200, Script::new(drip(b"the body")).body_hints(BodyHints::Correct));
    assert!(recorded.all().is_empty());
    assert_eq!((response.url().as_str(), response.content_length()), (URL, Some(8)));
    assert_eq!(CarriedVerdict::get(&response), None);
    assert_eq!(now(response.text()).unwrap(), "the body");
}

#[test]
fn reqwest_error_body_trailers_are_forwarded() {
    let steps = [frame("ab"), trailers(&[("x-checksum", "1")])];
    let (response, recorded) = read(503, Script::new(steps));
    assert_eq!(recorded.only(), (b"ab".to_vec(), true));
    let all = now(Response::<Body>::from(response).into_body().collect()).unwrap();
    assert_eq!(all.trailers().unwrap()["x-checksum"], "1");
    assert_eq!(all.to_bytes(), "ab");
}

#[test]
fn reqwest_error_body_failure_reaches_reader() {
    for text in ["ab", "the body"] {
        let failure = Step::Fail(ErrorKind::ConnectionReset);
        let (mut response, _) = read(503, Script::new([frame(text), failure]));
        assert_eq!(now(response.chunk()).unwrap().unwrap(), text);
        let error = now(response.chunk()).unwrap_err();
        let mut causes = successors(Some(&error as &(dyn Error + 'static)), |&error| error.source());
        let cause = causes.find_map(|error| error.downcast_ref::<io::Error>()).unwrap();
        assert_eq!(cause.kind(), ErrorKind::ConnectionReset);
    }
}
