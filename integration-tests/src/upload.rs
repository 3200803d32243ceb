//! Request bodies that send some bytes and then wait.

use bytes::Bytes;
use http::Request;
use http_body::Frame;
use http_body_util::StreamBody;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// A body whose frames come from a channel.
pub type Frames<E> = StreamBody<ReceiverStream<Result<Frame<Bytes>, E>>>;

/// Returns a body that begins with "four" and waits until its sender sends more or is dropped.
///
/// # Panics
///
/// Never: the channel has room for the first frame.
pub async fn upload<E>() -> (mpsc::Sender<Result<Frame<Bytes>, E>>, Frames<E>) {
    let (sender, frames) = mpsc::channel(1);
    let first_frame = Ok(Frame::data(Bytes::from_static(b"four")));
    assert!(sender.send(first_frame).await.is_ok(), "the receiver exists");
    (sender, StreamBody::new(ReceiverStream::new(frames)))
}

/// Returns a PUT request.
///
/// # Panics
///
/// Panics if the URL is invalid.
pub fn put<B>(url: &str, body: B) -> Request<B> {
    Request::put(url).body(body).expect("the URL is valid")
}
