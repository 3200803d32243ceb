//! Transitions: the new state is published under the lock; tasks, metrics and observers are
//! notified after the lock is released.

use std::sync::Arc;
use std::task::Waker;

use tower_fault_classify::__internals::sync::Ordering;
use tower_fault_classify::__internals::system_time;
use tower_fault_classify::Fault;

use super::{Core, Store, next_epoch};
use crate::circuit::hot_config::Flags;
use crate::circuit::locked::Locked;
use crate::circuit::state_word::{LAST_EPOCH, StateWord};
use crate::circuit::window::Window;
use crate::machine::{Change, CircuitState, Reason, Sample, State};
use crate::telemetry::{LastFailure, Observers, Transition, log_transition};

impl<S: Store> Core<S> {
    /// Publishes the state of a new epoch, or another deadline in the current epoch of a circuit
    /// that is not closed. The caller holds the lock.
    pub(in crate::circuit) fn publish(&self, state: State, epoch: u32) {
        // Relaxed: the Release exchange below publishes the deadline.
        match state {
            State::OpenUntil { until, .. } => self.store.deadline().store(until, Ordering::Relaxed),
            State::BypassedUntil(until) => self.store.bypass_deadline().store(until, Ordering::Relaxed),
            _ => {}
        }
        let word = StateWord::of(state, epoch);
        // Release, with the Acquire of `state_word`: a thread that reads this epoch sees what was
        // done before the epoch began. Nothing depends on the Acquire.
        //
        // An exchange rather than a store: it continues the release sequences of earlier exchanges.
        // So a thread that reads this word also sees what those exchanges published.
        self.store.state_word().swap(word.word(), Ordering::AcqRel);
    }

    /// Begins a new epoch for the state to which the machine has just changed.
    pub(in crate::circuit) fn apply(
        &self,
        locked: &mut Locked,
        change: Change,
        fault: Option<Fault>,
        sample: Option<Sample>,
        now: u64,
    ) -> PendingNotification {
        let closed =
            (change.from == CircuitState::Closed).then(|| self.last_sample(sample, locked.epoch, now));
        let consecutive_failures = closed.map_or(0, |closed| closed.consecutive_failures);
        let counts = closed.and_then(|closed| closed.window);
        if closed.is_some() {
            // Kept until the circuit closes again.
            locked.consecutive_failures = consecutive_failures;
        }
        self.keep_last_times(locked, change.from, now);
        locked.epoch = next_epoch(locked.epoch);
        self.publish(locked.machine.published_state(), locked.epoch);
        let Change { from, to, reason } = change;
        let half_open = locked.machine.take_ended_round(now, &locked.limits);
        let epoch = locked.epoch.wrapping_sub(locked.first_epoch) & LAST_EPOCH;
        let (circuit, at) = (locked.name, system_time());
        let transition = Transition {
            circuit,
            key: None,
            from,
            to,
            reason,
            fault,
            counts,
            consecutive_failures,
            half_open,
            at,
            epoch,
        };
        locked.since = now;
        locked.rejections_at_transition = self.store.rejections();
        let cleared = if reason == Reason::Reset { locked.clear_last_calls() } else { None };
        let last = Arc::new(transition.clone());
        if to == CircuitState::Open {
            locked.jitter.advance();
            locked.last_trip = Some(Arc::clone(&last));
        }
        locked.last_transition = Some(last);
        let (wakers, observers) = (locked.wakers.drain(), locked.observers.clone());
        let flags = self.hot_config().flags();
        PendingNotification { wakers, observers, flags, transition, _cleared: cleared }
    }

    /// Ends a manual override whose time is over. The caller holds the lock, and sends the
    /// notification once it has released the lock.
    pub(in crate::circuit) fn end_override(
        &self,
        locked: &mut Locked,
        now: u64,
    ) -> Option<PendingNotification> {
        let Locked { machine, limits, .. } = locked;
        let change = machine.end_override(now, limits)?;
        Some(self.apply(locked, change, None, None, now))
    }

    /// Returns what a closed circuit has counted in the epoch that ends now.
    ///
    /// `sample` has the counts that led to the transition. `None`: the limits of failures and slow
    /// calls did not lead to it. The caller holds the lock.
    fn last_sample(&self, sample: Option<Sample>, epoch: u32, now: u64) -> Sample {
        let sample = sample.unwrap_or(Sample { consecutive_failures: 0, failing_for: 0, window: None });
        let window = sample.window.unwrap_or_else(|| self.window().counts_at(&self.span(), now, epoch));
        // A success that was recorded concurrently may have reset the consecutive failures since
        // the sample was taken.
        let consecutive_failures = sample.consecutive_failures.max(self.state_word().consecutive_failures());
        Sample { consecutive_failures, window: Some(window), ..sample }
    }

    /// Notifies tasks, metrics, logs and observers of a transition. The caller does not hold the
    /// lock.
    pub(crate) fn notify(&self, pending: Option<PendingNotification>) {
        let Some(PendingNotification { wakers, observers, flags, transition, .. }) = pending else {
            return;
        };
        wake(wakers);
        if let Some(instruments) = self.store().instruments(flags) {
            instruments.transition(&transition);
        }
        let transition = Transition { key: self.store().key(), ..transition };
        log_transition(&transition);
        if let Some(observers) = observers {
            observers.notify(&transition);
        }
        self.store().notify_listeners(&transition);
    }
}

/// Wakes tasks, outside every lock.
pub(in crate::circuit) fn wake(wakers: Vec<Waker>) {
    wakers.into_iter().for_each(Waker::wake);
}

/// A transition whose notifications are sent once the lock is released.
#[must_use]
pub(crate) struct PendingNotification {
    wakers: Vec<Waker>,
    observers: Option<Arc<Observers>>,
    /// The flags at the transition, for the instruments.
    flags: Flags,
    transition: Transition,
    /// The last failure before a reset, to be dropped once the lock is released.
    _cleared: Option<Arc<LastFailure>>,
}
