//! SOCKS proxies.

use std::time::Duration;

use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::{SocksV4, SocksV5};
use integration_tests::TIMEOUT;
use reqwest::Proxy;
use test_servers::{Action, Http, RefusedPort, Socks, SocksAction, Tls};
use tower::BoxError;

use super::super::{CALLER, SHORT, Table, reqwest_client};
use super::{SERVER, check, hyper_util_error, reqwest_error, tonic_error, with_timeout, with_tls};

#[derive(Clone, Copy, Debug)]
enum Version {
    V4,
    V5,
}

fn socks4(proxy: &str) -> SocksV4<HttpConnector> {
    SocksV4::new(proxy.parse().unwrap(), HttpConnector::new())
}

fn socks5(proxy: &str) -> SocksV5<HttpConnector> {
    let connector = SocksV5::new(proxy.parse().unwrap(), HttpConnector::new());
    connector.with_auth("user".to_owned(), "password".to_owned())
}

/// Returns reqwest's builder with a proxy that resolves the server's name.
fn reqwest_with(version: Version, proxy: &str) -> reqwest::ClientBuilder {
    let scheme = match version {
        Version::V4 => "socks4a://",
        Version::V5 => "socks5h://user:password@",
    };
    reqwest_client::builder().proxy(Proxy::all(proxy.replace("http://", scheme)).unwrap())
}

/// Returns the error of one call from each client through the proxy, with a connect timeout.
async fn errors(version: Version, proxy: &str, limit: Duration) -> Vec<(&'static str, BoxError)> {
    let url = &*format!("http://{SERVER}");
    let reqwest = reqwest_error(reqwest_with(version, proxy).connect_timeout(limit), url).await;
    let (hyper_util, tonic) = match version {
        Version::V4 => (
            hyper_util_error(with_timeout(socks4(proxy), limit), url).await,
            tonic_error(socks4(proxy), url, limit).await,
        ),
        Version::V5 => (
            hyper_util_error(with_timeout(socks5(proxy), limit), url).await,
            tonic_error(socks5(proxy), url, limit).await,
        ),
    };
    vec![("reqwest", reqwest), ("hyper-util", hyper_util), ("tonic", tonic)]
}

/// Returns the error of one call from each client through a proxy that always does this.
async fn errors_after(version: Version, action: SocksAction) -> Vec<(&'static str, BoxError)> {
    let proxy = Socks::start().await;
    let limit = if matches!(action, SocksAction::Hang) { SHORT } else { TIMEOUT };
    proxy.set_default(action);
    let errors = errors(version, &proxy.url(), limit).await;
    // A short timeout may end before the proxy has accepted the connection.
    assert!(limit == SHORT || proxy.connections() == errors.len());
    assert!(proxy.requests().iter().all(|request| request.path == SERVER));
    errors
}

#[tokio::test]
async fn refusal_of_socks5_proxy_matches_table() {
    let mut table = Table::default();
    for action in [SocksAction::RejectMethods, SocksAction::RejectPassword, SocksAction::Refuse(2)] {
        check(
            &mut table,
            "a SOCKS5 proxy rejects the user name and password, requires another authentication method, or does not allow the connection",
            errors_after(Version::V5, action).await,
        );
    }
    for code in [1, 3, 4, 5, 6] {
        check(
            &mut table,
            "a SOCKS5 proxy does not reach the server",
            errors_after(Version::V5, SocksAction::Refuse(code)).await,
        );
    }
    for code in [7, 8] {
        check(
            &mut table,
            "a SOCKS5 proxy does not support the command or the type of address",
            errors_after(Version::V5, SocksAction::Refuse(code)).await,
        );
    }
}

#[tokio::test]
async fn refusal_of_socks4_proxy_matches_table() {
    let mut table = Table::default();
    check(
        &mut table,
        "a SOCKS4 proxy rejects the request, or does not reach the server",
        errors_after(Version::V4, SocksAction::Refuse(91)).await,
    );
    for code in [92, 93] {
        check(
            &mut table,
            "a SOCKS4 proxy rejects the client's identity",
            errors_after(Version::V4, SocksAction::Refuse(code)).await,
        );
    }
}

/// The answers: HTTP, a method that the client did not offer, and an unknown code.
#[tokio::test]
async fn invalid_answer_of_socks_proxy_is_protocol_never() {
    let mut table = Table::default();
    for (version, action) in [
        (Version::V5, SocksAction::Raw(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec())),
        (Version::V4, SocksAction::Raw(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec())),
        (Version::V5, SocksAction::Raw(vec![5, 0])),
        (Version::V5, SocksAction::Refuse(9)),
        (Version::V4, SocksAction::Refuse(1)),
    ] {
        check(
            &mut table,
            "a SOCKS proxy sends an invalid or unknown answer",
            errors_after(version, action).await,
        );
    }
}

#[tokio::test]
async fn socks_proxy_without_answer_is_unsent() {
    let mut table = Table::default();
    for version in [Version::V4, Version::V5] {
        check(
            &mut table,
            "a SOCKS proxy closes the connection instead of answering",
            errors_after(version, SocksAction::CloseAfterRequest).await,
        );
        check(
            &mut table,
            "the proxy does not answer within the connect timeout",
            errors_after(version, SocksAction::Hang).await,
        );
        let refused = RefusedPort::bind();
        check(&mut table, "the proxy refuses the connection", errors(version, &refused.url(), TIMEOUT).await);
    }
}

#[tokio::test]
async fn tunnel_of_socks_proxy_closed_before_tls_is_unsent() {
    let (proxy, server, mut table) = (Socks::start().await, Http::start().await, Table::default());
    let url = format!("https://{}", server.address());
    for limit in [0, 1, 100] {
        proxy.set_default(SocksAction::Tunnel { limit });
        check(
            &mut table,
            "a tunnel is closed before the end of the TLS handshake",
            vec![
                ("reqwest", reqwest_error(reqwest_with(Version::V5, &proxy.url()), &url).await),
                ("hyper-rustls", hyper_util_error(with_tls(socks5(&proxy.url()), &Tls::new()), &url).await),
            ],
        );
    }
}

/// SOCKS4 has no IPv6 addresses, and a name in SOCKS5 has at most 255 bytes.
#[tokio::test]
async fn address_that_socks_cannot_express_is_client_never() {
    let (proxy, mut table) = (Socks::start().await, Table::default());
    table.error(&"IPv6", &*hyper_util_error(socks4(&proxy.url()), "http://[::1]:80").await, CALLER);
    let long = format!("http://{}/", "a".repeat(256));
    table.error(&"long name", &*hyper_util_error(socks5(&proxy.url()), &long).await, CALLER);
}

#[tokio::test]
async fn call_through_socks_proxy_succeeds() {
    let (proxy, server) = (Socks::start().await, Http::start().await);
    server.set_default(Action::Echo);
    for version in [Version::V4, Version::V5] {
        let client = reqwest_with(version, &proxy.url()).build().unwrap();
        reqwest_client::exchange(&client, &server.url()).await.unwrap();
    }
    assert_eq!((proxy.requests().len(), server.requests().len()), (2, 2));
}
