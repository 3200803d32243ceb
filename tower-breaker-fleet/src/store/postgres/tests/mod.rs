//! Tests with a real server.

mod answers;
mod clock;
mod connections;
mod failures;
mod scenarios;
mod schema;
mod server;
#[cfg(feature = "postgres-tls")]
mod tls;

use std::time::Duration;

use super::PostgresStore;
use crate::quorum::Quorum;
use crate::store::scenarios::helpers::{self, LONG, member, voter};
use crate::store::{
    Action, Backend, CompletedProbe, LeaseRequest, Operation, ProbeOutcome, QuorumRule, Session, StoreError,
    SyncCircuit, SyncRequest, Update,
};

/// The longest wait for something that happens soon.
const DEADLINE: Duration = Duration::from_secs(20);

/// A quorum of one vote, which needs no warm-up.
const ONE: QuorumRule = Quorum::at_least(1).rule(0, Duration::ZERO);
/// A quorum of half of the members.
const HALF: QuorumRule = Quorum::majority().rule(0, Duration::ZERO);

fn circuit(name: &str, vote: bool, quorum: QuorumRule) -> SyncCircuit {
    let circuit = if vote { voter(quorum) } else { member(quorum) };
    SyncCircuit { name: name.to_owned(), ..circuit }
}

fn heartbeat(instance: &str, circuits: Vec<SyncCircuit>) -> SyncRequest {
    SyncRequest { instance: instance.to_owned(), lifetime: LONG, grace: LONG, circuits }
}

fn vote(name: &str) -> SyncRequest {
    heartbeat("a", vec![circuit(name, true, ONE)])
}

fn operation(name: &str, action: Action) -> Operation {
    Operation { circuit: name.to_owned(), ..helpers::operation(action) }
}

fn lease(name: &str) -> LeaseRequest {
    LeaseRequest { circuit: name.to_owned(), ..helpers::lease("a", 1) }
}

fn completed(name: &str, epoch: u64) -> CompletedProbe {
    CompletedProbe {
        circuit: name.to_owned(),
        probes: 1,
        successes_to_close: 1,
        ..helpers::completed("a", epoch, ProbeOutcome::Success)
    }
}

async fn connect(store: &PostgresStore, namespace: &str) -> Box<dyn Session> {
    store.connect(namespace).await.unwrap()
}

/// Returns the error of a connection, whose texts have no password.
async fn connection_error(store: &PostgresStore) -> StoreError {
    let error = store.connect("test").await.err().expect("the connection fails");
    assert_without_password(&error);
    assert_eq!(format!("{store:?}").find("secret"), None);
    error
}

fn assert_without_password(error: &StoreError) {
    assert_eq!(format!("{error:?}").find("secret"), None, "{error:?}");
}

/// Waits for the next update.
async fn update(session: &mut dyn Session) -> Result<Update, StoreError> {
    tokio::time::timeout(DEADLINE, session.update()).await.expect("an update in time")
}
