//! A body whose beginning has already been read.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

pin_project! {
    /// A response's body whose beginning may have been read, and is returned again byte for byte.
    ///
    /// The data that was read is returned first, in one frame. Then follow the rest, the trailers
    /// and an error, unchanged and in their order.
    pub struct PeekedBody<B: Body> {
        #[pin]
        state: State<B>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<B: Body> {
        Unread { #[pin] body: B },
        Read { prefix: Prefix<B::Error>, rest: Pin<Box<B>> },
    }
}

/// The part that was read, and has not been returned yet.
pub(super) struct Prefix<E> {
    pub(super) data: Bytes,
    /// The item after the kept data: data over the limit, trailers, or an error.
    pub(super) after: Option<Result<Frame<Bytes>, E>>,
    /// The body was read to its end.
    pub(super) ended: bool,
}

impl<E> Prefix<E> {
    fn next(&mut self) -> Option<Result<Frame<Bytes>, E>> {
        if self.data.is_empty() {
            self.after.take()
        } else {
            Some(Ok(Frame::data(std::mem::take(&mut self.data))))
        }
    }

    /// Returns the number of bytes to return, and whether trailers or an error follow.
    fn remaining(&self) -> (u64, bool) {
        let (after, more) = match &self.after {
            Some(Ok(frame)) => frame.data_ref().map_or((0, true), |data| (data.len() as u64, false)),
            Some(Err(_)) => (0, true),
            None => (0, false),
        };
        (self.data.len() as u64 + after, more)
    }
}

impl<B: Body> PeekedBody<B> {
    pub(super) const fn unread(body: B) -> Self {
        Self { state: State::Unread { body } }
    }

    pub(super) const fn read(prefix: Prefix<B::Error>, rest: Pin<Box<B>>) -> Self {
        Self { state: State::Read { prefix, rest } }
    }
}

impl<B: Body<Data = Bytes>> Body for PeekedBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    #[inline]
    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        match self.project().state.project() {
            StateProj::Unread { body } => body.poll_frame(cx),
            StateProj::Read { prefix, rest } => match prefix.next() {
                Some(frame) => Poll::Ready(Some(frame)),
                None if prefix.ended => Poll::Ready(None),
                None => rest.as_mut().poll_frame(cx),
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.state {
            State::Unread { body } => body.is_end_stream(),
            State::Read { prefix, rest } => {
                prefix.remaining() == (0, false) && (prefix.ended || rest.is_end_stream())
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.state {
            State::Unread { body } => body.size_hint(),
            State::Read { prefix, rest } => {
                let (left, _) = prefix.remaining();
                let rest = if prefix.ended { SizeHint::with_exact(0) } else { rest.size_hint() };
                let mut hint = SizeHint::new();
                hint.set_lower(rest.lower().saturating_add(left));
                if let Some(upper) = rest.upper().and_then(|upper| upper.checked_add(left)) {
                    hint.set_upper(upper);
                }
                hint
            }
        }
    }
}

impl<B: Body> fmt::Debug for PeekedBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let left = match &self.state {
            State::Unread { .. } => None,
            State::Read { prefix, .. } => Some(prefix.remaining().0),
        };
        f.debug_struct("PeekedBody").field("read", &left).finish_non_exhaustive()
    }
}
