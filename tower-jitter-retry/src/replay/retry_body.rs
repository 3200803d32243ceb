//! The trait of bodies that can be sent again, and its implementations for bodies in memory.

use std::any::TypeId;

use bytes::{Buf, Bytes};
use http_body_util::{Empty, Full};

/// A body that can be sent again.
///
/// A body that cannot be sent again is sent once, unchanged.
#[diagnostic::on_unimplemented(
    message = "a retry layer cannot send the body `{Self}` again",
    note = "the bodies of axum, reqwest and tonic can be sent again with the cargo features `axum`, `reqwest` and `tonic` of `tower-jitter-retry`",
    note = "for any other body that streams, wrap it: `ReplayBody::new(body)`",
    note = "if the body is `Clone`, call `.clone_requests()` on the layer: the request's method, headers and extensions still decide whether it is sent again",
    note = "`()`, strings, `Bytes`, `Full` and `Empty` are bodies in memory, and need nothing"
)]
pub trait RetryBody: Sized {
    /// The data that is kept so that the body can be sent again.
    type Saved;

    /// Returns the data that is needed to send the body again. The body itself is sent now.
    ///
    /// At most `limit` bytes may be copied or kept. Data that is shared with the body that is sent
    /// does not count. `None`: the body is sent unchanged and only once.
    ///
    /// A streaming body may replace itself, with a body that keeps what is read from it.
    fn save(&mut self, limit: usize) -> Option<Self::Saved>;

    /// Returns whether [`replay`](Self::replay) will succeed.
    ///
    /// **Default**: `true`.
    fn can_replay(saved: &Self::Saved) -> bool {
        let _ = saved;
        true
    }

    /// Returns a copy of the body, or `None` if there is no copy within the limit.
    ///
    /// `None` means that the body cannot be copied, or that a copy would copy more than `limit`
    /// bytes. **Default**: `None`.
    fn duplicate(&self, limit: usize) -> Option<Self> {
        let _ = limit;
        None
    }

    /// Returns whether the body that is being sent waits for its source.
    ///
    /// While it waits, a timeout says nothing about the server; see
    /// [`upload`](tower_fault_classify::upload). `None` means that it is not known, as for a body
    /// in memory. **Default**: `None`.
    #[inline]
    fn is_waiting(saved: &Self::Saved) -> Option<bool> {
        let _ = saved;
        None
    }

    /// Returns the body for another attempt, and the data to keep.
    ///
    /// `last` is true for the last attempt that is allowed. The kept data is needed for one more
    /// attempt, unless this one is the last, and for [`is_waiting`](Self::is_waiting). `None` means
    /// that the body cannot be sent again.
    fn replay(saved: Self::Saved, last: bool) -> Option<(Self, Option<Self::Saved>)>;
}

/// Implements [`RetryBody`] for a body in memory. `$copied` returns the number of bytes that a
/// clone of the body copies.
macro_rules! in_memory {
    ($([$($generics:tt)*] $body:ty, $copied:expr;)+) => {
        $(
            impl<$($generics)*> RetryBody for $body {
                type Saved = Self;

                #[inline]
                fn save(&mut self, limit: usize) -> Option<Self> {
                    self.duplicate(limit)
                }

                #[inline]
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

/// Returns the number of bytes that a clone of the body copies: none if the clones share the data.
fn copied_with<D: Buf + 'static>(body: &Full<D>) -> usize {
    let shared = [TypeId::of::<Bytes>(), TypeId::of::<&'static [u8]>()];
    if shared.contains(&TypeId::of::<D>()) {
        return 0;
    }
    http_body::Body::size_hint(body).exact().and_then(|size| size.try_into().ok()).unwrap_or(usize::MAX)
}
