//! Which calls get a fault: settings, the decision, and the numbering of calls.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::injection::Injection;

/// Which calls get which injection. Calls are counted from 0.
pub(super) struct Plan<E> {
    /// The injections of the first calls.
    pub(super) script: Vec<Injection<E>>,
    /// The injection of the later calls that the schedule selects.
    pub(super) injection: Injection<E>,
    pub(super) schedule: Schedule,
}

/// Which calls after the script are selected.
#[derive(Clone, Copy, Debug)]
pub(super) struct Schedule {
    pub(super) after_calls: u64,
    pub(super) every_nth: u64,
    pub(super) max_injections: u64,
    pub(super) rate: f64,
    pub(super) seed: u64,
}

impl<E> Plan<E> {
    pub(super) fn new() -> Self {
        let seed = fastrand::u64(..);
        let schedule = Schedule { after_calls: 0, every_nth: 1, max_injections: u64::MAX, rate: 1.0, seed };
        Self { script: Vec::new(), injection: Injection::pass(), schedule }
    }

    /// Returns the injection of a call, and whether the schedule selected it.
    ///
    /// `selected`: the number of calls that the schedule has selected before.
    fn injection_of(&self, call: u64, selected: u64) -> Option<(&Injection<E>, bool)> {
        let after_script = match usize::try_from(call) {
            Ok(index) if index < self.script.len() => return Some((&self.script[index], false)),
            _ => call - self.script.len() as u64,
        };
        let is_selected = self.schedule.selects(call, after_script, selected);
        is_selected.then_some((&self.injection, true))
    }
}

impl Schedule {
    /// Returns the random numbers of a call.
    ///
    /// They are drawn twice, so that adjacent seeds share no calls and adjacent calls share no
    /// bits.
    fn random(&self, call: u64) -> fastrand::Rng {
        let first = fastrand::Rng::with_seed(self.seed).u64(..);
        fastrand::Rng::with_seed(fastrand::Rng::with_seed(first.wrapping_add(call)).u64(..))
    }

    fn selects(&self, call: u64, after_script: u64, selected: u64) -> bool {
        let Some(position) = after_script.checked_sub(self.after_calls) else { return false };
        selected < self.max_injections
            && (position + 1).is_multiple_of(self.every_nth)
            && self.random(call).f64() < self.rate
    }

    /// Returns the delay of a call from a range.
    pub(super) fn delay(&self, call: u64, (shortest, longest): (Duration, Duration)) -> Duration {
        if shortest == longest {
            return shortest;
        }
        let mut random = self.random(call);
        // The first number has decided whether the call is selected.
        random.f64();
        random_duration(&mut random, shortest, longest)
    }
}

fn random_duration(random: &mut fastrand::Rng, shortest: Duration, longest: Duration) -> Duration {
    let nanos = |delay: Duration| u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX);
    Duration::from_nanos(random.u64(nanos(shortest)..=nanos(longest)))
}

impl<E> Clone for Plan<E> {
    fn clone(&self) -> Self {
        Self { script: self.script.clone(), injection: self.injection.clone(), schedule: self.schedule }
    }
}

impl<E> fmt::Debug for Plan<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plan")
            .field("script", &self.script)
            .field("injection", &self.injection)
            .field("schedule", &self.schedule)
            .finish()
    }
}

/// The number of calls that a layer has passed on unchanged, and the number of injected calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct InjectionCounts {
    /// The calls that were passed on unchanged.
    pub passed: u64,
    /// The calls that got a fault or a delay.
    pub injected: u64,
}

/// The state that all clones of a layer, its services and its handles share.
#[derive(Debug)]
pub(super) struct Calls(Mutex<State>);

#[derive(Debug)]
struct State {
    is_enabled: bool,
    /// The number of calls that were numbered.
    numbered: u64,
    /// The number of calls after the script that were selected.
    selected: u64,
    counts: InjectionCounts,
}

impl Calls {
    pub(super) fn new() -> Self {
        let counts = InjectionCounts::default();
        Self(Mutex::new(State { is_enabled: true, numbered: 0, selected: 0, counts }))
    }

    /// Counts a call. Returns its injection and its number, or `None` if the call is passed on.
    ///
    /// Only a call that matches is numbered, and only while the layer is enabled.
    pub(super) fn next<'a, E>(&self, plan: &'a Plan<E>, matches: bool) -> Option<(&'a Injection<E>, u64)> {
        let mut state = self.state();
        let mut injected = None;
        if matches && state.is_enabled {
            let call = state.numbered;
            state.numbered += 1;
            if let Some((injection, is_selected)) = plan.injection_of(call, state.selected) {
                state.selected += u64::from(is_selected);
                injected = (!injection.is_pass()).then_some((injection, call));
            }
        }
        match injected {
            Some(_) => state.counts.injected += 1,
            None => state.counts.passed += 1,
        }
        injected
    }

    pub(super) fn set_enabled(&self, is_enabled: bool) {
        self.state().is_enabled = is_enabled;
    }

    pub(super) fn is_enabled(&self) -> bool {
        self.state().is_enabled
    }

    pub(super) fn counts(&self) -> InjectionCounts {
        self.state().counts
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code panics between two changes, so the state is valid even if the lock is poisoned.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::error::BoxError;

    fn plan(seed: u64, rate: f64) -> Plan<BoxError> {
        let mut plan = Plan::new();
        plan.injection = Injection::hang();
        plan.schedule.seed = seed;
        plan.schedule.rate = rate;
        plan
    }

    /// Returns the numbers of the injected calls among the first `calls`, counted from 0.
    fn injected(plan: &Plan<BoxError>, calls: u64) -> Vec<u64> {
        let state = Calls::new();
        (0..calls).filter(|_| state.next(plan, true).is_some()).collect()
    }

    #[test]
    fn schedule_selects_every_nth_after_calls_up_to_maximum() {
        let mut plan = plan(1, 1.0);
        plan.schedule = Schedule { after_calls: 2, every_nth: 3, max_injections: 2, ..plan.schedule };
        assert_eq!(injected(&plan, 20), [4, 7]);
        plan.script = vec![Injection::hang(), Injection::pass()];
        assert_eq!(injected(&plan, 20), [0, 6, 9]);
    }

    #[test]
    fn maximum_does_not_count_calls_of_the_script() {
        let mut plan = plan(1, 1.0);
        plan.script = vec![Injection::hang(); 3];
        plan.schedule.max_injections = 1;
        assert_eq!(injected(&plan, 20), [0, 1, 2, 3]);
    }

    proptest! {
        #[test]
        fn same_seed_selects_same_calls(seed: u64, rate in 0.0..=1.0) {
            prop_assert_eq!(injected(&plan(seed, rate), 200), injected(&plan(seed, rate), 200));
        }

        #[test]
        fn rate_is_the_share_of_injected_calls(seed: u64, rate in 0.0..=1.0) {
            // 10,000 draws are within five standard deviations: 0.025.
            let share = injected(&plan(seed, rate), 10_000).len() as f64 / 10_000.0;
            prop_assert!((share - rate).abs() <= 0.025, "{share} of {rate}");
        }

        #[test]
        fn higher_rate_selects_the_same_calls_and_more(seed: u64, low in 0.0..=1.0, high in 0.0..=1.0) {
            let (low, high) = if low <= high { (low, high) } else { (high, low) };
            let more = injected(&plan(seed, high), 200);
            prop_assert!(injected(&plan(seed, low), 200).iter().all(|call| more.contains(call)));
        }

        #[test]
        fn adjacent_seeds_and_calls_differ(seed: u64) {
            let half = |seed| injected(&plan(seed, 0.5), 200);
            let shifted: Vec<_> = half(seed).iter().map(|call| call + 1).collect();
            prop_assert_ne!(half(seed), half(seed.wrapping_add(1)));
            prop_assert_ne!(shifted, half(seed.wrapping_add(1)));
        }
    }
}
