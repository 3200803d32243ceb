//! The only place where time is read.

#![expect(clippy::disallowed_methods, reason = "this is the place where time is read")]

use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::sync;

/// Where a layer reads the time: nanoseconds since some origin, as a plain `u64`.
///
/// | clock | a reading costs | is behind by |
/// |---|---|---|
/// | [`coarse`](Self::coarse), **the default** | about 4 ns on Linux, elsewhere as `precise` | up to 10 ms on Linux |
/// | [`precise`](Self::precise) | about 25 ns | nothing |
/// | `tokio` (feature `tokio`) | about 30 ns | nothing; stands still under `tokio::time::pause` |
/// | `runtime` (feature `tokio`) | as `tokio` with tokio's feature `test-util`, else as `coarse` | the same |
/// | [`manual`](Self::manual) | 1 ns | it goes when you move it |
///
/// Two clocks are equal if they read the same source; each manual clock is its own.
//
// A number and no reference, so that an `AtomicClock` can hold it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Clock(u64);

const COARSE: u64 = 0;
const PRECISE: u64 = 1;
#[cfg(feature = "__internals-tokio")]
const TOKIO: u64 = 2;
/// The number of the first manual clock.
const FIRST_MANUAL: u64 = 3;

impl Clock {
    /// The cheapest monotonic clock of the system: `CLOCK_MONOTONIC_COARSE` on Linux, [`Instant`] elsewhere.
    pub const fn coarse() -> Self {
        Self(COARSE)
    }

    /// The precise monotonic clock of the system.
    pub const fn precise() -> Self {
        Self(PRECISE)
    }

    /// Tokio's clock, which tests can pause and advance.
    ///
    /// `tower-breaker` has this clock with its feature `tokio`, `tower-jitter-retry` always.
    #[cfg(feature = "__internals-tokio")]
    pub const fn tokio() -> Self {
        Self(TOKIO)
    }

    /// Tokio's clock where it can be paused, which takes tokio's feature `test-util`; elsewhere the
    /// coarse clock, which cannot be paused and is cheaper.
    ///
    /// `tower-breaker` has this clock with its feature `tokio`, `tower-jitter-retry` always.
    #[cfg(feature = "__internals-tokio")]
    pub const fn runtime() -> Self {
        if pausable::TOKIO { Self::tokio() } else { Self::coarse() }
    }

    /// Creates a clock that starts at 0 and advances only through the returned handle.
    ///
    /// It is for tests. Its time takes 8 to 16 bytes that are never freed, because a clock can be
    /// copied.
    pub fn manual() -> (Self, ManualClock) {
        let number = manual::next();
        (Self(FIRST_MANUAL + number), ManualClock { nanos: manual::nanos(number) })
    }

    /// Nanoseconds since the clock's origin.
    #[inline]
    pub fn now(&self) -> u64 {
        // A branch that is always the same, instead of a jump through a table.
        if self.0 == COARSE { system::coarse() } else { self.now_uncommon() }
    }

    fn now_uncommon(self) -> u64 {
        match self.0 {
            COARSE => system::coarse(),
            PRECISE => system::precise(),
            #[cfg(feature = "__internals-tokio")]
            TOKIO => since_origin(tokio::time::Instant::now().into_std()),
            number => manual::nanos(number - FIRST_MANUAL).load(Ordering::Relaxed),
        }
    }

    /// By how much a reading may be behind: what is promised to be over at a time must be awaited that much longer.
    pub const fn resolution(&self) -> Duration {
        match self.0 {
            COARSE => system::COARSE_SLACK,
            _ => Duration::ZERO,
        }
    }

    /// Returns the precise clock in place of the coarse one if `shortest` is under 100 ms, because
    /// the slack of the coarse clock would show. Every other clock is returned as it is.
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
    /// Holds `clock`.
    pub fn new(clock: Clock) -> Self {
        Self(sync::AtomicU64::new(clock.0))
    }

    /// Returns the clock.
    #[inline]
    pub fn load(&self) -> Clock {
        // Acquire: a reader of a new clock sees what the writer did before.
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

/// The times of the manual clocks. A clock finds its own by its number.
mod manual {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    /// The times of the first clocks, which take no search.
    static FIRST: [AtomicU64; 64] = [const { AtomicU64::new(0) }; 64];
    /// The times of all others. Chunk `n` has 2ⁿ times, so that no time ever moves and all chunks
    /// are few.
    static CHUNKS: [OnceLock<Box<[AtomicU64]>>; 63] = [const { OnceLock::new() }; 63];

    /// The number of another clock.
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

/// Finds out whether tokio's clock can be paused.
#[cfg(feature = "__internals-tokio")]
mod pausable {
    /// Whether tokio is built with its feature `test-util`, which no `cfg` of this crate can see.
    #[allow(
        unused_imports,
        clippy::wildcard_imports,
        reason = "without `test-util` there is no `pause` to import by its name"
    )]
    pub(super) const TOKIO: bool = {
        use tokio::time::*;
        // `tokio::time::pause` if it exists, else the function below.
        exists(pause)
    };

    struct Absent;

    #[allow(dead_code, reason = "tokio's own takes its place with `test-util`")]
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

/// Moves a [`Clock::manual`].
#[derive(Clone, Debug)]
pub struct ManualClock {
    nanos: &'static AtomicU64,
}

impl ManualClock {
    /// Moves the clock forward; it stops at its end, after 584 years.
    pub fn advance(&self, by: Duration) {
        let by = nanos(by);
        // The closure always answers, so the update cannot fail.
        let _ =
            self.nanos.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |now| Some(now.saturating_add(by)));
    }

    /// Sets the clock to a time since its origin, also backwards.
    pub fn set(&self, to: Duration) {
        self.nanos.store(nanos(to), Ordering::Relaxed);
    }
}

/// A duration in whole nanoseconds, cut at the end of a `u64`: 584 years.
fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// An hour before the first reading, so that a paused clock that was started earlier is not before the origin.
fn origin() -> Instant {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    *ORIGIN.get_or_init(|| {
        let now = Instant::now();
        now.checked_sub(Duration::from_secs(60 * 60)).unwrap_or(now)
    })
}

#[cfg_attr(
    all(target_os = "linux", not(feature = "__internals-tokio")),
    expect(dead_code, reason = "rustix reads instead")
)]
fn since_origin(now: Instant) -> u64 {
    nanos(now.saturating_duration_since(origin()))
}

#[cfg(target_os = "linux")]
mod system {
    use std::time::Duration;

    use rustix::time::{ClockId, clock_gettime};

    /// A tick of the slowest kernel in use, `CONFIG_HZ=100`.
    pub(super) const COARSE_SLACK: Duration = Duration::from_millis(10);

    #[inline]
    pub(super) fn coarse() -> u64 {
        read(ClockId::MonotonicCoarse)
    }

    #[inline]
    pub(super) fn precise() -> u64 {
        read(ClockId::Monotonic)
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
    fn manual_clock_advances_on_request_and_saturates() {
        let (clock, hand) = Clock::manual();
        assert_eq!(clock.now(), 0);
        hand.advance(Duration::from_micros(5));
        assert_eq!(clock.now(), 5_000);
        hand.set(Duration::from_nanos(1));
        assert_eq!(clock.now(), 1);
        hand.advance(Duration::MAX);
        assert_eq!(clock.now(), u64::MAX);
        hand.advance(Duration::from_secs(1));
        assert_eq!(clock.now(), u64::MAX);
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
