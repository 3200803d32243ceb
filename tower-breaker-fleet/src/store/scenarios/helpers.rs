//! Requests with defaults, which the other tests of the stores also use, and waiting.

use std::time::Duration;

use crate::quorum::Quorum;
use crate::record::{CircuitRecord, FleetState};
use crate::store::{
    Action, Backend, Ballot, CompletedProbe, LeaseReply, LeaseRequest, LocalOpen, Operation, OperationReply,
    ProbeOutcome, QuorumRule, Session, SyncCircuit, SyncRequest, Synced, Update,
};

/// The name of the circuit in a scenario with one circuit.
pub(crate) const CIRCUIT: &str = "search";

/// A lifetime, lease or open time that a scenario waits for.
pub(super) const SHORT: Duration = Duration::from_millis(300);

/// A time that ends in no scenario.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// The longest wait for something that happens soon.
const DEADLINE: Duration = Duration::from_secs(20);

/// How long to wait before the next look.
const POLL: Duration = Duration::from_millis(20);

/// Returns a namespace that no other scenario uses.
pub(super) fn namespace() -> String {
    format!("scenario-{:016x}", fastrand::u64(..))
}

/// A session of a scenario, with shorter calls.
pub(super) struct Client {
    session: Box<dyn Session>,
}

pub(super) async fn connect(backend: &dyn Backend, namespace: &str) -> Client {
    Client { session: backend.connect(namespace).await.expect("the store is available") }
}

/// A quorum of a fixed number of votes.
pub(crate) fn votes(at_least: u32) -> QuorumRule {
    Quorum::at_least(at_least).rule(0, Duration::ZERO)
}

pub(crate) fn member(quorum: QuorumRule) -> SyncCircuit {
    SyncCircuit {
        name: CIRCUIT.to_owned(),
        member: true,
        ballot: Ballot::default(),
        quorum,
        open_for: Some(LONG),
        local: LocalOpen::No,
        known: None,
    }
}

pub(crate) fn voter(quorum: QuorumRule) -> SyncCircuit {
    SyncCircuit { ballot: Ballot { vote: true, ..Ballot::default() }, ..member(quorum) }
}

pub(crate) fn operation(action: Action) -> Operation {
    Operation {
        circuit: CIRCUIT.to_owned(),
        action,
        by: "ada".to_owned(),
        reason: "maintenance".to_owned(),
        expected_epoch: None,
        open_for: Some(LONG),
        keep_for: None,
        grace: LONG,
    }
}

/// A request for a lease of a probe that begins at once.
pub(crate) fn lease(instance: &str, probes: u32) -> LeaseRequest {
    LeaseRequest {
        instance: instance.to_owned(),
        circuit: CIRCUIT.to_owned(),
        probes,
        lease: LONG,
        weight: 1.0,
        grace: LONG,
    }
}

/// The outcome of a probe in a round that two successes or two failures of three probes decide.
pub(crate) fn completed(instance: &str, epoch: u64, outcome: ProbeOutcome) -> CompletedProbe {
    CompletedProbe {
        instance: instance.to_owned(),
        circuit: CIRCUIT.to_owned(),
        epoch,
        outcome,
        open_for: Some(LONG),
        probes: 3,
        successes_to_close: 2,
        grace: LONG,
    }
}

impl Client {
    /// Sends a heartbeat with one circuit.
    pub(super) async fn sync_for(
        &mut self,
        lifetime: Duration,
        instance: &str,
        circuit: SyncCircuit,
    ) -> Synced {
        let instance = instance.to_owned();
        let request = SyncRequest { instance, lifetime, grace: LONG, circuits: vec![circuit] };
        self.sync_request(&request).await.pop().expect("one reply for one circuit")
    }

    pub(super) async fn sync(&mut self, instance: &str, circuit: SyncCircuit) -> Synced {
        self.sync_for(LONG, instance, circuit).await
    }

    pub(super) async fn sync_request(&mut self, request: &SyncRequest) -> Vec<Synced> {
        let replies = self.session.sync(request).await.expect("sync");
        assert_eq!(replies.len(), request.circuits.len());
        replies
    }

    pub(super) async fn lease(&mut self, request: LeaseRequest) -> LeaseReply {
        self.session.lease(&request).await.expect("lease")
    }

    pub(super) async fn complete(&mut self, probe: CompletedProbe) -> CircuitRecord {
        self.session.complete(&probe).await.expect("complete")
    }

    pub(super) async fn operate(&mut self, operation: Operation) -> OperationReply {
        self.session.operate(&operation).await.expect("operate")
    }

    pub(super) async fn list(&mut self, after: Option<&str>, limit: usize) -> Vec<CircuitRecord> {
        self.session.list(after, limit).await.expect("list")
    }

    /// Returns the record of [`CIRCUIT`], without a change of its members.
    pub(super) async fn record(&mut self) -> CircuitRecord {
        let observer = SyncCircuit { member: false, local: LocalOpen::Unknown, ..member(votes(1)) };
        self.sync("observer", observer).await.record.unwrap_or_default()
    }

    /// Waits for an update that matches, and skips others.
    pub(super) async fn update_with(&mut self, matches: impl Fn(&Update) -> bool) -> Update {
        let wait = async {
            loop {
                let update = self.session.update().await.expect("update");
                if matches(&update) {
                    return update;
                }
            }
        };
        tokio::time::timeout(DEADLINE, wait).await.expect("an update in time")
    }

    /// Lets members join a circuit, and waits for the end of the warm-up.
    pub(super) async fn establish(&mut self, instances: &[&str], quorum: QuorumRule) {
        poll(
            async |client: &mut Self| {
                let mut warming_up = false;
                for instance in instances {
                    warming_up = client.sync_for(SHORT, instance, member(quorum)).await.warming_up;
                }
                (!warming_up).then_some(())
            },
            self,
        )
        .await;
        for instance in instances {
            self.sync(instance, member(quorum)).await;
        }
    }

    /// Opens the circuit by an operation, with its open time over at once, and half-opens it by a
    /// lease of `instance`. Returns the epoch.
    pub(super) async fn half_open(&mut self, request: LeaseRequest) -> u64 {
        let trip = Operation { open_for: Some(Duration::from_millis(1)), ..operation(Action::Trip) };
        assert!(self.operate(trip).await.applied);
        let reply = poll(
            async |client: &mut Self| {
                let reply = client.lease(request.clone()).await;
                reply.granted.then_some(reply)
            },
            self,
        )
        .await;
        assert_eq!(reply.record.state, FleetState::HalfOpen);
        reply.record.epoch
    }

    /// Repeats a look at the store until it returns something.
    pub(super) async fn poll<T>(&mut self, look: impl AsyncFnMut(&mut Self) -> Option<T>) -> T {
        poll(look, self).await
    }
}

async fn poll<T>(mut look: impl AsyncFnMut(&mut Client) -> Option<T>, client: &mut Client) -> T {
    let wait = async {
        loop {
            if let Some(found) = look(client).await {
                return found;
            }
            tokio::time::sleep(POLL).await;
        }
    };
    tokio::time::timeout(DEADLINE, wait).await.expect("the expected state in time")
}
