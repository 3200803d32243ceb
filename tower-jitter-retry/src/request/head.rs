//! A copy of a request's head, from which the head of another attempt is created.
//!
//! Most requests are sent once, so a copy must be cheap to make, to move and to drop. It is behind
//! a pointer, and its memory is used again by later requests on the same thread. The headers are
//! copied as text: a clone of a value changes an atomic counter when it is made and when it is
//! dropped, and allocates if the value has not been cloned before.

use std::cell::RefCell;
use std::fmt;
use std::mem;

use ::http::request::Parts;
use ::http::{Extensions, HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};
use bytes::BytesMut;

/// The number of unused heads that a thread keeps.
const MAX_SPARES: usize = 16;

/// The number of header values up to which the memory of a head is kept.
const MAX_HEADERS: usize = 64;

/// The length of the headers' text up to which the memory of a head is kept. An unused head has at
/// most 10 KB.
const MAX_TEXT: usize = 4096;

/// Unused heads, which are empty. Boxes, because their memory is used again.
type Spares = Vec<Box<Head>>;

thread_local! {
    static SPARES: RefCell<Spares> = const { RefCell::new(Vec::new()) };
}

struct Head {
    /// The head without its headers, until the request is sent again.
    parts: Parts,
    /// The headers in their order, until the request is sent again.
    fields: Vec<Field>,
    /// The name and the value of each field, without separators.
    text: BytesMut,
}

/// A header in the text.
struct Field {
    name_length: usize,
    value_length: usize,
    is_sensitive: bool,
}

/// A copy of a request's head.
pub(super) struct SavedHead(
    /// `None` only while it is dropped.
    Option<Box<Head>>,
);

impl SavedHead {
    pub(super) fn copy<B>(request: &Request<B>) -> Self {
        let mut head = spare();
        head.parts.method.clone_from(request.method());
        head.parts.uri.clone_from(request.uri());
        head.parts.version = request.version();
        for (name, value) in request.headers() {
            let (name, is_sensitive) = (name.as_str(), value.is_sensitive());
            head.text.extend_from_slice(name.as_bytes());
            head.text.extend_from_slice(value.as_bytes());
            head.fields.push(Field { name_length: name.len(), value_length: value.len(), is_sensitive });
        }
        if !request.extensions().is_empty() {
            head.parts.extensions.clone_from(request.extensions());
        }
        Self(Some(head))
    }

    pub(super) fn uri(&self) -> Option<&Uri> {
        self.0.as_ref().map(|head| &head.parts.uri)
    }

    /// Returns a request for an attempt that may be followed by another one.
    #[inline]
    pub(super) fn next_request<B>(&mut self, body: B) -> Option<Request<B>> {
        let head = self.0.as_mut()?;
        head.parse_headers()?;
        Some(Request::from_parts(head.parts.clone(), body))
    }

    /// Returns the request for the last attempt.
    #[inline]
    pub(super) fn into_request<B>(mut self, body: B) -> Option<Request<B>> {
        let head = self.0.as_mut()?;
        head.parse_headers()?;
        Some(Request::from_parts(mem::replace(&mut head.parts, empty_parts()), body))
    }
}

impl Head {
    /// Creates the map of the headers from the text, unless it exists.
    ///
    /// Returns `None` if the text is not valid. That does not happen, because it is the text of a
    /// map.
    fn parse_headers(&mut self) -> Option<()> {
        if !self.fields.is_empty() {
            self.parts.headers = self.parse_map()?;
        }
        Some(())
    }

    fn parse_map(&mut self) -> Option<HeaderMap> {
        let mut map = HeaderMap::new();
        // With room for the mark of a retry. If the headers have more values than a map allows
        // names, the map grows as needed.
        let _ = map.try_reserve(self.fields.len() + 1);
        // The values share the memory of the text, which is free again once they are dropped.
        let text = if self.text.len() > MAX_TEXT { mem::take(&mut self.text) } else { self.text.split() };
        let text = text.freeze();
        let mut start = 0;
        for field in self.fields.drain(..) {
            let value_start = start + field.name_length;
            let end = value_start + field.value_length;
            let name = HeaderName::from_bytes(text.get(start..value_start)?).ok()?;
            let mut value = HeaderValue::from_maybe_shared(text.slice(value_start..end)).ok()?;
            value.set_sensitive(field.is_sensitive);
            // `HeaderMap::extend` keeps only the last value of each name.
            map.append(name, value);
            start = end;
        }
        Some(map)
    }
}

impl Default for Head {
    fn default() -> Self {
        Self { parts: empty_parts(), fields: Vec::new(), text: BytesMut::new() }
    }
}

fn empty_parts() -> Parts {
    Request::new(()).into_parts().0
}

/// Returns an empty head.
fn spare() -> Box<Head> {
    // The thread-local is gone while the thread ends.
    let spare = SPARES.try_with(|spares| spares.borrow_mut().pop());
    spare.ok().flatten().unwrap_or_default()
}

impl Drop for SavedHead {
    fn drop(&mut self) {
        let Some(mut head) = self.0.take() else { return };
        // Before the borrow, because the drop of an extension is user code.
        head.parts.method = Method::default();
        head.parts.uri = Uri::default();
        head.parts.extensions = Extensions::new();
        if !head.parts.headers.is_empty() {
            head.parts.headers = HeaderMap::new();
        }
        if head.fields.capacity() > MAX_HEADERS || head.text.len() > MAX_TEXT {
            return;
        }
        head.fields.clear();
        head.text.clear();
        let _ = SPARES.try_with(|spares| {
            let mut spares = spares.borrow_mut();
            if spares.len() < MAX_SPARES {
                spares.push(head);
            }
        });
    }
}

/// Without the headers, which may be sensitive.
impl fmt::Debug for SavedHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let method = self.0.as_ref().map(|head| &head.parts.method);
        f.debug_struct("SavedHead").field("method", &method).field("uri", &self.uri()).finish_non_exhaustive()
    }
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use super::*;

    fn request(headers: usize) -> Request<()> {
        let mut request =
            Request::put("/a?b").version(::http::Version::HTTP_2).extension(7_u8).body(()).unwrap();
        for number in 0..headers {
            // Several values of one name.
            let name: HeaderName = format!("x-{}", number % 3).parse().unwrap();
            request.headers_mut().append(name, number.into());
        }
        request
    }

    fn spares() -> usize {
        SPARES.with_borrow(Vec::len)
    }

    #[test]
    fn head_is_copied_with_all_values_in_order() {
        for headers in [0, 1, 5, 100] {
            let sent = request(headers);
            let mut saved = SavedHead::copy(&sent);
            let requests = [saved.next_request(()), saved.next_request(()), saved.into_request(())];
            for request in requests.into_iter().chain([SavedHead::copy(&sent).into_request(())]) {
                let request = request.unwrap();
                assert_eq!((request.method(), request.uri()), (sent.method(), sent.uri()));
                assert_eq!((request.version(), request.headers()), (sent.version(), sent.headers()));
                assert_eq!(request.extensions().get(), Some(&7_u8));
            }
        }
    }

    #[test]
    fn head_with_more_values_than_names_in_a_map_is_copied() {
        let mut sent = request(0);
        for number in 0..30_000 {
            sent.headers_mut().append("x", number.into());
        }
        assert_eq!(SavedHead::copy(&sent).into_request(()).unwrap().headers(), sent.headers());
    }

    #[test]
    fn unused_head_is_empty_and_used_again() {
        for retried in [false, true] {
            let mut saved = SavedHead::copy(&request(5));
            if retried {
                saved.next_request(()).unwrap();
            }
            drop(saved);
            assert_eq!(spares(), 1);
            let head = spare();
            assert!(head.fields.is_empty() && head.fields.capacity() >= 5);
            assert!(head.text.is_empty() && head.text.capacity() > 0);
            assert!(head.parts.headers.is_empty() && head.parts.extensions.is_empty());
            assert_eq!((head.parts.method, head.parts.uri), (Method::default(), Uri::default()));
            assert_eq!(spares(), 0);
        }
    }

    #[test]
    fn spares_of_thread_are_bounded() {
        drop((0..2 * MAX_SPARES).map(|_| SavedHead::copy(&request(1))).collect::<Vec<_>>());
        assert_eq!(spares(), MAX_SPARES);
        drop(SavedHead::copy(&request(2 * MAX_HEADERS)));
        assert_eq!(spares(), MAX_SPARES - 1, "a large head is freed");
        let mut long = request(0);
        // In parts, so that the text has more memory than it needs.
        for _ in 0..3 {
            let value = HeaderValue::try_from("v".repeat(MAX_TEXT / 2)).unwrap();
            long.headers_mut().append("x", value);
        }
        drop(SavedHead::copy(&long));
        assert_eq!(spares(), MAX_SPARES - 2, "a long text is freed");
        let mut saved = SavedHead::copy(&long);
        saved.next_request(()).unwrap();
        drop(saved);
        assert_eq!(spare().text.capacity(), 0, "a long text is not kept after a retry either");
    }

    #[test]
    fn header_values_of_any_bytes_and_sensitive_ones_are_copied() {
        let mut sent = request(0);
        let mut secret = HeaderValue::from_static("secret");
        secret.set_sensitive(true);
        sent.headers_mut().insert("authorization", secret);
        sent.headers_mut().insert("x-empty", HeaderValue::from_static(""));
        sent.headers_mut().insert("x-opaque", HeaderValue::from_bytes(b"a\t\xff").unwrap());
        let request = SavedHead::copy(&sent).into_request(()).unwrap();
        assert_eq!(request.headers(), sent.headers());
        assert!(request.headers()["authorization"].is_sensitive());
        assert!(!request.headers()["x-opaque"].is_sensitive());
    }

    #[test]
    fn text_of_earlier_request_is_unchanged_by_later_ones() {
        let first = SavedHead::copy(&request(5)).into_request(()).unwrap();
        for headers in [1, 50, 7] {
            SavedHead::copy(&request(headers)).into_request(()).unwrap();
        }
        assert_eq!(first.headers(), request(5).headers());
    }
}
