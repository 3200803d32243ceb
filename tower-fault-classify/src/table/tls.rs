//! The table of TLS errors, by the beginning of their text, and the situations that lead to them.
//!
//! rustls' error is the payload of an `io::Error`. h2 keeps only the text of that payload, and the
//! types of the TLS libraries are no dependencies of this crate. If a text changes, rustls' error
//! is classified by its `ErrorKind`, which is `InvalidData`.

use crate::fault::Fault;
use crate::fault::Health::{Neutral, Unhealthy};
use crate::fault::Kind::{Auth, Server};
use crate::fault::Origin::{Caller, Remote};
use crate::fault::Retryable::{IfIdempotent, Never};
use crate::table::io::{BROKEN, MALFORMED};
#[cfg(test)]
use crate::table::io::{TIMED_OUT, unsent};
use crate::table::row::{TextRow, find_text, text_row as row};

/// The server rejects the certificate of this client, or its absence. That says nothing about the
/// server's health.
const CLIENT_REJECTED: Fault = Fault::new(Auth, Never, Neutral, Caller);
/// The server failed for a reason that has nothing to do with the client, as with status 500.
const SERVER_FAILED: Fault = Fault::new(Server, IfIdempotent, Unhealthy, Remote);

/// The rows. The first row that matches decides.
pub(crate) const ROWS: &[TextRow] = &[
    row("received fatal alert: BadCertificate", CLIENT_REJECTED, "rustls; RFC 8446 §6.2, alert 42"),
    row("received fatal alert: UnsupportedCertificate", CLIENT_REJECTED, "rustls; RFC 8446 §6.2, alert 43"),
    row("received fatal alert: CertificateRevoked", CLIENT_REJECTED, "rustls; RFC 8446 §6.2, alert 44"),
    row("received fatal alert: CertificateExpired", CLIENT_REJECTED, "rustls; RFC 8446 §6.2, alert 45"),
    row("received fatal alert: CertificateUnknown", CLIENT_REJECTED, "rustls; RFC 8446 §6.2, alert 46"),
    row("received fatal alert: UnknownCA", CLIENT_REJECTED, "rustls; RFC 8446 §6.2, alert 48"),
    row("received fatal alert: AccessDenied", CLIENT_REJECTED, "rustls; RFC 8446 §6.2, alert 49"),
    row("received fatal alert: CertificateRequired", CLIENT_REJECTED, "rustls; RFC 8446 §6.2, alert 116"),
    row("received fatal alert: InternalError", SERVER_FAILED, "rustls; RFC 8446 §6.2, alert 80"),
    // OpenSSL adds 1000 to the number of an alert. Its numbers are hexadecimal.
    row("error:0A000412", CLIENT_REJECTED, "OpenSSL 3; RFC 8446 §6.2, alert 42"),
    row("error:0A000413", CLIENT_REJECTED, "OpenSSL 3; RFC 8446 §6.2, alert 43"),
    row("error:0A000414", CLIENT_REJECTED, "OpenSSL 3; RFC 8446 §6.2, alert 44"),
    row("error:0A000415", CLIENT_REJECTED, "OpenSSL 3; RFC 8446 §6.2, alert 45"),
    row("error:0A000416", CLIENT_REJECTED, "OpenSSL 3; RFC 8446 §6.2, alert 46"),
    row("error:0A000418", CLIENT_REJECTED, "OpenSSL 3; RFC 8446 §6.2, alert 48"),
    row("error:0A000419", CLIENT_REJECTED, "OpenSSL 3; RFC 8446 §6.2, alert 49"),
    row("error:0A00045C", CLIENT_REJECTED, "OpenSSL 3; RFC 8446 §6.2, alert 116"),
    row("error:0A000438", SERVER_FAILED, "OpenSSL 3; RFC 8446 §6.2, alert 80"),
    row("error:0A000126", BROKEN, "OpenSSL 3: `SSL_R_UNEXPECTED_EOF_WHILE_READING`"),
    row(
        "error:0A000",
        MALFORMED,
        "OpenSSL 3: any other error of its TLS library, such as a rejected certificate",
    ),
];

/// The situations, for the page of tables.
///
/// The integration tests cause each of them with real clients, and compare the verdict with the
/// page.
#[cfg(test)]
pub(crate) const SITUATIONS: &[TextRow] = &[
    row("the issuer of the server's certificate is unknown", MALFORMED, "RFC 8446 §4.4.2.4; RFC 9110 §4.3.4"),
    row("the server's certificate has expired", MALFORMED, "RFC 5280 §6.1.3"),
    row("the server's certificate is not valid yet", MALFORMED, "RFC 5280 §6.1.3"),
    row("the server's certificate is for another name", MALFORMED, "RFC 9110 §4.3.4"),
    row("client and server have no TLS version in common", MALFORMED, "RFC 8446 §6.2, alert 70"),
    row("client and server have no cipher suite in common", MALFORMED, "RFC 8446 §6.2, alert 40"),
    row("client and server have no protocol in common (ALPN)", MALFORMED, "RFC 7301 §3.2, alert 120"),
    row("the server answers the handshake in plain HTTP", MALFORMED, "RFC 8446 §5.1"),
    row(
        "an HTTP/1.1 client sends plain HTTP to a TLS port",
        MALFORMED,
        "RFC 9112 §4: the answer is not HTTP",
    ),
    row(
        "the server rejects the client's certificate, or demands one that the client does not have",
        CLIENT_REJECTED,
        "RFC 8446 §6.2. In TLS 1.3 the alert may arrive after the request was sent (§4.4.2.4)",
    ),
    row(
        "the server sends the alert `internal_error` in the handshake",
        unsent(SERVER_FAILED),
        "RFC 8446 §6.2, alert 80",
    ),
    row(
        "the connection ends during the handshake",
        unsent(BROKEN),
        "RFC 8446 §2: the request follows the handshake",
    ),
    row("the handshake does not end within the connect timeout", unsent(TIMED_OUT), "RFC 8446 §2"),
    row(
        "the handshake does not end within a timeout around the client",
        TIMED_OUT,
        "the timeout's error does not say how far the call got",
    ),
    row("the connection is reset after the handshake", BROKEN, "RFC 9110 §9.2.2"),
    row("the connection ends within the response's body, without `close_notify`", BROKEN, "RFC 9112 §9.8"),
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
    fn tls_rows_fit_buffer_and_are_reached() {
        assert_texts_are_reached(ROWS);
        assert_eq!(classify(b"received fatal alert: HandshakeFailure"), None);
        assert_eq!(classify(b"error:1400"), None);
    }
}
