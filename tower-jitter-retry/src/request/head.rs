//! A copy of a request's head, from which the head of another attempt is created.
//!
//! Most requests are sent once, so a copy must be cheap to make and to move. It is a list of the
//! headers instead of a map, and it is behind a pointer. Its memory is used again by later requests
//! on the same thread, so that a copy usually allocates nothing. The parts of the request are
//! cloned, and may allocate.

use std::cell::RefCell;
use std::fmt;
use std::mem;

use ::http::{Extensions, HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version};

/// The number of unused heads that a thread keeps.
const MAX_SPARES: usize = 16;

/// The number of header values up to which the memory of a head is kept. An unused head has at most
/// 5 KB.
const MAX_HEADERS: usize = 64;

/// Unused heads, which are empty. Boxes, because their memory is used again.
type Spares = Vec<Box<Head>>;

thread_local! {
    static SPARES: RefCell<Spares> = const { RefCell::new(Vec::new()) };
}

#[derive(Debug, Default)]
struct Head {
    method: Method,
    uri: Uri,
    version: Version,
    /// The values in their order, each with its name.
    headers: Vec<(HeaderName, HeaderValue)>,
    /// The map of the headers, once the request is sent again.
    map: Option<HeaderMap>,
    extensions: Extensions,
}

/// A copy of a request's head.
pub(super) struct SavedHead(
    /// `None` only while it is dropped.
    Option<Box<Head>>,
);

impl SavedHead {
    pub(super) fn copy<B>(request: &Request<B>) -> Self {
        let mut head = spare();
        head.method.clone_from(request.method());
        head.uri.clone_from(request.uri());
        head.version = request.version();
        let headers = request.headers().iter();
        head.headers.extend(headers.map(|(name, value)| (name.clone(), value.clone())));
        if !request.extensions().is_empty() {
            head.extensions.clone_from(request.extensions());
        }
        Self(Some(head))
    }

    pub(super) fn uri(&self) -> Option<&Uri> {
        self.0.as_ref().map(|head| &head.uri)
    }

    /// Returns a request for an attempt that may be followed by another one.
    pub(super) fn next_request<B>(&mut self, body: B) -> Request<B> {
        let mut request = Request::new(body);
        if let Some(head) = &mut self.0 {
            request.method_mut().clone_from(&head.method);
            request.uri_mut().clone_from(&head.uri);
            *request.version_mut() = head.version;
            *request.headers_mut() = head.map().clone();
            request.extensions_mut().clone_from(&head.extensions);
        }
        request
    }

    /// Returns the request for the last attempt.
    pub(super) fn innext_request<B>(mut self, body: B) -> Request<B> {
        let mut request = Request::new(body);
        if let Some(head) = &mut self.0 {
            *request.method_mut() = mem::take(&mut head.method);
            *request.uri_mut() = mem::take(&mut head.uri);
            *request.version_mut() = head.version;
            *request.headers_mut() = mem::take(head.map());
            *request.extensions_mut() = mem::take(&mut head.extensions);
        }
        request
    }
}

impl Head {
    /// Returns the map of the headers. The first call moves the list into it.
    fn map(&mut self) -> &mut HeaderMap {
        let list = &mut self.headers;
        self.map.get_or_insert_with(|| {
            let mut map = HeaderMap::new();
            if !list.is_empty() {
                // With room for the mark of a retry.
                map.reserve(list.len() + 1);
                // `HeaderMap::extend` keeps only the last value of each name.
                for (name, value) in list.drain(..) {
                    map.append(name, value);
                }
            }
            map
        })
    }
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
        head.method = Method::default();
        head.uri = Uri::default();
        head.headers.clear();
        head.map = None;
        head.extensions = Extensions::new();
        if head.headers.capacity() > MAX_HEADERS {
            return;
        }
        let _ = SPARES.try_with(|spares| {
            let mut spares = spares.borrow_mut();
            if spares.len() < MAX_SPARES {
                spares.push(head);
            }
        });
    }
}

impl fmt::Debug for SavedHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use super::*;

    fn request(headers: usize) -> Request<()> {
        let mut request = Request::put("/a?b").version(Version::HTTP_2).extension(7_u8).body(()).unwrap();
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
            let requests = [saved.next_request(()), saved.next_request(()), saved.innext_request(())];
            for request in requests.into_iter().chain([SavedHead::copy(&sent).innext_request(())]) {
                assert_eq!((request.method(), request.uri()), (sent.method(), sent.uri()));
                assert_eq!((request.version(), request.headers()), (sent.version(), sent.headers()));
                assert_eq!(request.extensions().get(), Some(&7_u8));
            }
        }
    }

    #[test]
    fn unused_head_is_empty_and_used_again() {
        SavedHead::copy(&request(5)).next_request(());
        assert_eq!(spares(), 1);
        let head = spare();
        assert!(head.headers.is_empty() && head.headers.capacity() >= 5);
        assert!(head.map.is_none() && head.extensions.is_empty());
        assert_eq!((head.method, head.uri), (Method::default(), Uri::default()));
        assert_eq!(spares(), 0);
    }

    #[test]
    fn spares_of_thread_are_bounded() {
        drop((0..2 * MAX_SPARES).map(|_| SavedHead::copy(&request(1))).collect::<Vec<_>>());
        assert_eq!(spares(), MAX_SPARES);
        drop(SavedHead::copy(&request(2 * MAX_HEADERS)));
        assert_eq!(spares(), MAX_SPARES - 1, "a large head is freed");
    }
}
