//! The live events as server-sent events.

use serde_json::{Value, json};
use tokio::time::timeout;

use crate::support::{DEADLINE, Files, READER, Server, client};

/// The events of a response.
struct Events {
    response: reqwest::Response,
    text: String,
}

impl Events {
    async fn connect(server: &Server) -> Self {
        let request = client().get(server.url("/api/v1/circuits/events")).bearer_auth(READER);
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        assert_eq!(response.headers()["x-accel-buffering"], "no");
        Self { response, text: String::new() }
    }

    /// Returns the name and the data of the next event. `None`: the stream has ended.
    async fn next(&mut self) -> Option<(String, Value)> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let (event, rest) = (event.to_owned(), rest.to_owned());
                self.text = rest;
                let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name));
                // A comment keeps the connection open.
                let Some(data) = field("data: ") else { continue };
                return Some((field("event: ").unwrap().to_owned(), serde_json::from_str(data).unwrap()));
            }
            let chunk = timeout(DEADLINE, self.response.chunk()).await.expect("data arrives").unwrap()?;
            self.text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }
}

#[tokio::test]
async fn event_stream_sends_states_and_ends_with_server() {
    let server = Files::embedded(&json!({ "agents": { "search": {} } })).start().await;
    let mut events = Events::connect(&server).await;
    assert_eq!(events.next().await.unwrap().0, "subscribed");
    for (action, state) in [("open", "open"), ("close", "closed"), ("open", "open"), ("reset", "closed")] {
        server.act("search", action).await;
        let (name, event) = events.next().await.unwrap();
        assert_eq!((&*name, &event["type"]), ("circuit_state", &json!("circuit_state")));
        assert_eq!(event["data"]["state"], state);
        assert_eq!(event["data"]["stats"]["name"], "search");
    }
    let (stopped, end) = tokio::join!(server.stop(), events.next());
    assert!(end.is_none(), "{end:?}");
    assert_eq!(stopped.0, Some(0), "{}", stopped.1);
    assert!(!stopped.1.contains("were cut off"), "{}", stopped.1);
}

#[tokio::test]
async fn each_transition_is_logged() {
    let server = Files::embedded(&json!({ "agents": { "search": {} } })).start().await;
    server.act("search", "open").await;
    server.act("search", "close").await;
    let (_, logs) = server.stop().await;
    for line in
        [r#"circuit is open: tripped circuit="search""#, r#"circuit is closed: reset circuit="search""#]
    {
        assert!(logs.contains(line), "{logs}");
    }
}
