//! The audit as events of `tracing`.

use std::fmt::Write;
use std::sync::{Arc, Mutex};

use super::harness::*;

/// A subscriber that records the levels and texts of the events.
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
        if event.metadata().target() == "tower_breaker_admin" {
            let mut text = Text(String::new());
            event.record(&mut text);
            self.0.lock().unwrap().push((*event.metadata().level(), text.0));
        }
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

/// A subscriber that fails.
struct Failing;

impl tracing::Subscriber for Failing {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target() == "tower_breaker_admin"
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, _: &tracing::Event<'_>) {
        panic!("the subscriber fails");
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

#[tokio::test]
async fn panic_of_the_subscriber_does_not_affect_the_response() {
    let (_circuits, admin) = admin();
    let guard = tracing::subscriber::set_default(Failing);
    Call::act(action("search", "trip")).ok(&admin).await;
    drop(guard);
    assert_eq!(last_audit(&admin).await["status"], 200);
}

#[tokio::test]
async fn attempts_are_logged_without_raw_text_and_tokens() {
    let (_circuits, admin) = admin();
    let log = Log::default();
    let guard = tracing::subscriber::set_default(log.clone());
    Call::act(key_action("tenants", "acme", "trip")).ok(&admin).await;
    Call::act(action("no\ncircuit\u{1b}[31m", "trip")).fail(&admin, 404).await;
    Call::act(action("search", "trip")).token("wrong-0123456789abc").fail(&admin, 401).await;
    drop(guard);
    let events = log.0.lock().unwrap();
    assert_eq!(
        events[0],
        (
            tracing::Level::INFO,
            "message=an action was applied id=1 user=\"anna\" circuit=\"tenants\" key=\"acme\" action=\"trip\" \
             scope=\"process\" reason=\"test\" status=200 epoch_before=0 epoch_after=1 "
                .to_owned()
        )
    );
    let (level, text) = &events[1];
    assert_eq!(*level, tracing::Level::WARN);
    assert!(text.contains("circuit=\"no\u{fffd}circuit\u{fffd}[31m\""), "{text}");
    assert!(text.contains("error=\"no circuit is named `no\u{fffd}circuit"), "{text}");
    assert_eq!(events.len(), 3);
    for (_, text) in &*events {
        assert!(!text.contains("0123456789") && !text.contains('\n'), "{text}");
    }
}
