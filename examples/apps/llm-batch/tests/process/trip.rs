//! The job's circuit: it trips, and the person decides.

use serde_json::{Value, json};

use crate::support::{Setup, invalid_key, reply};

#[tokio::test]
async fn process_with_circuit_breaker_trip() {
    let setup = Setup::new(10).await;
    setup.api.set_default(invalid_key());
    let arguments = setup.process(&["--circuit-breaker", "3", "--batch-size", "1"]);
    let program = setup.run(&arguments, "a\n").await;
    program
        .expect_code(3)
        .expect_stdout(&"=".repeat(60))
        .expect_stdout("⚠️  Circuit breaker triggered: 3 consecutive failures")
        .expect_stdout("Last error: AuthenticationError")
        .expect_stdout("Message: Incorrect API key provided")
        .expect_stdout("Failed unit: {\"name\":\"item 2\"}")
        .expect_stdout("Processed: 3/10 | Failed: 3 | Success rate: 0.0%")
        .expect_stdout("[C]ontinue  [A]bort  [I]nspect details")
        .expect_stdout("Aborted. To resume later: agents resume job")
        .expect_stdout("Failed items saved to: .checkpoints/job.failures.jsonl");
    assert_eq!(setup.api.requests().len(), 3);
    assert_eq!(setup.lines(".checkpoints/job.failures.jsonl").len(), 3);
    assert_eq!(setup.lines("out.jsonl").len(), 3);
}

#[tokio::test]
async fn sequential_mode_trips_after_the_same_item() {
    let setup = Setup::new(5).await;
    setup.api.set_default(invalid_key());
    let program = setup.run(&setup.process(&["--circuit-breaker", "3", "--mode", "sequential"]), "A\n").await;
    program.expect_code(3).expect_stdout("3 consecutive failures");
    assert_eq!(indices(&setup.lines(".checkpoints/job.results.jsonl")), [0, 1, 2]);
}

#[tokio::test]
async fn end_of_input_aborts() {
    let setup = Setup::new(5).await;
    setup.api.set_default(invalid_key());
    let program = setup.run(&setup.process(&["--batch-size", "1"]), "").await;
    program.expect_code(3).expect_stdout("5 consecutive failures").expect_stdout("Aborted.");
}

#[tokio::test]
async fn checkpoint_is_saved_before_the_question() {
    let setup = Setup::new(5).await;
    setup.api.set_default(invalid_key());
    let mut program = setup.start(&setup.process(&["--circuit-breaker", "2", "--batch-size", "1"]));
    program.wait_for("[I]nspect").await;
    let checkpoint: Value = serde_json::from_str(&setup.read(".checkpoints/job.checkpoint.json")).unwrap();
    assert_eq!(checkpoint["counts"], json!({ "total": 5, "processed": 2, "failed": 2 }));
    program.finish().await.expect_code(3);
}

#[tokio::test]
async fn inspect_then_continue_finishes_when_key_is_valid_again() {
    let setup = Setup::new(6).await;
    setup.write("in.jsonl", &"{\"name\":\"größe\"}\n".repeat(6));
    setup.api.set_default(invalid_key());
    let mut program = setup.start(&setup.process(&["--circuit-breaker", "2", "--batch-size", "1"]));
    program.wait_for("[I]nspect").await;
    setup.api.set_default(reply("{\"answer\": 42}"));
    program.write("I\nc\n").await;
    let program = program.finish().await;
    program
        .expect_code(1)
        .expect_stdout(&"-".repeat(40))
        .expect_stdout("  \"name\": \"größe\"")
        .expect_stdout("Resuming processing...")
        .expect_stdout("agents resume job --retry-failures");
    let results = setup.lines("out.jsonl");
    assert_eq!(indices(&results), [0, 1, 2, 3, 4, 5]);
    assert!(results[..2].iter().all(|result| result["error"].is_string()));
    assert!(results[2..].iter().all(|result| result["answer"] == 42));
}

#[tokio::test]
async fn second_trip_asks_again() {
    let setup = Setup::new(10).await;
    setup.api.set_default(invalid_key());
    let arguments = setup.process(&["--circuit-breaker", "2", "--batch-size", "1"]);
    let program = setup.run(&arguments, "c\na\n").await;
    program.expect_code(3).expect_stdout("Processed: 4/10 | Failed: 4");
    assert_eq!(program.stdout.matches("Circuit breaker triggered").count(), 2);
    assert_eq!(setup.api.requests().len(), 4);
}

#[tokio::test]
async fn success_between_errors_prevents_trip() {
    let setup = Setup::new(5).await;
    let good = || reply("{\"answer\": 42}");
    setup.api.script([invalid_key(), invalid_key(), good(), invalid_key(), invalid_key()]);
    let program = setup.run(&setup.process(&["--circuit-breaker", "3", "--batch-size", "1"]), "").await;
    program.expect_code(1);
    assert!(!program.stdout.contains("Circuit breaker triggered"), "{program:#?}");
    assert_eq!(setup.lines("out.jsonl").len(), 5);
}

#[tokio::test]
async fn threshold_zero_never_trips() {
    let setup = Setup::new(12).await;
    setup.api.set_default(invalid_key());
    let program = setup.run(&setup.process(&["--circuit-breaker", "0"]), "").await;
    program.expect_code(1);
    assert!(!program.stdout.contains("Circuit breaker triggered"), "{program:#?}");
    assert_eq!(setup.lines("out.jsonl").len(), 12);
}

#[tokio::test]
async fn abort_then_resume_retry_failures_completes_all_items() {
    let setup = Setup::new(10).await;
    setup.api.set_default(invalid_key());
    let arguments = setup.process(&["--circuit-breaker", "3", "--batch-size", "1"]);
    setup.run(&arguments, "a\n").await.expect_code(3);
    setup.api.set_default(reply("{\"answer\": 42}"));
    let program = setup.run(&setup.resume(&["--retry-failures"]), "").await;
    program
        .expect_code(0)
        .expect_stdout("Found 3 failed items to retry")
        .expect_stdout("Found 0 completed, 10 remaining");
    let results = setup.lines("out.jsonl");
    assert_eq!(indices(&results), (0..10).collect::<Vec<_>>());
    assert!(results.iter().all(|result| result["answer"] == 42 && result.get("error").is_none()));
    assert_eq!(setup.api.requests().len(), 13);
    assert_eq!(setup.read(".checkpoints/job.failures.jsonl"), "");
}

#[tokio::test]
async fn resume_trips_and_asks_like_process() {
    let setup = Setup::new(6).await;
    setup.api.set_default(invalid_key());
    let arguments = setup.process(&["--circuit-breaker", "2", "--batch-size", "1"]);
    setup.run(&arguments, "a\n").await.expect_code(3);
    let program = setup.run(&setup.resume(&[]), "i\na\n").await;
    program
        .expect_code(3)
        .expect_stdout("Found 2 completed, 4 remaining")
        .expect_stdout("2 consecutive failures")
        .expect_stdout("Processed: 4/6 | Failed: 4")
        .expect_stdout("Aborted. To resume later: agents resume job");
}

pub(crate) fn indices(results: &[Value]) -> Vec<u64> {
    results.iter().map(|result| result["_idx"].as_u64().expect("an index")).collect()
}
