//! Events for machines, progress and check-ins.

use serde_json::{Value, json};

use crate::support::{Finished, Setup, error, invalid_key};

pub(crate) fn events(program: &Finished) -> Vec<Value> {
    program.stdout.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
}

pub(crate) fn names(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["event"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn json_prints_one_event_on_each_line() {
    let setup = Setup::new(3).await;
    setup.api.script([invalid_key()]);
    let program = setup.run(&setup.process(&["--json", "--batch-size", "1"]), "").await;
    let events = events(program.expect_code(1));
    let expected = ["started", "checkpoint", "result", "result", "result", "checkpoint", "ended"];
    assert_eq!(names(&events), expected);
    assert_eq!(
        events[0],
        json!({ "event": "started", "job": "job", "total": 3, "completed": 0, "remaining": 3 })
    );
    assert_eq!(events[2]["index"], 0);
    assert!(events[2]["error"].as_str().unwrap().starts_with("AuthenticationError: "));
    assert_eq!(events[3], json!({ "event": "result", "index": 1 }));
    let ended = json!({ "event": "ended", "exit_code": 1, "total": 3, "processed": 3, "failed": 1 });
    assert_eq!(events[6], ended);
}

#[tokio::test]
async fn json_question_is_on_stderr() {
    let setup = Setup::new(3).await;
    setup.api.set_default(invalid_key());
    let arguments = setup.process(&["--json", "--circuit-breaker", "1", "--batch-size", "1"]);
    let program = setup.run(&arguments, "c\na\n").await;
    program.expect_code(3).expect_stderr("Circuit breaker triggered").expect_stderr("Aborted.");
    let events = events(&program);
    let expected = [
        "started",
        "checkpoint",
        "result",
        "checkpoint",
        "tripped",
        "resumed",
        "result",
        "checkpoint",
        "tripped",
        "ended",
    ];
    assert_eq!(names(&events), expected);
    assert_eq!(events[4]["error_type"], "AuthenticationError");
    assert_eq!(events[4]["consecutive_failures"], 1);
}

#[tokio::test]
async fn json_errors_and_quota_are_events() {
    let setup = Setup::new(1).await;
    setup.api.set_default(error(429, "insufficient_quota", "You exceeded your current quota"));
    let program = setup.run(&setup.process(&["--json"]), "").await;
    let events_of_quota = events(program.expect_code(4));
    assert!(names(&events_of_quota).contains(&"quota_exhausted"));
    assert_eq!(events_of_quota.last().unwrap()["exit_code"], 4);

    let program = setup.run(&setup.process(&["--json"]), "").await;
    let events_of_error = events(program.expect_code(2));
    assert_eq!(names(&events_of_error), ["error"]);
    assert_eq!(events_of_error[0]["exit_code"], 2);
}

#[tokio::test]
async fn check_in_continues_with_enter_and_y_and_stops_with_n() {
    let setup = Setup::new(10).await;
    let program = setup.run(&setup.process(&["--checkin-interval", "2"]), "\ny\nn\n").await;
    program.expect_code(3).expect_stdout("6/10").expect_stdout("agents resume job");
    assert_eq!(setup.api.requests().len(), 6);
    assert_eq!(setup.lines("out.jsonl").len(), 6);

    let program = setup.run(&setup.resume(&["--checkin-interval", "3"]), "").await;
    program.expect_code(3);
    assert_eq!(setup.api.requests().len(), 9);
    setup.run(&setup.resume(&["--checkin-interval", "4"]), "").await.expect_code(0);
    assert_eq!(setup.lines("out.jsonl").len(), 10);
}

#[tokio::test]
async fn progress_has_no_control_characters_without_a_terminal() {
    let setup = Setup::new(3).await;
    let program = setup.run(&setup.process(&[]), "").await;
    program.expect_code(0).expect_stderr("progress: 3/3").expect_stderr("failed: 0");
    assert!(!program.stderr.contains('\u{1b}') && !program.stderr.contains('\r'), "{program:?}");
}
