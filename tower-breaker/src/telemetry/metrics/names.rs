//! The names, units and descriptions of all metrics, and the keys of their labels.

use metrics::{KeyName, Level, Metadata, Recorder, Unit};

use crate::telemetry::TARGET;

pub(super) const METADATA: Metadata<'static> = Metadata::new(TARGET, Level::INFO, Some(module_path!()));

pub(super) const CIRCUITS: &str = "tower_breaker_circuits";
pub(super) const CALLS: &str = "tower_breaker_calls_total";
pub(super) const SLOW_CALLS: &str = "tower_breaker_slow_calls_total";
pub(super) const REJECTIONS: &str = "tower_breaker_rejections_total";
pub(super) const TRANSITIONS: &str = "tower_breaker_transitions_total";
pub(super) const EVICTIONS: &str = "tower_breaker_evictions_total";
pub(super) const OVERFLOWS: &str = "tower_breaker_overflows_total";

pub(super) const CIRCUIT: &str = "circuit";
pub(super) const KEY: &str = "key";
pub(super) const STATE: &str = "state";
pub(super) const OUTCOME: &str = "outcome";
pub(super) const FROM: &str = "from";
pub(super) const TO: &str = "to";
pub(super) const REASON: &str = "reason";

/// The counters, with their descriptions. [`CIRCUITS`] is the only gauge.
const COUNTERS: [(&str, &str); 6] = [
    (CALLS, "Calls that the circuit breaker admitted and that have ended, by outcome."),
    (SLOW_CALLS, "Counted calls that took at least the slow call threshold."),
    (REJECTIONS, "Calls that the circuit breaker rejected, by the state of the circuit."),
    (TRANSITIONS, "Changes of the state of circuits."),
    (EVICTIONS, "Keys whose circuit was evicted for another key."),
    (OVERFLOWS, "Calls with a key for which the map of circuits had no room."),
];

/// Describes all metrics to a recorder.
///
/// This happens whenever instruments are registered: a description that the recorder has already
/// changes nothing.
pub(super) fn describe(recorder: &dyn Recorder) {
    let text = "Circuits that exist, by state.";
    recorder.describe_gauge(KeyName::from_const_str(CIRCUITS), Some(Unit::Count), text.into());
    for (name, text) in COUNTERS {
        recorder.describe_counter(KeyName::from_const_str(name), Some(Unit::Count), text.into());
    }
}
