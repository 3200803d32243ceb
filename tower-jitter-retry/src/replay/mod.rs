//! Bodies that can be sent twice.
//!
//! What is in memory is cloned. A stream can be read once only, so that what the first attempt reads is kept while it reads, up to a limit:
//! [`ReplayBody`].

mod body;
mod error;
mod prefix;
mod tape;
#[cfg(all(test, not(loom_models)))]
mod tests;

use bytes::Bytes;
use http_body_util::{Empty, Full};

pub use body::{Replay, ReplayBody};
pub use error::ReplayError;

/// A body that knows how it is sent again.
///
/// A body that cannot be goes out once, as it came.
#[diagnostic::on_unimplemented(
    message = "the body `{Self}` does not say how it is sent again",
    note = "it is implemented for `()`, strings, `Bytes`, `Full` and `Empty`, and behind features for the bodies of tonic, axum and reqwest",
    note = "wrap any other that streams: `ReplayBody::new(body)`"
)]
pub trait RetryBody: Sized {
    /// What is kept so that the body can be sent again.
    type Saved;

    /// The body to be sent now, and what is needed to send it again. Up to `limit` bytes of a stream may be kept; what is in memory
    /// as a whole already is not counted.
    fn save(self, limit: usize) -> (Self, Option<Self::Saved>);

    /// Whether [`again`](Self::again) will succeed.
    ///
    /// **Default**: always.
    fn usable(saved: &Self::Saved) -> bool {
        let _ = saved;
        true
    }

    /// The body once more, by reference. **Default**: it cannot be had so.
    fn duplicate(&self) -> Option<Self> {
        None
    }

    /// The body for another attempt and, unless that is the last, what is needed for one more. `None`: it cannot be sent again.
    fn again(saved: Self::Saved, last: bool) -> Option<(Self, Option<Self::Saved>)>;
}

macro_rules! in_memory {
    ($([$($generics:tt)*] $body:ty),+ $(,)?) => {
        $(
            impl<$($generics)*> RetryBody for $body {
                type Saved = Self;

                fn save(self, _: usize) -> (Self, Option<Self>) {
                    let saved = self.clone();
                    (self, Some(saved))
                }

                fn duplicate(&self) -> Option<Self> {
                    Some(self.clone())
                }

                fn again(saved: Self, last: bool) -> Option<(Self, Option<Self>)> {
                    let more = (!last).then(|| saved.clone());
                    Some((saved, more))
                }
            }
        )+
    };
}

in_memory!([] (), [] String, [] &'static str, [] Vec<u8>, [] &'static [u8], [] Bytes);
in_memory!([D] Empty<D>, [D: Clone] Full<D>);

/// What is kept of a body whose type its client fixes.
#[cfg(any(feature = "axum", feature = "reqwest", feature = "tonic"))]
#[derive(Debug)]
pub struct SavedBody<B>(Option<Replay<B>>);

/// Such a body is replaced by one of the same type around a [`ReplayBody`]. One that is empty costs nothing.
#[cfg(any(feature = "axum", feature = "reqwest", feature = "tonic"))]
macro_rules! boxed {
    ($($(#[$feature:meta])* $body:ty, $wrap:path, $empty:expr;)+) => {
        $(
            $(#[$feature])*
            impl RetryBody for $body {
                type Saved = SavedBody<Self>;

                fn save(self, limit: usize) -> (Self, Option<SavedBody<Self>>) {
                    if http_body::Body::is_end_stream(&self) {
                        return (self, Some(SavedBody(None)));
                    }
                    let (body, saved) = ReplayBody::new(self).save(limit);
                    ($wrap(body), saved.map(|saved| SavedBody(Some(saved))))
                }

                fn duplicate(&self) -> Option<Self> {
                    http_body::Body::is_end_stream(self).then(|| $empty)
                }

                fn usable(saved: &SavedBody<Self>) -> bool {
                    saved.0.as_ref().is_none_or(ReplayBody::usable)
                }

                fn again(saved: SavedBody<Self>, last: bool) -> Option<(Self, Option<SavedBody<Self>>)> {
                    let Some(replay) = saved.0 else { return Some(($empty, (!last).then_some(SavedBody(None)))) };
                    let (body, more) = ReplayBody::again(replay, last)?;
                    Some(($wrap(body), more.map(|more| SavedBody(Some(more)))))
                }
            }
        )+
    };
}

#[cfg(any(feature = "axum", feature = "reqwest", feature = "tonic"))]
boxed! {
    #[cfg(feature = "axum")]
    axum_core::body::Body, axum_core::body::Body::new, axum_core::body::Body::empty();
    #[cfg(feature = "reqwest")]
    reqwest::Body, reqwest::Body::wrap, reqwest::Body::default();
    #[cfg(feature = "tonic")]
    tonic::body::Body, tonic::body::Body::new, tonic::body::Body::empty();
}
