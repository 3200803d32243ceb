//! The external calls, against servers on loopback.

use serde_json::{Map, Value, json};
use test_servers::{Action, Http, RefusedPort};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use validator::external::{Delivery, External, ExternalConfig, ToolValidator, http_client};
use validator::resilience::{Resilience, ResilienceSettings};
use validator::result::{Report, ValidationResult};
use validator::timeouts::Seconds;

use crate::support::{Behavior, Stub, orchestrator};

pub(crate) fn external(config: ExternalConfig) -> External {
    // The real clock runs here, so the retries wait for a millisecond.
    let retry_wait = Seconds::try_from(0.001).unwrap();
    let settings = ResilienceSettings { retry_wait, ..ResilienceSettings::default() };
    let client = http_client(&config).unwrap();
    External::new(config, client, Resilience::new(&settings))
}

pub(crate) async fn report() -> Report {
    let stubs =
        [("lint", Behavior::Passes), ("security", Behavior::Fails), ("security", Behavior::ReturnsError)];
    orchestrator(stubs.map(|(dimension, behavior)| Stub(dimension, behavior))).run_graceful().await
}

/// Accepts a connection, and returns everything that it receives.
pub(crate) async fn receive(listener: &TcpListener) -> String {
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

pub(crate) fn tool(config: ExternalConfig) -> ToolValidator {
    let arguments = Map::from_iter([("goal".to_owned(), "check".into())]);
    ToolValidator::new("behavioral", 3, "spawn_agent", arguments, external(config)).unwrap()
}

async fn run_tool(server: &Http, answer: Value) -> ValidationResult {
    server.script([Action::status(200).body(answer.to_string())]);
    let config = ExternalConfig { mcp: Some(server.url()), ..ExternalConfig::default() };
    orchestrator([tool(config)]).run_graceful().await.results.remove(0)
}

#[tokio::test]
async fn questdb_receives_line_per_result() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let questdb = Some(listener.local_addr().unwrap().to_string());
    let external = external(ExternalConfig { questdb, ..ExternalConfig::default() });
    let report = report().await;
    let (deliveries, lines) = tokio::join!(external.push(&report), receive(&listener));
    assert_eq!(deliveries, [Delivery { service: "questdb", error: None }]);
    let lines: Vec<_> = lines.lines().collect();
    assert_eq!(lines.len(), 3);
    assert_eq!(lines[0], "validation,dimension=lint tier=1i,passed=true,message=\"lint has run\"");
    let failed = "validation,dimension=security tier=1i,passed=false,message=\"Error: é";
    assert!(lines[2].starts_with(failed), "{}", lines[2]);
}

#[tokio::test]
async fn prometheus_receives_counts_of_results() {
    let server = Http::start().await;
    // The slash at the end is not doubled.
    let prometheus = Some(server.url() + "/");
    let external = external(ExternalConfig { prometheus, ..ExternalConfig::default() });
    let deliveries = external.push(&report().await).await;
    assert_eq!(deliveries, [Delivery { service: "prometheus", error: None }]);
    let request = server.requests().remove(0);
    assert_eq!((request.method.as_str(), &*request.path), ("POST", "/metrics/job/validator"));
    let expected = "# TYPE validator_results gauge\n\
        validator_results{dimension=\"lint\",tier=\"1\",passed=\"true\"} 1\n\
        validator_results{dimension=\"lint\",tier=\"1\",passed=\"false\"} 0\n\
        validator_results{dimension=\"security\",tier=\"1\",passed=\"true\"} 0\n\
        validator_results{dimension=\"security\",tier=\"1\",passed=\"false\"} 2\n\
        # TYPE validator_passed gauge\nvalidator_passed 0\n\
        # TYPE validator_degraded gauge\nvalidator_degraded 1\n";
    assert_eq!(request.body, expected);
}

#[tokio::test]
async fn failed_push_does_not_affect_other_service() {
    let (server, port) = (Http::start().await, RefusedPort::bind());
    server.script([Action::status(503)]);
    let questdb = Some(port.address().to_string());
    let prometheus = Some(server.url());
    let external = external(ExternalConfig { questdb, prometheus, ..ExternalConfig::default() });
    let report = report().await;
    let [questdb, prometheus] = &*external.push(&report).await else { panic!("two services") };
    assert_eq!(questdb.service, "questdb");
    assert!(questdb.error.as_ref().unwrap().contains("refused"), "{questdb:?}");
    assert_eq!(prometheus.service, "prometheus");
    assert!(prometheus.error.as_ref().unwrap().contains("503"), "{prometheus:?}");
    // An answer is not repeated, whatever its status is.
    assert_eq!(server.requests().len(), 1);

    let deliveries = external.push(&report).await;
    assert!(deliveries[0].error.is_some() && deliveries[1].error.is_none(), "{deliveries:?}");
}

/// The build without the feature has neither retries nor circuits.
#[cfg(not(feature = "resilience"))]
#[tokio::test]
async fn without_feature_each_call_is_sent_once() {
    let server = Http::start().await;
    server.set_default(Action::ResetAfterRequest);
    let prometheus = Some(server.url());
    let external = external(ExternalConfig { prometheus, ..ExternalConfig::default() });
    for pushes in 1..=7 {
        let deliveries = external.push(&report().await).await;
        assert!(deliveries[0].error.is_some(), "{deliveries:?}");
        assert_eq!(server.requests().len(), pushes);
    }
}

#[tokio::test]
async fn report_without_services_is_not_pushed() {
    assert_eq!(external(ExternalConfig::default()).push(&report().await).await, []);
}

#[tokio::test]
async fn hanging_service_times_out() {
    let server = Http::start().await;
    server.set_default(Action::Hang);
    let timeout = Seconds::try_from(0.05).unwrap();
    let config = ExternalConfig { mcp: Some(server.url()), timeout, ..ExternalConfig::default() };
    let result = orchestrator([tool(config)]).run_graceful().await.results.remove(0);
    assert_eq!((result.passed, result.error()), (false, Some("timeout")));
    assert!(result.message.starts_with("Error: `mcp` did not finish in 0.05 s"), "{}", result.message);
}

#[tokio::test]
async fn tool_decides_whether_check_passes() {
    let server = Http::start().await;
    let content = json!([{ "type": "text", "text": "2 of 2 flows work\nin 3 s" }]);
    let passed = run_tool(&server, json!({ "jsonrpc": "2.0", "id": 1, "result": { "content": content } }));
    let passed = passed.await;
    assert!(passed.passed, "{passed:?}");
    assert_eq!((&*passed.dimension, passed.tier), ("behavioral", 3));
    assert_eq!(passed.message, "tool `spawn_agent` passed: 2 of 2 flows work");
    assert_eq!(passed.details["content"], content);

    let failed = json!({ "jsonrpc": "2.0", "id": 1, "result": { "content": [], "isError": true } });
    let failed = run_tool(&server, failed).await;
    assert_eq!((failed.passed, failed.error()), (false, None));
    assert_eq!(failed.message, "tool `spawn_agent` failed");

    let request: Value = serde_json::from_slice(&server.requests()[0].body).unwrap();
    let expected = json!({
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/call",
        "params": { "name": "spawn_agent", "arguments": { "goal": "check" } },
    });
    assert_eq!(request, expected);
}

#[tokio::test]
async fn refused_tool_is_an_error() {
    let server = Http::start().await;
    let error = json!({ "code": -32602, "message": "unknown tool" });
    let result = run_tool(&server, json!({ "jsonrpc": "2.0", "id": 1, "error": error })).await;
    assert_eq!(result.error(), Some("validator::external::mcp::ToolError"));
    assert_eq!(result.message, "Error: tool `spawn_agent` was refused with code -32602: unknown tool");
    assert_eq!(server.requests().len(), 1);

    let result = run_tool(&server, json!({ "jsonrpc": "2.0", "id": 1 })).await;
    assert!(result.message.ends_with("has neither `result` nor `error`"), "{}", result.message);
}
