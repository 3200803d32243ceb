//! How a body is sent again, and the bodies in memory.

use std::any::TypeId;

use bytes::{Buf, Bytes};
use http_body_util::{Empty, Full};

/// A body that knows how it is sent again.
///
/// A body that cannot be goes out once, as it came.
#[diagnostic::on_unimplemented(
    message = "a retry layer cannot send the body `{Self}` again",
    note = "the bodies of axum, reqwest and tonic can be sent again with the cargo features `axum`, `reqwest` and `tonic` of `tower-jitter-retry`",
    note = "for any other body that streams, wrap it: `ReplayBody::new(body)`",
    note = "if the body is `Clone`, call `.clone_requests()` on the layer: its method, headers and extensions still decide whether it is sent again",
    note = "`()`, strings, `Bytes`, `Full` and `Empty` are bodies in memory, and need nothing"
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
