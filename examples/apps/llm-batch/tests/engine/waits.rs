//! How long a unit waits for the circuit of its model.

use std::time::Duration;

use llm_batch::config::ProcessingConfig;
use tokio::time::{Instant, timeout};

use crate::fake::{self, CALL, Fake, Outcome, WAIT, circuit_open, engine, good, sequential, units};

async fn run(client: &Fake, max_wait: Duration, count: usize) -> Outcome {
    let config = ProcessingConfig { max_wait, ..sequential(5) };
    let engine = engine(client, &config);
    let outcome = timeout(Duration::from_secs(3600), fake::run(&engine, units(count)));
    outcome.await.expect("no unit waits forever")
}

/// Returns the error of a unit that has waited.
fn error(seconds: u32) -> String {
    format!(
        "the item waited {seconds} s in all; to retry it, use `resume --retry-failures`: \
         circuit of model `small` is open after a failure: InternalServerError: try later"
    )
}

#[tokio::test(start_paused = true)]
async fn unit_fails_after_max_wait_and_the_job_goes_on() {
    let start = Instant::now();
    let client = Fake::new(|ask, _| if ask.prompt == "0" { Err(circuit_open()) } else { good() });
    let outcome = run(&client, Duration::from_secs(150), 2).await;
    assert_eq!(outcome.indices(), [0, 1]);
    assert_eq!(outcome.results[0]["error"], error(150));
    assert_eq!(outcome.results[1]["answer"], 42);
    // The third wait is cut short.
    assert_eq!(client.log().waits, 3);
    assert!(start.elapsed() >= Duration::from_secs(150) && start.elapsed() < WAIT * 3);
}

#[tokio::test(start_paused = true)]
async fn unit_fails_at_once_if_max_wait_is_zero() {
    let start = Instant::now();
    let client = Fake::new(|_, _| Err(circuit_open()));
    let outcome = run(&client, Duration::ZERO, 3).await;
    assert_eq!(outcome.indices(), [0, 1, 2]);
    assert!(outcome.results.iter().all(|result| result["error"] == error(0)), "{outcome:?}");
    assert_eq!(client.log().prompts, ["0", "1", "2"]);
    assert!(start.elapsed() < CALL * 4);
}

#[tokio::test(start_paused = true)]
async fn waits_of_all_calls_of_a_unit_are_added() {
    // The reply between the two waits does not parse.
    let client = Fake::new(|_, earlier_calls| match earlier_calls {
        1 => Ok("no JSON".to_owned()),
        _ => Err(circuit_open()),
    });
    let outcome = run(&client, Duration::from_secs(90), 1).await;
    assert_eq!(outcome.results[0]["error"], error(90));
    assert_eq!((client.log().prompts.len(), client.log().waits), (3, 2));
}

#[tokio::test(start_paused = true)]
async fn time_of_calls_is_no_wait() {
    // Two waits of 60 s, and three calls.
    let client = Fake::new(|_, earlier_calls| if earlier_calls < 2 { Err(circuit_open()) } else { good() });
    let longest = WAIT * 2 + Duration::from_millis(100);
    let outcome = run(&client, longest, 1).await;
    assert_eq!(outcome.results[0]["answer"], 42);
}
