//! A store and processes, with a network between them that loses, repeats and delays messages.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tower_breaker::fault_classify::{Origin, Retryable};
use tower_breaker::{BreakerConfig, Circuit, CircuitState, Clock, Fault, Health, Kind, ManualClock, Verdict};

use super::super::circuit::{Follower, Moved};
use super::super::mailbox::{Event, Mailbox};
use super::super::slot::{Message, Outbox, Slot, Source};
use super::super::{GRACE, Settings, Time};
use crate::quorum::Quorum;
use crate::record::CircuitRecord;
use crate::rules::CircuitData;
use crate::store::{Action, LeaseReply, Operation, SyncRequest, Synced, Update};

const NAME: &str = "model";
const TIMEOUT: Duration = Duration::from_millis(250);
const HEARTBEAT: Duration = Duration::from_secs(5);
/// The time between two calls of each process, and between two looks at the timers.
const TICK: Duration = Duration::from_millis(100);
/// The store's time at the start, in milliseconds.
const START: u64 = 1_000_000;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Network {
    Perfect,
    /// Loses, repeats and delays messages.
    Lossy,
    /// Loses all messages.
    Cut,
}

enum Request {
    Sync(SyncRequest),
    Message(Message),
}

enum Reply {
    Sync(Box<Synced>),
    Asked(LeaseReply),
    Extended(LeaseReply),
    Completed(CircuitRecord),
    Update(Update),
}

/// A message on its way to the store, from a connection of a process.
struct Sent {
    at: Time,
    from: (usize, u64),
    request: Arc<Request>,
    /// Whether the reply is lost.
    is_reply_lost: bool,
}

struct Process {
    circuit: Circuit,
    slot: Slot,
    mailbox: Arc<Mailbox>,
    fails: bool,
    /// The connection. `None`: there is none until `reconnect_at`.
    connection: Option<u64>,
    reconnect_at: Time,
    outbox: VecDeque<Request>,
    /// When the reply to the last request is late.
    reply_until: Option<Time>,
    is_sync_due: bool,
    heartbeat_at: Time,
    last_epoch: u64,
}

/// The end of a history, for assertions.
#[derive(Clone, Debug)]
pub(super) struct View {
    pub(super) state: CircuitState,
    pub(super) record: Option<CircuitRecord>,
    pub(super) has_opened: bool,
}

pub(super) struct World {
    pub(super) network: Network,
    quorum: Quorum,
    random: fastrand::Rng,
    clock: Clock,
    manual_clock: ManualClock,
    now: Time,
    store: CircuitData,
    processes: Vec<Process>,
    sent: Vec<Sent>,
    /// Replies and updates on their way to a connection of a process.
    replies: Vec<(Time, (usize, u64), Reply)>,
    next_connection: u64,
}

impl World {
    pub(super) fn new(count: usize, quorum: Quorum, seed: u64) -> Self {
        let (clock, manual_clock) = Clock::manual();
        let mut world = Self {
            quorum,
            network: Network::Perfect,
            random: fastrand::Rng::with_seed(seed),
            clock,
            manual_clock,
            now: Time::ZERO,
            store: CircuitData::default(),
            processes: Vec::new(),
            sent: Vec::new(),
            replies: Vec::new(),
            next_connection: 0,
        };
        for number in 0..count {
            let process = world.start(number);
            world.processes.push(process);
        }
        world.run(Duration::from_secs(13));
        world
    }

    fn start(&mut self, number: usize) -> Process {
        let config = BreakerConfig::builder().name(NAME).clock(self.clock).seed(self.random.u64(..));
        let circuit = Circuit::new(config.build().unwrap());
        let mailbox = Arc::new(Mailbox::default());
        let signals = Arc::clone(&mailbox);
        let on_signal = circuit.on_signal(move |signal| signals.post(0, Event::Signal(signal)));
        let transitions = Arc::clone(&mailbox);
        let on_transition = circuit.on_transition(move |transition| {
            let moved = Moved { reason: transition.reason, epoch: transition.epoch };
            transitions.post(0, Event::Transition(moved));
        });
        let (settings, quorum) = (settings(number), self.quorum);
        let slot = Slot {
            id: 0,
            name: NAME.into(),
            label: NAME,
            circuit: Arc::new(circuit.downgrade()),
            follower: Follower::new(settings.tuning(quorum), self.random.fork()),
            quorum,
            source: Source::Single(circuit.downgrade(), [on_signal, on_transition]),
        };
        Process {
            circuit,
            slot,
            mailbox,
            fails: false,
            connection: None,
            reconnect_at: self.now,
            outbox: VecDeque::new(),
            reply_until: None,
            is_sync_due: false,
            heartbeat_at: Time::ZERO,
            last_epoch: 0,
        }
    }

    pub(super) fn restart(&mut self, number: usize) {
        let fails = self.processes[number].fails;
        self.processes[number] = Process { fails, ..self.start(number) };
    }

    pub(super) fn fail(&mut self, number: usize, fails: bool) {
        self.processes[number].fails = fails;
    }

    pub(super) fn flush(&mut self) {
        self.store = CircuitData::default();
        // An epoch is a time in milliseconds, so that it is new also after a loss.
        // Each operation in a millisecond adds one.
        self.run(Duration::from_millis(100));
    }

    pub(super) fn operate(&mut self, action: Action) {
        let operation = Operation {
            circuit: NAME.to_owned(),
            action,
            by: "operator".to_owned(),
            reason: "test".to_owned(),
            expected_epoch: None,
            open_for: Some(Duration::from_secs(3)),
            keep_for: None,
            grace: GRACE,
        };
        let (_, updates) = self.store.operate(&operation, self.store_now());
        self.publish(&updates);
    }

    pub(super) fn record(&self) -> CircuitRecord {
        self.store.record(NAME, self.store_now())
    }

    pub(super) fn views(&self) -> Vec<View> {
        let view = |process: &Process| {
            let status = process.circuit.status();
            let (state, has_opened) = (status.state, status.last_trip.is_some());
            View { state, record: process.slot.follower.record(self.now), has_opened }
        };
        self.processes.iter().map(view).collect()
    }

    /// Lets time pass, with calls through all processes.
    pub(super) fn run(&mut self, time: Time) {
        let end = self.now + time;
        while self.now < end {
            let step = TICK.min(end.saturating_sub(self.now));
            self.now += step;
            self.manual_clock.advance(step);
            for number in 0..self.processes.len() {
                self.processes[number].call();
            }
            self.deliver();
        }
    }

    /// Processes all events and messages that are due.
    fn deliver(&mut self) {
        for _ in 0..20 {
            for number in 0..self.processes.len() {
                self.poll(number);
            }
            let (due, later) =
                std::mem::take(&mut self.sent).into_iter().partition(|sent| sent.at <= self.now);
            self.sent = later;
            let due: Vec<Sent> = due;
            for sent in &due {
                self.receive(sent);
            }
            let now = self.now;
            let (replies, later) =
                std::mem::take(&mut self.replies).into_iter().partition(|(at, ..)| *at <= now);
            self.replies = later;
            let replies: Vec<(Time, (usize, u64), Reply)> = replies;
            if due.is_empty() && replies.is_empty() {
                break;
            }
            for (_, (number, connection), reply) in replies {
                if self.processes[number].connection == Some(connection) {
                    self.processes[number].on_reply(number, now, &reply);
                }
            }
        }
    }

    /// Runs the agent of a process.
    fn poll(&mut self, number: usize) {
        let (now, settings) = (self.now, settings(number));
        let process = &mut self.processes[number];
        if process.reply_until.is_some_and(|until| until <= now) {
            process.disconnect(number, now);
            process.reconnect_at = now + Duration::from_millis(self.random.u64(0..1_600));
        }
        if process.connection.is_none() && process.reconnect_at <= now && self.network != Network::Cut {
            self.next_connection += 1;
            process.connection = Some(self.next_connection);
            process.slot.follower.on_attached();
            process.heartbeat_at = now;
        }
        process.run_events(number, now);
        let Some(connection) = process.connection else { return };
        if process.heartbeat_at <= now {
            process.is_sync_due = true;
            process.heartbeat_at = now + HEARTBEAT.mul_f64(0.8 + 0.4 * self.random.f64());
        }
        if process.reply_until.is_some() {
            return;
        }
        let request = process.outbox.pop_front().or_else(|| process.sync(now, &settings));
        if let Some(request) = request {
            process.reply_until = Some(now + TIMEOUT);
            self.send(number, connection, request);
        }
    }

    fn send(&mut self, number: usize, connection: u64, request: Request) {
        let (from, request) = ((number, connection), Arc::new(request));
        let mut send = |delay: u64, is_reply_lost| {
            let at = self.now + Duration::from_millis(delay);
            self.sent.push(Sent { at, from, request: Arc::clone(&request), is_reply_lost });
        };
        match self.network {
            Network::Perfect => send(0, false),
            Network::Cut => {}
            Network::Lossy => match self.random.u8(0..8) {
                0 => {}
                1 => send(0, true),
                // Late: the process waits no more.
                2 => send(self.random.u64(300..3_000), false),
                3 => {
                    send(0, false);
                    send(self.random.u64(0..3_000), false);
                }
                _ => send(self.random.u64(0..200), false),
            },
        }
    }

    fn receive(&mut self, sent: &Sent) {
        let now = self.store_now();
        let (reply, updates) = match &*sent.request {
            Request::Sync(request) => {
                let (synced, updates) = self.store.sync(request, &request.circuits[0], now);
                (Reply::Sync(Box::new(synced)), updates)
            }
            Request::Message(Message::Ask(request)) => {
                let (reply, updates) = self.store.lease(request, now);
                (Reply::Asked(reply), updates)
            }
            Request::Message(Message::Extend(request)) => {
                let (reply, updates) = self.store.lease(request, now);
                (Reply::Extended(reply), updates)
            }
            Request::Message(Message::Complete(probe) | Message::GiveBack(probe)) => {
                let (record, updates) = self.store.complete(probe, now);
                (Reply::Completed(record), updates)
            }
        };
        if !sent.is_reply_lost && self.network != Network::Cut {
            self.replies.push((self.now, sent.from, reply));
        }
        self.publish(&updates);
    }

    fn publish(&mut self, updates: &[Update]) {
        for update in updates {
            for (number, process) in self.processes.iter().enumerate() {
                let Some(connection) = process.connection else { continue };
                let delays = match self.network {
                    Network::Perfect => vec![0],
                    Network::Cut => Vec::new(),
                    Network::Lossy => match self.random.u8(0..4) {
                        0 => Vec::new(),
                        1 => vec![0, self.random.u64(0..3_000)],
                        _ => vec![self.random.u64(0..1_000)],
                    },
                };
                for delay in delays {
                    let at = self.now + Duration::from_millis(delay);
                    self.replies.push((at, (number, connection), Reply::Update(update.clone())));
                }
            }
        }
    }

    fn store_now(&self) -> u64 {
        START + u64::try_from(self.now.as_millis()).unwrap()
    }
}

impl Process {
    /// Makes a call that ends at once.
    fn call(&self) {
        if let Ok(permit) = self.circuit.try_acquire() {
            let fault = Fault::new(Kind::Server, Retryable::Never, Health::Unhealthy, Origin::Remote);
            permit.record(if self.fails { Verdict::Fault(fault) } else { Verdict::Success });
        }
    }

    fn run_events(&mut self, number: usize, now: Time) {
        let settings = settings(number);
        let mut events = Vec::new();
        self.mailbox.take(&mut events);
        for (_, event) in events {
            let outbox = self.slot.on_event(now, event, &settings);
            self.absorb(now, outbox);
        }
        while self.slot.follower.next_timer().is_some_and(|at| at <= now) {
            let outbox = self.slot.on_timer(now, &settings);
            self.absorb(now, outbox);
        }
    }

    fn absorb(&mut self, now: Time, outbox: Option<Outbox>) {
        let Outbox { messages, sync } = outbox.unwrap();
        self.is_sync_due |= sync;
        if self.connection.is_some() {
            self.outbox.extend(messages.into_iter().map(Request::Message));
        }
        let epoch = self.slot.follower.record(now).map_or(0, |record| record.epoch);
        assert!(epoch >= self.last_epoch, "the epoch fell from {} to {epoch}", self.last_epoch);
        self.last_epoch = epoch;
    }

    fn sync(&mut self, now: Time, settings: &Settings) -> Option<Request> {
        if !std::mem::take(&mut self.is_sync_due) {
            return None;
        }
        let circuits = vec![self.slot.report(now).unwrap()];
        let (instance, lifetime) = (settings.instance.clone(), settings.lifetime());
        Some(Request::Sync(SyncRequest { instance, lifetime, grace: GRACE, circuits }))
    }

    fn on_reply(&mut self, number: usize, now: Time, reply: &Reply) {
        if !matches!(reply, Reply::Update(_)) {
            self.reply_until = None;
        }
        let outbox = self.slot.run(&settings(number), |follower, local, actions| match reply {
            Reply::Sync(synced) => follower.on_synced(now, synced, local, actions),
            Reply::Asked(reply) => follower.on_lease_reply(now, reply, local, actions),
            Reply::Extended(reply) => follower.on_extended(now, reply, local, actions),
            Reply::Completed(record) => follower.on_completed(now, record, local, actions),
            Reply::Update(Update::Record(record)) => follower.on_record(now, record, local, actions),
            Reply::Update(Update::SlotsTaken { epoch, retry_after, .. }) => {
                follower.on_slots_taken(now, (*epoch, *retry_after), local, actions);
            }
        });
        self.absorb(now, outbox);
    }

    fn disconnect(&mut self, number: usize, now: Time) {
        (self.connection, self.reply_until, self.is_sync_due) = (None, None, false);
        self.outbox.clear();
        let outbox = self.slot.run(&settings(number), |follower, local, actions| {
            follower.on_detached(now, local, actions);
        });
        self.absorb(now, outbox);
    }
}

fn settings(number: usize) -> Settings {
    Settings {
        namespace: "model".to_owned(),
        instance: format!("p{number}"),
        quorum: Quorum::majority(),
        heartbeat: HEARTBEAT,
        takeover: Duration::from_secs(2),
        timeout: TIMEOUT,
        max_open: Duration::from_secs(600),
    }
}
