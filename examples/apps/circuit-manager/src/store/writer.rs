//! The writer: stores the states of the circuits, outside of every call.

use std::collections::{BTreeSet, HashMap};
use std::mem;
use std::slice;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::{FutureExt, StreamExt, TryFutureExt};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::serde::rfc3339;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tower_breaker::telemetry::{Missed, Transition, Transitions};
use tower_breaker::{BreakerConfig, Circuit, Clock, ConfigError, Rejection, Verdict};
use tower_jitter_retry::RetryPolicy;
use utoipa::ToSchema;

use super::{Row, Store, StoreError};
use crate::agent::Saved;
use crate::manager::Manager;

/// The rows of one statement.
const MAX_ROWS: usize = 500;

/// The shortest wait after a failed write.
const MIN_PAUSE: Duration = Duration::from_millis(100);

/// The longest open time of the store's circuit.
const MAX_OPEN_TIME: Duration = Duration::from_secs(2);

/// The times of a [`StateWriter`].
#[derive(Clone, Debug)]
pub struct WriterSettings {
    /// How long a change waits for others, which are written in the same statement.
    /// **Default**: 20 ms.
    pub delay: Duration,
    /// How often the counts of agents are written whose state has not changed.
    /// **Default**: 10 s.
    pub counts_interval: Duration,
    /// The time limit of a statement. **Default**: 5 s.
    pub timeout: Duration,
    /// The time limit of the last writes, at shutdown. **Default**: 5 s.
    pub shutdown_limit: Duration,
}

impl Default for WriterSettings {
    fn default() -> Self {
        Self {
            delay: Duration::from_millis(20),
            counts_interval: Duration::from_secs(10),
            timeout: Duration::from_secs(5),
            shutdown_limit: Duration::from_secs(5),
        }
    }
}

/// What a [`StateWriter`] has written, and whether the store can be reached.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize, ToSchema)]
pub struct StoreStatus {
    /// Whether the last statement or check has succeeded.
    pub reachable: bool,
    /// The agents whose last change is not written.
    pub pending: usize,
    /// The changes of circuits so far.
    pub changes: u64,
    /// The rows that were written so far.
    pub rows: u64,
    /// The statements that wrote them.
    pub statements: u64,
    /// The error of the last statement or check. `None`: it has succeeded.
    pub last_error: Option<String>,
    /// When rows were written the last time.
    #[serde(with = "rfc3339::option")]
    pub last_write_at: Option<OffsetDateTime>,
}

/// The agents with a change that is no transition: they are new, or their open time has changed.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    agents: Mutex<BTreeSet<&'static str>>,
    added: Notify,
}

impl Changes {
    pub(crate) fn add(&self, agent: &'static str) {
        self.agents.lock().unwrap_or_else(PoisonError::into_inner).insert(agent);
        self.added.notify_one();
    }

    fn take(&self) -> BTreeSet<&'static str> {
        mem::take(&mut *self.agents.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A store with retries, a time limit, and a circuit of its own.
#[derive(Debug)]
pub(crate) struct GuardedStore {
    store: Store,
    circuit: Circuit,
    policy: RetryPolicy,
    timeout: Duration,
}

impl GuardedStore {
    pub(crate) fn new(store: Store, settings: &WriterSettings) -> Result<Self, ConfigError> {
        let circuit = BreakerConfig::builder()
            .name("circuit-manager-store")
            .clock(Clock::tokio())
            // One task writes: a failure rate would need many calls.
            .consecutive_failures(3)
            .consecutive_failures_span(Duration::ZERO)
            .count_failed_retries(true)
            .failure_rate(None)
            .open_for(Duration::from_millis(250))
            .open_backoff(2.0, MAX_OPEN_TIME)
            .successes_to_close(1)
            .build()?;
        let policy = RetryPolicy::builder().budget(None).build()?;
        Ok(Self { store, circuit: Circuit::new(circuit), policy, timeout: settings.timeout })
    }

    /// Creates the table, and returns its rows and the number of the last write.
    pub(crate) async fn load(&self) -> anyhow::Result<(Vec<Row>, u64)> {
        let load = || async {
            self.store.migrate().await?;
            self.store.load_with_last_write().await
        };
        self.run(load).await
    }

    async fn upsert(&self, rows: &[Row], attempts: Attempts) -> anyhow::Result<()> {
        match attempts {
            Attempts::Many => self.run(|| self.store.upsert(rows)).await,
            Attempts::One => Ok(self.store.upsert(rows).await?),
        }
    }

    async fn check(&self) -> anyhow::Result<()> {
        self.run(|| self.store.check()).await
    }

    /// Runs an operation until it succeeds, the circuit is open, or no retry is left. Each attempt
    /// calls the closure again.
    async fn run<T, F>(&self, operation: impl Fn() -> F) -> anyhow::Result<T>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let guard = self.circuit.errors_only().rule(store_rule);
        let retry = self.policy.errors_only().rule(store_rule);
        let attempt = || guard.call_within(self.timeout, operation().map_err(anyhow::Error::from));
        retry.retry(attempt).await
    }
}

/// How a statement is executed.
#[derive(Clone, Copy, Debug)]
enum Attempts {
    /// With retries, a time limit, and the circuit of the store.
    Many,
    /// At shutdown, there is no time to wait for the circuit, which may be open.
    One,
}

/// Returns whether the store has rejected a value of a row. Then it accepts other rows.
fn is_rejected(error: &anyhow::Error) -> bool {
    error.downcast_ref::<StoreError>().is_some_and(StoreError::is_rejection)
}

/// Classifies the errors of a store.
fn store_rule<T>(outcome: Result<&T, &anyhow::Error>) -> Option<Verdict> {
    let error = outcome.err()?.downcast_ref::<StoreError>()?;
    Some(Verdict::Fault(error.fault()))
}

/// Writes the states of the circuits to the store.
///
/// - Each transition is written, and each new agent. The changes of an agent that arrive before it
///   is written become one row, and many rows are written by one statement.
/// - A call never waits for the store.
/// - While the store cannot be reached, the agents with changes are remembered, and written when it
///   is back. Only the last state of an agent is written.
///
/// [`Manager::with_store`] returns the writer. Spawn [`run`](Self::run).
#[must_use = "nothing is written before `run` is called"]
#[derive(Debug)]
pub struct StateWriter {
    manager: Manager,
    store: GuardedStore,
    settings: WriterSettings,
    transitions: Transitions,
    changes: Arc<Changes>,
    status: watch::Sender<StoreStatus>,
    /// The agents whose last change is not written.
    pending: BTreeSet<&'static str>,
    /// What was written for each agent.
    written: HashMap<&'static str, Saved>,
    /// When the pending agents are written.
    due: Option<Instant>,
    /// The number of the last write: the number of the process, and that of the write within it.
    /// So the writes of this process have larger numbers than all that an earlier one has sent,
    /// also if they have not arrived yet.
    last_write: u64,
}

/// The bits of the number of a write within its process.
const WRITE_BITS: u32 = 32;

impl StateWriter {
    pub(crate) fn new(
        manager: Manager,
        store: GuardedStore,
        settings: WriterSettings,
        changes: Arc<Changes>,
        status: watch::Sender<StoreStatus>,
    ) -> Self {
        let transitions = manager.registry().transitions();
        let (pending, written, due) = Default::default();
        let last_write = 1 << WRITE_BITS;
        Self { manager, store, settings, transitions, changes, status, pending, written, due, last_write }
    }

    /// Continues after a write of an earlier process.
    pub(crate) fn follow(&mut self, write: u64) {
        let process = (write >> WRITE_BITS).saturating_add(1);
        self.last_write = self.last_write.max(process << WRITE_BITS);
    }

    /// Remembers a row of the store, so that it is written only after a change.
    pub(crate) fn add_written(&mut self, agent: &'static str, written: Saved) {
        self.written.insert(agent, written);
    }

    /// Writes until `shutdown` is cancelled, and then all that is pending, within the time limit of
    /// the shutdown.
    ///
    /// If this future is dropped, the last changes are lost.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let period = self.settings.counts_interval;
        let mut counts = interval_at(Instant::now() + period, period);
        counts.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let changes = Arc::clone(&self.changes);
        loop {
            let due = self.due;
            let is_due = async {
                match due {
                    Some(due) => sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                next = self.transitions.next() => match next {
                    Some(next) => self.add(next),
                    // The writer has a handle to the manager, so its circuits have not ended.
                    None => break,
                },
                () = changes.added.notified() => self.add_changes(),
                () = is_due => {
                    shutdown.run_until_cancelled(self.flush()).await;
                }
                _ = counts.tick() => {
                    shutdown.run_until_cancelled(self.write_counts()).await;
                }
            }
        }
        self.finish().await;
    }

    fn add(&mut self, next: Result<Transition, Missed>) {
        match next {
            Ok(transition) => {
                self.status.send_modify(|status| status.changes += 1);
                self.pending.insert(transition.circuit);
            }
            // Which circuits have changed is not known.
            Err(missed) => {
                self.status.send_modify(|status| status.changes += missed.transitions());
                self.pending.extend(self.manager.registry().circuits().iter().map(Circuit::name));
            }
        }
        self.set_due();
    }

    fn add_changes(&mut self) {
        self.pending.append(&mut self.changes.take());
        self.set_due();
    }

    /// Writes the counts that have changed. If there are none, checks that the store answers.
    async fn write_counts(&mut self) {
        self.add_counts();
        if self.pending.is_empty() {
            let result = self.store.check().await;
            self.report(result);
        }
    }

    /// Adds the agents that differ from what was written.
    fn add_counts(&mut self) {
        for agent in self.manager.agents() {
            let id = agent.circuit.name();
            if self.written.get(id).is_none_or(|written| *written != agent.saved()) {
                self.pending.insert(id);
            }
        }
        self.set_due();
    }

    /// Sets when the pending agents are written, unless it is set.
    fn set_due(&mut self) {
        let pending = self.pending.len();
        self.status.send_modify(|status| status.pending = pending);
        if pending > 0 && self.due.is_none() {
            self.due = Some(Instant::now() + self.settings.delay);
        }
    }

    /// Writes the pending agents. After a failure, sets when they are written again.
    async fn flush(&mut self) {
        self.due = None;
        while let Some(batch) = self.next_batch() {
            let result = self.write(batch, Attempts::Many).await;
            let is_written = result.is_ok();
            self.report(result);
            if !is_written {
                let pause = self.store.circuit.status().retry_after.unwrap_or_default();
                self.due = Some(Instant::now() + pause.max(MIN_PAUSE));
                return;
            }
        }
    }

    /// Writes a batch. A row that the store rejects keeps no other row from being written.
    async fn write(&mut self, batch: Batch, attempts: Attempts) -> anyhow::Result<()> {
        let result = self.store.upsert(&batch.rows, attempts).await;
        if !result.as_ref().is_err_and(is_rejected) {
            result?;
            self.add_written_batch(batch);
            return Ok(());
        }
        for (row, (id, saved)) in batch.rows.into_iter().zip(batch.saved) {
            match self.store.upsert(slice::from_ref(&row), attempts).await {
                Err(error) if is_rejected(&error) => {
                    // It is pending again at the next write of the counts.
                    tracing::error!(agent = id, "the store rejects the state of the agent: {error:#}");
                    self.pending.remove(id);
                }
                result => {
                    result?;
                    self.add_written_batch(Batch { rows: vec![row], saved: vec![(id, saved)] });
                }
            }
        }
        Ok(())
    }

    /// Returns the rows of the first pending agents, with their present state. The agents stay
    /// pending until the rows are written.
    fn next_batch(&mut self) -> Option<Batch> {
        let ids: Vec<_> = self.pending.iter().copied().take(MAX_ROWS).collect();
        let mut batch = Batch::default();
        self.last_write += 1;
        for id in ids {
            match self.manager.agent(id).map(|agent| agent.row(self.last_write)) {
                Some(Ok((row, saved))) => {
                    batch.rows.push(row);
                    batch.saved.push((id, saved));
                }
                Some(Err(error)) => {
                    tracing::error!(agent = id, "the state cannot be written: {error}");
                    self.pending.remove(id);
                }
                None => {
                    self.pending.remove(id);
                }
            }
        }
        (!batch.rows.is_empty()).then_some(batch)
    }

    fn add_written_batch(&mut self, batch: Batch) {
        let rows = batch.rows.len() as u64;
        for (id, saved) in batch.saved {
            self.pending.remove(id);
            self.written.insert(id, saved);
        }
        self.status.send_modify(|status| {
            status.rows += rows;
            status.statements += 1;
            status.last_write_at = Some(OffsetDateTime::now_utc());
        });
    }

    /// Updates the status, and logs when the store is lost and when it is back.
    fn report(&self, result: anyhow::Result<()>) {
        let pending = self.pending.len();
        // The rejection by the store's circuit does not say why the store fails.
        if result.as_ref().is_err_and(anyhow::Error::is::<Rejection>) {
            return self.status.send_modify(|status| status.pending = pending);
        }
        let error = result.err().map(|error| format!("{error:#}"));
        self.status.send_modify(|status| {
            match (&status.last_error, &error) {
                (None, Some(error)) => {
                    tracing::warn!(pending, "the states of the circuits cannot be written: {error}");
                }
                (Some(_), None) => tracing::info!(pending, "the states of the circuits are written again"),
                _ => (),
            }
            status.reachable = error.is_none();
            status.pending = pending;
            status.last_error = error;
        });
    }

    /// Writes all that is pending, within the time limit of the shutdown.
    async fn finish(mut self) {
        while let Some(Some(next)) = self.transitions.next().now_or_never() {
            self.add(next);
        }
        self.pending.append(&mut self.changes.take());
        self.add_counts();
        let limit = self.settings.shutdown_limit;
        let writes = async {
            while let Some(batch) = self.next_batch() {
                let result = self.write(batch, Attempts::One).await;
                let is_written = result.is_ok();
                self.report(result);
                if !is_written {
                    sleep(MIN_PAUSE).await;
                }
            }
        };
        if timeout(limit, writes).await.is_err() {
            tracing::error!(pending = self.pending.len(), "the last states of agents are not written");
        }
    }
}

/// The rows of one statement.
#[derive(Default)]
struct Batch {
    rows: Vec<Row>,
    saved: Vec<(&'static str, Saved)>,
}
