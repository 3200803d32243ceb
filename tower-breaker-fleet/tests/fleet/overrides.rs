//! Manual operations in the whole fleet, and in one process.

use std::pin::pin;

use tokio::sync::watch;
use tower_breaker::CircuitRegistry;
use tower_breaker_fleet::{
    Delivery, FleetAction, FleetAgent, FleetError, FleetOperation, FleetState, Override,
};

use super::*;

async fn operate(process: &Process, action: FleetAction) {
    operate_on(NAME, process, action).await;
}

async fn operate_on(name: &str, process: &Process, action: FleetAction) {
    process.fleet.operate(name, FleetOperation::new(action)).await.unwrap();
    sleep(millis(10)).await;
}

/// Starts a process with a registry, and forces a circuit open that the registry does not have yet.
async fn start_with_forced_index(store: &MemoryStore) -> (Process, CircuitRegistry) {
    let process = Process::start(store, "p0");
    let registry = CircuitRegistry::new(config().build().unwrap());
    process.fleet.share_registry(&registry).unwrap();
    operate_on("index", &process, FleetAction::ForceOpen).await;
    (process, registry)
}

#[tokio::test(start_paused = true)]
async fn operation_applies_in_all_processes() {
    let mut fleet = Processes::start(10).await;
    for (action, state) in [
        (FleetAction::Trip, CircuitState::Open),
        (FleetAction::Reset, CircuitState::Closed),
        (FleetAction::ForceOpen, CircuitState::ForcedOpen),
        (FleetAction::ForceClosed, CircuitState::ForcedClosed),
        (FleetAction::Release, CircuitState::Closed),
        (FleetAction::ForceOpen, CircuitState::ForcedOpen),
    ] {
        operate(&fleet.all[0], action).await;
        assert!(fleet.all_in(state), "{action:?}: {:?}", fleet.states());
    }
    // After a release, probes come first.
    operate(&fleet.all[0], FleetAction::Release).await;
    assert_eq!(fleet.count(CircuitState::Closed), 0);
    let closed = fleet.run_until(seconds(3), |fleet| fleet.all_in(CircuitState::Closed)).await;
    assert!(closed.is_some(), "{:?}", fleet.states());
}

#[tokio::test(start_paused = true)]
async fn late_process_gets_the_override() {
    let fleet = Processes::start(2).await;
    operate(&fleet.all[0], FleetAction::ForceOpen).await;
    let late = Process::start(&fleet.store, "late");
    assert!(late.fleet.ready(seconds(1)).await);
    assert_eq!(late.state(), CircuitState::ForcedOpen);
}

#[tokio::test(start_paused = true)]
async fn override_for_a_time_ends_by_itself() {
    let mut fleet = Processes::start(5).await;
    let force = FleetOperation::new(FleetAction::ForceOpen).keep_for(seconds(30));
    fleet.all[0].fleet.operate(NAME, force).await.unwrap();
    fleet.run(seconds(29)).await;
    assert!(fleet.all_in(CircuitState::ForcedOpen), "{:?}", fleet.states());
    assert_eq!(fleet.admitted(), 0);
    let closed = fleet.run_until(seconds(3), |fleet| fleet.all_in(CircuitState::Closed)).await;
    assert!(closed.is_some(), "{:?}", fleet.states());
    assert_eq!(fleet.all[0].record().manual, None);
}

#[tokio::test(start_paused = true)]
async fn override_of_the_process_takes_precedence() {
    let fleet = Processes::start(2).await;
    fleet.all[0].circuit.force_closed().unwrap();
    operate(&fleet.all[1], FleetAction::ForceOpen).await;
    assert_eq!(fleet.states(), [CircuitState::ForcedClosed, CircuitState::ForcedOpen]);
    // When it ends, the circuit follows the fleet.
    fleet.all[0].circuit.release();
    fleet.settle().await;
    assert_eq!(fleet.states(), [CircuitState::ForcedOpen; 2]);
}

#[tokio::test(start_paused = true)]
async fn override_of_the_process_stays_when_the_fleet_releases_its_own() {
    let fleet = Processes::start(2).await;
    operate(&fleet.all[1], FleetAction::ForceOpen).await;
    fleet.settle().await;
    fleet.all[0].circuit.force_closed().unwrap();
    fleet.settle().await;
    operate(&fleet.all[1], FleetAction::Release).await;
    assert_eq!(fleet.states(), [CircuitState::ForcedClosed, CircuitState::Open]);
}

#[tokio::test(start_paused = true)]
async fn override_of_the_process_into_the_state_of_the_fleet_stays_when_the_fleet_releases() {
    for (action, state) in [
        (FleetAction::ForceOpen, CircuitState::ForcedOpen),
        (FleetAction::ForceClosed, CircuitState::ForcedClosed),
    ] {
        for keep_for in [None, Some(seconds(60))] {
            let fleet = Processes::start(2).await;
            let force = FleetOperation::new(action);
            let force = keep_for.into_iter().fold(force, FleetOperation::keep_for);
            fleet.all[1].fleet.operate(NAME, force).await.unwrap();
            fleet.settle().await;
            match action {
                FleetAction::ForceOpen => fleet.all[0].circuit.force_open().unwrap(),
                _ => fleet.all[0].circuit.force_closed().unwrap(),
            }
            fleet.settle().await;
            operate(&fleet.all[1], FleetAction::Release).await;
            assert_eq!(fleet.all[0].state(), state, "{keep_for:?}");
            assert_ne!(fleet.all[1].state(), state);
            sleep(seconds(70)).await;
            assert_eq!(fleet.all[0].state(), state, "{keep_for:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn circuit_follows_the_fleet_after_an_override_of_the_process_into_the_same_state() {
    let mut fleet = Processes::start(2).await;
    operate(&fleet.all[1], FleetAction::ForceOpen).await;
    fleet.all[0].circuit.force_open().unwrap();
    fleet.settle().await;
    fleet.all[0].circuit.release();
    fleet.settle().await;
    assert_eq!(fleet.states(), [CircuitState::ForcedOpen; 2]);
    fleet.all[0].circuit.force_open_for(seconds(30)).unwrap();
    fleet.run(seconds(40)).await;
    assert_eq!(fleet.states(), [CircuitState::ForcedOpen; 2]);
    // The override is that of the fleet now.
    operate(&fleet.all[1], FleetAction::Release).await;
    assert!(!fleet.states().contains(&CircuitState::ForcedOpen), "{:?}", fleet.states());
}

#[tokio::test(start_paused = true)]
async fn process_that_releases_an_override_of_the_fleet_stays_released() {
    let mut fleet = Processes::start(2).await;
    operate(&fleet.all[1], FleetAction::ForceClosed).await;
    fleet.all[0].circuit.release();
    fleet.run(seconds(20)).await;
    assert_eq!(fleet.states(), [CircuitState::Closed, CircuitState::ForcedClosed]);
    operate(&fleet.all[1], FleetAction::ForceOpen).await;
    assert_eq!(fleet.states(), [CircuitState::ForcedOpen; 2]);
}

#[tokio::test(start_paused = true)]
async fn operation_in_another_epoch_or_under_an_override_is_a_conflict() {
    let fleet = Processes::start(1).await;
    let process = &fleet.all[0];
    let record = process.fleet.operate(NAME, FleetOperation::new(FleetAction::Trip)).await.unwrap();
    assert_eq!((record.state, record.remaining), (FleetState::Open, Some(OPEN)));
    let stale = FleetOperation::new(FleetAction::Reset).expected_epoch(record.epoch - 1);
    let error = process.fleet.operate(NAME, stale).await.unwrap_err();
    assert!(
        matches!(&error, FleetError::Conflict { record: now, .. } if now.epoch == record.epoch),
        "{error}"
    );
    let fresh = FleetOperation::new(FleetAction::ForceOpen).expected_epoch(record.epoch);
    let forced = process.fleet.operate(NAME, fresh).await.unwrap();
    assert_eq!(forced.manual, Some(Override::ForcedOpen));
    let reset = FleetOperation::new(FleetAction::Reset);
    assert!(matches!(process.fleet.operate(NAME, reset).await, Err(FleetError::Conflict { .. })));
    let listed = process.fleet.list(None, 10).await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].epoch, forced.epoch);
}

#[tokio::test(start_paused = true)]
async fn operation_with_a_duration_out_of_range_is_an_error() {
    let fleet = Processes::start(1).await;
    let operation = FleetOperation::new(FleetAction::ForceOpen).keep_for(millis(0));
    let error = fleet.all[0].fleet.operate(NAME, operation).await.unwrap_err();
    assert_eq!(error.to_string(), "`keep_for` is 0ns; allowed is 1ms to 31536000s");
}

#[tokio::test(start_paused = true)]
async fn operation_with_a_duration_without_effect_is_an_error() {
    let fleet = Processes::start(1).await;
    let keep_for = |action| FleetOperation::new(action).keep_for(seconds(30));
    let open_for = |action| FleetOperation::new(action).open_for(seconds(30));
    for (operation, text) in [
        (keep_for(FleetAction::Trip), "`keep_for` is 30s; allowed is no value, because `action` is \"trip\""),
        (
            keep_for(FleetAction::Reset),
            "`keep_for` is 30s; allowed is no value, because `action` is \"reset\"",
        ),
        (
            keep_for(FleetAction::Release),
            "`keep_for` is 30s; allowed is no value, because `action` is \"release\"",
        ),
        (
            open_for(FleetAction::ForceOpen),
            "`open_for` is 30s; allowed is no value, because `action` is \"force_open\"",
        ),
        (
            open_for(FleetAction::Release),
            "`open_for` is 30s; allowed is no value, because `action` is \"release\"",
        ),
    ] {
        let error = fleet.all[0].fleet.operate(NAME, operation).await.unwrap_err();
        assert_eq!(error.to_string(), text);
    }
    assert_eq!(fleet.all[0].fleet.list(None, 10).await.unwrap(), [], "nothing was done");
}

/// Runs an agent, except while it is paused.
async fn run_unless_paused(agent: FleetAgent, mut paused: watch::Receiver<bool>) {
    let mut agent = pin!(agent);
    loop {
        paused.wait_for(|paused| !paused).await.unwrap();
        tokio::select! {
            () = &mut agent => return,
            _ = paused.changed() => {}
        }
    }
}

#[tokio::test(start_paused = true)]
async fn override_that_was_released_while_a_process_was_stopped_stays_released() {
    let store = MemoryStore::new();
    let circuit = Circuit::new(config().build().unwrap());
    let (fleet, agent) = Fleet::builder(store.clone()).instance("stopped").build().unwrap();
    let (pause, paused) = watch::channel(false);
    tokio::spawn(run_unless_paused(agent, paused));
    fleet.share(&circuit).unwrap();
    let other = Process::start(&store, "other");
    assert!(fleet.ready(seconds(1)).await && other.fleet.ready(seconds(1)).await);
    operate(&other, FleetAction::ForceOpen).await;
    assert_eq!(circuit.status().state, CircuitState::ForcedOpen);
    pause.send(true).unwrap();
    store.set_delivery(Delivery::Never);
    operate(&other, FleetAction::Release).await;
    operate(&other, FleetAction::Reset).await;
    other.kill();
    sleep(seconds(30 * 60)).await;
    let new = Process::start(&store, "new");
    assert!(new.fleet.ready(seconds(1)).await);
    pause.send(false).unwrap();
    sleep(seconds(30)).await;
    assert_eq!(new.state(), CircuitState::Closed);
    assert_eq!(circuit.status().state, CircuitState::Closed);
}

#[tokio::test(start_paused = true)]
async fn circuit_that_is_created_after_the_agent_has_ended_ignores_old_overrides() {
    let (process, registry) = start_with_forced_index(&MemoryStore::new()).await;
    process.fleet.clone().leave().await;
    assert_eq!(registry.circuit("index").status().state, CircuitState::Closed);
}

#[tokio::test(start_paused = true)]
async fn override_to_forced_closed_ends_exactly_without_the_store() {
    let mut fleet = Processes::start(2).await;
    let force = FleetOperation::new(FleetAction::ForceClosed).keep_for(seconds(30));
    fleet.all[0].fleet.operate(NAME, force).await.unwrap();
    fleet.settle().await;
    fleet.store.set_availability(Availability::CutOff);
    fleet.run(millis(30_200)).await;
    assert!(fleet.all_in(CircuitState::Closed), "{:?}", fleet.states());
}

#[tokio::test(start_paused = true)]
async fn cached_override_is_read_again_after_a_lost_connection() {
    let store = MemoryStore::new();
    let (process, registry) = start_with_forced_index(&store).await;
    store.set_delivery(Delivery::Never);
    operate_on("index", &process, FleetAction::Release).await;
    operate_on("index", &process, FleetAction::Reset).await;
    store.set_availability(Availability::Failing);
    sleep(millis(10)).await;
    store.set_availability(Availability::Available);
    sleep(seconds(10)).await;
    assert_eq!(registry.circuit("index").status().state, CircuitState::Closed);
}
