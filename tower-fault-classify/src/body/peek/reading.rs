//! The future that reads the beginning of an error body.

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
use crate::body::mode::{Peek, Peeked, sealed};
use crate::body::replace::{ReplaceBody, TakeBody};
use crate::fault::Verdict;
use crate::outcome::CarriedVerdict;

/// The number of frames that one poll reads.
///
/// A body that always has another frame then does not block its thread.
const FRAMES_AT_ONCE: u32 = 64;

/// The number of empty frames after which the reading stops. A body of empty frames may never end.
const EMPTY_FRAMES: u32 = 1024;

impl<R> sealed::Sealed for ErrorBodies<R> {}

impl<Res, R> Peek<Res> for ErrorBodies<R>
where
    R: BodyRule + Clone,
    Res: TakeBody<Body: Body<Data = Bytes>> + ReplaceBody<PeekedBody<<Res as TakeBody>::Body>>,
{
    type Response = <Res as ReplaceBody<PeekedBody<Res::Body>>>::Response;
    type Reading = Reading<Res, R>;

    #[inline]
    fn peek(&self, response: Res) -> Peeked<Self::Response, Self::Reading> {
        if response.status().is_some_and(|status| status >= StatusCode::BAD_REQUEST) {
            Peeked::Reading(Reading::new(response, self.clone()))
        } else {
            Peeked::Done(response.adapt_body(PeekedBody::unread))
        }
    }
}

pin_project! {
    /// The future that reads the beginning of a response's body. Dropping it drops the response.
    #[must_use = "futures do nothing unless polled"]
    pub struct Reading<Res: TakeBody, R> {
        status: StatusCode,
        head: Option<(Parts, Pin<Box<Res::Body>>)>,
        read: ReadBuffer,
        empty: u32,
        options: ErrorBodies<R>,
        #[pin]
        timer: Option<Sleep>,
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

impl<Res, R> Reading<Res, R>
where
    Res: TakeBody<Body: Body<Data = Bytes>>,
{
    pub(super) fn new(response: Res, options: ErrorBodies<R>) -> Self {
        let (parts, body) = response.take_body();
        let status = parts.status;
        let head = Some((parts, Box::pin(body)));
        Self { status, head, read: ReadBuffer::Frame(Bytes::new()), empty: 0, options, timer: None }
    }
}

impl<Res, R> Future for Reading<Res, R>
where
    R: BodyRule,
    Res: TakeBody<Body: Body<Data = Bytes>> + ReplaceBody<PeekedBody<<Res as TakeBody>::Body>>,
{
    type Output = (<Res as ReplaceBody<PeekedBody<Res::Body>>>::Response, Option<Verdict>);

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let ErrorBodies { rule, limit, timeout } = this.options;
        let (_, body) = this.head.as_mut().expect("`Reading` polled after completion");
        let stopped = match read_ready_frames(body.as_mut(), this.read, this.empty, *limit, cx) {
            Poll::Ready(Some(stopped)) => stopped,
            Poll::Ready(None) => {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Poll::Pending if timeout.is_zero() => Stopped { after: None, ended: false },
            Poll::Pending => {
                if this.timer.is_none() {
                    this.timer.set(Some(sleep(*timeout)));
                }
                if let Some(timer) = this.timer.as_pin_mut() {
                    ready!(timer.poll(cx));
                }
                Stopped { after: None, ended: false }
            }
        };
        let (parts, body) = this.head.take().expect("the head is taken only here");
        let read = std::mem::replace(this.read, ReadBuffer::Frame(Bytes::new()));
        let seen = read.bytes();
        let nothing_left = stopped.after.is_none() && body.is_end_stream();
        let complete = seen.len() <= *limit && (stopped.ended || stopped.trailers() || nothing_left);
        let bytes = &seen[..seen.len().min(*limit)];
        let verdict = rule.verdict(&ErrorBody::new(*this.status, &parts.headers, bytes, complete));
        let Stopped { after, ended } = stopped;
        let prefix = Prefix { data: read.into_bytes(), after, ended };
        let mut response = Res::from_parts(parts, PeekedBody::read(prefix, body));
        if let Some(verdict) = verdict {
            CarriedVerdict::insert(&mut response, verdict);
        }
        Poll::Ready((response, verdict))
    }
}

/// Why the reading stopped.
struct Stopped<E> {
    /// The item that was read last and is not part of the kept data.
    after: Option<Result<Frame<Bytes>, E>>,
    ended: bool,
}

impl<E> Stopped<E> {
    fn trailers(&self) -> bool {
        matches!(&self.after, Some(Ok(frame)) if frame.is_trailers())
    }
}

/// Reads the frames that are available, until the limit is reached or the body ends.
///
/// `None`: more frames may be available, and are left to the next poll.
fn read_ready_frames<B: Body<Data = Bytes>>(
    mut body: Pin<&mut B>,
    read: &mut ReadBuffer,
    empty: &mut u32,
    limit: usize,
    cx: &mut Context<'_>,
) -> Poll<Option<Stopped<B::Error>>> {
    for _ in 0..FRAMES_AT_ONCE {
        if read.bytes().len() >= limit || *empty >= EMPTY_FRAMES || body.is_end_stream() {
            return Poll::Ready(Some(Stopped { after: None, ended: false }));
        }
        let after = match ready!(body.as_mut().poll_frame(cx)) {
            None => return Poll::Ready(Some(Stopped { after: None, ended: true })),
            Some(Err(error)) => Err(error),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => {
                    *empty += u32::from(data.is_empty());
                    let over = read.add(data, limit);
                    if over.is_empty() {
                        continue;
                    }
                    Ok(Frame::data(over))
                }
                Err(other) => Ok(other),
            },
        };
        return Poll::Ready(Some(Stopped { after: Some(after), ended: false }));
    }
    Poll::Ready(None)
}

impl<Res: TakeBody, R> fmt::Debug for Reading<Res, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reading").field("status", &self.status).finish_non_exhaustive()
    }
}
