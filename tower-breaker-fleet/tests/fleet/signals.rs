//! Signals of the circuits reach the agent.

use std::time::Duration;

use super::*;

/// Longer than each test, so that no heartbeat hides a lost signal.
const RARE_HEARTBEAT: Duration = Duration::from_secs(60);

fn start(store: &MemoryStore, instance: &str) -> Process {
    let config = config().consecutive_failures(0).build().unwrap();
    Process::start_with(store, instance, config, |builder| builder.heartbeat(RARE_HEARTBEAT))
}

#[tokio::test(start_paused = true)]
async fn failure_together_with_a_transition_does_not_lose_later_failures() {
    let mut fleet = Processes::start_with(2, start).await;
    sleep(RARE_HEARTBEAT * 3).await;
    for process in &mut fleet.all {
        // The agent receives the signal and the transition at the same time.
        process.call(false);
        process.circuit.trip().unwrap();
        sleep(millis(200)).await;
        process.circuit.reset().unwrap();
        sleep(millis(200)).await;
    }
    assert!(fleet.all_in(CircuitState::Closed), "{:?}", fleet.states());
    for process in &mut fleet.all {
        // Each is below the minimum of calls, and both together reach it.
        for _ in 0..10 {
            process.call(false);
        }
    }
    fleet.settle().await;
    assert!(fleet.all_in(CircuitState::Open), "{:?}", fleet.states());
}
