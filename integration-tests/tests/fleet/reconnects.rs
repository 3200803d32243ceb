//! Many agents lose the store at the same time.

use std::time::Duration;

use test_servers::{FaultyProxy, ProxyFault, Redis};
use tokio::time::{Instant, sleep};
use tower_breaker_fleet::{Fleet, RedisStore};

use crate::processes::{DEADLINE, millis};

/// Returns the connections in each 100 ms after all agents have lost the store.
pub(crate) async fn reconnects(count: usize) -> Vec<usize> {
    let server = Redis::start_with(&["maxclients 4000"]);
    let proxy = FaultyProxy::start(&server).await;
    let store = RedisStore::open(&format!("redis://{}", proxy.address())).unwrap();
    let start = |number: usize| {
        let builder = Fleet::builder(store.clone()).namespace("reconnects");
        let builder = builder.instance(format!("process-{number}")).timeout(Duration::from_secs(5));
        let (fleet, agent) = builder.build().unwrap();
        // Without a circuit an agent sends nothing, and would not know that it is attached.
        let circuit = tower_breaker::Circuit::new(crate::processes::breaker().build().unwrap());
        fleet.share(&circuit).unwrap();
        (fleet, circuit, tokio::spawn(agent))
    };
    let agents: Vec<_> = (0..count).map(start).collect();
    let are_attached = || agents.iter().all(|(fleet, ..)| fleet.status().attached);
    let begin = Instant::now();
    while !are_attached() {
        assert!(begin.elapsed() < DEADLINE, "all agents connect");
        sleep(millis(10)).await;
    }

    let before = proxy.connections();
    // While agents connect again, there is no moment without a connection.
    proxy.set(ProxyFault::Refuse).await;
    proxy.cut().await;
    proxy.set(ProxyFault::None).await;
    let lost = Instant::now();
    let mut buckets = Vec::new();
    let mut counted = before;
    // Each agent has two connections.
    while counted < before + 2 * count {
        assert!(lost.elapsed() < DEADLINE, "all agents connect again: {buckets:?}");
        sleep(millis(100)).await;
        let index = lost.elapsed().as_millis() as usize / 100;
        buckets.resize(index.max(1), 0);
        buckets[index.max(1) - 1] += proxy.connections() - counted;
        counted = proxy.connections();
    }
    for (_, _, agent) in &agents {
        agent.abort();
    }
    buckets
}

/// Checks that the connections are spread over a second, and that no 100 ms have most of them.
pub(crate) fn assert_spread(buckets: &[usize]) {
    let first = buckets.iter().position(|&connections| connections > 0).unwrap();
    assert!(buckets.len() - first >= 10, "less than a second: {buckets:?}");
    let (most, all) = (buckets.iter().max().unwrap(), buckets.iter().sum::<usize>());
    assert!(2 * most < all, "most at once: {buckets:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agents_that_lose_the_store_together_reconnect_one_after_another() {
    assert_spread(&reconnects(50).await);
}
