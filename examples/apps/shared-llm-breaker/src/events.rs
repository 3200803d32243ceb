//! The seven log events.
//!
//! The message of an event is its name. The target is `shared_llm_breaker`.

use std::fmt::Display;

use tracing::{debug, info, warn};

use crate::state::CircuitState;

const TARGET: &str = "shared_llm_breaker";

pub(crate) fn state_change(breaker: &str, old: CircuitState, new: CircuitState) {
    let (old_state, new_state) = (old.as_str(), new.as_str());
    warn!(target: TARGET, breaker, old_state, new_state, "circuit_breaker_state_change");
}

pub(crate) fn failure(breaker: &str, fail_counter: u64, error: &dyn Display) {
    warn!(target: TARGET, breaker, fail_counter, %error, "circuit_breaker_failure");
}

pub(crate) fn success(breaker: &str) {
    debug!(target: TARGET, breaker, "circuit_breaker_success");
}

pub(crate) fn half_open_success(breaker: &str, success_count: u32, threshold: u32) {
    debug!(target: TARGET, breaker, success_count, threshold, "circuit_breaker_half_open_success");
}

pub(crate) fn closing(breaker: &str) {
    info!(target: TARGET, breaker, "circuit_breaker_closing");
}

pub(crate) fn half_open_failure(breaker: &str) {
    warn!(target: TARGET, breaker, "circuit_breaker_half_open_failure");
}

pub(crate) fn reset(breaker: &str) {
    info!(target: TARGET, breaker, "circuit_breaker_reset");
}
