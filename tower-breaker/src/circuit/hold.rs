//! How a permit holds its circuit.

use std::fmt;
use std::task::Waker;

use tower_fault_classify::Verdict;

use super::core::{Admission, CallDuration, Core, Denied};
use super::store::{Single, Store};
use super::wakers::{WakeOn, WakerKey};

/// What a permit needs of the circuit that it holds. Only this crate's handles are any use as one.
#[doc(hidden)]
pub trait Hold {
    /// Takes the circuit over; what is left is of no use, and costs nothing to forget.
    fn take(&mut self) -> Self;
    fn admit(&self) -> Result<Admission, Denied>;
    fn renew(&self, admission: Admission) -> bool;
    fn record(&self, admission: Admission, verdict: &Verdict);
    fn record_with_duration(&self, admission: Admission, verdict: &Verdict, duration: CallDuration);
    fn cancel(&self, admission: Admission);
    fn record_cancelled(&self, admission: Admission);
    fn record_cancelled_after_answer(&self, admission: Admission);
    fn duration(&self, admission: Admission) -> CallDuration;
    fn wait(&self, waker_key: &mut Option<WakerKey>, waker: &Waker);
    fn leave(&self, waker_key: WakerKey);
}

/// Holds a circuit of its own, which is never freed, so that nobody counts.
#[derive(Clone, Copy)]
pub struct Own(pub(super) &'static Core);

/// Reaches a circuit, wherever its parts stand.
pub(crate) trait Reach {
    type Store: Store;

    fn core(&self) -> &Core<Self::Store>;

    /// See [`Hold::take`].
    fn take(&mut self) -> Self;
}

impl Reach for Own {
    type Store = Single;

    #[inline]
    fn core(&self) -> &Core {
        self.0
    }

    #[inline]
    fn take(&mut self) -> Self {
        *self
    }
}

impl<R: Reach> Hold for R {
    #[inline]
    fn take(&mut self) -> Self {
        Reach::take(self)
    }

    #[inline]
    fn admit(&self) -> Result<Admission, Denied> {
        self.core().admit()
    }

    #[inline]
    fn renew(&self, admission: Admission) -> bool {
        self.core().renew(admission)
    }

    #[inline]
    fn record(&self, admission: Admission, verdict: &Verdict) {
        self.core().record(admission, verdict);
    }

    #[inline]
    fn record_with_duration(&self, admission: Admission, verdict: &Verdict, duration: CallDuration) {
        self.core().record_with_duration(admission, verdict, duration);
    }

    #[inline]
    fn cancel(&self, admission: Admission) {
        self.core().cancel(admission);
    }

    #[inline]
    fn record_cancelled(&self, admission: Admission) {
        self.core().record_cancelled(admission);
    }

    fn record_cancelled_after_answer(&self, admission: Admission) {
        self.core().record_cancelled_after_answer(admission);
    }

    #[inline]
    fn duration(&self, admission: Admission) -> CallDuration {
        self.core().duration(admission)
    }

    #[inline]
    fn wait(&self, waker_key: &mut Option<WakerKey>, waker: &Waker) {
        self.core().wait(waker_key, waker, WakeOn::Change);
    }

    #[inline]
    fn leave(&self, waker_key: WakerKey) {
        self.core().leave(waker_key);
    }
}

impl fmt::Debug for Own {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Own")
    }
}
