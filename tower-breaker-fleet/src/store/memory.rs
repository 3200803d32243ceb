//! A store in memory, for fleets within one process and for tests.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{broadcast, oneshot, watch};
use tokio::time::Instant;

use super::{
    Backend, CompletedProbe, LeaseReply, LeaseRequest, Operation, OperationReply, Session, StoreError,
    StoreErrorKind, StoreFuture, SyncRequest, Synced, Update,
};
use crate::record::CircuitRecord;
use crate::rules::CircuitData;

/// The updates that a session may be behind. Then it ends, and the agent connects again.
const MAX_UPDATES_BEHIND: usize = 1024;

/// The time of a new store, so that its times are not close to 0.
const START: Duration = Duration::from_secs(1_000_000);

/// A store in the memory of this process. Clones share their data.
///
/// It shares circuits between the parts of one process that have a circuit each. In tests it
/// replaces Redis or PostgreSQL, and can fail as they do: see
/// [`set_availability`](Self::set_availability), [`set_delay`](Self::set_delay),
/// [`set_delivery`](Self::set_delivery) and [`flush`](Self::flush).
///
/// Its time is the time of tokio's runtime, so it follows a paused clock. Nothing outlives the
/// process.
#[derive(Clone)]
pub struct MemoryStore {
    shared: Arc<Shared>,
}

/// Whether a [`MemoryStore`] answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Availability {
    /// It answers.
    #[default]
    Available,
    /// It receives requests and processes them when it is available again, even those whose senders
    /// no longer wait. A stopped server does this.
    Stopped,
    /// It loses all requests and updates: their senders never get an answer. A network partition
    /// does this.
    CutOff,
    /// It refuses all requests and connections, and ends its sessions.
    Failing,
}

/// How often a [`MemoryStore`] delivers each update.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Delivery {
    /// Once.
    #[default]
    Once,
    /// Never: all updates are lost, as at a server that drops slow subscribers.
    Never,
    /// Twice.
    Twice,
}

/// A request that a stopped store has received.
type Pending = Box<dyn FnOnce(&Shared) + Send>;

struct Shared {
    start: Instant,
    data: Mutex<Data>,
    /// A copy of the availability in `data`, to wait for.
    availability: watch::Sender<Availability>,
}

/// How the store has received a request.
enum Received<T> {
    Processed(T),
    Waiting(oneshot::Receiver<T>),
    Lost,
    Refused,
}

#[derive(Default)]
struct Data {
    namespaces: BTreeMap<String, Namespace>,
    availability: Availability,
    pending: Vec<Pending>,
    /// The updates of the request that is processed. They are sent without the lock, because a send
    /// wakes tasks.
    unsent: Vec<(broadcast::Sender<Update>, Update)>,
    delay: Duration,
    delivery: Delivery,
}

struct Namespace {
    circuits: BTreeMap<String, CircuitData>,
    updates: broadcast::Sender<Update>,
}

impl Default for Namespace {
    fn default() -> Self {
        Self { circuits: BTreeMap::new(), updates: broadcast::Sender::new(MAX_UPDATES_BEHIND) }
    }
}

impl MemoryStore {
    /// Creates an empty store.
    pub fn new() -> Self {
        let (start, data) = (Instant::now(), Mutex::default());
        Self { shared: Arc::new(Shared { start, data, availability: watch::Sender::default() }) }
    }

    /// Sets whether the store answers. For tests.
    ///
    /// [`Availability::Available`] first processes what a stopped store has received.
    pub fn set_availability(&self, availability: Availability) {
        let pending = {
            let mut data = self.shared.lock();
            data.availability = availability;
            match availability {
                Availability::Available | Availability::Failing => std::mem::take(&mut data.pending),
                Availability::Stopped | Availability::CutOff => Vec::new(),
            }
        };
        self.shared.availability.send_replace(availability);
        if availability == Availability::Available {
            for request in pending {
                request(&self.shared);
            }
        }
    }

    /// Sets how long the store waits before it processes a request. Zero by default. For tests.
    ///
    /// A request whose sender no longer waits by then is lost.
    pub fn set_delay(&self, delay: Duration) {
        self.shared.lock().delay = delay;
    }

    /// Sets how often the store delivers each update. For tests.
    pub fn set_delivery(&self, delivery: Delivery) {
        self.shared.lock().delivery = delivery;
    }

    /// Deletes all data, as `FLUSHALL` does in Redis. Sessions stay connected. For tests.
    pub fn flush(&self) {
        let mut data = self.shared.lock();
        data.namespaces.values_mut().for_each(|namespace| namespace.circuits.clear());
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let availability = *self.shared.availability.borrow();
        f.debug_struct("MemoryStore").field("availability", &availability).finish_non_exhaustive()
    }
}

impl Shared {
    fn now(&self) -> u64 {
        let time = START.saturating_add(self.start.elapsed());
        u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
    }

    /// Processes a request, or keeps it, as the availability demands.
    fn receive<T: Send + 'static>(
        &self,
        request: impl FnOnce(&mut Data, u64) -> T + Send + 'static,
    ) -> Received<T> {
        let mut data = self.lock();
        match data.availability {
            Availability::Failing => Received::Refused,
            Availability::CutOff => Received::Lost,
            Availability::Stopped => {
                let (sender, reply) = oneshot::channel();
                data.pending.push(Box::new(move |shared| {
                    // An error: the sender of the request no longer waits.
                    let _ = sender.send(shared.process(request));
                }));
                Received::Waiting(reply)
            }
            Availability::Available => {
                drop(data);
                Received::Processed(self.process(request))
            }
        }
    }

    /// Processes a request, and sends its updates.
    fn process<T>(&self, request: impl FnOnce(&mut Data, u64) -> T) -> T {
        let (reply, updates) = {
            let mut data = self.lock();
            (request(&mut data, self.now()), std::mem::take(&mut data.unsent))
        };
        for (subscribers, update) in updates {
            // An error: no session is connected.
            let _ = subscribers.send(update);
        }
        reply
    }

    fn lock(&self) -> MutexGuard<'_, Data> {
        // Each change of the data is complete when the rules return, so a panic elsewhere does not
        // break it.
        self.data.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Data {
    /// Runs a rule on the data of a circuit, and keeps its updates to be sent.
    fn run<T>(
        &mut self,
        namespace: &str,
        circuit: &str,
        now: u64,
        rule: impl FnOnce(&mut CircuitData) -> (T, Vec<Update>),
    ) -> T {
        let delivery = self.delivery;
        let namespace = self.namespaces.entry(namespace.to_owned()).or_default();
        let data = namespace.circuits.entry(circuit.to_owned()).or_default();
        let (reply, updates) = rule(data);
        if data.is_empty(now) {
            namespace.circuits.remove(circuit);
        }
        let times = match delivery {
            Delivery::Never => 0,
            Delivery::Once => 1,
            Delivery::Twice => 2,
        };
        for update in updates {
            self.unsent.extend(std::iter::repeat_n((namespace.updates.clone(), update), times));
        }
        reply
    }

    fn list(&mut self, namespace: &str, after: Option<&str>, limit: usize, now: u64) -> Vec<CircuitRecord> {
        let Some(namespace) = self.namespaces.get_mut(namespace) else { return Vec::new() };
        namespace.circuits.retain(|_, data| !data.is_empty(now));
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let circuits = namespace.circuits.range::<str, _>((from, Bound::Unbounded));
        let records = circuits.map(|(name, data)| data.record(name, now));
        records.filter(|record| record.epoch > 0).take(limit).collect()
    }
}

impl Backend for MemoryStore {
    fn connect<'a>(&'a self, namespace: &'a str) -> StoreFuture<'a, Box<dyn Session>> {
        Box::pin(async move {
            let mut availability = self.shared.availability.subscribe();
            let is_decided =
                |state: &Availability| matches!(state, Availability::Available | Availability::Failing);
            // The sender lives as long as this store.
            let state = *availability.wait_for(is_decided).await.map_err(|_| failure("is gone"))?;
            if state == Availability::Failing {
                return Err(failure("fails"));
            }
            let shared = Arc::clone(&self.shared);
            let updates = {
                let mut data = shared.lock();
                data.namespaces.entry(namespace.to_owned()).or_default().updates.subscribe()
            };
            let namespace = namespace.to_owned();
            Ok(Box::new(MemorySession { shared, namespace, updates, availability }) as Box<dyn Session>)
        })
    }
}

struct MemorySession {
    shared: Arc<Shared>,
    namespace: String,
    updates: broadcast::Receiver<Update>,
    availability: watch::Receiver<Availability>,
}

impl MemorySession {
    /// Processes a request as the availability of the store demands.
    async fn process<T: Send + 'static>(
        &self,
        request: impl FnOnce(&mut Data, u64) -> T + Send + 'static,
    ) -> Result<T, StoreError> {
        let delay = self.shared.lock().delay;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        match self.shared.receive(request) {
            Received::Processed(reply) => Ok(reply),
            Received::Waiting(reply) => reply.await.map_err(|_| failure("failed before it answered")),
            Received::Lost => std::future::pending().await,
            Received::Refused => Err(failure("fails")),
        }
    }
}

impl Session for MemorySession {
    fn sync<'a>(&'a mut self, request: &'a SyncRequest) -> StoreFuture<'a, Vec<Synced>> {
        let (namespace, request) = (self.namespace.clone(), request.clone());
        Box::pin(self.process(move |data, now| {
            let circuits = request.circuits.iter();
            let replies = circuits.map(|circuit| {
                data.run(&namespace, &circuit.name, now, |state| state.sync(&request, circuit, now))
            });
            replies.collect()
        }))
    }

    fn lease<'a>(&'a mut self, request: &'a LeaseRequest) -> StoreFuture<'a, LeaseReply> {
        let (namespace, request) = (self.namespace.clone(), request.clone());
        Box::pin(self.process(move |data, now| {
            data.run(&namespace, &request.circuit, now, |state| state.lease(&request, now))
        }))
    }

    fn complete<'a>(&'a mut self, probe: &'a CompletedProbe) -> StoreFuture<'a, CircuitRecord> {
        let (namespace, probe) = (self.namespace.clone(), probe.clone());
        Box::pin(self.process(move |data, now| {
            data.run(&namespace, &probe.circuit, now, |state| state.complete(&probe, now))
        }))
    }

    fn operate<'a>(&'a mut self, operation: &'a Operation) -> StoreFuture<'a, OperationReply> {
        let (namespace, operation) = (self.namespace.clone(), operation.clone());
        Box::pin(self.process(move |data, now| {
            data.run(&namespace, &operation.circuit, now, |state| state.operate(&operation, now))
        }))
    }

    fn list<'a>(&'a mut self, after: Option<&'a str>, limit: usize) -> StoreFuture<'a, Vec<CircuitRecord>> {
        let (namespace, after) = (self.namespace.clone(), after.map(str::to_owned));
        Box::pin(self.process(move |data, now| data.list(&namespace, after.as_deref(), limit, now)))
    }

    fn update(&mut self) -> StoreFuture<'_, Update> {
        Box::pin(async move {
            loop {
                let update = tokio::select! {
                    biased;
                    _ = self.availability.wait_for(|state| *state == Availability::Failing) => {
                        return Err(failure("fails"));
                    }
                    update = self.updates.recv() => update,
                };
                let is_cut_off = *self.availability.borrow() == Availability::CutOff;
                match update {
                    Ok(_) if is_cut_off => {}
                    Ok(update) => return Ok(update),
                    Err(_) => return Err(failure("has dropped updates, because the session was too slow")),
                }
            }
        })
    }
}

fn failure(what: &str) -> StoreError {
    let message = format!("the memory store {what}");
    StoreError { kind: StoreErrorKind::Unreachable, message, source: None }
}

#[cfg(test)]
mod tests;
