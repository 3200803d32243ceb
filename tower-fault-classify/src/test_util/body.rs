//! A response's body that may break, end early, stall or arrive slowly.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::time::Sleep;

use super::injection::{BodyFault, injected_io_error};
use crate::error::BoxError;

pin_project! {
    /// The body of a response of [`FaultInjection`](super::FaultInjection).
    ///
    /// It is the inner service's body or an injected one, with or without a fault. Data becomes
    /// [`Bytes`], which copies nothing if it is `Bytes` already. The error is boxed: that of the
    /// inner body, or an injected [`io::Error`].
    pub struct InjectedBody<B> {
        #[pin]
        source: Source<B>,
        fault: Option<BodyFault>,
        // The data that the source has returned, and the reader has not received yet.
        pending: Bytes,
        // It is boxed, so that the body is `Unpin` if the inner body is.
        sleep: Option<Pin<Box<Sleep>>>,
        failed: bool,
    }
}

pin_project! {
    #[project = SourceProj]
    enum Source<B> {
        Inner { #[pin] body: B },
        Injected { data: Bytes },
    }
}

impl<B> InjectedBody<B> {
    pub(super) const fn inner(body: B, fault: Option<BodyFault>) -> Self {
        Self::of(Source::Inner { body }, fault)
    }

    pub(super) const fn injected(data: Bytes, fault: Option<BodyFault>) -> Self {
        Self::of(Source::Injected { data }, fault)
    }

    const fn of(source: Source<B>, fault: Option<BodyFault>) -> Self {
        Self { source, fault, pending: Bytes::new(), sleep: None, failed: false }
    }
}

impl<B> Source<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.project() {
            SourceProj::Inner { body } => body.poll_frame(cx).map(|frame| {
                let frame = frame?.map_err(Into::into);
                Some(frame.map(|frame| frame.map_data(|mut data| data.copy_to_bytes(data.remaining()))))
            }),
            SourceProj::Injected { data } if data.is_empty() => Poll::Ready(None),
            SourceProj::Injected { data } => Poll::Ready(Some(Ok(Frame::data(std::mem::take(data))))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Inner { body } => body.is_end_stream(),
            Self::Injected { data } => data.is_empty(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Inner { body } => body.size_hint(),
            Self::Injected { data } => SizeHint::with_exact(data.len() as u64),
        }
    }
}

impl<B> Body for InjectedBody<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.project();
        match this.fault {
            None => this.source.poll_frame(cx),
            _ if *this.failed => Poll::Ready(None),
            Some(BodyFault::Break(0)) => {
                *this.failed = true;
                Poll::Ready(Some(Err(injected_io_error(io::ErrorKind::ConnectionReset).into())))
            }
            Some(BodyFault::Truncate(0)) => Poll::Ready(None),
            Some(BodyFault::Stall(0)) => Poll::Pending,
            Some(BodyFault::Break(left) | BodyFault::Truncate(left) | BodyFault::Stall(left)) => {
                let frame = ready!(this.source.poll_frame(cx));
                Poll::Ready(frame.map(|frame| frame.map(|frame| cut(frame, left))))
            }
            Some(BodyFault::Drip { chunk, every }) => {
                ready!(poll_delay(this.sleep, cx, *every));
                if this.pending.is_empty() {
                    match ready!(this.source.poll_frame(cx)).transpose()?.map(Frame::into_data) {
                        Some(Ok(data)) => *this.pending = data,
                        Some(Err(trailers)) => return Poll::Ready(Some(Ok(trailers))),
                        None => return Poll::Ready(None),
                    }
                }
                *this.sleep = None;
                let next = this.pending.split_to(this.pending.len().min(*chunk));
                Poll::Ready(Some(Ok(Frame::data(next))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self.fault {
            Some(BodyFault::Truncate(0)) => true,
            Some(BodyFault::Break(0) | BodyFault::Stall(0)) => self.failed,
            _ => self.pending.is_empty() && self.source.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        let source = self.source.size_hint();
        let pending = self.pending.len() as u64;
        let (mut lower, mut upper) = (
            source.lower().saturating_add(pending),
            source.upper().and_then(|upper| upper.checked_add(pending)),
        );
        if let Some(BodyFault::Truncate(left)) = self.fault {
            let left = left as u64;
            (lower, upper) = (lower.min(left), Some(upper.map_or(left, |upper| upper.min(left))));
        }
        let mut hint = SizeHint::new();
        hint.set_lower(lower);
        if let Some(upper) = upper {
            hint.set_upper(upper);
        }
        hint
    }
}

/// Cuts the data of a frame to the bytes that are left before the fault.
fn cut(frame: Frame<Bytes>, left: &mut usize) -> Frame<Bytes> {
    frame.map_data(|mut data| {
        data.truncate(*left);
        *left -= data.len();
        data
    })
}

/// Waits for the delay before a chunk. The timer stays until the chunk is taken.
fn poll_delay(sleep: &mut Option<Pin<Box<Sleep>>>, cx: &mut Context<'_>, delay: Duration) -> Poll<()> {
    if delay.is_zero() {
        return Poll::Ready(());
    }
    let sleep = sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep(delay)));
    // A timer that has fired must not be polled again.
    if sleep.is_elapsed() { Poll::Ready(()) } else { sleep.as_mut().poll(cx) }
}

impl<B> fmt::Debug for InjectedBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InjectedBody").field("fault", &self.fault).finish_non_exhaustive()
    }
}
