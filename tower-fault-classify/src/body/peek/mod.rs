//! Reads the beginning of an error response's body before the response is returned.

mod body;
mod error_body;
mod reading;

pub use body::PeekedBody;
pub use error_body::{BodyRule, ErrorBodies, ErrorBody};
pub use reading::Reading;
