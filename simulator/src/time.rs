//! Units of virtual time. Every time of a run is in nanoseconds since its start.

/// One millisecond, in nanoseconds.
pub const MILLISECOND: u64 = 1_000_000;

/// One second, in nanoseconds.
pub const SECOND: u64 = 1_000 * MILLISECOND;

/// One minute, in nanoseconds.
pub const MINUTE: u64 = 60 * SECOND;
