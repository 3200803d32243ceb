//! The loop of the agent: connect, then serve until the connection is lost.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{sleep_until, timeout};

use super::circuit::Members;
use super::keyed::Keys;
use super::mailbox::{Event, Id};
use super::pace::{Backoff, TokenBucket};
use super::shared::{Readiness, Request, Shared, Stopped};
use super::slot::{Message, Outbox, Slot, Source};
use super::{HEARTBEAT_JITTER, Time, telemetry};
use crate::error::FleetError;
use crate::store::{Backend, Session, StoreError, StoreErrorKind, Update};

/// How long ballots wait for those of other circuits.
const COALESCING: Duration = Duration::from_millis(5);

/// The task of a fleet in one process.
pub(crate) struct Agent {
    pub(super) shared: Arc<Shared>,
    store: Arc<dyn Backend>,
    inbox: mpsc::UnboundedReceiver<Request>,
    _stopped: Stopped,
    pub(super) random: fastrand::Rng,
    pub(super) slots: BTreeMap<Id, Slot>,
    by_name: BTreeMap<Arc<str>, Id>,
    /// The next timer of each circuit that has one. Only [`run_slot`](Self::run_slot) changes timers.
    timers: BTreeSet<(Time, Id)>,
    /// Events, kept to reuse the allocation.
    events: Vec<(Id, Event)>,
    pub(super) attached: bool,
    /// When the store has replied for the first time since the last loss.
    attached_at: Time,
    /// Whether the loss of the store was logged, and not its end.
    is_loss_logged: bool,
    backoff: Backoff,
    /// Requests that wait for the current attempt to connect.
    waiting: Vec<Request>,
    pub(super) bucket: TokenBucket,
    pub(super) outbox: VecDeque<(Id, Message)>,
    /// The circuits whose ballots are to be sent, and when.
    pub(super) unsent: BTreeSet<Id>,
    /// The first circuit of the next message with ballots.
    next_unsent: Id,
    pub(super) flush_at: Option<Time>,
    /// Whether the last message was one of `outbox`.
    pub(super) was_probe_message: bool,
    /// The names of circuits that have ended since the last message.
    pub(super) ended: Vec<Arc<str>>,
    pub(super) next_heartbeat: Time,
    pub(super) cache: Cache,
    pub(super) keys: Keys,
}

/// The records of circuits that this process may share later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cache {
    /// All circuits are shared one by one.
    Unused,
    /// They are to be read from the store.
    Outdated,
    Filled,
}

/// What a wait has ended with.
enum Input {
    Request(Request),
    Posted,
    Timer,
}

/// Why the agent stops serving a connection.
enum End {
    Lost(StoreError),
    Left,
}

impl Agent {
    pub(crate) fn new(
        shared: Arc<Shared>,
        store: Arc<dyn Backend>,
        inbox: mpsc::UnboundedReceiver<Request>,
    ) -> Self {
        Self {
            _stopped: Stopped(Arc::clone(&shared)),
            shared,
            store,
            inbox,
            random: fastrand::Rng::new(),
            slots: BTreeMap::new(),
            by_name: BTreeMap::new(),
            timers: BTreeSet::new(),
            events: Vec::new(),
            attached: false,
            attached_at: Time::ZERO,
            is_loss_logged: false,
            backoff: Backoff::start(),
            waiting: Vec::new(),
            bucket: TokenBucket::new(),
            outbox: VecDeque::new(),
            unsent: BTreeSet::new(),
            next_unsent: 0,
            was_probe_message: false,
            flush_at: None,
            ended: Vec::new(),
            next_heartbeat: Time::ZERO,
            cache: Cache::Unused,
            keys: Keys::default(),
        }
    }

    /// Runs until the process leaves the fleet.
    pub(crate) async fn run(mut self) {
        while let Some(session) = self.connect().await {
            match self.serve(session).await {
                End::Lost(error) => {
                    self.on_lost(&error);
                    if self.back_off(error.kind, &text(&error)).await.is_none() {
                        break;
                    }
                }
                End::Left => break,
            }
        }
    }

    /// Connects, with as many attempts as it takes. `None`: the process has left the fleet.
    async fn connect(&mut self) -> Option<Box<dyn Session>> {
        let (store, shared) = (Arc::clone(&self.store), Arc::clone(&self.shared));
        loop {
            let limit = shared.settings.connect_timeout();
            let mut attempt = Box::pin(timeout(limit, store.connect(&shared.settings.namespace)));
            let result = loop {
                let deadline = self.next_timer();
                tokio::select! {
                    result = &mut attempt => break result,
                    input = next_input(&mut self.inbox, &shared, deadline) => match input {
                        // They wait for the connection, at most for the limit of the attempt.
                        Input::Request(request @ (Request::Operate(..) | Request::List(..))) => {
                            self.waiting.push(request);
                        }
                        input => self.on_input(input)?,
                    },
                }
            };
            let error = match result {
                Ok(Ok(session)) => return Some(session),
                Ok(Err(error)) => error,
                Err(_) => no_reply(limit),
            };
            self.on_error(&error);
            let text = text(&error);
            for request in std::mem::take(&mut self.waiting) {
                refuse(request, error.kind, &text);
            }
            self.back_off(error.kind, &text).await?;
        }
    }

    /// Waits before the next attempt to connect. `None`: the process has left the fleet.
    async fn back_off(&mut self, kind: StoreErrorKind, error: &str) -> Option<()> {
        let delay = self.backoff.next(self.random.f64());
        let shared = Arc::clone(&self.shared);
        let end = shared.now() + delay;
        while shared.now() < end {
            let deadline = Some(self.next_timer().map_or(end, |timer| timer.min(end)));
            match next_input(&mut self.inbox, &shared, deadline).await {
                Input::Request(request @ (Request::Operate(..) | Request::List(..))) => {
                    refuse(request, kind, error);
                }
                input => self.on_input(input)?,
            }
        }
        Some(())
    }

    /// Exchanges messages with the store until the connection is lost.
    async fn serve(&mut self, mut session: Box<dyn Session>) -> End {
        let shared = Arc::clone(&self.shared);
        self.on_connected();
        for request in std::mem::take(&mut self.waiting) {
            if let Err(error) = self.answer(&mut *session, request).await {
                return End::Lost(error);
            }
        }
        loop {
            self.process_events();
            if let Err(error) = self.send_due(&mut *session).await {
                return End::Lost(error);
            }
            let deadline = self.next_deadline();
            tokio::select! {
                update = session.update() => match update {
                    Ok(update) => self.on_update(update),
                    Err(error) => return End::Lost(error),
                },
                input = next_input(&mut self.inbox, &shared, deadline) => match input {
                    Input::Request(Request::Leave(reply)) => {
                        self.leave(&mut *session).await;
                        // An error: the caller no longer waits.
                        let _ = reply.send(());
                        return End::Left;
                    }
                    Input::Request(request @ (Request::Operate(..) | Request::List(..))) => {
                        if let Err(error) = self.answer(&mut *session, request).await {
                            return End::Lost(error);
                        }
                    }
                    input => _ = self.on_input(input),
                },
            }
        }
    }

    /// Processes an input that needs no store. `None`: the process leaves the fleet.
    fn on_input(&mut self, input: Input) -> Option<()> {
        match input {
            Input::Request(Request::Leave(reply)) => {
                self.remove_observers();
                // An error: the caller no longer waits.
                let _ = reply.send(());
                return None;
            }
            Input::Request(Request::Share(slot)) => self.add(*slot),
            Input::Request(Request::Key(request)) => self.on_key_request(request),
            Input::Request(Request::FillCache) => self.cache = Cache::Outdated,
            Input::Request(_) | Input::Posted | Input::Timer => {}
        }
        self.process_events();
        Some(())
    }

    pub(super) fn add(&mut self, mut slot: Slot) {
        let id = slot.id;
        // Events before now have had no receiver.
        slot.follower.on_failure_signal(self.shared.now());
        if self.attached {
            slot.follower.on_attached();
        }
        if let Some(old) =
            self.by_name.insert(Arc::clone(&slot.name), id).and_then(|old| self.slots.remove(&old))
        {
            self.forget(&old);
        }
        if let Source::Key(layer) = &slot.source {
            layer.on_added();
        }
        self.reschedule(id, None, slot.follower.next_timer());
        self.slots.insert(id, slot);
        self.mark_unsent(id);
    }

    /// Processes the events of the circuits and the timers.
    pub(super) fn process_events(&mut self) {
        let mut events = std::mem::take(&mut self.events);
        self.shared.mailbox.take(&mut events);
        let shared = Arc::clone(&self.shared);
        let now = shared.now();
        for (id, event) in events.drain(..) {
            // A circuit that is not here has ended, or arrives with the next request.
            if self.slots.contains_key(&id) {
                self.run_slot(id, |slot| slot.on_event(now, event, &shared.settings));
            }
        }
        self.events = events;
        let due: Vec<_> = self.timers.range(..=(now, Id::MAX)).map(|(_, id)| *id).collect();
        for id in due {
            self.run_slot(id, |slot| slot.on_timer(now, &shared.settings));
        }
        self.scan_if_due(now);
    }

    /// Runs an input of a circuit. Removes the circuit if it has ended.
    pub(super) fn run_slot(&mut self, id: Id, input: impl FnOnce(&mut Slot) -> Option<Outbox>) {
        let Some(slot) = self.slots.get_mut(&id) else { return };
        let (was_answered, old_timer) = (slot.follower.is_answered(), slot.follower.next_timer());
        let outbox = input(slot);
        let is_first_answer = !was_answered && slot.follower.is_answered() && slot.is_single();
        let timer = slot.follower.next_timer();
        self.reschedule(id, old_timer, timer);
        let Some(outbox) = outbox else { return self.remove(id) };
        if is_first_answer {
            self.shared.update_readiness(Readiness::circuit_answered);
        }
        if outbox.sync {
            self.mark_unsent(id);
        }
        // Without a connection the messages are lost: leases expire.
        if self.attached {
            self.outbox.extend(outbox.messages.into_iter().map(|message| (id, message)));
        }
    }

    /// Replaces the timer of a circuit.
    fn reschedule(&mut self, id: Id, old: Option<Time>, new: Option<Time>) {
        if old == new {
            return;
        }
        if let Some(at) = old {
            self.timers.remove(&(at, id));
        }
        if let Some(at) = new {
            self.timers.insert((at, id));
        }
    }

    pub(super) fn id(&self, name: &str) -> Option<Id> {
        self.by_name.get(name).copied()
    }

    /// Removes a circuit that has ended. The next message takes back its ballot and membership.
    pub(super) fn remove(&mut self, id: Id) {
        let Some(slot) = self.slots.remove(&id) else { return };
        self.forget(&slot);
        if self.by_name.get(&slot.name) == Some(&id) {
            self.by_name.remove(&slot.name);
            self.ended.push(slot.name);
            self.flush_at.get_or_insert(self.shared.now() + COALESCING);
        }
        if let Source::Key(layer) = &slot.source {
            // The key may get another circuit.
            let record = slot.follower.record(self.shared.now());
            self.keep_record(layer, record);
        }
    }

    fn forget(&mut self, slot: &Slot) {
        if slot.is_single() {
            telemetry::members(slot.label, Members::default());
        }
        self.unsent.remove(&slot.id);
        self.reschedule(slot.id, slot.follower.next_timer(), None);
        self.shared.remove(&slot.name, slot.id);
        match &slot.source {
            Source::Single(..) if !slot.follower.is_answered() => {
                self.shared.update_readiness(Readiness::circuit_answered);
            }
            Source::Single(..) => {}
            Source::Key(layer) => layer.on_removed(),
        }
    }

    /// Removes the next circuit whose ballot is to be sent.
    ///
    /// The circuits take turns, so that each is sent even if one heartbeat cannot carry them all.
    pub(super) fn pop_unsent(&mut self) -> Option<Id> {
        let next = self.unsent.range(self.next_unsent..).next().or_else(|| self.unsent.first());
        let id = *next?;
        self.unsent.remove(&id);
        self.next_unsent = id + 1;
        Some(id)
    }

    fn mark_unsent(&mut self, id: Id) {
        self.unsent.insert(id);
        self.flush_at.get_or_insert(self.shared.now() + COALESCING);
    }

    fn on_update(&mut self, update: Update) {
        self.shared.update_link(|link| link.updates += 1);
        let shared = Arc::clone(&self.shared);
        let now = shared.now();
        match update {
            Update::Record(record) => match self.id(&record.circuit) {
                Some(id) => self.run_slot(id, |slot| {
                    let outbox = slot.run(&shared.settings, |follower, local, actions| {
                        follower.on_record(now, &record, local, actions);
                    });
                    shared.publish(slot);
                    outbox
                }),
                None => self.on_unshared_record(record),
            },
            Update::SlotsTaken { circuit, epoch, retry_after } => {
                let Some(id) = self.id(&circuit) else { return };
                self.run_slot(id, |slot| {
                    slot.run(&shared.settings, |follower, local, actions| {
                        follower.on_slots_taken(now, (epoch, retry_after), local, actions);
                    })
                });
            }
        }
    }

    fn on_connected(&mut self) {
        self.attached = true;
        for slot in self.slots.values_mut() {
            slot.follower.on_attached();
        }
        // Updates of the cached records may be lost.
        if self.cache == Cache::Filled {
            self.cache = Cache::Outdated;
        }
        self.keys.on_connected(&self.shared.layers);
        // The first message has all circuits: the store may know more or less than this process.
        self.next_heartbeat = self.shared.now();
    }

    /// Records a reply of the store.
    pub(super) fn on_reply(&mut self) {
        let now = self.shared.now();
        let mut was_attached = false;
        self.shared.update_link(|link| {
            was_attached = std::mem::replace(&mut link.attached, true);
            link.answered_at = Some(now);
            link.messages += 1;
        });
        if !was_attached {
            self.attached_at = now;
            telemetry::attached(&self.shared.settings.namespace, true);
            self.shared.update_readiness(|readiness| readiness.has_connected = true);
        }
        // A store that refuses some messages may reply to others: full memory, missing permissions.
        // So an outage lasts until a connection has outlived the time between two heartbeats.
        let settings = &self.shared.settings;
        let stable_at = self.attached_at + settings.heartbeat.mul_f64(1.0 - HEARTBEAT_JITTER);
        if self.is_loss_logged && now < stable_at {
            return;
        }
        // Not before: each attempt to connect would be an early one.
        self.backoff = Backoff::lost();
        if std::mem::take(&mut self.is_loss_logged) {
            telemetry::reattached(&settings.namespace);
        }
    }

    fn on_error(&mut self, error: &StoreError) {
        telemetry::error(error.kind);
        let text = text(error);
        if !std::mem::replace(&mut self.is_loss_logged, true) {
            telemetry::detached(&self.shared.settings.namespace, &text);
        }
        self.shared.update_link(|link| {
            link.attached = false;
            link.errors += 1;
            link.last_error = Some(text);
        });
    }

    fn on_lost(&mut self, error: &StoreError) {
        self.on_error(error);
        self.detach();
    }

    /// Leaves the circuits to themselves: their deadlines no longer allow for a reply of the store.
    fn detach(&mut self) {
        self.attached = false;
        self.outbox.clear();
        self.unsent.clear();
        self.flush_at = None;
        let shared = Arc::clone(&self.shared);
        let now = shared.now();
        let ids: Vec<_> = self.slots.keys().copied().collect();
        for id in ids {
            self.run_slot(id, |slot| {
                slot.run(&shared.settings, |follower, local, actions| {
                    follower.on_detached(now, local, actions);
                })
            });
        }
    }

    /// When the next timer of a circuit is due.
    pub(super) fn next_timer(&self) -> Option<Time> {
        let first = self.timers.first().map(|(at, _)| *at);
        first.into_iter().chain(self.keys.next_scan()).min()
    }

    pub(super) fn schedule_heartbeat(&mut self, now: Time) {
        let jitter = HEARTBEAT_JITTER * (2.0 * self.random.f64() - 1.0);
        self.next_heartbeat = now + self.shared.settings.heartbeat.mul_f64(1.0 + jitter);
    }

    pub(super) fn remove_observers(&self) {
        self.shared.layers.remove_observers();
        for slot in self.slots.values() {
            slot.remove_observers();
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        for slot in self.slots.values().filter(|slot| slot.is_single()) {
            telemetry::members(slot.label, Members::default());
        }
        self.shared.layers.remove_observers();
        self.detach();
    }
}

/// Waits for the next input. Cancellation-safe.
async fn next_input(
    inbox: &mut mpsc::UnboundedReceiver<Request>,
    shared: &Shared,
    deadline: Option<Time>,
) -> Input {
    let timer = async {
        match deadline {
            Some(deadline) => sleep_until(shared.instant(deadline)).await,
            None => pending().await,
        }
    };
    tokio::select! {
        // `None` never comes: the agent itself has a sender.
        Some(request) = inbox.recv() => Input::Request(request),
        () = shared.mailbox.posted() => Input::Posted,
        () = timer => Input::Timer,
    }
}

pub(super) fn no_reply(limit: Duration) -> StoreError {
    let message = format!("no reply within {} ms; check the address and the network", limit.as_millis());
    StoreError { kind: StoreErrorKind::Unreachable, message, source: None }
}

/// Refuses a request, because there is no connection.
fn refuse(request: Request, kind: StoreErrorKind, error: &str) {
    let error = || FleetError::from(StoreError { kind, message: error.to_owned(), source: None });
    match request {
        Request::Operate(_, reply) => reply.send(Err(error())),
        Request::List(_, _, reply) => reply.send(Err(error())),
        Request::Share(_) | Request::Key(_) | Request::FillCache | Request::Leave(_) => {}
    }
}

/// Returns the text of an error with its causes.
fn text(error: &StoreError) -> String {
    let mut text = error.message.clone();
    let source = error.source.as_deref().map(|source| source as &dyn std::error::Error);
    for cause in std::iter::successors(source, |cause| cause.source()) {
        let cause = cause.to_string();
        // Some errors of drivers repeat the text of their cause.
        if !text.ends_with(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}
