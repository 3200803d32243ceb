//! Votes open a circuit, and probes close it.

use std::time::Duration;

use tower_breaker::{Mode, Verdict};
use tower_breaker_fleet::{FleetAction, FleetOperation, FleetState, Quorum};

use super::*;

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

#[tokio::test(start_paused = true)]
async fn minority_of_sixty_opens_only_itself() {
    for bad in [1, 20] {
        let mut fleet = Processes::start(60).await;
        fleet.run(WARM_UP).await;
        for process in &mut fleet.all[..bad] {
            process.is_good = false;
        }
        fleet.run(seconds(20)).await;
        let has_opened = |process: &Process| process.circuit.status().last_trip.is_some();
        assert_eq!(fleet.all.iter().filter(|process| has_opened(process)).count(), bad);
    }
}

#[tokio::test(start_paused = true)]
async fn majority_of_sixty_opens_all() {
    let mut fleet = Processes::start(60).await;
    fleet.run(WARM_UP).await;
    for process in &mut fleet.all[..40] {
        process.is_good = false;
    }
    let time = fleet.run_until(seconds(3), |fleet| fleet.count(CircuitState::Open) == 60).await;
    assert!(time.is_some(), "{:?}", fleet.states());
}

#[tokio::test(start_paused = true)]
async fn quiet_processes_open_with_the_failures_of_all() {
    let mut fleet = Processes::start(60).await;
    fleet.interval = seconds(5);
    fleet.run(WARM_UP).await;
    // The windows are empty.
    sleep(seconds(11)).await;
    fleet.server_works = false;
    // One failure in each of 30 processes: none of them has enough evidence of its own.
    let time = fleet.run_until(seconds(5), |fleet| fleet.all_in(CircuitState::Open)).await;
    assert!(time.is_some(), "{:?}", fleet.states());
    let counts = |process: &Process| process.circuit.status().last_trip?.counts;
    let failures: u64 = fleet.all.iter().filter_map(counts).map(|counts| counts.failures).sum();
    assert!((30..35).contains(&failures), "{failures}");
}

#[tokio::test(start_paused = true)]
async fn no_vote_is_decided_during_the_warm_up() {
    let mut fleet = Processes::start(3).await;
    fleet.server_works = false;
    fleet.run(seconds(8)).await;
    assert_eq!(fleet.all[0].fleet_state(), FleetState::Closed);
    assert!(fleet.all[0].fleet.circuit_status(NAME).unwrap().warming_up);
    let time = fleet.run_until(seconds(10), |fleet| fleet.all[0].fleet_state() == FleetState::Open).await;
    assert!(time.is_some(), "{:?}", fleet.all[0].fleet.circuit_status(NAME));
}

#[tokio::test(start_paused = true)]
async fn circuit_that_only_observes_follows_and_does_not_vote() {
    let start = |store: &MemoryStore, instance: &str| {
        let mode = if instance == "p0" { Mode::ObserveOnly } else { Mode::Enforce };
        Process::start_with(store, instance, config().mode(mode).build().unwrap(), |builder| builder)
    };
    let mut fleet = Processes::start_with(3, start).await;
    fleet.run(WARM_UP).await;
    let status = fleet.all[1].fleet.circuit_status(NAME).unwrap();
    assert_eq!((status.members, status.votes_needed), (2, 2));
    fleet.all[0].is_good = false;
    fleet.all[1].is_good = false;
    fleet.run(seconds(5)).await;
    assert_eq!(fleet.all[2].state(), CircuitState::Closed, "one vote of two members");
    fleet.all[2].is_good = false;
    let time = fleet.run_until(seconds(5), |fleet| fleet.all[0].fleet_state() == FleetState::Open).await;
    assert!(time.is_some());
    assert_eq!(fleet.all[0].state(), CircuitState::Open);
    assert!(fleet.all[0].call(true), "a circuit that only observes rejects nothing");
}

fn pool(store: &MemoryStore, instance: &str) -> Process {
    let config = config().consecutive_failures_span(Duration::ZERO).build().unwrap();
    Process::start_with(store, instance, config, |builder| builder.quorum(Quorum::at_least(1)))
}

#[tokio::test(start_paused = true)]
async fn pool_opens_at_the_failures_in_a_row_of_all_workers() {
    let mut pool = Processes::start_with(3, pool).await;
    for number in [0, 1, 2, 0, 1] {
        assert!(pool.all[number].call(false));
        pool.settle().await;
    }
    assert_eq!(pool.states(), [CircuitState::Open; 3]);
    assert_eq!(pool.all[2].record().reason, "consecutive failures");
}

#[tokio::test(start_paused = true)]
async fn pool_opens_after_the_calls_of_one_tick_and_one_round_trip() {
    const ROUND_TRIP: Duration = Duration::from_millis(50);
    // A look at the failures, the wait for those of other circuits, and a step of the test.
    const TICK: Duration = Duration::from_millis(20 + 5 + 5);
    let mut pool = Processes::start_with(10, pool).await;
    pool.store.set_delay(ROUND_TRIP);
    pool.run(seconds(2)).await;
    pool.server_works = false;
    let before = pool.admitted();
    assert!(pool.run_until(seconds(1), |pool| pool.all_in(CircuitState::Open)).await.is_some());
    // Ten processes with ten calls per second each.
    let in_flight = (ROUND_TRIP + TICK).as_millis() as u64 / 10;
    let failures = pool.admitted() - before;
    assert!((5..=5 + in_flight).contains(&failures), "{failures}");
}

#[tokio::test(start_paused = true)]
async fn last_failures_of_a_worker_that_leaves_open_the_pool() {
    let mut pool = Processes::start_with(3, pool).await;
    let mut worker = pool.all.remove(0);
    for _ in 0..3 {
        assert!(pool.all[0].call(false));
    }
    pool.settle().await;
    assert!(worker.call(false));
    sleep(millis(10)).await;
    // The ballot was sent a moment ago, so the next one is not due yet.
    assert!(worker.call(false));
    worker.fleet.leave().await;
    pool.settle().await;
    assert_eq!(pool.states(), [CircuitState::Open; 2]);
}

#[tokio::test(start_paused = true)]
async fn released_override_of_a_worker_is_no_vote() {
    let mut pool = Processes::start_with(3, pool).await;
    pool.all[0].circuit.trip().unwrap();
    pool.run(seconds(1)).await;
    assert_eq!(pool.states(), [CircuitState::Open; 3], "a trip is a vote");
    pool.all[0].fleet.operate(NAME, FleetOperation::new(FleetAction::Reset)).await.unwrap();
    pool.settle().await;
    assert_eq!(pool.states(), [CircuitState::Closed; 3]);
    // The worker is half-open because of the override, not because of its last trip.
    pool.all[0].circuit.force_open().unwrap();
    pool.all[0].circuit.release();
    // No call decides it.
    sleep(seconds(20)).await;
    assert_eq!(pool.states(), [CircuitState::HalfOpen, CircuitState::Closed, CircuitState::Closed]);
}

#[tokio::test(start_paused = true)]
async fn pool_without_store_opens_after_the_failures_of_each_worker() {
    let mut pool = Processes::start_with(3, pool).await;
    pool.store.set_availability(Availability::CutOff);
    for number in [0, 1, 2].repeat(4) {
        assert!(pool.all[number].call(false));
        pool.settle().await;
        assert_eq!(pool.states(), [CircuitState::Closed; 3]);
    }
    assert!(pool.all[1].call(false));
    assert_eq!(pool.count(CircuitState::Open), 1);
}

/// A pool with the span of the default configuration.
fn busy_pool(store: &MemoryStore, instance: &str) -> Process {
    let config = config().build().unwrap();
    Process::start_with(store, instance, config, |builder| builder.quorum(Quorum::at_least(1)))
}

#[tokio::test(start_paused = true)]
async fn random_failures_of_a_busy_pool_do_not_open() {
    for (processes, failed) in [(3, 0.2), (10, 0.2), (50, 0.03)] {
        for seed in 0..3 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut pool = Processes::start_with(processes, busy_pool).await;
            let before = pool.messages();
            for _ in 0..500 {
                sleep(Duration::from_millis(20)).await;
                for process in &mut pool.all {
                    assert!(process.call(random.f64() >= failed), "{processes}, {failed}, {seed}");
                }
            }
            let sent = pool.messages() - before;
            assert!(sent <= 4 * processes as u64, "only heartbeats: {sent} of {processes}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn outage_of_a_pool_opens_when_its_failures_span_the_time() {
    let mut pool = Processes::start_with(3, busy_pool).await;
    pool.interval = millis(500);
    pool.run(seconds(2)).await;
    pool.server_works = false;
    let before = pool.admitted();
    let time = pool.run_until(seconds(5), |pool| pool.all_in(CircuitState::Open)).await.unwrap();
    assert!((seconds(1)..millis(1100)).contains(&time), "{time:?}");
    assert_eq!(pool.admitted() - before, 7, "those of 1 s, of all workers");
}

#[tokio::test(start_paused = true)]
async fn failures_in_a_pool_without_further_calls_open_after_the_span() {
    let mut pool = Processes::start_with(3, busy_pool).await;
    for number in [0, 1, 2, 0, 1] {
        assert!(pool.all[number].call(false));
        pool.settle().await;
    }
    sleep(millis(600)).await;
    assert_eq!(pool.states(), [CircuitState::Closed; 3]);
    sleep(millis(150)).await;
    assert_eq!(pool.states(), [CircuitState::Open; 3]);
}

#[tokio::test(start_paused = true)]
async fn success_in_a_pool_ends_the_failures_of_all_workers() {
    let mut pool = Processes::start_with(3, pool).await;
    for (number, works) in [(0, false), (0, false), (1, false), (2, false), (2, true), (1, false)] {
        assert!(pool.all[number].call(works));
        pool.settle().await;
    }
    for number in [0, 0, 1] {
        assert!(pool.all[number].call(false));
        pool.settle().await;
        assert_eq!(pool.states(), [CircuitState::Closed; 3], "at most four since the success");
    }
    assert!(pool.all[2].call(false));
    pool.settle().await;
    assert_eq!(pool.states(), [CircuitState::Open; 3]);
}

#[tokio::test(start_paused = true)]
async fn success_of_a_worker_without_failures_counts_from_its_next_heartbeat() {
    let mut pool = Processes::start_with(3, pool).await;
    for number in [0, 0, 1, 1] {
        assert!(pool.all[number].call(false));
    }
    // The status rounds the time of a success up to a bucket of the window.
    sleep(seconds(1)).await;
    assert!(pool.all[2].call(true));
    sleep(2 * HEARTBEAT).await;
    for number in [0, 1, 0, 1] {
        assert!(pool.all[number].call(false));
        pool.settle().await;
        assert_eq!(pool.states(), [CircuitState::Closed; 3], "at most four since the success");
    }
}

#[tokio::test(start_paused = true)]
async fn outage_opens_a_pool_whose_failures_began_before_the_last_success() {
    let mut pool = Processes::start_with(3, pool).await;
    for number in [0, 0] {
        assert!(pool.all[number].call(false));
    }
    sleep(seconds(1)).await;
    assert!(pool.all[1].call(true));
    sleep(2 * HEARTBEAT).await;
    for number in [0, 2, 0, 1] {
        assert!(pool.all[number].call(false));
        pool.settle().await;
        assert_eq!(pool.states(), [CircuitState::Closed; 3], "at most four since the success");
    }
    assert!(pool.all[2].call(false));
    pool.settle().await;
    assert_eq!(pool.states(), [CircuitState::Open; 3], "two of each and one");
}

/// The circuits of a pool without an outage, in the order of their calls. Returns whether one of
/// them opens within 10 min. The pool makes `processes` calls in 5 s, which fail at random.
async fn quiet_pool_opens(circuits: &[&Circuit], processes: u32, failed: f64, seed: u64) -> bool {
    let mut random = fastrand::Rng::with_seed(seed);
    for circuit in circuits.iter().cycle().take(120 * processes as usize) {
        sleep(seconds(5) / processes).await;
        let Ok(permit) = circuit.try_acquire() else { return true };
        permit.record(if random.f64() < failed { failure() } else { Verdict::Success });
    }
    false
}

/// Prints the table of "Random failures" in `docs/sharing.md`.
#[tokio::test(start_paused = true)]
#[ignore = "measures a table of the documentation, for minutes"]
async fn random_failures_of_a_quiet_pool() {
    const RUNS: u64 = 30;
    for (processes, failed) in [(3, 0.2), (10, 0.05), (10, 0.1), (50, 0.03)] {
        let mut opened = [0; 2];
        for seed in 0..RUNS {
            let pool = Processes::start_with(processes as usize, busy_pool).await;
            let circuits: Vec<_> = pool.all.iter().map(|process| &process.circuit).collect();
            opened[0] += u32::from(quiet_pool_opens(&circuits, processes, failed, seed).await);
            pool.all.into_iter().for_each(Process::kill);
            let alone = Circuit::new(config().build().unwrap());
            opened[1] += u32::from(quiet_pool_opens(&[&alone], processes, failed, seed).await);
        }
        println!("| {processes} | {failed} | {opened:?} of {RUNS} |");
    }
}
