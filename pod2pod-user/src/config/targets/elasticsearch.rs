//! Keys of `type: elasticsearch`.

use std::path::PathBuf;

use super::{
    DEFAULT_BATCH_RECORDS, Settings, SinkKey as Key, SinkType, Wrong, common,
    drain::{self, Drain},
    web,
};
use crate::{
    config::keys::put,
    record::template,
    route::Template,
    sinks::{
        TargetConfig,
        elasticsearch::{self, is_index},
        http_client::{Authorization, Secret, Url},
    },
};

pub(super) static TYPE: SinkType = SinkType {
    word: "elasticsearch",
    sentence: "Elasticsearch or OpenSearch, by `_bulk`: documents with ids of their own, so that what is sent twice is stored once.",
    schemes: drain::ELASTICSEARCH_SCHEMES,
    keys: &[
        KEYS,
        web::USER,
        web::TOKEN,
        web::HEADERS,
        web::TLS,
        web::SERVER_NAME,
        common::FORMAT,
        common::LINES,
        common::KEYS,
    ],
    keeps_order: false,
    batch_records: DEFAULT_BATCH_RECORDS,
    build,
};

/// Where records go that say nothing else.
const DEFAULT_INDEX: &str = "pod2pod-{date}";

/// `elasticsearch` as written.
#[derive(Clone, Debug, Default)]
pub struct Elasticsearch {
    url: Option<Drain>,
    index: Option<Template>,
    is_stream: bool,
    pipeline: Option<String>,
    installs: bool,
    gzip: bool,
    api_key_file: Option<PathBuf>,
}

static KEYS: &[Key] = &[
    Key {
        path: "url",
        allowed: "an http:// or https:// URL without user information, or the old forwarder's such as es://user:password@host?index=web",
        default: "",
        sentence: "Where a node is; `_bulk` is looked for below its path.",
        set: |sink, given| {
            let text = given.text()?;
            let plain = |url| Drain { url, index: None, authorization: None, wrong: Vec::new() };
            let url = Url::parse(text).map(plain).or_else(|| Drain::parse(text))?;
            put(&mut sink.elasticsearch.url, Some(Some(url)))
        },
    },
    Key {
        path: "index",
        allowed: "a name of an index or data stream, with placeholders such as {date}, {namespace|none}, {kind}",
        default: DEFAULT_INDEX,
        sentence: "Where a record goes. A placeholder is a field of the record, and after `|` what stands there without it; `{date}` is `%Y.%m.%d` of its time. Before the URL's `index=`.",
        set: |sink, given| {
            let index = Template::parse(given.text()?).ok().filter(is_index)?;
            let is_usual = index.text() == DEFAULT_INDEX;
            put(&mut sink.elasticsearch.index, Some((!is_usual).then_some(index)))
        },
    },
    Key {
        path: "data_stream",
        allowed: "on, off",
        default: "off",
        sentence: "The index template that `install_template` puts there makes data streams.",
        set: |sink, given| put(&mut sink.elasticsearch.is_stream, given.switch()),
    },
    Key {
        path: "install_template",
        allowed: "on, off",
        default: "off",
        sentence: "Puts an index template there before the first record, so that every field has its type: `deploy/elasticsearch` has it too.",
        set: |sink, given| put(&mut sink.elasticsearch.installs, given.switch()),
    },
    Key {
        path: "pipeline",
        allowed: "a name of letters, digits, -, _ and .",
        default: "",
        sentence: "The ingest pipeline that records go through.",
        set: |sink, given| {
            let is_part = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            let name = given.text().filter(|name| !name.is_empty() && name.chars().all(is_part))?;
            put(&mut sink.elasticsearch.pipeline, Some(Some(name.to_owned())))
        },
    },
    Key {
        path: "compression",
        allowed: "none, gzip",
        default: "none",
        sentence: "How bodies are compressed.",
        set: |sink, given| {
            sink.elasticsearch.gzip = match given.text()? {
                "none" => false,
                "gzip" => true,
                _ => return None,
            };
            Some(())
        },
    },
    Key {
        path: "api_key_file",
        allowed: "a path",
        default: "",
        sentence: "Where an API key is, as base64 of its id, a colon and itself; read again when it changes.",
        set: |sink, given| put(&mut sink.elasticsearch.api_key_file, Some(Some(given.path()?))),
    },
];

fn build(sink: &Settings, wrong: &mut Vec<Wrong>) -> Option<TargetConfig> {
    let Elasticsearch { url, index, is_stream, pipeline, installs, gzip, api_key_file } =
        sink.elasticsearch.clone();
    let Some(drain) = url else {
        wrong.push(("url", "it is missing: say where a node is".to_owned()));
        return None;
    };
    let Drain { url, index: drain_index, authorization: of_drain, wrong: of_url } = drain;
    sink.web.check(url.is_tls(), wrong);
    wrong.extend(of_url.into_iter().map(|why| ("url", why)));
    let of_url = drain_index.and_then(|text| {
        let index = Template::parse(&text).ok().filter(is_index);
        if index.is_none() {
            wrong.push(("url", format!("index={text} is no name of an index, which has small letters; the key index says what can be")));
        }
        index
    });
    let index = index.or(of_url).or_else(|| Template::parse(DEFAULT_INDEX).ok())?;
    // What has no such field has to go somewhere.
    if index.may_be_empty() {
        wrong.push((
            "index",
            "a placeholder of what not every record has needs something instead: {namespace|none}".to_owned(),
        ));
    }
    if installs && index.prefix().is_empty() {
        wrong.push((
            "install_template",
            "the index begins with a placeholder, so a template of it would be one of everything".to_owned(),
        ));
    }
    let mut authorization = sink.web.authorization(wrong);
    let key = api_key_file.map(|file| ("api_key_file", Authorization::ApiKey(Secret::File(file))));
    for (place, other) in [key, of_drain.map(|of_drain| ("url", of_drain))].into_iter().flatten() {
        if authorization.is_some() {
            wrong.push((place, "it and something else say who we are".to_owned()));
        }
        authorization = Some(other);
    }
    let name = index.prefix().trim_end_matches(['-', '_', '.']).to_owned();
    let template = installs.then(|| (name, template::index_template(index.prefix(), is_stream)));
    let access = sink.web.access(url, authorization);
    Some(TargetConfig::Elasticsearch(Box::new(elasticsearch::Config {
        access,
        index,
        pipeline,
        template,
        gzip,
    })))
}
