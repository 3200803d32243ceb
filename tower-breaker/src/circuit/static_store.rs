//! The storage of a circuit that is not one of a keyed map, and its reuse for the next circuit.
//!
//! The storage is never freed. So a permit can refer to it without a reference count.

use std::sync::Arc;

use tower_fault_classify::__internals::sync::{AtomicU64, Mutex, Ordering, lock};
use tower_fault_classify::__internals::{Clock, Pool, PoolItem, StripedCounter};

use super::core::{Core, FailureTime, Store, next_epoch, wake};
use super::hot_config::{Events, Flags, HotConfig, Limits};
use super::locked::Locked;
use super::state_word::StateWord;
use super::window::{StripedWindow, Window, WindowSpan};
use crate::config::{BreakerConfig, Mode};
use crate::control::Signal;
use crate::label::Label;
use crate::machine::{Machine, State, WindowShape};
use crate::rng::{JitterStream, Seeds};
use crate::telemetry::{Instruments, Observers, Transition, instruments, register};

/// The core of a circuit that shares nothing with other circuits.
pub(crate) type StaticCore = Core<StaticStore>;

/// The storage of a circuit that shares nothing with other circuits, not even a cache line.
#[derive(Debug)]
#[repr(align(128))]
pub struct StaticStore {
    state_word: AtomicU64,
    deadline: AtomicU64,
    bypass_deadline: AtomicU64,
    first_failure: AtomicU64,
    last_failure_time: AtomicU64,
    hot_config: HotConfig,
    window: StripedWindow,
    locked: Mutex<Locked>,
    /// The rest of the current configuration. Changed under the lock of `locked`.
    rest: Mutex<ConfigRest>,
}

/// The values of a configuration that neither [`HotConfig`] nor [`Locked`] holds.
#[derive(Debug)]
struct ConfigRest {
    name: Option<&'static str>,
    mode: Mode,
    clock: Option<Clock>,
    seeds: Option<Seeds>,
}

impl ConfigRest {
    fn of(config: &BreakerConfig) -> Self {
        let BreakerConfig { name, mode, clock, ref seeds, .. } = *config;
        Self { name, mode, clock, seeds: seeds.clone() }
    }
}

impl StaticStore {
    /// Creates the storage of a new circuit, which counts its successes in `successes`.
    pub(crate) fn new(clock: Clock, successes: StripedCounter, config: &BreakerConfig) -> Self {
        // No instruments and no stream yet: `adopt` sets them.
        let hot_config = HotConfig::new(clock, config, StripedWindow::PARTS, 0);
        let locked = Locked::new(config, clock, JitterStream::of(None), None);
        let window = StripedWindow::new(successes, hot_config.bucket());
        Self {
            state_word: AtomicU64::new(StateWord::initial(config.is_disabled()).word()),
            deadline: AtomicU64::new(0),
            bypass_deadline: AtomicU64::new(0),
            first_failure: AtomicU64::new(0),
            last_failure_time: AtomicU64::new(FailureTime::NONE),
            hot_config,
            window,
            locked: Mutex::new(locked),
            rest: Mutex::new(ConfigRest::of(config)),
        }
    }
}

impl Store for StaticStore {
    type Window = StripedWindow;

    #[inline]
    fn state_word(&self) -> &AtomicU64 {
        &self.state_word
    }

    #[inline]
    fn deadline(&self) -> &AtomicU64 {
        &self.deadline
    }

    fn bypass_deadline(&self) -> &AtomicU64 {
        &self.bypass_deadline
    }

    #[inline]
    fn first_failure(&self) -> &AtomicU64 {
        &self.first_failure
    }

    #[inline]
    fn last_failure_time(&self) -> Option<&AtomicU64> {
        Some(&self.last_failure_time)
    }

    #[inline]
    fn hot_config(&self) -> &HotConfig {
        &self.hot_config
    }

    #[inline]
    fn read_config<T>(&self, read: impl Fn(&HotConfig) -> T) -> T {
        read(&self.hot_config)
    }

    #[inline]
    fn events(&self) -> Events {
        self.hot_config.events()
    }

    #[inline]
    fn failures_timed_since(&self) -> Option<&AtomicU64> {
        None
    }

    #[inline]
    fn window(&self) -> &StripedWindow {
        &self.window
    }

    fn locked(&self) -> &Mutex<Locked> {
        &self.locked
    }

    fn locked_if_any(&self) -> Option<&Mutex<Locked>> {
        Some(&self.locked)
    }

    fn instruments(&self, flags: Flags) -> Option<&'static Instruments> {
        flags.instruments()
    }

    fn observers_of(&self, epoch: u32) -> Option<(&'static str, Option<Arc<Observers>>)> {
        let locked = lock(&self.locked);
        locked.is_own_epoch(epoch).then(|| (locked.name, locked.observers.clone()))
    }

    fn arm(&self, signals: Events) {
        self.hot_config.set_events(signals, true);
    }

    fn signal_once(&self, epoch: Option<u32>, armed: Events, signal: Signal) {
        // The storage changes from one circuit to the next under the lock.
        let locked = lock(&self.locked);
        let is_own = epoch.is_none_or(|epoch| locked.is_own_epoch(epoch));
        let was_armed = is_own && self.hot_config.set_events(armed, false);
        let observers = locked.observers.clone().filter(|_| was_armed);
        drop(locked);
        if let Some(observers) = observers {
            observers.signal(signal);
        }
    }

    fn signal(&self, observers: &Observers, signal: Signal) {
        observers.signal(signal);
    }

    #[inline]
    fn notify_listeners(&self, _: &Transition) {}

    #[inline]
    fn count_rejection(&self) {
        self.window.count_rejection();
    }

    fn rejections(&self) -> u64 {
        self.window.rejections()
    }

    fn config(&self) -> BreakerConfig {
        // A configuration is written under this lock.
        let locked = lock(&self.locked);
        let ConfigRest { name, mode, clock, ref seeds } = *lock(&self.rest);
        BreakerConfig {
            name,
            trip: self.hot_config.limits().trip,
            recovery: locked.limits,
            window: locked.shape,
            mode,
            count_failed_retries: self.hot_config.flags().counts_failed_retries(),
            clock,
            seeds: seeds.clone(),
        }
    }

    fn key(&self) -> Option<Arc<str>> {
        None
    }

    #[inline]
    fn label(&self) -> Option<Label> {
        None
    }
}

impl StaticCore {
    /// Creates a core. `adopt` must be called before it is used.
    pub(crate) fn with_successes(clock: Clock, successes: StripedCounter, config: &BreakerConfig) -> Self {
        Self::new(StaticStore::new(clock, successes, config))
    }

    /// Starts a new circuit in this core, on any clock.
    ///
    /// Calls of former owners may still use the core. They change nothing, because their epoch is
    /// over.
    pub(crate) fn adopt(&self, config: &BreakerConfig) {
        let clock = config.fitted_clock();
        let index = register(config.name());
        let mut locked = self.locked();
        locked.name = config.name();
        locked.clock = config.clock.unwrap_or_default();
        locked.first_epoch = locked.epoch;
        locked.since = clock.now();
        locked.window_since = locked.since;
        // No earlier owner counts a rejection any more, because only a handle can be rejected.
        locked.rejections_before = self.store().rejections();
        locked.rejections_at_transition = locked.rejections_before;
        locked.jitter = JitterStream::of(config.seeds.as_ref());
        self.hot_config().set_events(Events::ALL, false);
        *lock(&self.store().rest) = ConfigRest::of(config);
        self.write(&mut locked, config, None, index, clock);
        // The state is published without a notification: this is the initial state, not a
        // transition.
        if locked.machine.set_disabled(config.is_disabled()).is_some() {
            self.publish(locked.machine.published_state(), locked.epoch);
        }
        let state = locked.machine.state();
        drop(locked);
        if let Some(instruments) = instruments(index) {
            instruments.circuit_created(state);
        }
    }

    /// Replaces the configuration and keeps the state. The window starts empty if its shape
    /// changes.
    pub(crate) fn reconfigure(&self, config: &BreakerConfig) {
        // The name never changes, and may be unset in `config`.
        let name = self.locked().name;
        let index = register(name);
        let mut locked = self.locked();
        // The new clock shows the same time as the clock in use: at most the precise clock replaces
        // the coarse one, or the reverse.
        let clock = config.clock_for(locked.clock);
        let now = clock.now();
        let shape = locked.shape;
        if self.hot_config().limits().trip.consecutive_failures_span == 0 {
            // The time of the first failure was not stored. It is stored before the limits, so that
            // a call that reads a new span reads this time or a later one. Release: as for every
            // store of this time.
            self.store().first_failure().store(now, Ordering::Release);
        }
        // Before the new configuration applies: the override was over under the former one.
        let ended = self.end_override(&mut locked, now);
        if config.window != shape {
            // Before the window is emptied.
            let state = locked.machine.state();
            self.keep_last_times(&mut locked, state, now);
        }
        self.write(&mut locked, config, Some(shape), index, clock);
        let mut rest = lock(&self.store().rest);
        let (name, clock) = (config.name.or(rest.name), config.clock.or(rest.clock));
        *rest = ConfigRest { name, clock, ..ConfigRest::of(config) };
        drop(rest);
        locked.jitter.reconfigure(config.seeds.as_ref());
        let change = locked.machine.set_disabled(config.is_disabled());
        // Wake the tasks even if the state has not changed: the circuit may now only observe, or
        // reject calls again.
        let wakers = locked.wakers.drain();
        let pending = change.map(|change| self.apply(&mut locked, change, None, None, now));
        drop(locked);
        wake(wakers);
        self.notify(ended);
        self.notify(pending);
    }

    /// Writes a configuration. `before` is the current shape of the window; `None`: the core has a
    /// new owner.
    fn write(
        &self,
        locked: &mut Locked,
        config: &BreakerConfig,
        before: Option<WindowShape>,
        instruments: u32,
        clock: Clock,
    ) {
        let hot_config = self.hot_config();
        let former = hot_config.span();
        let (former_now, now) = (hot_config.now(), clock.now());
        let span = if before == Some(config.window) {
            former
        } else {
            WindowSpan::after(config.window, former, StripedWindow::PARTS, former_now, now)
        };
        if before.is_none() {
            // Before the clock and the limits are written: if a call of a former owner reads the
            // new clock or limits, the window has already discarded that call's bucket.
            self.window().newest().discard_before(span.buckets.tag(now, locked.epoch));
        }
        hot_config.write(clock, &Limits { span, trip: config.trip });
        // After the limits are written: a failure that loads the discarded promise reads them.
        self.window().discard_promise();
        if before != Some(config.window) {
            self.window().clear_count_window();
        }
        hot_config.write_flags(Flags::of(config, instruments, locked.first_epoch));
        locked.limits = config.recovery;
        locked.shape = config.window;
    }

    /// Returns how long a probe keeps its slot, in nanoseconds.
    pub(crate) fn probe_lease(&self) -> u64 {
        self.locked().limits.probe_lease
    }

    /// Returns the configured clock. While a configured time is short, the core reads the precise
    /// clock in place of the coarse one.
    pub(crate) fn configured_clock(&self) -> Clock {
        self.locked().clock
    }
}

static POOL: Pool<StaticCore> = Pool::new();

impl PoolItem for StaticCore {
    fn pool() -> &'static Pool<Self> {
        &POOL
    }

    fn retire(&self) {
        let mut locked = self.locked();
        let (instruments, state) = (self.hot_config().flags().instruments(), locked.machine.state());
        locked.epoch = next_epoch(locked.epoch);
        locked.machine = Machine::new();
        locked.consecutive_failures = 0;
        self.publish(State::Closed { slow_start: false }, locked.epoch);
        // Without instruments: metrics count no outcome of the ended circuit any more. The order of
        // the state word and these flags does not matter, because an outcome that reads these flags
        // is not counted in any epoch.
        self.hot_config().write_flags(Flags::NONE);
        let observers = locked.observers.take();
        let wakers = locked.wakers.drain();
        let pending = (locked.last_transition.take(), locked.last_trip.take(), locked.clear_last_calls());
        drop(locked);
        if let Some(instruments) = instruments {
            instruments.circuit_dropped(state);
        }
        drop((observers, wakers, pending));
    }
}
