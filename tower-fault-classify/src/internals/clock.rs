//! The clocks of the layers. This is the only place that reads the time.

#![expect(clippy::disallowed_methods, reason = "this is the only place that reads the time")]

use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::sync;

/// A clock from which a layer reads the time, in nanoseconds since the clock's origin.
///
/// **Default**: [`coarse`](Self::coarse).
///
/// | clock | cost of a reading | delay of a reading |
/// |---|---|---|
/// | [`coarse`](Self::coarse) | about 4 ns on Linux, elsewhere as `precise` | up to 10 ms on Linux |
/// | [`precise`](Self::precise) | about 25 ns | none |
/// | `tokio` (feature `tokio`) | about 30 ns | none; while paused, it advances only by `tokio::time::advance` and when the runtime is idle |
/// | `runtime` (feature `tokio`) | as `tokio` with tokio's feature `test-util`, otherwise as `coarse` | the same |
/// | [`manual`](Self::manual) | 1 ns | none; it advances only through its handle |
///
/// Two clocks are equal if they read the same source. Each manual clock is a source of its own.
//
// A number instead of a reference, so that an `AtomicClock` can store it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Clock(u64);

const COARSE: u64 = 0;
const PRECISE: u64 = 1;
#[cfg(feature = "__internals-tokio")]
const TOKIO: u64 = 2;
/// The number of the first manual clock.
const FIRST_MANUAL: u64 = 3;

impl Clock {
    /// Returns the cheapest monotonic clock of the system.
    ///
    /// It is `CLOCK_MONOTONIC_COARSE` on Linux, and [`Instant`] elsewhere.
    pub const fn coarse() -> Self {
        Self(COARSE)
    }

    /// Returns the precise monotonic clock of the system.
    pub const fn precise() -> Self {
        Self(PRECISE)
    }

    /// Returns tokio's clock, which tests can pause and advance.
    ///
    /// `tower-breaker` has this clock with its feature `tokio`, and `tower-jitter-retry` always.
    #[cfg(feature = "__internals-tokio")]
    pub const fn tokio() -> Self {
        Self(TOKIO)
    }

    /// Returns tokio's clock if it can be paused, and the coarse clock otherwise.
    ///
    /// Tokio's clock can be paused if tokio's feature `test-util` is enabled. Otherwise the coarse
    /// clock is used, because it is cheaper.
    ///
    /// `tower-breaker` has this clock with its feature `tokio`, and `tower-jitter-retry` always.
    #[cfg(feature = "__internals-tokio")]
    pub const fn runtime() -> Self {
        if pausable::TOKIO { Self::tokio() } else { Self::coarse() }
    }

    /// Creates a clock that starts at 0 and advances only through the returned handle.
    ///
    /// It is intended for tests. It uses 8 to 16 bytes of memory that are never freed, because a
    /// clock is `Copy`.
    pub fn manual() -> (Self, ManualClock) {
        let number = manual::next();
        (Self(FIRST_MANUAL + number), ManualClock { nanos: manual::nanos(number) })
    }

    /// Returns the nanoseconds since the clock's origin.
    #[inline]
    pub fn now(&self) -> u64 {
        // A predictable branch instead of a jump table.
        if self.0 == COARSE { system::coarse() } else { self.now_uncommon() }
    }

    fn now_uncommon(self) -> u64 {
        match self.0 {
            COARSE => system::coarse(),
            PRECISE => system::precise(),
            #[cfg(feature = "__internals-tokio")]
            TOKIO if pausable::TOKIO => since_origin(tokio::time::Instant::now().into_std()),
            #[cfg(feature = "__internals-tokio")]
            TOKIO => system::precise(),
            number => manual::nanos(number - FIRST_MANUAL).load(Ordering::Relaxed),
        }
    }

    /// Returns a time that is not before [`now`](Self::now), by a cheap reading.
    ///
    /// For a clock that reads the system's precise time, it is the coarse clock's time plus the
    /// maximum delay of its reading. For every other clock, it is the time itself. If the kernel
    /// updates the coarse clock late, the result is too early by that delay.
    #[inline]
    pub fn upper_bound(&self) -> u64 {
        if self.is_precise() { system::upper_bound() } else { self.now() }
    }

    /// Returns whether the clock always shows the system's precise time, since the same origin.
    const fn is_precise(self) -> bool {
        match self.0 {
            PRECISE => true,
            #[cfg(feature = "__internals-tokio")]
            TOKIO => !pausable::TOKIO,
            _ => false,
        }
    }

    /// Returns the maximum delay of a reading: how far it may lag behind the actual time.
    ///
    /// To be sure that a time has passed, wait that much longer.
    pub const fn resolution(&self) -> Duration {
        match self.0 {
            COARSE => system::COARSE_SLACK,
            _ => Duration::ZERO,
        }
    }

    /// Returns a clock that is precise enough to measure `shortest`.
    ///
    /// If this is the coarse clock and `shortest` is less than 100 ms, it returns the precise
    /// clock, because the delay of the coarse clock would be noticeable. Otherwise it returns this
    /// clock.
    pub fn fit_for(self, shortest: Duration) -> Self {
        match self.0 {
            COARSE if shortest < Duration::from_millis(100) => Self::precise(),
            _ => self,
        }
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::coarse()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            COARSE => f.write_str("Coarse"),
            PRECISE => f.write_str("Precise"),
            #[cfg(feature = "__internals-tokio")]
            TOKIO => f.write_str("Tokio"),
            number => f.debug_tuple("Manual").field(&(number - FIRST_MANUAL)).finish(),
        }
    }
}

/// A clock that can be replaced while other threads read it.
#[derive(Debug)]
pub struct AtomicClock(sync::AtomicU64);

impl AtomicClock {
    /// Creates an atomic clock that contains `clock`.
    pub fn new(clock: Clock) -> Self {
        Self(sync::AtomicU64::new(clock.0))
    }

    /// Returns the clock.
    #[inline]
    pub fn load(&self) -> Clock {
        // Acquire: a reader of a new clock sees the writes before its `store`.
        Clock(self.0.load(Ordering::Acquire))
    }

    /// Returns the time of the clock.
    #[inline]
    pub fn now(&self) -> u64 {
        self.load().now()
    }

    /// Replaces the clock.
    pub fn store(&self, clock: Clock) {
        self.0.store(clock.0, Ordering::Release);
    }
}

/// The times of the manual clocks, by the clock's number.
mod manual {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    /// The times of the first clocks, which are found by an index.
    static FIRST: [AtomicU64; 64] = [const { AtomicU64::new(0) }; 64];
    /// The times of all other clocks.
    ///
    /// Chunk `n` has 2ⁿ times, so a time is never moved, and there are few chunks.
    static CHUNKS: [OnceLock<Box<[AtomicU64]>>; 63] = [const { OnceLock::new() }; 63];

    /// Returns the number of a new clock.
    pub(super) fn next() -> u64 {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        // Relaxed: only the number matters.
        NEXT.fetch_add(1, Ordering::Relaxed)
    }

    #[inline]
    pub(super) fn nanos(number: u64) -> &'static AtomicU64 {
        FIRST.get(number as usize).unwrap_or_else(|| later(number - FIRST.len() as u64))
    }

    fn later(number: u64) -> &'static AtomicU64 {
        let chunk = (number + 1).ilog2();
        let length = 1 << chunk;
        let times = CHUNKS[chunk as usize]
            .get_or_init(|| std::iter::repeat_with(|| AtomicU64::new(0)).take(length).collect());
        &times[number as usize + 1 - length]
    }
}

/// Detects whether tokio's clock can be paused.
#[cfg(feature = "__internals-tokio")]
mod pausable {
    /// Whether tokio is built with its feature `test-util`. No `cfg` of this crate shows that.
    #[allow(
        unused_imports,
        clippy::wildcard_imports,
        reason = "without `test-util` there is no `pause` to import by its name"
    )]
    pub(super) const TOKIO: bool = {
        use tokio::time::*;
        // This resolves to `tokio::time::pause` if it exists, otherwise to the function below.
        exists(pause)
    };

    struct Absent;

    #[allow(dead_code, reason = "with `test-util`, tokio's function is used instead")]
    fn pause() -> Absent {
        Absent
    }

    trait Returned {
        const EXISTS: bool;
    }

    impl Returned for () {
        const EXISTS: bool = true;
    }

    impl Returned for Absent {
        const EXISTS: bool = false;
    }

    const fn exists<R: Returned>(_: fn() -> R) -> bool {
        R::EXISTS
    }
}

/// A handle that advances and sets a [`Clock::manual`].
///
/// Clones of the handle control the same clock.
#[derive(Clone, Debug)]
pub struct ManualClock {
    nanos: &'static AtomicU64,
}

impl ManualClock {
    /// Advances the clock. It stops at its maximum, 292 years.
    pub fn advance(&self, by: Duration) {
        let by = nanos(by);
        // The closure always returns a value, so the update cannot fail.
        let _ =
            self.nanos.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |now| Some((now + by).min(LAST)));
    }

    /// Sets the clock to a time since its origin. The time may be earlier than the current one.
    pub fn set(&self, to: Duration) {
        self.nanos.store(nanos(to), Ordering::Relaxed);
    }
}

/// The last time of every clock: 292 years. A reader may mark this time, and the next nanosecond,
/// with the highest bit.
const LAST: u64 = (1 << 63) - 2;

/// Returns a duration in nanoseconds, at most [`LAST`].
fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(LAST).min(LAST)
}

/// Returns the origin of the clocks, an hour before the first reading.
///
/// An earlier time of a paused clock is then not before the origin.
fn origin() -> Instant {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    *ORIGIN.get_or_init(|| {
        let now = Instant::now();
        now.checked_sub(Duration::from_secs(60 * 60)).unwrap_or(now)
    })
}

#[cfg_attr(
    all(target_os = "linux", not(feature = "__internals-tokio")),
    expect(dead_code, reason = "the time is read through rustix")
)]
fn since_origin(now: Instant) -> u64 {
    nanos(now.saturating_duration_since(origin()))
}

#[cfg(target_os = "linux")]
mod system {
    use std::time::Duration;

    use rustix::time::{ClockId, clock_gettime};

    /// The tick of a kernel with `CONFIG_HZ=100`, the slowest in use.
    pub(super) const COARSE_SLACK: Duration = Duration::from_millis(10);

    #[inline]
    pub(super) fn coarse() -> u64 {
        read(ClockId::MonotonicCoarse)
    }

    #[inline]
    pub(super) fn precise() -> u64 {
        read(ClockId::Monotonic)
    }

    /// Returns a time that is not before `precise`.
    #[inline]
    pub(super) fn upper_bound() -> u64 {
        coarse() + COARSE_SLACK.as_nanos() as u64
    }

    #[inline]
    fn read(clock: ClockId) -> u64 {
        let now = clock_gettime(clock);
        // Both fields count up from 0 at boot.
        now.tv_sec.cast_unsigned().wrapping_mul(1_000_000_000).wrapping_add(now.tv_nsec.cast_unsigned())
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    use std::time::{Duration, Instant};

    pub(super) const COARSE_SLACK: Duration = Duration::ZERO;

    pub(super) fn coarse() -> u64 {
        precise()
    }

    pub(super) fn precise() -> u64 {
        super::since_origin(Instant::now())
    }

    /// Returns a time that is not before `precise`. There is no cheaper clock.
    pub(super) fn upper_bound() -> u64 {
        precise()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn system_clocks_do_not_run_backwards() {
        for clock in [Clock::coarse(), Clock::precise()] {
            let mut before = clock.now();
            for _ in 0..10_000 {
                let now = clock.now();
                assert!(now >= before, "{clock:?}");
                before = now;
            }
        }
    }

    #[test]
    fn clock_upper_bound_is_not_before_its_time() {
        let (manual, handle) = Clock::manual();
        handle.advance(Duration::from_secs(7));
        assert_eq!(manual.upper_bound(), manual.now());
        assert!(Clock::precise().is_precise() && !Clock::coarse().is_precise() && !manual.is_precise());
        let precise = Clock::precise();
        for _ in 0..10_000 {
            let (now, bound, later) = (precise.now(), precise.upper_bound(), precise.now());
            // The kernel updates the coarse clock late if the machine is busy.
            assert!(bound + 1_000_000_000 >= now, "{bound} is long before {now}");
            assert!(bound <= later + system::COARSE_SLACK.as_nanos() as u64, "{bound} is long after {later}");
        }
    }

    #[test]
    fn manual_clock_advances_through_handle_and_saturates() {
        let (clock, handle) = Clock::manual();
        assert_eq!(clock.now(), 0);
        handle.advance(Duration::from_micros(5));
        assert_eq!(clock.now(), 5_000);
        handle.set(Duration::from_nanos(1));
        assert_eq!(clock.now(), 1);
        handle.advance(Duration::MAX);
        assert_eq!(clock.now(), LAST);
        handle.advance(Duration::from_secs(1));
        assert_eq!(clock.now(), LAST);
    }

    #[test]
    fn fit_for_short_duration_returns_precise_clock() {
        assert_eq!(Clock::coarse().fit_for(Duration::from_millis(99)), Clock::precise());
        assert_eq!(Clock::coarse().fit_for(Duration::from_millis(100)), Clock::coarse());
        let (manual, _) = Clock::manual();
        assert_eq!(manual.fit_for(Duration::ZERO), manual);
        assert_ne!(manual, Clock::manual().0);
    }

    #[cfg(feature = "__internals-tokio")]
    #[test]
    fn runtime_clock_with_test_util_is_tokio_clock() {
        assert_eq!(Clock::runtime(), Clock::tokio(), "this crate is tested with tokio's `test-util`");
    }

    #[cfg(feature = "__internals-tokio")]
    #[test]
    fn tokio_clock_paused_does_not_advance() {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let clock = Clock::tokio();
            let before = clock.now();
            assert_eq!(clock.now(), before);
            tokio::time::advance(Duration::from_secs(1)).await;
            assert_eq!(clock.now() - before, 1_000_000_000);
        });
    }
}
