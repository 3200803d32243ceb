//! The live events over a WebSocket.

use futures::StreamExt;
use serde_json::{Value, json};
use test_servers::{Action, Http};
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::support::{Files, READER, Server, Socket};

/// Returns a configuration whose agent is called and probed often.
fn config(agent: &Http) -> Value {
    json!({
        "circuit": { "failure_threshold": 1_000, "min_requests_for_rate": 1_000, "cooldown_seconds": 60 },
        "health": { "interval_seconds": 0.02, "window_probes": 3, "min_probes": 1 },
        "agents": { "search": { "url": agent.url(), "interval_seconds": 0.02 } },
    })
}

#[tokio::test]
async fn websocket_sends_critical_open_half_open_closed_in_order() {
    let agent = Http::start().await;
    let server = Files::embedded(&config(&agent)).start().await;
    let mut socket = server.websocket().await;
    agent.set_default(Action::status(503));
    let mut critical = socket.next().await;
    if critical["data"]["health"] == "degraded" {
        critical = socket.next().await;
    }
    assert_eq!(critical["type"], "circuit_state", "{critical}");
    assert_eq!(critical["data"]["agent_id"], "search");
    assert_eq!(
        (&critical["data"]["health"], &critical["data"]["state"]),
        (&json!("critical"), &json!("closed"))
    );
    let open = socket.next().await;
    assert_eq!(open["data"]["state"], "open", "{open}");
    assert_eq!(open["data"]["stats"]["name"], "search");
    assert!(open["data"]["stats"]["opened_at"].is_string(), "{open}");
    assert!(open["data"].get("health").is_none(), "{open}");

    agent.set_default(Action::status(200));
    let mut states = Vec::new();
    while states.last() != Some(&"closed".to_owned()) {
        let message = socket.next().await;
        if message["data"].get("health").is_none() {
            states.push(message["data"]["state"].as_str().unwrap().to_owned());
        }
    }
    assert_eq!(states, ["half_open", "closed"]);
}

/// Connects with a small receive buffer, so that the server soon cannot send.
async fn connect_slow(server: &Server) -> WebSocketStream<TcpStream> {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4 * 1024).unwrap();
    let stream = socket.connect(server.address().parse().unwrap()).await.unwrap();
    let url = format!("ws://{}/api/v1/circuits/ws", server.address());
    let mut request = url.into_client_request().unwrap();
    request.headers_mut().insert("authorization", format!("Bearer {READER}").parse().unwrap());
    client_async(request, stream).await.unwrap().0
}

#[tokio::test]
async fn slow_websocket_receives_number_of_missed_events() {
    let server = Files::embedded(&json!({ "agents": { "search": {} } })).start().await;
    let mut slow = connect_slow(&server).await;
    let mut quick = server.websocket().await;
    // The buffers of the kernel hold some hundreds of events.
    let (mut sent, mut received) = (0, 0);
    for _ in 0..1_500 {
        for action in ["open", "reset"] {
            server.act("search", action).await;
            sent += 1;
        }
        while received < sent {
            assert_eq!(quick.next().await["type"], "circuit_state", "the quick client misses nothing");
            received += 1;
        }
    }

    let (mut events, mut missed) = (0, 0);
    while events + missed < sent {
        let Some(Ok(Message::Text(text))) = slow.next().await else { continue };
        let message: Value = serde_json::from_str(&text).unwrap();
        match message["type"].as_str().unwrap() {
            "subscribed" => {}
            "circuit_state" => events += 1,
            "missed" => missed += message["data"]["count"].as_u64().unwrap(),
            other => panic!("{other}"),
        }
    }
    assert_eq!(events + missed, sent);
    assert!(missed > 0 && events > 256, "{missed} of {sent} were missed");
}

#[tokio::test]
async fn first_message_can_be_the_token() {
    let server = Files::embedded(&json!({ "agents": { "search": {} } })).start().await;
    let mut socket = Socket::connect(&server, None).await.unwrap();
    let mut other = server.websocket().await;
    server.act("search", "open").await;
    assert_eq!(other.next().await["data"]["state"], "open");
    socket.send(Message::text(json!({ "token": READER }).to_string())).await;
    assert_eq!(socket.next().await["type"], "subscribed");
    server.act("search", "reset").await;
    assert_eq!(socket.next().await["data"]["state"], "closed", "events before the token are not sent");
}

#[tokio::test]
async fn websocket_without_valid_token_is_closed() {
    let server = Files::embedded(&json!({ "agents": { "search": {} } })).start().await;
    for token in ["", "wrong-0123456789abcdef"] {
        match Socket::connect(&server, Some(token)).await.err().unwrap() {
            tungstenite::Error::Http(response) => assert_eq!(response.status(), 401),
            other => panic!("{other}"),
        }
    }
    for first in [
        Message::text(json!({ "token": "wrong-0123456789abcdef" }).to_string()),
        Message::text(json!({ "token": READER, "more": 1 }).to_string()),
        Message::text(READER),
        Message::binary(json!({ "token": READER }).to_string()),
    ] {
        let mut socket = Socket::connect(&server, None).await.unwrap();
        socket.send(first).await;
        let (code, reason) = socket.closed().await;
        assert_eq!((code, &*reason), (CloseCode::Policy, "the first message is not a valid token"));
    }
    // Without any message, the server closes the connection after 5 s.
    let mut silent = Socket::connect(&server, None).await.unwrap();
    assert_eq!(silent.closed().await.0, CloseCode::Policy);
}

#[tokio::test]
async fn stopping_server_closes_websockets() {
    let server = Files::embedded(&json!({ "agents": { "search": {} } })).start().await;
    let mut socket = server.websocket().await;
    let mut silent = Socket::connect(&server, None).await.unwrap();
    let (stopped, closed, silent) = tokio::join!(server.stop(), socket.closed(), silent.closed());
    assert_eq!(closed, (CloseCode::Away, "the server stops".to_owned()));
    assert_eq!(silent, closed, "also without a token");
    assert_eq!(stopped.0, Some(0), "{}", stopped.1);
    assert!(!stopped.1.contains("were cut off"), "{}", stopped.1);
}
