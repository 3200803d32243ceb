//! The table of error codes and types of LLM APIs.

use crate::fault::Fault;
use crate::fault::Health::{Healthy, Neutral, Unhealthy};
use crate::fault::Kind::{Auth, Client, Overloaded, Quota, Server, Throttled, Timeout};
use crate::fault::Origin::{Caller, Remote};
use crate::fault::Retryable::{IfIdempotent, Never, Refused};
use crate::table::row::{CodeRow, code_row as row};

/// The rows, for OpenAI's `error.code` and `error.type`, and Anthropic's `error.type`.
pub(crate) const ROWS: &[CodeRow] = &[
    row(
        &["insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "billing_error"],
        Quota,
        Never,
        Neutral,
        Remote,
        "OpenAI, Anthropic",
    ),
    row(
        &["context_length_exceeded", "invalid_request_error"],
        Client,
        Never,
        Healthy,
        Caller,
        "OpenAI, Anthropic",
    ),
    row(&["not_found_error", "request_too_large"], Client, Never, Healthy, Caller, "Anthropic"),
    row(
        &["rate_limit_exceeded", "rate_limit_error"],
        Throttled,
        Refused,
        Neutral,
        Remote,
        "OpenAI, Anthropic",
    ),
    row(&["overloaded_error"], Overloaded, Refused, Unhealthy, Remote, "Anthropic"),
    row(&["server_is_overloaded"], Overloaded, Refused, Unhealthy, Remote, "OpenAI"),
    row(
        &["invalid_api_key", "authentication_error", "permission_error"],
        Auth,
        Never,
        Healthy,
        Caller,
        "OpenAI, Anthropic",
    ),
    row(&["timeout_error"], Timeout, IfIdempotent, Unhealthy, Remote, "Anthropic"),
    CodeRow { codes: &["api_error", "server_error"], fault: SERVER_ERROR, source: "OpenAI, Anthropic" },
];

/// The row of `server_error`.
pub(crate) const SERVER_ERROR: Fault = Fault::new(Server, IfIdempotent, Unhealthy, Remote);

/// Returns the fault of a code or a type.
pub(crate) fn fault(code: &str) -> Option<Fault> {
    ROWS.iter().find(|row| row.codes.contains(&code)).map(|row| row.fault)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::{Health, Kind, Retryable};

    /// The expected verdicts, written a second time.
    const EXPECTED: &[(&str, Kind, Retryable, Health)] = &[
        ("insufficient_quota", Quota, Never, Neutral),
        ("billing_hard_limit_reached", Quota, Never, Neutral),
        ("billing_not_active", Quota, Never, Neutral),
        ("billing_error", Quota, Never, Neutral),
        ("context_length_exceeded", Client, Never, Healthy),
        ("invalid_request_error", Client, Never, Healthy),
        ("not_found_error", Client, Never, Healthy),
        ("request_too_large", Client, Never, Healthy),
        ("rate_limit_exceeded", Throttled, Refused, Neutral),
        ("rate_limit_error", Throttled, Refused, Neutral),
        ("overloaded_error", Overloaded, Refused, Unhealthy),
        ("server_is_overloaded", Overloaded, Refused, Unhealthy),
        ("invalid_api_key", Auth, Never, Healthy),
        ("authentication_error", Auth, Never, Healthy),
        ("permission_error", Auth, Never, Healthy),
        ("timeout_error", Timeout, IfIdempotent, Unhealthy),
        ("api_error", Server, IfIdempotent, Unhealthy),
        ("server_error", Server, IfIdempotent, Unhealthy),
    ];

    #[test]
    fn table_rows_match_reference() {
        for &(code, kind, retryable, health) in EXPECTED {
            let fault = fault(code).unwrap_or_else(|| panic!("{code} has a row"));
            assert_eq!(
                (fault.kind(), fault.retryable(), fault.health()),
                (kind, retryable, health),
                "{code}"
            );
        }
        let codes: Vec<_> = ROWS.iter().flat_map(|row| row.codes).collect();
        assert_eq!(codes.len(), EXPECTED.len(), "each code is tested, and is listed once");
    }

    #[test]
    fn llm_code_without_row_has_no_verdict() {
        assert_eq!(fault("model_not_found"), None);
        assert_eq!(fault(""), None);
    }
}
