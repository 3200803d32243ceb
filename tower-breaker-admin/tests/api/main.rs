//! Tests of the API through the service, as a client sees it.

#![cfg(all(feature = "fleet", feature = "keyed"))]

mod access;
mod actions;
mod audit;
mod bodies;
mod fleet;
mod fuzz;
mod harness;
#[cfg(feature = "tracing")]
mod logs;
mod nesting;
mod openapi;
mod reads;
