//! Serialization of policies: fields have the setters' names, and durations are readable strings.

#[cfg(feature = "schemars")]
use std::borrow::Cow;
use std::ops::RangeInclusive;
use std::time::Duration;

use ::serde::ser::{Error as _, SerializeMap, SerializeStructVariant};
use ::serde::{Deserialize, Deserializer, Serialize, Serializer};
use http::HeaderName;
#[cfg(feature = "schemars")]
use tower_fault_classify::__internals::settings::TableSchema;
use tower_fault_classify::__internals::settings::{
    Bool, Choice, DurationIn, Either, Float, HumanDuration, Integer, Invalid, Kind, Nested, OneOf, OrNone,
    Presets, Scalar, Seed, Setting, Table, Text, TextList, Visit, WrittenSeed, read_table,
};

use crate::backoff::{Backoff, Jitter};
use crate::budget::{
    AwsBudgetBuilder, Budget, BudgetSettings, GRPC_RATIO_RANGE, GRPC_TOKEN_RANGE, GrpcBudgetBuilder,
    MIN_PER_SECOND_RANGE, PER_SUCCESS_RANGE, RATIO_RANGE, SPAN_RANGE, TIMEOUT_COST_RANGE, TOKEN_RANGE,
    TokenBudgetBuilder, WindowBudgetBuilder,
};
use crate::policy::{
    ATTEMPT_RANGE, ColdConfig, HotConfig, Limits, MAX_DURATION, MULTIPLIER_RANGE, REPLAY_LIMIT_RANGE,
    RetryPolicy, RetryPolicyBuilder, SHARE_RANGE,
};
use crate::request::{NonIdempotent, RetrySafety};

const TIME_RANGE: RangeInclusive<Duration> = Duration::ZERO..=MAX_DURATION;

const SAFETIES: Choice<RetrySafety> = Choice(&[
    (RetrySafety::ByRequest.as_str(), RetrySafety::ByRequest),
    (RetrySafety::ByMethod.as_str(), RetrySafety::ByMethod),
    (RetrySafety::Always.as_str(), RetrySafety::Always),
    (RetrySafety::Never.as_str(), RetrySafety::Never),
]);

const LEVELS: Choice<NonIdempotent> = Choice(&[
    (NonIdempotent::Never.as_str(), NonIdempotent::Never),
    (NonIdempotent::Unsent.as_str(), NonIdempotent::Unsent),
    (NonIdempotent::UnsentOrRefused.as_str(), NonIdempotent::UnsentOrRefused),
]);

/// The jitters without a parameter.
const JITTERS: Choice<Jitter> = Choice(&[
    (Jitter::None.as_str(), Jitter::None),
    (Jitter::Full.as_str(), Jitter::Full),
    (Jitter::Equal.as_str(), Jitter::Equal),
    (Jitter::Decorrelated.as_str(), Jitter::Decorrelated),
    (Jitter::AwsDecorrelated.as_str(), Jitter::AwsDecorrelated),
]);

/// The form of a gRPC method, as a regular expression of ECMA-262.
const METHOD_PATTERN: &str = "^/?[^/]+/([*]|[^/*]+)$";

/// The table of a policy.
struct Policy;

impl Table for Policy {
    type Builder = RetryPolicyBuilder;
    type Value = RetryPolicy;

    fn allowed(&self) -> String {
        "a table with the settings of a retry policy".to_owned()
    }

    fn start(&self) -> RetryPolicyBuilder {
        RetryPolicy::builder()
    }

    fn presets(&self) -> Presets<RetryPolicyBuilder> {
        &[("gateway", RetryPolicy::gateway)]
    }

    fn visit(&self, to: &mut impl Visit<RetryPolicyBuilder>) {
        to.setting("name", "name in metrics and logs", Text, RetryPolicyBuilder::name);
        visit_attempts(to);
        visit_requests(to);
        visit_marks(to);
    }

    fn build(&self, builder: RetryPolicyBuilder) -> Result<RetryPolicy, Invalid> {
        Ok(builder.build()?)
    }
}

/// Visits the settings that decide how often and after which delay a request is sent again.
fn visit_attempts(to: &mut impl Visit<RetryPolicyBuilder>) {
    to.setting(
        "max_attempts",
        "number of attempts, the first one included. `\"none\"` requires a `max_elapsed`",
        OrNone(Integer(ATTEMPT_RANGE)),
        RetryPolicyBuilder::max_attempts,
    );
    to.setting(
        "initial_backoff",
        "longest delay before the first retry; at most `max_backoff`",
        DurationIn(TIME_RANGE),
        RetryPolicyBuilder::initial_backoff,
    );
    to.setting(
        "backoff_multiplier",
        "factor by which the longest delay grows with each further retry",
        Float(MULTIPLIER_RANGE),
        RetryPolicyBuilder::backoff_multiplier,
    );
    to.setting(
        "max_backoff",
        "maximum of the longest delay",
        DurationIn(TIME_RANGE),
        RetryPolicyBuilder::max_backoff,
    );
    to.setting(
            "jitter",
            "how a delay is drawn: see [values](https://github.com/OWNER/tower-resilience-layers/blob/main/docs/configuration.md#jitter-and-safety-values)",
            Either(JITTERS, OneOf(JitterTable)),
            RetryPolicyBuilder::jitter,
        );
    to.setting(
        "max_elapsed",
        "no retry starts later than this after the start of the call",
        OrNone(DurationIn(TIME_RANGE)),
        RetryPolicyBuilder::max_elapsed,
    );
    to.setting(
        "max_retry_after",
        "longest delay that a server may ask for. A longer one ends the retries",
        DurationIn(TIME_RANGE),
        RetryPolicyBuilder::max_retry_after,
    );
    to.setting(
            "budget",
            "limits retries in an outage: see [retry budgets](https://github.com/OWNER/tower-resilience-layers/blob/main/docs/configuration.md#retry-budgets)",
            OrNone(OneOf(BudgetTable)),
            RetryPolicyBuilder::own_budget,
        );
    to.setting("seed", "makes the delays reproducible", OrNone(Seed), RetryPolicyBuilder::seed);
}

/// Visits the settings that decide which requests are sent again.
fn visit_requests(to: &mut impl Visit<RetryPolicyBuilder>) {
    to.setting(
            "safety",
            "which requests count as idempotent: see [values](https://github.com/OWNER/tower-resilience-layers/blob/main/docs/configuration.md#jitter-and-safety-values)",
            SAFETIES,
            RetryPolicyBuilder::safety,
        );
    to.setting(
            "non_idempotent",
            "faults after which a request that is not idempotent is sent again: see [values](https://github.com/OWNER/tower-resilience-layers/blob/main/docs/configuration.md#jitter-and-safety-values)",
            LEVELS,
            RetryPolicyBuilder::non_idempotent,
        );
    to.setting(
            "follows_redirects",
            "whether redirects are followed below the retry: see [redirects](https://github.com/OWNER/tower-resilience-layers/blob/main/docs/layer-order.md#redirects). Not set: URLs are compared",
            Bool,
            RetryPolicyBuilder::follows_redirects,
        );
    to.setting(
        "idempotent_methods",
        "gRPC methods that may be sent twice: `\"package.Service/Method\"` or `\"package.Service/*\"`",
        TextList { pattern: METHOD_PATTERN },
        RetryPolicyBuilder::idempotent_methods,
    );
    to.setting(
        "replay_limit",
        "largest request body, in bytes, that is kept or copied to be sent again",
        Integer(REPLAY_LIMIT_RANGE),
        RetryPolicyBuilder::replay_limit,
    );
    to.setting(
            "track_uploads",
            "tracks streaming bodies that are kept: see [streaming uploads](https://github.com/OWNER/tower-resilience-layers/blob/main/docs/layer-order.md#streaming-uploads)",
            Bool,
            RetryPolicyBuilder::track_uploads,
        );
}

/// Visits the settings of the marks on requests.
fn visit_marks(to: &mut impl Visit<RetryPolicyBuilder>) {
    to.setting(
        "marker",
        "marks requests, so that nested retry layers do not multiply attempts",
        Bool,
        RetryPolicyBuilder::marker,
    );
    to.setting(
        "marker_header",
        "header with the number of the attempt",
        OrNone(Header),
        RetryPolicyBuilder::marker_header,
    );
    to.setting(
        "remove_marker",
        "removes the marks of other retry layers: for gateways",
        Bool,
        RetryPolicyBuilder::remove_marker,
    );
}

/// The table of `jitter`.
struct JitterTable;

impl Table for JitterTable {
    type Builder = Jitter;
    type Value = Jitter;

    fn allowed(&self) -> String {
        "a table such as { proportional = 0.5 } or { additive = \"5s\" }".to_owned()
    }

    fn start(&self) -> Jitter {
        Jitter::Full
    }

    fn visit(&self, to: &mut impl Visit<Jitter>) {
        to.setting(
            "proportional",
            "up to this share below or above the longest delay, at most `max_backoff`",
            Float(SHARE_RANGE),
            |_, share| Jitter::Proportional(share),
        );
        to.setting(
            "additive",
            "up to this time above the longest delay, at most `max_backoff`",
            DurationIn(TIME_RANGE),
            |_, most| Jitter::Additive(most),
        );
        to.setting(
            "cenkalti_proportional",
            "proportional jitter as in cenkalti/backoff",
            Float(SHARE_RANGE),
            |_, share| Jitter::CenkaltiProportional(share),
        );
        to.setting(
            "tenacity_additive",
            "additive jitter as in tenacity",
            DurationIn(TIME_RANGE),
            |_, most| Jitter::TenacityAdditive(most),
        );
    }

    fn build(&self, jitter: Jitter) -> Result<Jitter, Invalid> {
        Ok(jitter)
    }
}

/// The table of a budget: its kind, with the settings that differ from the kind's defaults.
struct BudgetTable;

impl Table for BudgetTable {
    type Builder = Budget;
    type Value = Budget;

    fn allowed(&self) -> String {
        "a table such as { tokens = { capacity = 10 } }, with one of `window`, `tokens`, `grpc` and `aws`"
            .to_owned()
    }

    fn start(&self) -> Budget {
        Budget::default()
    }

    fn visit(&self, to: &mut impl Visit<Budget>) {
        to.setting("tokens", "a bucket of tokens that successes refill", Nested(TokenBudget), |_, budget| {
            budget
        });
        to.setting(
            "window",
            "a share of the requests in a sliding window",
            Nested(WindowBudget),
            |_, budget| budget,
        );
        to.setting("grpc", "the retry throttling of gRPC", Nested(GrpcBudget), |_, budget| budget);
        to.setting("aws", "the retry quota of the AWS SDKs", Nested(AwsBudget), |_, budget| budget);
    }

    fn build(&self, budget: Budget) -> Result<Budget, Invalid> {
        Ok(budget)
    }
}

struct TokenBudget;

impl Table for TokenBudget {
    type Builder = TokenBudgetBuilder;
    type Value = Budget;

    fn allowed(&self) -> String {
        "a table such as { capacity = 10, initial = 10, per_success = 0.2, timeout_cost = 6 }".to_owned()
    }

    fn start(&self) -> TokenBudgetBuilder {
        Budget::tokens()
    }

    fn visit(&self, to: &mut impl Visit<TokenBudgetBuilder>) {
        to.setting(
            "capacity",
            "capacity; a retry costs one token, or `timeout_cost` after a timeout. It also limits how many retries wait for their delay or run at the same time",
            Integer(TOKEN_RANGE),
            TokenBudgetBuilder::capacity,
        );
        to.setting(
            "initial",
            "tokens in a new bucket; at most the capacity, which is the default",
            Integer(0..=*TOKEN_RANGE.end()),
            TokenBudgetBuilder::initial,
        );
        to.setting(
            "per_success",
            "tokens that a call adds if it succeeds without a retry",
            Float(PER_SUCCESS_RANGE),
            TokenBudgetBuilder::per_success,
        );
        to.setting(
            "timeout_cost",
            "tokens that a retry after a timeout takes; at most the capacity. The default is 6, or the capacity if that is less",
            Float(TIMEOUT_COST_RANGE),
            TokenBudgetBuilder::timeout_cost,
        );
    }

    fn build(&self, builder: TokenBudgetBuilder) -> Result<Budget, Invalid> {
        Ok(builder.build()?)
    }
}

struct WindowBudget;

impl Table for WindowBudget {
    type Builder = WindowBudgetBuilder;
    type Value = Budget;

    fn allowed(&self) -> String {
        "a table such as { ratio = 0.2, min_per_second = 10, span = \"10s\" }".to_owned()
    }

    fn start(&self) -> WindowBudgetBuilder {
        Budget::window()
    }

    fn visit(&self, to: &mut impl Visit<WindowBudgetBuilder>) {
        to.setting("ratio", "retries per request", Float(RATIO_RANGE), WindowBudgetBuilder::ratio);
        to.setting(
            "min_per_second",
            "retries per second in addition, counted over the whole span. In a fleet, the product of the processes and this number must be below the spare capacity of the server; from about 1,000 processes on use `0`",
            Float(MIN_PER_SECOND_RANGE),
            WindowBudgetBuilder::min_per_second,
        );
        to.setting(
            "span",
            "window in which requests and retries are counted",
            DurationIn(SPAN_RANGE),
            WindowBudgetBuilder::span,
        );
    }

    fn build(&self, builder: WindowBudgetBuilder) -> Result<Budget, Invalid> {
        Ok(builder.build()?)
    }
}

struct GrpcBudget;

impl Table for GrpcBudget {
    type Builder = GrpcBudgetBuilder;
    type Value = Budget;

    fn allowed(&self) -> String {
        "a table such as { max_tokens = 10, ratio = 0.1 }".to_owned()
    }

    fn start(&self) -> GrpcBudgetBuilder {
        Budget::grpc()
    }

    fn visit(&self, to: &mut impl Visit<GrpcBudgetBuilder>) {
        to.setting(
            "max_tokens",
            "capacity; retries are granted while more than half of the tokens are left",
            Integer(GRPC_TOKEN_RANGE),
            GrpcBudgetBuilder::max_tokens,
        );
        to.setting(
            "ratio",
            "tokens that a success returns; a failure takes one",
            Float(GRPC_RATIO_RANGE),
            GrpcBudgetBuilder::ratio,
        );
    }

    fn build(&self, builder: GrpcBudgetBuilder) -> Result<Budget, Invalid> {
        Ok(builder.build()?)
    }
}

struct AwsBudget;

impl Table for AwsBudget {
    type Builder = AwsBudgetBuilder;
    type Value = Budget;

    fn allowed(&self) -> String {
        "a table such as { capacity = 500, cost = 5, timeout_cost = 10, increment = 1 }".to_owned()
    }

    fn start(&self) -> AwsBudgetBuilder {
        Budget::aws()
    }

    fn visit(&self, to: &mut impl Visit<AwsBudgetBuilder>) {
        to.setting("capacity", "capacity", Integer(TOKEN_RANGE), AwsBudgetBuilder::capacity);
        to.setting(
            "cost",
            "tokens that a retry takes; at most the capacity",
            Integer(TOKEN_RANGE),
            AwsBudgetBuilder::cost,
        );
        to.setting(
            "timeout_cost",
            "tokens that a retry after a timeout takes; at most the capacity",
            Integer(TOKEN_RANGE),
            AwsBudgetBuilder::timeout_cost,
        );
        to.setting(
            "increment",
            "tokens that a call returns if it succeeds without a retry; at most the capacity",
            Integer(0..=*TOKEN_RANGE.end()),
            AwsBudgetBuilder::increment,
        );
    }

    fn build(&self, builder: AwsBudgetBuilder) -> Result<Budget, Invalid> {
        Ok(builder.build()?)
    }
}

struct Header;

impl Setting for Header {
    type Value = HeaderName;

    fn range(&self) -> String {
        "the name of an HTTP header".to_owned()
    }

    fn kind(&self) -> Kind {
        Kind::Text { pattern: Some("^[-!#$%&'*+.^_`|~0-9A-Za-z]+$") }
    }

    fn scalar(&self, given: &Scalar<'_>) -> Option<HeaderName> {
        match given {
            Scalar::Text(name) => HeaderName::from_bytes(name.as_bytes()).ok(),
            _ => None,
        }
    }
}

#[cfg(feature = "schemars")]
impl schemars::JsonSchema for RetryPolicy {
    fn schema_name() -> Cow<'static, str> {
        "RetryPolicy".into()
    }

    fn schema_id() -> Cow<'static, str> {
        "tower_jitter_retry::RetryPolicy".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let schema = TableSchema::new(&Policy, "The settings of a retry policy.");
        let budgets = default_budgets().into_iter();
        budgets
            .fold(schema, |schema, budget| schema.with_defaults_in("budget", &budget))
            .with_defaults(&Self::default())
            .into()
    }
}

#[cfg(feature = "schemars")]
impl schemars::JsonSchema for Budget {
    fn schema_name() -> Cow<'static, str> {
        "Budget".into()
    }

    fn schema_id() -> Cow<'static, str> {
        "tower_jitter_retry::Budget".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let schema = TableSchema::one_of(&BudgetTable, "The settings of a retry budget.");
        default_budgets().into_iter().fold(schema, |schema, budget| schema.with_defaults(&budget)).into()
    }
}

/// Returns a budget of each kind with its defaults.
#[cfg(feature = "schemars")]
fn default_budgets() -> Vec<Budget> {
    let budgets =
        [Budget::tokens().build(), Budget::window().build(), Budget::grpc().build(), Budget::aws().build()];
    budgets.into_iter().flatten().collect()
}

/// Reads a budget from a file, as in the field `budget` of a [`RetryPolicy`].
///
/// Give it to several policies with [`RetryPolicyBuilder::budget`] to limit their retries together.
impl<'de> Deserialize<'de> for Budget {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        read_table(OneOf(BudgetTable), from)
    }
}

/// Writes the settings of a budget to a file, as in the field `budget` of a [`RetryPolicy`].
///
/// # Errors
///
/// Returns an error if the budget is a custom budget.
impl Serialize for Budget {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let settings = self.settings().ok_or_else(|| {
            S::Error::custom(
                "`budget` is a custom budget, which cannot be written; use a built-in budget or none",
            )
        })?;
        WrittenBudget(settings).serialize(to)
    }
}

/// Reads a policy from a file; see [`RetryPolicy`](RetryPolicy#configuration-files).
impl<'de> Deserialize<'de> for RetryPolicy {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        read_table(Nested(Policy), from)
    }
}

/// Writes a policy to a file; see [`RetryPolicy`](RetryPolicy#configuration-files).
///
/// # Errors
///
/// Returns an error if the policy has a custom budget.
impl Serialize for RetryPolicy {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        // Destructured, so that a new setting does not compile until it is written here.
        let Self {
            name,
            reporter: _,
            hot,
            clock: _,
            has_own_clock: _,
            budget,
            has_given_budget: _,
            seeds,
            replay_limit,
            safety,
            non_idempotent,
            remove_marker,
            methods,
            cold,
        } = self;
        let HotConfig { limits, budget_ref: _ } = hot;
        let Limits {
            max_attempts: _,
            backoff,
            marker,
            track_uploads,
            follows_redirects,
            max_elapsed,
            max_retry_after,
        } = limits;
        let Backoff { initial, multiplier, max, jitter } = backoff;
        let header =
            cold.as_deref().and_then(|ColdConfig { budget: _, observer: _, header }| header.as_ref());
        let seed = seeds.as_ref().map(|seeds| WrittenSeed(seeds.first()));
        let methods: Vec<_> = methods.iter().flat_map(|methods| methods.names()).collect();
        let mut table = to.serialize_map(None)?;
        table.serialize_entry("name", name)?;
        table.serialize_entry("max_attempts", &OrNone(self.max_attempts()))?;
        table.serialize_entry("initial_backoff", &human(*initial))?;
        table.serialize_entry("backoff_multiplier", multiplier)?;
        table.serialize_entry("max_backoff", &human(*max))?;
        table.serialize_entry("jitter", &WrittenJitter(*jitter))?;
        table.serialize_entry("max_elapsed", &OrNone(max_elapsed.map(human)))?;
        table.serialize_entry("max_retry_after", &human(*max_retry_after))?;
        table.serialize_entry("safety", &SAFETIES.of(safety))?;
        table.serialize_entry("non_idempotent", &LEVELS.of(non_idempotent))?;
        if let Some(follows) = follows_redirects {
            table.serialize_entry("follows_redirects", follows)?;
        }
        table.serialize_entry("budget", &OrNone(budget.as_ref()))?;
        table.serialize_entry("seed", &OrNone(seed))?;
        table.serialize_entry("replay_limit", replay_limit)?;
        table.serialize_entry("idempotent_methods", &methods)?;
        table.serialize_entry("marker", marker)?;
        if let Some(header) = header {
            table.serialize_entry("marker_header", header.as_str())?;
        }
        table.serialize_entry("remove_marker", remove_marker)?;
        table.serialize_entry("track_uploads", track_uploads)?;
        table.end()
    }
}

const fn human(nanos: u64) -> HumanDuration {
    HumanDuration(Duration::from_nanos(nanos))
}

struct WrittenJitter(Jitter);

impl Serialize for WrittenJitter {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Jitter::Proportional(share) => to.collect_map([("proportional", share)]),
            Jitter::Additive(most) => to.collect_map([("additive", HumanDuration(most))]),
            Jitter::CenkaltiProportional(share) => to.collect_map([("cenkalti_proportional", share)]),
            Jitter::TenacityAdditive(most) => to.collect_map([("tenacity_additive", HumanDuration(most))]),
            name => JITTERS.of(&name).serialize(to),
        }
    }
}

struct WrittenBudget(BudgetSettings);

impl Serialize for WrittenBudget {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            BudgetSettings::Window { ratio, min_per_second, span } => {
                let mut table = to.serialize_struct_variant("Budget", 0, "window", 3)?;
                table.serialize_field("ratio", &ratio)?;
                table.serialize_field("min_per_second", &min_per_second)?;
                table.serialize_field("span", &HumanDuration(span))?;
                table.end()
            }
            BudgetSettings::Tokens { capacity, initial, per_success, timeout_cost } => {
                let mut table = to.serialize_struct_variant("Budget", 1, "tokens", 4)?;
                table.serialize_field("capacity", &capacity)?;
                table.serialize_field("initial", &initial)?;
                table.serialize_field("per_success", &per_success)?;
                table.serialize_field("timeout_cost", &timeout_cost)?;
                table.end()
            }
            BudgetSettings::Grpc { max_tokens, ratio } => {
                let mut table = to.serialize_struct_variant("Budget", 2, "grpc", 2)?;
                table.serialize_field("max_tokens", &max_tokens)?;
                table.serialize_field("ratio", &ratio)?;
                table.end()
            }
            BudgetSettings::Aws { capacity, cost, timeout_cost, increment } => {
                let mut table = to.serialize_struct_variant("Budget", 3, "aws", 4)?;
                table.serialize_field("capacity", &capacity)?;
                table.serialize_field("cost", &cost)?;
                table.serialize_field("timeout_cost", &timeout_cost)?;
                table.serialize_field("increment", &increment)?;
                table.end()
            }
        }
    }
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use proptest::prelude::*;
    use tower_fault_classify::{Fault, Verdict};

    use super::*;
    use crate::budget::{RetryBudget, Ticket};

    fn from_json(text: &str) -> Result<RetryPolicy, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    fn from_toml(text: &str) -> Result<RetryPolicy, String> {
        toml::from_str(text).map_err(|error| error.to_string())
    }

    /// The parts of a policy that a file contains.
    #[derive(Debug, PartialEq)]
    struct Parts {
        name: &'static str,
        limits: Limits,
        budget: Option<BudgetSettings>,
        seed: Option<u64>,
        replay_limit: usize,
        safety: RetrySafety,
        non_idempotent: NonIdempotent,
        methods: Vec<String>,
        header: Option<HeaderName>,
        remove_marker: bool,
    }

    impl Parts {
        fn of(policy: &RetryPolicy) -> Self {
            Self {
                name: policy.name,
                limits: policy.hot.limits,
                budget: policy.budget.as_ref().map(|budget| budget.settings().unwrap()),
                seed: policy.seeds.as_ref().map(crate::rng::Seeds::first),
                replay_limit: policy.replay_limit,
                safety: policy.safety,
                non_idempotent: policy.non_idempotent,
                methods: policy.methods.iter().flat_map(|methods| methods.names()).collect(),
                header: policy.marker_header().cloned(),
                remove_marker: policy.remove_marker,
            }
        }
    }

    fn parts(policy: Result<RetryPolicy, String>) -> Result<Parts, String> {
        policy.map(|policy| Parts::of(&policy))
    }

    /// Writes the policy and reads it back, in both formats.
    fn round_trip(policy: &RetryPolicy) {
        let json = serde_json::to_string(policy).unwrap();
        assert_eq!(parts(from_json(&json)), Ok(Parts::of(policy)), "{json}");
        let toml = toml::to_string(policy).unwrap();
        assert_eq!(parts(from_toml(&toml)), Ok(Parts::of(policy)), "{toml}");
    }

    fn built(builder: RetryPolicyBuilder) -> Result<Parts, String> {
        parts(builder.build().map_err(|error| error.to_string()))
    }

    #[test]
    fn missing_field_has_its_default() {
        assert_eq!(parts(from_json("{}")), built(RetryPolicy::builder()));
        assert_eq!(parts(from_toml("")), built(RetryPolicy::builder()));
        let window = Budget::window().ratio(0.1).build().unwrap();
        let read = from_json(r#"{"max_attempts": 5, "budget": {"window": {"ratio": 0.1}}}"#);
        assert_eq!(parts(read), built(RetryPolicy::builder().max_attempts(5).budget(window)));
        for (kind, budget) in [
            ("window", Budget::window().build().unwrap()),
            ("tokens", Budget::default()),
            ("grpc", Budget::grpc().build().unwrap()),
            ("aws", Budget::aws().build().unwrap()),
        ] {
            let read = from_json(&format!(r#"{{"budget": {{"{kind}": {{}}}}}}"#));
            assert_eq!(parts(read), built(RetryPolicy::builder().budget(budget)));
        }
    }

    #[test]
    fn window_budget_reads_whole_and_fractional_retries_per_second() {
        for (written, retries) in [("3", 3.0), ("3.0", 3.0), ("0.1", 0.1), ("0", 0.0)] {
            let budget = Budget::window().min_per_second(retries).build().unwrap();
            let expected = built(RetryPolicy::builder().budget(budget));
            let json = from_json(&format!(r#"{{"budget": {{"window": {{"min_per_second": {written}}}}}}}"#));
            assert_eq!(parts(json), expected, "{written}");
            let toml = from_toml(&format!("budget = {{ window = {{ min_per_second = {written} }} }}"));
            assert_eq!(parts(toml), expected, "{written}");
        }
    }

    #[test]
    fn preset_is_start_of_table_wherever_it_is_written() {
        let expected = || built(RetryPolicy::gateway().max_attempts(2).remove_marker(false));
        let rest = r#""max_attempts": 2, "remove_marker": false"#;
        assert_eq!(parts(from_json(&format!(r#"{{"preset": "gateway", {rest}}}"#))), expected());
        assert_eq!(parts(from_json(&format!(r#"{{{rest}, "preset": "gateway"}}"#))), expected());
        let error = from_json(r#"{"preset": "proxy"}"#).unwrap_err();
        assert!(error.starts_with("`preset` is \"proxy\"; allowed is \"gateway\" at line"), "{error}");
    }

    #[test]
    fn preset_written_is_read_back() {
        round_trip(&RetryPolicy::default());
        round_trip(&RetryPolicy::gateway().build().unwrap());
    }

    #[test]
    fn none_turns_a_setting_off() {
        let off = || RetryPolicy::builder().max_elapsed(None).budget(None).jitter(Jitter::None);
        let fields = ["max_elapsed", "budget", "jitter", "seed", "marker_header"];
        let unlimited = parts(from_json(r#"{"max_attempts": "none", "max_elapsed": "9s"}"#));
        let time = Duration::from_secs(9);
        assert_eq!(unlimited, built(RetryPolicy::builder().max_attempts(None).max_elapsed(time)));
        let json = fields.map(|field| format!(r#""{field}": "none""#)).join(", ");
        assert_eq!(parts(from_json(&format!("{{{json}}}"))), built(off()));
        let toml = fields.map(|field| format!("{field} = \"none\"")).join("\n");
        assert_eq!(parts(from_toml(&toml)), built(off()));
    }

    #[test]
    fn null_is_an_error_for_every_field() {
        let Kind::Table(table) = Nested(Policy).kind() else { unreachable!() };
        for field in table.settings.iter().map(|setting| setting.name) {
            let error = from_json(&format!(r#"{{"{field}": null}}"#)).unwrap_err();
            assert!(error.starts_with(&format!("`{field}` is null; allowed is ")), "{error}");
            assert!(error.contains("; leave the field out for its default at line 1"), "{error}");
        }
    }

    #[test]
    fn budget_of_its_own_is_read_and_written() {
        let settings = |budget: Budget| budget.settings();
        for json in
            [r#"{"tokens": {"capacity": 20}}"#, r#"{"window": {}}"#, r#"{"grpc": {}}"#, r#"{"aws": {}}"#]
        {
            let budget: Budget = serde_json::from_str(json).unwrap();
            let written = serde_json::to_string(&budget).unwrap();
            assert_eq!(settings(serde_json::from_str(&written).unwrap()), settings(budget), "{written}");
        }
        let error = serde_json::from_str::<Budget>(r#"{"tokens": {"capacity": 0}}"#).unwrap_err();
        assert!(
            error.to_string().starts_with("`tokens.capacity` is 0; allowed is 1 to 1000000000"),
            "{error}"
        );
        let error = serde_json::from_str::<Budget>("{}").unwrap_err();
        assert!(error.to_string().starts_with("invalid type: map, expected a table such as"), "{error}");
    }

    #[test]
    fn custom_budget_is_not_written() {
        #[derive(Debug)]
        struct Custom;

        impl RetryBudget for Custom {
            fn deposit(&self, _: &Verdict) {}

            fn withdraw(&self, _: &Fault) -> Option<Ticket> {
                None
            }
        }

        let policy = RetryPolicy::builder().budget(Budget::custom(Custom)).build().unwrap();
        let error = serde_json::to_string(&policy).unwrap_err();
        let expected = "`budget` is a custom budget, which cannot be written; use a built-in budget or none";
        assert_eq!(error.to_string(), expected);
    }

    /// Values in JSON that are also valid TOML, and the beginning of the error.
    const INVALID: [(&str, &str, &str); 35] = [
        ("max_attempts", "0", "`max_attempts` is 0; allowed is 1 to 1000"),
        ("max_attempts", "-1", "`max_attempts` is -1; allowed is 1 to 1000"),
        ("max_attempts", "3.5", "`max_attempts` is 3.5; allowed is 1 to 1000"),
        ("max_attempts", "\"many\"", "`max_attempts` is \"many\"; allowed is 1 to 1000, or \"none\""),
        (
            "initial_backoff",
            "5",
            "`initial_backoff` is 5; allowed is 0s to 365d, such as \"1m 30s\", with the units ns, us, ms, s, m, h or d",
        ),
        ("initial_backoff", "\"soon\"", "`initial_backoff` is \"soon\"; allowed is 0s to 365d"),
        (
            "initial_backoff",
            "\"11s\"",
            "`initial_backoff` is 11s; allowed is 0ns to 10s, because `max_backoff` is 10s",
        ),
        ("backoff_multiplier", "0.5", "`backoff_multiplier` is 0.5; allowed is 1.0 to 1000.0"),
        ("backoff_multiplier", "\"2\"", "`backoff_multiplier` is \"2\"; allowed is 1.0 to 1000.0"),
        ("max_backoff", "\"366d\"", "`max_backoff` is \"366d\"; allowed is 0s to 365d"),
        ("max_backoff", "\"1M\"", "`max_backoff` is \"1M\"; allowed is 0s to 365d"),
        (
            "jitter",
            "\"some\"",
            "`jitter` is \"some\"; allowed is \"none\", \"full\", \"equal\", \"decorrelated\" or \"aws_decorrelated\", or a table such as { proportional = 0.5 }",
        ),
        ("jitter", "0.5", "`jitter` is 0.5; allowed is \"none\""),
        ("jitter", "{}", "`jitter` is a table; allowed is \"none\""),
        (
            "max_elapsed",
            "\"-1s\"",
            "`max_elapsed` is \"-1s\"; allowed is 0s to 365d, such as \"1m 30s\", with the units ns, us, ms, s, m, h or d, or \"none\" to turn it off",
        ),
        ("max_elapsed", "120", "`max_elapsed` is 120; allowed is 0s to 365d"),
        ("max_elapsed", "\"never\"", "`max_elapsed` is \"never\"; allowed is 0s to 365d"),
        ("max_retry_after", "\"none\"", "`max_retry_after` is \"none\"; allowed is 0s to 365d"),
        (
            "safety",
            "\"sometimes\"",
            "`safety` is \"sometimes\"; allowed is \"by_request\", \"by_method\", \"always\" or \"never\"",
        ),
        (
            "non_idempotent",
            "\"refused\"",
            "`non_idempotent` is \"refused\"; allowed is \"never\", \"unsent\" or \"unsent_or_refused\"",
        ),
        (
            "budget",
            "0.2",
            "`budget` is 0.2; allowed is a table such as { tokens = { capacity = 10 } }, with one of `window`, `tokens`, `grpc` and `aws`, or \"none\" to turn it off",
        ),
        ("budget", "\"window\"", "`budget` is \"window\"; allowed is a table"),
        ("budget", "{}", "`budget` is a table; allowed is a table such as"),
        ("seed", "-1", "`seed` is -1; allowed is 0 to 18446744073709551615"),
        ("seed", "\"many\"", "`seed` is \"many\"; allowed is 0 to 18446744073709551615"),
        ("replay_limit", "1073741825", "`replay_limit` is 1073741825; allowed is 0 to 1073741824"),
        ("replay_limit", "\"64 KiB\"", "`replay_limit` is \"64 KiB\"; allowed is 0 to 1073741824"),
        (
            "idempotent_methods",
            "\"shop.Orders/Get\"",
            "`idempotent_methods` is \"shop.Orders/Get\"; allowed is a list of strings",
        ),
        ("idempotent_methods", "[\"shop.Orders/Get\", 5]", "`idempotent_methods` is 5; allowed is a string"),
        (
            "idempotent_methods",
            "[\"Get\"]",
            "`idempotent_methods` is \"Get\"; allowed is `package.Service/Method` or",
        ),
        ("marker", "\"on\"", "`marker` is \"on\"; allowed is true or false"),
        ("marker_header", "\"a b\"", "`marker_header` is \"a b\"; allowed is the name of an HTTP header"),
        ("follows_redirects", "\"none\"", "`follows_redirects` is \"none\"; allowed is true or false"),
        ("remove_marker", "1", "`remove_marker` is 1; allowed is true or false"),
        ("track_uploads", "\"no\"", "`track_uploads` is \"no\"; allowed is true or false"),
    ];

    /// Tables in JSON, and the beginning of the error.
    const INVALID_TABLES: [(&str, &str); 19] = [
        (r#"{"jitter": {"proportional": 2.0}}"#, "`jitter.proportional` is 2.0; allowed is 0.0 to 1.0"),
        (r#"{"jitter": {"additive": 5}}"#, "`jitter.additive` is 5; allowed is 0s to 365d"),
        (r#"{"jitter": {"some": 5}}"#, "unknown field `jitter.some`; allowed is `proportional`, `additive`,"),
        (
            r#"{"jitter": {"additive": "5s", "proportional": 1}}"#,
            "`jitter.additive` and `jitter.proportional` are set; set only one of them",
        ),
        (
            r#"{"budget": {"windows": {}}}"#,
            "unknown field `budget.windows`; allowed is `tokens`, `window`, `grpc` or `aws`",
        ),
        (
            r#"{"budget": {"window": 0.2}}"#,
            "`budget.window` is 0.2; allowed is a table such as { ratio = 0.2,",
        ),
        (
            r#"{"budget": {"window": {"ratio": -1.0}}}"#,
            "`budget.window.ratio` is -1.0; allowed is 0.0 to 1000.0",
        ),
        (
            r#"{"budget": {"window": {"min_per_second": -1}}}"#,
            "`budget.window.min_per_second` is -1; allowed is 0.0 to 1000000000.0",
        ),
        (
            r#"{"budget": {"window": {"ratios": 1.0}}}"#,
            "unknown field `budget.window.ratios`; allowed is `ratio`,",
        ),
        (
            r#"{"budget": {"tokens": {"capacity": 0}}}"#,
            "`budget.tokens.capacity` is 0; allowed is 1 to 1000000000",
        ),
        (r#"{"budget": {"tokens": {"initial": 11}}}"#, "`budget.tokens.initial` is 11; allowed is 0 to 10"),
        (
            r#"{"budget": {"tokens": {"initial": 5, "capacity": 4}}}"#,
            "`budget.tokens.initial` is 5; allowed is 0 to 4, because `capacity` is 4",
        ),
        (
            r#"{"budget": {"tokens": {"per_success": 1000.5}}}"#,
            "`budget.tokens.per_success` is 1000.5; allowed is 0.0 to 1000.0",
        ),
        (
            r#"{"budget": {"tokens": {"ratio": 0.1}}}"#,
            "unknown field `budget.tokens.ratio`; allowed is `capacity`, `initial`, `per_success` or `timeout_cost`",
        ),
        (
            r#"{"budget": {"tokens": {"timeout_cost": 10.5}}}"#,
            "`budget.tokens.timeout_cost` is 10.5; allowed is 1.0 to 10.0",
        ),
        (
            r#"{"budget": {"tokens": {"timeout_cost": 0}}}"#,
            "`budget.tokens.timeout_cost` is 0; allowed is 1.0 to 1000000000.0",
        ),
        (
            r#"{"budget": {"grpc": {"max_tokens": 1001}}}"#,
            "`budget.grpc.max_tokens` is 1001; allowed is 1 to 1000",
        ),
        (r#"{"budget": {"aws": {"cost": 501}}}"#, "`budget.aws.cost` is 501; allowed is 1 to 500"),
        (r#"{"attempts": 5}"#, "unknown field `attempts`; allowed is `preset`, `name`, `max_attempts`,"),
    ];

    #[test]
    fn invalid_value_names_field_value_and_range() {
        for (field, value, expected) in INVALID {
            let error = from_json(&format!("{{\"{field}\": {value}}}")).unwrap_err();
            assert!(error.starts_with(expected), "{error}\n{expected}");
            let error = from_toml(&format!("{field} = {value}")).unwrap_err();
            assert!(error.contains(expected), "{error}\n{expected}");
        }
        for (json, expected) in INVALID_TABLES {
            let error = from_json(json).unwrap_err();
            assert!(error.starts_with(expected), "{error}\n{expected}");
        }
    }

    fn duration(range: RangeInclusive<Duration>) -> impl Strategy<Value = Duration> {
        let [least, most] = [range.start(), range.end()].map(|end| end.as_nanos() as u64);
        (least..=most).prop_map(Duration::from_nanos)
    }

    fn jitter() -> impl Strategy<Value = Jitter> {
        prop_oneof![
            Just(Jitter::None),
            Just(Jitter::Full),
            Just(Jitter::Equal),
            Just(Jitter::Decorrelated),
            Just(Jitter::AwsDecorrelated),
            SHARE_RANGE.prop_map(Jitter::Proportional),
            duration(TIME_RANGE).prop_map(Jitter::Additive),
            SHARE_RANGE.prop_map(Jitter::CenkaltiProportional),
            duration(TIME_RANGE).prop_map(Jitter::TenacityAdditive),
        ]
    }

    fn budget() -> impl Strategy<Value = Option<Budget>> {
        let window =
            (RATIO_RANGE, MIN_PER_SECOND_RANGE, duration(SPAN_RANGE)).prop_map(|(ratio, retries, span)| {
                Budget::window().ratio(ratio).min_per_second(retries).span(span).build()
            });
        let tokens = (TOKEN_RANGE, PER_SUCCESS_RANGE)
            .prop_flat_map(|(capacity, per_success)| {
                let timeout_cost = proptest::option::of(1.0..=f64::from(capacity));
                (Just(capacity), proptest::option::of(0..=capacity), Just(per_success), timeout_cost)
            })
            .prop_map(|(capacity, initial, per_success, timeout_cost)| {
                let builder = Budget::tokens().capacity(capacity).per_success(per_success);
                let builder = initial.into_iter().fold(builder, TokenBudgetBuilder::initial);
                timeout_cost.into_iter().fold(builder, TokenBudgetBuilder::timeout_cost).build()
            });
        let grpc = (GRPC_TOKEN_RANGE, GRPC_RATIO_RANGE)
            .prop_map(|(tokens, ratio)| Budget::grpc().max_tokens(tokens).ratio(ratio).build());
        let aws = TOKEN_RANGE
            .prop_flat_map(|capacity| (Just(capacity), 1..=capacity, 1..=capacity, 0..=capacity))
            .prop_map(|(capacity, cost, timeout_cost, increment)| {
                Budget::aws()
                    .capacity(capacity)
                    .cost(cost)
                    .timeout_cost(timeout_cost)
                    .increment(increment)
                    .build()
            });
        prop_oneof![
            Just(None),
            window.prop_map(|budget| Some(budget.unwrap())),
            tokens.prop_map(|budget| Some(budget.unwrap())),
            grpc.prop_map(|budget| Some(budget.unwrap())),
            aws.prop_map(|budget| Some(budget.unwrap())),
        ]
    }

    prop_compose! {
        /// Any valid policy without a custom budget.
        fn policy()(
            name in ".*",
            (attempts, one, other, factor) in (proptest::option::of(ATTEMPT_RANGE), duration(TIME_RANGE), duration(TIME_RANGE), MULTIPLIER_RANGE),
            (jitter, max_elapsed) in (jitter(), proptest::option::of(duration(TIME_RANGE))),
            max_retry_after in duration(TIME_RANGE),
            safety in proptest::sample::select(SAFETIES.0.to_vec()),
            level in proptest::sample::select(LEVELS.0.to_vec()),
            budget in budget(),
            seed in proptest::option::of(any::<u64>()),
            replay_limit in REPLAY_LIMIT_RANGE,
            methods in proptest::collection::vec("/?[a-z]{1,3}\\.[A-Z]/([A-Za-z]{1,3}|\\*)", 0..3),
            (marker, remove_marker, track_uploads) in any::<(bool, bool, bool)>(),
            follows_redirects in any::<Option<bool>>(),
            header in proptest::option::of("[a-z][a-z0-9-]{0,9}"),
        ) -> RetryPolicy {
            let builder = RetryPolicy::builder()
                .name(name)
                .max_attempts(attempts.or(max_elapsed.is_none().then_some(1)))
                .initial_backoff(one.min(other))
                .max_backoff(one.max(other))
                .backoff_multiplier(factor)
                .jitter(jitter)
                .max_elapsed(max_elapsed)
                .max_retry_after(max_retry_after)
                .safety(safety.1)
                .non_idempotent(level.1)
                .budget(budget)
                .replay_limit(replay_limit)
                .idempotent_methods(methods)
                .seed(seed)
                .follows_redirects(follows_redirects)
                .marker_header(header.map(|header| HeaderName::try_from(header).unwrap()))
                .marker(marker)
                .remove_marker(remove_marker)
                .track_uploads(track_uploads);
            builder.build().unwrap()
        }
    }

    proptest! {
        #[test]
        fn policy_written_is_read_back(policy in policy()) {
            round_trip(&policy);
        }
    }
}
