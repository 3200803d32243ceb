//! Name resolution. The resolvers are scripted, so no test depends on the network.

use std::future::ready;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::vec::IntoIter;

use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use integration_tests::TIMEOUT;
use test_servers::{Grpc, Http, RefusedPort};
use tower::{BoxError, Service};

use super::super::{CONNECT_TIMEOUT, SHORT, Table, hyper_util_client, reqwest_client, tonic_channel};
use super::{check, hyper_util_error, reqwest_error, tonic_error, with_timeout};

/// The URL has no port, so the port of the resolver's address is used.
const URL: &str = "http://server.test";

/// A resolver that has one answer for every name.
#[derive(Clone, Debug)]
enum Resolver {
    /// The error of the system's resolver: a label of a name has at most 63 characters.
    SystemError,
    /// The error of a resolver that does not use the system's. It is not an I/O error.
    OtherError,
    Hang,
    Addresses(Vec<SocketAddr>),
}

type Resolving = Pin<Box<dyn Future<Output = Result<IntoIter<SocketAddr>, BoxError>> + Send>>;

impl Resolver {
    fn resolve(&self) -> Resolving {
        match self {
            Self::SystemError => {
                let name = format!("{}.invalid:80", "a".repeat(64));
                let error: io::Error = name.to_socket_addrs().unwrap_err();
                Box::pin(ready(Err(error.into())))
            }
            Self::OtherError => Box::pin(ready(Err("no record found for server.test".into()))),
            Self::Hang => Box::pin(std::future::pending()),
            Self::Addresses(addresses) => Box::pin(ready(Ok(addresses.clone().into_iter()))),
        }
    }
}

impl Service<Name> for Resolver {
    type Response = IntoIter<SocketAddr>;
    type Error = BoxError;
    type Future = Resolving;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Name) -> Resolving {
        self.resolve()
    }
}

impl reqwest::dns::Resolve for Resolver {
    fn resolve(&self, _: reqwest::dns::Name) -> reqwest::dns::Resolving {
        let resolving = self.resolve();
        Box::pin(async move { Ok(Box::new(resolving.await?) as reqwest::dns::Addrs) })
    }
}

impl Resolver {
    fn connector(&self) -> HttpConnector<Self> {
        HttpConnector::new_with_resolver(self.clone())
    }

    fn reqwest(&self) -> reqwest::ClientBuilder {
        reqwest_client::builder().dns_resolver(Arc::new(self.clone()))
    }

    /// Returns the error of one call from each client that uses this resolver.
    async fn errors(&self) -> Vec<(&'static str, BoxError)> {
        let limit = if matches!(self, Self::Hang) { SHORT } else { TIMEOUT };
        vec![
            ("hyper-util", hyper_util_error(with_timeout(self.connector(), limit), URL).await),
            ("reqwest", reqwest_error(self.reqwest().connect_timeout(limit), URL).await),
            ("tonic", tonic_error(self.connector(), URL, limit).await),
        ]
    }
}

/// The name of the server, and that of a proxy.
#[tokio::test]
async fn unresolved_name_is_unavailable_unsent() {
    let mut table = Table::default();
    for resolver in [Resolver::SystemError, Resolver::OtherError] {
        let tunnel = Tunnel::new("http://proxy.test".parse().unwrap(), resolver.connector());
        let proxied = resolver.reqwest().proxy(reqwest::Proxy::all("http://proxy.test").unwrap());
        let mut errors = resolver.errors().await;
        errors.push(("hyper-util's tunnel", hyper_util_error(tunnel, URL).await));
        errors.push(("reqwest's proxy", reqwest_error(proxied, URL).await));
        check(&mut table, "the name of the server or of the proxy does not resolve", errors);
    }
}

#[tokio::test]
async fn name_without_reachable_address_is_unsent() {
    let mut table = Table::default();
    check(&mut table, "the name has no address", Resolver::Addresses(Vec::new()).errors().await);
    let (first, second) = (RefusedPort::bind(), RefusedPort::bind());
    let refused = Resolver::Addresses(vec![first.address(), second.address()]);
    check(&mut table, "all addresses of the name refuse the connection", refused.errors().await);
}

#[tokio::test]
async fn unfinished_name_resolution_is_timeout_unsent() {
    let mut table = Table::default();
    check(
        &mut table,
        "name resolution does not end within the connect timeout",
        Resolver::Hang.errors().await,
    );
    // Also below the generated client alone.
    let endpoint = tonic_channel::endpoint(URL).connect_timeout(SHORT);
    let channel = endpoint.connect_with_connector_lazy(Resolver::Hang.connector());
    tonic_channel::check(&mut table, "connector", channel, CONNECT_TIMEOUT).await;
}

/// The clients try the next address if one refuses the connection.
#[tokio::test]
async fn one_live_address_is_enough() {
    let (refused, server, grpc) = (RefusedPort::bind(), Http::start().await, Grpc::start().await);
    let resolver = Resolver::Addresses(vec![refused.address(), server.address()]);
    let client = hyper_util_client::client_with(resolver.connector());
    hyper_util_client::exchange(&client, URL).await.unwrap();
    reqwest_client::exchange(&resolver.reqwest().build().unwrap(), URL).await.unwrap();
    assert_eq!(server.requests().len(), 2);

    let resolver = Resolver::Addresses(vec![refused.address(), grpc.address()]);
    let channel = tonic_channel::endpoint(URL).connect_with_connector_lazy(resolver.connector());
    tonic_channel::Caller::with_channel(channel).expect_ok().await;
    assert_eq!(grpc.requests().len(), 1);
}
