//! Slow start: how a circuit that has closed admits traffic again.

/// The credit that one call costs.
const CREDIT_PER_CALL: u64 = 1 << 16;

/// The growing share of calls that is admitted after closing.
///
/// The share grows evenly with time, from none to all. Each call that arrives adds the current share
/// to a credit, and an admitted call costs a whole credit. So the share applies to any rate of
/// traffic, no random number is needed, and the first call is always admitted. When the time is
/// over, all calls are admitted, however little traffic there was.
#[derive(Clone, Copy, Debug)]
pub(super) struct SlowStart {
    from: u64,
    span: u64,
    /// At most the credit of one call.
    credit: u64,
}

/// The decision of a slow start on a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SlowStartStep {
    Admitted,
    /// Denied. The slow start ends in this many nanoseconds.
    Denied(u64),
    /// The slow start is over.
    Finished,
}

impl SlowStart {
    /// A slow start over `span` nanoseconds; `None` for 0.
    pub(super) const fn new(now: u64, span: u64) -> Option<Self> {
        if span == 0 { None } else { Some(Self { from: now, span, credit: CREDIT_PER_CALL }) }
    }

    /// Decides on a call that arrives.
    pub(super) fn admit(&mut self, now: u64) -> SlowStartStep {
        self.credit += self.share_in_credit(now);
        self.admit_waiting(now)
    }

    /// Decides on a call that arrived before and was denied.
    pub(super) fn admit_waiting(&mut self, now: u64) -> SlowStartStep {
        let passed = now.saturating_sub(self.from);
        if passed >= self.span {
            return SlowStartStep::Finished;
        }
        if self.credit < CREDIT_PER_CALL {
            return SlowStartStep::Denied(self.span - passed);
        }
        self.credit -= CREDIT_PER_CALL;
        SlowStartStep::Admitted
    }

    /// Undoes an admission: the call did not begin. The current share is assumed.
    pub(super) fn refund(&mut self, now: u64) {
        // No more than one call is saved up, so that a pause does not end in a burst.
        self.credit = (self.credit + CREDIT_PER_CALL - self.share_in_credit(now)).min(CREDIT_PER_CALL);
    }

    /// The share of this moment, in credit.
    fn share_in_credit(&self, now: u64) -> u64 {
        let passed = now.saturating_sub(self.from).min(self.span);
        (u128::from(passed) * u128::from(CREDIT_PER_CALL) / u128::from(self.span)) as u64
    }

    /// The share of calls that is admitted, 0 to 1.
    pub(super) fn share(&self, now: u64) -> f64 {
        let passed = now.saturating_sub(self.from).min(self.span);
        passed as f64 / self.span as f64
    }
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// How many of the calls that come evenly in each tenth of the slow start are let through.
    fn admitted(a_tenth: u64) -> Vec<u64> {
        let mut slow_start = SlowStart::new(0, 10 * SECOND).unwrap();
        let each = SECOND / a_tenth;
        (0..10)
            .map(|tenth| {
                let times = (0..a_tenth).map(|call| tenth * SECOND + call * each);
                times.filter(|&now| slow_start.admit(now) == SlowStartStep::Admitted).count() as u64
            })
            .collect()
    }

    #[test]
    fn slow_start_share_grows_evenly_for_any_traffic() {
        for a_tenth in [1_000, 100_000] {
            for (tenth, admitted) in (0..).zip(admitted(a_tenth)) {
                let expected = a_tenth * (2 * tenth + 1) / 20;
                assert!(admitted.abs_diff(expected) <= 2 + a_tenth / 1_000, "{admitted}, not {expected}");
            }
        }
    }

    #[test]
    fn slow_start_admits_half_of_rare_calls() {
        assert_eq!(admitted(1).iter().sum::<u64>(), 5, "half of them, as of any traffic");
        let mut slow_start = SlowStart::new(0, 10 * SECOND).unwrap();
        assert_eq!(slow_start.admit(0), SlowStartStep::Admitted, "the first always is");
        assert_eq!(slow_start.admit(10 * SECOND), SlowStartStep::Finished, "and all when the time is over");
    }

    #[test]
    fn slow_start_after_pause_admits_no_burst() {
        let mut slow_start = SlowStart::new(0, 10 * SECOND).unwrap();
        let burst = (0..100).filter(|_| slow_start.admit(5 * SECOND) == SlowStartStep::Admitted).count();
        assert_eq!(burst, 51, "half of a hundred, and the first");
    }

    #[test]
    fn slow_start_refunded_calls_change_nothing() {
        let mut slow_start = SlowStart::new(0, 10 * SECOND).unwrap();
        let mut other = slow_start;
        let mut admitted = [0, 0];
        for call in 0..10_000 {
            let now = call * SECOND / 1_000;
            for _ in 0..call % 3 {
                if slow_start.admit(now) == SlowStartStep::Admitted {
                    slow_start.refund(now);
                } else {
                    // It has come and was refused: the other has one call more as well.
                    other.admit(now);
                }
            }
            admitted[0] += u64::from(slow_start.admit(now) == SlowStartStep::Admitted);
            admitted[1] += u64::from(other.admit(now) == SlowStartStep::Admitted);
            assert_eq!(slow_start.credit, other.credit, "at {now}");
        }
        assert_eq!(admitted[0], admitted[1]);
    }

    #[test]
    fn slow_start_waiting_call_adds_no_credit() {
        let mut slow_start = SlowStart::new(0, 10 * SECOND).unwrap();
        let half = 5 * SECOND;
        assert_eq!(slow_start.admit_waiting(half), SlowStartStep::Admitted, "the first is saved up");
        assert!((0..100).all(|_| matches!(slow_start.admit_waiting(half), SlowStartStep::Denied(_))));
        assert!(matches!(slow_start.admit(half), SlowStartStep::Denied(_)));
        assert_eq!(slow_start.admit(half), SlowStartStep::Admitted);
        assert_eq!(slow_start.admit_waiting(10 * SECOND), SlowStartStep::Finished);
    }

    #[test]
    fn slow_start_admits_after_the_time_left() {
        let mut slow_start = SlowStart::new(SECOND, SECOND).unwrap();
        assert_eq!(slow_start.admit(SECOND), SlowStartStep::Admitted);
        let SlowStartStep::Denied(left) = slow_start.admit(SECOND + 10) else { panic!("it is refused") };
        assert_eq!(left, SECOND - 10, "the rest of the slow start");
        assert_eq!(slow_start.admit(SECOND + 10 + left), SlowStartStep::Finished);
    }

    #[test]
    #[expect(clippy::float_cmp, reason = "these shares are exact in binary")]
    fn share_grows_from_none_to_all_over_the_span() {
        let slow_start = SlowStart::new(SECOND, 8 * SECOND).unwrap();
        let shares = [1, 2, 5, 9, 100].map(|seconds| slow_start.share(seconds * SECOND));
        assert_eq!(shares, [0.0, 0.125, 0.5, 1.0, 1.0]);
    }

    #[test]
    fn slow_start_clock_running_back_keeps_share() {
        let mut slow_start = SlowStart::new(SECOND, SECOND).unwrap();
        slow_start.admit(SECOND);
        assert!(matches!(slow_start.admit(0), SlowStartStep::Denied(_)));
        assert_eq!(slow_start.share(0).to_bits(), 0.0_f64.to_bits());
        assert!(SlowStart::new(0, 0).is_none());
    }
}
