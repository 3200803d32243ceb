//! The metrics: counters and gauges.

use std::sync::Once;

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Level, Metadata, Recorder, SharedString, Unit};

use super::*;

/// A recorder that keeps the values of all instruments, by name and labels, and the names of all
/// described metrics.
#[derive(Clone, Default)]
pub(super) struct Book(Arc<Mutex<HashMap<String, Entry>>>, Arc<Mutex<BTreeSet<String>>>);

#[derive(Clone)]
struct Entry {
    value: Arc<AtomicU64>,
    is_gauge: bool,
}

impl Book {
    fn register(&self, key: &Key, metadata: &Metadata<'_>, is_gauge: bool) -> Arc<AtomicU64> {
        assert_eq!((metadata.target(), metadata.level()), ("tower_breaker", &Level::INFO));
        let mut labels: Vec<_> =
            key.labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
        labels.sort_unstable();
        let name = format!("{}{{{}}}", key.name(), labels.join(","));
        let mut book = self.0.lock().unwrap();
        let entry = book.entry(name).or_insert_with(|| Entry { value: Arc::default(), is_gauge });
        assert_eq!(entry.is_gauge, is_gauge);
        Arc::clone(&entry.value)
    }

    fn describe(&self, key: &KeyName, unit: Option<Unit>, text: &str) {
        assert_eq!(unit, Some(Unit::Count), "{key:?}");
        assert!(text.ends_with('.'), "{text}");
        self.1.lock().unwrap().insert(key.as_str().to_owned());
    }

    /// Returns the value of an instrument. `None`: it is not registered.
    fn find(&self, name: &str) -> Option<i64> {
        let Entry { value, is_gauge } = self.0.lock().unwrap().get(name)?.clone();
        let value = value.load(Ordering::SeqCst);
        Some(if is_gauge { f64::from_bits(value) as i64 } else { i64::try_from(value).unwrap() })
    }

    /// Returns the value of an instrument. 0: it is not registered.
    pub(super) fn count(&self, name: &str) -> i64 {
        self.find(name).unwrap_or_default()
    }

    fn calls(&self, circuit: &str) -> [i64; 4] {
        ["success", "failure", "neutral", "cancelled"].map(|outcome| {
            self.count(&format!("tower_breaker_calls_total{{circuit={circuit},outcome={outcome}}}"))
        })
    }

    /// Returns the gauges of a circuit name: the number of circuits in each of `STATES`.
    pub(super) fn circuits(&self, circuit: &str) -> [Option<i64>; 6] {
        STATES.map(|state| {
            let state = state.as_str();
            self.find(&format!("tower_breaker_circuits{{circuit={circuit},state={state}}}"))
        })
    }

    fn of_circuit(&self, circuit: &str) -> Vec<String> {
        let book = self.0.lock().unwrap();
        let mut names: Vec<_> =
            book.keys().filter(|name| name.contains(&format!("circuit={circuit}"))).cloned().collect();
        names.sort_unstable();
        names
    }
}

const STATES: [CircuitState; 6] = [
    CircuitState::Closed,
    CircuitState::Open,
    CircuitState::HalfOpen,
    CircuitState::ForcedOpen,
    CircuitState::ForcedClosed,
    CircuitState::Disabled,
];

/// Returns the expected gauges: the given numbers, and 0 for all other states.
fn gauges<const N: usize>(expected: [(CircuitState, i64); N]) -> [Option<i64>; 6] {
    STATES.map(|state| {
        let entry = expected.iter().find(|(expected, _)| *expected == state);
        Some(entry.map_or(0, |(_, number)| *number))
    })
}

impl Recorder for Book {
    fn describe_counter(&self, key: KeyName, unit: Option<Unit>, text: SharedString) {
        self.describe(&key, unit, &text);
    }

    fn describe_gauge(&self, key: KeyName, unit: Option<Unit>, text: SharedString) {
        self.describe(&key, unit, &text);
    }

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, metadata: &Metadata<'_>) -> Counter {
        self.register(key, metadata, false).into()
    }

    fn register_gauge(&self, key: &Key, metadata: &Metadata<'_>) -> Gauge {
        self.register(key, metadata, true).into()
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

/// Makes the first registration of the test program, which registers the circuits of all tests.
///
/// A test that creates circuits before it has a recorder calls this function first. Otherwise the
/// recorder of a concurrent test could get its metrics.
pub(super) fn register_first() {
    static FIRST: Once = Once::new();
    FIRST.call_once(|| {
        metrics::with_local_recorder(&Book::default(), || circuit(config().name("first")));
    });
}

/// Runs a test with a recorder. The circuits of each test need unique names, because instruments
/// are registered once for each name.
pub(super) fn with_book<T>(test: impl FnOnce(&Book) -> T) -> T {
    register_first();
    let book = Book::default();
    metrics::with_local_recorder(&book, || test(&book))
}

#[test]
fn state_gauges_exist_from_start_and_return_to_zero() {
    with_book(|book| {
        let (circuit, time) = circuit(config().name("gauged"));
        let assert_state = |state| assert_eq!(book.circuits("gauged"), gauges([(state, 1)]), "{state}");
        assert_state(CircuitState::Closed);
        send(&circuit, 5, FAILURE);
        assert_state(CircuitState::Open);
        time.advance(OPEN_FOR);
        let probe = circuit.try_acquire().unwrap();
        assert_state(CircuitState::HalfOpen);
        probe.record(FAILURE);
        assert_state(CircuitState::Open);
        time.advance(OPEN_FOR);
        send(&circuit, 2, Verdict::Success);
        assert_state(CircuitState::Closed);
        circuit.force_open().unwrap();
        assert_state(CircuitState::ForcedOpen);
        circuit.force_closed().unwrap();
        assert_state(CircuitState::ForcedClosed);
        circuit.force_closed().unwrap();
        assert_state(CircuitState::ForcedClosed);
        circuit.release();
        assert_state(CircuitState::Closed);
        circuit.reset().unwrap();
        assert_state(CircuitState::Closed);
        drop(circuit);
        assert_eq!(book.circuits("gauged"), gauges([]));
    });
}

#[test]
fn disabled_circuit_has_disabled_gauge() {
    with_book(|book| {
        let (clock, _time) = Clock::manual();
        let config = |mode| config().name("switched").mode(mode).clock(clock).build().unwrap();
        let circuit = Circuit::new(config(Mode::Disabled));
        assert_eq!(book.circuits("switched"), gauges([(CircuitState::Disabled, 1)]));
        circuit.reconfigure(config(Mode::Enforce)).unwrap();
        assert_eq!(book.circuits("switched"), gauges([(CircuitState::Closed, 1)]));
        circuit.reconfigure(config(Mode::Disabled)).unwrap();
        assert_eq!(book.circuits("switched"), gauges([(CircuitState::Disabled, 1)]));
    });
}

#[test]
fn metrics_of_one_name_are_summed() {
    with_book(|book| {
        let circuits: Vec<_> = (0..3).map(|_| circuit(config().name("many")).0).collect();
        let (other, _time) = circuit(config().name("another"));
        circuits[0].trip().unwrap();
        let (closed, open) = (CircuitState::Closed, CircuitState::Open);
        assert_eq!(book.circuits("many"), gauges([(closed, 2), (open, 1)]));
        assert_eq!(book.circuits("another"), gauges([(closed, 1)]));
        drop(circuits);
        assert_eq!(book.circuits("many"), gauges([]));
        drop(other);
        let _again = circuit(config().name("many"));
        assert_eq!(
            book.circuits("many"),
            gauges([(closed, 1)]),
            "a later circuit of the same name is counted"
        );
        assert_eq!(book.circuits("another"), gauges([]));
    });
}

#[test]
fn calls_are_counted_by_outcome() {
    with_book(|book| {
        let (circuit, time) = circuit(config().name("called").failure_rate(None));
        send(&circuit, 3, Verdict::Success);
        send(&circuit, 4, NEUTRAL);
        send(&circuit, 2, FAILURE);
        (0..6).for_each(|_| drop(circuit.try_acquire().unwrap()));
        circuit.try_acquire().unwrap().cancel();
        assert_eq!(book.calls("called"), [3, 2, 4, 6], "a call that never began is not counted");
        let panicked =
            AssertUnwindSafe(|| circuit.call_blocking(|| -> Result<(), io::Error> { panic!("inner") }));
        assert!(catch_unwind(panicked).is_err());
        assert_eq!(book.calls("called"), [3, 3, 4, 6], "a panic is a failure");
        send(&circuit, 2, FAILURE);
        time.advance(OPEN_FOR);
        send(&circuit, 2, Verdict::Success);
        assert_eq!(book.calls("called"), [5, 5, 4, 6], "probes are calls");
    });
}

#[test]
fn failure_of_retry_has_outcome_of_its_own_if_not_counted() {
    with_book(|book| {
        let failed_retries =
            |name| book.count(&format!("tower_breaker_calls_total{{circuit={name},outcome=failed_retry}}"));
        let (circuit, time) = circuit(config().name("retried"));
        let retry = |circuit: &Circuit, verdict| {
            circuit.try_acquire().unwrap().retry().record(verdict);
        };
        (0..7).for_each(|_| retry(&circuit, FAILURE));
        retry(&circuit, Verdict::Success);
        retry(&circuit, NEUTRAL);
        assert_eq!((book.calls("retried"), failed_retries("retried")), ([1, 0, 1, 0], 7));
        send(&circuit, 5, FAILURE);
        time.advance(OPEN_FOR);
        retry(&circuit, FAILURE);
        assert_eq!((book.calls("retried")[1], failed_retries("retried")), (6, 7), "a failed probe counts");

        let (counting, _time) = self::circuit(config().name("counts retries").count_failed_retries(true));
        retry(&counting, FAILURE);
        assert_eq!((book.calls("counts retries")[1], failed_retries("counts retries")), (1, 0));
    });
}

#[test]
fn recorded_outcome_is_counted_unless_ignored() {
    with_book(|book| {
        let (circuit, time) = circuit(config().name("recorded").successes_to_close(2));
        circuit.record(Verdict::Success);
        circuit.record(NEUTRAL);
        (0..5).for_each(|_| circuit.record(FAILURE));
        assert_eq!(book.calls("recorded"), [1, 5, 1, 0]);
        (0..5).for_each(|_| circuit.record(FAILURE));
        assert_eq!(book.calls("recorded"), [1, 5, 1, 0], "the circuit is open");
        time.advance(OPEN_FOR);
        circuit.record(Verdict::Success);
        assert_eq!(book.calls("recorded"), [2, 5, 1, 0]);
    });
}

#[test]
fn call_that_ends_after_transition_is_counted() {
    with_book(|book| {
        let (circuit, _time) = circuit(config().name("late calls"));
        let permits: Vec<_> = (0..3).map(|_| circuit.try_acquire().unwrap()).collect();
        circuit.trip().unwrap();
        for permit in permits {
            permit.record(FAILURE);
        }
        assert_eq!(book.calls("late calls"), [0, 3, 0, 0]);
    });
}

#[test]
fn call_through_forced_closed_circuit_is_counted() {
    with_book(|book| {
        let (circuit, _time) = circuit(config().name("manual"));
        circuit.force_closed().unwrap();
        send(&circuit, 3, FAILURE);
        send(&circuit, 2, Verdict::Success);
        assert_eq!(book.calls("manual"), [2, 3, 0, 0]);
    });
}

#[test]
fn slow_calls_are_counted_regardless_of_outcome() {
    with_book(|book| {
        let (circuit, time) = circuit(config().name("slow").slow_call_rate(SECOND, 1.0).minimum_calls(100));
        for (verdict, millis) in [(Verdict::Success, 1_000), (FAILURE, 2_000), (Verdict::Success, 999)] {
            let permit = circuit.try_acquire().unwrap();
            time.advance(Duration::from_millis(millis));
            permit.record(verdict);
        }
        assert_eq!(book.count("tower_breaker_slow_calls_total{circuit=slow}"), 2);
        assert_eq!(book.calls("slow"), [2, 1, 0, 0]);
    });
}

#[test]
fn rejections_are_counted_by_state_and_not_as_calls() {
    with_book(|book| {
        let (circuit, time) = circuit(config().name("rejects"));
        let rejections = |state: CircuitState| {
            let state = state.as_str();
            book.count(&format!("tower_breaker_rejections_total{{circuit=rejects,state={state}}}"))
        };
        let reject = |times: usize| (0..times).for_each(|_| drop(circuit.try_acquire().unwrap_err()));
        circuit.trip().unwrap();
        reject(3);
        time.advance(OPEN_FOR);
        let probes: Vec<_> = (0..3).map(|_| circuit.try_acquire().unwrap()).collect();
        reject(5);
        probes.into_iter().for_each(tower_breaker::Permit::cancel);
        circuit.force_open().unwrap();
        reject(7);
        let by_state = STATES.map(rejections);
        assert_eq!(by_state, [0, 3, 5, 7, 0, 0]);
        assert_eq!(book.calls("rejects"), [0, 0, 0, 0]);
    });
}

#[test]
fn observe_only_call_is_counted_as_call() {
    with_book(|book| {
        let (circuit, _time) = circuit(config().name("observes").mode(Mode::ObserveOnly));
        send(&circuit, 5, FAILURE);
        send(&circuit, 3, FAILURE);
        send(&circuit, 2, Verdict::Success);
        assert_eq!(book.calls("observes"), [2, 8, 0, 0]);
    });
}

#[test]
fn service_counts_call_and_rejection_once() {
    with_book(|book| {
        let (config, _time) = timed(config().name("served"));
        let layer: BreakerLayer = BreakerLayer::new(config);
        let mut service = layer.layer(service_fn(respond));
        (0..3).for_each(|_| drop(call_once(&mut service, (0, false))));
        (0..5).for_each(|_| drop(call_once(&mut service, (0, true))));
        (0..7).for_each(|_| drop(call_once(&mut service, (0, true))));
        assert_eq!(book.calls("served"), [3, 5, 0, 0]);
        assert_eq!(book.count("tower_breaker_rejections_total{circuit=served,state=open}"), 7);
    });
}

#[test]
fn transitions_are_counted_by_states_and_reason() {
    with_book(|book| {
        let (circuit, time) = circuit(config().name("changes"));
        let transitions = |(from, to, reason): Step| {
            let (from, to, reason) = (from.as_str(), to.as_str(), reason.as_str());
            let labels = format!("circuit=changes,from={from},reason={reason},to={to}");
            book.count(&format!("tower_breaker_transitions_total{{{labels}}}"))
        };
        for round in 1..=3 {
            send(&circuit, 5, FAILURE);
            time.advance(OPEN_FOR);
            send(&circuit, 2, Verdict::Success);
            assert_eq!([OPENS, HALF_OPENS, CLOSES].map(transitions), [round; 3]);
        }
        circuit.trip().unwrap();
        circuit.trip().unwrap();
        let tripped = (CircuitState::Closed, CircuitState::Open, Reason::Tripped);
        assert_eq!([tripped, OPENS].map(transitions), [1, 3], "a second `trip` is no transition");
    });
}

#[test]
fn keyed_metrics_are_shared_and_count_evictions_and_overflows() {
    with_book(|book| {
        let (each, time) = timed(config().name("keyed"));
        let config = KeyedConfig::builder(each).max_keys(4).build().unwrap();
        let layer = KeyedBreakerLayer::<_, _>::new(config, by_number);
        let mut service = layer.layer(service_fn(respond));
        let (closed, open) = (CircuitState::Closed, CircuitState::Open);
        // Circuits that have just failed are kept.
        (0..4).for_each(|key| drop(call_once(&mut service, (key, key > 1))));
        (0..5).for_each(|_| drop(call_once(&mut service, (0, true))));
        (0..5).for_each(|_| drop(call_once(&mut service, (1, true))));
        call_once(&mut service, (1, false)).unwrap_err();
        assert_eq!(book.circuits("keyed"), gauges([(closed, 2), (open, 2)]));
        assert_eq!(book.calls("keyed"), [2, 12, 0, 0]);
        assert_eq!(book.count("tower_breaker_rejections_total{circuit=keyed,state=open}"), 1);
        (10..13).for_each(|key| drop(call_once(&mut service, (key, false))));
        assert_eq!(book.count("tower_breaker_overflows_total{circuit=keyed}"), 3);
        assert_eq!(book.count("tower_breaker_evictions_total{circuit=keyed}"), 0);
        time.advance(3 * OPEN_FOR);
        (20..24).for_each(|key| drop(call_once(&mut service, (key, false))));
        assert_eq!(book.count("tower_breaker_evictions_total{circuit=keyed}"), 4);
        assert_eq!((layer.circuits().evicted(), layer.circuits().overflowed()), (4, 3));
        let in_state = |number: usize| book.circuits("keyed")[number].unwrap();
        assert_eq!([0, 1, 2].map(in_state), [4, 0, 0], "an evicted circuit is in no gauge");
        let names = book.of_circuit("keyed");
        assert!(!names.iter().any(|name| name.contains("key=") || name.contains("20")), "{names:?}");
        drop((service, layer));
        assert_eq!(book.circuits("keyed"), gauges([]));
    });
}

#[test]
fn unguarded_call_creates_no_circuit() {
    with_book(|book| {
        let (each, _time) = timed(config().name("phantom"));
        let config = KeyedConfig::builder(each).max_keys(1).build().unwrap();
        let layer = KeyedBreakerLayer::<_, _>::new(config, by_number);
        let mut service = layer.layer(service_fn(respond));
        (0..3).for_each(|key| drop(call_once(&mut service, (key, true))));
        assert_eq!((layer.circuits().len(), layer.circuits().overflow().is_none()), (1, true));
        assert_eq!(book.circuits("phantom"), gauges([(CircuitState::Closed, 1)]));
    });
}

#[test]
fn overflow_calls_are_counted_only_on_shared_circuit() {
    with_book(|book| {
        for (name, overflow) in [("unguarded", Overflow::Unguarded), ("shared", Overflow::Shared)] {
            let (each, _time) = timed(config().name(name));
            let config = KeyedConfig::builder(each).max_keys(1).overflow(overflow).build().unwrap();
            let mut service = KeyedBreakerLayer::<_, _>::new(config, by_number).layer(service_fn(respond));
            (0..6).for_each(|key| drop(call_once(&mut service, (key, true))));
            assert_eq!(book.calls(name), [0, 6, 0, 0], "{name}");
            let expected = if name == "shared" { CircuitState::Open } else { CircuitState::Closed };
            assert_eq!(
                book.circuits(name)[STATES.iter().position(|state| *state == expected).unwrap()],
                Some(1),
                "{name}"
            );
        }
    });
}

#[test]
fn metrics_have_exactly_documented_labels() {
    with_book(|book| {
        let (circuit, _time) = circuit(config().name("labelled").slow_call_rate(SECOND, 1.0));
        send(&circuit, 5, FAILURE);
        circuit.try_acquire().unwrap_err();
        let shapes: BTreeSet<_> = book.of_circuit("labelled").iter().map(|name| shape(name)).collect();
        let allowed = BTreeSet::from([
            "tower_breaker_circuits circuit state".to_owned(),
            "tower_breaker_calls_total circuit outcome".to_owned(),
            "tower_breaker_slow_calls_total circuit".to_owned(),
            "tower_breaker_rejections_total circuit state".to_owned(),
            "tower_breaker_transitions_total circuit from reason to".to_owned(),
        ]);
        assert_eq!(shapes, allowed, "a circuit without a key has no metrics of maps");
        let described = book.1.lock().unwrap();
        for shape in allowed {
            assert!(described.contains(shape.split(' ').next().unwrap()), "{shape}");
        }
    });
}

/// Returns the name of a metric and the keys of its labels.
fn shape(metric: &str) -> String {
    let (name, labels) = metric.trim_end_matches('}').split_once('{').unwrap();
    let keys = labels.split(',').map(|label| label.split_once('=').unwrap().0);
    std::iter::once(name).chain(keys).collect::<Vec<_>>().join(" ")
}

#[test]
fn permit_of_ended_circuit_is_not_counted_under_next_name() {
    with_book(|book| {
        let (clock, time) = Clock::manual();
        time.set(Duration::from_secs(1_000));
        let named = |name| {
            let config = config().name(name).clock(clock).slow_call_rate(SECOND, 1.0).build();
            Circuit::new(config.unwrap())
        };
        let circuit = named("ended");
        let permits = [(); 4].map(|()| circuit.try_acquire().unwrap());
        circuit.force_closed().unwrap();
        let uncounted = [(); 2].map(|()| circuit.try_acquire().unwrap());
        drop(circuit);
        let _next = named("not ended");
        time.advance(2 * SECOND);
        let [success, failure, neutral, cancelled] = permits;
        success.record(Verdict::Success);
        failure.record(FAILURE);
        neutral.record(NEUTRAL);
        drop(cancelled);
        let [success, cancelled] = uncounted;
        success.record(Verdict::Success);
        drop(cancelled);
        assert_eq!(book.calls("not ended"), [0; 4]);
        assert_eq!(book.count("tower_breaker_slow_calls_total{circuit=not ended}"), 0);
        assert_eq!(book.circuits("ended"), gauges([]));
        assert_eq!(book.circuits("not ended"), gauges([(CircuitState::Closed, 1)]));
    });
}

#[test]
fn recorder_installed_late_is_used_from_next_event() {
    register_first();
    let (circuit, _time) = circuit(config().name("late recorder"));
    circuit.trip().unwrap();
    with_book(|book| {
        assert!(book.of_circuit("late recorder").is_empty());
        circuit.reset().unwrap();
        assert_eq!(book.circuits("late recorder"), gauges([(CircuitState::Closed, 1)]));
        circuit.trip().unwrap();
        assert_eq!(book.circuits("late recorder"), gauges([(CircuitState::Open, 1)]));
        drop(circuit);
        assert_eq!(book.circuits("late recorder"), gauges([]));
    });
}

#[test]
fn late_recorder_counts_all_existing_circuits_of_name() {
    register_first();
    let circuits: Vec<_> = (0..3).map(|_| circuit(config().name("late many")).0).collect();
    let (each, _time) = timed(config().name("late many"));
    let config = KeyedConfig::builder(each).build().unwrap();
    let layer = KeyedBreakerLayer::<_, _>::new(config, by_number);
    let mut service = layer.layer(service_fn(respond));
    (0..2).for_each(|key| drop(call_once(&mut service, (key, false))));
    (0..5).for_each(|_| drop(call_once(&mut service, (7, true))));
    circuits[0].trip().unwrap();
    let (closed, open) = (CircuitState::Closed, CircuitState::Open);
    with_book(|book| {
        send(&circuits[1], 1, Verdict::Success);
        assert_eq!(book.calls("late many"), [1, 0, 0, 0]);
        assert_eq!(book.circuits("late many"), gauges([(closed, 4), (open, 2)]));
        drop((service, layer, circuits));
        assert_eq!(book.circuits("late many"), gauges([]));
    });
}

#[test]
fn reconfigure_to_disabled_counts_once_with_late_recorder() {
    register_first();
    let (clock, _time) = Clock::manual();
    let config = |mode| config().name("late and disabled").mode(mode).clock(clock).build().unwrap();
    let circuit = Circuit::new(config(Mode::Enforce));
    with_book(|book| {
        circuit.reconfigure(config(Mode::Disabled)).unwrap();
        assert_eq!(book.circuits("late and disabled"), gauges([(CircuitState::Disabled, 1)]));
    });
}

/// A recorder without fields. All its counters of calls are one counter.
struct Fieldless;

static COUNTED: AtomicU64 = AtomicU64::new(0);

impl Recorder for Fieldless {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        struct Counts;
        impl metrics::CounterFn for Counts {
            fn increment(&self, value: u64) {
                COUNTED.fetch_add(value, Ordering::Relaxed);
            }
            fn absolute(&self, _: u64) {}
        }
        if key.name() == "tower_breaker_calls_total" {
            Counter::from_arc(Arc::new(Counts))
        } else {
            Counter::noop()
        }
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

#[test]
fn recorder_of_zero_size_works() {
    static RECORDER: Fieldless = Fieldless;
    let on_stack = Fieldless;
    let recorders: [(&str, &dyn Recorder); 3] =
        [("variable", &on_stack), ("static", &RECORDER), ("temporary", &Fieldless)];
    let name = |lifetime: &str| format!("fieldless {lifetime}");
    for (number, (lifetime, recorder)) in recorders.into_iter().enumerate() {
        let (before, _time) = circuit(config().name(name(lifetime)));
        send(&before, 1, Verdict::Success);
        metrics::with_local_recorder(recorder, || {
            let (circuit, _time) = circuit(config().name(name(lifetime)));
            send(&circuit, 1, Verdict::Success);
        });
        assert_eq!(COUNTED.load(Ordering::Relaxed), number as u64 + 1, "{lifetime}");
    }
}
