//! Units of virtual time. Every time of a run is in nanoseconds since its start.

use std::time::Duration;

/// One millisecond, in nanoseconds.
pub const MILLISECOND: u64 = 1_000_000;

/// One second, in nanoseconds.
pub const SECOND: u64 = 1_000 * MILLISECOND;

/// One minute, in nanoseconds.
pub const MINUTE: u64 = 60 * SECOND;

/// Returns a duration in nanoseconds, cut to the maximum of a `u64`.
pub fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
