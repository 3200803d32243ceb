//! The clock that a circuit reads, before and after a reconfiguration.

use std::time::Duration;

use tower_breaker::{BreakerConfig, Circuit, CircuitRegistry, Clock, ManualClock};

use crate::support::{SECOND, config};

fn from_file(text: &str) -> BreakerConfig {
    serde_json::from_str(text).unwrap()
}

#[test]
fn reconfigure_without_clock_keeps_clock() {
    let (manual, time) = Clock::manual();
    for clock in [None, Some(Clock::coarse()), Some(Clock::precise()), Some(Clock::tokio()), Some(manual)] {
        for (before, after) in [(30_000, 50), (50, 30_000), (100, 99), (99, 100), (30_000, 60_000)] {
            let open_for = |millis| config().open_for(Duration::from_millis(millis));
            let first = open_for(before);
            let first = if let Some(clock) = clock { first.clock(clock) } else { first };
            let circuit = Circuit::new(first.build().unwrap());
            let built = open_for(after).build().unwrap();
            let from_file = from_file(&format!(r#"{{"open_for": "{after}ms", "probes": 7}}"#));
            for config in [built, from_file] {
                let reconfigured = circuit.reconfigure(config);
                assert_eq!(reconfigured, Ok(()), "{clock:?}, from {before} ms to {after} ms");
            }
        }
    }
    let circuit = Circuit::new(config().clock(manual).build().unwrap());
    circuit.reconfigure(config().open_for(SECOND).build().unwrap()).unwrap();
    assert!(reads_manual_clock(&circuit, &time));
}

#[test]
fn reconfigure_with_another_clock_fails_at_any_time() {
    let clocks = [Clock::coarse(), Clock::precise(), Clock::tokio(), Clock::manual().0, Clock::manual().0];
    for own in clocks {
        for other in clocks.into_iter().filter(|other| *other != own) {
            for millis in [50, 30_000] {
                let config = || config().open_for(Duration::from_millis(millis));
                let circuit = Circuit::new(config().clock(own).build().unwrap());
                let error = circuit.reconfigure(config().clock(other).build().unwrap()).unwrap_err();
                let text = format!("`clock` is {other:?}; allowed is {own:?}, the circuit's own");
                assert_eq!((error.field(), error.to_string()), ("clock", text));
            }
        }
    }
}

/// Returns whether a circuit with an open time of 1 s reads this manual clock.
fn reads_manual_clock(circuit: &Circuit, time: &ManualClock) -> bool {
    circuit.trip().unwrap();
    let is_open = circuit.try_acquire().unwrap_err().retry_after() == Some(SECOND);
    time.advance(SECOND);
    is_open && circuit.try_acquire().is_ok()
}

#[test]
fn registry_configured_from_file_uses_default_clock() {
    let (clock, time) = Clock::manual();
    let registry = CircuitRegistry::new(config().clock(clock).build().unwrap());
    let existing = registry.circuit("existing");
    for name in ["existing", "new"] {
        registry
            .configure(from_file(&format!(r#"{{"name": "{name}", "open_for": "1s", "open_jitter": 0}}"#)))
            .unwrap();
    }
    assert!(reads_manual_clock(&existing, &time));
    assert!(reads_manual_clock(&registry.circuit("new"), &time));

    let (other, other_time) = Clock::manual();
    registry.configure(config().name("other").clock(other).build().unwrap()).unwrap();
    registry.configure(from_file(r#"{"name": "other", "open_for": "1s", "open_jitter": 0}"#)).unwrap();
    assert!(reads_manual_clock(&registry.circuit("other"), &other_time));
}
