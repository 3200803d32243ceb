//! How a request is sent again.

use http::Method;
use http::request::Parts;

use crate::replay::RetryBody;

/// Whether a request may be sent twice though the first may have been processed.
///
/// It says nothing of requests that are known not to have been processed (a refused connection, a 429): those may be sent again
/// whatever they ask for.
///
/// As an extension of an `http::Request` it is the word on that request, and goes before that of the policy:
///
/// ```
/// use tower_jitter_retry::RetrySafety;
///
/// let mut request = http::Request::post("/orders/42/confirm").body(String::new())?;
/// request.extensions_mut().insert(RetrySafety::Always);
/// # Ok::<(), http::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RetrySafety {
    /// As the request says: an HTTP request by its method (RFC 9110 §9.2.2: GET, HEAD, OPTIONS, TRACE, PUT, DELETE) or an
    /// `Idempotency-Key` header; any other request may be, since it was put behind a retry.
    #[default]
    ByRequest,
    /// It may be.
    Always,
    /// It may not be.
    Never,
}

impl RetrySafety {
    /// Whether a request that says `idempotent` of itself may be sent twice.
    pub(crate) const fn decide(self, idempotent: bool) -> bool {
        match self {
            Self::ByRequest => idempotent,
            Self::Always => true,
            Self::Never => false,
        }
    }
}

/// The number of an attempt; the first is 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Attempt(u32);

impl Attempt {
    pub(crate) const fn new(number: u32) -> Self {
        Self(number)
    }

    /// The number, from 1.
    pub const fn number(self) -> u32 {
        self.0
    }
}

/// A request that knows how it is sent again.
///
/// It is implemented for `http::Request` over any [`RetryBody`], for `reqwest::Request` (feature `reqwest`), and for strings, numbers
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

    /// Whether sending it twice is the same as once.
    fn is_idempotent(&self) -> bool;

    /// The user's word on this request, which goes before the policy's. **Default**: none.
    fn safety(&self) -> Option<RetrySafety> {
        None
    }

    /// The request to be sent now, and what is needed to send it again. `None`: it goes out once, as it came.
    ///
    /// Up to `limit` bytes of its body may be kept.
    fn save(self, limit: usize) -> (Self, Option<Self::Saved>);

    /// Whether [`again`](Self::again) will succeed. It is asked before what the last attempt came to is given up.
    ///
    /// **Default**: always.
    fn usable(saved: &Self::Saved) -> bool {
        let _ = saved;
        true
    }

    /// The request for another attempt and, unless that is the last, what is needed for one more. `None`: it cannot be sent
    /// again, and what the last attempt came to is the caller's.
    fn again(saved: Self::Saved, attempt: Attempt, last: bool) -> Option<(Self, Option<Self::Saved>)>;
}

/// The strategy by which a layer sends requests again.
pub trait Resend<Req> {
    /// What is kept so that a request can be sent again.
    type Saved;

    /// Whether sending it twice is the same as once.
    fn is_idempotent(&self, request: &Req) -> bool;

    /// See [`RetryRequest::safety`]. **Default**: none.
    fn safety(&self, request: &Req) -> Option<RetrySafety> {
        let _ = request;
        None
    }

    /// See [`RetryRequest::save`].
    fn save(&self, request: Req, limit: usize) -> (Req, Option<Self::Saved>);

    /// See [`RetryRequest::usable`].
    fn usable(&self, saved: &Self::Saved) -> bool;

    /// See [`RetryRequest::again`].
    fn again(&self, saved: Self::Saved, attempt: Attempt, last: bool) -> Option<(Req, Option<Self::Saved>)>;
}

/// Sends a request again as its [`RetryRequest`] says. The default.
#[derive(Clone, Copy, Debug, Default)]
pub struct ByTrait;

impl<Req: RetryRequest> Resend<Req> for ByTrait {
    type Saved = Req::Saved;

    fn is_idempotent(&self, request: &Req) -> bool {
        request.is_idempotent()
    }

    fn safety(&self, request: &Req) -> Option<RetrySafety> {
        request.safety()
    }

    fn save(&self, request: Req, limit: usize) -> (Req, Option<Req::Saved>) {
        request.save(limit)
    }

    fn usable(&self, saved: &Req::Saved) -> bool {
        Req::usable(saved)
    }

    fn again(&self, saved: Req::Saved, attempt: Attempt, last: bool) -> Option<(Req, Option<Req::Saved>)> {
        Req::again(saved, attempt, last)
    }
}

/// Sends a clone of the request again and takes every request for idempotent.
#[derive(Clone, Copy, Debug, Default)]
pub struct CloneRequests;

impl<Req: Clone> Resend<Req> for CloneRequests {
    type Saved = Req;

    fn is_idempotent(&self, _: &Req) -> bool {
        true
    }

    fn save(&self, request: Req, _: usize) -> (Req, Option<Req>) {
        let saved = request.clone();
        (request, Some(saved))
    }

    fn usable(&self, _: &Req) -> bool {
        true
    }

    fn again(&self, saved: Req, _: Attempt, last: bool) -> Option<(Req, Option<Req>)> {
        if last { Some((saved, None)) } else { Some((saved.clone(), Some(saved))) }
    }
}

macro_rules! plain {
    ($([$($generics:tt)*] $request:ty),+ $(,)?) => {
        $(
            impl<$($generics)*> RetryRequest for $request {
                type Saved = Self;

                fn is_idempotent(&self) -> bool {
                    CloneRequests.is_idempotent(self)
                }

                fn save(self, limit: usize) -> (Self, Option<Self>) {
                    CloneRequests.save(self, limit)
                }

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

/// The header by which a client says that a server will recognise a request that it has seen before
/// (draft-ietf-httpapi-idempotency-key-header).
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// RFC 9110 §9.2.2.
fn is_idempotent(method: &Method, headers: &http::HeaderMap) -> bool {
    method.is_idempotent() || headers.contains_key(IDEMPOTENCY_KEY)
}

/// What is kept of an `http::Request`.
#[derive(Clone, Debug)]
pub struct SavedHttp<B> {
    parts: Parts,
    body: B,
}

impl<B: RetryBody> RetryRequest for http::Request<B> {
    type Saved = SavedHttp<B::Saved>;

    fn is_idempotent(&self) -> bool {
        is_idempotent(self.method(), self.headers())
    }

    fn safety(&self) -> Option<RetrySafety> {
        self.extensions().get().copied()
    }

    fn save(self, limit: usize) -> (Self, Option<Self::Saved>) {
        let (parts, body) = self.into_parts();
        let (body, saved) = body.save(limit);
        let saved = saved.map(|body| SavedHttp { parts: parts.clone(), body });
        (Self::from_parts(parts, body), saved)
    }

    fn usable(saved: &Self::Saved) -> bool {
        B::usable(&saved.body)
    }

    fn again(saved: Self::Saved, _: Attempt, last: bool) -> Option<(Self, Option<Self::Saved>)> {
        let SavedHttp { parts, body } = saved;
        let (body, more) = B::again(body, last)?;
        let more = more.map(|body| SavedHttp { parts: parts.clone(), body });
        Some((Self::from_parts(parts, body), more))
    }
}

/// Through `try_clone`: a request with a streaming body goes out once.
#[cfg(feature = "reqwest")]
impl RetryRequest for reqwest::Request {
    type Saved = Self;

    fn is_idempotent(&self) -> bool {
        is_idempotent(self.method(), self.headers())
    }

    fn save(self, _: usize) -> (Self, Option<Self>) {
        let saved = self.try_clone();
        (self, saved)
    }

    fn again(saved: Self, _: Attempt, last: bool) -> Option<(Self, Option<Self>)> {
        if last {
            return Some((saved, None));
        }
        // What could be cloned once can be cloned again; if not, this attempt is the last.
        let more = saved.try_clone();
        Some((saved, more))
    }
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use super::*;

    fn idempotent(method: &str) -> bool {
        let request = http::Request::builder().method(method).body(()).unwrap();
        RetryRequest::is_idempotent(&request)
    }

    #[test]
    fn the_methods_are_those_of_rfc_9110() {
        for method in ["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"] {
            assert!(idempotent(method), "{method}");
        }
        for method in ["POST", "PATCH", "CONNECT", "REPORT", "get"] {
            assert!(!idempotent(method), "{method}");
        }
    }

    #[test]
    fn a_key_goes_before_the_method_and_the_users_word_before_both() {
        let mut request = http::Request::post("/").header("Idempotency-Key", "1").body(()).unwrap();
        assert!(RetryRequest::is_idempotent(&request));
        assert_eq!(request.safety(), None);
        request.extensions_mut().insert(RetrySafety::Never);
        assert_eq!(request.safety(), Some(RetrySafety::Never));
    }

    #[test]
    fn an_http_request_goes_out_again_as_it_was() {
        let mut request = http::Request::put("/a?b").header("x", "y").body("text".to_owned()).unwrap();
        request.extensions_mut().insert(7_u8);
        let (_, saved) = request.save(1_024);
        let (second, saved) = RetryRequest::again(saved.unwrap(), Attempt::new(2), false).unwrap();
        let (third, nothing) =
            <http::Request<String> as RetryRequest>::again(saved.unwrap(), Attempt::new(3), true).unwrap();
        assert!(nothing.is_none());
        for request in [second, third] {
            assert_eq!((request.method(), request.uri().path()), (&Method::PUT, "/a"));
            assert_eq!((request.headers()["x"].to_str().unwrap(), &**request.body()), ("y", "text"));
            assert_eq!(request.extensions().get(), Some(&7_u8));
        }
    }
}
