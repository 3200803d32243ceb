//! The event stream, and the history of each circuit.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::Frame;

use crate::audit::AuditEntry;
use crate::auth::User;
use crate::source::Sources;
use crate::view::History;

/// Distributes events to the open streams, and keeps the history.
pub(crate) struct Hub {
    sources: Arc<Sources>,
}

impl Hub {
    /// Creates a hub. `history`: circuits are sampled also while no stream is open.
    pub(crate) fn new(sources: Arc<Sources>, _history: bool) -> Arc<Self> {
        Arc::new(Self { sources })
    }

    /// Starts the sampler if it does not run. Must be called within a tokio runtime; every request
    /// calls it.
    pub(crate) fn start(self: &Arc<Self>) {
        let _ = &self.sources;
    }

    /// Opens a stream. `None`: too many streams are open.
    pub(crate) fn stream(
        self: &Arc<Self>,
        _user: &User,
        _last_event_id: Option<&str>,
    ) -> Option<EventStream> {
        todo!()
    }

    /// Sends an entry of the audit to all streams.
    pub(crate) fn publish_audit(&self, _entry: &AuditEntry) {
        todo!()
    }

    /// Returns the last three minutes of a circuit.
    pub(crate) fn history(&self, _circuit: &str) -> Option<History> {
        todo!()
    }
}

/// The body of a response with server-sent events.
pub(crate) struct EventStream {}

impl http_body::Body for EventStream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        todo!()
    }
}
