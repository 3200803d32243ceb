//! The events for `tracing`.
//!
//! The test runs alone in its process, because `tracing` keeps one decision per event for all
//! threads. A test without a subscriber on another thread would turn the events off.
#![cfg(feature = "tracing")]

use std::convert::Infallible;
use std::fmt::{Debug, Write};
use std::future::ready;
use std::sync::{Arc, Mutex};

use http::{Request, Response};
use tower::{ServiceBuilder, ServiceExt, service_fn};
use tower_fault_classify::FaultClassifyLayer;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

#[derive(Clone, Default)]
struct RecordedEvents(Arc<Mutex<Vec<String>>>);

struct Fields(String);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if ["message", "layer", "error.type", "http.response.status_code"].contains(&field.name()) {
            let _ = write!(self.0, "{}={value:?} ", field.name());
        }
    }
}

impl Subscriber for RecordedEvents {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "tower_fault_classify"
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

/// The events of faults, with the name of the layer that found them.
#[test]
fn tracing_event_carries_name_of_layer_and_fault() {
    let events = RecordedEvents::default();
    tracing::subscriber::with_default(events.clone(), || {
        for layer in [FaultClassifyLayer::new(), FaultClassifyLayer::new().name("search")] {
            let service = ServiceBuilder::new().layer(layer).service(service_fn(|_: Request<()>| {
                let response = Response::builder().status(503).body(()).unwrap();
                ready(Ok::<_, Infallible>(response))
            }));
            tokio_test::block_on(service.oneshot(Request::new(()))).unwrap();
        }
    });
    let fault = "error.type=\"unavailable\" http.response.status_code=503";
    let expected = ["classify", "search"].map(|name| format!("message=fault layer={name:?} {fault} "));
    assert_eq!(*events.0.lock().unwrap(), expected);
}
