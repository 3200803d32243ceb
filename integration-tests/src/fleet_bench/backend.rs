//! The server that the clients call. It counts the calls that run at the same time.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};

/// The answer to a successful call.
pub(crate) const SUCCESS: u8 = b'+';
/// The answer to a failed call.
pub(crate) const FAILURE: u8 = b'-';

/// What the backend does with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Answer {
    Success,
    Failure,
    /// No answer. The call runs until the client closes the connection.
    Hang,
}

/// A backend on a loopback port. A call is one byte, and so is an answer.
#[derive(Debug)]
pub(crate) struct Backend {
    address: SocketAddr,
    counts: Arc<Counts>,
    task: AbortHandle,
}

#[derive(Debug, Default)]
struct Counts {
    answer: AtomicU8,
    running: AtomicUsize,
    most: AtomicUsize,
    total: AtomicUsize,
}

impl Backend {
    pub(crate) async fn start() -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let (address, counts) = (listener.local_addr()?, Arc::new(Counts::default()));
        let shared = Arc::clone(&counts);
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                while connections.try_join_next().is_some() {}
                let counts = Arc::clone(&shared);
                connections.spawn(async move { serve(stream, &counts).await });
            }
        });
        Ok(Self { address, counts, task: task.abort_handle() })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sets the answer to all later calls.
    pub(crate) fn answer(&self, answer: Answer) {
        self.counts.answer.store(answer as u8, Ordering::Relaxed);
    }

    /// Returns the number of calls that run now.
    pub(crate) fn running(&self) -> usize {
        self.counts.running.load(Ordering::Relaxed)
    }

    /// Sets the most calls at the same time, and the number of calls, to those that run now.
    pub(crate) fn reset(&self) {
        self.counts.most.store(self.running(), Ordering::Relaxed);
        self.counts.total.store(0, Ordering::Relaxed);
    }

    /// Returns the most calls at the same time, and the number of calls, since the last reset.
    pub(crate) fn counted(&self) -> (usize, usize) {
        (self.counts.most.load(Ordering::Relaxed), self.counts.total.load(Ordering::Relaxed))
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Counts a call as running until it is dropped.
struct Running<'a>(&'a Counts);

impl<'a> Running<'a> {
    fn new(counts: &'a Counts) -> Self {
        let running = counts.running.fetch_add(1, Ordering::Relaxed) + 1;
        counts.most.fetch_max(running, Ordering::Relaxed);
        counts.total.fetch_add(1, Ordering::Relaxed);
        Self(counts)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Answers the calls of one connection until the client closes it.
async fn serve(mut stream: TcpStream, counts: &Counts) -> io::Result<()> {
    stream.set_nodelay(true)?;
    loop {
        stream.read_u8().await?;
        let running = Running::new(counts);
        let answer = match counts.answer.load(Ordering::Relaxed) {
            answer if answer == Answer::Success as u8 => SUCCESS,
            answer if answer == Answer::Failure as u8 => FAILURE,
            _ => {
                stream.read_u8().await?;
                continue;
            }
        };
        // A client may send its next call as soon as it has the answer.
        drop(running);
        stream.write_u8(answer).await?;
    }
}
