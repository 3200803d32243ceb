//! The open time: how long a circuit stays open.

use core::time::Duration;

/// The configured open time, in nanoseconds. A constant open time has a multiplier of 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct OpenDuration {
    pub(crate) initial: u64,
    pub(crate) multiplier: f64,
    pub(crate) max: u64,
    /// The largest share of the open time that is added as jitter. The jitter is uniformly random.
    pub(crate) jitter: f64,
    /// The longest delay of a server that lengthens the open time. A longer delay counts as this
    /// one.
    pub(crate) max_retry_after: u64,
    /// Whether the circuit stays open until it is reset.
    pub(crate) until_reset: bool,
}

impl OpenDuration {
    #[cfg(test)]
    pub(crate) const fn constant(nanos: u64) -> Self {
        Self {
            initial: nanos,
            multiplier: 1.0,
            max: nanos,
            jitter: 0.0,
            max_retry_after: 300_000_000_000,
            until_reset: false,
        }
    }

    /// Returns the length of the open period after `before` others in a row, without jitter.
    fn base(&self, before: u32) -> u64 {
        // An `f64` holds nanoseconds exactly up to 104 days. Above, a relative error of 2⁻⁵³
        // does not matter. The cast saturates.
        let grown = self.initial as f64 * self.multiplier.powi(before.min(1 << 20).cast_signed());
        #[expect(clippy::cast_sign_loss, reason = "neither is negative")]
        let grown = grown as u64;
        grown.clamp(self.initial, self.max.max(self.initial))
    }

    /// Returns the longest open period, with the largest jitter and the longest delay of a server.
    /// [`u64::MAX`]: a circuit stays open until it is reset.
    pub(super) fn longest(&self) -> u64 {
        if self.until_reset {
            return u64::MAX;
        }
        // Without growth, `max` is the constant period.
        let time = Self { initial: self.max.max(self.initial), ..*self };
        time.period(0, 1.0, Some(Duration::MAX))
    }

    /// Returns the length of the open period after `before` others in a row.
    ///
    /// A delay that the server asked for, up to `max_retry_after`, can lengthen the period and
    /// never shortens it. `draw`, from 0 to 1, selects the jitter. It is added to the longer of
    /// both, because a server asks many clients for the same delay.
    fn period(&self, before: u32, draw: f64, server_delay: Option<Duration>) -> u64 {
        let max_hint = Duration::from_nanos(self.max_retry_after);
        let hint = server_delay.map_or(0, |delay| delay.min(max_hint).as_nanos() as u64);
        let least = self.base(before).max(hint);
        #[expect(clippy::cast_sign_loss, reason = "neither is negative")]
        let jitter = (least as f64 * self.jitter * draw) as u64;
        least.saturating_add(jitter)
    }
}

/// The number of open periods in a row, which a growing open time depends on.
///
/// The streak ends when the circuit has stayed closed for at least as long as its last open period.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct OpenStreak {
    count: u32,
    last_period: u64,
    /// When the streak ends, if the circuit stays closed until then. `None`: the circuit has not
    /// closed since its last open period began.
    ends_at: Option<u64>,
}

/// A streak of open periods in a snapshot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SavedStreak {
    pub(crate) count: u32,
    pub(crate) last_period: u64,
    /// After this many nanoseconds the streak ends, if the circuit stays closed until then.
    pub(crate) ends_in: Option<u64>,
}

impl OpenStreak {
    /// Records that the circuit has closed.
    pub(super) fn closed(&mut self, now: u64) {
        self.ends_at = Some(now.saturating_add(self.last_period));
    }

    /// Returns the streak for a snapshot of a circuit that is closed or not. A streak that has
    /// ended is empty. It does not end while the circuit is not closed.
    pub(super) fn save(&self, is_closed: bool, now: u64) -> SavedStreak {
        let ends_in = self.ends_at.map(|ends_at| ends_at.saturating_sub(now));
        if self.count == 0 || (is_closed && ends_in == Some(0)) {
            return SavedStreak::default();
        }
        SavedStreak { count: self.count, last_period: self.last_period, ends_in }
    }

    /// Returns the streak of a snapshot, for a circuit that is closed or not.
    ///
    /// `longest` is the longest open period. No time of the streak may be longer, so that every
    /// streak ends.
    pub(super) fn restore(saved: &SavedStreak, is_closed: bool, now: u64, longest: u64) -> Self {
        if saved.count == 0 || (is_closed && saved.ends_in == Some(0)) {
            return Self::default();
        }
        let last_period = saved.last_period.min(longest);
        let ends_in = saved.ends_in.or(is_closed.then_some(last_period));
        let ends_at = ends_in.map(|ends_in| now.saturating_add(ends_in.min(last_period)));
        Self { count: saved.count, last_period, ends_at }
    }

    /// Returns the length of the last open period. 0: there was none.
    #[cfg(feature = "keyed")]
    pub(super) const fn last_period(&self) -> u64 {
        self.last_period
    }

    /// Begins an open period and returns its length. `None`: the circuit stays open until it is
    /// reset.
    pub(super) fn next(
        &mut self,
        time: &OpenDuration,
        now: u64,
        draw: f64,
        server_delay: Option<Duration>,
    ) -> Option<u64> {
        let period = time.period(self.count_at(now), draw, server_delay);
        self.begin(period, now);
        (!time.until_reset).then_some(period)
    }

    /// Begins an open period by command. It lasts for `remaining`; `None`: until another command.
    pub(super) fn commanded(&mut self, time: &OpenDuration, now: u64, remaining: Option<u64>) {
        self.begin(remaining.unwrap_or_else(|| time.base(self.count_at(now))), now);
    }

    /// Returns the length of the next open period without a delay of the server, if it begins at
    /// the time `now`. `None`: the circuit stays open until it is reset.
    pub(super) fn peek(&self, time: &OpenDuration, now: u64, draw: f64) -> Option<u64> {
        (!time.until_reset).then(|| time.period(self.count_at(now), draw, None))
    }

    /// Returns the number of open periods before one that begins at the time `now`.
    fn count_at(&self, now: u64) -> u32 {
        if self.ends_at.is_some_and(|ends_at| now >= ends_at) { 0 } else { self.count }
    }

    fn begin(&mut self, period: u64, now: u64) {
        self.count = self.count_at(now).saturating_add(1);
        self.ends_at = None;
        self.last_period = period;
    }
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    const GROWING: OpenDuration =
        OpenDuration { multiplier: 2.0, max: 10 * SECOND, ..OpenDuration::constant(SECOND) };

    /// Returns the lengths of the open periods, in seconds. After each period the circuit stays
    /// closed for the next time of `closed_for`, in nanoseconds.
    fn open_periods(time: &OpenDuration, closed_for: &[u64]) -> Vec<u64> {
        let (mut streak, mut now) = (OpenStreak::default(), 0);
        let mut periods = Vec::new();
        for closed_for in closed_for {
            let period = streak.next(time, now, 0.0, None).unwrap();
            now += period;
            streak.closed(now);
            now += closed_for;
            periods.push(period / SECOND);
        }
        periods
    }

    #[test]
    fn open_duration_without_backoff_is_constant() {
        assert_eq!(open_periods(&OpenDuration::constant(3 * SECOND), &[0; 5]), [3; 5]);
    }

    #[test]
    fn open_backoff_grows_to_its_maximum() {
        assert_eq!(open_periods(&GROWING, &[0; 6]), [1, 2, 4, 8, 10, 10]);
    }

    #[test]
    fn streak_ends_after_closed_as_long_as_last_open_period() {
        assert_eq!(open_periods(&GROWING, &[0, 0, 4 * SECOND - 1, 8 * SECOND, 0]), [1, 2, 4, 8, 1]);
    }

    #[test]
    fn streak_continues_if_circuit_reopens_without_closing() {
        let mut streak = OpenStreak::default();
        assert_eq!(streak.next(&GROWING, 0, 0.0, None), Some(SECOND));
        assert_eq!(streak.next(&GROWING, 1_000 * SECOND, 0.0, None), Some(2 * SECOND));
    }

    #[test]
    fn jitter_is_added_and_server_delay_is_bounded_minimum() {
        let time = OpenDuration { jitter: 0.5, ..GROWING };
        let period = |draw, delay: Option<u64>| time.period(0, draw, delay.map(Duration::from_secs));
        assert_eq!((period(0.0, None), period(1.0, None)), (SECOND, SECOND * 3 / 2));
        assert_eq!(period(1.0, Some(1)), SECOND * 3 / 2);
        assert_eq!((period(0.0, Some(90)), period(1.0, Some(90))), (90 * SECOND, 135 * SECOND));
        assert_eq!(period(0.0, Some(100_000)), 300 * SECOND);
        assert_eq!(period(1.0, Some(100_000)), 450 * SECOND);
        let limited = |max_retry_after| {
            let time = OpenDuration { max_retry_after, ..time };
            [1, 90, 100_000].map(|delay| time.period(0, 0.0, Some(Duration::from_secs(delay))) / SECOND)
        };
        assert_eq!(limited(7 * SECOND), [1, 7, 7]);
        assert_eq!(limited(0), [1; 3], "no delay lengthens the period");
    }

    proptest! {
        /// The delay of a server counts up to its maximum, and the jitter is added to it.
        #[test]
        fn period_is_between_the_longer_delay_and_its_jitter(
            jitter in 0.0..=1.0,
            draw in 0.0..=1.0,
            before in 0..10_u32,
            hint in prop::option::of(0..1_000 * SECOND),
            max_retry_after in 0..600 * SECOND,
        ) {
            let time = OpenDuration { jitter, max_retry_after, ..GROWING };
            let least = time.base(before).max(hint.unwrap_or(0).min(max_retry_after));
            let period = |draw| time.period(before, draw, hint.map(Duration::from_nanos));
            let most = least as f64 * (1.0 + jitter);
            prop_assert!(least <= period(draw) && period(draw) as f64 <= most);
            // The nanoseconds are cut off.
            prop_assert!(period(0.0) == least && period(1.0) as f64 > most - 1.1);
        }
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
        let time =
            OpenDuration { initial: u64::MAX / 2, multiplier: 1e300, max: u64::MAX, jitter: 1.0, ..GROWING };
        assert_eq!(time.period(u32::MAX, 1.0, None), u64::MAX);
    }
}
