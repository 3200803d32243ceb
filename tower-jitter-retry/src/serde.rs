//! Policies from files: by the setters' names, with durations as people write them.

use std::time::Duration;

use ::serde::de::Error as _;
use ::serde::{Deserialize, Deserializer};
use http::HeaderName;
use tower_fault_classify::__shared::ConfigError;

use crate::backoff::Jitter;
use crate::budget::{AwsBudgetBuilder, Budget, BudgetBuilder, GrpcBudgetBuilder};
use crate::policy::{RetryPolicy, RetryPolicyBuilder};
use crate::request::{NonIdempotent, RetrySafety};

/// A duration as people write it: `"1m 30s"`.
#[derive(Clone, Copy, Debug)]
struct Human(Duration);

impl<'de> Deserialize<'de> for Human {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        humantime::parse_duration(&text).map(Self).map_err(|error| {
            D::Error::custom(format_args!("`{text}` is no duration such as \"1m 30s\": {error}"))
        })
    }
}

/// A policy as it stands in a file. What is left out has its default.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct File {
    max_attempts: Option<u32>,
    base: Option<Human>,
    factor: Option<f64>,
    cap: Option<Human>,
    jitter: Option<JitterInFile>,
    max_elapsed: Option<Limit<Human>>,
    longest_hint: Option<Human>,
    safety: Option<SafetyInFile>,
    non_idempotent: Option<NonIdempotentInFile>,
    budget: Option<Limit<BudgetInFile>>,
    seed: Option<u64>,
    replay_limit: Option<usize>,
    idempotent_methods: Option<Vec<String>>,
    marker: Option<bool>,
    marker_header: Option<String>,
    remove_marker: Option<bool>,
}

/// Something, or `"none"`.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Limit<T> {
    None(Nothing),
    Some(T),
}

impl<T> Limit<T> {
    fn into_option(self) -> Option<T> {
        match self {
            Self::None(_) => None,
            Self::Some(limit) => Some(limit),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Nothing {
    None,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum JitterInFile {
    None,
    Full,
    Equal,
    Decorrelated,
    Proportional(f64),
    Additive(Human),
    AwsDecorrelated,
    CenkaltiProportional(f64),
    TenacityAdditive(Human),
}

impl From<JitterInFile> for Jitter {
    fn from(jitter: JitterInFile) -> Self {
        match jitter {
            JitterInFile::None => Self::None,
            JitterInFile::Full => Self::Full,
            JitterInFile::Equal => Self::Equal,
            JitterInFile::Decorrelated => Self::Decorrelated,
            JitterInFile::Proportional(share) => Self::Proportional(share),
            JitterInFile::Additive(Human(most)) => Self::Additive(most),
            JitterInFile::AwsDecorrelated => Self::AwsDecorrelated,
            JitterInFile::CenkaltiProportional(share) => Self::CenkaltiProportional(share),
            JitterInFile::TenacityAdditive(Human(most)) => Self::TenacityAdditive(most),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum SafetyInFile {
    ByRequest,
    ByMethod,
    Always,
    Never,
}

impl From<SafetyInFile> for RetrySafety {
    fn from(safety: SafetyInFile) -> Self {
        match safety {
            SafetyInFile::ByRequest => Self::ByRequest,
            SafetyInFile::ByMethod => Self::ByMethod,
            SafetyInFile::Always => Self::Always,
            SafetyInFile::Never => Self::Never,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum NonIdempotentInFile {
    Never,
    Unsent,
    UnsentOrRefused,
}

impl From<NonIdempotentInFile> for NonIdempotent {
    fn from(level: NonIdempotentInFile) -> Self {
        match level {
            NonIdempotentInFile::Never => Self::Never,
            NonIdempotentInFile::Unsent => Self::Unsent,
            NonIdempotentInFile::UnsentOrRefused => Self::UnsentOrRefused,
        }
    }
}

/// A budget as it stands in a file: its kind, with what differs from the kind's defaults.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum BudgetInFile {
    Window { ratio: Option<f64>, min_per_second: Option<u32>, span: Option<Human> },
    Grpc { max_tokens: Option<u32>, ratio: Option<f64> },
    Aws { capacity: Option<u32>, cost: Option<u32>, timeout_cost: Option<u32>, increment: Option<u32> },
}

/// The builder with a value, if the file has it.
fn with<B, T>(builder: B, value: Option<T>, set: impl FnOnce(B, T) -> B) -> B {
    match value {
        Some(value) => set(builder, value),
        None => builder,
    }
}

impl BudgetInFile {
    fn build(self) -> Result<Budget, ConfigError> {
        match self {
            Self::Window { ratio, min_per_second, span } => {
                let builder = with(Budget::builder(), ratio, BudgetBuilder::ratio);
                let builder = with(builder, min_per_second, BudgetBuilder::min_per_second);
                with(builder, span, |builder, Human(span)| builder.span(span)).build()
            }
            Self::Grpc { max_tokens, ratio } => {
                let builder = with(Budget::grpc(), max_tokens, GrpcBudgetBuilder::max_tokens);
                with(builder, ratio, GrpcBudgetBuilder::ratio).build()
            }
            Self::Aws { capacity, cost, timeout_cost, increment } => {
                let builder = with(Budget::aws(), capacity, AwsBudgetBuilder::capacity);
                let builder = with(builder, cost, AwsBudgetBuilder::cost);
                let builder = with(builder, timeout_cost, AwsBudgetBuilder::timeout_cost);
                with(builder, increment, AwsBudgetBuilder::increment).build()
            }
        }
    }
}

impl File {
    fn build(self) -> Result<RetryPolicy, ConfigError> {
        type Builder = RetryPolicyBuilder;

        let header = self.marker_header.map(|name| {
            let parsed = HeaderName::from_bytes(name.as_bytes());
            parsed.map_err(|_| ConfigError::new("marker_header", name, "the name of a header"))
        });
        let budget = match self.budget.map(Limit::into_option) {
            Some(Some(budget)) => Some(Some(budget.build()?)),
            Some(None) => Some(None),
            None => None,
        };
        let mut builder = with(RetryPolicy::builder(), self.max_attempts, Builder::max_attempts);
        builder = with(builder, self.base, |builder, Human(base)| builder.base(base));
        builder = with(builder, self.factor, Builder::factor);
        builder = with(builder, self.cap, |builder, Human(cap)| builder.cap(cap));
        builder = with(builder, self.jitter, |builder, jitter| builder.jitter(jitter.into()));
        builder = with(builder, self.max_elapsed, |builder, time| {
            builder.max_elapsed(time.into_option().map(|Human(time)| time))
        });
        builder = with(builder, self.longest_hint, |builder, Human(delay)| builder.longest_hint(delay));
        builder = with(builder, self.safety, |builder, safety| builder.safety(safety.into()));
        builder = with(builder, self.non_idempotent, |builder, level| builder.non_idempotent(level.into()));
        builder = with(builder, budget, Builder::budget);
        builder = with(builder, self.seed, Builder::seed);
        builder = with(builder, self.replay_limit, Builder::replay_limit);
        builder = with(builder, self.idempotent_methods, Builder::idempotent_methods);
        builder = with(builder, self.marker, Builder::marker);
        builder = with(builder, self.remove_marker, Builder::remove_marker);
        with(builder, header.transpose()?, Builder::marker_header).build()
    }
}

/// By the names of the setters; a duration is `"1m 30s"`, no limit is `"none"`. What is out of its range is an error as at
/// [`build`](RetryPolicyBuilder::build).
impl<'de> Deserialize<'de> for RetryPolicy {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        File::deserialize(from)?.build().map_err(D::Error::custom)
    }
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use super::*;
    use crate::budget::RetryBudget;

    fn read(text: &str) -> Result<RetryPolicy, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    /// How many retries a policy's budget grants at first.
    fn granted(policy: &RetryPolicy) -> usize {
        use tower_fault_classify::{Fault, Health, Kind, Origin, Retryable};

        let fault = Fault::new(Kind::Server, Retryable::IfIdempotent, Health::Failure, Origin::Remote);
        let budget = policy.budget.as_ref().expect("it has one");
        // The tickets are kept, because a ticket that is dropped returns its cost.
        let tickets: Vec<_> = (0..10_000).map_while(|_| budget.try_retry(&fault)).collect();
        tickets.len()
    }

    #[test]
    fn what_is_left_out_has_its_default() {
        let (read, default) = (read("{}").unwrap(), RetryPolicy::default());
        assert_eq!((read.plan.limits, read.replay_limit), (default.plan.limits, default.replay_limit));
        assert!(read.seeds.is_none() && read.extras.is_none() && read.methods.is_none());
        assert_eq!(granted(&read), 100);
    }

    #[test]
    fn every_field_is_read() {
        let text = r#"{
            "max_attempts": 5, "base": "50ms", "factor": 1.5, "cap": "1m 30s", "jitter": {"additive": "5s"},
            "max_elapsed": "20s", "longest_hint": "2m", "safety": "by_method", "non_idempotent": "unsent", "remove_marker": true, "seed": 7, "replay_limit": 1024,
            "budget": {"window": {"ratio": 0.0, "min_per_second": 1, "span": "3s"}},
            "idempotent_methods": ["shop.Orders/Get"], "marker": false, "marker_header": "X-Attempt"
        }"#;
        let read = read(text).unwrap();
        let built = RetryPolicy::builder()
            .max_attempts(5)
            .base(Duration::from_millis(50))
            .factor(1.5)
            .cap(Duration::from_secs(90))
            .jitter(Jitter::Additive(Duration::from_secs(5)))
            .max_elapsed(Duration::from_secs(20))
            .longest_hint(Duration::from_secs(120))
            .safety(RetrySafety::ByMethod)
            .non_idempotent(NonIdempotent::Unsent)
            .marker(false)
            .build()
            .unwrap();
        assert_eq!((read.plan.limits, read.replay_limit), (built.plan.limits, 1_024));
        assert!(
            read.remove_marker
                && read.seeds.is_some()
                && read.methods.as_ref().unwrap().contain("/shop.Orders/Get")
        );
        assert_eq!(read.extras.as_ref().unwrap().header, Some(HeaderName::from_static("x-attempt")));
        assert_eq!(granted(&read), 3);
    }

    #[test]
    fn every_jitter_and_budget_is_read_and_none_is_none() {
        for (text, jitter) in [
            (r#""none""#, Jitter::None),
            (r#""full""#, Jitter::Full),
            (r#""equal""#, Jitter::Equal),
            (r#""decorrelated""#, Jitter::Decorrelated),
            (r#"{"proportional": 0.5}"#, Jitter::Proportional(0.5)),
            (r#""aws_decorrelated""#, Jitter::AwsDecorrelated),
            (r#"{"cenkalti_proportional": 0.25}"#, Jitter::CenkaltiProportional(0.25)),
            (r#"{"tenacity_additive": "1s"}"#, Jitter::TenacityAdditive(Duration::from_secs(1))),
        ] {
            assert_eq!(read(&format!(r#"{{"jitter": {text}}}"#)).unwrap().backoff().jitter, jitter);
        }
        let budget = |text: &str| granted(&read(&format!(r#"{{"budget": {text}}}"#)).unwrap());
        assert_eq!(budget(r#"{"aws": {}}"#), 100);
        assert_eq!(budget(r#"{"aws": {"capacity": 50, "cost": 10, "timeout_cost": 20, "increment": 0}}"#), 5);
        assert_eq!(budget(r#"{"grpc": {"max_tokens": 4, "ratio": 0.5}}"#), 10_000, "nothing has failed yet");
        let unbounded = read(r#"{"budget": "none", "max_elapsed": "none"}"#).unwrap();
        assert!(unbounded.budget.is_none());
        let limitless = RetryPolicy::builder().max_elapsed(None).build().unwrap();
        assert_eq!(unbounded.plan.limits, limitless.plan.limits);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, says) in [
            (r#"{"max_attempts": 0}"#, "`max_attempts` is 0; allowed is 1 to 1000"),
            (r#"{"base": "11s"}"#, "`base` is 11s; allowed is 0ns to 10s"),
            (r#"{"base": "soon"}"#, "`soon` is no duration"),
            (r#"{"base": 5}"#, "expected a string"),
            (r#"{"attempts": 5}"#, "unknown field `attempts`"),
            (r#"{"jitter": "some"}"#, "unknown variant `some`"),
            (r#"{"jitter": {"proportional": 2.0}}"#, "`jitter` is 2.0"),
            (r#"{"budget": {"window": {"ratio": -1.0}}}"#, "`ratio` is -1.0"),
            (r#"{"marker_header": "a b"}"#, "`marker_header` is \"a b\""),
            (r#"{"idempotent_methods": ["Get"]}"#, "`idempotent_methods` is \"Get\""),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
        for text in [
            r#"{"budget": {"window": {"ratios": 1.0}}}"#,
            r#"{"budget": "some"}"#,
            r#"{"max_elapsed": "soon"}"#,
        ] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
