//! A loopback port that a server program can bind again after each restart.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::net::TcpSocket;

/// A loopback port that the system has picked. No other process gets it while this value exists.
///
/// The socket is bound and does not listen. With `SO_REUSEADDR` on both sockets, a server can bind
/// the same port. The system picks a bound port for no other socket.
#[derive(Debug)]
pub(crate) struct ReservedPort {
    socket: TcpSocket,
}

impl ReservedPort {
    pub(crate) fn new() -> Self {
        let socket = bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        Self { socket }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.socket.local_addr().expect("a bound socket has an address")
    }

    /// Returns a second socket that is bound to the port.
    pub(crate) fn socket(&self) -> TcpSocket {
        bind(self.address())
    }
}

fn bind(address: SocketAddr) -> TcpSocket {
    let socket = TcpSocket::new_v4().expect("a socket can be created");
    socket.set_reuseaddr(true).expect("the option exists for TCP");
    socket.bind(address).expect("loopback can be bound");
    socket
}
