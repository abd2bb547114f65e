//! Certificate and key for TLS, from files. What is done with a connection is not here.

use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use tokio_rustls::TlsAcceptor;

/// A file with certificates or a key has at most so many bytes: chains have some thousand.
pub const MAX_PEM_BYTES: usize = 256 * 1024;

/// Why a file cannot be used. Nothing of what is in it is told.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// It cannot be read.
    #[error("{}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It is too long for what it should be.
    #[error("{}: more than {most} bytes", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// Bytes that there may be.
        most: usize,
    },
    /// The token.
    #[error("{}: a token has 16 to 4096 characters of ASCII without blanks", .0.display())]
    Token(PathBuf),
    /// The certificates.
    #[error("{}: no certificates in PEM", .0.display())]
    NoCertificate(PathBuf),
    /// The key.
    #[error("{}: no private key in PEM", .0.display())]
    NoKey(PathBuf),
    /// Certificate and key, together.
    #[error("{}: cannot be used with its key: {source}", path.display())]
    Unusable {
        /// The certificates.
        path: PathBuf,
        /// Why not.
        source: rustls::Error,
    },
    /// One without the other.
    #[error("a certificate needs its key")]
    Pair,
}

/// What speaks TLS 1.2 and 1.3 with this certificate.
///
/// # Errors
/// A file cannot be used.
pub(super) fn acceptor(certificate: &Path, key: &Path) -> Result<TlsAcceptor, SecretError> {
    let pem = small_file(certificate, MAX_PEM_BYTES)?;
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&pem).collect::<Result<_, _>>().unwrap_or_default();
    if chain.is_empty() {
        return Err(SecretError::NoCertificate(certificate.to_owned()));
    }
    let pem = small_file(key, MAX_PEM_BYTES)?;
    let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|_| SecretError::NoKey(key.to_owned()))?;
    let unusable = |source| SecretError::Unusable { path: certificate.to_owned(), source };
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(unusable)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(unusable)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// The bytes of a file that has at most `most`.
pub(super) fn small_file(path: &Path, most: usize) -> Result<Vec<u8>, SecretError> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(most as u64 + 1).read_to_end(&mut bytes));
    read.map_err(|source| SecretError::Unreadable { path: path.to_owned(), source })?;
    if bytes.len() > most { Err(SecretError::TooLong { path: path.to_owned(), most }) } else { Ok(bytes) }
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
