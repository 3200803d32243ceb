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
    /// reqwest gives access only through a conversion, so the function may see the extensions while
    /// the other parts of the request are moved out.
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

/// Converts the request to an `http::Request` and back, which is reqwest's only access to the
/// extensions.
///
/// The other parts of the request are moved out before the conversion and put back afterwards. No
/// part is cloned, and none is parsed.
#[cfg(feature = "reqwest")]
impl RequestExt for reqwest::Request {
    fn edit_extensions<T>(&mut self, edit: impl FnOnce(&mut Extensions) -> T) -> T {
        use std::mem::{replace, take};
        use std::sync::LazyLock;

        use reqwest::{Method, Request, Url};

        static PLACEHOLDER: LazyLock<Url> = LazyLock::new(|| match Url::parse("http://a/") {
            Ok(url) => url,
            Err(_) => unreachable!("the placeholder is a valid URL"),
        });
        let mut shell = replace(self, Request::new(Method::GET, PLACEHOLDER.clone()));
        let (method, version) = (take(shell.method_mut()), shell.version());
        let url = replace(shell.url_mut(), PLACEHOLDER.clone());
        let (headers, body) = (take(shell.headers_mut()), shell.body_mut().take());
        // The placeholder is valid on both sides, so the conversions do not fail.
        let result = match http::Request::<reqwest::Body>::try_from(shell) {
            Ok(mut shell) => {
                let result = edit(shell.extensions_mut());
                if let Ok(shell) = Request::try_from(shell) {
                    *self = shell;
                }
                result
            }
            Err(_) => edit(&mut Extensions::new()),
        };
        *self.method_mut() = method;
        *self.url_mut() = url;
        *self.version_mut() = version;
        *self.headers_mut() = headers;
        *self.body_mut() = body;
        result
    }
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
        let mut empty = Request::new(Method::GET, url.parse().unwrap());
        assert_eq!(empty.extension::<u8>(), None);
        assert!(empty.body().is_none());
    }
}
