//! TLS, if the feature is on.

use tokio_postgres::{Config, Error};

use super::link::Link;

pub(super) const ADVICE: &str =
    "enable the feature `postgres-tls`, or set `sslmode=disable` for a server on this machine";

pub(super) async fn connect(config: &Config) -> Result<Link, Error> {
    Link::connect(config, tokio_postgres::NoTls).await
}
