//! The storage of a keyed circuit: as few bytes as possible, and the rest when it is first needed.
//!
//! A circuit whose calls all succeed consists of its key, a state word and eleven cells.
//! Transitions, slow calls, cancelled calls, half-open calls and a last failure that is kept need
//! more state. The first of them allocates it, and it is kept until the circuit is dropped. The
//! circuits of a map share their configuration, clock and observers. If the configuration has a
//! seed, the state is allocated with the circuit.
//!
//! | file | |
//! |---|---|
//! | `configs.rs` | the configurations, and how a new one reaches each circuit |
//! | `counts.rs` | the counts of the calls in a circuit's window |
//! | `eviction.rs` | which circuits can be evicted, and which first |

mod configs;
mod counts;
mod eviction;

use std::fmt;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};

use tower_fault_classify::__internals::sync::{
    self, AtomicBool, AtomicU8, AtomicU64, Mutex, MutexGuard, Ordering, lock,
};
use tower_fault_classify::__internals::{CircuitRecord, Clock};

use crate::circuit::{
    CircuitRef, Core, Denied, Events, FailureTime, Flags, HotConfig, Locked, NewestBucket, PackedCells,
    Permit, StateWord, Store,
};
use crate::config::BreakerConfig;
use crate::control::Signal;
use crate::error::Rejection;
use crate::label::{KeptLabel, Label, OVERFLOW};
use crate::machine::{CircuitState, WindowShape};
use crate::rng::JitterStream;
use crate::sealed::Sealed;
use crate::telemetry::{Instruments, KeyInstruments, Observers, Transition, register};

use super::lease::{Lease, Strong};
use super::listeners::Listeners;
pub(crate) use configs::Configs;
use configs::Settings;
use counts::WideCounts;
pub(crate) use eviction::{EvictionCost, eviction_cost};

/// Formats the label of a key.
type MakeLabel<K> = fn(&K) -> String;

/// A circuit with several owners: the map that stores it, handles, and the calls that use it.
pub(crate) type SharedCore<K> = sync::Arc<Core<KeyedStore<K>>>;

/// What the circuits of a map share.
pub(crate) struct Common<K> {
    record: &'static CircuitRecord,
    shared: Settings,
    configs: Mutex<Configs>,
    observers: Arc<Observers>,
    listeners: Listeners<K>,
    label: MakeLabel<K>,
    /// How many keys the metrics distinguish at most. `None`: they do not distinguish keys.
    max_key_labels: Option<usize>,
    /// Held while cells are cleared, and while counts of any of the circuits move.
    upkeep: Mutex<()>,
    /// Odd while counts move.
    sequence: AtomicU64,
    /// Whether the gauges count the circuits. The circuit for unguarded calls is not counted.
    is_counted: bool,
}

impl<K> Common<K> {
    pub(crate) fn new(configs: Configs, label: MakeLabel<K>, max_key_labels: Option<usize>) -> Self {
        let config = &configs.each;
        let name = config.name();
        let hot_config = HotConfig::new(config.fitted_clock(), config, PackedCells::PARTS, register(name));
        Self {
            record: CircuitRecord::of(name),
            shared: Settings { hot_config, failures_timed_since: AtomicU64::new(0) },
            configs: Mutex::new(configs),
            observers: Arc::default(),
            listeners: Listeners::default(),
            label,
            max_key_labels,
            upkeep: Mutex::default(),
            sequence: AtomicU64::default(),
            is_counted: true,
        }
    }

    /// Returns what the overflow circuit shares with these circuits. Without `guards`, the overflow
    /// circuit is disabled, and the gauges do not count it.
    pub(crate) fn for_overflow(&self, guards: bool) -> Self {
        let configs = self.configs().for_overflow(guards);
        let observers = Arc::clone(&self.observers);
        // The label of the overflow circuit is not one of the limited labels of keys.
        let max_key_labels = self.max_key_labels.map(|_| usize::MAX);
        let common = Self::new(configs, |_| OVERFLOW.to_owned(), max_key_labels);
        Self { observers, is_counted: guards, ..common }
    }

    /// Writes a new configuration of all circuits. The caller then applies it to each circuit: see
    /// [`update_config`](Core::update_config).
    pub(crate) fn reconfigure(&self, configs: Configs) {
        let mut current = self.configs();
        self.shared.replace(&configs.each, &current.each);
        *current = configs;
    }

    /// Formats the label of a key. `None`: its `Debug` panicked, which must not affect the call.
    pub(crate) fn make_label(&self, key: &K) -> Option<String> {
        catch_unwind(AssertUnwindSafe(|| (self.label)(key))).ok()
    }

    pub(crate) const fn max_key_labels(&self) -> Option<usize> {
        self.max_key_labels
    }

    /// Returns the configurations. After a change of a key's configuration, the caller applies it
    /// to each circuit: see [`update_config`](Core::update_config).
    pub(crate) fn configs(&self) -> MutexGuard<'_, Configs> {
        lock(&self.configs)
    }

    /// Returns the instruments of the name.
    pub(crate) fn instruments(&self) -> Option<&'static Instruments> {
        self.shared.hot_config.flags().instruments()
    }

    pub(crate) const fn record(&self) -> &'static CircuitRecord {
        self.record
    }

    pub(crate) const fn name(&self) -> &'static str {
        self.record.name()
    }

    pub(crate) const fn observers(&self) -> &Arc<Observers> {
        &self.observers
    }

    pub(in crate::keyed) const fn listeners(&self) -> &Listeners<K> {
        &self.listeners
    }

    pub(crate) fn clock(&self) -> Clock {
        self.shared.hot_config.clock()
    }

    /// Sets whether the circuits have an observer of failures.
    pub(crate) fn set_observes_failures(&self, observes: bool) {
        self.shared.hot_config.set_events(Events::FAILURE_OBSERVER, observes);
    }

    /// Sets whether the circuits have a listener of signals.
    pub(super) fn set_signals(&self, listens: bool) {
        self.shared.hot_config.set_events(Events::SIGNALS, listens);
    }

    /// Returns the duration of one part of a window, in nanoseconds; 0 for a count window.
    pub(crate) fn bucket(&self) -> u64 {
        match self.configs().each.window {
            WindowShape::Time(nanos) => nanos / PackedCells::PARTS,
            WindowShape::Count(_) => 0,
        }
    }
}

/// A reference to a keyed circuit, held by handles and permits.
///
/// While it exists, the circuit is not evicted.
pub struct Shared<K>(Held<K>);

/// How a circuit is held.
enum Held<K> {
    Circuit(SharedCore<K>),
    Lease(Strong<Lease<K>>),
    /// The reference was taken.
    Nothing,
}

impl<K> Shared<K> {
    pub(crate) const fn new(core: SharedCore<K>) -> Self {
        Self(Held::Circuit(core))
    }

    pub(super) const fn leased(lease: Strong<Lease<K>>) -> Self {
        Self(Held::Lease(lease))
    }

    /// Returns the permit of a call whose circuit may not be closed, or its rejection.
    #[cold]
    #[inline(never)]
    pub(super) fn admit(self) -> Result<Permit<Self>, Rejection> {
        Permit::acquire(self).map_err(|(circuit, denied)| circuit.reject(denied))
    }

    /// Emits the rejection of a call, and returns it.
    #[cold]
    pub(crate) fn reject(&self, denied: Denied) -> Rejection {
        let core = self.core();
        let circuit = core.store().common.record;
        core.emit_rejection(circuit.name(), denied.state);
        core.rejection(circuit, denied)
    }
}

impl<K> Sealed for Shared<K> {}

impl<K> CircuitRef for Shared<K> {
    type Store = KeyedStore<K>;
    type Owner = SharedCore<K>;
    type Weak = sync::Weak<Core<KeyedStore<K>>>;

    const HANDLE: &'static str = "KeyedCircuit";

    #[inline]
    fn of(owner: &SharedCore<K>) -> Self {
        Self::new(SharedCore::clone(owner))
    }

    fn downgrade(owner: &SharedCore<K>) -> sync::Weak<Core<KeyedStore<K>>> {
        sync::downgrade(owner)
    }

    fn upgrade(weak: &sync::Weak<Core<KeyedStore<K>>>) -> Option<SharedCore<K>> {
        weak.upgrade()
    }

    #[inline]
    fn core(&self) -> &Core<KeyedStore<K>> {
        match &self.0 {
            Held::Circuit(core) => core,
            Held::Lease(lease) => &lease.0,
            Held::Nothing => panic!("a permit refers to its circuit until its outcome is recorded"),
        }
    }

    #[inline]
    fn take(&mut self) -> Self {
        Self(mem::replace(&mut self.0, Held::Nothing))
    }
}

/// The storage of a keyed circuit.
pub struct KeyedStore<K> {
    key: K,
    hash: u64,
    state_word: AtomicU64,
    first_failure: AtomicU64,
    newest: NewestBucket,
    /// The numbers of calls and failures.
    calls: PackedCells,
    lazy: sync::OnceLock<Box<LazyState>>,
    /// The signals that were sent, and not armed again since, as bits of [`Events`].
    sent: AtomicU8,
    /// Whether the table holds a lease. It changes under the lock of the table's shard.
    is_leased: AtomicBool,
    /// Whether the circuit has left the table. It changes under the same lock.
    is_removed: AtomicBool,
    /// Unused if the metrics do not distinguish keys.
    instruments: KeyInstruments,
    common: Arc<Common<K>>,
    /// The circuit's own settings, if its key has had a configuration.
    own: OnceLock<Box<Own>>,
}

/// The settings of one circuit, and the configuration that they were made from.
struct Own {
    settings: Settings,
    config: Mutex<BreakerConfig>,
}

/// The state that a circuit does not need while its calls succeed.
struct LazyState {
    deadline: AtomicU64,
    rejections: AtomicU64,
    last_failure_time: AtomicU64,
    bypass_deadline: AtomicU64,
    locked: Mutex<Locked>,
    counts: WideCounts,
    /// The key's label, once it has been needed.
    label: OnceLock<KeptLabel>,
}

impl<K> KeyedStore<K> {
    /// Creates a circuit with one of the configurations `configs`. It is counted in the gauges
    /// after [`count`](Self::count).
    ///
    /// `label` is the label of the key, and may be missing if no key has a configuration.
    pub(crate) fn new(
        key: K,
        hash: u64,
        common: Arc<Common<K>>,
        configs: &Configs,
        label: Option<&str>,
    ) -> Self {
        let own = OnceLock::new();
        let config = match configs.of_key(label) {
            None => &configs.each,
            Some(config) => {
                let settings = common.shared.branch(config, &configs.each);
                let _ = own.set(Box::new(Own { settings, config: Mutex::new(config.clone()) }));
                config
            }
        };
        let state_word = AtomicU64::new(StateWord::initial(config.is_disabled()).word());
        let settings = own.get().map_or(&common.shared, |own| &own.settings);
        let newest = NewestBucket::new(settings.hot_config.bucket());
        let (calls, lazy, instruments) = Default::default();
        let store = Self {
            key,
            hash,
            state_word,
            first_failure: AtomicU64::new(0),
            newest,
            calls,
            lazy,
            sent: AtomicU8::new(0),
            is_leased: AtomicBool::new(false),
            is_removed: AtomicBool::new(false),
            instruments,
            common,
            own,
        };
        if config.seeds.is_some() {
            // The lazy state takes the circuit's stream of random numbers. It is allocated now, so
            // that the order of creation decides.
            store.lazy.get_or_init(|| store.lazy_state(config));
        }
        store
    }

    /// Counts the circuit, which was created in the state `initial`, in the gauges until it is
    /// dropped. This calls the recorder and formats the key, so it must not run under a lock.
    pub(crate) fn count(&self, initial: CircuitState) {
        if !self.common.is_counted {
            return;
        }
        if let Some(instruments) = self.instruments(self.common.shared.hot_config.flags()) {
            instruments.circuit_created(initial);
        }
    }

    /// Returns the state of a circuit that has had no transition.
    pub(crate) fn initial_state(&self) -> CircuitState {
        StateWord::from_word(self.state_word.load(Ordering::Relaxed)).initial_state()
    }

    pub(crate) fn is_closed(&self) -> bool {
        // Relaxed: the state may change before it is used anyway.
        StateWord::from_word(self.state_word.load(Ordering::Relaxed)).is_closed()
    }

    #[inline]
    fn settings(&self) -> &Settings {
        match self.own.get() {
            None => &self.common.shared,
            Some(own) => &own.settings,
        }
    }

    pub(crate) const fn key_ref(&self) -> &K {
        &self.key
    }

    pub(crate) const fn hash(&self) -> u64 {
        self.hash
    }

    /// Returns whether the table holds a lease of the circuit.
    pub(crate) fn is_leased(&self) -> bool {
        // Relaxed: an eviction reads it again under the lock.
        self.is_leased.load(Ordering::Relaxed)
    }

    /// Notes whether the table holds a lease of the circuit. The caller holds the shard's lock.
    pub(crate) fn set_leased(&self, is_leased: bool) {
        self.is_leased.store(is_leased, Ordering::Relaxed);
    }

    /// Returns whether the circuit has left the table.
    #[inline]
    pub(crate) fn is_removed(&self) -> bool {
        // Relaxed: a removal applies to calls that happen after it. Those see the flag.
        self.is_removed.load(Ordering::Relaxed)
    }

    /// Notes that the circuit has left the table. The caller holds the shard's lock.
    pub(crate) fn set_removed(&self) {
        self.is_removed.store(true, Ordering::Relaxed);
    }

    fn kept_label<'a>(&self, lazy: &'a LazyState) -> Option<&'a KeptLabel> {
        if lazy.label.get().is_none() {
            // Formatted outside of the cell, because a key's `Debug` may use the circuit.
            let label = KeptLabel::new(self.common.name(), self.make_label()?);
            // Another thread, or the key's own `Debug`, may have been first.
            let _ = lazy.label.set(label);
        }
        lazy.label.get()
    }

    /// Disarms a signal. Returns whether it was armed.
    fn disarm(&self, armed: Events) -> bool {
        // Relaxed: of several calls, only one finds the signal armed.
        self.sent.fetch_or(armed.bits(), Ordering::Relaxed) & armed.bits() == 0
    }

    fn make_label(&self) -> Option<String> {
        self.common.make_label(&self.key)
    }

    fn lazy(&self) -> &LazyState {
        match self.lazy.get() {
            Some(lazy) => lazy,
            None => self.allocate_lazy(),
        }
    }

    #[cold]
    fn allocate_lazy(&self) -> &LazyState {
        // The lock is held during the allocation, so that no new configuration is missed.
        let configs = self.common.configs();
        self.lazy.get_or_init(|| match self.own.get() {
            None => self.lazy_state(&configs.each),
            Some(own) => self.lazy_state(&lock(&own.config)),
        })
    }

    fn lazy_state(&self, config: &BreakerConfig) -> Box<LazyState> {
        let (clock, observers) = (self.hot_config().clock(), Arc::clone(&self.common.observers));
        let mut locked = Locked::new(config, clock, JitterStream::of(config.seeds.as_ref()), Some(observers));
        // The state word decides: a new configuration may not have been applied to it yet. The
        // change is ignored, because this is the initial state, not a transition.
        let _ = locked.machine.set_disabled(self.initial_state() == CircuitState::Disabled);
        Box::new(LazyState {
            deadline: AtomicU64::new(0),
            rejections: AtomicU64::new(0),
            last_failure_time: AtomicU64::new(FailureTime::NONE),
            bypass_deadline: AtomicU64::new(0),
            locked: Mutex::new(locked),
            counts: WideCounts::default(),
            label: OnceLock::new(),
        })
    }
}

impl<K> Store for KeyedStore<K> {
    type Window = Self;

    #[inline]
    fn state_word(&self) -> &AtomicU64 {
        &self.state_word
    }

    #[inline]
    fn deadline(&self) -> &AtomicU64 {
        &self.lazy().deadline
    }

    fn bypass_deadline(&self) -> &AtomicU64 {
        &self.lazy().bypass_deadline
    }

    #[inline]
    fn first_failure(&self) -> &AtomicU64 {
        &self.first_failure
    }

    #[inline]
    fn last_failure_time(&self) -> Option<&AtomicU64> {
        self.lazy.get().map(|lazy| &lazy.last_failure_time)
    }

    #[inline]
    fn hot_config(&self) -> &HotConfig {
        &self.settings().hot_config
    }

    #[inline]
    fn read_config<T>(&self, read: impl Fn(&HotConfig) -> T) -> T {
        let value = read(&self.common.shared.hot_config);
        // In this order: a circuit with settings of its own must not use limits that were shared
        // afterwards, because their windows do not follow each other.
        match self.own.get() {
            None => value,
            Some(own) => read(&own.settings.hot_config),
        }
    }

    #[inline]
    fn events(&self) -> Events {
        // All circuits of the map have the same observers and listeners.
        let events = self.common.shared.hot_config.events();
        if events.has(Events::SIGNALS) {
            // Relaxed: as for the events.
            events.without(Events::from_bits(self.sent.load(Ordering::Relaxed)))
        } else {
            events
        }
    }

    #[inline]
    fn failures_timed_since(&self) -> Option<&AtomicU64> {
        Some(&self.settings().failures_timed_since)
    }

    #[inline]
    fn window(&self) -> &Self {
        self
    }

    fn locked(&self) -> &Mutex<Locked> {
        &self.lazy().locked
    }

    fn locked_if_any(&self) -> Option<&Mutex<Locked>> {
        self.lazy.get().map(|lazy| &lazy.locked)
    }

    #[inline]
    fn instruments(&self, flags: Flags) -> Option<&'static Instruments> {
        let Common { max_key_labels, record, .. } = &*self.common;
        match *max_key_labels {
            None => flags.instruments(),
            Some(max) => self.instruments.get_or_register(record.name(), max, || self.make_label()),
        }
    }

    fn observers_of(&self, _: u32) -> Option<(&'static str, Option<Arc<Observers>>)> {
        Some((self.common.name(), Some(Arc::clone(&self.common.observers))))
    }

    fn arm(&self, signals: Events) {
        // Relaxed: as for the events.
        self.sent.fetch_and(!signals.bits(), Ordering::Relaxed);
    }

    fn signal_once(&self, _: Option<u32>, armed: Events, signal: Signal) {
        if self.disarm(armed) {
            self.common.listeners.signal(self, signal);
        }
    }

    fn signal(&self, _: &Observers, signal: Signal) {
        self.common.listeners.signal(self, signal);
    }

    fn notify_listeners(&self, transition: &Transition) {
        self.common.listeners.notify(self, transition);
    }

    fn count_rejection(&self) {
        // Relaxed: the count is only displayed.
        self.lazy().rejections.fetch_add(1, Ordering::Relaxed);
    }

    fn rejections(&self) -> u64 {
        self.lazy.get().map_or(0, |lazy| lazy.rejections.load(Ordering::Relaxed))
    }

    fn config(&self) -> BreakerConfig {
        let configs = self.common.configs();
        match self.own.get() {
            None => configs.each.clone(),
            Some(own) => lock(&own.config).clone(),
        }
    }

    fn key(&self) -> Option<Arc<str>> {
        match self.lazy.get() {
            Some(lazy) => self.kept_label(lazy).and_then(|label| label.label().text()),
            None => self.make_label().map(Arc::from),
        }
    }

    fn label(&self) -> Option<Label> {
        self.kept_label(self.lazy()).map(KeptLabel::label)
    }
}

impl<K> Drop for KeyedStore<K> {
    fn drop(&mut self) {
        if !self.common.is_counted {
            return;
        }
        // The key is not formatted for this.
        let instruments = match self.common.max_key_labels {
            None => self.common.instruments(),
            Some(_) => self.instruments.get(),
        };
        let Some(instruments) = instruments else { return };
        let state = match self.lazy.get() {
            Some(lazy) => lock(&lazy.locked).state(),
            None => self.initial_state(),
        };
        instruments.circuit_dropped(state);
    }
}

impl<K> fmt::Debug for Common<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Common").field("name", &self.record.name()).finish_non_exhaustive()
    }
}

impl<K> fmt::Debug for KeyedStore<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedStore").field("state_word", &self.state_word).finish_non_exhaustive()
    }
}

impl<K> fmt::Debug for Shared<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shared")
    }
}

#[cfg(all(test, loom_models))]
pub(super) mod models;
