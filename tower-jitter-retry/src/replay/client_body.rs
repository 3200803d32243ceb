//! The bodies of clients.

use bytes::Bytes;

use super::body::{ReplayBody, SavedStream};
use super::retry_body::RetryBody;

/// What is kept of a body whose type is the client's.
#[derive(Debug)]
pub struct SavedBody<B>(SavedKind<B>);

#[derive(Debug)]
enum SavedKind<B> {
    /// The whole body, shared with the one that goes out.
    Whole(Bytes),
    Stream(SavedStream<B>),
}

/// A body whose type is the client's. One in memory, as far as that can be seen from outside, stays
/// what it is. Any other is replaced by one of the same type around a [`ReplayBody`].
///
/// - `$take` takes the data of a body in memory.
/// - `$copy` copies the data of a body in memory.
/// - `$from` makes a body in memory.
macro_rules! client_body {
    ($($(#[$feature:meta])* $body:ty, $wrap:path, $take:path, $copy:path, $from:expr;)+) => {
        $(
            $(#[$feature])*
            impl RetryBody for $body {
                type Saved = SavedBody<Self>;

                fn save(mut self, limit: usize) -> (Self, Option<SavedBody<Self>>) {
                    if let Some(data) = $take(&mut self) {
                        return ($from(data.clone()), Some(SavedBody(SavedKind::Whole(data))));
                    }
                    let (body, saved) = ReplayBody::new(self).save(limit);
                    ($wrap(body), saved.map(|saved| SavedBody(SavedKind::Stream(saved))))
                }

                fn duplicate(&self, limit: usize) -> Option<Self> {
                    $copy(self, limit).map($from)
                }

                fn can_replay(saved: &SavedBody<Self>) -> bool {
                    match &saved.0 {
                        SavedKind::Whole(_) => true,
                        SavedKind::Stream(replay) => ReplayBody::can_replay(replay),
                    }
                }

                fn is_waiting(saved: &SavedBody<Self>) -> Option<bool> {
                    match &saved.0 {
                        SavedKind::Whole(_) => None,
                        SavedKind::Stream(replay) => ReplayBody::is_waiting(replay),
                    }
                }

                fn replay(saved: SavedBody<Self>, last: bool) -> Option<(Self, Option<SavedBody<Self>>)> {
                    match saved.0 {
                        SavedKind::Whole(data) => {
                            let more = (!last).then(|| SavedBody(SavedKind::Whole(data.clone())));
                            Some(($from(data), more))
                        }
                        SavedKind::Stream(replay) => {
                            let (body, more) = ReplayBody::replay(replay, last)?;
                            Some(($wrap(body), more.map(|more| SavedBody(SavedKind::Stream(more)))))
                        }
                    }
                }
            }
        )+
    };
}

client_body! {
    #[cfg(feature = "axum")]
    axum_core::body::Body, axum_core::body::Body::new, boxed_body::take, boxed_body::copy, axum_core::body::Body::from;
    #[cfg(feature = "reqwest")]
    reqwest::Body, reqwest::Body::wrap, reqwest_body::take, reqwest_body::copy, reqwest::Body::from;
    #[cfg(feature = "tonic")]
    tonic::body::Body, tonic::body::Body::new, boxed_body::take, boxed_body::copy, |_: Bytes| tonic::body::Body::empty();
}

/// A box shows nothing of what is in it but that it is empty.
#[cfg(any(feature = "axum", feature = "tonic"))]
mod boxed_body {
    use bytes::Bytes;
    use http_body::Body;

    pub(super) fn take(body: &mut impl Body) -> Option<Bytes> {
        copy(body, 0)
    }

    pub(super) fn copy(body: &impl Body, _: usize) -> Option<Bytes> {
        body.is_end_stream().then(Bytes::new)
    }
}

/// reqwest's own bodies in memory stay what they are: reqwest clones them when it follows a
/// redirect.
#[cfg(feature = "reqwest")]
mod reqwest_body {
    use std::pin::Pin;
    use std::task::{Context, Poll, Waker};

    use bytes::Bytes;
    use http_body::Body;

    /// Such a body is one frame, which is taken without copying it.
    pub(super) fn take(body: &mut reqwest::Body) -> Option<Bytes> {
        body.as_bytes()?;
        match Pin::new(body).poll_frame(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(None) => Some(Bytes::new()),
            Poll::Ready(Some(Ok(frame))) => frame.into_data().ok(),
            Poll::Ready(Some(Err(_))) | Poll::Pending => None,
        }
    }

    pub(super) fn copy(body: &reqwest::Body, limit: usize) -> Option<Bytes> {
        body.as_bytes().filter(|data| data.len() <= limit).map(Bytes::copy_from_slice)
    }
}
