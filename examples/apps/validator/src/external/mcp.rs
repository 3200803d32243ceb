//! Tools of an MCP server: JSON-RPC over HTTP.

use std::error::Error;
use std::fmt;

use futures::FutureExt;
use futures::future::BoxFuture;
use reqwest::Client;
use reqwest::header::ACCEPT;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{External, MCP, NotConfigured};
use crate::error::CheckError;
use crate::result::{Details, Verdict, shorten};
use crate::validator::Validator;

/// The answer to a JSON-RPC request.
#[derive(Deserialize)]
struct Answer {
    result: Option<ToolResult>,
    error: Option<RpcError>,
}

#[derive(Deserialize)]
struct RpcError {
    code: i64,
    message: String,
}

/// The result of a tool.
#[derive(Debug, Deserialize)]
pub(super) struct ToolResult {
    #[serde(default)]
    content: Vec<Value>,
    /// The tool ran, and failed.
    #[serde(default, rename = "isError")]
    is_error: bool,
}

/// The MCP server did not run the tool.
#[derive(Debug)]
pub struct ToolError {
    tool: String,
    code: Option<i64>,
    message: String,
}

impl fmt::Display for ToolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tool, code, message } = self;
        match code {
            Some(code) => write!(f, "tool `{tool}` was refused with code {code}: {message}"),
            None => write!(f, "tool `{tool}` has no result: {message}"),
        }
    }
}

impl Error for ToolError {}

/// Calls a tool of an MCP server. The check passes if the tool does not report an error.
///
/// The tool may check something itself, or start an agent, such as a tool `spawn_agent`. The server
/// must accept `tools/call` without a session, and answer with JSON.
#[derive(Clone, Debug)]
pub struct ToolValidator {
    dimension: String,
    tier: u8,
    tool: String,
    arguments: Map<String, Value>,
    external: External,
}

impl ToolValidator {
    /// Creates a validator that calls `tool` with `arguments`.
    ///
    /// # Errors
    ///
    /// Returns an error if the configuration of `external` has no MCP server.
    pub fn new(
        dimension: impl Into<String>,
        tier: u8,
        tool: impl Into<String>,
        arguments: Map<String, Value>,
        external: External,
    ) -> Result<Self, NotConfigured> {
        external.mcp_url()?;
        Ok(Self { dimension: dimension.into(), tier, tool: tool.into(), arguments, external })
    }

    async fn run(&self) -> Result<Verdict, CheckError> {
        let result = self.external.call_tool(&self.tool, &self.arguments).await?;
        let passed = !result.is_error;
        let outcome = if passed { "passed" } else { "failed" };
        let text = result.content.iter().find_map(|part| part["text"].as_str());
        let message = match text.and_then(|text| text.lines().next()) {
            Some(line) => format!("tool `{}` {outcome}: {}", self.tool, shorten(line)),
            None => format!("tool `{}` {outcome}", self.tool),
        };
        let details = Details::from_iter([
            ("tool".to_owned(), self.tool.clone().into()),
            ("content".to_owned(), result.content.into()),
        ]);
        Ok(Verdict { passed, message, details })
    }
}

impl Validator for ToolValidator {
    fn dimension(&self) -> &str {
        &self.dimension
    }

    fn tier(&self) -> u8 {
        self.tier
    }

    fn validate(&self) -> BoxFuture<'_, Result<Verdict, CheckError>> {
        self.run().boxed()
    }
}

impl External {
    fn mcp_url(&self) -> Result<&str, NotConfigured> {
        self.config.mcp.as_deref().ok_or(NotConfigured { service: MCP })
    }

    async fn call_tool(&self, tool: &str, arguments: &Map<String, Value>) -> Result<ToolResult, CheckError> {
        let url = self.mcp_url()?;
        self.call(MCP, || send(&self.client, url, tool, arguments)).await
    }
}

async fn send(
    client: &Client,
    url: &str,
    tool: &str,
    arguments: &Map<String, Value>,
) -> Result<ToolResult, CheckError> {
    let call = json!({
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/call",
        "params": { "name": tool, "arguments": arguments },
    });
    let request = client.post(url).header(ACCEPT, "application/json").json(&call);
    let answer: Answer = request.send().await?.error_for_status()?.json().await?;
    let refusal = match answer {
        Answer { result: Some(result), .. } => return Ok(result),
        Answer { error: Some(error), .. } => (Some(error.code), error.message),
        Answer { .. } => (None, "the answer has neither `result` nor `error`".to_owned()),
    };
    let (code, message) = refusal;
    Err(ToolError { tool: tool.to_owned(), code, message }.into())
}
