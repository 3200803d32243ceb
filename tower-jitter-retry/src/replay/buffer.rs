//! A body that attempts take from each other.
//!
//! One attempt at a time holds the body. What it reads is passed on and kept. The next attempt
//! takes the body over, also while the attempt before still sends it: a server may answer before it
//! has read everything, and its client then goes on sending. The attempt before fails at its next
//! read: its server sees a body that is cut, never one that ends too early.
//!
//! No code of the body, of what it yields, or of a waker runs under the lock, except the body's
//! `is_end_stream` and `size_hint`. An attempt takes the body out to read it, and puts it back. If
//! the body was taken over meanwhile, what was read belongs to the next attempt.

use std::fmt;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use tower_fault_classify::__internals::sync::{AtomicBool, Mutex, Ordering, lock};

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
    rest: Rest<B>,
    prefix: Prefix,
    trailers: Option<HeaderMap>,
    /// How far the holder has played what earlier attempts read.
    place: Place,
    /// Another attempt may follow: what is read is kept.
    kept: bool,
    /// A part of what was read is kept no longer.
    lost: bool,
    ended: bool,
    /// Of the holder's task: it is woken when the body is taken over, or put back by an earlier
    /// attempt.
    waker: Option<Waker>,
}

/// The rest of the body.
enum Rest<B> {
    Here(B),
    /// An attempt is reading it, without the lock.
    Out,
    /// It has ended, failed, panicked, or is its last reader's.
    Gone,
}

impl<B> Rest<B> {
    fn get(&self) -> Option<&B> {
        match self {
            Self::Here(body) => Some(body),
            Self::Out | Self::Gone => None,
        }
    }
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

/// The result of a read.
pub(super) type Read = Poll<Option<Result<Frame<Bytes>, BoxError>>>;

/// The result of reading the body itself.
enum Outcome {
    Pending,
    End,
    Failed(BoxError),
    Frame(Frame<Bytes>),
}

/// The result of a read when the body was put back, and what is to be dropped after the lock,
/// because its drop is user code.
struct Put<B> {
    step: Step<B>,
    spent: Option<B>,
    /// What was read by an attempt that no longer holds the body: data that was copied, or an
    /// error.
    unread: Option<Result<Bytes, BoxError>>,
}

impl<B> Put<B> {
    fn step(read: Read) -> Self {
        Self { step: Step::Read(read), spent: None, unread: None }
    }
}

/// Dropped while the body is out: it has panicked.
struct Out<'a, B>(&'a Tape<B>);

impl<B> Drop for Out<'_, B> {
    fn drop(&mut self) {
        let mut reel = lock(&self.0.reel);
        reel.rest = Rest::Gone;
        let waker = reel.waker.take();
        drop(reel);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

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
            rest: Rest::Here(body),
            prefix: Prefix::new(limit),
            trailers: None,
            place: Place::default(),
            kept: true,
            lost: false,
            ended: false,
            waker: None,
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
        reel.lost = true;
        reel.prefix.release(piece);
        let played = if trailers { reel.trailers.take() } else { None };
        drop(reel);
        drop(played);
    }
}

impl<B: Body + Unpin> Reel<B>
where
    B::Data: Into<Bytes>,
    B::Error: Into<BoxError>,
{
    fn is_whole(&self) -> bool {
        self.kept && (self.ended || !matches!(self.rest, Rest::Gone))
    }

    /// What was read already, if the reader is behind.
    fn replay(&mut self) -> Option<Frame<Bytes>> {
        let at = self.place.piece;
        if let Some(data) = if self.kept { self.prefix.piece(at) } else { self.prefix.take_piece(at) } {
            self.place.piece += 1;
            self.lost |= !self.kept;
            return Some(Frame::data(data));
        }
        if !self.ended || self.place.trailers {
            return None;
        }
        self.place.trailers = true;
        self.lost |= !self.kept;
        if self.kept { self.trailers.clone() } else { self.trailers.take() }.map(Frame::trailers)
    }

    /// Puts the body back after the holder has read it.
    fn put_back(&mut self, read: Outcome, body: B) -> Put<B> {
        match read {
            Outcome::Pending => {
                self.rest = Rest::Here(body);
                Put::step(Poll::Pending)
            }
            Outcome::End => {
                self.end(None);
                Put { spent: Some(body), ..Put::step(Poll::Ready(None)) }
            }
            Outcome::Failed(error) => {
                self.rest = Rest::Gone;
                self.prefix.forget();
                Put { spent: Some(body), ..Put::step(Poll::Ready(Some(Err(error)))) }
            }
            Outcome::Frame(frame) => self.keep(frame, body),
        }
    }

    fn keep(&mut self, frame: Frame<Bytes>, body: B) -> Put<B> {
        self.lost |= !self.kept;
        if let Some(trailers) = frame.trailers_ref() {
            self.end(self.kept.then(|| trailers.clone()));
            self.place.trailers = true;
            return Put { spent: Some(body), ..Put::step(Poll::Ready(Some(Ok(frame)))) };
        }
        if self.kept && frame.data_ref().is_some_and(|data| self.prefix.keep(data)) {
            // What is full by now is what this reader has read itself.
            self.place.piece = self.prefix.pieces();
            self.rest = Rest::Here(body);
            return Put::step(Poll::Ready(Some(Ok(frame))));
        }
        // The prefix was played before the rest was read, so that no reader needs it.
        self.prefix.forget();
        self.rest = Rest::Gone;
        Put { step: Step::Alone(frame, body), spent: None, unread: None }
    }

    /// Puts the body back after a read by an attempt that no longer holds it. What was read belongs
    /// to the holder.
    fn hand_over(&mut self, read: Outcome, body: B) -> Put<B> {
        let mut put = Put::step(Poll::Ready(Some(Err(failed(ReplayError::TakenOver)))));
        match read {
            Outcome::Pending => self.rest = Rest::Here(body),
            Outcome::End => {
                self.end(None);
                put.spent = Some(body);
            }
            Outcome::Failed(error) => {
                self.rest = Rest::Gone;
                put.spent = Some(body);
                put.unread = Some(Err(error));
            }
            Outcome::Frame(frame) => match frame.into_data() {
                Ok(data) => {
                    self.prefix.add(&data);
                    self.rest = Rest::Here(body);
                    put.unread = Some(Ok(data));
                }
                Err(frame) => {
                    self.end(frame.into_trailers().ok());
                    put.spent = Some(body);
                }
            },
        }
        put
    }

    fn end(&mut self, trailers: Option<HeaderMap>) {
        self.trailers = trailers;
        self.ended = true;
        self.rest = Rest::Gone;
    }

    fn is_end_stream(&self) -> bool {
        let played = self.prefix.left(self.place.piece) == 0;
        let ended = if self.ended {
            self.place.trailers || self.trailers.is_none()
        } else {
            self.rest.get().is_some_and(Body::is_end_stream)
        };
        played && ended
    }

    fn size_hint(&self) -> SizeHint {
        let left = self.prefix.left(self.place.piece) as u64;
        let rest = match self.rest.get() {
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
        let mut body = match self.take_out(cx) {
            Ok(body) => body,
            Err(read) => return Step::Read(read),
        };
        let out = Out(&self.tape);
        let read = match Pin::new(&mut body).poll_frame(cx) {
            Poll::Pending => Outcome::Pending,
            Poll::Ready(None) => Outcome::End,
            Poll::Ready(Some(Err(error))) => Outcome::Failed(failed(error)),
            Poll::Ready(Some(Ok(frame))) => Outcome::Frame(frame.map_data(Into::into)),
        };
        // It has not panicked.
        mem::forget(out);
        let mut waker = matches!(read, Outcome::Pending).then(|| cx.waker().clone());

        let mut reel = lock(&self.tape.reel);
        let holds = reel.holder == self.attempt;
        let put = if holds {
            // An attempt that waits is woken at a take-over; one that has read on does not wait.
            mem::swap(&mut reel.waker, &mut waker);
            let put = reel.put_back(read, body);
            self.tape.set_waits(matches!(put.step, Step::Read(Poll::Pending)));
            put
        } else {
            waker = reel.waker.take();
            reel.hand_over(read, body)
        };
        drop(reel);
        if let Some(waker) = waker
            && !holds
        {
            waker.wake();
        }
        drop((put.spent, put.unread));
        put.step
    }

    /// Takes the body out to read it, or returns what there is to read without it.
    fn take_out(&self, cx: &mut Context<'_>) -> Result<B, Read> {
        let mut waker = None;
        loop {
            let mut reel = lock(&self.tape.reel);
            if reel.holder != self.attempt {
                return Err(Poll::Ready(Some(Err(failed(ReplayError::TakenOver)))));
            }
            if let Some(frame) = reel.replay() {
                return Err(Poll::Ready(Some(Ok(frame))));
            }
            if reel.ended {
                self.tape.set_waits(false);
                return Err(Poll::Ready(None));
            }
            match mem::replace(&mut reel.rest, Rest::Out) {
                Rest::Here(body) => return Ok(body),
                Rest::Gone => {
                    reel.rest = Rest::Gone;
                    return Err(Poll::Ready(Some(Err(failed(ReplayError::Broken)))));
                }
                // An attempt before is reading it, and wakes this one.
                Rest::Out if waker.is_some() => {
                    mem::swap(&mut reel.waker, &mut waker);
                    drop(reel);
                    return Err(Poll::Pending);
                }
                Rest::Out => {
                    drop(reel);
                    waker = Some(cx.waker().clone());
                }
            }
        }
    }

    /// Saves the body for a layer further in as well. `true`: that layer keeps it from here on,
    /// because the layer that kept it makes its last attempt. `None`: not all of it is there.
    pub(super) fn share(&self) -> Option<bool> {
        let mut reel = lock(&self.tape.reel);
        if reel.holder != self.attempt {
            return None;
        }
        let takes_over = !reel.kept && !reel.lost;
        reel.kept |= takes_over;
        reel.is_whole().then_some(takes_over)
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
                // The first attempt is reading.
                Step::Read(Poll::Pending) => thread::yield_now(),
                Step::Alone(..) => unreachable!(),
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
    fn loom_attempt_that_waits_for_the_body_is_woken() {
        struct Woken(std::sync::atomic::AtomicBool);
        impl std::task::Wake for Woken {
            fn wake(self: Arc<Self>) {
                self.0.store(true, std::sync::atomic::Ordering::SeqCst);
            }
        }
        loom::model(|| {
            let (tape, first) = Tape::record(Countdown(2), 10);
            let thread = thread::spawn(move || read(&first));
            let second = Tape::take_over(&tape, false).unwrap();
            let woken = Arc::new(Woken(false.into()));
            let waker = Waker::from(Arc::clone(&woken));
            let waits = matches!(second.read(&mut Context::from_waker(&waker)), Step::Read(Poll::Pending));
            thread.join().unwrap();
            assert!(!waits || woken.0.load(std::sync::atomic::Ordering::SeqCst));
        });
    }

    #[test]
    fn loom_body_taken_over_is_whole_or_cut_for_each() {
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
