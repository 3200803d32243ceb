//! Tests breakers that share a real Redis server.
//!
//! The open times are those of the server, so these tests wait on the real clock.
#![cfg(unix)]

mod api;
mod breaker;
mod counting_api;
mod keys;
mod log;
mod outages;
mod processes;
mod registry;
mod support;
mod worker;
