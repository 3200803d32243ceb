//! Bodies that play a script.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::collections::VecDeque;
use std::fmt;
use std::future::{Ready, poll_fn, ready as at_once};
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

/// What a poll comes to.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Step {
    Data(Bytes),
    Trailers(HeaderMap),
    Fail(ErrorKind),
    /// Not yet: who polls is woken at once.
    Wait,
    /// Not yet, for so long.
    Sleep(Duration),
    /// Never, and nobody is woken.
    Stall,
    Panic,
}

/// What is said of the end ahead of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Says {
    Nothing,
    Truth,
    /// That it is over from the start, and that there are so many bytes.
    Lies(u64),
}

/// Plays its steps, and then its end, as often as it is asked.
#[derive(Debug)]
pub(crate) struct Script {
    steps: VecDeque<Step>,
    says: Says,
    sleep: Option<Pin<Box<tokio::time::Sleep>>>,
    /// Lives as long as the body.
    token: Arc<()>,
    /// Whether it is a mistake to ask again after the end.
    once: bool,
    ended: bool,
}

impl Script {
    pub(crate) fn new(steps: impl IntoIterator<Item = Step>) -> Self {
        let steps = steps.into_iter().collect();
        Self { steps, says: Says::Nothing, sleep: None, token: Arc::default(), once: false, ended: false }
    }

    pub(crate) fn says(mut self, says: Says) -> Self {
        self.says = says;
        self
    }

    /// Panics if it is asked for more after its end.
    pub(crate) fn once(mut self) -> Self {
        self.once = true;
        self
    }

    /// Has two owners as long as the body lives.
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
                    assert!(!(self.once && self.ended), "it was asked again after its end");
                    self.ended = true;
                    None
                }
            });
        }
    }

    fn is_end_stream(&self) -> bool {
        match self.says {
            Says::Nothing => false,
            Says::Truth => self.steps.is_empty(),
            Says::Lies(_) => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self.says {
            Says::Nothing => SizeHint::default(),
            Says::Truth => SizeHint::with_exact(self.bytes_left()),
            Says::Lies(bytes) => SizeHint::with_exact(bytes),
        }
    }
}

/// What a reader was given.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Seen {
    Data(Bytes),
    Trailers(HeaderMap),
    Failed(ErrorKind),
    Pending,
    End,
}

/// One poll. Who polls is not woken.
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

/// What a reader was given up to the end, without what a reader of bytes cannot tell: how the data was cut into frames.
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

/// Reads on, also after an error, up to the end.
pub(crate) async fn read_to_end<B: Body<Data = Bytes, Error = io::Error> + Unpin>(body: &mut B) -> Vec<Seen> {
    let mut all = Vec::new();
    while all.last() != Some(&Seen::End) {
        all.push(seen(poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await));
    }
    all
}

/// The data of all these steps.
pub(crate) fn data<'a>(steps: impl IntoIterator<Item = &'a Step>) -> Vec<u8> {
    let mut all = Vec::new();
    for step in steps {
        if let Step::Data(bytes) = step {
            all.extend_from_slice(bytes);
        }
    }
    all
}

/// One frame of data.
pub(crate) fn frame(data: impl Into<Bytes>) -> Step {
    Step::Data(data.into())
}

/// One frame of data for each byte.
pub(crate) fn drip(data: &[u8]) -> Vec<Step> {
    data.iter().map(|byte| frame(vec![*byte])).collect()
}

/// Trailers with all these fields, also of one name.
pub(crate) fn trailers(fields: &[(&'static str, &str)]) -> Step {
    let mut trailers = HeaderMap::new();
    for (name, value) in fields {
        trailers.append(*name, value.parse().unwrap());
    }
    Step::Trailers(trailers)
}

/// Up to twelve frames, which may be empty.
pub(crate) fn any_frame() -> impl Strategy<Value = Step> {
    prop_oneof![
        1 => Just(frame("")),
        4 => proptest::collection::vec(any::<u8>(), 1..12).prop_map(frame),
    ]
}

/// Answers one call.
#[derive(Debug)]
pub(crate) struct Answers<R>(Option<io::Result<R>>);

impl<R> Service<()> for Answers<R> {
    type Response = R;
    type Error = io::Error;
    type Future = Ready<io::Result<R>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        at_once(self.0.take().expect("one call"))
    }
}

/// What `layer` makes of an answer.
pub(crate) async fn answer<L, R, S>(layer: &L, answer: io::Result<R>) -> Result<S::Response, S::Error>
where
    L: Layer<Answers<R>, Service = S>,
    S: Service<()>,
{
    send(&mut layer.layer(Answers(Some(answer))), ()).await
}

/// What `layer` makes of a response.
pub(crate) async fn through<L, R, S>(layer: &L, response: R) -> S::Response
where
    L: Layer<Answers<R>, Service = S>,
    S: Service<(), Error: fmt::Debug>,
{
    answer(layer, Ok(response)).await.unwrap()
}
