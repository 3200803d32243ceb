//! A streaming body that can be sent again.

use std::fmt;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::buffer::{ReadStep, Reader, ReplayBuffer};
use super::error::{BoxError, upload_error};
use super::retry_body::RetryBody;

/// A streaming body that can be sent again, as long as the data read from it stays within a limit.
///
/// The limit is [`replay_limit`](crate::RetryPolicyBuilder::replay_limit), 64 KiB by default.
///
/// | situation | behaviour |
/// |---|---|
/// | the first attempt reads the body | the data is passed on immediately, and a copy of it is kept, up to the limit |
/// | a further attempt | gets the kept data, then the rest of the body, which is kept in turn; trailers included |
/// | a further attempt starts while an earlier attempt still sends the body | the further attempt takes the body over, and the earlier attempt fails ([`ReplayError`](crate::replay::ReplayError)) |
/// | the last attempt sends the body, or the caller has the response | no more data is kept, and the kept data is freed as it is sent |
/// | the body exceeds the limit | the rest passes unchanged, nothing is kept, and the request is not sent again |
/// | the body fails | the request is not sent again, and the caller gets the attempt's result; the error is an [`UploadError`], which does not count against the server and is not retried |
///
/// While such a body waits for its source, a timeout or a lost connection says nothing about the
/// server. The attempt is not retried, and the layers below classify it as neutral; see
/// [`upload`](tower_fault_classify::upload).
///
/// - The size hint of the body does not decide whether the body is kept, because a body of any size
///   may fail after its first bytes.
/// - The server receives the whole body or a truncated one, never a wrong one.
/// - The kept data is sent in pieces of its own, regardless of the frames in which it was read.
/// - The body must be `Unpin`. Use `Box::pin` for one that is not.
/// - A request whose body is kept costs one allocation, and memory for the kept data: at most the
///   limit.
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
    /// The body is not kept. `buffer` has the data that was kept of it before, if any.
    PassThrough { body: B, buffer: Option<Arc<ReplayBuffer<B>>> },
    /// The body is kept, and another attempt may take it over.
    Recorded(Reader<B>),
}

impl<B> ReplayBody<B> {
    /// Wraps a body.
    ///
    /// It passes through unchanged until a [`JitterRetry`](crate::JitterRetry) keeps it.
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

/// The data of a streaming body that a retry layer keeps.
///
/// Of nested retry layers, one owns the data. When the owner drops this value, no further attempt
/// follows, and the data that the running attempt has already read is freed. In another layer,
/// dropping the value frees nothing.
pub struct SavedStream<B> {
    buffer: Arc<ReplayBuffer<B>>,
    /// Whether the layer that holds this value owns the data. The other layers replay the data that
    /// the owner keeps.
    owns: bool,
}

impl<B> Drop for SavedStream<B> {
    fn drop(&mut self) {
        if self.owns {
            self.buffer.release();
        }
    }
}

/// A body that an outer layer keeps is not kept twice.
impl<B> RetryBody for ReplayBody<B>
where
    B: Body + Unpin,
    B::Data: Into<Bytes>,
    B::Error: Into<BoxError>,
{
    type Saved = SavedStream<B>;

    fn save(&mut self, limit: usize) -> Option<SavedStream<B>> {
        if let State::Recorded(reader) = &self.0 {
            return reader.share().map(|owns| SavedStream { buffer: reader.buffer(), owns });
        }
        let (buffer, reader) = ReplayBuffer::record(limit);
        if let State::PassThrough { body, .. } = mem::replace(&mut self.0, State::Recorded(reader)) {
            buffer.set_source(body);
        }
        Some(SavedStream { buffer, owns: true })
    }

    fn can_replay(saved: &SavedStream<B>) -> bool {
        saved.buffer.is_whole()
    }

    fn is_waiting(saved: &SavedStream<B>) -> Option<bool> {
        Some(saved.buffer.is_waiting())
    }

    fn replay(mut saved: SavedStream<B>, last: bool) -> Option<(Self, Option<SavedStream<B>>)> {
        let reader = ReplayBuffer::take_over(&saved.buffer, last && saved.owns)?;
        // No layer keeps the body now, unless an inner layer saves it before it is read.
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
        f.write_str("SavedStream")
    }
}
