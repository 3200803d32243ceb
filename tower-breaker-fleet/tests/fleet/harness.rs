//! The processes of a test.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tower_breaker::fault_classify::{Origin, Retryable};
use tower_breaker::{
    BreakerConfig, BreakerConfigBuilder, Circuit, CircuitState, Clock, Fault, Health, Kind, Verdict,
};
use tower_breaker_fleet::{CircuitRecord, Fleet, FleetBuilder, FleetState, MemoryStore};

pub(crate) const NAME: &str = "search";
pub(crate) const HEARTBEAT: Duration = Duration::from_secs(5);
/// How long the store waits for all members to report.
pub(crate) const WARM_UP: Duration = Duration::from_millis(12_600);
/// The time between two looks at the processes.
const STEP: Duration = Duration::from_millis(5);
pub(crate) const OPEN: Duration = Duration::from_secs(3);

pub(crate) fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(crate) fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// The default configuration on tokio's clock, without jitter.
pub(crate) fn config() -> BreakerConfigBuilder {
    BreakerConfig::builder().name(NAME).clock(Clock::tokio()).open_for(OPEN).open_jitter(0.0)
}

/// A process of the fleet.
pub(crate) struct Process {
    pub(crate) circuit: Circuit,
    pub(crate) fleet: Fleet,
    pub(crate) agent: JoinHandle<()>,
    /// Whether calls through this process succeed while the server works.
    pub(crate) is_good: bool,
    /// The calls that were admitted.
    pub(crate) admitted: u64,
}

impl Process {
    pub(crate) fn start(store: &MemoryStore, instance: &str) -> Self {
        Self::start_with(store, instance, config().build().unwrap(), |builder| builder)
    }

    pub(crate) fn start_with(
        store: &MemoryStore,
        instance: &str,
        config: BreakerConfig,
        settings: impl FnOnce(FleetBuilder) -> FleetBuilder,
    ) -> Self {
        let circuit = Circuit::new(config);
        let (fleet, agent) = settings(Fleet::builder(store.clone()).instance(instance)).build().unwrap();
        let agent = tokio::spawn(agent);
        fleet.share(&circuit).unwrap();
        Self { circuit, fleet, agent, is_good: true, admitted: 0 }
    }

    pub(crate) fn state(&self) -> CircuitState {
        self.circuit.status().state
    }

    /// Makes a call that ends at once. Returns whether it was admitted.
    pub(crate) fn call(&mut self, server_works: bool) -> bool {
        let Ok(permit) = self.circuit.try_acquire() else { return false };
        self.admitted += 1;
        let succeeds = server_works && self.is_good;
        permit.record(if succeeds { Verdict::Success } else { failure() });
        true
    }

    /// Begins a call that takes some time.
    fn spawn_call(&mut self, server_works: bool, latency: Duration, server: &Server) {
        let Ok(permit) = self.circuit.try_acquire() else { return };
        self.admitted += 1;
        let verdict = if server_works && self.is_good { Verdict::Success } else { failure() };
        let server = server.clone();
        tokio::spawn(async move {
            server.begin();
            sleep(latency).await;
            server.end();
            permit.record(verdict);
        });
    }

    pub(crate) fn record(&self) -> CircuitRecord {
        let status = self.fleet.circuit_status(NAME).expect("a reply of the store");
        status.record.unwrap_or_default()
    }

    pub(crate) fn fleet_state(&self) -> FleetState {
        self.record().state
    }

    /// Ends the process without a farewell.
    pub(crate) fn kill(self) {
        self.agent.abort();
    }
}

/// The outcome of a call that the server fails.
pub(crate) fn failure() -> Verdict {
    Verdict::Fault(Fault::new(Kind::Server, Retryable::Never, Health::Unhealthy, Origin::Remote))
}

/// What the server sees of the calls that take time.
#[derive(Clone, Default)]
pub(crate) struct Server {
    running: Arc<AtomicUsize>,
    most_running: Arc<AtomicUsize>,
    calls: Arc<AtomicUsize>,
}

impl Server {
    fn begin(&self) {
        let running = self.running.fetch_add(1, Ordering::Relaxed) + 1;
        self.most_running.fetch_max(running, Ordering::Relaxed);
        self.calls.fetch_add(1, Ordering::Relaxed);
    }

    fn end(&self) {
        self.running.fetch_sub(1, Ordering::Relaxed);
    }

    /// Counts from now on.
    pub(crate) fn reset(&self) {
        self.most_running.store(0, Ordering::Relaxed);
        self.calls.store(0, Ordering::Relaxed);
    }

    pub(crate) fn most_running(&self) -> usize {
        self.most_running.load(Ordering::Relaxed)
    }

    pub(crate) fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }
}

/// Several processes that make calls at a steady rate.
pub(crate) struct Processes {
    pub(crate) all: Vec<Process>,
    pub(crate) store: MemoryStore,
    /// The time between two calls of each process.
    pub(crate) interval: Duration,
    /// How long a call takes.
    pub(crate) latency: Duration,
    pub(crate) server_works: bool,
    pub(crate) server: Server,
}

impl Processes {
    pub(crate) async fn start(count: usize) -> Self {
        Self::start_with(count, Process::start).await
    }

    pub(crate) async fn start_with(count: usize, start: impl Fn(&MemoryStore, &str) -> Process) -> Self {
        let store = MemoryStore::new();
        let all: Vec<_> = (0..count).map(|number| start(&store, &format!("p{number}"))).collect();
        for process in &all {
            assert!(process.fleet.ready(seconds(1)).await, "the agent is ready");
        }
        let (latency, server) = (Duration::ZERO, Server::default());
        Self { all, store, interval: millis(100), latency, server_works: true, server }
    }

    /// Waits until the agents have evaluated their ballots and the store has replied.
    pub(crate) async fn settle(&self) {
        sleep(millis(60)).await;
    }

    /// Makes calls for this long.
    pub(crate) async fn run(&mut self, time: Duration) {
        self.run_until(time, |_| false).await;
    }

    /// Makes calls until the condition holds. Returns the time, or `None` if it never held.
    pub(crate) async fn run_until(
        &mut self,
        limit: Duration,
        condition: impl Fn(&Self) -> bool,
    ) -> Option<Duration> {
        let start = Instant::now();
        // The processes call one after another.
        let offset = self.interval / u32::try_from(self.all.len()).unwrap();
        let mut next = vec![start; self.all.len()];
        for (number, next) in next.iter_mut().enumerate() {
            *next += offset * u32::try_from(number).unwrap();
        }
        while start.elapsed() < limit {
            let now = Instant::now();
            for (process, next) in self.all.iter_mut().zip(&mut next) {
                if *next <= now {
                    if self.latency.is_zero() {
                        process.call(self.server_works);
                    } else {
                        process.spawn_call(self.server_works, self.latency, &self.server);
                    }
                    *next += self.interval;
                }
            }
            if condition(self) {
                return Some(start.elapsed());
            }
            sleep(STEP).await;
        }
        None
    }

    /// Lets the server fail until the fleet has opened all circuits.
    pub(crate) async fn open(&mut self) {
        self.server_works = false;
        let is_open =
            |fleet: &Self| fleet.all_in(CircuitState::Open) && fleet.all[0].fleet_state() == FleetState::Open;
        let opened = self.run_until(seconds(15), is_open).await;
        assert!(opened.is_some(), "{:?}", self.states());
    }

    /// The calls of all processes that were admitted.
    pub(crate) fn admitted(&self) -> u64 {
        self.all.iter().map(|process| process.admitted).sum()
    }

    /// The messages that the store has replied to.
    pub(crate) fn messages(&self) -> u64 {
        self.all.iter().map(|process| process.fleet.status().messages).sum()
    }

    pub(crate) fn count(&self, state: CircuitState) -> usize {
        self.all.iter().filter(|process| process.state() == state).count()
    }

    pub(crate) fn all_in(&self, state: CircuitState) -> bool {
        self.count(state) == self.all.len()
    }

    pub(crate) fn states(&self) -> Vec<CircuitState> {
        self.all.iter().map(Process::state).collect()
    }
}
