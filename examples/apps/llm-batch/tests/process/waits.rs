//! Items that wait for the circuit of their model.

use std::time::Duration;

use test_servers::Action;

use crate::support::{Setup, reply};
use crate::trip::indices;

#[tokio::test]
async fn items_fail_after_max_wait_and_are_retried() {
    let setup = Setup::new(15).await;
    // The circuit opens after failures that span a second.
    setup.api.set_default(Action::status(503).delay(Duration::from_millis(300)));
    let flags = ["--mode", "sequential", "--max-retries", "1", "--max-wait", "0.1"];
    let program = setup.run(&setup.process(&flags), "").await;
    program.expect_code(1).expect_stdout("15 items, 15 failed");
    let failures = setup.lines(".checkpoints/job.failures.jsonl");
    assert_eq!(indices(&failures), (0..15).collect::<Vec<_>>());
    let waited = |error: &str| {
        error.starts_with("the item waited 0.1 s in all; to retry it, use `resume --retry-failures`: circuit")
    };
    let count = failures.iter().filter(|failure| waited(failure["error"].as_str().unwrap())).count();
    assert!(count > 0, "{failures:#?}");
    assert!(setup.api.requests().len() < 15);

    setup.api.set_default(reply("{\"answer\": 42}"));
    setup.run(&setup.resume(&["--retry-failures"]), "").await.expect_code(0);
    assert!(setup.lines("out.jsonl").iter().all(|result| result["answer"] == 42));
}
