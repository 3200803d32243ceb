//! Budgets of tokens: the general one, gRPC's throttling, and the retry quota of the AWS SDKs.
//!
//! None depends on time: successes return what failures take. Threads share one word, which is
//! changed by compare-and-swap. A success that finds the bucket full writes nothing. The word is:
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
use tower_fault_classify::{Fault, Kind, Verdict};

use super::rules::tokens::{MAX_TOKENS, ONE, Scheme, TokenRules};
use super::settings::BudgetSettings;
use super::status::BudgetStatus;

/// The bucket of a token budget.
pub(crate) struct TokenCore {
    /// The owner's [`TokenRules`], as words.
    rules: [AtomicU64; 4],
    word: AtomicU64,
}

/// The owner of the core when a call began. A call keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TokenOwner {
    epoch: u32,
    /// Whether a new bucket of this owner would grant a retry to its first call.
    grants_first: bool,
    /// The same after a timeout, where a retry may cost more.
    grants_first_timeout: bool,
}

impl TokenOwner {
    const fn grants_first(self, fault: &Fault) -> bool {
        if matches!(fault.kind(), Kind::Timeout) { self.grants_first_timeout } else { self.grants_first }
    }
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

    /// Makes the core a new bucket of a new owner. Calls of former owners may still use the core.
    pub(super) fn adopt(&self, rules: TokenRules) -> TokenOwner {
        // Relaxed: no other thread changes the epoch.
        let epoch = (epoch_in(self.word.load(Ordering::Relaxed)) + 1) & EPOCHS;
        // A swap, not a plain store: it is ordered with the compare-and-swaps of former owners'
        // calls, which find another epoch after it.
        self.word.swap(pack(epoch, rules.initial()), Ordering::Relaxed);
        // Release: a call that reads one of the words stored below also reads the new epoch.
        fence(Ordering::Release);
        for (word, value) in self.rules.iter().zip(rules.words()) {
            word.store(value, Ordering::Relaxed);
        }
        let first = |kind| rules.retry_cost(rules.initial(), kind).is_some();
        TokenOwner { epoch, grants_first: first(Kind::Server), grants_first_timeout: first(Kind::Timeout) }
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
        const fn fraction(thousandths: u64) -> f64 {
            thousandths as f64 / ONE as f64
        }

        let TokenRules { capacity, scheme } = self.rules();
        match scheme {
            Scheme::Tokens { initial, per_success, timeout_cost } => BudgetSettings::Tokens {
                capacity: whole(capacity),
                initial: whole(initial),
                per_success: fraction(per_success),
                timeout_cost: fraction(timeout_cost),
            },
            Scheme::Grpc { ratio } => {
                BudgetSettings::Grpc { max_tokens: whole(capacity), ratio: fraction(ratio) }
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
    pub(crate) fn record(&self, verdict: &Verdict, owner: TokenOwner, paid: Option<u64>) {
        // The usual cases: in every scheme, a success leaves a full bucket full, and a first
        // attempt that was not sent changes nothing.
        let unchanged = match verdict {
            Verdict::Success => self.is_full(),
            Verdict::Fault(fault) => fault.kind() == Kind::Rejected && paid.is_none(),
        };
        if !unchanged {
            self.change(verdict, owner, paid);
        }
    }

    /// Returns whether the bucket is full, provided that its owner is that of the call.
    #[inline]
    fn is_full(&self) -> bool {
        let [capacity, ..] = &self.rules;
        // Relaxed: a call of the current owner reads words of that owner, or of a later owner that
        // is just adopting the core. Then it matters no more whether the call changes the bucket,
        // and a call of a former owner changes nothing anyway.
        self.word.load(Ordering::Relaxed) & MAX_TOKENS == capacity.load(Ordering::Relaxed)
    }

    #[inline(never)]
    fn change(&self, verdict: &Verdict, owner: TokenOwner, paid: Option<u64>) {
        let rules = self.rules();
        let settled = |word: u64| {
            let tokens = word & MAX_TOKENS;
            let after = rules.after_outcome(tokens, verdict, paid);
            (epoch_in(word) == owner.epoch && after != tokens).then(|| pack(owner.epoch, after))
        };
        // Relaxed: the word guards no other memory.
        let _ = self.word.fetch_update(Ordering::Relaxed, Ordering::Relaxed, settled);
    }

    /// Returns the tokens that a retry was paid with.
    fn refund(&self, paid: u64, owner: TokenOwner) {
        let capacity = self.rules().capacity;
        let returned = |word: u64| {
            let tokens = (word & MAX_TOKENS) + paid;
            (paid > 0 && epoch_in(word) == owner.epoch).then(|| pack(owner.epoch, tokens.min(capacity)))
        };
        // Relaxed: as above.
        let _ = self.word.fetch_update(Ordering::Relaxed, Ordering::Relaxed, returned);
    }

    /// Pays for a retry. If the core now belongs to another budget, the call pays nothing, as if
    /// from a new bucket of its own.
    pub(crate) fn withdraw(&'static self, fault: &Fault, owner: TokenOwner) -> Option<Refund> {
        let paid = self.pay(fault, owner)?;
        Some(Refund { core: self, owner, paid: Some(paid) })
    }

    fn pay(&self, fault: &Fault, owner: TokenOwner) -> Option<u64> {
        let rules = self.rules();
        let paying = |word: u64| {
            let price = rules.retry_cost(word & MAX_TOKENS, fault.kind())?;
            // No price is higher than the tokens in the bucket.
            (epoch_in(word) == owner.epoch).then(|| word - price)
        };
        // Relaxed: as above.
        match self.word.fetch_update(Ordering::Relaxed, Ordering::Relaxed, paying) {
            Ok(before) => rules.retry_cost(before & MAX_TOKENS, fault.kind()),
            Err(word) if epoch_in(word) != owner.epoch => owner.grants_first(fault).then_some(0),
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
    owner: TokenOwner,
    /// `None`: settled.
    paid: Option<u64>,
}

impl Refund {
    pub(crate) fn settle(mut self, verdict: &Verdict) {
        let paid = self.paid.take();
        self.core.record(verdict, self.owner, paid);
    }
}

impl Drop for Refund {
    fn drop(&mut self) {
        if let Some(paid) = self.paid.take() {
            self.core.refund(paid, self.owner);
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
    use crate::budget::{Budget, RetryBudget, Ticket};

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
    fn token_budget_grants_initial_retries_and_recovers_with_successes() {
        let budget = Budget::tokens().capacity(20).initial(7).build().unwrap();
        let tickets: Vec<_> = (0..1_000).map_while(|_| budget.withdraw(&TIMEOUT)).collect();
        assert_eq!(tickets.len(), 1, "7 tokens pay for one retry after a timeout, which takes 6");
        tickets.into_iter().for_each(Ticket::succeeded);
        let tickets: Vec<_> = (0..1_000).map_while(|_| budget.withdraw(&FAILURE)).collect();
        assert_eq!(tickets.len(), 7, "the retry that succeeded returned all of its cost");
        for ticket in tickets {
            ticket.failed(&TIMEOUT);
        }
        for _ in 0..4 {
            budget.deposit(&Verdict::Success);
            budget.deposit(&Verdict::Fault(FAILURE));
            assert!(budget.withdraw(&FAILURE).is_none(), "a failure adds nothing");
        }
        budget.deposit(&Verdict::Success);
        budget.withdraw(&FAILURE).expect("five successes pay for a retry").succeeded();
        budget.withdraw(&FAILURE).expect("a retry that succeeds returns its cost").failed(&FAILURE);
        assert!(budget.withdraw(&FAILURE).is_none(), "a retry that fails is not refunded");
        (0..1_000).for_each(|_| budget.deposit(&Verdict::Success));
        assert_eq!((0..1_000).map_while(|_| budget.withdraw(&FAILURE)).count(), 1_000, "each is dropped");
        let tickets: Vec<_> = (0..1_000).map_while(|_| budget.withdraw(&FAILURE)).collect();
        assert_eq!(tickets.len(), 20, "the bucket is full");
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
    fn ticket_dropped_or_rejected_returns_its_cost() {
        let aws = Budget::aws().capacity(5).timeout_cost(5).increment(0).build().unwrap();
        let tokens = Budget::tokens().capacity(1).per_success(0.0).build().unwrap();
        let after_timeout = Budget::tokens().capacity(6).per_success(0.0).build().unwrap();
        for (budget, fault) in [(aws, FAILURE), (tokens, FAILURE), (after_timeout, TIMEOUT)] {
            for _ in 0..3 {
                drop(budget.withdraw(&fault).expect("the cost of the previous retry was returned"));
                let rejected = Fault::new(Kind::Rejected, Retryable::Never, Health::Neutral, Origin::Local);
                budget.withdraw(&fault).expect("a dropped ticket returns its cost").failed(&rejected);
            }
            budget.withdraw(&fault).expect("a rejected retry returns its cost").failed(&fault);
            assert!(budget.withdraw(&fault).is_none(), "a retry that failed keeps its cost");
        }
    }

    /// A call of a former bucket uses a core that another bucket has adopted, for every pair of
    /// schemes.
    #[test]
    fn call_of_former_bucket_changes_nothing_for_next() {
        let aws = Scheme::Aws { increment: 0, cost: 7 * ONE, timeout_cost: 7 * ONE };
        let grpc = Scheme::Grpc { ratio: ONE };
        // One retry empties this bucket too.
        let tokens = Scheme::Tokens { initial: ONE, per_success: 0, timeout_cost: ONE };
        let rules = [aws, grpc, tokens].map(|scheme| TokenRules { capacity: 7 * ONE, scheme });
        let failure = Verdict::Fault(FAILURE);
        for (former, next) in (0..9).map(|pair| (pair / 3, pair % 3)) {
            let core: &'static TokenCore = Box::leak(Box::new(TokenCore::new()));
            let owner = core.adopt(rules[former]);
            let ticket = core.withdraw(&FAILURE, owner).unwrap();
            let next_owner = core.adopt(rules[next]);
            // A former owner's failures, retries and refunds.
            (0..9).for_each(|_| core.record(&failure, owner, None));
            core.withdraw(&FAILURE, owner)
                .expect("a former owner pays as from a new bucket")
                .settle(&failure);
            drop(core.withdraw(&FAILURE, owner).unwrap());
            let own = core.withdraw(&FAILURE, next_owner).expect("the bucket is new");
            own.settle(&failure);
            ticket.settle(&Verdict::Success);
            (0..9).for_each(|_| core.record(&Verdict::Success, owner, None));
            if matches!(rules[next].scheme, Scheme::Grpc { .. }) {
                // 6 of 7 are left. Two more failures leave 4, and a third leaves 3, which is not
                // more than half.
                (0..2).for_each(|_| core.record(&failure, next_owner, None));
                drop(core.withdraw(&FAILURE, next_owner).expect("4 are more than half of 7"));
                core.record(&failure, next_owner, None);
            }
            assert!(core.withdraw(&FAILURE, next_owner).is_none(), "{former}, then {next}");
        }
    }

    #[test]
    fn reused_core_starts_with_initial_tokens_of_each_owner() {
        let core = TokenCore::new();
        for (capacity, initial) in [(10, 10), (500, 3), (3, 0), (10, 1)] {
            let scheme = Scheme::Tokens { initial: initial * ONE, per_success: ONE, timeout_cost: ONE };
            let owner = core.adopt(TokenRules { capacity: capacity * ONE, scheme });
            for _ in 0..initial {
                assert_eq!(core.pay(&FAILURE, owner), Some(ONE), "{initial} of {capacity}");
            }
            assert_eq!(core.pay(&FAILURE, owner), None, "{initial} of {capacity}");
            core.record(&Verdict::Success, owner, None);
            assert_eq!(core.pay(&FAILURE, owner), Some(ONE), "a success pays for a retry");
            // The next owner finds more tokens than its own.
            (0..capacity).for_each(|_| core.record(&Verdict::Success, owner, None));
            assert_eq!(tokens(&core), capacity * ONE);
        }
    }

    #[test]
    fn former_owner_is_granted_what_its_new_bucket_would_grant() {
        let cases = [(0, None, None), (ONE, Some(0), None), (2 * ONE, Some(0), Some(0))];
        for (initial, granted, granted_after_timeout) in cases {
            let core = TokenCore::new();
            let scheme = Scheme::Tokens { initial, per_success: ONE, timeout_cost: 2 * ONE };
            let owner = core.adopt(TokenRules { capacity: 2 * ONE, scheme });
            core.adopt(TokenRules { capacity: 500 * ONE, scheme: AWS });
            assert_eq!(core.pay(&FAILURE, owner), granted);
            assert_eq!(core.pay(&TIMEOUT, owner), granted_after_timeout);
            assert_eq!(tokens(&core), 500 * ONE);
        }
    }

    const TIMEOUT: Fault = FAILURE.with_kind(Kind::Timeout);
    const REJECTED: Fault = FAILURE.with_kind(Kind::Rejected);
    /// The first owner of a core.
    const OWNER: TokenOwner = TokenOwner { epoch: 1, grants_first: true, grants_first_timeout: true };
    const AWS: Scheme = Scheme::Aws { increment: ONE, cost: 5 * ONE, timeout_cost: 10 * ONE };

    fn core(capacity: u64, scheme: Scheme) -> TokenCore {
        let core = TokenCore::new();
        assert_eq!(core.adopt(TokenRules { capacity: capacity * ONE, scheme }), OWNER);
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
                    if core.pay(if timeout { &TIMEOUT } else { &FAILURE }, OWNER).is_some() {
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
                    scope.spawn(move || core.record(&Verdict::Success, OWNER, Some(5 * ONE)));
                }
                scope.spawn(move || {
                    (0..timed_out).for_each(|_| core.record(&Verdict::Success, OWNER, Some(10 * ONE)));
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
                scope.spawn(|| (0..10_000).for_each(|_| core.record(&FAILURE.into(), OWNER, None)));
            }
        });
        assert_eq!(tokens(&core), 60_000 * ONE);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..10_000).for_each(|_| core.record(&Verdict::Success, OWNER, None)));
                scope.spawn(|| (0..1_000).for_each(|_| core.record(&FAILURE.into(), OWNER, None)));
            }
        });
        assert_eq!(tokens(&core), 60_000 * ONE);
    }

    /// The next action of a call.
    #[derive(Clone, Copy, Debug)]
    enum Step {
        Succeeds,
        Fails,
        Retries { timeout: bool, end: End },
    }

    /// The end of a retry.
    #[derive(Clone, Copy, Debug)]
    enum End {
        Succeeds,
        Fails,
        IsRejected,
        IsDropped,
    }

    fn any_step() -> impl Strategy<Value = Step> {
        let end = prop_oneof![
            3 => Just(End::Succeeds),
            3 => Just(End::Fails),
            1 => Just(End::IsRejected),
            1 => Just(End::IsDropped),
        ];
        prop_oneof![
            Just(Step::Succeeds),
            Just(Step::Fails),
            (any::<bool>(), end).prop_map(|(timeout, end)| Step::Retries { timeout, end }),
        ]
    }

    fn any_rules() -> impl Strategy<Value = TokenRules> {
        let amounts = (1_u64..30).prop_flat_map(|capacity| {
            let gain = prop_oneof![Just(0), 1_u64..3_000];
            (Just(capacity), 0..=capacity, gain, ONE..=capacity * ONE)
        });
        (amounts, 0..3).prop_map(|((capacity, initial, gain, timeout_cost), kind)| {
            let scheme = match kind {
                0 => Scheme::Tokens { initial: initial * ONE, per_success: gain, timeout_cost },
                1 => Scheme::Grpc { ratio: gain },
                _ => AWS,
            };
            TokenRules { capacity: capacity * ONE, scheme }
        })
    }

    /// A plain sum in thousandths, without words, epochs and compare-and-swap.
    struct Naive {
        tokens: i64,
        most: i64,
        /// The costs of a retry, the second after a timeout. `None`: a retry costs nothing, and
        /// needs more than half of the capacity.
        costs: Option<[i64; 2]>,
        success: i64,
        failure: i64,
    }

    impl Naive {
        fn of(rules: TokenRules) -> Self {
            let most = rules.capacity.cast_signed();
            let (initial, costs, success, failure) = match rules.scheme {
                Scheme::Tokens { initial, per_success, timeout_cost } => {
                    (initial, Some([1_000, timeout_cost.cast_signed()]), per_success, 0)
                }
                Scheme::Grpc { ratio } => (rules.capacity, None, ratio, -1_000),
                Scheme::Aws { .. } => (rules.capacity, Some([5_000, 10_000]), 1_000, 0),
            };
            Self { tokens: initial.cast_signed(), most, costs, success: success.cast_signed(), failure }
        }

        fn add(&mut self, more: i64) {
            self.tokens = (self.tokens + more).clamp(0, self.most);
        }

        fn cost(&self, timeout: bool) -> i64 {
            self.costs.map_or(0, |costs| costs[usize::from(timeout)])
        }

        fn grants(&self, timeout: bool) -> bool {
            if self.costs.is_some() { self.tokens >= self.cost(timeout) } else { self.tokens > self.most / 2 }
        }

        /// Takes the cost of a retry, and adds what its end returns.
        fn retry(&mut self, timeout: bool, end: End) {
            let cost = self.cost(timeout);
            self.add(-cost);
            self.add(match end {
                End::Succeeds if self.costs.is_none() => self.success,
                End::Fails => self.failure,
                End::Succeeds | End::IsRejected | End::IsDropped => cost,
            });
        }

        fn available(&self) -> f64 {
            match self.costs {
                Some([cost, _]) => self.tokens as f64 / cost as f64,
                None => (self.tokens - self.most / 2).max(0) as f64 / 1_000.0,
            }
        }
    }

    proptest! {
        #[test]
        fn token_budget_grants_as_naive_model(
            rules in any_rules(),
            steps in proptest::collection::vec(any_step(), 1..400),
        ) {
            let core = TokenCore::new();
            let owner = core.adopt(rules);
            let mut naive = Naive::of(rules);
            for step in steps {
                match step {
                    Step::Succeeds => {
                        core.record(&Verdict::Success, owner, None);
                        naive.add(naive.success);
                    }
                    Step::Fails => {
                        core.record(&FAILURE.into(), owner, None);
                        naive.add(naive.failure);
                    }
                    Step::Retries { timeout, end } => {
                        let fault = if timeout { TIMEOUT } else { FAILURE };
                        let paid = core.pay(&fault, owner);
                        let expected = naive.grants(timeout).then(|| naive.cost(timeout));
                        prop_assert_eq!(paid.map(u64::cast_signed), expected);
                        if let Some(paid) = paid {
                            naive.retry(timeout, end);
                            match end {
                                End::Succeeds => core.record(&Verdict::Success, owner, Some(paid)),
                                End::Fails => core.record(&fault.into(), owner, Some(paid)),
                                End::IsRejected => core.record(&REJECTED.into(), owner, Some(paid)),
                                End::IsDropped => core.refund(paid, owner),
                            }
                        }
                    }
                }
                prop_assert_eq!(tokens(&core).cast_signed(), naive.tokens);
                let status = core.status();
                prop_assert_eq!(status.tokens, Some(naive.tokens as f64 / 1_000.0));
                prop_assert_eq!(status.capacity, Some(naive.most as f64 / 1_000.0));
                prop_assert_eq!((status.deposits, status.withdrawals), (None, None));
                let enough =
                    if naive.costs.is_some() { status.available >= 1.0 } else { status.available > 0.0 };
                prop_assert_eq!(naive.grants(false), enough);
                let available = naive.available();
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

    /// The first owner of a core.
    const OWNER: TokenOwner = TokenOwner { epoch: 1, grants_first: true, grants_first_timeout: true };
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
            let thread = thread::spawn(move || other.pay(&FAILURE, OWNER).is_some());
            let here = core.pay(&FAILURE, OWNER).is_some();
            assert_ne!(here, thread.join().unwrap());
        });
    }

    #[test]
    fn loom_refund_during_payment_is_not_lost() {
        loom::model(|| {
            let core = core(10);
            assert_eq!(core.pay(&FAILURE, OWNER), Some(5 * ONE));
            let other = Arc::clone(&core);
            let thread = thread::spawn(move || other.record(&Verdict::Success, OWNER, Some(5 * ONE)));
            assert_eq!(core.pay(&FAILURE, OWNER), Some(5 * ONE));
            thread.join().unwrap();
            assert!(core.pay(&FAILURE, OWNER).is_some() && core.pay(&FAILURE, OWNER).is_none());
        });
    }

    /// A bucket of a default budget pays for one retry after a timeout, and its refund pays for the
    /// next.
    #[test]
    fn loom_timeout_cost_is_paid_and_returned_once() {
        loom::model(|| {
            const TIMEOUT: Fault = FAILURE.with_kind(Kind::Timeout);
            let core = TokenCore::new();
            let scheme = Scheme::Tokens { initial: 10 * ONE, per_success: 200, timeout_cost: 6 * ONE };
            let owner = core.adopt(TokenRules { capacity: 10 * ONE, scheme });
            let core = Arc::new(core);
            let other = Arc::clone(&core);
            let thread = thread::spawn(move || {
                let paid = other.pay(&TIMEOUT, owner);
                if paid.is_some() {
                    other.record(&Verdict::Success, owner, paid);
                }
            });
            let paid = core.pay(&TIMEOUT, owner);
            thread.join().unwrap();
            let left = if paid.is_some() { 4 } else { 10 };
            assert_eq!(core.word.load(Ordering::Relaxed), pack(owner.epoch, left * ONE));
        });
    }

    #[test]
    fn loom_calls_of_former_owner_change_nothing_for_next() {
        loom::model(|| {
            let core = core(5);
            assert_eq!(core.pay(&FAILURE, OWNER), Some(5 * ONE));
            let other = Arc::clone(&core);
            let thread = thread::spawn(move || {
                other.record(&Verdict::Success, OWNER, Some(5 * ONE));
                other.pay(&FAILURE, OWNER)
            });
            // A refund of the former owner would pay for a second retry.
            let scheme = Scheme::Tokens { initial: ONE, per_success: 0, timeout_cost: ONE };
            let owner = core.adopt(TokenRules { capacity: 5 * ONE, scheme });
            assert!(core.pay(&FAILURE, owner).is_some());
            thread.join().unwrap();
            assert!(core.pay(&FAILURE, owner).is_none());
        });
    }

    #[test]
    fn loom_calls_of_former_owner_never_follow_rules_of_next() {
        loom::model(|| {
            let core = core(10);
            assert_eq!(core.pay(&FAILURE, OWNER), Some(5 * ONE));
            let other = Arc::clone(&core);
            let thread = thread::spawn(move || {
                // With the next owner's rules both would change the word.
                other.record(&FAILURE.into(), OWNER, None);
                let paid = other.pay(&FAILURE, OWNER);
                assert!(matches!(paid, Some(0 | 5_000)), "{paid:?}");
            });
            let owner = core.adopt(TokenRules { capacity: 3 * ONE, scheme: Scheme::Grpc { ratio: ONE } });
            thread.join().unwrap();
            assert_eq!(core.word.load(Ordering::Relaxed), pack(owner.epoch, 3 * ONE));
            assert_eq!(core.pay(&FAILURE, owner), Some(0));
        });
    }
}
