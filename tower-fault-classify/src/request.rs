//! Settings of one request, in its extensions.
//!
//! Layers read per-request settings from the extensions of a request: a retry's `RetrySafety` and
//! `Deadline`, or the key of a circuit. `http::Request` gives access to its extensions, and
//! `reqwest::Request` does not. [`RequestExt`] has the same methods for both.
//!
//! ```
//! use tower_fault_classify::request::RequestExt;
//!
//! #[derive(Clone, Debug, PartialEq)]
//! struct Tenant(&'static str);
//!
//! let mut request = http::Request::new(()).with_extension(Tenant("blue"));
//! assert_eq!(request.extension(), Some(Tenant("blue")));
//! ```
//!
//! # reqwest-middleware
//!
//! In a chain, use `RequestBuilder::with_extension` of reqwest-middleware. A
//! [`TowerMiddleware`](crate::middleware::TowerMiddleware) copies the extensions of the chain to
//! those of the request. Extensions that the request already has are kept.

#[cfg(feature = "reqwest")]
use std::mem;

use http::Extensions;

/// Access to the extensions of a request.
///
/// It is implemented for `http::Request`, and for `reqwest::Request` (feature `reqwest`). Implement
/// it for your own request type if that has extensions.
#[diagnostic::on_unimplemented(
    message = "the request `{Self}` gives no access to extensions",
    note = "for `reqwest::Request`, enable the cargo feature `reqwest`",
    note = "for a type of your own that has extensions, implement `RequestExt`"
)]
pub trait RequestExt: Sized {
    /// Calls a function with the extensions, and returns its result.
    ///
    /// reqwest gives access only through a conversion. If the function panics, a `reqwest::Request`
    /// loses its extensions.
    fn edit_extensions<T>(&mut self, edit: impl FnOnce(&mut Extensions) -> T) -> T;

    /// Adds an extension, and replaces an extension of the same type.
    ///
    /// ```
    /// # #[cfg(feature = "reqwest")] {
    /// use reqwest::{Method, Request};
    /// use tower_fault_classify::request::RequestExt;
    ///
    /// #[derive(Clone)]
    /// struct Tenant(&'static str);
    ///
    /// let request = Request::new(Method::GET, "https://api.example.com/".parse()?);
    /// let request = request.with_extension(Tenant("blue"));
    /// # }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    fn with_extension<T>(mut self, value: T) -> Self
    where
        T: Clone + Send + Sync + 'static,
    {
        self.edit_extensions(|extensions| extensions.insert(value));
        self
    }

    /// Returns a copy of the extension with the type `T`, or `None` if the request has none.
    ///
    /// The request is borrowed mutably, because reqwest gives no other access.
    fn extension<T>(&mut self) -> Option<T>
    where
        T: Clone + Send + Sync + 'static,
    {
        self.edit_extensions(|extensions| extensions.get().cloned())
    }
}

impl<B> RequestExt for http::Request<B> {
    fn edit_extensions<T>(&mut self, edit: impl FnOnce(&mut Extensions) -> T) -> T {
        edit(self.extensions_mut())
    }
}

/// Converts a request with the extensions to an `http::Request` and back, which is reqwest's only
/// access to them.
///
/// The other parts stay in this request: none is cloned, and none is parsed.
#[cfg(feature = "reqwest")]
impl RequestExt for reqwest::Request {
    fn edit_extensions<T>(&mut self, edit: impl FnOnce(&mut Extensions) -> T) -> T {
        use std::sync::LazyLock;

        use reqwest::{Body, Method, Request, Url};

        // Any URL that is valid on both sides, so that the conversions do not fail. One without a
        // host is parsed in less time.
        static PLACEHOLDER: LazyLock<Url> = LazyLock::new(|| match Url::parse("a:1") {
            Ok(url) => url,
            Err(_) => unreachable!("the placeholder is a valid URL"),
        });

        let mut carrier = Request::new(Method::GET, PLACEHOLDER.clone());
        mem::swap(self, &mut carrier);
        swap_parts(self, &mut carrier);
        let Ok(mut carrier) = http::Request::<Body>::try_from(carrier) else {
            return edit(&mut Extensions::new());
        };
        let result = edit(carrier.extensions_mut());
        // Usually, there are no extensions to put back.
        if !carrier.extensions().is_empty()
            && let Ok(mut carrier) = Request::try_from(carrier)
        {
            swap_parts(self, &mut carrier);
            *self = carrier;
        }
        result
    }
}

/// Swaps all parts but the extensions, which contain the timeout.
#[cfg(feature = "reqwest")]
fn swap_parts(one: &mut reqwest::Request, other: &mut reqwest::Request) {
    mem::swap(one.method_mut(), other.method_mut());
    mem::swap(one.url_mut(), other.url_mut());
    mem::swap(one.version_mut(), other.version_mut());
    mem::swap(one.headers_mut(), other.headers_mut());
    mem::swap(one.body_mut(), other.body_mut());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http_extension_is_replaced_by_type() {
        let mut request = http::Request::new(()).with_extension(1_u8).with_extension(2_u8);
        assert_eq!((request.extension(), request.extension::<u16>()), (Some(2_u8), None));
    }

    #[cfg(feature = "reqwest")]
    #[test]
    fn reqwest_extension_is_added_and_rest_is_unchanged() {
        use std::time::Duration;

        use reqwest::{Method, Request};

        let url = "http://user@example.org:81/a%20b?c=d#e";
        let mut request = Request::new(Method::PUT, url.parse().unwrap());
        *request.body_mut() = Some("text".into());
        *request.timeout_mut() = Some(Duration::from_secs(7));
        *request.version_mut() = http::Version::HTTP_2;
        request.headers_mut().insert("x-one", 1.into());
        assert_eq!(request.extension::<u8>(), None);
        let mut request = request.with_extension(1_u8).with_extension("text").with_extension(2_u8);
        assert_eq!((request.extension(), request.extension()), (Some(2_u8), Some("text")));
        assert_eq!((request.method(), request.url().as_str()), (&Method::PUT, url));
        assert_eq!(
            (request.timeout(), request.version()),
            (Some(&Duration::from_secs(7)), http::Version::HTTP_2)
        );
        assert_eq!(request.body().unwrap().as_bytes(), Some(&b"text"[..]));
        assert_eq!((request.headers().len(), request.headers()["x-one"].as_bytes()), (1, &b"1"[..]));
        assert_eq!(request.try_clone().unwrap().extension(), Some(2_u8));
        request.edit_extensions(Extensions::clear);
        assert_eq!((request.extension::<u8>(), request.timeout()), (None, None));
        assert_eq!((request.url().as_str(), request.headers().len()), (url, 1));
        assert_eq!(request.body().unwrap().as_bytes(), Some(&b"text"[..]));
        let mut empty = Request::new(Method::GET, url.parse().unwrap());
        assert_eq!(empty.extension::<u8>(), None);
        assert!(empty.body().is_none());
    }
}
