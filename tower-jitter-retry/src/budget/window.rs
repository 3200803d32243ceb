//! The window budget: a share of the requests of the last seconds, and some retries per second in
//! addition.
//!
//! A deposit is the hot path: a load and a store in the calling thread's own cell, without a
//! read-modify-write. A withdrawal happens on retries only. It sums the deposits and withdrawals,
//! and withdraws, under a lock. Two concurrent withdrawals therefore cannot both take the last
//! retry, not even across the edge of a bucket.

use std::cell::Cell;
use std::time::Duration;

use tower_fault_classify::__internals::sync::{AtomicU64, Mutex, Ordering, fence, lock};
use tower_fault_classify::__internals::{
    AtomicClock, Clock, PaddedRing, Pool, PoolItem, StripedCounter, TimeBuckets,
};
use tower_fault_classify::{Kind, Verdict};

use super::rules::window::WindowRules;
use super::settings::BudgetSettings;
use super::status::BudgetStatus;

/// The counts and the configuration of a budget. The pool can give every part to another owner
/// later.
#[derive(Debug)]
pub(crate) struct WindowCore {
    requests: StripedCounter,
    /// The owner's [`TimeBuckets`], as words.
    buckets: [AtomicU64; 2],
    clock: AtomicClock,
    /// The number of owners so far. 32 bits of it are used; a tag has room for 24 of them.
    epoch: AtomicU64,
    withdrawals: Mutex<Withdrawals>,
}

/// The part that only withdrawals use.
#[derive(Debug)]
struct Withdrawals {
    rules: WindowRules,
    retries: PaddedRing,
    newest: Option<BucketSums>,
}

/// The sums of the last withdrawal, for the next one in the same bucket.
///
/// No withdrawal of another bucket has been made since, so the retries are exact. The requests are
/// a lower bound: none leaves the window while the bucket is the same, and the sum stops early.
#[derive(Clone, Copy, Debug)]
struct BucketSums {
    tag: u64,
    requests: u64,
    retries: u64,
}

/// The owner of the storage when a call began. A call keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WindowOwner {
    epoch: u32,
    /// Whether the budget would grant a retry to the only call of a window.
    grants_first: bool,
}

impl WindowCore {
    /// Creates a core that no budget has adopted yet. It reads only its first owner's clock,
    /// because the system's clock does not work under valgrind.
    pub(super) fn new(clock: Clock) -> Self {
        Self::with_stripes(StripedCounter::new(), clock)
    }

    fn with_stripes(requests: StripedCounter, clock: Clock) -> Self {
        Self {
            requests,
            buckets: TimeBuckets::new(u64::MAX).to_words().map(AtomicU64::new),
            clock: AtomicClock::new(clock),
            epoch: AtomicU64::new(0),
            withdrawals: Mutex::new(Withdrawals {
                rules: WindowRules::NONE,
                retries: PaddedRing::default(),
                newest: None,
            }),
        }
    }

    /// Makes the core an empty budget of a new owner. Calls of former owners may still use it.
    pub(super) fn adopt(&self, rules: WindowRules, buckets: TimeBuckets, clock: Clock) -> WindowOwner {
        // Under the lock, so that no withdrawal of a former owner overlaps the change.
        let mut withdrawals = lock(&self.withdrawals);
        let former = self.buckets();
        let epoch = self.epoch().wrapping_add(1);
        self.epoch.store(epoch.into(), Ordering::Relaxed);
        // Release: a deposit that reads one of the words stored below also reads the new epoch.
        fence(Ordering::Release);
        // The clock is read after the epoch has changed: a deposit that still saw the former epoch
        // has read an earlier time, so its bucket is older than every bucket of the new owner.
        let buckets = buckets.continue_after(former, self.clock.now(), clock.now());
        self.clock.store(clock);
        for (word, value) in self.buckets.iter().zip(buckets.to_words()) {
            word.store(value, Ordering::Relaxed);
        }
        // The former clock may have run backwards, or the budget may have been idle until the tags
        // began to repeat.
        self.requests.clear_expired(None);
        withdrawals.retries.clear_expired(None);
        withdrawals.rules = rules;
        withdrawals.newest = None;
        WindowOwner { epoch, grants_first: rules.grants(1, 0) }
    }

    pub(super) fn settings(&self) -> BudgetSettings {
        let (ratio, min_per_second, span) = lock(&self.withdrawals).rules.settings();
        BudgetSettings::Window { ratio, min_per_second, span: Duration::from_nanos(span) }
    }

    /// Returns the status of the budget that owns the core.
    pub(super) fn status(&self, owner: WindowOwner) -> BudgetStatus {
        self.status_at(self.clock.now(), owner)
    }

    /// Returns the status at `now`, which the caller has read before.
    fn status_at(&self, now: u64, owner: WindowOwner) -> BudgetStatus {
        let withdrawals = lock(&self.withdrawals);
        let Withdrawals { rules, retries, .. } = &*withdrawals;
        let tag = self.buckets().tag(now, owner.epoch);
        let (deposits, withdrawals) = (self.requests.sum(tag), retries.sum(tag));
        BudgetStatus {
            available: rules.available(deposits, withdrawals),
            tokens: None,
            capacity: None,
            deposits: Some(deposits),
            withdrawals: Some(withdrawals),
        }
    }

    pub(super) fn clock(&self) -> Clock {
        self.clock.load()
    }

    /// Makes a deposit for a request after its first attempt. A request that was rejected and not
    /// sent makes none.
    #[inline]
    pub(crate) fn deposit(&self, verdict: &Verdict, owner: WindowOwner) {
        if verdict.fault().is_none_or(|fault| fault.kind() != Kind::Rejected) {
            self.deposit_at(self.clock.now(), owner);
        }
    }

    /// Withdraws for a retry, and returns whether the budget grants it.
    ///
    /// If the core now belongs to another budget, the call gets what its own budget would grant to
    /// its only call.
    pub(crate) fn withdraw(&self, owner: WindowOwner) -> bool {
        self.withdraw_at(self.clock.now(), owner)
    }

    /// Makes a deposit at `now`, which the caller has read before.
    #[inline]
    fn deposit_at(&self, now: u64, owner: WindowOwner) {
        let buckets = self.buckets();
        // Acquire: if the clock or a word was another owner's, the load below reads that owner's
        // epoch or a later one.
        fence(Ordering::Acquire);
        if self.epoch() == owner.epoch {
            self.requests.add(buckets.tag(now, owner.epoch), 1);
        }
    }

    /// Withdraws at `now`, which the caller has read before.
    fn withdraw_at(&self, now: u64, owner: WindowOwner) -> bool {
        let mut withdrawals = lock(&self.withdrawals);
        if self.epoch() != owner.epoch {
            return owner.grants_first;
        }
        let Withdrawals { rules, retries, newest } = &mut *withdrawals;
        let tag = self.buckets().tag(now, owner.epoch);
        let known = newest.filter(|known| known.tag == tag);
        let mut sums = known.unwrap_or_else(|| BucketSums { tag, requests: 0, retries: retries.sum(tag) });
        let granted = rules.grants(sums.requests, sums.retries) || {
            // The sum stops early: if a part of the deposits is enough, the other cells are not
            // read.
            let read = Cell::new(0);
            let granted = self.requests.sum_satisfies(tag, |requests| {
                read.set(requests);
                rules.grants(requests, sums.retries)
            });
            sums.requests = read.get();
            granted
        };
        if granted {
            retries.add(tag, 1);
            sums.retries += 1;
        }
        *newest = Some(sums);
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

// Dropping the last handle resets nothing. A call may outlive its service, for example with
// `oneshot`, and continues to use its budget until another budget adopts the core.
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

    fn budget(
        ratio: f64,
        min_per_second: impl Into<f64>,
    ) -> (Budget, tower_fault_classify::__internals::ManualClock) {
        let (clock, manual) = Clock::manual();
        (Budget::window().ratio(ratio).min_per_second(min_per_second).clock(clock).build().unwrap(), manual)
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
            let (budget, _manual) = budget(ratio, 0);
            assert_eq!(granted(&budget), 0, "no deposit was made");
            pay(&budget, 1_000);
            assert_eq!(granted(&budget), granted_of_a_thousand, "{ratio}");
        }
    }

    #[test]
    fn reserve_is_granted_without_traffic_and_refills() {
        let (budget, manual) = budget(0.2, 10);
        assert_eq!(granted(&budget), 100);
        assert_eq!(granted(&budget), 0);
        manual.advance(Duration::from_secs(11));
        assert_eq!(granted(&budget), 100);
    }

    #[test]
    fn fraction_per_second_is_counted_over_the_span() {
        let (one_in_ten_seconds, manual) = budget(0.0, 0.1);
        for _ in 0..3 {
            assert_eq!(granted(&one_in_ten_seconds), 1);
            manual.advance(Duration::from_secs(11));
        }
        let (half_a_retry, _manual) = budget(0.5, 0.05);
        assert_eq!(granted(&half_a_retry), 0, "half a retry is none");
        pay(&half_a_retry, 1);
        assert_eq!(granted(&half_a_retry), 1, "half a retry of each makes one");
    }

    #[test]
    fn window_idle_for_a_week_grants_only_reserve() {
        let (budget, manual) = budget(0.2, 1);
        pay(&budget, 1_000_000);
        manual.advance(Duration::from_secs(7 * 24 * 60 * 60));
        assert_eq!(granted(&budget), 10);
    }

    #[test]
    fn rejected_request_deposits_nothing() {
        let (budget, _manual) = budget(1.0, 0);
        let rejected = Fault::new(Kind::Rejected, Retryable::Never, Health::Neutral, Origin::Local);
        budget.deposit(&rejected.into());
        assert_eq!(granted(&budget), 0);
        budget.deposit(&rejected.with_kind(Kind::Server).into());
        assert_eq!(granted(&budget), 1);
    }

    /// A call of a former budget uses a core that another budget has adopted, for every kind of
    /// change.
    #[test]
    fn call_of_former_budget_changes_nothing_for_next() {
        let clocks = [Clock::manual(), Clock::manual()];
        clocks[0].1.set(Duration::from_secs(1_000_000));
        for (former_clock, next_clock) in [(0, 0), (0, 1), (1, 0)] {
            for (former_span, next_span) in [(10, 10), (10, 3_600), (3_600, 1)] {
                let adopt = |core: &WindowCore, ratio, clock: usize, span: u64| {
                    let nanos = span * 1_000_000_000_u64;
                    core.adopt(WindowRules::new(ratio, 0.0, nanos), TimeBuckets::new(nanos), clocks[clock].0)
                };
                let core = WindowCore::new(clocks[former_clock].0);
                let former = adopt(&core, 1.0, former_clock, former_span);
                (0..5).for_each(|_| core.deposit(&Verdict::Success, former));
                let next = adopt(&core, 0.5, next_clock, next_span);
                assert!(!core.withdraw(next), "a new budget starts empty");
                core.deposit(&Verdict::Success, former);
                (0..2).for_each(|_| core.deposit(&Verdict::Success, next));
                assert!((0..3).all(|_| core.withdraw(former)), "granted as to the only call of a window");
                assert!(core.withdraw(next) && !core.withdraw(next));
                clocks[former_clock].1.advance(Duration::from_secs(100_000));
                core.deposit(&Verdict::Success, former);
                (0..2).for_each(|_| core.deposit(&Verdict::Success, next));
                assert!(core.withdraw(next), "a late call of the former owner takes no cell");
                assert!(!core.withdraw(next));
            }
        }
    }

    #[test]
    fn call_outliving_every_handle_keeps_its_budget() {
        let (first, _manual) = budget(0.5, 0);
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
        let (budget, _manual) = budget(1.0, 0);
        pay(&budget, 2);
        budget.withdraw(&FAULT).unwrap().succeeded();
        budget.withdraw(&FAULT).unwrap().failed(&FAULT);
        assert!(budget.withdraw(&FAULT).is_none());
    }

    const SPAN: u64 = 10_000_000_000;

    fn core(ratio: f64, min_per_second: f64) -> (WindowCore, WindowOwner) {
        let core = WindowCore::with_stripes(StripedCounter::with_stripes(2), Clock::manual().0);
        let rules = WindowRules::new(ratio, min_per_second, SPAN);
        let owner = core.adopt(rules, TimeBuckets::new(SPAN), Clock::manual().0);
        (core, owner)
    }

    #[test]
    fn concurrent_withdrawals_never_exceed_ratio() {
        let (core, owner) = core(0.2, 0.0);
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
        assert_eq!(granted.into_inner(), 8_000, "a fifth of 40,000: none lost, none granted twice");
    }

    proptest! {
        /// Compares the budget with a list of every deposit and withdrawal, over random steps of
        /// time.
        #[test]
        fn window_budget_grants_as_naive_model(
            steps in proptest::collection::vec((0_u64..3_000, 0_u64..20, 0_usize..20), 1..100),
            ratio_in_tenths in prop::sample::select(vec![0_u32, 1, 2, 6, 10, 37]),
            per_second_in_hundredths in prop::sample::select(vec![0_u32, 1, 3, 10, 25, 99, 100, 200]),
        ) {
            let (core, owner) =
                core(f64::from(ratio_in_tenths) / 10.0, f64::from(per_second_in_hundredths) / 100.0);
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
                    // In tenths of a retry. A hundredth per second makes a tenth over 10 s.
                    let allowed = requests.len() as u64 * u64::from(ratio_in_tenths) + u64::from(per_second_in_hundredths);
                    let expected = (retries.len() as u64 + 1) * 10 <= allowed;
                    prop_assert_eq!(core.withdraw_at(now, owner), expected);
                    if expected {
                        retries.push_back(now);
                    }
                }
                let status = core.status_at(now, owner);
                prop_assert_eq!(status.deposits, Some(requests.len() as u64));
                prop_assert_eq!(status.withdrawals, Some(retries.len() as u64));
                let allowed = requests.len() as u64 * u64::from(ratio_in_tenths) + u64::from(per_second_in_hundredths);
                let left = allowed.saturating_sub(retries.len() as u64 * 10) as f64 / 10.0;
                prop_assert!((status.available - left).abs() < 1e-9, "{status:?}, not {left}");
                prop_assert_eq!((status.tokens, status.capacity), (None, None));
            }
        }
    }
}

#[cfg(all(test, loom_models))]
mod models {
    use loom::sync::Arc;
    use loom::thread;
    use tower_fault_classify::__internals::RING_CELLS;

    use super::*;

    const SPAN: u64 = 10_000_000_000;

    fn core(ratio: f64) -> (Arc<WindowCore>, WindowOwner) {
        let core = WindowCore::with_stripes(StripedCounter::with_stripes(0), Clock::manual().0);
        let owner = core.adopt(WindowRules::new(ratio, 0.0, SPAN), TimeBuckets::new(SPAN), Clock::manual().0);
        (Arc::new(core), owner)
    }

    #[test]
    fn loom_last_retry_is_granted_once_across_bucket_edge() {
        loom::model(|| {
            let (core, owner) = core(1.0);
            core.deposit_at(0, owner);
            let other = Arc::clone(&core);
            let thread = thread::spawn(move || other.withdraw_at(SPAN / (RING_CELLS as u64 - 1) + 1, owner));
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

    /// Runs a former owner's call concurrently with the next owner's adoption of the core, with
    /// another clock, another time and other buckets.
    fn run_during_adoption(former: impl FnOnce(&WindowCore, WindowOwner) + Send + 'static) {
        let (core, owner) = core(1.0);
        core.deposit_at(0, owner);
        let other = Arc::clone(&core);
        let thread = thread::spawn(move || former(&other, owner));
        let (clock, manual) = Clock::manual();
        manual.set(std::time::Duration::from_nanos(1_000_000 * SPAN));
        let next = core.adopt(WindowRules::new(1.0, 0.0, SPAN / 10), TimeBuckets::new(SPAN / 10), clock);
        core.deposit(&Verdict::Success, next);
        thread.join().unwrap();
        assert!(core.withdraw(next) && !core.withdraw(next), "one deposit was made");
        core.deposit(&Verdict::Success, next);
        assert!(core.withdraw(next), "the cell still counts");
    }

    #[test]
    fn loom_withdrawal_during_adoption_takes_nothing_from_next_owner() {
        loom::model(|| run_during_adoption(|core, owner| drop(core.withdraw(owner))));
    }

    #[test]
    fn loom_deposit_during_adoption_adds_nothing_to_next_owner() {
        loom::model(|| run_during_adoption(|core, owner| core.deposit(&Verdict::Success, owner)));
    }
}
