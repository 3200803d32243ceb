//! The text before the progress: the clients, the changed setting, and the columns.

use tower_breaker::{BreakerConfig, ConfigError};

use crate::clients::{ATTEMPT_TIMEOUT, MAX_ATTEMPTS, breaker_config};

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

/// Names the setting of the stack that differs from the defaults.
fn settings() -> Result<String, ConfigError> {
    let open_for = breaker_config()?.open_for();
    let default_open_for = BreakerConfig::default().open_for();
    Ok(format!(
        "\
The stack has the default settings, except one: its circuit stays open for {open_for:?} instead of
{default_open_for:?}, and up to half longer by jitter, because the outage lasts only 3 s."
    ))
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
