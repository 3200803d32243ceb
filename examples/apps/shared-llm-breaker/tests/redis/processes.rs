//! Worker processes that share a circuit.

use std::time::Duration;

use test_servers::Redis;

use super::counting_api::{Answer, CountingApi};
use super::keys::members;
use super::support::until;
use super::worker::Worker;

#[tokio::test]
async fn two_workers_add_up_to_one_run_of_failures() {
    let redis = Redis::start();
    let api = CountingApi::start(Answer::Failure).await;
    // A worker that has made its calls waits for the interval, and is a member until it ends.
    let first = ["--concurrency", "3", "--calls", "3", "--interval", "3600"];
    let first = Worker::start(&redis.url(), &api.base_url(), &first).await;
    until("3 calls fail", || first.count("failed") == 3).await;
    let second = ["--concurrency", "2", "--calls", "2", "--interval", "3600"];
    let second = Worker::start(&redis.url(), &api.base_url(), &second).await;
    until("2 calls fail", || second.count("failed") == 2).await;

    let is_open = || redis.command("EXISTS tb1:{circuit_breaker}:c:claude_api") == "1";
    until("the circuit opens", is_open).await;
    let late = Worker::start(&redis.url(), &api.base_url(), &["--calls", "1"]).await;
    let rejected = late.wait_for_outcome("rejected").await;
    assert_eq!((&rejected["state"], &rejected["kind"]), (&"open".into(), &"rejected".into()));
    let text = "Circuit breaker 'claude_api' is open. Service temporarily unavailable.";
    assert_eq!(rejected["text"], text);
    assert_eq!(api.requests(), 5);
}

#[tokio::test]
async fn killed_worker_starts_open_with_remaining_time() {
    let redis = Redis::start();
    let api = CountingApi::start(Answer::Failure).await;
    let arguments = ["--interval", "0.01", "--reset-timeout", "600"];
    let worker = Worker::start(&redis.url(), &api.base_url(), &arguments).await;
    worker.wait_for_outcome("rejected").await;
    until("the store has the decision", || redis.command("EXISTS tb1:{circuit_breaker}:c:claude_api") == "1")
        .await;
    worker.kill().await;

    let worker = Worker::start(&redis.url(), &api.base_url(), &arguments).await;
    let started = worker.wait_for("started", |event| event["event"] == "started").await;
    assert_eq!((&started["state"], &started["attached"]), (&"open".into(), &true.into()), "{started}");
    let left = started["retry_after_seconds"].as_f64().unwrap();
    assert!(left > 0.0 && left < 600.0, "{left}");
    worker.wait_for_outcome("rejected").await;
    assert_eq!(worker.count("failed"), 0);
    assert_eq!(api.requests(), 5);
}

#[tokio::test]
async fn hundred_tasks_in_two_processes_send_one_probe_at_once() {
    let redis = Redis::start();
    let api = CountingApi::start(Answer::Failure).await;
    let settings = ["--reset-timeout", "0.3", "--takeover", "60", "--probe-lease", "20"];
    let arguments = [&settings[..], &["--concurrency", "50", "--interval", "0.01"]].concat();
    let first = Worker::start(&redis.url(), &api.base_url(), &arguments).await;
    let second = Worker::start(&redis.url(), &api.base_url(), &arguments).await;
    // Each task has been rejected, so the calls from before the circuit opened have ended.
    until("calls are rejected", || first.has_ended(300) && second.has_ended(300)).await;
    api.take_most();
    let before = api.requests();
    until("probes in several rounds", || api.requests() >= before + 8).await;
    assert_eq!(api.take_most(), 1);
}

#[tokio::test]
async fn probe_of_killed_worker_frees_its_slot() {
    let redis = Redis::start();
    let api = CountingApi::start(Answer::Failure).await;
    let arguments =
        ["--interval", "0.05", "--reset-timeout", "0.3", "--takeover", "60", "--probe-lease", "5"];
    let first = Worker::start(&redis.url(), &api.base_url(), &arguments).await;
    first.wait_for_state("open").await;
    api.set_answer(Answer::Nothing);
    let before = api.requests();
    until("a probe hangs", || api.requests() > before && api.running() == 1).await;

    let second = Worker::start(&redis.url(), &api.base_url(), &arguments).await;
    second.wait_for_outcome("rejected").await;
    assert_eq!(api.requests(), before + 1, "the slot is taken");
    api.set_answer(Answer::Reply);
    first.kill().await;
    second.wait_for_outcome("succeeded").await;
    second.wait_for_state("closed").await;
}

#[tokio::test]
async fn terminated_worker_leaves_and_prints_counts() {
    let redis = Redis::start();
    let api = CountingApi::start(Answer::Reply).await;
    let arguments = ["--interval", "0.01", "--instance", "leaver"];
    let worker = Worker::start(&redis.url(), &api.base_url(), &arguments).await;
    worker.wait_for_outcome("succeeded").await;
    assert!(members(&redis, "claude_api").await.contains(&":leaver".to_owned()));
    let (code, events, log) = worker.end().await;
    assert_eq!(code, Some(130), "{log}");
    let ended = events.last().unwrap();
    assert_eq!(ended["event"], "ended");
    assert_eq!(ended["calls"], ended["succeeded"]);
    assert!(!members(&redis, "claude_api").await.contains(&":leaver".to_owned()));
}

#[tokio::test]
async fn log_of_worker_has_events_as_json() {
    let redis = Redis::start();
    let api = CountingApi::start(Answer::Failure).await;
    let worker = Worker::start(&redis.url(), &api.base_url(), &["--calls", "5", "--interval", "0"]).await;
    let (code, events, log) = worker.ended().await;
    assert_eq!(code, Some(1), "{log}");
    assert_eq!(events.last().unwrap()["failed"], 5);
    let log: Vec<serde_json::Value> =
        log.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let named = |name: &str| log.iter().filter(|event| event["fields"]["message"] == name).count();
    assert_eq!((named("circuit_breaker_failure"), named("circuit_breaker_state_change")), (5, 1), "{log:#?}");
}

/// How long Redis is stopped. A minute: `SHARED_LLM_BREAKER_PAUSE=60`.
fn pause() -> Duration {
    let seconds = std::env::var("SHARED_LLM_BREAKER_PAUSE").ok().and_then(|text| text.parse().ok());
    Duration::from_secs_f64(seconds.unwrap_or(2.0))
}

#[tokio::test]
async fn calls_under_load_do_not_wait_while_redis_is_stopped() {
    let mut redis = Redis::start();
    let api = CountingApi::start(Answer::Reply).await;
    let arguments = ["--concurrency", "20", "--interval", "0"];
    let first = Worker::start(&redis.url(), &api.base_url(), &arguments).await;
    let second = Worker::start(&redis.url(), &api.base_url(), &arguments).await;
    first.wait_for_outcome("succeeded").await;
    second.wait_for_outcome("succeeded").await;
    redis.pause();
    tokio::time::sleep(pause()).await;
    let before = [first.count("succeeded"), second.count("succeeded")];
    // 100 more calls of each worker end while Redis is stopped.
    until("calls end", || first.count("succeeded") > before[0] + 100).await;
    until("calls end", || second.count("succeeded") > before[1] + 100).await;
    redis.resume();
    assert_eq!(first.count("failed") + first.count("rejected"), 0);
    assert_eq!(second.count("failed") + second.count("rejected"), 0);
    let (_, _, log) = first.end().await;
    assert!(log.contains("the store of the fleet"), "{log}");
}
