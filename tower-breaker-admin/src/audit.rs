//! The audit: every attempt to change a circuit.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use serde::Serialize;

use crate::auth::Role;
use crate::problem::cut;

/// How many entries are kept, and how many of them may be refused attempts.
const MAX_ENTRIES: usize = 200;
const MAX_REFUSED: usize = 100;

/// The longest text of an entry, in bytes.
const MAX_TEXT_BYTES: usize = 200;

/// One attempt to change a circuit, applied or refused.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct AuditEntry {
    /// The number of the entry. It grows by 1 with each.
    pub id: u64,
    /// When the attempt was decided.
    #[serde(serialize_with = "crate::view::time")]
    pub at: SystemTime,
    /// The name of the user. Empty: the request had no valid credential.
    ///
    /// In all texts of an entry, control characters are replaced, so that a text cannot look like
    /// another line of a log. Texts are cut after 200 bytes.
    pub user: String,
    /// The role of the user. `None`: the request had no valid credential.
    pub role: Option<Role>,
    /// The name of the circuit, as in the request.
    pub circuit: String,
    /// The label of the key, for a keyed circuit.
    pub key: Option<String>,
    /// The action, as in the request.
    pub action: String,
    /// `process` or `fleet`; empty: the request did not say.
    pub scope: String,
    /// The reason that the user gave.
    pub reason: String,
    /// How long the action lasts. `None`: the request did not say.
    #[serde(rename = "for_seconds", serialize_with = "crate::view::optional_seconds")]
    pub lasts_for: Option<Duration>,
    /// The HTTP status of the response. 500 and above: it is not known whether the action was
    /// applied.
    pub status: u16,
    /// Why the attempt was refused, or why its result is unknown. `None`: it was applied.
    pub error: Option<String>,
    /// The epoch of the circuit before the action.
    pub epoch_before: Option<u64>,
    /// The epoch of the circuit after the action.
    pub epoch_after: Option<u64>,
}

/// Receives every entry.
pub(crate) type OnAudit = Box<dyn Fn(&AuditEntry) + Send + Sync>;

/// The last entries.
#[derive(Default)]
pub(crate) struct AuditLog {
    state: Mutex<State>,
    on_audit: Option<OnAudit>,
}

#[derive(Default)]
struct State {
    last_id: u64,
    entries: VecDeque<AuditEntry>,
}

impl AuditLog {
    pub(crate) fn new(on_audit: Option<OnAudit>) -> Self {
        Self { state: Mutex::default(), on_audit }
    }

    /// Adds an entry, and sets its number. An entry that is not kept is only logged and passed to
    /// the observer.
    ///
    /// When more entries are refused attempts than may be kept, the oldest refused attempt is
    /// removed. So refused attempts do not remove the applied ones.
    pub(crate) fn add(&self, entry: &mut AuditEntry, is_kept: bool) {
        let mut state = self.state();
        state.last_id += 1;
        entry.id = state.last_id;
        if is_kept {
            state.keep(entry.clone());
        }
        drop(state);
        // The attempt was decided already: a panic must not affect the response.
        let _ = catch_unwind(AssertUnwindSafe(|| log(entry)));
        if let Some(on_audit) = &self.on_audit {
            let _ = catch_unwind(AssertUnwindSafe(|| on_audit(entry)));
        }
    }

    /// Returns up to `limit` entries with numbers above `after`, the oldest first, and whether
    /// there are more.
    pub(crate) fn entries(&self, after: u64, limit: usize) -> (Vec<AuditEntry>, bool) {
        let state = self.state();
        let mut later = state.entries.iter().filter(|entry| entry.id > after);
        let entries = later.by_ref().take(limit).cloned().collect();
        (entries, later.next().is_some())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn keep(&mut self, entry: AuditEntry) {
        // With another status, the action may have been applied.
        let is_refused = |entry: &AuditEntry| entry.error.is_some() && entry.status < 500;
        if is_refused(&entry) && self.entries.iter().filter(|kept| is_refused(kept)).count() >= MAX_REFUSED {
            let oldest = self.entries.iter().position(is_refused);
            oldest.and_then(|oldest| self.entries.remove(oldest));
        } else if self.entries.len() >= MAX_ENTRIES {
            self.entries.pop_front();
        }
        self.entries.push_back(entry);
    }
}

/// Returns a text from a request as an entry has it.
pub(crate) fn text(text: &str) -> String {
    cut(text.replace(char::is_control, "\u{fffd}"), MAX_TEXT_BYTES)
}

/// Returns the time for an entry.
#[expect(clippy::disallowed_methods, reason = "the time is only shown; no decision uses it")]
pub(crate) fn now() -> SystemTime {
    SystemTime::now()
}

/// Logs an entry. Texts from the request are written with `Debug`, so that they cannot look like
/// other log lines.
#[cfg(feature = "tracing")]
fn log(entry: &AuditEntry) {
    /// The target of events. It is a constant, so that it does not depend on module paths.
    const TARGET: &str = "tower_breaker_admin";
    let AuditEntry { id, user, circuit, key, action, scope, reason, status, error, .. } = entry;
    let AuditEntry { epoch_before, epoch_after, .. } = *entry;
    let lasts_for_seconds = entry.lasts_for.map(|time| time.as_secs_f64());
    match error {
        None => tracing::info!(
            target: TARGET,
            id, ?user, ?circuit, key = key.as_ref().map(tracing::field::debug), ?action, ?scope, ?reason,
            lasts_for_seconds, status, epoch_before, epoch_after,
            "an action was applied",
        ),
        Some(error) => tracing::warn!(
            target: TARGET,
            id, ?user, ?circuit, key = key.as_ref().map(tracing::field::debug), ?action, ?scope, ?reason,
            lasts_for_seconds, status, ?error,
            "an action was refused, or has failed",
        ),
    }
}

#[cfg(not(feature = "tracing"))]
fn log(_: &AuditEntry) {}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn entry(error: Option<&str>) -> AuditEntry {
        AuditEntry {
            id: 0,
            at: now(),
            user: "anna".into(),
            role: Some(Role::Operator),
            circuit: "search".into(),
            key: None,
            action: "trip".into(),
            scope: "process".into(),
            reason: "test".into(),
            lasts_for: None,
            status: 200,
            error: error.map(str::to_owned),
            epoch_before: None,
            epoch_after: None,
        }
    }

    fn ids(log: &AuditLog, after: u64, limit: usize) -> (Vec<u64>, bool) {
        let (entries, has_more) = log.entries(after, limit);
        (entries.iter().map(|entry| entry.id).collect(), has_more)
    }

    #[test]
    fn last_entries_are_kept_in_order() {
        let log = AuditLog::default();
        for _ in 0..250 {
            log.add(&mut entry(None), true);
        }
        let (all, has_more) = ids(&log, 0, 1000);
        assert_eq!((all, has_more), ((51..=250).collect(), false));
        assert_eq!(ids(&log, 100, 3), (vec![101, 102, 103], true));
        assert_eq!(ids(&log, 247, 3), (vec![248, 249, 250], false));
        assert_eq!(ids(&log, 250, 3), (vec![], false));
    }

    #[test]
    fn refused_attempts_do_not_remove_applied_ones() {
        let log = AuditLog::default();
        for _ in 0..60 {
            log.add(&mut entry(None), true);
        }
        for _ in 0..300 {
            log.add(&mut AuditEntry { status: 409, ..entry(Some("no")) }, true);
        }
        assert_eq!(ids(&log, 0, 1000).0, (1..=60).chain(261..=360).collect::<Vec<_>>());
        for _ in 0..150 {
            log.add(&mut entry(None), true);
        }
        let all = ids(&log, 0, 1000).0;
        assert_eq!((all.len(), all[0]), (200, 311), "the oldest entry of all is removed");
    }

    #[test]
    fn refused_attempts_do_not_remove_those_with_an_unknown_result() {
        let log = AuditLog::default();
        log.add(&mut AuditEntry { status: 503, ..entry(Some("the store did not reply")) }, true);
        for _ in 0..300 {
            log.add(&mut AuditEntry { status: 401, ..entry(Some("no")) }, true);
        }
        assert_eq!(ids(&log, 0, 1000).0, (1..=1).chain(202..=301).collect::<Vec<_>>());
    }

    #[test]
    fn observer_gets_entries_that_are_not_kept_and_may_panic() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let seen_by_observer = Arc::clone(&seen);
        let log = AuditLog::new(Some(Box::new(move |entry| {
            seen_by_observer.lock().unwrap().push(entry.id);
            assert_ne!(entry.id, 1, "the observer fails");
        })));
        log.add(&mut entry(None), true);
        let mut second = entry(Some("no"));
        log.add(&mut second, false);
        log.add(&mut entry(None), true);
        assert_eq!(second.id, 2);
        assert_eq!((ids(&log, 0, 9).0, seen.lock().unwrap().clone()), (vec![1, 3], vec![1, 2, 3]));
    }
}
