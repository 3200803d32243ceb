//! `docs/configuration.md`: its tables have the real defaults and ranges, and its files are
//! complete and valid.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use serde_json::Value;
use tower_breaker::keyed::{KeyedConfig, Overflow};
use tower_breaker::{BreakerConfig, CancelledPolicy, Clock, HumanDuration, Mode};
use tower_fault_classify::body::{ErrorBodies, LlmErrors};
use tower_fault_classify::classify_error;
use tower_jitter_retry::{Budget, Jitter, NonIdempotent, RetryPolicy, RetrySafety};

use super::SECOND;

pub(super) fn page() -> String {
    fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md")).unwrap()
}

/// Returns the text below a heading of the page.
pub(super) fn section<'a>(page: &'a str, heading: &str) -> &'a str {
    let (_, section) = page.split_once(&format!("\n## {heading}\n")).unwrap();
    section.split("\n## ").next().unwrap()
}

/// Returns the cells of the rows of the first table below a heading, without the header.
fn rows<'a>(page: &'a str, heading: &str) -> Vec<Vec<&'a str>> {
    let lines = section(page, heading).lines().skip_while(|line| !line.starts_with('|'));
    let rows = lines.take_while(|line| line.starts_with('|')).skip(2);
    rows.map(|row| row.trim_matches('|').split('|').map(str::trim).collect()).collect()
}

/// Returns the texts in backticks.
fn code(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

/// Returns the code blocks of a language below a heading.
pub(super) fn blocks(page: &str, heading: &str, language: &str) -> Vec<String> {
    let section = section(page, heading);
    let fence = format!("```{language}\n");
    let blocks = section.split(&fence).skip(1).map(|block| block.split("```").next().unwrap());
    blocks.map(ToOwned::to_owned).collect()
}

fn names(file: &Value) -> BTreeSet<String> {
    file.as_object().unwrap().keys().cloned().collect()
}

#[test]
fn breaker_files_on_page_are_complete_and_equal() {
    let page = page();
    let [toml, json] =
        ["toml", "json"].map(|language| blocks(&page, "Circuit breaker file", language).remove(0));
    let built = BreakerConfig::builder()
        .name("search")
        .consecutive_failures(7)
        .consecutive_failures_span(3 * SECOND)
        .failure_rate(0.25)
        .slow_call_rate(Duration::from_millis(1_500), 0.1)
        .minimum_calls(20)
        .time_window(30 * SECOND)
        .count_failed_retries(true)
        .cancelled(CancelledPolicy::FailureAfter(5 * SECOND))
        .open_for(10 * SECOND)
        .open_backoff(2.0, 600 * SECOND)
        .open_jitter(0.2)
        .max_retry_after(60 * SECOND)
        .seed(7)
        .probes(4)
        .successes_to_close(9)
        .probe_lease(5 * SECOND)
        .slow_start(7 * SECOND)
        .mode(Mode::ObserveOnly)
        .build()
        .unwrap();
    assert_eq!(toml::from_str::<BreakerConfig>(&toml).unwrap(), built);
    assert_eq!(serde_json::from_str::<BreakerConfig>(&json).unwrap(), built);
    let written = serde_json::to_value(&built).unwrap();
    assert_eq!(names(&serde_json::from_str(&json).unwrap()), names(&written));
}

/// Serializes a policy, because policies cannot be compared.
fn written(policy: &RetryPolicy) -> Value {
    serde_json::to_value(policy).unwrap()
}

#[test]
fn retry_files_on_page_are_complete_and_equal() {
    let page = page();
    let [toml, json] = ["toml", "json"].map(|language| blocks(&page, "Retry file", language).remove(0));
    let budget = Budget::tokens().capacity(20).initial(5).per_success(0.1).timeout_cost(3.0).build().unwrap();
    let built = RetryPolicy::builder()
        .name("search")
        .max_attempts(5)
        .initial_backoff(Duration::from_millis(50))
        .backoff_multiplier(1.5)
        .max_backoff(90 * SECOND)
        .jitter(Jitter::Proportional(0.5))
        .max_elapsed(20 * SECOND)
        .max_retry_after(120 * SECOND)
        .safety(RetrySafety::ByMethod)
        .non_idempotent(NonIdempotent::Unsent)
        .follows_redirects(false)
        .budget(budget)
        .seed(7)
        .replay_limit(64 * 1024)
        .idempotent_methods(["shop.Orders/Get", "shop.Stock/*"])
        .marker_header(http::HeaderName::from_static("x-attempt"))
        .remove_marker(true)
        .build()
        .unwrap();
    assert_eq!(written(&toml::from_str(&toml).unwrap()), written(&built));
    assert_eq!(written(&serde_json::from_str(&json).unwrap()), written(&built));
    assert_eq!(names(&serde_json::from_str(&json).unwrap()), names(&written(&built)));
}

#[test]
fn keyed_files_on_page_are_complete_and_equal() {
    let page = page();
    let [toml, json] =
        ["toml", "json"].map(|language| blocks(&page, "Keyed circuits file", language).remove(0));
    let each = BreakerConfig::builder().name("upstreams").failure_rate(0.25).open_for(10 * SECOND);
    let each = each.build().unwrap();
    let slow = each.to_builder().failure_rate(0.5).build().unwrap();
    let built = KeyedConfig::builder(each).max_keys(500).overflow(Overflow::Shared).key_label(100);
    let built = built.key("slow.example", slow).build().unwrap();
    assert_eq!(toml::from_str::<KeyedConfig>(&toml).unwrap(), built);
    assert_eq!(serde_json::from_str::<KeyedConfig>(&json).unwrap(), built);
    let written = serde_json::to_value(&built).unwrap();
    assert_eq!(names(&serde_json::from_str(&json).unwrap()), names(&written));
}

#[test]
fn budgets_on_page_have_default_values() {
    let budgets = [Budget::window().build(), Budget::grpc().build(), Budget::aws().build()];
    let (page, budgets) = (page(), budgets.map(Result::unwrap));
    let blocks = &blocks(&page, "Retry file", "json")[1..];
    assert_eq!(blocks.len(), budgets.len());
    for (block, budget) in blocks.iter().zip(budgets) {
        let built = RetryPolicy::builder().budget(budget).build().unwrap();
        assert_eq!(written(&serde_json::from_str(block).unwrap()), written(&built));
    }
}

#[test]
fn clock_and_shared_budget_are_added_to_loaded_settings() {
    #[derive(serde::Deserialize)]
    struct Settings {
        breaker: BreakerConfig,
        keyed: KeyedConfig,
        search: RetryPolicy,
        orders: RetryPolicy,
        budget: Budget,
    }

    let file = "
        [breaker]
        failure_rate = 0.25
        [keyed]
        max_keys = 9
        [search]
        max_attempts = 2
        [orders]
        preset = \"gateway\"
        [budget.tokens]
        capacity = 20
    ";
    let Settings { breaker, keyed, search, orders, budget } = toml::from_str(file).unwrap();
    let with_clock = breaker.to_builder().clock(Clock::precise()).build().unwrap();
    assert_eq!((with_clock.failure_rate(), with_clock.clock()), (Some(0.25), Some(Clock::precise())));
    assert_eq!(keyed.to_builder().max_keys(10).build().unwrap().max_keys(), 10);
    let shared = |policy: RetryPolicy| policy.to_builder().budget(budget.clone()).build().unwrap();
    let (search, orders) = (shared(search), shared(orders));
    assert_eq!((search.max_attempts(), orders.safety()), (Some(2), RetrySafety::ByMethod));
    assert_eq!((search.budget(), orders.budget()), (Some(&budget), Some(&budget)));
}

#[test]
fn duration_in_own_settings_has_format_of_configurations() {
    #[derive(Debug, serde::Deserialize, serde::Serialize, schemars::JsonSchema)]
    struct Settings {
        timeout: HumanDuration,
    }

    let settings: Settings = toml::from_str("timeout = \"1m 30s\"").unwrap();
    assert_eq!(Duration::from(settings.timeout), 90 * SECOND);
    assert_eq!(toml::to_string(&settings).unwrap(), "timeout = \"1m 30s\"\n");
    let error = toml::from_str::<Settings>("timeout = \"2 sec\"").unwrap_err();
    let expected = "invalid duration \"2 sec\"; allowed are numbers such as \"1m 30s\", with the units ns,";
    assert!(error.message().starts_with(expected), "{error}");
    assert_eq!(error.span(), Some(10..17));
    let error = toml::from_str::<Settings>("timeout = 2").unwrap_err();
    let expected = "invalid type: integer `2`, expected a duration such as \"1m 30s\", with the units ns,";
    assert!(error.message().starts_with(expected), "{error}");

    let validator = jsonschema::validator_for(&schemars::schema_for!(Settings).to_value()).unwrap();
    let accepts = |timeout: &str| validator.is_valid(&serde_json::json!({ "timeout": timeout }));
    assert_eq!(["1m 30s", "1.5s", "2", "2 sec", ""].map(accepts), [true, true, false, false, false]);
}

#[test]
fn error_on_page_is_the_real_one() {
    let file = "name = \"search\"\nprobes = 4\nfailure_rate = 1.5\n";
    let error = toml::from_str::<BreakerConfig>(file).unwrap_err();
    assert!(page().contains(&error.to_string()), "{error}");
}

/// Reads a retry's file, and returns the policy that it results in.
fn read_retry(file: &str) -> Result<Value, String> {
    let policy = toml::from_str::<RetryPolicy>(file).map_err(|error| error.to_string())?;
    Ok(written(&policy))
}

#[test]
fn classification_defaults_on_page_are_real() {
    let page = page();
    let default = |setting: &str| {
        rows(&page, "Classification defaults").into_iter().find(|row| row[0] == setting).unwrap()[1]
    };
    let bodies = format!("{:?}", ErrorBodies::new(LlmErrors::new()));
    assert!(bodies.contains("limit: 65536") && default("`ErrorBodies::limit`") == "64 KiB", "{bodies}");
    assert!(bodies.contains("timeout: 1s") && default("`ErrorBodies::timeout`") == "1 s", "{bodies}");
    let fault = classify_error(&std::fmt::Error);
    let axes = format!(
        "kind `{}`, retryable `{}`, health `{}`, origin `{}`",
        fault.kind(),
        fault.retryable(),
        fault.health(),
        fault.origin()
    );
    assert_eq!(default("`UnknownErrors`"), axes);
}

#[test]
fn presets_on_page_have_real_values() {
    let page = page();
    let file = |preset: &str| {
        let row = rows(&page, "Presets").into_iter().find(|row| row[0] == preset).unwrap();
        code(row[2]).join("\n")
    };
    let single_flight = BreakerConfig::single_flight().build().unwrap();
    let on_page = toml::from_str::<BreakerConfig>(&file("`BreakerConfig::single_flight()`"));
    assert_eq!(on_page.unwrap(), single_flight);
    let gateway = RetryPolicy::gateway().build().unwrap();
    assert_eq!(read_retry(&file("`RetryPolicy::gateway()`")), Ok(written(&gateway)));
}
