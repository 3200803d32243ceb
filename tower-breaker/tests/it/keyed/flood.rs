//! Floods of new keys: which circuit is evicted for a new key, and which keys stay guarded.

use proptest::prelude::*;

use super::*;

#[test]
fn failing_key_is_rejected_in_flood_of_succeeding_keys() {
    let mut bench = Bench::of(50);
    bench.succeed_new_keys(3_000);
    let mut sent = 0;
    for _ in 0..3_000 {
        sent += u32::from(is_inner(&bench.send(0, true)));
        bench.succeed_new_keys(100);
    }
    assert_eq!((sent, bench.state(0)), (5, CircuitState::Open));
    assert_eq!(bench.circuits.overflowed(), 0);
}

#[test]
fn failing_key_is_rejected_in_flood_of_failing_keys() {
    let mut bench = Bench::of(50);
    let mut sent = 0;
    let mut kept = false;
    // 500 new keys a second need one of the 50 places. A place is free again after two tenths of
    // the window at the latest. The failing key is called ten times a second, at varying positions
    // between the new keys.
    for round in 0..6_000_u64 {
        bench.time.advance(Duration::from_millis(100));
        let calls_before = round * 31 % 51;
        bench.fail_new_keys(calls_before);
        sent += u32::from(is_inner(&bench.send(0, true)));
        bench.fail_new_keys(50 - calls_before);
        let is_kept = bench.circuits.get(&0).is_some();
        assert!(is_kept || !kept, "the circuit was evicted in round {round}");
        kept = is_kept;
    }
    assert!(kept, "the failing key has a circuit");
    let state = bench.state(0);
    assert!([CircuitState::Open, CircuitState::HalfOpen].contains(&state), "{state}");
    assert!(sent < 600, "{sent} of 6,000 calls were sent");
}

#[test]
fn rarely_called_failing_key_is_rejected_in_flood() {
    let mut bench = Bench::of(50);
    for _ in 0..4 {
        bench.fail(0, 1);
        bench.time.advance(AFTER_WINDOW);
        bench.succeed_new_keys(200);
    }
    bench.fail(0, 1);
    assert_eq!(bench.state(0), CircuitState::Open, "five calls failed in a row");
}

#[test]
fn circuit_with_most_consecutive_failures_is_evicted_last() {
    let bench = Bench::of(2);
    // All failures of the first key but one have left the window.
    bench.fail(0, 2);
    bench.time.advance(AFTER_WINDOW);
    bench.fail(0, 1);
    bench.fail(1, 2);
    bench.time.advance(15 * SECOND);
    bench.succeed(2);
    assert!(bench.circuits.get(&1).is_none());
    assert_eq!(bench.circuit(0).status().consecutive_failures, 3);
}

#[test]
fn new_key_gets_circuit_after_flood_of_failing_keys() {
    let mut bench = Bench::of(50);
    bench.fail_new_keys(1_000);
    bench.send(0, true).unwrap_err();
    assert!(bench.circuits.get(&0).is_none(), "every circuit has just failed");
    bench.time.advance(12 * SECOND);
    bench.fail(0, 5);
    assert!(bench.is_rejected(0));
}

#[test]
fn circuit_that_failed_recently_is_not_evicted() {
    for failures in 1..5 {
        let mut bench = Bench::of(50);
        bench.succeed_new_keys(50);
        bench.fail(0, failures);
        for _ in 0..12 {
            bench.fail_new_keys(1_000);
            bench.succeed_new_keys(1_000);
            bench.time.advance(Duration::from_millis(500));
        }
        assert_eq!(bench.circuit(0).status().consecutive_failures, failures as u64);
    }
}

#[test]
fn open_circuit_is_not_evicted_in_flood() {
    let mut bench = Bench::of(50);
    bench.fail(0, 5);
    for _ in 0..59 {
        bench.time.advance(SECOND);
        bench.succeed_new_keys(100);
        bench.fail_new_keys(100);
        assert_ne!(bench.state(0), CircuitState::Closed);
    }
    bench.time.advance(SECOND);
    bench.succeed_new_keys(100);
    assert!(bench.circuits.get(&0).is_none(), "evicted after twice its open time");
}

#[test]
fn circuit_in_slow_start_is_not_evicted() {
    let mut bench = Bench::new(config().slow_start(200 * SECOND), 1, Overflow::Unguarded);
    bench.fail(0, 5);
    bench.time.advance(OPEN_FOR);
    (0..2).for_each(|_| bench.succeed(0));
    bench.time.advance(199 * SECOND);
    bench.succeed_new_keys(10);
    assert!(bench.circuits.get(&0).is_some());
    bench.time.advance(SECOND);
    bench.succeed_new_keys(1);
    assert!(bench.circuits.get(&0).is_none());
}

#[test]
fn circuit_in_slow_start_by_successes_is_evicted_a_lease_after_its_last_call() {
    let each = config().slow_start_successes(100).probe_lease(200 * SECOND);
    let mut bench = Bench::new(each, 1, Overflow::Unguarded);
    bench.fail(0, 5);
    bench.time.advance(OPEN_FOR);
    (0..3).for_each(|_| bench.succeed(0));
    bench.time.advance(199 * SECOND);
    bench.succeed_new_keys(10);
    assert_eq!(bench.circuits.get(&0).unwrap().status().slow_start, Some(0.01));
    bench.time.advance(SECOND);
    bench.succeed_new_keys(1);
    assert!(bench.circuits.get(&0).is_none());
}

#[test]
fn circuit_with_lowest_eviction_cost_is_evicted() {
    let bench = Bench::of(6);
    // Keys 0 and 1 have two old failures and one. Keys 2 and 3 have three successes and one. Key 4
    // has no calls. Key 5 has a recent failure.
    bench.fail(0, 2);
    bench.fail(1, 1);
    bench.time.advance(15 * SECOND);
    (0..3).for_each(|_| bench.succeed(2));
    bench.succeed(3);
    drop(bench.circuits.get_or_insert(4));
    bench.fail(5, 1);
    for (new, evicted) in [(10, 4), (11, 3), (12, 2), (13, 1), (14, 0)] {
        bench.fail(new, 1);
        let all_evicted: Vec<_> = (0..6).filter(|key| bench.circuits.get(key).is_none()).collect();
        assert_eq!(all_evicted.iter().max(), Some(&4));
        assert_eq!(all_evicted.first(), Some(&evicted), "for {new}: {all_evicted:?}");
    }
    bench.fail(15, 1);
    assert_eq!((bench.circuits.evicted(), bench.circuits.overflowed()), (5, 1));
}

#[test]
fn keys_with_equal_hash_have_own_circuits() {
    #[derive(Debug, PartialEq, Eq)]
    struct SameHash(u64);

    #[expect(clippy::missing_trait_methods, reason = "the default method is right")]
    impl std::hash::Hash for SameHash {
        fn hash<H: std::hash::Hasher>(&self, _: &mut H) {}
    }

    let config = KeyedConfig::builder(config().build().unwrap()).max_keys(100).build().unwrap();
    let layer = KeyedBreakerLayer::<_, _>::new(config, |number: &u64| SameHash(*number));
    let circuits = layer.circuits();
    let keep = |number: u64| circuits.get_or_insert(SameHash(number)).unwrap();
    for number in 0..100 {
        assert_eq!(keep(number).key().0, number);
    }
    keep(7).trip().unwrap();
    assert!((0..100).all(|number| keep(number).key().0 == number));
    let open = circuits.circuits().into_iter().filter(|circuit| circuit.status().state == CircuitState::Open);
    assert_eq!(open.map(|circuit| circuit.key().0).collect::<Vec<_>>(), [7]);
    assert_eq!(keep(100).key().0, 100);
    assert_eq!((circuits.len(), circuits.evicted()), (100, 1));
}

/// The naive model's record of a key that has a circuit.
#[derive(Clone, Debug, Default)]
struct Naive {
    /// The bucket of each call that ended, and whether the call succeeded.
    calls: Vec<(u64, bool)>,
    /// The failures since the last success.
    consecutive_failures: usize,
    /// The calls cancelled since the last completed call.
    cancelled: usize,
    tripped_at: Option<Duration>,
    forced: bool,
    has_handle: bool,
}

/// Corresponds to `EvictionCost` in `keyed/core.rs`: the variant and the number of calls.
type NaiveCost = (u8, usize);

const BUCKET: u64 = 6;

fn bucket(now: Duration) -> u64 {
    now.as_secs() / BUCKET
}

impl Naive {
    fn eviction_cost(&self, now: Duration) -> Option<NaiveCost> {
        if self.has_handle || self.forced {
            return None;
        }
        if let Some(at) = self.tripped_at {
            return (now >= at + 2 * OPEN_FOR).then_some((0, 0));
        }
        let age = |at: u64| bucket(now) - at;
        let window: Vec<_> = self.calls.iter().filter(|(at, _)| age(*at) <= 10).collect();
        let not_succeeded: Vec<_> = window.iter().filter(|(_, succeeded)| !succeeded).collect();
        match not_succeeded.len().max(self.consecutive_failures).max(self.cancelled.min(1)) {
            0 if window.is_empty() => Some((0, 0)),
            0 => Some((1, window.len())),
            failures => not_succeeded.iter().all(|(at, _)| age(*at) >= 2).then_some((2, failures)),
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Succeed(u64),
    Fail(u64),
    Cancel(u64),
    Trip(u64),
    Force(u64),
    Release(u64),
    KeepHandle(u64),
    DropHandle(u64),
    Advance(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let key = || 0..12_u64;
    let step = prop_oneof![
        6 => key().prop_map(Step::Succeed),
        6 => key().prop_map(Step::Fail),
        2 => key().prop_map(Step::Cancel),
        1 => key().prop_map(Step::Trip),
        1 => key().prop_map(Step::Force),
        1 => key().prop_map(Step::Release),
        1 => key().prop_map(Step::KeepHandle),
        1 => key().prop_map(Step::DropHandle),
        3 => (0..20_000_u64).prop_map(Step::Advance),
    ];
    proptest::collection::vec(step, 1..150)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// With few circuits a call looks at all of them. It then evicts one with the lowest eviction
    /// cost, and overflows only if none may be evicted.
    #[test]
    fn eviction_agrees_with_naive_model(max_keys in 1..9_usize, steps in steps()) {
        let each = config().consecutive_failures(0).failure_rate(None).minimum_calls(1_000);
        let bench = Bench::new(each, max_keys, Overflow::Unguarded);
        let mut model: std::collections::BTreeMap<u64, Naive> = std::collections::BTreeMap::new();
        let mut handles: std::collections::BTreeMap<u64, KeyedCircuit<u64>> = std::collections::BTreeMap::new();
        let (mut now, mut paused_until, mut overflowed) = (1_000 * SECOND, Duration::ZERO, 0);
        for step in steps {
            let (Step::Succeed(key) | Step::Fail(key) | Step::Cancel(key)) = step else {
                match step {
                    Step::Advance(millis) => {
                        now += Duration::from_millis(millis);
                        bench.time.advance(Duration::from_millis(millis));
                    }
                    Step::Trip(key) => if let Some(circuit) = bench.circuits.get(&key)
                        && circuit.status().state == CircuitState::Closed
                    {
                        circuit.trip().unwrap();
                        model.get_mut(&key).unwrap().tripped_at = Some(now);
                    },
                    Step::Force(key) => if let Some(circuit) = bench.circuits.get(&key) {
                        circuit.force_closed().unwrap();
                        *model.get_mut(&key).unwrap() = Naive { forced: true, has_handle: handles.contains_key(&key), ..Naive::default() };
                    },
                    Step::Release(key) => if let Some(circuit) = bench.circuits.get(&key) {
                        circuit.release();
                        model.get_mut(&key).unwrap().forced = false;
                    },
                    Step::KeepHandle(key) => if let Some(circuit) = bench.circuits.get(&key) {
                        handles.insert(key, circuit);
                        model.get_mut(&key).unwrap().has_handle = true;
                    },
                    Step::DropHandle(key) => if handles.remove(&key).is_some() {
                        model.get_mut(&key).unwrap().has_handle = false;
                    },
                    Step::Succeed(_) | Step::Fail(_) | Step::Cancel(_) => unreachable!(),
                }
                continue;
            };
            // This model does not cover calls through an open circuit. Ten cancelled calls may open
            // one.
            if model.get(&key).is_some_and(|naive| naive.tripped_at.is_some() || naive.cancelled == 9) {
                continue;
            }
            let mut lowest_cost = None;
            let mut has_room = true;
            if !model.contains_key(&key) && model.len() == max_keys {
                lowest_cost = model.values().filter_map(|naive| naive.eviction_cost(now)).min();
                has_room = now >= paused_until && lowest_cost.is_some();
                if !has_room {
                    overflowed += 1;
                    if now >= paused_until {
                        paused_until = now + Duration::from_millis(600);
                    }
                }
            }
            match step {
                Step::Succeed(_) => bench.succeed(key),
                Step::Fail(_) => bench.fail(key, 1),
                _ => {
                    let mut service = bench.layer.layer(service_fn(|_: Request| pending::<Result<(), io::Error>>()));
                    let mut call = task::spawn(service.call((key, false)));
                    assert_pending!(call.poll());
                }
            }
            prop_assert_eq!(bench.circuits.overflowed(), overflowed);
            if !has_room {
                continue;
            }
            let kept: HashSet<_> = bench.circuits.circuits().iter().map(|circuit| *circuit.key()).collect();
            let evicted: Vec<_> = model.keys().copied().filter(|key| !kept.contains(key)).collect();
            prop_assert_eq!(evicted.len(), usize::from(lowest_cost.is_some()));
            for key in evicted {
                let cost = model.remove(&key).unwrap().eviction_cost(now);
                prop_assert_eq!(cost, lowest_cost, "{} was evicted", key);
            }
            let naive = model.entry(key).or_default();
            if !naive.forced {
                naive.calls.push((bucket(now), matches!(step, Step::Succeed(_))));
                naive.cancelled = if matches!(step, Step::Cancel(_)) { naive.cancelled + 1 } else { 0 };
                naive.consecutive_failures = match step {
                    Step::Succeed(_) => 0,
                    Step::Fail(_) => naive.consecutive_failures + 1,
                    _ => naive.consecutive_failures,
                };
            }
            prop_assert_eq!(kept, model.keys().copied().collect());
        }
    }
}
