//! Serialization of policies: fields have the setters' names, and durations are readable strings.
//!
//! | file | content |
//! |---|---|
//! | `mod.rs` | the table of a policy, read and written |
//! | `budgets.rs` | the tables of budgets, read and written |

mod budgets;
#[cfg(all(test, not(loom_models)))]
mod tests;

#[cfg(feature = "schemars")]
use std::borrow::Cow;
use std::ops::RangeInclusive;
use std::time::Duration;

use ::serde::ser::SerializeMap;
use ::serde::{Deserialize, Deserializer, Serialize, Serializer};
use http::HeaderName;
#[cfg(feature = "schemars")]
use tower_fault_classify::__internals::settings::TableSchema;
use tower_fault_classify::__internals::settings::{
    Bool, Choice, DurationIn, Either, Float, HumanDuration, Integer, Invalid, Kind, Nested, OneOf, OrNone,
    Presets, Scalar, Seed, Setting, Table, Text, TextList, Visit, WrittenSeed, read_table,
};

use self::budgets::BudgetTable;
#[cfg(feature = "schemars")]
use self::budgets::default_budgets;
use crate::backoff::{Backoff, Jitter};
use crate::policy::{
    ATTEMPT_RANGE, ColdConfig, Limits, MAX_DURATION, MULTIPLIER_RANGE, REPLAY_LIMIT_RANGE, RetryPolicy,
    RetryPolicyBuilder, SHARE_RANGE,
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

    fn not_both_none(&self) -> &'static [[&'static str; 2]] {
        &[["max_attempts", "max_elapsed"]]
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
            config,
            budget_ref: _,
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
        } = self;
        let Limits {
            max_attempts: _,
            backoff,
            marker,
            track_uploads,
            follows_redirects,
            max_elapsed,
            max_retry_after,
        } = config.limits();
        let Backoff { initial, multiplier, max, jitter } = backoff;
        let header = config
            .cold()
            .and_then(|ColdConfig { budget: _, observer: _, condition: _, header }| header.as_ref());
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
