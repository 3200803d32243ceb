//! Compares the metrics that a Prometheus exporter prints with the tables in
//! `docs/observability.md`.
//!
//! The recorder is installed for the whole process, and after the first circuits were created. So
//! this is a test program of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::time::Duration;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tower::{Layer, ServiceExt, service_fn};
use tower_breaker::keyed::{KeyedCircuits, KeyedConfig, Overflow};
use tower_breaker::telemetry::register_metrics;
use tower_breaker::{BreakerConfig, BreakerConfigBuilder, Circuit, Clock, ManualClock, Verdict};
use tower_fault_classify::{Fault, FaultClassifyLayer, Health, Kind, Origin, Retryable};
use tower_jitter_retry::{Budget, JitterRetryLayer, RetryPolicy, RetryPolicyBuilder};

const SECOND: Duration = Duration::from_secs(1);
const FAILURE: Verdict =
    Verdict::Fault(Fault::new(Kind::Server, Retryable::Never, Health::Unhealthy, Origin::Remote));

/// The labels by metric, as the exporter prints them.
type Labels = BTreeMap<String, BTreeSet<BTreeSet<String>>>;

fn config(name: &'static str) -> (BreakerConfigBuilder, ManualClock) {
    let (clock, time) = Clock::manual();
    time.set(1_000 * SECOND);
    let config = BreakerConfig::builder().name(name).clock(clock);
    (config.consecutive_failures_span(Duration::ZERO).slow_call_rate(SECOND, 1.0), time)
}

fn circuit(name: &'static str) -> (Circuit, ManualClock) {
    let (config, time) = config(name);
    (Circuit::new(config.build().unwrap()), time)
}

fn succeed(circuit: &Circuit) {
    circuit.try_acquire().unwrap().record(Verdict::Success);
}

/// Returns the value of a series.
fn value(page: &str, series: &str) -> Option<f64> {
    let line = page.lines().find(|line| line.starts_with(&format!("{series} ")))?;
    Some(line.rsplit(' ').next().unwrap().parse().unwrap())
}

fn install() -> PrometheusHandle {
    let recorder = PrometheusBuilder::new().set_buckets(&[0.1, 1.0]).unwrap().build_recorder();
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder).unwrap();
    handle
}

#[test]
fn exporter_prints_the_metrics_of_the_guide() {
    let (early, time) = circuit("early");
    let (idle, _) = circuit("idle");
    idle.trip().unwrap();
    let keys = keyed("tenants", 10, Some(2));
    for key in ["a", "b", "c"] {
        keys.get_or_insert(key.to_owned()).unwrap();
    }
    keys.get("b").unwrap().trip().unwrap();
    succeed(&early);

    let exporter = install();
    succeed(&early);
    assert_eq!(exporter.render(), "", "a call of the same bucket does not look for a recorder");
    time.advance(SECOND);
    succeed(&early);
    succeed(&early);
    let page = exporter.render();
    let successes = r#"tower_breaker_calls_total{circuit="early",outcome="success"}"#;
    assert_eq!(value(&page, successes), Some(1.0), "the first call of the bucket has found the recorder");
    // The first event has registered the metrics of all circuits.
    for (series, circuits) in [
        (r#"{circuit="early",state="closed"}"#, 1.0),
        (r#"{circuit="idle",state="open"}"#, 1.0),
        (r#"{circuit="idle",state="closed"}"#, 0.0),
        (r#"{circuit="tenants",key="a",state="closed"}"#, 1.0),
        (r#"{circuit="tenants",key="b",state="open"}"#, 1.0),
        (r#"{circuit="tenants",key="(other)",state="closed"}"#, 1.0),
    ] {
        assert_eq!(value(&page, &format!("tower_breaker_circuits{series}")), Some(circuits), "{series}");
    }
    register_metrics();
    assert_eq!(labels(&exporter.render()), labels(&page), "nothing was left to register");

    drive_breaker();
    keys.get("a").unwrap().trip().unwrap();
    drive_retry();
    drive_classify();
    let page = exporter.render();
    let guide = guide();
    check_page(&page, &guide);
    check_alerts(&labels(&page), &guide);
}

fn keyed(name: &'static str, max_keys: usize, key_label: Option<usize>) -> KeyedCircuits<String> {
    let config = KeyedConfig::builder(config(name).0.build().unwrap());
    let config = config.max_keys(max_keys).overflow(Overflow::Shared).key_label(key_label);
    KeyedCircuits::new(config.build().unwrap())
}

/// Causes each kind of event of a circuit, and evictions and overflows of keyed circuits.
fn drive_breaker() {
    let (circuit, time) = circuit("search");
    let slow = circuit.try_acquire().unwrap();
    time.advance(2 * SECOND);
    slow.record(Verdict::Success);
    (0..5).for_each(|_| circuit.try_acquire().unwrap().record(FAILURE));
    circuit.try_acquire().unwrap_err();

    let keys = keyed("hosts", 1, None);
    let call = |key| keys.try_acquire(key).unwrap().record(Verdict::Success);
    call("first");
    // The idle circuit is evicted.
    call("second");
    let held = keys.get("second").unwrap();
    call("third");
    drop(held);
}

fn immediate() -> RetryPolicyBuilder {
    RetryPolicy::builder().initial_backoff(Duration::ZERO).name("search")
}

/// Causes retries, and calls that are not retried.
fn drive_retry() {
    let no_retries = Budget::window().ratio(0.0).min_per_second(0).build().unwrap();
    for policy in [immediate(), immediate().budget(no_retries)] {
        let refused = || Err::<(), _>(io::Error::from(io::ErrorKind::ConnectionRefused));
        policy.build().unwrap().retry_blocking(refused).unwrap_err();
    }
    let layer = JitterRetryLayer::new(RetryPolicy::default());
    let service = layer.layer(service_fn(async |_: u32| Ok::<_, io::Error>(())));
    tokio_test::block_on(service.oneshot(1)).unwrap();
}

fn drive_classify() {
    let layer = FaultClassifyLayer::new().name("search");
    let service = layer.layer(service_fn(async |()| {
        Err::<http::Response<()>, _>(io::Error::from(io::ErrorKind::ConnectionRefused))
    }));
    tokio_test::block_on(service.oneshot(())).unwrap_err();
}

fn guide() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/observability.md");
    std::fs::read_to_string(path).unwrap()
}

/// Returns the names of labels by the name of the metric.
fn labels(page: &str) -> Labels {
    let mut found = Labels::new();
    for line in page.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (series, _) = line.rsplit_once(' ').unwrap();
        let (name, labels) = series.split_once('{').unwrap();
        let name =
            ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
        // No value of this test contains a comma.
        let labels = labels.trim_end_matches('}').split(',').map(|label| label.split_once('=').unwrap().0);
        let labels = labels.filter(|label| *label != "le").map(str::to_owned).collect();
        found.entry(name.to_owned()).or_default().insert(labels);
    }
    found
}

/// Checks that the page has exactly the metrics of the guide's tables, and describes each of them.
fn check_page(page: &str, guide: &str) {
    let printed = labels(page);
    let mut documented = BTreeSet::new();
    for row in guide.lines().filter(|line| line.starts_with("| `tower_") && line.matches('|').count() >= 5) {
        let cells: Vec<_> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let [name, kind, of_guide, ..] = cells[..] else { continue };
        if !["counter", "gauge", "histogram"].contains(&kind) {
            continue;
        }
        let name = name.trim_matches('`');
        documented.insert(name.to_owned());
        assert_eq!(kind == "counter", name.ends_with("_total"), "{name}");
        assert!(page.contains(&format!("# TYPE {name} {kind}\n")), "{name} is no {kind}");
        assert!(page.contains(&format!("# HELP {name} ")), "{name} has no description");
        let of_guide: BTreeSet<_> =
            of_guide.split('`').skip(1).step_by(2).map(|label| label.replace('.', "_")).collect();
        let mut with_key = of_guide.clone();
        with_key.insert("key".to_owned());
        let expected =
            if of_guide.contains("circuit") && !name.contains("evictions") && !name.contains("overflows") {
                BTreeSet::from([of_guide, with_key])
            } else {
                BTreeSet::from([of_guide])
            };
        assert_eq!(printed.get(name), Some(&expected), "{name}");
    }
    assert_eq!(printed.keys().cloned().collect::<BTreeSet<_>>(), documented, "the guide lists every metric");
}

/// Checks that each query for an alert uses printed metrics, with labels that they have.
fn check_alerts(printed: &Labels, guide: &str) {
    let (_, alerts) = guide.split_once("\n## Alerts\n").unwrap();
    let queries: Vec<_> = alerts.lines().filter(|line| line.contains("tower_")).collect();
    assert!(queries.len() >= 9, "{queries:?}");
    for query in queries {
        let query = query.replace("\\|", "|");
        let words: Vec<_> = query
            .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .filter(|word| !word.is_empty())
            .collect();
        let metrics: Vec<_> = words.iter().filter(|word| word.starts_with("tower_")).collect();
        let mut known = BTreeSet::new();
        for metric in metrics {
            let labels = printed.get(*metric).unwrap_or_else(|| panic!("{metric} does not exist: {query}"));
            known.extend(labels.iter().flatten().map(String::as_str));
        }
        let by = query.split("by (").skip(1).flat_map(|rest| rest.split(')').next().unwrap().split(", "));
        let selected = query.split('{').skip(1).map(|rest| rest.split(['=', '!']).next().unwrap());
        for label in by.chain(selected) {
            assert!(known.contains(label), "{label}: {query}");
        }
    }
}
