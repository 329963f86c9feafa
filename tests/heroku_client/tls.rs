//! Certificates that must be refused, and the one that must not.

use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tempfile::TempDir;
use unstuck::ports::{ApiErrorKind, Platform};

use crate::raw::Reply::Refuse;
use crate::raw::Server;
use crate::{APP, PATIENT, accepted, client_at, names_and_hides, ok};

/// An authority and a server's certificate signed by it.
struct Authority {
    dir: TempDir,
}

impl Authority {
    /// `name` is a subject alternative name; `days` the time left, which may be negative.
    fn with_certificate(name: &str, days: i32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let new_key = "openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
        let script = format!(
            "{new_key} -x509 -keyout ca.key -out ca.pem -subj /CN=authority -days 9
            {new_key} -keyout key.pem -out request.pem -subj /CN=server
            echo 'subjectAltName={name}' > extensions
            openssl x509 -req -in request.pem -CA ca.pem -CAkey ca.key -CAcreateserial -days {days} \
                -extfile extensions -out certificate.pem"
        );
        let output = duct::cmd("sh", ["-ec", &script]).dir(dir.path()).stderr_to_stdout().unchecked().stdout_capture();
        let output = output.run().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        Self { dir }
    }

    fn file(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    fn server_config(&self) -> Arc<ServerConfig> {
        let certificate = CertificateDer::from_pem_file(Path::new(&self.file("certificate.pem"))).unwrap();
        let key = PrivateKeyDer::from_pem_file(Path::new(&self.file("key.pem"))).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
        Arc::new(config.with_single_cert(vec![certificate], key).unwrap())
    }
}

#[test]
fn a_certificate_is_verified() {
    let good = "IP:127.0.0.1";
    for (name, days, is_known, expected) in [
        (good, 9, true, None),
        (good, -1, true, Some("the server's certificate has expired")),
        ("DNS:example.com", 9, true, Some("the server's certificate is for another name")),
        (good, 9, false, Some("the server's certificate is signed by an authority that is not known here")),
    ] {
        let authority = Authority::with_certificate(name, days);
        let server = Server::start_tls(authority.server_config(), [ok(APP), accepted()]);
        let bundle = authority.file("ca.pem");
        let env = if is_known { vec![("SSL_CERT_FILE", bundle.as_str())] } else { Vec::new() };
        let heroku = client_at(&format!("https://127.0.0.1:{}", server.port()), PATIENT, &env);
        match expected {
            None => {
                heroku.app().unwrap();
                heroku.restart_type("web").unwrap();
                assert_eq!(server.connections(), 1);
            }
            Some(expected) => {
                let error = heroku.restart_type("web").unwrap_err();
                assert_eq!(error.kind, ApiErrorKind::Unreachable);
                names_and_hides(&error, "DELETE /apps/my-app/formations/web: cannot reach 127.0.0.1:");
                assert!(error.message.ends_with(expected), "{error}");
                assert_eq!(server.connections(), 1, "asking again does not help");
                assert_eq!(server.requests().len(), 0);
            }
        }
    }
}

#[test]
fn authorities_are_found_in_folders_too() {
    let authority = Authority::with_certificate("IP:127.0.0.1", 9);
    let empty = tempfile::tempdir().unwrap();
    let server = Server::start_tls(authority.server_config(), [ok(APP)]);
    let dirs = format!("{}::{}", empty.path().display(), authority.dir.path().display());
    client_at(&format!("https://127.0.0.1:{}", server.port()), PATIENT, &[("SSL_CERT_DIR", &dirs)]).app().unwrap();
}

/// Before TLS stands nothing of the request can have been read, so that even a restart is tried again.
#[test]
fn a_restart_that_was_cut_before_it_was_sent_is_repeated() {
    let authority = Authority::with_certificate("IP:127.0.0.1", 9);
    let server = Server::start_tls(authority.server_config(), [Refuse, Refuse, accepted()]);
    let address = format!("https://127.0.0.1:{}", server.port());
    let heroku = client_at(&address, PATIENT, &[("SSL_CERT_FILE", &authority.file("ca.pem"))]);
    heroku.restart_type("web").unwrap();
    assert_eq!((server.connections(), server.lines()), (3, vec!["DELETE /apps/my-app/formations/web".to_owned()]));
}
