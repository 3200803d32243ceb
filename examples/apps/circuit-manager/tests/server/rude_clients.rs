//! Clients that break the protocol. They must affect no other client.

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{self, Message};

use crate::support::{DEADLINE, Files, READER, Server, Socket};

async fn start() -> (Files, Server) {
    let files = Files::embedded(&json!({ "ping_seconds": 0.5, "agents": { "search": {} } }));
    let server = files.start().await;
    (files, server)
}

/// Opens a WebSocket, of which the test writes the bytes.
async fn open_raw(server: &Server) -> TcpStream {
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    let request = format!(
        "GET /api/v1/circuits/ws HTTP/1.1\r\nhost: {}\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         authorization: Bearer {READER}\r\n\r\n",
        server.address()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let byte = timeout(DEADLINE, stream.read_u8()).await.expect("the server answers");
        head.push(byte.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "));
    stream
}

/// Reads until the server closes the connection.
async fn read_to_end(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    // A reset ends the connection, too.
    let _ = timeout(DEADLINE, stream.read_to_end(&mut rest)).await.expect("the server closes the connection");
}

/// Checks that another client still receives events.
async fn assert_others_are_served(server: &Server) {
    let mut socket = server.websocket().await;
    server.act("search", "open").await;
    assert_eq!(socket.next().await["data"]["state"], "open");
    server.act("search", "reset").await;
    assert_eq!(socket.next().await["data"]["state"], "closed");
}

#[tokio::test]
async fn message_of_client_closes_websocket() {
    let (_files, server) = start().await;
    for message in [Message::text("hello"), Message::binary(vec![0; 100])] {
        let mut socket = server.websocket().await;
        socket.send(message).await;
        assert_eq!(socket.closed().await, (CloseCode::Policy, "this stream accepts no messages".to_owned()));
    }
    assert_others_are_served(&server).await;
}

#[tokio::test]
async fn huge_frames_and_garbage_close_websocket() {
    let (_files, server) = start().await;
    // A text frame of 2^63 - 1 bytes: its header, its mask and the first bytes.
    let mut huge = vec![0x81, 0xff, 0x7f];
    huge.extend([0xff; 7]);
    huge.extend([0; 64]);
    let unmasked = vec![0x81, 0x02, b'h', b'i'];
    let reserved_opcode = vec![0x83, 0x80, 0, 0, 0, 0];
    let fragments = [0x01, 0xfe, 0x10, 0x00, 0, 0, 0, 0].iter().copied().chain([b'x'; 4096]);
    let endless = fragments.clone().chain(fragments.map(|byte| if byte == 0x01 { 0x00 } else { byte }));
    let garbage = b"GET / HTTP/1.1\r\n\r\n".repeat(50);
    for bytes in [huge, unmasked, reserved_opcode, endless.collect(), garbage] {
        let mut stream = open_raw(&server).await;
        // The server may have closed the connection already.
        let _ = stream.write_all(&bytes).await;
        read_to_end(&mut stream).await;
    }
    assert_others_are_served(&server).await;
}

#[tokio::test]
async fn unanswered_pings_close_websocket() {
    let (_files, server) = start().await;
    // Nothing answers the pings of this connection.
    let mut stream = open_raw(&server).await;
    read_to_end(&mut stream).await;
    // A client that answers the pings stays connected meanwhile.
    assert_others_are_served(&server).await;
}

#[tokio::test]
async fn answered_pings_keep_websocket_open() {
    let (_files, server) = start().await;
    let mut socket = server.websocket().await;
    let mut pings = 0;
    while pings < 6 {
        match timeout(DEADLINE, futures::StreamExt::next(&mut socket.0)).await.unwrap() {
            Some(Ok(Message::Ping(_))) => pings += 1,
            other => panic!("{other:?}"),
        }
    }
    server.act("search", "open").await;
    assert_eq!(socket.next().await["data"]["state"], "open");
}

#[tokio::test]
async fn half_closed_and_reset_sockets_are_dropped() {
    let (_files, server) = start().await;
    let mut half_closed = open_raw(&server).await;
    half_closed.shutdown().await.unwrap();
    read_to_end(&mut half_closed).await;
    for _ in 0..50 {
        drop(open_raw(&server).await);
        drop(Socket::connect(&server, None).await.unwrap());
    }
    assert_others_are_served(&server).await;
}

#[tokio::test]
async fn flood_of_pings_holds_up_no_other_client() {
    let (_files, server) = start().await;
    // More connections than the server has threads. None of them reads the answers.
    let mut floods = JoinSet::new();
    for _ in 0..16 {
        let mut stream = open_raw(&server).await;
        floods.spawn(async move {
            let pings = [0x89, 0x80, 0, 0, 0, 0].repeat(1_000);
            while stream.write_all(&pings).await.is_ok() {}
        });
    }
    for _ in 0..10 {
        assert_others_are_served(&server).await;
    }
}

#[tokio::test]
async fn clients_without_token_take_no_place_of_users() {
    let (_files, server) = start().await;
    let mut silent = Vec::new();
    let refused = loop {
        match Socket::connect(&server, None).await {
            Ok(socket) => silent.push(socket),
            Err(tungstenite::Error::Http(response)) => break response.status(),
            Err(other) => panic!("{other}"),
        }
    };
    assert_eq!(refused, 503, "after {}", silent.len());
    assert_others_are_served(&server).await;
}

#[tokio::test]
async fn slow_request_does_not_keep_server_from_stopping() {
    let (_files, server) = start().await;
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    let head = format!(
        "POST /api/v1/circuits/search/action HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {}\r\n\
         content-length: 100\r\n\r\n{{",
        crate::support::OPERATOR
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    assert_others_are_served(&server).await;
    let (code, logs) = server.stop().await;
    assert_eq!(code, Some(0), "{logs}");
    assert!(logs.contains("were cut off"), "{logs}");
}
