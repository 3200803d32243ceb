//! The delays between attempts.

use std::time::Duration;

use llm_batch::config::{Api, ProcessingConfig};
use llm_batch::errors::LlmError;
use llm_batch::llm::{Complete, retry_policy};
use test_servers::{Action, Http};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{api_error, ask, call, client, job, reply};

/// Returns the shortest and the longest delay before each of the first retries, in milliseconds.
fn ranges(config: &ProcessingConfig, retries: usize) -> Vec<(u128, u128)> {
    let policy = retry_policy(config).expect("the settings are valid");
    let millis = |delay: Duration| delay.as_millis();
    let shortest = policy.backoff().delays(|range| *range.start()).map(millis);
    let longest = policy.backoff().delays(|range| *range.end()).map(millis);
    shortest.zip(longest).take(retries).collect()
}

/// tenacity: `max(0, min(initial * 2 ** (attempt - 1) + uniform(0, jitter), max))`.
#[test]
fn delays_equal_the_formula_of_tenacity() {
    let expected =
        [1, 2, 4, 8, 16, 32, 60, 60, 60].map(|ceiling| (ceiling * 1000, 60_000.min(ceiling * 1000 + 5000)));
    assert_eq!(ranges(&ProcessingConfig::default(), 9), expected);

    let config = ProcessingConfig { retry_delay: Duration::from_millis(250), ..ProcessingConfig::default() };
    assert_eq!(ranges(&config, 3), [(250, 5250), (500, 5500), (1000, 6000)]);
    let config = ProcessingConfig { retry_delay: Duration::ZERO, ..ProcessingConfig::default() };
    assert_eq!(ranges(&config, 2), [(0, 5000), (0, 5000)]);
}

/// Makes a call that succeeds after the given responses, and returns the time it takes.
async fn time_of_call(responses: Vec<Action>) -> Duration {
    let server = Http::start().await;
    let mut config = job(&server, Api::OpenAi);
    config.processing.max_retries = 10;
    server.script(responses);
    server.set_default(reply(Api::OpenAi, "4"));
    let start = Instant::now();
    assert_eq!(call(&config).await.expect("the last attempt succeeds"), "4");
    start.elapsed()
}

fn seconds(range: std::ops::RangeInclusive<u64>) -> std::ops::RangeInclusive<Duration> {
    // Timers of tokio are late by up to a millisecond.
    Duration::from_secs(*range.start())..=Duration::from_secs(*range.end()) + Duration::from_millis(20)
}

#[tokio::test(start_paused = true)]
async fn call_waits_before_each_retry() {
    for (failures, expected) in [(0, 0..=0), (1, 1..=6), (2, 3..=13), (3, 7..=22)] {
        let time = time_of_call(vec![Action::status(429); failures]).await;
        assert!(seconds(expected).contains(&time), "{failures} failures: {time:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn call_waits_for_retry_after() {
    for (header, value, expected) in [
        ("retry-after", "30", 30..=35),
        ("retry-after-ms", "20000", 20..=25),
        ("retry-after", "300", 300..=305),
        // The backoff is longer.
        ("retry-after", "0", 1..=6),
    ] {
        let time = time_of_call(vec![Action::status(429).header(header, value)]).await;
        assert!(seconds(expected).contains(&time), "{header}: {value}: {time:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn call_does_not_wait_for_hours() {
    let server = Http::start().await;
    server.script([Action::status(429).header("retry-after", "7200")]);
    call(&job(&server, Api::OpenAi)).await.expect_err("the server asks for two hours");
    assert_eq!(server.requests().len(), 1);
}

/// Makes a call that is stopped after its first request has arrived.
async fn stopped_call(responses: Vec<Action>) -> (Option<Result<String, LlmError>>, usize) {
    let server = Http::start().await;
    server.script(responses);
    let (client, ask) = (client(&job(&server, Api::OpenAi)), ask());
    let stopped = CancellationToken::new();
    let stop = async {
        server.wait_for_requests(1).await;
        stopped.cancel();
    };
    let (outcome, ()) = tokio::join!(client.complete_unless_stopped(&ask, &stopped), stop);
    (outcome, server.requests().len())
}

#[tokio::test(start_paused = true)]
async fn stopped_call_sends_no_further_attempt() {
    let later = api_error(Api::OpenAi, 429, "rate_limit_exceeded").header("retry-after", "300");
    let start = Instant::now();
    let (outcome, requests) = stopped_call(vec![later, reply(Api::OpenAi, "4")]).await;
    assert!(outcome.is_none(), "{outcome:?}");
    assert_eq!(requests, 1);
    assert!(start.elapsed() < Duration::from_secs(300));
}

#[tokio::test(start_paused = true)]
async fn stopped_call_finishes_its_attempt() {
    let slow = reply(Api::OpenAi, "4").delay(Duration::from_millis(50));
    let (outcome, _) = stopped_call(vec![slow]).await;
    assert_eq!(outcome.expect("the attempt is finished").expect("the server replies"), "4");
}
