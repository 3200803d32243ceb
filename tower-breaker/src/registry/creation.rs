//! The creation of circuits. The listeners are called for each new circuit before any other caller
//! gets it.
//!
//! A new circuit is in the entries from the start, so that each name gets only one circuit. Until
//! the listeners have returned, other callers of [`CircuitRegistry::circuit`] wait for it, and it
//! is in no list. No lock is held while the listeners run.
//!
//! A listener never waits for a circuit, because two listeners could wait for each other. It gets
//! the circuit immediately.

use std::collections::BTreeMap;
use std::ptr;
use std::sync::{Arc, MutexGuard, PoisonError};

use super::CircuitRegistry;
use crate::circuit::{Circuit, WeakCircuit};
use crate::config::BreakerConfig;
use crate::listening::Listening;
use crate::snapshot::CircuitSnapshot;
use crate::telemetry::Observer;

#[derive(Default)]
pub(super) struct Entries {
    pub(super) by_name: BTreeMap<&'static str, Entry>,
    /// The snapshots of circuits that have not been created, by name. Their version is supported.
    pub(super) snapshots: BTreeMap<String, CircuitSnapshot>,
    /// The circuits that were removed and have not ended. The registry's observers are notified of
    /// their events, too.
    pub(super) removed: Vec<WeakCircuit>,
    /// The listeners that are called for each new circuit.
    pub(super) listeners: Vec<Observer<Circuit>>,
}

/// The entry of a name.
pub(super) enum Entry {
    /// The configuration of a circuit that has not been created yet.
    Configured(Box<BreakerConfig>),
    /// The listeners are being called for this circuit.
    Creating(Circuit),
    Created(Circuit),
}

/// How to obtain the circuit of a name.
enum Plan {
    Use(Circuit),
    Create(BreakerConfig),
}

impl Entry {
    /// Returns the circuit, also if the listeners are being called for it.
    pub(super) const fn circuit(&self) -> Option<&Circuit> {
        match self {
            Self::Creating(circuit) | Self::Created(circuit) => Some(circuit),
            Self::Configured(_) => None,
        }
    }
}

impl Entries {
    pub(super) fn created(&self) -> impl Iterator<Item = Circuit> {
        self.by_name.values().filter_map(|entry| match entry {
            Entry::Created(circuit) => Some(circuit.clone()),
            Entry::Creating(_) | Entry::Configured(_) => None,
        })
    }

    /// Returns all circuits: those in the registry, and those that were removed and have not ended.
    pub(super) fn all(&self) -> Vec<Circuit> {
        let present = self.by_name.values().filter_map(Entry::circuit).cloned();
        present.chain(self.removed.iter().filter_map(WeakCircuit::upgrade)).collect()
    }

    fn plan(&self, default: &BreakerConfig) -> Plan {
        match self.by_name.get(default.name()) {
            Some(Entry::Created(circuit) | Entry::Creating(circuit)) => Plan::Use(circuit.clone()),
            Some(Entry::Configured(config)) => Plan::Create((**config).clone()),
            None => Plan::Create(default.clone()),
        }
    }

    /// Makes a circuit visible to all callers, unless a listener has removed it.
    fn publish(&mut self, circuit: &Circuit) {
        if let Some(entry) = self.by_name.get_mut(circuit.name())
            && matches!(entry, Entry::Creating(new) if ptr::eq(new.core(), circuit.core()))
        {
            *entry = Entry::Created(circuit.root());
        }
    }
}

impl CircuitRegistry {
    /// Returns the circuit with the name of `default`, and creates it if it does not exist.
    pub(super) fn get_or_create(&self, default: &BreakerConfig) -> Circuit {
        let mut planned = self.settled(default.name()).plan(default);
        loop {
            let config = match planned {
                Plan::Use(circuit) => return circuit,
                Plan::Create(config) => config,
            };
            // A new circuit registers its instruments with the program's recorder, which may run
            // any code. It is therefore created outside of the lock.
            let circuit = Circuit::new(config.clone());
            circuit.set_registry(Arc::clone(&self.inner.observers));
            let mut entries = self.settled(default.name());
            planned = entries.plan(default);
            if matches!(&planned, Plan::Create(current) if *current == config) {
                // Before another thread can find the circuit. The restore runs no user code.
                let snapshot = entries.snapshots.remove(circuit.name());
                let restored = snapshot.and_then(|snapshot| circuit.begin_restore(&snapshot));
                entries.by_name.insert(circuit.name(), Entry::Creating(circuit.root()));
                drop(entries);
                // An observer of failures may have been added since the circuit was created.
                circuit.publish_observes_failures();
                circuit.notify_restored(restored);
                self.announce(&circuit);
                return circuit;
            }
            // Another thread has created or configured the circuit in the meantime. The lock is
            // released before this thread's circuit is dropped.
            drop(entries);
        }
    }

    /// Calls the listeners for a new circuit, and then makes it visible to all callers.
    fn announce(&self, circuit: &Circuit) {
        let mut called = Vec::new();
        loop {
            let mut entries = self.entries();
            let listeners: Vec<_> = entries
                .listeners
                .iter()
                .filter(|listener| !called.contains(&listener.id()))
                .cloned()
                .collect();
            if listeners.is_empty() {
                // Under the lock with which the last listener was looked for. So a listener that is
                // added later finds the circuit in the list of circuits.
                entries.publish(circuit);
                drop(entries);
                self.inner.settled.notify_all();
                return;
            }
            drop(entries);
            let _listening = Listening::begin();
            for listener in listeners {
                listener.call(circuit);
                called.push(listener.id());
            }
        }
    }

    /// Returns the entries after the listeners have been called for the circuit with this name. To
    /// a listener, the entries are returned immediately.
    pub(super) fn settled(&self, name: &str) -> MutexGuard<'_, Entries> {
        let entries = self.entries();
        if Listening::is_active() {
            return entries;
        }
        let is_unsettled =
            |entries: &mut Entries| matches!(entries.by_name.get(name), Some(Entry::Creating(_)));
        self.inner.settled.wait_while(entries, is_unsettled).unwrap_or_else(PoisonError::into_inner)
    }
}
