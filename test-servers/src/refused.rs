//! A port that refuses connections.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::net::TcpSocket;

/// A loopback port that refuses every connection.
///
/// The port is bound, so no other process can take it, but nothing listens on it.
#[derive(Debug)]
pub struct RefusedPort {
    socket: TcpSocket,
}

impl RefusedPort {
    /// Binds a port that the system picks.
    ///
    /// # Panics
    ///
    /// Panics if loopback cannot be bound.
    pub fn bind() -> Self {
        let socket = TcpSocket::new_v4().expect("a socket can be created");
        socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).expect("loopback can be bound");
        Self { socket }
    }

    /// Returns the address on loopback.
    ///
    /// # Panics
    ///
    /// Panics if the system does not return the address.
    pub fn address(&self) -> SocketAddr {
        self.socket.local_addr().expect("a bound socket has an address")
    }

    /// Returns `http://` and the address, without a slash at the end.
    ///
    /// # Panics
    ///
    /// See [`address`](Self::address).
    pub fn url(&self) -> String {
        format!("http://{}", self.address())
    }
}
