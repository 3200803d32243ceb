//! A slow start by successes limits the concurrent calls; each success admits one more.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use tokio_test::{assert_pending, assert_ready_ok};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_breaker::{
    BreakerConfig, BreakerConfigBuilder, BreakerError, BreakerLayer, Circuit, CircuitState, Clock,
    HealthReport, ManualClock, Mode, Permit, Verdict,
};
use tower_test::mock::Spawn;

use crate::support::{FAILURE, NEUTRAL, OPEN_FOR, SECOND, circuit, config, refused, send, timed};

/// Returns a configuration whose slow start ends after this number of successes.
fn successes(number: u32) -> BreakerConfigBuilder {
    config().probes(1).successes_to_close(1).slow_start_successes(number)
}

/// Opens the circuit, and closes it with a probe.
fn recover(circuit: &Circuit) {
    circuit.report(HealthReport::Critical);
    circuit.report(HealthReport::Recovered);
    circuit.try_acquire().expect("the probe must be admitted").record(Verdict::Success);
    assert_eq!(circuit.status().slow_start, Some(0.0));
}

fn in_slow_start(config: BreakerConfigBuilder) -> (Circuit, ManualClock) {
    let (circuit, time) = circuit(config);
    recover(&circuit);
    (circuit, time)
}

/// Acquires permits until the circuit rejects a call.
fn acquire_all(circuit: &Circuit) -> Vec<Permit> {
    // The bound ends the test if every call is admitted.
    (0..100).map_while(|_| circuit.try_acquire().ok()).collect()
}

#[test]
fn each_success_admits_one_more_concurrent_call() {
    let (circuit, _time) = in_slow_start(successes(7));
    for limit in [1, 2, 4] {
        let permits = acquire_all(&circuit);
        assert_eq!(permits.len(), limit);
        for permit in permits {
            permit.record(Verdict::Success);
        }
    }
    assert_eq!(circuit.status().slow_start, None);
    assert_eq!(acquire_all(&circuit).len(), 100, "all calls are admitted after seven successes");
}

#[test]
fn rejection_over_limit_has_a_short_retry_after() {
    let (circuit, time) = in_slow_start(successes(7).probe_lease(10 * SECOND));
    let _permit = circuit.try_acquire().unwrap();
    for (passed, retry_after) in [(0, 1_000), (9_300, 700)] {
        time.advance(Duration::from_millis(passed));
        let rejection = circuit.try_acquire().unwrap_err();
        assert_eq!(rejection.state(), CircuitState::Closed);
        assert_eq!(rejection.retry_after(), Some(Duration::from_millis(retry_after)));
        assert!(rejection.to_string().contains("is in slow start"), "{rejection}");
    }
}

#[test]
fn permit_of_slow_start_frees_its_slot_however_it_ends() {
    type End = fn(&Circuit, Permit);
    let ends: [End; 5] = [
        |_, permit| permit.record(FAILURE),
        |_, permit| permit.record(NEUTRAL),
        |_, permit| drop(permit),
        |_, permit| permit.cancel(),
        |_, permit| {
            let panic = catch_unwind(AssertUnwindSafe(|| {
                let _permit = permit;
                panic!("a call that panics");
            }));
            panic.unwrap_err();
        },
    ];
    for (number, end) in ends.into_iter().enumerate() {
        let (circuit, _time) = in_slow_start(successes(7));
        assert!(send(&circuit, Verdict::Success));
        let mut permits = acquire_all(&circuit);
        assert_eq!(permits.len(), 2);
        end(&circuit, permits.remove(0));
        assert_eq!(acquire_all(&circuit).len(), 1, "end {number}");
        assert_eq!(circuit.status().slow_start, Some(1.0 / 7.0), "end {number}");
    }
}

#[test]
fn leaked_permit_blocks_no_longer_than_its_lease() {
    let (circuit, time) = in_slow_start(successes(7).probe_lease(10 * SECOND));
    std::mem::forget(circuit.try_acquire().unwrap());
    assert!(circuit.try_acquire().is_err());
    time.advance(10 * SECOND);
    assert!(send(&circuit, Verdict::Success));
    assert_eq!(acquire_all(&circuit).len(), 2);
}

#[test]
fn transition_ends_slow_start_by_successes() {
    type Operation = fn(&Circuit);
    let operations: [(Operation, CircuitState); 4] = [
        (|circuit| circuit.reset().unwrap(), CircuitState::Closed),
        (|circuit| circuit.force_closed().unwrap(), CircuitState::ForcedClosed),
        (|circuit| circuit.force_open().unwrap(), CircuitState::ForcedOpen),
        (|circuit| circuit.report(HealthReport::Critical), CircuitState::Open),
    ];
    for (operation, state) in operations {
        let (circuit, _time) = in_slow_start(successes(7));
        let permit = circuit.try_acquire().unwrap();
        operation(&circuit);
        permit.record(Verdict::Success);
        let status = circuit.status();
        assert_eq!((status.state, status.slow_start), (state, None));
    }
}

#[test]
fn reconfigured_slow_start_applies_from_next_closing() {
    let (clock, time) = Clock::manual();
    let circuit = Circuit::new(successes(4).clock(clock).build().unwrap());
    recover(&circuit);
    let permit = circuit.try_acquire().unwrap();
    circuit.reconfigure(successes(100).probe_lease(SECOND).clock(clock).build().unwrap()).unwrap();
    time.advance(2 * SECOND);
    assert!(circuit.try_acquire().is_err(), "the slow start keeps its lease");
    permit.record(Verdict::Success);
    assert_eq!(circuit.status().slow_start, Some(0.25), "the slow start keeps its number of successes");
    recover(&circuit);
    assert!(send(&circuit, Verdict::Success));
    assert_eq!(circuit.status().slow_start, Some(0.01));
    circuit.reconfigure(config().clock(clock).build().unwrap()).unwrap();
    assert!(circuit.status().slow_start.is_some(), "the slow start goes on without the setting");
}

#[test]
fn observe_only_admits_calls_over_limit_without_slots() {
    let (circuit, _time) = in_slow_start(successes(4).mode(Mode::ObserveOnly));
    let mut permits: Vec<_> = (0..10).map(|_| circuit.try_acquire().unwrap()).collect();
    permits.drain(1..).for_each(|uncounted| uncounted.record(Verdict::Success));
    assert_eq!((circuit.status().slow_start, circuit.status().window.calls), (Some(0.0), 0));
    permits.remove(0).record(Verdict::Success);
    assert_eq!((circuit.status().slow_start, circuit.status().window.calls), (Some(0.25), 1));
}

#[test]
fn concurrent_threads_never_exceed_limit() {
    const SUCCESSES: usize = 400;

    let (config, _time) = timed(successes(SUCCESSES as u32));
    let circuit = Circuit::new(config);
    recover(&circuit);
    let (running, succeeded) = (AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        for number in 0..8_usize {
            let (circuit, running, succeeded) = (circuit.clone(), &running, &succeeded);
            scope.spawn(move || {
                // The bound ends the test if the slow start does not end.
                for call in number..number + 1_000_000 {
                    if succeeded.load(Ordering::SeqCst) >= SUCCESSES {
                        break;
                    }
                    let Ok(permit) = circuit.try_acquire() else { continue };
                    let concurrent = running.fetch_add(1, Ordering::SeqCst) + 1;
                    // Read after the call is counted: the limit is not lower than at the admission.
                    let limit = 1 + succeeded.load(Ordering::SeqCst);
                    assert!(concurrent <= limit || limit > SUCCESSES, "{concurrent} calls, limit {limit}");
                    thread::yield_now();
                    running.fetch_sub(1, Ordering::SeqCst);
                    match call % 3 {
                        0 => permit.cancel(),
                        1 => permit.record(NEUTRAL),
                        _ => {
                            succeeded.fetch_add(1, Ordering::SeqCst);
                            permit.record(Verdict::Success);
                        }
                    }
                }
            });
        }
    });
    assert_eq!(circuit.status().slow_start, None);
}

/// Counts the calls of a server.
#[derive(Debug, Default)]
struct Load {
    running: AtomicUsize,
    most: AtomicUsize,
    succeeded: AtomicUsize,
}

fn layer(number: u32) -> BreakerLayer {
    let config = successes(number).clock(Clock::tokio()).open_for(OPEN_FOR);
    BreakerLayer::new(config.build().unwrap()).not_ready_when_open()
}

#[tokio::test(start_paused = true)]
async fn backlog_of_a_thousand_tasks_never_exceeds_limit() {
    const SUCCESSES: usize = 100;

    let layer = layer(SUCCESSES as u32);
    let circuit = layer.circuit();
    circuit.trip().unwrap();
    let load = Arc::new(Load::default());
    let server_load = Arc::clone(&load);
    let server = service_fn(move |task: u64| {
        let load = Arc::clone(&server_load);
        async move {
            let running = load.running.fetch_add(1, Ordering::Relaxed) + 1;
            load.most.fetch_max(running, Ordering::Relaxed);
            // The first success is that of the probe, which is also a single call.
            let succeeded = load.succeeded.load(Ordering::Relaxed);
            let limit = succeeded.max(1);
            assert!(running <= limit || succeeded > SUCCESSES, "{running} calls, limit {limit}");
            sleep(Duration::from_millis(5 + task % 7)).await;
            load.running.fetch_sub(1, Ordering::Relaxed);
            // Some calls fail, but never five in a row.
            if task % 4 == 1 {
                return Err(refused());
            }
            load.succeeded.fetch_add(1, Ordering::Relaxed);
            Ok(())
        }
    });
    let began = Instant::now();
    let tasks: Vec<_> = (0..1_000)
        .map(|task| {
            let mut service = layer.layer(server.clone());
            tokio::spawn(async move { service.ready().await.unwrap().call(task).await })
        })
        .collect();
    for task in tasks {
        match timeout(OPEN_FOR * 2, task).await.expect("every waiting task must be woken").unwrap() {
            Ok(()) | Err(BreakerError::Inner(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!((circuit.status().state, circuit.status().slow_start), (CircuitState::Closed, None));
    assert!(load.most.load(Ordering::Relaxed) > SUCCESSES, "all other calls begin after the slow start");
    // The limit doubles about every 10 ms.
    assert!(began.elapsed() < OPEN_FOR + SECOND, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn waiting_service_is_woken_when_a_slot_becomes_free() {
    type End = fn(Permit);
    let layer = layer(7);
    let circuit = layer.circuit();
    let service = service_fn(async |()| Ok::<_, std::io::Error>(()));
    let spawn = || Spawn::new(layer.layer(service));
    recover(&circuit);
    let ends: [(End, usize); 4] = [
        (|permit| permit.record(FAILURE), 1),
        (|permit| drop(permit), 1),
        (|permit| permit.cancel(), 1),
        (|permit| permit.record(Verdict::Success), 2),
    ];
    for (end, free) in ends {
        let permit = circuit.try_acquire().unwrap();
        let mut waiting = [spawn(), spawn(), spawn()];
        for service in &mut waiting {
            assert_pending!(service.poll_ready());
        }
        end(permit);
        assert!(waiting.iter().all(Spawn::is_woken));
        let ready =
            waiting.iter_mut().filter_map(|service| service.poll_ready().is_ready().then_some(service));
        assert_eq!(ready.count(), free);
    }
}

#[tokio::test(start_paused = true)]
async fn ready_service_holds_slot_until_called_or_dropped() {
    let layer = layer(7);
    let service = service_fn(async |()| Ok::<_, std::io::Error>(()));
    let spawn = || Spawn::new(layer.layer(service));
    recover(&layer.circuit());
    let (mut ready, mut waiting) = (spawn(), spawn());
    assert_ready_ok!(ready.poll_ready());
    assert_ready_ok!(ready.poll_ready(), "it keeps its slot");
    assert_pending!(waiting.poll_ready());
    drop(ready);
    assert!(waiting.is_woken());
    assert_ready_ok!(waiting.poll_ready());
    let mut other = spawn();
    assert_pending!(other.poll_ready());
    waiting.call(()).await.unwrap();
    assert!(other.is_woken());
    assert_ready_ok!(other.poll_ready());
}

#[tokio::test(start_paused = true)]
async fn waiting_service_takes_slot_of_hung_call_when_lease_ends() {
    let layer = layer(7);
    let circuit = layer.circuit();
    recover(&circuit);
    std::mem::forget(circuit.try_acquire().unwrap());
    let mut service = layer.layer(service_fn(async |()| Ok::<_, std::io::Error>(())));
    let began = Instant::now();
    let mut ready = pin!(service.ready());
    let service = timeout(2 * OPEN_FOR, &mut ready).await.expect("the timer must wake it").unwrap();
    assert!((OPEN_FOR..OPEN_FOR + SECOND).contains(&began.elapsed()), "{:?}", began.elapsed());
    service.call(()).await.unwrap();
    assert_eq!(circuit.status().slow_start, Some(1.0 / 7.0));
}

#[tokio::test(start_paused = true)]
async fn ready_service_whose_slot_was_taken_waits_again() {
    let layer = layer(7);
    let service = service_fn(async |()| Ok::<_, std::io::Error>(()));
    let mut ready = Spawn::new(layer.layer(service));
    recover(&layer.circuit());
    assert_ready_ok!(ready.poll_ready());
    tokio::time::advance(OPEN_FOR).await;
    let permit = layer.circuit().try_acquire().expect("the lease of the ready service has ended");
    assert_pending!(ready.poll_ready());
    permit.record(Verdict::Success);
    assert_ready_ok!(ready.poll_ready());
}

#[tokio::test]
async fn panicking_service_frees_its_slot() {
    let layer = BreakerLayer::new(BreakerConfig::clone(&timed(successes(7)).0));
    recover(&layer.circuit());
    let mut service = layer.layer(service_fn(|panics: bool| async move {
        assert!(!panics, "the call panics");
        Ok::<_, std::io::Error>(())
    }));
    for _ in 0..3 {
        let call = service.ready().await.unwrap().call(true);
        assert!(tokio::spawn(call).await.unwrap_err().is_panic());
    }
    service.ready().await.unwrap().call(false).await.unwrap();
    assert_eq!(layer.circuit().status().slow_start, Some(1.0 / 7.0));
}

#[test]
fn slow_success_frees_its_slot_and_adds_none() {
    let (circuit, time) = in_slow_start(successes(7).slow_call_rate(SECOND, 1.0));
    for millis in [1_000, 999] {
        let permit = circuit.try_acquire().unwrap();
        time.advance(Duration::from_millis(millis));
        permit.record(Verdict::Success);
    }
    assert_eq!(circuit.status().slow_start, Some(1.0 / 7.0));
    assert_eq!(acquire_all(&circuit).len(), 2);
}
