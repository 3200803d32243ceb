//! The agent with stores that fail in ways that the memory store does not.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tower_breaker::{BreakerConfig, Circuit};

use crate::Fleet;
use crate::record::CircuitRecord;
use crate::store::{
    Backend, CompletedProbe, LeaseReply, LeaseRequest, Operation, OperationReply, Session, StoreError,
    StoreErrorKind, StoreFuture, SyncRequest, Synced, Update,
};

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
