//! Circuits of `tower-breaker` that several processes share, kept over restarts.
//!
//! Decisions stay local: a call never waits for the store. An agent in each process exchanges small
//! messages with the store, and commands the local circuit: stay open for a time, admit one probe,
//! close. Without the store each process decides for itself.

mod agent;
mod builder;
mod error;
mod fleet;
mod operation;
mod quorum;
mod record;
#[allow(dead_code, reason = "the agent follows")]
mod rules;
mod seconds;
mod status;
#[allow(dead_code, unreachable_pub, reason = "the stores and the agent follow")]
mod store;

pub use builder::FleetBuilder;
pub use error::FleetError;
pub use fleet::{Fleet, FleetAgent};
pub use operation::{FleetAction, FleetOperation};
pub use quorum::Quorum;
pub use record::{CircuitRecord, FleetState, Override};
pub use status::{FleetCircuitStatus, FleetStatus};
#[cfg(all(feature = "file", unix))]
pub use store::FileStore;
#[cfg(feature = "postgres")]
pub use store::PostgresStore;
#[cfg(feature = "redis")]
pub use store::RedisStore;
pub use store::{Availability, Delivery, FleetStore, MemoryStore};
