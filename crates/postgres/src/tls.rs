//! Encrypted connections: rustls with ring, always with a checked chain and host name.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio_postgres_rustls::MakeRustlsConnect;

/// Whose certificates are believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Roots {
    /// The Mozilla roots that are compiled in.
    Public,
    /// A PEM file, as `sslrootcert` names it.
    File(PathBuf),
}

impl Roots {
    /// What TLS connections need. The text of an error names the file and what is wrong with it.
    pub(crate) fn connector(&self) -> Result<MakeRustlsConnect, String> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(self.store()?)
            .with_no_client_auth();
        Ok(MakeRustlsConnect::new(config))
    }

    fn store(&self) -> Result<RootCertStore, String> {
        let path = match self {
            Self::Public => {
                return Ok(RootCertStore {
                    roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
                });
            }
            Self::File(path) => path,
        };
        let problem = |error: String| {
            format!(
                "cannot read root certificates from `{}`: {error}",
                path.display()
            )
        };
        let mut store = RootCertStore::empty();
        for certificate in
            CertificateDer::pem_file_iter(path).map_err(|error| problem(error.to_string()))?
        {
            let certificate = certificate.map_err(|error| problem(error.to_string()))?;
            store
                .add(certificate)
                .map_err(|error| problem(error.to_string()))?;
        }
        if store.is_empty() {
            return Err(problem("it holds no certificate".to_owned()));
        }
        Ok(store)
    }
}
