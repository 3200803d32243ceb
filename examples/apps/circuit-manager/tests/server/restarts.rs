//! The server is killed or stopped in each state, and started again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use circuit_manager::store::{Row, Store};
use serde_json::{Value, json};
use test_servers::{Action, Http, Postgres};
use tokio::time::{Instant, sleep, sleep_until};

use crate::support::{DEADLINE, Files, Server};

/// The rows of a server's store.
pub(crate) struct Rows(Store);

impl Rows {
    pub(crate) fn of(store: Store) -> Self {
        Self(store)
    }

    pub(crate) async fn get(&self, agent: &str) -> Option<Row> {
        // The file or the table may not exist yet.
        let rows = self.0.load().await.ok()?;
        rows.into_iter().find(|row| row.agent_id == agent)
    }

    /// Waits until the row of an agent meets the condition.
    pub(crate) async fn wait_for(&self, agent: &str, is_met: impl Fn(&Row) -> bool) -> Row {
        let started = Instant::now();
        loop {
            let row = self.get(agent).await;
            match row {
                Some(row) if is_met(&row) => return row,
                row => assert!(started.elapsed() < DEADLINE, "{row:?}"),
            }
            sleep(Duration::from_millis(10)).await;
        }
    }

    async fn wait_for_state(&self, agent: &str, state: &str) -> Row {
        self.wait_for(agent, |row| row.state.as_str() == state).await
    }
}

/// An agent whose calls fail, hang or succeed. Its health is always good.
struct Agent {
    http: Http,
    calls: Arc<AtomicU8>,
}

const SUCCEED: u8 = 0;
const FAIL: u8 = 1;
const HANG: u8 = 2;

impl Agent {
    async fn start(calls: u8) -> Self {
        let http = Http::start().await;
        let calls = Arc::new(AtomicU8::new(calls));
        let of_handler = Arc::clone(&calls);
        http.set_handler(move |request| match of_handler.load(Ordering::Relaxed) {
            FAIL if request.path == "/call" => Action::status(500),
            HANG if request.path == "/call" => Action::Hang,
            _ => Action::status(200),
        });
        Self { http, calls }
    }

    fn set(&self, calls: u8) {
        self.calls.store(calls, Ordering::Relaxed);
    }

    /// Returns a configuration with this agent, and with one that is not called.
    fn config(&self, circuit: &Value) -> Value {
        let url = self.http.url();
        json!({
            "write_counts_seconds": 0.05,
            "agents": {
                "called": {
                    "url": format!("{url}/call"),
                    "health_url": format!("{url}/health"),
                    "interval_seconds": 0.02,
                    "timeout_seconds": 2,
                    "circuit": circuit,
                },
                "search": { "circuit": { "cooldown_seconds": 30 } },
            },
        })
    }
}

/// Returns the seconds that the circuit stays open.
async fn rest_of_cooldown(server: &Server, agent: &str) -> f64 {
    let (status, circuit) = server.get(&format!("/admin/api/v1/circuits/{agent}")).await;
    assert_eq!(status, 200, "{circuit}");
    circuit["local"]["retry_after_seconds"].as_f64().unwrap()
}

async fn open_circuit_keeps_rest_of_cooldown(files: &Files, rows: &Rows) {
    let server = files.start().await;
    server.act("search", "open").await;
    let opened = Instant::now();
    let before = server.circuit("search").await;
    rows.wait_for_state("search", "open").await;
    server.kill().await;
    let server = files.start().await;
    assert_eq!(server.circuit("search").await, before, "with the time at which it has opened");
    // Long enough to see it in the remaining time.
    sleep_until(opened + Duration::from_secs(1)).await;
    let elapsed = opened.elapsed().as_secs_f64();
    let rest = rest_of_cooldown(&server, "search").await;
    assert!(rest > 0.0 && rest < 30.1 - elapsed, "{rest} s are left after {elapsed} s");
    server.act("search", "reset").await;
    rows.wait_for_state("search", "closed").await;
    server.kill().await;
}

async fn forced_circuits_stay_forced_until_released(files: &Files, rows: &Rows) {
    for (action, state) in [("force_open", "forced_open"), ("force_closed", "forced_closed")] {
        let server = files.start().await;
        server.administrate("search", action).await;
        rows.wait_for_state("search", state).await;
        server.kill().await;
        let server = files.start().await;
        assert_eq!(server.circuit("search").await["state"], state);
        server.administrate("search", "release").await;
        assert_eq!(server.act("search", "reset").await.0, 200);
        rows.wait_for_state("search", "closed").await;
        server.kill().await;
    }
}

async fn half_open_circuit_probes_and_closes(files: &Files, rows: &Rows, agent: &Agent) {
    agent.set(HANG);
    let server = files.start().await;
    server.act("called", "open").await;
    // The first probe hangs.
    rows.wait_for_state("called", "half_open").await;
    server.kill().await;
    agent.set(SUCCEED);
    let server = files.start().await;
    server.wait_for_state("called", "closed").await;
    rows.wait_for_state("called", "closed").await;
    server.kill().await;
}

async fn circuit_opened_by_failures_keeps_counts(files: &Files, rows: &Rows, agent: &Agent) {
    agent.set(FAIL);
    let server = files.start().await;
    rows.wait_for("called", |row| matches!(row.stats(), Ok(stats) if stats.stats.consecutive_failures >= 5))
        .await;
    server.kill().await;
    agent.set(HANG);
    let row = rows.get("called").await.unwrap();
    let server = files.start().await;
    let circuit = server.circuit("called").await;
    assert_eq!(circuit["failure_count"], row.failure_count, "{circuit} {row:?}");
    assert!(["open", "half_open"].contains(&circuit["state"].as_str().unwrap()), "{circuit}");
    agent.set(SUCCEED);
    server.kill().await;
}

async fn assert_states_survive_sigkill(files: Files, rows: Rows, agent: Agent) {
    open_circuit_keeps_rest_of_cooldown(&files, &rows).await;
    forced_circuits_stay_forced_until_released(&files, &rows).await;
    half_open_circuit_probes_and_closes(&files, &rows, &agent).await;
    circuit_opened_by_failures_keeps_counts(&files, &rows, &agent).await;
}

fn short_cooldown() -> Value {
    json!({ "cooldown_seconds": 0.1, "half_open_max_requests": 1 })
}

#[tokio::test]
async fn states_survive_sigkill_in_postgresql() {
    let postgres = Postgres::start();
    let agent = Agent::start(SUCCEED).await;
    let files = Files::with_database(&agent.config(&short_cooldown()), postgres.url());
    let rows = Rows::of(Store::postgres(&postgres.url()).unwrap());
    assert_states_survive_sigkill(files, rows, agent).await;
}

#[tokio::test]
async fn states_survive_sigkill_in_file() {
    let agent = Agent::start(SUCCEED).await;
    let files = Files::embedded(&agent.config(&short_cooldown()));
    let rows = Rows::of(Store::file(files.path("circuits.json")));
    assert_states_survive_sigkill(files, rows, agent).await;
}

#[tokio::test]
async fn counts_of_closed_circuit_are_written() {
    let agent = Agent::start(FAIL).await;
    let circuit = json!({ "failure_threshold": 1_000_000, "min_requests_for_rate": 1_000_000 });
    let files = Files::embedded(&agent.config(&circuit));
    let rows = Rows::of(Store::file(files.path("circuits.json")));
    let server = files.start().await;
    let row = rows.wait_for("called", |row| row.failure_count >= 3).await;
    assert_eq!(row.state.as_str(), "closed");
    assert!(row.last_failure_at.is_some(), "{row:?}");
    server.kill().await;
    agent.set(HANG);
    // Its window starts empty: old failures do not open it.
    let server = files.start().await;
    let circuit = server.circuit("called").await;
    assert_eq!((&circuit["state"], &circuit["failure_count"]), (&json!("closed"), &json!(0)), "{circuit}");
}

#[tokio::test]
async fn stopped_server_writes_last_changes() {
    let files = Files::embedded(&json!({ "agents": { "search": {} } }));
    let server = files.start().await;
    server.act("search", "open").await;
    let (code, logs) = server.stop().await;
    assert_eq!(code, Some(0), "{logs}");
    let row = Rows::of(Store::file(files.path("circuits.json"))).get("search").await.unwrap();
    assert_eq!(row.state.as_str(), "open");
    assert_eq!(files.start().await.circuit("search").await["state"], "open");
}

#[tokio::test]
async fn damaged_file_exits_with_1_and_stays() {
    let files = Files::embedded(&json!({ "agents": { "search": {} } }));
    files.write("circuits.json", "{ damaged");
    let output = files
        .run(&["serve", "--listen", "127.0.0.1:0", "--embedded", "circuits.json", "--token-file", "tokens"])
        .await;
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("circuits.json is damaged; repair it, or remove it"), "{stderr}");
    assert!(!stderr.contains("circuit is open"), "it is read once: {stderr}");
    assert_eq!(files.read("circuits.json"), "{ damaged");
}
