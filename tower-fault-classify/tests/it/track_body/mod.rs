//! Tracked bodies: the verdicts that the hook gets, how often it is called, and that the reader
//! sees no difference.

#[cfg(feature = "tokio")]
mod idle;
#[cfg(feature = "llm")]
mod llm_events;
mod random_bodies;
#[cfg(feature = "reqwest")]
mod reqwest;

use std::future::ready;
use std::io::{self, ErrorKind};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use allocation_counter::measure;
use bytes::Bytes;
use http::Response;
use http_body::Body;
use http_body_util::BodyExt;
use tower::{Layer, service_fn};
use tower_fault_classify::body::{BodyEnd, EndReason, OnEnd};
use tower_fault_classify::rules::GrpcRules;
use tower_fault_classify::{
    BoxError, Fault, FaultClassifyLayer, Health, Kind, Origin, Retryable, Rule, Verdict, classify_fn,
};

use crate::support::bodies::{
    BodyHints, Script, Seen, Step, drip, frame, outcome_through, poll, through, trailers,
};
use crate::support::call::{now, send};

/// A hook that records its verdicts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<Verdict>>>);

impl OnEnd for Log {
    fn on_end(self, verdict: Verdict) {
        self.verdicts().push(verdict);
    }
}

impl Log {
    fn verdicts(&self) -> MutexGuard<'_, Vec<Verdict>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self) -> usize {
        self.verdicts().len()
    }

    /// Returns the only verdict that was recorded.
    pub(crate) fn only(&self) -> Verdict {
        match self.verdicts()[..] {
            [verdict] => verdict,
            ref verdicts => panic!("{verdicts:?}"),
        }
    }

    fn axes(&self) -> Option<(Kind, Retryable, Health)> {
        self.only().fault().map(|fault| (fault.kind(), fault.retryable(), fault.health()))
    }
}

/// The kind and the health of a fault. `None`: a success.
type Row = Option<(Kind, Health)>;

const UNKNOWN: Row = Some((Kind::Server, Health::Unhealthy));

/// The expected row of each gRPC code.
const CODES: [Row; 17] = [
    None,
    Some((Kind::Cancelled, Health::Neutral)),
    UNKNOWN,
    Some((Kind::Client, Health::Healthy)),
    Some((Kind::Timeout, Health::Unhealthy)),
    Some((Kind::Client, Health::Healthy)),
    Some((Kind::Client, Health::Healthy)),
    Some((Kind::Auth, Health::Healthy)),
    Some((Kind::Throttled, Health::Neutral)),
    Some((Kind::Client, Health::Healthy)),
    Some((Kind::Conflict, Health::Healthy)),
    Some((Kind::Client, Health::Healthy)),
    Some((Kind::Protocol, Health::Neutral)),
    Some((Kind::Server, Health::Unhealthy)),
    Some((Kind::Unavailable, Health::Unhealthy)),
    Some((Kind::Server, Health::Unhealthy)),
    Some((Kind::Auth, Health::Healthy)),
];

/// The expected rows of some I/O errors.
const BROKEN: [(ErrorKind, Row); 5] = [
    (ErrorKind::ConnectionReset, Some((Kind::Transient, Health::Unhealthy))),
    (ErrorKind::UnexpectedEof, Some((Kind::Transient, Health::Unhealthy))),
    (ErrorKind::TimedOut, Some((Kind::Timeout, Health::Unhealthy))),
    (ErrorKind::InvalidData, Some((Kind::Protocol, Health::Unhealthy))),
    (ErrorKind::ConnectionRefused, Some((Kind::Unavailable, Health::Unhealthy))),
];

const DROPPED: Row = Some((Kind::Cancelled, Health::Neutral));

fn row(verdict: Verdict) -> Row {
    verdict.fault().map(|fault| (fault.kind(), fault.health()))
}

fn of_type<B>(kind: &str, body: B) -> Response<B> {
    Response::builder().header("content-type", kind).body(body).unwrap()
}

/// Returns a tracked response and the log of its hook.
fn tracked<B>(response: Response<B>) -> (Response<impl Body<Data = Bytes, Error = io::Error> + Unpin>, Log)
where
    B: Body<Data = Bytes, Error = io::Error> + Unpin,
{
    let log = Log::default();
    (now(through(&FaultClassifyLayer::new().track_body(log.clone()), response)), log)
}

/// Reads the body of a gRPC call to its end, and returns the log of the hook.
fn grpc_log(steps: impl IntoIterator<Item = Step>) -> Log {
    let (response, log) = tracked(of_type("application/grpc", Script::new(steps)));
    assert_eq!(log.count(), 0, "the verdict is not known yet");
    read_all(response.into_body());
    log
}

/// Reads a body to its end or its first error.
fn read_all(mut body: impl Body<Data = Bytes, Error = io::Error> + Unpin) -> Vec<Seen> {
    let mut all = Vec::new();
    loop {
        let seen = poll(&mut body);
        let ended = matches!(seen, Seen::End | Seen::Failed(_));
        all.push(seen);
        if ended {
            return all;
        }
    }
}

#[test]
fn hook_is_called_for_each_frame_with_data() {
    #[derive(Clone, Default)]
    struct Frames(Arc<Mutex<usize>>);

    impl OnEnd for Frames {
        fn on_data(&mut self) {
            *self.0.lock().unwrap() += 1;
        }

        fn on_end(self, _: Verdict) {}
    }

    for kind in ["text/plain", "application/grpc"] {
        let frames = Frames::default();
        let steps = [frame("a"), frame(""), frame("b"), trailers(&[("grpc-status", "0")])];
        let layer = FaultClassifyLayer::new().track_body(frames.clone());
        let mut body = now(through(&layer, of_type(kind, Script::new(steps)))).into_body();
        for expected in [1, 1, 2, 2] {
            poll(&mut body);
            assert_eq!(*frames.0.lock().unwrap(), expected, "{kind}");
        }
    }
}

#[test]
fn hook_gets_error_of_broken_body() {
    #[derive(Clone, Default)]
    struct Errors(Arc<Mutex<Vec<Option<ErrorKind>>>>);

    impl OnEnd for Errors {
        fn on_end(self, _: Verdict) {
            self.0.lock().unwrap().push(None);
        }

        fn on_error(self, verdict: Verdict, error: &(dyn std::error::Error + 'static)) {
            assert!(!verdict.is_success());
            self.0.lock().unwrap().push(error.downcast_ref().map(io::Error::kind));
        }
    }

    for (last, expected) in
        [(Step::Fail(ErrorKind::ConnectionReset), Some(ErrorKind::ConnectionReset)), (frame("b"), None)]
    {
        let errors = Errors::default();
        let layer = FaultClassifyLayer::new().track_body(errors.clone());
        let body = of_type("text/plain", Script::new([frame("a"), last]));
        read_all(now(through(&layer, body)).into_body());
        assert_eq!(*errors.0.lock().unwrap(), [expected]);
    }
}

#[test]
fn trailers_code_has_its_row_and_is_never_retried() {
    for (code, expected) in CODES.iter().enumerate() {
        let status = code.to_string();
        for first in [vec![], vec![frame("message")]] {
            let log = grpc_log(first.into_iter().chain([trailers(&[("grpc-status", &status)])]));
            assert_eq!(row(log.only()), *expected, "{code}");
            assert!(log.only().fault().is_none_or(|fault| fault.retryable() == Retryable::Never), "{code}");
        }
    }
    // Not even if the server asks for a retry: the call is committed (gRFC A6).
    for status in ["8", "14"] {
        let log = grpc_log([trailers(&[("grpc-status", status), ("grpc-retry-pushback-ms", "20")])]);
        assert_eq!(log.only().fault().unwrap().retryable(), Retryable::Never, "{status}");
    }
}

#[test]
fn trailers_without_valid_status_are_unknown() {
    let unknown = Some((Kind::Server, Retryable::Never, Health::Unhealthy));
    assert_eq!(grpc_log([]).axes(), unknown);
    assert_eq!(grpc_log([frame("message")]).axes(), unknown);
    assert_eq!(grpc_log([frame("message"), trailers(&[("other", "0")])]).axes(), unknown);
    for invalid in ["", "abc", "-1", "+0", "0x0", "0,0", "1.5", "99999999999999999999"] {
        assert_eq!(grpc_log([trailers(&[("grpc-status", invalid)])]).axes(), unknown, "{invalid:?}");
    }
    for (one, other) in [("0", "14"), ("14", "0"), ("0", "abc"), ("7", "5")] {
        let both = trailers(&[("grpc-status", one), ("grpc-status", other)]);
        assert_eq!(grpc_log([both]).axes(), unknown, "{one} and {other}");
    }
    let twice = trailers(&[("grpc-status", "7"), ("grpc-status", "7")]);
    assert_eq!(row(grpc_log([twice]).only()), CODES[7], "it does not contradict itself");
}

#[test]
fn missing_status_matters_for_grpc_content_type_only() {
    let reported_row = |kind: &str, steps: Vec<Step>| {
        let (response, log) = tracked(of_type(kind, Script::new(steps)));
        read_all(response.into_body());
        row(log.only())
    };
    for grpc in ["application/grpc", "application/grpc+proto", "application/grpc+json"] {
        assert_eq!(reported_row(grpc, vec![frame("message")]), UNKNOWN, "{grpc}");
    }
    let web = ["application/grpc-web", "application/grpc-web+proto", "application/grpc-web-text"];
    for other in web.into_iter().chain(["application/json", "text/event-stream"]) {
        assert_eq!(reported_row(other, vec![frame("message")]), None, "{other}");
        assert_eq!(reported_row(other, vec![trailers(&[("x-checksum", "1")])]), None, "{other}");
    }
    assert_eq!(reported_row("text/plain", vec![trailers(&[("grpc-status", "14")])]), None);
}

#[test]
fn head_verdict_is_reported_with_response() {
    let head = |status: u16, fields: &[(&str, &str)]| {
        let mut builder = Response::builder().status(status);
        for (name, value) in fields {
            builder = builder.header(*name, *value);
        }
        let steps = [frame("a"), Step::Fail(ErrorKind::ConnectionReset), trailers(&[("grpc-status", "7")])];
        let (response, log) = tracked(builder.body(Script::new(steps.clone())).unwrap());
        let axes = log.axes();
        let mut body = response.into_body();
        assert_eq!(poll(&mut body), Seen::Data("a".into()));
        assert_eq!(poll(&mut body), Seen::Failed(ErrorKind::ConnectionReset));
        assert!(matches!(poll(&mut body), Seen::Trailers(_)));
        drop(body);
        assert_eq!(log.axes(), axes, "the hook is not called again");
        axes
    };
    assert_eq!(head(503, &[]), Some((Kind::Unavailable, Retryable::IfIdempotent, Health::Unhealthy)));
    assert_eq!(head(429, &[]), Some((Kind::Throttled, Retryable::Refused, Health::Neutral)));
    let grpc = ("content-type", "application/grpc");
    assert_eq!(
        head(200, &[grpc, ("grpc-status", "14")]),
        Some((Kind::Unavailable, Retryable::IfIdempotent, Health::Unhealthy))
    );
    assert_eq!(head(200, &[grpc, ("grpc-status", "0")]), None);
    assert_eq!(head(503, &[grpc]), Some((Kind::Unavailable, Retryable::IfIdempotent, Health::Unhealthy)));
}

#[test]
fn failed_body_is_classified_as_processed() {
    for (kind, expected) in BROKEN {
        for content in ["text/plain", "application/grpc"] {
            let (response, log) =
                tracked(of_type(content, Script::new([frame("a"), Step::Wait, Step::Fail(kind)])));
            let mut body = response.into_body();
            poll(&mut body);
            poll(&mut body);
            assert_eq!(log.count(), 0);
            assert_eq!(poll(&mut body), Seen::Failed(kind));
            assert_eq!(row(log.only()), expected, "{kind}");
            assert!(
                !matches!(log.only().fault().unwrap().retryable(), Retryable::Unsent | Retryable::Refused),
                "{kind}"
            );
            assert_eq!(poll(&mut body), Seen::End);
            drop(body);
            assert_eq!(log.count(), 1);
        }
    }
}

#[test]
fn failed_body_with_boxed_error_is_classified() {
    let log = Log::default();
    let body = Script::new([Step::Fail(ErrorKind::TimedOut)]).map_err(BoxError::from);
    let layer = FaultClassifyLayer::new().track_body(log.clone());
    let body = now(through(&layer, Response::new(body))).into_body();
    let error = now(body.collect()).unwrap_err();
    assert_eq!(error.downcast::<io::Error>().unwrap().kind(), ErrorKind::TimedOut);
    assert_eq!(row(log.only()), Some((Kind::Timeout, Health::Unhealthy)));
}

#[test]
fn dropped_body_is_cancelled() {
    for (content, least_polls) in [("text/plain", 1), ("application/grpc", 0)] {
        for polls in least_polls..3 {
            let (response, log) =
                tracked(of_type(content, Script::new([frame("a"), Step::Stall, frame("b")])));
            let mut body = response.into_body();
            for _ in 0..polls {
                poll(&mut body);
            }
            assert_eq!(log.count(), 0);
            drop(body);
            assert_eq!(
                log.axes(),
                Some((Kind::Cancelled, Retryable::Never, Health::Neutral)),
                "{polls} polls"
            );
        }
    }
}

#[test]
fn tracked_body_dropped_unread_is_a_success() {
    let (response, log) = tracked(of_type("text/plain", Script::new([frame("a"), Step::Stall])));
    drop(response);
    assert!(log.only().is_success());
}

#[test]
fn complete_body_read_to_last_data_is_complete() {
    // Read to the last data:
    let (response, log) = tracked(Response::new(Script::new(drip(b"ab")).body_hints(BodyHints::Correct)));
    let mut body = response.into_body();
    poll(&mut body);
    assert_eq!(log.count(), 0);
    poll(&mut body);
    assert!(log.only().is_success());
    assert_eq!((poll(&mut body), log.count()), (Seen::End, 1));
    // Empty and not read:
    let (response, log) = tracked(Response::new(Script::new([]).body_hints(BodyHints::Correct)));
    assert!(response.body().is_end_stream());
    drop(response);
    assert!(log.only().is_success());
    // Read to the trailers:
    let steps = [frame("message"), trailers(&[("grpc-status", "0")])];
    let (response, log) = tracked(of_type("application/grpc", Script::new(steps)));
    let mut body = response.into_body();
    poll(&mut body);
    assert_eq!(log.count(), 0);
    poll(&mut body);
    assert!(log.only().is_success());
}

#[test]
fn panicking_body_is_unhealthy_and_reported_once() {
    let (response, log) = tracked(of_type("text/plain", Script::new([frame("a"), Step::Panic])));
    let mut body = response.into_body();
    poll(&mut body);
    catch_unwind(AssertUnwindSafe(|| poll(&mut body))).unwrap_err();
    drop(body);
    assert_eq!(row(log.only()), Some((Kind::Unknown, Health::Unhealthy)));
}

#[test]
fn hook_is_cloned_per_response_and_not_called_on_error() {
    let log = Log::default();
    let layer = FaultClassifyLayer::new().track_body(log.clone());
    let first = now(through(&layer, Response::new(Script::new([]))));
    let second = now(through(&layer, Response::new(Script::new([Step::Fail(ErrorKind::TimedOut)]))));
    read_all(first.into_body());
    read_all(second.into_body());
    assert_eq!(
        log.verdicts().iter().map(|verdict| row(*verdict)).collect::<Vec<_>>(),
        [None, Some((Kind::Timeout, Health::Unhealthy))]
    );
    let broken = Err::<Response<Script>, _>(ErrorKind::ConnectionRefused.into());
    assert!(now(outcome_through(&layer, broken)).is_err());
    assert_eq!(log.count(), 2);
}

#[test]
fn grpc_rules_change_codes_in_trailers() {
    let log = Log::default();
    let busy = GrpcRules::row(14).with_health(Health::Neutral).with_kind(Kind::Overloaded);
    let rules = GrpcRules::new().code(5, Verdict::Success).code(14, busy);
    let layer = FaultClassifyLayer::new().rule(rules).track_body(log.clone());
    let reported_row = |code| {
        let steps = [frame("message"), trailers(&[("grpc-status", code)])];
        read_all(now(through(&layer, of_type("application/grpc", Script::new(steps)))).into_body());
        row(log.verdicts().pop().unwrap())
    };
    assert_eq!(reported_row("5"), None);
    assert_eq!(reported_row("14"), Some((Kind::Overloaded, Health::Neutral)));
    assert_eq!(reported_row("7"), CODES[7], "the rules return no verdict on other codes");
}

/// A rule with verdicts on some ends of bodies.
#[derive(Clone, Copy, Debug)]
struct EndRule(Kind);

impl<Res, Err> Rule<Res, Err> for EndRule {
    fn verdict(&self, _: Result<&Res, &Err>) -> Option<Verdict> {
        None
    }

    fn verdict_on_end(&self, end: &BodyEnd<'_>) -> Option<Verdict> {
        let fault = Fault::new(self.0, Retryable::Never, Health::Healthy, Origin::Local);
        match end.reason() {
            EndReason::Dropped if !end.is_grpc() => Some(fault.into()),
            EndReason::Complete(Some(trailers)) if trailers.contains_key("x-moved") => Some(fault.into()),
            EndReason::Failed(error) if error.downcast_ref::<io::Error>().is_some() => Some(Verdict::Success),
            _ => None,
        }
    }
}

#[test]
fn rule_on_end_added_last_takes_precedence() {
    let log = Log::default();
    let layer = FaultClassifyLayer::new().rule(EndRule(Kind::Quota)).rule(EndRule(Kind::Conflict));
    let layer = layer.track_body(log.clone());
    let reported_row = |content, steps: Vec<Step>| {
        let mut body = now(through(&layer, of_type(content, Script::new(steps)))).into_body();
        poll(&mut body);
        drop(body);
        row(log.verdicts().pop().unwrap())
    };
    let own = Some((Kind::Conflict, Health::Healthy));
    assert_eq!(reported_row("text/plain", vec![frame("a"), frame("b")]), own);
    assert_eq!(reported_row("text/plain", vec![trailers(&[("x-moved", "1")])]), own);
    assert_eq!(reported_row("text/plain", vec![Step::Fail(ErrorKind::TimedOut)]), None);
    assert_eq!(reported_row("application/grpc", vec![frame("a"), frame("b")]), DROPPED);
    assert_eq!(reported_row("application/grpc", vec![trailers(&[("grpc-status", "7")])]), CODES[7]);
}

#[test]
fn errors_only_classifies_body_errors_but_not_trailers() {
    let log = Log::default();
    let layer = FaultClassifyLayer::new().errors_only().track_body(log.clone());
    let reported_row = |status: u16, step| {
        let mut response = of_type("application/grpc", Script::new([frame("a"), step]));
        *response.status_mut() = status.try_into().unwrap();
        let body = now(through(&layer, response)).into_body();
        assert_eq!(log.count(), 0, "the head is a success");
        read_all(body);
        row(log.verdicts().pop().unwrap())
    };
    assert_eq!(reported_row(503, frame("b")), None);
    assert_eq!(reported_row(200, trailers(&[("grpc-status", "14")])), None);
    assert_eq!(
        reported_row(200, Step::Fail(ErrorKind::ConnectionReset)),
        Some((Kind::Transient, Health::Unhealthy))
    );
}

#[test]
fn custom_classifier_end_uses_tables() {
    let log = Log::default();
    let own = classify_fn(|_: Result<&Response<Script>, &io::Error>| Verdict::Success);
    let layer = FaultClassifyLayer::new().classify(own).track_body(log.clone());
    let steps = [trailers(&[("grpc-status", "14")])];
    read_all(now(through(&layer, of_type("application/grpc", Script::new(steps)))).into_body());
    assert_eq!(row(log.only()), CODES[14]);
}

/// Returns the allocations of reading a body with `frames` frames and dropping it.
fn allocations<B: Body<Data = Bytes, Error = io::Error> + Unpin>(
    frames: usize,
    call: impl Fn(Response<Script>) -> Response<B>,
) -> u64 {
    let steps = || [drip(&vec![b'a'; frames]), vec![trailers(&[("grpc-status", "0")])]].concat();
    let mut body = Some(of_type("application/grpc", Script::new(steps())));
    let mut read = || {
        let mut body = call(body.take().unwrap()).into_body();
        while poll(&mut body) != Seen::End {}
    };
    measure(&mut read).count_total
}

#[test]
fn tracked_body_and_frames_allocate_nothing() {
    let layer = FaultClassifyLayer::new().track_body(|verdict: Verdict| assert!(verdict.is_success()));
    for frames in [0, 1, 1_000] {
        let bare = allocations(frames, |response| response);
        let wrapped = allocations(frames, |response| {
            let mut response = Some(response);
            let once = service_fn(|()| ready(Ok::<_, io::Error>(response.take().unwrap())));
            now(send(&mut layer.layer(once), ())).unwrap()
        });
        assert_eq!(wrapped, bare, "{frames} frames");
    }
}
