//! Servers that refuse to work, or are none.

use std::net::SocketAddr;
use std::time::Duration;

use test_servers::Redis;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::super::RedisStore;
use super::{PREFIX, heartbeat, lease, next_update, operation, refusal, session, store, trip};
use crate::store::StoreErrorKind::{self, Invalid, Refused, Unreachable};
use crate::store::{Action, Operation, Session, StoreError, Update};

#[track_caller]
pub(super) fn assert_error(error: &StoreError, kind: StoreErrorKind, part: &str) {
    assert_eq!(error.kind, kind, "{error:?}");
    assert!(error.message.contains(part), "{error:?}");
}

/// Starts a server that sends the same bytes after each request.
pub(super) async fn answering(bytes: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 1024];
            while stream.read(&mut request).await.is_ok_and(|read| read > 0) {
                if stream.write_all(bytes).await.is_err() {
                    break;
                }
            }
        }
    });
    address
}

fn plain(address: SocketAddr) -> RedisStore {
    RedisStore::open(&format!("redis://{address}")).unwrap()
}

#[tokio::test]
async fn missing_server_is_unreachable() {
    let mut server = Redis::start();
    server.stop();
    assert_error(&refusal(&store(&server)).await, Unreachable, "nothing listens at this address");
}

#[tokio::test]
async fn other_protocol_is_invalid() {
    let http = answering(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
    let advice = "does not answer as Redis does; if the port expects TLS, use a URL with `rediss://`";
    assert_error(&refusal(&plain(http)).await, Invalid, advice);
}

#[tokio::test]
async fn old_server_is_refused() {
    let redis5 = answering(b"-ERR unknown command `HELLO`, with args beginning with: `3`, \r\n").await;
    assert_error(&refusal(&plain(redis5)).await, Refused, "too old; Redis 6.2");
    let redis6 =
        answering(b"%2\r\n$7\r\nversion\r\n$5\r\n6.0.9\r\n$4\r\nmode\r\n$10\r\nstandalone\r\n").await;
    assert_error(&refusal(&plain(redis6)).await, Refused, "too old; Redis 6.2");
    let nameless = answering(b"%1\r\n$4\r\nmode\r\n$10\r\nstandalone\r\n").await;
    assert_error(&refusal(&plain(nameless)).await, Invalid, "the answer has no version");
}

#[tokio::test]
async fn replica_is_refused() {
    let primary = Redis::start_tcp();
    let replica = Redis::start_replica_of(&primary);
    let error = session(&replica).await.sync(&heartbeat(None)).await.unwrap_err();
    assert_error(&error, Refused, "it is a read-only replica; use the URL of the primary server");
}

#[tokio::test]
async fn full_memory_is_refused() {
    let server = Redis::start();
    let mut session = session(&server).await;
    let over = Operation { open_for: Some(Duration::ZERO), ..operation(Action::Trip) };
    session.operate(&over).await.unwrap();
    session.lease(&lease()).await.unwrap();
    server.command("CONFIG SET maxmemory 1");
    // Redis lets a script finish that has deleted something. This one writes first.
    let error = session.lease(&lease()).await.unwrap_err();
    assert_error(&error, Refused, "its memory is full; raise `maxmemory`");
}

#[tokio::test]
async fn disabled_scripts_are_refused() {
    let server = Redis::start_with(&["rename-command EVALSHA \"\""]);
    let error = session(&server).await.sync(&heartbeat(None)).await.unwrap_err();
    assert_error(&error, Refused, "enable the command (`rename-command`)");
}

#[tokio::test]
async fn loading_server_is_unreachable() {
    let mut server = Redis::start_with(&["rdbcompression no"]);
    let fill = "for key = 1, 100 do redis.call('SET', key, string.rep('x', 2000)) end return 1";
    server.command(&format!("EVAL \"{fill}\" 0"));
    server.command("SAVE");
    // Loads a key in 100 ms, and serves its clients after each key.
    server.restart_with(&["key-load-delay 100000", "loading-process-events-interval-bytes 1024"]);
    let error = match store(&server).open_session("orders").await {
        Ok(mut session) => session.sync(&heartbeat(None)).await.unwrap_err(),
        Err(error) => error,
    };
    assert_error(&error, Unreachable, "it still loads its data");
}

#[tokio::test]
async fn constructors_name_each_other() {
    let node = Redis::start_cluster();
    assert_error(&refusal(&store(&node)).await, Refused, "use `RedisStore::cluster`");
    let server = Redis::start();
    let cluster = RedisStore::cluster(&[&server.url()]).unwrap();
    assert_error(&refusal(&cluster).await, Refused, "use `RedisStore::open`");
}

#[test]
fn cluster_needs_seeds_without_database() {
    let problem = RedisStore::cluster(&[]).unwrap_err().to_string();
    assert!(problem.contains("at least one node of the cluster"), "{problem}");
    let problem = RedisStore::cluster(&["redis://:secret@host/2"]).unwrap_err().to_string();
    assert!(problem.contains("`redis://***@host/2`") && problem.contains("database 0"), "{problem}");
}

#[test]
fn passwords_are_not_shown() {
    let store = RedisStore::open("redis://app:secret@host").unwrap();
    assert!(format!("{store:?}").contains("redis://***@host") && !format!("{store:?}").contains("secret"));
}

#[tokio::test]
async fn cluster_without_the_slot_is_refused() {
    let node = Redis::start_cluster();
    let slot = node.command(&format!("CLUSTER KEYSLOT {PREFIX}"));
    node.command(&format!("CLUSTER DELSLOTS {slot}"));
    let urls = ["redis://127.0.0.1:1", &node.tcp_url()];
    let error = refusal(&RedisStore::cluster(&urls).unwrap()).await;
    assert_error(&error, Refused, &format!("no node serves slot {slot} of the cluster"));
}

#[tokio::test]
async fn stored_garbage_is_invalid() {
    let server = Redis::start();
    let mut session = session(&server).await;
    for (field, garbage) in [
        ("epoch", "x"),
        ("epoch", "1e300"),
        ("state", "melted"),
        ("manual", "forced"),
        ("until", "later"),
        ("length", "1e300"),
        ("reason", &"x".repeat(1000)),
        ("by", &"x".repeat(1000)),
        ("by", "\\xff\\xfe"),
    ] {
        server.command("FLUSHALL");
        trip(&mut session).await;
        let garbage_until = field == "length";
        if garbage_until {
            server.command(&format!("HSET {PREFIX}:c:search until 1e300"));
        }
        server.command(&format!("HSET {PREFIX}:c:search {field} \"{garbage}\""));
        let error = session.sync(&heartbeat(None)).await.expect_err(field);
        assert_eq!(error.kind, Invalid, "{field} {garbage}: {error:?}");
    }
    server.command("FLUSHALL");
    server.command(&format!("SET {PREFIX}:c:search text"));
    let error = session.sync(&heartbeat(None)).await.unwrap_err();
    assert_error(&error, Invalid, "a key that begins with `tb1:` is of another type; delete it");
}

#[tokio::test]
async fn published_garbage_is_ignored() {
    let server = Redis::start();
    let mut session = session(&server).await;
    server.command(&format!("PUBLISH {PREFIX} garbage"));
    let reset = session.operate(&operation(Action::Reset)).await.unwrap().record;
    let update = next_update(&mut session).await.unwrap();
    assert!(matches!(&update, Update::Record(record) if record.epoch == reset.epoch), "{update:?}");
}
