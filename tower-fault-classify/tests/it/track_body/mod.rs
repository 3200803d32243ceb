//! Bodies that are tracked: what the hook is told, how often, and what the reader sees of it, which is nothing.

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

use crate::support::bodies::{Says, Script, Seen, Step, answer, drip, frame, poll, through, trailers};
use crate::support::call::{now, send};

/// What a hook was told.
#[derive(Clone, Debug, Default)]
struct Log(Arc<Mutex<Vec<Verdict>>>);

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

    /// The only verdict that was told.
    fn only(&self) -> Verdict {
        match self.verdicts()[..] {
            [verdict] => verdict,
            ref verdicts => panic!("{verdicts:?}"),
        }
    }

    fn axes(&self) -> Option<(Kind, Retryable, Health)> {
        self.only().fault().map(|fault| (fault.kind(), fault.retryable(), fault.health()))
    }
}

/// What a fault says but of a retry; a success says nothing.
type Row = Option<(Kind, Health)>;

const UNKNOWN: Row = Some((Kind::Server, Health::Unhealthy));

/// The fault table, "gRPC status".
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

/// The fault table, "I/O and transport errors".
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

/// A response that is tracked, and what its hook is told.
fn tracked<B>(response: Response<B>) -> (Response<impl Body<Data = Bytes, Error = io::Error> + Unpin>, Log)
where
    B: Body<Data = Bytes, Error = io::Error> + Unpin,
{
    let log = Log::default();
    (now(through(&FaultClassifyLayer::new().track_body(log.clone()), response)), log)
}

/// What is told of a gRPC call whose body is read until there is nothing more.
fn of_grpc(steps: impl IntoIterator<Item = Step>) -> Log {
    let (response, log) = tracked(of_type("application/grpc", Script::new(steps)));
    assert_eq!(log.count(), 0, "nothing is known yet");
    read_all(response.into_body());
    log
}

/// Reads as a reader does who wants all of it.
fn read_all(mut body: impl Body<Data = Bytes, Error = io::Error> + Unpin) -> Vec<Seen> {
    let mut all = Vec::new();
    loop {
        let seen = poll(&mut body);
        let over = matches!(seen, Seen::End | Seen::Failed(_));
        all.push(seen);
        if over {
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
fn trailers_code_has_its_row_and_is_never_retried() {
    for (code, expected) in CODES.iter().enumerate() {
        let status = code.to_string();
        for first in [vec![], vec![frame("message")]] {
            let log = of_grpc(first.into_iter().chain([trailers(&[("grpc-status", &status)])]));
            assert_eq!(row(log.only()), *expected, "{code}");
            assert!(log.only().fault().is_none_or(|fault| fault.retryable() == Retryable::Never), "{code}");
        }
    }
    // Not even where the server asks for it: the call is committed (gRFC A6).
    for status in ["8", "14"] {
        let log = of_grpc([trailers(&[("grpc-status", status), ("grpc-retry-pushback-ms", "20")])]);
        assert_eq!(log.only().fault().unwrap().retryable(), Retryable::Never, "{status}");
    }
}

#[test]
fn trailers_without_valid_status_are_unknown() {
    let unknown = Some((Kind::Server, Retryable::Never, Health::Unhealthy));
    assert_eq!(of_grpc([]).axes(), unknown);
    assert_eq!(of_grpc([frame("message")]).axes(), unknown);
    assert_eq!(of_grpc([frame("message"), trailers(&[("other", "0")])]).axes(), unknown);
    for garbled in ["", "abc", "-1", "+0", "0x0", "0,0", "1.5", "99999999999999999999"] {
        assert_eq!(of_grpc([trailers(&[("grpc-status", garbled)])]).axes(), unknown, "{garbled:?}");
    }
    for (one, other) in [("0", "14"), ("14", "0"), ("0", "abc"), ("7", "5")] {
        let both = trailers(&[("grpc-status", one), ("grpc-status", other)]);
        assert_eq!(of_grpc([both]).axes(), unknown, "{one} and {other}");
    }
    let twice = trailers(&[("grpc-status", "7"), ("grpc-status", "7")]);
    assert_eq!(row(of_grpc([twice]).only()), CODES[7], "it does not contradict itself");
}

#[test]
fn missing_status_matters_for_grpc_content_type_only() {
    let ask = |kind: &str, steps: Vec<Step>| {
        let (response, log) = tracked(of_type(kind, Script::new(steps)));
        read_all(response.into_body());
        row(log.only())
    };
    for grpc in ["application/grpc", "application/grpc+proto", "application/grpc+json"] {
        assert_eq!(ask(grpc, vec![frame("message")]), UNKNOWN, "{grpc}");
    }
    let web = ["application/grpc-web", "application/grpc-web+proto", "application/grpc-web-text"];
    for other in web.into_iter().chain(["application/json", "text/event-stream"]) {
        assert_eq!(ask(other, vec![frame("message")]), None, "{other}");
        assert_eq!(ask(other, vec![trailers(&[("x-checksum", "1")])]), None, "{other}");
    }
    assert_eq!(ask("text/plain", vec![trailers(&[("grpc-status", "14")])]), None);
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
        assert_eq!(log.axes(), axes, "it is not told again");
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
    for (content, least) in [("text/plain", 1), ("application/grpc", 0)] {
        for polls in least..3 {
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
    // After the last data:
    let (response, log) = tracked(Response::new(Script::new(drip(b"ab")).says(Says::Truth)));
    let mut body = response.into_body();
    poll(&mut body);
    assert_eq!(log.count(), 0);
    poll(&mut body);
    assert!(log.only().is_success());
    assert_eq!((poll(&mut body), log.count()), (Seen::End, 1));
    // Not at all:
    let (response, log) = tracked(Response::new(Script::new([]).says(Says::Truth)));
    assert!(response.body().is_end_stream());
    drop(response);
    assert!(log.only().is_success());
    // After the trailers:
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
    assert!(now(answer(&layer, broken)).is_err());
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
    assert_eq!(reported_row("7"), CODES[7], "it returns no verdict on others");
}

/// Says of every end how it came.
#[derive(Clone, Copy, Debug)]
struct Tells(Kind);

impl<Res, Err> Rule<Res, Err> for Tells {
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
    let layer = FaultClassifyLayer::new().rule(Tells(Kind::Quota)).rule(Tells(Kind::Conflict));
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
fn errors_only_end_reports_errors_only() {
    let log = Log::default();
    let layer = FaultClassifyLayer::new().errors_only().track_body(log.clone());
    let reported_row = |status: u16, step| {
        let mut answer = of_type("application/grpc", Script::new([frame("a"), step]));
        *answer.status_mut() = status.try_into().unwrap();
        let body = now(through(&layer, answer)).into_body();
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

/// What reading a body of so many frames allocates, and then dropping it.
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
