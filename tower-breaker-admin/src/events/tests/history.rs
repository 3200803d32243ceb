//! Tests of the history.

use tower_breaker::Verdict;

use super::*;

#[tokio::test(start_paused = true)]
async fn history_has_a_sample_per_second() {
    let registry = registry(&["a", "b"]);
    let hub = hub(&registry, true);
    hub.start();
    sleep(Duration::from_millis(1_500)).await;
    registry.record("a", Verdict::Success).unwrap();
    for _ in 0..3 {
        registry.record("a", FAILURE).unwrap();
    }
    sleep(SECOND).await;
    registry.trip("a").unwrap();
    sleep(SECOND).await;
    registry.force_open("a").unwrap();
    sleep(SECOND).await;
    registry.force_closed("a").unwrap();
    sleep(SECOND).await;
    let history = hub.history("a").unwrap();
    assert_eq!(history.states, "cccoOC");
    assert_eq!(history.failure_rate, [None, None, Some(75), None, None, None]);
    assert_eq!(history.calls, [0, 0, 4, 0, 0, 0]);
    assert_eq!(history.interval_seconds, 1);
    assert_eq!(hub.history("b").unwrap().states, "cccccc");
    assert!(hub.history("c").is_none());
    registry.remove("a");
    sleep(SECOND).await;
    assert!(hub.history("a").is_none());
}

#[tokio::test(start_paused = true)]
async fn history_has_three_minutes() {
    let registry = registry(&["a"]);
    let hub = hub(&registry, true);
    hub.start();
    sleep(Duration::from_millis(500)).await;
    registry.trip("a").unwrap();
    sleep(179 * SECOND).await;
    let states = hub.history("a").unwrap().states;
    assert_eq!(states, format!("c{}", "o".repeat(179)));
    sleep(SECOND).await;
    assert_eq!(hub.history("a").unwrap().states, "o".repeat(180));
}

#[tokio::test(start_paused = true)]
async fn missed_samples_are_gaps() {
    let registry = registry(&["a"]);
    let hub = hub(&registry, true);
    hub.start();
    registry.record("a", Verdict::Success).unwrap();
    sleep(Duration::from_millis(500)).await;
    // The runtime does not run for three samples.
    tokio::time::advance(Duration::from_millis(3_600)).await;
    sleep(Duration::from_millis(1)).await;
    let history = hub.history("a").unwrap();
    assert_eq!(history.calls, [1, 0, 0, 0, 1]);
    assert_eq!(history.failure_rate, [Some(0), None, None, None, Some(0)]);
    tokio::time::advance(1_000_000 * SECOND).await;
    sleep(SECOND).await;
    assert_eq!(hub.history("a").unwrap().states.len(), 180);
}

#[tokio::test(start_paused = true)]
async fn idle_hub_serializes_nothing() {
    let registry = registry(&["a"]);
    let hub = hub(&registry, true);
    hub.start();
    for _ in 0..10 {
        sleep(Duration::from_millis(1_050)).await;
        registry.trip("a").unwrap();
        registry.reset("a").unwrap();
    }
    assert_eq!(hub.history("a").unwrap().states.len(), 11);
    assert_eq!(hub.shared.state().log.written_bytes(), 0);
}
