//! Tests with a real server.

mod scenarios;
mod server;

use std::time::Duration;

use super::PostgresStore;
use crate::record::FleetState;
use crate::store::{Backend, Ballot, LocalOpen, QuorumRule, Session, SyncCircuit, SyncRequest, Update};
use server::shared;

fn heartbeat(instance: &str, circuit: &str, vote: bool) -> SyncRequest {
    SyncRequest {
        instance: instance.to_owned(),
        lifetime: Duration::from_millis(300),
        grace: Duration::from_secs(60),
        circuits: vec![SyncCircuit {
            name: circuit.to_owned(),
            member: true,
            ballot: Ballot { vote, consecutive_failures: 0 },
            quorum: QuorumRule { at_least: 1, share: 0.0, consecutive_failures: 0 },
            open_for: Some(Duration::from_secs(5)),
            local: LocalOpen::No,
            known: None,
        }],
    }
}

async fn connect(store: &PostgresStore, namespace: &str) -> Box<dyn Session> {
    store.connect(namespace).await.unwrap()
}

#[tokio::test]
async fn vote_opens_circuit_and_notifies_listener() {
    let server = shared().await;
    let store = server.store();
    let mut a = connect(&store, "listener").await;
    let mut b = connect(&store, "listener").await;
    let opened = tokio::spawn(async move {
        loop {
            if let Update::Record(record) = b.update().await.unwrap() {
                break record;
            }
        }
    });
    let synced = a.sync(&heartbeat("a", "search", true)).await.unwrap();
    let record = synced[0].record.as_ref().unwrap();
    assert_eq!(record.state, FleetState::Open);
    let seen = opened.await.unwrap();
    assert_eq!((seen.epoch, seen.state), (record.epoch, FleetState::Open));
    assert_eq!(seen.reason, "quorum");
}
