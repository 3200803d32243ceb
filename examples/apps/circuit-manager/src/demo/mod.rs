//! The subcommand `demo`: an outage, an operator, a killed server and its restart.

mod agents;
mod events;
mod process;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use http::Method;
use reqwest::Client;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use self::agents::DemoAgents;
use self::events::Events;
use self::process::{Files, OPERATOR, READER, Server};
use crate::output::print;
use crate::serve::client;

const INTRODUCTION: &str = "\
A server for three agents, which this program simulates. It runs as a process of its own:

  circuit-manager serve --embedded circuits.json --token-file tokens --config config.json

The settings: 5 failures in a row open the circuit of an agent, for 4 s. Then 2 successes close it.
";

/// Prints the steps and the events, as text or as lines of JSON.
#[derive(Clone, Copy)]
pub(crate) struct Story {
    json: bool,
    started: Instant,
}

impl Story {
    fn step(self, text: &str) -> Result<()> {
        if self.json { print(json!({ "step": text })) } else { print(format_args!("\n{text}")) }
    }

    fn event(self, message: &Value) -> Result<()> {
        if self.json {
            return print(json!({ "event": message }));
        }
        let data = &message["data"];
        let (Some(agent), Some(state)) = (data["agent_id"].as_str(), data["state"].as_str()) else {
            return Ok(());
        };
        let seconds = self.started.elapsed().as_secs_f64();
        match data["health"].as_str() {
            Some(health) => print(format_args!("  {seconds:4.1} s  {agent:<8} is {health}")),
            None => print(format_args!("  {seconds:4.1} s  {agent:<8} circuit {state}")),
        }
    }

    fn answer(self, request: &str, status: u16, body: &Value) -> Result<()> {
        if self.json {
            return print(json!({ "request": request, "status": status, "body": body }));
        }
        let (Some(state), Some(opened_at)) = (body["state"].as_str(), body["opened_at"].as_str()) else {
            return print(format_args!("  {request}\n    {status} {body}"));
        };
        let failures = &body["failure_count"];
        print(format_args!("  {request}\n    {status} {state} since {opened_at}, {failures} failures"))
    }

    fn fact(self, text: &str) -> Result<()> {
        if self.json { print(json!({ "fact": text })) } else { print(format_args!("  {text}")) }
    }
}

/// Runs the demo.
pub(crate) async fn run(json: bool) -> Result<()> {
    let story = Story { json, started: Instant::now() };
    let agents = DemoAgents::start().await?;
    let files = Files::write(&agents.url())?;
    let client = client()?;
    if !json {
        print(INTRODUCTION.trim_end())?;
    }
    let server = files.start().await?;
    let mut demo = Demo { story, agents, client, server };
    demo.billing_fails().await?;
    demo.operator_opens_mail().await?;
    demo.server_is_killed(&files).await?;
    demo.agents_recover().await?;
    demo.server.stop().await?;
    story.step("5. The server has stopped. Its audit file has each attempt to change a circuit:")?;
    for record in files.audit()? {
        let field = |name: &str| record[name].as_str().unwrap_or("-").to_owned();
        let (user, agent, action) = (field("user"), field("agent_id"), field("action"));
        story.fact(&format!("{user:<5} {action:<5} {agent:<5} {}", record["status"]))?;
    }
    Ok(())
}

struct Demo {
    story: Story,
    agents: DemoAgents,
    client: Client,
    server: Server,
}

impl Demo {
    async fn billing_fails(&self) -> Result<()> {
        let mut events = self.follow().await?;
        self.story.step("1. billing fails. Its circuit opens, and the server stops calling it.")?;
        self.agents.set_down("billing", true);
        events.wait_for("billing", "open").await?;
        let calls = self.agents.calls("billing");
        sleep(Duration::from_secs(1)).await;
        let more = self.agents.calls("billing") - calls;
        self.story.fact(&format!("{more} calls reached billing in the next second"))
    }

    async fn operator_opens_mail(&self) -> Result<()> {
        self.story.step("2. An operator opens the circuit of mail. A reader may not.")?;
        let open = json!({ "action": "open", "reason": "the provider asked us to stop" });
        let path = "/api/v1/circuits/mail/action";
        self.send(READER, Method::POST, path, Some(&open)).await?;
        self.send(OPERATOR, Method::POST, path, Some(&open)).await
    }

    async fn server_is_killed(&mut self, files: &Files) -> Result<()> {
        self.story.step("3. The server is killed and started again. The circuits are still open.")?;
        files.wait_for_open("mail").await?;
        self.server.kill().await?;
        self.server = files.start().await?;
        for agent in ["billing", "mail"] {
            self.send(READER, Method::GET, &format!("/api/v1/circuits/{agent}"), None).await?;
        }
        Ok(())
    }

    async fn agents_recover(&self) -> Result<()> {
        let mut events = self.follow().await?;
        self.story.step("4. billing works again. Both circuits probe after their cooldown, and close.")?;
        self.agents.set_down("billing", false);
        events.wait_for_all(&["billing", "mail"], "closed").await
    }

    async fn follow(&self) -> Result<Events> {
        Events::connect(&self.client, &self.server, self.story).await
    }

    async fn send(&self, token: &str, method: Method, path: &str, body: Option<&Value>) -> Result<()> {
        let mut request = self.client.request(method.clone(), self.server.url(path)).bearer_auth(token);
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await.context("the server of the demo does not answer")?;
        let status = response.status();
        ensure!(!status.is_server_error(), "the server of the demo answered {status}");
        let body: Value = response.json().await.context("the server of the demo answered no JSON")?;
        self.story.answer(&format!("{method} {path}"), status.as_u16(), &body)
    }
}
