//! Who may ask a listener: anybody, whoever is on this machine, or who has the token. Certificate and token are read again when
//! their files change, so that they can be renewed while the agent runs.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Request, Response, StatusCode,
    header::{AUTHORIZATION, HOST, HeaderValue, WWW_AUTHENTICATE},
};
use tokio_rustls::TlsAcceptor;

use super::{AdminConfig, pages::text};
use crate::secrets::{SecretError, Watched, small_file, tls};

/// Longest token. Bytes.
pub const MAX_TOKEN_BYTES: usize = 4096;
/// Shortest token: what is shorter can be guessed. Bytes.
pub const MIN_TOKEN_BYTES: usize = 16;

/// Who may ask.
#[derive(Debug)]
pub(super) struct Guard {
    tls: Option<Watched<TlsAcceptor>>,
    token: Option<Watched<Token>>,
    /// Names that a request may ask for are this machine's only: a page in a browser cannot have another name lead here.
    is_local: bool,
}

/// A token.
#[derive(Clone)]
struct Token(Arc<[u8]>);

impl Guard {
    /// Anybody may.
    pub(super) const fn open() -> Self {
        Self { tls: None, token: None, is_local: false }
    }

    /// As `config` says.
    ///
    /// # Errors
    /// A file cannot be used.
    pub(super) fn new(config: &AdminConfig) -> Result<Self, SecretError> {
        let AdminConfig { tls_certificate, tls_key, token_file, .. } = config;
        let pair = tls_certificate.clone().zip(tls_key.clone());
        let tls =
            pair.map(|(certificate, key)| Watched::new(vec![certificate, key], acceptor)).transpose()?;
        let token = token_file.clone().map(|file| Watched::new(vec![file], token)).transpose()?;
        let is_local = token.is_none();
        Ok(Self { tls, token, is_local })
    }

    /// What speaks TLS, if that is spoken.
    pub(super) fn acceptor(&self) -> Option<TlsAcceptor> {
        self.tls.as_ref().map(Watched::current)
    }

    /// The answer to one who may not ask.
    pub(super) fn refuses<T>(&self, request: &Request<T>) -> Option<Response<Full<Bytes>>> {
        if self.is_local && !names_this_machine(request) {
            return Some(text(
                StatusCode::FORBIDDEN,
                "ask for an address of this machine, or for localhost\n",
            ));
        }
        let token = self.token.as_ref()?.current();
        let given = request.headers().get(AUTHORIZATION).map(HeaderValue::as_bytes).unwrap_or_default();
        let is_right = bearer(given).is_some_and(|given| is_same(given, &token.0));
        (!is_right).then(|| {
            let mut response = text(StatusCode::UNAUTHORIZED, "a token is needed\n");
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            response
        })
    }
}

/// Whether the files of `config` can be used; each that cannot.
pub(super) fn check(config: &AdminConfig) -> Vec<SecretError> {
    let AdminConfig { tls_certificate, tls_key, token_file, .. } = config;
    let pair = tls_certificate.clone().zip(tls_key.clone());
    let tls = pair.and_then(|(certificate, key)| acceptor(&[certificate, key]).err());
    let token = token_file.clone().and_then(|file| token(&[file]).err());
    tls.into_iter().chain(token).collect()
}

fn acceptor(files: &[PathBuf]) -> Result<TlsAcceptor, SecretError> {
    let [certificate, key] = files else { return Err(SecretError::Pair) };
    tls::acceptor(certificate, key)
}

fn token(files: &[PathBuf]) -> Result<Token, SecretError> {
    let path = files.first().map_or(Path::new(""), PathBuf::as_path);
    let bytes = small_file(path, MAX_TOKEN_BYTES)?;
    let token = bytes.trim_ascii();
    if token.len() < MIN_TOKEN_BYTES || !token.iter().all(u8::is_ascii_graphic) {
        return Err(SecretError::Token(path.to_owned()));
    }
    Ok(Token(token.into()))
}

/// Whether the request is for an address, or for localhost (RFC 6761 6.3).
fn names_this_machine<T>(request: &Request<T>) -> bool {
    let Some(host) = request.headers().get(HOST) else { return true };
    let Ok(host) = host.to_str() else { return false };
    // An IPv6 address is in brackets.
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map_or(rest, |(address, _)| address),
        None => host.split_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

/// The credentials of RFC 6750 2.1; the scheme is in any letter case.
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| rest.trim_ascii())
}

/// Compares in a time that does not tell how much of it was right.
fn is_same(given: &[u8], token: &[u8]) -> bool {
    let differing = given.iter().zip(token).fold(0, |differing, (a, b)| differing | (a ^ b));
    given.len() == token.len() && std::hint::black_box(differing) == 0
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use std::fs;

    use super::*;

    const TOKEN: &str = "0123456789abcdef";

    fn folder(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("pod2pod-guard-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        path
    }

    fn status(guard: &Guard, headers: &[(&str, &str)]) -> u16 {
        let mut request = Request::builder();
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        guard.refuses(&request.body(()).unwrap()).map_or(200, |response| response.status().as_u16())
    }

    #[test]
    fn without_a_token_only_this_machine_is_asked_for() {
        let guard = Guard::new(&AdminConfig::default()).unwrap();
        for (host, expected) in [
            ("localhost", 200),
            ("LOCALHOST:9465", 200),
            ("127.0.0.1:9465", 200),
            ("[::1]:9465", 200),
            ("[::1]", 200),
            ("evil.example:9465", 403),
            ("127.0.0.1.evil.example", 403),
            ("localhost.evil.example", 403),
            ("", 403),
        ] {
            assert_eq!(status(&guard, &[("host", host)]), expected, "{host}");
            assert_eq!(status(&Guard::open(), &[("host", host)]), 200, "{host}");
        }
        assert_eq!(status(&guard, &[]), 200);
    }

    #[test]
    fn only_the_token_opens_and_a_renewed_one_does() {
        let folder = folder("token");
        let file = folder.join("token");
        fs::write(&file, format!("{TOKEN}\n")).unwrap();
        let config = AdminConfig { token_file: Some(file.clone()), ..AdminConfig::default() };
        let guard = Guard::new(&config).unwrap();
        let with = |value: &str| status(&guard, &[("authorization", value), ("host", "node-1:9465")]);
        assert_eq!(with(&format!("Bearer {TOKEN}")), 200);
        assert_eq!(with(&format!("bearer {TOKEN}")), 200);
        for wrong in
            ["", "Bearer ", "Bearer 0123456789abcdeF", "Bearer 0123456789abcde", "Basic 0123456789abcdef"]
        {
            assert_eq!(with(wrong), 401, "{wrong}");
        }
        assert_eq!(with(&format!("Bearer {TOKEN}0")), 401);
        assert_eq!(status(&guard, &[]), 401);
        // Another time than before, whatever the resolution of the file system's.
        let renewed = "fedcba9876543210";
        fs::write(&file, renewed).unwrap();
        let later = SystemTime::now() + std::time::Duration::from_secs(5);
        fs::File::options().append(true).open(&file).unwrap().set_modified(later).unwrap();
        assert_eq!((with(&format!("Bearer {renewed}")), with(&format!("Bearer {TOKEN}"))), (200, 401));
        fs::remove_file(&file).unwrap();
        assert_eq!(with(&format!("Bearer {renewed}")), 200, "what was read before stays");
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_token_at_its_limits_and_past_them() {
        let folder = folder("limits");
        let file = folder.join("token");
        for (length, is_fine) in [
            (MIN_TOKEN_BYTES - 1, false),
            (MIN_TOKEN_BYTES, true),
            (MAX_TOKEN_BYTES, true),
            (MAX_TOKEN_BYTES + 1, false),
        ] {
            fs::write(&file, "x".repeat(length)).unwrap();
            assert_eq!(token(std::slice::from_ref(&file)).is_ok(), is_fine, "{length}");
        }
        fs::write(&file, "with a blank in its midst").unwrap();
        assert!(token(&[file]).is_err());
        fs::remove_dir_all(folder).unwrap();
    }
}
