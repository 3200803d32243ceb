//! How a request is sent again.

mod grpc;
mod http;
mod info;
mod marker;
mod redirect;
#[cfg(feature = "reqwest")]
mod reqwest;
mod safety;

use std::borrow::Cow;

pub use self::http::{SavedHttp, remove_marker};
pub use self::info::{Deadline, Mark, Notes, RequestInfo};
pub use self::marker::Attempt;
pub(crate) use self::marker::{Coverage, OuterMark};
pub(crate) use self::redirect::verdict_before_redirect;
pub(crate) use self::safety::ResendAfter;
pub use self::safety::{NonIdempotent, RetrySafety};

/// A request that knows how it is sent again.
///
/// It is implemented for `http::Request` over any [`RetryBody`](crate::RetryBody), for
/// `reqwest::Request` (feature `reqwest`), and for strings, numbers and the like. A request that is
/// `Clone` can also be sent again with [`clone_requests`](crate::JitterRetryLayer::clone_requests),
/// which needs its [`RequestInfo`] only.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not say how it is sent again",
    note = "an `http::Request<B>` is sent again if its body `B` implements `RetryBody`",
    note = "if the request is `Clone`, call `.clone_requests()` on the layer: its method, headers and extensions still decide whether it is sent again",
    note = "for a request type of your own, also write `impl RequestInfo for YourRequest {{}}`"
)]
pub trait RetryRequest: RequestInfo + Sized {
    /// What is kept so that the request can be sent again.
    type Saved;

    /// The request once more, by reference: for [`TowerPolicy`](crate::TowerPolicy), which gets no
    /// more than that. At most `limit` bytes of its body may be copied. **Default**: not possible.
    fn duplicate(&self, limit: usize) -> Option<Self> {
        let _ = limit;
        None
    }

    /// The request to be sent now, and what is needed to send it again. `None`: it goes out once, as it came.
    ///
    /// At most `limit` bytes of its body may be copied or kept.
    fn save(self, limit: usize) -> (Self, Option<Self::Saved>);

    /// Whether [`again`](Self::again) will succeed. It is asked before what the last attempt came to is given up.
    ///
    /// **Default**: always.
    fn usable(saved: &Self::Saved) -> bool {
        let _ = saved;
        true
    }

    /// Whether the request's body waits for its source; see
    /// [`RetryBody::waits`](crate::RetryBody::waits). It is asked at each poll of an attempt.
    /// **Default**: not known.
    #[inline]
    fn waits(saved: &Self::Saved) -> Option<bool> {
        let _ = saved;
        None
    }

    /// The request's [`RequestInfo::url`], of what is kept of it. **Default**: not known.
    fn url_of(saved: &Self::Saved) -> Option<Cow<'_, str>> {
        let _ = saved;
        None
    }

    /// The request for another attempt, and what is kept of it: what is needed for one more
    /// attempt, unless this is the last, and for [`waits`](Self::waits). `None`: it cannot be sent
    /// again, and what the last attempt came to is the caller's.
    fn again(saved: Self::Saved, attempt: Attempt, last: bool) -> Option<(Self, Option<Self::Saved>)>;
}

/// The strategy by which a layer sends requests again.
pub trait Resend<Req> {
    /// What is kept so that a request can be sent again.
    type Saved;

    /// See [`RetryRequest::duplicate`]. **Default**: not possible.
    fn duplicate(&self, request: &Req, limit: usize) -> Option<Req> {
        let _ = (request, limit);
        None
    }

    /// See [`RetryRequest::save`].
    fn save(&self, request: Req, limit: usize) -> (Req, Option<Self::Saved>);

    /// See [`RetryRequest::usable`].
    fn usable(&self, saved: &Self::Saved) -> bool;

    /// See [`RetryRequest::waits`]. **Default**: not known.
    #[inline]
    fn waits(&self, saved: &Self::Saved) -> Option<bool> {
        let _ = saved;
        None
    }

    /// See [`RetryRequest::url_of`].
    fn url_of<'s>(&self, saved: &'s Self::Saved) -> Option<Cow<'s, str>>;

    /// See [`RetryRequest::again`].
    fn again(&self, saved: Self::Saved, attempt: Attempt, last: bool) -> Option<(Req, Option<Self::Saved>)>;
}

/// Sends a request again as its [`RetryRequest`] says. The default.
#[derive(Clone, Copy, Debug, Default)]
pub struct ByTrait;

impl<Req: RetryRequest> Resend<Req> for ByTrait {
    type Saved = Req::Saved;

    fn duplicate(&self, request: &Req, limit: usize) -> Option<Req> {
        request.duplicate(limit)
    }

    #[inline]
    fn save(&self, request: Req, limit: usize) -> (Req, Option<Req::Saved>) {
        request.save(limit)
    }

    #[inline]
    fn usable(&self, saved: &Req::Saved) -> bool {
        Req::usable(saved)
    }

    #[inline]
    fn waits(&self, saved: &Req::Saved) -> Option<bool> {
        Req::waits(saved)
    }

    fn url_of<'s>(&self, saved: &'s Req::Saved) -> Option<Cow<'s, str>> {
        Req::url_of(saved)
    }

    #[inline]
    fn again(&self, saved: Req::Saved, attempt: Attempt, last: bool) -> Option<(Req, Option<Req::Saved>)> {
        Req::again(saved, attempt, last)
    }
}

/// Sends a clone of the request again. Its [`RequestInfo`] counts as it does without.
#[derive(Clone, Copy, Debug, Default)]
pub struct CloneRequests;

impl<Req: RequestInfo + Clone> Resend<Req> for CloneRequests {
    type Saved = Req;

    fn duplicate(&self, request: &Req, _: usize) -> Option<Req> {
        Some(request.clone())
    }

    #[inline]
    fn save(&self, request: Req, _: usize) -> (Req, Option<Req>) {
        let saved = request.clone();
        (request, Some(saved))
    }

    #[inline]
    fn usable(&self, _: &Req) -> bool {
        true
    }

    fn url_of<'s>(&self, saved: &'s Req) -> Option<Cow<'s, str>> {
        saved.url()
    }

    #[inline]
    fn again(&self, saved: Req, _: Attempt, last: bool) -> Option<(Req, Option<Req>)> {
        if last { Some((saved, None)) } else { Some((saved.clone(), Some(saved))) }
    }
}

macro_rules! cloned {
    ([$($generics:tt)*] $request:ty) => {
        impl<$($generics)*> RetryRequest for $request {
            type Saved = Self;

            fn duplicate(&self, limit: usize) -> Option<Self> {
                CloneRequests.duplicate(self, limit)
            }

            #[inline]
            fn save(self, limit: usize) -> (Self, Option<Self>) {
                CloneRequests.save(self, limit)
            }

            fn url_of(saved: &Self) -> Option<Cow<'_, str>> {
                saved.url()
            }

            #[inline]
            fn again(saved: Self, attempt: Attempt, last: bool) -> Option<(Self, Option<Self>)> {
                CloneRequests.again(saved, attempt, last)
            }
        }
    };
}

macro_rules! plain {
    ($($request:ty),+ $(,)?) => {
        $(
            impl RequestInfo for $request {}
            impl RequestInfo for Vec<$request> {}
            cloned!([] $request);
            cloned!([] Vec<$request>);
        )+
    };
}

plain!((), bool, char, u8, u16, u32, u64, u128, usize);
plain!(i8, i16, i32, i64, i128, isize, f32, f64);
plain!(String, &'static str, bytes::Bytes);
cloned!([T: RequestInfo + Clone] Option<T>);
