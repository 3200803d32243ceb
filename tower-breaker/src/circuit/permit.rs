//! The permit of one call, and how it refers to its circuit.

use std::fmt;
use std::mem::{self, ManuallyDrop};
use std::ops::Deref;
#[cfg(feature = "keyed")]
use std::task::Waker;
use std::time::Duration;

use tower_fault_classify::__internals::{PoolHandle, WeakHandle};
use tower_fault_classify::classifiers::AsError;
use tower_fault_classify::{Fault, Health, Kind, Origin, Retryable, Verdict, classify_error};

use super::core::{Admission, CallDuration, Core, Denied, Store};
use super::static_store::{StaticCore, StaticStore};
#[cfg(feature = "keyed")]
use super::wakers::{WakeOn, WakerKey};
use crate::machine::Arrival;
use crate::sealed::Sealed;
use crate::telemetry::{Cause, LastFailure, failure_in};

/// A reference to a circuit: [`Static`], or `Shared` for the circuit of a key.
///
/// It is the type parameter of [`Circuit`](crate::Circuit) and [`Permit`], and decides how a handle
/// owns its circuit. The trait is sealed, and has no methods to call.
pub trait CircuitRef: Sealed + Sized {
    /// The storage of the circuit.
    #[doc(hidden)]
    type Store: Store;
    /// The owner of the circuit, which a handle holds. The circuit ends when its last owner is
    /// dropped.
    #[doc(hidden)]
    type Owner: Clone + Deref<Target = Core<Self::Store>> + Unpin;
    /// A reference to the circuit that does not own it, for a weak handle.
    #[doc(hidden)]
    type Weak: Clone;

    /// The name of the handle in its `Debug` output.
    #[doc(hidden)]
    const HANDLE: &'static str;

    /// Returns a reference to the circuit of an owner.
    #[doc(hidden)]
    fn of(owner: &Self::Owner) -> Self;

    /// Returns a reference that does not own the circuit.
    #[doc(hidden)]
    fn downgrade(owner: &Self::Owner) -> Self::Weak;

    /// Returns an owner of the circuit. `None`: the circuit has ended.
    #[doc(hidden)]
    fn upgrade(weak: &Self::Weak) -> Option<Self::Owner>;

    /// Returns the circuit.
    #[doc(hidden)]
    fn core(&self) -> &Core<Self::Store>;

    /// Moves the reference out. The value left behind must not be used. It needs no drop, so the
    /// caller may forget it.
    #[doc(hidden)]
    fn take(&mut self) -> Self;
}

/// A reference to a circuit that does not belong to a key.
///
/// Such a circuit is the one of a layer or of a registry, or one made with
/// [`Circuit::new`](crate::Circuit::new). Its storage is never freed, only reused for a later
/// circuit. So the reference needs no reference count.
#[derive(Clone, Copy)]
pub struct Static(&'static StaticCore);

impl Sealed for Static {}

impl CircuitRef for Static {
    type Store = StaticStore;
    type Owner = PoolHandle<StaticCore>;
    type Weak = WeakHandle<StaticCore>;

    const HANDLE: &'static str = "Circuit";

    #[inline]
    fn of(owner: &PoolHandle<StaticCore>) -> Self {
        Self(owner.as_static())
    }

    fn downgrade(owner: &PoolHandle<StaticCore>) -> WeakHandle<StaticCore> {
        owner.downgrade()
    }

    fn upgrade(weak: &WeakHandle<StaticCore>) -> Option<PoolHandle<StaticCore>> {
        weak.upgrade()
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

/// A permit for one call through a circuit; it records the outcome of the call.
///
/// [`Circuit::try_acquire`](crate::Circuit::try_acquire) returns it. End it in one of these ways:
///
/// | way | effect |
/// |---|---|
/// | [`record`](Self::record), [`record_with_duration`](Self::record_with_duration) | records the verdict of the call |
/// | [`fail`](Self::fail), [`fail_as`](Self::fail_as) | records an error, and keeps it as the last failure |
/// | [`cancel`](Self::cancel) | counts nothing: the call never began |
/// | drop | records a cancelled call; see [`CancelledPolicy`](crate::CancelledPolicy) |
///
/// A panic that drops the permit also records a cancelled call.
///
/// A permit belongs to the epoch in which it was acquired. If the circuit has had a transition
/// since then, the outcome does not affect the circuit. Metrics still count it, unless the circuit
/// has ended.
///
/// The permit of a probe, or of a call in a slow start by successes, holds its slot for at most the
/// [probe lease](crate::BreakerConfigBuilder::probe_lease). After that, another call can take the
/// slot.
#[must_use = "dropping a permit records a cancelled call"]
pub struct Permit<R: CircuitRef = Static> {
    circuit: R,
    admission: Admission,
}

impl Permit {
    /// Acquires a permit if the circuit is closed and not in a slow start.
    #[inline]
    pub(crate) fn acquire_closed(core: &'static StaticCore) -> Option<Self> {
        core.admit_closed().map(|admission| Self { circuit: Static(core), admission })
    }

    /// Returns a permit if the circuit is closed, also in a slow start. The slow start does not
    /// count it: the permit serves to record an outcome without an admission.
    pub(crate) fn if_closed(core: &'static StaticCore) -> Option<Self> {
        core.admit_if_closed().map(|admission| Self { circuit: Static(core), admission })
    }
}

impl<R: CircuitRef> Permit<R> {
    /// Acquires a permit. If the circuit rejects the call, the error contains `circuit`.
    #[inline]
    pub(crate) fn acquire(circuit: R) -> Result<Self, (R, Denied)> {
        match circuit.core().admit() {
            Ok(admission) => Ok(Self { circuit, admission }),
            Err(denied) => Err((circuit, denied)),
        }
    }

    /// Acquires a permit for a call that waits until the circuit admits it.
    ///
    /// `arrival` says how a slow start counts the decision.
    #[cfg(feature = "tokio")]
    pub(super) fn acquire_waiting(owner: &R::Owner, arrival: Arrival) -> Result<Self, Denied> {
        let admission = match owner.reserve(arrival)? {
            Some(admission) => admission,
            None => owner.admit().inspect_err(|_| owner.signal_demand())?,
        };
        Ok(Self { circuit: R::of(owner), admission })
    }

    /// Records the outcome of the call.
    ///
    /// The [health](crate::Health) of the verdict decides:
    ///
    /// | verdict | effect |
    /// |---|---|
    /// | success, or healthy fault | a success |
    /// | unhealthy fault | a failure |
    /// | neutral fault from the server ([`Origin::Remote`]) | neither; a completed call for [`CancelledPolicy::IfNoneCompletes`](crate::CancelledPolicy::IfNoneCompletes) |
    /// | other neutral fault | neither |
    ///
    /// Every outcome frees the slot of a probe, or of a call in a slow start by successes.
    ///
    /// The duration that the slow-call limit applies to starts when the permit is acquired. To use
    /// another duration, call [`record_with_duration`](Self::record_with_duration).
    #[inline]
    pub fn record(self, verdict: Verdict) {
        self.record_by_ref(&verdict);
    }

    /// Records the outcome of the call, and how long the call took.
    ///
    /// It works like [`record`](Self::record), but the [slow-call
    /// limit](crate::BreakerConfigBuilder::slow_call_rate) applies to `duration`. Use it if the call
    /// began later than the permit was acquired, or ended before its outcome was known.
    pub fn record_with_duration(self, verdict: Verdict, duration: Duration) {
        self.record_measured(&verdict, CallDuration::of(duration));
    }

    /// Records a failed call by its error, and keeps it as the circuit's
    /// [last failure](crate::Status::last_failure).
    ///
    /// The error is classified by its chain of sources. `subject` says what the call was about: it
    /// becomes [`LastFailure::subject`]. Returns the fault, for example to decide about a retry.
    ///
    /// An error that is no failure, because its fault is not unhealthy, is recorded like any other
    /// outcome. The last failure then stays as it was.
    ///
    /// ```
    /// use std::io::{Error, ErrorKind};
    /// use tower_breaker::{BreakerConfig, Circuit};
    ///
    /// let circuit = Circuit::new(BreakerConfig::default());
    /// let permit = circuit.try_acquire()?;
    /// // ... the call, which fails:
    /// let error = Error::from(ErrorKind::ConnectionRefused);
    /// permit.fail(&error, "order 7");
    ///
    /// let last = circuit.status().last_failure.expect("a call has failed");
    /// assert_eq!((last.subject.as_str(), last.message.as_str()), ("order 7", "connection refused"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Costs
    ///
    /// A failure costs one lock more than with [`record`](Self::record), and the texts of the error
    /// and of the subject. The texts are made outside of the lock. A panic of their `Display` is
    /// caught.
    pub fn fail<E, K>(self, error: &E, subject: impl fmt::Display) -> Fault
    where
        E: AsError<K>,
    {
        let fault = classify_error(error.as_error());
        self.fail_as(fault, error, subject);
        fault
    }

    /// Records a failed call by a fault of your own, and keeps it as the circuit's last failure.
    ///
    /// It works like [`fail`](Self::fail), but does not classify the error. The text and the type
    /// of the error are kept.
    pub fn fail_as<E, K>(self, fault: Fault, error: &E, subject: impl fmt::Display)
    where
        E: AsError<K>,
    {
        let verdict = Verdict::Fault(fault);
        if let Some(fault) = failure_in(&verdict) {
            let cause = Cause::Error(error.as_error(), E::error_type());
            self.keep_failure(LastFailure::new(fault, &cause, &subject));
        }
        self.record_by_ref(&verdict);
    }

    /// Keeps a failure as the last one of the circuit.
    pub(crate) fn keep_failure(&self, failure: LastFailure) {
        self.circuit.core().keep_failure(self.admission, failure);
    }

    /// Records the outcome of the call without a copy of the verdict.
    ///
    /// A copy would stall the processor: it would read the verdict as a whole right after its parts
    /// were stored one by one.
    #[inline]
    pub(crate) fn record_by_ref(self, verdict: &Verdict) {
        self.finish(|core, admission| core.record(admission, verdict));
    }

    /// Records the outcome of a call whose answer arrived earlier, `duration` after its start.
    pub(crate) fn record_measured(self, verdict: &Verdict, duration: CallDuration) {
        self.finish(|core, admission| core.record_with_duration(admission, verdict, duration));
    }

    /// Records that the caller cancelled the call after the server had begun to answer.
    pub(crate) fn record_cancelled_after_answer(self) {
        self.finish(Core::record_cancelled_after_answer);
    }

    /// Marks the call as a retry of a call that failed.
    ///
    /// While the circuit is closed, the failure of a retry does not count: see
    /// [`count_failed_retries`](crate::BreakerConfigBuilder::count_failed_retries). The retries of
    /// `tower-jitter-retry` are marked already.
    pub fn retry(mut self) -> Self {
        self.circuit.core().mark_retry(&mut self.admission);
        self
    }

    /// Returns the permit unused, for a call that never began.
    ///
    /// Nothing is counted, with every [`CancelledPolicy`](crate::CancelledPolicy). The slot of a
    /// probe is free immediately. In a slow start of either kind, another call may begin instead.
    pub fn cancel(self) {
        self.finish(Core::cancel_admission);
    }

    /// Returns how long the call has taken until now, if the circuit needs the duration.
    pub(crate) fn duration(&self) -> CallDuration {
        self.circuit.core().duration(self.admission)
    }

    /// Consumes the permit without running its `Drop`.
    #[expect(
        clippy::inline_always,
        reason = "out of line, the verdict is copied through memory twice a call"
    )]
    #[inline(always)]
    fn finish(self, record: impl FnOnce(&Core<R::Store>, Admission)) {
        let mut this = ManuallyDrop::new(self);
        record(this.circuit.take().core(), this.admission);
    }

    /// Runs a part of the call. A panic of `run` is recorded as a failure and then propagates.
    #[inline]
    pub(crate) fn guard<T>(permit: &mut Option<Self>, run: impl FnOnce() -> T) -> T {
        /// Dropped only while a panic unwinds.
        struct OnPanic<'a, R: CircuitRef>(&'a mut Option<Permit<R>>);

        impl<R: CircuitRef> Drop for OnPanic<'_, R> {
            #[cold]
            #[inline(never)]
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
    /// Acquires a permit if the circuit is closed and not in a slow start. Otherwise, the error
    /// contains `circuit`.
    #[inline]
    pub(crate) fn acquire_if_closed(circuit: R) -> Result<Self, R> {
        match circuit.core().admit_closed() {
            Some(admission) => Ok(Self { circuit, admission }),
            None => Err(circuit),
        }
    }

    /// Returns whether the call is not counted.
    pub(crate) const fn is_uncounted(&self) -> bool {
        self.admission.is_uncounted()
    }

    /// Returns whether the call may still begin. Extends the lease of a probe.
    #[inline]
    pub(crate) fn renew(&self) -> bool {
        self.circuit.core().renew(self.admission)
    }

    /// Acquires a new permit in place of this one, whose call may not begin any more. Cancels the
    /// admission of this permit first.
    pub(crate) fn reacquire(self) -> Result<Self, (R, Denied)> {
        let mut this = ManuallyDrop::new(self);
        let circuit = this.circuit.take();
        circuit.core().cancel_admission(this.admission);
        Self::acquire(circuit)
    }

    /// Registers a task, which the next change of the circuit wakes.
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

    /// Returns whether the call may still begin. Extends the lease of a probe.
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
