//! How many calls run at once, and in which order their results come.

use std::time::Duration;

use futures::{FutureExt, StreamExt};
use serde_json::json;
use tokio::time::Instant;

use crate::fake::{CALL, Fake, WAIT, circuit_open, concurrent, engine, good, run, sequential, unit, units};

#[tokio::test(start_paused = true)]
async fn at_most_batch_size_calls_run_at_once() {
    let start = Instant::now();
    let client = Fake::new(|_, _| good());
    let outcome = run(&engine(&client, &concurrent(7, 5)), units(1000)).await;
    assert_eq!(outcome.results.len(), 1000);
    let log = client.log();
    assert_eq!((log.most_running, log.prompts.len(), log.dropped), (7, 1000, 0));
    let mut indices = outcome.indices();
    indices.sort_unstable();
    assert_eq!(indices, (0..1000).collect::<Vec<u64>>());
    // All seven are busy all the time. Tokio's timer may add a millisecond to each call.
    let rounds = 1000_u32.div_ceil(7);
    assert!(start.elapsed() < (CALL + Duration::from_millis(2)) * rounds);
}

#[tokio::test(start_paused = true)]
async fn sequential_mode_asks_one_unit_after_the_other() {
    let client = Fake::new(|_, _| good());
    let mut config = sequential(5);
    config.batch_size = 10;
    let outcome = run(&engine(&client, &config), units(50)).await;
    assert_eq!(outcome.indices(), (0..50).collect::<Vec<u64>>());
    assert_eq!(client.log().most_running, 1);
}

#[tokio::test(start_paused = true)]
async fn results_come_as_they_complete() {
    // Unit 0 needs three calls, the others one.
    let client =
        Fake::new(
            |ask, earlier_calls| {
                if ask.prompt == "0" && earlier_calls < 2 { Ok("no JSON".to_owned()) } else { good() }
            },
        );
    let outcome = run(&engine(&client, &concurrent(2, 5)), units(5)).await;
    let indices = outcome.indices();
    assert_eq!(indices.len(), 5);
    assert!(indices.iter().position(|index| *index == 0) > Some(1), "{indices:?}");
}

#[tokio::test(start_paused = true)]
async fn units_are_started_only_when_there_is_room() {
    let client = Fake::new(|_, _| good());
    let engine = engine(&client, &concurrent(10, 5));
    let mut events = Box::pin(engine.process(units(10_000)));
    assert!(client.log().prompts.is_empty());
    assert!(events.next().now_or_never().is_none());
    assert_eq!(client.log().prompts.len(), 10);
    events.next().await.unwrap();
    events.next().now_or_never();
    assert!(client.log().prompts.len() <= 20);
}

#[tokio::test(start_paused = true)]
async fn dropped_stream_drops_its_calls() {
    let client = Fake::new(|_, _| good());
    let engine = engine(&client, &concurrent(10, 5));
    let mut events = Box::pin(engine.process(units(100)));
    assert!(events.next().now_or_never().is_none());
    assert_eq!(client.log().running, 10);
    drop(events);
    let log = client.log();
    assert_eq!((log.running, log.dropped, log.prompts.len()), (0, 10, 10));
    // The engine is as good as new.
    assert_eq!(run(&engine, units(20)).await.results.len(), 20);
}

#[tokio::test(start_paused = true)]
async fn unit_waits_for_the_circuit_of_its_model() {
    let start = Instant::now();
    let client = Fake::new(|_, earlier_calls| if earlier_calls < 2 { Err(circuit_open()) } else { good() });
    let outcome = run(&engine(&client, &sequential(1)), units(1)).await;
    assert_eq!(outcome.results, [json!({"q": "0", "answer": 42, "_idx": 0})]);
    assert_eq!(client.log().waits, 2);
    assert!(start.elapsed() >= WAIT * 2);
}

#[tokio::test(start_paused = true)]
async fn units_of_other_models_do_not_wait() {
    let start = Instant::now();
    let client = Fake::new(move |ask, _| {
        let is_down = start.elapsed() < WAIT && ask.model.as_deref() == Some("down");
        if is_down { Err(circuit_open()) } else { good() }
    });
    let models = (0..40).map(|index| {
        let model = if index < 20 { "down" } else { "up" };
        (index, unit(json!({"q": index.to_string(), "model": model})))
    });
    let engine = engine(&client, &concurrent(5, 5)).model_field(Some("model".to_owned()));
    let mut events = Box::pin(engine.process(models.collect()));
    for _ in 0..20 {
        let Some(llm_batch::engine::Event::Result(result)) = events.next().await else { panic!("no result") };
        assert_eq!(result["model"], "up");
    }
    assert!(start.elapsed() < WAIT);
    assert_eq!(events.count().await, 20);
    assert_eq!(client.log().most_running, 5);
}
