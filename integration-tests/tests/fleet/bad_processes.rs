//! Some processes have a broken path to the backend. The others decide.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tower_breaker::CircuitState;
use tower_breaker_fleet::FleetState;

use crate::processes::{Answer, Group, OPEN, breaker};
use crate::servers::{Server, StoreKind};

/// Breaks the path of the first processes.
fn break_paths(group: &Group, bad: usize) {
    group.all.iter().take(bad).for_each(|process| process.set_path(false));
}

/// A minority opens its own circuits, and no other one.
pub(crate) async fn minority(count: usize, bad: usize, time: Duration) {
    let server = Server::start(StoreKind::Redis).await;
    let group = Group::start(&server.store, "minority", count).await;
    break_paths(&group, bad);
    let is_open =
        |group: &Group| group.all.iter().take(bad).all(|process| process.state() != CircuitState::Closed);
    group.wait("open circuits of bad processes", is_open).await;
    sleep(time).await;
    let good = &group.all[bad..];
    assert!(good.iter().all(|process| process.history().is_empty()), "{bad} bad: {group:?}");
    assert!(group.all.iter().all(|process| process.record().state == FleetState::Closed), "{group:?}");
}

/// A majority opens all circuits. Returns the time until then.
pub(crate) async fn majority(count: usize, bad: usize) -> Duration {
    let server = Server::start(StoreKind::Redis).await;
    let group = Group::start(&server.store, "majority", count).await;
    break_paths(&group, bad);
    let is_open = |group: &Group| {
        group.are(CircuitState::Open) && group.all[count - 1].record().state == FleetState::Open
    };
    group.wait("open circuits of all processes", is_open).await
}

/// How a fleet has closed whose minority is bad.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Recovery {
    /// From the opening until the good processes are closed.
    pub(crate) closed: Duration,
    /// How often probes of bad processes have opened the circuit again in the meantime.
    pub(crate) reopened: u32,
}

/// The backend recovers while a minority is bad: the good processes close the circuit.
pub(crate) async fn recovery(count: usize, bad: usize) -> Recovery {
    let server = Server::start(StoreKind::Redis).await;
    let config = breaker().probes(3).successes_to_close(2).build().unwrap();
    let group = Group::start_with(&server.store, "recovery", count, &config).await;
    group.open().await;
    let start = Instant::now();
    break_paths(&group, bad);
    group.answer(Answer::Success);
    let (mut reopened, mut epoch) = (0, group.all[bad].record().epoch);
    loop {
        let record = group.all[bad].record();
        if record.epoch > epoch && record.state == FleetState::Open {
            reopened += 1;
        }
        epoch = record.epoch;
        let good = &group.all[bad..];
        let all_closed = || good.iter().all(|process| process.state() == CircuitState::Closed);
        // The record was read before the states, and may be older.
        if record.state == FleetState::Closed && all_closed() {
            let is_good = |instance: &str| {
                let number = instance.strip_prefix("process-").and_then(|number| number.parse().ok());
                number.is_some_and(|number: usize| number >= bad)
            };
            assert!(is_good(&record.by), "a good process closes the circuit: {record:?}");
            return Recovery { closed: start.elapsed(), reopened };
        }
        assert!(start.elapsed() < crate::processes::DEADLINE, "{group:?}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// The time that a recovery may take: each round has an open time and up to 2 s for its probes.
pub(crate) fn limit(recovery: Recovery) -> Duration {
    (recovery.reopened + 1) * (OPEN + Duration::from_secs(2))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_minority_opens_no_good_circuit() {
    tokio::join!(minority(12, 1, OPEN), minority(12, 4, 3 * OPEN));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_majority_opens_all_circuits() {
    majority(12, 8).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn good_majority_closes_the_circuit() {
    tokio::join!(recovery(12, 1), recovery(12, 4));
}
