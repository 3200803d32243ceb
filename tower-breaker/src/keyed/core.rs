//! The storage of a keyed circuit: as few bytes as possible, and the rest when it is first needed.
//!
//! A circuit whose calls all succeed consists of its key, a state word and eleven cells.
//! Transitions, slow calls, cancelled calls, half-open calls and a last failure that is kept need
//! more state. The first of them allocates it, and it is kept until the circuit is dropped. The
//! circuits of a map share their configuration, clock and observers. If the configuration has a
//! seed, the state is allocated with the circuit.
//!
//! # Configurations
//!
//! Circuits share one [`HotConfig`], so that new limits apply to all of them at once. A circuit
//! whose key has a configuration gets a `HotConfig` of its own, with the circuit or later. It keeps
//! that until it is dropped.
//!
//! [`LazyState`] has a copy of the settings that only transitions and probes read. A new
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
//!
//! # Many calls with one key
//!
//! A cell can hold about a million calls. The counts of a full cell move to the cells in
//! [`LazyState`], which hold 4,096 times as many. While counts move, a reader of both places could
//! miss them or read them twice. Counts therefore move under a lock, with an odd sequence number. A
//! reader loads the sequence number before and after, and takes the lock if it was odd or has
//! changed.

use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};

use tower_fault_classify::__internals::sync::{self, AtomicU64, Mutex, MutexGuard, Ordering, fence, lock};
use tower_fault_classify::__internals::{BucketRing, Clock};

use crate::circuit::{
    CircuitRef, Core, Denied, Flags, HotConfig, LastCalls, Locked, NewestBucket, PackedCells, StateWord,
    Store, Window,
};
use crate::config::{BreakerConfig, Mode};
use crate::error::Rejection;
use crate::label::{KeptLabel, Label, OVERFLOW};
use crate::machine::{CircuitState, Counts, WindowShape};
use crate::rng::JitterStream;
use crate::sealed::Sealed;
use crate::telemetry::{Instruments, KeyInstruments, Observers, register};

/// Formats the label of a key.
type MakeLabel<K> = fn(&K) -> String;

/// A circuit with several owners: the map that stores it, handles, and the calls that use it.
pub(crate) type SharedCore<K> = sync::Arc<Core<KeyedStore<K>>>;

/// The information that an eviction would lose. The lowest cost is evicted first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum EvictionCost {
    /// Nothing, because one of these is true:
    ///
    /// - The circuit is closed with an empty window, no failure since its last success, and no
    ///   cancelled call since its last completed call.
    /// - It has been open for twice its last open duration.
    /// - It has been half-open for as long as its last open duration, and the configured open time.
    /// - It was forced, and the circuit that it would be now is idle.
    Idle,
    /// The circuit is closed. Its window holds this number of calls, all fast and successful.
    Successes(u64),
    /// The circuit is closed, and none of its failed, slow and cancelled calls is recent.
    ///
    /// The number is the larger of two: those calls in its window, and the failures since its last
    /// success. It is at least 1 if calls were cancelled since the last completed call.
    Failures(u64),
}

/// Returns the cost of evicting the circuit now. `None`: the circuit must be kept, or it has more
/// owners than the map's own `holders`: a call or a handle. The caller prevents calls from finding
/// the circuit meanwhile, or checks the cost again.
pub(crate) fn eviction_cost<K>(core: &SharedCore<K>, holders: usize) -> Option<EvictionCost> {
    if sync::Arc::strong_count(core) != holders {
        return None;
    }
    // Each owner released the circuit with Release, and the count was read afterwards: the outcome
    // of its call is visible below.
    fence(Ordering::Acquire);
    core.eviction_cost()
}

/// What the circuits of a map share.
pub(crate) struct Common<K> {
    name: &'static str,
    shared: Settings,
    configs: Mutex<Configs>,
    observers: Arc<Observers>,
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
        let name = config.name;
        let hot_config = HotConfig::new(config.fitted_clock(), config, PackedCells::PARTS, register(name));
        let shared = Settings { hot_config, failures_timed_since: AtomicU64::new(0) };
        let configs = Mutex::new(configs);
        let (observers, upkeep, sequence) = Default::default();
        let is_counted = true;
        Self { name, shared, configs, observers, label, max_key_labels, upkeep, sequence, is_counted }
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

    /// Runs `run`, which moves counts from one place to another.
    fn move_counts(&self, run: impl FnOnce()) {
        let _lock = lock(&self.upkeep);
        let sequence = self.sequence.load(Ordering::Relaxed);
        self.sequence.store(sequence.wrapping_add(1), Ordering::Relaxed);
        // A reader of a moved count sees the odd sequence number, or a later one.
        fence(Ordering::Release);
        run();
        // Release: a reader of this sequence number sees all counts in their new place.
        self.sequence.store(sequence.wrapping_add(2), Ordering::Release);
    }

    /// Reads counts while none of them moves.
    fn read_counts<T>(&self, read: impl Fn() -> T) -> T {
        // Acquire: reads the counts of this sequence number, or of a later one.
        let sequence = self.sequence.load(Ordering::Acquire);
        let value = read();
        // If a count belongs to a later sequence number, the load below sees a changed number.
        fence(Ordering::Acquire);
        if sequence.is_multiple_of(2) && self.sequence.load(Ordering::Relaxed) == sequence {
            return value;
        }
        let _lock = lock(&self.upkeep);
        read()
    }

    pub(crate) const fn name(&self) -> &'static str {
        self.name
    }

    pub(crate) const fn observers(&self) -> &Arc<Observers> {
        &self.observers
    }

    pub(crate) fn clock(&self) -> Clock {
        self.shared.hot_config.clock()
    }

    /// Sets whether the circuits have an observer of failures.
    pub(crate) fn set_observes_failures(&self, observes: bool) {
        self.shared.hot_config.set_observes_failures(observes);
    }

    /// Returns the duration of one part of a window, in nanoseconds; 0 for a count window.
    pub(crate) fn bucket(&self) -> u64 {
        match self.configs().each.window {
            WindowShape::Time(nanos) => nanos / PackedCells::PARTS,
            WindowShape::Count(_) => 0,
        }
    }
}

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
    fn of_key(&self, label: Option<&str>) -> Option<&BreakerConfig> {
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
struct Settings {
    hot_config: HotConfig,
    /// See [`Store::failures_timed_since`].
    failures_timed_since: AtomicU64,
}

impl Settings {
    /// Replaces the configuration `before`. The circuits keep their state.
    fn replace(&self, config: &BreakerConfig, before: &BreakerConfig) {
        if before.trip.consecutive_failures_span == 0 {
            // Before the limits, so that a call that reads a new span reads this time. Release: as
            // for every store of such a time.
            self.failures_timed_since.store(self.hot_config.now(), Ordering::Release);
        }
        self.hot_config.replace(config, before.window, PackedCells::PARTS);
    }

    /// Returns the settings of one of the circuits that use these, which have the configuration
    /// `before`. The circuit keeps its state.
    fn branch(&self, config: &BreakerConfig, before: &BreakerConfig) -> Self {
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

/// A reference to a keyed circuit, held by handles and permits.
///
/// While it exists, the circuit is not evicted.
pub struct Shared<K>(Option<SharedCore<K>>);

impl<K> Shared<K> {
    pub(crate) const fn new(core: SharedCore<K>) -> Self {
        Self(Some(core))
    }

    /// Emits the rejection of a call, and returns it.
    #[cold]
    pub(crate) fn reject(&self, denied: Denied) -> Rejection {
        let core = self.core();
        let name = core.store().common.name;
        core.emit_rejection(name, denied.state);
        core.rejection(name, denied)
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
        self.0.as_ref().expect("a permit refers to its circuit until its outcome is recorded")
    }

    #[inline]
    fn take(&mut self) -> Self {
        Self(self.0.take())
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
    lazy: OnceLock<Box<LazyState>>,
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
    bypass_deadline: AtomicU64,
    locked: Mutex<Locked>,
    counts: WideCounts,
    /// The key's label, once it has been needed.
    label: OnceLock<KeptLabel>,
}

/// The counts outside of the circuit's own cells.
#[derive(Default)]
struct WideCounts {
    slow: BucketRing<CELLS>,
    cancelled: BucketRing<CELLS>,
    /// The counts of full cells.
    failures: BucketRing<CELLS>,
    calls: BucketRing<CELLS>,
}

/// The number of cells: one more than the window has parts, as in [`PackedCells`].
const CELLS: usize = PackedCells::PARTS as usize + 1;

impl WideCounts {
    fn all(&self) -> [&BucketRing<CELLS>; 4] {
        [&self.slow, &self.cancelled, &self.failures, &self.calls]
    }
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
        let first_failure = AtomicU64::new(0);
        let store =
            Self { key, hash, state_word, first_failure, newest, calls, lazy, instruments, common, own };
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

    fn kept_label<'a>(&self, lazy: &'a LazyState) -> Option<&'a KeptLabel> {
        if lazy.label.get().is_none() {
            // Formatted outside of the cell, because a key's `Debug` may use the circuit.
            let label = KeptLabel::new(self.make_label()?);
            // Another thread, or the key's own `Debug`, may have been first.
            let _ = lazy.label.set(label);
        }
        lazy.label.get()
    }

    fn make_label(&self) -> Option<String> {
        self.common.make_label(&self.key)
    }

    #[inline]
    fn add(&self, tag: u64, failed: bool) {
        while !self.calls.add(tag, failed) {
            self.move_to_wide_cells(tag);
        }
    }

    /// Moves the counts of a full cell to wider cells.
    #[cold]
    #[inline(never)]
    fn move_to_wide_cells(&self, tag: u64) {
        let wide = &self.lazy().counts;
        self.common.move_counts(|| {
            if let Some((tag, [calls, failures])) = self.calls.take(tag) {
                wide.calls.add(tag, calls);
                wide.failures.add(tag, failures);
            }
        });
    }

    fn wide_sum(&self, tag: u64, cells: impl FnOnce(&WideCounts) -> &BucketRing<CELLS>) -> u64 {
        self.lazy.get().map_or(0, |lazy| cells(&lazy.counts).sum(tag))
    }

    /// Returns the counts of the last `span` buckets, of which `tag` is the newest.
    fn sums_of(&self, tag: u64, span: u32) -> Counts {
        self.common.read_counts(|| {
            // Each numerator is read before its denominator, as in the other window.
            let wide = self.lazy.get().map(|lazy| lazy.counts.all().map(|cells| cells.sum_last(tag, span)));
            let [slow, cancelled, wide_failures, wide_calls] = wide.unwrap_or_default();
            let [calls, failures] = self.calls.sum_last(tag, span);
            Counts { calls: calls + wide_calls, failures: failures + wide_failures, slow, cancelled }
        })
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
        let mut locked = Locked::new(config, clock, JitterStream::of(config.seeds.as_ref()), observers);
        // The state word decides: a new configuration may not have been applied to it yet. The
        // change is ignored, because this is the initial state, not a transition.
        let _ = locked.machine.set_disabled(self.initial_state() == CircuitState::Disabled);
        Box::new(LazyState {
            deadline: AtomicU64::new(0),
            rejections: AtomicU64::new(0),
            bypass_deadline: AtomicU64::new(0),
            locked: Mutex::new(locked),
            counts: WideCounts::default(),
            label: OnceLock::new(),
        })
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

impl<K> Core<KeyedStore<K>> {
    /// Returns whether evicting the circuit would lose nothing.
    pub(crate) fn is_idle(&self) -> bool {
        self.eviction_cost() == Some(EvictionCost::Idle)
    }

    /// Returns the cost of evicting the circuit. `None`: it must be kept, because one of these is
    /// true:
    ///
    /// - it has been open for less than twice its last open duration;
    /// - it has been half-open for less than its last open duration, or the configured open time;
    /// - it is forced, and its override has not ended by itself, or it would be half-open for less
    ///   than this time;
    /// - it is disabled, or open until it is reset;
    /// - it is in a slow start by time, or in one by successes that has admitted a call within the
    ///   last lease;
    /// - a call failed, was slow or was cancelled in the current tenth of the window or in the
    ///   tenth before.
    fn eviction_cost(&self) -> Option<EvictionCost> {
        let KeyedStore { state_word, newest, lazy, .. } = self.store();
        let now = self.hot_config().now();
        // Acquire: sees everything from before this epoch began.
        let word = StateWord::from_word(state_word.load(Ordering::Acquire));
        let lazy = lazy.get();
        if !word.is_closed() {
            return lazy.filter(|lazy| lock(&lazy.locked).is_idle(now)).map(|_| EvictionCost::Idle);
        }
        if !word.admits_all() && lazy.is_some_and(|lazy| lock(&lazy.locked).is_in_slow_start(now)) {
            return None;
        }
        let bad_calls = |counts: Counts| counts.failures + counts.slow + counts.cancelled;
        // `None`: the window is empty.
        let bucket = newest.current(self.span().buckets.tag(now, word.epoch()));
        let sums_of = |span| bucket.map_or_else(Counts::default, |tag| self.store().sums_of(tag, span));
        let counts = sums_of(CELLS as u32);
        // The calls in the state word are not limited to the window: a key may be called less than
        // once per window.
        match bad_calls(counts).max(word.consecutive_failures()).max(word.has_cancelled().into()) {
            0 if counts.calls == 0 => Some(EvictionCost::Idle),
            0 => Some(EvictionCost::Successes(counts.calls)),
            number => (bad_calls(sums_of(2)) == 0).then_some(EvictionCost::Failures(number)),
        }
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
    fn observes_failures(&self) -> bool {
        // All circuits of the map have the same observers.
        self.common.shared.hot_config.observes_failures()
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
        let Common { max_key_labels, name, .. } = &*self.common;
        match *max_key_labels {
            None => flags.instruments(),
            Some(max) => self.instruments.get_or_register(name, max, || self.make_label()),
        }
    }

    fn observers_of(&self, _: u32) -> Option<(&'static str, Arc<Observers>)> {
        Some((self.common.name, Arc::clone(&self.common.observers)))
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
            Some(lazy) => self.kept_label(lazy).map(|label| Arc::clone(label.text())),
            None => self.make_label().map(Arc::from),
        }
    }

    fn label(&self) -> Option<Label> {
        self.kept_label(self.lazy()).map(KeptLabel::label)
    }
}

impl<K> Window for KeyedStore<K> {
    const PARTS: u64 = PackedCells::PARTS;

    #[inline]
    fn add_success(&self, tag: u64) {
        self.add(tag, false);
    }

    fn add_failure(&self, tag: u64) {
        self.add(tag, true);
    }

    fn add_slow(&self, tag: u64) {
        self.lazy().counts.slow.add(tag, 1);
    }

    fn add_cancelled(&self, tag: u64) {
        self.lazy().counts.cancelled.add(tag, 1);
    }

    fn failures(&self, tag: u64) -> u64 {
        self.common.read_counts(|| {
            self.calls.sum_last(tag, CELLS as u32)[1] + self.wide_sum(tag, |wide| &wide.failures)
        })
    }

    fn slow(&self, tag: u64) -> u64 {
        self.wide_sum(tag, |wide| &wide.slow)
    }

    fn sums(&self, tag: u64) -> Counts {
        self.sums_of(tag, CELLS as u32)
    }

    #[inline]
    fn newest(&self) -> &NewestBucket {
        &self.newest
    }

    fn clear_expired(&self, keep: Option<u64>) {
        self.calls.clear_expired(keep);
        if let Some(lazy) = self.lazy.get() {
            for cells in lazy.counts.all() {
                cells.clear_expired(keep);
            }
        }
    }

    fn upkeep(&self) -> &Mutex<()> {
        &self.common.upkeep
    }

    #[inline]
    fn last(&self) -> Option<&Mutex<Option<LastCalls>>> {
        None
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
        f.debug_struct("Common").field("name", &self.name).finish_non_exhaustive()
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
