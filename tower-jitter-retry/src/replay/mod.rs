//! Request bodies that can be sent again.
//!
//! A body in memory is cloned if its clones share the data, and copied up to a limit if they do
//! not. A stream can be read only once: [`ReplayBody`] records what the first attempt reads, while
//! it reads, up to the same limit.
//!
//! | item | use |
//! |---|---|
//! | [`RetryBody`] | a body that can be sent again; implement it for your own body type |
//! | [`ReplayBody`] | makes a streaming body one that can be sent again ([`SavedStream`]) |
//! | [`ReplayError`] | why a `ReplayBody` fails although the body in it does not |
//!
//! With the features `axum`, `reqwest` and `tonic`, the bodies of these crates can be sent again
//! (`SavedBody`).

mod body;
mod buffer;
mod error;
mod recorded;
#[cfg(all(test, not(loom_models)))]
mod tests;

use std::any::TypeId;

use bytes::{Buf, Bytes};
use http_body_util::{Empty, Full};

pub use body::{ReplayBody, SavedStream};
pub use error::ReplayError;

/// A body that knows how it is sent again.
///
/// A body that cannot be goes out once, as it came.
#[diagnostic::on_unimplemented(
    message = "the body `{Self}` does not say how it is sent again",
    note = "it is implemented for `()`, strings, `Bytes`, `Full` and `Empty`, and behind this crate's features `tonic`, `axum` and `reqwest` for the bodies of these crates",
    note = "wrap any other that streams: `ReplayBody::new(body)`",
    note = "if the body is `Clone`, `.clone_requests()` on the layer clones the request with it; its method, headers and extensions still decide whether it is sent again"
)]
pub trait RetryBody: Sized {
    /// What is kept so that the body can be sent again.
    type Saved;

    /// The body to be sent now, and what is needed to send it again. `None`: it goes out once, as
    /// it came.
    ///
    /// At most `limit` bytes may be copied or kept. Data that is shared with the body that goes out
    /// does not count.
    fn save(self, limit: usize) -> (Self, Option<Self::Saved>);

    /// Whether [`replay`](Self::replay) will succeed.
    ///
    /// **Default**: always.
    fn can_replay(saved: &Self::Saved) -> bool {
        let _ = saved;
        true
    }

    /// The body once more, by reference, if that copies at most `limit` bytes. **Default**: not
    /// possible.
    fn duplicate(&self, limit: usize) -> Option<Self> {
        let _ = limit;
        None
    }

    /// Whether the body that goes out waits for its source, so that a timeout says nothing about
    /// the server; see [`upload`](tower_fault_classify::upload). `None`: that is not known, as of a
    /// body in memory.
    ///
    /// **Default**: not known.
    #[inline]
    fn is_waiting(saved: &Self::Saved) -> Option<bool> {
        let _ = saved;
        None
    }

    /// The body for another attempt, and what is kept of it: what is needed for one more attempt,
    /// unless this is the last, and for [`is_waiting`](Self::is_waiting). `None`: it cannot be sent again.
    fn replay(saved: Self::Saved, last: bool) -> Option<(Self, Option<Self::Saved>)>;
}

/// A body in memory. `$copied` is the number of bytes that its clone copies.
macro_rules! in_memory {
    ($([$($generics:tt)*] $body:ty, $copied:expr;)+) => {
        $(
            impl<$($generics)*> RetryBody for $body {
                type Saved = Self;

                fn save(self, limit: usize) -> (Self, Option<Self>) {
                    let saved = self.duplicate(limit);
                    (self, saved)
                }

                fn duplicate(&self, limit: usize) -> Option<Self> {
                    let copied: fn(&Self) -> usize = $copied;
                    (copied(self) <= limit).then(|| self.clone())
                }

                fn replay(saved: Self, last: bool) -> Option<(Self, Option<Self>)> {
                    let more = (!last).then(|| saved.clone());
                    Some((saved, more))
                }
            }
        )+
    };
}

in_memory! {
    [] (), |()| 0;
    [] &'static str, |_| 0;
    [] &'static [u8], |_| 0;
    [] Bytes, |_| 0;
    [D] Empty<D>, |_| 0;
    [] String, String::len;
    [] Vec<u8>, Vec::len;
    [D: Buf + Clone + 'static] Full<D>, copied_with;
}

/// The bytes that a clone of the body copies: none if its data is shared between clones.
fn copied_with<D: Buf + 'static>(body: &Full<D>) -> usize {
    let shared = [TypeId::of::<Bytes>(), TypeId::of::<&'static [u8]>()];
    if shared.contains(&TypeId::of::<D>()) {
        return 0;
    }
    http_body::Body::size_hint(body).exact().and_then(|size| size.try_into().ok()).unwrap_or(usize::MAX)
}

/// What is kept of a body whose type is the client's.
#[cfg(any(feature = "axum", feature = "reqwest", feature = "tonic"))]
#[derive(Debug)]
pub struct SavedBody<B>(SavedKind<B>);

#[cfg(any(feature = "axum", feature = "reqwest", feature = "tonic"))]
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
#[cfg(any(feature = "axum", feature = "reqwest", feature = "tonic"))]
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

#[cfg(any(feature = "axum", feature = "reqwest", feature = "tonic"))]
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
