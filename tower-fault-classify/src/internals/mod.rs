//! Code that the breaker and the retry share.
//!
//! It contains the clock, striped counters, pooled storage, the scope of a retry, and the reading
//! of settings from configuration files.
//!
//! The breaker and the retry depend on this crate, and not on each other. So each lock-free
//! structure is written and verified once. The module is hidden, and behind a feature for this
//! workspace only. It may change in any release, because the three crates are released together.

mod clock;
mod config_error;
mod handle_count;
mod pool;
mod retry_scope;
#[cfg(feature = "__internals-serde")]
pub mod settings;
mod striped;
pub mod sync;
#[cfg(feature = "__internals-test-util")]
mod test_clock;
mod type_name;

pub use clock::{AtomicClock, Clock, ManualClock};
pub use config_error::ConfigError;
pub use pool::{Pool, PoolHandle, PoolItem, WeakHandle};
pub use retry_scope::RetryScope;
pub use striped::{
    BucketRing, CellUpdate, PaddedRing, PerThread, RING_CELLS, StripedCounter, TAGS_PER_EPOCH, ThreadPart,
    TimeBuckets, is_in_window,
};
#[cfg(feature = "__internals-test-util")]
pub use test_clock::{TestClock, test_clock};
pub use type_name::{error_chain, error_type_name};

pub use crate::circuit_rejection::{
    CircuitCondition, CircuitLabel, CircuitRecord, CircuitRejection, KeptLabel,
};
pub use crate::duration::DisplayDuration;
pub use crate::error_chain::error_text;
pub use crate::grpc::pushback_value;
pub use crate::name::intern;
pub use crate::system_time::now as system_time;
pub use crate::upload::UploadGuard;
