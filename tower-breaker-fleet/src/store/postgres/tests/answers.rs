//! Answers that no function of this version gives.

use std::fmt::Write;

use super::server::shared;
use super::{ONE, circuit, connect, heartbeat, lease, operation, update, vote};
use crate::store::StoreErrorKind::Invalid;
use crate::store::{Action, LocalOpen, SyncCircuit, Update};

/// A record with one field replaced.
fn record(field: &str, value: &str) -> String {
    let mut json = "{".to_owned();
    for (name, valid) in [
        ("circuit", "\"search\""),
        ("epoch", "7"),
        ("state", "\"open\""),
        ("remaining_ms", "5"),
        ("manual", "null"),
        ("manual_remaining_ms", "null"),
        ("reason", "\"\""),
        ("by", "\"\""),
    ] {
        let separator = if json.len() > 1 { "," } else { "" };
        write!(json, "{separator}\"{name}\": {}", if name == field { value } else { valid }).unwrap();
    }
    json + "}"
}

fn invalid_records() -> Vec<String> {
    let long = format!("\"{}\"", "x".repeat(2000));
    let mut records = vec!["null".to_owned(), "[]".to_owned(), "{}".to_owned()];
    for (field, value) in [
        ("state", "\"ajar\""),
        ("state", "null"),
        ("epoch", "-1"),
        ("epoch", "9223372036854775807"),
        ("epoch", "1e300"),
        ("remaining_ms", "-1"),
        ("remaining_ms", "1.5"),
        ("remaining_ms", "315360000001"),
        ("manual", "\"ajar\""),
        ("manual_remaining_ms", "9223372036854775807"),
        ("reason", "null"),
        ("reason", &long),
        ("by", &long),
        ("circuit", &long),
    ] {
        records.push(record(field, value));
    }
    records
}

#[tokio::test]
async fn invalid_answer_of_each_function_is_an_error() {
    let server = shared().await;
    let store = server.with_schema("answers").await;
    let mut admin = server.admin().await;
    admin.run("CREATE TABLE answers.answer (value jsonb)").await;
    admin.run("INSERT INTO answers.answer VALUES (NULL)").await;
    for function in ["breaker_sync", "breaker_lease", "breaker_complete", "breaker_operate"] {
        let sql = format!(
            "DROP FUNCTION answers.{function}; CREATE FUNCTION answers.{function}(text, jsonb) RETURNS jsonb \
             LANGUAGE sql AS 'SELECT value FROM answers.answer'"
        );
        admin.run(&sql).await;
    }
    let mut session = connect(&store, "test").await;
    let synced = |record: &str| {
        format!(
            r#"[{{"members": 1, "open_members": 0, "votes": 0, "votes_needed": 1, "warming_up": false, "local": "no", "record": {record}}}]"#
        )
    };
    let valid = record("", "");
    let set = |answer: &str| format!("UPDATE answers.answer SET value = '{answer}'");
    admin.run(&set(&synced(&valid))).await;
    session.sync(&vote("search")).await.unwrap();

    for record in invalid_records() {
        let answers = [
            synced(&record),
            format!(r#"{{"granted": true, "retry_ms": 0, "record": {record}}}"#),
            format!(r#"{{"applied": true, "record": {record}}}"#),
            record.clone(),
        ];
        for (index, answer) in answers.iter().enumerate() {
            admin.run(&set(answer)).await;
            let error = match index {
                // Null: nothing newer than what the process knows.
                0 if record == "null" => continue,
                0 => session.sync(&vote("search")).await.unwrap_err(),
                1 => session.lease(&lease("search")).await.unwrap_err(),
                2 => session.operate(&operation("search", Action::Trip)).await.unwrap_err(),
                _ => session.complete(&super::completed("search", 7)).await.unwrap_err(),
            };
            assert_eq!(error.kind, Invalid, "{answer}");
        }
    }
    for answer in [
        "[]".to_owned(),
        synced(&valid).replace("\"members\": 1", "\"members\": -1"),
        synced(&valid).replace("\"open_members\": 0, ", ""),
        synced(&valid).replace("\"open_members\": 0", "\"open_members\": -1"),
        synced(&valid).replace("\"votes\": 0", "\"votes\": 4294967296"),
        synced(&valid).replace("\"no\"", "{\"for_ms\": 315360000001}"),
        synced(&valid).replace("\"no\"", "\"perhaps\""),
    ] {
        admin.run(&set(&answer)).await;
        let error = session.sync(&vote("search")).await.unwrap_err();
        assert_eq!(error.kind, Invalid, "{answer}");
        assert!(error.message.contains("`answers.breaker_*`"), "{}", error.message);
    }
}

#[tokio::test]
async fn damaged_rows_and_payloads_are_errors() {
    let server = shared().await;
    let store = server.with_schema("damaged").await;
    let mut admin = server.admin().await;
    let mut session = connect(&store, "test").await;
    session.operate(&operation("search", Action::Trip)).await.unwrap();
    let Update::Record(_) = update(&mut *session).await.unwrap() else { panic!("no record") };
    for damage in ["state = 'ajar'", "manual = 'ajar'", "epoch = -1", "reason = repeat('x', 2000)"] {
        admin.run("CREATE TABLE damaged.copy AS SELECT * FROM damaged.breaker_circuit").await;
        admin
            .run(&format!("UPDATE damaged.breaker_circuit SET {damage}, changed_ms = damaged.breaker_now()"))
            .await;
        if damage != "epoch = -1" {
            let error = session.list(None, 10).await.unwrap_err();
            assert_eq!(error.kind, Invalid, "{damage}");
            let polling = server.polling().schema("damaged");
            let mut polling = connect(&polling, "test").await;
            assert_eq!(update(&mut *polling).await.unwrap_err().kind, Invalid, "{damage}");
        }
        admin.run("DELETE FROM damaged.breaker_circuit").await;
        admin
            .run("INSERT INTO damaged.breaker_circuit SELECT * FROM damaged.copy; DROP TABLE damaged.copy")
            .await;
    }
    for payload in ["garbage", "{}", r#"{"slots_taken": {"circuit": "a", "epoch": 1, "retry_ms": -1}}"#] {
        let mut session = connect(&store, "test").await;
        // It listens once an update has arrived that a poll does not find.
        let published = r#"{"slots_taken": {"circuit": "a", "epoch": 1, "retry_ms": 1}}"#;
        let notify = |payload| format!("SELECT pg_notify(damaged.breaker_channel('test'), '{payload}')");
        let listens =
            async { while !matches!(update(&mut *session).await.unwrap(), Update::SlotsTaken { .. }) {} };
        let notifies = async {
            loop {
                admin.run(&notify(published)).await;
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        };
        tokio::select! { () = listens => {}, () = notifies => {} }
        admin.run(&notify(payload)).await;
        let last = r#"{"slots_taken": {"circuit": "last", "epoch": 1, "retry_ms": 1}}"#;
        admin.run(&notify(last)).await;
        let is_last =
            |update: &Update| matches!(update, Update::SlotsTaken { circuit, .. } if circuit == "last");
        while !is_last(&update(&mut *session).await.unwrap()) {}
    }
}

#[tokio::test]
async fn nul_in_names_is_replaced() {
    let server = shared().await;
    let namespace = "nul \0";
    let mut session = connect(&server.polling(), namespace).await;
    let name = "a\0b";
    let local = SyncCircuit { local: LocalOpen::For(super::LONG), ..circuit(name, true, ONE) };
    let synced = session.sync(&heartbeat("in\0stance", vec![local])).await.unwrap();
    assert_eq!(synced[0].record.as_ref().unwrap().circuit, "a\u{FFFD}b");
    let listed = session.list(Some("\0"), 10).await.unwrap();
    assert_eq!(listed, []);
    assert_eq!(session.list(None, 10).await.unwrap().len(), 1);
}
