//! The outlier detection of Envoy.

use super::Model;
use crate::random::{Random, Stream};
use crate::time::SECOND;

/// `consecutive_5xx`.
const CONSECUTIVE: u32 = 5;
/// `base_ejection_time`.
const BASE: u64 = 30 * SECOND;
/// `max_ejection_time`.
const MAX: u64 = 300 * SECOND;
/// `interval`.
const INTERVAL: u64 = 10 * SECOND;

/// The rule of Envoy's outlier detection for failures in a row, with its defaults, for one host.
///
/// | setting | value |
/// |---|---|
/// | `consecutive_5xx` | 5 |
/// | `base_ejection_time` | 30 s |
/// | `max_ejection_time` | 300 s |
/// | `max_ejection_time_jitter` | 0 |
/// | `interval` | 10 s |
///
/// An ejection lasts the base time, multiplied by the number of ejections in a row. It ends in the
/// next sweep after that. A sweep that finds the host healthy an interval after its return
/// decrements the multiplier. There is no half-open state: the host returns to full traffic.
/// Outcomes that arrive during an ejection have no effect.
///
/// Sources, for the main branch:
///
/// - Settings: <https://www.envoyproxy.io/docs/envoy/latest/api-v3/config/cluster/v3/outlier_detection.proto>
/// - Algorithm: <https://www.envoyproxy.io/docs/envoy/latest/intro/arch_overview/upstream/outlier>
/// - Limit of the multiplier, and order within a sweep:
///   <https://github.com/envoyproxy/envoy/blob/00c7146d95ff67fc55c78f036d6236689b66e72f/source/common/upstream/outlier_detection_impl.cc>
///
/// Differences:
///
/// - The original does not eject more than `max_ejection_percent` of the hosts (10 %). The model
///   ejects its only host, as with `always_eject_one_host`.
/// - The original sends requests to ejected hosts if too few hosts are healthy (panic). The model
///   rejects them.
/// - The first sweep is at a random time in the first interval.
#[derive(Debug)]
pub struct Envoy {
    failures: u32,
    /// How many base times the next ejection lasts, less one.
    multiplier: u64,
    state: State,
    next_sweep: u64,
}

#[derive(Debug)]
enum State {
    /// With the time of the last return, if any.
    Healthy(Option<u64>),
    /// With the time of the ejection.
    Ejected(u64),
}

impl Envoy {
    /// Creates a healthy host. The seed determines the times of the sweeps.
    pub fn new(seed: u64) -> Self {
        Self::with_first_sweep(Random::new(seed, Stream::Model).below(INTERVAL))
    }

    const fn with_first_sweep(next_sweep: u64) -> Self {
        Self { failures: 0, multiplier: 0, state: State::Healthy(None), next_sweep }
    }

    /// Runs the sweeps that are due.
    fn sweep(&mut self, now: u64) {
        while self.next_sweep <= now {
            let at = self.next_sweep;
            self.next_sweep += INTERVAL;
            match self.state {
                State::Ejected(since) if at - since >= MAX.min(BASE * self.multiplier) => {
                    self.state = State::Healthy(Some(at));
                    self.failures = 0;
                }
                State::Healthy(Some(since)) if at - since >= INTERVAL => {
                    self.multiplier = self.multiplier.saturating_sub(1);
                }
                State::Ejected(_) | State::Healthy(_) => {}
            }
        }
    }

    const fn eject(&mut self, now: u64) {
        self.state = State::Ejected(now);
        if self.multiplier * BASE < MAX + BASE {
            self.multiplier += 1;
        }
    }
}

impl Model for Envoy {
    fn admit(&mut self, now: u64) -> Option<u64> {
        self.sweep(now);
        matches!(self.state, State::Healthy(_)).then_some(0)
    }

    fn record(&mut self, now: u64, _: u64, success: bool) {
        self.sweep(now);
        if matches!(self.state, State::Ejected(_)) {
            return;
        }
        self.failures = if success { 0 } else { self.failures + 1 };
        if self.failures == CONSECUTIVE {
            self.eject(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{FAILED, OK, send};
    use super::*;

    /// Sweeps at 0 s, 10 s, 20 s, and so on.
    fn healthy() -> Envoy {
        Envoy::with_first_sweep(0)
    }

    /// Ejects the host again and again, immediately after each return. Returns how long each
    /// ejection lasts, in seconds.
    fn ejections(model: &mut Envoy, count: usize) -> Vec<u64> {
        let mut second = 0;
        let mut lengths = Vec::new();
        while lengths.len() < count {
            assert_eq!(send(model, second * SECOND, &[FAILED; 6]), 5);
            let back = (second..10_000).find(|second| model.admit(second * SECOND).is_some()).unwrap();
            lengths.push(back - second);
            second = back;
        }
        lengths
    }

    #[test]
    fn host_is_ejected_at_five_failures_in_a_row() {
        let mut model = healthy();
        assert_eq!(send(&mut model, 0, &[FAILED, FAILED, FAILED, FAILED, OK]), 5);
        assert_eq!(send(&mut model, 0, &[FAILED; 6]), 5);
    }

    #[test]
    fn ejection_ends_in_the_next_sweep_after_its_time() {
        let mut model = healthy();
        assert_eq!(send(&mut model, 1, &[FAILED; 5]), 5);
        assert_eq!(model.admit(40 * SECOND - 1), None);
        // Full traffic, without a half-open state.
        assert_eq!(send(&mut model, 40 * SECOND, &[OK; 100]), 100);
    }

    #[test]
    fn ejections_in_a_row_grow_by_the_base_time_up_to_the_maximum() {
        let expected = [30, 60, 90, 120, 150, 180, 210, 240, 270, 300, 300, 300];
        assert_eq!(ejections(&mut healthy(), 12), expected);
    }

    #[test]
    fn each_healthy_interval_decrements_the_multiplier() {
        let mut model = healthy();
        assert_eq!(ejections(&mut model, 3), [30, 60, 90]);
        // Back at 180 s. The sweep at 190 s finds the host healthy.
        assert_eq!(send(&mut model, 195 * SECOND, &[FAILED; 5]), 5);
        assert_eq!(model.admit(290 * SECOND - 1), None);
        assert!(model.admit(290 * SECOND).is_some());
    }

    #[test]
    fn late_outcomes_do_not_lengthen_an_ejection() {
        let mut model = healthy();
        assert_eq!(send(&mut model, 0, &[FAILED; 5]), 5);
        model.record(SECOND, 0, OK);
        (0..20).for_each(|_| model.record(SECOND, 0, FAILED));
        assert!(model.admit(30 * SECOND).is_some());
        assert_eq!(send(&mut model, 30 * SECOND, &[FAILED; 4]), 4);
        assert!(model.admit(30 * SECOND).is_some());
    }

    #[test]
    fn seeds_give_different_times_of_sweeps() {
        let first = |seed| Envoy::new(seed).next_sweep;
        assert!((0..10).map(first).all(|first| first < INTERVAL));
        assert_ne!(first(1), first(2));
    }
}
