//! The storage of a keyed circuit: as few bytes as possible, and the rest when it is first needed.
//!
//! A circuit whose calls all succeed consists of its key, a state word and eleven cells.
//! Transitions, slow calls, cancelled calls, half-open calls and a last failure that is kept need
//! more state. The first of them allocates it, and it is kept until the circuit is dropped. The
//! circuits of a layer share their configuration, clock and observers. If the configuration has a
//! seed, the state is allocated with the circuit.
//!
//! # Many calls with one key
//!
//! A cell can hold about a million calls. The counts of a full cell move to the cells in
//! [`LazyState`], which hold 4,096 times as many. While counts move, a reader of both places could
//! miss them or read them twice. Counts therefore move under a lock, with an odd sequence number. A
//! reader loads the sequence number before and after, and takes the lock if it was odd or has
//! changed.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};

use tower_fault_classify::__internals::sync::{self, AtomicU64, Mutex, Ordering, fence, lock};
use tower_fault_classify::__internals::{BucketRing, Clock};

use crate::circuit::{
    CircuitRef, Core, Denied, Flags, HotConfig, LastCalls, Locked, NewestBucket, PackedCells, StateWord,
    Store, Window, WindowSpan,
};
use crate::config::{BreakerConfig, Mode};
use crate::error::Rejection;
use crate::label::{KeptLabel, Label};
use crate::machine::{Counts, WindowShape};
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

/// What the circuits of a layer share.
pub(crate) struct Common<K> {
    hot_config: HotConfig,
    config: BreakerConfig,
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
    pub(crate) fn new(config: BreakerConfig, label: MakeLabel<K>, max_key_labels: Option<usize>) -> Self {
        let instruments = register(config.name);
        let hot_config = HotConfig::new(config.fitted_clock(), &config, PackedCells::PARTS, instruments);
        let (observers, upkeep, sequence) = Default::default();
        Self { hot_config, config, observers, label, max_key_labels, upkeep, sequence, is_counted: true }
    }

    /// Returns what the overflow circuit shares with these circuits. Without `guards`, the overflow
    /// circuit is disabled, and the gauges do not count it.
    pub(crate) fn for_overflow(&self, guards: bool) -> Self {
        let (mode, seeds) =
            if guards { (self.config.mode, self.config.seeds.clone()) } else { (Mode::Disabled, None) };
        let config = BreakerConfig { mode, seeds, ..self.config.clone() };
        let observers = Arc::clone(&self.observers);
        // The label of the overflow circuit is not one of the limited labels of keys.
        let max_key_labels = self.max_key_labels.map(|_| usize::MAX);
        let common = Self::new(config, |_| "(overflow)".to_owned(), max_key_labels);
        Self { observers, is_counted: guards, ..common }
    }

    /// Returns the instruments of the name.
    pub(crate) fn instruments(&self) -> Option<&'static Instruments> {
        self.hot_config.flags().instruments()
    }

    fn span(&self) -> WindowSpan {
        self.hot_config.span_locked()
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

    pub(crate) const fn config(&self) -> &BreakerConfig {
        &self.config
    }

    pub(crate) const fn observers(&self) -> &Arc<Observers> {
        &self.observers
    }

    pub(crate) fn clock(&self) -> Clock {
        self.hot_config.clock()
    }

    /// Sets whether the circuits have an observer of failures.
    pub(crate) fn set_observes_failures(&self, observes: bool) {
        self.hot_config.set_observes_failures(observes);
    }

    /// The duration of one part of a window, in nanoseconds; 0 for a count window.
    pub(crate) const fn bucket(&self) -> u64 {
        match self.config.window {
            WindowShape::Time(nanos) => nanos / PackedCells::PARTS,
            WindowShape::Count(_) => 0,
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
        let name = core.store().common.config.name;
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
    /// Creates a circuit. It is counted in the gauges after [`count`](Self::count).
    pub(crate) fn new(key: K, hash: u64, common: Arc<Common<K>>) -> Self {
        let state_word = AtomicU64::new(StateWord::initial(common.config.is_disabled()).word());
        let newest = NewestBucket::new(common.hot_config.bucket());
        let is_seeded = common.config.seeds.is_some();
        let (calls, lazy, instruments) = Default::default();
        let first_failure = AtomicU64::new(0);
        let store = Self { key, hash, state_word, first_failure, newest, calls, lazy, instruments, common };
        if is_seeded {
            // The lazy state takes the circuit's stream of random numbers. It is allocated now, so
            // that the order of creation decides.
            store.lazy();
        }
        store
    }

    /// Counts the circuit in the gauges until it is dropped. This calls the recorder and formats
    /// the key, so it must not run under a lock.
    pub(crate) fn count(&self) {
        if !self.common.is_counted {
            return;
        }
        if let Some(instruments) = self.instruments(self.common.hot_config.flags()) {
            instruments.circuit_created(StateWord::initial(self.common.config.is_disabled()).initial_state());
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

    /// Formats the label of the key. `None`: its `Debug` panicked, which must not affect the call.
    fn make_label(&self) -> Option<String> {
        catch_unwind(AssertUnwindSafe(|| (self.common.label)(&self.key))).ok()
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
        self.lazy.get_or_init(|| {
            let Common { config, observers, hot_config, .. } = &*self.common;
            let jitter = JitterStream::of(config.seeds.as_ref());
            Box::new(LazyState {
                deadline: AtomicU64::new(0),
                rejections: AtomicU64::new(0),
                bypass_deadline: AtomicU64::new(0),
                locked: Mutex::new(Locked::new(config, hot_config.clock(), jitter, Arc::clone(observers))),
                counts: WideCounts::default(),
                label: OnceLock::new(),
            })
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
        let KeyedStore { state_word, newest, lazy, common, .. } = self.store();
        let now = common.hot_config.now();
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
        let bucket = newest.current(common.span().buckets.tag(now, word.epoch()));
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
        &self.common.hot_config
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
        let Common { max_key_labels, config, .. } = &*self.common;
        match *max_key_labels {
            None => flags.instruments(),
            Some(max) => self.instruments.get_or_register(config.name, max, || self.make_label()),
        }
    }

    fn observers_of(&self, _: u32) -> Option<(&'static str, Arc<Observers>)> {
        Some((self.common.config.name, Arc::clone(&self.common.observers)))
    }

    fn count_rejection(&self) {
        // Relaxed: the count is only displayed.
        self.lazy().rejections.fetch_add(1, Ordering::Relaxed);
    }

    fn rejections(&self) -> u64 {
        self.lazy.get().map_or(0, |lazy| lazy.rejections.load(Ordering::Relaxed))
    }

    fn config(&self) -> BreakerConfig {
        self.common.config.clone()
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
            None => StateWord::initial(self.common.config.is_disabled()).initial_state(),
        };
        instruments.circuit_dropped(state);
    }
}

impl<K> fmt::Debug for Common<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Common").field("config", &self.config).finish_non_exhaustive()
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
