//! Processes whose clocks differ.
//!
//! The agent sends and receives only lengths of time. Epochs and deadlines are those of the store's
//! clock. So the only clock of a process that could matter is the clock of its circuit, which a
//! test can replace.

use std::time::Duration;

use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep};
use tower_breaker::{CircuitState, Clock, ManualClock};
use tower_breaker_fleet::{FleetAction, FleetOperation};

use crate::processes::{CIRCUIT, Group, Process, agent, breaker, millis};
use crate::servers::{Server, StoreKind};

/// A clock that runs an offset ahead of the others, until it is dropped.
struct Offset(Clock, AbortHandle);

impl Offset {
    fn start(offset: Duration) -> Self {
        let (clock, handle) = Clock::manual();
        let start = Instant::now();
        let set = move |handle: &ManualClock| handle.set(offset + start.elapsed());
        set(&handle);
        let run = async move {
            loop {
                sleep(millis(5)).await;
                set(&handle);
            }
        };
        Self(clock, tokio::spawn(run).abort_handle())
    }
}

impl Drop for Offset {
    fn drop(&mut self) {
        self.1.abort();
    }
}

/// The circuits of all processes open and close together, with the same remaining time.
pub(crate) async fn offsets(kind: StoreKind, count: usize) {
    let server = Server::start(kind).await;
    let mut group = Group::unattached(&server.store, "clocks", 0);
    let clocks: Vec<_> =
        (0..count).map(|number| Offset::start(Duration::from_secs(3600) * (number % 3) as u32)).collect();
    for (number, Offset(clock, _)) in clocks.iter().enumerate() {
        let config = breaker().clock(*clock).build().unwrap();
        let agent = agent(&server.store, "clocks", &format!("process-{number}"));
        group.all.push(Process::start(config, Some(agent), &group.backend));
    }
    group.warm_up().await;
    group.open().await;
    group.answer(crate::processes::Answer::Success);
    group.wait("closed circuits", |group| group.are(CircuitState::Closed)).await;

    let open_for = Duration::from_secs(100);
    let trip = FleetOperation::new(FleetAction::Trip).open_for(open_for);
    group.all[0].fleet().operate(CIRCUIT, trip).await.unwrap();
    group.wait("open circuits", |group| group.are(CircuitState::Open)).await;
    for process in &group.all {
        let remaining = process.circuit.status().retry_after.unwrap();
        // A wrong clock would be off by an hour.
        assert!(remaining <= open_for && remaining + Duration::from_secs(50) > open_for, "{remaining:?}");
    }
    group.operate(FleetAction::Reset).await;
    group.wait("closed circuits", |group| group.are(CircuitState::Closed)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clocks_that_differ_by_an_hour_do_not_matter() {
    tokio::join!(offsets(StoreKind::Redis, 3), offsets(StoreKind::File, 3));
}
