//! The messages of the agent, and their replies.

use std::sync::Arc;

use tokio::time::timeout;

use super::Time;
use super::mailbox::Id;
use super::run::{Agent, Cache, no_reply};
use super::shared::{Reply, Request};
use super::slot::{Message, Slot};
use super::{GRACE, telemetry};
use crate::error::FleetError;
use crate::record::CircuitRecord;
use crate::store::{
    CompletedProbe, Operation, OperationReply, Session, StoreError, StoreErrorKind, StoreFuture, SyncCircuit,
    SyncRequest,
};

/// The circuits in one heartbeat message.
const MAX_CIRCUITS: usize = 64;

/// The records that one message reads, and the messages that read the records of a namespace.
const PAGE: usize = 256;
const MAX_PAGES: usize = 4;

impl Agent {
    /// Sends what is due, as far as the limit of messages allows.
    pub(super) async fn send_due(&mut self, session: &mut dyn Session) -> Result<(), StoreError> {
        loop {
            let now = self.shared.now();
            if self.next_heartbeat <= now {
                self.review_keys(now);
                self.unsent.extend(self.slots.keys());
                self.flush_at = Some(now);
                self.schedule_heartbeat(now);
            }
            if self.next_message().is_none_or(|at| now < at) || !self.bucket.take(now) {
                return Ok(());
            }
            let is_sync_due = self.flush_at.is_some_and(|at| at <= now);
            // Both take turns, so that the probes of many circuits do not delay the heartbeat.
            let has_turn = !(is_sync_due && std::mem::take(&mut self.was_probe_message));
            if has_turn && let Some((id, message)) = self.outbox.pop_front() {
                self.was_probe_message = true;
                self.send_message(session, id, message).await?;
            } else if self.cache == Cache::Outdated {
                self.fill_cache(session).await?;
            } else if let Some(layer) = self.keys.outdated.pop_front() {
                self.load_layer(session, layer).await?;
            } else {
                self.sync(session).await?;
            }
            self.process_events();
        }
    }

    /// When the next message is due, without the limit of messages.
    fn next_message(&self) -> Option<Time> {
        let has_outdated = self.cache == Cache::Outdated || !self.keys.outdated.is_empty();
        if !self.outbox.is_empty() || has_outdated {
            return Some(Time::ZERO);
        }
        self.flush_at
    }

    /// When the loop must continue.
    pub(super) fn next_deadline(&self) -> Option<Time> {
        let message = self.next_message().map(|at| at.max(self.bucket.next()));
        [message, self.next_timer(), Some(self.next_heartbeat)].into_iter().flatten().min()
    }

    /// Sends the ballots of up to [`MAX_CIRCUITS`] circuits.
    async fn sync(&mut self, session: &mut dyn Session) -> Result<(), StoreError> {
        let shared = Arc::clone(&self.shared);
        let now = shared.now();
        let mut circuits: Vec<SyncCircuit> = Vec::new();
        let mut ids = Vec::new();
        while circuits.len() < MAX_CIRCUITS
            && let Some(id) = self.pop_unsent()
        {
            let report = self.slots.get_mut(&id).and_then(|slot| slot.report(now));
            match report {
                Some(circuit) => {
                    circuits.push(circuit);
                    ids.push(id);
                }
                None => self.remove(id),
            }
        }
        while circuits.len() < MAX_CIRCUITS
            && let Some(name) = self.ended.pop()
        {
            if self.id(&name).is_none() {
                circuits.push(Slot::farewell(&name, &shared.settings));
            }
        }
        if self.unsent.is_empty() && self.ended.is_empty() {
            self.flush_at = None;
        }
        if circuits.is_empty() {
            return Ok(());
        }
        let request = self.sync_request(circuits);
        let replies = self.exchange(session.sync(&request)).await?;
        telemetry::sync_time(shared.now().saturating_sub(now));
        if replies.len() != request.circuits.len() {
            let message = format!(
                "the store replied for {} circuits instead of {}",
                replies.len(),
                request.circuits.len()
            );
            return Err(StoreError { kind: StoreErrorKind::Invalid, message, source: None });
        }
        let now = shared.now();
        for (id, reply) in ids.into_iter().zip(&replies) {
            self.run_slot(id, |slot| {
                let outbox = slot.run(&shared.settings, |follower, local, actions| {
                    follower.on_synced(now, reply, local, actions);
                });
                shared.publish(slot);
                outbox
            });
        }
        Ok(())
    }

    fn sync_request(&self, circuits: Vec<SyncCircuit>) -> SyncRequest {
        let settings = &self.shared.settings;
        SyncRequest {
            instance: settings.instance.clone(),
            lifetime: settings.lifetime(),
            grace: GRACE,
            circuits,
        }
    }

    async fn send_message(
        &mut self,
        session: &mut dyn Session,
        id: Id,
        message: Message,
    ) -> Result<(), StoreError> {
        let shared = Arc::clone(&self.shared);
        match message {
            Message::Ask(request) => {
                let reply = self.exchange(session.lease(&request)).await?;
                let now = shared.now();
                self.run_slot(id, |slot| {
                    let outbox = slot.run(&shared.settings, |follower, local, actions| {
                        follower.on_lease_reply(now, &reply, local, actions);
                    });
                    shared.publish(slot);
                    outbox
                });
            }
            Message::Extend(request) => {
                let reply = self.exchange(session.lease(&request)).await?;
                let now = shared.now();
                self.run_slot(id, |slot| {
                    slot.run(&shared.settings, |follower, local, actions| {
                        follower.on_extended(now, &reply, local, actions);
                    })
                });
            }
            Message::Complete(probe) => {
                if let Some(slot) = self.slots.get(&id) {
                    telemetry::probe(slot.label, probe.outcome);
                }
                self.complete(session, id, &probe).await?;
            }
            Message::GiveBack(neutral) => self.complete(session, id, &neutral).await?,
        }
        Ok(())
    }

    async fn complete(
        &mut self,
        session: &mut dyn Session,
        id: Id,
        probe: &CompletedProbe,
    ) -> Result<(), StoreError> {
        let record = self.exchange(session.complete(probe)).await?;
        self.on_record(id, &record, true);
        Ok(())
    }

    fn on_record(&mut self, id: Id, record: &CircuitRecord, is_completed: bool) {
        let shared = Arc::clone(&self.shared);
        let now = shared.now();
        self.run_slot(id, |slot| {
            let outbox = slot.run(&shared.settings, |follower, local, actions| {
                if is_completed {
                    follower.on_completed(now, record, local, actions);
                } else {
                    follower.on_record(now, record, local, actions);
                }
            });
            shared.publish(slot);
            outbox
        });
    }

    /// Answers a request of a handle.
    pub(super) async fn answer(
        &mut self,
        session: &mut dyn Session,
        request: Request,
    ) -> Result<(), StoreError> {
        match request {
            // The caller has got an error already, so nothing may be done.
            Request::Operate(_, reply) if reply.is_closed() => Ok(()),
            Request::List(_, _, reply) if reply.is_closed() => Ok(()),
            Request::Operate(operation, reply) => self.operate(session, operation, reply).await,
            Request::List(after, limit, reply) => {
                let result = self.exchange(session.list(after.as_deref(), limit)).await;
                answer_with(reply, result, Ok)
            }
            Request::Share(_) | Request::Key(_) | Request::FillCache | Request::Leave(_) => Ok(()),
        }
    }

    async fn operate(
        &mut self,
        session: &mut dyn Session,
        operation: Operation,
        reply: Reply<CircuitRecord>,
    ) -> Result<(), StoreError> {
        let result = self.exchange(session.operate(&operation)).await;
        if let Ok(OperationReply { record, .. }) = &result {
            match self.id(&operation.circuit) {
                Some(id) => self.on_record(id, record, false),
                None => self.on_unshared_record(record.clone()),
            }
        }
        answer_with(reply, result, |OperationReply { applied, record }| {
            let expected_epoch = operation.expected_epoch;
            if applied {
                return Ok(record);
            }
            Err(FleetError::Conflict { record: Box::new(record), expected_epoch })
        })
    }

    /// Reads the records of the namespace, for circuits that this process shares later.
    async fn fill_cache(&mut self, session: &mut dyn Session) -> Result<(), StoreError> {
        self.shared.clear_cache();
        let mut after: Option<String> = None;
        for _ in 0..MAX_PAGES {
            let records = self.exchange(session.list(after.as_deref(), PAGE)).await?;
            let is_last = records.len() < PAGE;
            after = records.last().map(|record| record.circuit.clone());
            for record in records {
                if !self.shared.is_shared(&record.circuit) {
                    self.on_unshared_record(record);
                }
            }
            if is_last {
                break;
            }
        }
        self.cache = Cache::Filled;
        self.shared.update_readiness(|readiness| readiness.needs_cache = false);
        Ok(())
    }

    /// Leaves the fleet within [`longest_wait`](super::Settings::longest_wait). What is left then
    /// expires.
    pub(super) async fn leave(&mut self, session: &mut dyn Session) {
        let limit = self.shared.settings.longest_wait();
        // An error: the time is over, or the store is lost.
        let _ = timeout(limit, self.take_back(session)).await;
    }

    /// Sends the last ballots and the outcomes of probes, and takes back all leases, ballots and
    /// memberships.
    async fn take_back(&mut self, session: &mut dyn Session) -> Result<(), StoreError> {
        self.process_events();
        self.check_all();
        while !self.unsent.is_empty() {
            self.sync(session).await?;
        }
        for (id, message) in std::mem::take(&mut self.outbox) {
            // An outcome after the end of the lease counts only if the lease is extended first.
            if !matches!(message, Message::Ask(_)) {
                self.send_message(session, id, message).await?;
            }
        }
        self.remove_observers();
        let shared = Arc::clone(&self.shared);
        let names: Vec<_> = self.slots.values().map(|slot| Arc::clone(&slot.name)).collect();
        let reservations: Vec<_> =
            self.slots.values().filter_map(|slot| slot.reservation(&shared.settings)).collect();
        for reservation in &reservations {
            self.exchange(session.complete(reservation)).await?;
        }
        for names in names.chunks(MAX_CIRCUITS) {
            let circuits = names.iter().map(|name| Slot::farewell(name, &shared.settings)).collect();
            let request = self.sync_request(circuits);
            self.exchange(session.sync(&request)).await?;
        }
        Ok(())
    }

    /// Evaluates the ballots of all circuits. A failure of a moment ago may open a circuit for the
    /// other processes.
    fn check_all(&mut self) {
        let shared = Arc::clone(&self.shared);
        let now = shared.now();
        for id in self.slots.keys().copied().collect::<Vec<_>>() {
            self.run_slot(id, |slot| {
                slot.run(&shared.settings, |follower, local, actions| follower.check(now, local, actions))
            });
        }
    }

    /// Waits for a reply, at most for the timeout.
    pub(super) async fn exchange<T>(&mut self, reply: StoreFuture<'_, T>) -> Result<T, StoreError> {
        let limit = self.shared.settings.timeout;
        let result = timeout(limit, reply).await.unwrap_or_else(|_| Err(no_reply(limit)));
        if result.is_ok() {
            self.on_reply();
        }
        result
    }
}

/// Sends the result to a handle. Returns the error also to the loop, which drops the connection.
fn answer_with<T, U>(
    reply: Reply<U>,
    result: Result<T, StoreError>,
    convert: impl FnOnce(T) -> Result<U, FleetError>,
) -> Result<(), StoreError> {
    match result {
        Ok(value) => {
            reply.send(convert(value));
            Ok(())
        }
        Err(error) => {
            let StoreError { kind, message, source } = error;
            let lost = StoreError { kind, message: message.clone(), source: None };
            reply.send(Err(FleetError::from(StoreError { kind, message, source })));
            Err(lost)
        }
    }
}
