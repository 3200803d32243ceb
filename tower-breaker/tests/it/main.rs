//! The integration tests, one module per subject. Tests that need a process of their own are
//! binaries of their own beside this folder.
//!
//! This crate's dependency on itself enables the features `keyed`, `stream`, `tokio` and `tower`
//! for every test.

mod calls;
#[cfg(feature = "serde")]
mod clocks;
mod control;
mod fallback;
mod histories;
mod keyed;
mod last_failure;
mod not_ready;
#[cfg(all(feature = "metrics", feature = "tracing"))]
mod observers;
#[cfg(all(feature = "axum", feature = "tonic"))]
mod people;
mod policies;
mod readiness;
mod registry;
mod reservations;
mod shared_circuit;
mod track_body;
mod traps;
mod windows;
mod without_tower;
