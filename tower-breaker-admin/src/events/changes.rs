//! What has changed between two samples of all circuits.

use std::collections::HashMap;
use std::time::Duration;

use serde::{Serialize, Serializer};
use tower_breaker::{CircuitState, Status};

use crate::view::View;

/// The number of epochs: 0 follows the last one.
const EPOCHS: u32 = 1 << 24;

/// How much faster than the time between two samples a remaining time passes at most. More is a
/// change: for example, an override was replaced by a shorter one.
const TOLERANCE: Duration = Duration::from_secs(1);

/// The changes between two samples.
#[derive(Default)]
pub(super) struct Changes<'a> {
    /// The circuits that are new, or that have changed in more than counters.
    pub(super) changed: Vec<&'a View>,
    pub(super) removed: Vec<&'a str>,
    /// The counters of the circuits whose counters have changed.
    pub(super) rows: Vec<Row>,
}

impl<'a> Changes<'a> {
    /// Compares two samples, with the time between them. Both are sorted by name.
    ///
    /// `moved` has the last epoch of each circuit that had a transition since the old sample. The
    /// streams have these transitions, so the circuits are always sent.
    ///
    /// If a circuit's epoch has gone back, another circuit has taken the name. The old one is then
    /// removed first.
    pub(super) fn between(
        old: &'a [View],
        new: &'a [View],
        elapsed: Duration,
        moved: &HashMap<&str, u32>,
    ) -> Self {
        let mut changes = Self::default();
        let mut old = old.iter().peekable();
        for view in new {
            while let Some(gone) = old.next_if(|old| old.circuit < view.circuit) {
                changes.removed.push(gone.circuit);
            }
            let old = old.next_if(|old| old.circuit == view.circuit);
            let moved_to = moved.get(view.circuit).copied();
            // A keyed circuit as a whole has no epoch.
            let has_ended = |epoch| view.local.is_some() && is_older(view.epoch, epoch);
            if moved_to.is_some_and(has_ended) || old.is_some_and(|old| has_ended(old.epoch)) {
                changes.removed.push(view.circuit);
            }
            if moved_to.is_some() || old.is_none_or(|old| is_changed(old, view, elapsed)) {
                changes.changed.push(view);
            }
            // The view of a new circuit has its counters.
            if let Some(old) = old.map(Row::of)
                && old != Row::of(view)
            {
                changes.rows.extend(Row::of(view));
            }
        }
        changes.removed.extend(old.map(|gone| gone.circuit));
        changes
    }
}

/// Returns whether an epoch is older than another one. Epochs wrap after 24 bits.
pub(super) const fn is_older(epoch: u32, than: u32) -> bool {
    let ahead = than.wrapping_sub(epoch) % EPOCHS;
    ahead != 0 && ahead < EPOCHS / 2
}

/// The counters of a circuit, in the order of the event `samples`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Row {
    circuit: &'static str,
    calls: u64,
    failures: u64,
    rejected_calls: u64,
    consecutive_failures: u64,
    retry_after_seconds: Option<f64>,
    state: char,
}

impl Row {
    /// `None`: a keyed circuit as a whole has no counters.
    fn of(view: &View) -> Option<Self> {
        let status = view.local.as_ref()?;
        Some(Self {
            circuit: view.circuit,
            calls: status.window.calls,
            failures: status.window.failures,
            rejected_calls: status.rejected_calls,
            consecutive_failures: status.consecutive_failures,
            retry_after_seconds: status.retry_after.map(tenths),
            state: letter(status.state),
        })
    }
}

impl Serialize for Row {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let Self { circuit, calls, failures, rejected_calls, .. } = *self;
        let Self { consecutive_failures, retry_after_seconds, state, .. } = *self;
        (circuit, calls, failures, rejected_calls, consecutive_failures, retry_after_seconds, state)
            .serialize(to)
    }
}

/// Returns a duration in seconds, rounded up to tenths: only zero is zero.
fn tenths(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 10.0).ceil() / 10.0
}

/// Returns the letter of a state in samples and in the history.
pub(super) const fn letter(state: CircuitState) -> char {
    match state {
        CircuitState::Closed => 'c',
        CircuitState::Open => 'o',
        CircuitState::HalfOpen => 'h',
        CircuitState::ForcedOpen => 'O',
        CircuitState::ForcedClosed => 'C',
        CircuitState::Disabled => 'd',
        // The enum is not exhaustive for other crates.
        _ => '?',
    }
}

/// Returns whether a circuit has changed in more than the counters of its row.
fn is_changed(old: &View, new: &View, elapsed: Duration) -> bool {
    let configuration = |view: &View| {
        let View { mode, failure_rate_limit, minimum_calls, consecutive_failures_limit, .. } = *view;
        (mode, failure_rate_limit, minimum_calls, consecutive_failures_limit)
    };
    old.epoch != new.epoch
        || old.rejects_calls != new.rejects_calls
        || old.keys != new.keys
        || configuration(old) != configuration(new)
        || is_changed_locally(old.local.as_ref(), new.local.as_ref(), elapsed)
        || is_changed_in_fleet(old, new, elapsed)
}

fn is_changed_locally(old: Option<&Status>, new: Option<&Status>, elapsed: Duration) -> bool {
    let (Some(old), Some(new)) = (old, new) else { return old.is_some() != new.is_some() };
    let failure = |status: &Status| status.last_failure.as_ref().map(|failure| failure.at);
    let transition = |status: &Status| status.last_transition.as_ref().map(|last| last.at);
    old.state != new.state
        || old.half_open != new.half_open
        || old.slow_start.is_some() != new.slow_start.is_some()
        || is_moved(old.override_ends_in, new.override_ends_in, elapsed)
        || failure(old) != failure(new)
        || transition(old) != transition(new)
}

#[cfg(feature = "fleet")]
fn is_changed_in_fleet(old: &View, new: &View, elapsed: Duration) -> bool {
    let (Some(old), Some(new)) = (&old.fleet, &new.fleet) else {
        return old.fleet.is_some() != new.fleet.is_some();
    };
    let counts = |status: &tower_breaker_fleet::FleetCircuitStatus| {
        let votes = (status.votes, status.votes_needed, status.voting);
        (status.members, status.open_members, votes, status.warming_up)
    };
    counts(old) != counts(new)
        || match (&old.record, &new.record) {
            (Some(old), Some(new)) => {
                old.epoch != new.epoch
                    || is_moved(old.remaining, new.remaining, elapsed)
                    || is_moved(old.manual_remaining, new.manual_remaining, elapsed)
            }
            (old, new) => old.is_some() != new.is_some(),
        }
}

#[cfg(not(feature = "fleet"))]
const fn is_changed_in_fleet(_: &View, _: &View, _: Duration) -> bool {
    false
}

/// Returns whether a remaining time has done more than pass.
fn is_moved(old: Option<Duration>, new: Option<Duration>, elapsed: Duration) -> bool {
    match (old, new) {
        (Some(old), Some(new)) => new > old || old.saturating_sub(new) > elapsed.saturating_add(TOLERANCE),
        (old, new) => old.is_some() != new.is_some(),
    }
}
