//! Manual operations in single processes, at any time.

use tower_breaker::HealthReport;
use tower_breaker_fleet::{FleetAction, FleetOperation, FleetState, Quorum};

use super::*;

/// Does something in a process or to the store.
async fn disturb(fleet: &mut Processes, random: &mut fastrand::Rng) {
    let process = &mut fleet.all[random.usize(..3)];
    let circuit = &process.circuit;
    match random.u32(..16) {
        0 => _ = circuit.force_open(),
        1 => _ = circuit.force_closed(),
        2 => _ = circuit.force_open_for(seconds(2)),
        3 => circuit.release(),
        4 => _ = circuit.trip(),
        5 => _ = circuit.trip_for(seconds(20)),
        6 => _ = circuit.reset(),
        7 => _ = circuit.probe_now(),
        8 => circuit.report(HealthReport::Critical),
        9 => circuit.report(HealthReport::Recovered),
        10 => fleet.store.set_availability(Availability::CutOff),
        11 => fleet.store.set_availability(Availability::Available),
        12 => fleet.store.flush(),
        13 => process.is_good = !process.is_good,
        14 => fleet.server_works = !fleet.server_works,
        _ => {
            let actions = [
                FleetAction::Trip,
                FleetAction::Reset,
                FleetAction::ForceOpen,
                FleetAction::ForceClosed,
                FleetAction::Release,
            ];
            let operation = FleetOperation::new(actions[random.usize(..actions.len())]);
            _ = process.fleet.operate(NAME, operation).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn circuits_close_after_any_operations_in_the_processes() {
    for seed in 0..60 {
        let mut random = fastrand::Rng::with_seed(seed);
        let quorum = if seed % 2 == 0 { Quorum::majority() } else { Quorum::at_least(1) };
        let mut fleet = Processes::start_with(3, |store, instance| {
            let config = config().open_backoff(2.0, seconds(20)).slow_start(seconds(2)).build().unwrap();
            Process::start_with(store, instance, config, |builder| builder.quorum(quorum))
        })
        .await;
        for _ in 0..random.u32(1..30) {
            disturb(&mut fleet, &mut random).await;
            let time = millis(random.u64(0..2_000));
            if random.bool() { fleet.run(time).await } else { sleep(time).await }
        }
        fleet.store.set_availability(Availability::Available);
        fleet.server_works = true;
        for process in &mut fleet.all {
            process.is_good = true;
            process.circuit.release();
        }
        sleep(seconds(10)).await;
        let release = FleetOperation::new(FleetAction::Release);
        fleet.all[0].fleet.operate(NAME, release).await.unwrap();
        let is_closed = |fleet: &Processes| {
            fleet.all_in(CircuitState::Closed)
                && fleet.all.iter().all(|process| process.fleet_state() == FleetState::Closed)
        };
        let closed = fleet.run_until(seconds(40), is_closed).await;
        let views: Vec<_> =
            fleet.all.iter().map(|process| (process.circuit.status(), process.record())).collect();
        assert!(closed.is_some(), "seed {seed}: {views:#?}");
        fleet.all.into_iter().for_each(Process::kill);
    }
}

#[tokio::test(start_paused = true)]
async fn critical_report_of_a_process_without_calls_opens_once() {
    let mut fleet = Processes::start_with(2, |store, instance| {
        let config = config().build().unwrap();
        Process::start_with(store, instance, config, |builder| builder.quorum(Quorum::at_least(1)))
    })
    .await;
    fleet.all[0].circuit.report(HealthReport::Critical);
    fleet.settle().await;
    assert!(fleet.all_in(CircuitState::Open), "{:?}", fleet.states());
    for _ in 0..50 {
        fleet.all[1].call(true);
        sleep(millis(100)).await;
    }
    assert_eq!(fleet.states(), [CircuitState::Open, CircuitState::Closed]);
    let epoch = fleet.all[1].record().epoch;
    sleep(seconds(60)).await;
    assert_eq!(fleet.all[1].record().epoch, epoch, "{:?}", fleet.all[1].record());
}
