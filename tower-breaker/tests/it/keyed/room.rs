//! The limit of keys: which circuits are kept, which are evicted, and how excess keys are handled.

use super::*;
use crate::support::refused;

#[test]
fn keys_over_max_keys_are_unguarded() {
    let bench = Bench::of(100);
    (0..100).for_each(|key| bench.fail(key, 1));
    bench.fail(100, 1_000);
    let circuits = &bench.circuits;
    assert_eq!((circuits.len(), circuits.circuits().len(), circuits.evicted()), (100, 100, 0));
    assert_eq!(circuits.overflowed(), 1_000, "calls, not keys");
    assert!(circuits.get(&100).is_none() && circuits.get_or_insert(100).is_none());
    assert!(circuits.overflow().is_none(), "there is no overflow circuit");
    bench.fail(5, 4);
    assert!(bench.is_rejected(5), "the keys with a circuit are still guarded");
}

#[test]
fn overflow_shared_puts_excess_keys_on_one_circuit() {
    let bench = Bench::new(config(), 2, Overflow::Shared);
    bench.fail(0, 1);
    bench.fail(1, 1);
    assert!(bench.circuits.overflow().is_none(), "it is created when it is first needed");
    (10..15).for_each(|key| bench.fail(key, 1));
    assert_eq!(bench.circuits.overflow().unwrap().status().state, CircuitState::Open);
    assert!((10..30).all(|key| bench.is_rejected(key)));
    assert_eq!((bench.circuits.overflowed(), bench.circuits.len()), (25, 2));
    bench.time.advance(OPEN_FOR);
    bench.fail(0, 1);
    bench.fail(1, 1);
    bench.succeed(40);
    bench.succeed(41);
    assert_eq!(bench.circuits.overflow().unwrap().status().state, CircuitState::Closed);
}

#[test]
fn excess_key_gets_circuit_when_one_can_be_evicted() {
    for overflow in [Overflow::Unguarded, Overflow::Shared] {
        let bench = Bench::new(config(), 2, overflow);
        bench.fail(0, 1);
        bench.fail(1, 1);
        bench.succeed(2);
        assert!(bench.circuits.get(&2).is_none());
        bench.time.advance(AFTER_WINDOW);
        bench.fail(2, 5);
        assert!(bench.is_rejected(2));
        assert_eq!(bench.state(2), CircuitState::Open);
        assert_eq!((bench.circuits.evicted(), bench.circuits.overflowed(), bench.circuits.len()), (1, 1, 2));
    }
}

#[test]
fn idle_closed_circuits_are_evicted() {
    let mut bench = Bench::of(100);
    for round in 1..=50 {
        bench.succeed_new_keys(100);
        bench.time.advance(AFTER_WINDOW);
        assert_eq!(bench.circuits.len(), 100);
        assert_eq!((bench.circuits.evicted(), bench.circuits.overflowed()), ((round - 1) * 100, 0));
    }
}

#[test]
fn circuit_with_recent_failure_is_not_evicted() {
    type Send = fn(&Bench);
    let outcomes: [(&str, Send); 3] = [
        ("a failure", |bench| bench.fail(0, 1)),
        ("a slow call", |bench| {
            let permit = bench.circuit(0).try_acquire().unwrap();
            bench.time.advance(2 * SECOND);
            permit.record(Verdict::Success);
        }),
        ("a cancelled call", |bench| drop(bench.circuit(0).try_acquire().unwrap())),
    ];
    for (name, send) in outcomes {
        let slow = config().slow_call_rate(SECOND, 1.0);
        let mut bench = Bench::new(slow, 1, Overflow::Unguarded);
        bench.circuits.get_or_insert(0).unwrap();
        send(&bench);
        bench.time.advance(5 * SECOND);
        bench.succeed_new_keys(100);
        assert!(bench.circuits.get(&0).is_some(), "{name}");
        bench.time.advance(7 * SECOND);
        bench.succeed_new_keys(1);
        assert!(bench.circuits.get(&0).is_none(), "{name}, more than two tenths of the window ago");
    }
}

#[test]
fn circuit_with_cancelled_calls_is_kept_in_flood() {
    let mut bench = Bench::of(4);
    for _ in 0..9 {
        drop(bench.circuits.get_or_insert(0).unwrap().try_acquire().unwrap());
        bench.succeed_new_keys(100);
    }
    bench.time.advance(SECOND);
    drop(bench.circuit(0).try_acquire().unwrap());
    let status = bench.circuit(0).status();
    assert_eq!((status.state, status.last_trip.unwrap().reason), (CircuitState::Open, Reason::NoneCompletes));
}

#[test]
fn circuit_with_only_neutral_calls_is_evicted() {
    let mut bench = Bench::of(1);
    for _ in 0..100 {
        bench.circuits.get_or_insert(0).unwrap().try_acquire().unwrap().record(NEUTRAL);
        bench.circuits.get_or_insert(1).expect("the other circuit can be evicted");
        assert_eq!(bench.circuits.len(), 1);
    }
    bench.succeed_new_keys(1);
    assert!(bench.circuits.get(&1).is_none());
}

#[test]
fn open_circuit_is_kept_for_twice_its_open_time() {
    let hint = Verdict::Fault(FAULT.with_retry_after(100 * SECOND));
    for (verdict, open_for) in [(FAILURE, OPEN_FOR), (hint, 100 * SECOND)] {
        for (late, kept) in [(false, true), (true, false)] {
            let mut bench = Bench::of(1);
            (0..5).for_each(|_| {
                bench.circuits.get_or_insert(0).unwrap().try_acquire().unwrap().record(verdict);
            });
            assert_eq!(bench.circuit(0).status().retry_after, Some(open_for));
            bench.time.advance(
                (2 * open_for)
                    .checked_sub(if late { Duration::ZERO } else { Duration::from_millis(1) })
                    .unwrap(),
            );
            bench.succeed_new_keys(10);
            assert_eq!(bench.circuits.get(&0).is_some(), kept, "{open_for:?}, late: {late}");
        }
    }
}

#[test]
fn half_open_circuit_is_kept_as_long_as_open_one() {
    for (left, kept) in [(1, true), (0, false)] {
        let mut bench = Bench::of(1);
        bench.fail(0, 5);
        bench.time.advance(OPEN_FOR);
        bench.succeed(0);
        assert_eq!(bench.state(0), CircuitState::HalfOpen);
        bench.time.advance(OPEN_FOR.checked_sub(left * Duration::from_millis(1)).unwrap());
        bench.succeed_new_keys(10);
        assert_eq!(bench.circuits.get(&0).is_some(), kept);
    }
}

#[test]
fn circuit_open_until_reset_is_never_evicted() {
    let mut bench = Bench::new(config().open_until_reset(true), 2, Overflow::Unguarded);
    bench.fail(0, 5);
    for _ in 0..10 {
        bench.time.advance(365 * 86_400 * SECOND);
        bench.succeed_new_keys(100);
        assert!(bench.is_rejected(0));
    }
}

#[test]
fn forced_circuit_is_never_evicted() {
    let mut bench = Bench::of(3);
    bench.circuits.get_or_insert(0).unwrap().force_open().unwrap();
    bench.circuits.get_or_insert(1).unwrap().force_closed().unwrap();
    for _ in 0..100 {
        bench.time.advance(365 * 86_400 * SECOND);
        bench.succeed_new_keys(100);
        assert!(bench.is_rejected(0));
    }
    bench.fail(1, 100);
    assert_eq!(bench.state(1), CircuitState::ForcedClosed);
    assert_eq!(bench.circuits.evicted(), 9_999, "all new keys used the one remaining place");
}

#[test]
fn circuit_forced_for_a_time_is_kept_until_its_override_ends() {
    type Operation = fn(&Bench, Duration);
    // What is done with the circuit, and how long it is kept after the end of the time.
    let operations: [(Operation, Duration); 3] = [
        (
            |bench, time| bench.circuits.get_or_insert(0).unwrap().force_closed_for(time).unwrap(),
            Duration::ZERO,
        ),
        (|bench, time| bench.circuits.get_or_insert(0).unwrap().force_open_for(time).unwrap(), OPEN_FOR),
        (|bench, time| bench.circuits.get_or_insert(0).unwrap().trip_for(time).unwrap(), 100 * SECOND),
    ];
    for (number, (operation, kept_for)) in operations.into_iter().enumerate() {
        for (millis_left, kept) in [(1, true), (0, false)] {
            let mut bench = Bench::of(1);
            operation(&bench, 100 * SECOND);
            let end = 100 * SECOND + kept_for;
            bench.time.advance(end.saturating_sub(Duration::from_millis(millis_left)));
            bench.succeed_new_keys(10);
            assert_eq!(bench.circuits.get(&0).is_some(), kept, "operation {number}");
        }
    }
}

#[test]
fn half_open_circuit_that_was_never_open_is_kept_for_its_open_time() {
    for (millis_left, kept) in [(1, true), (0, false)] {
        let mut bench = Bench::of(1);
        let circuit = bench.circuits.get_or_insert(0).unwrap();
        circuit.force_open().unwrap();
        circuit.release();
        drop(circuit);
        bench.time.advance(OPEN_FOR.saturating_sub(Duration::from_millis(millis_left)));
        bench.succeed_new_keys(10);
        assert_eq!(bench.circuits.get(&0).is_some(), kept);
    }
}

#[test]
fn circuit_with_running_call_is_never_evicted() {
    let mut bench = Bench::new(config().consecutive_failures(1), 2, Overflow::Unguarded);
    let permit = bench.circuits.get_or_insert(0).unwrap().try_acquire().unwrap();
    for _ in 0..10 {
        bench.time.advance(AFTER_WINDOW);
        bench.succeed_new_keys(100);
    }
    permit.record(FAILURE);
    assert!(bench.is_rejected(0), "the outcome is recorded in the circuit of the next call");
}

#[test]
fn circuit_with_pending_call_is_never_evicted() {
    let mut bench = Bench::new(config().cancelled(CancelledPolicy::Failure), 4, Overflow::Unguarded);
    let mut hangs = bench.layer.layer(service_fn(|_: Request| pending::<Result<(), io::Error>>()));
    let mut waits = bench.layer.layer(ConcurrencyLimit::new(service_fn(respond), 0));
    let mut hanging = task::spawn(hangs.call((0, false)));
    assert_pending!(hanging.poll());
    let mut waiting = task::spawn(waits.call((1, false)));
    assert_pending!(waiting.poll());
    let not_begun = hangs.call((2, false));
    for _ in 0..10 {
        bench.time.advance(AFTER_WINDOW);
        bench.succeed_new_keys(100);
    }
    assert!(bench.circuits.evicted() > 0, "the fourth circuit was evicted");
    assert!((0..3).all(|key| bench.circuits.get(&key).is_some()));
    drop((hanging, waiting));
    assert_eq!(bench.circuit(0).status().window.failures, 1);
    assert_eq!(bench.circuit(1).status().window.failures, 1);
    drop(not_begun);
    bench.time.advance(2 * AFTER_WINDOW);
    bench.fail_new_keys(4);
    assert!((0..3).all(|key| bench.circuits.get(&key).is_none()), "circuits without calls are evicted");
}

#[test]
fn reset_all_resets_what_idle_closed_circuits_keep() {
    let growing = config().open_backoff(2.0, 100 * OPEN_FOR).successes_to_close(1);
    let bench = Bench::new(growing, 10, Overflow::Shared);
    let circuit = bench.circuits.get_or_insert(0).unwrap();
    circuit.try_acquire().unwrap().fail(&refused(), "the call");
    circuit.trip().unwrap();
    bench.time.advance(OPEN_FOR);
    bench.succeed(0);
    bench.time.advance(29 * SECOND);
    let never_called = bench.circuits.get_or_insert(1).unwrap();
    bench.circuits.reset_all();
    assert!(circuit.status().last_failure.is_none());
    circuit.trip().unwrap();
    assert_eq!(circuit.status().retry_after, Some(OPEN_FOR), "the open time starts again");
    circuit.reset().unwrap();
    bench.circuits.reset_all();
    let epoch = |circuit: &KeyedCircuit<u64>| circuit.status().last_transition.map(|last| last.epoch);
    assert_eq!((epoch(&circuit), epoch(&never_called)), (Some(6), None), "nothing is left to reset");
}

#[test]
fn reset_all_clears_failures_older_than_window() {
    let bench = Bench::of(4);
    bench.fail(0, 4);
    bench.time.advance(AFTER_WINDOW);
    bench.circuits.reset_all();
    assert_eq!(bench.circuit(0).status().consecutive_failures, 0);
    bench.fail(0, 4);
    assert_eq!(bench.state(0), CircuitState::Closed);
}

#[test]
fn circuit_with_handle_is_never_evicted() {
    let mut bench = Bench::of(2);
    let handle = bench.circuits.get_or_insert(0).unwrap();
    let clone = handle.clone();
    drop(handle);
    for _ in 0..10 {
        bench.time.advance(AFTER_WINDOW);
        bench.succeed_new_keys(100);
    }
    clone.trip().unwrap();
    assert!(bench.is_rejected(0), "the handle refers to the circuit of the next call");
    drop(clone);
    bench.time.advance(2 * OPEN_FOR);
    bench.succeed_new_keys(10);
    assert!(bench.circuits.get(&0).is_none());
}

#[test]
fn circuits_with_handles_are_all_kept() {
    let mut bench = Bench::of(10);
    (0..10).for_each(|key| bench.succeed(key));
    let all = bench.circuits.circuits();
    bench.time.advance(AFTER_WINDOW);
    bench.succeed_new_keys(100);
    assert_eq!((bench.circuits.evicted(), bench.circuits.overflowed()), (0, 100));
    let keys: HashSet<_> = all.iter().map(|circuit| *circuit.key()).collect();
    assert_eq!(keys, (0..10).collect());
}

#[test]
fn flood_of_keys_keeps_history_of_live_circuit() {
    let mut bench = Bench::new(config().failure_rate(None), 100, Overflow::Unguarded);
    for _ in 0..200 {
        bench.time.advance(SECOND);
        bench.fail(0, 1);
        bench.succeed(0);
        bench.succeed_new_keys(500);
        assert_eq!(bench.circuits.len().max(100), 100);
    }
    assert!(bench.circuits.evicted() > 100, "circuits of other keys were evicted");
    let Counts { calls, failures, .. } = bench.circuit(0).status().window;
    assert!((118..=130).contains(&calls) && failures * 2 == calls, "{calls} calls, {failures} failures");

    bench.fail(0, 4);
    bench.succeed_new_keys(100_000);
    assert_eq!(bench.circuit(0).status().consecutive_failures, 4);
    bench.fail(0, 1);
    bench.succeed_new_keys(100_000);
    assert!(bench.is_rejected(0));
    bench.time.advance(OPEN_FOR);
    bench.succeed_new_keys(100_000);
    bench.succeed(0);
    bench.succeed(0);
    assert_eq!(bench.state(0), CircuitState::Closed);
    assert_eq!(bench.circuit(0).status().last_trip.unwrap().reason, Reason::ConsecutiveFailures);
}

#[test]
fn unused_open_circuits_do_not_fill_map() {
    let bench = Bench::of(100);
    (0..100).for_each(|key| bench.fail(key, 5));
    bench.time.advance(2 * OPEN_FOR);
    (100..200).for_each(|key| bench.fail(key, 5));
    assert_eq!((bench.circuits.evicted(), bench.circuits.overflowed()), (100, 0));
    assert!((100..200).all(|key| bench.is_rejected(key)));
}

#[test]
fn call_finds_its_circuit_during_concurrent_evictions() {
    let mut bench = Bench::new(config().consecutive_failures(1), 8, Overflow::Unguarded);
    bench.succeed_new_keys(1);
    let (bench, rounds) = (&bench, AtomicUsize::new(0));
    thread::scope(|scope| {
        for thread in 0..4_u64 {
            let rounds = &rounds;
            scope.spawn(move || {
                for round in 0..5_000 {
                    let new_key = 1_000 + round * 4 + thread;
                    bench.circuits.get_or_insert(new_key);
                    let Some(circuit) = bench.circuits.get_or_insert(thread) else { continue };
                    let permit = circuit.try_acquire().unwrap();
                    drop(circuit);
                    bench.circuits.get_or_insert(new_key + 100_000);
                    permit.record(FAILURE);
                    assert!(bench.is_rejected(thread), "no other thread uses this key");
                    bench.circuit(thread).reset().unwrap();
                    rounds.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    assert!(bench.circuits.len() <= 8);
    assert!(bench.circuits.evicted() > 0 && rounds.into_inner() > 0);
}

#[test]
fn threads_with_same_new_key_get_one_circuit() {
    let bench = Bench::new(config().consecutive_failures(8).failure_rate(None), 10_000, Overflow::Unguarded);
    let barrier = Barrier::new(8);
    let trips = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&trips);
    bench.circuits.on_transition(move |_| {
        counter.fetch_add(1, Ordering::Relaxed);
    });
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                barrier.wait();
                (0..1_000).for_each(|key| bench.fail(key, 1));
            });
        }
    });
    assert_eq!((bench.circuits.len(), trips.load(Ordering::Relaxed)), (1_000, 1_000));
    assert!((0..1_000).all(|key| bench.is_rejected(key)));
}

#[test]
fn get_or_insert_evicts_idle_circuit() {
    let bench = Bench::of(1_000);
    let mut handles: Vec<_> = (0..1_000).map(|key| bench.circuits.get_or_insert(key).unwrap()).collect();
    drop(handles.remove(500));
    assert!(bench.circuits.get_or_insert(1_000).is_some());
    assert!(bench.circuits.get(&500).is_none());
}

#[test]
fn get_or_insert_succeeds_after_handles_are_dropped() {
    let mut bench = Bench::of(2);
    let handles: Vec<_> = (0..2).map(|key| bench.circuits.get_or_insert(key).unwrap()).collect();
    bench.succeed_new_keys(100);
    assert!(bench.circuits.get_or_insert(2).is_none());
    drop(handles);
    assert!(bench.circuits.get_or_insert(2).is_some());
}
