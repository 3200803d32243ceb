//! The events of the server, as they arrive.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use reqwest::{Client, Response};
use serde_json::Value;
use tokio::time::timeout;

use super::Story;
use super::process::{READER, Server};

/// How long the demo waits for an event.
const LIMIT: Duration = Duration::from_secs(15);

/// The server-sent events.
pub(super) struct Events {
    response: Response,
    text: String,
    story: Story,
}

impl Events {
    pub(super) async fn connect(client: &Client, server: &Server, story: Story) -> Result<Self> {
        let request = client.get(server.url("/api/v1/circuits/events")).bearer_auth(READER);
        let response = request.send().await.context("the events of the demo cannot be read")?;
        Ok(Self { response, text: String::new(), story })
    }

    /// Prints events until the circuit of an agent is in a state.
    pub(super) async fn wait_for(&mut self, agent: &str, state: &str) -> Result<()> {
        self.wait_for_all(&[agent], state).await
    }

    /// Prints events until the circuits of all agents are in a state.
    pub(super) async fn wait_for_all(&mut self, agents: &[&str], state: &str) -> Result<()> {
        let mut waiting = agents.to_vec();
        while !waiting.is_empty() {
            let Ok(message) = timeout(LIMIT, self.next()).await else {
                bail!("the demo waits in vain for the state {state} of {waiting:?}");
            };
            let message = message?;
            self.story.event(&message)?;
            if message["data"]["state"] == state && message["data"].get("health").is_none() {
                waiting.retain(|agent| message["data"]["agent_id"] != *agent);
            }
        }
        Ok(())
    }

    async fn next(&mut self) -> Result<Value> {
        loop {
            if let Some(end) = self.text.find("\n\n") {
                let event: String = self.text.drain(..end + 2).collect();
                let data =
                    event.lines().find_map(|line| line.strip_prefix("data: ")).map(serde_json::from_str);
                match data {
                    Some(message) => return message.context("an event of the demo is not JSON"),
                    // A comment keeps the connection open.
                    None => continue,
                }
            }
            let chunk = self.response.chunk().await.context("the events of the demo have ended")?;
            let chunk = chunk.context("the events of the demo have ended")?;
            self.text.push_str(&String::from_utf8_lossy(&chunk));
        }
    }
}
