//! TLS without a process-wide crypto provider.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;

use redis::{ErrorKind, RedisError};

pub(super) const NO_PROVIDER: &str = "rustls has no crypto provider";

/// Turns the panic of rustls without a crypto provider into an error.
///
/// The driver uses the provider of the process. If there is none, and the features of rustls name
/// none or several, rustls panics while it connects. A panic would end the agent's task.
pub(super) async fn catch_missing_provider<T>(
    connecting: impl Future<Output = Result<T, RedisError>>,
) -> Result<T, RedisError> {
    let mut connecting = pin!(connecting);
    // After a panic the future is not polled again.
    poll_fn(|cx| {
        catch_unwind(AssertUnwindSafe(|| connecting.as_mut().poll(cx)))
            .unwrap_or_else(|_| Poll::Ready(Err((ErrorKind::InvalidClientConfig, NO_PROVIDER).into())))
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn panic_while_connecting_is_an_error() {
        let connecting = async { panic!("Could not automatically determine the CryptoProvider") };
        let error = catch_missing_provider::<()>(connecting).await.unwrap_err();
        assert!(error.to_string().starts_with(NO_PROVIDER), "{error}");
    }
}
