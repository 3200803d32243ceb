//! The service: from a request to its response.

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::header;
use http::request::Parts;
use http::{Method, Request, StatusCode};
use http_body::Body;
use tower_service::Service;

use crate::admin::{Admin, Inner};
use crate::body::AdminBody;
use crate::problem::Problem;
use crate::response::{Response, add_headers, without_body};
use crate::route::Route;

/// The longest path and the longest query, in bytes.
const MAX_TARGET_BYTES: usize = 4096;

impl<B> Service<Request<B>> for Admin
where
    B: Body + Send + 'static,
{
    type Response = http::Response<AdminBody>;
    type Error = Infallible;
    type Future = AdminFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> AdminFuture {
        let inner = Arc::clone(&self.inner);
        AdminFuture { response: Box::pin(respond(inner, request)) }
    }
}

/// The future of an [`Admin`]'s response. It needs a tokio runtime.
#[must_use = "futures do nothing unless polled"]
pub struct AdminFuture {
    response: Pin<Box<dyn Future<Output = Response> + Send>>,
}

impl Future for AdminFuture {
    type Output = Result<http::Response<AdminBody>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.response.as_mut().poll(context).map(Ok)
    }
}

impl fmt::Debug for AdminFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminFuture").finish_non_exhaustive()
    }
}

async fn respond<B>(inner: Arc<Inner>, request: Request<B>) -> Response
where
    B: Body + Send + 'static,
{
    inner.hub.start();
    let is_head = request.method() == Method::HEAD;
    let mut response = match (Route::of(request.uri().path()), request.method()) {
        (Route::Page, &Method::GET | &Method::HEAD) => {
            return crate::page::page(is_head, request.headers().get(header::IF_NONE_MATCH));
        }
        (Route::Action(..), &Method::POST) => {
            // In a task of its own, so that the attempt is decided and audited also if its client
            // disconnects.
            let attempt = tokio::spawn(inner.attempt(request));
            // An error: the attempt has panicked, or the runtime shuts down.
            attempt.await.unwrap_or_else(|_| internal_error())
        }
        _ => {
            let (parts, _) = request.into_parts();
            inner.read(&parts).await.unwrap_or_else(Problem::into_response)
        }
    };
    add_headers(response.headers_mut());
    if is_head { without_body(response) } else { response }
}

fn internal_error() -> Response {
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the request was not processed").into_response()
}

/// Returns an error if the path or the query is too long.
pub(crate) fn check_target(request: &Parts) -> Result<(), Problem> {
    let target = &request.uri;
    for (part, length) in [("path", target.path().len()), ("query", target.query().map_or(0, str::len))] {
        if length > MAX_TARGET_BYTES {
            let detail = format_args!("the {part} has {length} bytes; allowed is up to {MAX_TARGET_BYTES}");
            return Err(Problem::new(StatusCode::URI_TOO_LONG, detail));
        }
    }
    Ok(())
}
