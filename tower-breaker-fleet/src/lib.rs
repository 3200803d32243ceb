//! Circuits of `tower-breaker` that several processes share, kept over restarts.
//!
//! Decisions stay local: a call never waits for the store. An agent in each process exchanges small
//! messages with the store, and commands the local circuit: stay open for a time, admit one probe,
//! close. Without the store each process decides for itself.
//!
//! [`Fleet`] has an example. The guide [Sharing circuits][guide] has the guarantees and limits, how
//! to choose the quorum, and what happens when the store fails.
//!
//! | item | |
//! |---|---|
//! | [`Fleet`], [`FleetBuilder`], [`FleetAgent`] | the handle, its settings, and the task that does the work |
//! | `FileStore`, `RedisStore`, `PostgresStore`, [`MemoryStore`] | where the processes share their decisions |
//! | [`Quorum`] | how many processes open a circuit |
//! | `KeyedSharing` | how circuits by key are shared (feature `keyed`) |
//! | [`FleetOperation`], [`FleetAction`] | manual control of all processes |
//! | [`FleetStatus`], [`FleetCircuitStatus`], [`CircuitRecord`] | what to show on a dashboard |
//!
//! # Features
//!
//! No feature is enabled by default.
//!
//! | feature | adds |
//! |---|---|
//! | `file` | `FileStore`: the processes of one machine share files (Unix) |
//! | `redis`, `redis-tls` | `RedisStore`: Redis and Valkey, also clusters; TLS |
//! | `postgres`, `postgres-tls` | `PostgresStore`, also behind pgbouncer; TLS |
//! | `keyed` | circuits by key |
//! | `metrics`, `tracing` | metrics of the fleet; log events |
//!
//! # Minimum Rust version
//!
//! Rust 1.88.
//!
//! [guide]: https://github.com/OWNER/tower-resilience-layers/blob/main/docs/sharing.md

#![cfg_attr(docsrs, feature(doc_cfg))]

mod agent;
mod builder;
mod error;
mod fleet;
#[cfg(feature = "keyed")]
mod keyed;
mod operation;
mod quorum;
mod record;
mod rules;
mod seconds;
mod status;
#[allow(unreachable_pub, reason = "the trait of the stores is sealed by its private module")]
mod store;

pub use builder::FleetBuilder;
pub use error::FleetError;
pub use fleet::{Fleet, FleetAgent};
#[cfg(feature = "keyed")]
pub use keyed::KeyedSharing;
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

/// Runs the example of the README.
#[cfg(all(doctest, feature = "redis"))]
#[doc = include_str!("../README.md")]
struct Readme;
