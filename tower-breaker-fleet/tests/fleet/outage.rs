//! The store is away: circuits decide for themselves.

use std::time::Duration;

use tokio::time::timeout;
use tower_breaker_fleet::{FleetAction, FleetError, FleetOperation, FleetState};

use super::*;

const OUTAGES: [Availability; 3] = [Availability::Stopped, Availability::CutOff, Availability::Failing];

/// The longest time from the loss of the store to a probe of the circuit itself, after the fleet's
/// open time: a heartbeat notices the loss, then the takeover passes.
const LONGEST_TAKEOVER: Duration = Duration::from_millis(6_250 + 2 * 2_000 + 500);

#[tokio::test(start_paused = true)]
async fn closed_circuit_opens_by_itself_while_the_store_is_away() {
    for availability in OUTAGES {
        let mut fleet = Processes::start(3).await;
        fleet.run(WARM_UP).await;
        fleet.store.set_availability(availability);
        fleet.run(seconds(10)).await;
        assert!(fleet.all_in(CircuitState::Closed), "{availability:?}");
        assert!(fleet.all.iter().all(|process| !process.fleet.status().attached), "{availability:?}");
        fleet.server_works = false;
        let opened = fleet.run_until(seconds(3), |fleet| fleet.all_in(CircuitState::Open)).await;
        assert!(opened.is_some(), "{availability:?}: {:?}", fleet.states());
        fleet.server_works = true;
        let closed = fleet.run_until(seconds(5), |fleet| fleet.all_in(CircuitState::Closed)).await;
        assert!(closed.is_some(), "{availability:?}: {:?}", fleet.states());
    }
}

#[tokio::test(start_paused = true)]
async fn open_circuit_recovers_by_itself_after_the_takeover() {
    for availability in OUTAGES {
        let mut fleet = Processes::start(3).await;
        fleet.run(WARM_UP).await;
        fleet.open().await;
        fleet.store.set_availability(availability);
        fleet.server_works = true;
        let half_open = |fleet: &Processes| fleet.count(CircuitState::Open) < 3;
        let first = fleet.run_until(seconds(20), half_open).await.expect("a probe");
        assert!(first + millis(300) >= OPEN, "{availability:?}: {first:?}");
        let closed = fleet.run_until(LONGEST_TAKEOVER, |fleet| fleet.all_in(CircuitState::Closed)).await;
        assert!(closed.is_some(), "{availability:?}: {:?}", fleet.states());

        // The store is back, and still says open: the processes close it without another probe.
        fleet.store.set_availability(Availability::Available);
        let agreed = |fleet: &Processes| {
            fleet
                .all
                .iter()
                .all(|process| process.fleet.status().attached && process.fleet_state() == FleetState::Closed)
        };
        let views = |fleet: &Processes| {
            fleet.all.iter().map(|process| (process.fleet.status(), process.record())).collect::<Vec<_>>()
        };
        let agreement = fleet.run_until(seconds(30), agreed).await;
        assert!(agreement.is_some(), "{availability:?}: {:?}", views(&fleet));
        assert!(fleet.all_in(CircuitState::Closed), "{availability:?}: {:?}", fleet.states());
        let trips = fleet.all.iter().filter_map(|process| process.circuit.status().last_transition);
        assert!(trips.into_iter().all(|last| last.reason == Reason::ProbesSucceeded), "{availability:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn half_open_circuit_recovers_by_itself_after_the_takeover() {
    for availability in OUTAGES {
        let mut fleet = Processes::start(3).await;
        fleet.run(WARM_UP).await;
        fleet.open().await;
        sleep(seconds(4)).await;
        fleet.settle().await;
        assert!(fleet.states().contains(&CircuitState::HalfOpen), "{:?}", fleet.states());
        fleet.store.set_availability(availability);
        fleet.server_works = true;
        let closed = fleet.run_until(seconds(16), |fleet| fleet.all_in(CircuitState::Closed)).await;
        assert!(closed.is_some(), "{availability:?}: {:?}", fleet.states());
    }
}

#[tokio::test(start_paused = true)]
async fn forced_circuit_stays_forced_while_the_store_is_away() {
    for availability in OUTAGES {
        let mut fleet = Processes::start(3).await;
        let force = FleetOperation::new(FleetAction::ForceOpen);
        fleet.all[0].fleet.operate(NAME, force).await.unwrap();
        fleet.settle().await;
        fleet.store.set_availability(availability);
        fleet.run(seconds(60)).await;
        assert!(fleet.all_in(CircuitState::ForcedOpen), "{availability:?}: {:?}", fleet.states());
        fleet.store.set_availability(Availability::Available);
        fleet.run(seconds(15)).await;
        assert!(fleet.all_in(CircuitState::ForcedOpen), "{availability:?}: {:?}", fleet.states());
    }
}

#[tokio::test(start_paused = true)]
async fn operation_without_the_store_fails_and_does_nothing() {
    for availability in OUTAGES {
        let mut fleet = Processes::start(2).await;
        fleet.store.set_availability(availability);
        for _ in 0..20 {
            let force = FleetOperation::new(FleetAction::ForceOpen);
            let result = timeout(seconds(10), fleet.all[0].fleet.operate(NAME, force)).await;
            let error = result.expect("an answer").unwrap_err();
            assert!(matches!(error, FleetError::Unreachable { .. }), "{availability:?}: {error}");
            fleet.run(millis(333)).await;
        }
        assert!(fleet.all_in(CircuitState::Closed), "{availability:?}: {:?}", fleet.states());
    }
}

#[tokio::test(start_paused = true)]
async fn ended_agent_leaves_a_working_circuit() {
    let mut fleet = Processes::start(3).await;
    fleet.run(WARM_UP).await;
    fleet.open().await;
    for process in &fleet.all {
        process.agent.abort();
    }
    fleet.server_works = true;
    let limit = OPEN + LONGEST_TAKEOVER;
    let closed = fleet.run_until(limit, |fleet| fleet.all_in(CircuitState::Closed)).await;
    assert!(closed.is_some(), "{:?}", fleet.states());
    let process = &fleet.all[0];
    let operation = FleetOperation::new(FleetAction::Reset);
    assert!(matches!(process.fleet.operate(NAME, operation).await, Err(FleetError::Stopped)));
    assert!(matches!(process.fleet.list(None, 10).await, Err(FleetError::Stopped)));
    assert!(!process.fleet.ready(seconds(1)).await);
    assert!(!process.fleet.status().attached);
    let circuit = Circuit::new(config().name("other").build().unwrap());
    assert!(matches!(process.fleet.share(&circuit), Err(FleetError::Stopped)));
}

#[tokio::test(start_paused = true)]
async fn agent_that_is_not_spawned_leaves_no_method_waiting() {
    let (fleet, _agent) = Fleet::builder(MemoryStore::new()).build().unwrap();
    let operation = FleetOperation::new(FleetAction::Reset);
    let result = timeout(seconds(10), fleet.operate(NAME, operation)).await.expect("an answer");
    assert!(matches!(result, Err(FleetError::Stopped)));
    assert!(!timeout(seconds(10), fleet.ready(seconds(1))).await.expect("an answer"));
    timeout(seconds(10), fleet.leave()).await.expect("an answer");
}

#[tokio::test(start_paused = true)]
async fn reconnects_of_many_processes_are_spread() {
    let fleet = Processes::start(400).await;
    fleet.store.set_availability(Availability::Failing);
    sleep(millis(1)).await;
    fleet.store.set_availability(Availability::Available);
    let start = Instant::now();
    let mut attached = Vec::new();
    while attached.len() < 400 && start.elapsed() < seconds(10) {
        let count = fleet.all.iter().filter(|process| process.fleet.status().attached).count();
        attached.resize(count, start.elapsed());
        sleep(millis(20)).await;
    }
    assert_eq!(attached.len(), 400);
    let (first, last) = (attached[4], attached[395]);
    assert!(last >= first + seconds(1), "{first:?} to {last:?}");
}

#[tokio::test(start_paused = true)]
async fn operation_that_was_reported_as_failed_is_not_applied_later() {
    let store = MemoryStore::new();
    let (fleet, agent) = Fleet::builder(store.clone()).instance("late").build().unwrap();
    let operation = FleetOperation::new(FleetAction::ForceOpen);
    assert!(matches!(fleet.operate(NAME, operation).await, Err(FleetError::Stopped)));
    tokio::spawn(agent);
    let process = Process::start(&store, "p0");
    assert!(process.fleet.ready(seconds(1)).await);
    sleep(seconds(1)).await;
    assert_eq!(process.state(), CircuitState::Closed);
}

#[tokio::test(start_paused = true)]
async fn ended_agent_leaves_no_long_deadline() {
    let mut fleet = Processes::start_with(3, |store, instance| {
        Process::start_with(store, instance, config().build().unwrap(), |builder| {
            builder.heartbeat(seconds(120))
        })
    })
    .await;
    sleep(seconds(301)).await;
    fleet.open().await;
    for process in &fleet.all {
        process.agent.abort();
    }
    fleet.server_works = true;
    let limit = OPEN + seconds(4) + millis(500);
    let closed = fleet.run_until(limit, |fleet| fleet.all_in(CircuitState::Closed)).await;
    assert!(closed.is_some(), "{:?}", fleet.states());
}
