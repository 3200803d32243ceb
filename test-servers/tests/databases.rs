//! Checks the real databases: they answer while the handle exists, and end with it.
#![cfg(unix)]

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use test_servers::{Postgres, Redis};

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

/// Asks PostgreSQL for TLS, which it answers with `N`: no.
fn postgres_answers(folder: &Path) -> bool {
    let ssl_request = [0, 0, 0, 8, 4, 210, 22, 47];
    exchange(&folder.join(".s.PGSQL.5432"), &ssl_request).is_ok_and(|answer: [u8; 1]| answer == *b"N")
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
