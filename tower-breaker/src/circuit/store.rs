//! Where the parts of a circuit stand: each circuit has its own, or many share what their configuration says.

use std::sync::Arc;

use tower_fault_classify::__internals::sync::{AtomicU64, Mutex, Ordering};
use tower_fault_classify::__internals::{AtomicClock, Clock, StripedCounter};

use super::core::{CircuitConfig, INSTRUMENTS, Locked};
use super::limits::{AtomicLimits, Limits};
use super::state_word::StateWord;
use super::window::{StripedWindow, Window, WindowSpan};
use crate::label::Label;
use crate::telemetry::{Instruments, instruments};

/// The parts of a circuit.
pub trait Store {
    /// What it counts with.
    type Window: Window;

    /// The word that every call reads.
    fn state_word(&self) -> &AtomicU64;
    /// When an open circuit lets probes through. It is written before the word that says so.
    fn deadline(&self) -> &AtomicU64;
    /// What a call must know besides.
    fn hot_config(&self) -> &HotConfig;
    /// Its counts.
    fn window(&self) -> &Self::Window;
    /// What only transitions and half-open calls touch.
    fn locked(&self) -> &Mutex<Locked>;
    /// The same, if anything has touched it.
    fn locked_if_any(&self) -> Option<&Mutex<Locked>>;
    /// What it is called among those that share its name. It may run a user's code: never under a lock.
    fn key(&self) -> Option<Arc<str>>;
    /// The same, as a rejection has it.
    fn label(&self) -> Option<Label>;
}

/// What a call reads besides the word: seldom written.
#[derive(Debug)]
pub struct HotConfig {
    pub(crate) flags: AtomicU64,
    pub(crate) limits: AtomicLimits,
    pub(crate) clock: AtomicClock,
}

impl HotConfig {
    pub(crate) fn new(clock: Clock, config: &CircuitConfig, parts: u64, instruments: u32) -> Self {
        let limits = Limits { span: WindowSpan::of(config.shape, parts), trip: config.trip };
        Self {
            flags: AtomicU64::new(config.flags(instruments, 0)),
            limits: AtomicLimits::new(&limits),
            clock: AtomicClock::new(clock),
        }
    }
}

impl HotConfig {
    /// The current bucket of a circuit in its first epoch. A window that begins in this bucket does
    /// not clear its cells for the first call.
    pub(crate) fn bucket(&self) -> u64 {
        self.limits.load_locked().span.buckets.tag(self.clock.now(), 0)
    }

    /// Whether there is a recorder: without the feature `metrics` there is none.
    #[inline]
    pub(super) fn is_metered(&self) -> bool {
        cfg!(feature = "metrics") && self.flags.load(Ordering::Relaxed) >> INSTRUMENTS != 0
    }

    /// The instruments of the circuit's name, if there is a recorder.
    pub(crate) fn instruments(&self) -> Option<&'static Instruments> {
        // Relaxed: the number is written under the circuit's lock, or before anybody has the
        // circuit.
        instruments((self.flags.load(Ordering::Relaxed) >> INSTRUMENTS) as u32)
    }
}

/// A circuit that has all its parts to itself, on cache lines of its own.
#[derive(Debug)]
#[repr(align(128))]
pub struct Single {
    state_word: AtomicU64,
    deadline: AtomicU64,
    hot_config: HotConfig,
    window: StripedWindow,
    locked: Mutex<Locked>,
}

impl Single {
    /// The parts of a closed circuit. `stripes`: how its successes are counted.
    pub(crate) fn new(clock: Clock, stripes: StripedCounter, config: &CircuitConfig) -> Self {
        // The owner that adopts the circuit registers its instruments.
        let hot_config = HotConfig::new(clock, config, StripedWindow::PARTS, 0);
        let locked = Locked::new(config, clock, Arc::default());
        let window = StripedWindow::new(stripes, hot_config.bucket());
        Self {
            state_word: AtomicU64::new(StateWord::initial(config.disabled).word()),
            deadline: AtomicU64::new(0),
            hot_config,
            window,
            locked: Mutex::new(locked),
        }
    }
}

impl Store for Single {
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
