//! Snapshots in files.

use proptest::prelude::*;
use serde_json::{Value, json};
use tower_breaker::keyed::KeyedSnapshot;
use tower_breaker::{HealthReport, ManualClock, Verdict};

use super::*;

fn to_json(snapshot: &CircuitSnapshot) -> Value {
    serde_json::to_value(snapshot).unwrap()
}

fn from_json(value: Value) -> Result<CircuitSnapshot, String> {
    serde_json::from_value(value).map_err(|error| error.to_string())
}

#[test]
fn snapshot_is_written_with_seconds_and_times() {
    let value = to_json(&tripped().snapshot());
    let trip = &value["last_trip"];
    for time in [&value["taken_at"], &trip["at"]] {
        assert!(time.as_str().unwrap().starts_with("20"), "{time}");
    }
    let expected = json!({
        "version": 1,
        "circuit": "breaker",
        "taken_at": value["taken_at"],
        "state": "open",
        "open_remaining_seconds": 30.0,
        "override_remaining_seconds": null,
        "open_periods": 1,
        "last_open_period_seconds": 30.0,
        "open_periods_end_in_seconds": null,
        "last_trip": {
            "from": "closed",
            "reason": "consecutive_failures",
            "fault": {
                "kind": "server",
                "retryable": "never",
                "health": "unhealthy",
                "origin": "remote",
                "retry_after_seconds": null,
            },
            "consecutive_failures": 5,
            "at": trip["at"],
        },
    });
    assert_eq!(value, expected);
}

#[test]
fn only_four_fields_are_required_and_unknown_ones_are_ignored() {
    let least = json!({
        "version": 1, "circuit": "breaker", "taken_at": "2026-01-31T12:00:00Z", "state": "closed",
        "added_later": [{ "a": 1 }],
    });
    let snapshot = from_json(least.clone()).unwrap();
    assert_eq!((snapshot.open_periods, snapshot.last_open_period), (0, Duration::ZERO));
    for field in ["version", "circuit", "taken_at", "state"] {
        let mut value = least.clone();
        value.as_object_mut().unwrap().remove(field);
        assert_eq!(from_json(value).unwrap_err(), format!("missing field `{field}`"));
    }
}

#[test]
fn invalid_value_is_an_error_that_names_the_field() {
    let valid = to_json(&tripped().snapshot());
    let seconds = "allowed is a number of seconds from 0";
    for (field, value, expected) in [
        ("open_remaining_seconds", json!(-1), format!("`open_remaining_seconds` is -1; {seconds}")),
        (
            "override_remaining_seconds",
            json!(-0.5),
            format!("`override_remaining_seconds` is -0.5; {seconds}"),
        ),
        ("last_open_period_seconds", json!(-1e300), "`last_open_period_seconds` is -1000".to_owned()),
        ("open_periods_end_in_seconds", json!(-1), format!("`open_periods_end_in_seconds` is -1; {seconds}")),
        (
            "taken_at",
            json!("yesterday"),
            "`taken_at` is \"yesterday\"; allowed is a time such as \"2026-01-31T12:00:00Z\"".to_owned(),
        ),
        ("state", json!("ajar"), "unknown variant `ajar`, expected one of `closed`".to_owned()),
    ] {
        let mut snapshot = valid.clone();
        snapshot[field] = value;
        let error = from_json(snapshot).unwrap_err();
        assert!(error.starts_with(&expected), "{error}");
    }
    let toml = "version = 1\ncircuit = \"a\"\nstate = \"open\"\ntaken_at = \"2026-01-31T12:00:00Z\"\n";
    let error =
        toml::from_str::<CircuitSnapshot>(&format!("{toml}open_remaining_seconds = nan")).unwrap_err();
    assert!(error.to_string().contains("`open_remaining_seconds` is NaN"), "{error}");
    let endless = toml::from_str::<CircuitSnapshot>(&format!("{toml}open_remaining_seconds = inf")).unwrap();
    assert_eq!(endless.open_remaining, Some(Duration::MAX), "a restore limits it");
}

#[test]
fn last_trip_with_unknown_value_is_not_read() {
    let valid = to_json(&tripped().snapshot());
    for pointer in ["/last_trip/reason", "/last_trip/from", "/last_trip/at", "/last_trip/fault/kind"] {
        let mut value = valid.clone();
        *value.pointer_mut(pointer).unwrap() = json!("of_a_later_version");
        let snapshot = from_json(value).unwrap();
        assert_eq!((snapshot.last_trip, snapshot.state), (None, CircuitState::Open), "{pointer}");
    }
}

#[test]
fn keyed_snapshot_is_written_with_its_key() {
    let json = json!({ "key": ["eu", 7], "snapshot": to_json(&tripped().snapshot()) });
    let snapshot: KeyedSnapshot<(String, u32)> = serde_json::from_value(json.clone()).unwrap();
    assert_eq!(snapshot.key, ("eu".to_owned(), 7));
    assert_eq!(serde_json::to_value(&snapshot).unwrap(), json);
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Call(Verdict),
    Advance(u64),
    Trip,
    TripFor(u64),
    ProbeNow,
    Reset,
    Critical,
    ForceOpen(Option<u64>),
    ForceClosed(Option<u64>),
    Release,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let period = || prop::option::of(1..100_000_u64);
    let step = prop_oneof![
        8 => any::<bool>().prop_map(|fails| Step::Call(if fails { FAILURE } else { Verdict::Success })),
        4 => (0..100_000_u64).prop_map(Step::Advance),
        2 => Just(Step::Trip),
        1 => (1..100_000_u64).prop_map(Step::TripFor),
        1 => Just(Step::ProbeNow),
        1 => Just(Step::Reset),
        1 => Just(Step::Critical),
        1 => period().prop_map(Step::ForceOpen),
        1 => period().prop_map(Step::ForceClosed),
        2 => Just(Step::Release),
    ];
    prop::collection::vec(step, 0..40)
}

/// Applies a step. Times are in milliseconds.
fn apply(circuit: &Circuit, time: &ManualClock, step: Step) {
    let millis = Duration::from_millis;
    // Some operations are refused in some states.
    let _ = match step {
        Step::Call(verdict) => {
            send(circuit, verdict);
            Ok(())
        }
        Step::Advance(by) => {
            time.advance(millis(by));
            Ok(())
        }
        Step::Trip => circuit.trip(),
        Step::TripFor(period) => circuit.trip_for(millis(period)),
        Step::ProbeNow => circuit.probe_now(),
        Step::Reset => circuit.reset(),
        Step::Critical => {
            circuit.report(HealthReport::Critical);
            Ok(())
        }
        Step::ForceOpen(period) => {
            period.map_or_else(|| circuit.force_open(), |period| circuit.force_open_for(millis(period)))
        }
        Step::ForceClosed(period) => {
            period.map_or_else(|| circuit.force_closed(), |period| circuit.force_closed_for(millis(period)))
        }
        Step::Release => {
            circuit.release();
            Ok(())
        }
    };
}

/// Any JSON value that may be in a damaged file.
fn hostile() -> impl Strategy<Value = Value> {
    let number = prop_oneof![
        any::<f64>().prop_map(|number| json!(number)),
        any::<i64>().prop_map(|number| json!(number)),
        prop::sample::select(vec![json!(0), json!(1), json!(1e300), json!(u64::MAX), json!(u32::MAX)]),
    ];
    let text = prop_oneof![
        prop::sample::select(vec!["open", "closed", "half_open", "forced_open", "disabled", "breaker", ""]),
        prop::sample::select(vec!["1970-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "2026-01-31T12:00:00Z"]),
    ];
    prop_oneof![
        4 => number,
        4 => text.prop_map(|text| json!(text)),
        1 => Just(Value::Null),
        1 => Just(json!([{}])),
    ]
}

proptest! {
    /// Each reachable state is the same after it was written, read and restored, except for what
    /// the documentation lists.
    #[test]
    fn every_reachable_state_survives_a_file(history in steps(), until_reset: bool, grows: bool) {
        let config = || {
            let config = config().open_until_reset(until_reset).successes_to_close(1);
            if grows { config.open_backoff(2.0, 1_000 * SECOND) } else { config }
        };
        let (original, time) = circuit(config());
        for step in history {
            apply(&original, &time, step);
        }
        let snapshot = original.snapshot();
        let read = from_json(to_json(&snapshot)).unwrap();
        prop_assert_eq!(&read, &snapshot);

        let copy = restored(&read, config()).snapshot();
        let state = match snapshot.state {
            CircuitState::HalfOpen => CircuitState::Open,
            state => state,
        };
        prop_assert_eq!((copy.state, copy.open_periods), (state, snapshot.open_periods));
        prop_assert_eq!(copy.last_open_period, snapshot.last_open_period);
        // A half-open circuit may have had no trip. Its restore is then the first one.
        if let Some(trip) = snapshot.last_trip {
            prop_assert_eq!(copy.last_trip.unwrap(), trip);
        }
        for (left, before) in [
            (copy.open_remaining, snapshot.open_remaining),
            (copy.override_remaining, snapshot.override_remaining),
            (copy.open_periods_end_in, snapshot.open_periods_end_in),
        ] {
            prop_assert!(left == before || is_about(left, before.unwrap()), "{left:?}, {before:?}");
        }
    }

    /// A damaged file never panics, and opens no circuit for longer than the configuration allows.
    #[test]
    fn hostile_snapshot_never_panics(changes in prop::collection::vec((0..16_usize, hostile()), 0..8)) {
        const POINTERS: [&str; 16] = [
            "/version", "/circuit", "/taken_at", "/state", "/open_remaining_seconds",
            "/override_remaining_seconds", "/open_periods", "/last_open_period_seconds",
            "/open_periods_end_in_seconds", "/last_trip", "/last_trip/from", "/last_trip/reason",
            "/last_trip/fault", "/last_trip/fault/retry_after_seconds", "/last_trip/consecutive_failures",
            "/last_trip/at",
        ];
        let mut value = to_json(&tripped().snapshot());
        for (place, hostile) in changes {
            if let Some(field) = value.pointer_mut(POINTERS[place]) {
                *field = hostile;
            }
        }
        let Ok(snapshot) = from_json(value) else { return Ok(()) };
        let config = || config().open_backoff(2.0, 600 * SECOND).open_jitter(0.5);
        let (circuit, time) = circuit(config());
        if circuit.restore(&snapshot).is_ok() && state(&circuit) == CircuitState::Open {
            prop_assert!(circuit.status().retry_after.unwrap() <= 900 * SECOND);
        }
        serde_json::to_string(&circuit.status()).unwrap();
        serde_json::to_string(&circuit.snapshot()).unwrap();
        circuit.release();
        time.advance(900 * SECOND);
        for _ in 0..5 {
            send(&circuit, FAILURE);
        }
        serde_json::to_string(&circuit.snapshot()).unwrap();
    }
}
