//! What a server answers, and its verdict.

use std::io;
use std::time::Duration;

use http::header::RETRY_AFTER;
use http::{Response, StatusCode};
use tower_breaker::TimedOut;
use tower_fault_classify::{Verdict, classify_error, classify_response};

/// The outcome of an attempt, as the client sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Status 200.
    Ok,
    /// Status 503.
    Unavailable {
        /// The seconds of `Retry-After`, if the server sends it.
        retry_after: Option<u32>,
    },
    /// The connection was refused.
    Refused,
    /// The connection was reset.
    Reset,
    /// No answer arrived within the attempt's timeout.
    TimedOut,
}

impl Reply {
    /// Returns the verdict of the shipped classification.
    pub fn verdict(self) -> Verdict {
        if self == Self::TimedOut {
            return TimedOut::new(Duration::ZERO).fault().into();
        }
        match self.result() {
            Ok(response) => classify_response(&response),
            Err(error) => classify_error(&error).into(),
        }
    }

    /// Returns the result that an HTTP client returns to its caller.
    ///
    /// # Errors
    ///
    /// Returns the connection's error, or a timeout.
    pub fn result(self) -> io::Result<Response<()>> {
        match self {
            Self::Ok => Ok(Response::new(())),
            Self::Unavailable { retry_after } => Ok(unavailable(retry_after)),
            Self::Refused => Err(io::ErrorKind::ConnectionRefused.into()),
            Self::Reset => Err(io::ErrorKind::ConnectionReset.into()),
            Self::TimedOut => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

fn unavailable(retry_after: Option<u32>) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    if let Some(seconds) = retry_after {
        response.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    response
}

#[cfg(test)]
mod tests {
    use tower_fault_classify::{Health, Kind, Retryable};

    use super::*;

    #[test]
    fn verdicts_of_failures_are_unhealthy_and_retryable() {
        let failures = [
            (Reply::Unavailable { retry_after: None }, Retryable::IfIdempotent),
            (Reply::Refused, Retryable::Unsent),
            (Reply::Reset, Retryable::IfIdempotent),
            (Reply::TimedOut, Retryable::IfIdempotent),
        ];
        for (reply, retryable) in failures {
            let verdict = reply.verdict();
            let fault = verdict.fault().unwrap();
            assert_eq!((fault.health(), fault.retryable()), (Health::Unhealthy, retryable), "{reply:?}");
        }
        assert!(Reply::Ok.verdict().is_success());
    }

    #[test]
    fn retry_after_of_the_server_is_a_hint() {
        let verdict = Reply::Unavailable { retry_after: Some(3) }.verdict();
        assert_eq!(verdict.fault().unwrap().retry_after(), Some(Duration::from_secs(3)));
        assert_eq!(Reply::TimedOut.verdict().fault().unwrap().kind(), Kind::Timeout);
    }
}
