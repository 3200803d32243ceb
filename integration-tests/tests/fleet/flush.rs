//! Redis loses its data again and again.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tower_breaker::{CircuitState, Reason};
use tower_breaker_fleet::{FleetAction, FleetState};

use crate::processes::{Answer, Group, Process, breaker};
use crate::servers::{Server, StoreKind};

/// How often, and how long, the store loses its data.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flushes {
    pub(crate) every: Duration,
    pub(crate) time: Duration,
}

impl Flushes {
    const SMALL: Self = Self { every: Duration::from_millis(200), time: Duration::from_secs(2) };

    /// Deletes the data again and again. `check` runs after each time.
    async fn run(self, server: &Server, check: impl Fn()) {
        let end = Instant::now() + self.time;
        while Instant::now() < end {
            server.flush();
            sleep(self.every).await;
            check();
        }
    }
}

/// No closed circuit opens, although a third of the processes is bad.
pub(crate) async fn closed(count: usize, flushes: Flushes) {
    let server = Server::start(StoreKind::Redis).await;
    let group = Group::start(&server.store, "closed", count).await;
    let bad = count / 3;
    group.all.iter().take(bad).for_each(|process| process.set_path(false));
    flushes.run(&server, || {}).await;
    group.warm_up().await;
    assert!(group.all[bad..].iter().all(|process| process.history().is_empty()), "{group:?}");
}

/// No open circuit admits a call before its open time is over, and all close afterwards.
pub(crate) async fn open(count: usize, flushes: Flushes) {
    let server = Server::start(StoreKind::Redis).await;
    let config = breaker().open_for(flushes.time + Duration::from_secs(5)).build().unwrap();
    let group = Group::start_with(&server.store, "open", count, &config).await;
    group.open().await;
    let start = Instant::now();
    let admitted = |group: &Group| group.all.iter().map(Process::admitted).sum::<u64>();
    let before = admitted(&group);
    group.answer(Answer::Success);
    flushes.run(&server, || {}).await;
    // A stalled machine may have needed longer than the open time.
    if start.elapsed() < flushes.time + Duration::from_secs(4) {
        assert_eq!(admitted(&group), before, "{group:?}");
        assert!(group.are(CircuitState::Open), "{group:?}");
    }
    group.wait("closed circuits", |group| group.are(CircuitState::Closed)).await;
}

/// No half-open circuit closes without successful probes, and all close with them.
pub(crate) async fn half_open(count: usize, flushes: Flushes) {
    let server = Server::start(StoreKind::Redis).await;
    let group = Group::start(&server.store, "half-open", count).await;
    group.open().await;
    group.answer(Answer::Hang);
    let is_half_open = |group: &Group| group.all.iter().any(|one| one.state() == CircuitState::HalfOpen);
    group.wait("half-open circuit", is_half_open).await;
    let is_unclosed = || {
        assert!(group.all.iter().all(|one| one.state() != CircuitState::Closed), "{group:?}");
    };
    flushes.run(&server, is_unclosed).await;
    group.answer(Answer::Failure);
    flushes.run(&server, is_unclosed).await;
    group.answer(Answer::Success);
    group.wait("closed circuits", |group| group.are(CircuitState::Closed)).await;
    let is_agreed = |group: &Group| group.agree(FleetState::Closed, None);
    group.wait("agreement", is_agreed).await;
}

/// A forced circuit stays forced, and follows a release afterwards.
pub(crate) async fn forced(count: usize, flushes: Flushes, action: FleetAction) {
    let server = Server::start(StoreKind::Redis).await;
    let group = Group::start(&server.store, "forced", count).await;
    group.operate(action).await;
    let forced =
        if action == FleetAction::ForceOpen { CircuitState::ForcedOpen } else { CircuitState::ForcedClosed };
    group.wait("overrides", |group| group.are(forced)).await;
    group.answer(Answer::Failure);
    flushes.run(&server, || assert!(group.are(forced), "{group:?}")).await;
    let is_once = |group: &Group| {
        group.all.iter().all(|one| {
            let history = one.history();
            history.len() == 1 && history[0].reason == Reason::Forced
        })
    };
    assert!(is_once(&group), "{group:?}");
    group.answer(Answer::Success);
    group.operate(FleetAction::Release).await;
    group.wait("closed circuits", |group| group.are(CircuitState::Closed)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flushes_change_no_circuit() {
    let flushes = Flushes::SMALL;
    tokio::join!(
        closed(6, flushes),
        open(3, flushes),
        half_open(3, flushes),
        forced(3, flushes, FleetAction::ForceOpen),
        forced(3, flushes, FleetAction::ForceClosed),
    );
}
