//! Probes after the open time.

use tower_breaker_fleet::Quorum;

use super::*;

async fn opened(count: usize) -> Processes {
    let start = |store: &MemoryStore, instance: &str| {
        let quorum = if count == 1 { Quorum::at_least(1) } else { Quorum::majority() };
        let config = config().build().unwrap();
        Process::start_with(store, instance, config, |builder| builder.quorum(quorum))
    };
    let mut fleet = Processes::start_with(count, start).await;
    fleet.run(WARM_UP).await;
    fleet.open().await;
    fleet
}

fn three_probes(store: &MemoryStore, instance: &str) -> Process {
    let config = config().probes(3).successes_to_close(2).build().unwrap();
    Process::start_with(store, instance, config, |builder| builder)
}

#[tokio::test(start_paused = true)]
async fn bad_processes_do_not_keep_the_fleet_open() {
    for bad in [6, 20] {
        let mut fleet = Processes::start_with(60, three_probes).await;
        fleet.run(WARM_UP).await;
        fleet.open().await;
        for process in &mut fleet.all[..bad] {
            process.is_good = false;
        }
        fleet.server_works = true;
        let all_good = |fleet: &Processes| {
            fleet.all[bad..].iter().all(|process| process.state() == CircuitState::Closed)
        };
        // Two failures before two successes open the circuit again: 3 % of the rounds with 6 bad
        // processes, 26 % with 20.
        let closed = fleet.run_until(20 * OPEN, all_good).await;
        assert!(closed.is_some(), "{bad} bad: {:?}", fleet.states());
        fleet.run(seconds(5)).await;
        assert!(all_good(&fleet), "the bad processes are a minority again");
    }
}

#[tokio::test(start_paused = true)]
async fn server_that_stays_down_gets_one_probe_in_each_round() {
    let mut fleet = opened(20).await;
    let before = fleet.admitted();
    fleet.run(seconds(30)).await;
    let probes = fleet.admitted() - before;
    // One probe decides: it takes one failure to open again, with 1 probe and 2 successes to close.
    assert!((8..=10).contains(&probes), "{probes} probes in 30 s");
    assert!(fleet.all_in(CircuitState::Open), "{:?}", fleet.states());
}

#[tokio::test(start_paused = true)]
async fn probes_at_the_same_time_are_limited() {
    let mut fleet = Processes::start_with(20, three_probes).await;
    fleet.latency = millis(300);
    fleet.run(WARM_UP).await;
    fleet.open().await;
    // The calls from before the opening have ended.
    fleet.run(seconds(1)).await;
    fleet.server.reset();
    fleet.run(seconds(20)).await;
    assert_eq!(fleet.server.most_running(), 3);
    assert!(fleet.server.calls() >= 12, "{}", fleet.server.calls());
    fleet.server_works = true;
    let closed = fleet.run_until(seconds(10), |fleet| fleet.all_in(CircuitState::Closed)).await;
    assert!(closed.is_some(), "{:?}", fleet.states());
}

#[tokio::test(start_paused = true)]
async fn quiet_fleet_recovers_without_a_busy_process() {
    let mut fleet = Processes::start(60).await;
    fleet.interval = seconds(5);
    fleet.run(WARM_UP).await;
    sleep(seconds(11)).await;
    fleet.open().await;
    fleet.server_works = true;
    let closed = fleet.run_until(seconds(20), |fleet| fleet.all_in(CircuitState::Closed)).await;
    let closed = closed.expect("the fleet closes");
    // 12 calls a second in the fleet. In this test, no process that calls soon is waiting at first.
    assert!(closed < OPEN + seconds(8), "{closed:?}");
}

#[tokio::test(start_paused = true)]
async fn circuit_without_demand_waits_for_a_call_and_sends_no_probe_of_its_own() {
    let mut fleet = opened(3).await;
    // No process calls for a minute, far longer than the open time and the takeover.
    sleep(seconds(60)).await;
    assert!(!fleet.all[0].call(true), "the first call is rejected: it shows demand");
    fleet.settle().await;
    assert!(fleet.all[0].call(true), "the process has a lease");
    assert!(!fleet.all[1].call(true), "the slot is taken or the process has no lease");
    fleet.server_works = true;
    let closed = fleet.run_until(seconds(2), |fleet| fleet.all_in(CircuitState::Closed)).await;
    assert!(closed.is_some(), "{:?}", fleet.states());
}

#[tokio::test(start_paused = true)]
async fn unused_reservation_is_not_in_the_way_of_another_process() {
    let mut fleet = opened(2).await;
    sleep(seconds(10)).await;
    assert!(!fleet.all[0].call(true));
    fleet.settle().await;
    assert_eq!(fleet.all[0].state(), CircuitState::HalfOpen);
    let start = Instant::now();
    while !fleet.all[1].call(true) {
        assert!(start.elapsed() < seconds(3), "{:?}", fleet.states());
        sleep(millis(50)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn process_with_rare_calls_recovers_at_its_next_call() {
    let mut fleet = opened(1).await;
    // The process had calls before, so it holds a lease although no call was rejected.
    for _ in 0..2 {
        sleep(seconds(20)).await;
        // Between two reservations there is a short gap.
        let admitted = fleet.all[0].call(true) || {
            sleep(seconds(1)).await;
            fleet.all[0].call(true)
        };
        assert!(admitted, "{:?}", fleet.states());
        fleet.settle().await;
    }
    assert_eq!(fleet.states(), [CircuitState::Closed]);
    let probes = fleet.all[0].circuit.status().last_transition.unwrap();
    assert_eq!(probes.reason, Reason::CommandedClose);
}

#[tokio::test(start_paused = true)]
async fn minority_heals_alone() {
    let mut fleet = Processes::start(3).await;
    fleet.run(WARM_UP).await;
    fleet.all[0].is_good = false;
    let open = |fleet: &Processes| fleet.all[0].state() == CircuitState::Open;
    assert!(fleet.run_until(seconds(5), open).await.is_some());
    fleet.all[0].is_good = true;
    let closed = fleet.run_until(seconds(5), |fleet| fleet.all_in(CircuitState::Closed)).await;
    assert!(closed.is_some(), "{:?}", fleet.states());
    assert_eq!(fleet.all[0].circuit.status().last_transition.unwrap().reason, Reason::ProbesSucceeded);
}
