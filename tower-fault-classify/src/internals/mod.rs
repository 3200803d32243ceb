//! Code that the breaker and the retry share: the clock, striped counters, pooled storage, and settings
//! read from configuration files.
//!
//! It is in this crate because the breaker and the retry both depend on it and not on each other. A
//! lock-free structure that is written twice has to be proven twice. The module is hidden, is behind a
//! feature for this workspace alone, and may change in any release: the three crates are released
//! together.

mod clock;
mod config_error;
mod pool;
mod ring;
#[cfg(feature = "__internals-serde")]
pub mod settings;
mod striped;
pub mod sync;
mod thread_slot;
mod time_buckets;
mod type_name;

pub use clock::{AtomicClock, Clock, ManualClock};
pub use config_error::ConfigError;
pub use pool::{Pool, Recycle, Recycled};
pub use ring::{Addition, Cells, EPOCH_TAGS, Ring, counts};
pub use striped::Striped;
pub use thread_slot::slot;
pub use time_buckets::Buckets;
pub use type_name::{error_chain, type_name_of};

pub use crate::duration::Readable;
pub use crate::error_chain::text_of;
pub use crate::grpc::pushback;
pub use crate::system_time::now as wall_time;
pub use crate::upload::Waiting;
