//! Forwards the bytes of one connection.

use std::future::pending;
use std::io;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tokio::net::TcpStream;
#[cfg(unix)]
use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use super::{ProxyFault, ProxyTarget};

/// Connects to the target, and forwards in both directions.
///
/// Returns when a connection fails, when the server closes its side or the proxy ends the
/// connection. A client that closes its side may still read.
pub(super) async fn connect_and_forward(
    client: &mut TcpStream,
    target: &ProxyTarget,
    fault: &watch::Sender<ProxyFault>,
) -> io::Result<()> {
    wait_while_stalled(&mut fault.subscribe()).await;
    match target {
        ProxyTarget::Tcp(address) => {
            let server = TcpStream::connect(address).await?;
            server.set_nodelay(true)?;
            forward(client, server, fault).await
        }
        #[cfg(unix)]
        ProxyTarget::Unix(path) => forward(client, UnixStream::connect(path).await?, fault).await,
    }
}

async fn forward(
    client: &mut TcpStream,
    server: impl AsyncRead + AsyncWrite,
    fault: &watch::Sender<ProxyFault>,
) -> io::Result<()> {
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = split(server);
    let (requests, request_queue) = mpsc::unbounded_channel();
    let (replies, reply_queue) = mpsc::unbounded_channel();
    tokio::select! {
        result = read_client(from_client, fault.subscribe(), requests, replies.clone()) => result,
        result = read_server(from_server, fault.subscribe(), replies) => result,
        result = async {
            write(to_server, request_queue, fault.subscribe()).await?;
            // The client has closed its side, but may still read.
            pending().await
        } => result,
        result = write(to_client, reply_queue, fault.subscribe()) => result,
    }
}

/// Bytes to write, and the time to write them. Without bytes: the end of the direction.
type Chunk = (Instant, Bytes);

/// Reads from the client, and queues the bytes for the server.
async fn read_client(
    mut from: impl AsyncRead + Unpin,
    mut fault: watch::Receiver<ProxyFault>,
    requests: mpsc::UnboundedSender<Chunk>,
    replies: mpsc::UnboundedSender<Chunk>,
) -> io::Result<()> {
    loop {
        let bytes = read(&mut from, &mut fault).await?;
        let ended = bytes.is_empty();
        let now = Instant::now();
        let current = fault.borrow().clone();
        match current {
            ProxyFault::Garbage(garbage) if !ended => send(&replies, (now, garbage))?,
            ProxyFault::Delay { to_server, .. } => send(&requests, (now + to_server, bytes))?,
            _ => send(&requests, (now, bytes))?,
        }
        if ended {
            return pending().await;
        }
    }
}

/// Reads from the server, and queues the bytes for the client.
async fn read_server(
    mut from: impl AsyncRead + Unpin,
    mut fault: watch::Receiver<ProxyFault>,
    replies: mpsc::UnboundedSender<Chunk>,
) -> io::Result<()> {
    // The bytes that are left, if the fault is to truncate.
    let mut left = None;
    loop {
        let bytes = read(&mut from, &mut fault).await?;
        let now = Instant::now();
        let current = fault.borrow().clone();
        let (at, mut bytes) = match current {
            ProxyFault::Garbage(_) if !bytes.is_empty() => continue,
            ProxyFault::Delay { to_client, .. } => (now + to_client, bytes),
            _ => (now, bytes),
        };
        let mut ended = bytes.is_empty();
        if let ProxyFault::Truncate(limit) = current {
            let left = left.get_or_insert(limit);
            bytes.truncate(*left);
            *left -= bytes.len();
            ended |= *left == 0;
        } else {
            left = None;
        }
        send(&replies, (at, bytes))?;
        if ended {
            send(&replies, (at, Bytes::new()))?;
            return pending().await;
        }
    }
}

/// Reads the next bytes, empty at the end. Holds them while the proxy stalls.
async fn read(
    from: &mut (impl AsyncRead + Unpin),
    fault: &mut watch::Receiver<ProxyFault>,
) -> io::Result<Bytes> {
    let mut buffer = BytesMut::with_capacity(16 * 1024);
    from.read_buf(&mut buffer).await?;
    wait_while_stalled(fault).await;
    Ok(buffer.freeze())
}

/// Writes the chunks when they are due, until the end of the direction.
async fn write(
    mut to: impl AsyncWrite + Unpin,
    mut queue: mpsc::UnboundedReceiver<Chunk>,
    mut fault: watch::Receiver<ProxyFault>,
) -> io::Result<()> {
    while let Some((at, bytes)) = queue.recv().await {
        sleep_until(at).await;
        wait_while_stalled(&mut fault).await;
        if bytes.is_empty() {
            break;
        }
        to.write_all(&bytes).await?;
    }
    to.shutdown().await
}

fn send(queue: &mpsc::UnboundedSender<Chunk>, chunk: Chunk) -> io::Result<()> {
    queue.send(chunk).map_err(|_| io::ErrorKind::BrokenPipe.into())
}

async fn wait_while_stalled(fault: &mut watch::Receiver<ProxyFault>) {
    // An error says that the proxy has been dropped. Its connections are aborted then.
    let _ = fault.wait_for(|fault| *fault != ProxyFault::Stall).await;
}
