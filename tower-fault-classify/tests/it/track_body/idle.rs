//! The idle limit: streams that stall, on tokio's paused clock.

use std::convert::Infallible;
use std::mem::size_of;
use std::pin::Pin;
use std::time::Duration;

use allocation_counter::measure;
use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use http_body_util::BodyExt;
use tokio::time::{sleep, timeout};
use tokio_test::{assert_pending, task};
use tower::{ServiceBuilder, ServiceExt, service_fn};
use tower_fault_classify::body::{BodyEnd, EndReason, IdleLimit, NoIdleLimit};
use tower_fault_classify::upload::{UploadBody, UploadLayer};
use tower_fault_classify::{FaultClassifyLayer, Health, Kind, Origin, Retryable, Rule, Verdict};

use super::{Log, of_type};
use crate::support::bodies::{Script, Seen, Step, frame, poll, read_to_end, through, trailers};
use crate::support::call::now;

const LIMIT: Duration = Duration::from_secs(5);
const SHORTER: Duration = Duration::from_millis(4_900);
const LONGER: Duration = Duration::from_secs(60);

const STALLED: Option<(Kind, Retryable, Health)> = Some((Kind::Timeout, Retryable::Never, Health::Unhealthy));

/// Returns a tracked body with an idle limit, and the log of its hook.
fn limited(
    kind: &str,
    limit: Duration,
    steps: impl IntoIterator<Item = Step>,
) -> (impl Body<Data = Bytes, Error = std::io::Error> + Unpin, Log) {
    let log = Log::default();
    let layer = FaultClassifyLayer::new().track_body(log.clone()).idle_limit(limit);
    let response = now(through(&layer, of_type(kind, Script::new(steps))));
    (response.into_body(), log)
}

#[tokio::test(start_paused = true)]
async fn stall_calls_hook_once_and_later_frames_pass() {
    let end = || trailers(&[("grpc-status", "0")]);
    let Step::Trailers(sent_trailers) = end() else { unreachable!() };
    let expected = [Seen::Data("a".into()), Seen::Data("b".into()), Seen::Trailers(sent_trailers), Seen::End];
    let stalls = [
        [Step::Sleep(LONGER), frame("a"), frame("b"), end()],
        [frame("a"), Step::Sleep(LONGER), frame("b"), end()],
        [frame("a"), frame("b"), Step::Sleep(LONGER), end()],
    ];
    for (place, steps) in stalls.into_iter().enumerate() {
        for kind in ["text/event-stream", "application/grpc"] {
            let (mut body, log) = limited(kind, LIMIT, steps.clone());
            assert_eq!(read_to_end(&mut body).await, expected);
            assert_eq!(log.axes(), STALLED, "{place} {kind}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn stall_is_reported_at_limit_while_reader_waits() {
    let (mut body, log) = limited("text/event-stream", LIMIT, [frame("a"), Step::Stall]);
    body.frame().await.unwrap().unwrap();
    timeout(SHORTER, body.frame()).await.unwrap_err();
    assert_eq!(log.count(), 0, "the limit is not over");
    timeout(Duration::from_millis(102), body.frame()).await.unwrap_err();
    assert_eq!(log.axes(), STALLED);
    timeout(LONGER, body.frame()).await.unwrap_err();
    drop(body);
    assert_eq!(log.axes(), STALLED, "the hook is called once");
}

#[tokio::test(start_paused = true)]
async fn each_frame_restarts_idle_time() {
    let wait = || Step::Sleep(SHORTER);
    let steps = [wait(), frame("a"), wait(), frame(""), wait(), frame("b"), wait()];
    let (mut body, log) = limited("text/event-stream", LIMIT, steps);
    assert_eq!(read_to_end(&mut body).await.len(), 4);
    assert_eq!(log.only(), Verdict::Success);
}

#[tokio::test(start_paused = true)]
async fn reader_that_does_not_poll_is_not_stalled_server() {
    let steps = [frame("a"), Step::Sleep(SHORTER), frame("b"), frame("c")];
    let (mut body, log) = limited("text/event-stream", LIMIT, steps);
    body.frame().await.unwrap().unwrap();
    sleep(LONGER).await;
    timeout(Duration::ZERO, body.frame()).await.unwrap_err();
    sleep(LONGER).await;
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "b");
    sleep(LONGER).await;
    assert_eq!(read_to_end(&mut body).await.len(), 2);
    assert_eq!(log.only(), Verdict::Success);
}

#[tokio::test(start_paused = true)]
async fn limit_wakes_task_that_polled_last() {
    let (body, log) = limited("text/event-stream", LIMIT, [Step::Stall]);
    let body = std::sync::Mutex::new(body);
    let read = || task::spawn(std::future::poll_fn(|cx| Pin::new(&mut *body.lock().unwrap()).poll_frame(cx)));
    let (mut first, mut second) = (read(), read());
    assert_pending!(first.poll());
    tokio::time::advance(SHORTER).await;
    assert_pending!(second.poll());
    tokio::time::advance(LONGER).await;
    assert!(second.is_woken());
    assert_pending!(second.poll());
    assert_eq!(log.axes(), STALLED);
}

#[tokio::test(start_paused = true)]
async fn zero_and_longest_limit_report_nothing() {
    for limit in [Duration::ZERO, Duration::MAX] {
        let (mut body, log) = limited("text/event-stream", limit, [Step::Sleep(LONGER), frame("a")]);
        assert_eq!(read_to_end(&mut body).await.len(), 2);
        assert_eq!(log.only(), Verdict::Success, "{limit:?}");
    }
}

/// A rule that accepts a stall of the limit.
#[derive(Clone, Copy, Debug)]
struct MayStall;

impl<Res, Err> Rule<Res, Err> for MayStall {
    fn verdict(&self, _: Result<&Res, &Err>) -> Option<Verdict> {
        None
    }

    fn verdict_on_end(&self, end: &BodyEnd<'_>) -> Option<Verdict> {
        matches!(end.reason(), EndReason::Stalled(LIMIT)).then_some(Verdict::Success)
    }
}

#[tokio::test(start_paused = true)]
async fn rule_reads_limit_of_stalled_body() {
    let log = Log::default();
    let layer = FaultClassifyLayer::new().rule(MayStall).track_body(log.clone()).idle_limit(LIMIT);
    let script = Script::new([Step::Sleep(LONGER), frame("a")]);
    read_to_end(now(through(&layer, of_type("text/event-stream", script))).body_mut()).await;
    assert_eq!(log.only(), Verdict::Success);
}

/// The server may wait for the rest of the upload.
#[tokio::test(start_paused = true)]
async fn stall_while_upload_waits_is_neutral() {
    for (upload, health) in
        [(vec![frame("a"), Step::Stall], Health::Neutral), (vec![frame("a")], Health::Unhealthy)]
    {
        let log = Log::default();
        let service = ServiceBuilder::new()
            .layer(UploadLayer::new())
            .layer(FaultClassifyLayer::new().track_body(log.clone()).idle_limit(LIMIT))
            .service(service_fn(async |request: Request<UploadBody<Script>>| {
                tokio::spawn(request.into_body().collect());
                Ok::<_, Infallible>(Response::new(Script::new([Step::Sleep(LONGER), frame("b")])))
            }));
        let mut response = service.oneshot(Request::new(Script::new(upload))).await.unwrap();
        read_to_end(response.body_mut()).await;
        let fault = *log.only().fault().unwrap();
        assert_eq!((fault.kind(), fault.health()), (Kind::Timeout, health));
        let origin = if health == Health::Neutral { Origin::Caller } else { Origin::Transport };
        assert_eq!(fault.origin(), origin);
    }
}

/// There is no runtime: a timer would panic.
#[test]
fn available_data_creates_no_timer() {
    let (mut body, log) = limited("text/plain", LIMIT, [frame("a"), frame("b")]);
    let allocations = measure(|| while poll(&mut body) != Seen::End {});
    assert_eq!(allocations.count_total, 1, "the verdict in the log");
    assert_eq!(log.only(), Verdict::Success);
    assert_eq!((size_of::<NoIdleLimit>(), size_of::<IdleLimit>()), (0, 32));
}
