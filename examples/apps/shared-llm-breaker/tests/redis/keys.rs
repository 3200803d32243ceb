//! What is in Redis.

use std::collections::BTreeSet;

use redis::aio::MultiplexedConnection;
use shared_llm_breaker::CircuitState;
use test_servers::Redis;

use super::support::{fail, fail_times, settings, start, succeed, until, until_admitted, until_state};

async fn connect(server: &Redis) -> MultiplexedConnection {
    let client = redis::Client::open(server.url()).unwrap();
    client.get_multiplexed_async_connection().await.unwrap()
}

async fn query<T: redis::FromRedisValue>(connection: &mut MultiplexedConnection, words: &[&str]) -> T {
    let mut command = redis::cmd(words[0]);
    for word in &words[1..] {
        command.arg(*word);
    }
    command.query_async(connection).await.unwrap()
}

/// Returns the keys without the prefix of the namespace.
async fn keys(connection: &mut MultiplexedConnection) -> BTreeSet<String> {
    let keys: Vec<String> = query(connection, &["KEYS", "*"]).await;
    let prefix = "tb1:{circuit_breaker}:";
    keys.iter().map(|key| key.strip_prefix(prefix).expect(key).to_owned()).collect()
}

/// Returns the entries of the sorted set of workers. That of a worker ends with its name.
pub(crate) async fn members(server: &Redis, breaker: &str) -> Vec<String> {
    let key = format!("tb1:{{circuit_breaker}}:m:{breaker}");
    query(&mut connect(server).await, &["ZRANGE", &key, "0", "-1"]).await
}

#[tokio::test]
async fn state_failures_open_time_and_probes_are_in_the_documented_keys() {
    let server = Redis::start();
    let mut connection = connect(&server).await;
    let breaker = start(&server.url(), "api", settings("a")).await;
    assert_eq!(keys(&mut connection).await, BTreeSet::from(["m:api".to_owned()]));

    fail_times(&breaker, 4).await;
    until("the failures are in the store", || server.command("EXISTS tb1:{circuit_breaker}:f:api") == "1")
        .await;
    let members = members(&server, "api").await;
    assert!(members.contains(&":a".to_owned()), "{members:?}");

    fail_times(&breaker, 1).await;
    until("the decision is in the store", || server.command("EXISTS tb1:{circuit_breaker}:c:api") == "1")
        .await;
    let record: Vec<String> = query(&mut connection, &["HGETALL", "tb1:{circuit_breaker}:c:api"]).await;
    assert!(record.contains(&"open".to_owned()), "{record:?}");
    let expires: i64 = query(&mut connection, &["PTTL", "tb1:{circuit_breaker}:c:api"]).await;
    assert!(expires > 0, "{expires}");
    let names: Vec<String> =
        query(&mut connection, &["ZRANGE", "tb1:{circuit_breaker}:names", "0", "-1"]).await;
    assert_eq!(names, ["api"]);

    until_admitted(async || succeed(&breaker).await).await.unwrap();
    until("the probes are in the store", || server.command("HLEN tb1:{circuit_breaker}:p:api") != "0").await;
    let known = ["c:api", "expiries", "f:api", "l:api", "m:api", "names", "p:api", "v:api"];
    for key in keys(&mut connection).await {
        assert!(known.contains(&key.as_str()), "{key}");
    }
}

#[tokio::test]
async fn state_survives_restart_of_all_workers() {
    let server = Redis::start();
    let breaker = start(&server.url(), "api", settings("a")).await;
    fail_times(&breaker, 5).await;
    until("the decision is in the store", || server.command("EXISTS tb1:{circuit_breaker}:c:api") == "1")
        .await;
    // Without a goodbye, as after a crash.
    drop(breaker);
    let breaker = start(&server.url(), "api", settings("b")).await;
    assert_eq!(breaker.state(), CircuitState::Open);
    assert!(fail(&breaker).await.unwrap_err().to_string().starts_with("Circuit breaker 'api' is open"));
}

#[tokio::test]
async fn failures_of_two_breakers_add_up() {
    let server = Redis::start();
    let first = start(&server.url(), "api", settings("a")).await;
    let second = start(&server.url(), "api", settings("b")).await;
    fail_times(&first, 3).await;
    assert_eq!((first.state(), second.state()), (CircuitState::Closed, CircuitState::Closed));
    fail_times(&second, 2).await;
    until_state(&first, CircuitState::Open).await;
    until_state(&second, CircuitState::Open).await;
    assert_eq!((first.fail_counter(), second.fail_counter()), (3, 2));
}
