//! The right to one call.

use std::fmt;
use std::mem::{self, ManuallyDrop};
use std::ops::Deref;
#[cfg(feature = "keyed")]
use std::task::Waker;

use tower_fault_classify::__internals::PoolHandle;
use tower_fault_classify::{Fault, Health, Kind, Origin, Retryable, Verdict};

use super::core::{Admission, CallDuration, Core, Denied, Store};
use super::static_store::{StaticCore, StaticStore};
#[cfg(feature = "keyed")]
use super::wakers::{WakeOn, WakerKey};
use crate::machine::Arrival;
use crate::sealed::Sealed;

/// How a handle owns a circuit, and how a permit refers to it: [`Static`], or `Shared` for circuits
/// by key.
///
/// The trait is sealed: it is a bound in the types of this crate, and has no methods to call.
pub trait CircuitRef: Sealed + Sized {
    /// Where the circuit is stored.
    #[doc(hidden)]
    type Store: Store;
    /// What a handle holds. The circuit ends when its last owner is dropped.
    #[doc(hidden)]
    type Owner: Clone + Deref<Target = Core<Self::Store>>;

    /// The name of the handle in its `Debug` output.
    #[doc(hidden)]
    const HANDLE: &'static str;

    /// Refers to the circuit of an owner.
    #[doc(hidden)]
    fn of(owner: &Self::Owner) -> Self;

    /// The circuit.
    #[doc(hidden)]
    fn core(&self) -> &Core<Self::Store>;

    /// Moves the reference out. What is left must not be used, and costs nothing to forget.
    #[doc(hidden)]
    fn take(&mut self) -> Self;
}

/// Refers to a circuit whose storage is never freed, only reused. No reference is counted.
#[derive(Clone, Copy)]
pub struct Static(&'static StaticCore);

impl Sealed for Static {}

impl CircuitRef for Static {
    type Store = StaticStore;
    type Owner = PoolHandle<StaticCore>;

    const HANDLE: &'static str = "Circuit";

    #[inline]
    fn of(owner: &PoolHandle<StaticCore>) -> Self {
        Self(owner.as_static())
    }

    #[inline]
    fn core(&self) -> &StaticCore {
        self.0
    }

    #[inline]
    fn take(&mut self) -> Self {
        *self
    }
}

impl fmt::Debug for Static {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Static")
    }
}

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
pub struct Permit<R: CircuitRef = Static> {
    circuit: R,
    admission: Admission,
}

impl Permit {
    /// A permit of a closed circuit.
    #[inline]
    pub(crate) fn acquire_closed(core: &'static StaticCore) -> Option<Self> {
        core.admit_closed().map(|admission| Self { circuit: Static(core), admission })
    }

    /// A permit of a closed circuit, also in a slow start, for an outcome that is recorded without
    /// an admission.
    pub(crate) fn if_closed(core: &'static StaticCore) -> Option<Self> {
        core.admit_if_closed().map(|admission| Self { circuit: Static(core), admission })
    }
}

impl<R: CircuitRef> Permit<R> {
    /// Acquires a permit. If the circuit denies it, returns the reference to the circuit.
    #[inline]
    pub(crate) fn acquire(circuit: R) -> Result<Self, (R, Denied)> {
        match circuit.core().admit() {
            Ok(admission) => Ok(Self { circuit, admission }),
            Err(denied) => Err((circuit, denied)),
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
        self.finish(|core, admission| core.record(admission, verdict));
    }

    /// Records the outcome of a call that was answered earlier, after `duration`.
    pub(crate) fn record_with_duration(self, verdict: &Verdict, duration: CallDuration) {
        self.finish(|core, admission| core.record_with_duration(admission, verdict, duration));
    }

    /// Records that the caller cancelled the call while it read the answer.
    pub(crate) fn record_cancelled_after_answer(self) {
        self.finish(Core::record_cancelled_after_answer);
    }

    /// Gives the permit back unused: the call never began.
    ///
    /// A probe's slot is free at once, a call in a slow start returns its credit, and nothing is
    /// counted, whatever the policy for cancelled calls.
    pub fn cancel(self) {
        self.finish(Core::cancel_admission);
    }

    /// How long the call has taken until now, if the circuit needs it.
    pub(crate) fn duration(&self) -> CallDuration {
        self.circuit.core().duration(self.admission)
    }

    /// Consumes the permit without its drop.
    #[expect(clippy::inline_always, reason = "the verdict would go through memory, twice a call")]
    #[inline(always)]
    fn finish(self, record: impl FnOnce(&Core<R::Store>, Admission)) {
        let mut this = ManuallyDrop::new(self);
        record(this.circuit.take().core(), this.admission);
    }

    /// Runs a part of the call. A panic in it counts as a failure, and propagates.
    #[inline]
    pub(crate) fn guard<T>(permit: &mut Option<Self>, run: impl FnOnce() -> T) -> T {
        /// Dropped only while a panic unwinds.
        struct OnPanic<'a, R: CircuitRef>(&'a mut Option<Permit<R>>);

        impl<R: CircuitRef> Drop for OnPanic<'_, R> {
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

#[cfg(feature = "keyed")]
impl<R: CircuitRef> Permit<R> {
    /// Whether the call is not counted.
    pub(crate) const fn is_uncounted(&self) -> bool {
        self.admission.is_uncounted()
    }

    /// Whether the call may still begin. A probe's lease is extended.
    #[inline]
    pub(crate) fn renew(&self) -> bool {
        self.circuit.core().renew(self.admission)
    }

    /// Cancels the admission of a call that may not begin any more, and acquires another one.
    pub(crate) fn reacquire(self) -> Result<Self, (R, Denied)> {
        let mut this = ManuallyDrop::new(self);
        let circuit = this.circuit.take();
        circuit.core().cancel_admission(this.admission);
        Self::acquire(circuit)
    }

    /// Registers a task to be woken by a change of the circuit.
    pub(crate) fn register_waker(&self, key: &mut Option<WakerKey>, waker: &Waker) {
        self.circuit.core().register_waker(key, waker, WakeOn::Change);
    }

    /// Removes a registered task.
    pub(crate) fn deregister_waker(&self, key: WakerKey) {
        self.circuit.core().deregister_waker(key);
    }
}

/// A dropped permit records a cancelled call.
impl<R: CircuitRef> Drop for Permit<R> {
    #[inline]
    fn drop(&mut self) {
        self.circuit.core().record_cancelled(self.admission);
    }
}

impl<R: CircuitRef> fmt::Debug for Permit<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").field("admission", &self.admission).finish_non_exhaustive()
    }
}

/// The admission of a call that has not begun. Dropping it cancels the admission.
#[derive(Debug)]
pub(crate) struct Reservation {
    core: &'static StaticCore,
    admission: Admission,
}

impl Reservation {
    /// See [`Core::reserve`].
    pub(crate) fn reserve(core: &'static StaticCore, arrival: Arrival) -> Result<Option<Self>, Denied> {
        Ok(core.reserve(arrival)?.map(|admission| Self { core, admission }))
    }

    /// Whether the call may still begin. A probe's lease is extended.
    pub(crate) fn renew(&self) -> bool {
        self.core.renew(self.admission)
    }

    /// Begins the call.
    pub(crate) fn begin(self) -> Permit {
        let this = ManuallyDrop::new(self);
        Permit { circuit: Static(this.core), admission: this.admission }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.core.cancel_admission(self.admission);
    }
}
