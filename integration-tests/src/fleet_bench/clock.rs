//! The clocks of the measurements.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

/// Returns the time since 1970 in milliseconds, as the stores count it.
#[expect(clippy::disallowed_methods, reason = "the epoch of a record is a wall-clock time")]
pub(crate) fn wall_ms() -> f64 {
    millis(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

/// Returns a time that never goes back.
pub(crate) fn monotonic() -> Duration {
    read(ClockId::Monotonic)
}

/// Returns the time for which this thread has run on a core. It excludes the time that the system
/// gives to other threads.
pub(crate) fn thread_cpu() -> Duration {
    read(ClockId::ThreadCPUTime)
}

pub(crate) fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

fn read(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    let nanoseconds = u32::try_from(time.tv_nsec).unwrap_or_default();
    Duration::new(u64::try_from(time.tv_sec).unwrap_or_default(), nanoseconds)
}
