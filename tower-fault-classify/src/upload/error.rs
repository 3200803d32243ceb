//! The error of a request's body that fails.

use std::error::Error;
use std::fmt;

use crate::error::BoxError;

/// The error of a request's body that failed while it was sent.
///
/// [`classify_error`](crate::classify_error) classifies it as the caller's fault: kind `client`,
/// never retried, neutral. It does not look at the sources: an upload source that fails with
/// `ConnectionRefused` does not mean that the server refuses connections.
///
/// hyper's clients wrap the errors of request bodies, and the retry's `ReplayBody` wraps the errors
/// of the body that it replays. If your client passes such errors on without a wrapper, wrap the
/// errors of your own request bodies:
///
/// ```
/// use std::io::{Error, ErrorKind};
/// use tower_fault_classify::{Health, Kind, classify_error, upload::UploadError};
///
/// let error = UploadError::new(Error::from(ErrorKind::ConnectionRefused));
/// let fault = classify_error(&error);
/// assert_eq!((fault.kind(), fault.health()), (Kind::Client, Health::Neutral));
/// ```
#[derive(Debug)]
pub struct UploadError(BoxError);

impl UploadError {
    /// Wraps the error of a request's body.
    ///
    /// A `source` that is an `UploadError` itself is not wrapped again.
    pub fn new(source: impl Into<BoxError>) -> Self {
        match source.into().downcast::<Self>() {
            Ok(wrapped) => *wrapped,
            Err(source) => Self(source),
        }
    }

    /// Returns the body's own error.
    pub fn into_inner(self) -> BoxError {
        self.0
    }
}

impl fmt::Display for UploadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("request body failed")
    }
}

impl Error for UploadError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.0)
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    use crate::error_chain::{ErrorChain, classify_error};
    use crate::fault::{Health, Kind, Origin, Retryable};

    #[test]
    fn upload_error_is_client_fault_regardless_of_cause() {
        for kind in
            [io::ErrorKind::ConnectionRefused, io::ErrorKind::ConnectionReset, io::ErrorKind::TimedOut]
        {
            let error = io::Error::other(UploadError::new(UploadError::new(io::Error::from(kind))));
            let fault = classify_error(&error);
            assert_eq!((fault.kind(), fault.retryable()), (Kind::Client, Retryable::Never), "{kind:?}");
            assert_eq!((fault.health(), fault.origin()), (Health::Neutral, Origin::Caller), "{kind:?}");
        }
    }

    #[test]
    fn upload_error_is_wrapped_once_and_returned() {
        let error = UploadError::new(UploadError::new("the disk is gone"));
        assert_eq!(error.to_string(), "request body failed");
        assert_eq!(ErrorChain(&error).to_string(), "request body failed: the disk is gone");
        assert_eq!(error.source().map(ToString::to_string).as_deref(), Some("the disk is gone"));
        assert_eq!(error.into_inner().to_string(), "the disk is gone");
    }
}
