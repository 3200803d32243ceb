//! TLS: certificates, servers without TLS, and processes without a crypto provider.

use std::future::{Future, pending, poll_fn};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use redis::{ConnectionAddr, ErrorKind, RedisError};
use tokio::net::TcpStream;
use tokio::time::sleep;

use super::address::Address;
use super::error::failure;
use crate::store::StoreError;
use crate::store::StoreErrorKind::Refused;

/// How long an attempt to connect lasts before the port is asked whether it has TLS.
///
/// It is shorter than the default timeout of the agent, so that the error says what is wrong.
const SLOW: Duration = Duration::from_millis(250);

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

/// Ends an attempt to connect with TLS to a server without TLS.
///
/// Redis takes the first message of TLS for the beginning of a command, and waits for the rest.
pub(super) async fn unless_plain<T>(
    address: &Address,
    connecting: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    let ConnectionAddr::TcpTls { host, port, .. } = address.info().addr() else { return connecting.await };
    let mut connecting = pin!(connecting);
    tokio::select! {
        result = &mut connecting => return result,
        () = sleep(SLOW) => {}
    }
    let is_plain = async {
        match answers_without_tls(host, *port).await {
            Ok(true) => failure(Refused, address, "it answers without TLS; use a URL with `redis://`"),
            _ => pending().await,
        }
    };
    tokio::select! {
        result = connecting => result,
        error = is_plain => Err(error),
    }
}

/// Returns whether the first answer to a command is one of Redis: a value or an error.
async fn answers_without_tls(host: &str, port: u16) -> io::Result<bool> {
    let stream = TcpStream::connect((host, port)).await?;
    stream.writable().await?;
    stream.try_write(b"PING\r\n")?;
    let mut answer = [0];
    stream.readable().await?;
    Ok(stream.try_read(&mut answer)? == 1 && matches!(answer[0], b'+' | b'-'))
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
