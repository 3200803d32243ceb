//! The state of a service between `poll_ready` and `call`.
//!
//! [`Readiness`] is the whole state machine: what the last `poll_ready` promised, the reservation
//! of the circuit, the registration of the task, and the timer of an open circuit. The service
//! decides on the transitions, in `poll_ready` and `call`.
//!
//! ```text
//!           the circuit admits the call               the inner service is ready
//!   Idle ───────────────────────────────► InnerPending ────────────────────────► Ready, Admitted
//!     │                                        │                                       │
//!     │ the circuit denies the call            │ the circuit denies it meanwhile       │ likewise
//!     ▼                                        ▼                                       ▼
//!   Open, Rejected (fail fast); CircuitPending (not ready when open)
//! ```
//!
//! Two invariants hold between the calls of a service:
//!
//! - Only in `InnerPending`, `Ready` and `Admitted` has the inner service been polled and not
//!   called. A service that leaves these states without a call replaces its inner service, so that
//!   a queued or granted reservation is dropped.
//! - In `InnerPending` and `CircuitPending` the task is registered with the circuit, and the
//!   circuit's decision was read after the registration. Every later change of the circuit
//!   therefore wakes the task.

use std::mem;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::circuit::{Arrival, Denied, Reservation, StaticCore, WakeOn, WakerKey};
use crate::timer::OpenTimer;

/// What the last `poll_ready` promised. The tag is a byte of its own, and the states of usual calls
/// come first, so that one comparison distinguishes them from the others.
#[repr(u8)]
pub(crate) enum Readiness {
    /// No promise. The inner service was not polled since its last call.
    Idle,
    /// The inner service was polled. The circuit decides in `call`.
    Ready,
    /// The next call is rejected, even if the circuit changes before.
    ///
    /// The circuit is open for this many nanoseconds.
    Open(u64),
    /// The inner service was polled, and the circuit has admitted the call.
    Admitted(Reservation),
    /// The inner service is pending.
    InnerPending(InnerWait),
    /// The circuit denies the call, and the service is not ready meanwhile.
    CircuitPending(CircuitWait),
    /// The next call is rejected, even if the circuit changes before.
    Rejected(Denied),
}

impl Readiness {
    /// Whether the inner service was polled and not called.
    pub(crate) const fn has_polled(&self) -> bool {
        matches!(self, Self::Ready | Self::Admitted(_) | Self::InnerPending(_))
    }

    pub(crate) const fn waits_for_circuit(&self) -> bool {
        matches!(self, Self::CircuitPending(_))
    }

    /// Whether the state has nothing to drop.
    #[inline]
    pub(crate) const fn holds_nothing(&self) -> bool {
        matches!(self, Self::Idle | Self::Ready | Self::Open(_))
    }

    /// Replaces a state that holds nothing. An assignment would add the code that drops the other
    /// states to every call.
    #[inline]
    pub(crate) fn overwrite(&mut self, next: Self) {
        debug_assert!(self.holds_nothing());
        mem::forget(mem::replace(self, next));
    }

    /// Reserves the next call with the circuit. A reservation that is still valid is kept.
    pub(crate) fn reserve(
        &mut self,
        core: &'static StaticCore,
        arrival: Arrival,
    ) -> Result<Option<Reservation>, Denied> {
        match self.take_reserved() {
            Some(reserved) if reserved.renew() => Ok(Some(reserved)),
            _ => Reservation::reserve(core, arrival),
        }
    }

    /// Takes the reservation of the circuit.
    pub(crate) fn take_reserved(&mut self) -> Option<Reservation> {
        match self {
            Self::InnerPending(wait) => wait.reserved.take(),
            Self::Admitted(_) => match mem::replace(self, Self::Ready) {
                Self::Admitted(reserved) => Some(reserved),
                _ => None,
            },
            _ => None,
        }
    }

    /// Stores the circuit's admission. The inner service is polled next.
    pub(crate) fn set_admitted(&mut self, reserved: Option<Reservation>) {
        match (&mut *self, reserved) {
            (Self::InnerPending(wait), reserved) => wait.reserved = reserved,
            (_, Some(reserved)) => self.transition_to(Self::Admitted(reserved)),
            (_, None) => self.transition_to(Self::Ready),
        }
    }

    /// Registers the task with the circuit, because the inner service is pending.
    pub(crate) fn wait_for_inner(&mut self, core: &'static StaticCore, waker: &Waker) {
        if let Self::InnerPending(wait) = self {
            wait.registration.renew(waker);
            return;
        }
        let reserved = self.take_reserved();
        let begin = core.begin_wait();
        let registration = Registration::new(core, waker, WakeOn::Change);
        self.transition_to(Self::InnerPending(InnerWait { registration, begin, reserved }));
    }

    /// Ends the wait for the inner service, which is ready or has failed.
    pub(crate) fn end_inner_wait(&mut self) {
        if let Self::InnerPending(wait) = self {
            let reserved = wait.reserved.take();
            self.transition_to(Self::Ready);
            self.set_admitted(reserved);
        }
    }

    /// Registers the task with the circuit, because the circuit denies the call.
    pub(crate) fn wait_for_circuit(&mut self, core: &'static StaticCore, waker: &Waker) {
        if let Self::CircuitPending(wait) = self {
            wait.registration.renew(waker);
            return;
        }
        let registration = Registration::new(core, waker, WakeOn::FreeSlot);
        self.transition_to(Self::CircuitPending(CircuitWait { registration, timer: OpenTimer::default() }));
    }

    /// Polls the timer for the next decision of the circuit.
    pub(crate) fn poll_timer(&mut self, cx: &mut Context<'_>, left: Option<Duration>) -> Poll<()> {
        match self {
            Self::CircuitPending(wait) => wait.timer.poll(cx, left),
            _ => Poll::Ready(()),
        }
    }

    /// Replaces the state. A wait that ends here is not a cancelled call.
    pub(crate) fn transition_to(&mut self, next: Self) {
        if let Self::InnerPending(wait) = mem::replace(self, next) {
            wait.end();
        }
    }
}

/// A wait for the inner service. Dropping it records a cancelled call.
pub(crate) struct InnerWait {
    registration: Registration,
    /// See `Core::begin_wait`.
    begin: u64,
    reserved: Option<Reservation>,
}

impl InnerWait {
    fn end(mut self) {
        self.registration.leave();
    }
}

impl Drop for InnerWait {
    fn drop(&mut self) {
        if !self.registration.leave() {
            return;
        }
        match self.reserved.take() {
            // Dropping a permit records a cancelled call.
            Some(reserved) => drop(reserved.begin()),
            None => self.registration.core.record_cancelled_wait(self.begin),
        }
    }
}

/// A wait for the circuit. Dropping it records nothing: the call was not admitted.
pub(crate) struct CircuitWait {
    registration: Registration,
    timer: OpenTimer,
}

/// The registration of a task that the circuit wakes when it changes.
struct Registration {
    core: &'static StaticCore,
    waker_key: Option<WakerKey>,
    what: WakeOn,
}

impl Registration {
    fn new(core: &'static StaticCore, waker: &Waker, what: WakeOn) -> Self {
        let mut registration = Self { core, waker_key: None, what };
        registration.renew(waker);
        registration
    }

    /// Registers the waker of this poll. Read the decision of the circuit afterwards: an earlier
    /// change does not wake the task.
    fn renew(&mut self, waker: &Waker) {
        self.core.register_waker(&mut self.waker_key, waker, self.what);
    }

    /// Ends the registration. Returns whether the task was registered.
    fn leave(&mut self) -> bool {
        let waker_key = self.waker_key.take();
        if let Some(waker_key) = waker_key {
            self.core.deregister_waker(waker_key);
        }
        waker_key.is_some()
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.leave();
    }
}
