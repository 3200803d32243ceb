//! The page.

use http::{HeaderValue, Response};

use crate::body::AdminBody;

/// Returns the page. `head`: without the body.
pub(crate) fn page(_head: bool, _if_none_match: Option<&HeaderValue>) -> Response<AdminBody> {
    Response::new(AdminBody::empty())
}
