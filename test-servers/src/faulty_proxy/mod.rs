//! A proxy for any protocol whose faults are switched at run time.

mod pump;

use std::net::SocketAddr;
#[cfg(unix)]
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

use crate::port::ReservedPort;

/// The server behind a [`FaultyProxy`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ProxyTarget {
    /// A TCP port.
    Tcp(SocketAddr),
    /// A Unix socket.
    #[cfg(unix)]
    Unix(PathBuf),
}

impl From<SocketAddr> for ProxyTarget {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address)
    }
}

#[cfg(unix)]
impl From<PathBuf> for ProxyTarget {
    fn from(socket: PathBuf) -> Self {
        Self::Unix(socket)
    }
}

#[cfg(unix)]
impl From<&crate::Postgres> for ProxyTarget {
    fn from(server: &crate::Postgres) -> Self {
        Self::Unix(server.socket())
    }
}

#[cfg(unix)]
impl From<&crate::PgBouncer> for ProxyTarget {
    fn from(server: &crate::PgBouncer) -> Self {
        Self::Unix(server.socket())
    }
}

#[cfg(unix)]
impl From<&crate::Redis> for ProxyTarget {
    fn from(server: &crate::Redis) -> Self {
        Self::Unix(server.socket())
    }
}

/// What a [`FaultyProxy`] does with new and existing connections.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProxyFault {
    /// Forwards all bytes. The default.
    #[default]
    None,
    /// Delivers bytes later, in order. The delay is a latency: it does not limit the rate.
    Delay {
        /// The delay from the client to the server.
        to_server: Duration,
        /// The delay from the server to the client.
        to_client: Duration,
    },
    /// Refuses new connections. Existing ones continue.
    Refuse,
    /// Accepts connections, and delivers nothing in either direction. Closes nothing.
    ///
    /// No byte is lost: the next fault applies to the bytes that have arrived, as TCP sends them
    /// again after an outage. Two things differ from a dropped route: connecting succeeds, and
    /// the kernel of the proxy acknowledges the client's packets, so that neither keepalive nor
    /// `TCP_USER_TIMEOUT` closes the connection.
    Stall,
    /// Answers whatever the client sends with these bytes. Nothing reaches the server, and the
    /// server's own answers are discarded.
    Garbage(Bytes),
    /// Closes each connection after this many more bytes from the server.
    Truncate(usize),
}

/// A proxy on a loopback port, in front of a TCP port or a Unix socket.
///
/// The port stays the same while the value exists, also while it refuses connections. Dropping the
/// proxy closes the port and all connections.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use test_servers::{FaultyProxy, Http, ProxyFault};
///
/// # test_servers::install_ring();
/// let server = Http::start().await;
/// let proxy = FaultyProxy::start(server.address()).await;
/// let url = format!("http://{}", proxy.address());
/// assert_eq!(reqwest::get(&url).await.unwrap().status(), 200);
///
/// proxy.set(ProxyFault::Refuse).await;
/// proxy.cut().await;
/// assert!(reqwest::get(&url).await.unwrap_err().is_connect());
/// # }
/// ```
#[derive(Debug)]
pub struct FaultyProxy {
    port: Arc<ReservedPort>,
    shared: Arc<Shared>,
    task: AbortHandle,
}

/// The common part of the handle, the listening task and the connections.
#[derive(Debug)]
struct Shared {
    target: ProxyTarget,
    fault: watch::Sender<ProxyFault>,
    /// Ends the connections since the last [cut](FaultyProxy::cut). Each has a receiver until it is
    /// closed.
    cut: Mutex<watch::Sender<()>>,
    status: watch::Sender<Status>,
}

#[derive(Debug, Default)]
struct Status {
    listening: bool,
    /// The connections that have been accepted.
    accepted: usize,
}

impl Shared {
    fn cut(&self) -> MutexGuard<'_, watch::Sender<()>> {
        self.cut.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FaultyProxy {
    /// Listens on a loopback port that the system picks, and forwards to `target`. It may be the
    /// address of a server, the path of a Unix socket, or a database of this crate.
    ///
    /// # Panics
    ///
    /// Panics if loopback cannot be bound.
    pub async fn start(target: impl Into<ProxyTarget>) -> Self {
        let port = Arc::new(ReservedPort::new());
        let shared = Arc::new(Shared {
            target: target.into(),
            fault: watch::Sender::default(),
            cut: Mutex::default(),
            status: watch::Sender::default(),
        });
        let task = tokio::spawn(listen(Arc::clone(&port), Arc::clone(&shared))).abort_handle();
        let proxy = Self { port, shared, task };
        proxy.wait_for(|status| status.listening).await;
        proxy
    }

    /// Returns the address of the port.
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// Switches the fault of new and existing connections.
    ///
    /// When this returns, the port refuses connections if the fault is [`ProxyFault::Refuse`], and
    /// accepts them otherwise.
    pub async fn set(&self, fault: ProxyFault) {
        let listens = fault != ProxyFault::Refuse;
        self.shared.fault.send_replace(fault);
        self.wait_for(|status| status.listening == listens).await;
    }

    /// Resets all connections, and returns when they are closed. New connections are accepted,
    /// except with [`ProxyFault::Refuse`], and are not waited for.
    pub async fn cut(&self) {
        let connections = std::mem::take(&mut *self.shared.cut());
        connections.send_replace(());
        connections.closed().await;
    }

    /// Returns the number of connections that have been accepted.
    pub fn connections(&self) -> usize {
        self.shared.status.borrow().accepted
    }

    async fn wait_for(&self, condition: impl FnMut(&Status) -> bool) {
        let waited = self.shared.status.subscribe().wait_for(condition).await.map(drop);
        waited.expect("the handle owns the sender");
    }
}

impl Drop for FaultyProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A listener that no longer accepts connections when it is dropped.
///
/// Closing the socket would not be enough. A program that another thread starts has a copy of it
/// for a moment, and the port accepts connections until all copies are closed.
struct Listener(TcpListener);

impl Drop for Listener {
    fn drop(&mut self) {
        // An error: this system cannot shut listeners down.
        #[cfg(unix)]
        let _ = rustix::net::shutdown(&self.0, rustix::net::Shutdown::Read);
    }
}

/// Accepts connections until the task is aborted, which also closes the connections.
async fn listen(port: Arc<ReservedPort>, shared: Arc<Shared>) {
    let mut fault = shared.fault.subscribe();
    let mut connections = JoinSet::new();
    loop {
        let listener = Listener(port.socket().listen(1024).expect("the port is reserved"));
        shared.status.send_modify(|status| status.listening = true);
        tokio::select! {
            () = accept(&listener.0, &shared, &mut connections) => {}
            _ = fault.wait_for(|fault| *fault == ProxyFault::Refuse) => {}
        }
        drop(listener);
        shared.status.send_modify(|status| status.listening = false);
        if fault.wait_for(|fault| *fault != ProxyFault::Refuse).await.is_err() {
            return;
        }
    }
}

/// Accepts connections until the listener fails.
async fn accept(listener: &TcpListener, shared: &Arc<Shared>, connections: &mut JoinSet<()>) {
    while let Ok((client, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        shared.status.send_modify(|status| status.accepted += 1);
        let cut = shared.cut().subscribe();
        let shared = Arc::clone(shared);
        connections.spawn(async move { serve(cut, client, &shared).await });
    }
}

/// Forwards one connection until a side closes it or the connections are cut.
///
/// The receiver of the cut is the first argument, so that it is dropped after the connection.
async fn serve(mut cut: watch::Receiver<()>, mut client: TcpStream, shared: &Shared) {
    // It fails only for a socket that is already closed.
    let _ = client.set_nodelay(true);
    tokio::select! {
        _ = pump::connect_and_forward(&mut client, &shared.target, &shared.fault) => {}
        _ = cut.changed() => {
            // Closing sends a reset.
            let _ = client.set_zero_linger();
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[tokio::test]
    async fn listener_dropped_refuses_while_another_process_has_a_copy() {
        let port = ReservedPort::new();
        let listener = port.socket().listen(1).unwrap().into_std().unwrap();
        let copy = listener.try_clone().unwrap();
        drop(Listener(TcpListener::from_std(listener).unwrap()));
        let error = TcpStream::connect(port.address()).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
        drop(copy);
    }
}
