//! The TLS of MySQL's `ssl_mode`s on rustls: which certificates of a server are good enough.

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::config::{Config, TlsMode};
use crate::ports::{SqlError, SqlErrorKind};

/// How a TLS session with the server of `config` is set up. Reads the files that it names.
pub fn client_config(config: &Config) -> Result<Arc<ClientConfig>, SqlError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = Verifier::new(config, Arc::clone(&provider))?;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| failed(&error))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let client = match &config.identity {
        None => builder.with_no_client_auth(),
        Some((cert, key)) => {
            let key = PrivateKeyDer::from_pem_file(key).map_err(|error| unreadable(key, &error))?;
            builder.with_client_auth_cert(certificates(cert)?, key).map_err(|error| failed(&error))?
        }
    };
    Ok(Arc::new(client))
}

/// Any failure of TLS, with the way out where the error names one.
pub fn failed(error: &rustls::Error) -> SqlError {
    let failure = SqlError::new(SqlErrorKind::Tls, format!("TLS with the server failed: {error}"));
    let rustls::Error::InvalidCertificate(reason) = error else { return failure };
    failure.hint(match reason {
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "Connect by a name that the certificate has, or do not check names with ssl_mode: verify_ca."
        }
        // rustls has no reason of its own for a certificate of X.509 version 1.
        CertificateError::Other(other) if format!("{other:?}").contains("UnsupportedCertVersion") => {
            "The certificate is of X.509 version 1: issue it again with openssl's -extfile, or do not verify with \
             ssl_mode: required."
        }
        _ => {
            "Name its authority, or the certificate itself where it is self-signed, with sslca:, or do not verify with \
             ssl_mode: required."
        }
    })
}

fn unreadable(path: &Path, error: &rustls::pki_types::pem::Error) -> SqlError {
    SqlError::new(SqlErrorKind::Tls, format!("{} is not readable as PEM: {error}", path.display()))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, SqlError> {
    CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| unreadable(path, &error))
}

#[derive(Debug)]
struct Verifier {
    provider: Arc<CryptoProvider>,
    /// `None` where the mode does not verify: such a mode does not authenticate the server, so the signature over the
    /// handshake proves nothing either, and servers with X.509 version 1 certificates, which cannot be parsed, are let in.
    chain: Option<Arc<WebPkiServerVerifier>>,
    /// Certificates that the user named. One that the server itself shows is good, as it is to OpenSSL, even where it is no
    /// authority, or is one and so should not serve.
    named: Vec<CertificateDer<'static>>,
    checks_name: bool,
}

impl Verifier {
    fn new(config: &Config, provider: Arc<CryptoProvider>) -> Result<Self, SqlError> {
        let mut this =
            Self { provider, chain: None, named: vec![], checks_name: config.tls == TlsMode::VerifyIdentity };
        if config.tls < TlsMode::VerifyCa {
            return Ok(this);
        }
        let mut roots = RootCertStore::empty();
        if let Some(path) = &config.ca {
            this.named = certificates(path)?;
            roots.add_parsable_certificates(this.named.iter().cloned());
        } else {
            roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
            // Certificates of the system that cannot be read are those that a server then cannot be verified with.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
        let chain = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&this.provider)).build();
        this.chain = Some(chain.map_err(|error| SqlError::new(SqlErrorKind::Tls, error.to_string()))?);
        Ok(this)
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(chain) = &self.chain else {
            return Ok(ServerCertVerified::assertion());
        };
        if self.named.contains(end_entity) {
            if self.checks_name {
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
            }
            return Ok(ServerCertVerified::assertion());
        }
        match chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !self.checks_name => Ok(ServerCertVerified::assertion()),
            verdict => verdict,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        match &self.chain {
            None => Ok(HandshakeSignatureValid::assertion()),
            Some(chain) => chain.verify_tls12_signature(message, cert, signature),
        }
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        match &self.chain {
            None => Ok(HandshakeSignatureValid::assertion()),
            Some(chain) => chain.verify_tls13_signature(message, cert, signature),
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
