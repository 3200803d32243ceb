//! The processes of a fleet in one test, and the backend that they call.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use futures::future::join_all;
use tokio::sync::watch;
use tokio::task::{AbortHandle, spawn_blocking};
use tokio::time::{Instant, sleep};
use tower_breaker::fault_classify::{Origin, Retryable};
use tower_breaker::{
    BreakerConfig, BreakerConfigBuilder, Circuit, CircuitState, Fault, Health, Kind, Reason, Verdict,
};
use tower_breaker_fleet::{
    CircuitRecord, Fleet, FleetAction, FleetBuilder, FleetOperation, FleetState, Override,
};

use crate::servers::Store;

pub(crate) const CIRCUIT: &str = "search";
pub(crate) const OPEN: Duration = Duration::from_secs(1);
pub(crate) const HEARTBEAT: Duration = Duration::from_millis(250);
pub(crate) const TAKEOVER: Duration = Duration::from_millis(500);
/// Long enough for a loaded machine: a shorter one would be one more outage.
const TIMEOUT: Duration = Duration::from_secs(1);
/// The longest wait for a condition. It only ends a test that hangs: a loaded machine is slow.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);
/// The time between two looks at a condition.
const STEP: Duration = Duration::from_millis(10);

pub(crate) fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Five failures in a row open the circuit, for the same time each.
pub(crate) fn breaker() -> BreakerConfigBuilder {
    BreakerConfig::builder()
        .name(CIRCUIT)
        .consecutive_failures_span(Duration::ZERO)
        .open_for(OPEN)
        .open_jitter(0.0)
}

/// The settings of an agent for short tests.
pub(crate) fn agent(store: &Store, namespace: &str, instance: &str) -> FleetBuilder {
    let builder = store.builder().namespace(namespace).instance(instance);
    builder.heartbeat(HEARTBEAT).takeover(TAKEOVER).timeout(TIMEOUT)
}

/// The seed of the times between calls: `CAMPAIGN_SEED`, or 1.
pub(crate) fn seed() -> u64 {
    std::env::var("CAMPAIGN_SEED").map_or(1, |seed| seed.parse().expect("`CAMPAIGN_SEED` is a number"))
}

/// Returns the random numbers of one more process.
fn random() -> fastrand::Rng {
    static PROCESSES: AtomicU64 = AtomicU64::new(0);
    fastrand::Rng::with_seed(seed().wrapping_add(PROCESSES.fetch_add(1, Relaxed)))
}

/// What the backend does with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Success,
    Failure,
    /// The call waits for another answer.
    Hang,
}

/// The backend that all processes call.
pub(crate) type Backend = Arc<watch::Sender<Answer>>;

/// A transition of a local circuit.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) from: CircuitState,
    pub(crate) to: CircuitState,
    pub(crate) reason: Reason,
    pub(crate) at: SystemTime,
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}→{} ({})", self.from, self.to, self.reason.as_str())
    }
}

/// A process: a circuit, and an agent unless the circuit is not shared.
pub(crate) struct Process {
    pub(crate) circuit: Circuit,
    pub(crate) fleet: Option<Fleet>,
    pub(crate) history: Arc<Mutex<Vec<Step>>>,
    path: Arc<Path>,
    tasks: Vec<AbortHandle>,
}

/// The path from a process to the backend.
struct Path {
    backend: Backend,
    works: AtomicBool,
    admitted: AtomicU64,
}

impl Path {
    /// Makes a call. While the backend hangs, the call waits for another answer.
    async fn call(&self, circuit: &Circuit) {
        let Ok(permit) = circuit.try_acquire() else { return };
        self.admitted.fetch_add(1, Relaxed);
        // An error: the test ends.
        let _ = self.backend.subscribe().wait_for(|answer| *answer != Answer::Hang).await;
        permit.record(self.verdict());
    }

    fn verdict(&self) -> Verdict {
        if self.works.load(Relaxed) && *self.backend.borrow() == Answer::Success {
            Verdict::Success
        } else {
            Verdict::Fault(Fault::new(Kind::Server, Retryable::Never, Health::Unhealthy, Origin::Remote))
        }
    }
}

impl Process {
    /// Starts a process that calls the backend every 20 ms on average.
    pub(crate) fn start(config: BreakerConfig, agent: Option<FleetBuilder>, backend: &Backend) -> Self {
        let mut process = Self::silent(config, agent, backend);
        process.begin_calls();
        process
    }

    /// Starts a process without calls.
    pub(crate) fn silent(config: BreakerConfig, agent: Option<FleetBuilder>, backend: &Backend) -> Self {
        let circuit = Circuit::new(config);
        let history = Arc::new(Mutex::new(Vec::new()));
        let steps = Arc::clone(&history);
        circuit.on_transition(move |transition| {
            let &tower_breaker::telemetry::Transition { from, to, reason, at, .. } = transition;
            steps.lock().unwrap_or_else(PoisonError::into_inner).push(Step { from, to, reason, at });
        });
        let (works, admitted) = (AtomicBool::new(true), AtomicU64::new(0));
        let path = Arc::new(Path { backend: Arc::clone(backend), works, admitted });
        let mut tasks = Vec::new();
        let fleet = agent.map(|agent| {
            let (fleet, agent) = agent.build().unwrap();
            fleet.share(&circuit).unwrap();
            tasks.push(tokio::spawn(agent).abort_handle());
            fleet
        });
        Self { circuit, fleet, history, path, tasks }
    }

    pub(crate) fn begin_calls(&mut self) {
        let (circuit, path, mut random) = (self.circuit.clone(), Arc::clone(&self.path), random());
        let call = async move {
            loop {
                sleep(millis(20).mul_f64(0.5 + random.f64())).await;
                path.call(&circuit).await;
            }
        };
        self.tasks.push(tokio::spawn(call).abort_handle());
    }

    pub(crate) fn state(&self) -> CircuitState {
        self.circuit.status().state
    }

    /// Breaks or repairs the path of this process to the backend.
    pub(crate) fn set_path(&self, works: bool) {
        self.path.works.store(works, Relaxed);
    }

    /// The calls that were admitted.
    pub(crate) fn admitted(&self) -> u64 {
        self.path.admitted.load(Relaxed)
    }

    pub(crate) fn history(&self) -> Vec<Step> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn forget_history(&self) {
        self.history.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Returns the fleet of a process that has an agent.
    pub(crate) fn fleet(&self) -> &Fleet {
        self.fleet.as_ref().expect("an agent")
    }

    pub(crate) fn is_attached(&self) -> bool {
        self.fleet.as_ref().is_some_and(|fleet| fleet.status().attached)
    }

    /// The record as this process knows it. Epoch 0: the store has none.
    pub(crate) fn record(&self) -> CircuitRecord {
        let status = self.fleet.as_ref().and_then(|fleet| fleet.circuit_status(CIRCUIT));
        status.and_then(|status| status.record).unwrap_or_default()
    }

    /// Whether the store counts this number of members, and decides votes.
    fn is_warm(&self, members: usize) -> bool {
        let status = self.fleet.as_ref().and_then(|fleet| fleet.circuit_status(CIRCUIT));
        status.is_some_and(|status| status.members as usize == members && !status.warming_up)
    }

    /// Makes 10,000 calls in a thread of its own, and returns the longest time of an admission.
    pub(crate) async fn longest_admission(&self) -> Duration {
        let (circuit, path) = (self.circuit.clone(), Arc::clone(&self.path));
        let measure = move || {
            let admission = || {
                let start = Instant::now();
                let result = circuit.try_acquire();
                let time = start.elapsed();
                if let Ok(permit) = result {
                    permit.record(path.verdict());
                }
                time
            };
            (0..10_000).map(|_| admission()).max().unwrap_or_default()
        };
        spawn_blocking(measure).await.unwrap()
    }
}

impl Drop for Process {
    /// Ends the process without a farewell.
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

/// The processes of one namespace.
pub(crate) struct Group {
    pub(crate) name: String,
    pub(crate) all: Vec<Process>,
    pub(crate) backend: Backend,
}

impl Group {
    /// Starts processes, and waits until the store counts all of them and decides votes.
    pub(crate) async fn start(store: &Store, namespace: &str, count: usize) -> Self {
        Self::start_with(store, namespace, count, &breaker().build().unwrap()).await
    }

    pub(crate) async fn start_with(
        store: &Store,
        namespace: &str,
        count: usize,
        config: &BreakerConfig,
    ) -> Self {
        let group = Self::begin(store, namespace, count, config);
        group.warm_up().await;
        group
    }

    /// Starts processes, and does not wait for the store.
    pub(crate) fn unattached(store: &Store, namespace: &str, count: usize) -> Self {
        Self::begin(store, namespace, count, &breaker().build().unwrap())
    }

    fn begin(store: &Store, namespace: &str, count: usize, config: &BreakerConfig) -> Self {
        let backend = Arc::new(watch::Sender::new(Answer::Success));
        let start = |number| {
            let agent = agent(store, namespace, &format!("process-{number}"));
            Process::start(config.clone(), Some(agent), &backend)
        };
        let all = (0..count).map(start).collect();
        Self { name: namespace.to_owned(), all, backend }
    }

    /// Waits until the store counts all processes and decides votes.
    pub(crate) async fn warm_up(&self) {
        let members = self.all.len();
        self.wait("members", |group| group.all.iter().all(|process| process.is_warm(members))).await;
    }

    pub(crate) fn answer(&self, answer: Answer) {
        self.backend.send_replace(answer);
    }

    pub(crate) fn are(&self, state: CircuitState) -> bool {
        self.all.iter().all(|process| process.state() == state)
    }

    /// Whether all processes are attached and know the same record.
    pub(crate) fn agree(&self, state: FleetState, manual: Option<Override>) -> bool {
        let first = self.all[0].record();
        self.all.iter().all(|process| {
            let record = process.record();
            let is_same = (record.epoch, record.state, record.manual) == (first.epoch, state, manual);
            process.is_attached() && is_same
        })
    }

    /// Lets the backend fail until the fleet has opened all circuits.
    pub(crate) async fn open(&self) {
        self.answer(Answer::Failure);
        let is_open = |group: &Self| {
            group.are(CircuitState::Open)
                && group.all.iter().all(|one| one.record().state == FleetState::Open)
        };
        self.wait("open circuits", is_open).await;
    }

    pub(crate) async fn operate(&self, action: FleetAction) -> CircuitRecord {
        self.all[0].fleet().operate(CIRCUIT, FleetOperation::new(action).by("test")).await.unwrap()
    }

    /// Waits until the condition holds, and returns how long that took.
    #[track_caller]
    pub(crate) fn wait<'a>(
        &'a self,
        what: &'a str,
        condition: impl Fn(&Self) -> bool + 'a,
    ) -> impl Future<Output = Duration> + 'a {
        let caller = std::panic::Location::caller();
        async move {
            let start = Instant::now();
            while !condition(self) {
                assert!(start.elapsed() < DEADLINE, "{caller}: no {what}: {self:?}");
                sleep(STEP).await;
            }
            start.elapsed()
        }
    }

    /// The longest admission among 10,000 calls of each of the first processes.
    pub(crate) async fn longest_admission(&self) -> Duration {
        let longest = self.all.iter().take(3).map(Process::longest_admission);
        join_all(longest).await.into_iter().max().unwrap_or_default()
    }
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "processes of `{}`:", self.name)?;
        for process in &self.all {
            let CircuitRecord { epoch, state, manual, .. } = process.record();
            let error = process.fleet.as_ref().and_then(|fleet| fleet.status().last_error);
            writeln!(
                f,
                "{}, attached {}, epoch {epoch} {state:?} {manual:?}, {:?}, {error:?}",
                process.state(),
                process.is_attached(),
                process.history(),
            )?;
        }
        Ok(())
    }
}
