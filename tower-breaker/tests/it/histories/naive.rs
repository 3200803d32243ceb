//! A naive model of a circuit. It keeps every event in a list, and counts the whole list each time.

use tower_breaker::{CancelledPolicy, CircuitState, HealthReport, Mode};

use super::{End, Limits, SLOW, SLOW_START, SlowStart, Step, millis};

/// The longest `retry_after` of a half-open circuit or in a slow start, in milliseconds.
const SOON: u64 = 1_000;

/// An admitted call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    /// The epoch in which it began.
    pub(crate) epoch: u64,
    pub(crate) kind: CallKind,
    pub(crate) began: Option<u64>,
    /// Whether its failure does not count while the circuit is closed.
    is_retry: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum CallKind {
    Normal,
    /// A call with a slot of a slow start, and the number of its lease.
    WithSlot(u64),
    Probe(u64),
    Uncounted,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Lease {
    /// The number of the lease, which its call also has.
    number: u64,
    until: u64,
}

#[derive(Clone, Debug)]
pub(crate) enum State {
    Closed(Closed),
    Open(Option<u64>),
    HalfOpen {
        slots: Vec<Option<Lease>>,
        successes: u32,
        cancelled: u32,
    },
    /// Until this time. `None`: until it is released.
    ForcedOpen(Option<u64>),
    ForcedClosed(Option<u64>),
    Disabled,
}

/// The slow start of a closed circuit.
#[derive(Clone, Debug)]
pub(crate) enum Closed {
    AdmitsAll,
    /// The start of the slow start, and its credit in sixteenths of a call.
    ByTime(u64, u64),
    BySuccesses {
        slots: Vec<Lease>,
        successes: u32,
        successes_to_end: u32,
        lease: u64,
        last_admission: u64,
    },
}

/// How a call of the current epoch ended.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Ended {
    /// Completed, and counted in the rates.
    Counted {
        failed: bool,
        slow: bool,
    },
    Cancelled,
}

impl Ended {
    fn is_counted(self) -> bool {
        matches!(self, Self::Counted { .. })
    }
}

/// What the last transition has ended.
#[derive(Clone, Debug, Default)]
pub(crate) struct EndedState {
    /// The window of a closed circuit.
    pub(crate) counts: Option<[u64; 4]>,
    pub(crate) consecutive_failures: u64,
    /// The progress of a half-open circuit.
    pub(crate) half_open: Option<[u32; 5]>,
}

pub(crate) struct Naive {
    pub(crate) limits: Limits,
    state: State,
    /// The time at which the circuit became open or half-open.
    since: u64,
    pub(crate) epoch: u64,
    pub(crate) ended: EndedState,
    /// The rejected calls in all, and since the last transition.
    pub(crate) rejected: [u64; 2],
    /// The failures since the last success.
    pub(crate) consecutive_failures: u64,
    /// The time of the first of these failures.
    first_failure: u64,
    /// The number of calls cancelled since the last completed call, and the time of the first one.
    cancelled: (u32, u64),
    events: Vec<(u64, Ended)>,
    /// The time of the current step.
    now: u64,
    /// The time of the last success before the window began.
    success_before: Option<u64>,
    window_since: u64,
    pub(crate) last_failure: Option<u64>,
    leases: u64,
    /// The number of open periods in a row, the length of the last one, and the time at which the
    /// circuit closed after it.
    streak: (i32, u64, Option<u64>),
}

impl Naive {
    pub(crate) fn new(limits: Limits, now: u64) -> Self {
        let state =
            if limits.mode == Mode::Disabled { State::Disabled } else { State::Closed(Closed::AdmitsAll) };
        Self {
            limits,
            state,
            since: 0,
            epoch: 0,
            ended: EndedState::default(),
            rejected: [0; 2],
            consecutive_failures: 0,
            first_failure: 0,
            cancelled: (0, 0),
            events: Vec::new(),
            now,
            success_before: None,
            window_since: now,
            last_failure: None,
            leases: 0,
            streak: (0, 0, None),
        }
    }

    /// Returns the time of the last success that the circuit knows.
    pub(crate) fn last_success(&self, now: u64) -> Option<u64> {
        if self.name() != CircuitState::Closed {
            return self.success_before;
        }
        let latest = self.latest(now);
        let inside = |at: u64| self.limits.calls.is_some() || latest / 1_000 - at / 1_000 < 16;
        let success = |ended| matches!(ended, Ended::Counted { failed: false, .. });
        let last = self.events.iter().rev().find(|(at, ended)| inside(*at) && success(*ended));
        let covers_all = self.limits.calls.is_some() || now.saturating_sub(self.window_since) <= 15_000;
        let before = self.success_before.filter(|_| covers_all);
        last.map(|(at, _)| (*at).max(self.window_since)).or(before)
    }

    fn begin_window(&mut self) {
        self.success_before = self.last_success(self.now);
        self.window_since = self.now;
        self.events.clear();
    }

    fn become_state(&mut self, state: State, now: u64) {
        let is_closed = matches!(self.state, State::Closed(_));
        self.ended = EndedState {
            counts: is_closed.then(|| self.counts(now)),
            consecutive_failures: if is_closed { self.consecutive_failures } else { 0 },
            half_open: self.half_open_progress(now),
        };
        self.rejected[1] = 0;
        self.begin_window();
        self.state = state;
        self.epoch += 1;
        if matches!(self.state, State::Closed(_)) {
            self.consecutive_failures = 0;
        }
        self.cancelled.0 = 0;
    }

    fn close_manually(&mut self, now: u64) {
        self.streak = (0, 0, None);
        self.become_state(State::Closed(Closed::AdmitsAll), now);
    }

    /// Returns what `progress` returns for the circuit.
    pub(crate) fn half_open_progress(&self, now: u64) -> Option<[u32; 5]> {
        let State::HalfOpen { slots, successes, cancelled } = &self.state else { return None };
        let running = slots.iter().flatten().filter(|lease| lease.until > now).count();
        Some([running as u32, slots.len() as u32, *successes, self.limits.successes, *cancelled])
    }

    fn open(&mut self, now: u64) {
        let (before, last, closed_at) = self.streak;
        let streak_is_over = closed_at.is_some_and(|at| now.saturating_sub(at) >= last);
        let before = if streak_is_over { 0 } else { before };
        let (factor, cap) = self.limits.growth.unwrap_or((1.0, self.limits.open_for));
        #[expect(clippy::cast_sign_loss, reason = "it is not negative")]
        let grown = (self.limits.open_for as f64 * f64::powi(factor, before)) as u64;
        let period = grown.min(cap);
        self.streak = (before + 1, period, None);
        self.become_state(State::Open((!self.limits.until_reset).then(|| now + period)), now);
        self.since = now;
    }

    fn half_open(&mut self, now: u64) {
        self.since = now;
        let slots = vec![None; self.limits.probes as usize];
        self.become_state(State::HalfOpen { slots, successes: 0, cancelled: 0 }, now);
    }

    /// Ends a manual override.
    fn release(&mut self, now: u64) {
        match self.state {
            State::ForcedOpen(_) | State::ForcedClosed(_) if self.limits.mode == Mode::Disabled => {
                self.become_state(State::Disabled, now);
            }
            State::ForcedOpen(_) => self.half_open(now),
            State::ForcedClosed(_) => self.close_manually(now),
            _ => {}
        }
    }

    /// Ends a manual override whose time is over.
    fn end_override(&mut self, now: u64) {
        if let State::ForcedOpen(Some(until)) | State::ForcedClosed(Some(until)) = self.state
            && now >= until
        {
            self.release(now);
        }
    }

    /// Returns the remaining time in the open states, and that of a manual override.
    pub(crate) fn remaining(&self, now: u64) -> [Option<u64>; 2] {
        let left = |until: Option<u64>| until.map(|until| until.saturating_sub(now));
        match self.state {
            State::Open(until) => [left(until), None],
            State::ForcedOpen(until) => [left(until); 2],
            State::ForcedClosed(until) => [None, left(until)],
            _ => [None, None],
        }
    }

    /// Returns the call, or the `retry_after` of its rejection.
    pub(crate) fn admit(&mut self, is_retry: bool, now: u64) -> Result<Call, Option<u64>> {
        self.now = now;
        self.end_override(now);
        if let State::Open(Some(until)) = self.state
            && now >= until
        {
            self.half_open(now);
        }
        let mut began = now;
        let kind = match &mut self.state {
            State::ForcedOpen(None) | State::Open(None) => Err(None),
            State::ForcedOpen(Some(until)) | State::Open(Some(until)) => Err(Some(*until - now)),
            State::ForcedClosed(_) | State::Disabled => Ok(CallKind::Uncounted),
            State::Closed(Closed::AdmitsAll) => Ok(CallKind::Normal),
            State::Closed(Closed::ByTime(since, credit)) => {
                let passed = now.saturating_sub(*since);
                if passed >= SLOW_START {
                    self.state = State::Closed(Closed::AdmitsAll);
                    Ok(CallKind::Normal)
                } else {
                    *credit += passed * 16 / SLOW_START;
                    if *credit >= 16 {
                        *credit -= 16;
                        Ok(CallKind::Normal)
                    } else {
                        Err(Some(SOON.min(SLOW_START - passed)))
                    }
                }
            }
            State::Closed(Closed::BySuccesses { slots, successes, lease, last_admission, .. }) => {
                if slots.len() > *successes as usize {
                    slots.retain(|lease| lease.until > now);
                }
                if slots.len() > *successes as usize {
                    Err(slots.iter().map(|lease| SOON.min(lease.until - now)).min())
                } else {
                    self.leases += 1;
                    *last_admission = now.max(*last_admission);
                    began = *last_admission;
                    slots.push(Lease { number: self.leases, until: began + *lease });
                    Ok(CallKind::WithSlot(self.leases))
                }
            }
            State::HalfOpen { slots, .. } => {
                let free = slots.iter_mut().find(|slot| slot.is_none_or(|lease| lease.until <= now));
                if let Some(free) = free {
                    self.leases += 1;
                    *free = Some(Lease { number: self.leases, until: now + self.limits.lease });
                    Ok(CallKind::Probe(self.leases))
                } else {
                    Err(slots.iter().flatten().map(|lease| SOON.min(lease.until - now)).min())
                }
            }
        };
        let observing = self.limits.mode == Mode::ObserveOnly;
        let kind = kind.or_else(|left| {
            if observing {
                return Ok(CallKind::Uncounted);
            }
            self.rejected = self.rejected.map(|number| number + 1);
            Err(left)
        })?;
        let timed = self.limits.timed() || matches!(kind, CallKind::Probe(_) | CallKind::WithSlot(_));
        let is_retry = is_retry && !self.limits.count_failed_retries;
        Ok(Call { epoch: self.epoch, kind, began: timed.then_some(began), is_retry })
    }

    /// Returns the time of the window. It never runs back in a time window.
    fn latest(&self, now: u64) -> u64 {
        self.events.iter().filter(|_| self.limits.calls.is_none()).map(|(at, _)| *at).fold(now, u64::max)
    }

    /// Returns the events in the window, oldest first.
    fn window(&self, now: u64) -> Vec<Ended> {
        let now = self.latest(now);
        // A bucket is a fifteenth of the span, which is a second.
        let inside = |at: u64| self.limits.calls.is_some() || now / 1_000 - at / 1_000 < 16;
        self.events.iter().filter(|(at, _)| inside(*at)).map(|(_, ended)| *ended).collect()
    }

    pub(crate) fn counts(&self, now: u64) -> [u64; 4] {
        let window = self.window(now);
        let mut counted: Vec<Ended> = window.iter().copied().filter(|ended| ended.is_counted()).collect();
        let cancelled = match self.limits.calls {
            Some(calls) => {
                counted.drain(..counted.len().saturating_sub(calls as usize));
                // The cancelled calls since the last call that succeeded or failed.
                window.iter().rev().take_while(|ended| **ended == Ended::Cancelled).count()
            }
            None => window.iter().filter(|ended| **ended == Ended::Cancelled).count(),
        };
        let number = |keep: fn(bool, bool) -> bool| {
            let kept =
                |ended: &&Ended| matches!(ended, Ended::Counted { failed, slow } if keep(*failed, *slow));
            counted.iter().filter(kept).count() as u64
        };
        [counted.len() as u64, number(|failed, _| failed), number(|_, slow| slow), cancelled as u64]
    }

    /// Ends a call. `took` is how long it took, if that is not the time since it began.
    pub(crate) fn end(&mut self, call: Call, end: End, took: Option<u64>, now: u64) {
        self.now = now;
        if call.epoch != self.epoch || call.kind == CallKind::Uncounted {
            return;
        }
        if let (End::Cancel, CallKind::Normal, State::Closed(Closed::ByTime(since, credit))) =
            (end, call.kind, &mut self.state)
        {
            // The call has not begun, so its credit is refunded. The credit is at most one call.
            let share = now.saturating_sub(*since).min(SLOW_START) * 16 / SLOW_START;
            *credit = (*credit + 16 - share).min(16);
        }
        let took = call.began.map(|began| took.unwrap_or(now.saturating_sub(began)));
        let end = match (end, self.limits.cancelled) {
            (End::Drop, CancelledPolicy::Ignore) => End::Cancel,
            (End::Drop, CancelledPolicy::Failure) => End::Failure,
            (End::Drop, CancelledPolicy::FailureAfter(after)) => {
                if took.is_some_and(|took| millis(took) >= after) { End::Failure } else { End::Cancel }
            }
            (end, _) => end,
        };
        let slow = self.limits.slow.is_some() && took.is_some_and(|took| took >= SLOW);
        match call.kind {
            CallKind::Probe(probe) => self.end_probe(Some(probe), end, slow, now),
            _ if call.is_retry && end == End::Failure => self.end_normal(End::Neutral, false, false, now),
            _ => self.end_normal(end, took.is_some(), slow, now),
        }
        if let CallKind::WithSlot(number) = call.kind {
            self.release_slot(number, end == End::Success && !slow);
        }
    }

    /// Records the outcome of a call that did not run through the circuit.
    pub(crate) fn record(&mut self, outcome: End, took: Option<u64>, now: u64) {
        self.now = now;
        self.end_override(now);
        let slow = self.limits.slow.is_some() && took.is_some_and(|took| took >= SLOW);
        let is_stale = took.is_some_and(|took| now.saturating_sub(took) < self.since);
        match self.state {
            State::Closed(_) => self.end_normal(outcome, self.limits.timed(), slow, now),
            State::Open(Some(until)) if now >= until && !is_stale => {
                self.half_open(now);
                self.end_probe(None, outcome, slow, now);
            }
            State::HalfOpen { .. } if !is_stale => self.end_probe(None, outcome, slow, now),
            _ => {}
        }
    }

    /// Releases a slot of the slow start, if the circuit is still in it.
    fn release_slot(&mut self, number: u64, success: bool) {
        if let State::Closed(Closed::BySuccesses { slots, successes, successes_to_end, .. }) = &mut self.state
        {
            slots.retain(|lease| lease.number != number);
            *successes += u32::from(success);
            if successes == successes_to_end {
                self.state = State::Closed(Closed::AdmitsAll);
            }
        }
    }

    /// Returns the progress of the slow start.
    pub(crate) fn slow_start(&self, now: u64) -> Option<f64> {
        match &self.state {
            State::Closed(Closed::ByTime(since, _)) => {
                Some(now.saturating_sub(*since).min(SLOW_START) as f64 / SLOW_START as f64)
            }
            State::Closed(Closed::BySuccesses { successes, successes_to_end, .. }) => {
                Some(f64::from(*successes) / f64::from(*successes_to_end))
            }
            _ => None,
        }
    }

    /// Returns the state of a circuit that its probes close now.
    fn closed_by_probes(&self, now: u64) -> State {
        State::Closed(match self.limits.slow_start {
            SlowStart::Off => Closed::AdmitsAll,
            SlowStart::Time => Closed::ByTime(now, 16),
            SlowStart::Successes(successes_to_end) => Closed::BySuccesses {
                slots: Vec::new(),
                successes: 0,
                successes_to_end,
                lease: self.limits.lease,
                last_admission: now,
            },
        })
    }

    /// Ends a probe. `probe` is the number of its lease, if it has one.
    fn end_probe(&mut self, probe: Option<u64>, end: End, slow: bool, now: u64) {
        let State::HalfOpen { slots, successes, cancelled } = &mut self.state else { unreachable!() };
        for slot in slots {
            if slot.is_some_and(|lease| Some(lease.number) == probe) {
                *slot = None;
            }
        }
        match end {
            End::Success => {
                self.consecutive_failures = 0;
                self.success_before = Some(now);
            }
            End::Failure => {
                self.consecutive_failures += 1;
                self.last_failure = Some(now);
            }
            _ => {}
        }
        match end {
            End::Cancel => {}
            End::Neutral => *cancelled = 0,
            End::Success if !slow => {
                *cancelled = 0;
                *successes += 1;
                if *successes >= self.limits.successes {
                    self.streak.2 = Some(now);
                    self.become_state(self.closed_by_probes(now), now);
                }
            }
            End::Success | End::Failure => self.open(now),
            End::Drop => {
                *cancelled += 1;
                if *cancelled >= self.limits.minimum.min(10) {
                    self.open(now);
                }
            }
        }
    }

    fn end_normal(&mut self, end: End, timed: bool, slow: bool, now: u64) {
        let Limits { consecutive, span, rate, minimum, .. } = self.limits;
        let failed = end == End::Failure;
        let at = self.latest(now);
        match end {
            End::Cancel => return,
            End::Neutral => {
                self.cancelled.0 = 0;
                return;
            }
            End::Drop => {
                self.events.push((at, Ended::Cancelled));
                let (number, first) = self.cancelled;
                let first = if number == 0 { now } else { first.min(now) };
                self.cancelled = (number + 1, first);
                if number + 1 >= minimum.min(10) && now - first >= 1_000 {
                    self.open(now);
                }
                return;
            }
            End::Success => {
                self.consecutive_failures = 0;
                self.cancelled.0 = 0;
                self.events.push((at, Ended::Counted { failed, slow }));
                if !slow {
                    return;
                }
            }
            End::Failure => {
                // Not before the first failure, even if the clock has run back.
                if self.consecutive_failures == 0 || now < self.first_failure {
                    self.first_failure = now;
                }
                self.consecutive_failures += 1;
                self.last_failure = Some(now);
                self.cancelled.0 = 0;
                self.events.push((at, Ended::Counted { failed, slow }));
            }
        }
        let [calls, failures, slow, _] = self.counts(now);
        let reaches = |part: u64, rate: Option<f64>| {
            part > 0 && calls >= minimum.into() && rate.is_some_and(|rate| part as f64 / calls as f64 >= rate)
        };
        let reaches_consecutive = failed
            && consecutive > 0
            && self.consecutive_failures >= consecutive.into()
            && now - self.first_failure >= span;
        // A call that began while no limit needed its duration does not check the slow-call rate.
        if reaches_consecutive
            || (failed && reaches(failures, rate))
            || (timed && reaches(slow, self.limits.slow))
        {
            self.open(now);
        }
    }

    /// Applies a manual control. Returns whether it is allowed.
    pub(crate) fn control(&mut self, step: Step, now: u64) -> bool {
        self.now = now;
        self.end_override(now);
        let force = match step {
            Step::ForceOpen => Some(State::ForcedOpen(None)),
            Step::ForceOpenFor(period) => Some(State::ForcedOpen(Some(now + period))),
            Step::ForceClosed => Some(State::ForcedClosed(None)),
            Step::ForceClosedFor(period) => Some(State::ForcedClosed(Some(now + period))),
            _ => None,
        };
        match (step, &self.state, force) {
            (Step::Release, _, _) => self.release(now),
            (Step::Report(HealthReport::Critical), State::Closed(_) | State::HalfOpen { .. }, _) => {
                self.open(now);
            }
            (Step::Report(HealthReport::Recovered), State::Open(_), _) => self.half_open(now),
            (Step::Report(_), _, _) => {}
            (_, State::Disabled, _) | (_, State::ForcedOpen(_) | State::ForcedClosed(_), None) => {
                return false;
            }
            (_, State::ForcedOpen(_), Some(forced @ State::ForcedOpen(_)))
            | (_, State::ForcedClosed(_), Some(forced @ State::ForcedClosed(_))) => self.state = forced,
            (_, _, Some(forced)) => self.become_state(forced, now),
            (Step::Reset, _, _) => {
                self.close_manually(now);
                (self.success_before, self.last_failure) = (None, None);
            }
            (Step::ProbeNow, State::Open(_), _) => self.half_open(now),
            (Step::Trip, State::Closed(_) | State::HalfOpen { .. }, _) => self.open(now),
            (Step::TripFor(period), State::Open(_), _) => self.state = State::Open(Some(now + period)),
            (Step::TripFor(period), _, _) => {
                self.become_state(State::Open(Some(now + period)), now);
                self.since = now;
            }
            _ => {}
        }
        true
    }

    pub(crate) fn reconfigure(&mut self, limits: Limits, now: u64) {
        self.now = now;
        self.end_override(now);
        if self.limits.span == 0 {
            self.first_failure = now;
        }
        if limits.calls != self.limits.calls {
            self.begin_window();
        }
        let disabled = limits.mode == Mode::Disabled;
        self.limits = limits;
        match self.state {
            State::Disabled if !disabled => self.close_manually(now),
            State::Closed(_) | State::Open(_) | State::HalfOpen { .. } if disabled => {
                self.become_state(State::Disabled, now);
            }
            _ => {}
        }
    }

    pub(crate) fn name(&self) -> CircuitState {
        match self.state {
            State::Closed(_) => CircuitState::Closed,
            State::Open(_) => CircuitState::Open,
            State::HalfOpen { .. } => CircuitState::HalfOpen,
            State::ForcedOpen(_) => CircuitState::ForcedOpen,
            State::ForcedClosed(_) => CircuitState::ForcedClosed,
            State::Disabled => CircuitState::Disabled,
        }
    }
}
