//! Processes of a fleet in one test: each has its own circuit and agent. All share a memory store,
//! and time is paused.

#[allow(dead_code, reason = "more tests follow")]
mod harness;
mod quorum;

use harness::*;
