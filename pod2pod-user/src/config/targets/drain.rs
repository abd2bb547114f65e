//! Drain URLs of the old forwarder: what their user information and the options in their queries come to here, or which key takes their
//! place. Pure.

use crate::{
    record::text::push_base64,
    sinks::http_client::{Authorization, Secret, Url},
};

/// What the old forwarder calls Elasticsearch, and what is spoken there.
const ELASTICSEARCH: [(&str, &str); 6] = [
    ("elasticsearch", "https"),
    ("es", "https"),
    ("elasticsearch+https", "https"),
    ("es+https", "https"),
    ("elasticsearch+http", "http"),
    ("es+http", "http"),
];

/// The same, as schemes that say a sink's type.
pub(super) static ELASTICSEARCH_SCHEMES: &[&str] =
    &["elasticsearch", "es", "elasticsearch+https", "es+https", "elasticsearch+http", "es+http"];

/// Drains that are no sinks, and what does their work.
const REPLACED: [(&str, &str); 2] = [
    (
        "persistent",
        "a drain into a text column is not to be had: `type: postgres` keeps records as rows of a table, `type: file` as lines",
    ),
    ("memory", "a drain inside one process is not to be had: `pod2pod tail` shows records while they come"),
];

/// Options of whatever is spoken, and why they are refused.
const REFUSED: [(&str, &str); 4] = [
    (
        "insecure",
        "insecure=true is not to be had, since anybody could be there: name the authority to believe in tls.ca, and the certificate's name in \
         tls.server_name if it is not the host's",
    ),
    ("ca", "ca= is certificates, which have their place in a file: name it in tls.ca"),
    ("cert", "cert= is our own certificate, which has its place in a file: name it in tls.certificate"),
    ("key", "key= is a private key, which has its place in a file: name it in tls.key"),
];

/// Why there is no sink with a URL of this scheme, if the old forwarder had one.
pub(super) fn replaced(scheme: &str) -> Option<&'static str> {
    REPLACED.iter().find(|(word, _)| scheme.eq_ignore_ascii_case(word)).map(|(_, instead)| *instead)
}

/// A URL without its options, and these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Query {
    /// What is left of it.
    pub(super) url: String,
    /// Names and values, without what escapes them.
    options: Vec<(String, String)>,
}

impl Query {
    /// Takes options that are `ours` out of a URL.
    fn take(url: &str, is_ours: impl Fn(&str) -> bool) -> Self {
        let Some((before, query)) = url.split_once('?') else {
            return Self { url: url.to_owned(), options: Vec::new() };
        };
        let (mut kept, mut options) = (Vec::new(), Vec::new());
        for option in query.split('&') {
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            if is_ours(name) {
                options.push((name.to_owned(), unescaped(value)));
            } else {
                kept.push(option);
            }
        }
        let url = if kept.is_empty() { before.to_owned() } else { format!("{before}?{}", kept.join("&")) };
        Self { url, options }
    }

    /// Takes all: what is no HTTP has no use for any.
    pub(super) fn take_all(url: &str) -> Self {
        Self::take(url, |_| true)
    }

    /// Takes what the old forwarder does not send on over HTTP.
    pub(super) fn take_insecure(url: &str) -> Self {
        Self::take(url, |name| name == "insecure")
    }

    fn value(&self, name: &str) -> Option<&str> {
        self.options.iter().rfind(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// Why options other than `known` ones are refused. One is secure unless it says that it is not.
    pub(super) fn refused(&self, known: &[&str]) -> Vec<String> {
        let others = self.options.iter().filter(|(name, _)| !known.contains(&name.as_str()));
        let others = others.filter(|(name, value)| name != "insecure" || value == "true");
        others
            .map(|(name, _)| {
                let why = REFUSED.iter().find(|(refused, _)| refused == name);
                why.map_or_else(|| format!("{name}= is no option of it"), |(_, why)| (*why).to_owned())
            })
            .collect()
    }
}

/// A drain to Elasticsearch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Drain {
    pub(super) url: Url,
    /// Where records go, as written.
    pub(super) index: Option<String>,
    /// Who we are.
    pub(super) authorization: Option<Authorization>,
    /// What cannot be.
    pub(super) wrong: Vec<String>,
}

impl Drain {
    /// Reads `text`; absent if it is no URL of one.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let (_, spoken) = ELASTICSEARCH.iter().find(|(word, _)| scheme.eq_ignore_ascii_case(word))?;
        let query = Query::take(rest, |name| ["auth", "index", "insecure"].contains(&name));
        let end = query.url.find(['/', '?']).unwrap_or(query.url.len());
        let (authority, path) = query.url.split_at_checked(end)?;
        let (user, host) =
            authority.rsplit_once('@').map_or((None, authority), |(user, host)| (Some(user), host));
        let url = Url::parse(&format!("{spoken}://{host}{path}"))?;
        let mut wrong = query.refused(&["auth", "index"]);
        let authorization = authorization(user, query.value("auth")).unwrap_or_else(|why| {
            wrong.push(why.to_owned());
            None
        });
        let index = query.value("index").filter(|index| !index.is_empty()).map(str::to_owned);
        Some(Self { url, index, authorization, wrong })
    }
}

/// Who we are by user information and the option `auth`: `basic` if there is a password and nothing else is said.
fn authorization(user: Option<&str>, auth: Option<&str>) -> Result<Option<Authorization>, &'static str> {
    let Some((user, password)) =
        user.and_then(|user| user.split_once(':')).filter(|(_, word)| !word.is_empty())
    else {
        return match (user, auth) {
            (None, None) => Ok(None),
            (_, _) => Err(
                "auth= and a user need a password beside them; one in a file is named by user and password_file, \
                           token_file or api_key_file",
            ),
        };
    };
    let (user, password) = (unescaped_plus(user), unescaped_plus(password));
    Ok(Some(match auth.unwrap_or("basic") {
        "basic" => Authorization::Basic(user, Secret::Given(password)),
        "bearer" => Authorization::Bearer(Secret::Given(password)),
        "apikey" => {
            let mut key = Vec::new();
            push_base64(&mut key, format!("{user}:{password}").as_bytes());
            Authorization::ApiKey(Secret::Given(String::from_utf8_lossy(&key).into_owned()))
        }
        _ => return Err("auth= is none of basic, bearer, apikey"),
    }))
}

/// A value of a query, in which + is a blank.
fn unescaped(text: &str) -> String {
    unescaped_plus(&text.replace('+', " "))
}

/// A text whose bytes may be written as % and two digits (RFC 3986, section 2.1), in which + is itself.
fn unescaped_plus(text: &str) -> String {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [byte, after @ ..] = rest {
        let escaped = match rest {
            [b'%', high, low, after @ ..] => digit(*high).zip(digit(*low)).map(|pair| (pair, after)),
            _ => None,
        };
        let (byte, after) = escaped.map_or((*byte, after), |((high, low), after)| (high << 4 | low, after));
        bytes.push(byte);
        rest = after;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::load,
        sinks::{SinkConfig, TargetConfig},
    };

    fn built(settings: &[&str]) -> Result<SinkConfig, Vec<String>> {
        let settings = settings.iter().map(|setting| format!("sinks.a.{setting}")).collect();
        let config = load::load(&load::Sources { settings, ..Default::default() });
        let told = config.map_err(|mistakes| mistakes.iter().map(ToString::to_string).collect::<Vec<_>>());
        told.map(|mut config| config.sinks.remove(0))
    }

    #[test]
    fn drains_to_elasticsearch_mean_what_they_meant() {
        let given = |text: &str| Secret::Given(text.to_owned());
        let basic = || Some(Authorization::Basic("user".to_owned(), given("pass")));
        for (url, where_to, index, authorization) in [
            ("elasticsearch://h", "https://h", "pod2pod-{date}", None),
            ("ES://h:9200", "https://h:9200", "pod2pod-{date}", None),
            ("elasticsearch+https://h/tests", "https://h/tests", "pod2pod-{date}", None),
            ("es+https://h?insecure=false", "https://h", "pod2pod-{date}", None),
            ("elasticsearch+http://h/_bulk", "http://h/_bulk", "pod2pod-{date}", None),
            ("es+http://user:pass@h/", "http://h/", "pod2pod-{date}", basic()),
            ("es://user:pass@h?auth=basic&index=web", "https://h", "web", basic()),
            (
                "es://u:p%40ss+@h?auth=bearer&x=1&index=a",
                "https://h?x=1",
                "a",
                Some(Authorization::Bearer(given("p@ss+"))),
            ),
            (
                "es://user:pass@h/x?auth=apikey&timeout=1m",
                "https://h/x?timeout=1m",
                "pod2pod-{date}",
                Some(Authorization::ApiKey(given("dXNlcjpwYXNz"))),
            ),
        ] {
            let sink = built(&[&format!("url={url}")]).unwrap();
            let TargetConfig::Elasticsearch(target) = sink.target else { panic!("{url}") };
            assert_eq!(Some(&target.access.url), Url::parse(where_to).as_ref(), "{url}");
            assert_eq!(target.index.text(), index, "{url}");
            assert!(target.access.authorization == authorization, "{url}");
        }
    }

    #[test]
    fn other_drains_are_sinks_by_their_scheme() {
        for (url, is_so) in [
            (
                "http://h/in?insecure=false&x=1",
                (|target| matches!(target, TargetConfig::Http(_))) as fn(&_) -> bool,
            ),
            ("HTTPS://h/in", |target| matches!(target, TargetConfig::Http(_))),
            ("syslog+http://h/in", |target| matches!(target, TargetConfig::SyslogHttp(_))),
            ("syslog+https://h/in?insecure=false", |target| matches!(target, TargetConfig::SyslogHttp(_))),
            ("syslog+tcp://h:1", |target| matches!(target, TargetConfig::Syslog(_))),
            ("syslog+tls://h:1", |target| matches!(target, TargetConfig::Syslog(_))),
            ("syslog+udp://h:1", |target| matches!(target, TargetConfig::Syslog(_))),
            ("syslog://h:1", |target| matches!(target, TargetConfig::Syslog(_))),
        ] {
            assert!(is_so(&built(&[&format!("url={url}")]).unwrap().target), "{url}");
        }
        let TargetConfig::Http(http) = built(&["url=http://h/in?insecure=false&x=1"]).unwrap().target else {
            panic!()
        };
        assert_eq!(http.access.url.path(), "/in?x=1");
    }

    #[test]
    fn what_cannot_be_is_told_with_what_to_use_all_at_once() {
        for (url, parts) in [
            ("es://u@h?auth=basic&index=UPPER&insecure=true", &["tls.ca", "password_file", "index"][..]),
            ("es://u:p@h?auth=digest", &["basic, bearer, apikey"]),
            ("https://h/?insecure=true", &["tls.ca"]),
            ("syslog+https://h/?insecure=true", &["tls.ca"]),
            (
                "syslog+tls://h:1?ca=TUlJ&cert=TUlJ&key=TUlJ&other=1",
                &["tls.ca", "tls.certificate", "tls.key", "other="],
            ),
            ("persistent://shop", &["type: postgres"]),
            ("memory://localhost/1", &["pod2pod tail"]),
        ] {
            let told = built(&[&format!("url={url}")]).unwrap_err();
            assert_eq!(told.len(), parts.len(), "{url}: {told:#?}");
            for part in parts {
                assert!(
                    told.iter().any(|told| told.starts_with("sinks.a.url: ") && told.contains(part)),
                    "{part}: {told:#?}"
                );
            }
        }
        // Who we are is said once.
        let told = built(&["url=es://u:p@h", "token_file=/x"]).unwrap_err();
        assert!(told.iter().any(|told| told.contains("something else say who we are")), "{told:#?}");
    }

    #[test]
    fn escapes_are_read_as_far_as_they_are_some() {
        for (text, expected) in [("a%20b+c", "a b c"), ("%", "%"), ("%4", "%4"), ("%zz%41", "%zzA"), ("", "")]
        {
            assert_eq!(unescaped(text), expected);
        }
    }
}
