//! A connection that its owner drives.

use std::collections::VecDeque;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{AsyncMessage, Client, Config, Connection, Error, Row, Socket};

/// A connection to the server.
///
/// No task runs in the background: the connection makes progress while one of these methods is
/// polled. So dropping the link closes the socket at once, also if the server hangs.
pub(super) struct Link {
    client: Client,
    connection: Box<dyn Messages>,
    server_version: Option<u32>,
    /// The payloads that arrived while a statement ran, with their channels.
    notifications: VecDeque<(String, String)>,
}

impl Link {
    pub(super) async fn connect<T>(config: &Config, tls: T) -> Result<Self, Error>
    where
        T: MakeTlsConnect<Socket>,
        T::Stream: Send + 'static,
    {
        let (client, connection) = config.connect(tls).await?;
        let server_version = connection.parameter("server_version").and_then(major);
        let connection = Box::new(connection);
        Ok(Self { client, connection, server_version, notifications: VecDeque::new() })
    }

    /// Returns the first number of the server's version. A pooler may report none.
    pub(super) fn server_version(&self) -> Option<u32> {
        self.server_version
    }

    /// Runs one unnamed statement, so that it also works behind a pool of transactions.
    pub(super) async fn query(
        &mut self,
        sql: &str,
        parameters: &[(&(dyn ToSql + Sync), Type)],
    ) -> Result<Vec<Row>, Error> {
        let Self { client, connection, notifications, .. } = self;
        drive(connection.as_mut(), notifications, client.query_typed(sql, parameters)).await
    }

    /// Runs statements without parameters and results.
    pub(super) async fn run(&mut self, sql: &str) -> Result<(), Error> {
        let Self { client, connection, notifications, .. } = self;
        drive(connection.as_mut(), notifications, client.batch_execute(sql)).await
    }

    /// Returns the next notification: its channel and its payload.
    ///
    /// It is removed when it is returned, so a caller that stops polling loses none. Resolves to an
    /// error when the connection has ended.
    pub(super) fn poll_notification(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<(String, String), Option<Error>>> {
        loop {
            if let Some(notification) = self.notifications.pop_front() {
                return Poll::Ready(Ok(notification));
            }
            match self.connection.poll_message(context) {
                Poll::Ready(Some(Ok(message))) => keep(&mut self.notifications, message),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(Some(error))),
                Poll::Ready(None) => return Poll::Ready(Err(None)),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").finish_non_exhaustive()
    }
}

/// Returns the first number of a version such as `15.4 (Debian 15.4-1)` or `16beta1`.
fn major(version: &str) -> Option<u32> {
    version.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// A connection, whose type depends on the encryption.
trait Messages: Send {
    fn poll_message(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<AsyncMessage, Error>>>;
}

impl<S, T> Messages for Connection<S, T>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
    T: AsyncRead + AsyncWrite + Unpin + Send,
{
    fn poll_message(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<AsyncMessage, Error>>> {
        Self::poll_message(self, context)
    }
}

/// Polls `statement` and the connection that transports it.
async fn drive<T>(
    connection: &mut dyn Messages,
    notifications: &mut VecDeque<(String, String)>,
    statement: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let mut statement = pin!(statement);
    poll_fn(|context| {
        loop {
            match connection.poll_message(context) {
                Poll::Ready(Some(Ok(message))) => keep(notifications, message),
                // One of them has the reason why the server ended the connection. The other only
                // knows the end.
                Poll::Ready(Some(Err(error))) => {
                    return match statement.as_mut().poll(context) {
                        Poll::Ready(Err(reason)) if reason.as_db_error().is_some() => {
                            Poll::Ready(Err(reason))
                        }
                        Poll::Ready(Ok(answer)) => Poll::Ready(Ok(answer)),
                        _ => Poll::Ready(Err(error)),
                    };
                }
                Poll::Ready(None) | Poll::Pending => break,
            }
        }
        statement.as_mut().poll(context)
    })
    .await
}

fn keep(notifications: &mut VecDeque<(String, String)>, message: AsyncMessage) {
    if let AsyncMessage::Notification(notification) = message {
        notifications.push_back((notification.channel().to_owned(), notification.payload().to_owned()));
    }
}
