//! An API that counts the requests that run at the same time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

/// How long the API works on a response, so that requests overlap.
const WORK: Duration = Duration::from_millis(50);

/// How the API answers.
#[derive(Clone, Copy)]
#[repr(u8)]
pub(crate) enum Answer {
    Reply,
    Failure,
    /// No answer until the client closes the connection.
    Nothing,
}

#[derive(Default)]
struct Counts {
    answer: AtomicU8,
    requests: AtomicU32,
    running: AtomicU32,
    most: AtomicU32,
}

/// A server on loopback.
pub(crate) struct CountingApi {
    address: SocketAddr,
    counts: Arc<Counts>,
}

impl CountingApi {
    pub(crate) async fn start(answer: Answer) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let api = Self { address: listener.local_addr().unwrap(), counts: Arc::default() };
        api.set_answer(answer);
        let counts = Arc::clone(&api.counts);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let counts = Arc::clone(&counts);
                // An error: the client has closed the connection.
                tokio::spawn(async move { serve(stream, &counts).await.ok() });
            }
        });
        api
    }

    pub(crate) fn base_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    pub(crate) fn set_answer(&self, answer: Answer) {
        self.counts.answer.store(answer as u8, Ordering::SeqCst);
    }

    /// Returns the requests since the start.
    pub(crate) fn requests(&self) -> u32 {
        self.counts.requests.load(Ordering::SeqCst)
    }

    /// Returns the requests that run now.
    pub(crate) fn running(&self) -> u32 {
        self.counts.running.load(Ordering::SeqCst)
    }

    /// Returns the largest number of requests that ran at the same time, and begins a new count.
    pub(crate) fn take_most(&self) -> u32 {
        self.counts.most.swap(0, Ordering::SeqCst)
    }
}

async fn serve(stream: TcpStream, counts: &Counts) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        let line = line.trim_end().to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line.is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;

    counts.requests.fetch_add(1, Ordering::SeqCst);
    let running = 1 + counts.running.fetch_add(1, Ordering::SeqCst);
    counts.most.fetch_max(running, Ordering::SeqCst);
    let answered = answer(&mut stream, counts.answer.load(Ordering::SeqCst)).await;
    counts.running.fetch_sub(1, Ordering::SeqCst);
    answered
}

async fn answer(stream: &mut BufReader<TcpStream>, answer: u8) -> std::io::Result<()> {
    if answer == Answer::Nothing as u8 {
        stream.read_u8().await?;
    }
    sleep(WORK).await;
    let (status, body) = if answer == Answer::Failure as u8 {
        ("503 Service Unavailable", r#"{"error":{"message":"down"}}"#)
    } else {
        ("200 OK", r#"{"choices":[{"message":{"content":"reply"}}]}"#)
    };
    let length = body.len();
    let head = format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\nconnection: close\r\n");
    stream.write_all(format!("{head}content-length: {length}\r\n\r\n{body}").as_bytes()).await
}
