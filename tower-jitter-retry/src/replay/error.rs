//! The errors of a body that can be sent again.

use std::error::Error;
use std::fmt;

use tower_fault_classify::upload::UploadError;

pub(super) type BoxError = Box<dyn Error + Send + Sync>;

/// Marks an error as an error of the request's body, so that it is not classified as an error of
/// the connection.
pub(super) fn upload_error(error: impl Into<BoxError>) -> BoxError {
    UploadError::new(error).into()
}

/// Why a [`ReplayBody`](crate::ReplayBody) fails although the body in it does not.
///
/// The client then truncates the request. The error is the source of an [`UploadError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReplayError {
    /// Another attempt of the same call has taken over the body.
    TakenOver,
    /// An earlier read of the body failed or panicked.
    Broken,
}

impl fmt::Display for ReplayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TakenOver => "another attempt of the call took over the request body",
            Self::Broken => "an earlier read of the request body failed or panicked",
        })
    }
}

impl Error for ReplayError {}
