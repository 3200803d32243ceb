//! The circuits of the external calls, during an outage of the services.

use std::num::NonZeroU32;

use test_servers::{Action, Http, RefusedPort};
use tokio::net::TcpListener;
use tower_breaker::CircuitState;
use validator::external::{Delivery, ExternalConfig, QUESTDB};

use crate::external::{external, receive, report, tool};
use crate::support::orchestrator;

#[tokio::test]
async fn five_failed_pushes_open_questdb_and_run_still_reports() {
    let port = RefusedPort::bind();
    let questdb = Some(port.address().to_string());
    let max_attempts = NonZeroU32::MIN;
    let external = external(ExternalConfig { questdb, max_attempts, ..ExternalConfig::default() });
    let questdb = external.resilience().get_breaker(QUESTDB);
    for failures in 1..=5 {
        let deliveries = external.push(&report().await).await;
        assert!(deliveries[0].error.as_ref().unwrap().contains("refused"), "{deliveries:?}");
        assert_eq!(questdb.failures(), failures);
    }
    assert_eq!(questdb.to_string(), "CircuitBreaker(questdb, state=open, failures=5)");

    let report = report().await;
    assert_eq!(report.results.len(), 3);
    let deliveries = external.push(&report).await;
    let error = deliveries[0].error.as_ref().unwrap();
    assert!(error.starts_with("circuit breaker `questdb` is open; retry after"), "{error}");
    assert_eq!(questdb.circuit().status().rejected_calls, 1);
}

#[tokio::test]
async fn failed_attempts_of_one_push_are_counted() {
    let port = RefusedPort::bind();
    let questdb = Some(port.address().to_string());
    let external = external(ExternalConfig { questdb, ..ExternalConfig::default() });
    external.push(&report().await).await;
    assert_eq!(external.resilience().get_breaker(QUESTDB).failures(), 3);
}

#[tokio::test]
async fn recovered_service_receives_report() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let questdb = Some(listener.local_addr().unwrap().to_string());
    let external = external(ExternalConfig { questdb, ..ExternalConfig::default() });
    let questdb = external.resilience().get_breaker(QUESTDB);
    questdb.circuit().trip().unwrap();
    let report = report().await;
    assert!(external.push(&report).await[0].error.is_some());

    // The open time is over: the next push is the probe.
    questdb.circuit().probe_now().unwrap();
    let (deliveries, lines) = tokio::join!(external.push(&report), receive(&listener));
    assert_eq!(deliveries, [Delivery { service: "questdb", error: None }]);
    assert_eq!((lines.lines().count(), questdb.state()), (3, CircuitState::Closed));
}

#[tokio::test]
async fn broken_connection_is_repeated() {
    let server = Http::start().await;
    server.script([Action::ResetAfterRequest, Action::ResetAfterRequest]);
    let prometheus = Some(server.url());
    let external = external(ExternalConfig { prometheus, ..ExternalConfig::default() });
    let deliveries = external.push(&report().await).await;
    assert_eq!(deliveries, [Delivery { service: "prometheus", error: None }]);
    assert_eq!(server.requests().len(), 3);
}

#[tokio::test]
async fn open_circuit_gives_result_of_tool() {
    let port = RefusedPort::bind();
    let orchestrator =
        orchestrator([tool(ExternalConfig { mcp: Some(port.url()), ..ExternalConfig::default() })]);
    // Three failed attempts, and two.
    for _ in 0..2 {
        let report = orchestrator.run_graceful().await;
        assert_eq!(report.results[0].error(), Some("reqwest::error::Error"));
    }
    let report = orchestrator.run_graceful().await;
    let result = &report.results[0];
    assert_eq!((result.passed, result.error()), (false, Some("circuit_open")));
    let message = "Circuit open: circuit breaker `mcp` is open; retry after";
    assert!(result.message.starts_with(message), "{}", result.message);
    assert!(report.degraded);
}
