//! Certificate and key for TLS, from files. What is done with a connection is not here.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::{MAX_PEM_BYTES, SecretError, small_file};

/// What speaks TLS 1.2 and 1.3 with this certificate.
///
/// # Errors
/// A file cannot be used.
pub fn acceptor(certificate: &Path, key: &Path) -> Result<TlsAcceptor, SecretError> {
    let (chain, key) = (certificates(certificate)?, private_key(key)?);
    let unusable = |source| SecretError::Unusable { path: certificate.to_owned(), source };
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(unusable)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(unusable)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Whom a client believes, and who it is itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Client {
    /// Certificates of authorities in PEM; those of this machine if absent.
    pub authorities: Option<PathBuf>,
    /// Our own certificate and its key, in PEM.
    pub own: Option<(PathBuf, PathBuf)>,
}

impl Client {
    /// The files that are read.
    pub fn files(&self) -> Vec<PathBuf> {
        let own = self.own.iter().flat_map(|(certificate, key)| [certificate, key]);
        self.authorities.iter().chain(own).cloned().collect()
    }

    /// What speaks TLS 1.2 and 1.3 with servers that such an authority vouches for.
    ///
    /// # Errors
    /// A file cannot be used.
    pub fn connector(&self) -> Result<TlsConnector, SecretError> {
        let mut roots = RootCertStore::empty();
        let (added, _) = match &self.authorities {
            Some(file) => roots.add_parsable_certificates(certificates(file)?),
            None => roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs),
        };
        if added == 0 {
            return Err(match &self.authorities {
                Some(file) => SecretError::NoCertificate(file.clone()),
                None => SecretError::NoAuthority,
            });
        }
        let path = self.own.as_ref().map(|(certificate, _)| certificate.clone()).unwrap_or_default();
        let unusable = |source| SecretError::Unusable { path: path.clone(), source };
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(unusable)?
            .with_root_certificates(roots);
        let config = match &self.own {
            Some((certificate, key)) => config
                .with_client_auth_cert(certificates(certificate)?, private_key(key)?)
                .map_err(unusable)?,
            None => config.with_no_client_auth(),
        };
        Ok(TlsConnector::from(Arc::new(config)))
    }
}

/// What a PEM file holds of certificates; at least one.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, SecretError> {
    let pem = small_file(path, MAX_PEM_BYTES)?;
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&pem).collect::<Result<_, _>>().unwrap_or_default();
    if chain.is_empty() { Err(SecretError::NoCertificate(path.to_owned())) } else { Ok(chain) }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, SecretError> {
    let pem = small_file(path, MAX_PEM_BYTES)?;
    PrivateKeyDer::from_pem_slice(&pem).map_err(|_| SecretError::NoKey(path.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_file_at_its_limit_and_one_past() {
        let path = std::env::temp_dir().join(format!("pod2pod-pem-{}", std::process::id()));
        fs::write(&path, vec![b'x'; MAX_PEM_BYTES]).unwrap();
        assert!(matches!(acceptor(&path, &path), Err(SecretError::NoCertificate(_))));
        fs::write(&path, vec![b'x'; MAX_PEM_BYTES + 1]).unwrap();
        assert!(matches!(acceptor(&path, &path), Err(SecretError::TooLong { .. })));
        fs::remove_file(&path).unwrap();
        assert!(matches!(acceptor(&path, &path), Err(SecretError::Unreadable { .. })));
    }
}
