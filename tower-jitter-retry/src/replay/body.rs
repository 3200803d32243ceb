//! A streaming body that can be sent again.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::buffer::{ReadStep, Reader, ReplayBuffer};
use super::error::{BoxError, upload_error};
use super::retry_body::RetryBody;

/// A streaming body that can be sent again, as long as what was read of it stays within a limit.
///
/// | what | how |
/// |---|---|
/// | what the first attempt reads | goes by at once, and is kept as it goes, up to [`replay_limit`](crate::RetryPolicyBuilder::replay_limit) |
/// | a further attempt | gets what was read, and then the rest, which is kept in its turn; with trailers |
/// | while an earlier attempt still sends it | the further one takes it over, and the earlier one fails ([`ReplayError`](crate::replay::ReplayError)) |
/// | while the last attempt sends it, and once the caller has the response | nothing more is kept, and what was kept goes as it is sent |
/// | a body that outgrows the limit | goes on untouched, is no longer kept, and its request is not sent again |
/// | a body that fails | likewise: the caller gets the attempt's result. The error is an [`UploadError`], which counts neither against the server nor for a retry |
///
/// While such a body waits for its source, a timeout or a lost connection says nothing about the
/// server: the attempt is not retried, and the layers beneath judge it as neutral; see
/// [`upload`](tower_fault_classify::upload).
///
/// What a body says of its size does not decide: an endless one may fail after its first bytes. The server sees the whole body or one that
/// is cut, never a wrong one. What was kept comes in pieces of its own, whatever frames it came in.
///
/// The body must be `Unpin`: `Box::pin` one that is not. A request whose body is kept costs one allocation, and what is kept: at most the
/// limit.
///
/// ```
/// use bytes::Bytes;
/// use http_body_util::StreamBody;
/// use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
/// use tower_jitter_retry::{JitterRetryLayer, ReplayBody, RetryPolicy};
///
/// # async fn example(upload: http_body_util::combinators::UnsyncBoxBody<Bytes, std::io::Error>) -> Result<(), std::io::Error> {
/// let mut service = ServiceBuilder::new()
///     .layer(JitterRetryLayer::new(RetryPolicy::default()))
///     .service(service_fn(async |_: http::Request<ReplayBody<_>>| Ok::<_, std::io::Error>(http::Response::new(()))));
/// let request = http::Request::put("/upload").body(ReplayBody::new(upload)).unwrap();
/// service.ready().await?.call(request).await?;
/// # Ok(())
/// # }
/// ```
///
/// [`UploadError`]: tower_fault_classify::upload::UploadError
pub struct ReplayBody<B>(State<B>);

enum State<B> {
    /// It is not kept. `buffer` is what was kept of it, if it was.
    PassThrough { body: B, buffer: Option<Arc<ReplayBuffer<B>>> },
    /// It is kept, and may be taken over.
    Recorded(Reader<B>),
}

impl<B> ReplayBody<B> {
    /// A body that passes through as it is until a [`JitterRetry`](crate::JitterRetry) keeps it.
    pub const fn new(body: B) -> Self {
        Self(State::PassThrough { body, buffer: None })
    }
}

impl<B: Default> Default for ReplayBody<B> {
    fn default() -> Self {
        Self::new(B::default())
    }
}

impl<B> Body for ReplayBody<B>
where
    B: Body + Unpin,
    B::Data: Into<Bytes>,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    #[inline]
    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut self.0 {
            State::PassThrough { body, buffer } => {
                let polled = Pin::new(body).poll_frame(cx);
                if let Some(buffer) = buffer {
                    buffer.set_waits(polled.is_pending());
                }
                polled.map(|frame| {
                    frame.map(|frame| frame.map(|frame| frame.map_data(Into::into)).map_err(upload_error))
                })
            }
            State::Recorded(reader) => match reader.read(cx) {
                ReadStep::Read(read) => read,
                ReadStep::Alone(frame, body) => {
                    let buffer = Some(reader.buffer());
                    self.0 = State::PassThrough { body, buffer };
                    Poll::Ready(Some(Ok(frame)))
                }
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            State::PassThrough { body, .. } => body.is_end_stream(),
            State::Recorded(reader) => reader.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            State::PassThrough { body, .. } => body.size_hint(),
            State::Recorded(reader) => reader.size_hint(),
        }
    }
}

/// What is kept of a streaming body. If it belongs to the layer that keeps the body, dropping it
/// gives back what the body that goes out has read already: no attempt follows.
pub struct SavedStream<B> {
    buffer: Arc<ReplayBuffer<B>>,
    /// It belongs to the layer that keeps the body. The layers further in send again what that
    /// layer keeps.
    owns: bool,
}

impl<B> Drop for SavedStream<B> {
    fn drop(&mut self) {
        if self.owns {
            self.buffer.release();
        }
    }
}

/// A body that a layer further out keeps is not kept twice.
impl<B> RetryBody for ReplayBody<B>
where
    B: Body + Unpin,
    B::Data: Into<Bytes>,
    B::Error: Into<BoxError>,
{
    type Saved = SavedStream<B>;

    fn save(self, limit: usize) -> (Self, Option<SavedStream<B>>) {
        match self.0 {
            State::PassThrough { body, .. } => {
                let (buffer, reader) = ReplayBuffer::record(body, limit);
                (Self(State::Recorded(reader)), Some(SavedStream { buffer, owns: true }))
            }
            State::Recorded(reader) => {
                let saved = reader.share().map(|owns| SavedStream { buffer: reader.buffer(), owns });
                (Self(State::Recorded(reader)), saved)
            }
        }
    }

    fn can_replay(saved: &SavedStream<B>) -> bool {
        saved.buffer.is_whole()
    }

    fn is_waiting(saved: &SavedStream<B>) -> Option<bool> {
        Some(saved.buffer.is_waiting())
    }

    fn replay(mut saved: SavedStream<B>, last: bool) -> Option<(Self, Option<SavedStream<B>>)> {
        let reader = ReplayBuffer::take_over(&saved.buffer, last && saved.owns)?;
        // No layer keeps the body now, unless a layer further in saves it before it is read.
        saved.owns &= !last;
        Some((Self(State::Recorded(reader)), Some(saved)))
    }
}

impl<B> fmt::Debug for ReplayBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplayBody")
            .field("kept", &matches!(self.0, State::Recorded(_)))
            .finish_non_exhaustive()
    }
}

impl<B> fmt::Debug for SavedStream<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Replay")
    }
}
