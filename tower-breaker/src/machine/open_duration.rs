//! How long a circuit stays open.

use core::time::Duration;

/// How long a server's own `Retry-After` can keep a circuit open.
const LONGEST_HINT: Duration = Duration::from_secs(5 * 60);

/// The open time, in nanoseconds. A constant one grows by a factor of 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct OpenTime {
    pub(crate) first: u64,
    pub(crate) factor: f64,
    pub(crate) cap: u64,
    /// Up to this share is added, drawn evenly.
    pub(crate) jitter: f64,
    /// The circuit stays open until it is reset by hand.
    pub(crate) held: bool,
}

impl OpenTime {
    #[cfg(test)]
    pub(crate) const fn constant(nanos: u64) -> Self {
        Self { first: nanos, factor: 1.0, cap: nanos, jitter: 0.0, held: false }
    }

    /// The time of the period that follows `before` others in a row, without jitter.
    fn base(&self, before: u32) -> u64 {
        // A double holds nanoseconds exactly for 104 days; beyond, an error of a part in 2⁵³ does not matter. The cast saturates.
        let grown = self.first as f64 * self.factor.powi(before.min(1 << 20).cast_signed());
        #[expect(clippy::cast_sign_loss, reason = "neither is negative")]
        let grown = grown as u64;
        grown.clamp(self.first, self.cap.max(self.first))
    }

    /// The time of a period that follows `before` others in a row. `draw` is from 0 to 1; what the server asked for lengthens the time up to
    /// a cap, and never shortens it.
    fn period(&self, before: u32, draw: f64, asked_for: Option<Duration>) -> u64 {
        let base = self.base(before);
        #[expect(clippy::cast_sign_loss, reason = "neither is negative")]
        let jitter = (base as f64 * self.jitter * draw) as u64;
        let hint = asked_for.map_or(0, |delay| delay.min(LONGEST_HINT).as_nanos() as u64);
        base.saturating_add(jitter).max(hint)
    }
}

/// The open periods that came in a row.
///
/// The row ends when the circuit has stayed closed as long as its last open period was.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Row {
    periods: u32,
    last: u64,
    closed_at: Option<u64>,
}

impl Row {
    /// The circuit has closed.
    pub(super) fn closed(&mut self, now: u64) {
        self.closed_at = Some(now);
    }

    /// How long the last period was; 0 if there was none.
    #[cfg(feature = "keyed")]
    pub(super) const fn last(&self) -> u64 {
        self.last
    }

    /// Begins a period and says how long it is. `None`: until it is reset.
    pub(super) fn next(
        &mut self,
        time: &OpenTime,
        now: u64,
        draw: f64,
        asked_for: Option<Duration>,
    ) -> Option<u64> {
        let calm = self.closed_at.take().is_some_and(|closed_at| now.saturating_sub(closed_at) >= self.last);
        if calm {
            self.periods = 0;
        }
        self.last = time.period(self.periods, draw, asked_for);
        self.periods = self.periods.saturating_add(1);
        (!time.held).then_some(self.last)
    }
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    const GROWING: OpenTime =
        OpenTime { first: SECOND, factor: 2.0, cap: 10 * SECOND, jitter: 0.0, held: false };

    fn periods(time: &OpenTime, closed_for: &[u64]) -> Vec<u64> {
        let (mut row, mut now) = (Row::default(), 0);
        let mut periods = Vec::new();
        for closed_for in closed_for {
            let period = row.next(time, now, 0.0, None).unwrap();
            now += period;
            row.closed(now);
            now += closed_for;
            periods.push(period / SECOND);
        }
        periods
    }

    #[test]
    fn a_constant_time_does_not_grow() {
        assert_eq!(periods(&OpenTime::constant(3 * SECOND), &[0; 5]), [3; 5]);
    }

    #[test]
    fn a_growing_time_grows_to_its_cap() {
        assert_eq!(periods(&GROWING, &[0; 6]), [1, 2, 4, 8, 10, 10]);
    }

    #[test]
    fn growth_starts_over_only_after_as_long_a_calm_as_the_last_period() {
        assert_eq!(periods(&GROWING, &[0, 0, 4 * SECOND - 1, 8 * SECOND, 0]), [1, 2, 4, 8, 1]);
    }

    #[test]
    fn a_reopening_without_a_close_between_is_no_calm() {
        let mut row = Row::default();
        assert_eq!(row.next(&GROWING, 0, 0.0, None), Some(SECOND));
        assert_eq!(row.next(&GROWING, 1_000 * SECOND, 0.0, None), Some(2 * SECOND));
    }

    #[test]
    fn jitter_only_adds_and_the_servers_delay_is_a_floor_up_to_its_cap() {
        let time = OpenTime { jitter: 0.5, ..GROWING };
        let period = |draw, asked: Option<u64>| time.period(0, draw, asked.map(Duration::from_secs));
        assert_eq!((period(0.0, None), period(1.0, None)), (SECOND, SECOND * 3 / 2));
        assert_eq!(period(1.0, Some(1)), SECOND * 3 / 2);
        assert_eq!(period(0.0, Some(90)), 90 * SECOND);
        assert_eq!(period(0.0, Some(100_000)), 300 * SECOND);
    }

    #[test]
    fn a_held_time_has_no_end() {
        assert_eq!(Row::default().next(&OpenTime { held: true, ..GROWING }, 0, 0.0, None), None);
    }

    #[test]
    fn times_and_rows_saturate() {
        let time = OpenTime { first: u64::MAX / 2, factor: 1e300, cap: u64::MAX, jitter: 1.0, held: false };
        assert_eq!(time.period(u32::MAX, 1.0, None), u64::MAX);
    }
}
