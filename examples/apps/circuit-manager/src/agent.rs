//! An agent: its circuit, and what the circuit itself does not keep.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use time::OffsetDateTime;
use tower_breaker::fault_classify::{Fault, Health, Kind, Origin, Retryable};
use tower_breaker::telemetry::{Failure, Transition};
use tower_breaker::{Circuit, CircuitState, Permit, Reason, Status, Verdict};

use crate::settings::CircuitSettings;
use crate::stats::{CircuitStats, Counts};
use crate::store::Row;

/// A failed call. Every error of an agent is a failure, so the kind of the error is not known.
pub(crate) const FAILURE: Verdict =
    Verdict::Fault(Fault::new(Kind::Unknown, Retryable::IfIdempotent, Health::Unhealthy, Origin::Remote));

/// The resolution of the time of a success that only the circuit has counted.
const RESOLUTION: Duration = Duration::from_millis(100);

/// The state in the two lowest bits of [`Agent::phase`]. The other bits are the epoch.
const STATE_BITS: u32 = 2;
const OTHER: u32 = 0;
const HALF_OPEN: u32 = 1;
const OPEN: u32 = 2;

/// Epochs have 24 bits, and wrap.
const EPOCHS: u32 = 1 << 24;

pub(crate) struct Agent {
    pub(crate) circuit: Circuit,
    pub(crate) cooldown: Duration,
    /// The epoch of the last transition, and the state since.
    phase: AtomicU32,
    /// The permits of probes that `can_execute` has admitted and no outcome has ended, each with
    /// its phase.
    probes: Mutex<VecDeque<(u32, Permit)>>,
    /// Milliseconds since 1970 of the last success that was recorded by a method of the manager.
    last_success: AtomicI64,
    memory: Mutex<Memory>,
}

/// What a circuit forgets at a transition.
struct Memory {
    /// The epoch of the last transition that is included.
    epoch: u32,
    /// The calls before the last transition, unless it has closed the circuit.
    successes: u64,
    failures: u64,
    /// The failures in a row that an earlier process has counted.
    restored_run: u64,
    /// The successes in the window at the last failure.
    successes_at_failure: u64,
    opened_at: Option<OffsetDateTime>,
    last_change: OffsetDateTime,
    last_failure: Option<OffsetDateTime>,
    last_success: Option<OffsetDateTime>,
    /// The successes when the time of the last success was read from the circuit.
    seen_successes: u64,
}

/// The state of an agent's circuit that its row stores.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Saved {
    pub(crate) stats: CircuitStats,
    pub(crate) last_change: OffsetDateTime,
}

impl Agent {
    pub(crate) fn new(circuit: Circuit, settings: &CircuitSettings) -> Self {
        let memory = Memory {
            epoch: 0,
            successes: 0,
            failures: 0,
            restored_run: 0,
            successes_at_failure: 0,
            opened_at: None,
            last_change: OffsetDateTime::now_utc(),
            last_failure: None,
            last_success: None,
            seen_successes: 0,
        };
        Self {
            circuit,
            cooldown: settings.cooldown(),
            phase: AtomicU32::new(0),
            probes: Mutex::default(),
            last_success: AtomicI64::new(i64::MIN),
            memory: Mutex::new(memory),
        }
    }

    /// Asks for a call without a guard. The permit of a probe is kept until the next outcome.
    pub(crate) fn can_execute(&self) -> bool {
        let Ok(permit) = self.circuit.try_acquire() else {
            return false;
        };
        let mut phase = self.phase.load(Ordering::Acquire);
        if state(phase) == OPEN {
            // Another thread has half-opened the circuit, and has not called the observer yet.
            if let Some(last) = self.circuit.status().last_transition {
                self.on_transition(&last);
            }
            phase = self.phase.load(Ordering::Acquire);
        }
        if state(phase) != HALF_OPEN {
            // The circuit is closed. It counts an outcome also without a permit.
            permit.cancel();
            return true;
        }
        let mut probes = self.probes();
        probes.push_back((phase, permit));
        // A probe without an outcome loses its place when its lease ends. Then its permit is kept
        // in vain.
        let limit = self.circuit.config().probes() as usize;
        let unused = if probes.len() > limit { probes.pop_front() } else { None };
        drop(probes);
        cancel(unused);
        true
    }

    /// Records the outcome of a call without a guard, as that of a probe if one is running.
    pub(crate) fn record(&self, verdict: Verdict) {
        if verdict.is_success() {
            self.note_success();
        }
        match self.running_probe() {
            Some(probe) => probe.record(verdict),
            None => self.circuit.record(verdict),
        }
    }

    /// Notes the time of a success.
    pub(crate) fn note_success(&self) {
        let now = OffsetDateTime::now_utc().unix_timestamp_nanos() / 1_000_000;
        self.last_success.fetch_max(now as i64, Ordering::Relaxed);
    }

    fn running_probe(&self) -> Option<Permit> {
        let phase = self.phase.load(Ordering::Acquire);
        if state(phase) != HALF_OPEN {
            return None;
        }
        let mut probes = self.probes();
        let of_this_round = probes.iter().position(|(of, _)| *of == phase)?;
        probes.remove(of_this_round).map(|(_, permit)| permit)
    }

    /// Called after each transition of the circuit, before the other observers.
    pub(crate) fn on_transition(&self, transition: &Transition) {
        let state = match transition.to {
            CircuitState::HalfOpen => HALF_OPEN,
            CircuitState::Open | CircuitState::ForcedOpen => OPEN,
            _ => OTHER,
        };
        let phase = transition.epoch << STATE_BITS | state;
        // Two threads may report two transitions in the other order, or the same transition.
        let newer = |last: u32| is_newer(transition.epoch, last >> STATE_BITS).then_some(phase);
        if self.phase.fetch_update(Ordering::Release, Ordering::Relaxed, newer).is_err() {
            return;
        }
        let ended: VecDeque<_> = {
            let mut probes = self.probes();
            let (ended, running) = probes.drain(..).partition(|(of, _)| *of != phase);
            *probes = running;
            ended
        };
        for probe in ended {
            cancel(Some(probe));
        }
        if transition.reason == Reason::Reset {
            self.last_success.store(i64::MIN, Ordering::Relaxed);
        }
        self.memory().apply(transition);
    }

    /// Called after each failed call of the circuit.
    pub(crate) fn on_failure(&self, failure: &Failure) {
        let (status, mut memory) = self.status();
        memory.last_failure = memory.last_failure.max(Some(failure.at.into()));
        if status.state == CircuitState::Closed {
            memory.successes_at_failure = status.window.calls - status.window.failures;
        }
    }

    /// Opens the circuit for its cooldown from now, also if it is open.
    ///
    /// Returns whether that was no transition.
    pub(crate) fn force_open(&self) -> Result<bool, tower_breaker::ControlError> {
        let before = epoch(&self.circuit.status());
        self.circuit.trip_for(self.cooldown)?;
        let status = self.circuit.status();
        let is_extended = epoch(&status) == before;
        if is_extended {
            let mut memory = self.memory();
            memory.opened_at = Some(OffsetDateTime::now_utc());
        }
        Ok(is_extended)
    }

    /// Returns the statistics, and when the state changed the last time.
    pub(crate) fn saved(&self) -> Saved {
        let (status, mut memory) = self.status();
        memory.see_success(&status, self.last_success.load(Ordering::Relaxed));
        let shown = CircuitStats {
            name: status.circuit.to_owned(),
            state: status.state,
            stats: memory.counts(&status),
            opened_at: memory.opened_at,
            last_failure_time: memory.last_failure,
            last_success_time: memory.last_success,
        };
        Saved { stats: shown, last_change: memory.last_change }
    }

    /// Returns the row of the store, and what it contains.
    pub(crate) fn row(&self, write: u64) -> Result<(Row, Saved), serde_json::Error> {
        let saved = self.saved();
        let row = Row::new(&saved.stats, saved.last_change, &self.circuit.snapshot(), write)?;
        Ok((row, saved))
    }

    /// Continues with the statistics of an earlier process, after its circuit was restored.
    pub(crate) fn restore(&self, saved: Saved) {
        let Saved { stats, last_change } = saved;
        let (status, mut memory) = self.status();
        memory.last_change = last_change;
        memory.last_failure = stats.last_failure_time;
        memory.last_success = stats.last_success_time;
        if status.state.is_open() {
            memory.successes = stats.stats.successful_requests;
            memory.failures = stats.stats.failed_requests;
            memory.restored_run = stats.stats.consecutive_failures;
            memory.opened_at = stats.opened_at.or(memory.opened_at);
        }
    }

    /// Returns the status, and the memory of the same epoch.
    fn status(&self) -> (Status, MutexGuard<'_, Memory>) {
        loop {
            let status = self.circuit.status();
            let mut memory = self.memory();
            memory.follow(&status);
            if memory.epoch == epoch(&status) {
                return (status, memory);
            }
        }
    }

    fn probes(&self) -> MutexGuard<'_, VecDeque<(u32, Permit)>> {
        self.probes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Memory {
    /// Includes the last transition, if its observer has not been called yet.
    fn follow(&mut self, status: &Status) {
        if let Some(last) = &status.last_transition {
            self.apply(last);
        }
    }

    fn apply(&mut self, transition: &Transition) {
        if !is_newer(transition.epoch, self.epoch) {
            return;
        }
        self.epoch = transition.epoch;
        self.last_change = transition.at.into();
        self.successes_at_failure = 0;
        if let Some(window) = transition.counts {
            self.successes += window.calls - window.failures;
            self.failures += window.failures;
        }
        if let Some(round) = transition.half_open {
            self.successes += u64::from(round.successes);
            if round.successes > 0 {
                self.restored_run = 0;
            }
        }
        if matches!(transition.reason, Reason::ProbeFailed | Reason::ProbeSlow) {
            self.failures += 1;
        }
        match transition.to {
            CircuitState::Open | CircuitState::ForcedOpen => self.opened_at = Some(transition.at.into()),
            CircuitState::HalfOpen => (),
            _ => {
                self.opened_at = None;
                self.restored_run = 0;
                (self.successes, self.failures) = (0, 0);
            }
        }
        if transition.reason == Reason::Reset {
            (self.last_failure, self.last_success) = (None, None);
        }
    }

    /// Includes the last success.
    fn see_success(&mut self, status: &Status, recorded_millis: i64) {
        let recorded =
            OffsetDateTime::from_unix_timestamp_nanos(i128::from(recorded_millis) * 1_000_000).ok();
        let recorded = recorded.filter(|_| recorded_millis != i64::MIN);
        self.last_success = self.last_success.max(recorded);
        let successes = self.successes(status);
        if successes != self.seen_successes
            && let Some(since) = status.since_last_success
        {
            self.seen_successes = successes;
            let counted = OffsetDateTime::now_utc() - since;
            // The time of the method is exact, if it is that of the same call.
            if self.last_success.is_none_or(|last| counted > last + RESOLUTION) {
                self.last_success = Some(counted);
            }
        }
    }

    /// Returns the successes that are shown.
    fn successes(&self, status: &Status) -> u64 {
        let probes = status.half_open.map_or(0, |round| u64::from(round.successes));
        self.successes + status.window.calls - status.window.failures + probes
    }

    fn counts(&self, status: &Status) -> Counts {
        let window = status.window;
        let probes = status.half_open.map_or(0, |round| u64::from(round.successes));
        let in_window = window.calls - window.failures;
        let consecutive_failures = match probes {
            0 => status.consecutive_failures + self.restored_run,
            _ => 0,
        };
        let consecutive_successes = match status.state {
            CircuitState::HalfOpen => probes,
            _ if consecutive_failures > 0 => 0,
            _ => in_window.saturating_sub(self.successes_at_failure),
        };
        Counts {
            consecutive_failures,
            consecutive_successes,
            ..Counts::of(self.successes(status), self.failures + window.failures)
        }
    }
}

fn cancel(probe: Option<(u32, Permit)>) {
    if let Some((_, permit)) = probe {
        permit.cancel();
    }
}

const fn state(phase: u32) -> u32 {
    phase & ((1 << STATE_BITS) - 1)
}

/// Returns the epoch of the last transition. 0: there was none.
fn epoch(status: &Status) -> u32 {
    status.last_transition.as_ref().map_or(0, |last| last.epoch)
}

/// Returns whether a transition is newer than the last one. Epochs wrap.
fn is_newer(epoch: u32, last: u32) -> bool {
    let distance = epoch.wrapping_sub(last) % EPOCHS;
    distance != 0 && distance < EPOCHS / 2
}
