//! The scenarios of all stores, and the failures of a server.

mod cluster_nodes;
mod equivalence;
mod errors;
mod failures;
mod permissions;
#[cfg(feature = "redis-tls")]
mod tls;

use std::future::{Ready, ready};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use test_servers::Redis;

use super::RedisStore;
use super::error::ACL_RULES;
use super::session::RedisSession;
use crate::record::CircuitRecord;
use crate::store::scenarios::helpers::{self, LONG, member, operation, votes};
use crate::store::{Action, LeaseRequest, Session, StoreError, SyncCircuit, SyncRequest, Update};

/// The longest wait for something that happens soon.
const DEADLINE: Duration = Duration::from_secs(20);

/// The keys and the channel of the namespace of these tests begin with this.
const PREFIX: &str = "tb1:{orders}";

/// As a user with the documented permissions and no others.
mod standalone {
    use super::*;
    use crate::store::scenarios::run_scenarios;

    fn store() -> Ready<(RedisStore, Arc<Mutex<Redis>>)> {
        static SERVER: Mutex<Weak<Mutex<Redis>>> = Mutex::new(Weak::new());
        let server = shared(&SERVER, Redis::start);
        let url = format!("{}?user=fleet&pass=secret", server.lock().unwrap().url());
        ready((RedisStore::open(&url).unwrap(), server))
    }

    run_scenarios!(store);
}

/// As a user with the documented permissions and no others, in a cluster of one node.
mod cluster {
    use super::*;
    use crate::store::scenarios::run_scenarios;

    fn store() -> Ready<(RedisStore, Arc<Mutex<Redis>>)> {
        static SERVER: Mutex<Weak<Mutex<Redis>>> = Mutex::new(Weak::new());
        let server = shared(&SERVER, Redis::start_cluster);
        let url = format!("redis://fleet:secret@{}", server.lock().unwrap().address());
        ready((RedisStore::cluster(&[&url]).unwrap(), server))
    }

    run_scenarios!(store);
}

/// Returns the server that other scenarios use now, or starts one. A cluster needs 2 s to start.
fn shared(server: &Mutex<Weak<Mutex<Redis>>>, start: fn() -> Redis) -> Arc<Mutex<Redis>> {
    let mut server = server.lock().unwrap_or_else(PoisonError::into_inner);
    server.upgrade().unwrap_or_else(|| {
        let new = start();
        new.command(&format!("ACL SETUSER fleet on >secret {ACL_RULES}"));
        let new = Arc::new(Mutex::new(new));
        *server = Arc::downgrade(&new);
        new
    })
}

fn store(server: &Redis) -> RedisStore {
    RedisStore::open(&server.url()).unwrap()
}

async fn session(server: &Redis) -> RedisSession {
    store(server).open_session("orders").await.expect("the server is available")
}

/// Returns the error of an attempt to connect.
async fn refusal(store: &RedisStore) -> StoreError {
    store.open_session("orders").await.map(drop).expect_err("the server refuses")
}

/// A heartbeat of the only member of a circuit, without a vote.
fn heartbeat(known: Option<CircuitRecord>) -> SyncRequest {
    let circuit = SyncCircuit { known, ..member(votes(1)) };
    SyncRequest { instance: "host-1".to_owned(), lifetime: LONG, grace: LONG, circuits: vec![circuit] }
}

/// A request for the lease of the only probe, which has begun.
fn lease() -> LeaseRequest {
    helpers::lease("host-1", 1)
}

async fn trip(session: &mut RedisSession) -> CircuitRecord {
    session.operate(&operation(Action::Trip)).await.expect("the operation is applied").record
}

/// Waits for the next update, or for the end of the updates.
async fn next_update(session: &mut RedisSession) -> Result<Update, StoreError> {
    tokio::time::timeout(DEADLINE, session.update()).await.expect("an update in time")
}

/// Waits for the next update of any store.
async fn next_of(session: &mut dyn Session) -> Update {
    let update = tokio::time::timeout(DEADLINE, session.update()).await;
    update.expect("an update in time").expect("the session lives")
}
