//! Random histories of a store and a few processes: messages and updates are lost, repeated and
//! late, the store loses its data, and its clock steps back. A naive model checks each decision.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const PROCESSES: usize = 5;

/// The two successes that close the circuit, and the two failures that open it again.
const DECIDING_OUTCOMES: u32 = 2;

/// The time between two events, in milliseconds. One message has at most two decisions, so epochs
/// stay behind the time.
const TICK: u64 = 3;

#[derive(Clone, Debug)]
enum Event {
    Wait(u64),
    /// Only in histories without a loss of data: after both, a number may occur twice.
    StepBack(u64),
    /// Only in histories without a step back.
    Flush,
    /// A process sends a message.
    Send(usize, Content),
    /// The store receives one of the messages on their way, in any order.
    Receive {
        message: usize,
        repeat: bool,
    },
    Lose {
        message: usize,
    },
    /// A process receives one of the records on their way, in any order.
    Notify {
        process: usize,
        record: usize,
    },
}

#[derive(Clone, Debug)]
enum Content {
    Sync { member: bool, ballot: Ballot, quorum: QuorumRule, local: LocalOpen },
    Lease { weight: f64 },
    Complete(ProbeOutcome),
    Operate { action: Action, keep_for: Option<Duration>, expects_known: bool },
}

/// A message on its way, with the knowledge of its process when it was sent.
#[derive(Clone, Debug)]
struct Message {
    process: usize,
    known: Option<CircuitRecord>,
    content: Content,
}

fn ballot() -> impl Strategy<Value = Ballot> {
    let age = || (0..20_000_u64).prop_map(Duration::from_millis);
    let failure_ages = prop_oneof![Just(Vec::new()), prop::collection::vec(age(), 1..4)];
    (any::<bool>(), prop::option::of(age()), failure_ages)
        .prop_map(|(vote, since_success, failure_ages)| Ballot { vote, since_success, failure_ages })
}

fn local() -> impl Strategy<Value = LocalOpen> {
    prop_oneof![
        Just(LocalOpen::Unknown),
        Just(LocalOpen::No),
        Just(LocalOpen::UntilReset),
        (0..40_000_u64).prop_map(|time| LocalOpen::For(Duration::from_millis(time))),
    ]
}

fn content() -> impl Strategy<Value = Content> {
    let sum = Quorum::at_least(1).rule(4, Duration::from_secs(5));
    let quorum = prop::sample::select(vec![
        HALF,
        ONE,
        QuorumRule { at_least: 3, ..ONE },
        QuorumRule { at_least: 5, ..sum },
    ]);
    let outcome =
        prop::sample::select(vec![ProbeOutcome::Success, ProbeOutcome::Failure, ProbeOutcome::Neutral]);
    let weight = prop::sample::select(vec![1.0, 1.0, 0.4, 0.1]);
    let actions = vec![Action::Trip, Action::Reset, Action::ForceOpen, Action::ForceClosed, Action::Release];
    let keep_for = prop::option::of((0..40_000_u64).prop_map(Duration::from_millis));
    let operation = (prop::sample::select(actions), keep_for, any::<bool>());
    prop_oneof![
        6 => (prop::bool::weighted(0.9), ballot(), quorum, local())
            .prop_map(|(member, ballot, quorum, local)| Content::Sync { member, ballot, quorum, local }),
        6 => weight.prop_map(|weight| Content::Lease { weight }),
        6 => outcome.prop_map(Content::Complete),
        1 => operation.prop_map(|(action, keep_for, expects_known)| Content::Operate { action, keep_for, expects_known }),
    ]
}

fn event() -> impl Strategy<Value = Event> {
    let any_index = 0..64_usize;
    prop_oneof![
        3 => (0..12_000_u64).prop_map(Event::Wait),
        1 => (0..40_000_u64).prop_map(Event::Wait),
        1 => (0..60_000_u64).prop_map(Event::StepBack),
        1 => Just(Event::Flush),
        16 => (0..PROCESSES, content()).prop_map(|(process, content)| Event::Send(process, content)),
        16 => (any_index.clone(), prop::bool::weighted(0.2))
            .prop_map(|(message, repeat)| Event::Receive { message, repeat }),
        2 => any_index.clone().prop_map(|message| Event::Lose { message }),
        12 => (0..PROCESSES, any_index).prop_map(|(process, record)| Event::Notify { process, record }),
    ]
}

/// The naive model: what the store has received in this epoch.
#[derive(Default)]
struct Model {
    /// When each member expires, whether it votes, and when its failures happened.
    members: BTreeMap<usize, (u64, bool, Vec<u64>)>,
    /// The latest success since all members were lost.
    last_success: u64,
    /// Until when each process is open on its local evidence.
    open_until: BTreeMap<usize, u64>,
    /// When the first member appeared after the start or a loss of data.
    first_member: Option<u64>,
    /// When each lease ends, and its weight.
    leases: BTreeMap<usize, (u64, f64)>,
    successes: u32,
    failures: u32,
}

struct World {
    now: u64,
    steps_back: bool,
    data: CircuitData,
    model: Model,
    messages: Vec<Message>,
    processes: Vec<Option<CircuitRecord>>,
    /// The records on their way to all processes: updates and replies.
    records: Vec<CircuitRecord>,
    /// The decision with each epoch.
    decided: BTreeMap<u64, (FleetState, Option<Override>)>,
}

/// A half-open record and an open one with its time over are the same decision: a store that has
/// lost its leases turns the first into the second.
fn decision(record: &CircuitRecord) -> (FleetState, Option<Override>) {
    let state = if record.state == FleetState::HalfOpen { FleetState::Open } else { record.state };
    (state, record.manual)
}

fn name(process: usize) -> String {
    format!("process-{process}")
}

impl World {
    fn new(steps_back: bool) -> Self {
        Self {
            now: START,
            steps_back,
            data: CircuitData::default(),
            model: Model::default(),
            messages: Vec::new(),
            processes: vec![None; PROCESSES],
            records: Vec::new(),
            decided: BTreeMap::new(),
        }
    }

    fn process(&mut self, event: Event) {
        self.now += TICK;
        match event {
            Event::Wait(time) => self.now += time,
            Event::StepBack(time) if self.steps_back => self.now -= time,
            Event::Flush if !self.steps_back => {
                self.data = CircuitData::default();
                self.model = Model::default();
            }
            Event::Send(process, content) => {
                let known = self.processes[process].clone();
                self.messages.push(Message { process, known, content });
            }
            Event::Receive { message, repeat } if !self.messages.is_empty() => {
                let message = message % self.messages.len();
                let received = self.messages[message].clone();
                if !repeat {
                    self.messages.swap_remove(message);
                }
                self.receive(&received);
            }
            Event::Lose { message } if !self.messages.is_empty() => {
                self.messages.swap_remove(message % self.messages.len());
            }
            Event::Notify { process, record } if !self.records.is_empty() => {
                let record = self.records[record % self.records.len()].clone();
                self.notify(process, record);
            }
            // Nothing is on its way, or the event is of the other kind of histories.
            _ => {}
        }
    }

    /// A process takes a record, unless it knows a later one.
    fn notify(&mut self, process: usize, record: CircuitRecord) {
        let known = &mut self.processes[process];
        if known.as_ref().is_none_or(|known| known.epoch <= record.epoch) {
            *known = Some(record);
        }
    }

    fn receive(&mut self, message: &Message) {
        let before = self.data.record(CIRCUIT, self.now);
        if before.epoch != self.data.epoch {
            // An override has ended, or the record is forgotten.
            self.model.begin_epoch();
        }
        self.model.forget_members(self.now);
        let updates = match message.content {
            Content::Sync { member, ref ballot, quorum, local } => {
                let sync = SyncCircuit { member, ballot: ballot.clone(), local, ..circuit(false, quorum) };
                self.sync(message, sync)
            }
            Content::Lease { weight } => self.lease(message, weight, &before),
            Content::Complete(outcome) => self.complete(message, outcome, &before),
            Content::Operate { action, keep_for, expects_known } => {
                let known = message.known.as_ref();
                let expected_epoch = known.filter(|_| expects_known).map(|known| known.epoch);
                let request = Operation { expected_epoch, keep_for, ..operation(action) };
                let (reply, updates) = self.data.operate(&request, self.now);
                assert!(!reply.applied || expected_epoch.is_none_or(|epoch| epoch == before.epoch));
                if reply.record.epoch > before.epoch {
                    self.model.begin_epoch();
                }
                updates
            }
        };
        let after = self.data.record(CIRCUIT, self.now);
        assert!(after.epoch >= before.epoch, "{before:?} {after:?}");
        if decision(&after) != decision(&before) || after.state != before.state {
            assert!(after.epoch > before.epoch, "{before:?} {after:?}");
        }
        if after.epoch > before.epoch {
            assert!(!updates.is_empty(), "each decision is published");
        }
        if after.epoch > 0 {
            let decided = *self.decided.entry(after.epoch).or_insert(decision(&after));
            assert_eq!(decided, decision(&after), "one decision for each epoch: {after:?}");
        }
        self.records.extend(updates.into_iter().filter_map(|update| match update {
            Update::Record(record) => Some(record),
            Update::SlotsTaken { .. } => None,
        }));
    }

    fn sync(&mut self, message: &Message, sync: SyncCircuit) -> Vec<Update> {
        let sync = SyncCircuit { known: message.known.clone(), ..sync };
        let SyncCircuit { member, ref ballot, quorum, .. } = sync;
        let mut restored = self.data.clone();
        let observer = SyncCircuit { member: false, ..sync.clone() };
        restored.sync(&request("observer"), &observer, self.now);
        let before = restored.record(CIRCUIT, self.now);
        if before.epoch != self.data.record(CIRCUIT, self.now).epoch {
            self.model.begin_epoch();
        }
        let (synced, updates) = self.data.sync(&request(&name(message.process)), &sync, self.now);
        let after = self.data.record(CIRCUIT, self.now);
        let counts = before.state == FleetState::Closed && before.manual.is_none();
        self.model.count(message.process, member, counts, ballot, self.now);
        self.model.set_open(message.process, sync.local, self.now);
        if !self.steps_back {
            let is_opened = after.epoch > before.epoch;
            self.model.check_quorum(&synced, is_opened, &quorum, self.now);
            let is_reached = ballot.vote && synced.votes_needed <= self.model.votes(self.now);
            let is_reached = is_reached || self.model.are_failures_enough(message.process, &quorum, self.now);
            let is_closed = after.state == FleetState::Closed && after.manual.is_none();
            let open_members = if is_closed { self.model.open_members(self.now) } else { 0 };
            assert_eq!(synced.open_members, open_members, "{synced:?} {after:?}");
            let may_open = member && counts && is_reached && !synced.warming_up;
            assert_eq!(is_opened, may_open, "{synced:?} {after:?}");
        }
        if after.epoch > before.epoch {
            self.model.begin_epoch();
        }
        self.records.extend(synced.record);
        updates
    }

    fn lease(&mut self, message: &Message, weight: f64, before: &CircuitRecord) -> Vec<Update> {
        let (reply, updates) = self.data.lease(&lease_request(&name(message.process), weight), self.now);
        if reply.record.epoch > before.epoch {
            assert_eq!((before.state, before.remaining), (FleetState::Open, Some(Duration::ZERO)));
            self.model.begin_epoch();
        }
        assert!(
            !reply.granted || (reply.record.state == FleetState::HalfOpen && reply.record.manual.is_none())
        );
        if !self.steps_back && reply.record.state == FleetState::HalfOpen {
            self.model.check_lease(message.process, weight, reply.granted, self.now);
        }
        self.records.push(reply.record);
        updates
    }

    fn complete(&mut self, message: &Message, outcome: ProbeOutcome, before: &CircuitRecord) -> Vec<Update> {
        let epoch = message.known.as_ref().map_or(0, |known| known.epoch);
        let (record, updates) =
            self.data.complete(&completed(&name(message.process), epoch, outcome), self.now);
        if epoch == before.epoch && before.state == FleetState::HalfOpen {
            self.model.leases.remove(&message.process);
            self.model.successes += u32::from(outcome == ProbeOutcome::Success);
            self.model.failures += u32::from(outcome == ProbeOutcome::Failure);
        }
        if record.epoch > before.epoch {
            assert_eq!(
                (before.epoch, before.state),
                (epoch, FleetState::HalfOpen),
                "only in the epoch of the probe"
            );
            let deciding = match outcome {
                ProbeOutcome::Success => self.model.successes,
                ProbeOutcome::Failure => self.model.failures,
                ProbeOutcome::Neutral => 0,
            };
            assert!(deciding >= DECIDING_OUTCOMES, "{record:?}");
            self.model.begin_epoch();
        }
        self.records.push(record);
        updates
    }

    /// All messages on their way are lost, and each process sends heartbeats. All must agree.
    fn converge(&mut self) {
        for _ in 0..3 {
            for process in 0..PROCESSES {
                let known = self.processes[process].clone();
                let sync = SyncCircuit { known, ..circuit(false, HALF) };
                let (synced, _) = self.data.sync(&request(&name(process)), &sync, self.now);
                if let Some(record) = synced.record {
                    self.notify(process, record);
                }
            }
        }
        let stored = self.data.record(CIRCUIT, self.now);
        let known = self.processes.iter().flatten();
        assert!(
            known.clone().all(|known| decision(known) == decision(&stored)),
            "{stored:?} {:?}",
            self.processes
        );
        let epochs: BTreeSet<u64> = known.map(|known| known.epoch).collect();
        assert!(stored.epoch == 0 || epochs.iter().eq([&stored.epoch]), "{stored:?} {epochs:?}");
    }
}

impl Model {
    fn begin_epoch(&mut self) {
        for (_, vote, failures) in self.members.values_mut() {
            (*vote, *failures) = (false, Vec::new());
        }
        self.leases.clear();
        (self.successes, self.failures) = (0, 0);
    }

    /// The success is lost with all members, one lifetime after they have expired.
    fn forget_members(&mut self, now: u64) {
        if self.members.values().all(|(until, ..)| until + ms(LIFETIME) <= now) {
            self.last_success = 0;
        }
    }

    fn count(&mut self, process: usize, member: bool, counts: bool, ballot: &Ballot, now: u64) {
        if member {
            let failures = ballot.failure_ages.iter().filter(|_| counts).map(|age| now - ms(*age));
            let member = (now + ms(LIFETIME), ballot.vote && counts, failures.collect());
            self.members.insert(process, member);
            let success = ballot.since_success.map_or(0, |age| now - ms(age));
            self.last_success = self.last_success.max(success);
            self.first_member.get_or_insert(now);
        } else {
            self.members.remove(&process);
        }
    }

    fn live(&self, now: u64) -> impl Iterator<Item = &(u64, bool, Vec<u64>)> {
        self.members.values().filter(move |(until, ..)| *until > now)
    }

    fn set_open(&mut self, process: usize, local: LocalOpen, now: u64) {
        let until = match local {
            LocalOpen::Unknown => return,
            LocalOpen::No => 0,
            LocalOpen::For(time) => now + ms(time),
            LocalOpen::UntilReset => u64::MAX,
        };
        self.open_until.insert(process, until);
    }

    fn open_members(&self, now: u64) -> u32 {
        let is_live = |process| self.members.get(process).is_some_and(|(until, ..)| *until > now);
        let open = self.open_until.iter().filter(|(process, until)| **until > now && is_live(process));
        open.count() as u32
    }

    fn votes(&self, now: u64) -> u32 {
        self.live(now).filter(|(_, vote, _)| *vote).count() as u32
    }

    fn are_failures_enough(&self, process: usize, quorum: &QuorumRule, now: u64) -> bool {
        let has_counting = |failures: &[u64]| failures.iter().any(|at| *at >= self.last_success);
        let mut all: Vec<u64> = self.live(now).flat_map(|(.., failures)| failures).copied().collect();
        all.retain(|at| *at >= self.last_success);
        all.sort_unstable();
        let limit = quorum.consecutive_failures as usize;
        let span = ms(quorum.consecutive_failures_span);
        (1..=all.len()).contains(&limit)
            && all[0] + span <= now
            && self.members.get(&process).is_some_and(|(.., failures)| has_counting(failures))
    }

    fn check_quorum(&self, synced: &Synced, is_opened: bool, quorum: &QuorumRule, now: u64) {
        let members = self.live(now).count() as u32;
        let share = if quorum.share > 0.0 { members.div_ceil(2) } else { 0 };
        assert_eq!((synced.members, synced.votes_needed), (members, share.max(quorum.at_least)));
        let is_known = self.first_member.is_some_and(|first| now >= first + ms(LIFETIME));
        assert!(synced.warming_up || quorum.share == 0.0 || is_known || members == 0);
        assert_eq!(synced.votes, if is_opened { 0 } else { self.votes(now) });
    }

    fn check_lease(&mut self, process: usize, weight: f64, granted: bool, now: u64) {
        let live = self.leases.iter().filter(|(_, (until, _))| *until > now);
        let others: f64 =
            live.clone().filter(|(other, _)| **other != process).map(|(_, (_, weight))| weight).sum();
        let own = live.clone().find(|(other, _)| **other == process).map(|(_, lease)| *lease);
        let fits = others + weight < 3.0 + 1e-5;
        assert_eq!(granted, own.is_some() || fits, "{:?}", self.leases);
        if granted {
            let (until, own_weight) = own.unwrap_or((0, 0.0));
            self.leases.insert(process, (until.max(now + ms(LEASE)), own_weight.max(weight)));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 250, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_histories_keep_guarantees_and_converge(
        steps_back in any::<bool>(),
        events in prop::collection::vec(event(), 1..160),
    ) {
        let mut world = World::new(steps_back);
        for event in events {
            world.process(event);
        }
        world.converge();
    }
}
