//! Responses whose body can be removed and replaced.

use http::response::Parts;
use http_body::Body;

use crate::outcome::Outcome;

/// A response that can be split into its head and its body.
#[diagnostic::on_unimplemented(
    message = "the body of the response `{Self}` cannot be read or replaced",
    note = "`.track_body(...)`, `.read_error_bodies(...)`, `.http_fallback()` and `.grpc_fallback()` need an `http::Response<B>` whose `B` implements `http_body::Body`",
    note = "for `reqwest::Response`, enable the cargo feature `reqwest` of the layer's crate",
    note = "to answer rejected calls with any other response, call `.fallback(...)` with a closure that returns it"
)]
pub trait TakeBody: Outcome {
    /// The type of the body.
    type Body: Body;

    /// Splits the response into its head and its body.
    fn take_body(self) -> (Parts, Self::Body);
}

/// A response whose body can be replaced by a body of type `B`.
#[diagnostic::on_unimplemented(
    message = "the body of the response `{Self}` cannot be read or replaced",
    note = "`.track_body(...)`, `.read_error_bodies(...)`, `.http_fallback()` and `.grpc_fallback()` need an `http::Response<B>` whose `B` implements `http_body::Body`",
    note = "for `reqwest::Response`, enable the cargo feature `reqwest` of the layer's crate",
    note = "to answer rejected calls with any other response, call `.fallback(...)` with a closure that returns it"
)]
pub trait ReplaceBody<B>: TakeBody + Sized {
    /// The type of the response with that body.
    type Response: Outcome;

    /// Creates a response from a body and the head of a response of this type.
    fn from_parts(head: Parts, body: B) -> Self::Response;

    /// Returns the response with its body replaced by the return value of `wrap`.
    ///
    /// **Default**: [`take_body`](TakeBody::take_body), then [`from_parts`](Self::from_parts).
    #[inline]
    fn map_body(self, wrap: impl FnOnce(Self::Body) -> B) -> Self::Response {
        let (head, body) = self.take_body();
        Self::from_parts(head, wrap(body))
    }

    /// Returns the response with its body in a wrapper that only passes it through.
    ///
    /// A response type with a fixed body type returns itself unchanged.
    ///
    /// **Default**: [`map_body`](Self::map_body).
    #[inline]
    fn adapt_body(self, wrap: impl FnOnce(Self::Body) -> B) -> Self::Response {
        self.map_body(wrap)
    }
}

impl<B: Body> TakeBody for http::Response<B> {
    type Body = B;

    #[inline]
    fn take_body(self) -> (Parts, B) {
        self.into_parts()
    }
}

impl<B: Body, N> ReplaceBody<N> for http::Response<B> {
    type Response = http::Response<N>;

    #[inline]
    fn from_parts(head: Parts, body: N) -> http::Response<N> {
        http::Response::from_parts(head, body)
    }

    #[inline]
    fn map_body(self, wrap: impl FnOnce(B) -> N) -> http::Response<N> {
        self.map(wrap)
    }
}

#[cfg(feature = "reqwest")]
impl TakeBody for reqwest::Response {
    type Body = reqwest::Body;

    /// The head contains the URL in its extensions, where reqwest reads it.
    fn take_body(self) -> (Parts, reqwest::Body) {
        use reqwest::ResponseBuilderExt;

        let url = http::Response::builder().url(self.url().clone()).body(());
        let (mut parts, body) = http::Response::<reqwest::Body>::from(self).into_parts();
        if let Ok(url) = url {
            parts.extensions.extend(url.into_parts().0.extensions);
        }
        (parts, body)
    }
}

/// The new body is boxed.
#[cfg(feature = "reqwest")]
impl<N> ReplaceBody<N> for reqwest::Response
where
    N: Body + Send + Sync + 'static,
    N::Data: Into<bytes::Bytes>,
    N::Error: Into<crate::error::BoxError>,
{
    type Response = reqwest::Response;

    fn from_parts(head: Parts, body: N) -> reqwest::Response {
        http::Response::from_parts(head, reqwest::Body::wrap(body)).into()
    }

    fn adapt_body(self, _: impl FnOnce(reqwest::Body) -> N) -> reqwest::Response {
        self
    }
}

#[cfg(all(test, feature = "reqwest"))]
mod tests {
    use super::*;

    #[test]
    fn reqwest_response_rebuilt_keeps_url_and_extensions() {
        use reqwest::ResponseBuilderExt;

        let url = reqwest::Url::parse("http://example.com/a?b=c").unwrap();
        let response =
            http::Response::builder().status(201).url(url.clone()).header("x-a", "b").extension(7_u8);
        let response = reqwest::Response::from(response.body("body").unwrap());
        let (head, body) = response.take_body();
        let response = <reqwest::Response as ReplaceBody<reqwest::Body>>::from_parts(head, body);
        assert_eq!((response.url(), response.status().as_u16()), (&url, 201));
        assert_eq!(response.extensions().get(), Some(&7_u8));
        assert_eq!(response.headers()["x-a"], "b");
        assert_eq!(response.content_length(), Some(4));
    }
}
