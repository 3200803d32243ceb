//! Scripted bodies, and calls that need no runtime.

pub(crate) mod bodies;
pub(crate) mod call;
