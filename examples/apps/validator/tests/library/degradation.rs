//! Results of validators that fail in any way.

use std::cell::Cell;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use serde_json::Map;
use test_servers::RefusedPort;
use tokio::time::{Instant, sleep};
use validator::error::CheckError;
use validator::external::{External, ExternalConfig, ToolValidator, http_client};
use validator::orchestrator::ValidationOrchestrator;
use validator::resilience::{Resilience, ResilienceSettings};
use validator::result::{Details, ValidationResult, Verdict};
use validator::timeouts::Timeouts;
use validator::validator::Validator;

use crate::support::{Behavior, Stub, orchestrator};

fn summary(result: &ValidationResult) -> (&str, bool, &str, Option<&str>) {
    (&result.dimension, result.passed, &result.message, result.error())
}

#[tokio::test(start_paused = true)]
async fn partial_results_on_timeout() {
    let validators = [Stub("security", Behavior::Hangs), Stub("lint", Behavior::Passes)];
    let report = orchestrator(validators).run_graceful().await;
    let [security, lint] = &*report.results else { panic!("{report:?}") };
    assert_eq!(summary(security), ("security", false, "Timeout after 90s", Some("timeout")));
    assert_eq!(summary(lint), ("lint", true, "lint has run", None));
    assert!(!report.passed && report.degraded && !report.has_failed_check());
}

#[tokio::test]
async fn partial_results_on_exception() {
    let validators = [Stub("security", Behavior::ReturnsError), Stub("lint", Behavior::Passes)];
    let report = orchestrator(validators).run_graceful().await;
    let [security, lint] = &*report.results else { panic!("{report:?}") };
    // The limit is 100 characters, not bytes. The details have the whole text.
    let message = format!("Error: {}…", "é".repeat(99));
    assert_eq!(security.details["text"], "é".repeat(300));
    assert_eq!(summary(security), ("security", false, &*message, Some("std::io::error::Error")));
    assert_eq!(summary(lint), ("lint", true, "lint has run", None));
    assert!(!report.passed && report.degraded && !report.has_failed_check());
}

#[tokio::test]
async fn partial_results_on_panic() {
    let validators = [
        Stub("security", Behavior::Panics),
        Stub("visual", Behavior::PanicsAtOnce),
        Stub("lint", Behavior::Passes),
    ];
    let report = orchestrator(validators).run_graceful().await;
    let results: Vec<_> = report.results.iter().map(summary).collect();
    let expected = [
        ("security", false, "Error: index 7 is wrong", Some("panic")),
        ("visual", false, "Error: not ready", Some("panic")),
        ("lint", true, "lint has run", None),
    ];
    assert_eq!(results, expected);
}

#[tokio::test(start_paused = true)]
async fn all_validators_run_despite_failures() {
    use Behavior::{Fails, Hangs, Panics, Passes, ReturnsError};
    let behaviors = [Hangs, ReturnsError, Panics, Fails, Hangs, Passes, ReturnsError, Hangs, Passes];
    let dimensions = ["a", "b", "c", "d", "e", "f", "g", "h", "i"];
    let validators = dimensions.into_iter().zip(behaviors).map(|(name, behavior)| Stub(name, behavior));
    let finished = Cell::new(0);
    let report = orchestrator(validators)
        .concurrency(NonZeroUsize::new(2).unwrap())
        .run_graceful_with(|_| finished.set(finished.get() + 1))
        .await;
    let order: Vec<_> = report.results.iter().map(|result| &*result.dimension).collect();
    assert_eq!(order, dimensions);
    assert_eq!(finished.get(), 9);
    let passed: Vec<_> = report.results.iter().map(|result| u8::from(result.passed)).collect();
    assert_eq!(passed, [0, 0, 0, 0, 0, 1, 0, 0, 1]);
    assert!(!report.passed && report.degraded && report.has_failed_check());
}

#[tokio::test]
async fn report_without_failures_has_passed() {
    let report = orchestrator([Stub("lint", Behavior::Passes)]).run_graceful().await;
    assert!(report.passed && !report.degraded && !report.has_failed_check() && !report.is_interrupted());
    let report = orchestrator([Stub("lint", Behavior::Fails)]).run_graceful().await;
    assert!(!report.passed && !report.degraded && report.has_failed_check());
}

#[tokio::test(start_paused = true)]
async fn interrupted_run_keeps_finished_results() {
    use Behavior::{Fails, Hangs, Passes};
    let validators = [
        Stub("lint", Hangs),
        Stub("security", Fails),
        Stub("coverage", Hangs),
        // It waits for a permit.
        Stub("visual", Passes),
    ];
    let finished = Cell::new(0);
    let start = Instant::now();
    let report = orchestrator(validators)
        .concurrency(NonZeroUsize::new(2).unwrap())
        .run_graceful_until(sleep(Duration::from_secs(7)), |_| finished.set(finished.get() + 1))
        .await;
    assert_eq!(start.elapsed(), Duration::from_secs(7));
    let results: Vec<_> = report.results.iter().map(summary).collect();
    let interrupted = |dimension| (dimension, false, "Interrupted", Some("interrupted"));
    let expected = [
        interrupted("lint"),
        ("security", false, "security has run", None),
        interrupted("coverage"),
        interrupted("visual"),
    ];
    assert_eq!(results, expected);
    assert_eq!(finished.get(), 4);
    assert!(report.is_interrupted() && report.degraded && report.has_failed_check());
}

/// The call of an external service fails, and there is no circuit that has an effect. Without the
/// cargo feature `resilience`, there is no circuit at all.
#[tokio::test]
async fn graceful_no_resilience_module() {
    let port = RefusedPort::bind();
    let config =
        ExternalConfig { mcp: Some(port.url()), max_attempts: 1.try_into().unwrap(), ..Default::default() };
    let client = http_client(&config).unwrap();
    let external = External::new(config, client, Resilience::new(&ResilienceSettings::default()));
    let tool = ToolValidator::new("behavioral", 3, "check", Map::new(), external).unwrap();
    let validators: Vec<Box<dyn Validator>> = vec![
        Box::new(tool),
        Box::new(Stub("coverage", Behavior::ReturnsError)),
        Box::new(Stub("lint", Behavior::Passes)),
    ];
    let report = ValidationOrchestrator::new(validators, Timeouts::new()).run_graceful().await;
    let errors: Vec<_> = report.results.iter().map(ValidationResult::error).collect();
    assert_eq!(errors, [Some("reqwest::error::Error"), Some("std::io::error::Error"), None]);
    assert!(report.results[0].message.starts_with("Error: "), "{:?}", report.results[0]);
    assert!(report.results[2].passed);
}

/// Counts how many of its kind run at the same time.
#[derive(Debug)]
struct Counted {
    running: &'static AtomicUsize,
    most: &'static AtomicUsize,
}

impl Validator for Counted {
    fn dimension(&self) -> &'static str {
        "coverage"
    }

    fn tier(&self) -> u8 {
        1
    }

    fn validate(&self) -> BoxFuture<'_, Result<Verdict, CheckError>> {
        async {
            self.most.fetch_max(1 + self.running.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
            sleep(Duration::from_secs(200)).await;
            self.running.fetch_sub(1, Ordering::Relaxed);
            Ok(Verdict { passed: true, message: String::new(), details: Details::new() })
        }
        .boxed()
    }
}

#[tokio::test(start_paused = true)]
async fn concurrency_limits_running_validators() {
    static RUNNING: AtomicUsize = AtomicUsize::new(0);
    static MOST: AtomicUsize = AtomicUsize::new(0);
    let start = Instant::now();
    let validators = (0..7).map(|_| Counted { running: &RUNNING, most: &MOST });
    let report = orchestrator(validators).concurrency(NonZeroUsize::new(3).unwrap()).run_graceful().await;
    // The wait for a permit is not in the time limit of 300 s.
    assert!(report.passed, "{report:?}");
    assert_eq!(MOST.load(Ordering::Relaxed), 3);
    assert_eq!(start.elapsed(), Duration::from_secs(600));
}
