//! Requests: which ones may be sent again, how they are copied, and the marks that retry layers
//! write on them.
//!
//! | item | use |
//! |---|---|
//! | [`RequestInfo`] | what a layer reads from a request and writes on it ([`Notes`], [`Mark`]); implement it for your own request type |
//! | [`RetrySafety`], [`NonIdempotent`] | the faults after which a request may be sent again |
//! | [`Deadline`] | the time limit of one request |
//! | [`RequestExt`] | sets the two above for one request, also for a `reqwest::Request` |
//! | [`Attempt`], [`remove_marker`] | the mark by which nested retry layers recognize each other |
//! | [`RetryRequest`] | a request that can be sent again; implemented for `http::Request` ([`SavedHttp`]) and `reqwest::Request` |
//! | [`Resend`], [`ByTrait`], [`CloneRequests`] | how a layer copies requests |

mod grpc;
mod head;
mod http;
mod info;
mod mark;
mod redirect;
#[cfg(feature = "reqwest")]
mod reqwest;
mod safety;

use std::borrow::Cow;

pub use self::http::{SavedHttp, remove_marker};
pub use self::info::{Deadline, Mark, Notes, RequestInfo};
pub(crate) use self::redirect::is_same_resource;
pub use self::safety::{Attempt, NonIdempotent, RetrySafety};
pub(crate) use self::safety::{Coverage, OuterMark, ResendAfter};
pub use tower_fault_classify::request::RequestExt;

/// A request that can be sent again.
///
/// It is implemented for `http::Request` over any [`RetryBody`](crate::replay::RetryBody), for
/// `reqwest::Request` (feature `reqwest`), for the plain types that [`RequestInfo`] lists, and for
/// an `Option` of any `Clone` type with a [`RequestInfo`]. A request that is `Clone` does not need
/// this trait: with [`clone_requests`](crate::JitterRetryLayer::clone_requests), a layer needs only
/// the request's [`RequestInfo`].
///
/// The layer calls the methods in this order: [`save`](Self::save) before the first attempt,
/// [`can_replay`](Self::can_replay) after a failed attempt, and [`replay`](Self::replay) for the
/// next attempt.
#[diagnostic::on_unimplemented(
    message = "a retry layer cannot send the request `{Self}` again",
    note = "for a type of your own that is `Clone`, write `impl RequestInfo for {Self} {{}}` and call `.clone_requests()` on the layer",
    note = "`reqwest::Request` can be sent again with the cargo feature `reqwest` of `tower-jitter-retry`",
    note = "an `http::Request<B>` can be sent again if its body `B` implements `RetryBody`"
)]
pub trait RetryRequest: RequestInfo + Sized {
    /// The data that is kept so that the request can be sent again.
    type Saved;

    /// Returns a copy of the request, or `None` if it cannot be copied.
    ///
    /// [`TowerPolicy`](crate::TowerPolicy) uses it, because it has only a reference to the request.
    /// At most `limit` bytes of the body may be copied. **Default**: `None`.
    fn duplicate(&self, limit: usize) -> Option<Self> {
        let _ = limit;
        None
    }

    /// Returns the data that is needed to send the request again. The request itself is sent now.
    ///
    /// At most `limit` bytes of the body may be copied or kept. `None`: the request is sent
    /// unchanged and only once.
    fn save(&mut self, limit: usize) -> Option<Self::Saved>;

    /// Returns whether [`replay`](Self::replay) will succeed.
    ///
    /// The layer calls it before it drops the outcome of the last attempt. **Default**: `true`.
    fn can_replay(saved: &Self::Saved) -> bool {
        let _ = saved;
        true
    }

    /// Returns whether the request's body waits for its source, or `None` if that is not known.
    ///
    /// It is called at each poll of an attempt; see
    /// [`RetryBody::is_waiting`](crate::replay::RetryBody::is_waiting). **Default**: `None`.
    #[inline]
    fn is_waiting(saved: &Self::Saved) -> Option<bool> {
        let _ = saved;
        None
    }

    /// Returns the [`RequestInfo::url`] of the saved request, or `None` if it is not known.
    ///
    /// **Default**: `None`.
    fn saved_url(saved: &Self::Saved) -> Option<Cow<'_, str>> {
        let _ = saved;
        None
    }

    /// Returns the request for another attempt, and leaves the data to keep in `saved`.
    ///
    /// `last` is true for the last attempt that is allowed. The kept data is needed for one more
    /// attempt, unless this one is the last, and for [`is_waiting`](Self::is_waiting). A `saved`
    /// that is left empty means that no further attempt can follow.
    ///
    /// `None` means that the request cannot be sent again. The caller then gets the outcome of the
    /// last attempt.
    fn replay(saved: &mut Option<Self::Saved>, attempt: Attempt, last: bool) -> Option<Self>;
}

/// How a layer copies requests: [`ByTrait`] or [`CloneRequests`].
///
/// This trait is sealed: it cannot be implemented outside of this crate.
#[diagnostic::on_unimplemented(
    message = "a retry layer with `{Self}` cannot send the request `{Req}` again",
    note = "after `.clone_requests()`, the request must implement `Clone` and `RequestInfo`",
    note = "without `.clone_requests()`, it must implement `RetryRequest`"
)]
pub trait Resend<Req>: sealed::Sealed {
    /// The data that is kept so that a request can be sent again.
    type Saved;

    /// Returns a copy of the request; see [`RetryRequest::duplicate`].
    ///
    /// **Default**: `None`.
    fn duplicate(&self, request: &Req, limit: usize) -> Option<Req> {
        let _ = (request, limit);
        None
    }

    /// Returns the data to send the request again; see [`RetryRequest::save`].
    fn save(&self, request: &mut Req, limit: usize) -> Option<Self::Saved>;

    /// Returns whether [`replay`](Self::replay) will succeed; see [`RetryRequest::can_replay`].
    fn can_replay(&self, saved: &Self::Saved) -> bool;

    /// Returns whether the request's body waits for its source; see [`RetryRequest::is_waiting`].
    ///
    /// **Default**: `None`.
    #[inline]
    fn is_waiting(&self, saved: &Self::Saved) -> Option<bool> {
        let _ = saved;
        None
    }

    /// Returns the URL of the saved request; see [`RetryRequest::saved_url`].
    fn saved_url<'s>(&self, saved: &'s Self::Saved) -> Option<Cow<'s, str>>;

    /// Returns the request for another attempt; see [`RetryRequest::replay`].
    fn replay(&self, saved: &mut Option<Self::Saved>, attempt: Attempt, last: bool) -> Option<Req>;
}

mod sealed {
    pub trait Sealed {}

    impl Sealed for super::ByTrait {}
    impl Sealed for super::CloneRequests {}
}

/// Copies a request by its [`RetryRequest`] implementation; the default of a layer.
#[derive(Clone, Copy, Debug, Default)]
pub struct ByTrait;

impl<Req: RetryRequest> Resend<Req> for ByTrait {
    type Saved = Req::Saved;

    fn duplicate(&self, request: &Req, limit: usize) -> Option<Req> {
        request.duplicate(limit)
    }

    #[inline]
    fn save(&self, request: &mut Req, limit: usize) -> Option<Req::Saved> {
        request.save(limit)
    }

    #[inline]
    fn can_replay(&self, saved: &Req::Saved) -> bool {
        Req::can_replay(saved)
    }

    #[inline]
    fn is_waiting(&self, saved: &Req::Saved) -> Option<bool> {
        Req::is_waiting(saved)
    }

    fn saved_url<'s>(&self, saved: &'s Req::Saved) -> Option<Cow<'s, str>> {
        Req::saved_url(saved)
    }

    #[inline]
    fn replay(&self, saved: &mut Option<Req::Saved>, attempt: Attempt, last: bool) -> Option<Req> {
        Req::replay(saved, attempt, last)
    }
}

/// Copies a request by its `Clone` implementation.
///
/// The request's [`RequestInfo`] has the same effect as with [`ByTrait`].
#[derive(Clone, Copy, Debug, Default)]
pub struct CloneRequests;

#[diagnostic::do_not_recommend]
impl<Req: RequestInfo + Clone> Resend<Req> for CloneRequests {
    type Saved = Req;

    fn duplicate(&self, request: &Req, _: usize) -> Option<Req> {
        Some(request.clone())
    }

    #[inline]
    fn save(&self, request: &mut Req, _: usize) -> Option<Req> {
        Some(request.clone())
    }

    #[inline]
    fn can_replay(&self, _: &Req) -> bool {
        true
    }

    fn saved_url<'s>(&self, saved: &'s Req) -> Option<Cow<'s, str>> {
        saved.url()
    }

    #[inline]
    fn replay(&self, saved: &mut Option<Req>, _: Attempt, last: bool) -> Option<Req> {
        if last { saved.take() } else { saved.clone() }
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
            fn save(&mut self, limit: usize) -> Option<Self> {
                CloneRequests.save(self, limit)
            }

            fn saved_url(saved: &Self) -> Option<Cow<'_, str>> {
                saved.url()
            }

            #[inline]
            fn replay(saved: &mut Option<Self>, attempt: Attempt, last: bool) -> Option<Self> {
                CloneRequests.replay(saved, attempt, last)
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
