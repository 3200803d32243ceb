//! A replica is promoted that misses the last writes.

use std::os::unix::fs::symlink;

use test_servers::{FaultyProxy, Redis};
use tower_breaker::CircuitState;
use tower_breaker_fleet::{FleetAction, Override, RedisStore};

use crate::processes::Group;
use crate::servers::Store;

/// Forces circuits open with a write that the promoted replica does not have.
pub(crate) async fn promotion(count: usize) {
    let mut primary = Redis::start_tcp();
    let mut replica = Redis::start_replica_of(&primary);
    // The proxy is the address that a failover switches.
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("current.sock");
    symlink(primary.socket(), &socket).unwrap();
    let proxy = FaultyProxy::start(socket.clone()).await;
    let store = Store::Redis(RedisStore::open(&format!("redis://{}", proxy.address())).unwrap());
    let group = Group::start(&store, "promotion", count).await;

    let first = group.operate(FleetAction::ForceClosed).await;
    group.wait("overrides", |group| group.agree(first.state, Some(Override::ForcedClosed))).await;
    let is_replicated = |_: &Group| replica.command("EXISTS tb1:{promotion}:c:search") == "1";
    group.wait("replicated record", is_replicated).await;
    // From now on, the replica misses all writes.
    replica.promote();
    let second = group.operate(FleetAction::ForceOpen).await;
    group.wait("overrides", |group| group.agree(second.state, Some(Override::ForcedOpen))).await;
    primary.kill();
    std::fs::remove_file(&socket).unwrap();
    symlink(replica.socket(), &socket).unwrap();
    proxy.cut().await;

    let epoch = || replica.command("HGET tb1:{promotion}:c:search epoch");
    group.wait("restored record", |_| epoch() == second.epoch.to_string()).await;
    group.wait("agreement", |group| group.agree(second.state, Some(Override::ForcedOpen))).await;
    assert!(group.all.iter().all(|one| one.record().epoch == second.epoch), "{group:?}");
    assert!(group.are(CircuitState::ForcedOpen), "{group:?}");
    // The first override, from the replica, was applied at no time.
    assert!(group.all.iter().all(|one| one.history().len() == 2), "{group:?}");
    group.operate(FleetAction::Release).await;
    group.wait("closed circuits", |group| group.are(CircuitState::Closed)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn promoted_replica_gets_the_lost_decision_back() {
    promotion(3).await;
}
