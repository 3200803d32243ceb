//! What the agent does for circuits by key: keys join and leave.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tower_breaker::control::Signal;

use super::{KeyRequest, Layer, Layers, is_closed, is_troubled};
use crate::agent::Time;
use crate::agent::mailbox::{Event, Id};
use crate::agent::run::Agent;
use crate::agent::slot::{Slot, Source};
use crate::agent::target::SharedTarget;
use crate::record::CircuitRecord;
use crate::store::{Session, StoreError};

/// How long a visit of all circuits waits for further records.
const COALESCING: Duration = Duration::from_millis(5);

/// The least time between two visits of all circuits, for each circuit. A visit of a circuit takes
/// about a tenth of it.
const VISIT_PACE: Duration = Duration::from_micros(3);

/// How long no key is looked for that could leave, after none was found.
const NO_ROOM: Duration = Duration::from_millis(100);

/// The records that one message reads, and the messages that read the records of a layer.
const PAGE: usize = 256;
const MAX_PAGES: usize = 16;

const IS_FULL: &str = "more keys have trouble than can take part";

/// The agent's data of circuits by key.
#[derive(Default)]
pub(crate) struct Keys {
    /// The layers whose records are to be read from the store.
    pub(in crate::agent) outdated: VecDeque<Arc<Layer>>,
    /// When to visit all circuits for those that have a record.
    scan_at: Option<Time>,
    /// No visit before.
    not_before: Time,
    no_room_until: Time,
}

impl Keys {
    pub(in crate::agent) const fn next_scan(&self) -> Option<Time> {
        self.scan_at
    }

    /// Updates of the records may be lost since the last connection.
    pub(in crate::agent) fn on_connected(&mut self, layers: &Layers) {
        self.outdated = layers.all().into();
    }

    fn schedule_scan(&mut self, at: Time) {
        let at = at.max(self.not_before);
        self.scan_at = Some(self.scan_at.map_or(at, |other| other.min(at)));
    }
}

impl Agent {
    pub(in crate::agent) fn on_key_request(&mut self, request: KeyRequest) {
        match request {
            KeyRequest::Load(layer) => {
                if !self.keys.outdated.iter().any(|other| Arc::ptr_eq(other, &layer)) {
                    self.keys.outdated.push_back(layer);
                }
            }
            KeyRequest::Join(layer, name, circuit) => {
                {
                    let mut state = layer.state();
                    state.joining = state.joining.saturating_sub(1);
                }
                self.join(&layer, name, circuit);
            }
            KeyRequest::Replace(layer, name, circuit) => self.add_key(&layer, name, circuit),
            KeyRequest::Add(slot) => self.add_key_slot(*slot),
        }
    }

    /// Lets a key with trouble take part.
    fn join(&mut self, layer: &Arc<Layer>, name: Arc<str>, circuit: SharedTarget) {
        let Some(id) = self.id(&name) else { return self.add_key(layer, name, circuit) };
        // An earlier event was first.
        let shared = Arc::clone(&self.shared);
        let event = Event::Signal(Signal::Failure);
        self.run_slot(id, |slot| slot.on_event(shared.now(), event, &shared.settings));
    }

    fn add_key(&mut self, layer: &Arc<Layer>, name: Arc<str>, circuit: SharedTarget) {
        if self.id(&name).is_none() && !self.make_room(layer) {
            layer.state().has_refused = true;
            layer.warn_once(IS_FULL);
        } else if let Some(slot) = self.shared.key_slot(layer, name, circuit) {
            self.add_key_slot(slot);
        }
    }

    fn add_key_slot(&mut self, mut slot: Slot) {
        let Source::Key(layer) = &slot.source else { return };
        let layer = Arc::clone(layer);
        if self.id(&slot.name).is_none() && !self.make_room(&layer) {
            return self.refuse(&layer, &slot);
        }
        if let Some(circuit) = slot.circuit.upgrade() {
            // Signals until now had no receiver. `add` then evaluates the ballot.
            circuit.rearm(Signal::Failure);
            circuit.rearm(Signal::Demand);
        }
        let now = self.shared.now();
        let record = layer.state().records.take(&slot.name, now);
        if let Some(record) = record {
            // The messages that it needs follow with the first reply of the store.
            slot.run(&self.shared.settings, |follower, local, actions| {
                follower.on_record(now, &record, local, actions);
            });
        }
        self.add(slot);
    }

    /// Drops a new circuit with a record, because no other key can leave for it.
    fn refuse(&mut self, layer: &Arc<Layer>, slot: &Slot) {
        self.shared.remove(&slot.name, slot.id);
        let record = slot.follower.record(self.shared.now());
        if record.as_ref().is_some_and(|record| record.manual.is_some())
            && let Some(circuit) = slot.circuit.upgrade()
        {
            // Without the agent, the override would have no end.
            circuit.release();
        }
        self.keep_record(layer, record);
        layer.state().has_refused = true;
        layer.warn_once(IS_FULL);
    }

    /// Makes room for one more key. Returns `false` if all keys have trouble.
    fn make_room(&mut self, layer: &Arc<Layer>) -> bool {
        let has_room = |layer: &Layer| layer.state().keys < layer.max_keys;
        let now = self.shared.now();
        if has_room(layer) {
            return true;
        }
        if now < self.keys.no_room_until {
            return false;
        }
        // A key that has just failed stays, so that keys do not take turns.
        if let Some(id) = self.quietest(layer, now) {
            self.leave_key(id);
        }
        if !has_room(layer) {
            self.keys.no_room_until = now + NO_ROOM;
        }
        has_room(layer)
    }

    /// Returns the key whose last failure is the earliest, if it has no trouble.
    fn quietest(&self, layer: &Arc<Layer>, now: Time) -> Option<Id> {
        let heartbeat = self.shared.settings.heartbeat;
        let slots = self.slots.values().filter(|slot| is_of(slot, layer));
        let quiet = slots.filter_map(|slot| Some((quiet_for(slot, now)?, slot.id)));
        let quiet = quiet.filter(|(quiet_for, _)| *quiet_for >= heartbeat);
        quiet.max_by_key(|(quiet_for, _)| *quiet_for).map(|(_, id)| id)
    }

    /// Lets the keys leave that have had no trouble for a lifetime. Called at each heartbeat.
    pub(in crate::agent) fn review_keys(&mut self, now: Time) {
        let lifetime = self.shared.settings.lifetime();
        let slots = self.slots.values().filter(|slot| !slot.is_single());
        let is_quiet = |slot: &&Slot| quiet_for(slot, now).is_some_and(|time| time >= lifetime);
        let quiet: Vec<_> = slots.filter(is_quiet).map(|slot| slot.id).collect();
        for id in quiet {
            self.leave_key(id);
        }
        for layer in self.shared.layers.all() {
            let mut state = layer.state();
            state.records.remove_outdated(now);
            // A circuit may have been created while its record arrived.
            if !state.records.is_empty() || (state.has_refused && state.keys < layer.max_keys) {
                self.keys.schedule_scan(now);
            }
        }
    }

    fn leave_key(&mut self, id: Id) {
        let Some(slot) = self.slots.get(&id) else { return };
        let Source::Key(layer) = &slot.source else { return };
        let (layer, name, circuit) = (Arc::clone(layer), Arc::clone(&slot.name), Arc::clone(&slot.circuit));
        self.remove(id);
        // From here on, a signal lets the key join again. A signal before was sent to the slot that
        // has gone: then the failure is in the status.
        let Some(target) = circuit.upgrade() else { return };
        target.rearm(Signal::Failure);
        target.rearm(Signal::Demand);
        if is_troubled(&target.status(), self.shared.settings.heartbeat) {
            self.join(&layer, name, circuit);
        }
    }

    /// Keeps the record of a key that does not take part.
    pub(in crate::agent) fn keep_record(&mut self, layer: &Layer, record: Option<CircuitRecord>) {
        let Some(record) = record else { return };
        let now = self.shared.now();
        let has_space = layer.state().records.insert(record, now, layer.max_keys);
        if !has_space {
            layer.warn_once(IS_FULL);
        }
    }

    /// Processes the record of a circuit that this process does not share.
    pub(in crate::agent) fn on_unshared_record(&mut self, record: CircuitRecord) {
        let Some(layer) = self.shared.layers.of(&record.circuit) else { return self.shared.cache(record) };
        if !is_closed(&record) {
            self.keys.schedule_scan(self.shared.now() + COALESCING);
        }
        self.keep_record(&layer, Some(record));
    }

    pub(in crate::agent) fn scan_if_due(&mut self, now: Time) {
        if self.keys.scan_at.is_some_and(|at| at <= now) {
            self.keys.scan_at = None;
            let visited: u32 = self.shared.layers.all().iter().map(|layer| self.scan(layer)).sum();
            self.keys.not_before = now + VISIT_PACE * visited;
        }
    }

    /// Visits all circuits of a layer, for those that have a record or were refused. Returns the
    /// number of circuits.
    fn scan(&mut self, layer: &Arc<Layer>) -> u32 {
        let is_after_refusal = {
            let mut state = layer.state();
            let has_room = state.keys < layer.max_keys;
            if state.records.is_empty() && !(state.has_refused && has_room) {
                return 0;
            }
            has_room && std::mem::take(&mut state.has_refused)
        };
        let lifetime = self.shared.settings.lifetime();
        let (mut found, mut visited) = (Vec::new(), 0);
        layer.map.visit(&mut |text, circuit| {
            visited += 1;
            let Some(name) = layer.name(text.as_deref()).filter(|name| self.id(name).is_none()) else {
                return;
            };
            let has_record = layer.state().records.contains(&name);
            if is_after_refusal {
                circuit.rearm(Signal::Failure);
            }
            if has_record || (is_after_refusal && is_troubled(&circuit.status(), lifetime)) {
                found.push((name, circuit.weak()));
            }
        });
        for (name, circuit) in found {
            self.add_key(layer, name, circuit);
        }
        visited
    }

    /// Reads the records of a layer from the store.
    pub(in crate::agent) async fn load_layer(
        &mut self,
        session: &mut dyn Session,
        layer: Arc<Layer>,
    ) -> Result<(), StoreError> {
        layer.state().records.clear();
        let mut after = layer.prefix.clone();
        for _ in 0..MAX_PAGES {
            let records = self.exchange(session.list(Some(&after), PAGE)).await?;
            let is_full_page = records.len() == PAGE;
            let mut of_layer =
                records.into_iter().take_while(|record| record.circuit.starts_with(&layer.prefix));
            let mut last = None;
            let mut count = 0;
            for record in of_layer.by_ref() {
                count += 1;
                last = Some(record.circuit.clone());
                if self.id(&record.circuit).is_none() {
                    self.keep_record(&layer, Some(record));
                }
            }
            match last {
                Some(last) if is_full_page && count == PAGE => after = last,
                _ => break,
            }
        }
        self.scan(&layer);
        if !std::mem::replace(&mut layer.state().is_loaded, true) {
            self.shared.update_readiness(|readiness| readiness.layers = readiness.layers.saturating_sub(1));
        }
        Ok(())
    }
}

fn is_of(slot: &Slot, layer: &Arc<Layer>) -> bool {
    matches!(&slot.source, Source::Key(of) if Arc::ptr_eq(of, layer))
}

/// Returns how long a key has had no trouble. `None`: it has trouble. A circuit that has ended or
/// never failed has had none for the longest time.
fn quiet_for(slot: &Slot, now: Time) -> Option<Duration> {
    let Some(circuit) = slot.circuit.upgrade() else { return Some(Duration::MAX) };
    let is_fleet_closed = slot.follower.record(now).is_none_or(|record| is_closed(&record));
    let status = circuit.status();
    let is_quiet = is_fleet_closed && !slot.follower.sent_vote() && !is_troubled(&status, Duration::ZERO);
    is_quiet.then(|| status.since_last_failure.unwrap_or(Duration::MAX))
}
