//! The gauges while threads create, change, reconfigure and remove circuits by key.

use std::thread;

use tower_breaker::ManualClock;
use tower_breaker::keyed::KeyedCircuits;
use tower_breaker::telemetry::register_metrics;

use super::meters::Book;
use super::*;

const STATES: [CircuitState; 6] = [
    CircuitState::Closed,
    CircuitState::Open,
    CircuitState::HalfOpen,
    CircuitState::ForcedOpen,
    CircuitState::ForcedClosed,
    CircuitState::Disabled,
];
const KEYS: u64 = 12;

/// Returns the configuration of one step: it changes the mode and the number of keys.
fn keyed_config(name: &str, clock: Clock, step: u64) -> KeyedConfig {
    let mode = if step.is_multiple_of(3) { Mode::Disabled } else { Mode::Enforce };
    let each = config().name(name.to_owned()).consecutive_failures(2).mode(mode).clock(clock);
    let max_keys = if step.is_multiple_of(2) { 3 } else { 8 };
    let keyed = KeyedConfig::builder(each.build().unwrap()).max_keys(max_keys);
    keyed.overflow(Overflow::Shared).key_label(4).build().unwrap()
}

/// Performs one operation, which depends on the step.
fn operate(circuits: &KeyedCircuits<u64>, time: &ManualClock, clock: Clock, step: u64) {
    let random = step.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
    let key = random % KEYS;
    let circuit = circuits.circuit(&key);
    let period = Duration::from_millis(1 + random % 50);
    // The results depend on what other threads have done.
    match random / KEYS % 24 {
        0 => drop(circuit.trip()),
        1 => drop(circuit.reset()),
        2 => drop(circuit.force_open()),
        3 => drop(circuit.force_closed_for(period)),
        4 => drop(circuit.force_open_for(period)),
        5 => drop(circuit.trip_for(period)),
        6 => drop(circuit.probe_now()),
        7 | 8 => circuit.release(),
        9 => drop(circuits.remove(&key)),
        10 if random.is_multiple_of(5) => circuits.clear(),
        11 => circuits.reconfigure(keyed_config(circuits.name(), clock, random)).unwrap(),
        12 => {
            let own = keyed_config(circuits.name(), clock, random).each().clone();
            circuits.configure(&key, own).unwrap();
        }
        13 => {
            circuits.unconfigure(&key);
        }
        14 => circuits.reset_all(),
        15 => time.advance(period),
        16 => drop(circuits.statuses()),
        17 => circuit.record(FAILURE),
        _ => {
            let verdict = if random.is_multiple_of(3) { Verdict::Success } else { FAILURE };
            drop(circuit.try_acquire().map(|permit| permit.record(verdict)));
        }
    }
}

fn gauge(book: &Book, name: &str, state: CircuitState) -> i64 {
    let labels = (0..KEYS).map(|key| key.to_string()).chain(["(other)".to_owned(), "(overflow)".to_owned()]);
    labels
        .map(|key| book.count(&format!("tower_breaker_circuits{{circuit={name},key={key},state={state}}}")))
        .sum()
}

#[test]
fn gauges_of_concurrently_changed_circuits_equal_their_states() {
    for round in 0..8 {
        let name = format!("concurrent gauges {round}");
        let (clock, time) = Clock::manual();
        time.set(Duration::from_secs(1_000));
        let circuits = KeyedCircuits::<u64>::new(keyed_config(&name, clock, 1));
        let book = Book::default();
        thread::scope(|scope| {
            for thread in 0..4 {
                let (circuits, time, book) = (&circuits, &time, &book);
                let steps = (0..500).map(move |step| (round * 4 + thread) * 1_000 + step);
                scope.spawn(move || {
                    let mut run = |step| operate(circuits, time, clock, step);
                    // The recorder is found late, by each thread at another time.
                    steps.clone().take(50 * thread as usize).for_each(&mut run);
                    metrics::with_local_recorder(book, || steps.for_each(run));
                });
            }
        });
        metrics::with_local_recorder(&book, || {
            register_metrics();
            for state in STATES {
                let all = circuits.circuits().into_iter().chain(circuits.overflow());
                let number: i64 = all.map(|circuit| i64::from(circuit.status().state == state)).sum();
                assert_eq!(gauge(&book, &name, state), number, "{state}");
            }
            circuits.clear();
            drop(circuits);
            for state in STATES {
                assert_eq!(gauge(&book, &name, state), 0, "{state}");
            }
        });
    }
}
