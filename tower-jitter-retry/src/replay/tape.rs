//! A body that attempts take from each other.
//!
//! One attempt at a time holds the body: what it reads goes by, and is kept. The next attempt takes it over, also while the one before
//! still has it in its hands: a server may answer before it has read everything, and its client then goes on sending. Whoever is behind
//! finds that out at its next reading, and fails: its server sees a body that is cut, never one that ends too early.
//!
//! A body is polled under the lock. It is a request's own, so that nobody waits for it but at a take-over.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use tower_fault_classify::__shared::sync::{AtomicBool, Mutex, Ordering, lock};

use super::error::{BoxError, ReplayError, failed};
use super::prefix::Prefix;

/// What is known of a body that may be sent again.
pub(super) struct Tape<B> {
    /// The present attempt waits for the body's source. Written by the attempt that holds the body,
    /// under the lock as long as another attempt can take it over. Relaxed: it guards no other
    /// memory, and a reader that sees an old value misjudges one call.
    waits: AtomicBool,
    reel: Mutex<Reel<B>>,
}

struct Reel<B> {
    /// The attempt that may read on.
    holder: u32,
    /// The rest of the body. `None`: it has ended, failed, outgrown the limit, or is its last reader's.
    rest: Option<B>,
    prefix: Prefix,
    trailers: Option<HeaderMap>,
    /// How far the holder has played what earlier attempts read.
    place: Place,
    /// Another attempt may follow: what is read is kept.
    kept: bool,
    ended: bool,
    /// Of the holder's task, which has to hear of a take-over.
    waker: Option<Waker>,
    /// Set around the body's own code, so that it stays set if that panics.
    reading: bool,
}

/// Where one attempt stands.
pub(super) struct Reader<B> {
    tape: Arc<Tape<B>>,
    attempt: u32,
}

/// How far what earlier attempts read has been played.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    piece: usize,
    trailers: bool,
}

/// What a reading came to.
pub(super) type Read = Poll<Option<Result<Frame<Bytes>, BoxError>>>;

/// A frame, or the body that is the reader's alone from here on: it has outgrown the limit, or no
/// attempt follows.
pub(super) enum Step<B> {
    Read(Read),
    Alone(Frame<Bytes>, B),
}

impl<B: Body + Unpin> Tape<B>
where
    B::Data: Into<Bytes>,
    B::Error: Into<BoxError>,
{
    /// Of the first attempt, and its reader.
    pub(super) fn record(body: B, limit: usize) -> (Arc<Self>, Reader<B>) {
        let reel = Reel {
            holder: 1,
            rest: Some(body),
            prefix: Prefix::new(limit),
            trailers: None,
            place: Place::default(),
            kept: true,
            ended: false,
            waker: None,
            reading: false,
        };
        let tape = Arc::new(Self { waits: AtomicBool::new(false), reel: Mutex::new(reel) });
        let reader = Reader { tape: Arc::clone(&tape), attempt: 1 };
        (tape, reader)
    }

    /// Whether another attempt would have all of the body.
    pub(super) fn is_whole(&self) -> bool {
        lock(&self.reel).is_whole()
    }

    /// Takes the body over. `None`: not all of it is there any more. The last attempt keeps
    /// nothing.
    pub(super) fn take_over(tape: &Arc<Self>, last: bool) -> Option<Reader<B>> {
        let mut reel = lock(&tape.reel);
        if !reel.is_whole() {
            return None;
        }
        reel.holder += 1;
        reel.prefix.seal();
        reel.place = Place::default();
        reel.kept = !last;
        tape.set_waits(false);
        let (attempt, waker) = (reel.holder, reel.waker.take());
        drop(reel);
        if let Some(waker) = waker {
            waker.wake();
        }
        Some(Reader { tape: Arc::clone(tape), attempt })
    }
}

impl<B> Tape<B> {
    /// Whether the present attempt waits for the body's source.
    pub(super) fn waits(&self) -> bool {
        self.waits.load(Ordering::Relaxed)
    }

    pub(super) fn set_waits(&self, waits: bool) {
        if self.waits() != waits {
            self.waits.store(waits, Ordering::Relaxed);
        }
    }

    /// No attempt follows: gives back the memory of what the present attempt has read.
    pub(super) fn release(&self) {
        let mut reel = lock(&self.reel);
        let Place { piece, trailers } = reel.place;
        reel.kept = false;
        reel.prefix.release(piece);
        if trailers {
            reel.trailers = None;
        }
    }
}

impl<B: Body + Unpin> Reel<B>
where
    B::Data: Into<Bytes>,
    B::Error: Into<BoxError>,
{
    fn is_whole(&self) -> bool {
        self.kept && !self.reading && (self.ended || self.rest.is_some())
    }

    /// What was read already, if the reader is behind.
    fn replay(&mut self) -> Option<Frame<Bytes>> {
        let at = self.place.piece;
        if let Some(data) = if self.kept { self.prefix.piece(at) } else { self.prefix.take_piece(at) } {
            self.place.piece += 1;
            return Some(Frame::data(data));
        }
        if !self.ended || self.place.trailers {
            return None;
        }
        self.place.trailers = true;
        if self.kept { self.trailers.clone() } else { self.trailers.take() }.map(Frame::trailers)
    }

    fn read(&mut self, cx: &mut Context<'_>) -> Step<B> {
        if let Some(frame) = self.replay() {
            return Step::Read(Poll::Ready(Some(Ok(frame))));
        }
        if self.ended {
            return Step::Read(Poll::Ready(None));
        }
        let Some(rest) = self.rest.as_mut().filter(|_| !self.reading) else {
            return Step::Read(Poll::Ready(Some(Err(failed(ReplayError::Broken)))));
        };
        self.reading = true;
        let polled = Pin::new(rest).poll_frame(cx);
        self.reading = false;
        match polled {
            Poll::Pending => {
                match &mut self.waker {
                    Some(waker) => waker.clone_from(cx.waker()),
                    empty => *empty = Some(cx.waker().clone()),
                }
                Step::Read(Poll::Pending)
            }
            Poll::Ready(None) => {
                self.end(None);
                Step::Read(Poll::Ready(None))
            }
            Poll::Ready(Some(Err(error))) => {
                self.rest = None;
                self.prefix.forget();
                Step::Read(Poll::Ready(Some(Err(failed(error)))))
            }
            Poll::Ready(Some(Ok(frame))) => self.keep(frame),
        }
    }

    fn keep(&mut self, frame: Frame<B::Data>) -> Step<B> {
        let frame = frame.map_data(Into::into);
        if let Some(trailers) = frame.trailers_ref() {
            self.end(self.kept.then(|| trailers.clone()));
            self.place.trailers = true;
        } else if self.kept && frame.data_ref().is_some_and(|data| self.prefix.keep(data)) {
            // What is full by now is what this reader has read itself.
            self.place.piece = self.prefix.pieces();
        } else {
            // The prefix was played before the rest was read, so that no reader needs it.
            self.prefix.forget();
            if let Some(rest) = self.rest.take() {
                return Step::Alone(frame, rest);
            }
        }
        Step::Read(Poll::Ready(Some(Ok(frame))))
    }

    fn end(&mut self, trailers: Option<HeaderMap>) {
        self.trailers = trailers;
        self.ended = true;
        self.rest = None;
        self.waker = None;
    }

    fn is_end_stream(&self) -> bool {
        let played = self.prefix.left(self.place.piece) == 0;
        let ended = if self.ended {
            self.place.trailers || self.trailers.is_none()
        } else {
            self.rest.as_ref().is_some_and(Body::is_end_stream)
        };
        played && ended
    }

    fn size_hint(&self) -> SizeHint {
        let left = self.prefix.left(self.place.piece) as u64;
        let rest = match &self.rest {
            Some(rest) => rest.size_hint(),
            None if self.ended => SizeHint::with_exact(0),
            None => SizeHint::new(),
        };
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower().saturating_add(left));
        if let Some(upper) = rest.upper().and_then(|upper| upper.checked_add(left)) {
            hint.set_upper(upper);
        }
        hint
    }
}

impl<B: Body + Unpin> Reader<B>
where
    B::Data: Into<Bytes>,
    B::Error: Into<BoxError>,
{
    pub(super) fn read(&self, cx: &mut Context<'_>) -> Step<B> {
        let mut reel = lock(&self.tape.reel);
        if reel.holder != self.attempt {
            return Step::Read(Poll::Ready(Some(Err(failed(ReplayError::TakenOver)))));
        }
        let step = reel.read(cx);
        self.tape.set_waits(matches!(step, Step::Read(Poll::Pending)));
        step
    }

    pub(super) fn tape(&self) -> Arc<Tape<B>> {
        Arc::clone(&self.tape)
    }

    /// A body that was taken over has not ended: it fails.
    pub(super) fn is_end_stream(&self) -> bool {
        let reel = lock(&self.tape.reel);
        reel.holder == self.attempt && reel.is_end_stream()
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        let reel = lock(&self.tape.reel);
        if reel.holder == self.attempt { reel.size_hint() } else { SizeHint::new() }
    }
}

impl<B> fmt::Debug for Reader<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").field("attempt", &self.attempt).finish_non_exhaustive()
    }
}

#[cfg(all(test, loom_models))]
mod models {
    use loom::thread;
    use std::convert::Infallible;

    use super::*;

    /// Counts down, a byte at a time.
    struct Countdown(u8);

    impl Body for Countdown {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            let left = self.0.checked_sub(1);
            Poll::Ready(left.map(|left| {
                self.0 = left;
                Ok(Frame::data(Bytes::copy_from_slice(&[left])))
            }))
        }
    }

    /// What a reader sees, and whether it saw an end.
    fn read(reader: &Reader<Countdown>) -> (Vec<u8>, bool) {
        let (mut seen, mut cx) = (Vec::new(), Context::from_waker(Waker::noop()));
        loop {
            match reader.read(&mut cx) {
                Step::Read(Poll::Ready(Some(Ok(frame)))) => seen.extend(frame.into_data().unwrap()),
                Step::Read(Poll::Ready(end)) => return (seen, end.is_none()),
                Step::Read(Poll::Pending) | Step::Alone(..) => unreachable!(),
            }
        }
    }

    /// Never goes on.
    struct Stalled;

    impl Body for Stalled {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Pending
        }
    }

    #[test]
    fn loom_attempt_that_has_not_read_does_not_wait() {
        loom::model(|| {
            let (tape, first) = Tape::record(Stalled, 10);
            let thread = thread::spawn(move || {
                let _ = first.read(&mut Context::from_waker(Waker::noop()));
            });
            let second = Tape::take_over(&tape, false).unwrap();
            thread.join().unwrap();
            assert!(!tape.waits(), "the first attempt no longer speaks for the body");
            let _ = second.read(&mut Context::from_waker(Waker::noop()));
            assert!(tape.waits());
        });
    }

    #[test]
    fn loom_a_body_that_is_taken_over_is_whole_or_cut_for_each() {
        loom::model(|| {
            let (tape, first) = Tape::record(Countdown(2), 10);
            let thread = thread::spawn(move || read(&first));
            let second = read(&Tape::take_over(&tape, false).unwrap());
            assert_eq!(second, (vec![1, 0], true), "the retry has all of it");
            let (seen, ended) = thread.join().unwrap();
            assert!([1, 0].starts_with(&seen));
            assert!(!ended || seen == [1, 0], "{seen:?} is not the end");
        });
    }
}
