//! Floods of junk keys: which circuit is evicted for a new key, and which keys stay guarded.

use proptest::prelude::*;

use super::*;

#[test]
fn dead_key_is_rejected_in_flood_of_succeeding_keys() {
    let mut bench = Bench::of(50);
    bench.junk(3_000);
    let mut sent = 0;
    for _ in 0..3_000 {
        sent += u32::from(is_inner(&bench.send(0, true)));
        bench.junk(100);
    }
    assert_eq!((sent, bench.state(0)), (5, CircuitState::Open));
    assert_eq!(bench.circuits.overflowed(), 0);
}

#[test]
fn dead_key_is_rejected_in_flood_of_failing_keys() {
    let mut bench = Bench::of(50);
    let mut sent = 0;
    let mut kept = false;
    // 500 junk keys a second want the 50 places, which are free again after two tenths of the
    // window at the latest. The dead key is called ten times a second, somewhere between them.
    for round in 0..6_000_u64 {
        bench.hand.advance(Duration::from_millis(100));
        let before = round * 31 % 51;
        bench.failing_junk(before);
        sent += u32::from(is_inner(&bench.send(0, true)));
        bench.failing_junk(50 - before);
        let keeps = bench.circuits.get(&0).is_some();
        assert!(keeps || !kept, "it was evicted in round {round}");
        kept = keeps;
    }
    assert!(kept, "it got a circuit");
    let state = bench.state(0);
    assert!([CircuitState::Open, CircuitState::HalfOpen].contains(&state), "{state}");
    assert!(sent < 600, "{sent} of 6,000 calls were sent");
}

#[test]
fn rarely_called_dead_key_is_rejected_in_flood() {
    let mut bench = Bench::of(50);
    for _ in 0..4 {
        bench.fail(0, 1);
        bench.hand.advance(FORGOTTEN);
        bench.junk(200);
    }
    bench.fail(0, 1);
    assert_eq!(bench.state(0), CircuitState::Open, "five calls failed in a row");
}

#[test]
fn circuit_with_most_consecutive_failures_is_evicted_last() {
    let bench = Bench::of(2);
    // Of the first key's failures all but one have left the window.
    bench.fail(0, 2);
    bench.hand.advance(FORGOTTEN);
    bench.fail(0, 1);
    bench.fail(1, 2);
    bench.hand.advance(15 * SECOND);
    bench.succeed(2);
    assert!(bench.circuits.get(&1).is_none());
    assert_eq!(bench.circuit(0).status().consecutive_failures, 3);
}

#[test]
fn new_key_gets_circuit_after_flood_of_failing_keys() {
    let mut bench = Bench::of(50);
    bench.failing_junk(1_000);
    bench.send(0, true).unwrap_err();
    assert!(bench.circuits.get(&0).is_none(), "every circuit has just failed");
    bench.hand.advance(12 * SECOND);
    bench.fail(0, 5);
    assert!(bench.is_rejected(0));
}

#[test]
fn circuit_that_failed_recently_is_not_evicted() {
    for failures in 1..5 {
        let mut bench = Bench::of(50);
        bench.junk(50);
        bench.fail(0, failures);
        for _ in 0..12 {
            bench.failing_junk(1_000);
            bench.junk(1_000);
            bench.hand.advance(Duration::from_millis(500));
        }
        assert_eq!(bench.circuit(0).status().consecutive_failures, failures as u64);
    }
}

#[test]
fn open_circuit_is_not_evicted_in_flood() {
    let mut bench = Bench::of(50);
    bench.fail(0, 5);
    for _ in 0..59 {
        bench.hand.advance(SECOND);
        bench.junk(100);
        bench.failing_junk(100);
        assert_ne!(bench.state(0), CircuitState::Closed);
    }
    bench.hand.advance(SECOND);
    bench.junk(100);
    assert!(bench.circuits.get(&0).is_none(), "it was open for twice its time");
}

#[test]
fn circuit_in_slow_start_is_not_evicted() {
    let mut bench = Bench::new(config().slow_start(200 * SECOND), 1, Overflow::Unguarded);
    bench.fail(0, 5);
    bench.hand.advance(OPEN_FOR);
    (0..2).for_each(|_| bench.succeed(0));
    bench.hand.advance(199 * SECOND);
    bench.junk(10);
    assert!(bench.circuits.get(&0).is_some());
    bench.hand.advance(SECOND);
    bench.junk(1);
    assert!(bench.circuits.get(&0).is_none());
}

#[test]
fn circuit_with_least_to_lose_is_evicted() {
    let bench = Bench::of(6);
    // Two failures that are not recent, then one; three successes, then one; nothing; a recent
    // failure.
    bench.fail(0, 2);
    bench.fail(1, 1);
    bench.hand.advance(15 * SECOND);
    (0..3).for_each(|_| bench.succeed(2));
    bench.succeed(3);
    drop(bench.circuits.get_or_insert(4));
    bench.fail(5, 1);
    for (new, evicted) in [(10, 4), (11, 3), (12, 2), (13, 1), (14, 0)] {
        bench.fail(new, 1);
        let gone: Vec<_> = (0..6).filter(|key| bench.circuits.get(key).is_none()).collect();
        assert_eq!(gone.iter().max(), Some(&4));
        assert_eq!(gone.first(), Some(&evicted), "for {new}: {gone:?}");
    }
    bench.fail(15, 1);
    assert_eq!((bench.circuits.evicted(), bench.circuits.overflowed()), (5, 1));
}

#[test]
fn keys_with_equal_hash_have_own_circuits() {
    #[derive(Debug, PartialEq, Eq)]
    struct SameHash(u64);

    #[expect(clippy::missing_trait_methods, reason = "the default is meant")]
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

/// What the naive model knows of a key that has a circuit.
#[derive(Clone, Debug, Default)]
struct Naive {
    /// The bucket of every call that ended, and whether it succeeded.
    calls: Vec<(u64, bool)>,
    /// The failures since the last success.
    run: usize,
    tripped_at: Option<Duration>,
    forced: bool,
    held: bool,
}

/// See `Loss` in the sources: the kind, and the calls.
type NaiveLoss = (u8, usize);

const BUCKET: u64 = 6;

fn bucket(now: Duration) -> u64 {
    now.as_secs() / BUCKET
}

impl Naive {
    fn loss(&self, now: Duration) -> Option<NaiveLoss> {
        if self.held || self.forced {
            return None;
        }
        if let Some(at) = self.tripped_at {
            return (now >= at + 2 * OPEN_FOR).then_some((0, 0));
        }
        let age = |at: u64| bucket(now) - at;
        let window: Vec<_> = self.calls.iter().filter(|(at, _)| age(*at) <= 10).collect();
        let bad: Vec<_> = window.iter().filter(|(_, succeeded)| !succeeded).collect();
        match bad.len().max(self.run) {
            0 if window.is_empty() => Some((0, 0)),
            0 => Some((1, window.len())),
            failures => bad.iter().all(|(at, _)| age(*at) >= 2).then_some((2, failures)),
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Succeed(u64),
    Fail(u64),
    Abandon(u64),
    Trip(u64),
    Force(u64),
    Release(u64),
    Hold(u64),
    LetGo(u64),
    Advance(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let key = || 0..12_u64;
    let step = prop_oneof![
        6 => key().prop_map(Step::Succeed),
        6 => key().prop_map(Step::Fail),
        2 => key().prop_map(Step::Abandon),
        1 => key().prop_map(Step::Trip),
        1 => key().prop_map(Step::Force),
        1 => key().prop_map(Step::Release),
        1 => key().prop_map(Step::Hold),
        1 => key().prop_map(Step::LetGo),
        3 => (0..20_000_u64).prop_map(Step::Advance),
    ];
    proptest::collection::vec(step, 1..150)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// As long as a call looks at all circuits, it evicts one with the least loss, and finds no
    /// room only if none may go.
    #[test]
    fn eviction_agrees_with_naive_model(max_keys in 1..9_usize, steps in steps()) {
        let each = config().consecutive_failures(0).failure_rate(None).minimum_calls(1_000);
        let bench = Bench::new(each, max_keys, Overflow::Unguarded);
        let mut model: std::collections::BTreeMap<u64, Naive> = std::collections::BTreeMap::new();
        let mut handles: std::collections::BTreeMap<u64, KeyedCircuit<u64>> = std::collections::BTreeMap::new();
        let (mut now, mut paused_until, mut overflowed) = (1_000 * SECOND, Duration::ZERO, 0);
        for step in steps {
            let (Step::Succeed(key) | Step::Fail(key) | Step::Abandon(key)) = step else {
                match step {
                    Step::Advance(millis) => {
                        now += Duration::from_millis(millis);
                        bench.hand.advance(Duration::from_millis(millis));
                    }
                    Step::Trip(key) => if let Some(circuit) = bench.circuits.get(&key)
                        && circuit.status().state == CircuitState::Closed
                    {
                        circuit.trip().unwrap();
                        model.get_mut(&key).unwrap().tripped_at = Some(now);
                    },
                    Step::Force(key) => if let Some(circuit) = bench.circuits.get(&key) {
                        circuit.force_closed().unwrap();
                        *model.get_mut(&key).unwrap() = Naive { forced: true, held: handles.contains_key(&key), ..Naive::default() };
                    },
                    Step::Release(key) => if let Some(circuit) = bench.circuits.get(&key) {
                        circuit.release();
                        model.get_mut(&key).unwrap().forced = false;
                    },
                    Step::Hold(key) => if let Some(circuit) = bench.circuits.get(&key) {
                        handles.insert(key, circuit);
                        model.get_mut(&key).unwrap().held = true;
                    },
                    Step::LetGo(key) => if handles.remove(&key).is_some() {
                        model.get_mut(&key).unwrap().held = false;
                    },
                    Step::Succeed(_) | Step::Fail(_) | Step::Abandon(_) => unreachable!(),
                }
                continue;
            };
            // What becomes of an open circuit is another model's subject.
            if model.get(&key).is_some_and(|naive| naive.tripped_at.is_some()) {
                continue;
            }
            let mut may_go = None;
            let mut finds_room = true;
            if !model.contains_key(&key) && model.len() == max_keys {
                may_go = model.values().filter_map(|naive| naive.loss(now)).min();
                finds_room = now >= paused_until && may_go.is_some();
                if !finds_room {
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
            if !finds_room {
                continue;
            }
            let kept: HashSet<_> = bench.circuits.circuits().iter().map(|circuit| *circuit.key()).collect();
            let gone: Vec<_> = model.keys().copied().filter(|key| !kept.contains(key)).collect();
            prop_assert_eq!(gone.len(), usize::from(may_go.is_some()));
            for gone in gone {
                let lost = model.remove(&gone).unwrap().loss(now);
                prop_assert_eq!(lost, may_go, "{} was evicted", gone);
            }
            let naive = model.entry(key).or_default();
            if !naive.forced {
                naive.calls.push((bucket(now), matches!(step, Step::Succeed(_))));
                naive.run = match step {
                    Step::Succeed(_) => 0,
                    Step::Fail(_) => naive.run + 1,
                    _ => naive.run,
                };
            }
            prop_assert_eq!(kept, model.keys().copied().collect());
        }
    }
}
