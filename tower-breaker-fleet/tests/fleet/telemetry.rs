//! The status, and the metrics.

use super::*;

#[tokio::test(start_paused = true)]
async fn status_shows_the_connection_and_the_members() {
    let mut fleet = Processes::start(3).await;
    // The view is that of the last heartbeat.
    fleet.run(WARM_UP + HEARTBEAT * 2).await;
    let process = &fleet.all[0];
    let status = process.fleet.status();
    assert!(status.attached && status.last_error.is_none());
    assert_eq!((&*status.namespace, &*status.instance, status.circuits), ("default", "p0", 1));
    assert!(status.since_last_reply.unwrap() <= HEARTBEAT * 2);
    let view = process.fleet.circuit_status(NAME).unwrap();
    assert_eq!((view.members, view.votes, view.votes_needed, view.voting), (3, 0, 2, false));
    assert!(!view.warming_up);
    assert!(process.fleet.circuit_status("other").is_none());

    fleet.store.set_availability(Availability::Failing);
    sleep(seconds(20)).await;
    let status = fleet.all[0].fleet.status();
    assert!(!status.attached && status.errors >= 2);
    assert_eq!(status.last_error.as_deref(), Some("the memory store fails"));
    assert!(status.since_last_reply.unwrap() >= seconds(20));
}

#[tokio::test(start_paused = true)]
async fn serialized_durations_are_seconds() {
    let mut fleet = Processes::start(3).await;
    fleet.run(WARM_UP).await;
    fleet.open().await;
    sleep(seconds(1)).await;
    let view = serde_json::to_value(fleet.all[0].fleet.circuit_status(NAME).unwrap()).unwrap();
    let remaining = view["record"]["remaining_seconds"].as_f64().unwrap();
    assert!((1.8..=2.0).contains(&remaining), "{view}");
    assert_eq!(view["record"]["state"], "open");
    assert!(view["record"]["manual_remaining_seconds"].is_null(), "{view}");
    let status = serde_json::to_value(fleet.all[0].fleet.status()).unwrap();
    assert!(status["since_last_reply_seconds"].is_f64(), "{status}");
    let record = fleet.all[0].record();
    let json = serde_json::to_string(&record).unwrap();
    let read: tower_breaker_fleet::CircuitRecord = serde_json::from_str(&json).unwrap();
    assert_eq!((read.epoch, read.state), (record.epoch, record.state));
    assert!(read.remaining.unwrap().abs_diff(record.remaining.unwrap()) < millis(1));
}
