//! A body that attempts take over from each other.
//!
//! One attempt at a time holds the body. The data that it reads is passed on and kept. The next
//! attempt takes the body over, even while the attempt before still sends it: a server may answer
//! before it has read everything, and its client then continues to send. The attempt before fails
//! at its next read: its server sees a body that is cut off, never one with a regular but early
//! end.
//!
//! No code of the body, of the data that it yields, or of a waker runs under the lock, except the
//! body's `is_end_stream` and `size_hint`. An attempt takes the body out to read it, and puts it
//! back. If the body was taken over in the meantime, the data that was read belongs to the next
//! attempt.

use std::fmt;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use tower_fault_classify::__internals::sync::{AtomicBool, Mutex, Ordering, lock};

use super::error::{BoxError, ReplayError, upload_error};
use super::recorded::RecordedBytes;

/// The shared state of a body that may be sent again.
pub(super) struct ReplayBuffer<B> {
    /// Whether the present attempt waits for the body's source. The attempt that holds the body
    /// writes it, under the lock as long as another attempt can take the body over. Relaxed: it
    /// guards no other memory, and a reader that sees an old value misclassifies one call.
    waits: AtomicBool,
    state: Mutex<BufferState<B>>,
}

struct BufferState<B> {
    /// The number of the attempt that may read.
    holder: u32,
    source: Source<B>,
    recorded: RecordedBytes,
    trailers: Option<HeaderMap>,
    /// How far the holder has replayed the data that earlier attempts read.
    position: ReadPosition,
    /// Whether the data that is read is kept, because another attempt may follow.
    kept: bool,
    /// Whether a part of the data that was read is no longer kept.
    lost: bool,
    ended: bool,
    /// The waker of the holder's task. It is woken when the body is taken over, or when an earlier
    /// attempt puts it back.
    waker: Option<Waker>,
}

/// The rest of the body.
enum Source<B> {
    Available(B),
    /// An attempt reads it, without the lock.
    BeingRead,
    /// It has ended, failed or panicked, or the last reader owns it.
    Gone,
}

impl<B> Source<B> {
    fn get(&self) -> Option<&B> {
        match self {
            Self::Available(body) => Some(body),
            Self::BeingRead | Self::Gone => None,
        }
    }
}

/// The read access of one attempt.
pub(super) struct Reader<B> {
    buffer: Arc<ReplayBuffer<B>>,
    attempt: u32,
}

/// How far the data that earlier attempts read has been replayed.
#[derive(Clone, Copy, Debug, Default)]
struct ReadPosition {
    piece: usize,
    trailers: bool,
}

/// The result of a read.
pub(super) type Read = Poll<Option<Result<Frame<Bytes>, BoxError>>>;

/// The result of reading the body itself.
enum SourceRead {
    Pending,
    End,
    Failed(BoxError),
    Frame(Frame<Bytes>),
}

/// The result of a read after the body was put back, and the values to drop after the lock, because
/// their drop is user code.
struct PutBack<B> {
    step: ReadStep<B>,
    spent: Option<B>,
    /// Data (which was copied) or an error that was read by an attempt that no longer holds the
    /// body.
    unread: Option<Result<Bytes, BoxError>>,
}

impl<B> PutBack<B> {
    fn step(read: Read) -> Self {
        Self { step: ReadStep::Read(read), spent: None, unread: None }
    }
}

/// Dropped while the body is taken out only if the body panicked.
struct PoisonGuard<'a, B>(&'a ReplayBuffer<B>);

impl<B> Drop for PoisonGuard<'_, B> {
    fn drop(&mut self) {
        let mut state = lock(&self.0.state);
        state.source = Source::Gone;
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// A frame, or the body that from here on belongs to the reader alone: it has exceeded the limit,
/// or no attempt follows.
pub(super) enum ReadStep<B> {
    Read(Read),
    Alone(Frame<Bytes>, B),
}

impl<B: Body + Unpin> ReplayBuffer<B>
where
    B::Data: Into<Bytes>,
    B::Error: Into<BoxError>,
{
    /// Creates the buffer, and the reader of the first attempt. The body follows with
    /// [`set_source`](Self::set_source), before any read.
    pub(super) fn record(limit: usize) -> (Arc<Self>, Reader<B>) {
        let state = BufferState {
            holder: 1,
            source: Source::Gone,
            recorded: RecordedBytes::new(limit),
            trailers: None,
            position: ReadPosition::default(),
            kept: true,
            lost: false,
            ended: false,
            waker: None,
        };
        let buffer = Arc::new(Self { waits: AtomicBool::new(false), state: Mutex::new(state) });
        let reader = Reader { buffer: Arc::clone(&buffer), attempt: 1 };
        (buffer, reader)
    }

    /// Sets the body of a new buffer.
    pub(super) fn set_source(&self, body: B) {
        lock(&self.state).source = Source::Available(body);
    }

    /// Returns whether another attempt would have the whole body.
    pub(super) fn is_whole(&self) -> bool {
        lock(&self.state).is_whole()
    }

    /// Takes the body over. Returns `None` if a part of the body is lost. The last attempt keeps
    /// nothing.
    pub(super) fn take_over(buffer: &Arc<Self>, last: bool) -> Option<Reader<B>> {
        let mut state = lock(&buffer.state);
        if !state.is_whole() {
            return None;
        }
        state.holder += 1;
        state.recorded.seal();
        state.position = ReadPosition::default();
        state.kept = !last;
        buffer.set_waits(false);
        let (attempt, waker) = (state.holder, state.waker.take());
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        Some(Reader { buffer: Arc::clone(buffer), attempt })
    }
}

impl<B> ReplayBuffer<B> {
    /// Returns whether the present attempt waits for the body's source.
    pub(super) fn is_waiting(&self) -> bool {
        self.waits.load(Ordering::Relaxed)
    }

    pub(super) fn set_waits(&self, waits: bool) {
        if self.is_waiting() != waits {
            self.waits.store(waits, Ordering::Relaxed);
        }
    }

    /// Frees the data that the present attempt has read, because no attempt follows.
    pub(super) fn release(&self) {
        let mut state = lock(&self.state);
        let ReadPosition { piece, trailers } = state.position;
        state.kept = false;
        state.lost = true;
        state.recorded.release(piece);
        let played = if trailers { state.trailers.take() } else { None };
        drop(state);
        drop(played);
    }
}

impl<B: Body + Unpin> BufferState<B>
where
    B::Data: Into<Bytes>,
    B::Error: Into<BoxError>,
{
    fn is_whole(&self) -> bool {
        self.kept && (self.ended || !matches!(self.source, Source::Gone))
    }

    /// Returns the next frame of the data that was read already, if the reader has not reached its
    /// end.
    fn replay(&mut self) -> Option<Frame<Bytes>> {
        let at = self.position.piece;
        if let Some(data) = if self.kept { self.recorded.piece(at) } else { self.recorded.take_piece(at) } {
            self.position.piece += 1;
            self.lost |= !self.kept;
            return Some(Frame::data(data));
        }
        if !self.ended || self.position.trailers {
            return None;
        }
        self.position.trailers = true;
        self.lost |= !self.kept;
        if self.kept { self.trailers.clone() } else { self.trailers.take() }.map(Frame::trailers)
    }

    /// Puts the body back after a read by the holder.
    fn put_back(&mut self, read: SourceRead, body: B) -> PutBack<B> {
        match read {
            SourceRead::Pending => {
                self.source = Source::Available(body);
                PutBack::step(Poll::Pending)
            }
            SourceRead::End => {
                self.end(None);
                PutBack { spent: Some(body), ..PutBack::step(Poll::Ready(None)) }
            }
            SourceRead::Failed(error) => {
                self.source = Source::Gone;
                self.recorded.forget();
                PutBack { spent: Some(body), ..PutBack::step(Poll::Ready(Some(Err(error)))) }
            }
            SourceRead::Frame(frame) => self.keep(frame, body),
        }
    }

    fn keep(&mut self, frame: Frame<Bytes>, body: B) -> PutBack<B> {
        self.lost |= !self.kept;
        if let Some(trailers) = frame.trailers_ref() {
            self.end(self.kept.then(|| trailers.clone()));
            self.position.trailers = true;
            return PutBack { spent: Some(body), ..PutBack::step(Poll::Ready(Some(Ok(frame)))) };
        }
        if self.kept && frame.data_ref().is_some_and(|data| self.recorded.keep(data)) {
            // This reader has read all pieces that are sealed now.
            self.position.piece = self.recorded.pieces();
            self.source = Source::Available(body);
            return PutBack::step(Poll::Ready(Some(Ok(frame))));
        }
        // The recorded part was replayed before the rest was read, so no reader needs it.
        self.recorded.forget();
        self.source = Source::Gone;
        PutBack { step: ReadStep::Alone(frame, body), spent: None, unread: None }
    }

    /// Puts the body back after a read by an attempt that no longer holds it. The data that was
    /// read belongs to the holder.
    fn put_back_for_holder(&mut self, read: SourceRead, body: B) -> PutBack<B> {
        let mut put = PutBack::step(Poll::Ready(Some(Err(upload_error(ReplayError::TakenOver)))));
        match read {
            SourceRead::Pending => self.source = Source::Available(body),
            SourceRead::End => {
                self.end(None);
                put.spent = Some(body);
            }
            SourceRead::Failed(error) => {
                self.source = Source::Gone;
                put.spent = Some(body);
                put.unread = Some(Err(error));
            }
            SourceRead::Frame(frame) => match frame.into_data() {
                Ok(data) => {
                    self.recorded.add(&data);
                    self.source = Source::Available(body);
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
        self.source = Source::Gone;
    }

    fn is_end_stream(&self) -> bool {
        let played = self.recorded.left(self.position.piece) == 0;
        let ended = if self.ended {
            self.position.trailers || self.trailers.is_none()
        } else {
            self.source.get().is_some_and(Body::is_end_stream)
        };
        played && ended
    }

    fn size_hint(&self) -> SizeHint {
        let left = self.recorded.left(self.position.piece) as u64;
        let source = match self.source.get() {
            Some(source) => source.size_hint(),
            None if self.ended => SizeHint::with_exact(0),
            None => SizeHint::new(),
        };
        let mut hint = SizeHint::new();
        hint.set_lower(source.lower().saturating_add(left));
        if let Some(upper) = source.upper().and_then(|upper| upper.checked_add(left)) {
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
    pub(super) fn read(&self, cx: &mut Context<'_>) -> ReadStep<B> {
        let mut body = match self.take_out(cx) {
            Ok(body) => body,
            Err(read) => return ReadStep::Read(read),
        };
        let poison = PoisonGuard(&self.buffer);
        let read = match Pin::new(&mut body).poll_frame(cx) {
            Poll::Pending => SourceRead::Pending,
            Poll::Ready(None) => SourceRead::End,
            Poll::Ready(Some(Err(error))) => SourceRead::Failed(upload_error(error)),
            Poll::Ready(Some(Ok(frame))) => SourceRead::Frame(frame.map_data(Into::into)),
        };
        // The body has not panicked.
        mem::forget(poison);
        let mut waker = matches!(read, SourceRead::Pending).then(|| cx.waker().clone());

        let mut state = lock(&self.buffer.state);
        let holds = state.holder == self.attempt;
        let put = if holds {
            // An attempt that waits is woken when the body is taken over. An attempt that has read
            // a frame does not wait.
            mem::swap(&mut state.waker, &mut waker);
            let put = state.put_back(read, body);
            self.buffer.set_waits(matches!(put.step, ReadStep::Read(Poll::Pending)));
            put
        } else {
            waker = state.waker.take();
            state.put_back_for_holder(read, body)
        };
        drop(state);
        if let Some(waker) = waker
            && !holds
        {
            waker.wake();
        }
        drop((put.spent, put.unread));
        put.step
    }

    /// Takes the body out to read it, or returns a result that needs no read of the body.
    fn take_out(&self, cx: &mut Context<'_>) -> Result<B, Read> {
        let mut waker = None;
        loop {
            let mut state = lock(&self.buffer.state);
            if state.holder != self.attempt {
                return Err(Poll::Ready(Some(Err(upload_error(ReplayError::TakenOver)))));
            }
            if let Some(frame) = state.replay() {
                return Err(Poll::Ready(Some(Ok(frame))));
            }
            if state.ended {
                self.buffer.set_waits(false);
                return Err(Poll::Ready(None));
            }
            match mem::replace(&mut state.source, Source::BeingRead) {
                Source::Available(body) => return Ok(body),
                Source::Gone => {
                    state.source = Source::Gone;
                    return Err(Poll::Ready(Some(Err(upload_error(ReplayError::Broken)))));
                }
                // An earlier attempt reads it, and wakes this attempt.
                Source::BeingRead if waker.is_some() => {
                    mem::swap(&mut state.waker, &mut waker);
                    drop(state);
                    return Err(Poll::Pending);
                }
                Source::BeingRead => {
                    drop(state);
                    waker = Some(cx.waker().clone());
                }
            }
        }
    }

    /// Saves the body for an inner layer as well.
    ///
    /// `true` means that the inner layer keeps the body from here on, because the layer that kept
    /// it makes its last attempt. `None` means that a part of the body is lost.
    pub(super) fn share(&self) -> Option<bool> {
        let mut state = lock(&self.buffer.state);
        if state.holder != self.attempt {
            return None;
        }
        let takes_over = !state.kept && !state.lost;
        state.kept |= takes_over;
        state.is_whole().then_some(takes_over)
    }

    pub(super) fn buffer(&self) -> Arc<ReplayBuffer<B>> {
        Arc::clone(&self.buffer)
    }

    /// Returns whether the body has ended. A body that was taken over has not ended: it fails.
    pub(super) fn is_end_stream(&self) -> bool {
        let state = lock(&self.buffer.state);
        state.holder == self.attempt && state.is_end_stream()
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        let state = lock(&self.buffer.state);
        if state.holder == self.attempt { state.size_hint() } else { SizeHint::new() }
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

    /// Counts down, one byte per frame.
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

    /// Returns the data that a reader sees, and whether it saw the end.
    fn read(reader: &Reader<Countdown>) -> (Vec<u8>, bool) {
        let (mut seen, mut cx) = (Vec::new(), Context::from_waker(Waker::noop()));
        loop {
            match reader.read(&mut cx) {
                ReadStep::Read(Poll::Ready(Some(Ok(frame)))) => seen.extend(frame.into_data().unwrap()),
                ReadStep::Read(Poll::Ready(end)) => return (seen, end.is_none()),
                // The first attempt reads at this time.
                ReadStep::Read(Poll::Pending) => thread::yield_now(),
                ReadStep::Alone(..) => unreachable!(),
            }
        }
    }

    /// A body that is always pending.
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

    fn recorded<B>(body: B, limit: usize) -> (Arc<ReplayBuffer<B>>, Reader<B>)
    where
        B: Body + Unpin,
        B::Data: Into<Bytes>,
        B::Error: Into<BoxError>,
    {
        let (buffer, reader) = ReplayBuffer::record(limit);
        buffer.set_source(body);
        (buffer, reader)
    }

    #[test]
    fn loom_new_holder_waits_only_after_its_own_read() {
        loom::model(|| {
            let (buffer, first) = recorded(Stalled, 10);
            let thread = thread::spawn(move || {
                let _ = first.read(&mut Context::from_waker(Waker::noop()));
            });
            let second = ReplayBuffer::take_over(&buffer, false).unwrap();
            thread.join().unwrap();
            assert!(!buffer.is_waiting(), "the first attempt no longer sets the flag");
            let _ = second.read(&mut Context::from_waker(Waker::noop()));
            assert!(buffer.is_waiting());
        });
    }

    #[test]
    fn loom_attempt_waiting_for_the_body_is_woken() {
        struct Woken(std::sync::atomic::AtomicBool);
        impl std::task::Wake for Woken {
            fn wake(self: Arc<Self>) {
                self.0.store(true, std::sync::atomic::Ordering::SeqCst);
            }
        }
        loom::model(|| {
            let (buffer, first) = recorded(Countdown(2), 10);
            let thread = thread::spawn(move || read(&first));
            let second = ReplayBuffer::take_over(&buffer, false).unwrap();
            let woken = Arc::new(Woken(false.into()));
            let waker = Waker::from(Arc::clone(&woken));
            let waits =
                matches!(second.read(&mut Context::from_waker(&waker)), ReadStep::Read(Poll::Pending));
            thread.join().unwrap();
            assert!(!waits || woken.0.load(std::sync::atomic::Ordering::SeqCst));
        });
    }

    #[test]
    fn loom_body_taken_over_is_whole_or_truncated_for_each() {
        loom::model(|| {
            let (buffer, first) = recorded(Countdown(2), 10);
            let thread = thread::spawn(move || read(&first));
            let second = read(&ReplayBuffer::take_over(&buffer, false).unwrap());
            assert_eq!(second, (vec![1, 0], true), "the retry has the whole body");
            let (seen, ended) = thread.join().unwrap();
            assert!([1, 0].starts_with(&seen));
            assert!(!ended || seen == [1, 0], "{seen:?} is not the end");
        });
    }
}
