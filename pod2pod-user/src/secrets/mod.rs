//! What is in files and told to nobody: tokens, certificates, keys. They are read again when they change, so that they can be
//! renewed while the agent runs.

pub mod tls;

use std::{
    fmt,
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::SystemTime,
};

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
    /// Nobody to believe.
    #[error("this machine has no certificates of authorities; name a file that has them")]
    NoAuthority,
    /// What is to be sent as a header's value.
    #[error("{}: a header's value is one line of text, and not empty", .0.display())]
    HeaderValue(PathBuf),
    /// One without the other.
    #[error("a certificate needs its key")]
    Pair,
}

/// Makes something of files.
type Read<T> = Box<dyn Fn(&[PathBuf]) -> Result<T, SecretError> + Send + Sync>;

/// What was read from files, and when those were written.
pub struct Watched<T> {
    files: Vec<PathBuf>,
    read: Read<T>,
    current: Mutex<(Vec<Option<SystemTime>>, T)>,
}

impl<T: Clone> Watched<T> {
    /// What `read` makes of `files`, now and whenever they have changed.
    ///
    /// # Errors
    /// As of `read`.
    pub fn new(
        files: Vec<PathBuf>,
        read: impl Fn(&[PathBuf]) -> Result<T, SecretError> + Send + Sync + 'static,
    ) -> Result<Self, SecretError> {
        let current = Mutex::new((written(&files), read(&files)?));
        Ok(Self { files, read: Box::new(read), current })
    }

    /// What the files hold; what they held before, if they cannot be read.
    pub fn current(&self) -> T {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let times = written(&self.files);
        if current.0 != times {
            match (self.read)(&self.files) {
                Ok(fresh) => current.1 = fresh,
                Err(error) => tracing::warn!(%error, "what was read before stays in use"),
            }
            current.0 = times;
        }
        current.1.clone()
    }
}

/// Nothing of what is secret.
impl<T> fmt::Debug for Watched<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Watched").field(&self.files).finish()
    }
}

fn written(files: &[PathBuf]) -> Vec<Option<SystemTime>> {
    files.iter().map(|file| file.metadata().and_then(|metadata| metadata.modified()).ok()).collect()
}

/// The bytes of a file that has at most `most`.
///
/// # Errors
/// It cannot be read, or has more.
pub fn small_file(path: &Path, most: usize) -> Result<Vec<u8>, SecretError> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(most as u64 + 1).read_to_end(&mut bytes));
    read.map_err(|source| SecretError::Unreadable { path: path.to_owned(), source })?;
    if bytes.len() > most { Err(SecretError::TooLong { path: path.to_owned(), most }) } else { Ok(bytes) }
}
