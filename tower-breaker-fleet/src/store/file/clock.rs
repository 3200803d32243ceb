//! The only place in this store that reads the wall clock.
//!
//! The times in the files must have a meaning for other processes, and after a restart of the
//! machine. The rules limit what a step of the clock can change.

#![expect(clippy::disallowed_methods, reason = "this is the only place that reads the wall clock")]

use std::time::{SystemTime, UNIX_EPOCH};

/// Returns the milliseconds since 1970. A clock before 1970 is in 1970.
pub(super) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
