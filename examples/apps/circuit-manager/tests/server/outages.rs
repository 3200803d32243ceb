//! The database stops, hangs and comes back while the server works.

use std::time::Duration;

use circuit_manager::store::Store;
use serde_json::{Value, json};
use test_servers::Postgres;
use tokio::time::{Instant, sleep};

use crate::restarts::Rows;
use crate::support::{DEADLINE, Files, Server};

const AGENTS: usize = 20;

fn agent(number: usize) -> String {
    format!("agent-{number}")
}

fn config() -> Value {
    let agents: Value = (0..AGENTS).map(|number| (agent(number), json!({}))).collect();
    json!({ "agents": agents, "write_counts_seconds": 0.1 })
}

/// Waits until the readiness meets the condition.
async fn wait_for_readiness(server: &Server, is_met: impl Fn(&Value) -> bool) {
    let started = Instant::now();
    loop {
        let (status, readiness) = server.get("/ready").await;
        assert_eq!(status, 200, "{readiness}");
        if is_met(&readiness) {
            return;
        }
        assert!(started.elapsed() < DEADLINE, "{readiness}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// Changes and reads each agent several times. The last action of each is `action`.
async fn work(server: &Server, action: &str) {
    for action in ["open", "reset", "open", "close", action] {
        for number in 0..AGENTS {
            assert_eq!(server.act(&agent(number), action).await.0, 200);
            server.circuit(&agent(number)).await;
        }
    }
}

async fn assert_written(server: &Server, rows: &Rows, state: &str) {
    wait_for_readiness(server, |ready| ready["status"] == "ready" && ready["unwritten"] == 0).await;
    for number in 0..AGENTS {
        let row = rows.wait_for(&agent(number), |row| row.state.as_str() == state).await;
        let circuit = server.circuit(&agent(number)).await;
        assert_eq!(row.metadata["opened_at"], circuit["opened_at"], "{row:?}");
    }
}

/// How the database fails.
struct Outage {
    begin: fn(&mut Postgres),
    end: fn(&mut Postgres),
}

#[tokio::test]
async fn no_request_waits_for_the_database_and_its_last_states_are_written() {
    let mut postgres = Postgres::start();
    let files = Files::with_database(&config(), postgres.url());
    let rows = Rows::of(Store::postgres(&postgres.url()).unwrap());
    let server = files.start().await;
    work(&server, "open").await;
    assert_written(&server, &rows, "open").await;

    let stopped = Outage { begin: Postgres::stop, end: Postgres::restart };
    let killed = Outage { begin: Postgres::kill, end: Postgres::restart };
    let hanging = Outage { begin: Postgres::pause, end: Postgres::resume };
    let mut attempts = 5 * AGENTS;
    for (outage, action, state) in
        [(stopped, "reset", "closed"), (killed, "open", "open"), (hanging, "close", "closed")]
    {
        (outage.begin)(&mut postgres);
        // All requests are answered while the database is down.
        work(&server, action).await;
        wait_for_readiness(&server, |ready| ready["status"] == "degraded").await;
        work(&server, action).await;
        attempts += 10 * AGENTS;
        (outage.end)(&mut postgres);
        assert_written(&server, &rows, state).await;
    }
    assert_eq!(files.audit().len(), attempts);
    let (code, logs) = server.stop().await;
    assert_eq!(code, Some(0), "{logs}");
}

#[tokio::test]
async fn server_without_database_does_not_start() {
    let postgres = Postgres::start();
    let url = postgres.url();
    drop(postgres);
    let files = Files::embedded(&config());
    let output =
        files.run(&["serve", "--listen", "127.0.0.1:0", "--database", &url, "--token-file", "tokens"]).await;
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("the states of the circuits cannot be loaded"), "{stderr}");
    assert!(!stderr.contains("secret"), "{stderr}");
}

#[tokio::test]
async fn server_stops_without_database() {
    let mut postgres = Postgres::start();
    let files = Files::with_database(&config(), postgres.url());
    let server = files.start().await;
    postgres.stop();
    server.act("agent-0", "open").await;
    let (code, logs) = server.stop().await;
    assert_eq!(code, Some(0), "{logs}");
    assert!(logs.contains("the last states of agents are not written"), "{logs}");
}

#[tokio::test]
async fn database_and_file_have_the_same_api() {
    let postgres = Postgres::start();
    let config = json!({ "agents": { "search": {} } });
    let files = [Files::with_database(&config, postgres.url()), Files::embedded(&config)];
    let mut answers = Vec::new();
    for files in &files {
        let server = files.start().await;
        let mut of_server = Vec::new();
        for action in ["open", "close", "reset", "x"] {
            of_server.push(server.act("search", action).await);
            let mut circuit = server.circuit("search").await;
            circuit["opened_at"] = circuit["opened_at"].is_string().into();
            of_server.push((http::StatusCode::OK, circuit));
        }
        wait_for_readiness(&server, |readiness| readiness["unwritten"] == 0).await;
        of_server.push(server.get("/ready").await);
        answers.push(of_server);
    }
    assert_eq!(answers[0], answers[1]);
}
