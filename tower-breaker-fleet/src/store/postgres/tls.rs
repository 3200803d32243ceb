//! Encryption of connections.

use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::{Config, NoTls};

use super::failure::Target;
use super::link::Link;
use crate::store::StoreError;

/// The oldest version of the server that is supported.
const OLDEST: u32 = 15;

/// The next step after a failed handshake.
#[cfg(feature = "postgres-tls")]
pub(super) const ADVICE: &str = "check that the certificate is valid for this host, and that the system or \
     `PostgresStore::root_certificates` has its root";
#[cfg(not(feature = "postgres-tls"))]
pub(super) const ADVICE: &str = "enable the feature `postgres-tls` of `tower-breaker-fleet`";

/// The next step if a server demands TLS.
#[cfg(feature = "postgres-tls")]
pub(super) const ENCRYPT: &str = "remove `sslmode=disable` from the URL, and connect over TCP";
#[cfg(not(feature = "postgres-tls"))]
pub(super) const ENCRYPT: &str = ADVICE;

/// The settings of TLS. Without the feature there are none.
#[derive(Clone, Default)]
pub(super) struct Tls {
    /// The roots that an application has set, instead of those of the system.
    #[cfg(feature = "postgres-tls")]
    roots: Option<std::sync::Arc<rustls::RootCertStore>>,
    /// Reading the roots of the system takes some milliseconds.
    #[cfg(feature = "postgres-tls")]
    connector: std::sync::Arc<std::sync::OnceLock<tokio_postgres_rustls::MakeRustlsConnect>>,
}

impl Tls {
    /// Connects, with TLS if the URL does not forbid it and the server is not on a Unix socket.
    /// Refuses an old server.
    pub(super) async fn connect(&self, config: &Config, target: &Target) -> Result<Link, StoreError> {
        let is_local = config.get_hosts().iter().all(|host| !matches!(host, Host::Tcp(_)));
        let link = if is_local || config.get_ssl_mode() == SslMode::Disable {
            Link::connect(config, NoTls).await
        } else {
            self.connect_encrypted(config, target).await?
        };
        let link = link.map_err(|error| target.failure(error))?;
        match link.server_version() {
            Some(version) if version < OLDEST => {
                let problem = format!("it has version {version}, and version {OLDEST} or later is needed");
                Err(target.refused(&problem))
            }
            _ => Ok(link),
        }
    }

    #[cfg(not(feature = "postgres-tls"))]
    #[allow(clippy::unused_async, clippy::unused_self, reason = "as with the feature")]
    async fn connect_encrypted(
        &self,
        config: &Config,
        _: &Target,
    ) -> Result<Result<Link, tokio_postgres::Error>, StoreError> {
        Ok(Link::connect(config, NoTls).await)
    }
}

#[cfg(feature = "postgres-tls")]
mod encrypted {
    use std::path::Path;
    use std::sync::Arc;

    use rustls::crypto::CryptoProvider;
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;
    use rustls::{ClientConfig, RootCertStore};
    use tokio_postgres::{Config, Error};
    use tokio_postgres_rustls::MakeRustlsConnect;

    use super::{Link, StoreError, Target, Tls};

    impl Tls {
        /// Reads root certificates in the format PEM. The error is the problem of the file.
        pub(crate) fn with_roots(file: &Path) -> Result<Self, String> {
            let certificates = CertificateDer::pem_file_iter(file).map_err(|error| error.to_string())?;
            let mut roots = RootCertStore::empty();
            for certificate in certificates {
                let certificate = certificate.map_err(|error| error.to_string())?;
                roots.add(certificate).map_err(|error| error.to_string())?;
            }
            if roots.is_empty() {
                return Err("it has no certificate".to_owned());
            }
            Ok(Self { roots: Some(Arc::new(roots)), connector: Arc::default() })
        }

        pub(super) async fn connect_encrypted(
            &self,
            config: &Config,
            target: &Target,
        ) -> Result<Result<Link, Error>, StoreError> {
            let connector = if let Some(connector) = self.connector.get() {
                connector.clone()
            } else {
                let connector = self.connector().map_err(|problem| target.refused(&problem))?;
                self.connector.get_or_init(|| connector).clone()
            };
            Ok(Link::connect(config, connector).await)
        }

        fn connector(&self) -> Result<MakeRustlsConnect, String> {
            // rustls panics without one.
            if CryptoProvider::get_default().is_none() {
                let problem = "rustls has no crypto provider; call `install_default` of one when the process starts, \
                               or set `sslmode=disable` for a connection without TLS";
                return Err(problem.to_owned());
            }
            if let Some(roots) = &self.roots {
                let config = ClientConfig::builder().with_root_certificates(Arc::clone(roots));
                return Ok(MakeRustlsConnect::new(config.with_no_client_auth()));
            }
            match MakeRustlsConnect::with_native_certs() {
                Ok((connector, _unreadable)) => Ok(connector),
                Err(errors) => Err(format!(
                    "the system has no root certificates ({errors:?}); set `PostgresStore::root_certificates`, \
                     or `sslmode=disable` for a connection without TLS"
                )),
            }
        }
    }
}
