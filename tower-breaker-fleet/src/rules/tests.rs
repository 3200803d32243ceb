//! Tests of the rules, by subject. The scenarios of the stores test what these do not.

mod bounds;
mod clock;
mod model;

use super::*;
use crate::quorum::Quorum;
use crate::store::scenarios::helpers::{self, CIRCUIT, LONG, member, voter};
use crate::store::{
    Action, Ballot, CompletedProbe, LeaseRequest, LocalOpen, Operation, ProbeOutcome, QuorumRule,
    SyncCircuit, SyncRequest, Synced,
};

/// The store's time at the start of a test, in milliseconds.
const START: u64 = 1_000_000_000_000;

const LIFETIME: Duration = Duration::from_secs(10);
const LEASE: Duration = Duration::from_secs(5);
const OPEN: Duration = Duration::from_secs(30);
/// As in the requests of the scenarios.
const GRACE: Duration = LONG;

const HALF: QuorumRule = Quorum::majority().rule(0, Duration::ZERO);
const ONE: QuorumRule = Quorum::at_least(1).rule(0, Duration::ZERO);

/// Returns a duration in milliseconds, as the times of the tests are.
fn ms(duration: Duration) -> u64 {
    deadline::milliseconds(duration)
}

fn request(instance: &str) -> SyncRequest {
    SyncRequest { instance: instance.to_owned(), lifetime: LIFETIME, grace: GRACE, circuits: Vec::new() }
}

fn circuit(vote: bool, quorum: QuorumRule) -> SyncCircuit {
    let circuit = if vote { voter(quorum) } else { member(quorum) };
    SyncCircuit { open_for: Some(OPEN), ..circuit }
}

fn lease_request(instance: &str, weight: f64) -> LeaseRequest {
    LeaseRequest { lease: LEASE, weight, ..helpers::lease(instance, 3) }
}

fn completed(instance: &str, epoch: u64, outcome: ProbeOutcome) -> CompletedProbe {
    CompletedProbe { open_for: Some(OPEN), ..helpers::completed(instance, epoch, outcome) }
}

fn operation(action: Action) -> Operation {
    Operation { open_for: Some(OPEN), ..helpers::operation(action) }
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
