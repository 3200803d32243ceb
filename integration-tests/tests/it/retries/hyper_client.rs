//! Retries over hyper-util's legacy client.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Method, Request};
use http_body::{Body, Frame};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use integration_tests::{TIMEOUT, retry_at_once};
use test_servers::{Action, Http};
use tower::{Service, ServiceBuilder, ServiceExt};
use tower_jitter_retry::{JitterRetryLayer, ReplayBody, Retried};

/// A body of unknown length, which is sent in chunks.
#[derive(Debug)]
pub(crate) struct Stream(pub(crate) VecDeque<io::Result<&'static str>>);

impl Stream {
    pub(crate) fn of(frames: impl IntoIterator<Item = &'static str>) -> Self {
        Self(frames.into_iter().map(Ok).collect())
    }
}

impl Body for Stream {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        Poll::Ready(self.0.pop_front().map(|frame| frame.map(|data| Frame::data(data.into()))))
    }
}

/// Sends a streaming body to a server with this script. Returns the result and the bodies that the
/// server received.
async fn sent(
    method: Method,
    body: Stream,
    limit: usize,
    actions: &[Action],
) -> (Result<(u16, u32), ()>, Vec<Bytes>) {
    let server = Http::start().await;
    server.script(actions.to_vec());
    let mut stack = ServiceBuilder::new()
        .layer(JitterRetryLayer::new(retry_at_once().replay_limit(limit).build().unwrap()))
        .timeout(TIMEOUT)
        .service(Client::builder(TokioExecutor::new()).build_http::<ReplayBody<Stream>>());
    let request = Request::builder().method(method).uri(server.url()).body(ReplayBody::new(body)).unwrap();
    let answer = stack.ready().await.unwrap().call(request).await;
    let answer = answer.map(|answer| {
        let attempts = answer.extensions().get::<Retried>().map_or(1, |retried| retried.attempts);
        (answer.status().as_u16(), attempts)
    });
    let bodies = server.requests().into_iter().map(|request| request.body).collect();
    (answer.map_err(|_| ()), bodies)
}

fn text() -> Stream {
    Stream::of(["the ", "whole ", "body"])
}

#[tokio::test]
async fn stream_after_two_failures_is_sent_whole_three_times() {
    for failure in [
        Action::status(503),
        Action::status(500).then_close(),
        Action::ResetAfterRequest,
        Action::CloseAfterRequest,
    ] {
        let actions = [failure.clone(), failure.clone(), Action::status(200)];
        let (answer, bodies) = sent(Method::PUT, text(), 1024, &actions).await;
        assert_eq!(answer, Ok((200, 3)), "{failure:?}");
        assert_eq!(bodies, ["the whole body"; 3], "{failure:?}");
    }
}

#[tokio::test]
async fn post_over_hyper_util_is_sent_once_unless_unprocessed() {
    for (failure, times) in [
        (Action::status(503), 1),
        (Action::status(500), 1),
        (Action::ResetAfterRequest, 1),
        (Action::status(429), 3),
        (Action::status(421), 3),
    ] {
        let actions = [failure.clone(), failure.clone(), Action::status(200)];
        let (_, bodies) = sent(Method::POST, text(), 1024, &actions).await;
        assert_eq!(bodies, vec!["the whole body"; times], "{failure:?}");
    }
}

#[tokio::test]
async fn stream_over_replay_limit_is_sent_whole_and_once() {
    let (answer, bodies) = sent(Method::PUT, text(), 5, &[Action::status(503)]).await;
    assert_eq!((answer, bodies), (Ok((503, 1)), vec![Bytes::from("the whole body")]));
}

#[tokio::test]
async fn failed_stream_is_sent_once_and_fault_of_caller() {
    let mut stream = text();
    stream.0.push_back(Err(io::Error::other("the disk failed")));
    let (answer, _) = sent(Method::PUT, stream, 1024, &[Action::Hang]).await;
    assert_eq!(answer, Err(()));
}
