//! The store fails in each way and in each state of the circuits: each circuit then decides as one
//! that is not shared, and all agree when the store is back.

use std::time::Duration;

use futures::future::join_all;
use tokio::time::{Instant, sleep};
use tower_breaker::{CircuitState, Reason};
use tower_breaker_fleet::{FleetAction, FleetState, Override};

use crate::processes::{Answer, Group, HEARTBEAT, OPEN, Process, Step, TAKEOVER, breaker, millis};
use crate::servers::{Server, StoreFault, StoreKind};
use crate::twins::{is_commanded, own_decisions};

/// The state of the fleet when the store fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    Closed,
    Open,
    HalfOpen,
    ForcedOpen,
}

impl Start {
    pub(crate) const ALL: [Self; 4] = [Self::Closed, Self::Open, Self::HalfOpen, Self::ForcedOpen];
}

/// The measurements of one outage, for the report.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Measured {
    /// From the failure until all processes have noticed it.
    pub(crate) noticed: Duration,
    /// From the end of the failure until all processes agree.
    pub(crate) agreed: Duration,
    /// The longest admission among 10,000 calls of a shared circuit, and of one that is not shared.
    pub(crate) shared: Duration,
    pub(crate) alone: Duration,
}

/// A fleet in one state, and a circuit that is not shared and has the same backend.
struct Case {
    start: Start,
    group: Group,
    twin: Process,
    measured: Measured,
    /// The length of each history when the store failed, and when all had noticed it.
    before: Vec<usize>,
    noticed: Vec<usize>,
}

impl Case {
    async fn begin(server: &Server, start: Start, count: usize) -> Self {
        let group = Group::start(&server.store, &format!("{start:?}").to_lowercase(), count).await;
        let twin = Process::start(breaker().build().unwrap(), None, &group.backend);
        let (measured, before, noticed) = (Measured::default(), Vec::new(), Vec::new());
        let mut case = Self { start, group, twin, measured, before, noticed };
        match start {
            Start::Closed => {}
            Start::Open => case.group.open().await,
            Start::HalfOpen => case.half_open().await,
            Start::ForcedOpen => {
                case.group.operate(FleetAction::ForceOpen).await;
                case.twin.circuit.force_open().unwrap();
                case.group.wait("overrides", |group| group.are(CircuitState::ForcedOpen)).await;
            }
        }
        case
    }

    /// Opens the circuits, and waits until a probe runs.
    async fn half_open(&mut self) {
        self.group.open().await;
        self.group.answer(Answer::Hang);
        let is_probing = |group: &Group| {
            group.all.iter().any(|process| {
                process.circuit.status().half_open.is_some_and(|round| round.running_probes > 0)
            })
        };
        self.group.wait("probe", is_probing).await;
    }

    /// The number of steps of each process until now.
    fn lengths(&self) -> Vec<usize> {
        self.group.all.iter().map(|process| process.history().len()).collect()
    }

    /// The steps of each process since the store failed.
    fn steps(&self) -> impl Iterator<Item = Vec<Step>> {
        let all = self.group.all.iter().zip(&self.before);
        all.map(|(process, &before)| process.history()[before..].to_vec())
    }

    /// Checks the circuits while the store fails.
    async fn endure(&mut self) {
        let is_noticed = |group: &Group| group.all.iter().all(|process| !process.is_attached());
        self.measured.noticed = self.group.wait("loss of the store", is_noticed).await;
        self.noticed = self.lengths();
        if self.start == Start::HalfOpen {
            self.group.answer(Answer::Failure);
        }
        self.measured.shared = self.group.longest_admission().await;
        self.measured.alone = self.twin.longest_admission().await;
        match self.start {
            Start::Closed => {
                sleep(HEARTBEAT + TAKEOVER).await;
                assert!(self.steps().all(|steps| steps.is_empty()), "{:?}", self.group);
            }
            Start::Open | Start::HalfOpen => {}
            Start::ForcedOpen => {
                sleep(OPEN + 2 * TAKEOVER).await;
                assert!(self.steps().all(|steps| steps.is_empty()), "{:?}", self.group);
                return self.group.answer(Answer::Success);
            }
        }
        self.recover().await;
        self.compare();
    }

    /// Lets the backend fail for a few open periods, and then work.
    async fn recover(&self) {
        self.group.answer(Answer::Failure);
        let has_failed_probe =
            |process: &Process| process.history().iter().any(|step| step.reason == Reason::ProbeFailed);
        let all_failed =
            |group: &Group| has_failed_probe(&self.twin) && group.all.iter().all(has_failed_probe);
        self.group.wait("failed probes", all_failed).await;
        self.group.answer(Answer::Success);
        let is_closed = |process: &Process| process.state() == CircuitState::Closed;
        self.group
            .wait("closed circuits", |group| is_closed(&self.twin) && group.all.iter().all(is_closed))
            .await;
    }

    /// Each process has decided what the circuit has decided that is not shared.
    fn compare(&self) {
        let decided = |history: &[Step]| {
            let decisions = own_decisions(history);
            // The first opening is the fleet's decision, unless the store fails before it.
            let is_takeover = |step: &(_, _, Reason)| step.2 == Reason::OpenTimeOver;
            let begin =
                if self.start == Start::Closed { Some(0) } else { decisions.iter().position(is_takeover) };
            decisions[begin.unwrap_or(decisions.len())..].to_vec()
        };
        let expected = decided(&self.twin.history());
        for (process, &noticed) in self.group.all.iter().zip(&self.noticed) {
            let history = process.history();
            assert_eq!(decided(&history), expected, "{:?}: {:?}", self.start, self.group);
            assert_open_times(&history);
            // The command that shortens the deadline may be a little later than the notice.
            let late = history[noticed..].iter().skip(1).find(|step| is_commanded(step));
            assert_eq!(late, None, "{:?}: {:?}", self.start, self.group);
        }
    }

    /// Waits until all processes agree after the failure.
    async fn agree(&mut self) {
        let (state, manual) = match self.start {
            Start::ForcedOpen => (FleetState::Open, Some(Override::ForcedOpen)),
            Start::Closed | Start::Open | Start::HalfOpen => (FleetState::Closed, None),
        };
        let agree = |group: &Group| group.agree(state, manual);
        let start = Instant::now();
        self.group.wait("agreement", agree).await;
        self.measured.agreed = start.elapsed();
        if self.start == Start::ForcedOpen {
            assert!(self.steps().all(|steps| steps.is_empty()), "{:?}", self.group);
            self.group.operate(FleetAction::Release).await;
        }
        self.group.wait("closed circuits", |group| group.are(CircuitState::Closed)).await;
    }
}

/// No circuit half-opens before its open time is over.
fn assert_open_times(history: &[Step]) {
    for (opening, next) in history.iter().zip(&history[1..]) {
        // A half-open circuit without a lease waits for the takeover alone.
        let has_open_time = opening.from == CircuitState::Closed || opening.reason == Reason::ProbeFailed;
        if opening.to == CircuitState::Open && has_open_time && next.reason == Reason::OpenTimeOver {
            let open = next.at.duration_since(opening.at).unwrap_or_default();
            // The coarse clock lags by up to 10 ms.
            assert!(open + millis(20) >= OPEN, "{open:?}: {history:?}");
        }
    }
}

/// Lets the store fail while fleets are in these states.
pub(crate) async fn outage(
    kind: StoreKind,
    fault: StoreFault,
    starts: &[Start],
    count: usize,
) -> Vec<(Start, Measured)> {
    let mut server = Server::start(kind).await;
    let mut cases = join_all(starts.iter().map(|&start| Case::begin(&server, start, count))).await;
    let namespaces: Vec<_> = cases.iter().map(|case| case.group.name.clone()).collect();
    for case in &mut cases {
        case.before = case.lengths();
    }
    server.fail(fault, &namespaces).await;
    join_all(cases.iter_mut().map(Case::endure)).await;
    server.heal(fault, &namespaces).await;
    join_all(cases.iter_mut().map(Case::agree)).await;
    cases.iter().map(|case| (case.start, case.measured)).collect()
}

/// Failures of a store at the same time, each with its own server, with fleets of 2 processes.
async fn outages(kind: StoreKind, faults: &[StoreFault]) {
    join_all(faults.iter().map(|&fault| outage(kind, fault, &Start::ALL, 2))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outage_of_redis_costs_sharing_only() {
    outages(StoreKind::Redis, &StoreFault::ALL).await;
}

/// The campaign has the other failures.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outage_of_postgres_costs_sharing_only() {
    outages(StoreKind::Postgres, &[StoreFault::Pause, StoreFault::Kill, StoreFault::Cut]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outage_of_files_costs_sharing_only() {
    use StoreFault::{Garbage, Huge, Kill, Pause};
    outages(StoreKind::File, &[Pause, Kill, Garbage, Huge]).await;
}
