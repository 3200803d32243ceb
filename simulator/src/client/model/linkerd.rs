//! The failure accrual of Linkerd 2.

use super::Model;
use crate::random::{Random, Stream};
use crate::time::SECOND;

/// `max-failures`.
const CONSECUTIVE: u32 = 7;
/// `min-penalty`.
const MIN: u64 = SECOND;
/// `max-penalty`.
const MAX: u64 = 60 * SECOND;

/// The failure accrual of Linkerd 2 with the defaults of its mode `consecutive`.
///
/// | setting | value |
/// |---|---|
/// | `max-failures` | 7 in a row |
/// | `min-penalty` | 1 s |
/// | `max-penalty` | 60 s |
/// | `jitter-ratio` | 0.5 |
///
/// Each failed probe doubles the penalty. The jitter adds up to half of the penalty, but not more
/// than `max-penalty`. After the penalty one call is sent, and the next outcome decides, also that
/// of a request that was sent before. Outcomes that arrive during a penalty are ignored.
///
/// Sources:
///
/// - Documentation: <https://linkerd.io/2/reference/circuit-breaking/>
/// - States: <https://github.com/linkerd/linkerd2-proxy/blob/12aa922bbda3864d350b5c4ba2ca4d441e40d846/linkerd/app/outbound/src/http/breaker/consecutive_failures.rs>
/// - Jitter: <https://github.com/linkerd/linkerd2-proxy/blob/00ace22a865eb1209c9f91fa3843c82e20de157c/linkerd/exp-backoff/src/lib.rs>
///
/// Differences:
///
/// - The original removes the endpoint from a load balancer, where requests wait for another
///   endpoint for a while. The model rejects them immediately.
/// - The original keeps the permission to send a probe if a late outcome decides first. The model
///   does not.
/// - The original cuts its jitter to whole seconds, so that penalties of 1 s and 2 s have none. The
///   model does not.
#[derive(Debug)]
pub struct Linkerd {
    state: State,
    random: Random,
}

#[derive(Debug)]
enum State {
    Closed {
        failures: u32,
    },
    /// Rejects all requests.
    Shut {
        until: u64,
        probes: u32,
    },
    /// Waits for one outcome.
    Probation {
        sent: bool,
        probes: u32,
    },
}

impl Linkerd {
    /// Creates a closed breaker. The seed determines the jitter.
    pub fn new(seed: u64) -> Self {
        Self { state: State::Closed { failures: 0 }, random: Random::new(seed, Stream::Model) }
    }

    /// Begins a penalty after a number of failed probes.
    fn shut(&mut self, now: u64, probes: u32) {
        let base = MIN.saturating_mul(2_u64.saturating_pow(probes)).min(MAX);
        let jitter = self.random.within(0..=base / 2).min(MAX - base);
        self.state = State::Shut { until: now + base + jitter, probes };
    }

    /// Begins the probation if the penalty is over.
    fn update(&mut self, now: u64) {
        if let State::Shut { until, probes } = self.state
            && now >= until
        {
            self.state = State::Probation { sent: false, probes };
        }
    }
}

impl Model for Linkerd {
    fn admit(&mut self, now: u64) -> Option<u64> {
        self.update(now);
        match &mut self.state {
            State::Closed { .. } => {}
            State::Probation { sent, .. } if !*sent => *sent = true,
            State::Shut { .. } | State::Probation { .. } => return None,
        }
        Some(0)
    }

    fn record(&mut self, now: u64, _: u64, success: bool) {
        self.update(now);
        match &mut self.state {
            State::Closed { failures } => {
                *failures = if success { 0 } else { *failures + 1 };
                if *failures == CONSECUTIVE {
                    self.shut(now, 0);
                }
            }
            State::Shut { .. } => {}
            State::Probation { .. } if success => self.state = State::Closed { failures: 0 },
            State::Probation { probes, .. } => {
                let probes = *probes + 1;
                self.shut(now, probes);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{FAILED, OK, send};
    use super::*;
    use crate::time::MILLISECOND;

    fn shut(seed: u64) -> Linkerd {
        let mut model = Linkerd::new(seed);
        assert_eq!(send(&mut model, 0, &[FAILED; 8]), 7);
        model
    }

    /// Returns the end of the penalty.
    fn end(model: &Linkerd) -> u64 {
        match model.state {
            State::Shut { until, .. } => until,
            _ => panic!("{model:?}"),
        }
    }

    #[test]
    fn closed_circuit_shuts_at_seven_failures_in_a_row() {
        let mut model = Linkerd::new(1);
        assert_eq!(send(&mut model, 0, &[FAILED; 6]), 6);
        assert_eq!(send(&mut model, 0, &[OK]), 1);
        assert_eq!(send(&mut model, 0, &[FAILED; 8]), 7);
    }

    #[test]
    fn penalty_is_one_second_with_up_to_half_a_second_of_jitter() {
        let ends: Vec<_> = (0..200).map(|seed| end(&shut(seed)) / MILLISECOND).collect();
        assert!(ends.iter().all(|end| (1_000..=1_500).contains(end)), "{ends:?}");
        assert!(*ends.iter().min().unwrap() < 1_050 && *ends.iter().max().unwrap() > 1_450, "{ends:?}");
        let mut model = shut(1);
        assert_eq!(model.admit(end(&model) - 1), None);
        let end = end(&model);
        assert!(model.admit(end).is_some());
        assert_eq!(model.admit(end + MAX), None);
    }

    #[test]
    fn failed_probes_double_the_penalty_up_to_the_maximum() {
        let mut model = shut(1);
        for base in [2, 4, 8, 16, 32, 60, 60] {
            let now = end(&model);
            assert_eq!(send(&mut model, now, &[FAILED]), 1);
            let penalty = end(&model) - now;
            assert!((base * SECOND..=MAX.min(base * SECOND * 3 / 2)).contains(&penalty), "{base} {penalty}");
        }
        let now = end(&model);
        assert_eq!(send(&mut model, now, &[OK; 10]), 10);
        // The next penalty begins at the minimum again.
        assert_eq!(send(&mut model, now, &[FAILED; 7]), 7);
        assert!(end(&model) - now <= MIN * 3 / 2);
    }

    #[test]
    fn late_outcome_is_ignored_when_shut_and_decides_in_probation() {
        let mut model = shut(1);
        let end = end(&model);
        model.record(end - 1, 0, OK);
        assert_eq!(model.admit(end - 1), None);
        model.record(end, 0, OK);
        assert_eq!(send(&mut model, end, &[OK; 10]), 10);
    }
}
