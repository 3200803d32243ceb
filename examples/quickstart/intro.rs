//! The text before the progress: the clients, the changed settings, and the columns.

use std::time::Duration;

use tower_breaker::{BreakerConfig, ConfigError};
use tower_jitter_retry::RetryPolicy;

use crate::clients::{ATTEMPT_TIMEOUT, MAX_ATTEMPTS, breaker_config, retry_policy};

/// Returns the text.
pub(crate) fn text() -> Result<String, ConfigError> {
    Ok([clients(), settings()?, COLUMNS.to_owned()].join("\n\n"))
}

fn clients() -> String {
    format!(
        "\
Two clients make 200 calls a second each. Each client has its own server, and both servers have the
same outage.

  naive  up to {MAX_ATTEMPTS} requests for a call, immediately one after the other; timeout {ATTEMPT_TIMEOUT:?} each
  stack  the same limits, with the layers JitterRetry, Breaker, FaultClassify and Timeout"
    )
}

/// Returns a table of the stack's settings that differ from the defaults.
fn settings() -> Result<String, ConfigError> {
    let demo_values = setting_values(&retry_policy()?, &breaker_config()?);
    let default_values = setting_values(&RetryPolicy::default(), &BreakerConfig::default());

    let mut lines = vec![
        "Settings of the stack that are changed because the demo is short:".to_owned(),
        String::new(),
        table_row("setting", "demo", "default"),
    ];
    for ((name, demo), (_, default)) in demo_values.iter().zip(&default_values) {
        lines.push(table_row(name, demo, default));
    }
    Ok(lines.join("\n"))
}

/// Returns the values of the settings that the demo changes, by name.
fn setting_values(retry: &RetryPolicy, breaker: &BreakerConfig) -> [(&'static str, String); 6] {
    let optional = |value: Option<Duration>| value.map_or("none".to_owned(), |value| format!("{value:?}"));
    [
        ("retry: initial_backoff", format!("{:?}", retry.backoff().initial_backoff())),
        ("retry: max_elapsed", optional(retry.max_elapsed())),
        ("breaker: consecutive_failures", breaker.consecutive_failures().to_string()),
        ("breaker: minimum_calls", breaker.minimum_calls().to_string()),
        ("breaker: time_window", optional(breaker.time_window())),
        ("breaker: open_for", format!("{:?}", breaker.open_for())),
    ]
}

fn table_row(name: &str, demo: &str, default: &str) -> String {
    format!("  {name:<30}{demo:>8}{default:>10}")
}

const COLUMNS: &str = "\
Columns of the progress lines, for each second:

  calls      calls that the client started
  requests   requests that reached the server, retries included
  answered   calls that ended with an answer
  failed     calls that ended with an error
  rejected   calls that the open circuit rejected; no request was sent

A call can end in a later second than it started.
";
