//! An HTTP server in memory.

use std::future::{Ready, ready};
use std::io;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use tower::Service;

use crate::bare::FailsTwice;

pub(crate) type Body = Full<Bytes>;

/// A server that answers immediately.
#[derive(Clone)]
pub(crate) enum Server {
    /// Answers 200.
    Healthy,
    /// Answers 503 twice, then 200 once.
    FailsTwice,
}

impl Service<Request<Body>> for Server {
    type Response = Response<Body>;
    type Error = io::Error;
    type Future = Ready<Result<Response<Body>, io::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Body>) -> Self::Future {
        let mut response = Response::new(Body::from("found"));
        if matches!(self, Self::FailsTwice) && FailsTwice::next_fails() {
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        }
        ready(Ok(response))
    }
}
