//! Tests of bodies that are sent again: the server sees the whole body or a truncated one, never a
//! wrong one.

use std::cell::Cell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use proptest::prelude::*;
use tower_fault_classify::ErrorChain;

use super::*;

/// The result of one read of a body.
#[derive(Clone, Debug)]
enum Step {
    Data(Vec<u8>),
    Waits,
    Trailers,
    Fails,
}

/// A body that follows a script. Its data is not `Bytes` yet.
struct ScriptedBody {
    script: VecDeque<Step>,
    declared_size: Option<u64>,
    /// How many times the body was polled after its end.
    overrun: Rc<Cell<usize>>,
    over: bool,
}

fn scripted(steps: impl IntoIterator<Item = Step>) -> ScriptedBody {
    ScriptedBody {
        script: steps.into_iter().collect(),
        declared_size: None,
        overrun: Rc::default(),
        over: false,
    }
}

fn trailers() -> HeaderMap {
    HeaderMap::from_iter([(http::HeaderName::from_static("x-sum"), http::HeaderValue::from_static("7"))])
}

impl Body for ScriptedBody {
    type Data = &'static [u8];
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, io::Error>>> {
        let Some(step) = self.script.pop_front() else {
            if self.over {
                self.overrun.set(self.overrun.get() + 1);
            }
            self.over = true;
            return Poll::Ready(None);
        };
        Poll::Ready(Some(match step {
            Step::Data(data) => {
                let data: &'static [u8] = data.leak();
                Ok(Frame::data(data))
            }
            Step::Trailers => Ok(Frame::trailers(trailers())),
            Step::Fails => Err(io::Error::other("the disk is gone")),
            Step::Waits => {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }))
    }

    fn size_hint(&self) -> SizeHint {
        self.declared_size.map_or_else(SizeHint::new, SizeHint::with_exact)
    }
}

/// The part of a body that a server has received.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Seen {
    data: Vec<u8>,
    trailers: Option<HeaderMap>,
    /// `None`: the server stopped reading. `Some(Err)`: the body failed.
    end: Option<Result<(), String>>,
}

/// Reads at most `readings` times.
fn read<B: Body<Data = Bytes, Error = error::BoxError> + Unpin>(
    body: &mut B,
    readings: usize,
    seen: &mut Seen,
) {
    let mut cx = Context::from_waker(Waker::noop());
    for _ in 0..readings {
        if seen.end.is_some() {
            return;
        }
        match Pin::new(&mut *body).poll_frame(&mut cx) {
            Poll::Pending => {}
            Poll::Ready(None) => seen.end = Some(Ok(())),
            Poll::Ready(Some(Err(error))) => seen.end = Some(Err(ErrorChain(&*error).to_string())),
            Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) => seen.data.extend(data),
                Err(frame) => seen.trailers = frame.into_trailers().ok(),
            },
        }
    }
}

fn all<B: Body<Data = Bytes, Error = error::BoxError> + Unpin>(body: &mut B) -> Seen {
    let mut seen = Seen::default();
    read(body, usize::MAX, &mut seen);
    seen
}

fn whole(data: &[u8], trailers: Option<HeaderMap>) -> Seen {
    Seen { data: data.to_vec(), trailers, end: Some(Ok(())) }
}

fn data(data: &[u8]) -> Step {
    Step::Data(data.to_vec())
}

type Saved = Option<SavedStream<ScriptedBody>>;

fn save(body: ScriptedBody, limit: usize) -> (ReplayBody<ScriptedBody>, Saved) {
    keep(ReplayBody::new(body), limit)
}

fn keep<B: RetryBody>(mut body: B, limit: usize) -> (B, Option<B::Saved>) {
    let saved = body.save(limit);
    (body, saved)
}

fn replay(saved: Saved) -> (ReplayBody<ScriptedBody>, Saved) {
    RetryBody::replay(saved.unwrap(), false).unwrap()
}

#[test]
fn body_in_memory_is_sent_again_whole() {
    let (body, saved) = keep(Full::new(Bytes::from_static(b"text")), 0);
    let (second, saved) = Full::replay(saved.unwrap(), false).unwrap();
    let (third, nothing) = Full::replay(saved.unwrap(), true).unwrap();
    assert!(nothing.is_none());
    for again in [second, third] {
        assert_eq!(format!("{body:?}"), format!("{again:?}"));
    }
}

#[test]
fn read_part_is_replayed_and_rest_follows_with_trailers() {
    let (mut first, saved) = save(scripted([data(b"ab"), data(b"cd"), data(b"ef"), Step::Trailers]), 100);
    let mut seen = Seen::default();
    read(&mut first, 2, &mut seen);
    assert_eq!(seen.data, b"abcd");
    drop(first);
    let (mut second, saved) = replay(saved);
    let mut seen = Seen::default();
    read(&mut second, 2, &mut seen);
    assert_eq!(seen.data, b"abcdef", "one replayed piece and one frame of the rest");
    let (mut third, saved) = replay(saved);
    assert_eq!(all(&mut third), whole(b"abcdef", Some(trailers())));
    let (mut fourth, _) = replay(saved);
    assert_eq!(all(&mut fourth), whole(b"abcdef", Some(trailers())), "the trailers are kept too");
}

#[test]
fn body_is_read_only_when_polled_and_never_after_end() {
    let body = scripted([data(b"ab")]);
    let overrun = Rc::clone(&body.overrun);
    let (mut first, saved) = save(body, 100);
    assert_eq!(all(&mut first), whole(b"ab", None));
    let (mut second, saved) = replay(saved);
    assert_eq!(all(&mut second), whole(b"ab", None));
    assert_eq!(all(&mut replay(saved).0), whole(b"ab", None));
    assert_eq!(overrun.get(), 0);
}

#[test]
fn body_over_limit_passes_unchanged_and_is_not_sent_again() {
    for at in 0..4 {
        let body =
            scripted([data(b"ab"), data(b"cd"), data(b"ef"), Step::Waits, data(b"gh"), Step::Trailers]);
        let (mut first, saved) = save(body, 5);
        let mut seen = Seen::default();
        read(&mut first, at, &mut seen);
        assert_eq!(ReplayBody::can_replay(saved.as_ref().unwrap()), at < 3, "after {at} frames");
        if at == 3 {
            assert!(format!("{first:?}").contains("kept: false"), "the rest is read without a lock");
            assert!(ReplayBody::replay(saved.unwrap(), false).is_none());
        }
        read(&mut first, usize::MAX, &mut seen);
        assert_eq!(seen, whole(b"abcdefgh", Some(trailers())));
    }
}

#[test]
fn body_over_limit_holds_no_memory() {
    let frame = || Step::Data(vec![7; 5_000]);
    let (mut first, saved) = save(scripted(std::iter::repeat_with(frame).take(30)), 65_536);
    let mut cx = Context::from_waker(Waker::noop());
    let mut read = 0;
    let held = allocation_counter::measure(|| {
        while let Poll::Ready(Some(Ok(frame))) = Pin::new(&mut first).poll_frame(&mut cx) {
            read += frame.data_ref().map_or(0, Bytes::len);
        }
    });
    assert_eq!(read, 150_000);
    assert!(held.bytes_current <= 0, "{} bytes", held.bytes_current);
    // The list of the pieces needs memory in addition to the limit.
    assert!(held.bytes_max <= 65_536 + 256, "{} bytes at most: a piece was in memory twice", held.bytes_max);
    drop(saved);
}

/// Reads the given number of frames, and returns the number of bytes in them.
fn read_frames(body: &mut ReplayBody<ScriptedBody>, frames: usize) -> usize {
    let mut cx = Context::from_waker(Waker::noop());
    let mut bytes = 0;
    for _ in 0..frames {
        let Poll::Ready(Some(Ok(frame))) = Pin::new(&mut *body).poll_frame(&mut cx) else { break };
        bytes += frame.data_ref().map_or(0, Bytes::len);
    }
    bytes
}

/// The memory of a stream in addition to its data: its handle and the list of the pieces.
const HANDLE: i64 = 1_024;

#[test]
fn stream_of_ended_call_keeps_nothing() {
    let frame = || Step::Data(vec![7; 2_000]);
    for attempts in 1..=3 {
        let body = scripted(std::iter::repeat_with(frame).take(40));
        let mut running = None;
        let held = allocation_counter::measure(|| {
            let (mut body, mut saved) = save(body, 65_536);
            assert_eq!(read_frames(&mut body, 10), 20_000);
            for _ in 1..attempts {
                (body, saved) = replay(saved);
                assert!(read_frames(&mut body, 15) > 20_000);
            }
            drop(saved);
            running = Some(body);
        });
        // The frames that the body has returned no longer belong to it.
        assert!(held.bytes_current < HANDLE, "{attempts} attempts: {} bytes", held.bytes_current);
        let mut body = running.unwrap();
        let held = allocation_counter::measure(|| assert!(read_frames(&mut body, usize::MAX) > 0));
        assert!(held.bytes_max < 1_024, "{} bytes of the rest were kept", held.bytes_max);
    }
}

#[test]
fn last_attempt_keeps_nothing_and_frees_what_it_sent() {
    const LIMIT: usize = 8 << 20;
    let frame = || Step::Data(vec![7; 100_000]);
    let (mut first, saved) = save(scripted(std::iter::repeat_with(frame).take(100)), LIMIT);
    let mut second = None;
    let held = allocation_counter::measure(|| {
        assert_eq!(read_frames(&mut first, 40), 4_000_000);
        second = ReplayBody::replay(saved.unwrap(), true);
    });
    assert!(held.bytes_current > 0, "the beginning has not been sent yet");
    let (mut second, _) = second.unwrap();
    let mut sent = 0;
    let freed = allocation_counter::measure(|| sent = read_frames(&mut second, usize::MAX));
    assert_eq!(sent, 10_000_000, "the last attempt sends the whole body");
    assert!(freed.bytes_current <= -4_000_000, "{} bytes", freed.bytes_current);
    assert!(freed.bytes_max < 1_024, "{} bytes of the rest were kept", freed.bytes_max);
}

/// The call ends while its last attempt still replays data that an earlier attempt read.
#[test]
fn stream_released_during_replay_is_whole() {
    for played in 0..5 {
        let script = [data(b"ab"), data(b"cd"), data(b"ef"), Step::Trailers];
        let (mut first, saved) = save(scripted(script.clone()), 100);
        read(&mut first, 4, &mut Seen::default());
        let (mut second, saved) = replay(saved);
        read(&mut second, 1, &mut Seen::default());
        let (mut third, saved) = replay(saved);
        let mut seen = Seen::default();
        read(&mut third, played, &mut seen);
        drop(saved);
        read(&mut third, usize::MAX, &mut seen);
        assert_eq!(seen, whole(b"abcdef", Some(trailers())), "after {played} frames");
        assert!(third.is_end_stream());
    }
}

/// The rest exceeds the limit after the retry has replayed the kept data.
#[test]
fn body_over_limit_in_second_attempt_is_whole() {
    let (mut first, saved) = save(scripted([data(b"ab"), data(b"cd"), data(b"ef")]), 4);
    read(&mut first, 1, &mut Seen::default());
    let (mut second, saved) = replay(saved);
    assert_eq!(all(&mut second), whole(b"abcdef", None));
    assert!(!ReplayBody::can_replay(saved.as_ref().unwrap()));
    assert!(ReplayBody::replay(saved.unwrap(), true).is_none());
}

#[test]
fn size_hint_covers_whole_body_and_does_not_decide() {
    let mut body = scripted([data(b"ab"), data(b"cd")]);
    body.declared_size = Some(1 << 40);
    let (mut first, saved) = save(body, 100);
    assert_eq!(first.size_hint().exact(), Some(1 << 40));
    read(&mut first, 1, &mut Seen::default());
    let (mut second, _saved) = replay(saved);
    assert_eq!(second.size_hint().exact(), Some((1 << 40) + 2), "the declared rest and the kept data");
    assert_eq!(first.size_hint().exact(), None, "unknown after the body was taken over");
    assert_eq!(all(&mut second), whole(b"abcd", None));
    assert!(!first.is_end_stream(), "the first attempt read only a part");
    assert_eq!((second.size_hint().exact(), second.is_end_stream()), (Some(0), true));
}

#[test]
fn retry_takes_over_body_held_by_first_attempt() {
    struct Woken(AtomicUsize);
    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    /// A body that is always pending.
    struct Hung;
    impl Body for Hung {
        type Data = Bytes;
        type Error = io::Error;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
            Poll::Pending
        }
    }

    let (mut first, saved) = keep(ReplayBody::new(Hung), 100);
    let woken = Arc::new(Woken(AtomicUsize::new(0)));
    let waker = Waker::from(Arc::clone(&woken));
    assert!(Pin::new(&mut first).poll_frame(&mut Context::from_waker(&waker)).is_pending());
    let (mut second, _) = ReplayBody::replay(saved.unwrap(), true).unwrap();
    assert_eq!(woken.0.load(Ordering::SeqCst), 1, "the first attempt has to close its connection");
    assert!(!first.is_end_stream(), "the body is truncated, not complete");
    let end = all(&mut first).end.unwrap().unwrap_err();
    assert!(end.contains("another attempt"), "{end}");
    assert!(Pin::new(&mut second).poll_frame(&mut Context::from_waker(&waker)).is_pending());
}

#[test]
fn failed_body_is_not_sent_again_and_keeps_its_error() {
    let (mut first, saved) = save(scripted([data(b"ab"), Step::Fails, data(b"cd")]), 100);
    let seen = all(&mut first);
    assert_eq!(
        (&*seen.data, seen.end),
        (&b"ab"[..], Some(Err("request body failed: the disk is gone".to_owned())))
    );
    assert!(!ReplayBody::can_replay(saved.as_ref().unwrap()));
    assert!(
        all(&mut first).end.unwrap().unwrap_err().contains("earlier read"),
        "a failed body does not continue"
    );
}

/// A client without an error type of its own passes the body's error on.
#[test]
fn replayed_body_error_is_not_classified_as_connection_error() {
    use tower_fault_classify::{Health, Retryable, classify_error};

    struct Refused;
    impl Body for Refused {
        type Data = Bytes;
        type Error = io::Error;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
            Poll::Ready(Some(Err(io::ErrorKind::ConnectionRefused.into())))
        }
    }
    let unsaved = ReplayBody::new(Refused);
    let (saved, _) = keep(ReplayBody::new(Refused), 100);
    for mut body in [unsaved, saved] {
        let polled = Pin::new(&mut body).poll_frame(&mut Context::from_waker(Waker::noop()));
        let Poll::Ready(Some(Err(error))) = polled else { panic!("the body fails") };
        let fault = classify_error(&*error);
        assert_eq!((fault.retryable(), fault.health()), (Retryable::Never, Health::Neutral));
    }
}

#[test]
fn panicked_body_is_not_sent_again() {
    struct Panics;
    impl Body for Panics {
        type Data = Bytes;
        type Error = io::Error;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
            panic!("intended panic");
        }
    }
    let (first, saved) = keep(ReplayBody::new(Panics), 100);
    let mut held = std::panic::AssertUnwindSafe(first);
    let panicked = std::panic::catch_unwind(move || all(&mut held.0));
    assert!(panicked.is_err());
    assert!(!ReplayBody::can_replay(saved.as_ref().unwrap()));
}

/// The outer layer may not retry a fault that the inner layer retries.
#[test]
fn body_kept_by_outer_layer_is_sent_again_by_both() {
    let (first, outer) = save(scripted([data(b"ab"), data(b"cd")]), 100);
    let (mut first, inner) = keep(first, 100);
    read(&mut first, 1, &mut Seen::default());
    let (mut second, inner) = ReplayBody::replay(inner.unwrap(), true).unwrap();
    assert_eq!(all(&mut second), whole(b"abcd", None));
    // The inner layer's call has ended. The outer layer still sends the whole body again.
    drop((second, inner));
    assert!(ReplayBody::can_replay(outer.as_ref().unwrap()));
    let (third, outer) = replay(outer);
    let (mut third, inner) = keep(third, 100);
    assert_eq!(all(&mut third), whole(b"abcd", None));
    drop(outer);
    assert!(!ReplayBody::can_replay(&inner.unwrap()), "the call of the layer that keeps it has ended");
}

#[test]
fn body_of_outer_last_attempt_is_kept_by_inner_layer() {
    let (_, outer) = save(scripted([data(b"ab"), data(b"cd"), Step::Trailers]), 100);
    let (second, outer) = ReplayBody::replay(outer.unwrap(), true).unwrap();
    let (mut second, inner) = keep(second, 100);
    read(&mut second, 1, &mut Seen::default());
    // The outer layer drops its saved body when it has its response. The inner layer still sends
    // the body.
    drop(outer);
    let (mut third, inner) = replay(inner);
    assert_eq!(all(&mut third), whole(b"abcd", Some(trailers())));
    let (mut fourth, inner) = ReplayBody::replay(inner.unwrap(), true).unwrap();
    assert_eq!(all(&mut fourth), whole(b"abcd", Some(trailers())));
    assert!(!ReplayBody::can_replay(&inner.unwrap()), "nothing is kept after the last attempt");
}

#[test]
fn body_read_without_recording_is_not_saved() {
    for frames in 1..4 {
        let (mut first, outer) = save(scripted([data(b"ab"), data(b"cd"), Step::Trailers]), 100);
        read(&mut first, 2, &mut Seen::default());
        let (mut second, _outer) = ReplayBody::replay(outer.unwrap(), true).unwrap();
        read(&mut second, frames, &mut Seen::default());
        let (_, nothing) = keep(second, 100);
        assert!(nothing.is_none(), "after {frames} frames");
    }
    let (mut first, outer) = save(scripted([data(b"ab"), data(b"cd")]), 100);
    read(&mut first, 1, &mut Seen::default());
    drop(outer);
    assert!(first.save(100).is_none(), "the data that was read has been released");
}

#[test]
fn ended_body_reports_end_of_stream() {
    let (first, saved) = keep(ReplayBody::new(Full::new(Bytes::new())), 100);
    assert!(first.is_end_stream());
    let (mut second, _) = ReplayBody::replay(saved.unwrap(), true).unwrap();
    assert!(second.is_end_stream() && second.size_hint().exact() == Some(0));
    let end = poll_fn(|cx| Pin::new(&mut second).poll_frame(cx));
    assert!(matches!(std::pin::pin!(end).poll(&mut Context::from_waker(Waker::noop())), Poll::Ready(None)));
}

/// A retry starts while the attempt before it is in the middle of a read, as on another thread.
#[test]
fn body_taken_over_during_read_is_whole_in_next_attempt() {
    type Taken = Option<(ReplayBody<Nested>, Option<SavedStream<Nested>>)>;

    /// Starts the next attempt from within its first read.
    struct Nested {
        frames: VecDeque<Step>,
        saved: Rc<Cell<Option<SavedStream<Nested>>>>,
        next: Rc<Cell<Taken>>,
        seen: Rc<Cell<Option<bool>>>,
    }
    impl Body for Nested {
        type Data = &'static [u8];
        type Error = io::Error;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Self::Data>, io::Error>>> {
            if let Some(saved) = self.saved.take() {
                assert!(ReplayBody::can_replay(&saved));
                let (mut next, more) = ReplayBody::replay(saved, false).unwrap();
                self.seen.set(Some(Pin::new(&mut next).poll_frame(cx).is_pending()));
                self.next.set(Some((next, more)));
            }
            Poll::Ready(match self.frames.pop_front() {
                Some(Step::Data(data)) => {
                    let data: &'static [u8] = data.leak();
                    Some(Ok(Frame::data(data)))
                }
                Some(Step::Trailers) => Some(Ok(Frame::trailers(trailers()))),
                Some(Step::Fails) => Some(Err(io::Error::other("the disk is gone"))),
                Some(Step::Waits) => return Poll::Pending,
                None => None,
            })
        }
    }
    let broken =
        Some(Err("request body failed: an earlier read of the request body failed or panicked".to_owned()));
    let cases = [
        (vec![data(b"ab"), data(b"cd"), Step::Trailers], whole(b"abcd", Some(trailers()))),
        (vec![Step::Trailers], whole(b"", Some(trailers()))),
        (vec![], whole(b"", None)),
        (vec![Step::Waits, data(b"ab")], whole(b"ab", None)),
        (vec![Step::Fails], Seen { end: broken, ..Seen::default() }),
    ];
    for (script, expected) in cases {
        let (saved, next, seen) = (Rc::default(), Rc::default(), Rc::default());
        let body = Nested {
            frames: script.clone().into(),
            saved: Rc::clone(&saved),
            next: Rc::clone(&next),
            seen: Rc::clone(&seen),
        };
        let (mut first, kept) = keep(ReplayBody::new(body), 100);
        saved.set(kept);
        let error = all(&mut first).end.unwrap().unwrap_err();
        assert!(error.contains("another attempt"), "{script:?}: {error}");
        assert_eq!(seen.get(), Some(true), "{script:?}: the next attempt waits until the body is put back");
        let (mut second, _saved) = next.take().unwrap();
        assert_eq!(all(&mut second), expected, "{script:?}");
    }
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => proptest::collection::vec(any::<u8>(), 0..12).prop_map(Step::Data),
        1 => Just(Step::Waits),
    ]
}

proptest! {
    #[test]
    fn server_sees_whole_or_truncated_body_never_wrong_one(
        frames in proptest::collection::vec(any_step(), 0..12),
        with_trailers in any::<bool>(),
        fails_at in proptest::option::of(0_usize..12),
        limit in 0_usize..80,
        declared_size in proptest::option::of(any::<u64>()),
        attempts in proptest::collection::vec((0_usize..16, any::<bool>(), 0_usize..4), 1..6),
    ) {
        let mut script = frames.clone();
        if let Some(at) = fails_at {
            script.insert(at.min(script.len()), Step::Fails);
        }
        // Trailers are the last frame.
        if with_trailers {
            script.push(Step::Trailers);
        }
        let complete: Vec<u8> = frames
            .iter()
            .flat_map(|step| if let Step::Data(data) = step { data.clone() } else { Vec::new() })
            .collect();
        let mut body = scripted(script);
        body.declared_size = declared_size;
        let (body, saved) = save(body, limit);
        let (mut current, mut saved) = (body, saved);
        let mut held: Vec<(ReplayBody<ScriptedBody>, Seen)> = Vec::new();
        let check = |seen: &Seen| {
            prop_assert!(complete.starts_with(&seen.data), "{:?} of {complete:?}", seen.data);
            if seen.end == Some(Ok(())) {
                prop_assert_eq!(&seen.data, &complete);
                prop_assert_eq!(seen.trailers.is_some(), with_trailers);
                prop_assert!(fails_at.is_none());
            }
            Ok(())
        };
        let last = attempts.len();
        for (number, (readings, dropped, late)) in attempts.into_iter().enumerate() {
            let mut seen = Seen::default();
            read(&mut current, readings, &mut seen);
            check(&seen)?;
            if !dropped {
                held.push((std::mem::replace(&mut current, ReplayBody::new(scripted([]))), seen.clone()));
            }
            let Some(kept) = saved.take() else { break };
            if !ReplayBody::can_replay(&kept) {
                prop_assert!(ReplayBody::replay(kept, false).is_none());
                // The attempt that holds the body gets the rest, or the error.
                if let Some((body, mut seen)) = held.pop().filter(|_| !dropped) {
                    let mut body = body;
                    read(&mut body, 1_000, &mut seen);
                    check(&seen)?;
                    prop_assert!(seen.end.is_some());
                }
                return Ok(());
            }
            // All data that an attempt has read was kept, so it is at most the limit.
            prop_assert!(seen.data.len() <= limit);
            let (next, more) = ReplayBody::replay(kept, number + 1 == last).unwrap();
            (current, saved) = (next, more);
            // Abandoned attempts continue to read for a while.
            for (body, seen) in &mut held {
                read(body, late, seen);
                check(seen)?;
            }
        }
        let mut seen = Seen::default();
        read(&mut current, 1_000, &mut seen);
        check(&seen)?;
        if fails_at.is_none() {
            prop_assert_eq!(&seen, &whole(&complete, with_trailers.then(trailers)), "the last attempt sends the whole body");
        }
        for (body, seen) in &mut held {
            let before = seen.end.clone();
            read(body, 1_000, seen);
            check(seen)?;
            prop_assert!(before == Some(Ok(())) || matches!(seen.end, Some(Err(_))), "{seen:?} is truncated, not complete");
        }
    }
}

/// A value whose drop reads the size hint of a body, as a log of unfinished uploads may.
struct ReadsSizeOnDrop(Box<dyn Fn() + Send + Sync>);

impl Drop for ReadsSizeOnDrop {
    fn drop(&mut self) {
        (self.0)();
    }
}

impl AsRef<[u8]> for ReadsSizeOnDrop {
    fn as_ref(&self) -> &[u8] {
        b"7"
    }
}

impl std::fmt::Debug for ReadsSizeOnDrop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ReadsSizeOnDrop")
    }
}

impl std::fmt::Display for ReadsSizeOnDrop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the disk is gone")
    }
}

impl std::error::Error for ReadsSizeOnDrop {}

type MakeFrame = dyn FnOnce() -> Result<Frame<Bytes>, ReadsSizeOnDrop> + Send + Sync;

/// A body with one frame.
struct OneFrame(Option<Box<MakeFrame>>);

impl OneFrame {
    fn new(frame: impl FnOnce() -> Result<Frame<Bytes>, ReadsSizeOnDrop> + Send + Sync + 'static) -> Self {
        Self(Some(Box::new(frame)))
    }
}

impl Body for OneFrame {
    type Data = Bytes;
    type Error = ReadsSizeOnDrop;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ReadsSizeOnDrop>>> {
        Poll::Ready(self.0.take().map(|frame| frame()))
    }
}

fn trailers_owned_by(owner: ReadsSizeOnDrop) -> HeaderMap {
    let value = http::HeaderValue::from_maybe_shared(Bytes::from_owner(owner)).unwrap();
    HeaderMap::from_iter([(http::HeaderName::from_static("x-sum"), value)])
}

/// Reads a frame while the next attempt takes the body over. `make` creates the frame from a value
/// whose drop reads the size hint of the next attempt's body.
fn take_over_during_read(make: fn(ReadsSizeOnDrop) -> Result<Frame<Bytes>, ReadsSizeOnDrop>) {
    let saved = Arc::<std::sync::Mutex<Option<SavedStream<OneFrame>>>>::default();
    let taken = Arc::clone(&saved);
    let body = OneFrame::new(move || {
        let saved = taken.lock().unwrap().take().unwrap();
        let (second, _) = ReplayBody::replay(saved, true).unwrap();
        make(ReadsSizeOnDrop(Box::new(move || {
            second.size_hint();
        })))
    });
    let (mut first, kept) = keep(ReplayBody::new(body), 100);
    *saved.lock().unwrap() = kept;
    read(&mut first, 1, &mut Seen::default());
}

/// Reads trailers, which are kept for the next attempt. Then no attempt follows.
fn release_trailers() {
    let kept_body = Arc::<std::sync::Mutex<Option<ReplayBody<OneFrame>>>>::default();
    let dropped_body = Arc::clone(&kept_body);
    let read_size = move || {
        dropped_body.lock().unwrap().as_ref().map(Body::size_hint);
    };
    let trailers = trailers_owned_by(ReadsSizeOnDrop(Box::new(read_size)));
    let (mut first, saved) = keep(ReplayBody::new(OneFrame::new(|| Ok(Frame::trailers(trailers)))), 100);
    read(&mut first, 1, &mut Seen::default());
    *kept_body.lock().unwrap() = Some(first);
    drop(saved);
}

/// The drop of an error, of data or of trailers is user code.
#[test]
fn body_frames_and_errors_are_dropped_outside_lock() {
    let cases: [(&str, fn()); 4] = [
        ("error", || take_over_during_read(Err)),
        ("data", || take_over_during_read(|data| Ok(Frame::data(Bytes::from_owner(data))))),
        ("trailers", || take_over_during_read(|owner| Ok(Frame::trailers(trailers_owned_by(owner))))),
        ("released trailers", release_trailers),
    ];
    for (what, run) in cases {
        let (done, is_done) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            run();
            done.send(()).unwrap();
        });
        // Only a deadlock takes that long.
        is_done.recv_timeout(std::time::Duration::from_secs(20)).expect(what);
    }
}
