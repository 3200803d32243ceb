//! Reloads the settings of the example while requests run.

#[path = "../../../../examples/axum_gateway/main.rs"]
#[expect(dead_code, reason = "the tests start the gateway without its demonstration")]
mod example;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::{env, fs, process};

use axum::Router;
use axum::http::StatusCode;
use example::RunningGateway;
use integration_tests::{TIMEOUT, reqwest_client, serve};
use reqwest::Client;
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::wait_until;

/// The circuit of the prices opens at the first failure, and stays open during the test.
const SETTINGS: &str = r#"
listen = "127.0.0.1:0"
admin_listen = "127.0.0.1:0"
attempt_timeout = "30s"

[upstreams.orders]
address = "ORDERS"
required = true

[upstreams.prices]
address = "PRICES"

[breaker.each]
name = "upstreams"

[breaker.keys.prices]
consecutive_failures = 1
open_for = "1h"

[retry]
preset = "gateway"
initial_backoff = "0s"
max_attempts = 2
"#;

/// An upstream whose requests wait for permits.
struct Upstream {
    address: SocketAddr,
    received: Arc<AtomicUsize>,
    permits: Arc<Semaphore>,
    fails: Arc<AtomicBool>,
}

impl Upstream {
    async fn start() -> Self {
        let (received, permits) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
        let fails = Arc::new(AtomicBool::new(false));
        let (counter, gate, failing) = (Arc::clone(&received), Arc::clone(&permits), Arc::clone(&fails));
        let answer = async move || {
            counter.fetch_add(1, Ordering::Relaxed);
            gate.acquire().await.unwrap().forget();
            if failing.load(Ordering::Relaxed) { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK }
        };
        let address = serve(Router::new().fallback(answer)).await;
        Self { address, received, permits, fails }
    }

    async fn failing() -> Self {
        let upstream = Self::start().await;
        upstream.fails.store(true, Ordering::Relaxed);
        upstream.permits.add_permits(1_000);
        upstream
    }

    fn received(&self) -> usize {
        self.received.load(Ordering::Relaxed)
    }
}

/// A gateway of the example with its settings file.
struct Reloaded {
    running: RunningGateway,
    folder: PathBuf,
    settings: String,
    client: Client,
}

impl Reloaded {
    async fn start(test: &str, orders: &Upstream, prices: &Upstream) -> Self {
        Self::start_in(test, orders, prices, |folder, settings| {
            let file = folder.join("settings.toml");
            fs::write(&file, settings).unwrap();
            file
        })
        .await
    }

    /// Starts a gateway with the file that `create` creates in a folder.
    async fn start_in(
        test: &str,
        orders: &Upstream,
        prices: &Upstream,
        create: impl FnOnce(&Path, &str) -> PathBuf,
    ) -> Self {
        let folder = env::temp_dir().join(format!("gateway_reload_{test}_{}", process::id()));
        fs::create_dir_all(&folder).unwrap();
        let settings = SETTINGS.replace("ORDERS", &orders.address.to_string());
        let settings = settings.replace("PRICES", &prices.address.to_string());
        let running = RunningGateway::start(&create(&folder, &settings)).await.unwrap();
        Self { running, folder, settings, client: reqwest_client().build().unwrap() }
    }

    /// Writes the settings with one part replaced.
    fn replace(&self, from: &str, to: &str) {
        assert!(self.settings.contains(from), "{from}");
        fs::write(self.folder.join("settings.toml"), self.settings.replace(from, to)).unwrap();
    }

    fn put(&self, path: &str) -> impl Future<Output = u16> + Send + use<> {
        let request = self.client.put(format!("http://{}{path}", self.running.address));
        async move { request.send().await.unwrap().status().as_u16() }
    }

    /// Requests an operation of the operator.
    async fn post(&self, path: &str) -> u16 {
        let page = format!("http://{}{path}", self.running.admin_address);
        self.client.post(page).send().await.unwrap().status().as_u16()
    }

    async fn status(&self) -> Value {
        let page = format!("http://{}/status", self.running.admin_address);
        let text = self.client.get(page).send().await.unwrap().text().await.unwrap();
        serde_json::from_str(&text).unwrap()
    }

    /// Waits until the status page fulfils a condition.
    async fn status_when(&self, condition: impl Fn(&Value) -> bool) -> Value {
        let wait = async {
            loop {
                let status = self.status().await;
                if condition(&status) {
                    return status;
                }
            }
        };
        timeout(TIMEOUT, wait).await.unwrap()
    }

    /// Waits until changes of the file have been applied.
    async fn applied(&self, changes: u64) -> Value {
        self.status_when(|status| status["reload"]["applied"] == changes).await
    }
}

impl Drop for Reloaded {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn circuit<'a>(status: &'a Value, key: &str) -> &'a Value {
    let circuits = status["circuits"].as_array().unwrap();
    circuits.iter().find(|circuit| circuit["key"] == key).unwrap_or_else(|| panic!("no {key} in {status}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn reload_during_requests_keeps_them_and_open_circuit() {
    let (orders, prices) = (Upstream::start().await, Upstream::failing().await);
    let gateway = Reloaded::start("requests", &orders, &prices).await;
    assert_eq!(gateway.put("/prices/1").await, 503);
    // A retry that fails takes a token.
    orders.fails.store(true, Ordering::Relaxed);
    orders.permits.add_permits(2);
    assert_eq!(gateway.put("/orders/0").await, 503);
    orders.fails.store(false, Ordering::Relaxed);
    let before = gateway.status().await;
    assert_eq!(circuit(&before, "prices")["state"], "open");
    assert_eq!(before["retries_available"], 99.0);

    let mut running = JoinSet::new();
    for number in 1..=100 {
        running.spawn(gateway.put(&format!("/orders/{number}")));
    }
    wait_until(|| orders.received() == 102).await;
    gateway.replace(
        "max_attempts = 2",
        "max_attempts = 3\n[breaker.keys.orders]\nconsecutive_failures = 2\nconsecutive_failures_span = 'none'",
    );
    for number in 101..=200 {
        running.spawn(gateway.put(&format!("/orders/{number}")));
    }
    let after = gateway.applied(1).await;
    assert_eq!(after["retries_available"], 99.0);
    assert_eq!(after["max_attempts"], 3);
    orders.permits.add_permits(1_000);
    assert_eq!(running.join_all().await, [200; 200]);
    assert_eq!(orders.received(), 202, "no request was sent twice");

    let (before, after) = (circuit(&before, "prices"), circuit(&after, "prices"));
    assert_eq!((&after["state"], &after["last_trip"]), (&before["state"], &before["last_trip"]));
    assert_eq!(gateway.put("/prices/1").await, 503);
    assert_eq!(prices.received(), 1, "the open circuit rejects the request");

    // With the former limits, two failures do not open the circuit.
    orders.fails.store(true, Ordering::Relaxed);
    for requests in [205, 206] {
        assert_eq!(gateway.put("/orders/1").await, 503);
        assert_eq!(orders.received(), requests);
    }
    assert_eq!(circuit(&gateway.status().await, "orders")["state"], "open");
}

#[tokio::test(flavor = "multi_thread")]
async fn reload_of_invalid_file_changes_nothing_and_reports_reason() {
    let (orders, prices) = (Upstream::start().await, Upstream::failing().await);
    let gateway = Reloaded::start("invalid", &orders, &prices).await;
    assert_eq!(gateway.put("/prices/1").await, 503);
    for (from, to, reason) in [
        (
            "open_for = \"1h\"",
            "open_for = \"10\"",
            "`keys.prices.open_for` is \"10\"; allowed is 1ms to 365d",
        ),
        ("max_attempts = 2", "max_attempts = 0", "`max_attempts` is 0; allowed is 1 to 1000"),
        ("max_attempts = 2", "max_attempt = 9", "unknown field `max_attempt`"),
        (
            "[breaker.keys.prices]",
            "[breaker.keys.price]",
            "`breaker.keys.price` is not one of the `upstreams`",
        ),
        ("name = \"upstreams\"", "name = \"others\"", "`name` is \"others\"; allowed is \"upstreams\""),
        ("address = \"1", "address = \"/1", "invalid"),
        ("[retry]", "[retry", "expected"),
    ] {
        // Each file has other attempts, too, which do not apply.
        gateway.replace(from, &to.replace("max_attempts = 2", "max_attempts = 7"));
        let has_reason = |error: &str| error.contains(reason);
        let status =
            gateway.status_when(|status| status["reload"]["error"].as_str().is_some_and(has_reason)).await;
        assert_eq!((&status["reload"]["applied"], &status["max_attempts"]), (&0.into(), &2.into()));
        assert_eq!(circuit(&status, "prices")["state"], "open");
    }
    gateway.replace("max_attempts = 2", "max_attempts = 4");
    let status = gateway.applied(1).await;
    assert_eq!((&status["reload"]["error"], &status["max_attempts"]), (&Value::Null, &4.into()));
}

/// Editors and Kubernetes replace the file instead of writing to it.
#[tokio::test(flavor = "multi_thread")]
async fn upstream_with_new_address_in_replaced_file_gets_new_circuit() {
    let (orders, prices) = (Upstream::start().await, Upstream::failing().await);
    let gateway = Reloaded::start("address", &orders, &prices).await;
    assert_eq!(gateway.put("/prices/1").await, 503);
    let settings = gateway.settings.replace(&prices.address.to_string(), &orders.address.to_string());
    fs::write(gateway.folder.join("new.toml"), settings).unwrap();
    fs::rename(gateway.folder.join("new.toml"), gateway.folder.join("settings.toml")).unwrap();
    gateway.applied(1).await;
    orders.permits.add_permits(1);
    assert_eq!(gateway.put("/prices/1").await, 200);
    assert_eq!((prices.received(), orders.received()), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn removed_settings_file_keeps_settings_until_it_returns() {
    let (orders, prices) = (Upstream::start().await, Upstream::failing().await);
    let gateway = Reloaded::start("removed", &orders, &prices).await;
    fs::remove_file(gateway.folder.join("settings.toml")).unwrap();
    let status = gateway.status_when(|status| !status["reload"]["error"].is_null()).await;
    assert_eq!(status["max_attempts"], 2);
    gateway.replace("max_attempts = 2", "max_attempts = 2");
    assert_eq!(gateway.applied(1).await["reload"]["error"], Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn folder_created_again_is_followed() {
    let (orders, prices) = (Upstream::start().await, Upstream::failing().await);
    let gateway = Reloaded::start("folder", &orders, &prices).await;
    fs::remove_dir_all(&gateway.folder).unwrap();
    gateway.status_when(|status| !status["reload"]["error"].is_null()).await;
    fs::create_dir_all(&gateway.folder).unwrap();
    // An event of the removal can lead to a read after the first change, but not after the second.
    gateway.replace("max_attempts = 2", "max_attempts = 5");
    assert_eq!(gateway.applied(1).await["max_attempts"], 5);
    gateway.replace("max_attempts = 2", "max_attempts = 6");
    assert_eq!(gateway.applied(2).await["max_attempts"], 6);
}

/// Writes three versions of the settings, each in a folder of its own. The attempts are 2, 3 and 4.
#[cfg(unix)]
fn write_versions(folder: &Path, settings: &str) {
    for version in 2..=4 {
        let version_folder = folder.join(format!("version_{version}"));
        fs::create_dir_all(&version_folder).unwrap();
        let settings = settings.replace("max_attempts = 2", &format!("max_attempts = {version}"));
        fs::write(version_folder.join("settings.toml"), settings).unwrap();
    }
}

/// Lets a link refer to a version, as deployments and Kubernetes do: by replacing the link.
#[cfg(unix)]
fn link_version(folder: &Path, link: &str, version: u32) {
    std::os::unix::fs::symlink(format!("version_{version}"), folder.join("next")).unwrap();
    fs::rename(folder.join("next"), folder.join(link)).unwrap();
}

/// The folder of the file is a link to the current version of a deployment.
#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn replaced_link_to_folder_of_file_is_followed() {
    let (orders, prices) = (Upstream::start().await, Upstream::failing().await);
    let gateway = Reloaded::start_in("link", &orders, &prices, |folder, settings| {
        write_versions(folder, settings);
        link_version(folder, "current", 2);
        folder.join("current/settings.toml")
    })
    .await;
    // The gateway reads the file when it starts to watch it, which can be after the first change.
    for (changes, version) in [(1, 3), (2, 4)] {
        link_version(&gateway.folder, "current", version);
        assert_eq!(gateway.applied(changes).await["max_attempts"], version);
    }
}

/// The file of a mounted `ConfigMap` is a link to `..data/settings.toml`, and `..data` is a link to
/// a folder with the current version of all files.
#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn replaced_config_map_is_followed() {
    let (orders, prices) = (Upstream::start().await, Upstream::failing().await);
    let gateway = Reloaded::start_in("config_map", &orders, &prices, |folder, settings| {
        write_versions(folder, settings);
        link_version(folder, "..data", 2);
        std::os::unix::fs::symlink("..data/settings.toml", folder.join("settings.toml")).unwrap();
        folder.join("settings.toml")
    })
    .await;
    for (changes, version) in [(1, 3), (2, 4)] {
        link_version(&gateway.folder, "..data", version);
        assert_eq!(gateway.applied(changes).await["max_attempts"], version);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_need_restart_are_reported_until_they_are_restored() {
    let (orders, prices) = (Upstream::start().await, Upstream::failing().await);
    let gateway = Reloaded::start("restart", &orders, &prices).await;
    let needs_restart = |status: Value| status["reload"]["needs_restart"].to_string();
    gateway.replace("attempt_timeout = \"30s\"", "attempt_timeout = \"9s\"");
    assert_eq!(needs_restart(gateway.applied(1).await), r#"["attempt_timeout"]"#);
    gateway.replace("attempt_timeout = \"30s\"", "# Another comment.\nattempt_timeout = \"9s\"");
    assert_eq!(needs_restart(gateway.applied(2).await), r#"["attempt_timeout"]"#);
    gateway.replace("attempt_timeout = \"30s\"", "attempt_timeout = \"30s\"");
    assert_eq!(needs_restart(gateway.applied(3).await), "[]");
}

#[tokio::test(flavor = "multi_thread")]
async fn new_address_does_not_end_maintenance() {
    let (orders, prices) = (Upstream::start().await, Upstream::failing().await);
    let gateway = Reloaded::start("maintenance", &orders, &prices).await;
    assert_eq!(gateway.post("/upstreams/prices/force_open?for=10m").await, 200);
    gateway.replace(&prices.address.to_string(), &orders.address.to_string());
    assert_eq!(circuit(&gateway.applied(1).await, "prices")["state"], "forced_open");
    assert_eq!(gateway.put("/prices/1").await, 503);
    assert_eq!((prices.received(), orders.received()), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn upstream_can_be_added_and_removed() {
    let (orders, prices) = (Upstream::start().await, Upstream::failing().await);
    let gateway = Reloaded::start("upstreams", &orders, &prices).await;
    assert_eq!(gateway.put("/prices/1").await, 503);
    assert_eq!(gateway.put("/stock/1").await, 404);
    gateway.replace("[upstreams.prices]", "[upstreams.stock]");
    let status = gateway.status_when(|status| !status["reload"]["error"].is_null()).await;
    assert!(status["reload"]["error"].as_str().unwrap().contains("`breaker.keys.prices` is not one of"));
    let settings = gateway.settings.replace("upstreams.prices", "upstreams.stock");
    let settings = settings.replace("[breaker.keys.prices]", "[breaker.keys.stock]");
    fs::write(gateway.folder.join("settings.toml"), settings).unwrap();
    assert_eq!(gateway.applied(1).await["circuits"], Value::Array(Vec::new()));
    assert_eq!(gateway.put("/prices/1").await, 404);
    assert_eq!(gateway.put("/stock/1").await, 503);
    assert_eq!(circuit(&gateway.status().await, "stock")["state"], "open");
}

#[tokio::test]
async fn missing_settings_file_at_start_is_named() {
    let file = env::temp_dir().join(format!("gateway_reload_missing_{}.toml", process::id()));
    let error = RunningGateway::start(&file).await.err().unwrap().to_string();
    assert!(error.starts_with(&format!("cannot read {}: ", file.display())), "{error}");
}
