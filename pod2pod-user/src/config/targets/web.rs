//! Keys of sinks that speak HTTP, and those of TLS.

use rustls::pki_types::ServerName;

use super::{SinkKey as Key, Web, Wrong};
use crate::{
    config::keys::{all, put},
    secrets::tls,
    sinks::http_client::{Access, Header, HeaderFile, Url},
};

pub(super) static KEYS: &[Key] = &[
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
    Key {
        path: "tls.server_name",
        allowed: "a name or an address",
        default: "",
        sentence: "Whose certificate the server should have, if not the URL's host's.",
        set: |sink, given| {
            let name = ServerName::try_from(given.text()?.to_owned()).ok()?;
            put(&mut sink.web.server_name, Some(Some(name)))
        },
    },
];

impl Web {
    /// How the server at `url` is reached.
    pub(super) fn access(&self, url: Url) -> Access {
        let tls = self.tls.clone();
        Access {
            url,
            headers: self.headers.clone(),
            header_files: self.header_files.clone(),
            tls: tls::Client { authorities: tls.ca, own: tls.certificate.zip(tls.key) },
            server_name: self.server_name.clone(),
        }
    }

    /// Adds what cannot be together.
    pub(super) fn check(&self, is_tls: bool, wrong: &mut Vec<Wrong>) {
        let says_tls = self.tls != super::TlsFiles::default() || self.server_name.is_some();
        if says_tls && !is_tls {
            wrong.push(("tls", "values are given, but its url is not one of TLS".to_owned()));
        }
        if self.tls.is_half_a_pair() {
            wrong.push(("tls", "certificate and key are needed together".to_owned()));
        }
    }
}
