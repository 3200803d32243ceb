//! The HTTP/1.1 server.

mod action;
mod read;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::sleep;

pub use self::action::{Action, Response};
use self::action::{End, Pace};
use self::read::Reader;
pub(crate) use self::read::drain;
use crate::scripted::{Handler, Next, RecordedRequest, Script, ScriptedServer};
use crate::tls::{Stream, Tls};
use crate::tunnel::forward;

/// An HTTP/1.1 server that follows a script: one [`Action`] for each request.
///
/// Without a script it answers with status 200. With [`Action::tunnel`] it is a proxy.
pub type Http = ScriptedServer<Action>;

impl Http {
    /// Starts the server on a loopback port that the system picks.
    ///
    /// # Panics
    ///
    /// Panics if loopback cannot be bound, or if there is no tokio runtime.
    pub async fn start() -> Self {
        Self::listen(Action::status(200), None, serve).await
    }

    /// Starts the server with TLS on a loopback port that the system picks.
    ///
    /// An action that ends a connection on accept does so when the handshake is complete.
    ///
    /// # Panics
    ///
    /// Panics as [`start`](Self::start) does, and if a name of the certificate is invalid.
    pub async fn start_tls(tls: &Tls) -> Self {
        Self::listen(Action::status(200), Some(tls.acceptor(b"http/1.1")), serve).await
    }

    /// Sets a function that chooses the action for each request when the script is empty.
    ///
    /// The function runs when the request has been read, before the request is recorded. It runs on
    /// the server's task, so it must not block. An action that ends a connection on accept or
    /// before a request ends it after this request.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// use test_servers::{Action, Http};
    ///
    /// let server = Http::start().await;
    /// server.set_handler(|request| match &*request.path {
    ///     "/health" => Action::status(204),
    ///     _ => Action::status(404),
    /// });
    /// # test_servers::install_ring();
    /// let response = reqwest::get(format!("{}/health", server.url())).await.unwrap();
    /// assert_eq!(response.status(), 204);
    /// # }
    /// ```
    pub fn set_handler(&self, handler: impl Fn(&RecordedRequest) -> Action + Send + Sync + 'static) {
        self.handle_with(Handler::new(handler));
    }
}

async fn serve(stream: Stream, script: Arc<Script<Action>>, connection: usize) {
    let mut reader = Reader::new(stream, connection);
    // An error means that the client has cancelled. The test checks its own side.
    if let Ok(end) = converse(&mut reader, &script).await {
        let _ = finish(reader, &script, end).await;
    }
}

/// Performs actions until one ends the connection.
async fn converse(reader: &mut Reader, script: &Script<Action>) -> io::Result<End> {
    let mut on_accept = script.next_if(Action::is_on_accept);
    loop {
        let next = match on_accept.take() {
            Some(action) => Next::Step(action),
            None if reader.begins().await => script.next_or_handler(),
            None => return Ok(End::Close),
        };
        match next {
            Next::Step(Action::ResetOnAccept | Action::ResetBeforeRequest) => return Ok(End::Reset),
            Next::Step(Action::CloseOnAccept) => return Ok(End::Close),
            _ => {}
        }
        let request = reader.request().await?;
        let only_head = request.method == Method::HEAD;
        let action = match next {
            Next::Step(action) => action,
            Next::Handler(handler) => handler.choose(&request),
        };
        let action = match action {
            Action::Echo => {
                Action::status(200).body([request.path.as_bytes(), b"\n", &*request.body].concat())
            }
            action => action,
        };
        let target = request.path.clone();
        script.record(request);
        let end = match action {
            Action::Tunnel { limit } => return tunnel(reader, &target, limit).await,
            Action::Respond(response) => {
                sleep_for(response.delay).await;
                send(&mut reader.stream, &response, only_head).await?;
                response.end
            }
            Action::CloseOnAccept | Action::CloseAfterRequest => End::Close,
            Action::Hang => End::Stall,
            _ => End::Reset,
        };
        if !matches!(end, End::KeepAlive) {
            return Ok(end);
        }
    }
}

/// Waits. Without a delay it does not use the clock, whose shortest wait is a millisecond.
async fn sleep_for(delay: Duration) {
    if !delay.is_zero() {
        sleep(delay).await;
    }
}

async fn tunnel(reader: &mut Reader, target: &str, limit: u64) -> io::Result<End> {
    let Ok(server) = TcpStream::connect(target).await else {
        write(&mut reader.stream, b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n").await?;
        return Ok(End::Close);
    };
    write(&mut reader.stream, b"HTTP/1.1 200 OK\r\n\r\n").await?;
    let ahead = reader.take_ahead();
    forward(&ahead, &mut reader.stream, server, limit).await?;
    Ok(End::Close)
}

async fn send(stream: &mut Stream, response: &Response, only_head: bool) -> io::Result<()> {
    let head = response.head_bytes();
    let body = if only_head { Vec::new() } else { response.body_bytes() };
    match response.pace {
        Pace::AtOnce => write(stream, &[head, body].concat()).await,
        Pace::Drip(every) => drip(stream, &[head, body].concat(), every).await,
        Pace::DripBody(every) => {
            write(stream, &head).await?;
            drip(stream, &body, every).await
        }
    }
}

/// Writes and flushes: TLS may keep bytes that the socket did not accept immediately.
async fn write(stream: &mut Stream, bytes: &[u8]) -> io::Result<()> {
    stream.write_all(bytes).await?;
    stream.flush().await
}

async fn drip(stream: &mut Stream, bytes: &[u8], every: Duration) -> io::Result<()> {
    for (index, byte) in bytes.iter().enumerate() {
        if index > 0 {
            sleep(every).await;
        }
        write(stream, &[*byte]).await?;
    }
    Ok(())
}

async fn finish(mut reader: Reader, script: &Script<Action>, end: End) -> io::Result<()> {
    match end {
        End::Reset => {
            reader.stream.reset_on_close();
            return Ok(());
        }
        End::KeepAlive | End::Stall => {}
        End::Close => reader.stream.shutdown().await?,
        End::HalfClose => {
            reader.stream.shutdown().await?;
            while reader.begins().await {
                script.record(reader.request().await?);
            }
        }
    }
    drain(&mut reader.stream).await;
    Ok(())
}
