//! The states of a circuit, and its limits.

use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use circuit_manager::manager::Manager;
use circuit_manager::settings::CircuitSettings;
use tower_breaker::CircuitState::{Closed, HalfOpen, Open};

use crate::support::{AGENT, changes, fail, manager};

const COOLDOWN: Duration = Duration::from_secs(60);
const ALMOST_COOLDOWN: Duration = Duration::from_millis(59_999);
const MILLISECOND: Duration = Duration::from_millis(1);

#[test]
fn starts_closed() {
    let (manager, _time) = manager();
    manager.get_or_create(AGENT).unwrap();
    assert_eq!(manager.get_state(AGENT), Some(Closed));
    assert!(manager.is_closed(AGENT) && !manager.is_open(AGENT) && !manager.is_half_open(AGENT));
}

#[test]
fn stays_closed_on_success() {
    let (manager, _time) = manager();
    for _ in 0..100 {
        assert!(manager.can_execute(AGENT).unwrap());
        manager.record_success(AGENT).unwrap();
    }
    assert!(manager.is_closed(AGENT));
    assert_eq!(manager.status(AGENT).unwrap().success_count, 100);
}

#[test]
fn opens_on_consecutive_failures() {
    let (manager, _time) = manager();
    fail(&manager, 4);
    // A success starts the run again.
    manager.record_success(AGENT).unwrap();
    fail(&manager, 4);
    assert!(manager.is_closed(AGENT));
    fail(&manager, 1);
    assert!(manager.is_open(AGENT));
}

#[test]
fn opens_on_failure_rate_after_enough_calls() {
    let (manager, _time) = manager();
    for _ in 0..4 {
        manager.record_success(AGENT).unwrap();
        manager.record_failure(AGENT).unwrap();
    }
    manager.record_failure(AGENT).unwrap();
    assert!(manager.is_closed(AGENT), "9 calls are not enough for the rate");
    manager.record_failure(AGENT).unwrap();
    assert!(manager.is_open(AGENT), "6 of 10 calls have failed");
}

#[test]
fn calls_outside_of_window_are_not_counted() {
    let (manager, time) = manager();
    fail(&manager, 4);
    manager.record_success(AGENT).unwrap();
    // The window has a bucket more than its 60 s.
    time.advance(Duration::from_secs(65));
    for _ in 0..5 {
        manager.record_success(AGENT).unwrap();
    }
    fail(&manager, 4);
    assert!(manager.is_closed(AGENT), "the window holds 9 calls");
    assert_eq!(manager.status(AGENT).unwrap().failure_count, 4);
}

#[test]
fn blocks_when_open() {
    let (manager, time) = manager();
    fail(&manager, 5);
    assert!(!manager.can_execute(AGENT).unwrap());
    time.advance(ALMOST_COOLDOWN);
    assert!(!manager.can_execute(AGENT).unwrap());
    // The outcome of a call that began before does not change the circuit.
    manager.record_success(AGENT).unwrap();
    assert!(manager.is_open(AGENT));
}

/// Opens the circuit, and lets its cooldown pass.
fn cooled_down() -> (Manager, tower_breaker::ManualClock) {
    let (manager, time) = manager();
    fail(&manager, 5);
    time.advance(COOLDOWN);
    (manager, time)
}

#[test]
fn half_open_after_cooldown() {
    let (manager, _time) = cooled_down();
    assert!(manager.is_open(AGENT), "it half-opens at the first call");
    assert!(manager.can_execute(AGENT).unwrap());
    assert!(manager.is_half_open(AGENT));
    assert!(manager.can_execute(AGENT).unwrap() && manager.can_execute(AGENT).unwrap());
    assert!(!manager.can_execute(AGENT).unwrap(), "three probes are running");
    manager.record_success(AGENT).unwrap();
    assert!(manager.can_execute(AGENT).unwrap(), "an outcome frees a place");
}

#[test]
fn places_of_calls_without_outcome_are_free_after_lease() {
    let (manager, time) = cooled_down();
    for _ in 0..3 {
        assert!(manager.can_execute(AGENT).unwrap());
    }
    time.advance(ALMOST_COOLDOWN);
    assert!(!manager.can_execute(AGENT).unwrap());
    time.advance(MILLISECOND);
    for _ in 0..3 {
        assert!(manager.can_execute(AGENT).unwrap());
    }
    assert!(!manager.can_execute(AGENT).unwrap());
    manager.record_success(AGENT).unwrap();
    manager.record_success(AGENT).unwrap();
    assert!(manager.is_closed(AGENT));
}

#[test]
fn closes_on_half_open_success() {
    let (manager, _time) = cooled_down();
    assert!(manager.can_execute(AGENT).unwrap());
    manager.record_success(AGENT).unwrap();
    assert!(manager.is_half_open(AGENT), "two successes close the circuit");
    assert!(manager.can_execute(AGENT).unwrap());
    manager.record_success(AGENT).unwrap();
    assert!(manager.is_closed(AGENT));
    let status = manager.status(AGENT).unwrap();
    assert_eq!((status.success_count, status.failure_count, status.opened_at), (0, 0, None));
}

#[test]
fn reopens_on_half_open_failure() {
    let (manager, time) = cooled_down();
    assert!(manager.can_execute(AGENT).unwrap());
    manager.record_success(AGENT).unwrap();
    assert!(manager.can_execute(AGENT).unwrap());
    manager.record_failure(AGENT).unwrap();
    assert!(manager.is_open(AGENT));
    time.advance(ALMOST_COOLDOWN);
    assert!(!manager.can_execute(AGENT).unwrap(), "the cooldown starts again");
    time.advance(MILLISECOND);
    assert!(manager.can_execute(AGENT).unwrap());
}

#[test]
fn outcome_of_earlier_probe_round_frees_no_place() {
    let (manager, time) = cooled_down();
    assert!(manager.can_execute(AGENT).unwrap());
    assert!(manager.can_execute(AGENT).unwrap());
    manager.record_failure(AGENT).unwrap();
    time.advance(COOLDOWN);
    for _ in 0..3 {
        assert!(manager.can_execute(AGENT).unwrap());
    }
    manager.record_success(AGENT).unwrap();
    manager.record_success(AGENT).unwrap();
    assert!(manager.is_closed(AGENT), "both outcomes are those of probes of this round");
}

#[test]
fn concurrent_calls_after_cooldown_get_three_places() {
    const THREADS: usize = 8;
    let (manager, time) = manager();
    for round in 0..500 {
        fail(&manager, 5);
        time.advance(COOLDOWN);
        let start = Barrier::new(THREADS);
        let call = || {
            start.wait();
            manager.can_execute(AGENT).unwrap()
        };
        let admitted = thread::scope(|scope| {
            let calls: Vec<_> = (0..THREADS).map(|_| scope.spawn(call)).collect();
            calls.into_iter().map(|call| call.join().unwrap()).filter(|admitted| *admitted).count()
        });
        assert_eq!(admitted, 3, "in round {round}");
        manager.reset(AGENT).unwrap();
    }
}

#[test]
fn force_open() {
    let (manager, time) = manager();
    manager.get_or_create(AGENT).unwrap();
    manager.force_open(AGENT).unwrap();
    assert!(manager.is_open(AGENT) && !manager.can_execute(AGENT).unwrap());
    // A second command starts the cooldown again.
    time.advance(COOLDOWN);
    manager.force_open(AGENT).unwrap();
    assert!(!manager.can_execute(AGENT).unwrap());
    // The circuit recovers by itself.
    time.advance(COOLDOWN);
    assert!(manager.can_execute(AGENT).unwrap());
    assert!(manager.is_half_open(AGENT));
}

#[test]
fn force_close() {
    let (manager, _time) = manager();
    fail(&manager, 5);
    manager.force_close(AGENT).unwrap();
    assert!(manager.is_closed(AGENT) && manager.can_execute(AGENT).unwrap());
    fail(&manager, 4);
    assert!(manager.is_closed(AGENT));
    fail(&manager, 1);
    assert!(manager.is_open(AGENT), "the circuit counts again");
}

#[test]
fn reset_clears_statistics_and_places() {
    let (manager, _time) = cooled_down();
    for _ in 0..3 {
        assert!(manager.can_execute(AGENT).unwrap());
    }
    manager.record_success(AGENT).unwrap();
    manager.reset(AGENT).unwrap();
    let stats = manager.stats(AGENT).unwrap();
    assert_eq!((stats.state, stats.stats.total_requests, stats.opened_at), (Closed, 0, None));
    assert_eq!((stats.last_failure_time, stats.last_success_time), (None, None));
    for _ in 0..4 {
        assert!(manager.can_execute(AGENT).unwrap());
    }
}

#[test]
fn state_change_callback() {
    let (manager, time) = manager();
    let changes = changes(&manager);
    manager.on_state_change(|_, _, _| panic!("a callback of the test"));
    fail(&manager, 5);
    time.advance(COOLDOWN);
    assert!(manager.can_execute(AGENT).unwrap());
    manager.record_success(AGENT).unwrap();
    manager.record_success(AGENT).unwrap();
    let expected = [(Closed, Open), (Open, HalfOpen), (HalfOpen, Closed)];
    let expected = expected.map(|(from, to)| (AGENT.to_owned(), from, to));
    assert_eq!(*changes.lock().unwrap(), expected);
}

#[test]
fn stats_keep_the_counts_that_opened_the_circuit() {
    let (manager, time) = manager();
    for _ in 0..3 {
        manager.record_success(AGENT).unwrap();
    }
    fail(&manager, 5);
    let open = manager.stats(AGENT).unwrap();
    assert_eq!((open.name.as_str(), open.state), (AGENT, Open));
    let counts = |stats: &circuit_manager::stats::CircuitStats| {
        let counts = stats.stats;
        assert_eq!(counts.total_requests, counts.successful_requests + counts.failed_requests);
        (
            counts.successful_requests,
            counts.failed_requests,
            counts.consecutive_failures,
            counts.consecutive_successes,
        )
    };
    assert_eq!(counts(&open), (3, 5, 5, 0));
    assert!((open.stats.failure_rate - 0.625).abs() < 1e-9);
    assert!(open.opened_at.is_some() && open.opened_at <= open.last_failure_time);

    time.advance(COOLDOWN);
    assert!(manager.can_execute(AGENT).unwrap());
    manager.record_success(AGENT).unwrap();
    assert_eq!(counts(&manager.stats(AGENT).unwrap()), (4, 5, 0, 1));
    manager.record_failure(AGENT).unwrap();
    assert_eq!(counts(&manager.stats(AGENT).unwrap()), (4, 6, 1, 0));
}

#[test]
fn consecutive_successes_start_after_the_last_failure() {
    let (manager, _time) = manager();
    let run = || manager.stats(AGENT).unwrap().stats.consecutive_successes;
    manager.record_success(AGENT).unwrap();
    manager.record_success(AGENT).unwrap();
    assert_eq!(run(), 2);
    fail(&manager, 1);
    assert_eq!(run(), 0);
    manager.record_success(AGENT).unwrap();
    assert_eq!(run(), 1);
}

#[test]
fn stats_serialize_with_names_of_the_original() {
    let (manager, _time) = manager();
    fail(&manager, 5);
    let json = serde_json::to_value(manager.stats(AGENT).unwrap()).unwrap();
    assert_eq!(json["state"], "open");
    assert_eq!(json["stats"]["failed_requests"], 5);
    assert!(json["opened_at"].as_str().unwrap().ends_with('Z'));
    assert_eq!(json["last_success_time"], serde_json::Value::Null);
    let json = serde_json::to_value(manager.status(AGENT).unwrap()).unwrap();
    let fields: Vec<_> = json.as_object().unwrap().keys().map(String::as_str).collect();
    let expected = [
        "agent_id",
        "state",
        "failure_count",
        "success_count",
        "failure_rate",
        "consecutive_failures",
        "opened_at",
    ];
    assert_eq!(fields, expected);
}

#[test]
fn default_settings_are_those_of_the_documentation() {
    let settings = serde_json::to_value(CircuitSettings::default()).unwrap();
    let expected = serde_json::json!({
        "failure_threshold": 5,
        "failure_rate_threshold": 0.5,
        "min_requests_for_rate": 10,
        "window_seconds": 60.0,
        "half_open_max_requests": 3,
        "success_threshold": 2,
        "cooldown_seconds": 60.0,
    });
    assert_eq!(settings, expected);
    assert!(serde_json::from_str::<CircuitSettings>(r#"{"cooldown": 5}"#).is_err());
    let partial: CircuitSettings = serde_json::from_str(r#"{"cooldown_seconds": 5}"#).unwrap();
    assert_eq!(partial, CircuitSettings { cooldown_seconds: 5.0, ..CircuitSettings::default() });
}

#[test]
fn setting_out_of_range_is_named() {
    for (json, error) in [
        (r#"{"failure_threshold": 0}"#, "`failure_threshold` is 0; allowed is at least 1"),
        (r#"{"failure_rate_threshold": 1.5}"#, "`failure_rate_threshold` is 1.5; allowed is 0 to 1"),
        (r#"{"min_requests_for_rate": 0}"#, "`min_requests_for_rate` is 0; allowed is at least 1"),
        (r#"{"window_seconds": 0}"#, "`window_seconds` is 0; allowed is 0.001 to 31536000"),
        (r#"{"half_open_max_requests": 0}"#, "`half_open_max_requests` is 0; allowed is 1 to 10000"),
        (r#"{"success_threshold": 0}"#, "`success_threshold` is 0; allowed is at least 1"),
        (r#"{"cooldown_seconds": -1}"#, "`cooldown_seconds` is -1; allowed is 0.001 to 31536000"),
    ] {
        let settings: CircuitSettings = serde_json::from_str(json).unwrap();
        assert_eq!(settings.to_config().unwrap_err().to_string(), error);
    }
}
