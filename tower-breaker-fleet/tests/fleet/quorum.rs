//! Votes open a circuit, and probes close it.

use super::*;
use tower_breaker::CircuitState;
use tower_breaker_fleet::FleetState;

#[tokio::test(start_paused = true)]
async fn half_of_three_processes_open_all() {
    let mut fleet = Processes::start(3).await;
    fleet.run(WARM_UP).await;
    fleet.all[0].is_good = false;
    fleet.run(seconds(4)).await;
    assert_eq!(fleet.all[1].state(), CircuitState::Closed, "one process of three is a minority");
    fleet.all[1].is_good = false;
    let time = fleet.run_until(seconds(3), |fleet| fleet.all[2].state() == CircuitState::Open).await;
    assert!(time.is_some(), "{:?}", fleet.states());
    assert_eq!(fleet.all[2].fleet_state(), FleetState::Open);
    assert_eq!(fleet.all[2].record().reason, "quorum");
}

#[tokio::test(start_paused = true)]
async fn fleet_closes_after_the_server_has_recovered() {
    let mut fleet = Processes::start(3).await;
    fleet.run(WARM_UP).await;
    fleet.server_works = false;
    let opened = fleet.run_until(seconds(5), |fleet| fleet.all_in(CircuitState::Open)).await;
    assert!(opened.is_some(), "{:?}", fleet.states());
    fleet.server_works = true;
    let closed = fleet.run_until(seconds(10), |fleet| fleet.all_in(CircuitState::Closed)).await;
    let closed = closed.expect("closed");
    assert!((OPEN..OPEN + seconds(1)).contains(&closed), "{closed:?}");
    assert_eq!(fleet.all[0].record().reason, "probes succeeded");
}
