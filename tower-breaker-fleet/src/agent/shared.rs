//! The data that an agent and its handles share.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::time::Instant;
use tower_breaker::{Circuit, ConfigError};

use super::circuit::{Follower, Members, Moved};
use super::keyed::{KeyRequest, Layers};
use super::mailbox::{Event, Id, Mailbox};
use super::slot::{Slot, Source};
use super::target::{SharedTarget, Target};
use super::{Settings, Time, telemetry};
use crate::error::FleetError;
use crate::record::{CircuitRecord, FleetState};
use crate::store::Operation;

/// The longest name of a circuit, in bytes.
const MAX_NAME_BYTES: usize = 256;

/// How many records of circuits that this process does not share yet are kept.
const MAX_CACHED_RECORDS: usize = 1024;

/// The number of operations that wait for the agent. Further callers wait before they send theirs.
const MAX_ASKED: usize = 256;

/// The sender of the reply to a request.
pub(crate) struct Reply<T> {
    sender: oneshot::Sender<Result<T, FleetError>>,
    /// One of [`MAX_ASKED`]. It is free when the agent has dropped the request.
    _permit: Option<OwnedSemaphorePermit>,
}

impl<T> Reply<T> {
    pub(crate) fn send(self, result: Result<T, FleetError>) {
        // An error: the caller no longer waits.
        let _ = self.sender.send(result);
    }

    /// Whether the caller no longer waits.
    pub(crate) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }
}

/// A request of a handle.
pub(crate) enum Request {
    Share(Box<Slot>),
    #[cfg_attr(not(feature = "keyed"), allow(dead_code, reason = "there are no circuits by key"))]
    Key(KeyRequest),
    /// Read the records of circuits that this process may share later.
    FillCache,
    Operate(Operation, Reply<CircuitRecord>),
    List(Option<String>, usize, Reply<Vec<CircuitRecord>>),
    Leave(oneshot::Sender<()>),
}

/// How far the agent is with the first replies of the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Readiness {
    pub(crate) has_connected: bool,
    /// The circuits whose first reply is missing.
    waiting: usize,
    /// Whether the records of circuits that are created later are missing.
    pub(crate) needs_cache: bool,
    /// The maps of circuits by key whose records are missing.
    pub(crate) layers: usize,
    has_stopped: bool,
}

impl Readiness {
    pub(crate) fn is_ready(self) -> bool {
        self.has_connected && self.waiting == 0 && self.layers == 0 && !self.needs_cache && !self.has_stopped
    }

    pub(crate) fn circuit_answered(&mut self) {
        self.waiting = self.waiting.saturating_sub(1);
    }

    pub(crate) fn has_stopped(self) -> bool {
        self.has_stopped
    }
}

/// The connection to the store, for the status.
#[derive(Clone, Debug, Default)]
pub(crate) struct Link {
    pub(crate) attached: bool,
    pub(crate) answered_at: Option<Time>,
    pub(crate) last_error: Option<String>,
    pub(crate) messages: u64,
    pub(crate) errors: u64,
    pub(crate) updates: u64,
}

/// The fleet's view of a circuit, for the status.
#[derive(Clone, Debug)]
pub(crate) struct View {
    pub(crate) record: Option<CircuitRecord>,
    /// When the times of the record were valid.
    pub(crate) at: Time,
    pub(crate) members: Members,
    pub(crate) vote: bool,
}

struct Entry {
    id: Id,
    circuit: SharedTarget,
    #[cfg_attr(not(feature = "keyed"), allow(dead_code, reason = "there are no circuits by key"))]
    is_single: bool,
    view: Option<View>,
}

#[derive(Default)]
struct State {
    next_id: Id,
    circuits: BTreeMap<Arc<str>, Entry>,
    /// Records that are open or have an override, of circuits that this process does not share.
    cache: BTreeMap<String, (CircuitRecord, Time)>,
    link: Link,
}

pub(crate) struct Shared {
    pub(crate) settings: Settings,
    pub(crate) mailbox: Arc<Mailbox>,
    pub(super) layers: Layers,
    start: Instant,
    inbox: mpsc::UnboundedSender<Request>,
    asked: Arc<Semaphore>,
    readiness: watch::Sender<Readiness>,
    state: Mutex<State>,
}

impl Shared {
    pub(crate) fn new(settings: Settings, inbox: mpsc::UnboundedSender<Request>) -> Self {
        let (mailbox, layers, readiness, state) = Default::default();
        let asked = Arc::new(Semaphore::new(MAX_ASKED));
        Self { settings, mailbox, layers, start: Instant::now(), inbox, asked, readiness, state }
    }

    pub(crate) fn now(&self) -> Time {
        self.start.elapsed()
    }

    pub(crate) fn instant(&self, time: Time) -> Instant {
        self.start + time
    }

    pub(crate) fn request(&self, request: Request) -> Result<(), FleetError> {
        self.inbox.send(request).map_err(|_| FleetError::Stopped)
    }

    /// Sends a request, and returns its reply.
    pub(crate) async fn ask<T>(&self, request: impl FnOnce(Reply<T>) -> Request) -> Result<T, FleetError> {
        let permit = Arc::clone(&self.asked).acquire_owned().await.ok();
        let (sender, reply) = oneshot::channel();
        self.request(request(Reply { sender, _permit: permit }))?;
        reply.await.unwrap_or(Err(FleetError::Stopped))
    }

    pub(crate) fn readiness(&self) -> watch::Receiver<Readiness> {
        self.readiness.subscribe()
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.readiness.borrow().is_ready()
    }

    /// Shares a circuit. A record that is known already applies before this method returns.
    pub(crate) fn share(&self, circuit: &Circuit) -> Result<(), FleetError> {
        let name = circuit.name();
        check_name(name)?;
        if self.has_stopped() {
            // A cached override would have no end without the agent.
            return Err(FleetError::Stopped);
        }
        let id = self.reserve(circuit)?;
        let mailbox = Arc::clone(&self.mailbox);
        let on_signal = circuit.on_signal(move |signal| mailbox.post(id, Event::Signal(signal)));
        let mailbox = Arc::clone(&self.mailbox);
        let on_transition = circuit.on_transition(move |transition| {
            let moved = Moved { reason: transition.reason, epoch: transition.epoch };
            mailbox.post(id, Event::Transition(moved));
        });
        let follower = Follower::new(self.settings.tuning(self.settings.quorum), fastrand::Rng::new());
        let mut slot = Slot {
            id,
            name: name.into(),
            label: name,
            circuit: Arc::new(circuit.downgrade()),
            follower,
            quorum: self.settings.quorum,
            source: Source::Single(circuit.downgrade(), [on_signal, on_transition]),
        };
        if let Some(record) = self.cached(name) {
            // The messages that it needs follow with the first reply of the store.
            slot.run(&self.settings, |follower, local, actions| {
                follower.on_record(self.now(), &record, local, actions);
            });
        }
        self.readiness.send_modify(|readiness| readiness.waiting += 1);
        self.request(Request::Share(Box::new(slot))).inspect_err(|_| {
            circuit.remove_observer(on_signal);
            circuit.remove_observer(on_transition);
            self.remove(name, id);
        })
    }

    /// Shares a circuit that a registry has created.
    pub(crate) fn share_created(&self, circuit: &Circuit) {
        if let Err(error) = self.share(circuit) {
            telemetry::not_shared(circuit.name(), &error);
        }
    }

    /// Has the agent read the records of circuits that this process may share later.
    pub(crate) fn fill_cache(&self) -> Result<(), FleetError> {
        self.update_readiness(|readiness| readiness.needs_cache = true);
        self.request(Request::FillCache)
    }

    /// Whether the agent has ended.
    pub(super) fn has_stopped(&self) -> bool {
        self.inbox.is_closed()
    }

    /// Registers the circuit of a key, in place of an earlier one. `None`: a circuit without a key
    /// has the name.
    #[cfg(feature = "keyed")]
    pub(super) fn reserve_key(&self, name: &Arc<str>, circuit: &SharedTarget) -> Option<Id> {
        // Dropped after the lock: the last handle of a circuit runs code of the user.
        let other;
        let mut state = self.state();
        let entry = state.circuits.get(name).filter(|entry| entry.is_single);
        other = entry.and_then(|entry| entry.circuit.upgrade());
        if other.is_some() {
            drop(state);
            return None;
        }
        state.next_id += 1;
        let id = state.next_id;
        let view = state.circuits.remove(name).and_then(|entry| entry.view);
        let circuit = Arc::clone(circuit);
        state.circuits.insert(Arc::clone(name), Entry { id, circuit, is_single: false, view });
        Some(id)
    }

    /// Returns the number of a key that takes part.
    #[cfg(feature = "keyed")]
    pub(super) fn key_id(&self, name: &str) -> Option<Id> {
        self.state().circuits.get(name).filter(|entry| !entry.is_single).map(|entry| entry.id)
    }

    fn reserve(&self, circuit: &Circuit) -> Result<Id, FleetError> {
        let name = circuit.name();
        // Dropped after the lock: the last handle of a circuit runs code of the user.
        let other;
        let mut state = self.state();
        other = state.circuits.get(name).and_then(|entry| entry.circuit.upgrade());
        if other.is_some() {
            drop(state);
            return Err(FleetError::Shared { circuit: name.to_owned() });
        }
        state.next_id += 1;
        let id = state.next_id;
        let view = state.circuits.remove(name).and_then(|entry| entry.view);
        let circuit = Arc::new(circuit.downgrade());
        state.circuits.insert(name.into(), Entry { id, circuit, is_single: true, view });
        Ok(id)
    }

    /// Returns the last record of a circuit that this process did not share until now.
    pub(super) fn cached(&self, name: &str) -> Option<CircuitRecord> {
        let now = self.now();
        let mut state = self.state();
        let cached = state.cache.remove(name);
        let viewed = state.circuits.get(name).and_then(|entry| entry.view.as_ref());
        let viewed = viewed.and_then(|view| Some((view.record.clone()?, view.at)));
        let (record, at) = cached.or(viewed)?;
        Some(record.aged(now.saturating_sub(at)))
    }

    /// Keeps a record of a circuit that this process may share later.
    pub(crate) fn cache(&self, record: CircuitRecord) {
        let now = self.now();
        let mut state = self.state();
        let is_newer = state.cache.get(&record.circuit).is_none_or(|(old, _)| old.epoch <= record.epoch);
        if !is_newer {
            return;
        }
        if record.state == FleetState::Closed && record.manual.is_none() {
            state.cache.remove(&record.circuit);
        } else if state.cache.len() < MAX_CACHED_RECORDS || state.cache.contains_key(&record.circuit) {
            state.cache.insert(record.circuit.clone(), (record, now));
        }
    }

    pub(crate) fn clear_cache(&self) {
        self.state().cache.clear();
    }

    pub(crate) fn is_shared(&self, name: &str) -> bool {
        self.state().circuits.contains_key(name)
    }

    /// Whether this process shares a circuit without a key that has this name.
    pub(crate) fn shares_single(&self, name: &str) -> bool {
        // Dropped after the lock: the last handle of a circuit runs code of the user.
        let circuit = {
            let state = self.state();
            let entry = state.circuits.get(name).filter(|entry| entry.is_single);
            entry.map(|entry| Arc::clone(&entry.circuit))
        };
        circuit.is_some_and(|circuit| circuit.upgrade().is_some())
    }

    /// Returns the circuit with this name, if this process shares it.
    pub(crate) fn circuit(&self, name: &str) -> Option<Box<dyn Target>> {
        let circuit = self.state().circuits.get(name).map(|entry| Arc::clone(&entry.circuit));
        circuit.and_then(|circuit| circuit.upgrade())
    }

    /// Removes a circuit that has ended, unless its name is shared again.
    pub(crate) fn remove(&self, name: &str, id: Id) {
        let mut state = self.state();
        if state.circuits.get(name).is_some_and(|entry| entry.id == id) {
            state.circuits.remove(name);
        }
    }

    /// Publishes the fleet's view of a circuit for the status.
    pub(crate) fn publish(&self, slot: &Slot) {
        let now = self.now();
        let view = View {
            record: slot.follower.record(now),
            at: now,
            members: slot.follower.members(),
            vote: slot.follower.sent_vote(),
        };
        // A label for each key would be too many.
        if slot.is_single() {
            telemetry::members(slot.label, view.members);
        }
        if let Some(entry) = self.state().circuits.get_mut(&slot.name).filter(|entry| entry.id == slot.id) {
            entry.view = Some(view);
        }
    }

    pub(crate) fn view(&self, name: &str) -> Option<View> {
        let view = self.state().circuits.get(name).and_then(|entry| entry.view.clone());
        view.or_else(|| self.layers.view(name, self.now()))
    }

    pub(crate) fn link(&self) -> (Link, usize) {
        let state = self.state();
        (state.link.clone(), state.circuits.len())
    }

    pub(crate) fn update_link(&self, update: impl FnOnce(&mut Link)) {
        update(&mut self.state().link);
    }

    pub(crate) fn update_readiness(&self, update: impl FnOnce(&mut Readiness)) {
        self.readiness.send_modify(update);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends the handles' waits when the agent ends, also if its future is dropped.
pub(crate) struct Stopped(pub(crate) Arc<Shared>);

impl Drop for Stopped {
    fn drop(&mut self) {
        self.0.mailbox.close();
        self.0.update_link(|link| link.attached = false);
        self.0.readiness.send_modify(|readiness| readiness.has_stopped = true);
        telemetry::attached(&self.0.settings.namespace, false);
    }
}

pub(crate) fn check_name(name: &str) -> Result<(), ConfigError> {
    let is_allowed = !name.is_empty() && name.len() <= MAX_NAME_BYTES && !name.contains(char::is_control);
    if is_allowed {
        return Ok(());
    }
    Err(ConfigError::new("circuit", name, "a name of 1 to 256 bytes without control characters"))
}
