//! The grant rules of each kind of budget: pure functions in exact fixed point, tested without
//! threads or time.

pub(super) mod tokens;
pub(super) mod window;
