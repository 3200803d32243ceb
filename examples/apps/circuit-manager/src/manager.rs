//! The manager: the circuits by agent.

use std::collections::{BTreeMap, HashMap};
use std::error::Error;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock, PoisonError, RwLock, Weak};

use futures::{FutureExt, StreamExt};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tower::BoxError;
use tower_breaker::snapshot::Restored;
use tower_breaker::{Circuit, CircuitRegistry, CircuitState, Clock, ControlError, HealthReport, Verdict};

use crate::agent::{Agent, FAILURE, Saved};
use crate::settings::{CircuitSettings, SettingsError};
use crate::stats::{AgentStatus, CircuitStats};
use crate::store::{Changes, GuardedStore, Row, StateWriter, Store, StoreStatus, WriterSettings};

/// The longest agent id.
const MAX_ID_LENGTH: usize = 128;

/// The circuits of agents, by agent id.
///
/// A clone is another handle to the same circuits. No method waits for the store of the states.
///
/// A circuit is created at the first use of its agent id. It exists until the program ends, so do
/// not use data of requests as agent ids.
#[derive(Clone)]
pub struct Manager {
    inner: Arc<Inner>,
}

struct Inner {
    registry: CircuitRegistry,
    /// Set if there is a store.
    persistence: OnceLock<Persistence>,
    agents: RwLock<HashMap<&'static str, Arc<Agent>>>,
    default: CircuitSettings,
    own: BTreeMap<String, CircuitSettings>,
}

/// The connection to the writer of the states.
struct Persistence {
    changes: Arc<Changes>,
    status: watch::Receiver<StoreStatus>,
}

impl Manager {
    /// Creates a manager without agents, whose circuits are in memory only.
    ///
    /// `default` are the limits of each agent that is not in `own`.
    ///
    /// # Errors
    ///
    /// Returns an error if a setting is out of its range, or if an agent id of `own` is not valid.
    pub fn new(
        default: CircuitSettings,
        own: BTreeMap<String, CircuitSettings>,
    ) -> Result<Self, ManagerError> {
        Self::build(default, own, None)
    }

    /// Creates a manager like [`new`](Self::new), whose circuits read `clock`.
    ///
    /// # Errors
    ///
    /// See [`new`](Self::new).
    pub fn with_clock(
        default: CircuitSettings,
        own: BTreeMap<String, CircuitSettings>,
        clock: Clock,
    ) -> Result<Self, ManagerError> {
        Self::build(default, own, Some(clock))
    }

    /// Creates a manager whose circuits continue as they are in the store.
    ///
    /// An open circuit stays open for the rest of its cooldown. A half-open circuit is open, and
    /// its next call is a probe. A closed circuit starts with an empty window. A row that cannot be
    /// used is logged, and its circuit starts closed.
    ///
    /// Spawn [`StateWriter::run`], which writes the changes to the store.
    ///
    /// # Errors
    ///
    /// Returns an error if a setting or an agent id is not valid, or if the store cannot be read.
    ///
    /// # Panics
    ///
    /// Panics outside of a tokio runtime with an enabled timer.
    pub async fn with_store(
        default: CircuitSettings,
        own: BTreeMap<String, CircuitSettings>,
        store: Store,
    ) -> Result<(Self, StateWriter), ManagerError> {
        Self::new(default, own)?.persist(store, WriterSettings::default()).await
    }

    /// Continues with the circuits in a store, and returns the writer of their changes.
    ///
    /// Call it before the first call of an agent: the state of a circuit that has changed since it
    /// was created is newer than that in the store. See [`with_store`](Self::with_store).
    ///
    /// # Errors
    ///
    /// Returns an error if the store cannot be read, or if the manager has a store.
    ///
    /// # Panics
    ///
    /// Panics outside of a tokio runtime with an enabled timer.
    pub async fn persist(
        self,
        store: Store,
        settings: WriterSettings,
    ) -> Result<(Self, StateWriter), ManagerError> {
        let store = GuardedStore::new(store, &settings).map_err(|error| ManagerError::Store(error.into()))?;
        let (rows, last_write) = store.load().await.map_err(|error| ManagerError::Store(error.into()))?;
        let changes = Arc::<Changes>::default();
        let reachable = StoreStatus { reachable: true, ..StoreStatus::default() };
        let (sender, status) = watch::channel(reachable);
        let persistence = Persistence { changes: Arc::clone(&changes), status };
        if self.inner.persistence.set(persistence).is_err() {
            return Err(ManagerError::HasStore);
        }
        let mut writer = StateWriter::new(self.clone(), store, settings, changes, sender);
        writer.follow(last_write);
        for row in rows {
            match self.restore(&row) {
                Ok((id, written)) => writer.add_written(id, written),
                Err(error) => tracing::warn!(
                    agent = shortened(&row.agent_id),
                    "the row of the agent cannot be used, and its circuit starts closed: {error}"
                ),
            }
        }
        Ok((self, writer))
    }

    fn restore(&self, row: &Row) -> Result<(&'static str, Saved), BoxError> {
        let snapshot = row.snapshot()?;
        let saved = Saved { stats: row.stats()?, last_change: row.last_state_change_at };
        let agent = self.agent_or_new(&row.agent_id)?;
        if agent.circuit.restore(&snapshot)? == Restored::Applied {
            agent.restore(saved.clone());
        }
        Ok((agent.circuit.name(), saved))
    }

    /// Returns what was written to the store, and whether it can be reached. `None`: there is none.
    pub fn store_status(&self) -> Option<StoreStatus> {
        Some(self.inner.persistence.get()?.status.borrow().clone())
    }

    fn build(
        default: CircuitSettings,
        own: BTreeMap<String, CircuitSettings>,
        clock: Option<Clock>,
    ) -> Result<Self, ManagerError> {
        let config = |agent_id: Option<&str>, settings: &CircuitSettings| {
            let invalid =
                |error| ManagerError::Settings { agent_id: agent_id.map(str::to_owned), source: error };
            let mut builder = settings.to_config().map_err(invalid)?.to_builder();
            if let Some(clock) = clock {
                builder = builder.clock(clock);
            }
            if let Some(id) = agent_id {
                builder = builder.name(id.to_owned());
            }
            builder.build().map_err(|error| invalid(error.into()))
        };
        let registry = CircuitRegistry::new(config(None, &default)?);
        for (id, settings) in &own {
            check_id(id)?;
            let invalid = |error: tower_breaker::ConfigError| ManagerError::Settings {
                agent_id: Some(id.clone()),
                source: error.into(),
            };
            registry.configure(config(Some(id), settings)?).map_err(invalid)?;
        }
        let inner = Arc::new(Inner {
            registry,
            persistence: OnceLock::new(),
            agents: RwLock::default(),
            default,
            own,
        });
        Inner::observe(&inner);
        Ok(Self { inner })
    }

    /// Returns the circuit of an agent, and creates it if it does not exist.
    ///
    /// # Errors
    ///
    /// Returns an error if the id is not 1 to 128 characters of `A-Z a-z 0-9 . _ -`.
    pub fn get_or_create(&self, id: &str) -> Result<Circuit, ManagerError> {
        Ok(self.agent_or_new(id)?.circuit.clone())
    }

    /// Returns the circuit of an agent; `None` if the agent is unknown.
    pub fn get(&self, id: &str) -> Option<Circuit> {
        Some(self.agent(id)?.circuit.clone())
    }

    /// Returns whether the circuit of an agent admits a call now.
    ///
    /// Record the outcome of the call with [`record_success`](Self::record_success) or
    /// [`record_failure`](Self::record_failure). If the circuit is half-open, the call is a probe
    /// and holds its place until then, at most for the cooldown.
    ///
    /// # Errors
    ///
    /// Returns an error if the id is not valid.
    pub fn can_execute(&self, id: &str) -> Result<bool, ManagerError> {
        Ok(self.agent_or_new(id)?.can_execute())
    }

    /// Records that a call of an agent has succeeded.
    ///
    /// # Errors
    ///
    /// Returns an error if the id is not valid.
    pub fn record_success(&self, id: &str) -> Result<(), ManagerError> {
        self.agent_or_new(id)?.record(Verdict::Success);
        Ok(())
    }

    /// Records that a call of an agent has failed.
    ///
    /// # Errors
    ///
    /// Returns an error if the id is not valid.
    pub fn record_failure(&self, id: &str) -> Result<(), ManagerError> {
        self.agent_or_new(id)?.record(FAILURE);
        Ok(())
    }

    /// Returns the state of an agent's circuit; `None` if the agent is unknown.
    ///
    /// An open circuit becomes half-open at the first call after its cooldown.
    pub fn get_state(&self, id: &str) -> Option<CircuitState> {
        Some(self.agent(id)?.circuit.status().state)
    }

    /// Returns the states of all circuits.
    pub fn get_all_states(&self) -> BTreeMap<String, CircuitState> {
        self.each(|agent| agent.circuit.status().state)
    }

    /// Returns whether the agent is known, and its circuit admits and counts all calls.
    pub fn is_closed(&self, id: &str) -> bool {
        self.get_state(id) == Some(CircuitState::Closed)
    }

    /// Returns whether the agent is known, and its circuit is open or forced open.
    pub fn is_open(&self, id: &str) -> bool {
        self.get_state(id).is_some_and(CircuitState::is_open)
    }

    /// Returns whether the agent is known, and its circuit is half-open.
    pub fn is_half_open(&self, id: &str) -> bool {
        self.get_state(id) == Some(CircuitState::HalfOpen)
    }

    /// Returns the status of an agent; `None` if the agent is unknown.
    pub fn status(&self, id: &str) -> Option<AgentStatus> {
        self.stats(id).map(AgentStatus::from)
    }

    /// Returns the status of each agent.
    pub fn statuses(&self) -> BTreeMap<String, AgentStatus> {
        self.each(|agent| agent.saved().stats.into())
    }

    /// Returns the statistics of an agent; `None` if the agent is unknown.
    pub fn stats(&self, id: &str) -> Option<CircuitStats> {
        Some(self.agent(id)?.saved().stats)
    }

    /// Opens the circuit of an agent for its cooldown from now. It then recovers by itself.
    ///
    /// # Errors
    ///
    /// Returns an error if the agent is unknown, or if its circuit has a manual override.
    pub fn force_open(&self, id: &str) -> Result<(), ManagerError> {
        let agent = self.known(id)?;
        // Other changes of the state are transitions, which the writer gets by itself.
        if agent.force_open()? {
            self.inner.mark_changed(agent.circuit.name());
        }
        Ok(())
    }

    /// Closes the circuit of an agent. It counts from 0.
    ///
    /// # Errors
    ///
    /// Returns an error if the agent is unknown, or if its circuit has a manual override.
    pub fn force_close(&self, id: &str) -> Result<(), ManagerError> {
        self.reset(id)
    }

    /// Resets the circuit of an agent: its state, its statistics, and the places of its probes.
    ///
    /// # Errors
    ///
    /// Returns an error if the agent is unknown, or if its circuit has a manual override.
    pub fn reset(&self, id: &str) -> Result<(), ManagerError> {
        self.known(id)?.circuit.reset()?;
        Ok(())
    }

    /// Applies the report of a health checker to the circuit of an agent, and creates the circuit
    /// if it does not exist.
    ///
    /// # Errors
    ///
    /// Returns an error if the id is not valid.
    pub fn report(&self, id: &str, report: HealthReport) -> Result<(), ManagerError> {
        self.agent_or_new(id)?.circuit.report(report);
        Ok(())
    }

    /// Adds a callback, which is called after each change of any circuit with the agent, the state
    /// before and the state after.
    ///
    /// It runs on the thread that caused the change, outside of every lock. A panic of the callback
    /// is logged, and has no other effect.
    pub fn on_state_change(
        &self,
        callback: impl Fn(&str, CircuitState, CircuitState) + Send + Sync + 'static,
    ) {
        self.inner.registry.on_transition(move |transition| {
            let run = || callback(transition.circuit, transition.from, transition.to);
            if catch_unwind(AssertUnwindSafe(run)).is_err() {
                log_callback(transition.circuit, &"it panicked");
            }
        });
    }

    /// Adds an asynchronous callback, which is called after each change of any circuit.
    ///
    /// It runs in a task of its own, for one change after the other, so that no call waits for it.
    /// An error or a panic of the callback is logged. The task ends with the circuits of the
    /// manager. At most 256 changes wait for a slow callback: it misses the oldest ones, and their
    /// number is logged.
    ///
    /// # Panics
    ///
    /// Panics outside of a tokio runtime.
    pub fn on_state_change_async<F, Fut, E>(&self, callback: F) -> JoinHandle<()>
    where
        F: Fn(&'static str, CircuitState, CircuitState) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), E>> + Send,
        E: fmt::Display + Send,
    {
        let mut transitions = self.inner.registry.transitions();
        tokio::spawn(async move {
            while let Some(next) = transitions.next().await {
                let transition = match next {
                    Ok(transition) => transition,
                    Err(missed) => {
                        tracing::warn!("a callback of state changes is too slow: {missed}");
                        continue;
                    }
                };
                let agent = transition.circuit;
                let run = AssertUnwindSafe(async { callback(agent, transition.from, transition.to).await });
                match run.catch_unwind().await {
                    Ok(Ok(())) => (),
                    Ok(Err(error)) => log_callback(agent, &error),
                    Err(_) => log_callback(agent, &"it panicked"),
                }
            }
        })
    }

    /// Returns the registry of the circuits, for an admin page.
    pub fn registry(&self) -> &CircuitRegistry {
        &self.inner.registry
    }

    pub(crate) fn agent_or_new(&self, id: &str) -> Result<Arc<Agent>, ManagerError> {
        if let Some(agent) = self.agent(id) {
            return Ok(agent);
        }
        check_id(id)?;
        // The registry creates one circuit for each name, and calls the listener before any thread
        // gets it.
        let circuit = self.inner.registry.circuit(id.to_owned());
        self.agent(id).ok_or_else(|| ManagerError::Unknown { agent_id: circuit.name().to_owned() })
    }

    fn known(&self, id: &str) -> Result<Arc<Agent>, ManagerError> {
        self.agent(id).ok_or_else(|| ManagerError::Unknown { agent_id: shortened(id) })
    }

    pub(crate) fn agent(&self, id: &str) -> Option<Arc<Agent>> {
        self.inner.agent(id)
    }

    pub(crate) fn agents(&self) -> Vec<Arc<Agent>> {
        self.inner.agents.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    fn each<T>(&self, value: impl Fn(&Agent) -> T) -> BTreeMap<String, T> {
        self.agents().iter().map(|agent| (agent.circuit.name().to_owned(), value(agent))).collect()
    }
}

impl Inner {
    /// Adds the listener of new circuits, and the observers that update the agents.
    fn observe(this: &Arc<Self>) {
        let weak = Arc::downgrade(this);
        this.registry.on_create(move |circuit| {
            if let Some(inner) = weak.upgrade() {
                inner.add(circuit);
            }
        });
        let agent = |weak: &Weak<Self>, id: &str| weak.upgrade()?.agent(id);
        let weak = Arc::downgrade(this);
        this.registry.on_transition(move |transition| {
            if let Some(agent) = agent(&weak, transition.circuit) {
                agent.on_transition(transition);
            }
        });
        let weak = Arc::downgrade(this);
        this.registry.on_failure(move |failure| {
            if let Some(agent) = agent(&weak, failure.circuit) {
                agent.on_failure(failure);
            }
        });
    }

    fn add(&self, circuit: &Circuit) {
        let settings = self.own.get(circuit.name()).unwrap_or(&self.default);
        let agent = Arc::new(Agent::new(circuit.clone(), settings));
        self.agents.write().unwrap_or_else(PoisonError::into_inner).insert(circuit.name(), agent);
        self.mark_changed(circuit.name());
    }

    /// Makes the writer write the agent, if there is a store.
    fn mark_changed(&self, agent: &'static str) {
        if let Some(persistence) = self.persistence.get() {
            persistence.changes.add(agent);
        }
    }

    fn agent(&self, id: &str) -> Option<Arc<Agent>> {
        self.agents.read().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }
}

impl fmt::Debug for Manager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Manager").field("states", &self.get_all_states()).finish_non_exhaustive()
    }
}

/// Returns an error if an agent id is not valid.
fn check_id(id: &str) -> Result<(), ManagerError> {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if (1..=MAX_ID_LENGTH).contains(&id.len()) && id.bytes().all(is_allowed) {
        return Ok(());
    }
    Err(ManagerError::AgentId { agent_id: shortened(id) })
}

/// Returns the start of an id that may have any length.
fn shortened(id: &str) -> String {
    id.chars().take(MAX_ID_LENGTH).collect()
}

fn log_callback(agent: &str, error: &dyn fmt::Display) {
    tracing::error!(agent, "a callback of state changes failed: {error}");
}

/// The error of a [`Manager`].
#[derive(Debug)]
#[non_exhaustive]
pub enum ManagerError {
    /// A setting is out of its range.
    #[non_exhaustive]
    Settings {
        /// The agent with these settings; `None` if they are the default.
        agent_id: Option<String>,
        /// The setting.
        source: SettingsError,
    },
    /// The agent id is not valid.
    #[non_exhaustive]
    AgentId {
        /// The first 128 characters of the id.
        agent_id: String,
    },
    /// There is no agent with this id.
    #[non_exhaustive]
    Unknown {
        /// The first 128 characters of the id.
        agent_id: String,
    },
    /// The circuit refuses the operation, because it has a manual override.
    Control(ControlError),
    /// The store of the states cannot be used.
    Store(BoxError),
    /// The manager has a store already.
    HasStore,
}

impl fmt::Display for ManagerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Settings { agent_id: None, .. } => f.write_str("the default limits are not valid"),
            Self::Settings { agent_id: Some(id), .. } => {
                write!(f, "the limits of agent `{id}` are not valid")
            }
            Self::AgentId { agent_id } => write!(
                f,
                "`agent_id` is `{}`; allowed is 1 to {MAX_ID_LENGTH} characters of A-Z a-z 0-9 . _ -",
                agent_id.escape_debug()
            ),
            Self::Unknown { agent_id } => {
                write!(f, "no agent `{}`; check the id, or call the agent first", agent_id.escape_debug())
            }
            Self::Control(error) => error.fmt(f),
            Self::Store(_) => f.write_str("the states of the circuits cannot be loaded"),
            Self::HasStore => f.write_str("the manager has a store; create another manager"),
        }
    }
}

impl Error for ManagerError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Settings { source, .. } => Some(source),
            Self::Control(error) => error.source(),
            Self::Store(error) => Some(&**error),
            Self::AgentId { .. } | Self::Unknown { .. } | Self::HasStore => None,
        }
    }
}

impl From<ControlError> for ManagerError {
    fn from(error: ControlError) -> Self {
        Self::Control(error)
    }
}
