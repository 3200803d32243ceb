//! Rejections as the errors of the frameworks that people use.

#[cfg(feature = "axum")]
mod axum {
    use axum_core::body::Body;
    use axum_core::response::{IntoResponse, Response};
    use http::StatusCode;
    use tower_fault_classify::CarriedVerdict;

    use crate::error::{BreakerError, Rejection, TimedOut};
    use crate::fallback::unavailable;

    /// A 503 with `Retry-After`, that says what happened. It carries the rejection's verdict, so that no layer above sends the request again.
    impl IntoResponse for Rejection {
        fn into_response(self) -> Response {
            unavailable(&self, Body::from(self.public_text()))
        }
    }

    /// A 504 that says what happened. It carries the verdict.
    impl IntoResponse for TimedOut {
        fn into_response(self) -> Response {
            let mut response = Response::new(Body::from(self.to_string()));
            *response.status_mut() = StatusCode::GATEWAY_TIMEOUT;
            CarriedVerdict::insert(&mut response, (*self.fault()).into());
            response
        }
    }

    /// The response of the error that it holds.
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

    /// `UNAVAILABLE`, with the time to wait in `grpc-retry-pushback-ms`. The rejection is its source.
    impl From<Rejection> for Status {
        fn from(rejection: Rejection) -> Self {
            let mut status = Self::unavailable(rejection.public_text());
            let pushback = pushback_value(rejection.retry_after());
            // It is digits, perhaps after a sign.
            if let Ok(pushback) = pushback.to_str().unwrap_or_default().parse() {
                status.metadata_mut().insert("grpc-retry-pushback-ms", pushback);
            }
            status.set_source(std::sync::Arc::new(rejection));
            status
        }
    }

    /// `DEADLINE_EXCEEDED`. The error is its source.
    impl From<TimedOut> for Status {
        fn from(error: TimedOut) -> Self {
            let mut status = Self::deadline_exceeded(error.to_string());
            status.set_source(std::sync::Arc::new(error));
            status
        }
    }

    /// The status of the error that it holds.
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
