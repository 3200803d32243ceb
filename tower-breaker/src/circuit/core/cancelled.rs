//! Records cancelled calls.

use std::time::Duration;

use tower_fault_classify::__internals::UploadGuard;

use super::{Admission, CallDuration, Core, Store, retry_mark, start_word};
use crate::circuit::hot_config::Limits;
use crate::circuit::locked::Locked;
use crate::circuit::state_word::StateWord;
use crate::circuit::window::Window;
use crate::machine::{CANCELLED, CANCELLED_AFTER_ANSWER, CancelledPolicy, CancelledRun, Reason};

impl<S: Store> Core<S> {
    /// Records a call that its caller cancelled before the server answered.
    #[cold]
    pub(crate) fn record_cancelled(&self, admission: Admission) {
        self.cancelled(admission, false);
    }

    /// Records a call that its caller cancelled after the server had begun to answer.
    #[cold]
    pub(crate) fn record_cancelled_after_answer(&self, admission: Admission) {
        self.cancelled(admission, true);
    }

    #[inline(never)]
    fn cancelled(&self, admission: Admission, answered: bool) {
        self.emit_cancelled(admission.stamp);
        self.count_cancelled(admission.without_slow_start_slot(), answered);
        self.release_slow_start_slot(admission, false);
    }

    /// Counts a cancelled call as [`CancelledPolicy`] says, and frees the slot of a probe.
    fn count_cancelled(&self, admission: Admission, answered: bool) {
        if admission.is_uncounted() {
            return;
        }
        // The caller cancelled the call during its upload. The server could not answer yet, so the
        // call is not counted.
        if UploadGuard::is_stalled_or_failed() {
            return self.release_slot(admission);
        }
        let limits = self.limits();
        let now = self.hot_config().now();
        match (limits.trip.cancelled, admission.ticket()) {
            (CancelledPolicy::Ignore, _) => self.release_slot(admission),
            (CancelledPolicy::Failure, _) => {
                self.record_slow_path(admission, &CANCELLED.into(), CallDuration::UntilNow);
            }
            (CancelledPolicy::FailureAfter(after), _) => {
                if self.elapsed(admission, now).is_some_and(|ran| Duration::from_nanos(ran) >= after) {
                    self.record_slow_path(admission, &CANCELLED.into(), CallDuration::UntilNow);
                } else {
                    self.release_slot(admission);
                }
            }
            (CancelledPolicy::IfNoneCompletes, _) if answered => {
                self.record_slow_path(admission, &CANCELLED_AFTER_ANSWER.into(), CallDuration::UntilNow);
            }
            (CancelledPolicy::IfNoneCompletes, Some(ticket)) => {
                let most = limits.trip.most_cancelled();
                self.update_probe(admission.stamp, now, |locked, at| {
                    let Locked { machine, limits, .. } = locked;
                    (machine.record_cancelled_probe(ticket, most, at, limits), None)
                });
            }
            (CancelledPolicy::IfNoneCompletes, None) => {
                self.record_cancelled_call(admission.stamp, &limits, now);
            }
        }
    }

    /// Returns the start of a wait for the inner service: the word of an admission that begins now.
    pub(crate) fn begin_wait(&self) -> u64 {
        start_word(self.hot_config().now()) | retry_mark(self.hot_config().flags())
    }

    /// Records that a caller cancelled a call that has waited for the inner service since
    /// [`begin_wait`](Self::begin_wait) returned `begin`.
    pub(crate) fn record_cancelled_wait(&self, begin: u64) {
        let word = self.state_word();
        if word.is_closed() {
            self.record_cancelled(Admission { stamp: word.stamp(), word: begin });
        }
    }

    /// Counts a cancelled call. Opens the circuit if no call completes.
    fn record_cancelled_call(&self, stamp: StateWord, limits: &Limits, now: u64) {
        if self.state_word().stamp() != stamp {
            return;
        }
        self.window().record_cancelled(&limits.span, now, stamp.epoch());
        let mut locked = self.locked();
        // The epoch does not end while the lock is held.
        let Some(before) = self.update_state_word(stamp, StateWord::with_cancelled) else { return };
        if !before.has_cancelled() {
            locked.cancelled = CancelledRun::default();
        }
        // Read under the lock, so that the times have the order of the calls.
        let now = self.hot_config().now();
        if locked.cancelled.record(&limits.trip, now) {
            self.trip_locked(locked, Reason::NoneCompletes, Some(&CANCELLED), now, None);
        }
    }
}
