//! Calls without retries and circuits.

use std::future::Future;

use super::ResilienceSettings;
use crate::error::CheckError;

/// Sends each call once.
#[derive(Clone, Debug)]
pub struct Resilience {}

impl Resilience {
    /// Ignores the settings, because there are neither circuits nor retries.
    pub fn new(_settings: &ResilienceSettings) -> Self {
        Self {}
    }

    /// Sends the call once.
    ///
    /// # Errors
    ///
    /// Returns the error of the call.
    pub async fn retry_with_breaker<T, F, Fut>(
        &self,
        _name: &'static str,
        _max_attempts: u32,
        mut call: F,
    ) -> Result<T, CheckError>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<T, CheckError>>,
    {
        call().await
    }
}
