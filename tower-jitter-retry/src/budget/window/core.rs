//! The window made concurrent.
//!
//! A deposit is the hot path: a load and a store in the calling thread's own cell, no read-modify-write. A withdrawal happens
//! on retries only: it sums what was paid in and drawn, and draws, under a lock, so that two at once cannot both take the
//! last one, not even across the edge of a bucket.

#[cfg(feature = "serde")]
use std::time::Duration;

#[cfg(feature = "serde")]
use tower_fault_classify::__shared::file::Human;
use tower_fault_classify::__shared::sync::{AtomicU64, Mutex, Ordering, lock};
use tower_fault_classify::__shared::{Buckets, Clock, Pool, Recycle, Ring, Striped, slot};
use tower_fault_classify::{Kind, Verdict};

use super::rules::Rules;
#[cfg(feature = "serde")]
use crate::budget::Settings;

#[derive(Debug)]
pub(crate) struct WindowCore {
    rules: Rules,
    buckets: Buckets,
    clock: Clock,
    requests: Striped,
    retries: Mutex<Ring>,
    /// Counts the owners. 32 bits of it are used; a tag has room for 24 of them.
    epoch: AtomicU64,
    /// When the last owner ended.
    ended: AtomicU64,
}

impl WindowCore {
    pub(super) fn new(rules: Rules, buckets: Buckets, clock: Clock) -> Self {
        Self::with_stripes(rules, buckets, clock, Striped::new())
    }

    fn with_stripes(rules: Rules, buckets: Buckets, clock: Clock, requests: Striped) -> Self {
        Self {
            rules,
            buckets,
            clock,
            requests,
            retries: Mutex::new(Ring::default()),
            epoch: AtomicU64::new(0),
            ended: AtomicU64::new(0),
        }
    }

    /// A clock that has run back since the last owner ended, as tokio's does from one runtime with paused time to the next, would put what
    /// another one pays in into the past.
    pub(super) fn fits(&self, rules: Rules, buckets: Buckets, clock: Clock) -> bool {
        self.rules == rules
            && self.buckets == buckets
            && self.clock == clock
            // Relaxed: the pool's lock orders owners, so that the time is also read after the last one's end.
            && self.ended.load(Ordering::Relaxed) <= clock.now()
    }

    #[cfg(feature = "serde")]
    pub(crate) fn settings(&self) -> Settings {
        let (ratio, min_per_second, span) = self.rules.settings();
        Settings::Window { ratio, min_per_second, span: Human(Duration::from_nanos(span)) }
    }

    pub(super) fn epoch(&self) -> u32 {
        // Relaxed: it changes only while nobody has a handle, and the pool's lock orders owners.
        self.epoch.load(Ordering::Relaxed) as u32
    }

    /// Pays in for a request, by what its first attempt came to. One that was never sent pays nothing.
    #[inline]
    pub(crate) fn outcome(&self, verdict: &Verdict, epoch: u32) {
        if verdict.fault().is_none_or(|fault| fault.kind() != Kind::Rejected) {
            self.deposit(self.clock.now(), epoch);
        }
    }

    /// Draws for a retry, if there is enough. For a call whose budget belongs to another owner by now, there is what a new one would have
    /// for it alone.
    pub(crate) fn try_retry(&self, epoch: u32) -> bool {
        self.withdraw(self.clock.now(), epoch)
    }

    #[inline]
    fn deposit(&self, now: u64, epoch: u32) {
        self.requests.add(slot(), self.buckets.tag(now, epoch), 1);
    }

    fn withdraw(&self, now: u64, epoch: u32) -> bool {
        let retries = lock(&self.retries);
        if self.epoch() != epoch {
            return self.rules.grant(1, 0);
        }
        let tag = self.buckets.tag(now, epoch);
        let drawn = retries.sum(tag);
        // As long as the reserve, or a part of what was paid in, is enough, the rest need not be counted.
        let granted = self.requests.reaches(tag, |requests| self.rules.grant(requests, drawn));
        if granted {
            retries.add(tag, 1);
        }
        granted
    }
}

static POOL: Pool<WindowCore> = Pool::new();

impl Recycle for WindowCore {
    fn pool() -> &'static Pool<Self> {
        &POOL
    }

    fn retire(&self) {
        self.ended.store(self.clock.now(), Ordering::Relaxed);
    }

    // Not when it is retired: a call outlives the service that made it, as `oneshot` has it, and goes on with its budget.
    fn renew(&self) {
        // Under the lock, so that no withdrawal of the last owner runs across it.
        let retries = lock(&self.retries);
        self.epoch.fetch_add(1, Ordering::Relaxed);
        drop(retries);
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

    fn core(ratio: f64, min_per_second: u32) -> WindowCore {
        let rules = Rules::new(ratio, min_per_second, SPAN);
        WindowCore::with_stripes(rules, Buckets::of(SPAN), Clock::manual().0, Striped::with_stripes(2))
    }

    #[test]
    fn threads_at_once_are_never_granted_more_than_the_ratio_allows() {
        let core = core(0.2, 0);
        let granted = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..5_000 {
                        core.deposit(0, 0);
                        if core.withdraw(0, 0) {
                            granted.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        while core.withdraw(0, 0) {
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
            let core = core(f64::from(ratio_in_tenths) / 10.0, min_per_second);
            let bucket = SPAN.div_ceil(15);
            let (mut now, mut requests, mut retries) = (0, VecDeque::new(), VecDeque::new());
            for (millis, deposits, withdrawals) in steps {
                now += Duration::from_millis(millis).as_nanos() as u64;
                let oldest = (now / bucket).saturating_sub(15);
                requests.retain(|at| at / bucket >= oldest);
                retries.retain(|at| at / bucket >= oldest);
                for _ in 0..deposits {
                    core.deposit(now, 0);
                    requests.push_back(now);
                }
                for _ in 0..withdrawals {
                    // In tenths of a retry, which are exact.
                    let allowed = requests.len() as u64 * u64::from(ratio_in_tenths) + u64::from(min_per_second) * 100;
                    let expected = (retries.len() as u64 + 1) * 10 <= allowed;
                    prop_assert_eq!(core.withdraw(now, 0), expected);
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

    fn core(ratio: f64) -> Arc<WindowCore> {
        let rules = Rules::new(ratio, 0, SPAN);
        let striped = Striped::with_stripes(0);
        Arc::new(WindowCore::with_stripes(rules, Buckets::of(SPAN), Clock::manual().0, striped))
    }

    #[test]
    fn loom_the_last_retry_is_granted_once_also_across_the_edge_of_a_bucket() {
        loom::model(|| {
            let core = core(1.0);
            core.deposit(0, 0);
            let other = Arc::clone(&core);
            let thread = thread::spawn(move || other.withdraw(SPAN / 15 + 1, 0));
            let here = core.withdraw(0, 0);
            assert_ne!(here, thread.join().unwrap());
        });
    }

    #[test]
    fn loom_no_deposit_is_lost() {
        loom::model(|| {
            let core = core(1.0);
            let other = Arc::clone(&core);
            let thread = thread::spawn(move || other.deposit(0, 0));
            core.deposit(0, 0);
            thread.join().unwrap();
            assert!(core.withdraw(0, 0) && core.withdraw(0, 0) && !core.withdraw(0, 0));
        });
    }

    #[test]
    fn loom_a_withdrawal_beside_the_owners_change_draws_from_nobody_else() {
        loom::model(|| {
            let core = core(1.0);
            core.deposit(0, 0);
            let other = Arc::clone(&core);
            let thread = thread::spawn(move || other.withdraw(0, 0));
            core.renew();
            core.deposit(0, 1);
            thread.join().unwrap();
            assert!(core.withdraw(0, 1) && !core.withdraw(0, 1));
        });
    }
}
