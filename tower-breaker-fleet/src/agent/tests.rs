//! The agent with stores that fail in ways that the memory store does not.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tower_breaker::{BreakerConfig, Circuit};

use super::{Request, Settings, Shared};
use crate::record::CircuitRecord;
use crate::store::{
    Backend, CompletedProbe, LeaseReply, LeaseRequest, Operation, OperationReply, Session, StoreError,
    StoreErrorKind, StoreFuture, SyncRequest, Synced, Update,
};
use crate::{Fleet, FleetAction, FleetError, FleetOperation, Quorum};

/// A store that accepts connections, and refuses each message or ends each connection.
#[derive(Clone, Debug, Default)]
struct UselessStore {
    connections: Arc<AtomicU32>,
    /// Whether connections end at once.
    ends: bool,
}

fn refused() -> StoreError {
    let message = "the user `app` has no permission".to_owned();
    StoreError { kind: StoreErrorKind::Refused, message, source: None }
}

impl Backend for UselessStore {
    fn connect<'a>(&'a self, _: &'a str) -> StoreFuture<'a, Box<dyn Session>> {
        self.connections.fetch_add(1, Ordering::Relaxed);
        Box::pin(async { Ok(Box::new(self.clone()) as Box<dyn Session>) })
    }
}

impl Session for UselessStore {
    fn sync<'a>(&'a mut self, _: &'a SyncRequest) -> StoreFuture<'a, Vec<Synced>> {
        Box::pin(async { Err(refused()) })
    }

    fn lease<'a>(&'a mut self, _: &'a LeaseRequest) -> StoreFuture<'a, LeaseReply> {
        Box::pin(async { Err(refused()) })
    }

    fn complete<'a>(&'a mut self, _: &'a CompletedProbe) -> StoreFuture<'a, CircuitRecord> {
        Box::pin(async { Err(refused()) })
    }

    fn operate<'a>(&'a mut self, _: &'a Operation) -> StoreFuture<'a, OperationReply> {
        Box::pin(async { Err(refused()) })
    }

    fn list<'a>(&'a mut self, _: Option<&'a str>, _: usize) -> StoreFuture<'a, Vec<CircuitRecord>> {
        Box::pin(async { Err(refused()) })
    }

    fn update(&mut self) -> StoreFuture<'_, Update> {
        let ends = self.ends;
        Box::pin(async move { if ends { Err(refused()) } else { pending().await } })
    }
}

#[tokio::test(start_paused = true)]
async fn connections_that_are_of_no_use_are_not_repeated_at_once() {
    for ends in [false, true] {
        let store = UselessStore { ends, ..UselessStore::default() };
        let (fleet, agent) = Fleet::builder(store.clone()).build().unwrap();
        let agent = tokio::spawn(agent);
        let circuit = Circuit::new(BreakerConfig::builder().name("search").build().unwrap());
        fleet.share(&circuit).unwrap();
        tokio::time::sleep(Duration::from_secs(60)).await;
        agent.abort();
        let connections = store.connections.load(Ordering::Relaxed);
        assert!((10..=60).contains(&connections), "{ends}: {connections} connections");
    }
}

/// Returns a handle without an agent, and its requests.
fn without_agent() -> (Fleet, mpsc::UnboundedReceiver<Request>) {
    let (sender, inbox) = mpsc::unbounded_channel();
    let settings = Settings {
        namespace: "default".to_owned(),
        instance: "p0".to_owned(),
        quorum: Quorum::majority(),
        heartbeat: Duration::from_secs(5),
        takeover: Duration::from_secs(2),
        timeout: Duration::from_millis(250),
        max_open: Duration::from_secs(600),
    };
    (Fleet::new(Arc::new(Shared::new(settings, sender))), inbox)
}

#[tokio::test(start_paused = true)]
async fn operations_without_an_agent_are_bounded_and_end_with_an_error() {
    let (fleet, mut inbox) = without_agent();
    for _ in 0..3 {
        let mut callers = JoinSet::new();
        for _ in 0..1_000 {
            let fleet = fleet.clone();
            let operation = FleetOperation::new(FleetAction::Reset);
            callers.spawn(async move { fleet.operate("search", operation).await });
        }
        for result in callers.join_all().await {
            assert!(matches!(result, Err(FleetError::Stopped)), "{result:?}");
        }
        assert_eq!(inbox.len(), 256);
    }
    // An agent that works them off makes room.
    while inbox.try_recv().is_ok() {}
    assert!(fleet.list(None, 1).await.is_err());
    assert_eq!(inbox.len(), 1);
}

#[cfg(feature = "keyed")]
#[tokio::test(start_paused = true)]
async fn keys_that_wait_for_the_agent_are_bounded_and_join_later() {
    use tower_breaker::keyed::{KeyedCircuits, KeyedConfig};

    use super::Agent;
    use crate::{KeyedSharing, MemoryStore};

    const KEYS: usize = 1_300;
    let (fleet, inbox) = without_agent();
    let each = BreakerConfig::builder().name("hosts").open_for(Duration::from_secs(600));
    let config = KeyedConfig::builder(each.build().unwrap()).max_keys(2 * KEYS).build().unwrap();
    let circuits: KeyedCircuits<usize> = KeyedCircuits::new(config);
    fleet.share_keyed(&circuits, KeyedSharing::new().max_keys(1_100)).unwrap();
    for _ in 0..2 {
        for key in 0..KEYS {
            circuits.circuit(&key).trip().unwrap();
            circuits.circuit(&key).reset().unwrap();
        }
    }
    // One request reads the records.
    assert_eq!(inbox.len(), 1_101);
    for key in 300..KEYS {
        circuits.circuit(&key).trip().unwrap();
    }
    let agent = Agent::new(Arc::clone(&fleet.shared), Arc::new(MemoryStore::new()), inbox);
    let agent = tokio::spawn(agent.run());
    tokio::time::sleep(Duration::from_secs(60)).await;
    let missing = (300..KEYS).filter(|key| fleet.circuit_status(&Fleet::key_name("hosts", key)).is_none());
    assert_eq!(missing.count(), 0);
    agent.abort();
}
