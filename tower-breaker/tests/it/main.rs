//! The integration tests, one module per subject. Tests that need a separate process are separate
//! binaries, next to this directory.
//!
//! The crate has a development dependency on itself. It enables the features `keyed`, `stream`,
//! `tokio` and `tower` for all tests.

mod calls;
mod circuit;
#[cfg(feature = "serde")]
mod clocks;
mod commands;
mod control;
mod errors;
mod failed_retries;
mod failure_span;
mod failure_subjects;
mod fallback;
mod guard_failures;
mod guards;
mod half_open;
mod histories;
#[cfg(all(feature = "axum", feature = "tonic"))]
mod integrations;
mod keyed;
mod last_calls;
mod last_failure;
mod not_ready;
#[cfg(all(feature = "metrics", feature = "tracing"))]
mod observers;
mod overrides;
mod policies;
mod readiness;
mod recorded;
mod registry;
mod reservations;
mod shared_circuit;
mod slow_start;
mod snapshots;
mod stalled_bodies;
mod support;
#[cfg(feature = "test-util")]
mod test_util;
mod track_body;
mod trip;
mod waiting;
mod waiting_wakes;
mod windows;
