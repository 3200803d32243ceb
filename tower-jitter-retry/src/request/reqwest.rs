//! Support for `reqwest::Request`.

use std::borrow::Cow;

use ::http::HeaderName;
use ::reqwest::Request;

use super::grpc;
use super::http::{
    earliest_deadline, has_idempotency_key, mark_extensions, mark_headers, read_notes, unmark_headers,
};
use super::mark;
use super::{Attempt, Mark, Notes, RequestExt, RequestInfo, RetryRequest};

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
        let notes = self.edit_extensions(|extensions| read_notes(extensions));
        Notes { deadline: earliest_deadline(notes.deadline, self.headers()), ..notes }
    }

    fn grpc_method(&self) -> Option<&str> {
        grpc::is_grpc(self.headers()).then(|| self.url().path())
    }

    fn mark(&mut self, mark: Mark<'_>) {
        if mark.marker || mark.remaining.is_some() {
            self.edit_extensions(|extensions| mark_extensions(extensions, mark));
        }
        mark_headers(self.headers_mut(), mark);
    }

    fn unmark(&mut self, header: Option<&HeaderName>) {
        self.edit_extensions(mark::remove);
        unmark_headers(self.headers_mut(), header);
    }
}

/// Copies the request with `try_clone`: a request with a streaming body is sent once.
impl RetryRequest for Request {
    type Saved = Self;

    fn duplicate(&self, _: usize) -> Option<Self> {
        self.try_clone()
    }

    fn save(&mut self, _: usize) -> Option<Self> {
        self.try_clone()
    }

    fn saved_url(saved: &Self) -> Option<Cow<'_, str>> {
        RequestInfo::url(saved)
    }

    fn replay(saved: &mut Option<Self>, _: Attempt, last: bool) -> Option<Self> {
        let request = saved.take()?;
        if !last {
            // A request that was cloned once can be cloned again. If it cannot, this attempt is the
            // last.
            *saved = request.try_clone();
        }
        Some(request)
    }
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use std::time::Duration;

    use ::reqwest::Method;

    use super::*;
    use crate::request::{Deadline, RetrySafety};

    #[test]
    fn reqwest_notes_are_read_written_and_removed() {
        let request = Request::new(Method::PUT, "http://a/".parse().unwrap());
        let deadline = Deadline::within(Duration::from_secs(3));
        let mut request = request.with_extension(RetrySafety::Always).with_extension(deadline);
        request.mark(Mark { attempt: Attempt::new(2), remaining: None, marker: true, header: None });
        let notes = request.notes();
        assert_eq!((notes.safety, notes.attempt), (Some(RetrySafety::Always), Some(Attempt::new(2))));
        assert_eq!(notes.deadline, Some(deadline));
        request.unmark(None);
        assert_eq!(request.notes(), Notes { attempt: None, ..notes });
        let left = Duration::from_secs(2);
        request.mark(Mark { attempt: Attempt::new(2), remaining: Some(left), marker: false, header: None });
        assert_eq!(request.notes(), Notes { attempt: None, deadline: Some(Deadline::within(left)), ..notes });
        assert_eq!(Request::new(Method::PUT, "http://a/".parse().unwrap()).notes(), Notes::default());
    }
}
