//! Waiting for a circuit: `Circuit::ready` and `Circuit::acquire`.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use tokio::time::{Instant, advance, sleep, timeout};
use tokio_test::{assert_pending, assert_ready, task};
use tower_breaker::handle::{Acquire, Ready};
use tower_breaker::keyed::{KeyedCircuits, KeyedConfig, Overflow};
use tower_breaker::{
    BreakerConfigBuilder, Circuit, CircuitState, Clock, HealthReport, Mode, Reason, Verdict,
};

use crate::support::{FAILURE, NEUTRAL, OPEN_FOR, SECOND, send, state};

/// A timer of tokio fires at most this much later.
const SLACK: Duration = Duration::from_millis(3);

fn config() -> BreakerConfigBuilder {
    crate::support::config().clock(Clock::tokio()).probes(1).successes_to_close(1)
}

fn circuit(config: BreakerConfigBuilder) -> Circuit {
    Circuit::new(config.build().unwrap())
}

fn half_open(config: BreakerConfigBuilder) -> Circuit {
    let circuit = circuit(config);
    circuit.trip().unwrap();
    circuit.probe_now().unwrap();
    circuit
}

/// Returns how long a future takes.
async fn elapsed<T>(future: impl Future<Output = T>) -> Duration {
    let began = Instant::now();
    future.await;
    began.elapsed()
}

/// Asserts that the future resolves after this time, and not before.
async fn assert_resolves_after(time: Duration, future: impl Future) {
    let took = elapsed(future).await;
    assert!((time..=time + SLACK).contains(&took), "{took:?}, not {time:?}");
}

#[test]
fn admitting_circuit_resolves_waits_immediately_without_runtime() {
    let admitting: [fn(&Circuit); 4] = [
        |_| {},
        |circuit| circuit.force_closed().unwrap(),
        |circuit| circuit.force_closed_for(SECOND).unwrap(),
        |circuit| circuit.reconfigure(config().mode(Mode::Disabled).build().unwrap()).unwrap(),
    ];
    for admit in admitting {
        let circuit = circuit(config());
        admit(&circuit);
        assert_ready!(task::spawn(circuit.ready()).poll());
        assert_ready!(task::spawn(circuit.acquire()).poll()).cancel();
    }
}

#[test]
fn observed_circuit_resolves_waits_while_open() {
    let circuit = circuit(config().mode(Mode::ObserveOnly));
    circuit.trip().unwrap();
    assert_ready!(task::spawn(circuit.ready()).poll());
    assert_ready!(task::spawn(circuit.acquire()).poll()).record(Verdict::Success);
    assert_eq!(state(&circuit), CircuitState::Open, "the call is not counted");
}

#[tokio::test(start_paused = true)]
async fn acquire_waits_until_open_time_ends() {
    let circuit = circuit(config());
    circuit.trip().unwrap();
    let began = Instant::now();
    let permit = circuit.acquire().await;
    assert!((OPEN_FOR..=OPEN_FOR + SLACK).contains(&began.elapsed()), "{:?}", began.elapsed());
    assert_eq!(state(&circuit), CircuitState::HalfOpen);
    permit.record(Verdict::Success);
    assert_eq!(state(&circuit), CircuitState::Closed);
    assert_eq!(circuit.status().rejected_calls, 0, "a wait is no rejection");
}

#[tokio::test(start_paused = true)]
async fn ready_waits_until_open_time_ends_and_changes_nothing() {
    let circuit = circuit(config());
    circuit.trip().unwrap();
    assert_resolves_after(OPEN_FOR, circuit.ready()).await;
    assert_eq!(state(&circuit), CircuitState::Open, "the next call is the probe");
    assert_resolves_after(Duration::ZERO, circuit.ready()).await;
    assert!(send(&circuit, Verdict::Success));
}

#[tokio::test(start_paused = true)]
async fn waits_follow_changed_open_time() {
    let circuit = circuit(config());
    circuit.trip().unwrap();
    let (mut acquire, mut ready) = (task::spawn(circuit.acquire()), task::spawn(circuit.ready()));
    assert_pending!(acquire.poll());
    assert_pending!(ready.poll());
    circuit.trip_for(SECOND).unwrap();
    assert!(acquire.is_woken() && ready.is_woken());
    circuit.trip_for(60 * SECOND).unwrap();
    assert!(timeout(59 * SECOND, &mut *ready).await.is_err(), "the open time is longer now");
    assert_resolves_after(SECOND, &mut *ready).await;
    assert_resolves_after(Duration::ZERO, &mut *acquire).await;
}

#[tokio::test(start_paused = true)]
async fn acquire_waits_for_end_of_forced_open() {
    let circuit = circuit(config());
    circuit.force_open_for(7 * SECOND).unwrap();
    assert_resolves_after(7 * SECOND, circuit.ready()).await;
    assert_eq!(state(&circuit), CircuitState::ForcedOpen);
    drop(circuit.acquire().await);
    assert_eq!(circuit.status().last_transition.unwrap().reason, Reason::OverrideEnded);
}

#[tokio::test(start_paused = true)]
async fn waits_have_no_timer_until_reset_or_release() {
    let circuit = circuit(config().open_until_reset(true));
    circuit.trip().unwrap();
    let year = Duration::from_secs(365 * 86_400);
    assert!(timeout(year, circuit.acquire()).await.is_err());
    assert!(timeout(year, circuit.ready()).await.is_err());
    circuit.force_open().unwrap();
    assert!(timeout(year, circuit.acquire()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn waits_are_woken_by_control_health_report_and_reconfiguration() {
    type Operation = fn(&Circuit);
    let operations: [(Operation, Operation); 6] = [
        (|circuit| circuit.trip().unwrap(), |circuit| circuit.reset().unwrap()),
        (|circuit| circuit.trip().unwrap(), |circuit| circuit.report(HealthReport::Recovered)),
        (|circuit| circuit.force_open().unwrap(), Circuit::release),
        (|circuit| circuit.force_open().unwrap(), |circuit| circuit.force_closed().unwrap()),
        (
            |circuit| circuit.trip().unwrap(),
            |circuit| circuit.reconfigure(config().mode(Mode::Disabled).build().unwrap()).unwrap(),
        ),
        (
            |circuit| circuit.force_open().unwrap(),
            |circuit| circuit.reconfigure(config().mode(Mode::ObserveOnly).build().unwrap()).unwrap(),
        ),
    ];
    for (number, (reject_calls, admit_calls)) in operations.into_iter().enumerate() {
        let circuit = circuit(config().open_until_reset(true));
        reject_calls(&circuit);
        let (mut acquire, mut ready) = (task::spawn(circuit.acquire()), task::spawn(circuit.ready()));
        assert_pending!(acquire.poll());
        assert_pending!(ready.poll());
        assert!(!acquire.is_woken() && !ready.is_woken());
        admit_calls(&circuit);
        assert!(acquire.is_woken() && ready.is_woken(), "operation {number}");
        assert_ready!(ready.poll());
        assert_ready!(acquire.poll()).cancel();
    }
}

#[tokio::test(start_paused = true)]
async fn free_slot_wakes_one_task_in_order() {
    let circuit = half_open(config());
    let probe = circuit.try_acquire().unwrap();
    let mut tasks: Vec<_> = (0..5).map(|_| task::spawn(circuit.acquire())).collect();
    for task in &mut tasks {
        assert_pending!(task.poll());
    }
    probe.record(NEUTRAL);
    let woken = |tasks: &[task::Spawn<Acquire>]| tasks.iter().map(task::Spawn::is_woken).collect::<Vec<_>>();
    assert_eq!(woken(&tasks), [true, false, false, false, false]);

    // Another call takes the slot first. The woken task keeps its turn.
    let probe = circuit.try_acquire().unwrap();
    assert_pending!(tasks[0].poll());
    probe.record(NEUTRAL);
    assert_eq!(woken(&tasks), [true, false, false, false, false]);

    let probe = assert_ready!(tasks[0].poll());
    assert_eq!(woken(&tasks[1..]), [true, false, false, false], "it passes on, as a slot may be free");
    assert_pending!(tasks[1].poll());
    probe.record(Verdict::Success);
    assert_eq!(woken(&tasks[1..]), [true; 4], "the circuit is closed");
}

#[tokio::test(start_paused = true)]
async fn dropped_task_passes_its_wake_on() {
    let circuit = half_open(config());
    let probe = circuit.try_acquire().unwrap();
    let mut first = task::spawn(circuit.acquire());
    let mut second = task::spawn(circuit.acquire());
    assert_pending!(first.poll());
    assert_pending!(second.poll());
    probe.record(NEUTRAL);
    assert!(first.is_woken() && !second.is_woken());
    drop(first);
    assert!(second.is_woken());
    assert_ready!(second.poll()).cancel();
}

#[tokio::test(start_paused = true)]
async fn ready_task_leaves_the_slot_to_the_next_task() {
    let circuit = half_open(config());
    let probe = circuit.try_acquire().unwrap();
    let mut ready = task::spawn(circuit.ready());
    let mut acquire = task::spawn(circuit.acquire());
    assert_pending!(ready.poll());
    assert_pending!(acquire.poll());
    probe.record(NEUTRAL);
    assert_ready!(ready.poll());
    assert!(acquire.is_woken());
    assert_ready!(acquire.poll()).cancel();
}

#[tokio::test(start_paused = true)]
async fn dropped_wait_removes_its_waker() {
    struct NoWake;

    impl Wake for NoWake {
        fn wake(self: Arc<Self>) {}
    }

    let circuit = circuit(config());
    circuit.force_open().unwrap();
    let owner = Arc::new(NoWake);
    let waker = Waker::from(Arc::clone(&owner));
    let mut waits: Vec<_> =
        (0..3).map(|_| (Box::pin(circuit.acquire()), Box::pin(circuit.ready()))).collect();
    for (acquire, ready) in &mut waits {
        let mut cx = Context::from_waker(&waker);
        assert!(acquire.as_mut().poll(&mut cx).is_pending() && ready.as_mut().poll(&mut cx).is_pending());
    }
    assert_eq!(Arc::strong_count(&owner), 8, "each wait is registered");
    drop(waits);
    assert_eq!(Arc::strong_count(&owner), 2);
}

#[tokio::test(start_paused = true)]
async fn cancelled_wait_takes_no_slot() {
    let circuit = half_open(config());
    let probe = circuit.try_acquire().unwrap();
    assert!(timeout(SECOND, circuit.acquire()).await.is_err());
    drop(circuit.acquire());
    probe.record(NEUTRAL);
    assert_eq!(circuit.status().half_open.unwrap().running_probes, 0);
    assert_eq!(circuit.status().window.cancelled, 0);
}

#[tokio::test(start_paused = true)]
async fn acquire_takes_slot_when_lease_ends() {
    let circuit = half_open(config().probe_lease(5 * SECOND));
    let _hanging = circuit.try_acquire().unwrap();
    advance(SECOND).await;
    assert_resolves_after(4 * SECOND, circuit.ready()).await;
    assert_resolves_after(Duration::ZERO, circuit.acquire()).await;
}

#[tokio::test(start_paused = true)]
async fn acquire_waits_again_if_probe_fails() {
    let circuit = half_open(config());
    let probe = circuit.try_acquire().unwrap();
    let waiting = tokio::spawn({
        let circuit = circuit.clone();
        async move { elapsed(circuit.acquire()).await }
    });
    sleep(SECOND).await;
    probe.record(FAILURE);
    let took = waiting.await.unwrap();
    assert!((OPEN_FOR + SECOND..=OPEN_FOR + SECOND + SLACK).contains(&took), "{took:?}");
}

/// Calls through the circuit until each task has made one call. Returns the most calls that ran at
/// the same time while the circuit was half-open.
async fn run_tasks(circuit: &Circuit, tasks: usize) -> usize {
    let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let handles: Vec<_> = (0..tasks)
        .map(|_| {
            let (circuit, running, most) = (circuit.clone(), Arc::clone(&running), Arc::clone(&most));
            tokio::spawn(async move {
                let permit = circuit.acquire().await;
                let concurrent = running.fetch_add(1, Ordering::Relaxed) + 1;
                if circuit.status().state == CircuitState::HalfOpen {
                    most.fetch_max(concurrent, Ordering::Relaxed);
                }
                sleep(Duration::from_millis(1)).await;
                running.fetch_sub(1, Ordering::Relaxed);
                permit.record(Verdict::Success);
            })
        })
        .collect();
    for handle in handles {
        timeout(100 * OPEN_FOR, handle).await.expect("every task is admitted").unwrap();
    }
    most.load(Ordering::Relaxed)
}

#[tokio::test(start_paused = true)]
async fn thousand_tasks_are_admitted_with_as_many_probes_as_slots() {
    for probes in [1, 3] {
        let circuit = circuit(config().probes(probes).successes_to_close(800).probe_lease(600 * SECOND));
        circuit.trip().unwrap();
        let began = Instant::now();
        assert_eq!(run_tasks(&circuit, 1_000).await, probes as usize);
        assert_eq!(state(&circuit), CircuitState::Closed);
        // Far below a lease: no task had to wait for its timer.
        assert!(began.elapsed() < OPEN_FOR + 10 * SECOND, "{:?}", began.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn slow_start_by_successes_admits_waiting_tasks() {
    let circuit = circuit(config().slow_start_successes(100).probe_lease(600 * SECOND));
    circuit.trip().unwrap();
    let began = Instant::now();
    run_tasks(&circuit, 1_000).await;
    assert_eq!(circuit.status().slow_start, None);
    assert!(began.elapsed() < OPEN_FOR + 10 * SECOND, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn slow_start_by_time_admits_waiting_tasks_before_it_ends() {
    let circuit = circuit(config().slow_start(160 * SECOND));
    circuit.trip().unwrap();
    circuit.acquire().await.record(Verdict::Success);
    assert_eq!(circuit.status().slow_start, Some(0.0));
    circuit.acquire().await.record(Verdict::Success);
    let took = elapsed(circuit.ready()).await;
    assert!(took > SECOND && took < 160 * SECOND, "{took:?}");
    assert!(send(&circuit, Verdict::Success), "the call after `ready` is admitted");
    let took = elapsed(run_tasks(&circuit, 10)).await;
    assert!(took < 160 * SECOND, "{took:?}");
}

fn keyed(max_keys: usize) -> KeyedCircuits<String> {
    let each = config().name("tenants").build().unwrap();
    let config = KeyedConfig::builder(each).max_keys(max_keys).overflow(Overflow::Unguarded).build().unwrap();
    KeyedCircuits::new(config)
}

#[tokio::test(start_paused = true)]
async fn acquire_waits_for_circuit_of_key() {
    let circuits = keyed(10);
    circuits.circuit("a").trip().unwrap();
    assert_resolves_after(Duration::ZERO, circuits.circuit("b").acquire()).await;
    assert_resolves_after(OPEN_FOR, circuits.circuit("a").ready()).await;
    let permit = circuits.circuit("a").acquire().await;
    assert!(circuits.try_acquire("a").is_err(), "the slot is taken");
    permit.record(Verdict::Success);
    assert!(circuits.try_acquire("a").is_ok());
}

#[tokio::test(start_paused = true)]
async fn waiting_task_keeps_circuit_of_key_from_eviction() {
    let circuits = keyed(1);
    circuits.circuit("a").trip().unwrap();
    let mut acquire = task::spawn(circuits.circuit("a").acquire());
    assert_pending!(acquire.poll());
    // An unused circuit can be evicted after twice its open time.
    advance(3 * OPEN_FOR).await;
    circuits.try_acquire("b").unwrap().record(Verdict::Success);
    assert!(circuits.get("a").is_some());
    drop(acquire);
    advance(SECOND).await;
    circuits.try_acquire("b").unwrap().record(Verdict::Success);
    assert!(circuits.get("a").is_none(), "without the wait it is evicted");
}

#[tokio::test(start_paused = true)]
async fn waiting_task_keeps_its_circuit_alive() {
    let circuit = circuit(config());
    circuit.trip().unwrap();
    let weak = circuit.downgrade();
    let acquire = circuit.acquire();
    drop(circuit);
    assert_resolves_after(OPEN_FOR, acquire).await;
    assert!(weak.upgrade().is_none());
}

#[tokio::test(start_paused = true)]
async fn wait_with_manual_clock_sees_the_advance_at_its_next_poll() {
    let (circuit, time) = crate::support::circuit(crate::support::config());
    circuit.trip().unwrap();
    let mut acquire = task::spawn(circuit.acquire());
    assert_pending!(acquire.poll());
    time.advance(OPEN_FOR);
    assert_ready!(acquire.poll()).cancel();
}

#[test]
fn wait_futures_are_send_and_have_debug_output() {
    fn check<T: Send + Sync + Unpin>(_: &T) {}

    let circuit = circuit(config().name("search"));
    let (acquire, ready): (Acquire, Ready) = (circuit.acquire(), circuit.ready());
    check(&acquire);
    check(&ready);
    assert_eq!(
        format!("{acquire:?}, {ready:?}"),
        r#"Acquire { circuit: "search", .. }, Ready { circuit: "search", .. }"#
    );
}
