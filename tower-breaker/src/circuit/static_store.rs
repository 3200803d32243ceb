//! The storage of a circuit with everything to itself, and how it is reused for the next circuit.
//!
//! It is never freed, so that permits refer to it without counting references.

use std::mem;
use std::sync::Arc;

use tower_fault_classify::__internals::sync::{AtomicU64, Mutex};
use tower_fault_classify::__internals::{Clock, Pool, PoolItem, StripedCounter};

use super::core::{Core, Store, next_epoch, wake};
use super::hot_config::{Flags, HotConfig, Limits};
use super::locked::Locked;
use super::state_word::StateWord;
use super::window::{StripedWindow, Window, WindowSpan};
use crate::config::BreakerConfig;
use crate::label::Label;
use crate::machine::{Machine, State, WindowShape};
use crate::telemetry::{LastFailure, instruments, register};

/// The core of a circuit that has everything to itself.
pub(crate) type StaticCore = Core<StaticStore>;

/// The storage of such a circuit, on cache lines of its own.
#[derive(Debug)]
#[repr(align(128))]
pub struct StaticStore {
    state_word: AtomicU64,
    deadline: AtomicU64,
    hot_config: HotConfig,
    window: StripedWindow,
    locked: Mutex<Locked>,
}

impl StaticStore {
    /// The parts of a closed circuit. `stripes`: how its successes are counted.
    pub(crate) fn new(clock: Clock, stripes: StripedCounter, config: &BreakerConfig) -> Self {
        // The owner that adopts the circuit registers its instruments.
        let hot_config = HotConfig::new(clock, config, StripedWindow::PARTS, 0);
        let locked = Locked::new(config, clock, Arc::default());
        let window = StripedWindow::new(stripes, hot_config.bucket());
        Self {
            state_word: AtomicU64::new(StateWord::initial(config.is_disabled()).word()),
            deadline: AtomicU64::new(0),
            hot_config,
            window,
            locked: Mutex::new(locked),
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

    #[inline]
    fn hot_config(&self) -> &HotConfig {
        &self.hot_config
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

    fn key(&self) -> Option<Arc<str>> {
        None
    }

    #[inline]
    fn label(&self) -> Option<Label> {
        None
    }
}

impl StaticCore {
    /// A core that is yet to be adopted.
    pub(crate) fn with_stripes(clock: Clock, stripes: StripedCounter, config: &BreakerConfig) -> Self {
        Self::new(StaticStore::new(clock, stripes, config))
    }

    /// Makes the core a closed circuit of another owner, on any clock. Calls of former owners may
    /// still use it: their epoch is over.
    pub(crate) fn adopt(&self, config: &BreakerConfig) {
        let clock = config.fitted_clock();
        let index = register(config.name);
        let mut locked = self.locked();
        locked.name = config.name;
        locked.clock = config.clock.unwrap_or_default();
        locked.first_epoch = locked.epoch;
        locked.since = clock.now();
        self.write(&mut locked, config, None, index, clock);
        // It is how the circuit begins, not a transition.
        if locked.machine.set_disabled(config.is_disabled()).is_some() {
            self.publish(locked.machine.published_state(), locked.epoch);
        }
        let state = locked.machine.state();
        drop(locked);
        if let Some(instruments) = instruments(index) {
            instruments.circuit_created(state);
        }
    }

    /// Changes the limits, and keeps all the rest. The window starts empty if its shape is another.
    pub(crate) fn reconfigure(&self, config: &BreakerConfig) {
        let index = register(config.name);
        let mut locked = self.locked();
        // It shows the same time as the clock in use.
        let clock = config.clock_for(locked.clock);
        let now = clock.now();
        let (shape, metered) = (locked.shape, self.hot_config().instruments().is_some());
        self.write(&mut locked, config, Some(shape), index, clock);
        let state = locked.machine.state();
        let change = locked.machine.set_disabled(config.is_disabled());
        // Without a change of the state, too: the circuit may have begun to observe, or to reject.
        let wakers = locked.wakers.drain();
        let pending = change.map(|change| self.apply(&mut locked, change, None, None, now));
        drop(locked);
        // The recorder was installed after the circuit began.
        if let Some(instruments) = instruments(index).filter(|_| !metered) {
            instruments.circuit_created(state);
        }
        wake(wakers);
        self.notify(pending);
    }

    /// Writes a configuration. `before`: the shape of the window until now; `None` for another owner.
    fn write(
        &self,
        locked: &mut Locked,
        config: &BreakerConfig,
        before: Option<WindowShape>,
        instruments: u32,
        clock: Clock,
    ) {
        let hot_config = self.hot_config();
        let former = hot_config.span_locked();
        let (former_now, now) = (hot_config.now(), clock.now());
        let span = if before == Some(config.window) {
            former
        } else {
            WindowSpan::after(config.window, former, StripedWindow::PARTS, former_now, now)
        };
        if before.is_none() {
            // Before the clock and the limits: a former owner's call that reads one of those finds
            // its bucket left behind.
            self.window().discard_before(span.buckets.tag(now, locked.epoch));
        }
        hot_config.write(clock, &Limits { span, trip: config.trip });
        if before != Some(config.window) {
            self.window().clear_count_window();
        }
        hot_config.write_flags(Flags::of(config, instruments, locked.first_epoch));
        locked.limits = config.recovery;
        locked.shape = config.window;
    }

    /// How long a probe keeps its slot, in nanoseconds.
    pub(crate) fn probe_lease(&self) -> u64 {
        self.locked().limits.probe_lease
    }

    /// The clock as it was configured. The core reads the precise clock in place of the coarse one
    /// while a configured time is short.
    pub(crate) fn configured_clock(&self) -> Clock {
        self.locked().clock
    }

    /// The index of the circuit that has the core.
    pub(crate) fn owner(&self) -> u64 {
        self.locked().owner
    }

    /// Keeps the last failure, if it is one of this owner.
    pub(crate) fn keep_failure(&self, owner: u64, failure: LastFailure) {
        let mut locked = self.locked();
        if locked.owner == owner {
            let before = locked.last_failure.replace(failure);
            drop(locked);
            drop(before);
        }
    }
}

static POOL: Pool<StaticCore> = Pool::new();

impl PoolItem for StaticCore {
    fn pool() -> &'static Pool<Self> {
        &POOL
    }

    fn retire(&self) {
        let mut locked = self.locked();
        let (instruments, state) = (self.hot_config().instruments(), locked.machine.state());
        locked.owner += 1;
        locked.epoch = next_epoch(locked.epoch);
        locked.machine = Machine::new();
        self.publish(State::Closed { slow_start: false }, locked.epoch);
        // After the state word: an outcome that reads these flags finds the epoch of its call to be
        // over.
        self.hot_config().write_flags(Flags::NONE);
        let observers = mem::take(&mut locked.observers);
        let wakers = locked.wakers.drain();
        let pending = (locked.last_transition.take(), locked.last_trip.take(), locked.last_failure.take());
        drop(locked);
        if let Some(instruments) = instruments {
            instruments.circuit_dropped(state);
        }
        drop((observers, wakers, pending));
    }
}
