//! Responses whose body can be taken out and replaced.

use http::response::Parts;
use http_body::Body;

use crate::outcome::Outcome;

/// A response whose body can be taken out.
#[diagnostic::on_unimplemented(
    message = "the body of the response `{Self}` cannot be read or replaced",
    note = "`.track_body()` and `.read_error_bodies(...)` need an `http::Response<B>` whose `B` implements `http_body::Body`",
    note = "`reqwest::Response` has a body with the cargo feature `reqwest` of the layer's crate"
)]
pub trait TakeBody: Outcome {
    /// The body.
    type Body: Body;

    /// Takes the response apart.
    fn take_body(self) -> (Parts, Self::Body);
}

/// A response that can have a body of type `B` in place of its own.
#[diagnostic::on_unimplemented(
    message = "the body of the response `{Self}` cannot be read or replaced",
    note = "`.track_body()` and `.read_error_bodies(...)` need an `http::Response<B>` whose `B` implements `http_body::Body`",
    note = "`reqwest::Response` has a body with the cargo feature `reqwest` of the layer's crate"
)]
pub trait ReplaceBody<B>: TakeBody + Sized {
    /// The response with that body.
    type Response: Outcome;

    /// Puts a response together whose head was taken from one of this type.
    fn from_parts(head: Parts, body: B) -> Self::Response;

    /// The response with what `wrap` makes of its body.
    ///
    /// **Default**: takes the response apart and puts it together again.
    #[inline]
    fn map_body(self, wrap: impl FnOnce(Self::Body) -> B) -> Self::Response {
        let (head, body) = self.take_body();
        Self::from_parts(head, wrap(body))
    }

    /// The response with its own body inside one of type `B` that only passes it through.
    ///
    /// **Default**: as [`map_body`](Self::map_body). A response that has only one type stays as it is.
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

    /// The head has the URL among its extensions, where reqwest looks for it.
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

/// Its body is boxed.
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
