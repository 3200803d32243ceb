//! The right to one call.

use std::fmt;
use std::mem::{self, ManuallyDrop};
#[cfg(feature = "keyed")]
use std::task::Waker;

use tower_fault_classify::{Fault, Health, Kind, Origin, Retryable, Verdict};

use super::core::{Admission, CallDuration, Core, Denied};
use super::hold::{Hold, Own};
#[cfg(feature = "keyed")]
use super::wakers::WakerKey;
use crate::machine::Arrival;

/// The fault of a call that panicked.
const PANICKED: Fault = Fault::new(Kind::Unknown, Retryable::Never, Health::Unhealthy, Origin::Local);

/// Permission for one call through a circuit, which records the outcome of the call.
///
/// A permit records exactly one outcome: the verdict given to [`record`](Self::record), or, if it is
/// dropped, a cancelled call. [`CancelledPolicy`](crate::CancelledPolicy) says how cancelled calls
/// are counted.
///
/// A permit belongs to the epoch in which it was acquired. After the state of the circuit has
/// changed, the outcome changes nothing.
#[must_use = "dropping a permit records a cancelled call"]
pub struct Permit<H: Hold = Own> {
    hold: H,
    admission: Admission,
}

impl Permit {
    /// A permit of a closed circuit.
    #[inline]
    pub(crate) fn acquire_closed(core: &'static Core) -> Option<Self> {
        core.admit_closed().map(|admission| Self { hold: Own(core), admission })
    }

    /// A permit of a closed circuit, also in a slow start, for what is counted and was not asked
    /// for.
    pub(crate) fn if_closed(core: &'static Core) -> Option<Self> {
        core.admit_if_closed().map(|admission| Self { hold: Own(core), admission })
    }
}

impl<H: Hold> Permit<H> {
    #[inline]
    pub(crate) fn acquire(hold: H) -> Result<Self, Denied> {
        Self::ask(hold).map_err(|(_, denied)| denied)
    }

    /// The same, with the circuit given back that refuses.
    #[inline]
    pub(crate) fn ask(hold: H) -> Result<Self, (H, Denied)> {
        match hold.admit() {
            Ok(admission) => Ok(Self { hold, admission }),
            Err(denied) => Err((hold, denied)),
        }
    }

    /// Records the outcome of the call.
    ///
    /// An unhealthy verdict counts as a failure, a healthy one as a success. A neutral verdict frees
    /// the slot of a probe and counts as neither.
    #[inline]
    pub fn record(self, verdict: Verdict) {
        self.record_by_ref(&verdict);
    }

    /// As [`record`](Self::record), without a copy of the verdict: the copy would stall on the
    /// stores that have just written the parts.
    #[inline]
    pub(crate) fn record_by_ref(self, verdict: &Verdict) {
        self.done(|hold, admission| hold.record(admission, verdict));
    }

    /// Gives the permit back unused: the call never began.
    ///
    /// A probe's slot is free at once, a call in a slow start returns its credit, and nothing is
    /// counted, whatever the policy for cancelled calls.
    pub fn cancel(self) {
        self.done(H::cancel);
    }

    /// Cancels a call whose answer the caller was reading.
    pub(crate) fn record_cancelled_after_answer(self) {
        self.done(H::record_cancelled_after_answer);
    }

    /// How long the call has taken until now, if that matters.
    pub(crate) fn duration(&self) -> CallDuration {
        self.hold.duration(self.admission)
    }

    /// Tells the circuit what a call came to that was answered before, after so long.
    pub(crate) fn record_with_duration(self, verdict: &Verdict, duration: CallDuration) {
        self.done(|hold, admission| hold.record_with_duration(admission, verdict, duration));
    }

    /// Ends the permit without its `Drop`.
    #[expect(clippy::inline_always, reason = "what it is given would go through memory, twice a call")]
    #[inline(always)]
    fn done(self, record: impl FnOnce(&H, Admission)) {
        let mut this = ManuallyDrop::new(self);
        record(&this.hold.take(), this.admission);
    }

    /// Runs a part of the call. A panic in it counts as a failure, and goes on.
    #[inline]
    pub(crate) fn guard<T>(permit: &mut Option<Self>, run: impl FnOnce() -> T) -> T {
        /// Dropped only while a panic goes by.
        struct OnPanic<'a, H: Hold>(&'a mut Option<Permit<H>>);

        impl<H: Hold> Drop for OnPanic<'_, H> {
            fn drop(&mut self) {
                if let Some(permit) = self.0.take() {
                    permit.record(PANICKED.into());
                }
            }
        }

        let on_panic = OnPanic(permit);
        let value = run();
        mem::forget(on_panic);
        value
    }
}

/// The admission of a call that has not begun. Dropping it takes the admission back.
#[derive(Debug)]
pub(crate) struct Reserved {
    core: &'static Core,
    admission: Admission,
}

impl Reserved {
    /// See [`Core::reserve`].
    pub(crate) fn reserve(core: &'static Core, arrival: Arrival) -> Result<Option<Self>, Denied> {
        Ok(core.reserve(arrival)?.map(|admission| Self { core, admission }))
    }

    /// Whether the call may still begin. A probe's lease is extended.
    pub(crate) fn renew(&self) -> bool {
        self.core.renew(self.admission)
    }

    /// Begins the call.
    pub(crate) fn begin(self) -> Permit {
        let this = ManuallyDrop::new(self);
        Permit { hold: Own(this.core), admission: this.admission }
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.core.cancel(self.admission);
    }
}

#[cfg(feature = "keyed")]
impl<H: Hold> Permit<H> {
    /// Whether nobody counts the call.
    pub(crate) const fn is_uncounted(&self) -> bool {
        self.admission.is_uncounted()
    }

    /// Whether the call may still begin. A probe's lease is extended.
    #[inline]
    pub(crate) fn renew(&self) -> bool {
        self.hold.renew(self.admission)
    }

    /// Asks the same circuit again, for a call that may not begin any more.
    pub(crate) fn ask_again(self) -> Result<Self, (H, Denied)> {
        let mut this = ManuallyDrop::new(self);
        let hold = this.hold.take();
        hold.cancel(this.admission);
        Self::ask(hold)
    }

    /// Registers a task that waits for something else, to be woken by a change of the circuit.
    pub(crate) fn wait(&self, waker_key: &mut Option<WakerKey>, waker: &Waker) {
        self.hold.wait(waker_key, waker);
    }

    /// The task waits no longer.
    pub(crate) fn leave(&self, waker_key: WakerKey) {
        self.hold.leave(waker_key);
    }
}

impl<H: Hold> Drop for Permit<H> {
    #[inline]
    fn drop(&mut self) {
        self.hold.record_cancelled(self.admission);
    }
}

impl<H: Hold> fmt::Debug for Permit<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").field("entry", &self.admission).finish_non_exhaustive()
    }
}
