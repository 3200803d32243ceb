//! Tests of what counts as a change of a circuit.

use std::collections::HashMap;

use tower_breaker::{BreakerConfigBuilder, Circuit, ManualClock};

use super::super::changes::Changes;
use super::*;
use crate::view::View;

/// Creates a circuit with a clock of its own.
fn circuit(set: impl FnOnce(BreakerConfigBuilder) -> BreakerConfigBuilder) -> (Circuit, ManualClock) {
    let (clock, time) = Clock::manual();
    let config = set(BreakerConfig::builder().clock(clock).open_for(SECOND));
    (Circuit::new(config.build().unwrap()), time)
}

fn view(circuit: &Circuit) -> View {
    View::of(circuit, &Sources::default().fleet)
}

fn is_sent(old: &View, new: &View) -> bool {
    let (old, new) = (std::slice::from_ref(old), std::slice::from_ref(new));
    !Changes::between(old, new, Duration::ZERO, &HashMap::new()).changed.is_empty()
}

/// Returns whether streams get the whole circuit after a change, and not only its counters.
fn is_sent_after(circuit: &Circuit, change: impl FnOnce()) -> bool {
    let old = view(circuit);
    change();
    is_sent(&old, &view(circuit))
}

#[test]
fn counters_are_no_change_of_the_circuit() {
    let (circuit, time) = circuit(|config| config);
    assert!(!is_sent_after(&circuit, || {}));
    assert!(!is_sent_after(&circuit, || circuit.record(Verdict::Success)));
    circuit.force_open_for(60 * SECOND).unwrap();
    assert!(!is_sent_after(&circuit, || time.advance(SECOND)));
}

#[test]
fn new_configuration_is_a_change() {
    let (circuit, _time) = circuit(|config| config);
    let config = circuit.config();
    let minimum = config.to_builder().minimum_calls(7).build().unwrap();
    assert!(is_sent_after(&circuit, || circuit.reconfigure(minimum).unwrap()));
}

#[test]
fn end_of_the_open_time_is_a_change() {
    let (circuit, time) = circuit(|config| config);
    circuit.trip().unwrap();
    assert!(is_sent_after(&circuit, || time.advance(10 * SECOND)));
}

#[test]
fn new_failure_is_a_change() {
    let (circuit, _time) = circuit(|config| config);
    let fail = || circuit.try_acquire().unwrap().fail_as(FAULT, &std::io::Error::other("reset"), "x");
    assert!(is_sent_after(&circuit, fail));
    assert!(is_sent_after(&circuit, fail));
}

#[test]
fn other_end_of_an_override_is_a_change() {
    let (circuit, time) = circuit(|config| config);
    circuit.force_open_for(60 * SECOND).unwrap();
    for seconds in [120, 30] {
        let force = || circuit.force_open_for(seconds * SECOND).unwrap();
        assert!(is_sent_after(&circuit, force), "{seconds}");
    }
    assert!(is_sent_after(&circuit, || circuit.force_open().unwrap()));
    time.advance(SECOND);
    assert!(is_sent_after(&circuit, || circuit.force_open_for(SECOND).unwrap()));
}

#[test]
fn end_of_the_slow_start_is_a_change() {
    let (circuit, time) = circuit(|config| config.slow_start_successes(1).successes_to_close(1));
    circuit.trip().unwrap();
    time.advance(10 * SECOND);
    circuit.try_acquire().unwrap().record(Verdict::Success);
    assert!(view(&circuit).local.unwrap().slow_start.is_some());
    let succeed = || circuit.try_acquire().unwrap().record(Verdict::Success);
    assert!(is_sent_after(&circuit, succeed));
    assert!(!is_sent_after(&circuit, succeed));
}

#[cfg(feature = "keyed")]
#[test]
fn number_of_keys_is_a_change() {
    use tower_breaker::keyed::{KeyedCircuits, KeyedConfig};

    let config = KeyedConfig::builder(BreakerConfig::builder().name("tenants").build().unwrap());
    let circuits: KeyedCircuits<u64> = KeyedCircuits::new(config.build().unwrap());
    let old = View::of_keyed(&circuits);
    assert!(!is_sent(&old, &View::of_keyed(&circuits)));
    circuits.circuit(&1);
    assert!(is_sent(&old, &View::of_keyed(&circuits)));
}

#[cfg(feature = "fleet")]
#[tokio::test(start_paused = true)]
async fn decision_and_votes_of_the_fleet_are_changes() {
    use tower_breaker_fleet::{CircuitRecord, Fleet, FleetCircuitStatus, MemoryStore};

    type Change = fn(&mut FleetCircuitStatus);

    let (circuit, _time) = circuit(|config| config.name("search"));
    let (fleet, agent) = Fleet::builder(MemoryStore::new()).build().unwrap();
    fleet.share(&circuit).unwrap();
    tokio::spawn(agent);
    assert!(fleet.ready(10 * SECOND).await);
    let sources = Sources { fleet: crate::source::FleetSource(Some(fleet)), ..Sources::default() };

    let mut old = View::of(&circuit, &sources.fleet);
    old.fleet.as_mut().unwrap().record = Some(CircuitRecord::default());
    let changes: [Change; 7] = [
        |status| status.members += 1,
        |status| status.votes += 1,
        |status| status.votes_needed += 1,
        |status| status.voting = !status.voting,
        |status| status.warming_up = !status.warming_up,
        |status| status.record = None,
        |status| status.record.as_mut().unwrap().epoch += 1,
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let mut new = old.clone();
        assert!(!is_sent(&old, &new));
        change(new.fleet.as_mut().unwrap());
        assert!(is_sent(&old, &new), "{number}");
    }
    let times: [fn(&mut CircuitRecord, Option<Duration>); 2] =
        [|record, time| record.remaining = time, |record, time| record.manual_remaining = time];
    for set in times {
        let at = |time: Option<Duration>| {
            let mut view = old.clone();
            set(view.fleet.as_mut().unwrap().record.as_mut().unwrap(), time);
            view
        };
        assert!(is_sent(&at(None), &at(Some(SECOND))) && is_sent(&at(Some(SECOND)), &at(None)));
        assert!(is_sent(&at(Some(SECOND)), &at(Some(2 * SECOND))));
        assert!(!is_sent(&at(Some(2 * SECOND)), &at(Some(SECOND))), "the time passes");
    }
}
