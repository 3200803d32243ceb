//! Processes of a fleet in one test: each has its own circuit and agent. All share a memory store,
//! and time is paused.

mod flush;
mod harness;
#[cfg(feature = "keyed")]
mod keyed;
mod local_operations;
#[cfg(feature = "tracing")]
mod logs;
#[cfg(feature = "metrics")]
mod metrics;
mod outage;
mod overrides;
mod quorum;
mod rates;
mod recovery;
mod restart;
mod signals;
mod telemetry;

use harness::*;
use tokio::time::{Instant, sleep};
use tower_breaker::{Circuit, CircuitState, Reason};
use tower_breaker_fleet::{Availability, Fleet, MemoryStore};
