//! Errors of connectors, by the beginning of their text.
//!
//! hyper-util's `HttpConnector`, `Tunnel` and `SocksV5`, hyper-rustls and tonic keep these types
//! private. A text that has changed is not recognised, and the error is then judged as any other
//! failure to connect.

use crate::fault::Fault;
use crate::fault::Health::Neutral;
use crate::fault::Kind::{Auth, Protocol, Unavailable};
use crate::fault::Origin::Remote;
use crate::fault::Retryable::{Never, Unsent};
use crate::table::io::{BROKEN, WRONG};

/// What one text means.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(not(test), expect(dead_code, reason = "the source is for the docs, which the tests make"))]
pub(crate) struct Row {
    pub(crate) text: &'static str,
    pub(crate) fault: Fault,
    pub(crate) source: &'static str,
}

const fn row(text: &'static str, fault: Fault, source: &'static str) -> Row {
    Row { text, fault, source }
}

/// The proxy was reached and does not let this client through. It says nothing about the server.
const PROXY_REFUSES: Fault = Fault::new(Auth, Never, Neutral, Remote);
/// The proxy opened no tunnel: its rules forbid it (403), or it did not reach the server (502, 503,
/// 504). The error is the same. The request was not sent, so that another attempt does no harm. A
/// server must not be blamed for the rules of a proxy, so that the error counts for nothing.
const NO_TUNNEL: Fault = Fault::new(Unavailable, Unsent, Neutral, Remote);
/// The proxy's answer is not understood.
const PROXY_GARBLED: Fault = Fault::new(Protocol, Never, Neutral, Remote);

/// The rows. None is the beginning of another.
pub(crate) const ROWS: &[Row] = &[
    row("tunnel error: proxy authorization required", PROXY_REFUSES, "hyper-util: 407 to `CONNECT`"),
    row(
        "tunnel error: unsuccessful",
        NO_TUNNEL,
        "hyper-util: any other status to `CONNECT` but 200. The error does not tell 403 from 502, 503 and 504",
    ),
    row("tunnel error: proxy response headers too long", PROXY_GARBLED, "hyper-util"),
    row("tunnel error: unexpected end of file", BROKEN, "hyper-util: the proxy closed the connection"),
    row("tunnel error: missing destination host", WRONG, "hyper-util"),
    row("SOCKS error: credentials not accepted", PROXY_REFUSES, "hyper-util; RFC 1929 §2"),
    row("SOCKS error: connection not allowed", PROXY_REFUSES, "hyper-util; RFC 1928 §6: the proxy's rules"),
    row(
        "SOCKS error: server does not support user/pass authentication",
        PROXY_REFUSES,
        "hyper-util; RFC 1928 §3",
    ),
    row("SOCKS error: host address is more than 255 characters", WRONG, "hyper-util"),
    row("SOCKS error: missing destination", WRONG, "hyper-util"),
    row(
        "invalid URL, scheme is not http",
        WRONG,
        "hyper-util: `https` and a client that was built without TLS",
    ),
    row("invalid URL, scheme is missing", WRONG, "hyper-util"),
    row("invalid URL, host is missing", WRONG, "hyper-util"),
    row(
        "Connecting to HTTPS without TLS enabled",
        WRONG,
        "tonic: `https` and an endpoint without `tls_config`",
    ),
    row("unsupported scheme", WRONG, "hyper-rustls: `http` and a client for `https` alone"),
    row("https required but URI was not https", WRONG, "hyper-tls: `http` and a client for `https` alone"),
];

/// The fault of an error with this text.
pub(crate) fn classify(text: &[u8]) -> Option<&'static Fault> {
    let row = ROWS.iter().find(|row| text.starts_with(row.text.as_bytes()));
    row.map(|row| &row.fault)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The walk keeps 64 bytes of a text.
    #[test]
    fn connector_rows_fit_buffer_and_are_disjoint() {
        for (place, row) in ROWS.iter().enumerate() {
            assert!(row.text.len() <= 64 && !row.source.is_empty(), "{}", row.text);
            let matching = ROWS.iter().position(|other| row.text.starts_with(other.text));
            assert_eq!(matching, Some(place), "{}", row.text);
            assert_eq!(classify(format!("{}: more", row.text).as_bytes()), Some(&row.fault));
        }
        assert_eq!(classify(b"tcp connect error"), None);
        assert_eq!(classify(b"tunnel"), None);
    }
}
