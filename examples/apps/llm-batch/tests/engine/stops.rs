//! What stops a job, and what is left of it.

use llm_batch::engine::Event;
use llm_batch::unit::Unit;

use crate::fake::{
    CALL, Fake, Outcome, WAIT, circuit_open, concurrent, engine, failed, fatal, good, quota, run, sequential,
    units,
};

fn assert_three_errors_of_five(outcome: &Outcome) {
    assert_eq!(outcome.indices(), [0, 1, 2]);
    for result in &outcome.results {
        assert_eq!(result["error"], "AuthenticationError: the key is invalid: check it");
    }
    let Some(Event::Tripped(tripped)) = &outcome.end else { panic!("{:?}", outcome.end) };
    assert_eq!(tripped.to_string(), "Circuit breaker tripped after 3 failures");
}

#[tokio::test(start_paused = true)]
async fn engine_tracks_fatal_errors_in_circuit_breaker() {
    for config in [sequential(3), concurrent(1, 3)] {
        let client = Fake::new(|_, _| Err(fatal()));
        let engine = engine(&client, &config);
        let outcome = run(&engine, units(5)).await;
        assert_three_errors_of_five(&outcome);
        assert_eq!(client.log().prompts, ["0", "1", "2"]);
        assert_eq!(engine.status().consecutive_failures, 3);
        assert_eq!(engine.status().last_failed_unit.unwrap()["q"], "2");
    }
}

#[tokio::test(start_paused = true)]
async fn engine_resets_circuit_breaker_on_success() {
    let client = Fake::new(|ask, _| if ask.prompt == "2" { good() } else { Err(fatal()) });
    let engine = engine(&client, &sequential(3));
    let outcome = run(&engine, units(10)).await;
    assert_eq!(outcome.indices(), [0, 1, 2, 3, 4, 5]);
    assert!(outcome.is_tripped());
    assert_eq!(outcome.results[2]["answer"], 42);
}

#[tokio::test(start_paused = true)]
async fn engine_circuit_breaker_disabled_when_zero() {
    for config in [sequential(0), concurrent(10, 0)] {
        let client = Fake::new(|_, _| Err(fatal()));
        let engine = engine(&client, &config);
        let outcome = run(&engine, units(100)).await;
        assert_eq!(outcome.results.len(), 100);
        assert!(outcome.end.is_none());
        assert!(!engine.status().is_tripped);
        assert_eq!(engine.status().consecutive_failures, 100);
    }
}

#[tokio::test(start_paused = true)]
async fn other_errors_neither_count_nor_reset() {
    let client = Fake::new(|ask, _| match ask.prompt.as_str() {
        "0" | "3" | "6" => Err(fatal()),
        _ => Err(failed()),
    });
    let outcome = run(&engine(&client, &sequential(3)), units(10)).await;
    assert_eq!(outcome.indices(), [0, 1, 2, 3, 4, 5, 6]);
    assert!(outcome.is_tripped());
    assert_eq!(outcome.results[1]["error"], "InternalServerError: try later");
}

#[tokio::test(start_paused = true)]
async fn calls_in_flight_finish_after_a_trip() {
    // The calls 1 to 3 are in flight when the first error trips the circuit.
    let client = Fake::new(|ask, _| if ask.prompt == "0" { Err(fatal()) } else { good() });
    let engine = engine(&client, &concurrent(4, 1));
    let outcome = run(&engine, units(1000)).await;
    let mut indices = outcome.indices();
    indices.sort_unstable();
    assert_eq!(indices, [0, 1, 2, 3]);
    assert_eq!(outcome.results.iter().filter(|result| result["answer"] == 42).count(), 3);
    assert!(outcome.is_tripped());
    assert_eq!((client.log().prompts.len(), client.log().dropped), (4, 0));
}

#[tokio::test(start_paused = true)]
async fn trip_ends_the_retries_of_replies_that_do_not_parse() {
    // Unit 1 is asked again and again until unit 0 trips the circuit: it is not finished.
    let client = Fake::new(|ask, _| if ask.prompt == "0" { Err(fatal()) } else { Ok("no JSON".to_owned()) });
    let outcome = run(&engine(&client, &concurrent(2, 1)), units(2)).await;
    assert_eq!(outcome.indices(), [0]);
    assert!(outcome.is_tripped());
    assert_eq!(client.log().prompts, ["0", "1"]);
}

#[tokio::test(start_paused = true)]
async fn tripped_engine_makes_no_call_until_it_is_reset() {
    let client = Fake::new(|ask, earlier_calls| match ask.prompt.as_str() {
        "0" | "1" if earlier_calls == 0 => Err(fatal()),
        _ => good(),
    });
    let engine = engine(&client, &concurrent(1, 2));
    assert_eq!(run(&engine, units(4)).await.indices(), [0, 1]);

    let outcome = run(&engine, units(4)).await;
    assert!(outcome.results.is_empty() && outcome.is_tripped());
    assert_eq!(client.log().prompts.len(), 2);

    engine.reset_circuit_breaker();
    let rest: Vec<(usize, Unit)> = units(4).split_off(1);
    let outcome = run(&engine, rest).await;
    assert_eq!(outcome.indices(), [1, 2, 3]);
    assert!(outcome.end.is_none());
}

#[tokio::test(start_paused = true)]
async fn used_up_quota_stops_and_leaves_units_unfinished() {
    // Call 2 is refused, and the calls 3 and 4 are in flight: 3 is refused, too.
    let client = Fake::new(|ask, _| match ask.prompt.as_str() {
        "2" | "3" => Err(quota()),
        _ => good(),
    });
    let engine = engine(&client, &concurrent(3, 5));
    let outcome = run(&engine, units(1000)).await;
    assert!(outcome.indices().iter().all(|index| ![2, 3].contains(index)), "{:?}", outcome.indices());
    let Some(Event::QuotaExhausted { error }) = &outcome.end else { panic!("{:?}", outcome.end) };
    assert_eq!(error.to_string(), "RateLimitError: the quota is used up");
    let log = client.log();
    assert!(log.prompts.len() <= 6 && log.dropped == 0, "{log:?}");
    // Each call has a result, or was refused.
    let refused = log.prompts.iter().filter(|prompt| ["2", "3"].contains(&prompt.as_str())).count();
    assert_eq!(outcome.results.len() + refused, log.prompts.len());
    assert_eq!(engine.status().consecutive_failures, 0);
}

#[tokio::test(start_paused = true)]
async fn trip_ends_the_wait_for_a_model() {
    let start = tokio::time::Instant::now();
    let client = Fake::new(|ask, _| Err(if ask.prompt == "0" { circuit_open() } else { fatal() }));
    let outcome = run(&engine(&client, &concurrent(2, 2)), units(10)).await;
    assert_eq!(outcome.indices()[..2], [1, 2]);
    assert!(outcome.is_tripped());
    assert!(!outcome.indices().contains(&0), "the waiting unit is not finished");
    assert!(start.elapsed() < WAIT && start.elapsed() >= CALL * 2);
}
