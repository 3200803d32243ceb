//! Checks the proxy in front of a server that echoes bytes.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use test_servers::{FaultyProxy, ProxyFault};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout};

/// A time after which no answer is expected. Tests with a paused clock do not wait for it.
const A_WHILE: Duration = Duration::from_secs(3600);

/// Listens on loopback, and echoes each connection's bytes until its end.
async fn echo() -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                tokio::io::copy(&mut from, &mut to).await
            });
        }
    });
    address
}

async fn start() -> (FaultyProxy, TcpStream) {
    let proxy = FaultyProxy::start(echo().await).await;
    let stream = TcpStream::connect(proxy.address()).await.unwrap();
    (proxy, stream)
}

/// Sends bytes, and returns as many bytes of the answer.
async fn exchange<const N: usize>(stream: &mut TcpStream, bytes: [u8; N]) -> io::Result<[u8; N]> {
    stream.write_all(&bytes).await?;
    let mut answer = [0; N];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

/// Returns what arrives until the connection closes.
async fn rest(mut stream: TcpStream) -> Vec<u8> {
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    rest
}

#[tokio::test]
async fn proxy_forwards_both_ways_until_client_closes() {
    let (proxy, mut stream) = start().await;
    assert_eq!(exchange(&mut stream, *b"one").await.unwrap(), *b"one");
    stream.write_all(b"two").await.unwrap();
    // The answer still arrives after the client has closed its side.
    stream.shutdown().await.unwrap();
    assert_eq!(rest(stream).await, b"two");
    assert_eq!(proxy.connections(), 1);
}

#[cfg(unix)]
#[tokio::test]
async fn proxy_forwards_to_databases() {
    use test_servers::{PgBouncer, Postgres, Redis};
    let (redis, postgres) = (Redis::start(), Postgres::start());
    let pgbouncer = PgBouncer::start(&postgres);
    let proxy = FaultyProxy::start(&redis).await;
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    stream.write_all(b"PING\r\n").await.unwrap();
    let mut answer = [0; 7];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, *b"+PONG\r\n");
    for proxy in [FaultyProxy::start(&postgres).await, FaultyProxy::start(&pgbouncer).await] {
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        // The first message of a client of PostgreSQL asks for TLS. The answer says no.
        stream.write_all(&[0, 0, 0, 8, 4, 210, 22, 47]).await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), b'N');
    }
}

#[tokio::test(start_paused = true)]
async fn proxy_delays_each_direction() {
    let (proxy, mut stream) = start().await;
    for (to_server, to_client) in [(2, 0), (0, 3), (2, 3)] {
        let (to_server, to_client) = (Duration::from_secs(to_server), Duration::from_secs(to_client));
        proxy.set(ProxyFault::Delay { to_server, to_client }).await;
        let start = Instant::now();
        assert_eq!(exchange(&mut stream, *b"late").await.unwrap(), *b"late");
        let took = start.elapsed();
        assert!(took >= to_server + to_client && took < to_server + to_client + Duration::from_millis(500));
    }
}

#[tokio::test(start_paused = true)]
async fn proxy_delay_does_not_limit_the_rate() {
    let (proxy, mut stream) = start().await;
    proxy.set(ProxyFault::Delay { to_server: Duration::from_secs(2), to_client: Duration::ZERO }).await;
    let start = Instant::now();
    // The clock stops while the proxy reads, so that each byte is a read of its own.
    for byte in [1, 2, 3] {
        stream.write_all(&[byte]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let mut answer = [0; 3];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, [1, 2, 3]);
    assert!(start.elapsed() < Duration::from_secs(3));
}

#[tokio::test]
async fn proxy_refuses_new_connections_only() {
    let (proxy, mut stream) = start().await;
    assert_eq!(exchange(&mut stream, [1]).await.unwrap(), [1]);
    for _ in 0..2 {
        proxy.set(ProxyFault::Refuse).await;
        let error = TcpStream::connect(proxy.address()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(exchange(&mut stream, [2]).await.unwrap(), [2]);
        proxy.set(ProxyFault::None).await;
        let mut second = TcpStream::connect(proxy.address()).await.unwrap();
        assert_eq!(exchange(&mut second, [3]).await.unwrap(), [3]);
    }
}

#[tokio::test]
async fn proxy_cut_resets_all_connections() {
    let (proxy, mut first) = start().await;
    let mut second = TcpStream::connect(proxy.address()).await.unwrap();
    for stream in [&mut first, &mut second] {
        assert_eq!(exchange(stream, [1]).await.unwrap(), [1]);
    }
    proxy.cut().await;
    for mut stream in [first, second] {
        let error = stream.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }
    let mut third = TcpStream::connect(proxy.address()).await.unwrap();
    assert_eq!(exchange(&mut third, [1]).await.unwrap(), [1]);
    assert_eq!(proxy.connections(), 3);
}

#[tokio::test(start_paused = true)]
async fn proxy_cut_does_not_wait_for_later_connections() {
    let (proxy, mut stream) = start().await;
    assert_eq!(exchange(&mut stream, [1]).await.unwrap(), [1]);
    let mut cut = tokio_test::task::spawn(proxy.cut());
    tokio_test::assert_pending!(cut.poll());
    let mut later = TcpStream::connect(proxy.address()).await.unwrap();
    assert_eq!(exchange(&mut later, [2]).await.unwrap(), [2]);
    timeout(A_WHILE, cut).await.expect("the connection is closed");
    assert_eq!(stream.read_u8().await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(exchange(&mut later, [3]).await.unwrap(), [3]);
}

#[tokio::test(start_paused = true)]
async fn proxy_stalled_holds_bytes_until_it_continues() {
    let (proxy, mut old) = start().await;
    assert_eq!(exchange(&mut old, [1]).await.unwrap(), [1]);
    proxy.set(ProxyFault::Stall).await;
    let mut new = TcpStream::connect(proxy.address()).await.unwrap();
    for stream in [&mut old, &mut new] {
        stream.write_all(b"held").await.unwrap();
        timeout(A_WHILE, stream.read_u8()).await.expect_err("nothing is delivered");
    }
    proxy.set(ProxyFault::None).await;
    for stream in [&mut old, &mut new] {
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer, *b"held");
    }
}

#[tokio::test]
async fn proxy_garbage_replaces_the_answers() {
    let (proxy, mut stream) = start().await;
    proxy.set(ProxyFault::Garbage(b"\0\xffjunk"[..].into())).await;
    for _ in 0..2 {
        assert_eq!(exchange(&mut stream, *b"hello?").await.unwrap(), *b"\0\xffjunk");
    }
    proxy.set(ProxyFault::None).await;
    // The server has received none of it.
    assert_eq!(exchange(&mut stream, *b"hello!").await.unwrap(), *b"hello!");
}

#[tokio::test]
async fn proxy_truncate_closes_after_its_limit() {
    let (proxy, mut stream) = start().await;
    assert_eq!(exchange(&mut stream, *b"whole").await.unwrap(), *b"whole");
    proxy.set(ProxyFault::Truncate(4)).await;
    assert_eq!(exchange(&mut stream, *b"one").await.unwrap(), *b"one");
    stream.write_all(b"two").await.unwrap();
    assert_eq!(rest(stream).await, b"t");
}

#[tokio::test]
async fn proxy_without_server_closes_connections() {
    let refused = test_servers::RefusedPort::bind();
    let proxy = FaultyProxy::start(refused.address()).await;
    let stream = TcpStream::connect(proxy.address()).await.unwrap();
    assert_eq!(rest(stream).await, b"");
}

#[tokio::test]
async fn proxy_dropped_closes_port_and_connections() {
    let (proxy, mut stream) = start().await;
    assert_eq!(exchange(&mut stream, [1]).await.unwrap(), [1]);
    let address = proxy.address();
    drop(proxy);
    assert_eq!(rest(stream).await, b"");
    assert!(TcpStream::connect(address).await.is_err());
}
