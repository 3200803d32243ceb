//! Failures of proxies and of name resolution, over each client. The rows are in the section
//! "Proxies and DNS" of `TABLES.md`.

mod dns;
mod http_proxy;
mod layers;
mod socks;

use std::time::Duration;

use http::Uri;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::Connect;
use rustls::{ClientConfig, RootCertStore};
use test_servers::Tls;
use tower::timeout::Timeout;
use tower::util::BoxCloneSyncService;
use tower::{BoxError, Service};
use tower_fault_classify::classify_error;

use super::{Table, debug_chain, expect_error, hyper_util_client, reqwest_client, tonic_channel, verdict};

/// A name that no resolver knows. A proxy receives it, and does not resolve it.
const SERVER: &str = "server.invalid:80";

const PAGE: &str = include_str!("../../../../../tower-fault-classify/TABLES.md");

/// Returns the lines of the rows, which begin with the situation and the axes.
fn rows() -> impl Iterator<Item = &'static str> {
    let (_, section) = PAGE.split_once("\n# Proxies and DNS\n").expect("the page has the section");
    let (_, rows) = section.split_once("|---|---|---|---|---|---|\n").expect("the section has a table");
    rows.lines().take_while(|line| line.starts_with("| "))
}

/// Checks the verdict on each client's error against the row of the situation.
fn check(table: &mut Table, situation: &str, errors: Vec<(&str, BoxError)>) {
    for (client, error) in errors {
        // The layer's verdict equals that on the client's error.
        verdict(&*error);
        let fault = classify_error(&*error);
        let [kind, retry] = [fault.kind().to_string(), fault.retryable().to_string()];
        let [health, origin] = [fault.health().to_string(), fault.origin().to_string()];
        let row = format!("| {situation} | `{kind}` | `{retry}` | `{health}` | `{origin}` |");
        table.check(rows().any(|line| line.starts_with(&row)), || {
            format!("{client}: not in the page: {row}\n  {:?}", debug_chain(&*error))
        });
    }
}

#[test]
fn every_row_has_a_test() {
    let tests = [include_str!("dns.rs"), include_str!("http_proxy.rs"), include_str!("socks.rs")].concat();
    let situations: Vec<_> =
        rows().map(|row| row.split(" | ").next().unwrap().trim_start_matches("| ")).collect();
    assert!(situations.len() > 15, "{situations:?}");
    for situation in situations {
        assert!(tests.contains(&format!("\"{situation}\"")), "no test of: {situation}");
    }
}

/// Returns the error of a call over hyper-util's client with this connector.
async fn hyper_util_error<C>(connector: C, url: &str) -> BoxError
where
    C: Connect + Clone + Send + Sync + 'static,
{
    expect_error(hyper_util_client::exchange(&hyper_util_client::client_with(connector), url).await)
}

/// Returns the error of a call over tonic's channel with this connector.
///
/// `limit` is the endpoint's connect timeout. It is short only if nothing else ends the call.
async fn tonic_error<C>(connector: C, url: &str, limit: Duration) -> BoxError
where
    C: Service<Uri> + Send + 'static,
    C::Response: hyper::rt::Read + hyper::rt::Write + Send + Unpin,
    C::Future: Send,
    BoxError: From<C::Error>,
    C::Error: Send,
{
    let endpoint = tonic_channel::endpoint(url).connect_timeout(limit);
    expect_error(tonic_channel::layered(endpoint.connect_with_connector_lazy(connector)).await)
}

/// Returns the error of a call over reqwest's client.
async fn reqwest_error(builder: reqwest::ClientBuilder, url: &str) -> BoxError {
    expect_error(reqwest_client::exchange(&builder.build().unwrap(), url).await)
}

/// Adds TLS to a connector. It trusts the authority of `tls`.
fn with_tls<C>(connector: C, tls: &Tls) -> HttpsConnector<C> {
    test_servers::install_ring();
    let mut roots = RootCertStore::empty();
    roots.add(tls.ca_der()).unwrap();
    let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    HttpsConnectorBuilder::new()
        .with_tls_config(config)
        .https_or_http()
        .enable_http1()
        .wrap_connector(connector)
}

/// Limits the time that a connector takes for one connection.
fn with_timeout<C>(connector: C, limit: Duration) -> BoxCloneSyncService<Uri, C::Response, BoxError>
where
    C: Service<Uri> + Clone + Send + Sync + 'static,
    C::Error: Into<BoxError>,
    C::Future: Send,
{
    BoxCloneSyncService::new(Timeout::new(connector, limit))
}
