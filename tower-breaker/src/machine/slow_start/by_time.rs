//! A slow start by time: it admits a share of the calls, which grows with time.

#[cfg(feature = "tokio")]
use super::Arrival;
use super::SlowStartStep;

/// The credit that one call costs.
const CREDIT_PER_CALL: u64 = 1 << 16;

/// The state of a slow start by time.
///
/// The share of admitted calls grows linearly with time, from 0 to 1. Each call that arrives adds
/// the current share to a credit. An admitted call costs a credit of 1, and a call is admitted if
/// the credit suffices. The credit starts at 1.
///
/// So the share applies at any rate of traffic, no random number is needed, and the first call is
/// always admitted. When the time is over, all calls are admitted, no matter how little traffic
/// there was.
#[derive(Clone, Copy, Debug)]
pub(in crate::machine) struct ByTime {
    from: u64,
    span: u64,
    /// The credit for calls; [`CREDIT_PER_CALL`] is a credit of 1. Between two calls it is at most
    /// 1.
    credit: u64,
}

impl ByTime {
    /// Creates a slow start that lasts `span` nanoseconds, which is not 0.
    pub(super) const fn new(now: u64, span: u64) -> Self {
        Self { from: now, span, credit: CREDIT_PER_CALL }
    }

    /// Decides on a call that arrives now.
    pub(super) fn admit(&mut self, now: u64) -> SlowStartStep {
        self.credit += self.share_in_credit(now);
        self.admit_waiting(now)
    }

    /// Decides on a call that arrived before, was rejected, and has been waiting since.
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

    /// See [`SlowStart::would_admit`](super::SlowStart::would_admit).
    #[cfg(feature = "tokio")]
    pub(super) fn would_admit(&mut self, now: u64, arrival: Arrival) -> Result<(), u64> {
        let mut after = *self;
        let step = match arrival {
            Arrival::Now => after.admit(now),
            Arrival::AtCall | Arrival::Again => after.admit_waiting(now),
        };
        match step {
            SlowStartStep::Denied(left) => {
                *self = after;
                Err(left)
            }
            _ => Ok(()),
        }
    }

    /// Undoes the admission of a call that did not begin, as if it had never arrived.
    ///
    /// The credit that its arrival added is not stored. The current share is used in its place.
    pub(super) fn refund(&mut self, now: u64) {
        // At most the credit of one call is kept, so that a pause is not followed by a burst.
        self.credit = (self.credit + CREDIT_PER_CALL - self.share_in_credit(now)).min(CREDIT_PER_CALL);
    }

    /// Returns the current share of admitted calls, as a credit.
    fn share_in_credit(&self, now: u64) -> u64 {
        let passed = now.saturating_sub(self.from).min(self.span);
        (u128::from(passed) * u128::from(CREDIT_PER_CALL) / u128::from(self.span)) as u64
    }

    /// Returns the current share of admitted calls, 0 to 1.
    pub(super) fn share(&self, now: u64) -> f64 {
        let passed = now.saturating_sub(self.from).min(self.span);
        passed as f64 / self.span as f64
    }
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// Returns the number of admitted calls in each tenth of a slow start of ten seconds. In each
    /// tenth `calls_per_tenth` calls arrive at equal intervals.
    fn admitted(calls_per_tenth: u64) -> Vec<u64> {
        let mut slow_start = ByTime::new(0, 10 * SECOND);
        let interval = SECOND / calls_per_tenth;
        (0..10)
            .map(|tenth| {
                let times = (0..calls_per_tenth).map(|call| tenth * SECOND + call * interval);
                times.filter(|&now| slow_start.admit(now) == SlowStartStep::Admitted).count() as u64
            })
            .collect()
    }

    #[test]
    fn slow_start_share_grows_linearly_at_any_call_rate() {
        for calls in [1_000, 100_000] {
            for (tenth, admitted) in (0..).zip(admitted(calls)) {
                let expected = calls * (2 * tenth + 1) / 20;
                assert!(admitted.abs_diff(expected) <= 2 + calls / 1_000, "{admitted}, not {expected}");
            }
        }
    }

    #[test]
    fn slow_start_admits_half_of_rare_calls() {
        assert_eq!(admitted(1).iter().sum::<u64>(), 5, "half of the calls, as at any call rate");
        let mut slow_start = ByTime::new(0, 10 * SECOND);
        assert_eq!(slow_start.admit(0), SlowStartStep::Admitted, "the first call is always admitted");
        assert_eq!(slow_start.admit(10 * SECOND), SlowStartStep::Finished, "all calls after the slow start");
    }

    #[test]
    fn slow_start_after_pause_admits_no_burst() {
        let mut slow_start = ByTime::new(0, 10 * SECOND);
        let burst = (0..100).filter(|_| slow_start.admit(5 * SECOND) == SlowStartStep::Admitted).count();
        assert_eq!(burst, 51, "half of the 100 calls, and the initial credit");
    }

    #[test]
    fn slow_start_refund_undoes_admission() {
        let mut slow_start = ByTime::new(0, 10 * SECOND);
        let mut without_refunds = slow_start;
        let mut admitted = [0, 0];
        for call in 0..10_000 {
            let now = call * SECOND / 1_000;
            for _ in 0..call % 3 {
                if slow_start.admit(now) == SlowStartStep::Admitted {
                    slow_start.refund(now);
                } else {
                    // The rejected call has added credit, so it also arrives in the other slow
                    // start.
                    without_refunds.admit(now);
                }
            }
            admitted[0] += u64::from(slow_start.admit(now) == SlowStartStep::Admitted);
            admitted[1] += u64::from(without_refunds.admit(now) == SlowStartStep::Admitted);
            assert_eq!(slow_start.credit, without_refunds.credit, "at {now}");
        }
        assert_eq!(admitted[0], admitted[1]);
    }

    #[test]
    fn slow_start_waiting_call_adds_no_credit() {
        let mut slow_start = ByTime::new(0, 10 * SECOND);
        let half = 5 * SECOND;
        assert_eq!(slow_start.admit_waiting(half), SlowStartStep::Admitted, "the initial credit");
        assert!((0..100).all(|_| matches!(slow_start.admit_waiting(half), SlowStartStep::Denied(_))));
        assert!(matches!(slow_start.admit(half), SlowStartStep::Denied(_)));
        assert_eq!(slow_start.admit(half), SlowStartStep::Admitted);
        assert_eq!(slow_start.admit_waiting(10 * SECOND), SlowStartStep::Finished);
    }

    #[test]
    fn slow_start_admits_after_the_time_left() {
        let mut slow_start = ByTime::new(SECOND, SECOND);
        assert_eq!(slow_start.admit(SECOND), SlowStartStep::Admitted);
        let SlowStartStep::Denied(left) = slow_start.admit(SECOND + 10) else {
            panic!("the call is rejected")
        };
        assert_eq!(left, SECOND - 10, "the time until the slow start ends");
        assert_eq!(slow_start.admit(SECOND + 10 + left), SlowStartStep::Finished);
    }

    #[test]
    #[expect(clippy::float_cmp, reason = "these shares are exact in binary")]
    fn share_grows_from_0_to_1_over_the_span() {
        let slow_start = ByTime::new(SECOND, 8 * SECOND);
        let shares = [1, 2, 5, 9, 100].map(|seconds| slow_start.share(seconds * SECOND));
        assert_eq!(shares, [0.0, 0.125, 0.5, 1.0, 1.0]);
    }

    #[test]
    fn slow_start_with_clock_running_back_has_share_0() {
        let mut slow_start = ByTime::new(SECOND, SECOND);
        slow_start.admit(SECOND);
        assert!(matches!(slow_start.admit(0), SlowStartStep::Denied(_)));
        assert_eq!(slow_start.share(0).to_bits(), 0.0_f64.to_bits());
    }
}
