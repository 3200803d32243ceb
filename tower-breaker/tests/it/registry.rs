//! The registry of circuits by name: creation, configuration, observers and manual control.

use std::collections::HashSet;
use std::error::Error;
use std::future::{Ready, ready};
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::Duration;

use tokio_test::{assert_ready_err, assert_ready_ok, task};
use tower::{Layer, Service, service_fn};
use tower_breaker::{
    BreakerConfigBuilder, BreakerError, BreakerLayer, Circuit, CircuitRegistry, CircuitState, Clock,
    ControlError, Counts, HealthReport, ManualClock, Mode, Reason, Verdict,
};

use crate::support::{FAILURE, OPEN_FOR, config};

struct Bench {
    registry: CircuitRegistry,
    clock: Clock,
    time: ManualClock,
}

impl Bench {
    fn new(default: BreakerConfigBuilder) -> Self {
        let (clock, time) = Clock::manual();
        time.set(Duration::from_secs(1_000));
        let registry = CircuitRegistry::new(default.clock(clock).build().unwrap());
        Self { registry, clock, time }
    }

    fn configure(&self, config: BreakerConfigBuilder) {
        self.registry.configure(config.clock(self.clock).build().unwrap()).unwrap();
    }

    fn state(&self, name: &str) -> CircuitState {
        self.registry.get(name).expect("the circuit exists").status().state
    }

    fn names(&self) -> Vec<&'static str> {
        self.registry.circuits().iter().map(Circuit::name).collect()
    }
}

fn fail(circuit: &Circuit, times: usize) {
    for _ in 0..times {
        circuit.try_acquire().unwrap().record(FAILURE);
    }
}

#[test]
fn name_returns_same_circuit_from_any_handle() {
    let bench = Bench::new(config());
    let clone = bench.registry.clone();
    fail(&bench.registry.circuit("search"), 2);
    fail(&clone.circuit(String::from("search")), 2);
    let circuit = bench.registry.circuit("search");
    assert_eq!((circuit.name(), circuit.status().consecutive_failures), ("search", 4));
    fail(&clone.get("search").unwrap(), 1);
    assert_eq!(bench.state("search"), CircuitState::Open);
    assert_eq!(circuit.try_acquire().unwrap_err().circuit(), "search");
    assert_eq!(clone.circuit("billing").status().state, CircuitState::Closed);
    assert!(bench.registry.get("Search").is_none());
}

#[test]
fn circuit_without_configuration_has_default_limits() {
    let bench = Bench::new(config().name("the default").consecutive_failures(2));
    for name in ["a", "b"] {
        let circuit = bench.registry.circuit(name);
        fail(&circuit, 1);
        assert_eq!(circuit.status().state, CircuitState::Closed);
        fail(&circuit, 1);
        assert_eq!((circuit.status().state, circuit.status().circuit), (CircuitState::Open, name));
    }
    assert!(bench.registry.get("the default").is_none());
}

#[test]
fn circuit_stays_in_registry_until_removed() {
    let bench = Bench::new(config());
    bench.registry.circuit("a").trip().unwrap();
    assert_eq!(bench.state("a"), CircuitState::Open, "the registry keeps it without another handle");
    let circuit = bench.registry.remove("a").unwrap();
    assert!(bench.registry.get("a").is_none() && bench.registry.remove("a").is_none());
    assert!(circuit.try_acquire().is_err(), "a handle keeps the removed circuit alive");
    let new = bench.registry.circuit("a");
    new.try_acquire().unwrap().record(Verdict::Success);
    circuit.reset().unwrap();
    assert_eq!((new.status().window.calls, circuit.status().window.calls), (1, 0));
}

#[test]
fn removed_name_loses_its_configuration() {
    let bench = Bench::new(config());
    bench.configure(config().name("created").consecutive_failures(1));
    bench.configure(config().name("configured").consecutive_failures(1));
    bench.registry.circuit("created");
    assert!(bench.registry.remove("created").is_some());
    assert!(bench.registry.remove("configured").is_none(), "it was not created yet");
    for name in ["created", "configured"] {
        fail(&bench.registry.circuit(name), 4);
        assert_eq!(bench.state(name), CircuitState::Closed);
    }
}

#[test]
fn circuits_and_statuses_are_sorted_by_name() {
    let bench = Bench::new(config());
    bench.configure(config().name("only configured"));
    for name in ["m", "z", "a", "ab", "A", ""] {
        bench.registry.circuit(name);
    }
    bench.registry.trip("m").unwrap();
    let sorted = ["", "A", "a", "ab", "m", "z"];
    assert_eq!(bench.names(), sorted);
    let statuses = bench.registry.statuses();
    assert_eq!(statuses.iter().map(|status| status.circuit).collect::<Vec<_>>(), sorted);
    let open = statuses.iter().filter(|status| status.state == CircuitState::Open);
    assert_eq!(open.map(|status| status.circuit).collect::<Vec<_>>(), ["m"]);
}

type Operation = fn(&CircuitRegistry, &str) -> Result<(), ControlError>;

#[test]
fn control_of_unknown_name_fails_and_creates_nothing() {
    let bench = Bench::new(config());
    bench.configure(config().name("configured"));
    bench.registry.circuit("billing");
    let operations: [(&str, Operation); 7] = [
        ("trip", CircuitRegistry::trip),
        ("reset", CircuitRegistry::reset),
        ("force_open", CircuitRegistry::force_open),
        ("force_closed", CircuitRegistry::force_closed),
        ("release", CircuitRegistry::release),
        ("critical", |registry, name| registry.report(name, HealthReport::Critical)),
        ("recovered", |registry, name| registry.report(name, HealthReport::Recovered)),
    ];
    for (operation_name, operation) in operations {
        for name in ["biling", "", "configured"] {
            let error = operation(&bench.registry, name).unwrap_err();
            let ControlError::Unknown { circuit, .. } = &error else { panic!("{operation_name}: {error:?}") };
            assert_eq!((&**circuit, error.circuit(), error.state()), (name, name, None), "{operation_name}");
            assert!(error.to_string().contains(&format!("`{name}`")), "{operation_name}: {error}");
        }
        assert_eq!(bench.names(), ["billing"], "{operation_name}");
        assert!(bench.registry.get("biling").is_none() && bench.registry.remove("biling").is_none());
    }
    assert_eq!(bench.state("billing"), CircuitState::Closed);
}

#[test]
fn control_by_name_equals_control_of_circuit() {
    let bench = Bench::new(config());
    let circuit = bench.registry.circuit("a");
    bench.registry.circuit("other");
    let registry = &bench.registry;
    let state = || bench.state("a");
    registry.trip("a").unwrap();
    assert_eq!(
        (state(), circuit.status().last_transition.unwrap().reason),
        (CircuitState::Open, Reason::Tripped)
    );
    registry.reset("a").unwrap();
    assert_eq!(state(), CircuitState::Closed);
    registry.force_open("a").unwrap();
    assert_eq!(state(), CircuitState::ForcedOpen);
    registry.release("a").unwrap();
    assert_eq!(state(), CircuitState::HalfOpen);
    registry.force_closed("a").unwrap();
    assert_eq!(state(), CircuitState::ForcedClosed);
    registry.release("a").unwrap();
    assert_eq!(state(), CircuitState::Closed);
    registry.report("a", HealthReport::Critical).unwrap();
    assert_eq!(state(), CircuitState::Open);
    registry.report("a", HealthReport::Recovered).unwrap();
    assert_eq!(state(), CircuitState::HalfOpen);
    assert!(registry.get("other").unwrap().status().last_transition.is_none());
}

#[test]
fn control_of_forced_or_disabled_circuit_fails() {
    let bench = Bench::new(config());
    bench.registry.circuit("a");
    bench.configure(config().name("off").mode(Mode::Disabled));
    bench.registry.circuit("off");
    bench.registry.force_open("a").unwrap();
    for error in [bench.registry.trip("a").unwrap_err(), bench.registry.reset("a").unwrap_err()] {
        let ControlError::Forced { circuit, state, .. } = error else { panic!("{error}") };
        assert_eq!((circuit, state), ("a", CircuitState::ForcedOpen));
        assert_eq!((error.circuit(), error.state()), ("a", Some(CircuitState::ForcedOpen)));
        assert_eq!(Err(error), bench.registry.circuit("a").trip());
    }
    for error in
        [bench.registry.force_open("off").unwrap_err(), bench.registry.force_closed("off").unwrap_err()]
    {
        let ControlError::Disabled { circuit, .. } = error else { panic!("{error}") };
        assert_eq!((circuit, error.state()), ("off", Some(CircuitState::Disabled)));
    }
    bench.registry.report("a", HealthReport::Recovered).unwrap();
    assert_eq!(bench.state("a"), CircuitState::ForcedOpen, "a report changes nothing, without an error");
    let _: &(dyn Error + Send + Sync) = &bench.registry.trip("a").unwrap_err();
}

#[test]
fn configure_applies_at_creation_or_to_existing_circuit() {
    let bench = Bench::new(config());
    bench.configure(config().name("before").consecutive_failures(1));
    assert!(
        bench.registry.get("before").is_none() && bench.names().is_empty(),
        "`configure` creates no circuit"
    );
    bench.configure(config().name("before").consecutive_failures(3));
    let before = bench.registry.circuit("before");
    fail(&before, 2);
    assert_eq!(before.status().state, CircuitState::Closed, "the last configuration applies");
    fail(&before, 1);
    assert_eq!(before.status().state, CircuitState::Open);

    let after = bench.registry.circuit("after");
    fail(&after, 2);
    bench.configure(config().name("after").consecutive_failures(3));
    assert_eq!(after.status().consecutive_failures, 2, "it is the same circuit");
    fail(&after, 1);
    assert_eq!(after.status().state, CircuitState::Open);

    let other = bench.registry.circuit("other");
    fail(&other, 4);
    assert_eq!(other.status().state, CircuitState::Closed);
}

#[test]
fn configure_with_another_clock_fails_and_changes_nothing() {
    let bench = Bench::new(config());
    let circuit = bench.registry.circuit("a");
    let error = bench
        .registry
        .configure(config().name("a").consecutive_failures(1).clock(Clock::manual().0).build().unwrap());
    assert_eq!(error.unwrap_err().field(), "clock");
    fail(&circuit, 4);
    assert_eq!(circuit.status().state, CircuitState::Closed);
    let (clock, time) = Clock::manual();
    bench.registry.configure(config().name("b").clock(clock).build().unwrap()).unwrap();
    let circuit = bench.registry.circuit("b");
    circuit.trip().unwrap();
    bench.time.advance(OPEN_FOR);
    assert!(circuit.try_acquire().is_err(), "the circuit has the configured clock");
    time.advance(OPEN_FOR);
    assert!(circuit.try_acquire().is_ok());
}

#[test]
fn reset_all_closes_all_but_forced_circuits() {
    let bench = Bench::new(config());
    bench.configure(config().name("off").mode(Mode::Disabled));
    bench.configure(config().name("until reset").open_until_reset(true));
    for name in ["open", "until reset", "half-open", "failing", "forced open", "forced closed", "off"] {
        bench.registry.circuit(name);
    }
    bench.registry.trip("half-open").unwrap();
    bench.time.advance(OPEN_FOR);
    bench.registry.get("half-open").unwrap().try_acquire().unwrap().cancel();
    assert_eq!(bench.state("half-open"), CircuitState::HalfOpen);
    bench.registry.trip("open").unwrap();
    bench.registry.trip("until reset").unwrap();
    fail(&bench.registry.circuit("failing"), 4);
    bench.registry.force_open("forced open").unwrap();
    bench.registry.force_closed("forced closed").unwrap();
    bench.registry.reset_all();
    for name in ["open", "until reset", "half-open", "failing"] {
        let status = bench.registry.circuit(name).status();
        assert_eq!((status.state, status.window), (CircuitState::Closed, Counts::default()), "{name}");
        assert_eq!(status.consecutive_failures, 0, "{name}");
    }
    assert_eq!(bench.state("forced open"), CircuitState::ForcedOpen);
    assert_eq!(bench.state("forced closed"), CircuitState::ForcedClosed);
    assert_eq!(bench.state("off"), CircuitState::Disabled);
}

#[test]
fn observer_is_called_for_existing_and_later_circuits() {
    let bench = Bench::new(config());
    bench.registry.circuit("early");
    let observed = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&observed);
    bench.registry.on_transition(move |transition| {
        assert!(transition.key.is_none());
        sink.lock().unwrap().push((transition.circuit, transition.to));
    });
    bench.registry.circuit("late");
    bench.configure(config().name("configured"));
    for name in ["early", "late", "configured"] {
        fail(&bench.registry.circuit(name), 5);
        assert_eq!(observed.lock().unwrap().drain(..).collect::<Vec<_>>(), [(name, CircuitState::Open)]);
    }
}

#[test]
fn observer_is_called_for_removed_circuit_and_successor() {
    let bench = Bench::new(config());
    let observed = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&observed);
    bench.registry.on_transition(move |transition| sink.lock().unwrap().push(transition.to));
    let old = bench.registry.circuit("a");
    bench.registry.remove("a").unwrap();
    bench.registry.trip("a").unwrap_err();
    bench.registry.circuit("a").trip().unwrap();
    assert_eq!(observed.lock().unwrap().drain(..).collect::<Vec<_>>(), [CircuitState::Open]);
    assert_eq!(old.status().state, CircuitState::Closed);
}

#[test]
fn observer_may_call_registry() {
    let bench = Bench::new(config());
    let registry = bench.registry.clone();
    let runs = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&runs);
    bench.registry.on_transition(move |transition| {
        if transition.circuit == "a" && transition.to == CircuitState::Open {
            assert_eq!(registry.get("a").unwrap().status().state, CircuitState::Open);
            assert_eq!(registry.statuses().len(), 1);
            registry.circuit("fallback").force_closed().unwrap();
            registry.reset("a").unwrap();
            registry.on_transition(|_| {});
            registry.remove("fallback").unwrap();
            count.fetch_add(1, Ordering::Relaxed);
        }
    });
    fail(&bench.registry.circuit("a"), 5);
    assert_eq!((runs.load(Ordering::Relaxed), bench.state("a")), (1, CircuitState::Closed));
}

fn respond(fails: bool) -> Ready<Result<(), io::Error>> {
    ready(if fails { Err(io::ErrorKind::TimedOut.into()) } else { Ok(()) })
}

#[test]
fn layer_over_registry_circuit_uses_that_circuit() {
    let bench = Bench::new(config());
    let layer = || BreakerLayer::with_circuit(bench.registry.circuit("search"));
    let mut one = layer().layer(service_fn(respond));
    let mut two = layer().layer(service_fn(respond));
    let mut call = |fails: bool, first: bool| {
        let service = if first { &mut one } else { &mut two };
        assert_ready_ok!(task::spawn(()).enter(|cx, _| service.poll_ready(cx)));
        task::spawn(service.call(fails))
    };
    for n in 0..5 {
        let mut call = call(true, n % 2 == 0);
        assert!(matches!(assert_ready_err!(call.poll()), BreakerError::Inner(_)));
    }
    assert_eq!(bench.state("search"), CircuitState::Open);
    assert!(matches!(assert_ready_err!(call(false, true).poll()), BreakerError::Rejected(_)));
    bench.registry.reset("search").unwrap();
    assert_ready_ok!(call(false, false).poll());
}

#[test]
fn threads_with_same_names_get_one_circuit_each() {
    for _ in 0..50 {
        let bench = Bench::new(config().consecutive_failures(8));
        let barrier = Barrier::new(8);
        let opened = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&opened);
        bench.registry.on_transition(move |transition| sink.lock().unwrap().push(transition.circuit));
        let names = ["a", "b", "c", "d"];
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    barrier.wait();
                    for name in names {
                        fail(&bench.registry.circuit(name), 1);
                    }
                });
            }
        });
        let mut opened = opened.lock().unwrap();
        opened.sort_unstable();
        assert_eq!((&opened[..], bench.registry.circuits().len()), (&names[..], 4));
    }
}

#[test]
fn threads_use_registry_concurrently_without_deadlock() {
    let bench = Bench::new(config());
    let barrier = Barrier::new(4);
    thread::scope(|scope| {
        scope.spawn(|| {
            barrier.wait();
            (0..2_000).for_each(|_| bench.registry.circuit("a").trip().unwrap());
        });
        scope.spawn(|| {
            barrier.wait();
            (0..2_000).for_each(|n| bench.configure(config().name("a").consecutive_failures(n)));
        });
        scope.spawn(|| {
            barrier.wait();
            (0..2_000).for_each(|_| drop(bench.registry.remove("a")));
        });
        scope.spawn(|| {
            barrier.wait();
            for _ in 0..2_000 {
                bench.registry.reset_all();
                let names: HashSet<_> =
                    bench.registry.statuses().iter().map(|status| status.circuit).collect();
                assert!(names.is_empty() || names == HashSet::from(["a"]));
            }
        });
    });
    bench.registry.circuit("a").reset().unwrap();
    assert_eq!(bench.state("a"), CircuitState::Closed);
}

#[test]
fn configure_without_name_is_an_error() {
    let registry = CircuitRegistry::new(tower_breaker::BreakerConfig::default());
    let unnamed = tower_breaker::BreakerConfig::builder().probes(2).build().unwrap();
    let error = registry.configure(unnamed).unwrap_err();
    assert_eq!(error.to_string(), "`name` is not set; allowed is the name of a circuit");
}
