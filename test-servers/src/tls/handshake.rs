//! The ways in which a TLS handshake goes.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::http::drain;

/// What a server with [`Tls`](super::Tls) does with the handshake of one connection.
#[derive(Clone, Debug)]
pub enum Handshake {
    /// Performs the handshake.
    Complete,
    /// Reads the `ClientHello`, and ends the connection with a FIN.
    Close,
    /// Reads the `ClientHello`, and ends the connection with a RST.
    Reset,
    /// Reads, and never answers, until the client ends the connection.
    Stall,
    /// Reads the `ClientHello`, sends a fatal alert with this number (RFC 8446 §6), and ends the
    /// connection with a FIN.
    Alert(u8),
    /// Reads the `ClientHello`, answers it in plain HTTP with status 400, and ends the connection
    /// with a FIN.
    PlainHttp,
}

/// Ends the connection of a handshake that does not complete.
pub(super) async fn fail(mut stream: TcpStream, handshake: Handshake) -> io::Result<()> {
    let answer = match handshake {
        // The caller performs this handshake.
        Handshake::Complete => return Ok(()),
        Handshake::Close => Vec::new(),
        Handshake::Reset => {
            client_hello(&mut stream).await?;
            return stream.set_zero_linger();
        }
        Handshake::Stall => {
            drain(&mut stream).await;
            return Ok(());
        }
        // A record of type 21 (alert), version 3.3, length 2, level 2 (fatal).
        Handshake::Alert(number) => vec![21, 3, 3, 0, 2, 2, number],
        Handshake::PlainHttp => b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n".to_vec(),
    };
    client_hello(&mut stream).await?;
    stream.write_all(&answer).await?;
    close(stream).await
}

/// Sends FIN, and reads what the client still sends: unread bytes would turn the FIN into a RST,
/// which discards the answer.
pub(super) async fn close(mut stream: TcpStream) -> io::Result<()> {
    stream.shutdown().await?;
    drain(&mut stream).await;
    Ok(())
}

/// Reads one TLS record.
async fn client_hello(stream: &mut TcpStream) -> io::Result<()> {
    let mut header = [0; 5];
    stream.read_exact(&mut header).await?;
    let length = u16::from_be_bytes([header[3], header[4]]);
    stream.read_exact(&mut vec![0; usize::from(length)]).await.map(drop)
}
