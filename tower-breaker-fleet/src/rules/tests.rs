//! Tests of the rules, by subject. The scenarios of the stores test what these do not.

mod bounds;
mod clock;
mod model;

use super::*;
use crate::store::{
    Action, CompletedProbe, LeaseRequest, LocalOpen, Operation, ProbeOutcome, QuorumRule, SyncCircuit,
    SyncRequest, Synced,
};

/// The store's time at the start of a test, in milliseconds.
const START: u64 = 1_000_000_000_000;

const CIRCUIT: &str = "search";

const LIFETIME: Duration = Duration::from_secs(10);
const LEASE: Duration = Duration::from_secs(5);
const OPEN: Duration = Duration::from_secs(30);
const GRACE: Duration = Duration::from_secs(60);

const HALF: QuorumRule = QuorumRule { at_least: 2, share: 0.5, consecutive_failures: 0 };
const ONE: QuorumRule = QuorumRule { at_least: 1, share: 0.0, consecutive_failures: 0 };

/// Returns a duration in milliseconds, as the times of the tests are.
fn ms(duration: Duration) -> u64 {
    deadline::milliseconds(duration)
}

fn request(instance: &str) -> SyncRequest {
    SyncRequest { instance: instance.to_owned(), lifetime: LIFETIME, grace: GRACE, circuits: Vec::new() }
}

fn circuit(vote: bool, quorum: QuorumRule) -> SyncCircuit {
    SyncCircuit {
        name: CIRCUIT.to_owned(),
        member: true,
        ballot: Ballot { vote, consecutive_failures: 0 },
        quorum,
        open_for: Some(OPEN),
        local: LocalOpen::No,
        known: None,
    }
}

fn lease_request(instance: &str, weight: f64) -> LeaseRequest {
    LeaseRequest {
        instance: instance.to_owned(),
        circuit: CIRCUIT.to_owned(),
        probes: 3,
        lease: LEASE,
        weight,
        grace: GRACE,
    }
}

fn completed(instance: &str, epoch: u64, outcome: ProbeOutcome) -> CompletedProbe {
    CompletedProbe {
        instance: instance.to_owned(),
        circuit: CIRCUIT.to_owned(),
        epoch,
        outcome,
        open_for: Some(OPEN),
        probes: 3,
        successes_to_close: 2,
        grace: GRACE,
    }
}

fn operation(action: Action) -> Operation {
    Operation {
        circuit: CIRCUIT.to_owned(),
        action,
        by: "ada".to_owned(),
        reason: "maintenance".to_owned(),
        expected_epoch: None,
        open_for: Some(OPEN),
        keep_for: None,
        grace: GRACE,
    }
}

impl CircuitData {
    fn vote(&mut self, instance: &str, vote: bool, quorum: QuorumRule, now: u64) -> Synced {
        self.sync(&request(instance), &circuit(vote, quorum), now).0
    }

    fn do_operate(&mut self, action: Action, now: u64) -> CircuitRecord {
        let (reply, _) = self.operate(&operation(action), now);
        assert!(reply.applied);
        reply.record
    }

    fn is_granted(&mut self, instance: &str, weight: f64, now: u64) -> bool {
        self.lease(&lease_request(instance, weight), now).0.granted
    }
}
