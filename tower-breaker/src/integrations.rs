//! Conversions of rejections to the responses and statuses of axum and tonic.

#[cfg(feature = "axum")]
mod axum {
    use axum_core::body::Body;
    use axum_core::response::{IntoResponse, Response};
    use http::StatusCode;
    use tower_fault_classify::CarriedVerdict;

    use crate::error::{BreakerError, Rejection, TimedOut};
    use crate::fallback::http::unavailable;

    /// Converts the rejection to a 503 response with `Retry-After`.
    ///
    /// The body is the rejection's text without the key. The response carries the rejection's
    /// verdict: no layer above sends the request again.
    impl IntoResponse for Rejection {
        fn into_response(self) -> Response {
            unavailable(&self, Body::from(self.public_text()))
        }
    }

    /// Converts the timeout to a 504 response.
    ///
    /// The body is the error's text, and the response carries the verdict.
    impl IntoResponse for TimedOut {
        fn into_response(self) -> Response {
            let mut response = Response::new(Body::from(self.to_string()));
            *response.status_mut() = StatusCode::GATEWAY_TIMEOUT;
            CarriedVerdict::insert(&mut response, self.fault().into());
            response
        }
    }

    /// Returns the response of the error in it.
    impl<E: IntoResponse> IntoResponse for BreakerError<E> {
        fn into_response(self) -> Response {
            match self {
                Self::Rejected(rejection) => rejection.into_response(),
                Self::Inner(error) => error.into_response(),
                Self::TimedOut(error) => error.into_response(),
            }
        }
    }
}

#[cfg(feature = "tonic")]
mod tonic {
    use tonic::Status;
    use tower_fault_classify::__internals::pushback_value;

    use crate::error::{BreakerError, Rejection, TimedOut};

    /// Converts the rejection to `UNAVAILABLE`, with the time to wait in `grpc-retry-pushback-ms`.
    ///
    /// The message does not contain the key. The rejection is the status's source.
    impl From<Rejection> for Status {
        fn from(rejection: Rejection) -> Self {
            let mut status = Self::unavailable(rejection.public_text());
            let pushback = pushback_value(rejection.retry_after());
            // The value consists of digits, perhaps after a sign.
            if let Ok(pushback) = pushback.to_str().unwrap_or_default().parse() {
                status.metadata_mut().insert("grpc-retry-pushback-ms", pushback);
            }
            status.set_source(std::sync::Arc::new(rejection));
            status
        }
    }

    /// Converts the timeout to `DEADLINE_EXCEEDED`. The error is the status's source.
    impl From<TimedOut> for Status {
        fn from(error: TimedOut) -> Self {
            let mut status = Self::deadline_exceeded(error.to_string());
            status.set_source(std::sync::Arc::new(error));
            status
        }
    }

    /// Returns the status of the error in it.
    impl<E: Into<Status>> From<BreakerError<E>> for Status {
        fn from(error: BreakerError<E>) -> Self {
            match error {
                BreakerError::Rejected(rejection) => rejection.into(),
                BreakerError::Inner(error) => error.into(),
                BreakerError::TimedOut(error) => error.into(),
            }
        }
    }
}
