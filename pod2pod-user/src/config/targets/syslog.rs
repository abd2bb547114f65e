//! Keys of `type: syslog` and `type: syslog-http`.

use super::{
    DEFAULT_BATCH_RECORDS, Settings, SinkKey as Key, SinkType, Wrong, common,
    drain::Query,
    streams::{self, Carriage},
    web,
};
use crate::{
    config::keys::put,
    sinks::{
        TargetConfig,
        http_client::Url,
        syslog::{
            self, DEFAULT_APP_NAME, DEFAULT_DATAGRAM_BYTES, DEFAULT_FACILITY, Form, Framing,
            MAX_DATAGRAM_BYTES, OLD_DATAGRAM_BYTES, Style,
        },
        syslog_http,
    },
};

pub(super) static TYPE: SinkType = SinkType {
    word: "syslog",
    sentence: "Syslog (RFC 5424) over TCP, TLS or UDP, the record's JSON as message. It does not answer: what is known of what a server has \
               is that its kernel took it.",
    schemes: &["syslog", "syslog+tcp", "syslog+tls", "syslog+udp"],
    keys: &[KEYS, STYLE, streams::KEYS, web::TLS, web::SERVER_NAME, common::LINES, common::KEYS],
    keeps_order: true,
    batch_records: DEFAULT_BATCH_RECORDS,
    build,
};

pub(super) static HTTP_TYPE: SinkType = SinkType {
    word: "syslog-http",
    sentence: "Lines of syslog in requests of HTTP (application/syslog), as the old forwarder sends them.",
    schemes: &["syslog+http", "syslog+https"],
    keys: &[
        HTTP_KEYS,
        STYLE,
        web::USER,
        web::TOKEN,
        web::HEADERS,
        web::TLS,
        web::SERVER_NAME,
        common::LINES,
        common::KEYS,
    ],
    keeps_order: false,
    batch_records: DEFAULT_BATCH_RECORDS,
    build: build_http,
};

/// `syslog` as written.
#[derive(Clone, Debug, Default)]
pub(super) struct Syslog {
    http_url: Option<Url>,
    /// Why options in it are refused.
    refused: Vec<String>,
    form: Form,
    framing: Option<Framing>,
    datagram_bytes: Option<usize>,
    facility: Option<u8>,
    hostname: Option<String>,
    app_name: Option<String>,
}

/// Names of facilities, by their numbers (RFC 5424, section 6.2.1).
const FACILITIES: [&str; 24] = [
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp",
    "ntp", "audit", "alert", "clock", "local0", "local1", "local2", "local3", "local4", "local5", "local6",
    "local7",
];

static KEYS: &[Key] = &[
    Key {
        path: "url",
        allowed: "syslog+tcp://, syslog+tls:// or syslog+udp://, a host and a port (601, 6514 or 514 if absent); syslog:// is over UDP",
        default: "",
        sentence: "Where it is, and how it is reached.",
        set: |sink, given| {
            let url = streams::Url::parse(given.text()?, "syslog", Carriage::Udp, usual_port)?;
            put(&mut sink.streams.url, Some(Some(url)))
        },
    },
    Key {
        path: "framing",
        allowed: "octet-counting, lines",
        default: "",
        sentence: "What tells messages apart in a stream: `octet-counting` (RFC 6587, RFC 5425), or with `format: old` usually `lines`.",
        set: |sink, given| {
            let framing = match given.text()? {
                "octet-counting" => Framing::OctetCounting,
                "lines" => Framing::Lines,
                _ => return None,
            };
            put(&mut sink.syslog.framing, Some(Some(framing)))
        },
    },
    Key {
        path: "datagram_bytes",
        allowed: "a number from 480 to 65507",
        default: "",
        sentence: "Bytes of a datagram at most; what is longer is cut. Usually 2048, with `format: old` 1024.",
        set: |sink, given| {
            let bytes = given.integer().and_then(|bytes| usize::try_from(bytes).ok());
            let bytes = bytes.filter(|bytes| (MIN_DATAGRAM_BYTES..=MAX_DATAGRAM_BYTES).contains(bytes));
            put(&mut sink.syslog.datagram_bytes, bytes.map(Some))
        },
    },
];

/// What every receiver takes (RFC 5426, section 3.2).
const MIN_DATAGRAM_BYTES: usize = 480;

static HTTP_KEYS: &[Key] = &[Key {
    path: "url",
    allowed: "a syslog+http:// or syslog+https:// URL without user information",
    default: "",
    sentence: "Where it is.",
    set: |sink, given| {
        let query = Query::take_insecure(given.text()?);
        sink.syslog.refused = query.refused(&[]);
        let (scheme, rest) = query.url.split_once("://")?;
        let scheme = scheme.to_ascii_lowercase();
        let url = Url::parse(&format!("{}://{rest}", scheme.strip_prefix("syslog+")?))?;
        put(&mut sink.syslog.http_url, Some(Some(url)))
    },
}];

static STYLE: &[Key] = &[
    Key {
        path: "format",
        allowed: "rfc5424, old",
        default: "rfc5424",
        sentence: "How a message is written: as RFC 5424 has it, or as the old forwarder does.",
        set: |sink, given| {
            sink.syslog.form = match given.text()? {
                "rfc5424" => Form::Rfc5424,
                "old" => Form::Old,
                _ => return None,
            };
            Some(())
        },
    },
    Key {
        path: "facility",
        allowed: "a name such as local0 or daemon",
        default: "",
        sentence: "The facility of messages, usually `local0`; their severity is of the record: error, warning for a 4xx, else informational.",
        set: |sink, given| {
            let text = given.text()?;
            let place = FACILITIES.iter().position(|name| *name == text)?;
            put(&mut sink.syslog.facility, u8::try_from(place).ok().map(Some))
        },
    },
    Key {
        path: "hostname",
        allowed: "a name",
        default: "",
        sentence: "HOSTNAME of messages; this machine's if absent.",
        set: |sink, given| put(&mut sink.syslog.hostname, Some(Some(word(given.text()?)?))),
    },
    Key {
        path: "app_name",
        allowed: "a name",
        default: "",
        sentence: "APP-NAME of messages, usually `pod2pod`.",
        set: |sink, given| put(&mut sink.syslog.app_name, Some(Some(word(given.text()?)?))),
    },
];

/// Printable ASCII without blanks.
fn word(text: &str) -> Option<String> {
    (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())).then(|| text.to_owned())
}

/// As registered (RFC 5426, RFC 6587, RFC 5425).
const fn usual_port(carriage: Carriage) -> Option<u16> {
    match carriage {
        Carriage::Udp => Some(514),
        Carriage::Tcp => Some(601),
        Carriage::Tls => Some(6514),
    }
}

impl Syslog {
    fn style(&self, framing: Framing) -> Style {
        Style {
            form: self.form,
            framing,
            facility: self.facility.unwrap_or(DEFAULT_FACILITY),
            hostname: self.hostname.clone(),
            app_name: self.app_name.clone().unwrap_or_else(|| DEFAULT_APP_NAME.to_owned()),
        }
    }

    fn framing(&self, is_stream: bool) -> Framing {
        let (usual, bytes) = match self.form {
            Form::Rfc5424 => (Framing::OctetCounting, DEFAULT_DATAGRAM_BYTES),
            Form::Old => (Framing::Lines, OLD_DATAGRAM_BYTES),
        };
        if is_stream {
            self.framing.unwrap_or(usual)
        } else {
            Framing::Datagrams(self.datagram_bytes.unwrap_or(bytes))
        }
    }
}

fn build(sink: &Settings, wrong: &mut Vec<Wrong>) -> Option<TargetConfig> {
    let transport = sink.streams.transport(&sink.web, wrong)?;
    let is_stream = transport.is_stream();
    if is_stream && sink.syslog.datagram_bytes.is_some() {
        wrong.push(("datagram_bytes", "its url is not one of datagrams".to_owned()));
    }
    if !is_stream && sink.syslog.framing.is_some() {
        wrong.push(("framing", "its url is one of datagrams, which need none".to_owned()));
    }
    let style = sink.syslog.style(sink.syslog.framing(is_stream));
    Some(TargetConfig::Syslog(Box::new(syslog::Config { transport, style })))
}

fn build_http(sink: &Settings, wrong: &mut Vec<Wrong>) -> Option<TargetConfig> {
    let Some(url) = sink.syslog.http_url.clone() else {
        wrong.push(("url", "it is missing: say where the collector is".to_owned()));
        return None;
    };
    wrong.extend(sink.syslog.refused.iter().map(|why| ("url", why.clone())));
    sink.web.check(url.is_tls(), wrong);
    let authorization = sink.web.authorization(wrong);
    let access = sink.web.access(url, authorization);
    let style = sink.syslog.style(Framing::Lines);
    Some(TargetConfig::SyslogHttp(Box::new(syslog_http::Config { access, style })))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load;

    fn built(settings: &[&str]) -> Result<TargetConfig, String> {
        let settings = settings.iter().map(|setting| format!("sinks.a.{setting}")).collect();
        let config = load::load(&load::Sources { settings, ..Default::default() });
        let mut config = config.map_err(|mistakes| mistakes[0].to_string())?;
        Ok(config.sinks.remove(0).target)
    }

    fn style(settings: &[&str]) -> Style {
        let target = built(settings).unwrap();
        if let TargetConfig::SyslogHttp(syslog) = target {
            return syslog.style;
        }
        let TargetConfig::Syslog(syslog) = target else { panic!("{target:?}") };
        syslog.style
    }

    #[test]
    fn styles_are_as_written() {
        let framing = |settings: &[&str]| style(settings).framing;
        assert_eq!(framing(&["url=syslog+tcp://a"]), Framing::OctetCounting);
        assert_eq!(framing(&["url=syslog+tls://a", "format=old"]), Framing::Lines);
        assert_eq!(framing(&["url=syslog+tcp://a", "framing=lines"]), Framing::Lines);
        assert_eq!(framing(&["url=syslog://a"]), Framing::Datagrams(DEFAULT_DATAGRAM_BYTES));
        assert_eq!(framing(&["url=syslog://a", "format=old"]), Framing::Datagrams(OLD_DATAGRAM_BYTES));
        assert_eq!(
            framing(&["url=syslog+udp://a", "datagram_bytes=480"]),
            Framing::Datagrams(MIN_DATAGRAM_BYTES)
        );
        assert_eq!(framing(&["url=syslog+https://a/in?x=1"]), Framing::Lines);
        let named = style(&["url=syslog://a", "facility=daemon", "hostname=n", "app_name=b"]);
        assert_eq!((named.facility, named.hostname.as_deref(), &*named.app_name), (3, Some("n"), "b"));
    }

    #[test]
    fn what_does_not_fit_together_is_told() {
        for (settings, expected) in [
            (&["type=syslog"][..], "sinks.a.url: it is missing"),
            (&["type=syslog-http"], "sinks.a.url: it is missing"),
            (&["url=syslog+tcp://a", "datagram_bytes=2000"], "sinks.a.datagram_bytes: "),
            (&["url=syslog://a", "framing=lines"], "sinks.a.framing: "),
            (&["url=syslog://a", "tls.ca=/x"], "sinks.a.tls: "),
            (&["url=syslog://a", "datagram_bytes=479"], "--set: sinks.a.datagram_bytes"),
            (&["url=syslog://a", "datagram_bytes=65508"], "--set: sinks.a.datagram_bytes"),
            (&["url=syslog://a", "facility=local8"], "--set: sinks.a.facility"),
            (&["url=syslog://a", "app_name=a b"], "--set: sinks.a.app_name"),
            (&["url=syslog+http://u:p@a/"], "--set: sinks.a.url"),
        ] {
            let told = built(settings).unwrap_err();
            assert!(told.starts_with(expected), "{settings:?}: {told}");
        }
    }
}
