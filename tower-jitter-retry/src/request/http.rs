//! Support for `http::Request`.

use std::borrow::Cow;

use ::http::{HeaderMap, HeaderName, HeaderValue, Request};

use super::grpc;
use super::head::SavedHead;
use super::mark;
use super::{Attempt, Deadline, Mark, Notes, RequestInfo, RetryRequest};
use crate::replay::RetryBody;

/// The header that contains a client's key for a request, by which a server recognizes a request
/// that it has seen before (draft-ietf-httpapi-idempotency-key-header).
static IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Returns whether there is an idempotency key that is not blank. The draft defines the key as a
/// string in quotes, so quotes alone are blank too.
pub(super) fn has_idempotency_key(headers: &HeaderMap) -> bool {
    let key = headers.get(&IDEMPOTENCY_KEY);
    key.is_some_and(|key| key.as_bytes().iter().any(|byte| !byte.is_ascii_whitespace() && *byte != b'"'))
}

/// The saved data of an `http::Request`.
#[derive(Debug)]
pub struct SavedHttp<B> {
    head: SavedHead,
    body: B,
}

impl<B> RequestInfo for Request<B> {
    fn is_idempotent(&self) -> bool {
        self.method().is_idempotent()
    }

    fn has_idempotency_key(&self) -> bool {
        has_idempotency_key(self.headers())
    }

    fn url(&self) -> Option<Cow<'_, str>> {
        Some(self.uri().to_string().into())
    }

    #[inline]
    fn notes(&mut self) -> Notes {
        let notes = read_notes(self.extensions());
        Notes { deadline: earliest_deadline(notes.deadline, self.headers()), ..notes }
    }

    fn grpc_method(&self) -> Option<&str> {
        grpc::is_grpc(self.headers()).then(|| self.uri().path())
    }

    #[inline]
    fn mark(&mut self, mark: Mark<'_>) {
        mark_extensions(self.extensions_mut(), mark);
        mark_headers(self.headers_mut(), mark);
    }

    fn unmark(&mut self, header: Option<&HeaderName>) {
        mark::remove(self.extensions_mut());
        unmark_headers(self.headers_mut(), header);
    }
}

impl<B: RetryBody> RetryRequest for Request<B> {
    type Saved = SavedHttp<B::Saved>;

    fn duplicate(&self, limit: usize) -> Option<Self> {
        let body = self.body().duplicate(limit)?;
        let mut request = Request::new(body);
        request.method_mut().clone_from(self.method());
        request.uri_mut().clone_from(self.uri());
        *request.version_mut() = self.version();
        request.headers_mut().clone_from(self.headers());
        request.extensions_mut().clone_from(self.extensions());
        Some(request)
    }

    #[inline]
    fn save(&mut self, limit: usize) -> Option<Self::Saved> {
        let body = self.body_mut().save(limit)?;
        Some(SavedHttp { head: SavedHead::copy(self), body })
    }

    fn can_replay(saved: &Self::Saved) -> bool {
        B::can_replay(&saved.body)
    }

    fn is_waiting(saved: &Self::Saved) -> Option<bool> {
        B::is_waiting(&saved.body)
    }

    fn saved_url(saved: &Self::Saved) -> Option<Cow<'_, str>> {
        Some(saved.head.uri()?.to_string().into())
    }

    #[inline]
    fn replay(saved: &mut Option<Self::Saved>, _: Attempt, last: bool) -> Option<Self> {
        let SavedHttp { head, body } = saved.take()?;
        let (body, more) = B::replay(body, last)?;
        let Some(more) = more else { return head.into_request(body) };
        saved.insert(SavedHttp { head, body: more }).head.next_request(body)
    }
}

/// Reads the notes in the extensions.
#[inline]
pub(super) fn read_notes(extensions: &::http::Extensions) -> Notes {
    if extensions.is_empty() {
        return Notes::default();
    }
    Notes {
        safety: extensions.get().copied(),
        deadline: extensions.get().copied(),
        attempt: Attempt::of(extensions),
    }
}

/// Returns the earlier of the extension's deadline and the timeout in `grpc-timeout`.
#[inline]
pub(super) fn earliest_deadline(deadline: Option<Deadline>, headers: &HeaderMap) -> Option<Deadline> {
    let Some(timeout) = grpc::timeout(headers) else { return deadline };
    let earlier = deadline.is_some_and(|deadline| deadline.remaining() <= timeout);
    if earlier { deadline } else { Some(Deadline::within(timeout)) }
}

#[inline]
pub(super) fn mark_extensions(extensions: &mut ::http::Extensions, mark: Mark<'_>) {
    if mark.marker {
        mark::write(extensions, mark.attempt);
    }
    if let Some(remaining) = mark.remaining
        && let Some(deadline) = extensions.get_mut::<Deadline>()
    {
        deadline.shorten(remaining);
    }
}

#[inline]
pub(super) fn mark_headers(headers: &mut HeaderMap, mark: Mark<'_>) {
    let Mark { attempt, remaining, marker, header } = mark;
    if marker && let Some(name) = header {
        headers.insert(name, HeaderValue::from(attempt.number()));
    }
    if marker && attempt.number() > 1 && grpc::is_grpc(headers) {
        headers.insert(&grpc::PREVIOUS_ATTEMPTS, HeaderValue::from(attempt.number() - 1));
    }
    if let Some(remaining) = remaining {
        grpc::shorten_timeout(headers, remaining);
    }
}

/// Removes the marks from the headers, regardless of whether a retry layer or a remote client wrote
/// them.
pub(super) fn unmark_headers(headers: &mut HeaderMap, header: Option<&HeaderName>) {
    headers.remove(&grpc::PREVIOUS_ATTEMPTS);
    if let Some(name) = header {
        headers.remove(name);
    }
}

/// Removes the marks of an outer retry layer from a request.
///
/// Inner layers then retry the request themselves. The function removes the [`Attempt`] in the
/// extensions and gRPC's `grpc-previous-rpc-attempts`.
///
/// It does not remove a [`marker_header`](crate::RetryPolicyBuilder::marker_header), whose name it
/// cannot see. Remove that header as well, or use
/// [`RetryPolicyBuilder::remove_marker`](crate::RetryPolicyBuilder::remove_marker), which removes
/// all three.
pub fn remove_marker<B>(request: &mut Request<B>) {
    mark::remove(request.extensions_mut());
    unmark_headers(request.headers_mut(), None);
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use ::http::Method;

    use super::*;
    use crate::request::RetrySafety;

    fn idempotent(method: &str) -> bool {
        let request = Request::builder().method(method).body(()).unwrap();
        RequestInfo::is_idempotent(&request)
    }

    #[test]
    fn idempotent_methods_are_those_of_rfc_9110() {
        for method in ["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"] {
            assert!(idempotent(method), "{method}");
        }
        for method in ["POST", "PATCH", "CONNECT", "REPORT", "get"] {
            assert!(!idempotent(method), "{method}");
        }
    }

    #[test]
    fn idempotency_key_and_safety_are_read_separately_from_method() {
        let mut request = Request::post("/").header("Idempotency-Key", "1").body(()).unwrap();
        assert!(!RequestInfo::is_idempotent(&request) && request.has_idempotency_key());
        assert_eq!(request.notes().safety, None);
        request.extensions_mut().insert(RetrySafety::Never);
        assert_eq!(request.notes().safety, Some(RetrySafety::Never));
    }

    #[test]
    fn http_request_is_sent_again_unchanged() {
        let mut request = Request::put("/a?b").header("x", "y").body("text".to_owned()).unwrap();
        request.extensions_mut().insert(7_u8);
        let mut saved = request.save(1_024);
        let second = Request::<String>::replay(&mut saved, Attempt::new(2), false).unwrap();
        let third = Request::<String>::replay(&mut saved, Attempt::new(3), true).unwrap();
        assert!(saved.is_none());
        for request in [second, third] {
            assert_eq!((request.method(), request.uri().path()), (&Method::PUT, "/a"));
            assert_eq!((request.headers()["x"].to_str().unwrap(), &**request.body()), ("y", "text"));
            assert_eq!(request.extensions().get(), Some(&7_u8));
        }
    }

    #[test]
    fn earlier_of_two_deadlines_applies() {
        use std::time::Duration;

        let left = |deadline: Option<u64>, timeout: Option<&str>| {
            let mut request = Request::new(());
            if let Some(seconds) = deadline {
                request.extensions_mut().insert(Deadline::within(Duration::from_secs(seconds)));
            }
            if let Some(timeout) = timeout {
                request.headers_mut().insert("grpc-timeout", timeout.parse().unwrap());
            }
            request.notes().deadline.map(|deadline| deadline.remaining().as_secs())
        };
        assert_eq!(left(None, None), None);
        assert_eq!(left(Some(3), None), Some(3));
        assert_eq!(left(None, Some("2S")), Some(2));
        assert_eq!(left(Some(3), Some("2S")), Some(2));
        assert_eq!(left(Some(1), Some("2S")), Some(1));
        assert_eq!(left(Some(3), Some("soon")), Some(3), "an invalid timeout is ignored");
    }

    #[test]
    fn marks_are_written_and_removed() {
        let name = HeaderName::from_static("x-attempt");
        let mark = |number, marker| Mark {
            attempt: Attempt::new(number),
            remaining: None,
            marker,
            header: Some(&name),
        };
        let mut request = Request::builder().header("content-type", "application/grpc").body(()).unwrap();
        request.mark(mark(1, true));
        assert_eq!(request.notes().attempt, Some(Attempt::new(1)));
        assert_eq!(request.headers()["x-attempt"], "1");
        assert!(
            !request.headers().contains_key("grpc-previous-rpc-attempts"),
            "no attempt precedes the first"
        );
        request.mark(mark(3, true));
        assert_eq!(
            (&request.headers()["x-attempt"], &request.headers()["grpc-previous-rpc-attempts"]),
            (&"3".parse().unwrap(), &"2".parse().unwrap())
        );
        remove_marker(&mut request);
        assert_eq!(request.notes().attempt, None);
        assert!(!request.headers().contains_key("grpc-previous-rpc-attempts"));
        let mut request = Request::new(());
        request.mark(mark(2, false));
        assert!(request.extensions().is_empty() && request.headers().is_empty());
        request.mark(mark(2, true));
        assert_eq!(request.headers().len(), 1, "not a gRPC request");
    }
}
