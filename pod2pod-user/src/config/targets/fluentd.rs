//! Keys of `type: fluentd`.

use std::path::PathBuf;

use super::{
    DEFAULT_BATCH_RECORDS, Settings, SinkKey as Key, SinkType, Wrong, common,
    streams::{self, Carriage, Url},
    web,
};
use crate::{
    config::keys::put,
    route::Template,
    sinks::{
        TargetConfig,
        fluentd::{self, Login},
        http_client::Secret,
    },
};

pub(super) static TYPE: SinkType = SinkType {
    word: "fluentd",
    sentence: "Fluentd or Fluent Bit, by the forward protocol v1.5: chunks that are acknowledged, over TCP or TLS, with a shared key.",
    schemes: &["fluentd", "fluentd+tcp", "fluentd+tls"],
    keys: &[KEYS, streams::KEYS, web::TLS, web::SERVER_NAME, common::FORMAT, common::LINES, common::KEYS],
    keeps_order: false,
    batch_records: DEFAULT_BATCH_RECORDS,
    build,
};

/// What servers listen on.
const USUAL_PORT: u16 = 24224;
/// The tag of records that say nothing else.
const DEFAULT_TAG: &str = "pod2pod.{kind}";
/// Who we are to a server, if nothing else is said.
const DEFAULT_HOSTNAME: &str = "pod2pod";

/// `fluentd` as written.
#[derive(Clone, Debug, Default)]
pub(super) struct Fluentd {
    tag: Option<Template>,
    gzip: bool,
    shared_key_file: Option<PathBuf>,
    user: Option<String>,
    password_file: Option<PathBuf>,
    hostname: Option<String>,
}

static KEYS: &[Key] = &[
    Key {
        path: "url",
        allowed: "fluentd:// or fluentd+tls://, a host, and a port if it is not 24224",
        default: "",
        sentence: "Where it is, and how it is reached.",
        set: |sink, given| {
            let url = Url::parse(given.text()?, "fluentd", Carriage::Tcp, |_| Some(USUAL_PORT));
            put(&mut sink.streams.url, url.filter(|url| url.carriage != Carriage::Udp).map(Some))
        },
    },
    Key {
        path: "tag",
        allowed: "a tag, with placeholders such as {kind}, {namespace|none}, {date}",
        default: DEFAULT_TAG,
        sentence: "The tag of a record. A placeholder is a field of the record, and after `|` what stands there without it.",
        set: |sink, given| {
            let tag = Template::parse(given.text()?).ok()?;
            let is_usual = tag.text() == DEFAULT_TAG;
            put(&mut sink.fluentd.tag, Some((!is_usual).then_some(tag)))
        },
    },
    Key {
        path: "compression",
        allowed: "none, gzip",
        default: "none",
        sentence: "How chunks are compressed.",
        set: |sink, given| {
            sink.fluentd.gzip = match given.text()? {
                "none" => false,
                "gzip" => true,
                _ => return None,
            };
            Some(())
        },
    },
    Key {
        path: "shared_key_file",
        allowed: "a path",
        default: "",
        sentence: "Where the key is that server and client share; read again for every connection.",
        set: |sink, given| put(&mut sink.fluentd.shared_key_file, Some(Some(given.path()?))),
    },
    Key {
        path: "user",
        allowed: "a name",
        default: "",
        sentence: "Who we are, for a server that asks for a name and a password beside the key.",
        set: |sink, given| {
            let user = given.text().filter(|user| !user.is_empty())?;
            put(&mut sink.fluentd.user, Some(Some(user.to_owned())))
        },
    },
    Key {
        path: "password_file",
        allowed: "a path",
        default: "",
        sentence: "Where the password is; read again for every connection.",
        set: |sink, given| put(&mut sink.fluentd.password_file, Some(Some(given.path()?))),
    },
    Key {
        path: "hostname",
        allowed: "a name that no server has",
        default: "",
        sentence: "What we call ourselves to a server that asks for the key; usually `pod2pod`.",
        set: |sink, given| {
            let name = given.text().filter(|name| !name.is_empty())?;
            put(&mut sink.fluentd.hostname, Some(Some(name.to_owned())))
        },
    },
];

fn build(sink: &Settings, wrong: &mut Vec<Wrong>) -> Option<TargetConfig> {
    let access = sink.streams.access(&sink.web, wrong)?;
    let Fluentd { tag, gzip, shared_key_file, user, password_file, hostname } = sink.fluentd.clone();
    let tag = tag.or_else(|| Template::parse(DEFAULT_TAG).ok())?;
    // What has no such field has a tag too.
    if tag.may_be_empty() {
        wrong.push((
            "tag",
            "a placeholder of what not every record has needs something instead: {namespace|none}".to_owned(),
        ));
    }
    if user.is_some() != password_file.is_some() {
        wrong.push(("user", "user and password_file are needed together".to_owned()));
    }
    if shared_key_file.is_none() && (user.is_some() || hostname.is_some()) {
        wrong.push((
            "shared_key_file",
            "it is missing, and nobody asks for a user or a name without it".to_owned(),
        ));
    }
    let hostname = hostname.unwrap_or_else(|| DEFAULT_HOSTNAME.to_owned());
    let user = user.zip(password_file.map(Secret::File));
    let login = shared_key_file.map(|file| Login { shared_key: Secret::File(file), user, hostname });
    Some(TargetConfig::Fluentd(Box::new(fluentd::Config { access, tag, gzip, login })))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load;

    fn built(settings: &[&str]) -> Result<fluentd::Config, String> {
        let settings = settings.iter().map(|setting| format!("sinks.a.{setting}")).collect();
        let config = load::load(&load::Sources { settings, ..Default::default() });
        let mut config = config.map_err(|mistakes| mistakes[0].to_string())?;
        let TargetConfig::Fluentd(fluentd) = config.sinks.remove(0).target else { panic!() };
        Ok(*fluentd)
    }

    #[test]
    fn servers_and_logins_are_as_written() {
        let config = built(&["url=fluentd+tls://a", "failover=b:1,[::1]:2", "tls.server_name=c"]).unwrap();
        let servers: Vec<_> =
            config.access.servers.iter().map(|server| (server.host(), server.port())).collect();
        assert_eq!(servers, [("a", USUAL_PORT), ("b", 1), ("::1", 2)]);
        assert!(config.access.tls.is_some_and(|tls| tls.server_name.is_some()) && config.login.is_none());
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().display();
        let (key, password) = (format!("shared_key_file={path}"), format!("password_file={path}"));
        let known = ["url=fluentd://a:1", &key, "user=u", &password, "compression=gzip"];
        let config = built(&known).unwrap();
        let login = config.login.unwrap();
        assert_eq!((&*login.hostname, config.tag.text(), config.gzip), (DEFAULT_HOSTNAME, DEFAULT_TAG, true));
        assert_eq!(login.user, Some(("u".to_owned(), Secret::File(file.path().into()))));
    }

    #[test]
    fn what_does_not_fit_together_is_told() {
        for (settings, expected) in [
            (&["type=fluentd"][..], "sinks.a.url: it is missing"),
            (&["url=fluentd+udp://a", "type=fluentd"], "--set: sinks.a.url"),
            (&["url=fluentd://a", "tls.ca=/x"], "sinks.a.tls: "),
            (&["url=fluentd://a", "tag={namespace}"], "sinks.a.tag: "),
            (&["url=fluentd://a", "shared_key_file=/k", "user=u"], "sinks.a.user: "),
            (&["url=fluentd://a", "hostname=n"], "sinks.a.shared_key_file: "),
            (&["url=fluentd://a", "failover=b"], "--set: sinks.a.failover"),
        ] {
            let told = built(settings).unwrap_err();
            assert!(told.starts_with(expected), "{settings:?}: {told}");
        }
    }
}
