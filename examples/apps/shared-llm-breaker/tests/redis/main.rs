//! Tests breakers that share a real Redis server.
//!
//! The open times are those of the server, so these tests wait on the real clock.
#![cfg(unix)]

mod breaker;
mod keys;
mod log;
mod outages;
mod registry;
mod support;
