//! Budgets of tokens: gRPC's throttle and the retry quota of the AWS SDKs.
//!
//! Neither depends on time: successes give back what failures take. Threads share one word,
//! `epoch:24 | tokens:40`, which is changed by compare-and-swap. Nothing is added first and checked
//! afterwards, so that no two retries are paid from the same token and no token is lost. A word
//! with another owner's epoch is left alone.

use std::fmt;

use tower_fault_classify::__internals::sync::{AtomicU64, Ordering, fence};
use tower_fault_classify::__internals::{Pool, PoolItem};
use tower_fault_classify::{Fault, Verdict};

use super::rules::tokens::{MAX_TOKENS, ONE, Scheme, TokenRules};
use super::settings::BudgetSettings;

pub(crate) struct TokenCore {
    /// How the owner's [`TokenRules`] are kept.
    rules: [AtomicU64; 4],
    word: AtomicU64,
}

const EPOCHS: u32 = (1 << 24) - 1;

const fn pack(epoch: u32, tokens: u64) -> u64 {
    ((epoch as u64) << 40) | tokens
}

const fn epoch_in(word: u64) -> u32 {
    (word >> 40) as u32
}

impl TokenCore {
    /// A core that is yet to be adopted.
    pub(super) fn new() -> Self {
        Self { rules: Default::default(), word: AtomicU64::new(0) }
    }

    /// Makes the core a full bucket of another owner. Calls of former owners may still use it.
    pub(super) fn adopt(&self, rules: TokenRules) -> u32 {
        // Relaxed: nobody else changes the epoch.
        let epoch = (epoch_in(self.word.load(Ordering::Relaxed)) + 1) & EPOCHS;
        // An exchange and no plain store, so that it has a place among those of former owners'
        // calls: whichever comes first, they find another epoch afterwards.
        self.word.swap(pack(epoch, rules.capacity), Ordering::Relaxed);
        // A call that reads one of the words below finds that the epoch has changed.
        fence(Ordering::Release);
        for (word, value) in self.rules.iter().zip(rules.words()) {
            word.store(value, Ordering::Relaxed);
        }
        epoch
    }

    /// The owner's rules, if the word that is read afterwards has the owner's epoch.
    #[inline]
    fn rules(&self) -> TokenRules {
        let words = self.rules.each_ref().map(|word| word.load(Ordering::Relaxed));
        // If a word was another owner's, the epoch is read as that owner's, or a later one's.
        fence(Ordering::Acquire);
        TokenRules::from_words(words)
    }

    pub(super) fn settings(&self) -> BudgetSettings {
        const fn whole(thousandths: u64) -> u32 {
            (thousandths / ONE) as u32
        }

        let TokenRules { capacity, scheme } = self.rules();
        match scheme {
            Scheme::Grpc { ratio } => {
                BudgetSettings::Grpc { max_tokens: whole(capacity), ratio: ratio as f64 / ONE as f64 }
            }
            Scheme::Aws { increment, cost, timeout_cost } => BudgetSettings::Aws {
                capacity: whole(capacity),
                cost: whole(cost),
                timeout_cost: whole(timeout_cost),
                increment: whole(increment),
            },
        }
    }

    /// Counts what an attempt came to. A full bucket that would only be filled is not written to.
    #[inline]
    pub(crate) fn record(&self, verdict: &Verdict, epoch: u32, paid: Option<u64>) {
        let rules = self.rules();
        let settled = |word: u64| {
            let tokens = word & MAX_TOKENS;
            let after = rules.after_outcome(tokens, verdict, paid);
            (epoch_in(word) == epoch && after != tokens).then(|| pack(epoch, after))
        };
        // Relaxed: the word guards no other memory.
        let _ = self.word.fetch_update(Ordering::Relaxed, Ordering::Relaxed, settled);
    }

    /// Returns what a retry was paid with.
    fn refund(&self, paid: u64, epoch: u32) {
        let capacity = self.rules().capacity;
        let returned = |word: u64| {
            let tokens = (word & MAX_TOKENS) + paid;
            (paid > 0 && epoch_in(word) == epoch).then(|| pack(epoch, tokens.min(capacity)))
        };
        // Relaxed: as above.
        let _ = self.word.fetch_update(Ordering::Relaxed, Ordering::Relaxed, returned);
    }

    /// Pays for a retry. A call whose core belongs to another budget by now pays nothing, as if
    /// from a full bucket of its own.
    pub(crate) fn withdraw(&'static self, fault: &Fault, epoch: u32) -> Option<Refund> {
        let paid = self.pay(fault, epoch)?;
        Some(Refund { core: self, epoch, paid: Some(paid) })
    }

    fn pay(&self, fault: &Fault, epoch: u32) -> Option<u64> {
        let rules = self.rules();
        let paying = |word: u64| {
            let price = rules.retry_cost(word & MAX_TOKENS, fault)?;
            // No price is higher than what is there.
            (epoch_in(word) == epoch).then(|| word - price)
        };
        // Relaxed: as above.
        match self.word.fetch_update(Ordering::Relaxed, Ordering::Relaxed, paying) {
            Ok(before) => rules.retry_cost(before & MAX_TOKENS, fault),
            Err(word) if epoch_in(word) != epoch => Some(0),
            Err(_) => None,
        }
    }
}

impl fmt::Debug for TokenCore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rules = self.rules();
        let tokens = self.word.load(Ordering::Relaxed) & MAX_TOKENS;
        f.debug_struct("TokenCore").field("rules", &rules).field("tokens", &tokens).finish_non_exhaustive()
    }
}

static POOL: Pool<TokenCore> = Pool::new();

// Nothing ends with the last handle: a call outlives the service that made it, as `oneshot` has it,
// and goes on with its budget until another one takes the core.
impl PoolItem for TokenCore {
    fn pool() -> &'static Pool<Self> {
        &POOL
    }
}

/// The tokens that a retry was paid with. Dropping it unsettled returns them, because the retry was
/// not sent or its caller left.
pub(crate) struct Refund {
    core: &'static TokenCore,
    epoch: u32,
    /// `None`: settled.
    paid: Option<u64>,
}

impl Refund {
    pub(crate) fn settle(mut self, verdict: &Verdict) {
        let paid = self.paid.take();
        self.core.record(verdict, self.epoch, paid);
    }
}

impl Drop for Refund {
    fn drop(&mut self) {
        if let Some(paid) = self.paid.take() {
            self.core.refund(paid, self.epoch);
        }
    }
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use proptest::prelude::*;
    use std::sync::atomic::AtomicU64;
    use std::thread;
    use tower_fault_classify::{Fault, Health, Kind, Origin, Retryable, Verdict};

    use super::*;
    use crate::budget::{Budget, RetryBudget};

    const FAILURE: Fault =
        Fault::new(Kind::Unavailable, Retryable::Unsent, Health::Unhealthy, Origin::Remote);

    #[test]
    fn grpc_budget_denies_at_half_and_every_failure_drains() {
        let budget = Budget::grpc().build().unwrap();
        let failure = Verdict::Fault(FAILURE);
        for tokens in [9, 8, 7, 6] {
            budget.deposit(&failure);
            assert!(budget.withdraw(&FAILURE).is_some(), "{tokens} of 10 are left");
        }
        budget.deposit(&failure);
        assert!(budget.withdraw(&FAILURE).is_none(), "5 of 10 are no more than half");
        budget.deposit(&Verdict::Success);
        let ticket = budget.withdraw(&FAILURE).expect("5.1 are");
        ticket.failed(&FAILURE);
        assert!(budget.withdraw(&FAILURE).is_none(), "4.1 are left: a retry that fails drains as well");
        for _ in 0..10 {
            budget.deposit(&Verdict::Success);
        }
        budget.withdraw(&FAILURE).expect("5.1").succeeded();
        drop(
            budget.withdraw(&FAILURE).expect("a retry that succeeds fills, one that is dropped does nothing"),
        );
        budget.deposit(&failure);
        assert!(budget.withdraw(&FAILURE).is_none());
        for _ in 0..1_000 {
            budget.deposit(&failure);
        }
        for _ in 0..50 {
            budget.deposit(&Verdict::Success);
            assert!(budget.withdraw(&FAILURE).is_none());
        }
        budget.deposit(&Verdict::Success);
        assert!(budget.withdraw(&FAILURE).is_some(), "it was empty, never negative");
    }

    #[test]
    fn aws_budget_charges_5_and_10_and_refunds_success() {
        let budget = Budget::aws().build().unwrap();
        let timeout = FAILURE.with_kind(Kind::Timeout);
        let tickets: Vec<_> = (0..1_000).map_while(|_| budget.withdraw(&timeout)).collect();
        assert_eq!(tickets.len(), 50);
        for ticket in tickets {
            ticket.succeeded();
        }
        let tickets: Vec<_> = (0..1_000).map_while(|_| budget.withdraw(&FAILURE)).collect();
        assert_eq!(tickets.len(), 100);
        for ticket in tickets {
            ticket.failed(&FAILURE);
        }
        for _ in 0..4 {
            budget.deposit(&Verdict::Success);
            assert!(budget.withdraw(&FAILURE).is_none());
        }
        budget.deposit(&Verdict::Fault(FAILURE));
        assert!(budget.withdraw(&FAILURE).is_none(), "a failure gives nothing");
        budget.deposit(&Verdict::Success);
        budget.withdraw(&FAILURE).expect("five successes pay for a retry").failed(&FAILURE);
        assert!(budget.withdraw(&FAILURE).is_none(), "one that fails is not refunded");
    }

    #[test]
    fn aws_ticket_dropped_or_rejected_returns_its_cost() {
        let budget = Budget::aws().capacity(5).timeout_cost(5).increment(0).build().unwrap();
        for _ in 0..3 {
            drop(budget.withdraw(&FAILURE).expect("the caller of the retry before left"));
            let rejected = Fault::new(Kind::Rejected, Retryable::Never, Health::Neutral, Origin::Local);
            budget.withdraw(&FAILURE).expect("the cost was returned").failed(&rejected);
        }
        budget.withdraw(&FAILURE).expect("nothing was sent").failed(&FAILURE);
        assert!(budget.withdraw(&FAILURE).is_none(), "a retry that failed keeps its cost");
    }

    /// For every pair of schemes: what a call of a former bucket does to one that has taken its
    /// core over.
    #[test]
    fn call_of_former_bucket_changes_nothing_for_next() {
        let aws = Scheme::Aws { increment: 0, cost: 7 * ONE, timeout_cost: 7 * ONE };
        let grpc = Scheme::Grpc { ratio: ONE };
        let rules = [aws, grpc].map(|scheme| TokenRules { capacity: 7 * ONE, scheme });
        let failure = Verdict::Fault(FAILURE);
        for (former, next) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            let core: &'static TokenCore = Box::leak(Box::new(TokenCore::new()));
            let epoch = core.adopt(rules[former]);
            let ticket = core.withdraw(&FAILURE, epoch).unwrap();
            let next_epoch = core.adopt(rules[next]);
            // A former owner's failures, retries and refunds.
            (0..9).for_each(|_| core.record(&failure, epoch, None));
            core.withdraw(&FAILURE, epoch)
                .expect("it pays as from a full bucket of its own")
                .settle(&failure);
            drop(core.withdraw(&FAILURE, epoch).unwrap());
            let own = core.withdraw(&FAILURE, next_epoch).expect("it is full");
            own.settle(&failure);
            ticket.settle(&Verdict::Success);
            (0..9).for_each(|_| core.record(&Verdict::Success, epoch, None));
            if next == 1 {
                // 6 of 7 are left: two more failures leave 4, and a third 3, which is not more than
                // half.
                (0..2).for_each(|_| core.record(&failure, next_epoch, None));
                drop(core.withdraw(&FAILURE, next_epoch).expect("4 are more than half of 7"));
                core.record(&failure, next_epoch, None);
            }
            assert!(core.withdraw(&FAILURE, next_epoch).is_none(), "{former}, then {next}");
        }
    }

    const TIMEOUT: Fault = FAILURE.with_kind(Kind::Timeout);
    /// The epoch of a core's first owner.
    const EPOCH: u32 = 1;
    const AWS: Scheme = Scheme::Aws { increment: ONE, cost: 5 * ONE, timeout_cost: 10 * ONE };

    fn core(capacity: u64, scheme: Scheme) -> TokenCore {
        let core = TokenCore::new();
        assert_eq!(core.adopt(TokenRules { capacity: capacity * ONE, scheme }), EPOCH);
        core
    }

    fn tokens(core: &TokenCore) -> u64 {
        core.word.load(Ordering::Relaxed) & MAX_TOKENS
    }

    #[test]
    fn concurrent_withdrawals_spend_and_refund_every_token() {
        for _ in 0..20 {
            let core = core(500, AWS);
            let (granted, timed_out) = (AtomicU64::new(0), AtomicU64::new(0));
            let run = |thread: usize| {
                for retry in 0..40 {
                    let timeout = (thread + retry).is_multiple_of(2);
                    if core.pay(if timeout { &TIMEOUT } else { &FAILURE }, EPOCH).is_some() {
                        let counter = if timeout { &timed_out } else { &granted };
                        counter.fetch_add(1, Ordering::Relaxed);
                    }
                }
            };
            thread::scope(|scope| (0..8).for_each(|thread| drop(scope.spawn(move || run(thread)))));
            let paid = granted.load(Ordering::Relaxed) * 5 + timed_out.load(Ordering::Relaxed) * 10;
            assert_eq!(tokens(&core), (500 - paid) * ONE, "none lost and none made");
            assert!(paid > 490, "they drew to the last");
            let (core, timed_out) = (&core, timed_out.load(Ordering::Relaxed));
            thread::scope(|scope| {
                for _ in 0..granted.load(Ordering::Relaxed) {
                    scope.spawn(move || core.record(&Verdict::Success, EPOCH, Some(5 * ONE)));
                }
                scope.spawn(move || {
                    (0..timed_out).for_each(|_| core.record(&Verdict::Success, EPOCH, Some(10 * ONE)));
                });
            });
            assert_eq!(tokens(core), 500 * ONE);
        }
    }

    #[test]
    fn concurrent_outcomes_are_all_counted() {
        let core = core(100_000, Scheme::Grpc { ratio: 100 });
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..10_000).for_each(|_| core.record(&FAILURE.into(), EPOCH, None)));
            }
        });
        assert_eq!(tokens(&core), 60_000 * ONE);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..10_000).for_each(|_| core.record(&Verdict::Success, EPOCH, None)));
                scope.spawn(|| (0..1_000).for_each(|_| core.record(&FAILURE.into(), EPOCH, None)));
            }
        });
        assert_eq!(tokens(&core), 60_000 * ONE);
    }

    /// What a call does next.
    #[derive(Clone, Copy, Debug)]
    enum Step {
        Succeeds,
        Fails,
        Retries { timeout: bool, succeeds: bool },
    }

    fn any_step() -> impl Strategy<Value = Step> {
        prop_oneof![
            Just(Step::Succeeds),
            Just(Step::Fails),
            any::<(bool, bool)>().prop_map(|(timeout, succeeds)| Step::Retries { timeout, succeeds }),
        ]
    }

    proptest! {
        /// Against sums of whole thousandths that know no words, epochs and exchanges.
        #[test]
        fn token_budget_grants_as_naive_model(
            steps in proptest::collection::vec(any_step(), 1..400),
            capacity in 1_u64..30,
            ratio in 1_u64..3_000,
            aws in any::<bool>(),
        ) {
            let scheme = if aws { AWS } else { Scheme::Grpc { ratio } };
            let core = core(capacity, scheme);
            let most = (capacity * 1_000).cast_signed();
            let mut naive = most;
            let add = |naive: &mut i64, more: i64| *naive = (*naive + more).clamp(0, most);
            let (success, failure) = if aws { (1_000, 0) } else { (ratio.cast_signed(), -1_000) };
            for step in steps {
                match step {
                    Step::Succeeds => {
                        core.record(&Verdict::Success, EPOCH, None);
                        add(&mut naive, success);
                    }
                    Step::Fails => {
                        core.record(&FAILURE.into(), EPOCH, None);
                        add(&mut naive, failure);
                    }
                    Step::Retries { timeout, succeeds } => {
                        let fault = if timeout { TIMEOUT } else { FAILURE };
                        let price = match (aws, timeout) {
                            (false, _) => 0,
                            (true, false) => 5_000,
                            (true, true) => 10_000,
                        };
                        let expected = if aws { naive >= price } else { naive > most / 2 };
                        let paid = core.pay(&fault, EPOCH);
                        prop_assert_eq!(paid.is_some(), expected);
                        if let Some(paid) = paid {
                            prop_assert_eq!(paid.cast_signed(), price);
                            add(&mut naive, -price);
                            let verdict = if succeeds { Verdict::Success } else { fault.into() };
                            core.record(&verdict, EPOCH, Some(paid));
                            add(&mut naive, match (aws, succeeds) {
                                (true, true) => price,
                                (false, true) => success,
                                (_, false) => failure,
                            });
                        }
                    }
                }
                prop_assert_eq!(tokens(&core).cast_signed(), naive);
            }
        }
    }
}

#[cfg(all(test, loom_models))]
mod models {
    use loom::sync::Arc;
    use loom::thread;
    use tower_fault_classify::{Health, Kind, Origin, Retryable};

    use super::*;

    const FAILURE: Fault =
        Fault::new(Kind::Unavailable, Retryable::Unsent, Health::Unhealthy, Origin::Remote);

    /// The epoch of a core's first owner.
    const EPOCH: u32 = 1;
    const AWS: Scheme = Scheme::Aws { increment: ONE, cost: 5 * ONE, timeout_cost: 10 * ONE };

    fn core(tokens: u64) -> Arc<TokenCore> {
        let core = TokenCore::new();
        core.adopt(TokenRules { capacity: tokens * ONE, scheme: AWS });
        Arc::new(core)
    }

    #[test]
    fn loom_last_tokens_pay_for_one_retry() {
        loom::model(|| {
            let core = core(9);
            let other = Arc::clone(&core);
            let thread = thread::spawn(move || other.pay(&FAILURE, EPOCH).is_some());
            let here = core.pay(&FAILURE, EPOCH).is_some();
            assert_ne!(here, thread.join().unwrap());
        });
    }

    #[test]
    fn loom_refund_beside_payment_is_not_lost() {
        loom::model(|| {
            let core = core(10);
            assert_eq!(core.pay(&FAILURE, EPOCH), Some(5 * ONE));
            let other = Arc::clone(&core);
            let thread = thread::spawn(move || other.record(&Verdict::Success, EPOCH, Some(5 * ONE)));
            assert_eq!(core.pay(&FAILURE, EPOCH), Some(5 * ONE));
            thread.join().unwrap();
            assert!(core.pay(&FAILURE, EPOCH).is_some() && core.pay(&FAILURE, EPOCH).is_none());
        });
    }

    #[test]
    fn loom_calls_of_former_owner_change_nothing_for_next() {
        loom::model(|| {
            let core = core(5);
            assert_eq!(core.pay(&FAILURE, EPOCH), Some(5 * ONE));
            let other = Arc::clone(&core);
            let thread = thread::spawn(move || {
                other.record(&Verdict::Success, EPOCH, Some(5 * ONE));
                other.pay(&FAILURE, EPOCH)
            });
            let epoch = core.adopt(TokenRules { capacity: 5 * ONE, scheme: AWS });
            assert!(core.pay(&FAILURE, epoch).is_some());
            thread.join().unwrap();
            assert!(core.pay(&FAILURE, epoch).is_none());
        });
    }

    #[test]
    fn loom_calls_of_former_owner_never_follow_rules_of_next() {
        loom::model(|| {
            let core = core(10);
            assert_eq!(core.pay(&FAILURE, EPOCH), Some(5 * ONE));
            let other = Arc::clone(&core);
            let thread = thread::spawn(move || {
                // With the next owner's rules both would change the word.
                other.record(&FAILURE.into(), EPOCH, None);
                let paid = other.pay(&FAILURE, EPOCH);
                assert!(matches!(paid, Some(0 | 5_000)), "{paid:?}");
            });
            let epoch = core.adopt(TokenRules { capacity: 3 * ONE, scheme: Scheme::Grpc { ratio: ONE } });
            thread.join().unwrap();
            assert_eq!(core.word.load(Ordering::Relaxed), pack(epoch, 3 * ONE));
            assert_eq!(core.pay(&FAILURE, epoch), Some(0));
        });
    }
}
