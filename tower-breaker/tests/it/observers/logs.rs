//! The events of `tracing`.

use std::sync::LazyLock;

use tracing::Dispatch;

use super::*;

/// A subscriber that records the events of this crate.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<Event>>>);

#[derive(Clone, Debug)]
struct Event {
    level: tracing::Level,
    fields: HashMap<&'static str, String>,
}

impl Event {
    fn field(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", String::as_str)
    }

    fn contains(&self, word: &str) -> bool {
        self.fields.values().any(|value| value.contains(word))
    }
}

struct Fields(HashMap<&'static str, String>);

impl tracing::field::Visit for Fields {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn fmt::Debug) {
        let mut text = String::new();
        write!(text, "{value:?}").unwrap();
        self.0.insert(field.name(), text);
    }

    fn record_str(&mut self, field: &tracing::field::Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
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
        let mut fields = Fields(HashMap::new());
        event.record(&mut fields);
        if event.metadata().target().starts_with("tower_breaker") {
            self.0.lock().unwrap().push(Event { level: *event.metadata().level(), fields: fields.0 });
        }
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

fn logged(work: impl FnOnce()) -> Vec<Event> {
    // While there is only one dispatcher, `tracing` asks the dispatcher of the thread that reaches
    // a callsite first. If that is the thread of another test, without a dispatcher, the callsite
    // is off for this thread, too. With more dispatchers, it asks them all.
    static OTHERS: LazyLock<[Dispatch; 2]> =
        LazyLock::new(|| [(); 2].map(|()| Dispatch::new(Log::default())));
    LazyLock::force(&OTHERS);

    let log = Log::default();
    tracing::subscriber::with_default(log.clone(), work);
    log.0.lock().unwrap().drain(..).collect()
}

/// Returns the logged events other than failures.
fn logged_changes(work: impl FnOnce()) -> Vec<Event> {
    let events = logged(work).into_iter();
    events.filter(|event| event.field("message") != "call failed").collect()
}

#[test]
fn transition_is_one_event_with_level_states_and_reason() {
    let (circuit, time) = circuit(config().name("search"));
    let events = logged_changes(|| {
        send(&circuit, 5, FAILURE);
        time.advance(OPEN_FOR);
        send(&circuit, 2, Verdict::Success);
    });
    assert_eq!(events.len(), 3, "{events:?}");
    let levels: Vec<_> = events.iter().map(|event| event.level).collect();
    assert_eq!(levels, [tracing::Level::WARN, tracing::Level::INFO, tracing::Level::INFO]);
    for (event, (from, to, reason)) in events.iter().zip([OPENS, HALF_OPENS, CLOSES]) {
        assert_eq!(event.field("circuit"), "search", "{event:?}");
        assert_eq!((event.field("from"), event.field("to")), (from.as_str(), to.as_str()), "{event:?}");
        assert_eq!(event.field("reason"), reason.as_str(), "{event:?}");
    }
    assert_eq!(events.iter().map(|event| event.field("epoch")).collect::<Vec<_>>(), ["1", "2", "3"]);
    assert!(events[0].contains("overloaded"), "the event has the fault: {:?}", events[0]);
}

#[test]
fn manual_override_is_warned_about_only_if_it_opens() {
    let (circuit, _time) = circuit(config());
    let events = logged(|| {
        circuit.force_open().unwrap();
        circuit.force_closed().unwrap();
        circuit.release();
        circuit.trip().unwrap();
        circuit.reset().unwrap();
    });
    let levels: Vec<_> = events.iter().map(|event| (event.field("to"), event.level)).collect();
    let (info, warn) = (tracing::Level::INFO, tracing::Level::WARN);
    let expected =
        [("forced_open", warn), ("forced_closed", info), ("closed", info), ("open", warn), ("closed", info)];
    assert_eq!(levels, expected);
}

#[test]
fn rejection_is_one_debug_event_with_circuit_and_state() {
    let (circuit, _time) = circuit(config().name("search"));
    circuit.trip().unwrap();
    let events = logged(|| (0..3).for_each(|_| drop(circuit.try_acquire().unwrap_err())));
    assert_eq!(events.len(), 3, "{events:?}");
    for event in events {
        assert_eq!((event.level, event.field("circuit")), (tracing::Level::DEBUG, "search"), "{event:?}");
        assert_eq!(event.field("state"), "open", "{event:?}");
    }
    circuit.reset().unwrap();
    assert!(logged(|| send(&circuit, 4, Verdict::Success)).is_empty(), "successes are not logged");
}

#[test]
fn failure_is_one_debug_event_with_fault_and_state() {
    let (circuit, time) = circuit(config().name("search"));
    let events = logged(|| {
        send(&circuit, 5, FAILURE);
        time.advance(OPEN_FOR);
        send(&circuit, 1, NEUTRAL);
        send(&circuit, 1, FAILURE);
    });
    let failures: Vec<_> = events.iter().filter(|event| event.field("message") == "call failed").collect();
    assert_eq!(failures.len(), 6, "{events:?}");
    for (number, event) in (1..).zip(&failures[..5]) {
        assert_eq!(
            (event.field("state"), event.field("consecutive_failures")),
            ("closed", &*number.to_string())
        );
    }
    let probe = failures[5];
    assert_eq!((probe.field("state"), probe.field("consecutive_failures")), ("half_open", "6"));
    for event in failures {
        assert_eq!((event.level, event.field("circuit")), (tracing::Level::DEBUG, "search"), "{event:?}");
        assert_eq!(
            (event.field("error.type"), event.field("fault.origin")),
            ("overloaded", "remote"),
            "{event:?}"
        );
    }
}

#[test]
fn keyed_failure_event_has_key() {
    let (each, _time) = timed(config().name("tenants"));
    let layer = KeyedBreakerLayer::<_, _>::new(KeyedConfig::builder(each).build().unwrap(), by_number);
    let mut service = layer.layer(service_fn(respond));
    let events = logged(|| drop(call_once(&mut service, (4_711, true))));
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!((events[0].field("message"), events[0].field("key")), ("call failed", "4711"));
}

#[test]
fn service_logs_rejection_once() {
    let (each, _time) = timed(config().name("single"));
    let layer: BreakerLayer = BreakerLayer::new(each);
    layer.circuit().trip().unwrap();
    let mut service = layer.layer(service_fn(respond));
    let events = logged(|| drop(call_once(&mut service, (0, false)).unwrap_err()));
    assert_eq!((events.len(), events[0].level), (1, tracing::Level::DEBUG), "{events:?}");
}

#[test]
fn keyed_events_have_key() {
    let (each, _time) = timed(config().name("tenants"));
    let layer = KeyedBreakerLayer::<_, _>::new(KeyedConfig::builder(each).build().unwrap(), by_number);
    let mut service = layer.layer(service_fn(respond));
    let events = logged_changes(|| (0..6).for_each(|_| drop(call_once(&mut service, (4_711, true)))));
    let levels: Vec<_> = events.iter().map(|event| event.level).collect();
    assert_eq!(levels, [tracing::Level::WARN, tracing::Level::DEBUG], "{events:?}");
    for event in events {
        assert_eq!(event.field("circuit"), "tenants", "{event:?}");
        assert!(event.contains("4711"), "{event:?}");
    }
}

#[test]
fn observe_only_logs_would_be_rejections() {
    let (circuit, _time) = circuit(config().mode(Mode::ObserveOnly));
    let events = logged_changes(|| {
        send(&circuit, 5, FAILURE);
        send(&circuit, 2, Verdict::Success);
    });
    let levels: Vec<_> = events.iter().map(|event| event.level).collect();
    assert_eq!(levels, [tracing::Level::WARN, tracing::Level::DEBUG, tracing::Level::DEBUG], "{events:?}");
}
