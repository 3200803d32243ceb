//! Checks the real databases: they answer while the handle exists, and end with it.
#![cfg(unix)]

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use test_servers::{PgBouncer, Postgres, Redis, Tls};

/// Returns the server's folder, from a URL that contains its path.
fn postgres_folder(server: &Postgres) -> PathBuf {
    let url = server.url();
    let host = url.split(['@', '/']).find(|part| part.starts_with("%2F"));
    host.expect("the host is the folder").replace("%2F", "/").into()
}

/// Sends bytes, and returns the first `N` bytes of the response.
fn exchange<const N: usize>(socket: &Path, request: &[u8]) -> std::io::Result<[u8; N]> {
    let mut stream = UnixStream::connect(socket)?;
    stream.write_all(request)?;
    let mut response = [0; N];
    stream.read_exact(&mut response)?;
    Ok(response)
}

/// The first message of a client of PostgreSQL: it asks for TLS.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

/// Asks PostgreSQL or PgBouncer for TLS, which they answer with `N`: no.
fn postgres_answers(folder: &Path) -> bool {
    exchange(&folder.join(".s.PGSQL.5432"), &SSL_REQUEST).is_ok_and(|answer: [u8; 1]| answer == *b"N")
}

fn redis_answers(folder: &Path) -> bool {
    exchange(&folder.join("redis.sock"), b"PING\r\n").is_ok_and(|answer: [u8; 5]| answer == *b"+PONG")
}

#[test]
fn postgres_answers_until_it_ends() {
    let mut server = Postgres::start();
    let folder = postgres_folder(&server);
    assert!(postgres_answers(&folder));
    server.stop();
    assert!(!postgres_answers(&folder));
    server.restart();
    assert!(postgres_answers(&folder));
    server.kill();
    assert!(!postgres_answers(&folder));
    server.restart();
    assert!(postgres_answers(&folder));
    drop(server);
    assert!(!folder.exists());
}

#[test]
#[should_panic(expected = "no_such_setting")]
fn postgres_unknown_setting_is_named() {
    Postgres::start_with(&["no_such_setting=1"]);
}

#[test]
fn postgres_keeps_its_port_over_a_restart() {
    let mut server = Postgres::start_tcp_with(&[]);
    for _ in 0..2 {
        let mut stream = std::net::TcpStream::connect(server.address()).unwrap();
        stream.write_all(&SSL_REQUEST).unwrap();
        let mut answer = [0];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(answer, *b"N");
        assert!(exchange(&server.socket(), &SSL_REQUEST).is_ok_and(|answer: [u8; 1]| answer == *b"N"));
        server.restart();
    }
}

#[test]
fn postgres_with_tls_offers_it() {
    let server = Postgres::start_tls(&Tls::new());
    let mut stream = std::net::TcpStream::connect(server.address()).unwrap();
    stream.write_all(&SSL_REQUEST).unwrap();
    let mut answer = [0];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer, *b"S");
}

#[test]
fn postgres_replica_outlives_its_primary() {
    let mut primary = Postgres::start();
    let mut replica = Postgres::start_replica_of(&primary);
    let recovers = |replica: &Postgres| postgres_folder(replica).join("data/standby.signal").exists();
    assert!(recovers(&replica));
    primary.kill();
    replica.promote();
    assert!(!recovers(&replica) && postgres_answers(&postgres_folder(&replica)));
    replica.restart();
}

#[test]
fn redis_answers_until_it_ends() {
    let mut server = Redis::start();
    let folder = server.folder().to_owned();
    assert!(redis_answers(&folder));
    server.stop();
    assert!(!redis_answers(&folder));
    server.restart_with(&[]);
    assert!(redis_answers(&folder));
    server.kill();
    assert!(!redis_answers(&folder));
    server.restart_with(&["maxclients 7"]);
    assert!(redis_answers(&folder));
    drop(server);
    assert!(!folder.exists());
}

#[test]
#[should_panic(expected = "no-such-setting")]
fn redis_unknown_setting_is_named() {
    Redis::start_with(&["no-such-setting 1"]);
}

/// A connection that has not been answered when a server is paused.
///
/// A read ends after a short time, which a server that runs hardly ever needs.
fn unanswered(socket: &Path, request: &[u8]) -> UnixStream {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    stream.write_all(request).unwrap();
    stream.read_exact(&mut [0]).expect_err("a paused server does not answer");
    stream.set_read_timeout(None).unwrap();
    stream
}

/// Returns the PID and the status of the processes whose parent is `parent`.
fn children(parent: u32) -> Vec<(u32, char)> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let stats = processes.filter_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
        let state = fields.next()?.chars().next()?;
        (fields.next()?.parse() == Ok(parent)).then_some((pid, state))
    });
    stats.collect()
}

#[cfg(target_os = "linux")]
#[test]
fn postgres_paused_stops_its_children() {
    let mut server = Postgres::start();
    let pid_file = std::fs::read_to_string(postgres_folder(&server).join("data/postmaster.pid")).unwrap();
    let postmaster = pid_file.lines().next().unwrap().parse().unwrap();
    server.pause();
    let paused = children(postmaster);
    assert!(paused.len() > 2 && paused.iter().all(|&(_, state)| state == 'T'), "{paused:?}");
    let mut stream = unanswered(&server.socket(), &SSL_REQUEST);
    server.resume();
    let mut answer = [0];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer, *b"N");
    assert!(children(postmaster).iter().all(|&(_, state)| state != 'T'));
    // A paused server ends as well.
    server.pause();
    server.kill();
    assert_eq!(children(postmaster), []);
    server.restart();
    server.pause();
    server.stop();
}

#[cfg(target_os = "linux")]
#[test]
fn redis_paused_answers_when_it_is_resumed() {
    let mut server = Redis::start();
    server.pause();
    let mut stream = unanswered(&server.socket(), b"PING\r\n");
    server.resume();
    let mut answer = [0; 5];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer, *b"+PONG");
    server.pause();
    server.stop();
    server.restart_with(&[]);
    assert_eq!(server.command("PING"), "PONG");
}

#[test]
fn redis_keeps_its_port_over_a_restart() {
    let mut server = Redis::start_tcp_with(&["databases 3"]);
    let address = server.address();
    assert_eq!(server.tcp_url(), format!("redis://{address}"));
    for _ in 0..2 {
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        stream.write_all(b"SELECT 2\r\n").unwrap();
        let mut answer = [0; 3];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(answer, *b"+OK");
        server.restart_with(&[]);
    }
}

#[test]
fn redis_command_returns_texts_and_numbers() {
    let server = Redis::start();
    assert_eq!(server.command("SET key value"), "OK");
    assert_eq!(server.command("GET key"), "value");
    assert_eq!(server.command("STRLEN key"), "5");
}

#[test]
#[should_panic(expected = "`GET` failed: -ERR wrong number of arguments")]
fn redis_command_error_is_named() {
    Redis::start().command("GET");
}

#[test]
fn redis_cluster_of_one_node_serves_all_slots() {
    let mut server = Redis::start_cluster();
    for key in ["a", "b", "{c}d"] {
        assert_eq!(server.command(&format!("SET {key} 1")), "OK");
    }
    assert!(server.command("CLUSTER INFO").contains("cluster_slots_ok:16384"));
    // The node keeps its slots.
    server.restart_with(&[]);
    assert_eq!(server.command("SET a 2"), "OK");
}

#[test]
fn redis_cluster_replaces_a_killed_primary() {
    let mut nodes = Redis::start_cluster_of(3, 1);
    for node in &nodes {
        let info = node.command("CLUSTER INFO");
        assert!(info.contains("cluster_slots_ok:16384") && info.contains("cluster_known_nodes:4"), "{info}");
        assert!(info.contains("cluster_size:3"), "{info}");
    }
    // The slot of `{b}` is one of the first third.
    assert_eq!(nodes[0].command("SET {b} 1"), "OK");
    let [primary, .., replica] = &mut nodes[..] else { panic!("four nodes") };
    primary.kill();
    while !replica.command("INFO replication").contains("role:master") {
        std::thread::yield_now();
    }
    assert_eq!(replica.command("CLUSTER KEYSLOT {b}"), "3300");
}

#[test]
fn redis_replica_has_the_data_and_can_be_promoted() {
    let mut primary = Redis::start_tcp();
    primary.command("SET before 1");
    let mut replica = Redis::start_replica_of(&primary);
    assert_eq!(replica.command("GET before"), "1");
    primary.command("SET after 1");
    // The primary answers before the replica has the key.
    while replica.command("EXISTS after") == "0" {
        std::thread::yield_now();
    }
    primary.kill();
    replica.promote();
    assert_eq!(replica.command("SET again 1"), "OK");
    // A promoted server stays a primary.
    replica.restart_with(&[]);
    assert!(replica.command("INFO replication").contains("role:master"));
}

#[test]
fn pgbouncer_answers_until_it_ends() {
    let server = Postgres::start();
    let mut pool = PgBouncer::start(&server);
    let folder = pool.socket().parent().unwrap().to_owned();
    assert!(postgres_answers(&folder));
    pool.kill();
    assert!(!postgres_answers(&folder));
    pool.restart();
    assert!(postgres_answers(&folder));
    drop(pool);
    assert!(!folder.exists());
}

#[cfg(target_os = "linux")]
#[test]
fn pgbouncer_paused_answers_when_it_is_resumed() {
    let server = Postgres::start();
    let mut pool = PgBouncer::start(&server);
    pool.pause();
    let mut stream = unanswered(&pool.socket(), &SSL_REQUEST);
    pool.resume();
    let mut answer = [0];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer, *b"N");
}
