//! The handle to a fleet, and its agent.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;
use tower_breaker::{BreakerConfig, Circuit, CircuitRegistry};

use crate::agent::{Agent, GRACE, Reply, Request, Shared, View, check_name};
use crate::builder::FleetBuilder;
use crate::error::FleetError;
use crate::operation::{FleetAction, FleetOperation};
use crate::record::CircuitRecord;
use crate::status::{FleetCircuitStatus, FleetStatus};
use crate::store::{FleetStore, Operation};

/// A handle to the circuits that several processes share.
///
/// Clones refer to the same fleet. The [`FleetAgent`] does the work: spawn it. Dropping the handles
/// does not end the agent.
///
/// ```
/// use std::time::Duration;
/// use tower_breaker::{BreakerConfig, Circuit, CircuitRegistry};
/// use tower_breaker_fleet::{Fleet, MemoryStore};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (fleet, agent) = Fleet::builder(MemoryStore::new()).namespace("shop").build()?;
/// let agent = tokio::spawn(agent);
///
/// let circuit = Circuit::new(BreakerConfig::builder().name("search").build()?);
/// fleet.share(&circuit)?;
/// // Wait for the fleet's decisions, at most this long, before the first call.
/// fleet.ready(Duration::from_secs(1)).await;
///
/// // At the end: first drain the service, then leave the fleet.
/// fleet.leave().await;
/// agent.await?;
/// # Ok(())
/// # }
/// ```
///
/// # Without the store
///
/// A call never waits for the store. If the store is unavailable, each circuit decides for itself,
/// as without a fleet. A circuit that the fleet has opened half-opens by itself after the fleet's
/// open time and a [takeover time](FleetBuilder::takeover). The same happens if the agent ends. A
/// manual override without an end stays in force until this process
/// [releases](Circuit::release) it or the store is back.
///
/// A process that was without the store for more than an hour can know a decision that the store
/// has forgotten meanwhile. It then writes this decision back. So release an override again if such
/// a process has returned with it.
#[derive(Clone)]
pub struct Fleet {
    pub(crate) shared: Arc<Shared>,
}

impl Fleet {
    /// Returns a builder for a fleet whose processes share `store`.
    pub fn builder(store: impl FleetStore) -> FleetBuilder {
        FleetBuilder::new(Arc::new(store))
    }

    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Shares a circuit with the processes that share a circuit of the same name.
    ///
    /// The circuit leaves the fleet when it ends. The fleet does not keep it alive.
    ///
    /// # Errors
    ///
    /// - This process shares a circuit with this name already.
    /// - The name is longer than 256 bytes, empty, or contains control characters.
    /// - The agent does not run any more.
    pub fn share(&self, circuit: &Circuit) -> Result<(), FleetError> {
        self.shared.share(circuit)
    }

    /// Shares all circuits of a registry, and all that it creates later.
    ///
    /// A circuit that the registry creates later applies the fleet's decision before its first
    /// call, if the store had it when this process connected, or later. Up to 1,024 such records
    /// are kept.
    ///
    /// If a later circuit cannot be shared, a `WARN` event says why (feature `tracing`).
    ///
    /// # Errors
    ///
    /// As for [`share`](Self::share), for the first circuit that cannot be shared. All others are
    /// shared.
    pub fn share_registry(&self, registry: &CircuitRegistry) -> Result<(), FleetError> {
        self.shared.fill_cache()?;
        let shared = Arc::clone(&self.shared);
        registry.on_create(move |circuit| shared.share_created(circuit));
        let mut result = Ok(());
        for circuit in registry.circuits() {
            result = result.and(self.share(&circuit));
        }
        result
    }

    /// Waits until the first replies of the store are applied to all circuits that are shared now.
    ///
    /// Returns `false` if this has not happened `within` this time, or if the agent has ended. Then
    /// the circuits admit calls by their own decisions, and follow the fleet later.
    pub async fn ready(&self, within: Duration) -> bool {
        let mut readiness = self.shared.readiness();
        let is_decided = readiness.wait_for(|now| now.is_ready() || now.has_stopped());
        // An error: the time is over, or the agent has ended.
        let _ = timeout(within, is_decided).await;
        self.shared.is_ready()
    }

    /// Applies a manual operation to a circuit in all processes.
    ///
    /// The circuit need not be shared by this process. A misspelled name creates a record without
    /// an effect. The record of a manual override is kept until it is released.
    ///
    /// Dropping the future does not take the operation back.
    ///
    /// # Errors
    ///
    /// - The store is unreachable or refuses the operation. If it did not reply within the
    ///   [timeout](FleetBuilder::timeout), it can still apply the operation later:
    ///   [`list`](Self::list) shows whether it was applied when the store is back.
    /// - The circuit has another epoch, or an override is in force: [`FleetError::Conflict`].
    /// - The name or a duration is out of its range, or a duration has no effect on the action.
    /// - The agent does not run.
    pub async fn operate(
        &self,
        circuit: &str,
        operation: FleetOperation,
    ) -> Result<CircuitRecord, FleetError> {
        check_name(circuit)?;
        operation.validate()?;
        let FleetOperation { action, by, reason, expected_epoch, open_for, keep_for } = operation;
        let operation = Operation {
            circuit: circuit.to_owned(),
            action: action.action(),
            by,
            reason,
            expected_epoch,
            open_for: self.open_time(circuit, open_for, action),
            keep_for,
            grace: GRACE,
        };
        self.ask(|reply| Request::Operate(operation, reply)).await
    }

    /// Returns how long a trip opens a circuit. `None`: until it is reset.
    fn open_time(&self, circuit: &str, set: Option<Duration>, action: FleetAction) -> Option<Duration> {
        if set.is_some() || action != FleetAction::Trip {
            return set;
        }
        match self.shared.circuit(circuit) {
            Some(circuit) => circuit.next_open_time(),
            None => Some(BreakerConfig::default().open_for()),
        }
    }

    /// Returns up to `limit` records of the store, in the order of the names, after the name
    /// `after`.
    ///
    /// The store may have forgotten a circuit that is closed.
    ///
    /// # Errors
    ///
    /// The store is unreachable or refuses the message, or the agent does not run.
    pub async fn list(&self, after: Option<&str>, limit: usize) -> Result<Vec<CircuitRecord>, FleetError> {
        let after = after.map(str::to_owned);
        self.ask(|reply| Request::List(after, limit, reply)).await
    }

    /// Sends a request to the agent. Returns an error if the agent does not run.
    async fn ask<T>(&self, request: impl FnOnce(Reply<T>) -> Request) -> Result<T, FleetError> {
        let asked = self.shared.ask(request);
        timeout(self.shared.settings.longest_wait(), asked).await.unwrap_or(Err(FleetError::Stopped))
    }

    /// Returns the connection of this process to the fleet.
    pub fn status(&self) -> FleetStatus {
        let (link, circuits) = self.shared.link();
        let settings = &self.shared.settings;
        FleetStatus {
            namespace: settings.namespace.clone(),
            instance: settings.instance.clone(),
            attached: link.attached,
            since_last_reply: link.answered_at.map(|at| self.shared.now().saturating_sub(at)),
            last_error: link.last_error,
            circuits,
            messages: link.messages,
            updates: link.updates,
            errors: link.errors,
        }
    }

    /// Returns the fleet's view of a circuit. `None`: this process does not share it, or the store
    /// has not replied yet.
    pub fn circuit_status(&self, circuit: &str) -> Option<FleetCircuitStatus> {
        let View { record, at, members, vote } = self.shared.view(circuit)?;
        let age = self.shared.now().saturating_sub(at);
        Some(FleetCircuitStatus {
            record: record.map(|record| record.aged(age)),
            members: members.count,
            open_members: members.open,
            votes: members.votes,
            votes_needed: members.votes_needed,
            voting: vote,
            warming_up: members.warming_up,
        })
    }

    /// Returns whether this process shares a circuit with this name. A circuit of a key is not one.
    pub fn is_shared(&self, circuit: &str) -> bool {
        self.shared.shares_single(circuit)
    }

    /// Leaves the fleet: sends the outcomes of ended probes, takes the votes, leases and
    /// memberships of this process back, and ends the agent.
    ///
    /// Call it after the service is drained. The circuits stay as they are, and decide for
    /// themselves.
    ///
    /// It takes at most 1 s and eight times the [timeout](FleetBuilder::timeout). What the store
    /// has not received until then expires.
    pub async fn leave(self) {
        let (sender, left) = oneshot::channel();
        if self.shared.request(Request::Leave(sender)).is_ok() {
            // An error: the time is over, or the agent has ended.
            let _ = timeout(self.shared.settings.longest_wait(), left).await;
        }
    }
}

impl fmt::Debug for Fleet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fleet").field("status", &self.status()).finish_non_exhaustive()
    }
}

/// The task that connects the circuits of this process with the store.
///
/// Spawn it: `tokio::spawn(agent)`. It needs a runtime with timers. It resolves when the process
/// has [left](Fleet::leave) the fleet.
///
/// If it is dropped, the circuits decide for themselves: see [`Fleet`].
#[must_use = "the fleet works only while its agent is polled"]
pub struct FleetAgent {
    run: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl FleetAgent {
    pub(crate) fn new(agent: Agent) -> Self {
        Self { run: Box::pin(agent.run()) }
    }
}

impl Future for FleetAgent {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.run.as_mut().poll(context)
    }
}

impl fmt::Debug for FleetAgent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FleetAgent").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemoryStore;

    #[test]
    fn circuit_is_shared_until_it_ends() {
        let (fleet, _agent) = Fleet::builder(MemoryStore::new()).build().unwrap();
        let circuit = Circuit::new(BreakerConfig::builder().name("search").build().unwrap());
        assert!(!fleet.is_shared("search"));
        fleet.share(&circuit).unwrap();
        assert!(fleet.is_shared("search") && !fleet.is_shared("other"));
        drop(circuit);
        assert!(!fleet.is_shared("search"));
    }
}
