//! Support for the body types of HTTP clients.

use std::mem;

use bytes::Bytes;

use super::body::{ReplayBody, SavedStream};
use super::retry_body::RetryBody;

/// The kept data of a client's own body type.
#[derive(Debug)]
pub struct SavedBody<B>(SavedKind<B>);

#[derive(Debug)]
enum SavedKind<B> {
    /// The whole body, whose data is shared with the body that is sent.
    Whole(Bytes),
    Stream(SavedStream<B>),
}

/// Implements [`RetryBody`] for a client's own body type. A body in memory keeps its kind, as far
/// as that is visible from outside. Any other body is replaced by a body of the same type around a
/// [`ReplayBody`].
///
/// - `$take` takes the data of a body in memory.
/// - `$copy` copies the data of a body in memory.
/// - `$from` creates a body in memory.
macro_rules! client_body {
    ($($(#[$feature:meta])* $body:ty, $wrap:path, $take:path, $copy:path, $from:expr;)+) => {
        $(
            $(#[$feature])*
            impl RetryBody for $body {
                type Saved = SavedBody<Self>;

                fn save(&mut self, limit: usize) -> Option<SavedBody<Self>> {
                    if let Some(data) = $take(self) {
                        *self = $from(data.clone());
                        return Some(SavedBody(SavedKind::Whole(data)));
                    }
                    let mut body = ReplayBody::new(mem::take(self));
                    let saved = body.save(limit);
                    *self = $wrap(body);
                    saved.map(|saved| SavedBody(SavedKind::Stream(saved)))
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

/// A boxed body shows only whether it is empty.
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

/// reqwest's own bodies in memory keep their kind, because reqwest clones them when it follows a
/// redirect.
#[cfg(feature = "reqwest")]
mod reqwest_body {
    use std::pin::Pin;
    use std::task::{Context, Poll, Waker};

    use bytes::Bytes;
    use http_body::Body;

    /// Takes the data without copying it: a body in memory is a single frame.
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
