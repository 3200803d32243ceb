//! The audit file.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::Method;
use serde_json::{Value, json};

use crate::support::{Files, OPERATOR, READER, client};

const ACTION: &str = "/api/v1/circuits/search/action";

#[tokio::test]
async fn audit_has_each_attempt_of_api_and_admin_page() {
    let files = Files::embedded(&json!({ "agents": { "search": {} } }));
    let server = files.start().await;
    let open = r#"{"action":"open","reason":"the provider\nasked"}"#;
    server.send(Method::POST, ACTION, Some(open)).await;
    server.act("search", "x").await;
    server.act("other", "open").await;
    server.send_as(Some(READER), Method::POST, ACTION, Some(open)).await;
    server.send_as(None, Method::POST, ACTION, Some(open)).await;
    server.administrate("search", "force_closed").await;
    server.act("search", &"x".repeat(10_000)).await;
    server.stop().await;

    let records = files.audit();
    let fields = |record: &Value| {
        ["via", "user", "role", "agent_id", "action", "status"].map(|field| record[field].clone())
    };
    let expected = [
        json!(["api", "anna", "operator", "search", "open", 200]),
        json!(["api", "anna", "operator", "search", "x", 400]),
        json!(["api", "anna", "operator", "other", null, 404]),
        json!(["api", "wall", "reader", "search", null, 403]),
        json!(["admin", "anna", "operator", "search", "force_closed", 200]),
        json!(["api", "anna", "operator", "search", "x".repeat(500), 400]),
    ];
    assert_eq!(json!(records.iter().map(fields).collect::<Vec<_>>()), json!(expected));
    assert_eq!(records[0]["reason"], "the provider\nasked");
    assert_eq!(records[1]["error"], "Unknown action: x");
    assert_eq!(records[4]["reason"], "a test");
    assert_eq!(records[5]["error"].as_str().map(str::len), Some(500), "a request cannot fill the disk");
    assert!(records.iter().all(|record| record["at"].as_str().unwrap().ends_with('Z')), "{records:?}");
}

#[tokio::test]
async fn audit_has_each_acknowledged_action_after_sigkill() {
    let agents: Vec<_> = (0..8).map(|number| format!("agent-{number}")).collect();
    let config = json!({ "agents": agents.iter().map(|id| (id.clone(), json!({}))).collect::<Value>() });
    let files = Files::embedded(&config);
    let mut acknowledged = 0;
    for _ in 0..3 {
        let server = files.start().await;
        let applied = Arc::new(AtomicUsize::new(0));
        let callers = agents.iter().enumerate().map(|(number, id)| {
            let request = if number % 2 == 0 {
                let url = server.url(&format!("/api/v1/circuits/{id}/action"));
                client().post(url).json(&json!({ "action": "open" }))
            } else {
                let url = server.url(&format!("/admin/api/v1/circuits/{id}/actions/trip"));
                let body = json!({ "reason": "a test", "scope": "process" });
                client().post(url).header("x-tower-breaker", "1").json(&body)
            };
            let request = request.bearer_auth(OPERATOR);
            let applied = Arc::clone(&applied);
            tokio::spawn(async move {
                // Until the server is killed. The page refuses attempts above a rate, and their
                // records are in the audit, too.
                while let Ok(response) = request.try_clone().unwrap().send().await {
                    assert!([200, 429].contains(&response.status().as_u16()), "{}", response.status());
                    applied.fetch_add(1, Ordering::Relaxed);
                }
            })
        });
        let callers: Vec<_> = callers.collect();
        while applied.load(Ordering::Relaxed) < 200 {
            tokio::task::yield_now().await;
        }
        server.kill().await;
        for caller in callers {
            caller.await.unwrap();
        }
        acknowledged += applied.load(Ordering::Relaxed);
    }
    // Each caller may have had one request whose response did not arrive.
    let recorded = files.audit().len();
    let unacknowledged = 3 * agents.len();
    assert!(
        (acknowledged..=acknowledged + unacknowledged).contains(&recorded),
        "{recorded} of {acknowledged}"
    );
}
