//! A client that reads a stream.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use http_body::Body;
use serde_json::Value;
use tokio::time::{sleep, timeout};

use super::super::EventStream;

#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) kind: String,
    pub(crate) id: Option<String>,
    pub(crate) data: Value,
}

impl Event {
    /// Parses the events of a frame. A frame has whole events. Comments are left out.
    pub(crate) fn parse_all(text: &str) -> Vec<Self> {
        // A carriage return ends a line, too.
        assert!(!text.contains('\r'), "{text:?}");
        let text = text.strip_suffix("\n\n").unwrap_or_else(|| panic!("{text:?} is not complete"));
        text.split("\n\n").filter(|event| *event != ":").map(Self::parse).collect()
    }

    fn parse(text: &str) -> Self {
        let mut lines: Vec<_> = text.split('\n').map(|line| line.split_once(": ").unwrap()).collect();
        let ("data", data) = lines.pop().unwrap() else { panic!("{text:?}") };
        let ("event", kind) = lines.remove(0) else { panic!("{text:?}") };
        let id = lines.pop().map(|(field, id)| {
            assert_eq!(field, "id", "{text:?}");
            id.to_owned()
        });
        assert!(lines.is_empty(), "{text:?}");
        Self { kind: kind.to_owned(), id, data: serde_json::from_str(data).unwrap() }
    }
}

pub(crate) fn kinds(events: &[Event]) -> Vec<&str> {
    events.iter().map(|event| event.kind.as_str()).collect()
}

pub(crate) struct Client {
    stream: Pin<Box<EventStream>>,
    /// Events of the last frame.
    pending: std::vec::IntoIter<Event>,
}

impl Client {
    pub(crate) fn new(stream: EventStream) -> Self {
        Self { stream: Box::pin(stream), pending: Vec::new().into_iter() }
    }

    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<bytes::Bytes>> {
        self.stream
            .as_mut()
            .poll_frame(context)
            .map(|frame| frame.map(|frame| frame.unwrap().into_data().unwrap()))
    }

    /// Waits for the next frame.
    pub(crate) async fn next_text(&mut self) -> Option<String> {
        let frame = poll_fn(|context| self.poll(context)).await?;
        Some(String::from_utf8(frame.to_vec()).unwrap())
    }

    /// Waits for the next event, for a minute at most.
    pub(crate) async fn next(&mut self) -> Option<Event> {
        let next = async {
            while self.pending.len() == 0 {
                self.pending = Event::parse_all(&self.next_text().await?).into_iter();
            }
            self.pending.next()
        };
        timeout(Duration::from_secs(60), next).await.expect("no event is sent")
    }

    /// Returns the frames that can be read now, without the sampler.
    pub(crate) fn read_texts_now(&mut self) -> Vec<String> {
        let mut texts = Vec::new();
        while let Poll::Ready(Some(frame)) = self.poll(&mut Context::from_waker(Waker::noop())) {
            texts.push(String::from_utf8(frame.to_vec()).unwrap());
        }
        texts
    }

    /// Returns the frames that can be read within 100 ms.
    pub(crate) async fn read_texts(&mut self) -> Vec<String> {
        let mut texts = self.read_texts_now();
        sleep(Duration::from_millis(100)).await;
        texts.extend(self.read_texts_now());
        texts
    }

    /// Returns the events that can be read within 100 ms.
    pub(crate) async fn read(&mut self) -> Vec<Event> {
        let texts = self.read_texts().await;
        let read = texts.iter().flat_map(|text| Event::parse_all(text));
        self.pending.by_ref().chain(read).collect()
    }
}
