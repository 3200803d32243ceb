//! How many messages the agents send.

use tower_breaker_fleet::{Delivery, FleetAction, FleetOperation};

use super::*;

#[tokio::test(start_paused = true)]
async fn healthy_process_sends_one_message_for_each_heartbeat() {
    let mut fleet = Processes::start(20).await;
    fleet.run(seconds(10)).await;
    let before = fleet.messages();
    fleet.run(seconds(100)).await;
    let rate = (fleet.messages() - before) as f64 / 20.0 / 20.0;
    assert!((0.9..=1.1).contains(&rate), "{rate} messages");
}

#[tokio::test(start_paused = true)]
async fn flapping_circuit_sends_at_most_ten_messages_a_second() {
    let mut fleet = Processes::start(2).await;
    fleet.run(seconds(10)).await;
    let before = fleet.messages();
    for _ in 0..1_000 {
        let circuit = &fleet.all[0].circuit;
        circuit.trip().unwrap();
        sleep(millis(5)).await;
        circuit.reset().unwrap();
        sleep(millis(5)).await;
    }
    let sent = fleet.messages() - before;
    // 10 s, a burst of 10, and the heartbeats of the other process.
    assert!((100..=116).contains(&sent), "{sent}");
}

#[tokio::test(start_paused = true)]
async fn shortest_heartbeat_leaves_messages_for_votes_and_probes() {
    let start = |store: &MemoryStore, instance: &str| {
        let config = config().build().unwrap();
        Process::start_with(store, instance, config, |builder| builder.heartbeat(millis(250)))
    };
    let mut fleet = Processes::start_with(20, start).await;
    fleet.run(seconds(10)).await;
    let before = fleet.messages();
    fleet.run(seconds(100)).await;
    let rate = (fleet.messages() - before) as f64 / 20.0 / 100.0;
    assert!(rate <= 5.0, "{rate} messages per second");
}

#[tokio::test(start_paused = true)]
async fn heartbeat_carries_what_updates_have_lost() {
    for delivery in [Delivery::Never, Delivery::Twice] {
        let mut fleet = Processes::start(3).await;
        fleet.store.set_delivery(delivery);
        fleet.run(WARM_UP).await;
        fleet.server_works = false;
        let is_open = |fleet: &Processes| fleet.all_in(CircuitState::Open);
        assert!(fleet.run_until(seconds(10), is_open).await.is_some(), "{delivery:?}");
        fleet.server_works = true;
        let is_closed = |fleet: &Processes| fleet.all_in(CircuitState::Closed);
        assert!(fleet.run_until(seconds(12), is_closed).await.is_some(), "{delivery:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn many_circuits_share_a_message() {
    let (fleet, agent) = Fleet::builder(MemoryStore::new()).instance("p0").build().unwrap();
    tokio::spawn(agent);
    let create = |number| Circuit::new(config().name(format!("c{number}")).build().unwrap());
    let circuits: Vec<_> = (0..130).map(create).collect();
    for circuit in &circuits {
        fleet.share(circuit).unwrap();
    }
    assert!(fleet.ready(seconds(1)).await);
    let before = fleet.status().messages;
    sleep(seconds(50)).await;
    let sent = fleet.status().messages - before;
    // Three messages for each of ten heartbeats.
    assert!((27..=36).contains(&sent), "{sent}");
}

#[tokio::test(start_paused = true)]
async fn more_circuits_than_a_heartbeat_can_carry_take_turns() {
    let builder = Fleet::builder(MemoryStore::new()).heartbeat(millis(250));
    let (fleet, agent) = builder.build().unwrap();
    tokio::spawn(agent);
    let create = |number| Circuit::new(config().name(format!("c{number}")).build().unwrap());
    let circuits: Vec<_> = (0..1_000).map(create).collect();
    for circuit in &circuits {
        fleet.share(circuit).unwrap();
    }
    assert!(fleet.ready(seconds(10)).await);
}

#[tokio::test(start_paused = true)]
async fn probes_of_many_circuits_do_not_delay_the_heartbeat() {
    let create = |number| Circuit::new(config().name(format!("c{number}")).build().unwrap());
    let store = MemoryStore::new();
    let mut processes = Vec::new();
    for instance in ["calls", "waits"] {
        let (fleet, agent) = Fleet::builder(store.clone()).instance(instance).build().unwrap();
        tokio::spawn(agent);
        let circuits: Vec<_> = (0..100).map(create).collect();
        for circuit in &circuits {
            fleet.share(circuit).unwrap();
        }
        processes.push((fleet, circuits));
    }
    for name in processes[0].1.iter().map(Circuit::name) {
        processes[1].0.operate(name, FleetOperation::new(FleetAction::Trip)).await.unwrap();
    }
    let start = Instant::now();
    let mut fewest = u32::MAX;
    while start.elapsed() < seconds(120) {
        for permit in processes[0].1.iter().filter_map(|circuit| circuit.try_acquire().ok()) {
            permit.record(failure());
        }
        sleep(millis(50)).await;
        if start.elapsed() > seconds(10) {
            let status =
                processes[0].1.iter().filter_map(|circuit| processes[1].0.circuit_status(circuit.name()));
            fewest = fewest.min(status.map(|status| status.members).min().unwrap());
        }
    }
    assert_eq!(fewest, 2, "each process is a member of each circuit");
}
