//! Why a body that is sent again cannot be read on.

use std::error::Error;
use std::fmt;

pub(super) type BoxError = Box<dyn Error + Send + Sync>;

/// Why a [`ReplayBody`](crate::ReplayBody) fails though the body in it does not. The client cuts the request short then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReplayError {
    /// Another attempt of the same call sends the body by now.
    TakenOver,
    /// An earlier reading of the body failed or panicked.
    Broken,
}

impl fmt::Display for ReplayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TakenOver => {
                "the request's body is sent by another attempt of the call by now; this one was given up"
            }
            Self::Broken => "the request's body broke while it was read; the error then says why",
        })
    }
}

impl Error for ReplayError {}
