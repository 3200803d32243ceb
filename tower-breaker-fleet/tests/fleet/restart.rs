//! Processes start, end and leave.

use tower_breaker::snapshot::CircuitSnapshot;
use tower_breaker::{CircuitRegistry, Verdict};
use tower_breaker_fleet::{FleetAction, FleetError, FleetOperation, FleetState};

use super::*;

#[tokio::test(start_paused = true)]
async fn restarted_process_is_open_before_its_first_call() {
    let mut fleet = Processes::start(3).await;
    fleet.run(WARM_UP).await;
    fleet.open().await;
    sleep(seconds(1)).await;
    fleet.all.remove(0).kill();
    let mut new = Process::start(&fleet.store, "p0");
    assert!(new.fleet.ready(seconds(1)).await);
    assert!(!new.call(true));
    let remaining = new.circuit.status().retry_after.unwrap();
    assert!(remaining.abs_diff(seconds(2)) < millis(100), "{remaining:?}");
}

#[tokio::test(start_paused = true)]
async fn restarted_process_keeps_its_own_open_time() {
    let store = MemoryStore::new();
    let open_for = seconds(60);
    let config = || config().open_for(open_for).build().unwrap();
    let process = Process::start_with(&store, "p0", config(), |builder| builder);
    assert!(process.fleet.ready(seconds(1)).await);
    process.circuit.trip_for(open_for).unwrap();
    sleep(seconds(10)).await;
    process.kill();

    let other = Process::start_with(&store, "p1", config(), |builder| builder);
    assert!(other.fleet.ready(seconds(1)).await);
    assert_eq!(other.state(), CircuitState::Closed, "the open time is that of another process");

    let mut new = Process::start_with(&store, "p0", config(), |builder| builder);
    assert!(new.fleet.ready(seconds(1)).await);
    let remaining = new.circuit.status().retry_after.unwrap();
    assert!(remaining.abs_diff(seconds(50)) < millis(100), "{remaining:?}");
    assert!(!new.call(true));
    // It heals alone, because the fleet is closed.
    sleep(seconds(51)).await;
    assert!(new.call(true));
    assert!(new.call(true));
    assert_eq!(new.state(), CircuitState::Closed);
    sleep(HEARTBEAT * 2).await;
    new.kill();
    let last = Process::start_with(&store, "p0", config(), |builder| builder);
    assert!(last.fleet.ready(seconds(1)).await);
    assert_eq!(last.state(), CircuitState::Closed, "the open time was taken back");
}

#[tokio::test(start_paused = true)]
async fn restarted_process_is_open_until_it_is_reset() {
    let store = MemoryStore::new();
    let config = || config().open_until_reset(true).build().unwrap();
    let process = Process::start_with(&store, "p0", config(), |builder| builder);
    assert!(process.fleet.ready(seconds(1)).await);
    process.circuit.trip().unwrap();
    sleep(seconds(1)).await;
    process.kill();
    let new = Process::start_with(&store, "p0", config(), |builder| builder);
    assert!(new.fleet.ready(seconds(1)).await);
    assert_eq!((new.state(), new.circuit.status().retry_after), (CircuitState::Open, None));
}

#[tokio::test(start_paused = true)]
async fn circuit_of_a_registry_is_open_at_birth() {
    let mut fleet = Processes::start(3).await;
    fleet.run(WARM_UP).await;
    fleet.open().await;
    let registry = CircuitRegistry::new(config().build().unwrap());
    let early = registry.circuit("early");
    let (shared, agent) = Fleet::builder(fleet.store.clone()).instance("new").build().unwrap();
    tokio::spawn(agent);
    shared.share_registry(&registry).unwrap();
    assert!(shared.ready(seconds(1)).await);
    assert!(early.try_acquire().is_ok());
    let circuit = registry.circuit(NAME);
    assert!(circuit.try_acquire().is_err(), "the record was read when the process connected");
    let error = shared.share(&circuit).unwrap_err();
    assert!(matches!(error, FleetError::Shared { .. }), "{error}");

    // Also a record that was published later.
    let trip = FleetOperation::new(FleetAction::Trip);
    shared.operate("late", trip).await.unwrap();
    sleep(millis(50)).await;
    assert!(registry.circuit("late").try_acquire().is_err());
    assert_eq!(shared.status().circuits, 3);
}

#[tokio::test(start_paused = true)]
async fn ended_circuit_leaves_the_fleet() {
    let fleet = Processes::start(2).await;
    let process = &fleet.all[0];
    let circuit = Circuit::new(config().name("short").build().unwrap());
    process.fleet.share(&circuit).unwrap();
    let second = Circuit::new(config().name("short").build().unwrap());
    assert!(matches!(process.fleet.share(&second), Err(FleetError::Shared { .. })));
    let twin = Circuit::new(config().name("short").build().unwrap());
    fleet.all[1].fleet.share(&twin).unwrap();
    sleep(HEARTBEAT * 2).await;
    assert_eq!(fleet.all[1].fleet.circuit_status("short").unwrap().members, 2);
    drop(circuit);
    sleep(HEARTBEAT * 3).await;
    assert_eq!(fleet.all[1].fleet.circuit_status("short").unwrap().members, 1);
    // The name is free again.
    process.fleet.share(&second).unwrap();
}

#[tokio::test(start_paused = true)]
async fn leaving_takes_the_membership_back() {
    let mut fleet = Processes::start(3).await;
    fleet.run(WARM_UP).await;
    let process = fleet.all.remove(0);
    let handle = process.fleet.clone();
    process.fleet.leave().await;
    process.agent.await.unwrap();
    fleet.run(millis(6_100)).await;
    assert_eq!(fleet.all[0].fleet.circuit_status(NAME).unwrap().members, 2);
    assert!(matches!(handle.list(None, 1).await, Err(FleetError::Stopped)));
    assert!(process.circuit.try_acquire().is_ok(), "the circuit goes on");
}

#[tokio::test(start_paused = true)]
async fn leaving_sends_the_outcomes_of_probes() {
    let store = MemoryStore::new();
    let (fleet, agent) = Fleet::builder(store.clone()).instance("leaves").build().unwrap();
    tokio::spawn(agent);
    let config = config().successes_to_close(1);
    // More than the messages that an agent sends at once.
    let create = |number| Circuit::new(config.clone().name(format!("c{number}")).build().unwrap());
    let circuits: Vec<_> = (0..20).map(create).collect();
    for circuit in &circuits {
        fleet.share(circuit).unwrap();
        fleet.operate(circuit.name(), FleetOperation::new(FleetAction::Trip)).await.unwrap();
    }
    let mut probes = Vec::new();
    while probes.len() < circuits.len() {
        sleep(millis(50)).await;
        probes.extend(circuits.iter().filter_map(|circuit| circuit.try_acquire().ok()));
    }
    sleep(seconds(2)).await;
    for probe in probes {
        probe.record(Verdict::Success);
    }
    fleet.leave().await;

    let other = Process::start(&store, "other");
    let records = other.fleet.list(None, 100).await.unwrap();
    assert_eq!(records.len(), circuits.len());
    let open: Vec<_> = records.iter().filter(|record| record.state != FleetState::Closed).collect();
    assert!(open.is_empty(), "{open:?}");
}

#[tokio::test(start_paused = true)]
async fn leaving_is_bounded_if_the_store_is_slow() {
    let store = MemoryStore::new();
    let (fleet, agent) = Fleet::builder(store.clone()).instance("leaves").build().unwrap();
    let agent = tokio::spawn(agent);
    let create = |number| Circuit::new(config().name(format!("c{number}")).build().unwrap());
    let circuits: Vec<_> = (0..1_280).map(create).collect();
    for circuit in &circuits {
        fleet.share(circuit).unwrap();
    }
    assert!(fleet.ready(seconds(60)).await);
    store.set_delay(millis(240));
    let start = Instant::now();
    fleet.leave().await;
    agent.await.unwrap();
    assert!(start.elapsed() < millis(3_100), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn name_with_control_characters_is_refused() {
    let fleet = Processes::start(1).await;
    let long = "x".repeat(257);
    for name in ["", "a\tb", &long] {
        let circuit = Circuit::new(config().name(name.to_owned()).build().unwrap());
        let error = fleet.all[0].fleet.share(&circuit).unwrap_err();
        assert!(error.to_string().starts_with("`circuit` is "), "{error}");
        let operation = FleetOperation::new(FleetAction::Reset);
        assert!(fleet.all[0].fleet.operate(name, operation).await.is_err(), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn restored_override_of_the_fleet_ends_with_it() {
    let store = MemoryStore::new();
    let other = Process::start(&store, "other");
    let process = Process::start(&store, "p0");
    assert!(process.fleet.ready(seconds(1)).await);
    other.fleet.operate(NAME, FleetOperation::new(FleetAction::ForceOpen)).await.unwrap();
    sleep(millis(10)).await;
    let snapshot = process.circuit.snapshot();
    process.kill();

    let circuit = Circuit::new(config().build().unwrap());
    circuit.restore(&snapshot).unwrap();
    let (fleet, agent) = Fleet::builder(store.clone()).instance("p0").build().unwrap();
    tokio::spawn(agent);
    fleet.share(&circuit).unwrap();
    assert!(fleet.ready(seconds(1)).await);
    assert_eq!(circuit.status().state, CircuitState::ForcedOpen);
    other.fleet.operate(NAME, FleetOperation::new(FleetAction::Release)).await.unwrap();
    sleep(millis(10)).await;
    assert_eq!(circuit.status().state, CircuitState::Open);
}

/// Starts a process whose circuit is restored from a snapshot.
async fn restored(store: &MemoryStore, instance: &str, snapshot: &CircuitSnapshot) -> Process {
    let circuit = Circuit::new(config().build().unwrap());
    circuit.restore(snapshot).unwrap();
    let (fleet, agent) = Fleet::builder(store.clone()).instance(instance).build().unwrap();
    let agent = tokio::spawn(agent);
    fleet.share(&circuit).unwrap();
    assert!(fleet.ready(seconds(1)).await);
    Process { circuit, fleet, agent, is_good: true, admitted: 0 }
}

/// Returns a snapshot of a circuit after an operation on it.
fn snapshot(operation: impl FnOnce(&Circuit)) -> CircuitSnapshot {
    let circuit = Circuit::new(config().build().unwrap());
    operation(&circuit);
    circuit.snapshot()
}

#[tokio::test(start_paused = true)]
async fn restored_open_time_of_the_process_is_a_vote_until_the_fleet_decides() {
    let store = MemoryStore::new();
    let other = Process::start(&store, "other");
    let open = snapshot(|circuit| circuit.trip_for(seconds(20)).unwrap());
    let process = restored(&store, "p0", &open).await;
    assert_eq!(process.state(), CircuitState::Open);
    assert!(process.fleet.circuit_status(NAME).unwrap().voting);
    let trip = FleetOperation::new(FleetAction::Trip).open_for(seconds(60));
    other.fleet.operate(NAME, trip).await.unwrap();
    sleep(millis(10)).await;
    let remaining = process.circuit.status().retry_after.unwrap();
    assert!(remaining.abs_diff(seconds(60)) < millis(100), "{remaining:?}");
    other.fleet.operate(NAME, FleetOperation::new(FleetAction::Reset)).await.unwrap();
    sleep(millis(10)).await;
    assert_eq!(process.state(), CircuitState::Closed);
}

#[tokio::test(start_paused = true)]
async fn fleet_that_is_open_replaces_a_restored_state() {
    let store = MemoryStore::new();
    let other = Process::start(&store, "other");
    let trip = FleetOperation::new(FleetAction::Trip).open_for(seconds(60));
    other.fleet.operate(NAME, trip).await.unwrap();
    let closed = snapshot(|_| {});
    let open = snapshot(|circuit| circuit.trip_for(seconds(20)).unwrap());
    for (instance, snapshot) in [("p0", closed), ("p1", open)] {
        let process = restored(&store, instance, &snapshot).await;
        let remaining = process.circuit.status().retry_after.unwrap();
        assert!(remaining.abs_diff(seconds(60)) < millis(100), "{instance}: {remaining:?}");
        process.kill();
    }
}

#[tokio::test(start_paused = true)]
async fn restored_open_time_of_the_fleet_ends_by_itself_and_is_no_vote() {
    let store = MemoryStore::new();
    let other = Process::start(&store, "other");
    let trip = FleetOperation::new(FleetAction::Trip).open_for(seconds(20));
    other.fleet.operate(NAME, trip).await.unwrap();
    sleep(millis(10)).await;
    let open = other.circuit.snapshot();
    other.fleet.operate(NAME, FleetOperation::new(FleetAction::Reset)).await.unwrap();
    let mut process = restored(&store, "p0", &open).await;
    assert!(!process.call(true), "the fleet has closed while the process was away");
    assert!(!process.fleet.circuit_status(NAME).unwrap().voting);
    sleep(seconds(25)).await;
    assert!(process.call(true) && process.call(true));
    assert_eq!(process.state(), CircuitState::Closed);
}

#[tokio::test(start_paused = true)]
async fn restored_override_that_the_fleet_has_released_stays() {
    let store = MemoryStore::new();
    let other = Process::start(&store, "other");
    let forced = snapshot(|circuit| circuit.force_open().unwrap());
    let process = restored(&store, "p0", &forced).await;
    for action in [FleetAction::ForceClosed, FleetAction::Release, FleetAction::Reset] {
        other.fleet.operate(NAME, FleetOperation::new(action)).await.unwrap();
        sleep(millis(10)).await;
        assert_eq!(process.state(), CircuitState::ForcedOpen, "{action:?}");
    }
    process.circuit.release();
    assert_ne!(process.state(), CircuitState::ForcedOpen);
}
