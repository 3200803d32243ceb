//! Error chains and error type names for messages.

use std::any::type_name;
use std::error::Error;
use std::iter::successors;

use crate::error_chain::MAX_CHAIN_LENGTH;

/// Returns an iterator over an error and its sources, from the outermost error to the cause.
pub fn error_chain<'e>(error: &'e (dyn Error + 'static)) -> impl Iterator<Item = &'e (dyn Error + 'static)> {
    successors(Some(error), |&error| error.source()).take(MAX_CHAIN_LENGTH)
}

/// Returns the name of an error's type, if the type is known.
///
/// Known are `std::io::Error` and the error types of the clients whose features are enabled. Other
/// types cannot be named, because a `dyn Error` does not contain its type name.
pub fn error_type_name(error: &(dyn Error + 'static)) -> Option<&'static str> {
    macro_rules! first_of {
        ($($(#[$only:meta])? $type:ty,)+) => {
            $(
                $(#[$only])?
                if error.is::<$type>() {
                    return Some(type_name::<$type>());
                }
            )+
        };
    }
    first_of!(
        std::io::Error,
        #[cfg(feature = "h2")]
        h2::Error,
        #[cfg(feature = "hyper")]
        hyper::Error,
        #[cfg(feature = "hyper-util")]
        hyper_util::client::legacy::Error,
        #[cfg(feature = "reqwest")]
        reqwest::Error,
        #[cfg(feature = "tokio")]
        tokio::time::error::Elapsed,
        #[cfg(feature = "tonic")]
        tonic::ConnectError,
        #[cfg(feature = "tonic")]
        tonic::Status,
        #[cfg(feature = "tonic")]
        tonic::TimeoutExpired,
        #[cfg(feature = "tower")]
        tower::buffer::error::Closed,
        #[cfg(feature = "tower")]
        tower::load_shed::error::Overloaded,
        #[cfg(feature = "tower")]
        tower::timeout::error::Elapsed,
        #[cfg(feature = "tower-http")]
        tower_http::timeout::TimeoutError,
    );
    None
}
