//! Logs and metrics of the fleet.

use std::time::Duration;

use super::circuit::Members;
use crate::store::{ProbeOutcome, StoreErrorKind};

/// The target of events. It is a constant, so that it does not depend on module paths.
#[cfg(feature = "tracing")]
const TARGET: &str = "tower_breaker_fleet";

#[cfg(feature = "metrics")]
mod names {
    use metrics::Unit;

    pub(super) const ATTACHED: &str = "tower_breaker_fleet_attached";
    pub(super) const MEMBERS: &str = "tower_breaker_fleet_members";
    pub(super) const OPEN_MEMBERS: &str = "tower_breaker_fleet_open_members";
    pub(super) const VOTES: &str = "tower_breaker_fleet_votes";
    #[cfg(feature = "keyed")]
    pub(super) const KEYS: &str = "tower_breaker_fleet_keys";
    pub(super) const ERRORS: &str = "tower_breaker_fleet_errors_total";
    pub(super) const PROBES: &str = "tower_breaker_fleet_probes_total";
    pub(super) const SYNC_TIME: &str = "tower_breaker_fleet_sync_seconds";

    /// Describes all metrics to the recorder.
    pub(super) fn describe() {
        metrics::describe_gauge!(ATTACHED, "Whether the store of the fleet answers: 1, or 0.");
        metrics::describe_gauge!(MEMBERS, Unit::Count, "Processes that share the circuit.");
        metrics::describe_gauge!(
            OPEN_MEMBERS,
            Unit::Count,
            "Processes whose circuit is open on local evidence."
        );
        metrics::describe_gauge!(VOTES, Unit::Count, "Processes that vote to open the circuit.");
        #[cfg(feature = "keyed")]
        metrics::describe_gauge!(
            KEYS,
            Unit::Count,
            "Keys of the circuits by key that take part in the fleet."
        );
        metrics::describe_counter!(ERRORS, Unit::Count, "Errors of the store, by kind.");
        metrics::describe_counter!(
            PROBES,
            Unit::Count,
            "Probes that this process sent for the fleet, by outcome."
        );
        metrics::describe_histogram!(
            SYNC_TIME,
            Unit::Seconds,
            "Time until the store replied to a heartbeat."
        );
    }
}

#[cfg(all(feature = "keyed", feature = "metrics"))]
use self::names::KEYS;
#[cfg(feature = "metrics")]
use self::names::{ATTACHED, ERRORS, MEMBERS, OPEN_MEMBERS, PROBES, SYNC_TIME, VOTES, describe};

/// Records that the connection to the store was lost, once for each loss.
pub(crate) fn detached(namespace: &str, error: &str) {
    attached(namespace, false);
    #[cfg(feature = "tracing")]
    tracing::warn!(
        target: TARGET,
        namespace,
        error,
        "the store of the fleet is unavailable: circuits decide for themselves until it is back",
    );
    #[cfg(not(feature = "tracing"))]
    let _ = error;
}

/// Records that the store is back after a loss, once for each loss.
pub(crate) fn reattached(namespace: &str) {
    #[cfg(feature = "tracing")]
    tracing::info!(target: TARGET, namespace, "the store of the fleet is back");
    #[cfg(not(feature = "tracing"))]
    let _ = namespace;
}

/// Records that a circuit of a registry cannot be shared.
pub(crate) fn not_shared(circuit: &str, error: &crate::FleetError) {
    #[cfg(feature = "tracing")]
    tracing::warn!(target: TARGET, circuit, %error, "the circuit is not shared");
    #[cfg(not(feature = "tracing"))]
    let _ = (circuit, error);
}

/// Records that keys of a layer do not take part in the fleet. Called once for each layer.
#[cfg(feature = "keyed")]
pub(crate) fn key_is_local(layer: &str, max_keys: usize, problem: &str) {
    #[cfg(feature = "tracing")]
    tracing::warn!(
        target: TARGET,
        circuit = layer,
        max_keys,
        problem,
        "some keys do not take part in the fleet, and decide for themselves",
    );
    #[cfg(not(feature = "tracing"))]
    let _ = (layer, max_keys, problem);
}

/// Records how many keys of a layer take part.
#[cfg(feature = "keyed")]
pub(crate) fn keys(layer: &'static str, count: usize) {
    #[cfg(feature = "metrics")]
    metrics::gauge!(KEYS, "circuit" => layer).set(count as f64);
    #[cfg(not(feature = "metrics"))]
    let _ = (layer, count);
}

/// Records whether the store answers.
///
/// A program may install its recorder at any time, so this also describes the metrics. A repeated
/// description changes nothing.
pub(crate) fn attached(namespace: &str, attached: bool) {
    #[cfg(feature = "metrics")]
    {
        describe();
        let value = if attached { 1.0 } else { 0.0 };
        metrics::gauge!(ATTACHED, "namespace" => namespace.to_owned()).set(value);
    }
    #[cfg(not(feature = "metrics"))]
    let _ = (namespace, attached);
}

pub(crate) fn members(circuit: &'static str, members: Members) {
    #[cfg(feature = "metrics")]
    {
        metrics::gauge!(MEMBERS, "circuit" => circuit).set(members.count);
        metrics::gauge!(OPEN_MEMBERS, "circuit" => circuit).set(members.open);
        metrics::gauge!(VOTES, "circuit" => circuit).set(members.votes);
    }
    #[cfg(not(feature = "metrics"))]
    let _ = (circuit, members);
}

pub(crate) fn error(kind: StoreErrorKind) {
    #[cfg(feature = "metrics")]
    {
        let kind = match kind {
            StoreErrorKind::Unreachable => "unreachable",
            StoreErrorKind::Refused => "refused",
            StoreErrorKind::Invalid => "invalid",
        };
        metrics::counter!(ERRORS, "kind" => kind).increment(1);
    }
    #[cfg(not(feature = "metrics"))]
    let _ = kind;
}

pub(crate) fn probe(circuit: &'static str, outcome: ProbeOutcome) {
    #[cfg(feature = "metrics")]
    {
        let outcome = match outcome {
            ProbeOutcome::Success => "success",
            ProbeOutcome::Failure => "failure",
            ProbeOutcome::Neutral => "neutral",
        };
        metrics::counter!(PROBES, "circuit" => circuit, "outcome" => outcome).increment(1);
    }
    #[cfg(not(feature = "metrics"))]
    let _ = (circuit, outcome);
}

pub(crate) fn sync_time(time: Duration) {
    #[cfg(feature = "metrics")]
    metrics::histogram!(SYNC_TIME).record(time);
    #[cfg(not(feature = "metrics"))]
    let _ = time;
}
