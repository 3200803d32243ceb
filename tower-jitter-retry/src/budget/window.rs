//! The default budget: a share of the requests of the last seconds, and some retries a second besides.
//!
//! A deposit is the hot path: a load and a store in the calling thread's own cell, without a
//! read-modify-write. A withdrawal happens on retries only. It sums the deposits and withdrawals,
//! and withdraws, under a lock, so that two withdrawals at once cannot both take the last retry,
//! not even across the edge of a bucket.

use std::time::Duration;

use tower_fault_classify::__internals::sync::{AtomicU64, Mutex, Ordering, fence, lock};
use tower_fault_classify::__internals::{
    AtomicClock, Clock, PaddedRing, Pool, PoolItem, StripedCounter, TimeBuckets, thread_slot,
};
use tower_fault_classify::{Kind, Verdict};

use super::rules::window::WindowRules;
use super::settings::BudgetSettings;

/// The counts of a budget, and what it was configured to. Every part can be another owner's later.
#[derive(Debug)]
pub(crate) struct WindowCore {
    requests: StripedCounter,
    /// How the owner's [`TimeBuckets`] are kept.
    buckets: [AtomicU64; 2],
    clock: AtomicClock,
    /// Counts the owners. 32 bits of it are used; a tag has room for 24 of them.
    epoch: AtomicU64,
    withdrawals: Mutex<Withdrawals>,
}

/// What only withdrawals use.
#[derive(Debug)]
struct Withdrawals {
    rules: WindowRules,
    retries: PaddedRing,
}

/// What a call keeps of the budget that it began with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WindowOwner {
    epoch: u32,
    /// Whether the budget would grant a retry to the only call of a window.
    grants_first: bool,
}

impl WindowCore {
    /// A core that is yet to be adopted. It reads no other clock than its first owner's: the system's
    /// clock does not work under valgrind.
    pub(super) fn new(clock: Clock) -> Self {
        Self::with_stripes(StripedCounter::new(), clock)
    }

    fn with_stripes(requests: StripedCounter, clock: Clock) -> Self {
        Self {
            requests,
            buckets: TimeBuckets::new(u64::MAX).to_words().map(AtomicU64::new),
            clock: AtomicClock::new(clock),
            epoch: AtomicU64::new(0),
            withdrawals: Mutex::new(Withdrawals { rules: WindowRules::NONE, retries: PaddedRing::default() }),
        }
    }

    /// Makes the core an empty budget of another owner. Calls of former owners may still use it.
    pub(super) fn adopt(&self, rules: WindowRules, buckets: TimeBuckets, clock: Clock) -> WindowOwner {
        // Under the lock, so that no withdrawal of a former owner runs across it.
        let mut withdrawals = lock(&self.withdrawals);
        let former = self.buckets();
        let epoch = self.epoch().wrapping_add(1);
        self.epoch.store(epoch.into(), Ordering::Relaxed);
        // A deposit that reads one of the words below finds that the epoch has changed.
        fence(Ordering::Release);
        // Read after the epoch has changed: a deposit that found the former epoch has read an
        // earlier time, and its bucket comes before all that follow.
        let buckets = buckets.continue_after(former, self.clock.now(), clock.now());
        self.clock.store(clock);
        for (word, value) in self.buckets.iter().zip(buckets.to_words()) {
            word.store(value, Ordering::Relaxed);
        }
        // The former clock may have run back, or been idle until its tags began to repeat.
        self.requests.clear_expired(None);
        withdrawals.retries.clear_expired(None);
        withdrawals.rules = rules;
        WindowOwner { epoch, grants_first: rules.grants(1, 0) }
    }

    pub(super) fn settings(&self) -> BudgetSettings {
        let (ratio, min_per_second, span) = lock(&self.withdrawals).rules.settings();
        BudgetSettings::Window { ratio, min_per_second, span: Duration::from_nanos(span) }
    }

    pub(super) fn clock(&self) -> Clock {
        self.clock.load()
    }

    /// Pays in for a request, by what its first attempt came to. One that was never sent pays nothing.
    #[inline]
    pub(crate) fn deposit(&self, verdict: &Verdict, owner: WindowOwner) {
        if verdict.fault().is_none_or(|fault| fault.kind() != Kind::Rejected) {
            self.deposit_at(self.clock.now(), owner);
        }
    }

    /// Draws for a retry, if there is enough. For a call whose core belongs to another budget by
    /// now, there is what its own budget would have for it alone.
    pub(crate) fn withdraw(&self, owner: WindowOwner) -> bool {
        self.withdraw_at(self.clock.now(), owner)
    }

    /// `now` was read before.
    #[inline]
    fn deposit_at(&self, now: u64, owner: WindowOwner) {
        let buckets = self.buckets();
        // If the clock or a word was another owner's, the epoch is read as that owner's, or a later
        // one's.
        fence(Ordering::Acquire);
        if self.epoch() == owner.epoch {
            self.requests.add(thread_slot(), buckets.tag(now, owner.epoch), 1);
        }
    }

    /// `now` was read before.
    fn withdraw_at(&self, now: u64, owner: WindowOwner) -> bool {
        let withdrawals = lock(&self.withdrawals);
        if self.epoch() != owner.epoch {
            return owner.grants_first;
        }
        let Withdrawals { rules, retries } = &*withdrawals;
        let tag = self.buckets().tag(now, owner.epoch);
        let drawn = retries.sum(tag);
        // As long as the reserve, or a part of what was paid in, is enough, the rest need not be counted.
        let granted = self.requests.sum_satisfies(tag, |requests| rules.grants(requests, drawn));
        if granted {
            retries.add(tag, 1);
        }
        granted
    }

    #[inline]
    fn epoch(&self) -> u32 {
        self.epoch.load(Ordering::Relaxed) as u32
    }

    #[inline]
    fn buckets(&self) -> TimeBuckets {
        TimeBuckets::from_words(self.buckets.each_ref().map(|word| word.load(Ordering::Relaxed)))
    }
}

static POOL: Pool<WindowCore> = Pool::new();

// Nothing ends with the last handle: a call outlives the service that made it, as `oneshot` has it,
// and goes on with its budget until another one takes the core.
impl PoolItem for WindowCore {
    fn pool() -> &'static Pool<Self> {
        &POOL
    }
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use proptest::prelude::*;
    use std::collections::VecDeque;
    use std::sync::atomic::AtomicUsize;
    use std::thread;
    use tower_fault_classify::{Fault, Health, Kind, Origin, Retryable, Verdict};

    use super::*;
    use crate::budget::{Budget, RetryBudget};

    const FAULT: Fault = Fault::new(Kind::Server, Retryable::Never, Health::Unhealthy, Origin::Remote);

    fn budget(ratio: f64, min_per_second: u32) -> (Budget, tower_fault_classify::__internals::ManualClock) {
        let (clock, hand) = Clock::manual();
        (Budget::window().ratio(ratio).min_per_second(min_per_second).clock(clock).build().unwrap(), hand)
    }

    fn granted(budget: &Budget) -> usize {
        (0..10_000).take_while(|_| budget.withdraw(&FAULT).is_some()).count()
    }

    fn pay(budget: &Budget, requests: usize) {
        for _ in 0..requests {
            budget.deposit(&Verdict::Success);
        }
    }

    #[test]
    fn window_grants_ratio_exactly() {
        for (ratio, granted_of_a_thousand) in
            [(0.0, 0), (0.1, 100), (0.2, 200), (0.6, 600), (1.0, 1_000), (2.5, 2_500)]
        {
            let (budget, _hand) = budget(ratio, 0);
            assert_eq!(granted(&budget), 0, "nothing was paid in");
            pay(&budget, 1_000);
            assert_eq!(granted(&budget), granted_of_a_thousand, "{ratio}");
        }
    }

    #[test]
    fn reserve_is_granted_without_traffic_and_refills() {
        let (budget, hand) = budget(0.2, 10);
        assert_eq!(granted(&budget), 100);
        assert_eq!(granted(&budget), 0);
        hand.advance(Duration::from_secs(11));
        assert_eq!(granted(&budget), 100);
    }

    #[test]
    fn window_idle_for_a_week_grants_only_reserve() {
        let (budget, hand) = budget(0.2, 1);
        pay(&budget, 1_000_000);
        hand.advance(Duration::from_secs(7 * 24 * 60 * 60));
        assert_eq!(granted(&budget), 10);
    }

    #[test]
    fn rejected_request_deposits_nothing() {
        let (budget, _hand) = budget(1.0, 0);
        let rejected = Fault::new(Kind::Rejected, Retryable::Never, Health::Neutral, Origin::Local);
        budget.deposit(&rejected.into());
        assert_eq!(granted(&budget), 0);
        budget.deposit(&rejected.with_kind(Kind::Server).into());
        assert_eq!(granted(&budget), 1);
    }

    /// What a call of a former budget does to a budget that has taken its core over, for every kind
    /// of change.
    #[test]
    fn call_of_former_budget_changes_nothing_for_next() {
        let clocks = [Clock::manual(), Clock::manual()];
        clocks[0].1.set(Duration::from_secs(1_000_000));
        for (former_clock, next_clock) in [(0, 0), (0, 1), (1, 0)] {
            for (former_span, next_span) in [(10, 10), (10, 3_600), (3_600, 1)] {
                let adopt = |core: &WindowCore, ratio, clock: usize, span: u64| {
                    let nanos = span * 1_000_000_000_u64;
                    core.adopt(WindowRules::new(ratio, 0, nanos), TimeBuckets::new(nanos), clocks[clock].0)
                };
                let core = WindowCore::new(clocks[former_clock].0);
                let former = adopt(&core, 1.0, former_clock, former_span);
                (0..5).for_each(|_| core.deposit(&Verdict::Success, former));
                let next = adopt(&core, 0.5, next_clock, next_span);
                assert!(!core.withdraw(next), "it begins empty");
                core.deposit(&Verdict::Success, former);
                (0..2).for_each(|_| core.deposit(&Verdict::Success, next));
                assert!((0..3).all(|_| core.withdraw(former)), "as the only call of its own budget");
                assert!(core.withdraw(next) && !core.withdraw(next));
                clocks[former_clock].1.advance(Duration::from_secs(100_000));
                core.deposit(&Verdict::Success, former);
                (0..2).for_each(|_| core.deposit(&Verdict::Success, next));
                assert!(core.withdraw(next), "no late call takes a cell from it");
                assert!(!core.withdraw(next));
            }
        }
    }

    #[test]
    fn call_outliving_every_handle_keeps_its_budget() {
        let (first, _hand) = budget(0.5, 0);
        pay(&first, 1);
        let late = first.budget_ref().unwrap();
        drop(first);
        assert!(late.withdraw(&FAULT).is_none(), "one request does not pay for a retry");
        late.deposit(&Verdict::Success);
        assert!(late.withdraw(&FAULT).is_some());
        assert!(late.withdraw(&FAULT).is_none());
    }

    #[test]
    fn window_ticket_returns_nothing() {
        let (budget, _hand) = budget(1.0, 0);
        pay(&budget, 2);
        budget.withdraw(&FAULT).unwrap().succeeded();
        budget.withdraw(&FAULT).unwrap().failed(&FAULT);
        assert!(budget.withdraw(&FAULT).is_none());
    }

    const SPAN: u64 = 10_000_000_000;

    fn core(ratio: f64, min_per_second: u32) -> (WindowCore, WindowOwner) {
        let core = WindowCore::with_stripes(StripedCounter::with_stripes(2), Clock::manual().0);
        let rules = WindowRules::new(ratio, min_per_second, SPAN);
        let owner = core.adopt(rules, TimeBuckets::new(SPAN), Clock::manual().0);
        (core, owner)
    }

    #[test]
    fn concurrent_withdrawals_never_exceed_ratio() {
        let (core, owner) = core(0.2, 0);
        let granted = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..5_000 {
                        core.deposit_at(0, owner);
                        if core.withdraw_at(0, owner) {
                            granted.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        while core.withdraw_at(0, owner) {
            granted.fetch_add(1, Ordering::Relaxed);
        }
        assert_eq!(granted.into_inner(), 8_000, "a fifth of 40,000, none lost and none made");
    }

    proptest! {
        /// Against every deposit and withdrawal kept in a list, over random steps of time.
        #[test]
        fn window_budget_grants_as_naive_model(
            steps in proptest::collection::vec((0_u64..3_000, 0_u64..20, 0_usize..20), 1..100),
            ratio_in_tenths in prop::sample::select(vec![0_u32, 1, 2, 6, 10, 37]),
            min_per_second in 0_u32..3,
        ) {
            let (core, owner) = core(f64::from(ratio_in_tenths) / 10.0, min_per_second);
            let bucket = SPAN.div_ceil(15);
            let (mut now, mut requests, mut retries) = (0, VecDeque::new(), VecDeque::new());
            for (millis, deposits, withdrawals) in steps {
                now += Duration::from_millis(millis).as_nanos() as u64;
                let oldest = (now / bucket).saturating_sub(15);
                requests.retain(|at| at / bucket >= oldest);
                retries.retain(|at| at / bucket >= oldest);
                for _ in 0..deposits {
                    core.deposit_at(now, owner);
                    requests.push_back(now);
                }
                for _ in 0..withdrawals {
                    // In tenths of a retry, which are exact.
                    let allowed = requests.len() as u64 * u64::from(ratio_in_tenths) + u64::from(min_per_second) * 100;
                    let expected = (retries.len() as u64 + 1) * 10 <= allowed;
                    prop_assert_eq!(core.withdraw_at(now, owner), expected);
                    if expected {
                        retries.push_back(now);
                    }
                }
            }
        }
    }
}

#[cfg(all(test, loom_models))]
mod models {
    use loom::sync::Arc;
    use loom::thread;

    use super::*;

    const SPAN: u64 = 10_000_000_000;

    fn core(ratio: f64) -> (Arc<WindowCore>, WindowOwner) {
        let core = WindowCore::with_stripes(StripedCounter::with_stripes(0), Clock::manual().0);
        let owner = core.adopt(WindowRules::new(ratio, 0, SPAN), TimeBuckets::new(SPAN), Clock::manual().0);
        (Arc::new(core), owner)
    }

    #[test]
    fn loom_last_retry_is_granted_once_across_bucket_edge() {
        loom::model(|| {
            let (core, owner) = core(1.0);
            core.deposit_at(0, owner);
            let other = Arc::clone(&core);
            let thread = thread::spawn(move || other.withdraw_at(SPAN / 15 + 1, owner));
            let here = core.withdraw_at(0, owner);
            assert_ne!(here, thread.join().unwrap());
        });
    }

    #[test]
    fn loom_no_deposit_is_lost() {
        loom::model(|| {
            let (core, owner) = core(1.0);
            let other = Arc::clone(&core);
            let thread = thread::spawn(move || other.deposit_at(0, owner));
            core.deposit_at(0, owner);
            thread.join().unwrap();
            assert!(core.withdraw_at(0, owner) && core.withdraw_at(0, owner) && !core.withdraw_at(0, owner));
        });
    }

    /// A former owner's call and the next owner's adoption of a core on another clock, at another
    /// time, with other buckets.
    fn beside_adoption(former: impl FnOnce(&WindowCore, WindowOwner) + Send + 'static) {
        let (core, owner) = core(1.0);
        core.deposit_at(0, owner);
        let other = Arc::clone(&core);
        let thread = thread::spawn(move || former(&other, owner));
        let (clock, hand) = Clock::manual();
        hand.set(std::time::Duration::from_nanos(1_000_000 * SPAN));
        let next = core.adopt(WindowRules::new(1.0, 0, SPAN / 10), TimeBuckets::new(SPAN / 10), clock);
        core.deposit(&Verdict::Success, next);
        thread.join().unwrap();
        assert!(core.withdraw(next) && !core.withdraw(next), "it was paid in once");
        core.deposit(&Verdict::Success, next);
        assert!(core.withdraw(next), "the cell counts on");
    }

    #[test]
    fn loom_withdrawal_beside_adoption_draws_nothing_from_next_owner() {
        loom::model(|| beside_adoption(|core, owner| drop(core.withdraw(owner))));
    }

    #[test]
    fn loom_deposit_beside_adoption_pays_nothing_to_next_owner() {
        loom::model(|| beside_adoption(|core, owner| core.deposit(&Verdict::Success, owner)));
    }
}
