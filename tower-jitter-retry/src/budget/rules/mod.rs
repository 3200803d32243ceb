//! What each kind of budget grants: pure, in exact fixed point, tested without threads or time.

pub(super) mod tokens;
pub(super) mod window;
