//! The configuration of the demo.

use serde_json::{Value, json};

use super::services::Services;

/// The file to which a child of the validator that hangs writes a byte in each 100 ms.
pub(super) const HEARTBEAT: &str = "heartbeat";

/// A tool of the MCP server that answers late.
pub(super) const SLOW_TOOL: &str = "compare_screenshots";

/// A validator of the demo.
pub(super) struct Check {
    pub(super) dimension: &'static str,
    kind: Kind,
    /// Why its result is as it is.
    pub(super) explanation: &'static str,
}

enum Kind {
    /// A script of the shell.
    Shell(&'static str),
    /// A program without arguments.
    Program(&'static str),
    /// A tool of the MCP server.
    Tool(&'static str),
}

pub(super) const CHECKS: [Check; 7] = [
    Check {
        dimension: "code_quality",
        kind: Kind::Shell("true"),
        explanation: "The command ended with exit code 0.",
    },
    Check {
        dimension: "type_safety",
        kind: Kind::Shell("sleep 1"),
        explanation: "The command took a second. It ran while the others did.",
    },
    Check {
        dimension: "lint",
        kind: Kind::Shell("echo 'main.c:3: unused variable `x`'; exit 1"),
        explanation: "The command found a problem. This is the only check that failed.",
    },
    Check {
        dimension: "security",
        kind: Kind::Program("a-scanner-that-is-not-installed"),
        explanation: "The program is missing, so there is no verdict, and the run is degraded.",
    },
    Check {
        dimension: "coverage",
        kind: Kind::Shell("while :; do printf . >>heartbeat; sleep 0.1; done & wait"),
        explanation: "It hung, with a child. Both were killed at the limit of 2 s that the configuration sets.",
    },
    Check {
        dimension: "visual",
        kind: Kind::Tool(SLOW_TOOL),
        explanation: "The MCP server answered after 1.5 s, which is in the limit of 30 s.",
    },
    Check {
        dimension: "behavioral",
        kind: Kind::Tool("click_through"),
        explanation: "The MCP server never answered. The call ended at the limit of 2.5 s.",
    },
];

/// Returns the configuration, as a file would have it.
pub(super) fn config(services: &Services) -> Value {
    json!({
        "concurrency": CHECKS.len(),
        "timeouts": { "coverage": 2, "behavioral": 2.5 },
        "resilience": { "retry_wait": 0.2, "reset_timeout": 3 },
        "external": {
            "questdb": services.questdb_address().to_string(),
            "prometheus": services.prometheus.url(),
            "mcp": services.mcp.url(),
        },
        "validators": CHECKS.iter().map(validator).collect::<Value>(),
    })
}

fn validator(check: &Check) -> Value {
    let dimension = check.dimension;
    match check.kind {
        Kind::Shell(script) => json!({ "dimension": dimension, "command": ["sh", "-c", script] }),
        Kind::Program(program) => json!({ "dimension": dimension, "command": [program] }),
        Kind::Tool(tool) => json!({ "dimension": dimension, "tool": tool }),
    }
}
