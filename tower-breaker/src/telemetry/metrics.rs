//! Counters and gauges for the recorder of the crate `metrics`. `docs/observability.md` lists
//! their names.
//!
//! Each circuit name has [`Instruments`], and with a label for the keys, so has each key. They
//! exist without a recorder, so that they know how many circuits are in which state. The first
//! event after a recorder was found registers all of them. A circuit stores the number of its
//! instruments.
//!
//! | file | |
//! |---|---|
//! | `names.rs` | names, descriptions and labels |
//! | `recorder.rs` | whether there is a recorder |

mod names;
mod recorder;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;
use std::mem;
#[cfg(feature = "keyed")]
use std::sync::atomic::AtomicU32;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use metrics::{Counter, Gauge, Key, Label, Recorder, with_recorder};
use tower_fault_classify::{Health, Verdict};

pub(crate) use self::recorder::{is_recording, recheck_recorder};

use self::names::{
    CALLS, CIRCUIT, CIRCUITS, FROM, KEY, METADATA, OUTCOME, REASON, REJECTIONS, SLOW_CALLS, STATE, TO,
    TRANSITIONS, describe,
};
#[cfg(feature = "keyed")]
use self::names::{EVICTIONS, OVERFLOWS};
use self::recorder::find_recorder;
use super::Transition;
#[cfg(feature = "keyed")]
use crate::label::OVERFLOW;
use crate::machine::CircuitState;

const STATES: [CircuitState; 6] = [
    CircuitState::Closed,
    CircuitState::Open,
    CircuitState::HalfOpen,
    CircuitState::ForcedOpen,
    CircuitState::ForcedClosed,
    CircuitState::Disabled,
];

/// The label of all keys beyond the limit on the number of labels.
#[cfg(feature = "keyed")]
const OTHER_KEYS: &str = "(other)";

static ALL: boxcar::Vec<Instruments> = boxcar::Vec::new();

/// The numbers of the instruments of one circuit name. 0: there are none.
#[derive(Default)]
struct Numbers {
    without_key: u32,
    #[cfg(feature = "keyed")]
    by_key: std::collections::HashMap<Arc<str>, u32>,
    #[cfg(feature = "keyed")]
    other_keys: u32,
}

fn numbers() -> MutexGuard<'static, BTreeMap<&'static str, Numbers>> {
    static NUMBERS: Mutex<BTreeMap<&'static str, Numbers>> = Mutex::new(BTreeMap::new());
    NUMBERS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns the number of a name's instruments, and creates them if the name is new. Also looks for
/// a recorder.
pub(crate) fn register(circuit: &'static str) -> u32 {
    recheck_recorder();
    let mut numbers = numbers();
    number_of(&mut numbers.entry(circuit).or_default().without_key, circuit, || None)
}

/// Returns a number, after it has created the instruments if the number is 0.
fn number_of(number: &mut u32, circuit: &'static str, key: impl FnOnce() -> Option<Arc<str>>) -> u32 {
    if *number == 0 {
        *number = ALL.push(Instruments::new(circuit, key())) as u32 + 1;
    }
    *number
}

/// Returns the instruments with this number. `None`: the number is 0.
#[inline]
pub(crate) fn instruments(number: u32) -> Option<&'static Instruments> {
    if number == 0 { None } else { ALL.get(number as usize - 1) }
}

/// Registers the metrics of all existing circuits with the recorder of the crate `metrics`.
///
/// Call it after you install a recorder, if circuits may exist already. Their gauges then show the
/// circuits immediately. Without this function, the next event of any circuit that finds the
/// recorder registers them: see [Observability]. It does nothing if there is no recorder.
///
/// ```
/// use tower_breaker::Circuit;
/// use tower_breaker::telemetry::register_metrics;
///
/// let circuit = Circuit::new(tower_breaker::BreakerConfig::default());
/// // … the program installs a recorder …
/// register_metrics();
/// # drop(circuit);
/// ```
///
/// [Observability]: https://github.com/OWNER/tower-resilience-layers/blob/main/docs/observability.md#when-metrics-are-registered
pub fn register_metrics() {
    if find_recorder() {
        register_all();
    }
}

/// Registers the instruments of all existing circuits and maps.
fn register_all() {
    for (_, instruments) in &ALL {
        instruments.register_used();
    }
}

/// Registers the instruments of all existing circuits and maps, if this is the program's first
/// registration. A sum over the gauges then counts circuits without an event, too.
///
/// Later, each new circuit and map finds the recorder itself.
fn register_all_once() {
    static IS_DONE: AtomicBool = AtomicBool::new(false);
    if !IS_DONE.swap(true, Ordering::SeqCst) {
        register_all();
    }
}

/// The instruments of all circuits with one name, or of the circuits of one key.
pub struct Instruments {
    circuit: &'static str,
    key: Option<Arc<str>>,
    of_circuits: OnceLock<CircuitInstruments>,
    /// The changes of the numbers of circuits by state that the gauges do not show yet.
    unreported: Mutex<[i32; STATES.len()]>,
    has_circuits: AtomicBool,
    #[cfg(feature = "keyed")]
    of_map: OnceLock<MapInstruments>,
    #[cfg(feature = "keyed")]
    has_map: AtomicBool,
}

/// The instruments of circuits, from a recorder.
struct CircuitInstruments {
    success: Counter,
    failure: Counter,
    failed_retry: Counter,
    neutral: Counter,
    cancelled: Counter,
    slow: Counter,
    /// In the order of [`STATES`].
    rejections: [Counter; STATES.len()],
    circuits: [Gauge; STATES.len()],
}

/// The instruments of a map of circuits by key, from a recorder.
#[cfg(feature = "keyed")]
struct MapInstruments {
    evictions: Counter,
    overflows: Counter,
}

impl Instruments {
    fn new(circuit: &'static str, key: Option<Arc<str>>) -> Self {
        Self {
            circuit,
            key,
            of_circuits: OnceLock::new(),
            unreported: Mutex::default(),
            has_circuits: AtomicBool::new(false),
            #[cfg(feature = "keyed")]
            of_map: OnceLock::new(),
            #[cfg(feature = "keyed")]
            has_map: AtomicBool::new(false),
        }
    }

    /// Returns the instruments of the circuits. `None`: there is no recorder.
    #[inline]
    fn of_circuits(&self) -> Option<&CircuitInstruments> {
        self.of_circuits.get().or_else(|| self.register_circuits())
    }

    #[cold]
    fn register_circuits(&self) -> Option<&CircuitInstruments> {
        let new = register_new(|recorder| CircuitInstruments::new(self, recorder))?;
        // Another thread may have been first. The recorder knows that both are the same.
        drop(self.of_circuits.set(new));
        self.report();
        register_all_once();
        self.of_circuits.get()
    }

    /// Registers the instruments of circuits and maps that have existed.
    fn register_used(&self) {
        // SeqCst, with the stores of `circuit_created` and `map_created`: a circuit or map that is
        // not found here looks for the recorder after its store, and finds it.
        if self.has_circuits.load(Ordering::SeqCst) {
            self.of_circuits();
        }
        #[cfg(feature = "keyed")]
        if self.has_map.load(Ordering::SeqCst) {
            self.of_map();
        }
    }

    /// Changes the numbers of circuits by state, and reports them to the gauges.
    fn change(&self, changes: impl FnOnce(&mut [i32; STATES.len()])) {
        changes(&mut self.unreported());
        if self.of_circuits().is_some() {
            self.report();
        }
    }

    /// Reports the changes of the numbers of circuits to the gauges.
    ///
    /// Instruments are registered before they report. So a thread that finds no instruments has
    /// stored its change before the first report takes it.
    fn report(&self) {
        let Some(CircuitInstruments { circuits, .. }) = self.of_circuits.get() else { return };
        // The lock is released before the recorder runs. Increments may arrive in any order.
        let changes = mem::take(&mut *self.unreported());
        for (gauge, change) in circuits.iter().zip(changes) {
            match change {
                0 => {}
                1.. => gauge.increment(change),
                _ => gauge.decrement(-change),
            }
        }
    }

    fn unreported(&self) -> MutexGuard<'_, [i32; STATES.len()]> {
        self.unreported.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts the outcome of an admitted call. `is_uncounted_retry`: the call is a retry whose
    /// failure the circuit does not count.
    #[inline]
    pub(crate) fn outcome(&self, verdict: &Verdict, is_uncounted_retry: bool) {
        let Some(calls) = self.of_circuits() else { return };
        let outcome = match verdict {
            Verdict::Success => &calls.success,
            Verdict::Fault(fault) => match fault.health() {
                Health::Healthy => &calls.success,
                Health::Unhealthy if is_uncounted_retry => &calls.failed_retry,
                Health::Unhealthy => &calls.failure,
                _ => &calls.neutral,
            },
        };
        outcome.increment(1);
    }

    pub(crate) fn cancelled(&self) {
        if let Some(calls) = self.of_circuits() {
            calls.cancelled.increment(1);
        }
    }

    pub(crate) fn slow(&self) {
        if let Some(calls) = self.of_circuits() {
            calls.slow.increment(1);
        }
    }

    pub(crate) fn rejected(&self, state: CircuitState) {
        if let Some(calls) = self.of_circuits() {
            calls.rejections[index_of(state)].increment(1);
        }
    }

    /// Counts a new circuit.
    pub(crate) fn circuit_created(&self, state: CircuitState) {
        self.change(|circuits| circuits[index_of(state)] += 1);
        // After the thread's own registration: another thread may have another recorder, set for
        // that thread only.
        if !self.has_circuits.swap(true, Ordering::SeqCst) {
            self.of_circuits();
        }
    }

    /// Removes a circuit from the gauge of its state.
    pub(crate) fn circuit_dropped(&self, state: CircuitState) {
        self.change(|circuits| circuits[index_of(state)] -= 1);
    }

    pub(crate) fn transition(&self, Transition { from, to, reason, .. }: &Transition) {
        recheck_recorder();
        self.change(|circuits| {
            circuits[index_of(*from)] -= 1;
            circuits[index_of(*to)] += 1;
        });
        if self.of_circuits.get().is_some() {
            let labels = [(FROM, from.as_str()), (TO, to.as_str()), (REASON, reason.as_str())];
            let key = self.key(TRANSITIONS, &labels);
            with_recorder(|recorder| recorder.register_counter(&key, &METADATA)).increment(1);
        }
    }

    /// Returns the key of an instrument: the labels of the circuit, and `labels`.
    fn key(&self, name: &'static str, labels: &[(&'static str, &'static str)]) -> Key {
        let circuit = Label::from_static_parts(CIRCUIT, self.circuit);
        let key = self.key.as_ref().map(|key| Label::new(KEY, Arc::clone(key)));
        let labels = labels.iter().map(|(key, value)| Label::from_static_parts(key, value));
        Key::from_parts(name, [circuit].into_iter().chain(key).chain(labels).collect::<Vec<_>>())
    }
}

impl CircuitInstruments {
    fn new(circuits: &Instruments, recorder: &dyn Recorder) -> Self {
        let counter = |name, labels: &[_]| recorder.register_counter(&circuits.key(name, labels), &METADATA);
        let calls = |outcome| counter(CALLS, &[(OUTCOME, outcome)]);
        Self {
            success: calls("success"),
            failure: calls("failure"),
            failed_retry: calls("failed_retry"),
            neutral: calls("neutral"),
            cancelled: calls("cancelled"),
            slow: counter(SLOW_CALLS, &[]),
            rejections: STATES.map(|state| counter(REJECTIONS, &[(STATE, state.as_str())])),
            circuits: STATES.map(|state| {
                let key = circuits.key(CIRCUITS, &[(STATE, state.as_str())]);
                let gauge = recorder.register_gauge(&key, &METADATA);
                // Some recorders show a gauge only after its first change.
                gauge.increment(0.0);
                gauge
            }),
        }
    }
}

/// Registers instruments. `None`: there is no recorder, or a recorder that runs now was called by
/// this function, and would be called again.
fn register_new<T>(register: impl FnOnce(&dyn Recorder) -> T) -> Option<T> {
    thread_local! {
        static IS_REGISTERING: Cell<bool> = const { Cell::new(false) };
    }

    /// Ends the registration, also if the recorder panics.
    struct Registration;

    impl Drop for Registration {
        fn drop(&mut self) {
            IS_REGISTERING.set(false);
        }
    }

    if IS_REGISTERING.get() || !find_recorder() {
        return None;
    }
    IS_REGISTERING.set(true);
    let _registration = Registration;
    Some(with_recorder(|recorder| {
        describe(recorder);
        register(recorder)
    }))
}

fn index_of(state: CircuitState) -> usize {
    // `STATES` contains every state.
    STATES.iter().position(|other| *other == state).unwrap_or_default()
}

/// The metrics of a map of circuits by key.
#[cfg(feature = "keyed")]
impl Instruments {
    fn of_map(&self) -> Option<&MapInstruments> {
        if self.of_map.get().is_none() {
            let new = register_new(|recorder| {
                let counter = |name| recorder.register_counter(&self.key(name, &[]), &METADATA);
                MapInstruments { evictions: counter(EVICTIONS), overflows: counter(OVERFLOWS) }
            })?;
            // As for the instruments of circuits.
            drop(self.of_map.set(new));
            register_all_once();
        }
        self.of_map.get()
    }

    /// Registers the metrics of a new map.
    pub(crate) fn map_created(&self) {
        self.of_map();
        // As for circuits.
        if !self.has_map.swap(true, Ordering::SeqCst) {
            self.of_map();
        }
    }

    pub(crate) fn evicted(&self) {
        if let Some(map) = self.of_map() {
            map.evictions.increment(1);
        }
    }

    pub(crate) fn overflowed(&self) {
        if let Some(map) = self.of_map() {
            map.overflows.increment(1);
        }
    }
}

/// The number of the instruments of one key's circuit, once they have been needed.
#[cfg(feature = "keyed")]
#[derive(Debug, Default)]
pub(crate) struct KeyInstruments(AtomicU32);

#[cfg(feature = "keyed")]
impl KeyInstruments {
    /// Returns the instruments, if they have been needed before.
    pub(crate) fn get(&self) -> Option<&'static Instruments> {
        // Acquire, with the Release of `get_or_register`: the instruments with this number are
        // complete.
        instruments(self.0.load(Ordering::Acquire))
    }

    /// Returns the instruments, and creates them if they are new.
    ///
    /// A name has `max_labels` labels at most, in addition to `(other)`. A key beyond this limit,
    /// and a key without a label, uses the instruments of the key `(other)`. `label` may run user
    /// code, so this function must not be called under a lock.
    pub(crate) fn get_or_register(
        &self,
        circuit: &'static str,
        max_labels: usize,
        label: impl FnOnce() -> Option<String>,
    ) -> Option<&'static Instruments> {
        if let Some(instruments) = self.get() {
            return Some(instruments);
        }
        recheck_recorder();
        let number = Self::number(circuit, max_labels, label().map(Arc::from));
        // Release: as above. Another thread may have been first.
        match self.0.compare_exchange(0, number, Ordering::Release, Ordering::Acquire) {
            Ok(_) => instruments(number),
            Err(first) => instruments(first),
        }
    }

    fn number(circuit: &'static str, max_labels: usize, label: Option<Arc<str>>) -> u32 {
        let mut numbers = numbers();
        let Numbers { by_key, other_keys, .. } = numbers.entry(circuit).or_default();
        if let Some(label) = label {
            if let Some(number) = by_key.get(&label) {
                return *number;
            }
            // The label of the overflow circuit is not one of the limited labels.
            if by_key.len() - usize::from(by_key.contains_key(OVERFLOW)) < max_labels {
                return number_of(by_key.entry(Arc::clone(&label)).or_default(), circuit, || Some(label));
            }
        }
        number_of(other_keys, circuit, || Some(OTHER_KEYS.into()))
    }
}

impl fmt::Debug for Instruments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { circuit, key, .. } = self;
        f.debug_struct("Instruments").field("circuit", circuit).field("key", key).finish_non_exhaustive()
    }
}
