//! Budgets of tokens: gRPC's throttling and the retry quota of the AWS SDKs.
//!
//! Neither depends on time: successes return what failures take. Threads share one word, which is
//! changed by compare-and-swap:
//!
//! ```text
//! epoch:24 | tokens:40
//! ```
//!
//! An update never adds first and checks afterwards, so that no two retries are paid with the same
//! token and no token is lost. A call does not change a word that has another owner's epoch.

use std::fmt;

use tower_fault_classify::__internals::sync::{AtomicU64, Ordering, fence};
use tower_fault_classify::__internals::{Pool, PoolItem};
use tower_fault_classify::{Fault, Verdict};

use super::rules::tokens::{MAX_TOKENS, ONE, Scheme, TokenRules};
use super::settings::BudgetSettings;
use super::status::BudgetStatus;

/// The bucket of a token budget.
pub(crate) struct TokenCore {
    /// The owner's [`TokenRules`], as words.
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
    /// Creates a core that no budget has adopted yet.
    pub(super) fn new() -> Self {
        Self { rules: Default::default(), word: AtomicU64::new(0) }
    }

    /// Makes the core a full bucket of a new owner, and returns the owner's epoch. Calls of former
    /// owners may still use the core.
    pub(super) fn adopt(&self, rules: TokenRules) -> u32 {
        // Relaxed: no other thread changes the epoch.
        let epoch = (epoch_in(self.word.load(Ordering::Relaxed)) + 1) & EPOCHS;
        // A swap, not a plain store: it is ordered with the compare-and-swaps of former owners'
        // calls, which find another epoch after it.
        self.word.swap(pack(epoch, rules.capacity), Ordering::Relaxed);
        // Release: a call that reads one of the words stored below also reads the new epoch.
        fence(Ordering::Release);
        for (word, value) in self.rules.iter().zip(rules.words()) {
            word.store(value, Ordering::Relaxed);
        }
        epoch
    }

    /// Returns the owner's rules, provided that the word which is read afterwards has the owner's
    /// epoch.
    #[inline]
    fn rules(&self) -> TokenRules {
        let words = self.rules.each_ref().map(|word| word.load(Ordering::Relaxed));
        // Acquire: if a word was another owner's, a later load reads that owner's epoch or a later
        // one.
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

    pub(super) fn status(&self) -> BudgetStatus {
        let rules = self.rules();
        // Relaxed: the word guards no other memory.
        let tokens = self.word.load(Ordering::Relaxed) & MAX_TOKENS;
        let whole = |thousandths: u64| Some(thousandths as f64 / ONE as f64);
        BudgetStatus {
            available: rules.available(tokens),
            tokens: whole(tokens),
            capacity: whole(rules.capacity),
            deposits: None,
            withdrawals: None,
        }
    }

    /// Records the outcome of an attempt. If the bucket is full and the outcome would only fill it,
    /// the word is not written.
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

    /// Returns the tokens that a retry was paid with.
    fn refund(&self, paid: u64, epoch: u32) {
        let capacity = self.rules().capacity;
        let returned = |word: u64| {
            let tokens = (word & MAX_TOKENS) + paid;
            (paid > 0 && epoch_in(word) == epoch).then(|| pack(epoch, tokens.min(capacity)))
        };
        // Relaxed: as above.
        let _ = self.word.fetch_update(Ordering::Relaxed, Ordering::Relaxed, returned);
    }

    /// Pays for a retry. If the core now belongs to another budget, the call pays nothing, as if
    /// from a full bucket of its own.
    pub(crate) fn withdraw(&'static self, fault: &Fault, epoch: u32) -> Option<Refund> {
        let paid = self.pay(fault, epoch)?;
        Some(Refund { core: self, epoch, paid: Some(paid) })
    }

    fn pay(&self, fault: &Fault, epoch: u32) -> Option<u64> {
        let rules = self.rules();
        let paying = |word: u64| {
            let price = rules.retry_cost(word & MAX_TOKENS, fault)?;
            // No price is higher than the tokens in the bucket.
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

// Dropping the last handle resets nothing. A call may outlive its service, for example with
// `oneshot`, and continues to use its budget until another budget adopts the core.
impl PoolItem for TokenCore {
    fn pool() -> &'static Pool<Self> {
        &POOL
    }
}

/// The tokens that a retry was paid with. Dropping it unsettled returns them, because the retry was
/// not sent or its caller stopped waiting.
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
    fn grpc_budget_refuses_at_half_and_every_failure_takes_a_token() {
        let budget = Budget::grpc().build().unwrap();
        let failure = Verdict::Fault(FAILURE);
        for tokens in [9, 8, 7, 6] {
            budget.deposit(&failure);
            assert!(budget.withdraw(&FAILURE).is_some(), "{tokens} of 10 are left");
        }
        budget.deposit(&failure);
        assert!(budget.withdraw(&FAILURE).is_none(), "5 of 10 are not more than half");
        budget.deposit(&Verdict::Success);
        let ticket = budget.withdraw(&FAILURE).expect("5.1 of 10 are more than half");
        ticket.failed(&FAILURE);
        assert!(budget.withdraw(&FAILURE).is_none(), "4.1 are left: a retry that fails takes a token too");
        for _ in 0..10 {
            budget.deposit(&Verdict::Success);
        }
        budget.withdraw(&FAILURE).expect("5.1 are left").succeeded();
        drop(budget.withdraw(&FAILURE).expect("a success adds tokens, and a dropped retry changes nothing"));
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
        assert!(budget.withdraw(&FAILURE).is_some(), "the bucket was empty, never negative");
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
        assert!(budget.withdraw(&FAILURE).is_none(), "a failure adds nothing");
        budget.deposit(&Verdict::Success);
        budget.withdraw(&FAILURE).expect("five successes pay for a retry").failed(&FAILURE);
        assert!(budget.withdraw(&FAILURE).is_none(), "a retry that fails is not refunded");
    }

    #[test]
    fn aws_ticket_dropped_or_rejected_returns_its_cost() {
        let budget = Budget::aws().capacity(5).timeout_cost(5).increment(0).build().unwrap();
        for _ in 0..3 {
            drop(budget.withdraw(&FAILURE).expect("the cost of the previous retry was returned"));
            let rejected = Fault::new(Kind::Rejected, Retryable::Never, Health::Neutral, Origin::Local);
            budget.withdraw(&FAILURE).expect("a dropped ticket returns its cost").failed(&rejected);
        }
        budget.withdraw(&FAILURE).expect("a rejected retry returns its cost").failed(&FAILURE);
        assert!(budget.withdraw(&FAILURE).is_none(), "a retry that failed keeps its cost");
    }

    /// A call of a former bucket uses a core that another bucket has adopted, for every pair of
    /// schemes.
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
                .expect("a former owner pays as from a full bucket")
                .settle(&failure);
            drop(core.withdraw(&FAILURE, epoch).unwrap());
            let own = core.withdraw(&FAILURE, next_epoch).expect("the bucket is full");
            own.settle(&failure);
            ticket.settle(&Verdict::Success);
            (0..9).for_each(|_| core.record(&Verdict::Success, epoch, None));
            if next == 1 {
                // 6 of 7 are left. Two more failures leave 4, and a third leaves 3, which is not
                // more than half.
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
            assert_eq!(tokens(&core), (500 - paid) * ONE, "no token was lost or spent twice");
            assert!(paid > 490, "the bucket was emptied");
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

    /// The next action of a call.
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
        /// Compares the bucket with a plain sum in thousandths, without words, epochs and
        /// compare-and-swap.
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
                let status = core.status();
                prop_assert_eq!(status.tokens, Some(naive as f64 / 1_000.0));
                prop_assert_eq!(status.capacity, Some(capacity as f64));
                prop_assert_eq!((status.deposits, status.withdrawals), (None, None));
                let granted = if aws { status.available >= 1.0 } else { status.available > 0.0 };
                prop_assert_eq!(granted, if aws { naive >= 5_000 } else { naive > most / 2 });
                let available = if aws { naive as f64 / 5_000.0 } else { (naive - most / 2).max(0) as f64 / 1_000.0 };
                prop_assert!((status.available - available).abs() < 1e-9, "{status:?}, not {available}");
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
    fn loom_refund_during_payment_is_not_lost() {
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
