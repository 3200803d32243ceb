//! Checks the dashboard of Grafana and the alerts of Prometheus: a real Prometheus scrapes the
//! program, and answers each of their queries.
#![cfg(unix)]

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use test_servers::Prometheus;

/// These metrics have no series before the first error of the store.
const WITHOUT_SERIES: [&str; 1] = ["tower_breaker_fleet_errors_total"];

fn monitoring(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../grafana").join(file)
}

/// The running program.
struct Dashboard {
    child: Child,
    /// Its host and port.
    address: String,
}

impl Dashboard {
    fn start() -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_dashboard"))
            .args(["--seconds", "300"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("the output is piped");
        BufReader::new(stdout).read_line(&mut line).expect("the program prints its address");
        let address = line.trim_start_matches("http://").split('/').next().expect("the URL has a host");
        Self { address: address.to_owned(), child }
    }
}

impl Drop for Dashboard {
    fn drop(&mut self) {
        // An error: the program has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn grafana_dashboard() -> Value {
    let text = std::fs::read_to_string(monitoring("tower-breaker.json")).expect("the file exists");
    serde_json::from_str(&text).expect("the dashboard is JSON")
}

/// Returns the values of the fields `expr` anywhere in the dashboard.
fn queries(dashboard: &Value) -> Vec<String> {
    match dashboard {
        Value::Object(fields) => fields
            .iter()
            .flat_map(|(name, value)| match (name.as_str(), value) {
                ("expr", Value::String(query)) => vec![query.clone()],
                _ => queries(value),
            })
            .collect(),
        Value::Array(items) => items.iter().flat_map(queries).collect(),
        _ => Vec::new(),
    }
}

/// Returns the names of metrics in a query or in a file.
fn metric_names(text: &str) -> BTreeSet<String> {
    let words = text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
    let names = words.filter(|word| word.starts_with("tower_breaker_"));
    names.map(|name| name.trim_end_matches("_bucket").to_owned()).collect()
}

async fn get(url: &str, query: &[(&str, &str)]) -> Value {
    let url = reqwest::Url::parse_with_params(url, query).expect("the URL is valid");
    let response = reqwest::get(url).await.expect("the server answers");
    let text = response.text().await.expect("the response has a text");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn alerts_are_valid_and_pass_their_tests() {
    for arguments in [["check", "rules", "alerts.yml"], ["test", "rules", "alerts.test.yml"]] {
        let [command, what, file] = arguments;
        let path = monitoring(file);
        if let Err(output) = Prometheus::promtool(&[command, what, path.to_str().expect("the path is UTF-8")])
        {
            panic!("{output}");
        }
    }
}

#[tokio::test]
async fn prometheus_answers_each_query_of_the_grafana_dashboard() {
    test_servers::install_ring();
    let program = Dashboard::start();
    let prometheus = Prometheus::start(&format!(
        "scrape_configs: [{{ job_name: dashboard, scrape_interval: 1s, static_configs: [{{ targets: ['{}'] }}] }}]",
        program.address
    ));
    let url = format!("{}/api/v1/query", prometheus.url());

    // `tax-rates` fails at the start, so the fleet opens its circuit and sends probes.
    let probes = [("query", "sum(tower_breaker_fleet_probes_total) > 0")];
    while get(&url, &probes).await["data"]["result"].as_array().is_none_or(Vec::is_empty) {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }

    let dashboard = grafana_dashboard();
    let queries = queries(&dashboard);
    assert!(queries.len() > 10, "{queries:?}");
    for query in &queries {
        let query = query.replace("$__rate_interval", "30s").replace("$circuit", ".*");
        let answer = get(&url, &[("query", &query)]).await;
        assert_eq!(answer["status"], "success", "{query}: {answer}");
    }

    let alerts = std::fs::read_to_string(monitoring("alerts.yml")).expect("the file exists");
    let mut used = metric_names(&alerts);
    used.extend(queries.iter().flat_map(|query| metric_names(query)));
    let names = get(&format!("{}/api/v1/label/__name__/values", prometheus.url()), &[]).await;
    for name in used.iter().filter(|name| !WITHOUT_SERIES.contains(&name.as_str())) {
        let is_scraped =
            names["data"].as_array().is_some_and(|names| names.iter().any(|known| known == name));
        assert!(is_scraped, "no series of `{name}`: {names}");
    }
}
