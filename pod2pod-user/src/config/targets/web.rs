//! Keys of sinks that speak HTTP, and those of TLS.

use ::http::header::AUTHORIZATION as AUTHORIZATION_HEADER;
use rustls::pki_types::ServerName;

use super::{SinkKey as Key, TlsFiles, Web, Wrong};
use crate::{
    config::keys::{all, put},
    secrets::tls,
    sinks::http_client::{Access, Authorization, Header, HeaderFile, Secret, Url},
};

pub(super) static HEADERS: &[Key] = &[
    Key {
        path: "headers",
        allowed: "a list of headers such as X-Scope-OrgID: shop",
        default: "",
        sentence: "Headers of every request, for what is no secret.",
        set: |sink, given| put(&mut sink.web.headers, all(given, Header::parse)),
    },
    Key {
        path: "header_files",
        allowed: "a list of headers and files such as Authorization: /run/secrets/collector",
        default: "",
        sentence: "Headers whose values are in files, which are read again when they change.",
        set: |sink, given| put(&mut sink.web.header_files, all(given, HeaderFile::parse)),
    },
];

/// Where a certificate may be another's than the host's.
pub(super) static SERVER_NAME: &[Key] = &[Key {
    path: "tls.server_name",
    allowed: "a name or an address",
    default: "",
    sentence: "Whose certificate the server should have, if not the URL's host's.",
    set: |sink, given| {
        let name = ServerName::try_from(given.text()?.to_owned()).ok()?;
        put(&mut sink.web.server_name, Some(Some(name)))
    },
}];

/// Keys of TLS, whatever is spoken in it.
pub(super) static TLS: &[Key] = &[
    Key {
        path: "tls.ca",
        allowed: "a path",
        default: "",
        sentence: "Certificates (PEM) of the authorities to believe, instead of this machine's; read again when it changes.",
        set: |sink, given| put(&mut sink.web.tls.ca, Some(Some(given.path()?))),
    },
    Key {
        path: "tls.certificate",
        allowed: "a path",
        default: "",
        sentence: "Our own certificate (PEM), for a server that asks for one; read again when it changes.",
        set: |sink, given| put(&mut sink.web.tls.certificate, Some(Some(given.path()?))),
    },
    Key {
        path: "tls.key",
        allowed: "a path",
        default: "",
        sentence: "Its private key (PEM).",
        set: |sink, given| put(&mut sink.web.tls.key, Some(Some(given.path()?))),
    },
];

/// Keys of who we are, by name.
pub(super) static USER: &[Key] = &[
    Key {
        path: "user",
        allowed: "a name without a colon",
        default: "",
        sentence: "Who we are, for a server that asks for a name and a password.",
        set: |sink, given| {
            let user = given.text().filter(|user| !user.is_empty() && !user.contains(':'))?;
            put(&mut sink.web.user, Some(Some(user.to_owned())))
        },
    },
    Key {
        path: "password_file",
        allowed: "a path",
        default: "",
        sentence: "Where the password is; read again when it changes.",
        set: |sink, given| put(&mut sink.web.password_file, Some(Some(given.path()?))),
    },
];

/// The key of who we are, by what we have.
pub(super) static TOKEN: &[Key] = &[Key {
    path: "token_file",
    allowed: "a path",
    default: "",
    sentence: "Where a token is that says who we are (`Bearer`); read again when it changes.",
    set: |sink, given| put(&mut sink.web.token_file, Some(Some(given.path()?))),
}];

impl Web {
    /// Who we are, as far as it is said.
    pub(super) fn authorization(&self, wrong: &mut Vec<Wrong>) -> Option<Authorization> {
        let named_twice = self.headers.iter().any(|header| header.name == AUTHORIZATION_HEADER)
            || self.header_files.iter().any(|header| header.name == AUTHORIZATION_HEADER);
        let authorization = match (&self.user, &self.password_file, &self.token_file) {
            (None, None, None) => return None,
            (Some(user), Some(file), None) => Authorization::Basic(user.clone(), Secret::File(file.clone())),
            (None, None, Some(file)) => Authorization::Bearer(Secret::File(file.clone())),
            (Some(_), None, _) | (None, Some(_), _) => {
                wrong.push(("user", "user and password_file are needed together".to_owned()));
                return None;
            }
            (Some(_), Some(_), Some(_)) => {
                wrong.push(("token_file", "it and a user: one of them says who we are".to_owned()));
                return None;
            }
        };
        if named_twice {
            wrong.push((
                "headers",
                "there is one of Authorization, beside what else says who we are".to_owned(),
            ));
        }
        Some(authorization)
    }

    /// How the server at `url` is reached.
    pub(super) fn access(&self, url: Url, authorization: Option<Authorization>) -> Access {
        Access {
            url,
            headers: self.headers.clone(),
            header_files: self.header_files.clone(),
            authorization,
            tls: self.tls_client(),
            server_name: self.server_name.clone(),
        }
    }

    /// Whom we believe, and who we are.
    pub(super) fn tls_client(&self) -> tls::Client {
        let tls = self.tls.clone();
        tls::Client { authorities: tls.ca, own: tls.certificate.zip(tls.key) }
    }

    /// Adds what cannot be together.
    pub(super) fn check(&self, is_tls: bool, wrong: &mut Vec<Wrong>) {
        let says_tls = self.tls != TlsFiles::default() || self.server_name.is_some();
        if says_tls && !is_tls {
            wrong.push(("tls", "values are given, but its url is not one of TLS".to_owned()));
        }
        if self.tls.is_half_a_pair() {
            wrong.push(("tls", "certificate and key are needed together".to_owned()));
        }
    }
}
