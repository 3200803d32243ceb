//! The body of a response with server-sent events.

use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::Frame;
use tokio::sync::futures::OwnedNotified;

use super::log::{Cursor, Next};
use super::{MAX_STREAMS, MAX_STREAMS_OF_READERS, Shared};
use crate::auth::Role;
use crate::problem::Problem;

/// The body of a response with server-sent events.
///
/// It ends when the hub is closed. It holds no event that it has not sent, so a slow reader costs
/// no memory.
pub(crate) struct EventStream {
    slot: Slot,
    hello: Option<Bytes>,
    cursor: Cursor,
    /// Created before the log is read, so that no event in between is missed.
    written: Pin<Box<OwnedNotified>>,
}

impl EventStream {
    pub(super) fn open(
        shared: &Arc<Shared>,
        role: Role,
        hello: Bytes,
        last_event_id: Option<&str>,
    ) -> Result<Self, Problem> {
        let slot = Slot::take(shared, role)?;
        let cursor = shared.state().log.open(last_event_id);
        let written = Box::pin(Arc::clone(&shared.written).notified_owned());
        Ok(Self { slot, hello: Some(hello), cursor, written })
    }
}

impl http_body::Body for EventStream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Self { slot: Slot(shared), hello, cursor, written } = self.get_mut();
        if let Some(hello) = hello.take() {
            return Poll::Ready(Some(Ok(Frame::data(hello))));
        }
        loop {
            let next = {
                let mut state = shared.state();
                if state.is_closed {
                    return Poll::Ready(None);
                }
                state.log.next(cursor)
            };
            match next {
                Next::Events(events) => return Poll::Ready(Some(Ok(Frame::data(events)))),
                Next::Nothing => {}
                Next::NeedsSnapshot => shared.wake.notify_one(),
            }
            ready!(written.as_mut().poll(context));
            written.set(Arc::clone(&shared.written).notified_owned());
        }
    }
}

impl fmt::Debug for EventStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EventStream")
    }
}

/// One of the streams that may be open at the same time.
struct Slot(Arc<Shared>);

impl Slot {
    fn take(shared: &Arc<Shared>, role: Role) -> Result<Self, Problem> {
        let max = match role {
            Role::Reader => MAX_STREAMS_OF_READERS,
            Role::Operator => MAX_STREAMS,
        };
        let mut state = shared.state();
        if state.is_closed {
            return Err(Problem::unavailable("the server is shutting down; connect to another process"));
        }
        if state.streams >= max {
            return Err(Problem::unavailable("too many event streams are open"));
        }
        state.streams += 1;
        Ok(Self(Arc::clone(shared)))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.state().streams -= 1;
    }
}
