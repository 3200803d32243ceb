//! The HTTP/1.1 server.

mod act;
mod read;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::sleep;

pub use self::act::{Act, Answer};
use self::act::{End, Pace};
use self::read::Reader;
pub(crate) use self::read::drain;
use crate::stage::{Listening, Seen, Stage};

/// A server of HTTP/1.1 that does what its script says. It ends when it is dropped.
#[derive(Debug)]
pub struct Http {
    stage: Arc<Stage<Act>>,
    listening: Listening,
}

impl Http {
    /// Starts one, with an empty script.
    ///
    /// # Panics
    ///
    /// If loopback cannot be bound, or there is no tokio runtime.
    pub async fn start() -> Self {
        let stage = Arc::new(Stage::new(Act::status(200)));
        let listening = Listening::start(Arc::clone(&stage), serve).await;
        Self { stage, listening }
    }

    /// `http://` and the address, without a slash at the end.
    pub fn url(&self) -> String {
        self.listening.url()
    }

    /// Adds to the script: one act for each request.
    pub fn script(&self, acts: impl IntoIterator<Item = Act>) {
        self.stage.script(acts);
    }

    /// Sets what is done when the script has run out. **Default**: `Act::status(200)`.
    pub fn otherwise(&self, act: Act) {
        self.stage.otherwise(act);
    }

    /// How many acts nobody has taken yet.
    pub fn left(&self) -> usize {
        self.stage.left()
    }

    /// How many connections were accepted so far.
    pub fn connections(&self) -> usize {
        self.stage.connections()
    }

    /// The requests that were read to their end so far, in that order.
    pub fn requests(&self) -> Vec<Seen> {
        self.stage.requests()
    }

    /// Waits until so many requests have been read since the start.
    pub async fn arrived(&self, count: usize) {
        self.stage.arrived(count).await;
    }
}

async fn serve(stream: TcpStream, stage: Arc<Stage<Act>>, connection: usize) {
    // Or the bytes of a drip might go out together. A socket that is closed already says no, which is as good.
    let _ = stream.set_nodelay(true);
    let mut reader = Reader::new(stream, connection);
    // A client that breaks off gets no answer, and the test does not hear of it from here.
    if let Ok(end) = converse(&mut reader, &stage).await {
        let _ = finish(reader, &stage, end).await;
    }
}

/// Plays acts until one ends the connection.
async fn converse(reader: &mut Reader, stage: &Stage<Act>) -> io::Result<End> {
    let mut on_accept = stage.next_if(Act::is_on_accept);
    loop {
        let act = match on_accept.take() {
            Some(act) => act,
            None if reader.begins().await => stage.next(),
            None => return Ok(End::Close),
        };
        match act {
            Act::ResetOnAccept | Act::ResetBeforeRequest => return Ok(End::Reset),
            Act::CloseOnAccept => return Ok(End::Close),
            _ => {}
        }
        let request = reader.request().await?;
        let only_head = request.method == Method::HEAD;
        let act = match act {
            Act::Echo => Act::status(200).body([request.path.as_bytes(), b"\n", &*request.body].concat()),
            act => act,
        };
        stage.record(request);
        let end = match act {
            Act::Answer(answer) => {
                send(&mut reader.stream, &answer, only_head).await?;
                answer.end
            }
            Act::CloseAfterRequest => End::Close,
            Act::Stall => End::Stall,
            _ => End::Reset,
        };
        if !matches!(end, End::KeepAlive) {
            return Ok(end);
        }
    }
}

async fn send(stream: &mut TcpStream, answer: &Answer, only_head: bool) -> io::Result<()> {
    let head = answer.head_bytes();
    let body = if only_head { Vec::new() } else { answer.body_bytes() };
    match answer.pace {
        Pace::AtOnce => stream.write_all(&[head, body].concat()).await,
        Pace::Drip(every) => drip(stream, &[head, body].concat(), every).await,
        Pace::DripBody(every) => {
            stream.write_all(&head).await?;
            drip(stream, &body, every).await
        }
    }
}

async fn drip(stream: &mut TcpStream, bytes: &[u8], every: Duration) -> io::Result<()> {
    for (place, byte) in bytes.iter().enumerate() {
        if place > 0 {
            sleep(every).await;
        }
        stream.write_all(&[*byte]).await?;
    }
    Ok(())
}

async fn finish(mut reader: Reader, stage: &Stage<Act>, end: End) -> io::Result<()> {
    match end {
        // Makes the kernel send a RST, not a FIN, when the socket is dropped.
        End::Reset => return reader.stream.set_zero_linger(),
        End::KeepAlive | End::Stall => {}
        End::Close => reader.stream.shutdown().await?,
        End::HalfClose => {
            reader.stream.shutdown().await?;
            while reader.begins().await {
                stage.record(reader.request().await?);
            }
        }
    }
    drain(&mut reader.stream).await;
    Ok(())
}
