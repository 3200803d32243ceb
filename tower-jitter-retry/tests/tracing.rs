//! The events for `tracing`.
//!
//! The test runs alone in its process, because `tracing` keeps one decision per event for all
//! threads. A test without a subscriber on another thread would turn the events off.
#![cfg(feature = "tracing")]

#[path = "it/support.rs"]
mod support;

use std::fmt::{Debug, Write};
use std::io;
use std::sync::{Arc, Mutex};

use http::{Method, Request};
use tower::{Layer, service_fn};
use tower_jitter_retry::JitterRetryLayer;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use support::{block_on, immediate, request, response, send};

#[derive(Clone, Default)]
struct RecordedEvents(Arc<Mutex<Vec<String>>>);

struct Fields(String);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if ["message", "policy", "http.request.resend_count", "error.type", "retry.reason"]
            .contains(&field.name())
        {
            let _ = write!(self.0, "{}={value:?} ", field.name());
        }
    }
}

impl Subscriber for RecordedEvents {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("tower_jitter_retry")
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields(String::new());
        event.record(&mut fields);
        self.0.lock().unwrap().push(fields.0);
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// The events of retries and of their end, with their fields.
#[test]
fn tracing_events_carry_resend_count_and_reason() {
    let events = RecordedEvents::default();
    tracing::subscriber::with_default(events.clone(), || {
        let mut service = JitterRetryLayer::new(immediate().name("search").build().unwrap())
            .layer(service_fn(async |_: Request<String>| Ok::<_, io::Error>(response(503))));
        block_on(send(&mut service, request(Method::GET))).unwrap();
    });
    let events = events.0.lock().unwrap();
    let expected = [
        "message=retry policy=\"search\" http.request.resend_count=1 error.type=\"unavailable\" ",
        "message=retry policy=\"search\" http.request.resend_count=2 error.type=\"unavailable\" ",
        "message=no retry policy=\"search\" retry.reason=\"attempts\" error.type=\"unavailable\" ",
    ];
    assert_eq!(*events, expected);
}
