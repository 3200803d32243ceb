//! The SOCKS proxy.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::http::drain;
use crate::scripted::{RecordedRequest, Script, ScriptedServer};
use crate::tls::Stream;
use crate::tunnel::forward;

/// A SOCKS proxy that follows a script: one [`SocksAction`] for each connection.
///
/// It speaks the version of the client: SOCKS4, its extension `SOCKS4a`, or SOCKS5. From a SOCKS5
/// client it accepts any user name and password, also none. Without a script it opens tunnels. A
/// recorded request has the method `CONNECT`, and the requested host and port as its path.
pub type Socks = ScriptedServer<SocksAction>;

/// What [`Socks`] does with one connection.
///
/// An action is taken from the script when the first byte arrives.
#[derive(Clone, Debug)]
pub enum SocksAction {
    /// Connects to the requested address, reports success, and forwards bytes in both directions
    /// until one side closes. If it cannot connect, it reports that the connection was refused
    /// (SOCKS5) or failed (SOCKS4).
    Tunnel {
        /// The number of bytes that the client can send through the tunnel. After them the tunnel
        /// ends with a FIN to the client.
        limit: u64,
    },
    /// Reads the request, answers with this code in the client's version, and closes.
    Refuse(u8),
    /// Accepts none of the authentication methods of a SOCKS5 client, and closes.
    RejectMethods,
    /// Rejects the password of a SOCKS5 client, and closes.
    RejectPassword,
    /// Answers the first message with these bytes, and closes.
    Raw(Vec<u8>),
    /// Reads the request, and closes the connection with a FIN.
    CloseAfterRequest,
    /// Reads the request, and then does nothing until the client ends the connection.
    Hang,
}

impl Socks {
    /// Starts the proxy on a loopback port that the system picks.
    ///
    /// # Panics
    ///
    /// Panics if loopback cannot be bound, or if there is no tokio runtime.
    pub async fn start() -> Self {
        Self::listen(SocksAction::Tunnel { limit: u64::MAX }, None, serve).await
    }
}

async fn serve(mut stream: Stream, script: Arc<Script<SocksAction>>, connection: usize) {
    // An error means that the client has cancelled. The test checks its own side.
    if converse(&mut stream, &script, connection).await.is_ok() && stream.shutdown().await.is_ok() {
        drain(&mut stream).await;
    }
}

async fn converse(stream: &mut Stream, script: &Script<SocksAction>, connection: usize) -> io::Result<()> {
    let version = stream.read_u8().await?;
    let action = script.next();
    let target = match version {
        4 => socks4_target(stream).await?,
        5 => match socks5_target(stream, &action).await? {
            Some(target) => target,
            None => return Ok(()),
        },
        _ => return Err(invalid()),
    };
    script.record(RecordedRequest {
        connection,
        method: Method::CONNECT,
        path: target.clone(),
        headers: HeaderMap::new(),
        body: Bytes::new(),
    });
    match action {
        SocksAction::Tunnel { limit } => match TcpStream::connect(target).await {
            Ok(server) => {
                reply(stream, version, if version == 5 { 0 } else { 90 }).await?;
                forward(&[], stream, server, limit).await
            }
            Err(_) => reply(stream, version, if version == 5 { 5 } else { 91 }).await,
        },
        SocksAction::Refuse(code) => reply(stream, version, code).await,
        SocksAction::Raw(bytes) => stream.write_all(&bytes).await,
        SocksAction::Hang => {
            drain(stream).await;
            Ok(())
        }
        SocksAction::CloseAfterRequest | SocksAction::RejectMethods | SocksAction::RejectPassword => Ok(()),
    }
}

/// Reads the messages of a SOCKS5 client up to its request (RFC 1928 §3 to §5, RFC 1929 §2).
///
/// Returns `None` if the action ends the connection before the request.
async fn socks5_target(stream: &mut Stream, action: &SocksAction) -> io::Result<Option<String>> {
    let methods = counted(stream).await?;
    match action {
        SocksAction::RejectMethods => {
            stream.write_all(&[5, 0xff]).await?;
            return Ok(None);
        }
        SocksAction::Raw(bytes) => {
            stream.write_all(bytes).await?;
            return Ok(None);
        }
        _ => {}
    }
    let with_password = methods.contains(&2);
    stream.write_all(&[5, if with_password { 2 } else { 0 }]).await?;
    if with_password {
        let _version = stream.read_u8().await?;
        let _user = counted(stream).await?;
        let _password = counted(stream).await?;
        let rejected = matches!(action, SocksAction::RejectPassword);
        stream.write_all(&[1, u8::from(rejected)]).await?;
        if rejected {
            return Ok(None);
        }
    }
    let [_version, _command, _reserved, address_type] = array(stream).await?;
    let host = match address_type {
        1 => Ipv4Addr::from(array(stream).await?).to_string(),
        3 => String::from_utf8(counted(stream).await?).map_err(io::Error::other)?,
        4 => format!("[{}]", Ipv6Addr::from(array::<16>(stream).await?)),
        _ => return Err(invalid()),
    };
    let port = stream.read_u16().await?;
    Ok(Some(format!("{host}:{port}")))
}

/// Reads the request of a SOCKS4 client. In `SOCKS4a` the address is `0.0.0.x`, and a name follows.
async fn socks4_target(stream: &mut Stream) -> io::Result<String> {
    let _command = stream.read_u8().await?;
    let port = stream.read_u16().await?;
    let address: [u8; 4] = array(stream).await?;
    let _user = terminated(stream).await?;
    let host = match address {
        [0, 0, 0, last] if last > 0 => {
            String::from_utf8(terminated(stream).await?).map_err(io::Error::other)?
        }
        _ => Ipv4Addr::from(address).to_string(),
    };
    Ok(format!("{host}:{port}"))
}

async fn reply(stream: &mut Stream, version: u8, code: u8) -> io::Result<()> {
    match version {
        5 => stream.write_all(&[5, code, 0, 1, 0, 0, 0, 0, 0, 0]).await,
        _ => stream.write_all(&[0, code, 0, 0, 0, 0, 0, 0]).await,
    }
}

async fn array<const N: usize>(stream: &mut Stream) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}

/// Reads a length in one byte, and as many bytes.
async fn counted(stream: &mut Stream) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::from(stream.read_u8().await?)];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}

/// Reads the bytes before a zero.
async fn terminated(stream: &mut Stream) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    loop {
        match stream.read_u8().await? {
            0 => return Ok(bytes),
            byte if bytes.len() < 255 => bytes.push(byte),
            _ => return Err(invalid()),
        }
    }
}

fn invalid() -> io::Error {
    io::ErrorKind::InvalidData.into()
}
