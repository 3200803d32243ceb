//! A tunnel between two connections.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy, split};
use tokio::net::TcpStream;

use crate::tls::Stream;

/// Forwards `ahead` and then the client's bytes to the server, and the server's bytes back.
///
/// Returns when the server has closed its side, when a connection fails, or when the client has
/// sent `limit` bytes. Closing the client's connection is left to the caller.
pub(crate) async fn forward(
    ahead: &[u8],
    client: &mut Stream,
    mut server: TcpStream,
    limit: u64,
) -> io::Result<()> {
    let (from_client, mut to_client) = split(client);
    let (mut from_server, mut to_server) = server.split();
    let up = async {
        let mut sent = ahead.chain(from_client).take(limit);
        copy(&mut sent, &mut to_server).await?;
        if sent.limit() > 0 {
            // The client has closed its side, but may still read.
            to_server.shutdown().await?;
            std::future::pending::<()>().await;
        }
        Ok(())
    };
    let down = async { copy(&mut from_server, &mut to_client).await.map(drop) };
    tokio::select! {
        result = up => result,
        result = down => result,
    }
}
