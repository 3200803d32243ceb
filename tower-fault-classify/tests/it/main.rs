//! The integration tests, one module for each subject.
//!
//! `allocation_counter` is this binary's allocator. It counts each thread's allocations separately,
//! so tests can run in parallel.

mod support;

mod allocations;
#[cfg(feature = "error-body")]
mod error_bodies;
#[cfg(feature = "test-util")]
mod fault_injection;
mod layer;
#[cfg(feature = "metrics")]
mod telemetry;
mod track_body;
mod upload;
