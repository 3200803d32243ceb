//! Where the parts of a circuit stand: each circuit has its own, or many share what their configuration says.

use std::sync::Arc;

use tower_fault_classify::__internals::sync::{AtomicU64, Mutex, Ordering};
use tower_fault_classify::__internals::{AtomicClock, Clock, Striped};

use super::core::{Cold, METERS, Setup};
use super::limits::{Limits, Settings};
use super::state_word::Gate;
use super::window::{Counting, Span, Window};
use crate::label::Label;
use crate::telemetry::{Meters, meters};

/// The parts of a circuit.
pub(crate) trait Store {
    /// What it counts with.
    type Window: Counting;

    /// The word that every call reads.
    fn gate(&self) -> &AtomicU64;
    /// When an open circuit lets probes through. It is written before the gate that says so.
    fn deadline(&self) -> &AtomicU64;
    /// What a call must know besides.
    fn plan(&self) -> &Plan;
    /// Its counts.
    fn window(&self) -> &Self::Window;
    /// What only transitions and half-open calls touch.
    fn cold(&self) -> &Mutex<Cold>;
    /// The same, if anything has touched it.
    fn cold_if_any(&self) -> Option<&Mutex<Cold>>;
    /// What it is called among those that share its name. It may run a user's code: never under a lock.
    fn key(&self) -> Option<Arc<str>>;
    /// The same, as a rejection has it.
    fn label(&self) -> Option<Label>;
}

/// What a call reads besides the gate: seldom written.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) flags: AtomicU64,
    pub(crate) settings: Settings,
    pub(crate) clock: AtomicClock,
}

impl Plan {
    pub(crate) fn new(clock: Clock, setup: &Setup, parts: u64, meters: u32) -> Self {
        let limits = Limits { span: Span::of(setup.shape, parts), trip: setup.trip };
        Self {
            flags: AtomicU64::new(setup.flags(meters, 0)),
            settings: Settings::new(&limits),
            clock: AtomicClock::new(clock),
        }
    }
}

impl Plan {
    /// The current bucket of a circuit in its first epoch. A window that begins in this bucket does
    /// not clear its cells for the first call.
    pub(crate) fn bucket(&self) -> u64 {
        self.settings.limits_locked().span.buckets.tag(self.clock.now(), 0)
    }

    /// Whether there is a recorder: without the feature `metrics` there is none.
    #[inline]
    pub(super) fn is_metered(&self) -> bool {
        cfg!(feature = "metrics") && self.flags.load(Ordering::Relaxed) >> METERS != 0
    }

    /// The meters of the circuit's name, if there is a recorder.
    pub(crate) fn meters(&self) -> Option<&'static Meters> {
        // Relaxed: the number is written under the circuit's lock, or before anybody has the
        // circuit.
        meters((self.flags.load(Ordering::Relaxed) >> METERS) as u32)
    }
}

/// A circuit that has all its parts to itself, on cache lines of its own.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Single {
    gate: AtomicU64,
    deadline: AtomicU64,
    plan: Plan,
    window: Window,
    cold: Mutex<Cold>,
}

impl Single {
    /// The parts of a closed circuit. `stripes`: how its successes are counted.
    pub(crate) fn new(clock: Clock, stripes: Striped, setup: &Setup) -> Self {
        // The owner that adopts the circuit registers its meters.
        let plan = Plan::new(clock, setup, Window::PARTS, 0);
        let cold = Cold::new(setup, plan.clock.now(), Arc::default());
        let window = Window::new(stripes, plan.bucket());
        Self {
            gate: AtomicU64::new(Gate::at_first(setup.disabled).word()),
            deadline: AtomicU64::new(0),
            plan,
            window,
            cold: Mutex::new(cold),
        }
    }
}

impl Store for Single {
    type Window = Window;

    #[inline]
    fn gate(&self) -> &AtomicU64 {
        &self.gate
    }

    #[inline]
    fn deadline(&self) -> &AtomicU64 {
        &self.deadline
    }

    #[inline]
    fn plan(&self) -> &Plan {
        &self.plan
    }

    #[inline]
    fn window(&self) -> &Window {
        &self.window
    }

    fn cold(&self) -> &Mutex<Cold> {
        &self.cold
    }

    fn cold_if_any(&self) -> Option<&Mutex<Cold>> {
        Some(&self.cold)
    }

    fn key(&self) -> Option<Arc<str>> {
        None
    }

    #[inline]
    fn label(&self) -> Option<Label> {
        None
    }
}
