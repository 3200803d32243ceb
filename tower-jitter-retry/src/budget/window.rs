//! The window made concurrent.
//!
//! A deposit is the hot path: a load and a store in the calling thread's own cell, no read-modify-write. A withdrawal happens
//! on retries only: it sums what was paid in and drawn, and draws, under a lock, so that two at once cannot both take the
//! last one, not even across the edge of a bucket.

#[cfg(feature = "serde")]
use std::time::Duration;

#[cfg(feature = "serde")]
use tower_fault_classify::__shared::file::Human;
use tower_fault_classify::__shared::sync::{AtomicU64, Mutex, Ordering, fence, lock};
use tower_fault_classify::__shared::{AtomicClock, Buckets, Clock, Pool, Recycle, Ring, Striped, slot};
use tower_fault_classify::{Kind, Verdict};

use super::rules::Rules;
#[cfg(feature = "serde")]
use crate::budget::Settings;

/// The counts of a budget, and what it was configured to. Every part can be another owner's later.
#[derive(Debug)]
pub(crate) struct WindowCore {
    requests: Striped,
    /// How the owner's [`Buckets`] are kept.
    buckets: [AtomicU64; 2],
    clock: AtomicClock,
    /// Counts the owners. 32 bits of it are used; a tag has room for 24 of them.
    epoch: AtomicU64,
    withdrawals: Mutex<Withdrawals>,
}

/// What only withdrawals use.
#[derive(Debug)]
struct Withdrawals {
    rules: Rules,
    retries: Ring,
}

/// What a call keeps of the budget that it began with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    epoch: u32,
    /// Whether the budget would grant a retry to the only call of a window.
    grants_first: bool,
}

impl WindowCore {
    /// A core that is yet to be adopted.
    pub(super) fn new() -> Self {
        Self::with_stripes(Striped::new())
    }

    fn with_stripes(requests: Striped) -> Self {
        Self {
            requests,
            buckets: Buckets::of(u64::MAX).words().map(AtomicU64::new),
            clock: AtomicClock::new(Clock::default()),
            epoch: AtomicU64::new(0),
            withdrawals: Mutex::new(Withdrawals { rules: Rules::NONE, retries: Ring::default() }),
        }
    }

    /// Makes the core an empty budget of another owner. Calls of former owners may still use it.
    pub(super) fn adopt(&self, rules: Rules, buckets: Buckets, clock: Clock) -> Owner {
        // Under the lock, so that no withdrawal of a former owner runs across it.
        let mut withdrawals = lock(&self.withdrawals);
        let former = self.buckets();
        let epoch = self.epoch().wrapping_add(1);
        self.epoch.store(epoch.into(), Ordering::Relaxed);
        // A deposit that reads one of the words below finds that the epoch has changed.
        fence(Ordering::Release);
        // Read after the epoch has changed: a deposit that found the former epoch has read an
        // earlier time, and its bucket comes before all that follow.
        let buckets = buckets.after(former, self.clock.now(), clock.now());
        self.clock.store(clock);
        for (word, value) in self.buckets.iter().zip(buckets.words()) {
            word.store(value, Ordering::Relaxed);
        }
        // The former clock may have run back, or been idle until its tags began to repeat.
        self.requests.sweep(None);
        withdrawals.retries.sweep(None);
        withdrawals.rules = rules;
        Owner { epoch, grants_first: rules.grant(1, 0) }
    }

    #[cfg(feature = "serde")]
    pub(crate) fn settings(&self) -> Settings {
        let (ratio, min_per_second, span) = lock(&self.withdrawals).rules.settings();
        Settings::Window { ratio, min_per_second, span: Human(Duration::from_nanos(span)) }
    }

    /// Pays in for a request, by what its first attempt came to. One that was never sent pays nothing.
    #[inline]
    pub(crate) fn outcome(&self, verdict: &Verdict, owner: Owner) {
        if verdict.fault().is_none_or(|fault| fault.kind() != Kind::Rejected) {
            self.deposit(self.clock.now(), owner);
        }
    }

    /// Draws for a retry, if there is enough. For a call whose core belongs to another budget by
    /// now, there is what its own budget would have for it alone.
    pub(crate) fn try_retry(&self, owner: Owner) -> bool {
        self.withdraw(self.clock.now(), owner)
    }

    /// `now` was read before.
    #[inline]
    fn deposit(&self, now: u64, owner: Owner) {
        let buckets = self.buckets();
        // If the clock or a word was another owner's, the epoch is read as that owner's, or a later
        // one's.
        fence(Ordering::Acquire);
        if self.epoch() == owner.epoch {
            self.requests.add(slot(), buckets.tag(now, owner.epoch), 1);
        }
    }

    /// `now` was read before.
    fn withdraw(&self, now: u64, owner: Owner) -> bool {
        let withdrawals = lock(&self.withdrawals);
        if self.epoch() != owner.epoch {
            return owner.grants_first;
        }
        let Withdrawals { rules, retries } = &*withdrawals;
        let tag = self.buckets().tag(now, owner.epoch);
        let drawn = retries.sum(tag);
        // As long as the reserve, or a part of what was paid in, is enough, the rest need not be counted.
        let granted = self.requests.reaches(tag, |requests| rules.grant(requests, drawn));
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
    fn buckets(&self) -> Buckets {
        Buckets::from_words(self.buckets.each_ref().map(|word| word.load(Ordering::Relaxed)))
    }
}

static POOL: Pool<WindowCore> = Pool::new();

// Nothing ends with the last handle: a call outlives the service that made it, as `oneshot` has it,
// and goes on with its budget until another one takes the core.
impl Recycle for WindowCore {
    fn pool() -> &'static Pool<Self> {
        &POOL
    }
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use std::collections::VecDeque;
    use std::sync::atomic::AtomicUsize;
    use std::thread;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const SPAN: u64 = 10_000_000_000;

    fn core(ratio: f64, min_per_second: u32) -> (WindowCore, Owner) {
        let core = WindowCore::with_stripes(Striped::with_stripes(2));
        let rules = Rules::new(ratio, min_per_second, SPAN);
        let owner = core.adopt(rules, Buckets::of(SPAN), Clock::manual().0);
        (core, owner)
    }

    #[test]
    fn threads_at_once_are_never_granted_more_than_the_ratio_allows() {
        let (core, owner) = core(0.2, 0);
        let granted = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..5_000 {
                        core.deposit(0, owner);
                        if core.withdraw(0, owner) {
                            granted.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        while core.withdraw(0, owner) {
            granted.fetch_add(1, Ordering::Relaxed);
        }
        assert_eq!(granted.into_inner(), 8_000, "a fifth of 40,000, none lost and none made");
    }

    proptest! {
        /// Against every deposit and withdrawal kept in a list, over random steps of time.
        #[test]
        fn it_grants_as_the_naive_one(
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
                    core.deposit(now, owner);
                    requests.push_back(now);
                }
                for _ in 0..withdrawals {
                    // In tenths of a retry, which are exact.
                    let allowed = requests.len() as u64 * u64::from(ratio_in_tenths) + u64::from(min_per_second) * 100;
                    let expected = (retries.len() as u64 + 1) * 10 <= allowed;
                    prop_assert_eq!(core.withdraw(now, owner), expected);
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

    fn core(ratio: f64) -> (Arc<WindowCore>, Owner) {
        let core = WindowCore::with_stripes(Striped::with_stripes(0));
        let owner = core.adopt(Rules::new(ratio, 0, SPAN), Buckets::of(SPAN), Clock::manual().0);
        (Arc::new(core), owner)
    }

    #[test]
    fn loom_the_last_retry_is_granted_once_also_across_the_edge_of_a_bucket() {
        loom::model(|| {
            let (core, owner) = core(1.0);
            core.deposit(0, owner);
            let other = Arc::clone(&core);
            let thread = thread::spawn(move || other.withdraw(SPAN / 15 + 1, owner));
            let here = core.withdraw(0, owner);
            assert_ne!(here, thread.join().unwrap());
        });
    }

    #[test]
    fn loom_no_deposit_is_lost() {
        loom::model(|| {
            let (core, owner) = core(1.0);
            let other = Arc::clone(&core);
            let thread = thread::spawn(move || other.deposit(0, owner));
            core.deposit(0, owner);
            thread.join().unwrap();
            assert!(core.withdraw(0, owner) && core.withdraw(0, owner) && !core.withdraw(0, owner));
        });
    }

    /// A former owner's call and the next owner's adoption of a core on another clock, at another
    /// time, with other buckets.
    fn beside_adoption(former: impl FnOnce(&WindowCore, Owner) + Send + 'static) {
        let (core, owner) = core(1.0);
        core.deposit(0, owner);
        let other = Arc::clone(&core);
        let thread = thread::spawn(move || former(&other, owner));
        let (clock, hand) = Clock::manual();
        hand.set(std::time::Duration::from_nanos(1_000_000 * SPAN));
        let next = core.adopt(Rules::new(1.0, 0, SPAN / 10), Buckets::of(SPAN / 10), clock);
        core.outcome(&Verdict::Success, next);
        thread.join().unwrap();
        assert!(core.try_retry(next) && !core.try_retry(next), "it was paid in once");
        core.outcome(&Verdict::Success, next);
        assert!(core.try_retry(next), "the cell counts on");
    }

    #[test]
    fn loom_withdrawal_beside_adoption_draws_nothing_from_next_owner() {
        loom::model(|| beside_adoption(|core, owner| drop(core.try_retry(owner))));
    }

    #[test]
    fn loom_deposit_beside_adoption_pays_nothing_to_next_owner() {
        loom::model(|| beside_adoption(|core, owner| core.outcome(&Verdict::Success, owner)));
    }
}
