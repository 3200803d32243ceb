//! Event streams whose first event is awaited: the verdict, the delay, and that every byte is
//! forwarded.

use std::future::{Future, poll_fn};
use std::io::ErrorKind;
use std::sync::Mutex;
use std::time::Duration;

use http::Response;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use tokio::time::Instant;
use tokio_test::{assert_pending, assert_ready, task};
use tower_fault_classify::body::{ErrorBodies, ErrorBody, LlmErrors, PeekedBody};
use tower_fault_classify::rules::UnknownErrors;
use tower_fault_classify::{
    CarriedVerdict, Fault, FaultClassifyLayer, Health, Kind, Retryable, Verdict, classify_response,
};

use super::on_tokio;
use crate::support::bodies::{
    BodyHints, Script, Seen, Step, bytewise, drip, frame, poll, read_to_end, through, trailers,
};
use crate::support::call::now;
use crate::track_body::Log;

const TIMEOUT: Duration = Duration::from_secs(20);
const OVERLOADED: &str =
    "event: error\ndata: {\"type\": \"error\", \"error\": {\"type\": \"overloaded_error\"}}\n\n";
const SERVER: &str = "data: {\"error\": {\"code\": \"server_error\"}}\n\n";
const EVENT: &str = "event: message_start\ndata: {\"type\": \"message_start\"}\n\n";
const NO_EVENTS: &str =
    ": ping\n\nevent: ping\ndata: {\"type\": \"ping\"}\n\nid: 1\n\nevent: empty\n\nretry: 5\n";

type Row = (Kind, Retryable, Health);

fn bodies() -> ErrorBodies<LlmErrors> {
    ErrorBodies::new(LlmErrors::new()).first_event_timeout(TIMEOUT)
}

fn event_stream(body: Script) -> Response<Script> {
    Response::builder().header("content-type", "text/event-stream; charset=utf-8").body(body).unwrap()
}

fn row(response: &Response<PeekedBody<Script>>) -> Option<Row> {
    let fault = *CarriedVerdict::get(response)?.fault()?;
    Some((fault.kind(), fault.retryable(), fault.health()))
}

/// Sends the stream through the layer, and checks that every byte is forwarded.
async fn verdict_on(steps: Vec<Step>, bodies: ErrorBodies<LlmErrors>) -> Option<Row> {
    let layer = FaultClassifyLayer::new().read_error_bodies(bodies);
    let response = through(&layer, event_stream(Script::new(steps.clone()))).await;
    let row = row(&response);
    let expected = read_to_end(&mut Script::new(steps)).await;
    assert_eq!(bytewise(read_to_end(&mut response.into_body()).await), bytewise(expected));
    row
}

fn verdict(steps: impl IntoIterator<Item = Step>) -> Option<Row> {
    on_tokio(verdict_on(steps.into_iter().collect(), bodies()))
}

const BROKEN: Option<Row> = Some((Kind::Transient, Retryable::IfIdempotent, Health::Unhealthy));
const LATE: Option<Row> = Some((Kind::Timeout, Retryable::IfIdempotent, Health::Unhealthy));

#[test]
fn first_event_error_keeps_retryable_of_row() {
    let overloaded = Some((Kind::Overloaded, Retryable::Refused, Health::Unhealthy));
    let server = Some((Kind::Server, Retryable::IfIdempotent, Health::Unhealthy));
    for (error, expected) in [
        (OVERLOADED, overloaded),
        (SERVER, server),
        ("event: error\n\n", server),
        (
            "data: {\"error\": {\"code\": 429}}\n\n",
            Some((Kind::Throttled, Retryable::Refused, Health::Neutral)),
        ),
        (OVERLOADED.trim_end(), overloaded),
    ] {
        assert_eq!(verdict([frame(error)]), expected, "{error}");
        assert_eq!(verdict(drip(error.as_bytes())), expected, "{error}");
        assert_eq!(
            verdict([frame(NO_EVENTS), Step::Wait, frame(["\n", error].concat())]),
            expected,
            "{error}"
        );
        assert_eq!(verdict([frame([EVENT, error].concat())]), None, "the stream has begun");
    }
}

#[test]
fn first_event_uses_changed_rows() {
    let errors = LlmErrors::new().code("server_error", LlmErrors::row("rate_limit_error"));
    let bodies = ErrorBodies::new(errors).first_event_timeout(TIMEOUT);
    let row = on_tokio(verdict_on(vec![frame(SERVER)], bodies));
    assert_eq!(row, Some((Kind::Throttled, Retryable::Refused, Health::Neutral)));
}

#[test]
fn stream_broken_before_first_event_can_be_retried() {
    let reset = || Step::Fail(ErrorKind::ConnectionReset);
    for beginning in ["", NO_EVENTS, "event: message_start\ndata: {}\n"] {
        assert_eq!(verdict([frame(beginning), reset()]), BROKEN, "{beginning}");
        assert_eq!(verdict([frame(beginning), Step::Wait, reset(), frame("after")]), BROKEN, "{beginning}");
    }
    assert_eq!(verdict([frame(EVENT), reset()]), None, "the stream has begun");
}

#[test]
fn stream_ended_without_event_can_be_retried() {
    for end in [vec![], vec![trailers(&[("x-checksum", "1")])]] {
        assert_eq!(verdict(end.clone()), BROKEN);
        assert_eq!(verdict([vec![frame(NO_EVENTS)], end.clone()].concat()), BROKEN);
        assert_eq!(verdict([vec![frame("data: [DONE]")], end].concat()), None, "the end completes the event");
    }
    let script = Script::new([frame(NO_EVENTS)]).body_hints(BodyHints::Correct);
    let response = now(through(&FaultClassifyLayer::new().read_error_bodies(bodies()), event_stream(script)));
    assert_eq!(row(&response), BROKEN);
}

#[test]
fn broken_stream_is_classified_by_rules() {
    let neutral = UnknownErrors::row().with_health(Health::Neutral);
    let layer = FaultClassifyLayer::new().rule(UnknownErrors::new(neutral)).read_error_bodies(bodies());
    let script = Script::new([Step::Fail(ErrorKind::Other)]);
    let response = now(through(&layer, event_stream(script)));
    assert_eq!(row(&response), Some((Kind::Unknown, Retryable::IfIdempotent, Health::Neutral)));
}

#[tokio::test(start_paused = true)]
async fn first_event_late_is_a_timeout_with_live_body() {
    let ping = || [Step::Sleep(Duration::from_secs(6)), frame(": ping\n\n")];
    let steps = [ping(), ping(), ping(), ping(), [frame(EVENT), Step::Stall]].concat();
    let script = Script::new(steps);
    let token = script.token();
    let start = Instant::now();
    let layer = FaultClassifyLayer::new().read_error_bodies(bodies());
    let mut response = through(&layer, event_stream(script)).await;
    assert_eq!((row(&response), start.elapsed()), (LATE, TIMEOUT));
    assert_eq!(poll(response.body_mut()), Seen::Data(": ping\n\n".repeat(3).into()));
    assert_eq!(poll(response.body_mut()), Seen::Pending);
    tokio::time::advance(Duration::from_secs(4)).await;
    assert_eq!(poll(response.body_mut()), Seen::Data(": ping\n\n".into()));
    assert_eq!(poll(response.body_mut()), Seen::Data(EVENT.into()));
    drop(response);
    assert_eq!(std::sync::Arc::strong_count(&token), 1, "a retry drops the response, and so the body");
}

#[tokio::test(start_paused = true)]
async fn first_event_in_time_is_a_success_at_once() {
    let start = Instant::now();
    let steps = [Step::Sleep(TIMEOUT / 2), frame(EVENT), Step::Stall];
    let layer = FaultClassifyLayer::new().read_error_bodies(bodies());
    let mut response = through(&layer, event_stream(Script::new(steps))).await;
    assert_eq!((row(&response), start.elapsed()), (None, TIMEOUT / 2));
    assert_eq!(CarriedVerdict::get(&response), None);
    assert_eq!(poll(response.body_mut()), Seen::Data(EVENT.into()));
    assert_eq!(poll(response.body_mut()), Seen::Pending);
}

#[tokio::test(start_paused = true)]
async fn timeout_wakes_task_that_polled_last() {
    let layer = FaultClassifyLayer::new().read_error_bodies(bodies());
    let call =
        Mutex::new(Box::pin(
            async move { row(&through(&layer, event_stream(Script::new([Step::Stall]))).await) },
        ));
    let wait = || task::spawn(poll_fn(|cx| call.lock().unwrap().as_mut().poll(cx)));
    let (mut first, mut second) = (wait(), wait());
    assert_pending!(first.poll());
    tokio::time::advance(TIMEOUT / 2).await;
    assert_pending!(second.poll());
    tokio::time::advance(TIMEOUT / 2 + Duration::from_millis(1)).await;
    assert!(second.is_woken());
    assert_eq!(assert_ready!(second.poll()), LATE);
}

#[test]
fn stream_over_limit_without_event_is_a_success() {
    let bodies = bodies().limit(100);
    let comment = [": ".to_owned(), "a".repeat(98), "\n".to_owned()].concat();
    assert_eq!(on_tokio(verdict_on(vec![frame(comment.clone()), frame(OVERLOADED)], bodies.clone())), None);
    assert_eq!(on_tokio(verdict_on(drip(comment.as_bytes()), bodies)), None);
}

#[test]
fn other_responses_are_not_awaited() {
    let stalled = || Script::new([Step::Stall]);
    let event_stream_with = |status: u16| {
        let response = Response::builder().status(status).header("content-type", "text/event-stream");
        response.body(stalled()).unwrap()
    };
    let layer = FaultClassifyLayer::new().read_error_bodies(bodies());
    for response in [
        Response::new(stalled()),
        Response::builder().header("content-type", "application/json").body(stalled()).unwrap(),
        event_stream_with(201),
        event_stream_with(304),
    ] {
        assert_eq!(classify_response(&now(through(&layer, response))), Verdict::Success);
    }
    let off = FaultClassifyLayer::new().read_error_bodies(ErrorBodies::new(LlmErrors::new()));
    assert_eq!(row(&now(through(&off, event_stream_with(200)))), None);
    let unavailable: Fault = LlmErrors::row("server_error").with_kind(Kind::Unavailable);
    let ruled = FaultClassifyLayer::new()
        .rule(move |_: Result<&Response<Script>, &std::io::Error>| Some(unavailable.into()))
        .read_error_bodies(bodies());
    let response = now(through(&ruled, event_stream_with(200)));
    assert_eq!(CarriedVerdict::get(&response), Some(unavailable.into()), "the head decides");
}

#[test]
fn compressed_stream_is_not_awaited() {
    let with_encoding = |encoding: &str, steps: Vec<Step>| {
        let mut response = event_stream(Script::new(steps));
        response.headers_mut().insert("content-encoding", encoding.parse().unwrap());
        response
    };
    let layer = FaultClassifyLayer::new().read_error_bodies(bodies());
    let response = now(through(&layer, with_encoding("gzip", vec![Step::Stall])));
    assert_eq!(row(&response), None);
    for encoding in ["identity", "Identity", ""] {
        let response = now(through(&layer, with_encoding(encoding, vec![])));
        assert_eq!(row(&response), BROKEN, "{encoding}: not compressed");
    }
}

/// The response to a HEAD request has the headers of the stream, and no body.
#[test]
fn response_without_body_is_a_success() {
    let script = Script::new([]).body_hints(BodyHints::Correct);
    let response = now(through(&FaultClassifyLayer::new().read_error_bodies(bodies()), event_stream(script)));
    assert_eq!(row(&response), None);
}

#[test]
fn closure_rule_detects_broken_streams_only() {
    let bodies = ErrorBodies::new(|_: &ErrorBody<'_>| None).first_event_timeout(TIMEOUT);
    let layer = FaultClassifyLayer::new().read_error_bodies(bodies);
    let row_of = |steps: Vec<Step>| row(&now(through(&layer, event_stream(Script::new(steps)))));
    assert_eq!(row_of(vec![frame(OVERLOADED)]), None);
    assert_eq!(row_of(vec![Step::Fail(ErrorKind::ConnectionReset)]), BROKEN);
}

#[test]
fn awaited_and_tracked_stream_has_one_verdict() {
    for (steps, kind) in [
        (vec![frame(OVERLOADED)], Some(Kind::Overloaded)),
        (vec![frame(EVENT), frame(OVERLOADED)], Some(Kind::Overloaded)),
        (vec![Step::Fail(ErrorKind::ConnectionReset)], Some(Kind::Transient)),
        (vec![], Some(Kind::Transient)),
        (vec![frame(EVENT)], None),
    ] {
        let log = Log::default();
        let layer = FaultClassifyLayer::new()
            .read_error_bodies(bodies())
            .track_body(log.clone())
            .inspect_llm_events(LlmErrors::new());
        let mut body = now(through(&layer, event_stream(Script::new(steps.clone())))).into_body();
        let all = now(read_to_end(&mut body));
        assert_eq!(bytewise(all), bytewise(now(read_to_end(&mut Script::new(steps)))));
        assert_eq!(log.only().fault().map(Fault::kind), kind, "called once");
    }
}

proptest! {
    #[test]
    fn first_event_frames_do_not_change_bytes_or_verdict(
        pieces in proptest::collection::vec(select(vec![
            ": ping\n", "\n", "\r\n", "\r", "event: ping\n", "event: error\n", "event: a\n", "data: {}\n",
            "data: {\"error\": {\"code\": \"server_error\"}}\n", "id: 1\n\n", "\u{feff}", "data", ":",
        ]), 0..12),
        cuts in proptest::collection::vec(any::<Index>(), 0..20),
        end in select(vec![None, Some(Step::Fail(ErrorKind::ConnectionReset)), Some(Step::Sleep(2 * TIMEOUT))]),
    ) {
        let text = pieces.concat().into_bytes();
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
        cuts.extend([0, text.len()]);
        cuts.sort_unstable();
        let mut steps = Vec::new();
        for ends in cuts.windows(2) {
            steps.extend([frame(text[ends[0]..ends[1]].to_vec()), Step::Wait]);
        }
        let whole = [frame(text)].into_iter().chain(end.clone());
        prop_assert_eq!(verdict(steps.into_iter().chain(end)), verdict(whole));
    }
}
