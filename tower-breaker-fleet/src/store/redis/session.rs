//! A session: two connections to the node of a namespace.

use std::time::Duration;

use redis::{Cmd, Value, cmd};
use tokio::time::Instant;

use super::connection::Connection;
use super::error::{classify, failure, invalid_answer};
use super::keys::{Keys, Kind};
use super::script::{self, Script};
use super::updates::UpdateReceiver;
use super::wire::{self, duration_argument as duration};
use crate::record::CircuitRecord;
use crate::rules::{MAX_EPOCH, clean_text};
use crate::store::{
    Action, CompletedProbe, LeaseReply, LeaseRequest, Operation, OperationReply, ProbeOutcome, Session,
    StoreError, StoreFuture, SyncCircuit, SyncRequest, Synced, Update,
};

/// The most circuits in one call of a script. It blocks the server for about 1 ms.
const CIRCUITS_PER_CALL: usize = 64;

/// The most names that one reply has.
const NAMES_PER_CALL: usize = 256;

/// How often a session checks the connection for updates, with a heartbeat.
///
/// A proxy or firewall may drop a silent connection without a message to either side.
pub(super) const CHECK_SUBSCRIPTION_EVERY: Duration = Duration::from_secs(60);

pub(super) struct RedisSession {
    pub(super) commands: Connection,
    pub(super) subscription: Connection,
    pub(super) updates: UpdateReceiver,
    pub(super) keys: Keys,
    /// `PUBLISH` or `SPUBLISH`.
    pub(super) publish: &'static str,
    pub(super) next_check: Instant,
    pub(super) check_every: Duration,
}

impl RedisSession {
    /// Runs a script by its hash, or by its text if the server does not have it.
    async fn run(
        &mut self,
        script: &Script,
        keys: &[String],
        arguments: &[String],
    ) -> Result<Value, StoreError> {
        let command = |name: &str, script: &str| {
            let mut command = cmd(name);
            command.arg(script).arg(keys.len()).arg(keys);
            command.arg(self.publish).arg(self.keys.channel()).arg(arguments);
            command
        };
        let by_hash = command("EVALSHA", script.hash());
        let result = match self.commands.try_send(&by_hash).await {
            Err(error) if error.code() == Some("NOSCRIPT") => {
                let by_text = command("EVAL", script.code());
                self.commands.try_send(&by_text).await
            }
            result => result,
        };
        result.map_err(|error| classify(error, self.commands.address()))
    }

    fn invalid(&self, what: &str) -> StoreError {
        invalid_answer(self.commands.address(), what)
    }

    /// Returns the keys of a script that changes one circuit.
    fn round_keys(&self, circuit: &str) -> Vec<String> {
        let keys = Kind::ROUND.map(|kind| self.keys.circuit(kind, circuit));
        keys.into_iter().chain([self.keys.names(), self.keys.expiries()]).collect()
    }

    async fn sync_some(
        &mut self,
        request: &SyncRequest,
        circuits: &[SyncCircuit],
    ) -> Result<Vec<Synced>, StoreError> {
        let circuit_keys =
            circuits.iter().flat_map(|circuit| Kind::ALL.map(|kind| self.keys.circuit(kind, &circuit.name)));
        let keys: Vec<_> = circuit_keys.chain([self.keys.names(), self.keys.expiries()]).collect();
        let mut arguments =
            vec![request.instance.clone(), duration(Some(request.lifetime)), duration(Some(request.grace))];
        arguments.extend(circuits.iter().flat_map(circuit_arguments));
        let reply = self.run(&script::SYNC, &keys, &arguments).await?;
        let Value::Array(replies) = reply else { return Err(self.invalid("no list of circuits")) };
        if replies.len() != circuits.len() {
            return Err(self.invalid("another number of circuits"));
        }
        let synced = circuits.iter().zip(&replies).map(|(circuit, reply)| {
            synced(&circuit.name, reply).ok_or_else(|| self.invalid("a wrong circuit"))
        });
        synced.collect()
    }

    async fn check_subscription(&mut self) -> Result<(), StoreError> {
        if Instant::now() >= self.next_check {
            self.subscription.send(&cmd("PING")).await?;
            self.next_check = Instant::now() + self.check_every;
        }
        Ok(())
    }

    async fn names(&mut self, after: Option<&str>, limit: usize) -> Result<Vec<String>, StoreError> {
        let from = after.map_or_else(|| "-".to_owned(), |after| format!("({after}"));
        let mut command: Cmd = cmd("ZRANGEBYLEX");
        command.arg(self.keys.names()).arg(from).arg("+").arg("LIMIT").arg(0).arg(limit);
        let Value::Array(names) = self.commands.send(&command).await? else {
            return Err(self.invalid("no list of names"));
        };
        let names: Option<Vec<_>> = names.iter().map(|name| wire::text(name).map(str::to_owned)).collect();
        names.ok_or_else(|| self.invalid("a name that is no text"))
    }

    async fn records(&mut self, names: &[String]) -> Result<Vec<CircuitRecord>, StoreError> {
        let keys: Vec<_> = names.iter().map(|name| self.keys.circuit(Kind::Record, name)).collect();
        let reply = self.run(&script::RECORDS, &keys, &[]).await?;
        let Value::Array(rows) = reply else { return Err(self.invalid("no list of records")) };
        let records = names.iter().zip(&rows).map(|(name, row)| wire::record(name, row));
        let records: Option<Vec<_>> = records.collect();
        records.ok_or_else(|| self.invalid("a wrong record"))
    }
}

fn circuit_arguments(circuit: &SyncCircuit) -> impl Iterator<Item = String> {
    let (ballot, quorum) = (&circuit.ballot, &circuit.quorum);
    // Lua would read a share of NaN, and so never open the circuit.
    let share = if quorum.share.is_nan() { 0.0 } else { quorum.share };
    let own = [
        circuit.name.clone(),
        u8::from(circuit.member).to_string(),
        u8::from(ballot.vote).to_string(),
        duration(ballot.since_success),
        wire::ages_argument(&ballot.failure_ages),
        quorum.at_least.to_string(),
        share.to_string(),
        quorum.consecutive_failures.to_string(),
        duration(Some(quorum.consecutive_failures_span)),
        duration(circuit.open_for),
        wire::local_argument(circuit.local),
    ];
    let known = circuit.known.clone().filter(|known| known.epoch <= MAX_EPOCH).unwrap_or_default();
    own.into_iter().chain(wire::record_arguments(&known))
}

fn synced(circuit: &str, reply: &Value) -> Option<Synced> {
    let Value::Array(fields) = reply else { return None };
    let [members, open_members, votes, votes_needed, warming_up, local, record] = &fields[..] else {
        return None;
    };
    let has_record = !matches!(record, Value::Array(row) if row.is_empty());
    Some(Synced {
        members: wire::count(members)?,
        open_members: wire::count(open_members)?,
        votes: wire::count(votes)?,
        votes_needed: wire::count(votes_needed)?,
        warming_up: wire::flag(warming_up)?,
        local: wire::local(local)?,
        record: if has_record { Some(wire::record(circuit, record)?) } else { None },
    })
}

fn lease_reply(circuit: &str, reply: &Value) -> Option<LeaseReply> {
    let Value::Array(fields) = reply else { return None };
    let [granted, retry_after, record] = &fields[..] else { return None };
    Some(LeaseReply {
        granted: wire::flag(granted)?,
        retry_after: wire::duration(wire::text(retry_after)?)?,
        record: wire::record(circuit, record)?,
    })
}

fn operation_reply(circuit: &str, reply: &Value) -> Option<OperationReply> {
    let Value::Array(fields) = reply else { return None };
    let [applied, record] = &fields[..] else { return None };
    Some(OperationReply { applied: wire::flag(applied)?, record: wire::record(circuit, record)? })
}

impl Session for RedisSession {
    fn sync<'a>(&'a mut self, request: &'a SyncRequest) -> StoreFuture<'a, Vec<Synced>> {
        Box::pin(async move {
            let mut replies = Vec::with_capacity(request.circuits.len());
            for circuits in request.circuits.chunks(CIRCUITS_PER_CALL) {
                replies.extend(self.sync_some(request, circuits).await?);
            }
            self.check_subscription().await?;
            Ok(replies)
        })
    }

    fn lease<'a>(&'a mut self, request: &'a LeaseRequest) -> StoreFuture<'a, LeaseReply> {
        Box::pin(async move {
            let weight = if request.weight.is_nan() { 1.0 } else { request.weight.clamp(0.001, 1.0) };
            let arguments = [
                request.instance.clone(),
                request.circuit.clone(),
                request.probes.max(1).to_string(),
                duration(Some(request.lease)),
                weight.to_string(),
                duration(Some(request.grace)),
            ];
            let keys = self.round_keys(&request.circuit);
            let reply = self.run(&script::LEASE, &keys, &arguments).await?;
            lease_reply(&request.circuit, &reply).ok_or_else(|| self.invalid("a wrong lease"))
        })
    }

    fn complete<'a>(&'a mut self, probe: &'a CompletedProbe) -> StoreFuture<'a, CircuitRecord> {
        Box::pin(async move {
            let outcome = match probe.outcome {
                ProbeOutcome::Success => "success",
                ProbeOutcome::Failure => "failure",
                ProbeOutcome::Neutral => "neutral",
            };
            let successes_to_close = probe.successes_to_close.max(1);
            let failures_to_open = probe.probes.saturating_sub(successes_to_close).saturating_add(1);
            let arguments = [
                probe.instance.clone(),
                probe.circuit.clone(),
                probe.epoch.to_string(),
                outcome.to_owned(),
                duration(probe.open_for),
                successes_to_close.to_string(),
                failures_to_open.to_string(),
                duration(Some(probe.grace)),
            ];
            let keys = self.round_keys(&probe.circuit);
            let row = self.run(&script::COMPLETE, &keys, &arguments).await?;
            wire::record(&probe.circuit, &row).ok_or_else(|| self.invalid("a wrong record"))
        })
    }

    fn operate<'a>(&'a mut self, operation: &'a Operation) -> StoreFuture<'a, OperationReply> {
        Box::pin(async move {
            let action = match operation.action {
                Action::Trip => "trip",
                Action::Reset => "reset",
                Action::ForceOpen => "force_open",
                Action::ForceClosed => "force_closed",
                Action::Release => "release",
            };
            let arguments = [
                operation.circuit.clone(),
                action.to_owned(),
                clean_text(&operation.by),
                clean_text(&operation.reason),
                operation.expected_epoch.map_or_else(String::new, |epoch| epoch.to_string()),
                duration(operation.open_for),
                duration(operation.keep_for),
                duration(Some(operation.grace)),
            ];
            let keys = self.round_keys(&operation.circuit);
            let reply = self.run(&script::OPERATE, &keys, &arguments).await?;
            operation_reply(&operation.circuit, &reply).ok_or_else(|| self.invalid("a wrong operation"))
        })
    }

    fn list<'a>(&'a mut self, after: Option<&'a str>, limit: usize) -> StoreFuture<'a, Vec<CircuitRecord>> {
        Box::pin(async move {
            let mut records: Vec<CircuitRecord> = Vec::new();
            let mut after = after.map(str::to_owned);
            while records.len() < limit {
                let wanted = (limit - records.len()).min(NAMES_PER_CALL);
                let names = self.names(after.as_deref(), wanted).await?;
                let Some(last) = names.last().cloned() else { break };
                // A name may be of a record that has expired.
                records.extend(self.records(&names).await?.into_iter().filter(|record| record.epoch > 0));
                after = Some(last);
            }
            Ok(records)
        })
    }

    fn update(&mut self) -> StoreFuture<'_, Update> {
        Box::pin(async move {
            let result = self.updates.next().await;
            result.map_err(|(kind, message)| failure(kind, self.subscription.address(), message))
        })
    }
}
