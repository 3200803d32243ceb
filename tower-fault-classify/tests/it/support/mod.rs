//! Bodies that play a script, and calls that need no runtime.

pub(crate) mod bodies;
pub(crate) mod call;
