//! The services of the demo, on loopback.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use test_servers::{Action, Http, RecordedRequest, RefusedPort};

use super::checks::SLOW_TOOL;

/// How long the slow tool takes.
const SLOW: Duration = Duration::from_millis(1_500);

pub(super) struct Services {
    pub(super) mcp: Http,
    /// Breaks the connections of the first two requests.
    pub(super) prometheus: Http,
    /// Refuses connections.
    pub(super) questdb: RefusedPort,
}

impl Services {
    pub(super) async fn start() -> Self {
        let mcp = Http::start().await;
        mcp.set_handler(call_tool);
        let prometheus = Http::start().await;
        prometheus.script([Action::ResetAfterRequest, Action::ResetAfterRequest]);
        Self { mcp, prometheus, questdb: RefusedPort::bind() }
    }

    pub(super) fn questdb_address(&self) -> SocketAddr {
        self.questdb.address()
    }
}

/// One tool answers late, and the other one never.
fn call_tool(request: &RecordedRequest) -> Action {
    let call: Value = serde_json::from_slice(&request.body).unwrap_or_default();
    if call["params"]["name"] != SLOW_TOOL {
        return Action::Hang;
    }
    let content = json!([{ "type": "text", "text": "3 screenshots are equal" }]);
    let answer = json!({ "jsonrpc": "2.0", "id": call["id"], "result": { "content": content } });
    Action::status(200).body(answer.to_string()).delay(SLOW)
}
