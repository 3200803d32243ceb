//! A cluster of several nodes: slots that move, and nodes that are silent or end.

use tokio::net::TcpListener;
use tokio::time::timeout;

use super::errors::assert_error;
use super::failures::{assert_same, stored};
use super::*;
use crate::store::StoreErrorKind::{Refused, Unreachable};

fn cluster(nodes: &[Redis]) -> RedisStore {
    let urls: Vec<_> = nodes.iter().map(Redis::tcp_url).collect();
    RedisStore::cluster(&urls.iter().map(String::as_str).collect::<Vec<_>>()).unwrap()
}

#[tokio::test]
async fn moving_slot_is_unreachable_until_it_has_moved() {
    let nodes = Redis::start_cluster_of(2, 0);
    let store = cluster(&nodes);
    let mut session = store.open_session("orders").await.unwrap();
    let slot = nodes[0].command(&format!("CLUSTER KEYSLOT {PREFIX}"));
    let [from, to] = &nodes[..] else { panic!("two nodes") };
    assert_eq!(session.commands.address().shown(), from.tcp_url());
    let tripped = trip(&mut session).await;

    let (from_id, to_id) = (from.command("CLUSTER MYID"), to.command("CLUSTER MYID"));
    to.command(&format!("CLUSTER SETSLOT {slot} IMPORTING {from_id}"));
    from.command(&format!("CLUSTER SETSLOT {slot} MIGRATING {to_id}"));
    // The record exists, and other keys of the circuit do not.
    let error = session.sync(&heartbeat(None)).await.unwrap_err();
    assert_error(&error, Unreachable, "the slot is moving to another node");
    for key in ["c:search", "names", "expiries"] {
        let target = format!("127.0.0.1 {}", to.address().port());
        assert_eq!(from.command(&format!("MIGRATE {target} {PREFIX}:{key} 0 5000")), "OK");
    }
    let error = session.sync(&heartbeat(None)).await.unwrap_err();
    assert_error(&error, Unreachable, "the slot is moving to another node");

    for node in [to, from] {
        node.command(&format!("CLUSTER SETSLOT {slot} NODE {to_id}"));
    }
    let error = session.sync(&heartbeat(None)).await.unwrap_err();
    assert_error(&error, Unreachable, "the slot has moved to another node");
    let mut session = store.open_session("orders").await.unwrap();
    assert_eq!(session.commands.address().shown(), to.tcp_url());
    assert_same(stored(&mut session).await, &tripped);
}

#[tokio::test]
async fn replica_of_killed_node_continues() {
    let mut nodes = Redis::start_cluster_of(3, 1);
    let store = cluster(&nodes);
    let mut session = store.open_session("orders").await.unwrap();
    assert_eq!(session.commands.address().shown(), nodes[0].tcp_url());
    let tripped = trip(&mut session).await;
    nodes[0].kill();
    assert_error(&session.sync(&heartbeat(None)).await.unwrap_err(), Unreachable, "the connection is broken");
    let continues = async {
        loop {
            if let Ok(mut session) = store.open_session("orders").await
                && session.sync(&heartbeat(Some(tripped.clone()))).await.is_ok()
            {
                return session;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let mut session = timeout(DEADLINE, continues).await.expect("the replica becomes the primary");
    assert_eq!(session.commands.address().shown(), nodes[3].tcp_url());
    assert_same(stored(&mut session).await, &tripped);
}

/// Returns the URL of a port that accepts connections and never answers.
async fn silent() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    (listener, url)
}

#[tokio::test]
async fn silent_node_does_not_hide_the_answer_of_another() {
    let (_listener, silent) = silent().await;
    let node = Redis::start_cluster();
    let alone = Redis::start_tcp();
    let cluster = RedisStore::cluster(&[&silent, &node.tcp_url()]).unwrap();
    let refused = RedisStore::cluster(&[&silent, &alone.tcp_url()]).unwrap();
    // The order of the nodes is random.
    for _ in 0..8 {
        timeout(DEADLINE, cluster.open_session("orders")).await.expect("an answer in time").unwrap();
        let error = timeout(DEADLINE, refusal(&refused)).await.expect("an answer in time");
        assert_error(&error, Refused, "use `RedisStore::open`");
    }
}
