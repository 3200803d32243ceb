//! The status, and the metrics.

use tower_breaker_fleet::{FleetAction, FleetOperation};

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
async fn status_shows_how_many_members_are_open_on_local_evidence() {
    let mut fleet = Processes::start(3).await;
    fleet.run(WARM_UP).await;
    let open_members = |fleet: &Processes| {
        let views = fleet.all.iter().map(|process| process.fleet.circuit_status(NAME).unwrap());
        views.map(|view| (view.open_members, view.members)).collect::<Vec<_>>()
    };
    assert_eq!(open_members(&fleet), [(0, 3); 3]);
    fleet.all[0].circuit.trip_for(seconds(600)).unwrap();
    sleep(HEARTBEAT * 2).await;
    assert_eq!(open_members(&fleet), [(1, 3); 3]);
    // A decision of the fleet applies to all members, before the next heartbeat, too.
    for action in [FleetAction::Trip, FleetAction::Reset, FleetAction::ForceClosed] {
        fleet.all[1].fleet.operate(NAME, FleetOperation::new(action)).await.unwrap();
        sleep(millis(10)).await;
        assert_eq!(open_members(&fleet), [(0, 3); 3], "{action:?}");
    }
    fleet.all[1].fleet.operate(NAME, FleetOperation::new(FleetAction::Release)).await.unwrap();
    sleep(millis(10)).await;
    fleet.all[0].circuit.trip_for(seconds(600)).unwrap();
    sleep(HEARTBEAT * 2).await;
    assert_eq!(open_members(&fleet), [(1, 3); 3]);
    fleet.all.remove(0).kill();
    sleep(HEARTBEAT * 4).await;
    assert_eq!(open_members(&fleet), [(0, 2); 2], "a process that has ended");
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
