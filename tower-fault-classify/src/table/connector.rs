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
use crate::table::io::{BROKEN, MALFORMED, TIMED_OUT, WRONG};
#[cfg(test)]
use crate::table::io::{REFUSED, unsent};
use crate::table::row::{TextRow, find_text, text_row as row};

/// The proxy rejects this client. That says nothing about the server.
const PROXY_REFUSES: Fault = Fault::new(Auth, Never, Neutral, Remote);
/// The proxy opened no tunnel: its rules forbid it (403), or it did not reach the server (502, 503,
/// 504). The error is the same for all of them.
///
/// The request was not sent, so another attempt does no harm. The rules of a proxy must not count
/// against a server, so the fault is neutral.
const NO_TUNNEL: Fault = Fault::new(Unavailable, Unsent, Neutral, Remote);
/// The proxy's response is invalid, or the proxy does not support the request.
///
/// Another attempt has the same result, and the server was not reached.
const PROXY_PROTOCOL: Fault = Fault::new(Protocol, Never, Neutral, Remote);

/// The rows. No text is the beginning of another text.
pub(crate) const ROWS: &[TextRow] = &[
    row("tunnel error: proxy authorization required", PROXY_REFUSES, "hyper-util: 407 to `CONNECT`"),
    row(
        "tunnel error: unsuccessful",
        NO_TUNNEL,
        "hyper-util: any status to `CONNECT` other than 200 and 407. The error does not distinguish 403 from 502, 503 and 504",
    ),
    row("tunnel error: proxy response headers too long", PROXY_PROTOCOL, "hyper-util"),
    row("tunnel error: unexpected end of file", BROKEN, "hyper-util: the proxy closed the connection"),
    row("tunnel error: missing destination host", WRONG, "hyper-util"),
    row("SOCKS error: credentials not accepted", PROXY_REFUSES, "hyper-util; RFC 1929 §2"),
    row("SOCKS error: connection not allowed", PROXY_REFUSES, "hyper-util; RFC 1928 §6: the proxy's rules"),
    row(
        "SOCKS error: server does not support user/pass authentication",
        PROXY_REFUSES,
        "hyper-util; RFC 1928 §3",
    ),
    row(
        "SOCKS error: server ident service",
        PROXY_REFUSES,
        "hyper-util; SOCKS4: codes 92 and 93, the client's identity is not confirmed",
    ),
    row(
        "SOCKS error: server failed to execute command",
        NO_TUNNEL,
        "hyper-util; SOCKS4: code 91, for a forbidden server and for one that is not reached",
    ),
    row("SOCKS error: server implements authentication", PROXY_PROTOCOL, "hyper-util; RFC 1928 §3"),
    row("SOCKS error: command not supported", PROXY_PROTOCOL, "hyper-util; RFC 1928 §6"),
    row("SOCKS error: address type not supported", PROXY_PROTOCOL, "hyper-util; RFC 1928 §6"),
    row("SOCKS error: failed parsing server response", PROXY_PROTOCOL, "hyper-util; RFC 1928 §6"),
    row("SOCKS error: IPV6 is not supported", WRONG, "hyper-util: SOCKS4 has no IPv6 addresses"),
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
    row("TLS handshake timeout", TIMED_OUT, "tonic: `ClientTlsConfig::timeout`"),
    row(
        "HTTP/2 was not negotiated",
        MALFORMED,
        "tonic: the server accepts the handshake without choosing `h2` by ALPN",
    ),
    row("unsupported scheme", WRONG, "hyper-rustls: `http` and a client for `https` alone"),
    row("https required but URI was not https", WRONG, "hyper-tls: `http` and a client for `https` alone"),
];

/// The failures of proxies and of name resolution, for the page of tables.
///
/// The integration tests cause each of them with real clients, and compare the verdict with the
/// page.
#[cfg(test)]
pub(crate) const PROXIES_AND_DNS: &[TextRow] = &[
    row("an HTTP proxy answers `CONNECT` with 407", PROXY_REFUSES, "RFC 9110 §15.5.8"),
    row(
        "an HTTP proxy answers `CONNECT` with any other status than 200, or with an invalid response",
        NO_TUNNEL,
        "RFC 9110 §9.3.6; the error of hyper-util is the same for all of them",
    ),
    row(
        "the head of an HTTP proxy's response to `CONNECT` is larger than 8 KiB",
        PROXY_PROTOCOL,
        "RFC 9110 §5.4",
    ),
    row(
        "an HTTP proxy closes the connection instead of answering `CONNECT`",
        unsent(BROKEN),
        "RFC 9110 §9.3.6: there is no tunnel before the response",
    ),
    row(
        "a SOCKS5 proxy rejects the user name and password, requires another authentication method, or does not allow the connection",
        PROXY_REFUSES,
        "RFC 1929 §2; RFC 1928 §3; RFC 1928 §6, code 2",
    ),
    row("a SOCKS4 proxy rejects the client's identity", PROXY_REFUSES, "SOCKS4, codes 92 and 93"),
    row("a SOCKS5 proxy does not reach the server", REFUSED, "RFC 1928 §6, codes 1 and 3 to 6"),
    row(
        "a SOCKS4 proxy rejects the request, or does not reach the server",
        NO_TUNNEL,
        "SOCKS4, code 91 for both",
    ),
    row(
        "a SOCKS5 proxy does not support the command or the type of address",
        PROXY_PROTOCOL,
        "RFC 1928 §6, codes 7 and 8",
    ),
    row(
        "a SOCKS proxy sends an invalid or unknown answer",
        PROXY_PROTOCOL,
        "RFC 1928 §6: other codes are not assigned",
    ),
    row(
        "a SOCKS proxy closes the connection instead of answering",
        REFUSED,
        "hyper-util does not return the cause",
    ),
    row(
        "the proxy refuses the connection",
        REFUSED,
        "like a server that refuses it: the path to the server does not work",
    ),
    row("the proxy does not answer within the connect timeout", unsent(TIMED_OUT), "RFC 9110 §9.3.6"),
    row(
        "a tunnel is closed before the end of the TLS handshake",
        unsent(BROKEN),
        "RFC 8446 §2: the request follows the handshake",
    ),
    row(
        "a tunnel is closed after the request was sent",
        BROKEN,
        "RFC 9110 §9.3.6: a tunnel ends when either side closes",
    ),
    row("the name of the server or of the proxy does not resolve", REFUSED, "POSIX `getaddrinfo`"),
    row("the name has no address", REFUSED, "POSIX `getaddrinfo`: `EAI_NONAME`"),
    row(
        "name resolution does not end within the connect timeout",
        unsent(TIMED_OUT),
        "no connection is open",
    ),
    row("all addresses of the name refuse the connection", REFUSED, "POSIX `connect`: `ECONNREFUSED`"),
];

/// Returns the fault of an error with this text.
pub(crate) fn classify(text: &[u8]) -> Option<&'static Fault> {
    find_text(ROWS, text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::row::assert_texts_are_reached;

    #[test]
    fn connector_rows_fit_buffer_and_are_disjoint() {
        assert_texts_are_reached(ROWS);
        assert_eq!(classify(b"tcp connect error"), None);
        assert_eq!(classify(b"tunnel"), None);
    }
}
