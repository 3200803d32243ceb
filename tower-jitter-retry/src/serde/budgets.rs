//! The tables of budgets.

#[cfg(feature = "schemars")]
use std::borrow::Cow;

use ::serde::ser::{Error as _, SerializeStructVariant};
use ::serde::{Deserialize, Deserializer, Serialize, Serializer};
#[cfg(feature = "schemars")]
use tower_fault_classify::__internals::settings::TableSchema;
use tower_fault_classify::__internals::settings::{
    DurationIn, Float, HumanDuration, Integer, Invalid, Nested, OneOf, Table, Visit, read_table,
};

use crate::budget::{
    AwsBudgetBuilder, Budget, BudgetSettings, GRPC_RATIO_RANGE, GRPC_TOKEN_RANGE, GrpcBudgetBuilder,
    MIN_PER_SECOND_RANGE, PER_SUCCESS_RANGE, RATIO_RANGE, SPAN_RANGE, TIMEOUT_COST_RANGE, TOKEN_RANGE,
    TokenBudgetBuilder, WindowBudgetBuilder,
};

/// The table of a budget: its kind, with the settings that differ from the kind's defaults.
pub(super) struct BudgetTable;

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
pub(super) fn default_budgets() -> Vec<Budget> {
    let budgets =
        [Budget::tokens().build(), Budget::window().build(), Budget::grpc().build(), Budget::aws().build()];
    budgets.into_iter().flatten().collect()
}

/// Reads a budget from a file, as in the field `budget` of a
/// [`RetryPolicy`](crate::RetryPolicy).
///
/// Give it to several policies with
/// [`RetryPolicyBuilder::budget`](crate::RetryPolicyBuilder::budget) to limit their retries
/// together.
impl<'de> Deserialize<'de> for Budget {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        read_table(OneOf(BudgetTable), from)
    }
}

/// Writes the settings of a budget to a file, as in the field `budget` of a
/// [`RetryPolicy`](crate::RetryPolicy).
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
