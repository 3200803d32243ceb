//! The log events of the agents in one thread.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use tracing::field::{Field, Visit};
use tracing::subscriber::{DefaultGuard, set_default};
use tracing::{Dispatch, Level};

/// Records the events of `tower_breaker_fleet`.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<Event>>>);

#[derive(Clone, Debug)]
struct Event {
    level: Level,
    fields: BTreeMap<&'static str, String>,
}

impl Log {
    /// Records the events of this thread until the guard is dropped.
    pub(crate) fn begin() -> (Self, DefaultGuard) {
        // While there is only one dispatcher, `tracing` disables a callsite for all threads if it
        // is disabled in the first thread that reaches it.
        static OTHERS: LazyLock<[Dispatch; 2]> =
            LazyLock::new(|| [(); 2].map(|()| Dispatch::new(Log::default())));
        LazyLock::force(&OTHERS);
        let log = Self::default();
        let guard = set_default(log.clone());
        (log, guard)
    }

    /// Returns the texts of all fields of the events of a level.
    pub(crate) fn of(&self, level: Level) -> Vec<String> {
        let events = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let events = events.iter().filter(|event| event.level == level);
        events.map(|event| event.fields.values().map(String::as_str).collect::<Vec<_>>().join("; ")).collect()
    }
}

impl Visit for Event {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.fields.insert(field.name(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.fields.insert(field.name(), value.to_owned());
    }
}

impl tracing::Subscriber for Log {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target() == "tower_breaker_fleet"
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut recorded = Event { level: *event.metadata().level(), fields: BTreeMap::new() };
        event.record(&mut recorded);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(recorded);
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}
