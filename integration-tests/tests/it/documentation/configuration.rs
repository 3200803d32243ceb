//! `docs/configuration.md`: its files are complete, and are read as the configurations that they
//! show.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use serde_json::Value;
use tower_breaker::{BreakerConfig, CancelledPolicy, Mode};
use tower_jitter_retry::{Budget, Jitter, NonIdempotent, RetryPolicy, RetrySafety};

use super::SECOND;

fn page() -> String {
    fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md")).unwrap()
}

/// The code blocks of a language below a heading.
fn blocks(page: &str, heading: &str, language: &str) -> Vec<String> {
    let (_, section) = page.split_once(&format!("\n## {heading}\n")).unwrap();
    let section = section.split("\n## ").next().unwrap();
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
    let [toml, json] = ["toml", "json"].map(|language| blocks(&page, "Circuit breaker", language).remove(0));
    let built = BreakerConfig::builder()
        .name("search")
        .consecutive_failures(7)
        .failure_rate(0.25)
        .slow_call_rate(Duration::from_millis(1_500), 0.1)
        .minimum_calls(20)
        .time_window(30 * SECOND)
        .cancelled(CancelledPolicy::FailureAfter(5 * SECOND))
        .open_for(10 * SECOND)
        .open_backoff(2.0, 600 * SECOND)
        .open_jitter(0.2)
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

/// The policies of a page are compared as they are written.
fn written(policy: &RetryPolicy) -> Value {
    serde_json::to_value(policy).unwrap()
}

#[test]
fn retry_files_on_page_are_complete_and_equal() {
    let page = page();
    let [toml, json] = ["toml", "json"].map(|language| blocks(&page, "Retry", language).remove(0));
    let budget = Budget::window().ratio(0.1).min_per_second(3).span(10 * SECOND).build().unwrap();
    let built = RetryPolicy::builder()
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
fn budgets_on_page_have_default_values() {
    let [grpc, aws] = [Budget::grpc().build(), Budget::aws().build()].map(Result::unwrap);
    for (block, budget) in blocks(&page(), "Retry", "json")[1..].iter().zip([grpc, aws]) {
        let built = RetryPolicy::builder().budget(budget).build().unwrap();
        assert_eq!(written(&serde_json::from_str(block).unwrap()), written(&built));
    }
}

#[test]
fn error_on_page_is_the_real_one() {
    let file = "name = \"search\"\nprobes = 4\nfailure_rate = 1.5\n";
    let error = toml::from_str::<BreakerConfig>(file).unwrap_err();
    assert!(page().contains(&error.to_string()), "{error}");
}
