//! Scripted bodies.

#![allow(dead_code, reason = "each test module uses a part of this module")]

use std::collections::VecDeque;
use std::fmt;
use std::future::{Ready, poll_fn, ready as ready_now};
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use proptest::prelude::*;
use tower::{Layer, Service};

use super::call::send;

/// The result of one poll.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Step {
    Data(Bytes),
    Trailers(HeaderMap),
    Fail(ErrorKind),
    /// Pending; the task is woken immediately.
    Wait,
    /// Pending for this duration.
    Sleep(Duration),
    /// Pending forever; the task is not woken.
    Stall,
    Panic,
}

/// What `is_end_stream` and `size_hint` report.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum BodyHints {
    Absent,
    Correct,
    /// The body reports from the start that it has ended, and this size.
    Wrong(u64),
}

/// A body that returns its steps, and then its end at every further poll.
#[derive(Debug)]
pub(crate) struct Script {
    steps: VecDeque<Step>,
    body_hints: BodyHints,
    sleep: Option<Pin<Box<tokio::time::Sleep>>>,
    /// It lives as long as the body.
    token: Arc<()>,
    /// Whether a poll after the end panics.
    once: bool,
    ended: bool,
}

impl Script {
    pub(crate) fn new(steps: impl IntoIterator<Item = Step>) -> Self {
        let steps = steps.into_iter().collect();
        Self {
            steps,
            body_hints: BodyHints::Absent,
            sleep: None,
            token: Arc::default(),
            once: false,
            ended: false,
        }
    }

    pub(crate) fn body_hints(mut self, body_hints: BodyHints) -> Self {
        self.body_hints = body_hints;
        self
    }

    /// Makes the body panic if it is polled after its end.
    pub(crate) fn once(mut self) -> Self {
        self.once = true;
        self
    }

    /// Returns a token that has two owners as long as the body lives.
    pub(crate) fn token(&self) -> Arc<()> {
        Arc::clone(&self.token)
    }

    fn bytes_left(&self) -> u64 {
        data(&self.steps).len() as u64
    }
}

impl Body for Script {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        loop {
            if let Some(sleep) = &mut self.sleep {
                ready!(sleep.as_mut().poll(cx));
                self.sleep = None;
            }
            return Poll::Ready(match self.steps.pop_front() {
                Some(Step::Data(bytes)) => Some(Ok(Frame::data(bytes))),
                Some(Step::Trailers(trailers)) => Some(Ok(Frame::trailers(trailers))),
                Some(Step::Fail(kind)) => Some(Err(kind.into())),
                Some(Step::Wait) => {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Some(Step::Sleep(time)) => {
                    self.sleep = Some(Box::pin(tokio::time::sleep(time)));
                    continue;
                }
                Some(Step::Stall) => {
                    self.steps.push_front(Step::Stall);
                    return Poll::Pending;
                }
                Some(Step::Panic) => panic!("a step of the script"),
                None => {
                    assert!(!(self.once && self.ended), "the body was polled after its end");
                    self.ended = true;
                    None
                }
            });
        }
    }

    fn is_end_stream(&self) -> bool {
        match self.body_hints {
            BodyHints::Absent => false,
            BodyHints::Correct => self.steps.is_empty(),
            BodyHints::Wrong(_) => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self.body_hints {
            BodyHints::Absent => SizeHint::default(),
            BodyHints::Correct => SizeHint::with_exact(self.bytes_left()),
            BodyHints::Wrong(bytes) => SizeHint::with_exact(bytes),
        }
    }
}

/// The result of a poll, as the reader sees it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Seen {
    Data(Bytes),
    Trailers(HeaderMap),
    Failed(ErrorKind),
    Pending,
    End,
}

/// Polls once. The waker does nothing.
pub(crate) fn poll<B: Body<Data = Bytes, Error = io::Error> + Unpin>(body: &mut B) -> Seen {
    match Pin::new(body).poll_frame(&mut Context::from_waker(Waker::noop())) {
        Poll::Pending => Seen::Pending,
        Poll::Ready(frame) => seen(frame),
    }
}

pub(crate) fn seen(frame: Option<Result<Frame<Bytes>, io::Error>>) -> Seen {
    match frame.map(|frame| frame.map(Frame::into_data)) {
        None => Seen::End,
        Some(Err(error)) => Seen::Failed(error.kind()),
        Some(Ok(Ok(data))) => Seen::Data(data),
        Some(Ok(Err(frame))) => Seen::Trailers(frame.into_trailers().unwrap()),
    }
}

/// Joins adjacent data frames, so that bodies are compared by their bytes and not by their frames.
pub(crate) fn bytewise(all: impl IntoIterator<Item = Seen>) -> Vec<Seen> {
    let mut joined = Vec::new();
    for seen in all {
        match (joined.last_mut(), seen) {
            (_, Seen::Pending) => {}
            (_, Seen::Data(data)) if data.is_empty() => {}
            (Some(Seen::Data(last)), Seen::Data(data)) => *last = [&**last, &*data].concat().into(),
            (_, seen) => joined.push(seen),
        }
    }
    joined
}

/// Reads to the end, also after an error.
pub(crate) async fn read_to_end<B: Body<Data = Bytes, Error = io::Error> + Unpin>(body: &mut B) -> Vec<Seen> {
    let mut all = Vec::new();
    while all.last() != Some(&Seen::End) {
        all.push(seen(poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await));
    }
    all
}

/// Returns the data of all steps.
pub(crate) fn data<'a>(steps: impl IntoIterator<Item = &'a Step>) -> Vec<u8> {
    let mut all = Vec::new();
    for step in steps {
        if let Step::Data(bytes) = step {
            all.extend_from_slice(bytes);
        }
    }
    all
}

/// Returns a step with one frame of data.
pub(crate) fn frame(data: impl Into<Bytes>) -> Step {
    Step::Data(data.into())
}

/// Returns a step with one frame for each byte.
pub(crate) fn drip(data: &[u8]) -> Vec<Step> {
    data.iter().map(|byte| frame(vec![*byte])).collect()
}

/// Returns a step with trailers. A name may be repeated.
pub(crate) fn trailers(fields: &[(&'static str, &str)]) -> Step {
    let mut trailers = HeaderMap::new();
    for (name, value) in fields {
        trailers.append(*name, value.parse().unwrap());
    }
    Step::Trailers(trailers)
}

/// A strategy for a frame with up to eleven bytes, which may be empty.
pub(crate) fn any_frame() -> impl Strategy<Value = Step> {
    prop_oneof![
        1 => Just(frame("")),
        4 => proptest::collection::vec(any::<u8>(), 1..12).prop_map(frame),
    ]
}

/// A service with the outcome of a single call.
#[derive(Debug)]
pub(crate) struct SingleOutcome<R>(Option<io::Result<R>>);

impl<R> Service<()> for SingleOutcome<R> {
    type Response = R;
    type Error = io::Error;
    type Future = Ready<io::Result<R>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        ready_now(self.0.take().expect("the service is called once"))
    }
}

/// Sends an outcome through `layer`.
pub(crate) async fn outcome_through<L, R, S>(
    layer: &L,
    outcome: io::Result<R>,
) -> Result<S::Response, S::Error>
where
    L: Layer<SingleOutcome<R>, Service = S>,
    S: Service<()>,
{
    send(&mut layer.layer(SingleOutcome(Some(outcome))), ()).await
}

/// Sends a response through `layer`.
pub(crate) async fn through<L, R, S>(layer: &L, response: R) -> S::Response
where
    L: Layer<SingleOutcome<R>, Service = S>,
    S: Service<(), Error: fmt::Debug>,
{
    outcome_through(layer, Ok(response)).await.unwrap()
}
