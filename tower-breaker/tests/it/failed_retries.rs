//! How the outcomes of retries count.

use std::future::{Ready, pending, ready};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures::FutureExt;
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use proptest::collection::vec;
use proptest::prelude::*;
use tokio_test::task;
use tower::{Layer, Service, service_fn};
use tower_breaker::handle::CircuitRef;
use tower_breaker::keyed::{KeyedBreakerLayer, KeyedConfig};
use tower_breaker::{
    BreakerConfigBuilder, BreakerError, BreakerLayer, CancelledPolicy, Circuit, CircuitState, Clock,
    ManualClock, Verdict,
};
use tower_fault_classify::__internals::RetryScope;

use crate::support::{FAILURE, NEUTRAL, OPEN_FOR, call_once, circuit, config, refused, send, state, timed};

/// Makes a retry through the circuit.
fn retry(circuit: &Circuit, verdict: Verdict) {
    circuit.try_acquire().expect("the circuit admits the call").retry().record(verdict);
}

fn three_in_a_row() -> BreakerConfigBuilder {
    config().failure_rate(None).consecutive_failures(3)
}

#[test]
fn failed_retries_count_in_no_run_and_no_rate() {
    let (by_run, _) = circuit(three_in_a_row());
    let (by_rate, _) = circuit(config().consecutive_failures(0).minimum_calls(3));
    for circuit in [by_run, by_rate] {
        send(&circuit, FAILURE);
        send(&circuit, FAILURE);
        for _ in 0..100 {
            retry(&circuit, FAILURE);
        }
        let status = circuit.status();
        assert_eq!((status.state, status.window.calls), (CircuitState::Closed, 2));
        assert_eq!(status.consecutive_failures, 2, "a failed retry does not reset the run either");
        send(&circuit, FAILURE);
        assert_eq!(state(&circuit), CircuitState::Open);
    }
}

#[test]
fn successful_retry_counts_as_a_success() {
    for timed in [false, true] {
        let config = if timed {
            three_in_a_row().slow_call_rate(Duration::from_secs(1), 1.0)
        } else {
            three_in_a_row()
        };
        let (circuit, _) = circuit(config);
        for _ in 0..10 {
            send(&circuit, FAILURE);
            send(&circuit, FAILURE);
            retry(&circuit, Verdict::Success);
        }
        assert_eq!(circuit.status().window.calls, 30, "timed: {timed}");
        assert_eq!(state(&circuit), CircuitState::Closed, "timed: {timed}");
    }
}

#[test]
fn slow_failed_retries_do_not_count_as_slow() {
    let (circuit, time) =
        circuit(config().failure_rate(None).minimum_calls(3).slow_call_rate(Duration::from_secs(1), 0.5));
    for _ in 0..10 {
        let permit = circuit.try_acquire().unwrap().retry();
        time.advance(Duration::from_secs(2));
        permit.record(FAILURE);
    }
    assert_eq!((state(&circuit), circuit.status().window.slow), (CircuitState::Closed, 0));
    for _ in 0..3 {
        let permit = circuit.try_acquire().unwrap().retry();
        time.advance(Duration::from_secs(2));
        permit.record(Verdict::Success);
    }
    assert_eq!(state(&circuit), CircuitState::Open, "a slow retry that succeeds counts as slow");
}

#[test]
fn failed_retries_count_if_configured_and_after_reconfiguration() {
    let counting = || three_in_a_row().count_failed_retries(true);
    let (circuit, _) = circuit(counting());
    (0..3).for_each(|_| retry(&circuit, FAILURE));
    assert_eq!(state(&circuit), CircuitState::Open);
    circuit.reset().unwrap();
    circuit.reconfigure(three_in_a_row().build().unwrap()).unwrap();
    (0..9).for_each(|_| retry(&circuit, FAILURE));
    assert_eq!(state(&circuit), CircuitState::Closed);
}

#[test]
fn failed_retry_as_probe_opens_the_circuit_again() {
    let (circuit, time) = circuit(three_in_a_row());
    (0..3).for_each(|_| assert!(send(&circuit, FAILURE)));
    time.advance(OPEN_FOR);
    retry(&circuit, FAILURE);
    assert_eq!(state(&circuit), CircuitState::Open);
    time.advance(OPEN_FOR);
    retry(&circuit, Verdict::Success);
    retry(&circuit, Verdict::Success);
    assert_eq!(state(&circuit), CircuitState::Closed);
}

#[test]
fn failed_retries_of_keyed_circuit_do_not_count() {
    let (config, _) = timed(three_in_a_row());
    let config = KeyedConfig::builder(config).build().unwrap();
    let layer = KeyedBreakerLayer::<_, _>::new(config, |key: &u64| *key);
    let circuit = layer.circuits().get_or_insert(7).unwrap();
    for _ in 0..9 {
        circuit.try_acquire().unwrap().retry().record(FAILURE);
    }
    assert_eq!(circuit.status().consecutive_failures, 0);
    for _ in 0..3 {
        circuit.try_acquire().unwrap().record(FAILURE);
    }
    assert_eq!(circuit.status().state, CircuitState::Open);
}

#[test]
fn failed_retries_in_slow_start_free_their_slots_and_do_not_count() {
    let (circuit, time) = circuit(three_in_a_row().slow_start_successes(10));
    (0..3).for_each(|_| assert!(send(&circuit, FAILURE)));
    time.advance(OPEN_FOR);
    assert!(send(&circuit, Verdict::Success) && send(&circuit, Verdict::Success));
    assert_eq!(circuit.status().slow_start, Some(0.0));
    for _ in 0..9 {
        let held = circuit.try_acquire().expect("the slot is free").retry();
        assert!(circuit.try_acquire().is_err(), "one call at a time");
        held.record(FAILURE);
    }
    assert_eq!((state(&circuit), circuit.status().consecutive_failures), (CircuitState::Closed, 0));
}

/// Runs `call` as a retry layer does for a retry.
fn in_retry<T>(call: impl FnOnce() -> T) -> T {
    let _scope = RetryScope::enter();
    call()
}

#[test]
fn every_kind_of_call_in_retry_scope_is_a_retry() {
    let (circuit, _) = circuit(three_in_a_row());
    let layer: BreakerLayer = BreakerLayer::with_circuit(circuit.clone());
    let mut service = layer.layer(service_fn(|()| ready(Err::<(), _>(refused()))));
    let fails = || ready(Err::<(), _>(refused()));
    let mut calls: [&mut dyn FnMut(); 5] = [
        &mut || drop(circuit.call(fails()).now_or_never().expect("the call ends at once")),
        &mut || circuit.record(FAILURE),
        &mut || drop(circuit.call_blocking(|| Err::<(), _>(refused()))),
        &mut || drop(circuit.try_acquire().map(|permit| permit.record(FAILURE))),
        &mut || drop(call_once(&mut service, ())),
    ];
    for (number, call) in calls.iter_mut().enumerate() {
        (0..9).for_each(|_| in_retry(&mut *call));
        assert_eq!(circuit.status().consecutive_failures, 0, "call {number} in the scope");
        (0..3).for_each(|_| call());
        assert_eq!(state(&circuit), CircuitState::Open, "call {number} after the scope");
        circuit.reset().unwrap();
    }
}

#[tokio::test]
async fn call_within_that_times_out_in_retry_scope_does_not_count() {
    let (circuit, _) = circuit(three_in_a_row());
    for (is_retry, failures) in [(true, 0), (false, 1)] {
        let mut call = task::spawn(circuit.call_within(Duration::ZERO, pending::<io::Result<()>>()));
        let first = if is_retry { in_retry(|| call.poll()) } else { call.poll() };
        // The time may end later, when the retry layer polls again.
        let timed_out = if first.is_ready() { first } else { Poll::Ready(call.await) };
        assert!(matches!(timed_out, Poll::Ready(Err(BreakerError::TimedOut(_)))));
        assert_eq!(circuit.status().consecutive_failures, failures);
    }
}

#[test]
fn tracked_body_of_retry_that_fails_later_does_not_count() {
    let (circuit, _) = circuit(three_in_a_row());
    let mut service = BreakerLayer::<_, _>::with_circuit(circuit.clone())
        .track_body()
        .layer(service_fn(|()| ready(Ok::<_, io::Error>(http::Response::new(Breaks)))));
    let mut send = || call_once(&mut service, ()).expect("the head arrives").into_body();
    let retries: Vec<_> = (0..3).map(|_| in_retry(&mut send)).collect();
    let others: Vec<_> = (0..3).map(|_| send()).collect();
    for (bodies, expected) in [(retries, CircuitState::Closed), (others, CircuitState::Open)] {
        for body in bodies {
            let frame = Box::pin(body.collect()).now_or_never().expect("the body ends at once");
            assert!(frame.is_err());
        }
        assert_eq!(state(&circuit), expected);
    }
}

/// A body that breaks immediately.
struct Breaks;

impl Body for Breaks {
    type Data = &'static [u8];
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, io::Error>>> {
        Poll::Ready(Some(Err(io::ErrorKind::ConnectionReset.into())))
    }
}

/// A service that is never ready.
#[derive(Clone)]
struct NeverReady;

impl Service<()> for NeverReady {
    type Response = ();
    type Error = io::Error;
    type Future = Ready<io::Result<()>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }

    fn call(&mut self, (): ()) -> Self::Future {
        unreachable!("the service is never ready")
    }
}

#[test]
fn retry_that_is_cancelled_while_it_waits_does_not_count_as_failure() {
    let (circuit, _) = circuit(three_in_a_row().cancelled(CancelledPolicy::Failure));
    let layer: BreakerLayer = BreakerLayer::with_circuit(circuit.clone());
    for (is_retry, failures) in [(true, 0), (false, 1)] {
        let mut service = layer.layer(NeverReady);
        let mut poll = || service.poll_ready(&mut Context::from_waker(Waker::noop()));
        assert!(if is_retry { in_retry(poll) } else { poll() }.is_pending());
        drop(service);
        assert_eq!(circuit.status().consecutive_failures, failures, "retry: {is_retry}");
    }
}

#[tokio::test]
async fn retry_reserved_in_slow_start_does_not_count() {
    let (circuit, time) = circuit(three_in_a_row().slow_start_successes(10));
    circuit.trip().unwrap();
    time.advance(OPEN_FOR);
    assert!(send(&circuit, Verdict::Success) && send(&circuit, Verdict::Success));
    let layer: BreakerLayer = BreakerLayer::with_circuit(circuit.clone()).not_ready_when_open();
    let mut service = layer.layer(service_fn(|()| ready(Err::<(), _>(refused()))));
    for (is_retry, failures) in [(true, 0), (false, 1)] {
        let mut call = || drop(call_once(&mut service, ()).unwrap_err());
        if is_retry {
            in_retry(call);
        } else {
            call();
        }
        assert_eq!(circuit.status().consecutive_failures, failures, "retry: {is_retry}");
    }
}

#[test]
fn mark_of_retry_leaves_its_times_correct_at_end_of_clock() {
    let limits = three_in_a_row().slow_call_rate(Duration::from_secs(1), 1.0).minimum_calls(1);
    let (circuit, time) = circuit(limits.slow_start_successes(5).open_for(Duration::from_millis(1)));
    // The circuit opens shortly before the end, so that its open time ends in time.
    time.set(Duration::from_nanos((1 << 63) - 1_000_000_000));
    circuit.trip().unwrap();
    time.set(Duration::MAX);
    for _ in 0..7 {
        let permit = circuit.try_acquire().expect("the slot is free").retry();
        permit.record(Verdict::Success);
    }
    let status = circuit.status();
    assert_eq!((status.state, status.slow_start, status.window.slow), (CircuitState::Closed, None, 0));
}

/// The calls of a history.
#[derive(Clone, Copy, Debug)]
enum Step {
    Begin { is_retry: bool },
    End { which: usize, verdict: Verdict },
    Pass(Duration),
}

fn step() -> impl Strategy<Value = Step> {
    let verdict = prop::sample::select(vec![Verdict::Success, FAILURE, FAILURE, NEUTRAL]);
    prop_oneof![
        4 => any::<bool>().prop_map(|is_retry| Step::Begin { is_retry }),
        4 => (any::<usize>(), verdict).prop_map(|(which, verdict)| Step::End { which, verdict }),
        2 => (0..20_u64).prop_map(|tenths| Step::Pass(Duration::from_millis(100 * tenths))),
    ]
}

fn limits() -> impl Strategy<Value = BreakerConfigBuilder> {
    let rate = || prop::option::of(prop::sample::select(vec![0.3, 0.5, 1.0]));
    let run = (0..5_u32, prop::sample::select(vec![Duration::ZERO, Duration::from_millis(1_500)]));
    (run, rate(), rate(), 1..6_u32, any::<bool>()).prop_map(|((run, span), rate, slow, minimum, by_count)| {
        let config = config().consecutive_failures(run).consecutive_failures_span(span);
        let config = config.failure_rate(rate).minimum_calls(minimum);
        let config = if by_count { config.count_window(8) } else { config };
        match slow {
            Some(slow) => config.slow_call_rate(Duration::from_secs(1), slow),
            None => config,
        }
    })
}

/// Applies a history to two circuits until one of them opens. The first one gets all calls, and
/// knows the retries. The second one knows no retries, and the failed retries are cancelled there
/// before they begin. Both must agree after each step.
fn assert_equal_without_failed_retries<R: CircuitRef>(
    (all, others): (&Circuit<R>, &Circuit<R>),
    time: &ManualClock,
    steps: &[Step],
) -> Result<(), TestCaseError> {
    let mut running = Vec::new();
    for step in steps {
        match *step {
            Step::Pass(by) => time.advance(by),
            Step::Begin { is_retry } => {
                let permit = all.try_acquire().unwrap();
                let permit = if is_retry { permit.retry() } else { permit };
                running.push((permit, others.try_acquire().unwrap(), is_retry));
            }
            Step::End { .. } if running.is_empty() => {}
            Step::End { which, verdict } => {
                let (permit, other, is_retry) = running.swap_remove(which % running.len());
                permit.record(verdict);
                if is_retry && verdict == FAILURE { other.cancel() } else { other.record(verdict) }
            }
        }
        let [all, others] = [all, others].map(Circuit::status);
        prop_assert_eq!((all.state, all.window), (others.state, others.window));
        prop_assert_eq!(all.consecutive_failures, others.consecutive_failures);
        if all.state != CircuitState::Closed {
            prop_assert_eq!(all.last_trip.unwrap().reason, others.last_trip.unwrap().reason);
            break;
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn closed_circuit_behaves_as_if_failed_retries_were_not_sent(
        limits in limits(),
        steps in vec(step(), 1..100),
    ) {
        let (clock, time) = Clock::manual();
        time.set(Duration::from_secs(1_000));
        let limits = limits.clock(clock);
        let configs = [false, true].map(|count| limits.clone().count_failed_retries(count).build().unwrap());
        let [all, others] = configs.clone().map(Circuit::new);
        assert_equal_without_failed_retries((&all, &others), &time, &steps)?;
        if configs[0].count_window().is_some() {
            // Keyed circuits have time windows only.
            return Ok(());
        }
        let [all, others] = configs.map(|config| {
            let config = KeyedConfig::builder(config).build().unwrap();
            KeyedBreakerLayer::<_, _>::new(config, |key: &u64| *key).circuits().get_or_insert(7).unwrap()
        });
        assert_equal_without_failed_retries((&all, &others), &time, &steps)?;
    }
}
