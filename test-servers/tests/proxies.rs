//! Checks the proxies byte by byte.

use std::net::SocketAddr;

use http::Method;
use test_servers::{Action, Http, RefusedPort, Socks, SocksAction};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const HELLO: &[u8] = b"GET /hello HTTP/1.1\r\n\r\n";

/// Sends each message, and checks the answer to it.
async fn converse(address: SocketAddr, messages: &[(&[u8], &[u8])]) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    for (message, want) in messages {
        stream.write_all(message).await.unwrap();
        let mut answer = vec![0; want.len()];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, want);
    }
    stream
}

/// Returns what arrives until the connection closes.
async fn rest(mut stream: TcpStream) -> String {
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    String::from_utf8(rest).unwrap()
}

/// Opens an HTTP tunnel to the target.
async fn connect(proxy: &Http, target: &str) -> TcpStream {
    let request = format!("CONNECT {target} HTTP/1.1\r\nhost: {target}\r\n\r\n");
    converse(proxy.address(), &[(request.as_bytes(), b"HTTP/1.1 200 OK\r\n\r\n")]).await
}

#[tokio::test]
async fn http_proxy_tunnel_forwards_both_ways() {
    let (proxy, server) = (Http::start().await, Http::start().await);
    proxy.set_default(Action::tunnel());
    server.set_default(Action::Echo);
    let target = server.address().to_string();
    let mut stream = connect(&proxy, &target).await;
    stream.write_all(HELLO).await.unwrap();
    server.wait_for_requests(1).await;
    // The server answers the second request after the client has closed its side.
    stream.write_all(b"GET /again HTTP/1.1\r\n\r\n").await.unwrap();
    stream.shutdown().await.unwrap();
    let answers = rest(stream).await;
    assert!(answers.contains("/hello\n") && answers.contains("/again\n"), "{answers}");
    let [request] = <[_; 1]>::try_from(proxy.requests()).unwrap();
    assert_eq!((request.method, request.path), (Method::CONNECT, target));
    assert_eq!((server.connections(), server.requests().len()), (1, 2));
}

#[tokio::test]
async fn http_proxy_without_server_answers_502() {
    let (proxy, refused) = (Http::start().await, RefusedPort::bind());
    proxy.set_default(Action::tunnel());
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    let target = refused.address();
    stream.write_all(format!("CONNECT {target} HTTP/1.1\r\n\r\n").as_bytes()).await.unwrap();
    assert!(rest(stream).await.starts_with("HTTP/1.1 502 "));
}

#[tokio::test]
async fn http_proxy_tunnel_ends_after_its_limit() {
    let (proxy, server) = (Http::start().await, Http::start().await);
    let target = server.address().to_string();
    for limit in [0, 1, HELLO.len() as u64 - 1] {
        proxy.script([Action::Tunnel { limit }]);
        let mut stream = connect(&proxy, &target).await;
        stream.write_all(HELLO).await.unwrap();
        stream.shutdown().await.unwrap();
        assert_eq!(rest(stream).await, "", "{limit}");
    }
    assert_eq!((server.connections(), server.requests().len()), (3, 0));
}

const SOCKS5_HELLO: (&[u8], &[u8]) = (&[5, 1, 0], &[5, 0]);
const SOCKS5_PASSWORD: (&[u8], &[u8]) = (&[5, 1, 2], &[5, 2]);
/// A request for port 1 of `::1`, where no server listens.
const SOCKS5_REQUEST: &[u8] = &[5, 1, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1];
const SOCKS4_REQUEST: &[u8] = &[4, 1, 0, 1, 127, 0, 0, 1, b'm', b'e', 0];

#[tokio::test]
async fn socks_proxy_answers_as_scripted_then_closes() {
    let (proxy, tunnel) = (Socks::start().await, SocksAction::Tunnel { limit: 0 });
    let v5 = |code| [5, code, 0, 1, 0, 0, 0, 0, 0, 0];
    let v4 = |code| [0, code, 0, 0, 0, 0, 0, 0];
    for (action, messages) in [
        (SocksAction::RejectMethods, &[(&[5, 2, 0, 2][..], &[5, 0xff][..])][..]),
        (SocksAction::RejectPassword, &[SOCKS5_PASSWORD, (&[1, 1, b'u', 1, b'p'], &[1, 1])]),
        (SocksAction::Raw(b"HTTP".to_vec()), &[(&[5, 1, 0], b"HTTP")]),
        (SocksAction::Raw(b"HTTP".to_vec()), &[(SOCKS4_REQUEST, b"HTTP")]),
        (
            SocksAction::Refuse(2),
            &[SOCKS5_PASSWORD, (&[1, 1, b'u', 1, b'p'], &[1, 0]), (SOCKS5_REQUEST, &v5(2))],
        ),
        (SocksAction::Refuse(92), &[(SOCKS4_REQUEST, &v4(92))]),
        (tunnel.clone(), &[SOCKS5_HELLO, (SOCKS5_REQUEST, &v5(5))]),
        (tunnel, &[(SOCKS4_REQUEST, &v4(91))]),
        (SocksAction::CloseAfterRequest, &[SOCKS5_HELLO, (SOCKS5_REQUEST, &[])]),
    ] {
        proxy.script([action]);
        let stream = converse(proxy.address(), messages).await;
        assert_eq!(rest(stream).await, "");
    }
    let targets: Vec<_> = proxy.requests().into_iter().map(|request| request.path).collect();
    let (ipv6, ipv4) = ("[::1]:1", "127.0.0.1:1");
    assert_eq!(targets, [ipv4, ipv6, ipv4, ipv6, ipv4, ipv6]);
}

const SOCKS4_ACCEPTED: &[u8] = &[0, 90, 0, 0, 0, 0, 0, 0];
const SOCKS5_ACCEPTED: &[u8] = &[5, 0, 0, 1, 0, 0, 0, 0, 0, 0];

#[tokio::test]
async fn socks_proxy_opens_tunnel_for_each_version() {
    let (proxy, server) = (Socks::start().await, Http::start().await);
    server.set_default(Action::Echo);
    let port = server.address().port();
    let bytes = port.to_be_bytes();
    let socks4 = [&[4, 1], &bytes[..], &[127, 0, 0, 1, 0]].concat();
    let socks4a = [&[4, 1], &bytes[..], &[0, 0, 0, 1, 0], b"localhost\0"].concat();
    let socks5 = [&[5, 1, 0, 1, 127, 0, 0, 1], &bytes[..]].concat();
    let socks5_name = [&[5, 1, 0, 3, 9], &b"localhost"[..], &bytes].concat();
    for (messages, host) in [
        (&[(&*socks4, SOCKS4_ACCEPTED)][..], "127.0.0.1"),
        (&[(&*socks4a, SOCKS4_ACCEPTED)], "localhost"),
        (&[SOCKS5_HELLO, (&socks5, SOCKS5_ACCEPTED)], "127.0.0.1"),
        (&[SOCKS5_HELLO, (&socks5_name, SOCKS5_ACCEPTED)], "localhost"),
    ] {
        let mut stream = converse(proxy.address(), messages).await;
        stream.write_all(HELLO).await.unwrap();
        stream.shutdown().await.unwrap();
        assert!(rest(stream).await.ends_with("/hello\n"), "{host}");
        let request = proxy.requests().pop().unwrap();
        assert_eq!((request.method, request.path), (Method::CONNECT, format!("{host}:{port}")));
    }
}

#[tokio::test]
async fn socks_tunnel_ends_after_its_limit() {
    let (proxy, server) = (Socks::start().await, Http::start().await);
    proxy.set_default(SocksAction::Tunnel { limit: 4 });
    let port = server.address().port().to_be_bytes();
    let request = [&[5, 1, 0, 1, 127, 0, 0, 1], &port[..]].concat();
    let mut stream = converse(proxy.address(), &[SOCKS5_HELLO, (&request, SOCKS5_ACCEPTED)]).await;
    stream.write_all(HELLO).await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(rest(stream).await, "");
    assert_eq!((server.connections(), server.requests().len()), (1, 0));
}
