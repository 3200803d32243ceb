//! How a request is sent again.

mod attempt;
mod grpc;
mod http;
#[cfg(feature = "reqwest")]
mod reqwest;
mod safety;

use std::time::Duration;

use ::http::HeaderName;

pub use self::attempt::Attempt;
pub(crate) use self::attempt::{Coverage, Outer};
pub use self::http::{SavedHttp, remove_marker};
pub(crate) use self::safety::ResendAfter;
pub use self::safety::{NonIdempotent, RetrySafety};
use crate::deadline::Deadline;

/// What is written down on a request for the retry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Notes {
    /// The user's word on this request, which goes before the policy's.
    pub safety: Option<RetrySafety>,
    /// Until when it must be done.
    pub deadline: Option<Deadline>,
    /// The mark of a layer further out, which sends it again.
    pub attempt: Option<Attempt>,
}

/// What is written on a request right before it is sent.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Mark<'a> {
    /// The number of the attempt.
    pub attempt: Attempt,
    /// The time that is left, if there is a deadline.
    pub remaining: Option<Duration>,
    /// Whether the number is to be written down at all.
    pub marker: bool,
    /// The header that says it, if there is to be one.
    pub header: Option<&'a HeaderName>,
}

/// A request that knows how it is sent again.
///
/// It is implemented for `http::Request` over any [`RetryBody`](crate::RetryBody), for `reqwest::Request` (feature `reqwest`), and for strings, numbers
/// and the like. For a request of your own that is `Clone`, use
/// [`clone_requests`](crate::JitterRetryLayer::clone_requests).
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not say how it is sent again",
    note = "if it is `Clone`, call `.clone_requests()` on the layer",
    note = "an `http::Request<B>` can be sent again if its body `B` implements `RetryBody`"
)]
pub trait RetryRequest: Sized {
    /// What is kept so that the request can be sent again.
    type Saved;

    /// Whether sending the request twice has the effect of sending it once, whatever its headers say.
    fn is_idempotent(&self) -> bool;

    /// Whether the request carries an idempotency key, by which a server recognizes a request that it has seen before.
    /// [`RetrySafety::ByMethod`] ignores it. **Default**: no.
    fn has_idempotency_key(&self) -> bool {
        false
    }

    /// What is written down on the request for the retry. It may be taken off to be read, and is put back. **Default**: nothing.
    fn notes(&mut self) -> Notes {
        Notes::default()
    }

    /// The method of gRPC that the request calls, `/package.Service/Method`, to be looked up among the policy's
    /// [`idempotent_methods`](crate::RetryPolicyBuilder::idempotent_methods). **Default**: none.
    fn grpc_method(&self) -> Option<&str> {
        None
    }

    /// Writes the number of the attempt and the time that is left on the request, right before it is sent. It is asked only for requests
    /// that can be sent again. **Default**: does nothing.
    fn mark(&mut self, mark: Mark<'_>) {
        let _ = mark;
    }

    /// Removes the marks of a layer further out, `header` among them: the policy's
    /// [`marker_header`](crate::RetryPolicyBuilder::marker_header). **Default**: does nothing.
    fn unmark(&mut self, header: Option<&HeaderName>) {
        let _ = header;
    }

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

    /// The request for another attempt, and what is kept of it: what is needed for one more
    /// attempt, unless this is the last, and for [`waits`](Self::waits). `None`: it cannot be sent
    /// again, and what the last attempt came to is the caller's.
    fn again(saved: Self::Saved, attempt: Attempt, last: bool) -> Option<(Self, Option<Self::Saved>)>;
}

/// The strategy by which a layer sends requests again.
pub trait Resend<Req> {
    /// What is kept so that a request can be sent again.
    type Saved;

    /// See [`RetryRequest::is_idempotent`].
    fn is_idempotent(&self, request: &Req) -> bool;

    /// See [`RetryRequest::has_idempotency_key`]. **Default**: no.
    fn has_idempotency_key(&self, request: &Req) -> bool {
        let _ = request;
        false
    }

    /// See [`RetryRequest::notes`]. **Default**: nothing.
    fn notes(&self, request: &mut Req) -> Notes {
        let _ = request;
        Notes::default()
    }

    /// See [`RetryRequest::grpc_method`]. **Default**: none.
    fn grpc_method<'r>(&self, request: &'r Req) -> Option<&'r str> {
        let _ = request;
        None
    }

    /// See [`RetryRequest::mark`]. **Default**: does nothing.
    fn mark(&self, request: &mut Req, mark: Mark<'_>) {
        let _ = (request, mark);
    }

    /// See [`RetryRequest::unmark`]. **Default**: does nothing.
    fn unmark(&self, request: &mut Req, header: Option<&HeaderName>) {
        let _ = (request, header);
    }

    /// See [`RetryRequest::duplicate`]. **Default**: it cannot be had so.
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

    /// See [`RetryRequest::again`].
    fn again(&self, saved: Self::Saved, attempt: Attempt, last: bool) -> Option<(Req, Option<Self::Saved>)>;
}

/// Sends a request again as its [`RetryRequest`] says. The default.
#[derive(Clone, Copy, Debug, Default)]
pub struct ByTrait;

impl<Req: RetryRequest> Resend<Req> for ByTrait {
    type Saved = Req::Saved;

    #[inline]
    fn is_idempotent(&self, request: &Req) -> bool {
        request.is_idempotent()
    }

    #[inline]
    fn has_idempotency_key(&self, request: &Req) -> bool {
        request.has_idempotency_key()
    }

    #[inline]
    fn notes(&self, request: &mut Req) -> Notes {
        request.notes()
    }

    #[inline]
    fn grpc_method<'r>(&self, request: &'r Req) -> Option<&'r str> {
        request.grpc_method()
    }

    #[inline]
    fn mark(&self, request: &mut Req, mark: Mark<'_>) {
        request.mark(mark);
    }

    #[inline]
    fn unmark(&self, request: &mut Req, header: Option<&HeaderName>) {
        request.unmark(header);
    }

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

    #[inline]
    fn again(&self, saved: Req::Saved, attempt: Attempt, last: bool) -> Option<(Req, Option<Req::Saved>)> {
        Req::again(saved, attempt, last)
    }
}

/// Sends a clone of the request again and takes every request for idempotent.
#[derive(Clone, Copy, Debug, Default)]
pub struct CloneRequests;

impl<Req: Clone> Resend<Req> for CloneRequests {
    type Saved = Req;

    #[inline]
    fn is_idempotent(&self, _: &Req) -> bool {
        true
    }

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

    #[inline]
    fn again(&self, saved: Req, _: Attempt, last: bool) -> Option<(Req, Option<Req>)> {
        if last { Some((saved, None)) } else { Some((saved.clone(), Some(saved))) }
    }
}

macro_rules! plain {
    ($([$($generics:tt)*] $request:ty),+ $(,)?) => {
        $(
            impl<$($generics)*> RetryRequest for $request {
                type Saved = Self;

                #[inline]
                fn is_idempotent(&self) -> bool {
                    CloneRequests.is_idempotent(self)
                }

                fn duplicate(&self, limit: usize) -> Option<Self> {
                    CloneRequests.duplicate(self, limit)
                }

                #[inline]
                fn save(self, limit: usize) -> (Self, Option<Self>) {
                    CloneRequests.save(self, limit)
                }

                #[inline]
                fn again(saved: Self, attempt: Attempt, last: bool) -> Option<(Self, Option<Self>)> {
                    CloneRequests.again(saved, attempt, last)
                }
            }
        )+
    };
}

plain!([] (), [] bool, [] char, [] u8, [] u16, [] u32, [] u64, [] u128, [] usize);
plain!([] i8, [] i16, [] i32, [] i64, [] i128, [] isize, [] f32, [] f64);
plain!([] String, [] &'static str, [] bytes::Bytes, [T: Clone] Vec<T>, [T: Clone] Option<T>);
