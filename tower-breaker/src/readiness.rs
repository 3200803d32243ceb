//! What a service keeps between `poll_ready` and `call`.
//!
//! ```text
//!           the circuit lets the call in              the inner service is ready
//!   Idle ───────────────────────────────► InnerPending ────────────────────────► Ready, Admitted
//!     │                                        │                                       │
//!     │ the circuit refuses the call           │ it refuses the call by now            │ the same
//!     ▼                                        ▼                                       ▼
//!   Open, Rejected (fail fast); CircuitPending (not ready when open)
//! ```
//!
//! Two invariants hold between the calls of a service:
//!
//! - Only `InnerPending`, `Ready` and `Admitted` go with an inner service that was polled and not
//!   called. A service that leaves them otherwise than by a call replaces its inner service, so
//!   that a queued or granted reservation is dropped.
//! - In `InnerPending` and `CircuitPending` the task is registered with the circuit, and the
//!   circuit was asked after the registration. Every later change of the circuit therefore wakes
//!   the task.

use std::mem;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::circuit::{Core, Denied, Reservation, WakeOn, WakerKey};

/// What the last `poll_ready` promised. The tag is a byte of its own, with the states of the usual
/// calls first, so that they are told apart in one comparison.
#[repr(u8)]
pub(crate) enum Readiness {
    /// Nothing. The inner service was not polled since its last call.
    Idle,
    /// The inner service was polled, and `call` asks the circuit.
    Ready,
    /// The next call is rejected, even if the circuit changes before: the circuit is open for so
    /// many nanoseconds.
    Open(u64),
    /// The inner service was polled, and the circuit has let the call in.
    Admitted(Reservation),
    /// The inner service is pending.
    InnerPending(InnerWait),
    /// The circuit refuses the call, and the service is not ready meanwhile.
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

    /// Whether there is nothing to drop.
    #[inline]
    pub(crate) const fn holds_nothing(&self) -> bool {
        matches!(self, Self::Idle | Self::Ready | Self::Open(_))
    }

    /// Replaces a state that holds nothing. An assignment would cost the usual call the code that
    /// drops the others.
    #[inline]
    pub(crate) fn overwrite(&mut self, next: Self) {
        debug_assert!(self.holds_nothing());
        mem::forget(mem::replace(self, next));
    }

    /// Takes what the circuit has reserved.
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

    /// The circuit does not refuse the call; the inner service is about to be polled.
    pub(crate) fn admit(&mut self, reserved: Option<Reservation>) {
        match (&mut *self, reserved) {
            (Self::InnerPending(wait), reserved) => wait.reserved = reserved,
            (_, Some(reserved)) => self.become_state(Self::Admitted(reserved)),
            (_, None) => self.become_state(Self::Ready),
        }
    }

    /// The inner service is pending: registers the task with the circuit.
    pub(crate) fn wait_for_inner(&mut self, core: &'static Core, waker: &Waker) {
        if let Self::InnerPending(wait) = self {
            wait.registration.renew(waker);
            return;
        }
        let reserved = self.take_reserved();
        let since = core.clock().now();
        let registration = Registration::new(core, waker, WakeOn::Change);
        self.become_state(Self::InnerPending(InnerWait { registration, since, reserved }));
    }

    /// The inner service has answered.
    pub(crate) fn end_inner_wait(&mut self) {
        if let Self::InnerPending(wait) = self {
            let reserved = wait.reserved.take();
            self.become_state(Self::Ready);
            self.admit(reserved);
        }
    }

    /// The circuit refuses the call: registers the task with the circuit.
    pub(crate) fn wait_for_circuit(&mut self, core: &'static Core, waker: &Waker) {
        if let Self::CircuitPending(wait) = self {
            wait.registration.renew(waker);
            return;
        }
        let registration = Registration::new(core, waker, WakeOn::ProbeSlot);
        self.become_state(Self::CircuitPending(CircuitWait { registration, timer: OpenTimer::default() }));
    }

    /// Waits until it is time to ask the circuit again.
    pub(crate) fn poll_timer(&mut self, cx: &mut Context<'_>, left: Option<Duration>) -> Poll<()> {
        match self {
            Self::CircuitPending(wait) => wait.timer.poll(cx, left),
            _ => Poll::Ready(()),
        }
    }

    /// Replaces the state. A wait that ends here was not given up by the caller.
    pub(crate) fn become_state(&mut self, next: Self) {
        if let Self::InnerPending(wait) = mem::replace(self, next) {
            wait.end();
        }
    }
}

/// A wait for the inner service. Dropping it counts as a cancelled call: the caller gave up.
pub(crate) struct InnerWait {
    registration: Registration,
    since: u64,
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
            // A permit that is dropped is one of a cancelled call.
            Some(reserved) => drop(reserved.begin()),
            None => self.registration.core.record_cancelled_wait(self.since),
        }
    }
}

/// A wait for the circuit. Dropping it counts nothing: the call was not let in.
pub(crate) struct CircuitWait {
    registration: Registration,
    timer: OpenTimer,
}

/// The task's place among those that the circuit wakes when it changes.
struct Registration {
    core: &'static Core,
    waker_key: Option<WakerKey>,
    what: WakeOn,
}

impl Registration {
    fn new(core: &'static Core, waker: &Waker, what: WakeOn) -> Self {
        let mut registration = Self { core, waker_key: None, what };
        registration.renew(waker);
        registration
    }

    /// Registers the waker of this poll. Ask the circuit afterwards: an earlier change has woken
    /// nobody.
    fn renew(&mut self, waker: &Waker) {
        self.core.register_waker(&mut self.waker_key, waker, self.what);
    }

    /// Returns whether the task was registered.
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

#[cfg(feature = "tokio")]
use self::timed::OpenTimer;
#[cfg(not(feature = "tokio"))]
use self::untimed::OpenTimer;

#[cfg(feature = "tokio")]
mod timed {
    use std::future::Future;
    use std::pin::Pin;
    use std::task::{Context, Poll};
    use std::time::Duration;

    use tokio::time::{Instant, Sleep, sleep_until};

    /// Wakes the task when it is time to ask the circuit again.
    #[derive(Debug, Default)]
    pub(super) struct OpenTimer(Option<Pin<Box<Sleep>>>);

    impl OpenTimer {
        /// Completes after `left`, at least a millisecond from now. `None` never completes: a
        /// change wakes the task.
        ///
        /// A timer that runs already is only ever shortened, so that frequent polls do not put it
        /// off. One that fires too early costs a question more.
        pub(super) fn poll(&mut self, cx: &mut Context<'_>, left: Option<Duration>) -> Poll<()> {
            const SHORTEST: Duration = Duration::from_millis(1);
            // As tokio has it for times that its clock cannot reach.
            const LONGEST: Duration = Duration::from_secs(30 * 365 * 86_400);

            let Some(left) = left else {
                self.0 = None;
                return Poll::Pending;
            };
            let deadline = Instant::now() + left.clamp(SHORTEST, LONGEST);
            let timer = self.0.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
            if deadline < timer.deadline() {
                timer.as_mut().reset(deadline);
            }
            let fired = timer.as_mut().poll(cx);
            if fired.is_ready() {
                self.0 = None;
            }
            fired
        }
    }
}

#[cfg(not(feature = "tokio"))]
mod untimed {
    use std::task::{Context, Poll};
    use std::time::Duration;

    /// Without the feature `tokio` no service waits for its circuit.
    #[derive(Debug, Default)]
    pub(super) struct OpenTimer(());

    impl OpenTimer {
        #[expect(clippy::unused_self, reason = "as with a timer")]
        pub(super) fn poll(&mut self, _: &mut Context<'_>, _: Option<Duration>) -> Poll<()> {
            Poll::Pending
        }
    }
}
