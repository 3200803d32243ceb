//! Bodies that can be sent twice.

use bytes::Bytes;
use http_body_util::{Empty, Full};

/// A body that knows how it is sent again.
///
/// A body that cannot be goes out once, as it came.
#[diagnostic::on_unimplemented(
    message = "the body `{Self}` does not say how it is sent again",
    note = "it is implemented for `()`, strings, `Bytes`, `Full` and `Empty`, and behind features for the bodies of tonic and axum"
)]
pub trait RetryBody: Sized {
    /// What is kept so that the body can be sent again.
    type Saved;

    /// The body to be sent now, and what is needed to send it again. Up to `limit` bytes of a stream may be kept; what is in memory
    /// as a whole already is not counted.
    fn save(self, limit: usize) -> (Self, Option<Self::Saved>);

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

/// That a body was empty.
#[cfg(any(feature = "axum", feature = "tonic"))]
#[derive(Clone, Copy, Debug)]
pub struct WasEmpty(());

/// A boxed body is read by nobody but its client: it is sent again if there is nothing to read.
#[cfg(any(feature = "axum", feature = "tonic"))]
macro_rules! boxed {
    ($($(#[$feature:meta])* $body:ty),+ $(,)?) => {
        $(
            $(#[$feature])*
            impl RetryBody for $body {
                type Saved = WasEmpty;

                fn save(self, _: usize) -> (Self, Option<WasEmpty>) {
                    let empty = http_body::Body::is_end_stream(&self).then_some(WasEmpty(()));
                    (self, empty)
                }

                fn again(empty: WasEmpty, last: bool) -> Option<(Self, Option<WasEmpty>)> {
                    Some((Self::empty(), (!last).then_some(empty)))
                }
            }
        )+
    };
}

#[cfg(any(feature = "axum", feature = "tonic"))]
boxed! {
    #[cfg(feature = "axum")]
    axum_core::body::Body,
    #[cfg(feature = "tonic")]
    tonic::body::Body,
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_memory_is_sent_again_whole() {
        let (body, saved) = Full::new(Bytes::from_static(b"text")).save(0);
        let (second, saved) = Full::again(saved.unwrap(), false).unwrap();
        let (third, nothing) = Full::again(saved.unwrap(), true).unwrap();
        assert!(nothing.is_none());
        for again in [second, third] {
            assert_eq!(format!("{body:?}"), format!("{again:?}"));
        }
    }
}
