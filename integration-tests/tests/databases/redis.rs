//! Errors of Redis, as the crate `redis` reports them.

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, Pipeline, RedisError, Value, cmd};
use tempfile::TempDir;
use test_servers::Redis;
use tower::{ServiceBuilder, ServiceExt, service_fn};
use tower_fault_classify::Health::{Healthy, Neutral, Unhealthy};
use tower_fault_classify::Kind::{Auth, Client as Caller, Overloaded, Transient, Unavailable};
use tower_fault_classify::Retryable::{IfIdempotent, Never, Refused, Unsent};
use tower_fault_classify::{ClassifiedError, Fault, FaultClassifyLayer, Health, Kind, Retryable, Verdict};

use crate::rules::{redis_pipeline_rule, redis_rule};

type PipelineRule = fn(Result<&Value, &RedisError>) -> Option<Verdict>;

/// Connects without the driver's own timeouts.
async fn connect(url: &str) -> Result<MultiplexedConnection, RedisError> {
    let config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
    Client::open(url)?.get_multiplexed_async_connection_with_config(&config).await
}

async fn connection(server: &Redis) -> MultiplexedConnection {
    connect(&server.url()).await.unwrap()
}

/// Returns a command from its words.
fn command(text: &str) -> Cmd {
    let mut words = text.split(' ');
    let mut command = cmd(words.next().unwrap());
    for word in words {
        command.arg(word);
    }
    command
}

/// Sends a command through the layer.
async fn send(connection: &MultiplexedConnection, command: Cmd) -> Result<Value, ClassifiedError> {
    let service = ServiceBuilder::new()
        .layer(FaultClassifyLayer::new().errors_only().rule(redis_rule))
        .service(service_fn(async |command: Cmd| command.query_async(&mut connection.clone()).await));
    service.oneshot(command).await
}

async fn run(connection: &MultiplexedConnection, text: &str) {
    send(connection, command(text)).await.unwrap_or_else(|error| panic!("{text}: {error:?}"));
}

/// Returns the fault of a command that fails.
async fn fault(connection: &MultiplexedConnection, text: &str) -> Fault {
    send(connection, command(text)).await.expect_err(text).fault()
}

/// Returns the fault of a pipeline or transaction that fails.
async fn pipeline_fault(connection: &MultiplexedConnection, pipeline: Pipeline, rule: PipelineRule) -> Fault {
    let service = ServiceBuilder::new()
        .layer(FaultClassifyLayer::new().errors_only().rule(rule))
        .service(service_fn(async |pipeline: Pipeline| pipeline.query_async(&mut connection.clone()).await));
    service.oneshot(pipeline).await.expect_err("the pipeline fails").fault()
}

/// Sends a command until it fails, and returns the fault.
async fn fault_at_last(connection: &MultiplexedConnection, text: &str) -> Fault {
    loop {
        match send(connection, command(text)).await {
            Ok(_) => tokio::task::yield_now().await,
            Err(error) => return error.fault(),
        }
    }
}

/// Returns the fault of a failure to connect.
async fn connect_fault(url: &str) -> Fault {
    let service = ServiceBuilder::new()
        .layer(FaultClassifyLayer::new().rule(redis_rule))
        .service(service_fn(async |url: &str| connect(url).await.map(drop)));
    service.oneshot(url).await.expect_err("the driver does not connect").fault()
}

#[track_caller]
fn assert_axes(fault: Fault, kind: Kind, retryable: Retryable, health: Health) {
    assert_eq!((fault.kind(), fault.retryable(), fault.health()), (kind, retryable, health));
}

#[tokio::test]
async fn command_errors_are_the_callers() {
    let server = Redis::start();
    let connection = connection(&server).await;
    run(&connection, "SET text word").await;
    for text in [
        "LPUSH text x",
        "INCR text",
        "NOSUCHCOMMAND",
        "EVALSHA 0000000000000000000000000000000000000000 0",
        "SCRIPT KILL",
        "XREADGROUP GROUP g c STREAMS missing >",
    ] {
        assert_axes(fault(&connection, text).await, Caller, Never, Healthy);
    }
}

#[tokio::test]
async fn missing_password_or_permission_is_auth() {
    let server = Redis::start_with(&["requirepass secret"]);
    let anonymous = connection(&server).await;
    assert_axes(fault(&anonymous, "GET key").await, Auth, Never, Healthy);
    assert_axes(fault(&anonymous, "AUTH wrong").await, Auth, Never, Healthy);
    run(&anonymous, "AUTH secret").await;
    run(&anonymous, "ACL SETUSER reader on nopass +get ~*").await;
    run(&anonymous, "AUTH reader any").await;
    assert_axes(fault(&anonymous, "SET key word").await, Auth, Never, Healthy);
    assert_axes(connect_fault(&format!("{}?pass=wrong", server.url())).await, Auth, Never, Healthy);
}

#[tokio::test]
async fn full_memory_is_overload() {
    let server = Redis::start_with(&["maxmemory 1"]);
    let connection = connection(&server).await;
    assert_axes(fault(&connection, "SET key word").await, Overloaded, Refused, Unhealthy);
}

/// The server refuses `EXEC`, or discards the transaction because it refused one of its commands.
#[tokio::test]
async fn discarded_transaction_has_the_fault_of_its_cause() {
    let server = Redis::start();
    let connection = connection(&server).await;
    run(&connection, "MULTI").await;
    run(&connection, "SET key word").await;
    let other = self::connection(&server).await;
    run(&other, "CONFIG SET maxmemory 1").await;
    assert_axes(fault(&connection, "EXEC").await, Overloaded, Refused, Unhealthy);

    run(&connection, "MULTI").await;
    assert_axes(fault(&connection, "SET key word").await, Overloaded, Refused, Unhealthy);
    // The error of `EXEC` does not contain the cause.
    assert_axes(fault(&connection, "EXEC").await, Caller, Never, Neutral);
    assert_axes(fault(&connection, "EXEC").await, Caller, Never, Healthy);

    let mut transaction = redis::pipe();
    transaction.atomic().set("key", "word");
    let fault = pipeline_fault(&connection, transaction, redis_rule).await;
    assert_axes(fault, Overloaded, Refused, Unhealthy);
}

#[tokio::test]
async fn pipeline_that_ran_in_part_is_not_refused() {
    let server = Redis::start();
    let connection = connection(&server).await;
    let mut pipeline = redis::pipe();
    pipeline.incr("count", 1).add_command(command("CONFIG SET maxmemory 1")).incr("count", 1);
    let fault = pipeline_fault(&connection, pipeline, redis_pipeline_rule).await;
    assert_axes(fault, Overloaded, IfIdempotent, Unhealthy);
    let count = send(&connection, command("GET count")).await.unwrap();
    assert_eq!(redis::from_redis_value::<u32>(count).unwrap(), 1);
}

#[tokio::test]
async fn too_many_clients_is_a_broken_connection() {
    let server = Redis::start_with(&["maxclients 1"]);
    let connection = connection(&server).await;
    // The driver ignores the responses to the commands that it sends first. The error of the server
    // is one of them.
    assert_axes(connect_fault(&server.url()).await, Transient, IfIdempotent, Unhealthy);
    run(&connection, "PING").await;
}

#[tokio::test]
async fn replica_refuses_writes() {
    // Nothing listens on port 1: the replica has no master.
    let server = Redis::start_with(&["replicaof 127.0.0.1 1"]);
    let connection = connection(&server).await;
    assert_axes(fault(&connection, "SET key word").await, Unavailable, Refused, Neutral);
    run(&connection, "CONFIG SET replica-serve-stale-data no").await;
    assert_axes(fault(&connection, "GET key").await, Unavailable, Refused, Unhealthy);
}

#[tokio::test]
async fn write_without_replicas_is_refused() {
    let server = Redis::start_with(&["min-replicas-to-write 1"]);
    let connection = connection(&server).await;
    assert_axes(fault(&connection, "SET key word").await, Unavailable, Refused, Unhealthy);
}

#[tokio::test]
async fn write_is_refused_if_data_cannot_be_saved() {
    let server = Redis::start_with(&["save 3600 1"]);
    let connection = connection(&server).await;
    std::fs::remove_dir_all(server.folder()).unwrap();
    run(&connection, "SET key word").await;
    run(&connection, "BGSAVE").await;
    let fault = fault_at_last(&connection, "SET key word").await;
    assert_axes(fault, Unavailable, Refused, Unhealthy);
}

#[tokio::test]
async fn server_with_running_script_is_unavailable() {
    let server = Redis::start_with(&["busy-reply-threshold 1"]);
    let busy = connection(&server).await;
    let other = connection(&server).await;
    let mut script = cmd("EVAL");
    script.arg("while true do end").arg(0);
    let script = tokio::spawn(async move { send(&busy, script).await });
    assert_axes(fault_at_last(&other, "GET key").await, Unavailable, Refused, Unhealthy);
    drop(server);
    assert_axes(script.await.unwrap().unwrap_err().fault(), Transient, IfIdempotent, Unhealthy);
}

#[tokio::test]
async fn loading_server_is_unavailable() {
    let mut server = Redis::start_with(&["rdbcompression no"]);
    let saving = connection(&server).await;
    for key in 0..100 {
        run(&saving, &format!("SET key{key} {}", "x".repeat(2_000))).await;
    }
    run(&saving, "SAVE").await;
    // Loads a key in 100 ms, and serves its clients after each key.
    server.restart_with(&["key-load-delay 100000", "loading-process-events-interval-bytes 1024"]);
    let connection = connection(&server).await;
    assert_axes(fault(&connection, "GET key1").await, Unavailable, Refused, Unhealthy);
}

/// Starts a node that serves the first half of the slots. No other node runs.
fn cluster_node() -> Redis {
    let folder = TempDir::with_prefix("redis-").unwrap();
    let (this, other) = ("1".repeat(40), "2".repeat(40));
    let nodes = format!(
        "{this} 127.0.0.1:7000@17000 myself,master - 0 0 1 connected 0-8191\n\
         {other} 127.0.0.1:7001@17001 master - 0 0 2 connected 8192-16382\n\
         vars currentEpoch 2 lastVoteEpoch 0\n"
    );
    std::fs::write(folder.path().join("nodes.conf"), nodes).unwrap();
    Redis::start_in(folder, &["cluster-enabled yes", "cluster-allow-reads-when-down yes"])
}

#[tokio::test]
async fn cluster_refuses_keys_of_other_nodes() {
    let server = cluster_node();
    let connection = connection(&server).await;
    // The slots of `foo` and `bar` are 12182 and 5061; no node serves slot 16383.
    assert_axes(fault(&connection, "GET foo").await, Unavailable, Refused, Neutral);
    assert_axes(fault(&connection, "MGET foo bar").await, Caller, Never, Healthy);
    // The other node does not run, so the cluster is down for writes.
    assert_axes(fault(&connection, "SET bar 1").await, Unavailable, Refused, Unhealthy);
}

#[tokio::test]
async fn killed_server_breaks_commands_and_refuses_connections() {
    let mut server = Redis::start();
    let waiting = connection(&server).await;
    let other = connection(&server).await;
    let call = tokio::spawn(async move { fault(&waiting, "BLPOP list 0").await });
    while !clients(&other).await.contains("cmd=blpop") {
        tokio::task::yield_now().await;
    }
    server.kill();
    assert_axes(call.await.unwrap(), Transient, IfIdempotent, Unhealthy);
    assert_axes(connect_fault(&server.url()).await, Unavailable, Unsent, Unhealthy);
}

/// Returns the server's list of clients, with their last commands.
async fn clients(connection: &MultiplexedConnection) -> String {
    redis::from_redis_value(send(connection, command("CLIENT LIST")).await.unwrap()).unwrap()
}
