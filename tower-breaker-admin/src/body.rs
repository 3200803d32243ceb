//! The body of a response.

use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use crate::events::EventStream;

pin_project! {
    /// The body of an [`Admin`](crate::Admin)'s response: the page, JSON, or an event stream.
    pub struct AdminBody {
        #[pin]
        content: Content,
    }
}

pin_project! {
    #[project = ContentProjection]
    enum Content {
        /// `None`: the body has ended.
        Full { bytes: Option<Bytes> },
        Events { #[pin] stream: EventStream },
    }
}

impl AdminBody {
    pub(crate) const fn empty() -> Self {
        Self { content: Content::Full { bytes: None } }
    }

    pub(crate) const fn events(stream: EventStream) -> Self {
        Self { content: Content::Events { stream } }
    }
}

impl From<Bytes> for AdminBody {
    fn from(bytes: Bytes) -> Self {
        let bytes = (!bytes.is_empty()).then_some(bytes);
        Self { content: Content::Full { bytes } }
    }
}

impl Body for AdminBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.project().content.project() {
            ContentProjection::Full { bytes } => {
                Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes))))
            }
            ContentProjection::Events { stream } => stream.poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Full { bytes } => bytes.is_none(),
            Content::Events { stream } => stream.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Full { bytes } => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Content::Events { stream } => stream.size_hint(),
        }
    }
}

impl fmt::Debug for AdminBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminBody").field("size", &self.size_hint().exact()).finish_non_exhaustive()
    }
}
