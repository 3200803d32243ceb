//! The table of connector errors, by the beginning of their text.
//!
//! hyper-util's `HttpConnector`, `Tunnel` and `SocksV5`, hyper-rustls and tonic keep these types
//! private. If a text changes, the error is not recognised, and is classified like any other
//! failure to connect.

use crate::fault::Fault;
use crate::fault::Health::Neutral;
use crate::fault::Kind::{Auth, Protocol, Unavailable};
use crate::fault::Origin::Remote;
use crate::fault::Retryable::{Never, Unsent};
use crate::table::io::{BROKEN, WRONG};

/// The fault of one text.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(not(test), expect(dead_code, reason = "only the docs contain the source; a test generates them"))]
pub(crate) struct Row {
    pub(crate) text: &'static str,
    pub(crate) fault: Fault,
    pub(crate) source: &'static str,
}

const fn row(text: &'static str, fault: Fault, source: &'static str) -> Row {
    Row { text, fault, source }
}

/// The proxy rejects this client. That says nothing about the server.
const PROXY_REFUSES: Fault = Fault::new(Auth, Never, Neutral, Remote);
/// The proxy opened no tunnel: its rules forbid it (403), or it did not reach the server (502, 503,
/// 504). The error is the same for all of them.
///
/// The request was not sent, so another attempt does no harm. The rules of a proxy must not count
/// against a server, so the fault is neutral.
const NO_TUNNEL: Fault = Fault::new(Unavailable, Unsent, Neutral, Remote);
/// The proxy's response is malformed.
const PROXY_GARBLED: Fault = Fault::new(Protocol, Never, Neutral, Remote);

/// The rows. No text is the beginning of another text.
pub(crate) const ROWS: &[Row] = &[
    row("tunnel error: proxy authorization required", PROXY_REFUSES, "hyper-util: 407 to `CONNECT`"),
    row(
        "tunnel error: unsuccessful",
        NO_TUNNEL,
        "hyper-util: any status to `CONNECT` other than 200 and 407. The error does not distinguish 403 from 502, 503 and 504",
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

/// Returns the fault of an error with this text.
pub(crate) fn classify(text: &[u8]) -> Option<&'static Fault> {
    let row = ROWS.iter().find(|row| text.starts_with(row.text.as_bytes()));
    row.map(|row| &row.fault)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The inspector reads the first 64 bytes of a text.
    #[test]
    fn connector_rows_fit_buffer_and_are_disjoint() {
        for (index, row) in ROWS.iter().enumerate() {
            assert!(row.text.len() <= 64 && !row.source.is_empty(), "{}", row.text);
            let matching = ROWS.iter().position(|other| row.text.starts_with(other.text));
            assert_eq!(matching, Some(index), "{}", row.text);
            assert_eq!(classify(format!("{}: more", row.text).as_bytes()), Some(&row.fault));
        }
        assert_eq!(classify(b"tcp connect error"), None);
        assert_eq!(classify(b"tunnel"), None);
    }
}
