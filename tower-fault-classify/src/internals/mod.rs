//! What the breaker and the retry have in common beneath their surface: the clock, and counters that cost no atomic
//! read-modify-write on the usual path.
//!
//! It lives here because both depend on this crate and must not know each other, and because a lock-free structure that
//! is written twice has to be proven twice. It is hidden, behind a feature that nobody else names, and may change in any
//! release: the workspace's crates are released together.

mod buckets;
mod cause;
mod clock;
mod config;
#[cfg(feature = "__shared-serde")]
pub mod file;
mod recycle;
mod ring;
#[cfg_attr(loom_models, path = "slot_of_a_model.rs")]
mod slot;
mod striped;
pub mod sync;

pub use buckets::Buckets;
pub use cause::{error_chain, type_name_of};
pub use clock::{AtomicClock, Clock, ManualClock};
pub use config::ConfigError;
pub use recycle::{Pool, Recycle, Recycled};
pub use ring::{Addition, Cells, EPOCH_TAGS, Ring, counts};
pub use slot::slot;
pub use striped::Striped;

pub use crate::duration::Readable;
pub use crate::error::text_of;
pub use crate::grpc::pushback;
pub use crate::upload::Waiting;
pub use crate::system_time::now as wall_time;
