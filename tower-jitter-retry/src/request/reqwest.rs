//! Support for `reqwest::Request`.

use std::borrow::Cow;
use std::mem::{replace, take};

use ::http::{Extensions, HeaderName};
use ::reqwest::{Method, Request, Url};

use super::grpc;
use super::http::{earliest_deadline, has_idempotency_key, mark_headers, read_notes, unmark_headers};
use super::{Attempt, Mark, Notes, RequestInfo, RetryRequest};

/// Reads or changes a request's extensions.
///
/// reqwest gives access to the extensions only through a conversion to an `http::Request`. The
/// other parts of the request are moved out before the conversion and put back afterwards. No part
/// except the URL and the method is cloned, and none is parsed.
fn with_extensions<T>(request: &mut Request, with: impl FnOnce(&mut Extensions) -> T) -> T
where
    T: Default,
{
    let Ok(placeholder) = Url::parse("http://a/") else { return T::default() };
    let shell = replace(request, Request::new(Method::GET, placeholder.clone()));
    let (method, url, version) = (shell.method().clone(), shell.url().clone(), shell.version());
    let mut shell = shell;
    let (headers, body) = (take(shell.headers_mut()), shell.body_mut().take());
    *shell.url_mut() = placeholder;
    let mut result = T::default();
    // The placeholder URL is valid on both sides, so the conversions do not fail.
    if let Ok(mut shell) = ::http::Request::<::reqwest::Body>::try_from(shell) {
        result = with(shell.extensions_mut());
        if let Ok(shell) = Request::try_from(shell) {
            *request = shell;
        }
    }
    *request.method_mut() = method;
    *request.url_mut() = url;
    *request.version_mut() = version;
    *request.headers_mut() = headers;
    *request.body_mut() = body;
    result
}

impl RequestInfo for Request {
    fn is_idempotent(&self) -> bool {
        self.method().is_idempotent()
    }

    fn has_idempotency_key(&self) -> bool {
        has_idempotency_key(self.headers())
    }

    fn url(&self) -> Option<Cow<'_, str>> {
        Some(self.url().as_str().into())
    }

    fn notes(&mut self) -> Notes {
        let notes = with_extensions(self, |extensions| read_notes(extensions));
        Notes { deadline: earliest_deadline(notes.deadline, self.headers()), ..notes }
    }

    fn grpc_method(&self) -> Option<&str> {
        grpc::is_grpc(self.headers()).then(|| self.url().path())
    }

    fn mark(&mut self, mark: Mark<'_>) {
        if mark.marker {
            with_extensions(self, |extensions| extensions.insert(mark.attempt));
        }
        mark_headers(self.headers_mut(), mark);
    }

    fn unmark(&mut self, header: Option<&HeaderName>) {
        with_extensions(self, Extensions::remove::<Attempt>);
        unmark_headers(self.headers_mut(), header);
    }
}

/// Copies the request with `try_clone`: a request with a streaming body is sent once.
impl RetryRequest for Request {
    type Saved = Self;

    fn duplicate(&self, _: usize) -> Option<Self> {
        self.try_clone()
    }

    fn save(self, _: usize) -> (Self, Option<Self>) {
        let saved = self.try_clone();
        (self, saved)
    }

    fn saved_url(saved: &Self) -> Option<Cow<'_, str>> {
        RequestInfo::url(saved)
    }

    fn replay(saved: Self, _: Attempt, last: bool) -> Option<(Self, Option<Self>)> {
        if last {
            return Some((saved, None));
        }
        // A request that was cloned once can be cloned again. If it cannot, this attempt is the
        // last.
        let more = saved.try_clone();
        Some((saved, more))
    }
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::request::{Deadline, RetrySafety};

    #[test]
    fn reqwest_notes_are_read_and_rest_is_unchanged() {
        let url = "http://user@example.org:81/a%20b?c=d#e";
        let mut request = Request::new(Method::PUT, url.parse().unwrap());
        *request.body_mut() = Some("text".into());
        *request.timeout_mut() = Some(Duration::from_secs(7));
        *request.version_mut() = ::http::Version::HTTP_2;
        request.headers_mut().insert("x-one", 1.into());
        assert_eq!(request.notes(), Notes::default());
        with_extensions(&mut request, |extensions| {
            extensions.insert(RetrySafety::Always);
            extensions.insert(Deadline::within(Duration::from_secs(3)));
        });
        request.mark(Mark { attempt: Attempt::new(2), remaining: None, marker: true, header: None });
        let notes = request.notes();
        assert_eq!((notes.safety, notes.attempt), (Some(RetrySafety::Always), Some(Attempt::new(2))));
        assert_eq!(notes.deadline, Some(Deadline::within(Duration::from_secs(3))));
        request.unmark(None);
        assert_eq!(request.notes().attempt, None);
        assert_eq!((request.method(), request.url().as_str()), (&Method::PUT, url));
        assert_eq!(
            (request.timeout(), request.version()),
            (Some(&Duration::from_secs(7)), ::http::Version::HTTP_2)
        );
        assert_eq!(request.body().unwrap().as_bytes(), Some(&b"text"[..]));
        assert_eq!((request.headers().len(), request.headers()["x-one"].as_bytes()), (1, &b"1"[..]));
        let mut empty = Request::new(Method::GET, url.parse().unwrap());
        empty.notes();
        assert!(empty.body().is_none());
    }
}
