//! The store loses its data.

use tower_breaker_fleet::{FleetAction, FleetOperation, Override};

use super::*;

#[tokio::test(start_paused = true)]
async fn closed_circuits_stay_closed_when_the_store_loses_its_data() {
    let mut fleet = Processes::start(10).await;
    fleet.run(WARM_UP).await;
    for process in &mut fleet.all[..4] {
        process.is_good = false;
    }
    for _ in 0..10 {
        fleet.store.flush();
        fleet.run(seconds(1)).await;
    }
    fleet.run(WARM_UP).await;
    let has_opened = |process: &Process| process.circuit.status().last_trip.is_some();
    let opened: Vec<_> = fleet.all.iter().map(has_opened).collect();
    assert!(opened[4..].iter().all(|opened| !opened), "{opened:?}");
}

#[tokio::test(start_paused = true)]
async fn open_circuits_stay_open_when_the_store_loses_its_data() {
    let start = |store: &MemoryStore, instance: &str| {
        let config = config().open_for(seconds(20)).probe_lease(OPEN).build().unwrap();
        Process::start_with(store, instance, config, |builder| builder)
    };
    let mut fleet = Processes::start_with(5, start).await;
    fleet.run(WARM_UP).await;
    fleet.open().await;
    let before = fleet.admitted();
    fleet.server_works = true;
    for _ in 0..10 {
        fleet.store.flush();
        fleet.run(seconds(1)).await;
    }
    assert_eq!(fleet.admitted(), before, "no call gets through before the open time is over");
    let closed = fleet.run_until(seconds(12), |fleet| fleet.all_in(CircuitState::Closed)).await;
    assert!(closed.is_some_and(|closed| closed > seconds(8)), "{closed:?}: {:?}", fleet.states());
}

#[tokio::test(start_paused = true)]
async fn half_open_fleet_recovers_when_the_store_loses_its_data() {
    let mut fleet = Processes::start(5).await;
    fleet.run(WARM_UP).await;
    fleet.open().await;
    let before = fleet.admitted();
    sleep(OPEN).await;
    for _ in 0..10 {
        fleet.store.flush();
        fleet.run(seconds(1)).await;
    }
    let probes = fleet.admitted() - before;
    assert!(probes <= 15, "{probes} probes");
    fleet.server_works = true;
    let closed = fleet.run_until(seconds(15), |fleet| fleet.all_in(CircuitState::Closed)).await;
    assert!(closed.is_some(), "{:?}", fleet.states());
}

#[tokio::test(start_paused = true)]
async fn forced_circuits_stay_forced_when_the_store_loses_its_data() {
    let mut fleet = Processes::start(5).await;
    let force = FleetOperation::new(FleetAction::ForceOpen).by("anna").reason("test");
    fleet.all[0].fleet.operate(NAME, force).await.unwrap();
    fleet.settle().await;
    for _ in 0..10 {
        fleet.store.flush();
        fleet.run(seconds(1)).await;
        assert!(fleet.all_in(CircuitState::ForcedOpen), "{:?}", fleet.states());
    }
    // At the latest, a heartbeat gives the record back.
    fleet.run(HEARTBEAT * 2).await;
    let late = Process::start(&fleet.store, "late");
    assert!(late.fleet.ready(seconds(1)).await);
    assert_eq!(late.state(), CircuitState::ForcedOpen, "the store has the override again");
    assert_eq!(late.record().manual, Some(Override::ForcedOpen));
    assert_eq!((late.record().by, late.record().reason), ("anna".into(), "test".into()));
}

#[tokio::test(start_paused = true)]
async fn decision_with_the_epoch_of_a_lost_one_replaces_it() {
    let fleet = Processes::start(3).await;
    let operate = async |action| fleet.all[0].fleet.operate(NAME, FleetOperation::new(action)).await.unwrap();
    for (lost, next, state) in [
        (FleetAction::ForceOpen, FleetAction::Trip, CircuitState::Open),
        (FleetAction::ForceClosed, FleetAction::ForceOpen, CircuitState::ForcedOpen),
        (FleetAction::Trip, FleetAction::ForceClosed, CircuitState::ForcedClosed),
        (FleetAction::ForceOpen, FleetAction::Reset, CircuitState::Closed),
        (FleetAction::Trip, FleetAction::Reset, CircuitState::Closed),
    ] {
        fleet.store.flush();
        sleep(millis(10)).await;
        let lost = operate(lost).await;
        fleet.store.flush();
        // In the same millisecond.
        let record = operate(next).await;
        assert_eq!(record.epoch, lost.epoch);
        sleep(millis(10)).await;
        assert!(fleet.all_in(state), "{next:?} after {lost:?}: {:?}", fleet.states());
    }
}
