//! Error bodies that are read before the response is returned: what the rule gets, how long the
//! response is delayed, and that every byte is forwarded.

#[cfg(feature = "llm")]
mod first_event;
#[cfg(feature = "llm")]
mod llm_errors;
mod random_bodies;
#[cfg(feature = "reqwest")]
mod reqwest;

use std::io::{self, ErrorKind};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::Duration;

use allocation_counter::measure;
use bytes::Bytes;
use http::Response;
use http_body::{Body, Frame};
use http_body_util::Full;
use tokio::time::Instant;
use tokio_test::{assert_pending, task};
use tower_fault_classify::body::{BodyRule, ErrorBodies, ErrorBody};
use tower_fault_classify::rules::StatusRules;
use tower_fault_classify::{
    CarriedVerdict, Fault, FaultClassifyLayer, Health, Kind, Origin, Retryable, Verdict,
};

use crate::support::bodies::{
    BodyHints, Script, Seen, Step, bytewise, data, drip, frame, poll, read_to_end, through, trailers,
};
use crate::support::call::now;

const OWN: Fault = Fault::new(Kind::Quota, Retryable::Never, Health::Neutral, Origin::Remote);
const DEFAULT_LIMIT: usize = 64 << 10;
const DEFAULT_TIME: Duration = Duration::from_secs(1);

/// The beginning of a body, and whether it is the complete body.
type Beginning = (Vec<u8>, bool);

/// A rule that records the bodies that it gets.
#[derive(Clone, Debug, Default)]
struct RecordingRule {
    all: Arc<Mutex<Vec<Beginning>>>,
    verdict: Option<Verdict>,
}

impl BodyRule for RecordingRule {
    fn verdict(&self, body: &ErrorBody<'_>) -> Option<Verdict> {
        assert!(body.status.as_u16() >= 400);
        self.all().push((body.bytes.to_vec(), body.complete));
        self.verdict
    }
}

impl RecordingRule {
    fn with(verdict: impl Into<Verdict>) -> Self {
        Self { verdict: Some(verdict.into()), ..Self::default() }
    }

    fn all(&self) -> MutexGuard<'_, Vec<Beginning>> {
        self.all.lock().unwrap()
    }

    /// Returns the only body that was recorded.
    fn only(&self) -> Beginning {
        match &self.all()[..] {
            [recorded] => recorded.clone(),
            all => panic!("the rule was called {} times", all.len()),
        }
    }
}

fn with_status<B>(status: u16, body: B) -> Response<B> {
    Response::builder().status(status).header("x-one", "1").body(body).unwrap()
}

/// Reads the body of a 503, which must be available immediately. Returns the rule and the forwarded
/// body.
fn read(
    body: Script,
    bodies: impl FnOnce(ErrorBodies<RecordingRule>) -> ErrorBodies<RecordingRule>,
) -> (RecordingRule, impl Body<Data = Bytes, Error = io::Error> + Unpin) {
    let recorded = RecordingRule::default();
    let layer = FaultClassifyLayer::new().read_error_bodies(bodies(ErrorBodies::new(recorded.clone())));
    let response = now(through(&layer, with_status(503, body)));
    (recorded, response.into_body())
}

/// Runs a future on a tokio runtime with paused time.
fn on_tokio<F: Future>(future: F) -> F::Output {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_time().start_paused(true).build().unwrap().block_on(future)
}

fn kind(response: &Response<impl Body>) -> Option<Kind> {
    CarriedVerdict::get(response)?.fault().map(Fault::kind)
}

#[test]
fn error_body_below_400_is_never_read() {
    for status in [200, 204, 206, 301, 304, 399] {
        let recorded = RecordingRule::with(OWN);
        let layer = FaultClassifyLayer::new().read_error_bodies(ErrorBodies::new(recorded.clone()));
        let response = now(through(&layer, with_status(status, Script::new([Step::Panic]))));
        assert_eq!((response.status().as_u16(), CarriedVerdict::get(&response)), (status, None));
        assert!(recorded.all().is_empty(), "{status}");
    }
}

#[test]
fn body_rule_sees_each_error_body_once() {
    for status in [400, 404, 429, 499, 500, 503, 599] {
        let rule = move |body: &ErrorBody<'_>| {
            assert_eq!(body.status, status);
            assert_eq!(body.headers["x-one"], "1");
            assert_eq!((body.bytes, body.complete), (&b"the body"[..], true));
            Some(OWN.into())
        };
        let layer = FaultClassifyLayer::new().read_error_bodies(ErrorBodies::new(rule));
        let steps = [frame("the"), frame(" body"), trailers(&[("x-two", "2")])];
        let response = now(through(&layer, with_status(status, Script::new(steps.clone()))));
        assert_eq!(response.status(), status);
        assert_eq!(response.headers()["x-one"], "1");
        assert_eq!(CarriedVerdict::get(&response), Some(OWN.into()), "{status}");
        let all = bytewise(now(read_to_end(&mut response.into_body())));
        assert_eq!(all, bytewise(now(read_to_end(&mut Script::new(steps)))));
    }
}

#[test]
fn body_rule_without_verdict_defers_to_head() {
    let layer = FaultClassifyLayer::new().read_error_bodies(ErrorBodies::new(RecordingRule::default()));
    for (status, expected) in [(404, Kind::Client), (429, Kind::Throttled), (503, Kind::Unavailable)] {
        let response = now(through(&layer, with_status(status, Script::new([frame("a")]))));
        assert_eq!(kind(&response), Some(expected));
    }
}

#[test]
fn body_rule_takes_precedence_over_head_rules() {
    let rules = StatusRules::new().status(503, StatusRules::row(404));
    let bodies =
        |rule| FaultClassifyLayer::new().rule(rules.clone()).read_error_bodies(ErrorBodies::new(rule));
    let response = now(through(&bodies(RecordingRule::with(OWN)), with_status(503, Script::new([]))));
    assert_eq!(kind(&response), Some(Kind::Quota));
    let response = now(through(&bodies(RecordingRule::default()), with_status(503, Script::new([]))));
    assert_eq!(kind(&response), Some(Kind::Client));
}

#[test]
fn error_body_rule_success_is_carried() {
    let layer =
        FaultClassifyLayer::new().read_error_bodies(ErrorBodies::new(RecordingRule::with(Verdict::Success)));
    let response = now(through(&layer, with_status(404, Script::new([]))));
    assert_eq!(CarriedVerdict::get(&response), Some(Verdict::Success));
}

#[test]
fn error_body_verdict_reaches_track_body_hook() {
    let reported = Arc::new(Mutex::new(Vec::new()));
    let hook = {
        let reported = Arc::clone(&reported);
        move |verdict: Verdict| reported.lock().unwrap().push(verdict)
    };
    let bodies = ErrorBodies::new(RecordingRule::with(OWN));
    let layer = FaultClassifyLayer::new().read_error_bodies(bodies).track_body(hook.clone());
    let response = now(through(&layer, with_status(429, Script::new(drip(b"ab")))));
    assert_eq!(*reported.lock().unwrap(), [OWN.into()]);
    let all = bytewise(now(read_to_end(&mut response.into_body())));
    assert_eq!(all, [Seen::Data("ab".into()), Seen::End]);
    assert_eq!(reported.lock().unwrap().len(), 1);

    // A success is reported at the end of the body. The order of the two setters does not matter.
    let bodies = ErrorBodies::new(RecordingRule::with(Verdict::Success));
    let layer = FaultClassifyLayer::new().track_body(hook).read_error_bodies(bodies);
    let response = now(through(&layer, with_status(404, Script::new([Step::Fail(ErrorKind::TimedOut)]))));
    assert_eq!(reported.lock().unwrap().len(), 1);
    now(read_to_end(&mut response.into_body()));
    let last = reported.lock().unwrap().pop().unwrap();
    assert_eq!(last.fault().map(Fault::kind), Some(Kind::Timeout));
}

#[test]
fn body_rule_sees_bytes_up_to_limit() {
    for (limit, seen) in [(0, ""), (1, "a"), (3, "abc"), (5, "abcde"), (7, "abcdefg"), (8, "abcdefg")] {
        for steps in [vec![frame("abc"), frame(""), frame("defg")], drip(b"abcdefg"), vec![frame("abcdefg")]]
        {
            let (recorded, mut body) = read(Script::new(steps), |bodies| bodies.limit(limit));
            assert_eq!(recorded.only().0, seen.as_bytes(), "{limit}");
            assert!(limit >= 7 || !recorded.only().1, "{limit}: there is more");
            assert!(limit < 8 || recorded.only().1, "{limit}: there is no more");
            let all = bytewise(now(read_to_end(&mut body)));
            assert_eq!(all, [Seen::Data("abcdefg".into()), Seen::End], "{limit}");
        }
    }
}

#[test]
fn error_body_over_limit_is_not_complete() {
    for steps in [vec![frame("abc"), frame("defg")], vec![frame("abcdefg")], drip(b"abcdefg")] {
        let (recorded, _) = read(Script::new(steps).body_hints(BodyHints::Correct), |bodies| bodies.limit(5));
        assert_eq!(recorded.only(), (b"abcde".to_vec(), false));
    }
}

#[test]
fn error_body_default_limit_is_64_kib() {
    for (length, complete) in [(DEFAULT_LIMIT - 1, true), (DEFAULT_LIMIT + 1, false), (1 << 20, false)] {
        for part in [1 << 14, 1 << 20] {
            let text = (0..=u8::MAX).cycle().take(length).collect::<Vec<_>>();
            let (recorded, mut body) =
                read(Script::new(text.chunks(part).map(|part| frame(part.to_vec()))), |b| b);
            assert_eq!(recorded.only(), (text[..length.min(DEFAULT_LIMIT)].to_vec(), complete));
            let all = bytewise(now(read_to_end(&mut body)));
            assert_eq!(all, [Seen::Data(text.into()), Seen::End]);
        }
    }
}

#[test]
fn error_body_failure_is_replayed_in_place() {
    let steps =
        || [frame("ab"), Step::Fail(ErrorKind::ConnectionReset), frame("cd"), trailers(&[("x", "1")])];
    let (recorded, mut body) = read(Script::new(steps()), |bodies| bodies);
    assert_eq!(recorded.only(), (b"ab".to_vec(), false), "it is not known to be complete");
    let all = bytewise(now(read_to_end(&mut body)));
    assert_eq!(all, bytewise(now(read_to_end(&mut Script::new(steps())))));
    assert_eq!(all[..2], [Seen::Data("ab".into()), Seen::Failed(ErrorKind::ConnectionReset)]);
}

#[test]
fn error_body_failed_is_not_complete() {
    for steps in [vec![], vec![frame("ab")]] {
        let steps = [steps, vec![Step::Fail(ErrorKind::ConnectionReset)]].concat();
        let (recorded, mut body) =
            read(Script::new(steps.clone()).body_hints(BodyHints::Correct), |bodies| bodies);
        assert_eq!(recorded.only(), (data(&steps), false));
        assert!(!body.is_end_stream());
        let all = now(read_to_end(&mut body));
        assert_eq!(all[all.len() - 2..], [Seen::Failed(ErrorKind::ConnectionReset), Seen::End]);
    }
}

#[test]
fn error_body_is_not_polled_after_its_end() {
    for body_hints in [BodyHints::Absent, BodyHints::Correct] {
        for steps in [vec![], vec![frame("a")], drip(b"abc"), vec![frame("a"), trailers(&[("x", "1")])]] {
            let (recorded, mut body) =
                read(Script::new(steps.clone()).body_hints(body_hints).once(), |bodies| bodies);
            assert_eq!(recorded.only(), (data(&steps), true));
            now(read_to_end(&mut body));
        }
    }
}

#[test]
fn error_body_needs_runtime_only_if_pending() {
    let (recorded, _) = read(Script::new(drip(b"there")), |bodies| bodies);
    assert_eq!(recorded.only(), (b"there".to_vec(), true));
    let waits = || read(Script::new([frame("a"), Step::Stall]), |bodies| bodies);
    assert!(catch_unwind(AssertUnwindSafe(waits)).is_err());
}

#[test]
fn error_body_of_many_ready_frames_needs_no_runtime() {
    let recorded = RecordingRule::default();
    let layer = FaultClassifyLayer::new().read_error_bodies(ErrorBodies::new(recorded.clone()));
    let body = Script::new(drip(&[b'a'; 1_000]));
    // The future yields between polls, and wakes its task immediately.
    let mut reading = task::spawn(through(&layer, with_status(503, body)));
    while reading.poll().is_pending() {
        assert!(reading.is_woken());
    }
    assert!(recorded.only() == (vec![b'a'; 1_000], true));
}

#[tokio::test(start_paused = true)]
async fn error_body_stalled_delays_response_one_second() {
    for within in [None, Some(Duration::from_millis(30)), Some(Duration::ZERO)] {
        let recorded = RecordingRule::with(OWN);
        let bodies = ErrorBodies::new(recorded.clone());
        let bodies = within.map_or(bodies.clone(), |time| bodies.timeout(time));
        let layer = FaultClassifyLayer::new().read_error_bodies(bodies);
        let start = Instant::now();
        let steps = [frame("ab"), frame("cd"), Step::Stall];
        let mut response = through(&layer, with_status(503, Script::new(steps))).await;
        assert_eq!(start.elapsed(), within.unwrap_or(DEFAULT_TIME));
        assert_eq!(recorded.only(), (b"abcd".to_vec(), false));
        assert_eq!(CarriedVerdict::get(&response), Some(OWN.into()));
        assert_eq!(poll(response.body_mut()), Seen::Data("abcd".into()));
        assert_eq!(poll(response.body_mut()), Seen::Pending);
    }
}

#[test]
fn error_body_zero_timeout_reads_ready_frames() {
    let steps = drip(&[b'a'; 5_000]).into_iter().chain([Step::Stall]);
    let recorded = RecordingRule::default();
    let bodies = ErrorBodies::new(recorded.clone()).timeout(Duration::ZERO);
    let layer = FaultClassifyLayer::new().read_error_bodies(bodies);
    on_tokio(through(&layer, with_status(503, Script::new(steps))));
    let (bytes, complete) = recorded.only();
    assert_eq!((bytes.len(), complete), (5_000, false));
}

#[tokio::test(start_paused = true)]
async fn reading_dropped_drops_body() {
    let body = Script::new([frame("a"), Step::Stall]);
    let token = body.token();
    let layer = FaultClassifyLayer::new().read_error_bodies(ErrorBodies::new(RecordingRule::default()));
    let mut call = task::spawn(through(&layer, with_status(503, body)));
    assert_pending!(call.poll());
    assert_eq!(Arc::strong_count(&token), 2);
    drop(call);
    assert_eq!(Arc::strong_count(&token), 1);
}

/// An endless body of empty frames.
#[derive(Debug, Default)]
struct Endless(usize);

impl Body for Endless {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        self.0 += 1;
        assert!(self.0 < 10_000_000, "the reading blocks its thread");
        Poll::Ready(Some(Ok(Frame::data(Bytes::new()))))
    }
}

#[tokio::test(start_paused = true)]
async fn error_body_endless_blocks_neither_thread_nor_response() {
    let recorded = RecordingRule::default();
    let layer = FaultClassifyLayer::new().read_error_bodies(ErrorBodies::new(recorded.clone()));
    let call = tokio::spawn(async move { through(&layer, with_status(503, Endless::default())).await });
    // Paused time does not advance while a task is ready, and this task runs only if the other one
    // yields.
    tokio::task::yield_now().await;
    tokio::time::advance(DEFAULT_TIME + Duration::from_millis(1)).await;
    assert_eq!(call.await.unwrap().status(), 503);
    assert_eq!(recorded.only(), (Vec::new(), false));
}

/// A body with frames of 64 KiB, which are created when they are polled. Each byte is the number of
/// its frame.
#[derive(Debug)]
struct Many(u64);

impl Many {
    const FRAME: usize = 64 << 10;

    fn byte(place: u64) -> u8 {
        (place / Self::FRAME as u64) as u8
    }
}

impl Body for Many {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let frame = vec![self.0 as u8; Self::FRAME];
        self.0 += 1;
        Poll::Ready((self.0 <= 1 << 14).then(|| Ok(Frame::data(frame.into()))))
    }
}

#[test]
fn error_body_memory_is_limit_plus_one_frame() {
    for limit in [DEFAULT_LIMIT, 100_000, 1 << 20] {
        let recorded = RecordingRule::default();
        let layer =
            FaultClassifyLayer::new().read_error_bodies(ErrorBodies::new(recorded.clone()).limit(limit));
        let mut place = 0;
        let mut read = || {
            let mut body = now(through(&layer, with_status(500, Many(0)))).into_body();
            while let Seen::Data(data) = poll(&mut body) {
                assert_eq!(data[0], Many::byte(place));
                place += data.len() as u64;
                assert_eq!(data[data.len() - 1], Many::byte(place - 1));
            }
        };
        let memory = measure(&mut read);
        assert_eq!(place, 1 << 30);
        assert_eq!(recorded.only().0.len(), limit);
        // The bytes that the rule records, a vector that was just moved to one twice its size, and
        // two frames.
        let most = limit + 3 * limit + 2 * Many::FRAME + 4_096;
        assert!(memory.bytes_max < most as u64, "{limit}: {memory:?}");
    }
}

static LARGE: [u8; 8 << 20] = [b'a'; 8 << 20];

#[test]
fn error_body_frame_over_limit_is_not_copied() {
    for steps in [vec![frame("a"), frame(&LARGE[..])], vec![frame(&LARGE[..])]] {
        let mut script = Some(Script::new(steps));
        let memory = measure(|| {
            let (_, mut body) = read(script.take().unwrap(), |bodies| bodies);
            while poll(&mut body) != Seen::End {}
        });
        assert!(memory.bytes_max < 4 * DEFAULT_LIMIT as u64, "{memory:?}");
    }
}

/// Returns the layer's allocations for a response with this body, after a first call on the same
/// thread.
fn allocations(status: u16, frame: &'static [u8]) -> u64 {
    let layer = FaultClassifyLayer::new().read_error_bodies(ErrorBodies::new(|_: &ErrorBody<'_>| None));
    let mut responses = [(); 2].map(|()| Some(with_status(status, Full::new(Bytes::from_static(frame)))));
    let mut call = |place: usize| {
        let response = responses[place].take().unwrap();
        drop(now(through(&layer, response)));
    };
    call(0);
    measure(|| call(1)).count_total
}

#[test]
fn error_body_of_one_frame_allocates_one_box() {
    assert_eq!(allocations(200, b"body"), 0);
    assert_eq!(allocations(503, b"body"), 1);
    assert_eq!(allocations(503, &LARGE), 1, "a large frame is not copied");
}
