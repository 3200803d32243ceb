//! The events of `tracing`.

use std::fmt::Write;
use std::sync::{Arc, LazyLock, Mutex};

use tracing::Dispatch;

use super::*;

/// A subscriber that records the levels and texts of the fleet's events.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<(tracing::Level, String)>>>);

struct Text(String);

impl tracing::field::Visit for Text {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        // Writing to a string does not fail.
        let _ = write!(self.0, "{}={value:?} ", field.name());
    }
}

impl tracing::Subscriber for Log {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        if event.metadata().target() == "tower_breaker_fleet" {
            let mut text = Text(String::new());
            event.record(&mut text);
            self.0.lock().unwrap().push((*event.metadata().level(), text.0));
        }
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

#[tokio::test(start_paused = true)]
async fn loss_of_the_store_is_logged_once() {
    // With one dispatcher only, a callsite is off if a thread without a dispatcher reaches it
    // first.
    static OTHERS: LazyLock<[Dispatch; 2]> =
        LazyLock::new(|| [(); 2].map(|()| Dispatch::new(Log::default())));
    LazyLock::force(&OTHERS);
    let log = Log::default();
    let _guard = tracing::subscriber::set_default(log.clone());

    let fleet = Processes::start(1).await;
    sleep(seconds(10)).await;
    assert!(log.0.lock().unwrap().is_empty(), "a healthy fleet is silent");
    for _ in 0..2 {
        fleet.store.set_availability(Availability::Failing);
        sleep(seconds(60)).await;
        let events = std::mem::take(&mut *log.0.lock().unwrap());
        assert_eq!(events.len(), 1, "{events:?}");
        let (level, text) = &events[0];
        assert_eq!(*level, tracing::Level::WARN);
        assert!(text.contains("the memory store fails") && text.contains("\"default\""), "{text}");

        fleet.store.set_availability(Availability::Available);
        // Up to 5 s until the next attempt to connect, and up to 6 s until the next heartbeat.
        sleep(seconds(15)).await;
        let events = std::mem::take(&mut *log.0.lock().unwrap());
        assert_eq!(events.len(), 1, "{events:?}");
        assert_eq!(events[0].0, tracing::Level::INFO);
    }
}
