//! A slow start by successes: it limits the number of concurrent calls, and each success raises the
//! limit by one.

use super::SlowStartStep;

/// The state of a slow start by successes.
///
/// The limit is 1 plus the number of successes so far. When enough calls have succeeded, the slow
/// start is over. A failed, slow, neutral or cancelled call does not change the limit.
///
/// A call that is admitted leases a slot. When the lease ends, another call can take the slot. So
/// calls that never end cannot block the circuit. The end of the lease does not cancel the call: a
/// success still raises the limit.
///
/// The time of its admission identifies a call. Calls that were admitted at the same time are
/// interchangeable: their leases end at the same time. These times never run back, even if the
/// clock does. So they identify a call after its lease has ended, too.
#[derive(Debug)]
pub(in crate::machine) struct BySuccesses {
    /// The times at which the calls that hold a slot were admitted, in no order. Never longer than
    /// its initial capacity.
    slots: Vec<u64>,
    successes: u32,
    /// The number of successes that ends the slow start.
    successes_to_end: u32,
    lease: u64,
    /// The time of the last admission, or of the beginning.
    last_admission: u64,
}

impl BySuccesses {
    /// Creates a slow start that `successes_to_end` successes end. A slot is leased for `lease`
    /// nanoseconds.
    pub(super) fn new(now: u64, successes_to_end: u32, lease: u64) -> Self {
        // The largest limit is that before the last success.
        let slots = Vec::with_capacity(successes_to_end as usize);
        Self { slots, successes: 0, successes_to_end, lease, last_admission: now }
    }

    /// Decides on a call that arrives now, or that has been waiting.
    pub(super) fn admit(&mut self, now: u64) -> SlowStartStep {
        if self.is_full() {
            let lease = self.lease;
            self.slots.retain(|from| time_left(*from, lease, now) > 0);
        }
        if self.is_full() {
            return SlowStartStep::Denied(self.time_to_free_slot(now));
        }
        let from = now.max(self.last_admission);
        self.slots.push(from);
        self.last_admission = from;
        SlowStartStep::AdmittedWithSlot(from)
    }

    /// See [`SlowStart::would_admit`](super::SlowStart::would_admit).
    #[cfg(feature = "tokio")]
    pub(super) fn would_admit(&self, now: u64) -> Result<(), u64> {
        let leases = || self.slots.iter().map(|from| time_left(*from, self.lease, now));
        let running = || leases().filter(|left| *left > 0);
        if running().count() <= self.successes as usize { Ok(()) } else { Err(running().min().unwrap_or(0)) }
    }

    const fn is_full(&self) -> bool {
        self.slots.len() > self.successes as usize
    }

    /// Returns how long until the first lease ends.
    fn time_to_free_slot(&self, now: u64) -> u64 {
        self.slots.iter().map(|from| time_left(*from, self.lease, now)).min().unwrap_or(0)
    }

    /// Returns whether a call that was admitted at the time `from` holds a slot.
    pub(super) fn holds_slot(&self, from: u64) -> bool {
        self.slots.contains(&from)
    }

    /// Releases the slot of the call that was admitted at the time `from`, if the call still holds
    /// it. Returns whether the slow start is over.
    pub(super) fn release(&mut self, from: u64, success: bool) -> bool {
        if let Some(slot) = self.slots.iter().position(|admitted| *admitted == from) {
            self.slots.swap_remove(slot);
        }
        self.successes += u32::from(success);
        self.successes >= self.successes_to_end
    }

    /// Returns the share of the successes that end the slow start, 0 to 1.
    pub(super) fn share(&self) -> f64 {
        f64::from(self.successes) / f64::from(self.successes_to_end)
    }

    #[cfg(feature = "keyed")]
    pub(super) const fn is_in_use(&self, now: u64) -> bool {
        time_left(self.last_admission, self.lease, now) > 0
    }
}

/// Returns how long until a lease from the time `from` ends.
const fn time_left(from: u64, lease: u64, now: u64) -> u64 {
    from.saturating_add(lease).saturating_sub(now)
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    const LEASE: u64 = 10;

    fn admitted(slow_start: &mut BySuccesses, now: u64, arrivals: usize) -> usize {
        (0..arrivals).filter(|_| slow_start.admit(now) == SlowStartStep::AdmittedWithSlot(now)).count()
    }

    #[test]
    fn each_success_admits_one_more_concurrent_call() {
        let mut slow_start = BySuccesses::new(0, 8, LEASE);
        for limit in [1, 2, 4] {
            assert_eq!(admitted(&mut slow_start, 0, 1_000), limit);
            assert_eq!(slow_start.admit(3), SlowStartStep::Denied(LEASE - 3), "the first lease ends");
            let is_over = (0..limit).any(|_| slow_start.release(0, true));
            assert!(!is_over, "after {limit} calls");
        }
        assert!(slow_start.release(0, true), "the eighth success ends it");
    }

    #[test]
    fn call_without_success_frees_its_slot_and_keeps_the_limit() {
        let mut slow_start = BySuccesses::new(0, 8, LEASE);
        for now in 0..100 {
            assert_eq!(admitted(&mut slow_start, now, 3), 1);
            assert!(!slow_start.release(now, false));
        }
        assert_eq!(slow_start.share().to_bits(), 0.0_f64.to_bits());
    }

    #[test]
    fn lease_end_frees_the_slot_once() {
        let mut slow_start = BySuccesses::new(0, 8, LEASE);
        assert_eq!(admitted(&mut slow_start, 0, 1), 1);
        assert_eq!(slow_start.admit(LEASE - 1), SlowStartStep::Denied(1));
        assert_eq!(admitted(&mut slow_start, LEASE, 2), 1, "another call takes the slot");
        assert!(!slow_start.holds_slot(0) && slow_start.holds_slot(LEASE));
        assert!(!slow_start.release(0, false));
        assert_eq!(admitted(&mut slow_start, LEASE, 1), 0, "the late call has no slot to free");
        assert!(!slow_start.release(0, true));
        assert_eq!(admitted(&mut slow_start, LEASE, 2), 1, "its success still counts");
    }

    #[test]
    fn late_call_frees_no_slot_after_clock_runs_back() {
        let mut slow_start = BySuccesses::new(0, 8, LEASE);
        assert_eq!(admitted(&mut slow_start, 0, 1), 1);
        assert_eq!(admitted(&mut slow_start, LEASE, 1), 1, "the lease of the first call has ended");
        slow_start.release(LEASE, false);
        assert_eq!(slow_start.admit(0), SlowStartStep::AdmittedWithSlot(LEASE));
        slow_start.release(0, false);
        assert_eq!(slow_start.admit(0), SlowStartStep::Denied(2 * LEASE));
    }

    #[test]
    #[expect(clippy::float_cmp, reason = "these shares are exact in binary")]
    fn share_is_that_of_the_successes() {
        let mut slow_start = BySuccesses::new(0, 4, LEASE);
        for share in [0.0, 0.25, 0.5, 0.75] {
            assert_eq!(slow_start.share(), share);
            assert_eq!(admitted(&mut slow_start, 0, 1), 1);
            slow_start.release(0, true);
        }
    }

    #[test]
    fn slots_never_allocate_after_the_beginning() {
        let mut slow_start = BySuccesses::new(0, 50, LEASE);
        let capacity = slow_start.slots.capacity();
        let mut now = 0;
        loop {
            let admitted = admitted(&mut slow_start, now, 100);
            assert_eq!(slow_start.slots.capacity(), capacity);
            if (0..admitted).any(|_| slow_start.release(now, true)) {
                break;
            }
            now += 1;
        }
    }

    #[test]
    #[cfg(feature = "keyed")]
    fn slow_start_is_in_use_for_a_lease_after_last_admission() {
        let mut slow_start = BySuccesses::new(5, 8, LEASE);
        assert!(slow_start.is_in_use(14) && !slow_start.is_in_use(15));
        assert_eq!(admitted(&mut slow_start, 20, 1), 1);
        slow_start.release(20, true);
        assert!(slow_start.is_in_use(29) && !slow_start.is_in_use(30));
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Arrive,
        End(usize, bool),
        Pass(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => Just(Step::Arrive),
            3 => (any::<usize>(), any::<bool>()).prop_map(|(which, success)| Step::End(which, success)),
            2 => (0..4_u64).prop_map(Step::Pass),
        ]
    }

    /// A call of the naive model.
    struct Call {
        from: u64,
        has_slot: bool,
        has_ended: bool,
    }

    proptest! {
        /// The naive model keeps every call, each with a slot of its own.
        #[test]
        fn slow_start_agrees_with_naive_model(steps in vec(step(), 1..200)) {
            let mut slow_start = BySuccesses::new(0, 20, LEASE);
            let (mut calls, mut now, mut successes) = (Vec::<Call>::new(), 0, 0);
            for step in steps {
                match step {
                    Step::Pass(time) => now += time,
                    Step::Arrive => {
                        let held = |calls: &[Call]| calls.iter().filter(|call| call.has_slot).count();
                        if held(&calls) > successes {
                            for call in &mut calls {
                                call.has_slot &= now - call.from < LEASE;
                            }
                        }
                        let is_admitted = held(&calls) <= successes;
                        let step = slow_start.admit(now);
                        if is_admitted {
                            prop_assert_eq!(step, SlowStartStep::AdmittedWithSlot(now));
                            calls.push(Call { from: now, has_slot: true, has_ended: false });
                        } else {
                            let holders = calls.iter().filter(|call| call.has_slot);
                            let left = holders.map(|call| call.from + LEASE - now).min().unwrap();
                            prop_assert_eq!(step, SlowStartStep::Denied(left));
                        }
                    }
                    Step::End(which, success) => {
                        let mut running: Vec<_> = calls.iter_mut().filter(|call| !call.has_ended).collect();
                        if running.is_empty() {
                            continue;
                        }
                        let which = which % running.len();
                        prop_assert_eq!(slow_start.holds_slot(running[which].from), running[which].has_slot);
                        (running[which].has_slot, running[which].has_ended) = (false, true);
                        successes += usize::from(success);
                        let is_over = slow_start.release(running[which].from, success);
                        prop_assert_eq!(is_over, successes >= 20);
                        if is_over {
                            return Ok(());
                        }
                    }
                }
                let running = calls.iter().filter(|call| !call.has_ended);
                let young = running.filter(|call| now - call.from < LEASE).count();
                prop_assert!(young <= 1 + successes, "{} calls with limit {}", young, 1 + successes);
            }
        }
    }
}
