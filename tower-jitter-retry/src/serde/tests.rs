use proptest::prelude::*;
use tower_fault_classify::{Fault, Verdict};

use super::*;
use crate::budget::{
    Budget, BudgetSettings, GRPC_RATIO_RANGE, GRPC_TOKEN_RANGE, MIN_PER_SECOND_RANGE, PER_SUCCESS_RANGE,
    RATIO_RANGE, RetryBudget, SPAN_RANGE, TOKEN_RANGE, Ticket, TokenBudgetBuilder,
};

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
            limits: *policy.config.limits(),
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
    for json in [r#"{"tokens": {"capacity": 20}}"#, r#"{"window": {}}"#, r#"{"grpc": {}}"#, r#"{"aws": {}}"#]
    {
        let budget: Budget = serde_json::from_str(json).unwrap();
        let written = serde_json::to_string(&budget).unwrap();
        assert_eq!(settings(serde_json::from_str(&written).unwrap()), settings(budget), "{written}");
    }
    let error = serde_json::from_str::<Budget>(r#"{"tokens": {"capacity": 0}}"#).unwrap_err();
    assert!(error.to_string().starts_with("`tokens.capacity` is 0; allowed is 1 to 1000000000"), "{error}");
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
    (r#"{"budget": {"window": 0.2}}"#, "`budget.window` is 0.2; allowed is a table such as { ratio = 0.2,"),
    (r#"{"budget": {"window": {"ratio": -1.0}}}"#, "`budget.window.ratio` is -1.0; allowed is 0.0 to 1000.0"),
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
