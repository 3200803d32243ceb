//! TLS for the servers.

mod handshake;
mod stream;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::version::{TLS12, TLS13};
use rustls::{ConfigBuilder, RootCertStore, ServerConfig, SupportedProtocolVersion, WantsVerifier};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

pub use self::handshake::Handshake;
pub(crate) use self::stream::Stream;

static ONLY_TLS12: [&SupportedProtocolVersion; 1] = [&TLS12];
static ONLY_TLS13: [&SupportedProtocolVersion; 1] = [&TLS13];

/// The TLS settings of a server: its certificate, and what goes wrong.
///
/// [`Http::start_tls`](crate::Http::start_tls) and [`Grpc::start_tls`](crate::Grpc::start_tls)
/// start a server with these settings, and so do the real databases with
/// [`server_pem`](Self::server_pem). By default it has a valid certificate for `localhost` and
/// `127.0.0.1`, issued by a certificate authority of its own. It supports TLS 1.2 and 1.3, and
/// chooses `http/1.1` or `h2` by ALPN, as the server requires.
///
/// Each value has another authority. Clones have the same authority and the same script of
/// handshakes.
///
/// | wanted | code |
/// |---|---|
/// | a client that trusts the server | add [`ca_pem`](Self::ca_pem) or [`ca_der`](Self::ca_der) to its roots |
/// | an unknown issuer | do not add it, or add that of another `Tls::new()` |
/// | a certificate for other names | `.names(["api.example.com"])` |
/// | an invalid certificate | `.expired()`, `.not_yet_valid()` |
/// | no common version | `.only_tls12()`, `.only_tls13()`, and a client with another version |
/// | no common cipher suite | `.without_common_cipher()` |
/// | no common protocol | `.alpn(["other"])` |
/// | a client certificate is demanded | `.demand_client_certificate()` |
/// | the handshake fails | `tls.handshakes([Handshake::Reset, Handshake::Stall])` |
/// | the connection ends after the handshake | the actions of the server, such as `Action::ResetOnAccept` |
/// | the connection ends without `close_notify` | `.without_close_notify()` |
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use test_servers::{Handshake, Http, Tls};
///
/// let tls = Tls::new();
/// tls.handshakes([Handshake::Reset]);
/// let server = Http::start_tls(&tls).await;
/// assert!(server.url().starts_with("https://"));
/// assert!(tls.ca_pem().starts_with("-----BEGIN CERTIFICATE-----"));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Tls {
    authority: Arc<CertifiedIssuer<'static, KeyPair>>,
    names: Vec<String>,
    /// The years at whose beginning the certificate becomes valid, and expires.
    validity: [i32; 2],
    versions: &'static [&'static SupportedProtocolVersion],
    common_cipher: bool,
    alpn: Option<Vec<Vec<u8>>>,
    client_certificate: bool,
    close_notify: bool,
    handshakes: Arc<Mutex<VecDeque<Handshake>>>,
}

impl Tls {
    /// Creates a certificate authority, and the default settings.
    ///
    /// # Panics
    ///
    /// Panics if the system has no random numbers.
    #[expect(clippy::new_without_default, reason = "each value has another authority")]
    pub fn new() -> Self {
        let key = new_key();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        // With equal names, a client would blame the signature and not the issuer.
        let name = format!("authority {:x?}", &key.public_key_raw()[1..9]);
        params.distinguished_name.push(DnType::CommonName, name);
        let authority =
            CertifiedIssuer::self_signed(params, key).expect("an authority can sign its certificate");
        Self {
            authority: Arc::new(authority),
            names: vec!["localhost".to_owned(), "127.0.0.1".to_owned()],
            validity: [2020, 4000],
            versions: rustls::ALL_VERSIONS,
            common_cipher: true,
            alpn: None,
            client_certificate: false,
            close_notify: true,
            handshakes: Arc::default(),
        }
    }

    /// Returns the certificate of the authority in PEM.
    pub fn ca_pem(&self) -> String {
        self.authority.pem()
    }

    /// Returns the certificate of the authority in DER.
    pub fn ca_der(&self) -> CertificateDer<'static> {
        self.authority.der().clone()
    }

    /// Sets the DNS names and IP addresses of the server's certificate.
    pub fn names<N: Into<String>>(self, names: impl IntoIterator<Item = N>) -> Self {
        Self { names: names.into_iter().map(Into::into).collect(), ..self }
    }

    /// Makes the server's certificate expire at the beginning of 2021.
    pub fn expired(self) -> Self {
        Self { validity: [2020, 2021], ..self }
    }

    /// Makes the server's certificate become valid in the year 3999.
    pub fn not_yet_valid(self) -> Self {
        Self { validity: [3999, 4000], ..self }
    }

    /// Supports TLS 1.2 only.
    pub fn only_tls12(self) -> Self {
        Self { versions: &ONLY_TLS12, ..self }
    }

    /// Supports TLS 1.3 only.
    pub fn only_tls13(self) -> Self {
        Self { versions: &ONLY_TLS13, ..self }
    }

    /// Supports only TLS 1.2 and cipher suites that need an RSA key, which the server does not
    /// have. The handshake with any client fails.
    pub fn without_common_cipher(self) -> Self {
        Self { common_cipher: false, ..self }.only_tls12()
    }

    /// Sets the protocols that the server offers by ALPN. A handshake fails if the client offers
    /// none of them.
    pub fn alpn<P: Into<Vec<u8>>>(self, protocols: impl IntoIterator<Item = P>) -> Self {
        Self { alpn: Some(protocols.into_iter().map(Into::into).collect()), ..self }
    }

    /// Demands a client certificate of the same authority.
    ///
    /// A client without a certificate gets an alert: in TLS 1.2 during its handshake, in TLS 1.3
    /// when its handshake is complete.
    pub fn demand_client_certificate(self) -> Self {
        Self { client_certificate: true, ..self }
    }

    /// Closes connections without a `close_notify` alert, as if they were cut.
    pub fn without_close_notify(self) -> Self {
        Self { close_notify: false, ..self }
    }

    /// Appends to the script of handshakes, which has one for each connection. When it is empty,
    /// handshakes complete.
    pub fn handshakes(&self, handshakes: impl IntoIterator<Item = Handshake>) {
        self.script().extend(handshakes);
    }

    /// Returns a new certificate of the server, and its private key, in PEM: for a program that
    /// reads them from files. The script of handshakes does not apply to it.
    pub fn server_pem(&self) -> (String, String) {
        let (certificate, key) = self.issue();
        (certificate.pem(), key.serialize_pem())
    }

    /// Returns the acceptor of a server that speaks this protocol.
    pub(crate) fn acceptor(&self, protocol: &[u8]) -> Acceptor {
        let (certificate, key) = self.issue();
        let chain = vec![certificate.der().clone()];
        let mut config = self
            .verifying_clients()
            .with_single_cert(chain, PrivateKeyDer::Pkcs8(key.serialize_der().into()))
            .expect("the key belongs to the certificate");
        config.alpn_protocols = self.alpn.clone().unwrap_or_else(|| vec![protocol.to_vec()]);
        Acceptor { tls: self.clone(), acceptor: Arc::new(config).into() }
    }

    fn issue(&self) -> (Certificate, KeyPair) {
        let key = new_key();
        let mut params = CertificateParams::new(self.names.clone()).expect("the names are valid");
        [params.not_before, params.not_after] = self.validity.map(|year| date_time_ymd(year, 1, 1));
        (params.signed_by(&key, &self.authority).expect("the authority can sign"), key)
    }

    fn verifying_clients(&self) -> ConfigBuilder<ServerConfig, rustls::server::WantsServerCert> {
        let provider = Arc::new(self.provider());
        let builder = self.builder(&provider);
        if !self.client_certificate {
            return builder.with_no_client_auth();
        }
        let mut roots = RootCertStore::empty();
        roots.add(self.ca_der()).expect("the authority's certificate is valid");
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .expect("the verifier has a root");
        builder.with_client_cert_verifier(verifier)
    }

    fn builder(&self, provider: &Arc<CryptoProvider>) -> ConfigBuilder<ServerConfig, WantsVerifier> {
        ServerConfig::builder_with_provider(Arc::clone(provider))
            .with_protocol_versions(self.versions)
            .expect("each version has a cipher suite")
    }

    fn provider(&self) -> CryptoProvider {
        let mut provider = ring::default_provider();
        if !self.common_cipher {
            provider.cipher_suites = vec![ring::cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256];
        }
        provider
    }

    fn script(&self) -> MutexGuard<'_, VecDeque<Handshake>> {
        // No code panics between two changes, so the script is valid even if the lock is poisoned.
        self.handshakes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn new_key() -> KeyPair {
    KeyPair::generate().expect("the system has random numbers")
}

/// Performs the handshakes of a server.
#[derive(Clone)]
pub(crate) struct Acceptor {
    tls: Tls,
    acceptor: TlsAcceptor,
}

impl Acceptor {
    /// Performs the handshake of one connection. `None`: the connection has ended.
    pub(crate) async fn accept(&self, stream: TcpStream) -> Option<Stream> {
        let handshake = self.tls.script().pop_front().unwrap_or(Handshake::Complete);
        if !matches!(handshake, Handshake::Complete) {
            // An error means that the client has cancelled. The test checks its own side.
            let _ = handshake::fail(stream, handshake).await;
            return None;
        }
        match self.acceptor.accept(stream).into_fallible().await {
            Ok(stream) => Some(Stream::Tls { stream: Box::new(stream), close_notify: self.tls.close_notify }),
            Err((_, stream)) => {
                // The alert is sent.
                let _ = handshake::close(stream).await;
                None
            }
        }
    }
}
