//! Random histories of a circuit, against a naive model that keeps every event in a list. After any
//! history, the circuit can close again.

mod naive;

use std::time::Duration;

use naive::{Call, Naive};
use proptest::collection::vec;
use proptest::prelude::*;
use tower_breaker::{
    BreakerConfig, CancelledPolicy, Circuit, CircuitState, Clock, Counts, HalfOpen, Health, HealthReport,
    ManualClock, Mode, Permit, Verdict,
};

use crate::support::FAULT;

// All times in this module are in milliseconds.

/// With steps of 500 ms, a slow start of eight seconds has shares that are multiples of a
/// sixteenth.
const SLOW_START: u64 = 8_000;
const SLOW: u64 = 1_000;
const YEAR: u64 = 365 * 86_400_000;

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[derive(Clone, Debug)]
struct Limits {
    consecutive: u32,
    /// The time that the consecutive failures must span. 0: no time.
    span: u64,
    rate: Option<f64>,
    slow: Option<f64>,
    minimum: u32,
    /// The size of a count window. `None`: a time window of 15 seconds.
    calls: Option<u32>,
    cancelled: CancelledPolicy,
    count_failed_retries: bool,
    open_for: u64,
    growth: Option<(f64, u64)>,
    until_reset: bool,
    probes: u32,
    successes: u32,
    lease: u64,
    slow_start: SlowStart,
    mode: Mode,
}

/// The slow start of a configuration.
#[derive(Clone, Copy, Debug, PartialEq)]
enum SlowStart {
    Off,
    /// Lasts [`SLOW_START`].
    Time,
    Successes(u32),
}

impl Limits {
    fn config(&self, clock: Clock) -> BreakerConfig {
        let config = crate::support::config().clock(clock).mode(self.mode).cancelled(self.cancelled);
        let config = config.consecutive_failures(self.consecutive).failure_rate(self.rate);
        let config = config.consecutive_failures_span(millis(self.span));
        let config = config.count_failed_retries(self.count_failed_retries);
        let config = config.probes(self.probes).successes_to_close(self.successes);
        let config = config.open_for(millis(self.open_for)).probe_lease(millis(self.lease));
        let mut config = config.minimum_calls(self.minimum);
        config = match self.slow_start {
            SlowStart::Off => config,
            SlowStart::Time => config.slow_start(millis(SLOW_START)),
            SlowStart::Successes(successes) => config.slow_start_successes(successes),
        };
        if let Some(rate) = self.slow {
            config = config.slow_call_rate(millis(SLOW), rate);
        }
        if let Some((factor, cap)) = self.growth {
            config = config.open_backoff(factor, millis(cap));
        }
        if self.until_reset {
            config = config.open_until_reset(true);
        }
        let config = match self.calls {
            Some(calls) => config.count_window(calls),
            None => config.time_window(millis(15_000)),
        };
        config.build().unwrap()
    }

    fn timed(&self) -> bool {
        self.slow.is_some() || matches!(self.cancelled, CancelledPolicy::FailureAfter(_))
    }
}

fn limits() -> impl Strategy<Value = Limits> {
    let rates = || prop::sample::select(vec![None, Some(0.0), Some(0.3), Some(0.5), Some(1.0)]);
    let cancelled = prop::sample::select(vec![
        CancelledPolicy::IfNoneCompletes,
        CancelledPolicy::IfNoneCompletes,
        CancelledPolicy::Ignore,
        CancelledPolicy::Failure,
        CancelledPolicy::FailureAfter(millis(2_000)),
    ]);
    let modes = prop::sample::select(vec![Mode::Enforce, Mode::Enforce, Mode::Enforce, Mode::ObserveOnly]);
    let spans = prop::sample::select(vec![0, 0, 500, 1_500, 5_000]);
    let counted = (cancelled, any::<bool>());
    let trip = ((0_u32..5, spans), rates(), rates(), 1_u32..6, prop::option::of(6_u32..12), counted);
    let growth = prop::sample::select(vec![None, Some((2.0, 40_000)), Some((3.0, 10_000))]);
    let open = (growth, prop::bool::weighted(0.1));
    let slow_start =
        prop_oneof![Just(SlowStart::Off), Just(SlowStart::Time), (1_u32..6).prop_map(SlowStart::Successes)];
    let recovery = (1_u32..4, 1_u32..5, prop::sample::select(vec![5_000, 20_000]), slow_start);
    (trip, open, recovery, modes).prop_map(
        |(trip, (growth, until_reset), (probes, successes, lease, slow_start), mode)| {
            let ((consecutive, span), rate, slow, minimum, calls, counted) = trip;
            let (cancelled, count_failed_retries) = counted;
            let mut limits = Limits {
                open_for: 10_000,
                consecutive,
                span,
                rate,
                slow,
                minimum,
                calls,
                cancelled,
                count_failed_retries,
                growth,
                until_reset,
                probes,
                successes,
                lease,
                slow_start,
                mode,
            };
            if limits.timed() {
                // The duration of a probe is measured from its lease. Probes that run longer than
                // their lease have a separate test.
                limits.lease = YEAR;
            }
            limits
        },
    )
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Success,
    Failure,
    Neutral,
    Drop,
    Cancel,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Admit {
        is_retry: bool,
    },
    End(usize, End),
    /// Ends a call that took this time, whatever the clock shows.
    EndAfter(usize, End, u64),
    /// Records the outcome of a call that did not run through the circuit, and how long it took.
    Record(End, Option<u64>),
    Forward(u64),
    Back(u64),
    Trip,
    Reset,
    ForceOpen,
    ForceClosed,
    TripFor(u64),
    ForceOpenFor(u64),
    ForceClosedFor(u64),
    ProbeNow,
    Report(HealthReport),
    Release,
    Reconfigure(usize),
}

fn step() -> impl Strategy<Value = Step> {
    use End::{Cancel, Drop, Failure, Neutral, Success};
    let ends =
        vec![Success, Success, Success, Failure, Failure, Failure, Failure, Neutral, Drop, Drop, Cancel];
    let controls = vec![
        Step::Trip,
        Step::Trip,
        Step::Reset,
        Step::ForceOpen,
        Step::ForceClosed,
        Step::Release,
        Step::Release,
        Step::ProbeNow,
        Step::Report(HealthReport::Critical),
        Step::Report(HealthReport::Recovered),
    ];
    let timed_controls = (
        prop::sample::select(vec![Step::TripFor, Step::ForceOpenFor, Step::ForceClosedFor]),
        prop::sample::select(vec![500, 2_000, 10_000, 20_000]),
    );
    let outcome = prop::sample::select(vec![Success, Success, Failure, Failure, Neutral]);
    let lasts = prop::sample::select(vec![0, 500, SLOW, 12_000]);
    let took = prop::sample::select(vec![None, None, Some(0), Some(500), Some(SLOW), Some(12_000)]);
    let forward = prop::sample::select(vec![500, 500, 1_000, 1_500, 2_000, 5_000, 10_000, 16_000, 40_000]);
    prop_oneof![
        20 => prop::bool::weighted(0.3).prop_map(|is_retry| Step::Admit { is_retry }),
        20 => (any::<usize>(), prop::sample::select(ends)).prop_map(|(which, end)| Step::End(which, end)),
        3 => (any::<usize>(), outcome.clone(), lasts)
            .prop_map(|(which, end, lasts)| Step::EndAfter(which, end, lasts)),
        5 => (outcome, took).prop_map(|(outcome, took)| Step::Record(outcome, took)),
        10 => forward.prop_map(Step::Forward),
        1 => prop::sample::select(vec![500, 3_000, 20_000, 900_000]).prop_map(Step::Back),
        2 => prop::sample::select(controls),
        2 => timed_controls.prop_map(|(step, period): (fn(u64) -> Step, u64)| step(period)),
        1 => (0..3_usize).prop_map(Step::Reconfigure),
    ]
}

fn verdict(outcome: End) -> Verdict {
    match outcome {
        End::Success => Verdict::Success,
        End::Failure => FAULT.into(),
        End::Neutral => FAULT.with_health(Health::Neutral).into(),
        End::Drop | End::Cancel => unreachable!("not an outcome"),
    }
}

fn array(Counts { calls, failures, slow, cancelled, .. }: Counts) -> [u64; 4] {
    [calls, failures, slow, cancelled]
}

/// Returns the running probes, the slots, the successes, the needed successes, and the cancelled
/// probes.
fn progress(half_open: HalfOpen) -> [u32; 5] {
    let HalfOpen { running_probes, probes, successes, successes_to_close, cancelled_probes, .. } = half_open;
    [running_probes, probes, successes, successes_to_close, cancelled_probes]
}

/// A circuit and its naive model.
struct Pair {
    circuit: Circuit,
    naive: Naive,
    clock: Clock,
    time: ManualClock,
    running: Vec<(Permit, Call)>,
}

impl Pair {
    fn new(limits: &Limits) -> Self {
        let (clock, time) = Clock::manual();
        time.set(millis(1_000_000));
        let (circuit, naive) = (Circuit::new(limits.config(clock)), Naive::new(limits.clone(), 1_000_000));
        Self { circuit, naive, clock, time, running: Vec::new() }
    }

    fn now(&self) -> u64 {
        self.clock.now() / 1_000_000
    }

    fn admit(&mut self, is_retry: bool) -> Result<(), TestCaseError> {
        let now = self.now();
        match (self.circuit.try_acquire(), self.naive.admit(is_retry, now)) {
            (Ok(permit), Ok(call)) => {
                let permit = if is_retry { permit.retry() } else { permit };
                self.running.push((permit, call));
            }
            (Err(rejection), Err(left)) => prop_assert_eq!(rejection.retry_after(), left.map(millis)),
            (circuit, naive) => prop_assert!(false, "the circuit returned {circuit:?}, the model {naive:?}"),
        }
        Ok(())
    }

    fn end(&mut self, which: usize, end: End) {
        if self.running.is_empty() {
            return;
        }
        let (permit, call) = self.running.swap_remove(which % self.running.len());
        match end {
            End::Drop => drop(permit),
            End::Cancel => permit.cancel(),
            outcome => permit.record(verdict(outcome)),
        }
        let now = self.now();
        self.naive.end(call, end, None, now);
    }

    fn end_after(&mut self, which: usize, outcome: End, took: u64) {
        if self.running.is_empty() {
            return;
        }
        let (permit, call) = self.running.swap_remove(which % self.running.len());
        permit.record_with_duration(verdict(outcome), millis(took));
        let now = self.now();
        self.naive.end(call, outcome, Some(took), now);
    }

    fn record(&mut self, outcome: End, took: Option<u64>) {
        match took {
            Some(took) => self.circuit.record_with_duration(verdict(outcome), millis(took)),
            None => self.circuit.record(verdict(outcome)),
        }
        let now = self.now();
        self.naive.record(outcome, took, now);
    }

    fn control(&mut self, step: Step) -> Result<(), TestCaseError> {
        let result = match step {
            Step::Trip => self.circuit.trip(),
            Step::Reset => self.circuit.reset(),
            Step::ForceOpen => self.circuit.force_open(),
            Step::ForceClosed => self.circuit.force_closed(),
            Step::TripFor(period) => self.circuit.trip_for(millis(period)),
            Step::ForceOpenFor(period) => self.circuit.force_open_for(millis(period)),
            Step::ForceClosedFor(period) => self.circuit.force_closed_for(millis(period)),
            Step::ProbeNow => self.circuit.probe_now(),
            Step::Report(report) => {
                self.circuit.report(report);
                Ok(())
            }
            _ => {
                self.circuit.release();
                Ok(())
            }
        };
        let now = self.now();
        prop_assert_eq!(result.is_ok(), self.naive.control(step, now), "{:?}", step);
        Ok(())
    }

    fn reconfigure(&mut self, limits: &Limits) {
        self.circuit.reconfigure(limits.config(self.clock)).unwrap();
        assert_eq!(self.circuit.config(), limits.config(self.clock));
        let now = self.now();
        self.naive.reconfigure(limits.clone(), now);
    }

    fn assert_equal(&self) -> Result<(), TestCaseError> {
        let status = self.circuit.status();
        prop_assert_eq!(status.state, self.naive.name());
        let last = status.last_transition.as_ref();
        prop_assert_eq!(last.map_or(0, |last| u64::from(last.epoch)), self.naive.epoch);
        prop_assert_eq!(last.and_then(|last| last.counts).map(array), self.naive.ended.counts);
        prop_assert_eq!(
            last.map_or(0, |last| last.consecutive_failures),
            self.naive.ended.consecutive_failures
        );
        prop_assert_eq!(last.and_then(|last| last.half_open).map(progress), self.naive.ended.half_open);
        prop_assert_eq!(status.half_open.map(progress), self.naive.half_open_progress(self.now()));
        prop_assert_eq!([status.rejected_calls, status.rejected_since_transition], self.naive.rejected);
        prop_assert_eq!(array(status.window), self.naive.counts(self.now()));
        prop_assert_eq!(status.consecutive_failures, self.naive.consecutive_failures);
        prop_assert_eq!(status.slow_start, self.naive.slow_start(self.now()));
        let [retry_after, override_ends_in] = self.naive.remaining(self.now());
        prop_assert_eq!(status.retry_after, retry_after.map(millis));
        prop_assert_eq!(status.override_ends_in, override_ends_in.map(millis));
        self.assert_last_calls(status.since_last_success, status.since_last_failure)
    }

    /// The shown time since the last success is at most one bucket too long.
    fn assert_last_calls(
        &self,
        since_success: Option<Duration>,
        since_failure: Option<Duration>,
    ) -> Result<(), TestCaseError> {
        let now = self.now();
        let since = |at: Option<u64>| at.map(|at| millis(now.saturating_sub(at)));
        let rounded_up = |shown: Option<Duration>, exact: Option<Duration>, by| match (shown, exact) {
            (Some(shown), Some(exact)) => shown >= exact && shown < exact + millis(by),
            (shown, exact) => shown == exact,
        };
        let [success, failure] = [self.naive.last_success(now), self.naive.last_failure].map(since);
        prop_assert!(rounded_up(since_success, success, 1_000), "{since_success:?}, {success:?}");
        prop_assert!(rounded_up(since_failure, failure, 2), "{since_failure:?}, {failure:?}");
        Ok(())
    }

    /// Asserts that the circuit closes after enough time and successes, even while other calls run.
    fn assert_closes(&mut self, limits: &Limits) -> Result<(), TestCaseError> {
        self.control(Step::Release)?;
        if self.naive.name() == CircuitState::Disabled {
            self.reconfigure(limits);
        }
        self.time.advance(millis(2 * YEAR));
        drop(self.circuit.try_acquire().map(Permit::cancel));
        if self.circuit.status().state == CircuitState::Open {
            // The circuit is open until it is reset.
            self.circuit.reset().unwrap();
        }
        // At most five successes end a slow start.
        for _ in 0..=self.naive.limits.successes + 5 {
            self.time.advance(millis(2 * YEAR));
            if let Ok(permit) = self.circuit.try_acquire() {
                permit.record(Verdict::Success);
            }
        }
        let status = self.circuit.status();
        prop_assert!(status.state == CircuitState::Closed && status.slow_start.is_none(), "{status:?}");
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_024))]
    #[test]
    fn circuit_agrees_with_naive_model_and_can_always_close(
        mut limits in [limits(), limits(), limits()],
        disabled in any::<bool>(),
        steps in vec(step(), 1..150),
    ) {
        if disabled {
            limits[2].mode = Mode::Disabled;
        }
        if limits.iter().any(Limits::timed) {
            for limits in &mut limits {
                limits.lease = YEAR;
            }
        }
        let mut pair = Pair::new(&limits[0]);
        for step in steps {
            match step {
                Step::Admit { is_retry } => pair.admit(is_retry)?,
                Step::End(which, end) => pair.end(which, end),
                Step::EndAfter(which, outcome, took) => pair.end_after(which, outcome, took),
                Step::Record(outcome, took) => pair.record(outcome, took),
                Step::Back(by) => pair.time.set(millis(pair.now() - by.min(pair.now()))),
                Step::Forward(by) => pair.time.advance(millis(by)),
                Step::Reconfigure(which) => pair.reconfigure(&limits[which]),
                step => pair.control(step)?,
            }
            pair.assert_equal()?;
        }
        let limits = limits[0].clone();
        pair.assert_closes(&limits)?;
    }
}
