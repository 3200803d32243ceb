//! The messages of one process.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;
use tokio_postgres::types::{ToSql, Type};

use super::Settings;
use super::failure::quoted;
use super::link::Link;
use super::updates::Updates;
use super::wire::{
    WireCompletedProbe, WireLeaseReply, WireLeaseRequest, WireOperation, WireOperationReply, WireRecord,
    WireSync, WireSynced, duration, name,
};
use crate::record::{CircuitRecord, FleetState};
use crate::store::{
    CompletedProbe, LeaseReply, LeaseRequest, LocalOpen, Operation, OperationReply, Session, StoreError,
    StoreFuture, SyncCircuit, SyncRequest, Synced, Update,
};

/// How often a process deletes expired rows, on average. All processes of a fleet do it.
const HOUSEKEEPING: Duration = Duration::from_secs(3600);

pub(super) struct PostgresSession {
    settings: Arc<Settings>,
    namespace: String,
    commands: Link,
    updates: Updates,
    /// The circuits of this process, and whether they have failures or are not closed.
    circuits: HashMap<String, bool>,
    housekeeping: Instant,
}

impl PostgresSession {
    pub(super) fn new(settings: Arc<Settings>, namespace: &str, commands: Link) -> Self {
        let namespace = name(namespace);
        let updates = Updates::new(Arc::clone(&settings), namespace.clone());
        // Random, so that processes that live for a short time do it, too.
        let housekeeping = Instant::now() + HOUSEKEEPING.mul_f64(fastrand::f64());
        Self { settings, namespace, commands, updates, circuits: HashMap::new(), housekeeping }
    }

    /// Calls a function that has the namespace and a message as parameters, and returns its answer.
    async fn call<T: DeserializeOwned>(
        &mut self,
        function: &str,
        message: &(impl Serialize + Sync),
    ) -> Result<T, StoreError> {
        let target = &self.settings.target;
        let message = serde_json::to_string(message).map_err(|error| target.invalid(error))?;
        let sql = format!("SELECT {}.{function}($1, $2::jsonb)::text", quoted(&target.schema));
        let parameters: [(&(dyn ToSql + Sync), Type); 2] =
            [(&self.namespace, Type::TEXT), (&message, Type::TEXT)];
        let rows = self.commands.query(&sql, &parameters).await.map_err(|error| target.failure(error))?;
        let row = rows.first().ok_or_else(|| target.invalid(format_args!("{function} returned no row")))?;
        let answer: &str = row.try_get(0).map_err(|error| target.invalid(error))?;
        serde_json::from_str(answer).map_err(|error| target.invalid(format_args!("{function}: {error}")))
    }

    fn record(&mut self, record: WireRecord) -> Result<CircuitRecord, StoreError> {
        let record = record.read().map_err(|problem| self.settings.target.invalid(problem))?;
        self.note(&record);
        Ok(record)
    }

    /// Polls faster while a circuit of this process is not closed.
    fn note(&mut self, record: &CircuitRecord) {
        let busy = self.circuits.get_mut(&record.circuit);
        if let Some(busy @ false) = busy
            && is_recovering(record)
        {
            *busy = true;
            self.updates.hurry();
        }
    }

    fn note_sync(&mut self, circuit: &SyncCircuit, synced: &Synced) {
        let local = if circuit.local == LocalOpen::Unknown { synced.local } else { circuit.local };
        let record = synced.record.as_ref().or(circuit.known.as_ref());
        let busy = circuit.ballot.vote
            || !circuit.ballot.failure_ages.is_empty()
            || matches!(local, LocalOpen::For(_) | LocalOpen::UntilReset)
            || record.is_some_and(is_recovering);
        if !circuit.member {
            self.circuits.remove(&circuit.name);
            return;
        }
        let was_busy = self.circuits.insert(circuit.name.clone(), busy).unwrap_or(false);
        if busy && !was_busy {
            self.updates.hurry();
        }
    }

    async fn sync_circuits(&mut self, request: &SyncRequest) -> Result<Vec<Synced>, StoreError> {
        let answers: Vec<WireSynced> = self.call("breaker_sync", &WireSync::new(request)).await?;
        if answers.len() != request.circuits.len() {
            let problem = format!("{} answers for {} circuits", answers.len(), request.circuits.len());
            return Err(self.settings.target.invalid(problem));
        }
        let mut synced = Vec::with_capacity(answers.len());
        for (circuit, answer) in request.circuits.iter().zip(answers) {
            let answer = answer.read().map_err(|problem| self.settings.target.invalid(problem))?;
            self.note_sync(circuit, &answer);
            synced.push(answer);
        }
        self.keep_house().await?;
        Ok(synced)
    }

    /// Deletes expired rows when it is time.
    async fn keep_house(&mut self) -> Result<(), StoreError> {
        if Instant::now() < self.housekeeping {
            return Ok(());
        }
        self.housekeeping = Instant::now() + HOUSEKEEPING.mul_f64(0.5 + fastrand::f64());
        let target = &self.settings.target;
        let sql = format!("SELECT {}.breaker_delete_expired()", quoted(&target.schema));
        self.commands.query(&sql, &[]).await.map_err(|error| target.failure(error))?;
        Ok(())
    }

    async fn list_records(
        &mut self,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<CircuitRecord>, StoreError> {
        let target = &self.settings.target;
        let sql = format!("SELECT record_text FROM {}.breaker_list($1, $2, $3)", quoted(&target.schema));
        let after = after.map(name);
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let parameters: [(&(dyn ToSql + Sync), Type); 3] =
            [(&self.namespace, Type::TEXT), (&after, Type::TEXT), (&limit, Type::INT8)];
        let rows = self.commands.query(&sql, &parameters).await.map_err(|error| target.failure(error))?;
        let read = |row: &tokio_postgres::Row| {
            let text: &str = row.try_get(0).map_err(|error| error.to_string())?;
            let record: WireRecord = serde_json::from_str(text).map_err(|error| error.to_string())?;
            record.read()
        };
        rows.iter().map(|row| read(row).map_err(|problem| target.invalid(problem))).collect()
    }
}

impl Session for PostgresSession {
    fn sync<'a>(&'a mut self, request: &'a SyncRequest) -> StoreFuture<'a, Vec<Synced>> {
        Box::pin(self.sync_circuits(request))
    }

    fn lease<'a>(&'a mut self, request: &'a LeaseRequest) -> StoreFuture<'a, LeaseReply> {
        Box::pin(async move {
            let reply: WireLeaseReply = self.call("breaker_lease", &WireLeaseRequest::new(request)).await?;
            let retry_after = duration("retry_ms", reply.retry_ms);
            let retry_after = retry_after.map_err(|problem| self.settings.target.invalid(problem))?;
            Ok(LeaseReply { granted: reply.granted, retry_after, record: self.record(reply.record)? })
        })
    }

    fn complete<'a>(&'a mut self, probe: &'a CompletedProbe) -> StoreFuture<'a, CircuitRecord> {
        Box::pin(async move {
            let record: WireRecord = self.call("breaker_complete", &WireCompletedProbe::new(probe)).await?;
            self.record(record)
        })
    }

    fn operate<'a>(&'a mut self, operation: &'a Operation) -> StoreFuture<'a, OperationReply> {
        Box::pin(async move {
            let reply: WireOperationReply =
                self.call("breaker_operate", &WireOperation::new(operation)).await?;
            Ok(OperationReply { applied: reply.applied, record: self.record(reply.record)? })
        })
    }

    fn list<'a>(&'a mut self, after: Option<&'a str>, limit: usize) -> StoreFuture<'a, Vec<CircuitRecord>> {
        Box::pin(self.list_records(after, limit))
    }

    fn update(&mut self) -> StoreFuture<'_, Update> {
        Box::pin(async move {
            let busy = self.circuits.values().any(|&busy| busy);
            let update = self.updates.next(&mut self.commands, busy).await?;
            if let Update::Record(record) = &update {
                self.note(record);
            }
            Ok(update)
        })
    }
}

/// Whether the circuit is open or half-open by a decision that more decisions follow.
fn is_recovering(record: &CircuitRecord) -> bool {
    record.state != FleetState::Closed && record.manual.is_none()
}
