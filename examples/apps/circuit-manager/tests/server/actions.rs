//! The routes that read and control circuits.

use http::{Method, StatusCode};
use serde_json::json;

use crate::support::Files;

#[tokio::test]
async fn list_get_and_each_action_answer_as_documented() {
    let server = Files::embedded(&json!({ "agents": { "mail": {}, "search": {} } })).start().await;
    let closed = |agent: &str| {
        json!({
            "agent_id": agent,
            "state": "closed",
            "failure_count": 0,
            "success_count": 0,
            "failure_rate": 0.0,
            "consecutive_failures": 0,
            "opened_at": null,
        })
    };
    let all = json!({ "mail": closed("mail"), "search": closed("search") });
    for list in ["/api/v1/circuits/", "/api/v1/circuits"] {
        assert_eq!(server.get(list).await, (StatusCode::OK, all.clone()));
    }
    assert_eq!(server.circuit("search").await, closed("search"));

    for (action, status, state) in
        [("open", "opened", "open"), ("close", "closed", "closed"), ("reset", "reset", "closed")]
    {
        let answer = json!({ "status": status, "agent_id": "search" });
        assert_eq!(server.act("search", action).await, (StatusCode::OK, answer));
        let circuit = server.circuit("search").await;
        assert_eq!(circuit["state"], state, "{action}");
        assert_eq!(circuit["opened_at"].is_string(), state == "open", "{circuit}");
    }
    assert_eq!(server.get("/api/v1/circuits/").await.1, all);
}

#[tokio::test]
async fn unknown_action_is_400_unknown_agent_404_no_body_422() {
    let server = Files::embedded(&json!({ "agents": { "search": {} } })).start().await;
    let unknown = json!({ "detail": "Unknown action: x" });
    assert_eq!(server.act("search", "x").await, (StatusCode::BAD_REQUEST, unknown));
    let unknown = json!({ "detail": "Unknown agent: other.1" });
    assert_eq!(server.act("other.1", "open").await, (StatusCode::NOT_FOUND, unknown.clone()));
    assert_eq!(server.get("/api/v1/circuits/other.1").await, (StatusCode::NOT_FOUND, unknown));

    let action = "/api/v1/circuits/search/action";
    let long = format!(r#"{{"action":"open","reason":"{}"}}"#, "x".repeat(501));
    for body in ["", "{", "[]", "null", "{}", r#"{"action":1}"#, r#"{"reason":"x"}"#, &long] {
        let (status, answer) = server.send(Method::POST, action, Some(body)).await;
        assert_eq!(status, 422, "{body}: {answer}");
        assert!(answer["detail"].is_string(), "{answer}");
    }
    let huge = format!(r#"{{"action":"{}"}}"#, "x".repeat(20_000));
    assert_eq!(server.send(Method::POST, action, Some(&huge)).await.0, 413);
    assert_eq!(server.circuit("search").await["state"], "closed");
}

#[tokio::test]
async fn unknown_routes_and_methods_have_a_detail() {
    let server = Files::embedded(&json!({ "agents": { "search": {} } })).start().await;
    for (method, path, expected) in [
        (Method::GET, "/api/v1/nothing", 404),
        (Method::GET, "/api/v1/circuits/search/action/more", 404),
        (Method::DELETE, "/api/v1/circuits/search", 405),
        (Method::GET, "/api/v1/circuits/search/action", 405),
        (Method::GET, "/api/v1/circuits/a%ff", 422),
        (Method::GET, "/api/v1/circuits/a%20b", 404),
        (Method::GET, "/api/v1/circuits/ws", 422),
    ] {
        let (status, answer) = server.send(method, path, None).await;
        assert_eq!(status, expected, "{path}: {answer}");
        assert!(answer["detail"].is_string(), "{answer}");
    }
}

#[tokio::test]
async fn action_is_409_under_override_of_admin_page() {
    let server = Files::embedded(&json!({ "agents": { "search": {} } })).start().await;
    server.administrate("search", "force_open").await;
    for action in ["open", "close", "reset"] {
        let (status, answer) = server.act("search", action).await;
        assert_eq!(status, 409, "{action}: {answer}");
        assert!(answer["detail"].is_string(), "{answer}");
    }
    assert_eq!(server.circuit("search").await["state"], "forced_open");
    server.administrate("search", "release").await;
    assert_eq!(server.act("search", "reset").await.0, 200);
}

#[tokio::test]
async fn readiness_names_open_circuits_to_users_only() {
    let server = Files::embedded(&json!({ "agents": { "mail": {}, "search": {} } })).start().await;
    server.act("search", "open").await;
    let (status, answer) = server.get("/ready").await;
    assert_eq!((status, &answer["open"]), (StatusCode::OK, &json!(["search"])));
    let (status, answer) = server.send_as(None, Method::GET, "/ready", None).await;
    assert_eq!((status, &answer["open_circuits"]), (StatusCode::OK, &json!(1)));
    assert!(answer.get("open").is_none(), "{answer}");
    let health = server.send_as(None, Method::GET, "/health", None).await;
    assert_eq!(health, (StatusCode::OK, json!({ "status": "ok" })));
}

#[tokio::test]
async fn the_openapi_document_names_each_route() {
    let server = Files::embedded(&json!({ "agents": { "search": {} } })).start().await;
    let (status, document) = server.send_as(None, Method::GET, "/api/v1/openapi.json", None).await;
    assert_eq!(status, 200);
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"), "{}", document["openapi"]);
    let mut routes = Vec::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            routes.push(format!("{method} {path}"));
            let is_of_circuits = path.starts_with("/api/v1/circuits/");
            assert_eq!(operation["tags"] == json!(["circuits"]), is_of_circuits, "{path}");
            assert_eq!(operation["security"] == json!([{ "bearer": [] }]), is_of_circuits, "{path}");
            // The route exists: with a token, the method is allowed.
            if !path.ends_with("/events") {
                let method = method.to_uppercase().parse().unwrap();
                let (status, answer) = server.send(method, &path.replace("{agent_id}", "search"), None).await;
                assert!(![404, 405].contains(&status.as_u16()), "{path}: {status} {answer}");
            }
        }
    }
    let expected = [
        "get /api/v1/circuits/",
        "get /api/v1/circuits/events",
        "get /api/v1/circuits/ws",
        "get /api/v1/circuits/{agent_id}",
        "get /health",
        "get /ready",
        "post /api/v1/circuits/{agent_id}/action",
    ];
    routes.sort();
    assert_eq!(routes, expected);
}
