//! The audit.

use std::time::Duration;

use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;
use tower_breaker_admin::AdminBody;

use super::harness::*;

/// Attempts that are refused, with the status of the response and whether the user is known.
fn refused() -> Vec<(Call, u16, &'static str)> {
    let trip = || Call::act(action("search", "trip"));
    vec![
        (trip().without("authorization"), 401, ""),
        (trip().token("wrong-0123456789abc"), 401, ""),
        (trip().token(READER), 403, "ben"),
        (trip().without("x-tower-breaker"), 403, "anna"),
        (trip().header("sec-fetch-site", "cross-site"), 403, "anna"),
        (trip().header("content-type", "text/plain").without("content-type"), 415, "anna"),
        (trip().body("x".repeat(17_000)), 413, "anna"),
        (trip().body("{"), 400, "anna"),
        (trip().header("if-match", "x"), 400, "anna"),
        (trip().header("if-match", "\"5\""), 409, "anna"),
        (Call::act(action("serch", "trip")), 404, "anna"),
        (Call::act(action("search", "tripp")), 404, "anna"),
        (Call::act(key_action("tenants", "acm", "trip")), 404, "anna"),
        (Call::act(action("disabled", "trip")), 409, "anna"),
        (Call::act(action(&"x".repeat(4200), "trip")), 414, "anna"),
        (trip().json(&json!({"reason": "test", "scope": "fleet"})), 400, "anna"),
    ]
}

#[tokio::test]
async fn every_refused_attempt_is_in_the_audit() {
    let circuits = Circuits::new();
    let (builder, observed) = observed(circuits.builder());
    let admin = builder.build().unwrap();
    for (id, (call, status, user)) in (1..).zip(refused()) {
        let detail = call.fail(&admin, status).await;
        let entry = last_audit(&admin).await;
        assert_eq!(
            (&entry["id"], &entry["status"], &entry["user"]),
            (&id.into(), &status.into(), &user.into())
        );
        assert_eq!(entry["error"], detail, "{call:?}");
        assert_eq!((entry["role"] == Value::Null, &entry["epoch_after"]), (user.is_empty(), &Value::Null));
        assert!(entry["at"].as_str().unwrap().ends_with('Z'));
        let observed = observed.lock().unwrap();
        assert_eq!(observed.len(), id);
        let last = observed.last().unwrap();
        assert_eq!(serde_json::to_value(last).unwrap(), entry, "the observer gets the same entry");
    }
    assert!(circuits.search().status().last_transition.is_none());
}

#[tokio::test]
async fn audit_has_no_token() {
    let circuits = Circuits::new();
    let (builder, observed) = observed(circuits.builder());
    let admin = builder.build().unwrap();
    let wrong = "wrong-0123456789abc";
    for (call, ..) in refused() {
        call.send(&admin).await;
    }
    let text = format!("{:?} {:?}", audit(&admin).await, observed.lock().unwrap());
    for token in [OPERATOR, READER, wrong] {
        assert!(!text.contains(token));
    }
}

#[tokio::test]
async fn texts_of_the_request_are_cut() {
    let (_circuits, admin) = admin();
    let long = "ä".repeat(300);
    Call::act(key_action(&long, &long, &long)).without("authorization").fail(&admin, 401).await;
    let entry = last_audit(&admin).await;
    for field in ["circuit", "key", "action"] {
        assert_eq!(entry[field], "ä".repeat(100), "{field}");
    }
    let reason = json!({"reason": "é".repeat(500), "scope": "process"});
    Call::act(action("search", "trip")).json(&reason).fail(&admin, 400).await;
    assert_eq!(last_audit(&admin).await["reason"], "é".repeat(100));
    let unknown = json!({"x".repeat(10_000): 1});
    let detail = Call::act(action("search", "trip")).json(&unknown).fail(&admin, 400).await;
    assert_eq!(detail.len(), 500);
    assert_eq!(last_audit(&admin).await["error"].as_str().unwrap().len(), 200);
    Call::act(format!("{API}/circuits/%ff%zz/actions/%00")).fail(&admin, 400).await;
    let entry = last_audit(&admin).await;
    assert_eq!((&entry["circuit"], &entry["action"]), (&"\u{fffd}%zz".into(), &"\u{fffd}".into()));
}

#[tokio::test]
async fn only_attempts_are_in_the_audit() {
    let (_circuits, admin) = admin();
    Call::get(format!("{API}/circuits/search")).ok(&admin).await;
    Call::get(action("search", "trip")).fail(&admin, 405).await;
    Call::new(http::Method::POST, format!("{API}/circuits")).fail(&admin, 405).await;
    Call::new(http::Method::DELETE, action("search", "trip")).fail(&admin, 405).await;
    assert!(audit(&admin).await.is_empty());
}

#[tokio::test]
async fn audit_is_read_in_parts() {
    let (_circuits, admin) = admin();
    for _ in 0..5 {
        Call::act(action("search", "reset")).ok(&admin).await;
    }
    let ids = async |query: &str| {
        let part = Call::get(format!("{API}/audit?{query}")).token(READER).ok(&admin).await;
        let ids: Vec<_> =
            part["entries"].as_array().unwrap().iter().map(|entry| entry["id"].as_u64().unwrap()).collect();
        (ids, part["next"].as_u64())
    };
    assert_eq!(ids("").await, (vec![1, 2, 3, 4, 5], None));
    assert_eq!(ids("limit=2").await, (vec![1, 2], Some(2)));
    assert_eq!(ids("limit=2&after=2").await, (vec![3, 4], Some(4)));
    assert_eq!(ids("limit=2&after=4").await, (vec![5], None));
    assert_eq!(ids("limit=2&after=3").await, (vec![4, 5], None));
    assert_eq!(ids("after=18446744073709551615").await, (vec![], None));
}

#[tokio::test(start_paused = true)]
async fn attempts_without_a_credential_cannot_flood_the_audit() {
    let circuits = Circuits::new();
    let (builder, observed) = observed(circuits.builder());
    let admin = builder.build().unwrap();
    Call::act(action("search", "trip")).ok(&admin).await;
    let unknown = Call::act(action("search", "reset")).without("authorization");
    for _ in 0..100 {
        unknown.fail(&admin, 401).await;
    }
    let entries = audit(&admin).await;
    assert_eq!((entries.len(), &entries[0]["status"]), (21, &200.into()));
    assert_eq!(observed.lock().unwrap().len(), 101, "the observer gets all of them");
    for _ in 0..200 {
        tokio::time::advance(Duration::from_secs(1)).await;
        unknown.fail(&admin, 401).await;
    }
    let entries = audit(&admin).await;
    assert_eq!((entries.len(), &entries[0]["status"]), (101, &200.into()));
}

#[tokio::test]
async fn panic_of_the_observer_does_not_affect_the_response() {
    let circuits = Circuits::new();
    let builder = circuits.builder().on_audit(|_| panic!("the observer fails"));
    let admin = builder.build().unwrap();
    Call::act(action("search", "trip")).ok(&admin).await;
    assert_eq!(last_audit(&admin).await["status"], 200);
}

#[tokio::test]
async fn control_characters_are_replaced_in_the_audit() {
    let circuits = Circuits::new();
    let user = tower_breaker_admin::User::operator("eve\r\nanna");
    let (builder, observed) = observed(circuits.builder().bearer("token-0123456789ab", user));
    let admin = builder.build().unwrap();
    let hostile = "x\nanna: trip of search\u{1b}[2J\u{9b}";
    let safe = "x\u{fffd}anna: trip of search\u{fffd}[2J\u{fffd}";
    let call = Call::act(key_action(hostile, hostile, &encoded(hostile)));
    call.clone().without("authorization").fail(&admin, 401).await;
    call.token("token-0123456789ab").fail(&admin, 404).await;
    let reason = json!({"reason": hostile, "scope": "process"});
    Call::act(action("search", "trip")).json(&reason).fail(&admin, 400).await;
    let observed = observed.lock().unwrap();
    for entry in &observed[..2] {
        assert_eq!((&*entry.circuit, entry.key.as_deref(), &*entry.action), (safe, Some(safe), safe));
    }
    assert_eq!(observed[1].user, "eve\u{fffd}\u{fffd}anna");
    let error = observed[1].error.as_deref().unwrap();
    assert!(error.starts_with(&format!("no action is named `{safe}`")), "{error}");
    assert_eq!(observed[2].reason, safe);
}

/// Returns the text that a stream sends within two seconds.
async fn read(stream: &mut AdminBody) -> String {
    let mut text = String::new();
    let read = async {
        while let Some(frame) = stream.frame().await {
            text += std::str::from_utf8(frame.unwrap().data_ref().unwrap()).unwrap();
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(2), read).await.is_err(), "a stream has no end");
    text
}

#[tokio::test(start_paused = true)]
async fn entries_that_are_kept_are_sent_to_streams() {
    let (_circuits, admin) = admin();
    let events = Call::get(format!("{API}/events"));
    let mut stream = admin.clone().oneshot(events.request()).await.unwrap().into_body();
    assert!(read(&mut stream).await.contains("event: circuits\n"));
    Call::act(action("search", "reset")).ok(&admin).await;
    for _ in 0..30 {
        Call::act(action("search", "trip")).without("authorization").fail(&admin, 401).await;
    }
    let text = read(&mut stream).await;
    let statuses: Vec<_> = text
        .split("\n\n")
        .filter(|event| event.starts_with("event: audit\n"))
        .map(|event| serde_json::from_str::<Value>(event.split_once("data: ").unwrap().1).unwrap())
        .map(|entry| entry["status"].as_u64().unwrap())
        .collect();
    assert_eq!(statuses, std::iter::once(200).chain(std::iter::repeat_n(401, 20)).collect::<Vec<_>>());
}
