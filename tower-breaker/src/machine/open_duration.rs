//! How long a circuit stays open.

use core::time::Duration;

/// How long a server's own `Retry-After` can keep a circuit open.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(5 * 60);

/// The open time, in nanoseconds. A constant one grows by a multiplier of 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct OpenDuration {
    pub(crate) initial: u64,
    pub(crate) multiplier: f64,
    pub(crate) max: u64,
    /// Up to this share is added, drawn evenly.
    pub(crate) jitter: f64,
    /// The circuit stays open until it is reset.
    pub(crate) until_reset: bool,
}

impl OpenDuration {
    #[cfg(test)]
    pub(crate) const fn constant(nanos: u64) -> Self {
        Self { initial: nanos, multiplier: 1.0, max: nanos, jitter: 0.0, until_reset: false }
    }

    /// The time of the period that follows `before` others in a row, without jitter.
    fn base(&self, before: u32) -> u64 {
        // A double holds nanoseconds exactly for 104 days; beyond, an error of a part in 2⁵³ does not matter. The cast saturates.
        let grown = self.initial as f64 * self.multiplier.powi(before.min(1 << 20).cast_signed());
        #[expect(clippy::cast_sign_loss, reason = "neither is negative")]
        let grown = grown as u64;
        grown.clamp(self.initial, self.max.max(self.initial))
    }

    /// The time of a period that follows `before` others in a row. `draw` is from 0 to 1; what the server asked for lengthens the time up to
    /// a max, and never shortens it.
    fn period(&self, before: u32, draw: f64, server_delay: Option<Duration>) -> u64 {
        let base = self.base(before);
        #[expect(clippy::cast_sign_loss, reason = "neither is negative")]
        let jitter = (base as f64 * self.jitter * draw) as u64;
        let hint = server_delay.map_or(0, |delay| delay.min(MAX_RETRY_AFTER).as_nanos() as u64);
        base.saturating_add(jitter).max(hint)
    }
}

/// The open count that came in a row.
///
/// The streak ends when the circuit has stayed closed for as long as its last open period.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct OpenStreak {
    count: u32,
    last_period: u64,
    closed_at: Option<u64>,
}

impl OpenStreak {
    /// The circuit has closed.
    pub(super) fn closed(&mut self, now: u64) {
        self.closed_at = Some(now);
    }

    /// How long the last open period was; 0 if there was none.
    #[cfg(feature = "keyed")]
    pub(super) const fn last_period(&self) -> u64 {
        self.last_period
    }

    /// Begins a period and says how long it is. `None`: until it is reset.
    pub(super) fn next(
        &mut self,
        time: &OpenDuration,
        now: u64,
        draw: f64,
        server_delay: Option<Duration>,
    ) -> Option<u64> {
        let recovered =
            self.closed_at.take().is_some_and(|closed_at| now.saturating_sub(closed_at) >= self.last_period);
        if recovered {
            self.count = 0;
        }
        self.last_period = time.period(self.count, draw, server_delay);
        self.count = self.count.saturating_add(1);
        (!time.until_reset).then_some(self.last_period)
    }
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    const GROWING: OpenDuration =
        OpenDuration { initial: SECOND, multiplier: 2.0, max: 10 * SECOND, jitter: 0.0, until_reset: false };

    fn count(time: &OpenDuration, closed_for: &[u64]) -> Vec<u64> {
        let (mut streak, mut now) = (OpenStreak::default(), 0);
        let mut count = Vec::new();
        for closed_for in closed_for {
            let period = streak.next(time, now, 0.0, None).unwrap();
            now += period;
            streak.closed(now);
            now += closed_for;
            count.push(period / SECOND);
        }
        count
    }

    #[test]
    fn open_duration_without_backoff_is_constant() {
        assert_eq!(count(&OpenDuration::constant(3 * SECOND), &[0; 5]), [3; 5]);
    }

    #[test]
    fn open_backoff_grows_to_its_maximum() {
        assert_eq!(count(&GROWING, &[0; 6]), [1, 2, 4, 8, 10, 10]);
    }

    #[test]
    fn streak_ends_after_closed_for_last_open_period() {
        assert_eq!(count(&GROWING, &[0, 0, 4 * SECOND - 1, 8 * SECOND, 0]), [1, 2, 4, 8, 1]);
    }

    #[test]
    fn reopening_without_a_close_continues_the_streak() {
        let mut streak = OpenStreak::default();
        assert_eq!(streak.next(&GROWING, 0, 0.0, None), Some(SECOND));
        assert_eq!(streak.next(&GROWING, 1_000 * SECOND, 0.0, None), Some(2 * SECOND));
    }

    #[test]
    fn jitter_adds_and_server_delay_is_a_bounded_minimum() {
        let time = OpenDuration { jitter: 0.5, ..GROWING };
        let period = |draw, asked: Option<u64>| time.period(0, draw, asked.map(Duration::from_secs));
        assert_eq!((period(0.0, None), period(1.0, None)), (SECOND, SECOND * 3 / 2));
        assert_eq!(period(1.0, Some(1)), SECOND * 3 / 2);
        assert_eq!(period(0.0, Some(90)), 90 * SECOND);
        assert_eq!(period(0.0, Some(100_000)), 300 * SECOND);
    }

    #[test]
    fn open_until_reset_has_no_deadline() {
        assert_eq!(
            OpenStreak::default().next(&OpenDuration { until_reset: true, ..GROWING }, 0, 0.0, None),
            None
        );
    }

    #[test]
    fn open_duration_and_streak_saturate() {
        let time = OpenDuration {
            initial: u64::MAX / 2,
            multiplier: 1e300,
            max: u64::MAX,
            jitter: 1.0,
            until_reset: false,
        };
        assert_eq!(time.period(u32::MAX, 1.0, None), u64::MAX);
    }
}
