//! The retry policy: its configuration, and the retry decision, which is a pure function.

mod builder;
mod call_config;
mod callbacks;
mod config;
mod decide;
mod grpc_methods;
mod handle;
#[cfg(all(test, not(loom_models)))]
mod tests;

pub use builder::RetryPolicyBuilder;
#[cfg(feature = "serde")]
pub(crate) use builder::{ATTEMPT_RANGE, MAX_DURATION, MULTIPLIER_RANGE, REPLAY_LIMIT_RANGE, SHARE_RANGE};
pub(crate) use call_config::{CallConfig, ColdConfig};
pub use callbacks::RetryEvent;
pub(crate) use callbacks::{Condition, Observer};
pub use config::RetryPolicy;
pub use decide::GiveUp;
pub(crate) use decide::{
    AttemptOutcome, CallProgress, Limits, before_redirect, is_final_rejection, is_rejection, is_unprocessed,
};
pub(crate) use handle::CachedPolicy;
pub use handle::PolicyHandle;
