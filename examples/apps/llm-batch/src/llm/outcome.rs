//! The error of a call, from that of its last attempt.

use tower_breaker::BreakerError;
use tower_fault_classify::{ClassifiedError, Fault, Kind};
use tower_jitter_retry::{GiveUp, Retried};

use super::read::ApiError;
use crate::errors::{FailedLlmError, FatalLlmError, LlmError};

/// Returns whether the circuit rejected the call, or an attempt of it.
pub(super) fn is_rejected(error: &BreakerError<ClassifiedError>) -> bool {
    // If the circuit rejects a retry, the error is the failure before it. But attempts are left.
    let is_retry_rejected =
        || Retried::of(error).is_some_and(|retried| retried.ended == Some(GiveUp::Rejected));
    error.rejection().is_some() || is_retry_rejected()
}

/// Returns the error of a call that was not rejected.
pub(super) fn llm_error(error: BreakerError<ClassifiedError>) -> LlmError {
    let attempts = Retried::of(&error).map_or(1, |retried| retried.attempts);
    let classified = match error {
        BreakerError::Inner(classified) => classified,
        other => return LlmError::Failed(FailedLlmError::new("APIError", other.to_string(), attempts)),
    };
    let fault = classified.fault();
    let Some(error) = classified.into_inner() else { return LlmError::Failed(no_response(&fault, attempts)) };
    match error.downcast::<ApiError>() {
        Ok(error) => api_error(&fault, *error, attempts),
        Err(source) => {
            LlmError::Failed(FailedLlmError { source: Some(source), ..no_response(&fault, attempts) })
        }
    }
}

/// Returns the error of a response that is not a reply.
fn api_error(fault: &Fault, error: ApiError, attempts: u32) -> LlmError {
    let ApiError { error_type, status, message } = error;
    match (fault.kind(), status.map(|status| status.as_u16())) {
        // 402 is the answer of APIs that are paid in advance.
        (Kind::Quota, _) | (_, Some(402)) => LlmError::Quota(FatalLlmError::new(error_type, message)),
        (Kind::Client | Kind::Auth, None | Some(400 | 401 | 403 | 404)) => {
            LlmError::Fatal(FatalLlmError::new(error_type, message))
        }
        _ => LlmError::Failed(FailedLlmError::new(error_type, message, attempts)),
    }
}

/// Returns the error of a call without a complete response.
fn no_response(fault: &Fault, attempts: u32) -> FailedLlmError {
    let (error_type, message) = match fault.kind() {
        Kind::Timeout => ("APITimeoutError", "no complete reply in time; check the API or raise `timeout`"),
        _ => ("APIConnectionError", "the connection to the API failed; check `base_url` and the network"),
    };
    FailedLlmError::new(error_type, message, attempts)
}
