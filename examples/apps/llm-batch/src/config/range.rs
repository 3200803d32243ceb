//! The ranges of the settings that are whole numbers, for messages.

pub(crate) const BATCH_SIZE: &str = "1 to 10000";
pub(crate) const MAX_RETRIES: &str = "1 to 1000";
pub(crate) const CHECKIN_INTERVAL: &str = "1 or more";
pub(crate) const CIRCUIT_BREAKER_THRESHOLD: &str = "0 to 4294967295";
pub(crate) const PARSE_ERROR_RETRIES: &str = "0 to 100";
pub(crate) const MAX_TOKENS: &str = "1 to 4294967295";
