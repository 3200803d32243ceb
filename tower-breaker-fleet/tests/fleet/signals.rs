//! Signals of the circuits reach the agent.

use std::time::Duration;

use tower_breaker::{CircuitRegistry, Verdict};
use tower_breaker_fleet::{Delivery, FleetAction, FleetOperation, FleetState};

use super::*;

/// Longer than each test, so that no heartbeat hides a lost signal.
const RARE_HEARTBEAT: Duration = Duration::from_secs(60);

fn start(store: &MemoryStore, instance: &str) -> Process {
    let config = config().consecutive_failures(0).build().unwrap();
    Process::start_with(store, instance, config, |builder| builder.heartbeat(RARE_HEARTBEAT))
}

#[tokio::test(start_paused = true)]
async fn failure_together_with_a_transition_does_not_lose_later_failures() {
    let mut fleet = Processes::start_with(2, start).await;
    sleep(RARE_HEARTBEAT * 3).await;
    for process in &mut fleet.all {
        // The agent receives the signal and the transition at the same time.
        process.call(false);
        process.circuit.trip().unwrap();
        sleep(millis(200)).await;
        process.circuit.reset().unwrap();
        sleep(millis(200)).await;
    }
    assert!(fleet.all_in(CircuitState::Closed), "{:?}", fleet.states());
    for process in &mut fleet.all {
        // Each is below the minimum of calls, and both together reach it.
        for _ in 0..10 {
            process.call(false);
        }
    }
    fleet.settle().await;
    assert!(fleet.all_in(CircuitState::Open), "{:?}", fleet.states());
}

#[tokio::test(start_paused = true)]
async fn demand_before_an_override_of_the_process_is_remembered_after_it() {
    let start = |store: &MemoryStore, instance: &str| {
        let config = config().successes_to_close(1).build().unwrap();
        Process::start_with(store, instance, config, |builder| builder.heartbeat(RARE_HEARTBEAT))
    };
    let mut fleet = Processes::start_with(1, start).await;
    let trip = FleetOperation::new(FleetAction::Trip);
    fleet.all[0].fleet.operate(NAME, trip).await.unwrap();
    assert!(!fleet.all[0].call(true));
    fleet.all[0].circuit.force_open().unwrap();
    sleep(OPEN + seconds(1)).await;
    fleet.all[0].circuit.release();
    fleet.settle().await;
    let closed = fleet.run_until(seconds(2), |fleet| fleet.all[0].fleet_state() == FleetState::Closed).await;
    assert!(closed.is_some(), "{:?}", fleet.states());
}

#[tokio::test(start_paused = true)]
async fn demand_before_the_agent_has_the_circuit_is_repeated() {
    let store = MemoryStore::new();
    let names = ["c0", "c1", "c2", "c3", "c4", "c5", "c6", "c7"];
    let process = Process::start_with(&store, "p0", config().build().unwrap(), |builder| {
        builder.heartbeat(RARE_HEARTBEAT)
    });
    let registry = CircuitRegistry::new(config().build().unwrap());
    process.fleet.share_registry(&registry).unwrap();
    let holder = Process::start(&store, "holder");
    let circuits = names.map(|name| Circuit::new(config().name(name).build().unwrap()));
    for circuit in &circuits {
        holder.fleet.share(circuit).unwrap();
        holder.fleet.operate(circuit.name(), FleetOperation::new(FleetAction::Trip)).await.unwrap();
        assert!(circuit.try_acquire().is_err());
    }
    store.set_delivery(Delivery::Never);
    sleep(OPEN + seconds(1)).await;
    // `process` knows that the circuits are open, and not that they are half-open now.
    assert!(circuits.iter().all(|circuit| circuit.status().state == CircuitState::HalfOpen));
    holder.kill();
    let created = names.map(|name| registry.circuit(name));
    assert!(created.iter().all(|circuit| circuit.try_acquire().is_err()));
    for _ in 0..200 {
        sleep(millis(50)).await;
        for permit in created.iter().filter_map(|circuit| circuit.try_acquire().ok()) {
            permit.record(Verdict::Success);
        }
    }
    let closed = created.iter().filter(|circuit| circuit.status().state == CircuitState::Closed);
    assert_eq!(closed.count(), names.len());
}
