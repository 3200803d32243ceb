//! The future that reads the beginning of an error body or of an event stream.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::StatusCode;
use http::response::Parts;
use http_body::{Body, Frame};
use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep};

use super::body::{PeekedBody, Prefix};
use super::error_body::{BodyRule, ErrorBodies, ErrorBody};
use crate::body::end::{BodyEnd, ClassifyEnd, EndReason};
use crate::body::mode::{Peek, Peeked, sealed};
use crate::body::replace::{ReplaceBody, TakeBody};
use crate::body::sse::{SseParser, StreamEvent, is_event_stream};
use crate::error::AsError;
use crate::fault::Verdict;
use crate::outcome::CarriedVerdict;
use crate::table;
use crate::upload::excuse_stalled_timeout;

/// The number of frames that one poll reads.
///
/// A body that always has another frame then does not block its thread.
const FRAMES_AT_ONCE: u32 = 64;

/// The number of empty frames after which the reading stops. A body of empty frames may never end.
const EMPTY_FRAMES: u32 = 1024;

impl<R, K> sealed::Sealed for ErrorBodies<R, K> {}

impl<Res, C, R, K> Peek<Res, C> for ErrorBodies<R, K>
where
    C: Clone,
    R: BodyRule + Clone,
    Res: TakeBody<Body: Body<Data = Bytes>> + ReplaceBody<PeekedBody<<Res as TakeBody>::Body>>,
    <Res::Body as Body>::Error: AsError<K>,
{
    type Response = <Res as ReplaceBody<PeekedBody<Res::Body>>>::Response;
    type Reading = Reading<Res, R, K, C>;

    #[inline]
    fn peek(
        &self,
        response: Res,
        head: &Verdict,
        classify: &C,
        classify_end: ClassifyEnd<C>,
    ) -> Peeked<Self::Response, Self::Reading> {
        let status = response.status();
        let options = || ErrorBodies { rule: self.rule.clone(), ..*self };
        if status.is_some_and(|status| status >= StatusCode::BAD_REQUEST) {
            Peeked::Reading(Reading::new(response, options(), None))
        } else if !self.first_event_timeout.is_zero()
            && head.is_success()
            && status == Some(StatusCode::OK)
            && response.headers().is_some_and(is_event_stream)
        {
            let classify = classify.clone();
            let events = AwaitedEvent { parser: SseParser::default(), classify, classify_end };
            Peeked::Reading(Reading::new(response, options(), Some(events)))
        } else {
            Peeked::Done(response.adapt_body(PeekedBody::unread))
        }
    }
}

pin_project! {
    /// The future that reads the beginning of a response's body. Dropping it drops the response.
    #[must_use = "futures do nothing unless polled"]
    pub struct Reading<Res: TakeBody, R, K, C> {
        status: StatusCode,
        head: Option<(Parts, Pin<Box<Res::Body>>)>,
        read: ReadBuffer,
        empty: u32,
        options: ErrorBodies<R, K>,
        events: Option<AwaitedEvent<C>>,
        #[pin]
        timer: Option<Sleep>,
    }
}

/// The state of an event stream whose first event has not arrived.
struct AwaitedEvent<C> {
    parser: SseParser,
    classify: C,
    classify_end: ClassifyEnd<C>,
}

/// What the first event of a stream says: the verdict on an error, or `None` for a success.
type FirstEvent = Option<Verdict>;

/// Returns `None` for an event that does not count as the first one.
fn first_event(rule: &impl BodyRule, event: &StreamEvent<'_>) -> Option<FirstEvent> {
    match rule.first_event(event) {
        Some(verdict) => Some(Some(verdict)),
        None if event.data.is_empty() || event.name == b"ping" => None,
        None => Some(None),
    }
}

impl<C> AwaitedEvent<C> {
    /// Returns the verdict on the stream, or `None` to keep the verdict on the head. `complete`: no
    /// more data follows.
    fn verdict<E, K>(&mut self, rule: &impl BodyRule, stopped: &Stopped<E>, complete: bool) -> Option<Verdict>
    where
        E: AsError<K>,
    {
        match (&stopped.why, &stopped.after) {
            (Why::FirstEvent(first), _) => *first,
            (Why::Empty, _) => None,
            (_, Some(Err(error))) => {
                let end = BodyEnd::new(EndReason::Failed(error.as_error()), false);
                Some((self.classify_end)(&self.classify, &end))
            }
            _ if complete => {
                let incomplete = self.parser.finish(|event| first_event(rule, event));
                incomplete.unwrap_or(Some(table::NO_EVENT.into()))
            }
            (Why::TimedOut, _) => Some(excuse_stalled_timeout(table::FIRST_EVENT_LATE).into()),
            (Why::Ended | Why::Enough, _) => None,
        }
    }
}

/// The data that was read.
///
/// A single frame, which most error bodies consist of, is kept without a copy.
#[derive(Debug)]
enum ReadBuffer {
    Frame(Bytes),
    Joined(Vec<u8>),
}

impl ReadBuffer {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Frame(data) => data,
            Self::Joined(data) => data,
        }
    }

    /// Adds the part of `data` that fits into the limit, and returns the rest.
    ///
    /// The first frame is kept whole, even if it is larger than the limit.
    fn add(&mut self, mut data: Bytes, limit: usize) -> Bytes {
        match self {
            Self::Frame(none) if none.is_empty() => {
                *none = data;
                Bytes::new()
            }
            Self::Frame(first) => {
                let first = Vec::from(std::mem::take(first));
                *self = Self::Joined(first);
                self.add(data, limit)
            }
            Self::Joined(joined) => {
                let over = data.split_off(data.len().min(limit.saturating_sub(joined.len())));
                joined.extend_from_slice(&data);
                over
            }
        }
    }

    fn into_bytes(self) -> Bytes {
        match self {
            Self::Frame(data) => data,
            Self::Joined(data) => data.into(),
        }
    }
}

impl<Res, R, K, C> Reading<Res, R, K, C>
where
    Res: TakeBody<Body: Body<Data = Bytes>>,
{
    fn new(response: Res, options: ErrorBodies<R, K>, events: Option<AwaitedEvent<C>>) -> Self {
        let (parts, body) = response.take_body();
        let status = parts.status;
        let head = Some((parts, Box::pin(body)));
        let read = ReadBuffer::Frame(Bytes::new());
        Self { status, head, read, empty: 0, options, events, timer: None }
    }
}

impl<Res, R, K, C> Future for Reading<Res, R, K, C>
where
    R: BodyRule,
    Res: TakeBody<Body: Body<Data = Bytes>> + ReplaceBody<PeekedBody<<Res as TakeBody>::Body>>,
    <Res::Body as Body>::Error: AsError<K>,
{
    type Output = (<Res as ReplaceBody<PeekedBody<Res::Body>>>::Response, Option<Verdict>);

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let ErrorBodies { rule, limit, timeout, first_event_timeout, .. } = this.options;
        let timeout = if this.events.is_some() { *first_event_timeout } else { *timeout };
        let (_, body) = this.head.as_mut().expect("`Reading` polled after completion");
        let mut inspect = |data: &[u8]| {
            let events = this.events.as_mut()?;
            events.parser.feed(data, |event| first_event(rule, event))
        };
        let stopped = match read_ready_frames(body.as_mut(), this.read, this.empty, *limit, &mut inspect, cx)
        {
            Poll::Ready(Some(stopped)) => stopped,
            Poll::Ready(None) => {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Poll::Pending if timeout.is_zero() => Stopped { after: None, why: Why::TimedOut },
            Poll::Pending => {
                if this.timer.is_none() {
                    this.timer.set(Some(sleep(timeout)));
                }
                if let Some(timer) = this.timer.as_pin_mut() {
                    ready!(timer.poll(cx));
                }
                Stopped { after: None, why: Why::TimedOut }
            }
        };
        let (parts, body) = this.head.take().expect("the head is taken only here");
        let read = std::mem::replace(this.read, ReadBuffer::Frame(Bytes::new()));
        let ended = matches!(stopped.why, Why::Ended);
        let nothing_left = stopped.after.is_none() && body.is_end_stream();
        let complete = ended || stopped.trailers() || nothing_left;
        let verdict = if let Some(events) = this.events {
            events.verdict(rule, &stopped, complete)
        } else {
            let seen = read.bytes();
            let complete = complete && seen.len() <= *limit;
            let bytes = &seen[..seen.len().min(*limit)];
            rule.verdict(&ErrorBody::new(*this.status, &parts.headers, bytes, complete))
        };
        let prefix = Prefix { data: read.into_bytes(), after: stopped.after, ended };
        let mut response = Res::from_parts(parts, PeekedBody::read(prefix, body));
        if let Some(verdict) = verdict {
            CarriedVerdict::insert(&mut response, verdict);
        }
        Poll::Ready((response, verdict))
    }
}

/// The end of the reading.
struct Stopped<E> {
    /// The item that was read last and is not part of the kept data.
    after: Option<Result<Frame<Bytes>, E>>,
    why: Why,
}

/// Why the reading stopped.
enum Why {
    /// The body reports its end, and nothing was read, as in the response to a HEAD request.
    Empty,
    /// The body was polled to its end.
    Ended,
    /// The first event arrived.
    FirstEvent(FirstEvent),
    TimedOut,
    /// Any other reason: a limit, trailers, an error, or a body that reports its end.
    Enough,
}

impl<E> Stopped<E> {
    fn trailers(&self) -> bool {
        matches!(&self.after, Some(Ok(frame)) if frame.is_trailers())
    }
}

/// Reads the frames that are available, until the limit is reached, the body ends, or `inspect`
/// returns the first event.
///
/// `None`: more frames may be available, and are left to the next poll.
fn read_ready_frames<B: Body<Data = Bytes>>(
    mut body: Pin<&mut B>,
    read: &mut ReadBuffer,
    empty: &mut u32,
    limit: usize,
    inspect: &mut impl FnMut(&[u8]) -> Option<FirstEvent>,
    cx: &mut Context<'_>,
) -> Poll<Option<Stopped<B::Error>>> {
    for _ in 0..FRAMES_AT_ONCE {
        if read.bytes().is_empty() && *empty == 0 && body.is_end_stream() {
            return Poll::Ready(Some(Stopped { after: None, why: Why::Empty }));
        }
        if read.bytes().len() >= limit || *empty >= EMPTY_FRAMES || body.is_end_stream() {
            return Poll::Ready(Some(Stopped { after: None, why: Why::Enough }));
        }
        let stopped = match ready!(body.as_mut().poll_frame(cx)) {
            None => Stopped { after: None, why: Why::Ended },
            Some(Err(error)) => Stopped { after: Some(Err(error)), why: Why::Enough },
            Some(Ok(frame)) => match frame.into_data() {
                Err(other) => Stopped { after: Some(Ok(other)), why: Why::Enough },
                Ok(data) => {
                    *empty += u32::from(data.is_empty());
                    let why = inspect(&data).map_or(Why::Enough, Why::FirstEvent);
                    let over = read.add(data, limit);
                    if over.is_empty() && matches!(why, Why::Enough) {
                        continue;
                    }
                    Stopped { after: (!over.is_empty()).then(|| Ok(Frame::data(over))), why }
                }
            },
        };
        return Poll::Ready(Some(stopped));
    }
    Poll::Ready(None)
}

impl<Res: TakeBody, R, K, C> fmt::Debug for Reading<Res, R, K, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reading").field("status", &self.status).finish_non_exhaustive()
    }
}
