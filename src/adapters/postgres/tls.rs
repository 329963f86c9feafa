//! TLS as libpq does it, on rustls: what is verified depends on `sslmode`, and a server that need not prove itself may
//! present any certificate, self-signed ones and the old X.509 version 1 included.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use sha2::{Digest, Sha256, Sha384, Sha512};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, TlsConnect, TlsStream};
use x509_cert::der::Decode;
use x509_cert::der::oid::db::rfc5912::{
    ECDSA_WITH_SHA_256, ECDSA_WITH_SHA_384, ECDSA_WITH_SHA_512, MD_5_WITH_RSA_ENCRYPTION, SHA_1_WITH_RSA_ENCRYPTION,
    SHA_256_WITH_RSA_ENCRYPTION, SHA_384_WITH_RSA_ENCRYPTION, SHA_512_WITH_RSA_ENCRYPTION,
};
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::{Certificate, Version};

use super::conninfo::{Roots, SslMode, TlsSettings};
use crate::ports::{SqlError, SqlErrorKind};

/// Anything that carries the protocol.
pub(super) trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Wire for T {}

/// A wire on which the question of TLS is settled, with what SCRAM can bind itself to.
pub(super) struct Channel {
    wire: Box<dyn Wire>,
    end_point: Option<Vec<u8>>,
}

impl Channel {
    /// A wire that stays as it is.
    pub fn plain(wire: impl Wire + 'static) -> Self {
        Self { wire: Box::new(wire), end_point: None }
    }

    /// Shakes hands with a server that has agreed to TLS. `host` is the name that its certificate is compared with.
    pub async fn encrypted(wire: impl Wire + 'static, host: &str, settings: &TlsSettings) -> Result<Self, SqlError> {
        let config = client_config(settings)?;
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| refused(format!("\"{host}\" is not a host name that TLS can use")))?;
        let stream = tokio_rustls::TlsConnector::from(Arc::new(config))
            .connect(name, wire)
            .await
            .map_err(|error| refused(format!("TLS handshake with {host} failed: {}", cause(&error))))?;
        let end_point = stream.get_ref().1.peer_certificates().and_then(|chain| end_point(chain.first()?));
        Ok(Self { wire: Box::new(stream), end_point })
    }
}

fn refused(message: String) -> SqlError {
    SqlError { kind: SqlErrorKind::Tls, message, hint: None }
}

/// Why a handshake failed, in plain words where rustls has none.
fn cause(error: &io::Error) -> String {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        None => error.to_string(),
        Some(rustls::Error::General(message)) => message.clone(),
        Some(rustls::Error::InvalidCertificate(fault)) => match fault {
            CertificateError::UnknownIssuer => "no trusted authority signed the server's certificate".to_owned(),
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "the server's certificate has expired".to_owned()
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "the server's certificate is for another host name".to_owned()
            }
            other => format!("the server's certificate is not valid: {other}"),
        },
        Some(other) => other.to_string(),
    }
}

fn client_config(settings: &TlsSettings) -> Result<ClientConfig, SqlError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier: Arc<dyn ServerCertVerifier> = match trusted(settings)? {
        None => Arc::new(AnyServer),
        Some(trusted) => Arc::new(KnownServer { provider: provider.clone(), trusted, mode: settings.mode }),
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| refused(error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    match settings.client.as_ref().filter(|(certificate, _)| certificate.exists()) {
        None => Ok(builder.with_no_client_auth()),
        Some((certificate, key)) => {
            builder.with_client_auth_cert(read_certificates(certificate)?, read_key(key)?).map_err(|error| {
                refused(format!("{} and {} cannot be used: {error}", certificate.display(), key.display()))
            })
        }
    }
}

fn read_certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, SqlError> {
    CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect)
        .map_err(|error| refused(format!("certificate file {} could not be read: {error}", file.display())))
}

fn read_key(file: &Path) -> Result<PrivateKeyDer<'static>, SqlError> {
    PrivateKeyDer::from_pem_file(file).map_err(|error| SqlError {
        hint: Some("the key must be in PEM, without a passphrase".to_owned()),
        ..refused(format!("private key file {} could not be read: {error}", file.display()))
    })
}

/// Whom to trust; `None` where the server need not prove itself. As in libpq a root file that is there is used in every
/// mode, and the modes that verify do not work without one.
fn trusted(settings: &TlsSettings) -> Result<Option<Trusted>, SqlError> {
    let must = matches!(settings.mode, SslMode::VerifyCa | SslMode::VerifyFull);
    match &settings.roots {
        Roots::System => Ok(Some(Trusted::system())),
        Roots::File(file) if file.exists() => Trusted::of(read_certificates(file)?, file).map(Some),
        Roots::File(file) if must => Err(SqlError {
            hint: Some(
                "provide the file, name another with sslrootcert (or sslrootcert=system), or change sslmode".to_owned(),
            ),
            ..refused(format!("root certificate file {} does not exist", file.display()))
        }),
        Roots::Nowhere if must => Err(refused("no root certificate file is known: set sslrootcert".to_owned())),
        Roots::File(_) | Roots::Nowhere => Ok(None),
    }
}

#[derive(Debug)]
struct Trusted {
    anchors: RootCertStore,
    /// The same as they were given: OpenSSL also trusts a server that presents one of them as its own.
    certificates: Vec<CertificateDer<'static>>,
}

impl Trusted {
    fn of(certificates: Vec<CertificateDer<'static>>, file: &Path) -> Result<Self, SqlError> {
        let mut anchors = RootCertStore::empty();
        let (usable, _) = anchors.add_parsable_certificates(certificates.iter().cloned());
        if usable == 0 {
            return Err(refused(format!("root certificate file {} holds no usable certificate", file.display())));
        }
        Ok(Self { anchors, certificates })
    }

    fn system() -> Self {
        let mut anchors: RootCertStore = webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect();
        anchors.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        Self { anchors, certificates: Vec::new() }
    }
}

/// Takes any certificate. Signatures are not looked at either: checking them means reading the certificate, which rustls
/// cannot do for version 1, and a server that may be anybody proves nothing by them.
#[derive(Debug)]
struct AnyServer;

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![
            SignatureScheme::ECDSA_NISTP256_SHA256,
            SignatureScheme::ECDSA_NISTP384_SHA384,
            SignatureScheme::ECDSA_NISTP521_SHA512,
            SignatureScheme::ED25519,
            SignatureScheme::ED448,
            SignatureScheme::RSA_PSS_SHA256,
            SignatureScheme::RSA_PSS_SHA384,
            SignatureScheme::RSA_PSS_SHA512,
            SignatureScheme::RSA_PKCS1_SHA256,
            SignatureScheme::RSA_PKCS1_SHA384,
            SignatureScheme::RSA_PKCS1_SHA512,
        ]
    }
}

/// Takes a certificate that a trusted authority signed, in `verify-full` for the right host only.
#[derive(Debug)]
struct KnownServer {
    provider: Arc<CryptoProvider>,
    trusted: Trusted,
    mode: SslMode,
}

impl ServerCertVerifier for KnownServer {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let certificate = Certificate::from_der(end_entity)
            .map_err(|_| rustls::Error::InvalidCertificate(CertificateError::BadEncoding))?;
        if certificate.tbs_certificate().version() == Version::V1 {
            return Err(rustls::Error::General(VERSION_1.to_owned()));
        }
        let parsed = ParsedCertificate::try_from(end_entity)?;
        if self.trusted.certificates.iter().any(|trusted| trusted.as_ref() == end_entity.as_ref()) {
            check_validity(&certificate, now)?;
        } else {
            let algorithms = self.provider.signature_verification_algorithms.all;
            verify_server_cert_signed_by_trust_anchor(&parsed, &self.trusted.anchors, intermediates, now, algorithms)
                .map_err(
                |error| if is_self_signed(&certificate) { CertificateError::UnknownIssuer.into() } else { error },
            )?;
        }
        if self.mode == SslMode::VerifyFull && !named_by_subject(&certificate, server_name) {
            verify_server_name(&parsed, server_name)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

const VERSION_1: &str = "the server's certificate is X.509 version 1, which cannot be verified; reissue it as version 3 \
                         (openssl x509 -req needs -extfile with a subjectAltName), or use sslmode=require without sslrootcert";

/// rustls calls such a certificate an authority in the wrong place, which is true but does not help.
fn is_self_signed(certificate: &Certificate) -> bool {
    certificate.tbs_certificate().issuer() == certificate.tbs_certificate().subject()
}

fn check_validity(certificate: &Certificate, now: UnixTime) -> Result<(), rustls::Error> {
    let now = Duration::from_secs(now.as_secs());
    let validity = certificate.tbs_certificate().validity();
    if now < validity.not_before.to_unix_duration() {
        return Err(CertificateError::NotValidYet.into());
    }
    if now > validity.not_after.to_unix_duration() {
        return Err(CertificateError::Expired.into());
    }
    Ok(())
}

/// Whether the certificate names the host in its subject. As in libpq this counts only where it has no `subjectAltName`
/// of a host; rustls looks at those alone.
fn named_by_subject(certificate: &Certificate, host: &ServerName<'_>) -> bool {
    let certificate = certificate.tbs_certificate();
    let is_host = |name: &GeneralName| matches!(name, GeneralName::DnsName(_) | GeneralName::IpAddress(_));
    let has_alternatives = match certificate.get_extension::<SubjectAltName>() {
        Ok(None) => false,
        Ok(Some((_, names))) => names.0.iter().any(is_host),
        Err(_) => true,
    };
    match certificate.subject().common_name() {
        Ok(Some(name)) if !has_alternatives => fits(&name.value(), &host.to_str()),
        _ => false,
    }
}

/// Compares a host with a name that may begin with `*.`, which stands for exactly one label.
fn fits(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix("*.") {
        None => pattern.eq_ignore_ascii_case(host),
        Some(domain) => {
            host.split_once('.').is_some_and(|(label, rest)| !label.is_empty() && rest.eq_ignore_ascii_case(domain))
        }
    }
}

/// The hash that RFC 5929 calls `tls-server-end-point`: by the certificate's own signature algorithm, but never weaker
/// than SHA-256. `None` where that algorithm names no hash, and the login then goes without channel binding.
fn end_point(certificate: &CertificateDer<'_>) -> Option<Vec<u8>> {
    let signed_with = Certificate::from_der(certificate).ok()?.signature_algorithm().oid;
    if [SHA_512_WITH_RSA_ENCRYPTION, ECDSA_WITH_SHA_512].contains(&signed_with) {
        Some(Sha512::digest(certificate).to_vec())
    } else if [SHA_384_WITH_RSA_ENCRYPTION, ECDSA_WITH_SHA_384].contains(&signed_with) {
        Some(Sha384::digest(certificate).to_vec())
    } else if [MD_5_WITH_RSA_ENCRYPTION, SHA_1_WITH_RSA_ENCRYPTION, SHA_256_WITH_RSA_ENCRYPTION, ECDSA_WITH_SHA_256]
        .contains(&signed_with)
    {
        Some(Sha256::digest(certificate).to_vec())
    } else {
        None
    }
}

/// Tells tokio-postgres that TLS is settled: nothing is left to negotiate.
pub(super) struct Settled;

impl TlsConnect<Channel> for Settled {
    type Stream = Channel;
    type Error = io::Error;
    type Future = std::future::Ready<io::Result<Channel>>;

    fn connect(self, channel: Channel) -> Self::Future {
        std::future::ready(Ok(channel))
    }
}

impl TlsStream for Channel {
    fn channel_binding(&self) -> ChannelBinding {
        self.end_point.clone().map_or_else(ChannelBinding::none, ChannelBinding::tls_server_end_point)
    }
}

impl AsyncRead for Channel {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_read(cx, buf)
    }
}

impl AsyncWrite for Channel {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.wire).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_a_star_stands_for_one_label() {
        let cases = [
            ("db.example", "db.example", true),
            ("DB.example", "db.EXAMPLE", true),
            ("db.example", "a.db.example", false),
            ("*.example", "db.example", true),
            ("*.example", "a.db.example", false),
            ("*.example", ".example", false),
            ("*.example", "example", false),
            ("d*.example", "db.example", false),
        ];
        for (pattern, host, expected) in cases {
            assert_eq!(fits(pattern, host), expected, "{pattern} {host}");
        }
    }
}
