//! Who may send which request.

use http::Method;
use serde_json::json;

use crate::support::{Files, OPERATOR, READER, Server, Socket};

const ACTION: &str = "/api/v1/circuits/search/action";

async fn start() -> (Files, Server) {
    let files = Files::embedded(&json!({ "agents": { "search": {} } }));
    let server = files.start().await;
    (files, server)
}

#[tokio::test]
async fn no_token_401_reader_cannot_post_403() {
    let (_files, server) = start().await;
    let open = Some(r#"{"action":"open"}"#);
    let unknown = "anna-0123456789abcdeX";
    for token in [None, Some(""), Some(unknown), Some(&OPERATOR[1..])] {
        for path in ["", "/", "/search", "/other", "/events", "/ws"] {
            let path = format!("/api/v1/circuits{path}");
            let (status, answer) = server.send_as(token, Method::GET, &path, None).await;
            assert_eq!(status, 401, "{path}: {answer}");
            assert!(answer["detail"].as_str().unwrap().starts_with("Not authenticated"), "{answer}");
        }
        // The status shows neither whether the agent exists nor whether the body is valid.
        for path in [ACTION, "/api/v1/circuits/other/action", "/api/v1/circuits/a%ff/action"] {
            for body in [open, Some("{")] {
                assert_eq!(server.send_as(token, Method::POST, path, body).await.0, 401, "{path}");
                assert_eq!(server.send_as(Some(READER), Method::POST, path, body).await.0, 403, "{path}");
            }
        }
    }
    assert_eq!(server.circuit("search").await["state"], "closed");
    assert_eq!(server.send_as(Some(READER), Method::GET, "/api/v1/circuits/search", None).await.0, 200);
    assert_eq!(server.send_as(Some(OPERATOR), Method::POST, ACTION, open).await.0, 200);
}

#[tokio::test]
async fn admin_page_has_the_same_users() {
    let (_files, server) = start().await;
    let circuits = "/admin/api/v1/circuits";
    assert_eq!(server.send_as(None, Method::GET, circuits, None).await.0, 401);
    assert_eq!(server.send_as(Some(READER), Method::GET, circuits, None).await.0, 200);
    server.administrate("search", "trip").await;
    assert_eq!(server.circuit("search").await["state"], "open");
}

#[tokio::test]
async fn token_in_url_is_ignored() {
    let (_files, server) = start().await;
    let path = format!("/api/v1/circuits/?token={OPERATOR}&access_token={OPERATOR}");
    assert_eq!(server.send_as(None, Method::GET, &path, None).await.0, 401);
}

#[tokio::test]
async fn tokens_are_in_no_log() {
    let (_files, server) = start().await;
    server.act("search", "open").await;
    server.send_as(Some("other-0123456789abcdef"), Method::POST, ACTION, Some("{}")).await;
    Socket::connect(&server, Some("other-0123456789abcdef")).await.err().unwrap();
    let (code, logs) = server.stop().await;
    assert_eq!(code, Some(0), "{logs}");
    assert!(logs.contains("an action was applied") && logs.contains("an action was refused"), "{logs}");
    assert!(!logs.contains("0123456789abcdef"), "{logs}");
}
