//! Bodies of actions: malformed, large, slow and endless.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use serde_json::json;
use tokio::time::Instant;

use super::harness::*;

#[tokio::test]
async fn wrong_body_is_400() {
    let circuits = Circuits::new();
    // The closure gives each request a user, because the rate of one user is limited.
    let user = std::sync::atomic::AtomicU32::new(0);
    let builder = circuits.builder().authorize(move |_| {
        let number = user.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Some(tower_breaker_admin::User::operator(number.to_string()))
    });
    let admin = builder.build().unwrap();
    let too_long = json!({"reason": "ä".repeat(101), "scope": "process"}).to_string();
    let deep = format!("{}1{}", "[".repeat(8000), "]".repeat(8000));
    let nul = "\0".repeat(10);
    let seconds = |text: &str| format!(r#"{{"reason": "test", "scope": "process", "for_seconds": {text}}}"#);
    let reason = |text: &str| format!(r#"{{"reason": "{text}", "scope": "process"}}"#);
    for (body, detail) in [
        ("", "the body is not valid: EOF while parsing"),
        ("{", "the body is not valid: EOF"),
        ("[]", "the body is not valid: "),
        ("null", "the body is not valid: invalid type: null"),
        ("\u{feff}{}", "the body is not valid: expected value"),
        (&*nul, "the body is not valid: expected value"),
        (&*deep, "the body is not valid: invalid"),
        ("{}", "the body is not valid: missing field `reason`"),
        (r#"{"reason": "test"}"#, "the body is not valid: missing field `scope`"),
        (r#"{"scope": "process"}"#, "the body is not valid: missing field `reason`"),
        (
            r#"{"reason": "test", "scope": "all"}"#,
            "the body is not valid: unknown variant `all`, expected `process` or `fleet`",
        ),
        (
            r#"{"reason": "test", "scope": "process", "for": 1}"#,
            "the body is not valid: unknown field `for`, expected",
        ),
        (
            r#"{"reason": "test", "reason": "b", "scope": "process"}"#,
            "the body is not valid: duplicate field `reason`",
        ),
        (r#"{"reason": "test", "scope": "process"} x"#, "the body is not valid: trailing characters"),
        (
            r#"{"reason": 7, "scope": "process"}"#,
            "the body is not valid: invalid type: integer `7`, expected a string",
        ),
        (
            r#"{"reason": "\ud800", "scope": "process"}"#,
            "the body is not valid: unexpected end of hex escape",
        ),
        (&reason(""), "`reason` has 0 bytes; allowed is a text of 1 to 200 bytes without control characters"),
        (&reason("  "), "`reason` has 2 bytes; allowed is"),
        (&reason(r"a\nb"), "`reason` has 3 bytes; allowed is"),
        (&reason(r"\u001b[31m"), "`reason` has 5 bytes; allowed is"),
        (&too_long, "`reason` has 202 bytes; allowed is"),
        (&seconds("0"), "`for_seconds` is 0; allowed is 0.001 to 31536000"),
        (&seconds("-1"), "`for_seconds` is -1; allowed is"),
        (&seconds("0.0009"), "`for_seconds` is 0.0009; allowed is"),
        (&seconds("31536000.1"), "`for_seconds` is 31536000.1; allowed is"),
        (&seconds("1e300"), "`for_seconds` is 1"),
        (&seconds("1e999"), "the body is not valid: number out of range"),
        (&seconds("\"1h\""), "the body is not valid: invalid type: string \"1h\", expected f64"),
    ] {
        let call = Call::act(action("search", "trip")).without("authorization").body(body.to_owned());
        let found = call.fail(&admin, 400).await;
        assert!(found.starts_with(detail), "{body}: {found}");
    }
    let invalid_utf8 =
        Call::act(action("search", "trip")).without("authorization").body(&b"{\"reason\": \"\xff\"}"[..]);
    invalid_utf8.fail(&admin, 400).await;
    for name in ["reset", "release"] {
        let call = Call::act(action("search", name)).without("authorization").body(seconds("1"));
        let detail = call.fail(&admin, 400).await;
        assert_eq!(detail, "`for_seconds` is set; a reset and a release have no duration");
    }
    let with_query = Call::act(format!("{}?scope=fleet", action("search", "trip"))).without("authorization");
    assert_eq!(with_query.fail(&admin, 400).await, "unknown parameter `scope`; allowed is no parameter");
    let wrong_name = Call::act(format!("{API}/circuits/%ff/actions/trip")).without("authorization");
    wrong_name.fail(&admin, 400).await;
    assert!(circuits.search().status().last_transition.is_none());
    for longest in [
        json!({"reason": "ä".repeat(100), "scope": "process", "for_seconds": 31_536_000}),
        json!({"reason": "x", "scope": "process", "for_seconds": 0.001}),
    ] {
        let call = Call::act(action("search", "force_open")).without("authorization").json(&longest);
        call.ok(&admin).await;
    }
}

#[tokio::test]
async fn content_type_must_be_json() {
    let (_circuits, admin) = admin();
    let trip = Call::act(action("search", "trip")).without("content-type");
    trip.fail(&admin, 415).await;
    for wrong in
        ["", "application/jsonx", "application/json-patch+json", "text/json", "json", ", application/json"]
    {
        let detail = trip.clone().header("content-type", wrong).fail(&admin, 415).await;
        assert_eq!(detail, "the body is not JSON; send `content-type: application/json`");
    }
    for right in ["application/json", "Application/JSON ; charset=utf-8"] {
        trip.clone().header("content-type", right).ok(&admin).await;
    }
}

/// A body of these frames. Then it ends, or sends nothing more.
struct Frames {
    frames: VecDeque<Frame<Bytes>>,
    ends: bool,
}

impl Frames {
    fn of(frames: impl IntoIterator<Item = &'static [u8]>) -> Self {
        let frames = frames.into_iter().map(|bytes| Frame::data(Bytes::from_static(bytes)));
        Self { frames: frames.collect(), ends: true }
    }

    fn without_end(self) -> Self {
        Self { ends: false, ..self }
    }
}

impl Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.frames.pop_front() {
            Some(frame) => Poll::Ready(Some(Ok(frame))),
            None if self.ends => Poll::Ready(None),
            None => Poll::Pending,
        }
    }
}

/// A body that sends the same frame without an end.
struct Endless(&'static [u8]);

impl Body for Endless {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(self.0)))))
    }
}

/// A body that breaks off. Its error type is no error of the standard library.
struct Broken;

impl Body for Broken {
    type Data = Bytes;
    type Error = &'static str;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
        Poll::Ready(Some(Err("reset")))
    }
}

#[tokio::test]
async fn body_may_arrive_in_parts() {
    let (_circuits, admin) = admin();
    let mut body = Frames::of([&b"{\"reason\": \"te"[..], b"", b"st\", \"scope\": \"process\"}"]);
    body.frames.push_back(Frame::trailers(http::HeaderMap::new()));
    let answer = send(&admin, Call::act(action("search", "trip")).with_body(body)).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(last_audit(&admin).await["reason"], "test");
}

#[tokio::test]
async fn body_of_16_kib_is_the_largest() {
    let (_circuits, admin) = admin();
    let text = r#"{"reason": "test", "scope": "process"}"#;
    let padded = |length: usize| format!("{text}{}", " ".repeat(length - text.len()));
    let trip = Call::act(action("search", "trip"));
    trip.clone().body(padded(16 * 1024)).ok(&admin).await;
    let detail = trip.clone().body(padded(16 * 1024 + 1)).fail(&admin, 413).await;
    assert_eq!(detail, "the body is too large; allowed is up to 16384 bytes");
    for endless in [&b"          "[..], b""] {
        let answer = send(&admin, trip.with_body(Endless(endless))).await;
        assert_eq!(answer.status, 413, "{answer:?}");
    }
    assert_eq!(last_audit(&admin).await["status"], 413);
}

#[tokio::test]
async fn body_of_unknown_length_is_limited() {
    let (_circuits, admin) = admin();
    let text = br#"{"reason": "test", "scope": "process"}"#;
    for (length, status) in [(16 * 1024, 200), (16 * 1024 + 1, 413)] {
        let mut body = Frames::of([&text[..]]);
        body.frames.push_back(Frame::data(vec![b' '; length - text.len()].into()));
        let answer = send(&admin, Call::act(action("search", "trip")).with_body(body)).await;
        assert_eq!(answer.status, status, "{answer:?}");
    }
}

/// A body with a length, of which nothing arrives.
struct Announced(u64);

impl Body for Announced {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Pending
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0)
    }
}

#[tokio::test(start_paused = true)]
async fn large_body_is_refused_before_it_arrives() {
    let (_circuits, admin) = admin();
    for (length, status, seconds) in [(16 * 1024, 408, 10), (16 * 1024 + 1, 413, 0)] {
        let start = Instant::now();
        let body = Announced(length);
        let answer = send(&admin, Call::act(action("search", "trip")).with_body(body)).await;
        assert_eq!((answer.status.as_u16(), start.elapsed().as_secs()), (status, seconds));
    }
}

#[tokio::test(start_paused = true)]
async fn slow_body_is_408() {
    let (_circuits, admin) = admin();
    let start = Instant::now();
    let body = Frames::of([&b"{\"reason\": "[..]]).without_end();
    let answer = send(&admin, Call::act(action("search", "trip")).with_body(body)).await;
    assert_eq!((answer.status.as_u16(), start.elapsed().as_secs()), (408, 10));
    assert_eq!(answer.detail(), "the body did not arrive within 10s");
    assert_eq!(last_audit(&admin).await["status"], 408);
}

#[tokio::test]
async fn broken_body_is_400() {
    let (_circuits, admin) = admin();
    let answer = send(&admin, Call::act(action("search", "trip")).with_body(Broken)).await;
    assert_eq!((answer.status.as_u16(), answer.detail()), (400, "the body ended early".into()));
}

#[tokio::test(start_paused = true)]
async fn body_is_only_read_after_authentication() {
    let (_circuits, admin) = admin();
    let start = Instant::now();
    for (call, status) in [
        (Call::act(action("search", "trip")).without("authorization"), 401),
        (Call::act(action("search", "trip")).token(READER), 403),
        (Call::act(action("search", "trip")).without("x-tower-breaker"), 403),
        (Call::act(action("search", "trip")).without("content-type"), 415),
        (Call::new(http::Method::POST, "/api/v1/circuits"), 405),
    ] {
        let answer = send(&admin, call.with_body(Frames::of([]).without_end())).await;
        assert_eq!(answer.status, status);
    }
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn attempt_is_audited_although_its_client_disconnects() {
    let (circuits, admin) = admin();
    let body = Frames::of([&br#"{"reason": "test", "scope": "process"}"#[..]]).without_end();
    let request = Call::act(action("search", "trip")).with_body(body);
    let answer = tokio::time::timeout(Duration::from_secs(1), send(&admin, request)).await;
    assert!(answer.is_err(), "the client does not wait any longer");
    assert!(audit(&admin).await.is_empty());
    tokio::time::sleep(Duration::from_secs(10)).await;
    let entry = last_audit(&admin).await;
    assert_eq!((&entry["status"], &entry["user"]), (&408.into(), &"anna".into()));
    assert!(circuits.search().status().last_transition.is_none());
}

/// A body that panics, as a faulty middleware may do.
struct Panicking;

impl Body for Panicking {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        panic!("the body fails")
    }
}

#[tokio::test]
async fn attempt_that_panics_is_audited() {
    let (_circuits, admin) = admin();
    let answer = send(&admin, Call::act(action("search", "trip")).with_body(Panicking)).await;
    assert_eq!((answer.status.as_u16(), answer.detail()), (500, "the request was not processed".into()));
    let entry = last_audit(&admin).await;
    assert_eq!((&entry["status"], &entry["user"]), (&500.into(), &"anna".into()));
    assert_eq!(entry["error"], "the attempt was interrupted; read the circuit to see whether it was applied");
}

#[test]
fn attempt_is_audited_although_the_runtime_ends() {
    let circuits = Circuits::new();
    let (builder, observed) = observed(circuits.builder());
    let admin = builder.build().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.unwrap();
    let request = Call::act(action("search", "trip")).with_body(Frames::of([]).without_end());
    let wait = async { tokio::time::timeout(Duration::from_secs(1), send(&admin, request)).await };
    assert!(runtime.block_on(wait).is_err());
    assert!(observed.lock().unwrap().is_empty());
    drop(runtime);
    let observed = observed.lock().unwrap();
    assert_eq!(observed.len(), 1);
    assert_eq!((observed[0].status, &*observed[0].user), (500, "anna"));
}
