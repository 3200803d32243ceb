//! Jobs that are continued.

use rustix::process::Signal;
use test_servers::Action;

use crate::support::{Setup, invalid_key, reply};
use crate::trip::indices;

#[tokio::test]
async fn killed_job_loses_no_result_and_repeats_none() {
    let setup = Setup::new(40).await;
    let good = || reply("{\"answer\": 42}");
    // Eleven replies, and then the API hangs with two calls in flight.
    setup.api.script((0..11).map(|_| good()).chain([Action::Hang, Action::Hang]));
    let program = setup.start(&setup.process(&["--batch-size", "2"]));
    setup.api.wait_for_requests(13).await;
    setup.wait_for_lines(".checkpoints/job.results.jsonl", 11).await;
    program.signal(Signal::KILL);
    program.finish().await.expect_code(-1);
    assert_eq!(setup.lines(".checkpoints/job.results.jsonl").len(), 11);

    let program = setup.run(&setup.resume(&[]), "").await;
    program.expect_code(0).expect_stdout("Found 11 completed, 29 remaining");
    assert_eq!(indices(&setup.lines("out.jsonl")), (0..40).collect::<Vec<_>>());
    assert_eq!(setup.lines(".checkpoints/job.results.jsonl").len(), 40);
    assert_eq!(setup.api.requests().len(), 40 + 2);
}

#[tokio::test]
async fn torn_last_line_is_sent_again() {
    let setup = Setup::new(3).await;
    setup.run(&setup.process(&[]), "").await.expect_code(0);
    let path = ".checkpoints/job.results.jsonl";
    let mut results = setup.read(path);
    results.truncate(results.len() - 5);
    setup.write(path, &results);
    setup.run(&setup.resume(&[]), "").await.expect_code(0).expect_stdout("Found 2 completed, 1 remaining");
    assert_eq!(setup.lines("out.jsonl").len(), 3);
    assert_eq!(setup.api.requests().len(), 4);
}

#[tokio::test]
async fn finished_job_is_reported_without_a_request() {
    let setup = Setup::new(3).await;
    setup.run(&setup.process(&[]), "").await.expect_code(0);
    // No key is needed, because no request is sent.
    let program = setup.run(&["resume".to_owned(), "job".to_owned()], "").await;
    program.expect_code(0).expect_stdout("Found 3 completed, 0 remaining").expect_stdout("finished");
    assert_eq!(setup.api.requests().len(), 3);
}

#[tokio::test]
async fn finished_job_with_failures_exits_with_1() {
    let setup = Setup::new(3).await;
    setup.api.script([invalid_key()]);
    setup.run(&setup.process(&[]), "").await.expect_code(1);
    let program = setup.run(&setup.resume(&[]), "").await;
    program
        .expect_code(1)
        .expect_stdout("Found 3 completed, 0 remaining")
        .expect_stdout("agents resume job --retry-failures");
    assert_eq!(setup.api.requests().len(), 3);
}

#[tokio::test]
async fn reply_that_does_not_parse_is_retried_as_failure() {
    let setup = Setup::new(2).await;
    setup.api.script([reply("no JSON"), reply("{\"answer\": 1}")]);
    let flags = ["--parse-error-retries", "0", "--batch-size", "1"];
    setup.run(&setup.process(&flags), "").await.expect_code(1);
    assert!(setup.lines("out.jsonl")[0]["parse_error"].is_string());
    let program = setup.run(&setup.resume(&["--retry-failures"]), "").await;
    program.expect_code(0).expect_stdout("Found 1 failed items to retry");
    assert_eq!(setup.lines("out.jsonl")[0]["answer"], 42);
}

#[tokio::test]
async fn output_that_is_the_input_is_refused() {
    let setup = Setup::new(3).await;
    let input = setup.read("in.jsonl");
    setup.run(&setup.process(&[]), "").await.expect_code(0);
    let program = setup.run(&setup.resume(&["--output", "in.jsonl"]), "").await;
    program.expect_code(2).expect_stderr("in.jsonl` is the input; give another file");
    assert_eq!(setup.read("in.jsonl"), input);
}

/// Somebody has edited the results file.
#[tokio::test]
async fn result_of_an_unknown_item_is_kept_and_not_counted() {
    let setup = Setup::new(3).await;
    setup.run(&setup.process(&[]), "").await.expect_code(0);
    let path = ".checkpoints/job.results.jsonl";
    setup.write(path, &format!("{}{{\"_idx\":3,\"error\":\"x\"}}\n", setup.read(path)));
    let program = setup.run(&setup.resume(&["--retry-failures"]), "").await;
    program.expect_code(0).expect_stdout("Found 0 failed items").expect_stdout("3 items, 0 failed");
    assert_eq!(setup.lines("out.jsonl").len(), 4);
}

#[tokio::test]
async fn unknown_job_is_named() {
    let setup = Setup::new(1).await;
    let program = setup.run(&setup.arguments(&["resume", "other"], &[]), "").await;
    program.expect_code(2).expect_stderr("job `other`").expect_stderr(".checkpoints/other.checkpoint.json");
    assert!(!setup.exists(".checkpoints"));
}

#[tokio::test]
async fn changed_input_is_refused() {
    let setup = Setup::new(3).await;
    setup.api.set_default(invalid_key());
    let arguments = setup.process(&["--circuit-breaker", "1", "--batch-size", "1"]);
    setup.run(&arguments, "a\n").await.expect_code(3);
    let input = setup.read("in.jsonl");
    setup.write("in.jsonl", &input.replace("item 2", "item two"));
    let program = setup.run(&setup.resume(&[]), "").await;
    program.expect_code(2).expect_stderr("in.jsonl` has changed");
    assert_eq!(setup.api.requests().len(), 1);
}

#[tokio::test]
async fn options_come_from_the_checkpoint_and_flags_win() {
    let setup = Setup::new(3).await;
    setup.api.set_default(invalid_key());
    let flags = ["--circuit-breaker", "1", "--batch-size", "1", "--model", "first", "--temperature", "0.5"];
    setup.run(&setup.process(&flags), "a\n").await.expect_code(3);
    setup.api.set_default(reply("{\"answer\": 42}"));
    let resume = ["resume", "job", "--api-key", "sk-other", "--model", "second"].map(str::to_owned);
    setup.run(&resume, "").await.expect_code(1);
    let request = setup.api.requests().pop().unwrap();
    let body: serde_json::Value = serde_json::from_slice(&request.body).unwrap();
    assert_eq!(body["model"], "second");
    assert_eq!(body["temperature"], 0.5);
    assert_eq!(body["messages"][0]["content"], "Classify item 2.");
    assert_eq!(request.headers["authorization"], "Bearer sk-other");
}
