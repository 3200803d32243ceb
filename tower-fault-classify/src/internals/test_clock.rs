//! The clock of a test: it advances together with tokio's paused time.

use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::{Instant, advance, sleep};

use super::{Clock, ManualClock};

/// Creates the clock of a test, and the handle that advances the clock.
///
/// | called | clock | advances by |
/// |---|---|---|
/// | in a tokio runtime, whose time must be paused | [`Clock::tokio`] | [`TestClock::advance`], and each timer for which the idle runtime waits |
/// | outside of a runtime | [`Clock::manual`] | [`TestClock::advance`] |
///
/// Open times, window budgets, timeouts and the delays of retries then have one time. A test that
/// is not async uses [`Clock::manual`].
pub fn test_clock() -> (Clock, TestClock) {
    if Handle::try_current().is_ok() {
        return (Clock::tokio(), TestClock(Source::Tokio));
    }
    let (clock, manual) = Clock::manual();
    (clock, TestClock(Source::Manual(manual)))
}

/// The handle that advances the clock of a test.
///
/// Clones of the handle advance the same clock.
#[derive(Clone, Debug)]
pub struct TestClock(Source);

#[derive(Clone, Debug)]
enum Source {
    Tokio,
    Manual(ManualClock),
}

impl TestClock {
    /// Advances the clock and, in a tokio runtime, the time of all timers.
    ///
    /// Timers that expire meanwhile fire one after the other, each at its own time, and their tasks
    /// run. So a task that waits three times for 1 s has ended after `advance` by 3 s. In contrast,
    /// `tokio::time::advance` jumps to the end: that task would then begin its second wait.
    ///
    /// # Cancellation
    ///
    /// If the future is dropped, the time that has passed until then stays passed.
    ///
    /// # Panics
    ///
    /// Panics if the clock was created in a tokio runtime, and the time of the current runtime is
    /// not paused: see `tokio::time::pause`, and `start_paused` of `#[tokio::test]`.
    pub async fn advance(&self, by: Duration) {
        /// The resolution of tokio's timers, which fire late by less than this time.
        const TICK: Duration = Duration::from_millis(1);

        match &self.0 {
            Source::Manual(clock) => clock.advance(by),
            Source::Tokio => {
                // Panics before any wait, because `sleep` does not need paused time.
                advance(Duration::ZERO).await;
                let end = Instant::now() + by;
                if let Some(sure) = by.checked_sub(TICK) {
                    sleep(sure).await;
                }
                advance(end.saturating_duration_since(Instant::now())).await;
                // The tasks of the last timers are woken, and have not run.
                tokio::task::yield_now().await;
            }
        }
    }
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn test_clock_without_runtime_is_manual() {
        let (clock, time) = test_clock();
        let before = clock.now();
        tokio_test::assert_ready!(tokio_test::task::spawn(time.advance(SECOND)).poll());
        assert_eq!(clock.now() - before, 1_000_000_000);
    }

    #[tokio::test(start_paused = true)]
    async fn test_clock_advances_exactly_and_with_idle_runtime() {
        let (clock, time) = test_clock();
        let before = clock.now();
        for by in [Duration::ZERO, Duration::from_nanos(1), Duration::from_micros(1_300), SECOND] {
            let from = clock.now();
            time.advance(by).await;
            assert_eq!(u128::from(clock.now() - from), by.as_nanos());
        }
        let from = clock.now();
        assert_eq!(from - before, 1_001_300_001);
        sleep(SECOND).await;
        assert!(clock.now() - from >= 1_000_000_000);
    }

    #[tokio::test(start_paused = true)]
    async fn test_clock_advance_fires_timers_in_order() {
        let (clock, time) = test_clock();
        let (steps, origin) = (Arc::new(AtomicU32::new(0)), clock.now());
        let counter = Arc::clone(&steps);
        let task = tokio::spawn(async move {
            for step in 1..=3 {
                sleep(SECOND).await;
                counter.store(step, Ordering::Relaxed);
                assert_eq!(clock.now() - origin, u64::from(step) * 1_000_000_000);
            }
        });
        time.advance(SECOND * 2).await;
        assert_eq!(steps.load(Ordering::Relaxed), 2);
        time.advance(SECOND).await;
        assert_eq!(steps.load(Ordering::Relaxed), 3);
        task.await.unwrap();
    }

    #[tokio::test]
    #[should_panic(expected = "not frozen")]
    async fn test_clock_advance_while_time_runs_panics() {
        let (_, time) = test_clock();
        time.advance(SECOND).await;
    }
}
