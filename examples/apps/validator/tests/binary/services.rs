//! The external services.

use std::net::SocketAddr;

use serde_json::{Value, json};
use test_servers::{Action, Http, RefusedPort};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::support::{Project, end, shell, validators};

/// Starts a QuestDB that returns what its first connection sends.
async fn questdb() -> (SocketAddr, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let received = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    });
    (address, received)
}

async fn mcp() -> Http {
    let server = Http::start().await;
    let answer = json!({ "jsonrpc": "2.0", "id": 1, "result": { "content": [] } });
    server.set_default(Action::status(200).body(answer.to_string()));
    server
}

/// A configuration whose retries do not wait.
fn config(checks: impl IntoIterator<Item = Value>) -> Value {
    let mut config = validators(checks);
    config["resilience"] = json!({ "retry_wait": 0.001 });
    config
}

#[tokio::test]
async fn flags_alone_reach_all_services() {
    let (address, received) = questdb().await;
    let (prometheus, mcp) = (Http::start().await, mcp().await);
    let ended = Project::new()
        .run(&[
            "--tool",
            "visual=compare_screenshots",
            "--mcp",
            &mcp.url(),
            "--questdb",
            &address.to_string(),
            "--prometheus",
            &prometheus.url(),
        ])
        .await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(ended.stdout.contains("tool `compare_screenshots` passed"), "{}", ended.stdout);
    assert!(
        ended.stdout.contains("questdb: the report was delivered\nprometheus: the report was delivered\n")
    );
    assert!(received.await.unwrap().starts_with("validation,dimension=visual tier=1i,passed=true,"));
    assert_eq!(prometheus.requests()[0].path, "/metrics/job/validator");
    let call: Value = serde_json::from_slice(&mcp.requests()[0].body).unwrap();
    assert_eq!(call["params"], json!({ "name": "compare_screenshots", "arguments": {} }));
}

#[tokio::test]
async fn push_flag_selects_service_by_form_of_address() {
    let (address, received) = questdb().await;
    let prometheus = Http::start().await;
    let project = Project::with_config(&config([shell("lint", "true")]));
    let ended = project.run_config(&["--push", &address.to_string(), "--push", &prometheus.url()]).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!(received.await.unwrap().lines().count(), 1);
    assert_eq!(prometheus.requests().len(), 1);
}

#[tokio::test]
async fn address_flags_take_precedence_over_configuration() {
    let (address, received) = questdb().await;
    let (prometheus, mcp, port) = (Http::start().await, mcp().await, RefusedPort::bind());
    let mut config = config([json!({ "dimension": "behavioral", "tool": "check" })]);
    config["external"] =
        json!({ "questdb": port.address().to_string(), "prometheus": port.url(), "mcp": port.url() });
    let project = Project::with_config(&config);
    let (address, url) = (address.to_string(), prometheus.url());
    let ended = project.run_config(&["--questdb", &address, "--prometheus", &url, "--mcp", &mcp.url()]).await;
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
    assert_eq!(received.await.unwrap().lines().count(), 1);
    assert_eq!((prometheus.requests().len(), mcp.requests().len()), (1, 1));
}

#[tokio::test]
async fn failed_push_is_shown_and_exits_with_3() {
    let (port, prometheus) = (RefusedPort::bind(), Http::start().await);
    let pushes = ["--push", &port.address().to_string(), "--push", &prometheus.url()];
    let project = Project::with_config(&config([shell("lint", "true")]));
    let ended = project.run_config(&pushes).await;
    assert_eq!(ended.code, Some(3), "{}", ended.stderr);
    let line = "\nquestdb: the report was not delivered: Connection refused";
    assert!(ended.stdout.contains(line), "{}", ended.stdout);

    let report = project.run_config(&[&["--json"], &pushes[..]].concat()).await.report();
    assert_eq!((&report["passed"], &report["degraded"]), (&json!(true), &json!(false)));
    assert_eq!(report["deliveries"][0]["service"], "questdb");
    assert!(report["deliveries"][0]["error"].as_str().unwrap().contains("refused"), "{report}");
    assert_eq!(report["deliveries"][1], json!({ "service": "prometheus", "error": null }));

    // A failed check takes precedence.
    let project = Project::with_config(&config([shell("lint", "false")]));
    assert_eq!(project.run_config(&pushes).await.code, Some(1));
}

#[cfg(feature = "resilience")]
#[tokio::test]
async fn push_is_retried() {
    let prometheus = Http::start().await;
    prometheus.script([Action::ResetAfterRequest, Action::ResetAfterRequest]);
    let project = Project::with_config(&config([shell("lint", "true")]));
    let ended = project.run_config(&["--push", &prometheus.url()]).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!(prometheus.requests().len(), 3);
}

#[cfg(not(feature = "resilience"))]
#[tokio::test]
async fn without_feature_push_is_not_retried() {
    let prometheus = Http::start().await;
    prometheus.script([Action::ResetAfterRequest]);
    let project = Project::with_config(&config([shell("lint", "true")]));
    let ended = project.run_config(&["--push", &prometheus.url()]).await;
    assert_eq!(ended.code, Some(3), "{}", ended.stderr);
    assert_eq!(prometheus.requests().len(), 1);
}

#[cfg(feature = "resilience")]
#[tokio::test]
async fn open_circuit_is_shown_and_exits_with_3() {
    let port = RefusedPort::bind();
    let tool = |dimension: &str| json!({ "dimension": dimension, "tool": "check" });
    let mut config = config([tool("visual"), tool("behavioral"), shell("lint", "true")]);
    config["resilience"]["fail_max"] = 3.into();
    config["external"] = json!({ "mcp": port.url() });
    let ended = Project::with_config(&config).run_config(&["--jobs", "1", "--json"]).await;
    assert_eq!(ended.code, Some(3), "{}", ended.stderr);
    let errors: Vec<_> = ended.errors().into_iter().map(|(_, error)| error).collect();
    assert_eq!(Value::from(errors), json!(["reqwest::error::Error", "circuit_open", null]));
    let message = ended.report()["results"][1]["message"].to_string();
    assert!(message.contains("Circuit open: circuit breaker `mcp` is open; retry after"), "{message}");
    // The transition of the circuit is logged.
    assert!(ended.stderr.contains("circuit is open"), "{}", ended.stderr);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn certificates_are_needed_for_https_only() {
    let project = Project::with_config(&validators([shell("lint", "true")]));
    let server = Http::start().await;
    let run = async |url: &str| {
        let mut command = project.command(&["--config", "config.json", "--push", url]);
        command.env("SSL_CERT_FILE", "/no/such/file").env("SSL_CERT_DIR", "/no/such/folder");
        end(command.spawn().unwrap()).await
    };
    let ended = run(&server.url()).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let ended = run("https://127.0.0.1:1").await;
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    assert!(ended.stderr.contains("check the certificates"), "{}", ended.stderr);
}
