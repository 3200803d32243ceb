//! Records all outcomes but fast successes and cancelled calls: failures, slow calls, neutral
//! answers and probes.
//!
//! The numbers ①, ② and ③ are the steps that `core/mod.rs` describes.

use std::sync::Arc;
use std::time::Duration;

use tower_fault_classify::__internals::sync::MutexGuard;
use tower_fault_classify::{Fault, Verdict};

use super::command::PendingSignal;
use super::transition::wake;
use super::{Admission, CallDuration, Core, Store, nanos};
use crate::circuit::hot_config::{HotConfig, TripThresholds};
use crate::circuit::locked::Locked;
use crate::circuit::state_word::StateWord;
use crate::circuit::window::{Due, Recorded, Window, WindowSpan};
use crate::machine::{
    Change, Machine, Moment, Outcome, Reason, Sample, State, Ticket, TripLimits, failures_until_rate,
    may_reach_slow_rate, min_failures_for_rate, trip_reason,
};
use crate::telemetry::{LastFailure, is_recording};

/// The decision on a failed or slow call.
struct Evaluation {
    /// Why the circuit opens. `None`: it does not open.
    reason: Option<Reason>,
    sample: Sample,
    /// The failures in the window.
    failed: u64,
}

impl<S: Store> Core<S> {
    /// Records the outcome of a call whose answer arrived earlier, `duration` after its start.
    pub(crate) fn record_with_duration(
        &self,
        admission: Admission,
        verdict: &Verdict,
        duration: CallDuration,
    ) {
        if is_recording() {
            self.emit_outcome(admission, verdict);
        }
        self.record_slow_path(admission, verdict, duration);
    }

    /// Keeps the failure of a call as the last one, unless the circuit was reset, or has ended,
    /// since the call began.
    pub(crate) fn keep_failure(&self, admission: Admission, failure: LastFailure) {
        let failure = Arc::new(failure);
        let mut locked = self.locked();
        if locked.keeps_failure_of(admission.stamp.epoch()) {
            let before = locked.last_failure.replace(failure);
            drop(locked);
            drop(before);
        }
    }

    /// Returns how long a call has taken until now, if a limit needs the duration.
    pub(crate) fn duration(&self, admission: Admission) -> CallDuration {
        if !self.hot_config().flags().is_timed() {
            return CallDuration::UntilNow;
        }
        CallDuration::Measured(self.elapsed(admission, self.hot_config().now()))
    }

    #[inline(never)]
    pub(super) fn record_slow_path(&self, admission: Admission, verdict: &Verdict, duration: CallDuration) {
        // The usual case first. A call that is not counted is in none of these cases.
        if admission.stamp.is_closed() {
            self.record_of_closed_circuit(admission, Outcome::of(verdict), duration);
        } else if admission.stamp.has_slow_start_slot() {
            self.record_with_slow_start_slot(admission, verdict, duration);
        } else if let Some(ticket) = admission.ticket() {
            self.record_probe(admission.stamp, Some(ticket), Outcome::of(verdict), duration);
        }
    }

    /// Records the outcome of a call that was admitted by a closed circuit and holds no slot.
    #[inline]
    fn record_of_closed_circuit(&self, admission: Admission, outcome: Outcome<'_>, duration: CallDuration) {
        match outcome {
            Outcome::Success | Outcome::Slow if !admission.is_timed() => self.record_success(admission.stamp),
            Outcome::Success | Outcome::Slow => self.record_timed_success(admission, duration),
            Outcome::Failure(_) if admission.is_retry() => self.record_answered(admission.stamp),
            Outcome::Failure(fault) if !admission.is_timed() => self.record_failure(admission.stamp, fault),
            Outcome::Failure(fault) => self.record_timed_failure(admission, fault, duration),
            Outcome::Answered => self.record_answered(admission.stamp),
            Outcome::Neutral => {}
        }
    }

    /// Records the outcome of a call with a slot of a slow start, and then releases the slot.
    ///
    /// In this order, so that no call takes the slot of a failure that opens the circuit.
    #[cold]
    fn record_with_slow_start_slot(&self, admission: Admission, verdict: &Verdict, duration: CallDuration) {
        let duration = duration.or(|| admission.duration(self.hot_config().now()));
        let success =
            matches!(Outcome::of(verdict), Outcome::Success) && !self.limits().trip.is_slow(duration);
        let measured = CallDuration::Measured(duration);
        self.record_slow_path(admission.without_slow_start_slot(), verdict, measured);
        self.release_slow_start_slot(admission, success);
    }

    /// Releases the slot of a slow start, if the call holds one. `success` raises the limit of the
    /// slow start.
    pub(super) fn release_slow_start_slot(&self, admission: Admission, success: bool) {
        let Some(from) = admission.slow_start_slot() else { return };
        let word = self.state_word();
        // Otherwise, the slow start is over, and the call has no slot to release.
        if word.epoch() == admission.stamp.epoch() && !word.admits_all() {
            self.release_admission(admission, |machine| machine.release_slow_start_slot(from, success));
        }
    }

    /// Cancels the admission of a call that has not begun. Frees the slot of a probe or of a slow
    /// start, and refunds the credit of a call in a slow start by time.
    #[inline(never)]
    pub(crate) fn cancel_admission(&self, admission: Admission) {
        let word = self.state_word();
        if admission.stamp.is_closed() && word.stamp() == admission.stamp && !word.admits_all() {
            let now = self.hot_config().now();
            self.release_admission(admission, |machine| machine.refund_slow_start(now));
        }
        self.release_slot(admission);
    }

    /// Frees the slot of a probe or of a slow start.
    pub(super) fn release_slot(&self, admission: Admission) {
        if let Some(ticket) = admission.ticket() {
            let now = self.hot_config().now();
            self.release_admission(admission, |machine| machine.release_probe(ticket, now));
        }
        self.release_slow_start_slot(admission, false);
    }

    fn release_admission(&self, admission: Admission, release: impl FnOnce(&mut Machine)) {
        let mut locked = self.locked();
        if locked.epoch == admission.stamp.epoch() {
            release(&mut locked.machine);
            let wakers = if locked.machine.published_state() == (State::Closed { slow_start: false }) {
                self.end_slow_start();
                // No slot is released any more, so that each task must be woken now.
                locked.wakers.drain()
            } else {
                locked.wakers.take_for_free_slot()
            };
            let signal = PendingSignal::of_probe(&mut locked);
            drop(locked);
            wake(wakers);
            self.send(signal);
        }
    }

    /// Returns how long a call has run at least. `None`: its start is not known.
    pub(super) fn elapsed(&self, admission: Admission, now: u64) -> Option<u64> {
        match admission.ticket() {
            Some(ticket) => {
                let locked = self.locked();
                locked.machine.probe_duration(ticket, now, &locked.limits)
            }
            None => admission.duration(now),
        }
    }

    /// Records a success through a closed circuit whose limits may need the call's duration.
    ///
    /// This is the usual path of a circuit with a limit for slow calls. It reads only the limits
    /// that a fast call needs.
    #[inline(never)]
    pub(super) fn record_fast_success(&self, admission: Admission) {
        let now = self.hot_config().now();
        let (span, slow_threshold) = self.store().read_config(HotConfig::slow_threshold);
        if admission.duration(now).is_none_or(|duration| duration < slow_threshold) {
            if self.count_success(admission.stamp) {
                self.window().record_success(&span, now, admission.stamp.epoch());
            }
        } else {
            self.record_timed_success(admission, CallDuration::UntilNow);
        }
    }

    #[inline(never)]
    fn record_timed_success(&self, admission: Admission, duration: CallDuration) {
        let stamp = admission.stamp;
        let now = self.hot_config().now();
        let limits = self.limits();
        let slow = limits.trip.is_slow(duration.or(|| admission.duration(now)));
        self.emit_slow(stamp, slow);
        if !slow {
            self.record_success(stamp);
        } else if self.state_word().stamp() == stamp {
            let seen = self.window().record_slow_success(&limits.span, now, stamp.epoch()); // ①
            // ② This exchange also resets the failures.
            if self.reset_failures(stamp) {
                let sample = Sample { consecutive_failures: 0, failing_for: 0, window: None };
                let evaluation = self.evaluate(&limits.trip, sample, &mut Some(seen)); // ③
                let Evaluation { reason, sample, .. } = evaluation;
                if let Some(reason) = reason {
                    self.trip(stamp.epoch(), reason, None, now, sample);
                }
            }
        }
    }

    /// Records a failure through a closed circuit. No limit needs the duration of the call.
    ///
    /// Its arguments are passed in registers.
    #[inline(never)]
    pub(super) fn record_failure(&self, stamp: StateWord, fault: &Fault) {
        if self.state_word().stamp() != stamp {
            return;
        }
        let now = self.hot_config().now();
        let thresholds = self.store().read_config(HotConfig::trip_thresholds);
        let window = self.window();
        if !window.is_time_window(&thresholds.span) {
            return self.record_failure_in_count_window(stamp, fault, thresholds, now);
        }
        // If the epoch is over, a call of a later epoch was recorded. This thread has loaded the
        // call's bucket with Acquire, so ② would find the later epoch and change nothing.
        let recorded = window.record_failure_in_bucket(&thresholds.span, now, stamp.epoch()); // ①
        let Some(tag) = recorded else { return };
        self.evaluate_recorded(stamp, fault, thresholds, now, Recorded::Bucket(tag), |number| {
            window.due().map_or_else(
                || window.failures(tag) >= thresholds.failures,
                |due| !due.load().covers(tag, number),
            )
        });
    }

    #[inline(never)]
    fn record_failure_in_count_window(
        &self,
        stamp: StateWord,
        fault: &Fault,
        thresholds: TripThresholds,
        now: u64,
    ) {
        let seen = self.window().record_failure(&thresholds.span, now, stamp.epoch(), false); // ①
        self.evaluate_recorded(stamp, fault, thresholds, now, seen, |_| {
            self.window().failures_in(seen) >= thresholds.failures
        });
    }

    /// Counts a failure that was recorded in the place `seen` of the window. Opens the circuit if
    /// the failure reaches a limit.
    ///
    /// `may_reach_rate` returns whether the failure with a number may reach the failure rate.
    #[inline]
    fn evaluate_recorded(
        &self,
        stamp: StateWord,
        fault: &Fault,
        thresholds: TripThresholds,
        now: u64,
        seen: Recorded,
        may_reach_rate: impl FnOnce(u64) -> bool,
    ) {
        let counted = self.count_failure(stamp, thresholds.consecutive_failures_span, now); // ②
        let Some((sample, number)) = counted else { return };
        self.store_failure_time(stamp, now);
        if thresholds.may_open_after(&sample) || may_reach_rate(number) {
            self.evaluate_failure(stamp, thresholds.span, sample, number, seen, fault, now); // ③
        }
        self.emit_failure(stamp, fault, sample.consecutive_failures);
    }

    /// ③ Opens the circuit if the failure reaches a limit. Otherwise, stores how many more failures
    /// the failure rate allows: see [`Due`](crate::circuit::window::Due).
    ///
    /// `failures` is the sample without the window. The failure was recorded in the place `seen` of
    /// a window with this span.
    #[inline(never)]
    #[expect(clippy::too_many_arguments, reason = "the state of one call, with one caller in each case")]
    fn evaluate_failure(
        &self,
        stamp: StateWord,
        span: WindowSpan,
        failures: Sample,
        number: u64,
        seen: Recorded,
        fault: &Fault,
        now: u64,
    ) {
        // In this order: see `Due::load`.
        let promise = self.window().due().map(|due| (due, due.load()));
        let limits = self.limits();
        // If the configured window has changed since the failure was recorded, the new window
        // starts empty, without this failure.
        let mut seen = (limits.span == span).then_some(seen);
        let Evaluation { reason, sample, failed } = self.evaluate(&limits.trip, failures, &mut seen);
        if let Some(reason) = reason {
            return self.trip(stamp.epoch(), reason, Some(fault), now, sample);
        }
        let (Some((due, promise)), Some(Recorded::Bucket(tag))) = (promise, seen) else { return };
        if limits.trip.slow.is_none() && self.window().newest().other_than(tag).is_none() {
            // Without a sum, there are at least as many calls as failures.
            let (failed, calls) = sample.window.map_or((failed, failed), |sum| (sum.failures, sum.calls));
            due.replace(promise, tag, number, failures_until_rate(&limits.trip, failed, calls, Due::MOST));
        }
    }

    #[inline(never)]
    fn record_timed_failure(&self, admission: Admission, fault: &Fault, duration: CallDuration) {
        let stamp = admission.stamp;
        if self.state_word().stamp() != stamp {
            return;
        }
        let now = self.hot_config().now();
        let limits = self.limits();
        let slow = limits.trip.is_slow(duration.or(|| admission.duration(now)));
        self.emit_slow(stamp, slow);
        let seen = self.window().record_failure(&limits.span, now, stamp.epoch(), slow); // ①
        let counted = self.count_failure(stamp, limits.trip.consecutive_failures_span, now); // ②
        if let Some((sample, number)) = counted {
            self.store_failure_time(stamp, now);
            self.evaluate_failure(stamp, limits.span, sample, number, seen, fault, now); // ③
            self.emit_failure(stamp, fault, sample.consecutive_failures);
        }
    }

    /// Decides whether the circuit opens after a failed or slow call.
    ///
    /// `failures` is the sample without the window. `seen` is the place in which the call was
    /// recorded, and changes to the last bucket of the sum. `None`: the window has been replaced.
    fn evaluate(&self, trip: &TripLimits, failures: Sample, seen: &mut Option<Recorded>) -> Evaluation {
        let window = self.window();
        loop {
            let failed = seen.map_or(0, |seen| window.failures_in(seen));
            let may_reach = |seen: &Recorded| {
                failed >= min_failures_for_rate(trip)
                    || (trip.slow.is_some() && may_reach_slow_rate(trip, window.slow_in(*seen)))
            };
            let counts = seen.filter(may_reach).map(|seen| window.counts(seen));
            let sample = Sample { window: counts, ..failures };
            let reason = trip_reason(trip, &sample);
            match reason.and(counts).and(*seen).and_then(|seen| self.newer_bucket(seen)) {
                None => return Evaluation { reason, sample, failed },
                later => *seen = later,
            }
        }
    }

    /// Returns the newest bucket, if it is newer than the last bucket of the sum.
    ///
    /// When a bucket ends, the counts of the next bucket replace those of the oldest one. A
    /// concurrent sum may then contain the oldest failures or slow calls without the oldest
    /// successes, so the window must be summed again.
    fn newer_bucket(&self, seen: Recorded) -> Option<Recorded> {
        let Recorded::Bucket(summed) = seen else { return None };
        self.window().newest().other_than(summed).map(Recorded::Bucket)
    }

    /// Records a call with a neutral answer: a completed call that counts in no rate.
    fn record_answered(&self, stamp: StateWord) {
        if self.state_word().has_cancelled() {
            self.update_state_word(stamp, StateWord::with_answer);
        }
    }

    #[cold]
    fn trip(&self, epoch: u32, reason: Reason, fault: Option<&Fault>, now: u64, sample: Sample) {
        let locked = self.locked();
        if locked.epoch == epoch {
            if fault.is_some() {
                // Again: the first lock of a keyed circuit has made a place for it.
                self.store_failure_time(StateWord::closed(epoch), now);
            }
            self.trip_locked(locked, reason, fault, now, Some(sample));
        }
    }

    /// Opens the circuit, and releases its lock.
    pub(super) fn trip_locked(
        &self,
        mut locked: MutexGuard<'_, Locked>,
        reason: Reason,
        fault: Option<&Fault>,
        now: u64,
        sample: Option<Sample>,
    ) {
        let at = locked.moment(now);
        let Locked { machine, limits, .. } = &mut *locked;
        let change = machine.trip(reason, fault, at, limits);
        let pending = change.map(|change| self.apply(&mut locked, change, fault.copied(), sample, now));
        drop(locked);
        self.notify(pending);
    }

    /// Records the outcome of a probe. `ticket` is `None` for a call that holds no slot.
    #[inline(never)]
    fn record_probe(
        &self,
        stamp: StateWord,
        ticket: Option<Ticket>,
        outcome: Outcome<'_>,
        duration: CallDuration,
    ) {
        let now = self.hot_config().now();
        let limits = self.limits().trip;
        let (mut slow, mut failed) = (false, None);
        self.update_probe(stamp, now, |locked, at| {
            let Locked { machine, limits: recovery, last_success, consecutive_failures, .. } = locked;
            let until_now = || machine.probe_duration(ticket?, now, recovery);
            let outcome = match outcome {
                Outcome::Success if limits.is_slow(duration.or(until_now)) => {
                    slow = true;
                    Outcome::Slow
                }
                outcome => outcome,
            };
            match outcome {
                Outcome::Failure(fault) => {
                    *consecutive_failures += 1;
                    failed = Some((*fault, *consecutive_failures));
                    self.store_failure_time(stamp, now);
                }
                Outcome::Success | Outcome::Slow => {
                    *consecutive_failures = 0;
                    *last_success = Some(now);
                }
                Outcome::Answered | Outcome::Neutral => {}
            }
            let change = match ticket {
                Some(ticket) => machine.record_probe(ticket, outcome, at, recovery),
                None => machine.record_unadmitted(outcome, at, recovery),
            };
            (change, failed.map(|(fault, _)| fault))
        });
        if let Some((fault, consecutive_failures)) = failed {
            self.emit_failure(stamp, &fault, consecutive_failures);
        }
        self.emit_slow(stamp, slow);
    }

    /// Records the outcome of a call that the circuit did not admit. `duration` is how long the
    /// call took, if that is known.
    pub(crate) fn record_unadmitted(&self, verdict: &Verdict, duration: Option<Duration>) {
        let duration = duration.map(nanos);
        let measured = CallDuration::Measured(duration);
        if !self.state_word().is_closed() {
            let Some(stamp) = self.stamp_of_unadmitted(duration) else { return };
            if stamp.is_half_open() {
                if is_recording() {
                    self.emit_outcome(Admission { stamp, word: 0 }, verdict);
                }
                return self.record_probe(stamp, None, Outcome::of(verdict), measured);
            }
        }
        // `None`: the circuit has opened concurrently, and ignores the outcome.
        if let Some(admission) = self.admit_if_closed() {
            self.record_with_duration(admission, verdict, measured);
        }
    }

    /// Returns the stamp for the outcome of a call that was not admitted by a circuit that is not
    /// closed. Ends a manual override or an open time that is over, as an arriving call does.
    ///
    /// `None`: the circuit ignores the outcome.
    #[cold]
    fn stamp_of_unadmitted(&self, duration: Option<u64>) -> Option<StateWord> {
        let now = self.hot_config().now();
        let word = self.state_word();
        if word.is_bypassed() || self.is_bypassed_at(word, now) || self.open_for(word, now).is_some() {
            return None;
        }
        let slack = nanos(self.clock().resolution());
        let began = duration.map(|duration| now.saturating_sub(duration).saturating_add(slack));
        let mut locked = self.locked();
        let ended = self.end_override(&mut locked, now);
        let is_stale = began.is_some_and(|began| began < locked.since);
        let is_led = locked.machine.is_led(now);
        let mut half_opened = None;
        if !is_stale {
            let Locked { machine, limits, .. } = &mut *locked;
            let change = machine.half_open_if_due(now, limits);
            half_opened = change.map(|change| self.apply(&mut locked, change, None, None, now));
        }
        let stamp = StateWord::of(locked.machine.published_state(), locked.epoch);
        drop(locked);
        self.notify(ended);
        self.notify(half_opened);
        (stamp.is_closed() || (stamp.is_half_open() && !is_stale && !is_led)).then_some(stamp)
    }

    /// Applies the outcome of a probe of this epoch to the machine.
    pub(super) fn update_probe(
        &self,
        stamp: StateWord,
        now: u64,
        update: impl FnOnce(&mut Locked, Moment) -> (Option<Change>, Option<Fault>),
    ) {
        let mut locked = self.locked();
        if locked.epoch != stamp.epoch() {
            return;
        }
        let at = locked.moment(now);
        let (change, fault) = update(&mut locked, at);
        let pending = change.map(|change| self.apply(&mut locked, change, fault, None, now));
        let wakers = locked.wakers.take_for_free_slot();
        let signal = PendingSignal::of_probe(&mut locked);
        drop(locked);
        wake(wakers);
        self.notify(pending);
        self.send(signal);
    }
}
