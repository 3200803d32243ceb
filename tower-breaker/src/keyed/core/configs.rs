//! The configurations of the circuits of a map, and how a new one reaches each circuit.
//!
//! Circuits share one [`HotConfig`], so that new limits apply to all of them at once. A circuit
//! whose key has a configuration gets a `HotConfig` of its own, with the circuit or later. It keeps
//! that until it is dropped.
//!
//! `LazyState` has a copy of the settings that only transitions and probes read. A new
//! configuration is written in this order:
//!
//! 1. The configuration, and the `HotConfig` that the circuits share, under the lock of
//!    [`Configs`].
//! 2. The own `HotConfig` and the copy of each circuit that is in the list, under the lock of the
//!    circuit and then that of [`Configs`].
//!
//! No circuit misses a new configuration:
//!
//! - **A circuit that is created** reads the configuration, and is added to the list, under the
//!   lock of the list. Step 2 takes this lock to read the list. So the circuit is in the list, or
//!   it has read the new configuration.
//! - **A state that is allocated** copies the configuration under the lock of [`Configs`]. So step
//!   2 finds the state, or the state has the new configuration.
//! - **Of two concurrent changes,** each writes in step 2 what the lock of [`Configs`] protects,
//!   not what it was called with. So the last one writes the last configuration.

use std::collections::BTreeMap;
use std::sync::Arc;

use tower_fault_classify::__internals::sync::{AtomicU64, Mutex, Ordering, lock};

use super::{KeyedStore, Own};
use crate::circuit::{Core, HotConfig, PackedCells};
use crate::config::{BreakerConfig, Mode};
use crate::machine::CircuitState;

/// The configurations of the circuits of a map. All of them have the same name and clock.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Configs {
    /// The configuration of a key without a configuration of its own.
    pub(crate) each: BreakerConfig,
    /// The configurations of keys, by the keys' labels.
    pub(crate) keys: BTreeMap<Arc<str>, BreakerConfig>,
}

impl Configs {
    /// Returns the key's own configuration.
    pub(super) fn of_key(&self, label: Option<&str>) -> Option<&BreakerConfig> {
        self.keys.get(label?)
    }

    /// Returns the configuration of the overflow circuit, which is disabled unless it `guards`.
    pub(crate) fn for_overflow(&self, guards: bool) -> Self {
        let each = &self.each;
        let (mode, seeds) = if guards { (each.mode, each.seeds.clone()) } else { (Mode::Disabled, None) };
        Self { each: BreakerConfig { mode, seeds, ..each.clone() }, keys: BTreeMap::new() }
    }
}

/// The part of a configuration that calls read. It is only written under the lock of [`Configs`].
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) hot_config: HotConfig,
    /// See [`Store::failures_timed_since`](crate::circuit::Store::failures_timed_since).
    pub(super) failures_timed_since: AtomicU64,
}

impl Settings {
    /// Replaces the configuration `before`. The circuits keep their state.
    pub(super) fn replace(&self, config: &BreakerConfig, before: &BreakerConfig) {
        if before.trip.consecutive_failures_span == 0 {
            // Before the limits, so that a call that reads a new span reads this time. Release: as
            // for every store of such a time.
            self.failures_timed_since.store(self.hot_config.now(), Ordering::Release);
        }
        self.hot_config.replace(config, before.window, PackedCells::PARTS);
    }

    /// Returns the settings of one of the circuits that use these, which have the configuration
    /// `before`. The circuit keeps its state.
    pub(super) fn branch(&self, config: &BreakerConfig, before: &BreakerConfig) -> Self {
        let since = match before.trip.consecutive_failures_span {
            0 => self.hot_config.now(),
            _ => self.failures_timed_since.load(Ordering::Acquire),
        };
        Self {
            hot_config: self.hot_config.branch(config, before.window, PackedCells::PARTS),
            failures_timed_since: AtomicU64::new(since),
        }
    }
}

/// The label of a key, which is only formatted if it is needed.
#[derive(Clone, Copy)]
enum KeyLabel<'a> {
    Unformatted,
    /// `None`: the key has no label, because its `Debug` panicked.
    Formatted(Option<&'a str>),
}

/// New configurations.
impl<K> Core<KeyedStore<K>> {
    /// Applies the current configuration of the circuit's key, after it has changed.
    pub(crate) fn update_config(&self) {
        // The label is only needed if a key has a configuration, and is formatted outside of every
        // lock.
        if !self.try_update_config(KeyLabel::Unformatted) {
            let label = self.store().make_label();
            let _ = self.try_update_config(KeyLabel::Formatted(label.as_deref()));
        }
    }

    /// Stores the times of the last calls before the window that all circuits share is emptied. A
    /// circuit without lazy state has no place for them.
    pub(crate) fn keep_times_of_shared_window(&self) {
        let KeyedStore { lazy, own, .. } = self.store();
        let Some(lazy) = lazy.get() else { return };
        let now = self.hot_config().now();
        let mut locked = lock(&lazy.locked);
        if own.get().is_none() {
            let state = locked.machine.state();
            self.keep_last_times(&mut locked, state, now);
        }
    }

    /// Applies the current configuration. Returns `false`, and does nothing, if it needs the label
    /// of the key.
    fn try_update_config(&self, label: KeyLabel<'_>) -> bool {
        let KeyedStore { common, lazy, own, .. } = self.store();
        let find = |configs: &Configs| match label {
            KeyLabel::Unformatted if configs.keys.is_empty() => Some(None),
            KeyLabel::Unformatted => None,
            KeyLabel::Formatted(label) => Some(configs.of_key(label).cloned()),
        };
        if lazy.get().is_none() && own.get().is_none() {
            let configs = common.configs();
            let Some(of_key) = find(&configs) else { return false };
            let is_disabled = self.store().initial_state() == CircuitState::Disabled;
            let each = &configs.each;
            if of_key.is_none()
                && each.seeds.is_none()
                && each.is_disabled() == is_disabled
                && lazy.get().is_none()
            {
                // The lazy state will be allocated with this configuration or a later one.
                return true;
            }
        }
        self.apply_config(|locked| {
            let configs = common.configs();
            let of_key = find(&configs)?;
            let is_of_key = of_key.is_some();
            let config = of_key.unwrap_or_else(|| configs.each.clone());
            // A new shared window is in use already: see `keep_times_of_shared_window`.
            let own_window = own.get().map(|own| lock(&own.config).window);
            let former_window = own_window.or(is_of_key.then_some(configs.each.window));
            if former_window.is_some_and(|former| former != config.window) {
                // Before the window is emptied.
                let state = locked.machine.state();
                self.keep_last_times(locked, state, self.hot_config().now());
            }
            if let Some(own) = own.get() {
                let mut before = lock(&own.config);
                own.settings.replace(&config, &before);
                before.clone_from(&config);
            } else if is_of_key {
                let settings = common.shared.branch(&config, &configs.each);
                let _ = own.set(Box::new(Own { settings, config: Mutex::new(config.clone()) }));
            }
            locked.limits = config.recovery;
            locked.shape = config.window;
            locked.jitter.reconfigure(config.seeds.as_ref());
            Some(config.is_disabled())
        })
    }
}
