//! Random histories on the scripts and on the rules, which must answer the same.

use std::collections::HashMap;
use std::time::Duration;

use test_servers::Redis;

use super::{LONG, session};
use crate::MemoryStore;
use crate::record::CircuitRecord;
use crate::store::{
    Action, Backend, Ballot, CompletedProbe, LeaseRequest, LocalOpen, Operation, ProbeOutcome, QuorumRule,
    Session, SyncCircuit, SyncRequest, Update,
};

const HISTORIES: u64 = 40;
const STEPS: usize = 60;

/// A message without the record and the epoch that a store has answered before: these differ.
#[derive(Clone, Debug)]
enum Step {
    /// The known record is the one of an earlier reply, by its index from the end.
    Sync(SyncRequest, Option<usize>),
    Lease(LeaseRequest),
    /// The epoch is the one of an earlier reply, by its index from the end.
    Complete(CompletedProbe, usize),
    Operate(Operation, Option<usize>),
    List(Option<String>, usize),
    Flush,
}

/// A time that is over at once or not before the end of the history.
fn time(random: &mut fastrand::Rng) -> Duration {
    if random.bool() { Duration::ZERO } else { LONG }
}

fn endless_or_time(random: &mut fastrand::Rng) -> Option<Duration> {
    (random.u8(..4) > 0).then(|| time(random))
}

fn name(random: &mut fastrand::Rng, kind: &str) -> String {
    format!("{kind} {}", random.u8(..3))
}

fn earlier(random: &mut fastrand::Rng) -> Option<usize> {
    random.bool().then(|| random.usize(..4))
}

/// The ages of failures differ from those of successes by more than a history takes.
fn ballot(random: &mut fastrand::Rng) -> Ballot {
    let since_success = (random.u8(..4) == 0).then(|| LONG / 6 * random.u32(..3) * 2);
    let failure_ages = (0..random.usize(..4)).map(|_| LONG / 6 * (random.u32(..3) * 2 + 1)).collect();
    Ballot { vote: random.u8(..3) == 0, since_success, failure_ages }
}

fn step(random: &mut fastrand::Rng) -> Step {
    let (circuit, instance) = (name(random, "circuit"), name(random, "instance"));
    let (grace, probes) = (if random.u8(..8) == 0 { Duration::ZERO } else { LONG }, random.u32(1..4));
    match random.u8(..16) {
        0 => Step::Flush,
        1 => Step::List(random.bool().then(|| name(random, "circuit")), random.usize(..4)),
        2..=7 => {
            let circuit = SyncCircuit {
                name: circuit,
                member: random.u8(..8) > 0,
                ballot: ballot(random),
                quorum: QuorumRule {
                    at_least: random.u32(..4),
                    share: if random.u8(..4) == 0 { 0.5 } else { 0.0 },
                    consecutive_failures: random.u32(..6),
                    consecutive_failures_span: LONG / 6 * random.u32(..3) * 2,
                },
                open_for: endless_or_time(random),
                local: random
                    .choice([LocalOpen::Unknown, LocalOpen::No, LocalOpen::For(LONG), LocalOpen::UntilReset])
                    .unwrap(),
                known: None,
            };
            let request = SyncRequest { instance, lifetime: LONG, grace, circuits: vec![circuit] };
            Step::Sync(request, earlier(random))
        }
        8..=10 => {
            let weight = random.choice([0.25, 0.5, 1.0]).unwrap();
            Step::Lease(LeaseRequest { instance, circuit, probes, lease: LONG, weight, grace })
        }
        11..=13 => {
            let outcome =
                random.choice([ProbeOutcome::Success, ProbeOutcome::Failure, ProbeOutcome::Neutral]).unwrap();
            let (open_for, successes_to_close) = (endless_or_time(random), random.u32(..3));
            let probe = CompletedProbe {
                instance,
                circuit,
                epoch: 0,
                outcome,
                open_for,
                probes,
                successes_to_close,
                grace,
            };
            Step::Complete(probe, random.usize(..2))
        }
        _ => {
            let actions = [
                Action::Trip,
                Action::Trip,
                Action::Reset,
                Action::ForceOpen,
                Action::ForceClosed,
                Action::Release,
            ];
            let operation = Operation {
                circuit,
                action: random.choice(actions).unwrap(),
                by: "ada\t".to_owned(),
                reason: "é".repeat(150),
                expected_epoch: None,
                open_for: endless_or_time(random),
                keep_for: endless_or_time(random),
                grace,
            };
            Step::Operate(operation, earlier(random).filter(|_| random.bool()))
        }
    }
}

/// One of the two stores, and what it has answered.
struct Player {
    session: Box<dyn Session>,
    records: HashMap<String, Vec<CircuitRecord>>,
    /// The numbers of the epochs of each circuit, in the order in which they appeared.
    epochs: HashMap<(String, u64), usize>,
}

impl Player {
    fn new(session: Box<dyn Session>) -> Self {
        Self { session, records: HashMap::new(), epochs: HashMap::new() }
    }

    /// Returns an earlier record of a circuit.
    fn earlier(&self, circuit: &str, index: Option<usize>) -> Option<CircuitRecord> {
        self.records.get(circuit)?.iter().rev().nth(index?).cloned()
    }

    /// Remembers a record, and returns it with what both stores must agree on: the order in which
    /// epochs have appeared, and whether a time is over.
    fn normalized(&mut self, mut record: CircuitRecord) -> CircuitRecord {
        self.records.entry(record.circuit.clone()).or_default().push(record.clone());
        let next = self.epochs.len() + 1;
        if record.epoch > 0 {
            let epoch = self.epochs.entry((record.circuit.clone(), record.epoch)).or_insert(next);
            record.epoch = *epoch as u64;
        }
        record.remaining = record.remaining.map(rounded);
        record.manual_remaining = record.manual_remaining.map(rounded);
        record
    }

    /// Plays a step, and returns the reply and the updates as text.
    async fn play(&mut self, step: &Step) -> Vec<String> {
        let mut replies = Vec::new();
        match step.clone() {
            Step::Sync(mut request, known) => {
                request.circuits[0].known = self.earlier(&request.circuits[0].name, known);
                let mut synced = self.session.sync(&request).await.unwrap().pop().unwrap();
                synced.record = synced.record.take().map(|record| self.normalized(record));
                if request.circuits[0].local != LocalOpen::Unknown {
                    synced.local = LocalOpen::Unknown;
                } else if let LocalOpen::For(length) = synced.local {
                    synced.local = LocalOpen::For(rounded(length));
                }
                replies.push(format!("{synced:?}"));
            }
            Step::Lease(request) => {
                let mut reply = self.session.lease(&request).await.unwrap();
                reply.record = self.normalized(reply.record.clone());
                reply.retry_after = rounded(reply.retry_after);
                replies.push(format!("{reply:?}"));
            }
            Step::Complete(mut probe, index) => {
                probe.epoch = self.earlier(&probe.circuit, Some(index)).map_or(7, |record| record.epoch);
                let record = self.session.complete(&probe).await.unwrap();
                replies.push(format!("{:?}", self.normalized(record)));
            }
            Step::Operate(mut operation, index) => {
                operation.expected_epoch = self.earlier(&operation.circuit, index).map(|record| record.epoch);
                let mut reply = self.session.operate(&operation).await.unwrap();
                reply.record = self.normalized(reply.record.clone());
                replies.push(format!("{reply:?}"));
            }
            Step::List(after, limit) => {
                let records = self.session.list(after.as_deref(), limit).await.unwrap();
                let records: Vec<_> = records.into_iter().map(|record| self.normalized(record)).collect();
                replies.push(format!("{records:?}"));
            }
            Step::Flush => {}
        }
        replies
    }

    /// Returns all updates up to that of an operation on another circuit.
    async fn updates(&mut self) -> Vec<String> {
        let marker = Operation {
            circuit: "marker".to_owned(),
            action: Action::Reset,
            by: String::new(),
            reason: String::new(),
            expected_epoch: None,
            open_for: None,
            keep_for: None,
            grace: Duration::ZERO,
        };
        self.session.operate(&marker).await.unwrap();
        let mut updates = Vec::new();
        loop {
            match super::next_of(&mut *self.session).await {
                Update::Record(record) if record.circuit == "marker" => return updates,
                // An override has ended so long ago that its record is forgotten. Only the rules
                // publish that, and no process takes an epoch of 0.
                Update::Record(record) if record.epoch == 0 => {}
                Update::Record(record) => updates.push(format!("{:?}", self.normalized(record))),
                Update::SlotsTaken { circuit, epoch, retry_after } => {
                    let epoch = self.epochs.get(&(circuit.clone(), epoch));
                    updates.push(format!("slots taken {circuit} {epoch:?} {:?}", rounded(retry_after)));
                }
            }
        }
    }
}

fn has_no_grace(step: &Step) -> bool {
    let grace = match step {
        Step::Sync(request, _) => request.grace,
        Step::Lease(request) => request.grace,
        Step::Complete(probe, _) => probe.grace,
        Step::Operate(operation, _) => operation.grace,
        Step::List(..) | Step::Flush => LONG,
    };
    grace.is_zero()
}

/// Leaves of a time only how many halves of [`LONG`] it has, rounded up.
fn rounded(time: Duration) -> Duration {
    LONG / 2 * u32::try_from(time.as_millis().div_ceil(LONG.as_millis() / 2)).unwrap()
}

#[tokio::test]
async fn scripts_answer_as_the_rules_do() {
    let server = Redis::start();
    for seed in 0..HISTORIES {
        let memory = MemoryStore::new();
        server.command("FLUSHALL");
        let redis: Box<dyn Session> = Box::new(session(&server).await);
        let mut players = [Player::new(memory.connect("orders").await.unwrap()), Player::new(redis)];
        let mut random = fastrand::Rng::with_seed(seed);
        let mut history = Vec::new();
        for _ in 0..STEPS {
            let step = step(&mut random);
            if let Step::Flush = step {
                memory.flush();
                server.command("FLUSHALL");
                // Each decision takes at most 1 ms off this: epochs are not smaller than the times.
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            let mut replies = Vec::new();
            for player in &mut players {
                let mut reply = player.play(&step).await;
                reply.extend(player.updates().await);
                replies.push(reply);
            }
            if has_no_grace(&step) {
                // A record that is forgotten at once would give its epoch to another decision.
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            history.push(step);
            assert_eq!(replies[0], replies[1], "seed {seed}, rules and scripts, after {history:#?}");
        }
    }
}
