//! The beginning of an error's body, read before the response goes on.

mod body;
mod error_body;
mod reading;

pub use body::PeekedBody;
pub use error_body::{BodyRule, ErrorBodies, ErrorBody};
pub use reading::Reading;
