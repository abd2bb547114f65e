//! Records to Elasticsearch or OpenSearch by `_bulk`, each with an id of its own: what is sent twice is stored once.
//!
//! An answer is read item by item, and matched by id, never by position: nodes answer in another order when a pipeline drops one.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Method, header};
use serde::Deserialize;

use super::{
    coding::gzip,
    http::judge,
    http_client::{Access, Answered, Client, Reading, let_in},
    ids::Ids,
    objects::Objects,
    own::OwnConnections,
    probe::Probe,
};
use crate::{
    delivery::{Answer, Parcel, Refusal, RefusalKind, Target, Trouble, TroubleKind, Verdict},
    record::{Record, number::Clock},
    route::{Filler, Template},
    secrets::SecretError,
};

/// Bytes of an answer that are read at most: some 100 an item, and reasons, of which a batch of the usual size has a few hundred.
pub const MAX_BULK_ANSWER_BYTES: usize = 4 * 1024 * 1024;
/// An answer's body is waited for this long once its head is there: it says what became of each item.
pub const MAX_BULK_ANSWER_TIME: Duration = Duration::from_secs(5);
/// Bytes of a name of an index at most (Elasticsearch, "Create index API").
pub const MAX_INDEX_BYTES: usize = 255;
/// Of the reason of a refusal so many bytes are kept: some repeat the document.
pub const MAX_REASON_BYTES: usize = 512;
/// What is asked for of an answer: nothing else is read.
const FILTER_PATH: &str = "errors,items.*._id,items.*.status,items.*.error.type,items.*.error.reason";

/// Where to, and how.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where `_bulk` is, and who we are to it.
    pub access: Access,
    /// The index or data stream of a record.
    pub index: Template,
    /// The ingest pipeline that documents go through.
    pub pipeline: Option<String>,
    /// An index template that is put there before the first document: its name, and what it is.
    pub template: Option<(String, String)>,
    /// Bodies are compressed.
    pub gzip: bool,
}

/// Makes items: a line that says what is to be done, and the document.
#[derive(Clone, Debug)]
pub struct Encoder {
    objects: Objects,
    index: Template,
    filler: Filler,
    clock: Clock,
    ids: Arc<Ids>,
}

impl Encoder {
    /// Documents with the members that `objects` have, in indices as `index` says.
    pub fn new(objects: Objects, index: Template) -> Self {
        Self { objects, index, filler: Filler::default(), clock: Clock::default(), ids: Arc::default() }
    }

    /// Appends the item of `record`, if its format has one.
    pub fn push(&mut self, out: &mut Vec<u8>, record: &Record) {
        let begin = out.len();
        out.extend_from_slice(br#"{"create":{"_index":""#);
        let name = out.len();
        // A template of this sink has something for every placeholder.
        self.index.fill(&mut self.filler, record, out, clean);
        out.truncate(name + MAX_INDEX_BYTES);
        out.extend_from_slice(br#"","_id":""#);
        self.ids.push(out);
        out.extend_from_slice(b"\"}}\n{\"@timestamp\":\"");
        self.clock.push_time(out, record.time);
        out.push(b'"');
        if !self.objects.push_rest(out, record) {
            return out.truncate(begin);
        }
        out.push(b'\n');
    }
}

/// What may be in the name of an index (Elasticsearch, "Create index API"): other bytes are left out, capitals made small.
fn clean(byte: u8) -> Option<u8> {
    let byte = byte.to_ascii_lowercase();
    (byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_' | b'.')).then_some(byte)
}

/// Whether a template's own text may be in such a name.
pub fn is_index(template: &Template) -> bool {
    let mut depth = 0;
    let own = template.text().bytes().filter(|byte| {
        depth += i32::from(*byte == b'{') - i32::from(*byte == b'}');
        depth == 0 && *byte != b'}'
    });
    let first = template.text().bytes().next();
    own.collect::<Vec<_>>().iter().all(|byte| clean(*byte) == Some(*byte))
        && !first.is_some_and(|first| matches!(first, b'-' | b'_' | b'.'))
        && !template.text().is_empty()
}

/// The nodes.
pub(super) struct Elasticsearch {
    client: Client,
    path: String,
    gzip: bool,
    template: Option<(String, String)>,
    is_template_there: AtomicBool,
}

impl Target for Elasticsearch {
    async fn send(&self, parcel: &Parcel) -> Answer {
        self.bulk(parcel).await.unwrap_or_else(Answer::Later)
    }
}

impl Probe for Elasticsearch {
    /// Every node tells its version at its root.
    async fn probe(&self) -> Result<String, Trouble> {
        let (head, body) = self.ask(self.client.request(&Method::GET), Bytes::new()).await?;
        let_in(head.status)?;
        let nonsense =
            || Trouble::new(TroubleKind::Nonsense, format_args!("{}, and no version", head.status));
        let told: serde_json::Value =
            serde_json::from_slice(&body.unwrap_or_default()).map_err(|_| nonsense())?;
        let version = told["version"]["number"].as_str().ok_or_else(nonsense)?;
        let product = told["version"]["distribution"].as_str().unwrap_or("elasticsearch");
        Ok(format!("{product} {version}"))
    }
}

impl Elasticsearch {
    /// Reads the files, and connects when there is something to send.
    ///
    /// # Errors
    /// A file cannot be used.
    pub(super) fn new(config: Config, own: Arc<OwnConnections>) -> Result<Self, SecretError> {
        let Config { access, pipeline, template, gzip, .. } = config;
        let path = bulk_path(access.url.path(), pipeline.as_deref());
        let reading = Reading { most: MAX_BULK_ANSWER_BYTES, time: MAX_BULK_ANSWER_TIME };
        let client = Client::new(access, own, reading)?;
        Ok(Self { client, path, gzip, template, is_template_there: AtomicBool::new(false) })
    }

    async fn bulk(&self, parcel: &Parcel) -> Result<Answer, Trouble> {
        self.put_template().await?;
        let body = if self.gzip { gzip(parcel.bytes()).into() } else { parcel.bytes().clone() };
        let mut request = self.client.request_at(&Method::POST, &self.path);
        request = request.header(header::CONTENT_TYPE, "application/x-ndjson");
        if self.gzip {
            request = request.header(header::CONTENT_ENCODING, "gzip");
        }
        let (head, body) = self.ask(request, body).await?;
        match judge(head.status, &head.headers, SystemTime::now()) {
            Answer::Delivered => read(parcel, body.as_deref()),
            answer @ (Answer::Judged(_) | Answer::TooLarge | Answer::Later(_) | Answer::Never(_)) => {
                Ok(answer)
            }
        }
    }

    async fn ask(&self, request: http::request::Builder, body: Bytes) -> Result<Answered, Trouble> {
        let request = request.body(Full::new(body));
        self.client.send(request.map_err(|error| Trouble::new(TroubleKind::Nonsense, error))?).await
    }

    /// Puts the index template there, once, if one is to be.
    async fn put_template(&self) -> Result<(), Trouble> {
        let Some((name, template)) = &self.template else { return Ok(()) };
        if self.is_template_there.load(Ordering::Relaxed) {
            return Ok(());
        }
        let request = self.client.request_at(&Method::PUT, &format!("/_index_template/{name}"));
        let request = request.header(header::CONTENT_TYPE, "application/json");
        let (head, body) = self.ask(request, Bytes::from(template.clone())).await?;
        if !head.status.is_success() {
            let reason = body.as_deref().map(String::from_utf8_lossy).unwrap_or_default();
            let detail = format_args!("the index template was answered {}: {}", head.status, cut(&reason));
            return Err(Trouble::new(TroubleKind::Nonsense, detail));
        }
        self.is_template_there.store(true, Ordering::Relaxed);
        Ok(())
    }
}

/// `_bulk` below what the URL's path says, with what its query says.
fn bulk_path(path: &str, pipeline: Option<&str>) -> String {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let path = path.trim_end_matches('/');
    let path = if path.starts_with("/_bulk") { path.to_owned() } else { format!("{path}/_bulk") };
    let mut bulk = format!("{path}?filter_path={FILTER_PATH}");
    if let Some(pipeline) = pipeline {
        bulk.push_str(&format!("&pipeline={pipeline}"));
    }
    if !query.is_empty() {
        bulk.push_str(&format!("&{query}"));
    }
    bulk
}

#[derive(Deserialize)]
struct Told {
    errors: bool,
    #[serde(default)]
    items: Vec<HashMap<String, Item>>,
}

#[derive(Deserialize)]
struct Item {
    #[serde(rename = "_id")]
    id: Option<String>,
    status: u16,
    error: Option<Reason>,
}

#[derive(Deserialize)]
struct Reason {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    reason: Option<String>,
}

/// What an answer says of each item.
fn read(parcel: &Parcel, body: Option<&[u8]>) -> Result<Answer, Trouble> {
    let nonsense = |detail: &dyn std::fmt::Display| Trouble::new(TroubleKind::Nonsense, detail);
    let body = body.ok_or_else(|| nonsense(&"an answer that is too long, or has no end"))?;
    let told: Told = serde_json::from_slice(body).map_err(|error| nonsense(&error))?;
    if !told.errors {
        return Ok(Answer::Delivered);
    }
    let items = told.items.iter().flat_map(HashMap::values);
    let by_id: HashMap<&str, &Item> = items.filter_map(|item| Some((item.id.as_deref()?, item))).collect();
    // Of what has no name the id is not told either, and there is nothing else that could be without one.
    let without_id = told.items.iter().flat_map(HashMap::values).find(|item| item.id.is_none());
    let verdicts = parcel.items().map(|item| {
        let id = id_of(item).unwrap_or_default();
        by_id.get(id).copied().or(without_id).map_or(Verdict::Later(TroubleKind::Nonsense), verdict)
    });
    Ok(Answer::Judged(verdicts.collect()))
}

/// The id in an item's first line.
fn id_of(item: &[u8]) -> Option<&str> {
    let line = str::from_utf8(item.split(|byte| *byte == b'\n').next()?).ok()?;
    line.split_once("\"_id\":\"")?.1.split_once('"').map(|(id, _)| id)
}

fn verdict(item: &Item) -> Verdict {
    let kind = item.error.as_ref().map_or("", |error| error.kind.as_str());
    match item.status {
        200..=299 => Verdict::Delivered,
        // Nobody else has its id.
        409 => Verdict::Duplicate,
        // A pipeline's own word, and not about how the node is.
        500 if kind == "fail_processor_exception" => Verdict::Never(refusal(item)),
        401 | 403 => Verdict::Later(TroubleKind::Unauthorized),
        429 => Verdict::Later(TroubleKind::Throttled),
        500..=599 => Verdict::Later(TroubleKind::Unavailable),
        _ => Verdict::Never(refusal(item)),
    }
}

fn refusal(item: &Item) -> Refusal {
    let error = item.error.as_ref();
    let kind = error.map_or("", |error| error.kind.as_str());
    let reason = error.and_then(|error| error.reason.as_deref()).unwrap_or_default();
    let which = if item.status == 413 { RefusalKind::TooLarge } else { RefusalKind::Rejected };
    Refusal::new(which, format_args!("{} {kind}: {}", item.status, cut(reason)))
}

/// As much of a reason as is kept.
pub(super) fn cut(text: &str) -> &str {
    let end = text.floor_char_boundary(MAX_REASON_BYTES);
    text.get(..end).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{record::Kind, sinks::Format};

    fn item(encoder: &mut Encoder, record: &Record) -> (Value, Value) {
        let mut out = Vec::new();
        encoder.push(&mut out, record);
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert!(text.ends_with('\n') && lines.len() == 2, "{text}");
        (serde_json::from_str(lines[0]).unwrap(), serde_json::from_str(lines[1]).unwrap())
    }

    #[test]
    fn what_the_old_record_has_not_is_no_document() {
        let index = Template::parse("web").unwrap();
        let mut encoder = Encoder::new(Objects::of(Format::Pod2podLog, None), index);
        let mut out = Vec::new();
        encoder.push(&mut out, &Record { kind: Kind::Connect, ..Record::blank() });
        assert!(out.is_empty());
        let record = Record { method: Some("GET".into()), status: Some(200), ..Record::blank() };
        let (action, document) = item(&mut encoder, &record);
        assert_eq!(action["create"]["_index"], "web");
        assert_eq!((&document["resCode"], &document["url"]), (&json!("200"), &json!("")));
        assert!(document["@timestamp"].is_string());
    }

    fn encoder(index: &str, fields: &[&str]) -> Encoder {
        let fields = crate::record::selected::Fields::parse(fields, &[] as &[&str]).unwrap();
        Encoder::new(Objects::of(Format::Json, Some(fields.into())), Template::parse(index).unwrap())
    }

    #[test]
    fn items_are_documents_with_ids_of_their_own() {
        let record = Record { time: 1_795_249_530_000_000_000, ..Record::blank() };
        let mut first = encoder("pod2pod-{namespace|none}-{date}", &["kind"]);
        let mut other = first.clone();
        let mut ids = std::collections::HashSet::new();
        for encoder in [&mut first, &mut other] {
            for _ in 0..3 {
                let (action, document) = item(encoder, &record);
                assert_eq!(action["create"]["_index"], "pod2pod-none-2026.11.21");
                assert!(ids.insert(action["create"]["_id"].as_str().unwrap().to_owned()));
                let time = "2026-11-21T08:25:30.000000000Z";
                assert_eq!(document, json!({ "@timestamp": time, "kind": "http" }));
            }
        }
        let (_, document) = item(&mut encoder("a", &["url.path"]), &record);
        assert_eq!(document, json!({ "@timestamp": "2026-11-21T08:25:30.000000000Z" }));
    }

    #[test]
    fn a_name_is_as_long_as_allowed() {
        for (length, expected) in [(MAX_INDEX_BYTES, MAX_INDEX_BYTES), (MAX_INDEX_BYTES + 1, MAX_INDEX_BYTES)]
        {
            let (action, _) = item(&mut encoder(&"a".repeat(length), &["kind"]), &Record::blank());
            assert_eq!(action["create"]["_index"].as_str().unwrap().len(), expected);
        }
    }

    #[test]
    fn names_of_indices() {
        for (text, expected) in [
            ("pod2pod-{date}", true),
            ("logs-{namespace|none}", true),
            ("{kind}", true),
            ("Upper", false),
            ("a b", false),
            ("-a", false),
            ("_a", false),
            ("a/{kind}", false),
        ] {
            assert_eq!(is_index(&Template::parse(text).unwrap()), expected, "{text}");
        }
    }

    #[test]
    fn where_bulk_is() {
        for (path, pipeline, expected) in [
            ("/", None, "/_bulk?filter_path="),
            ("/tests", None, "/tests/_bulk?filter_path="),
            ("/tests/?a=b", Some("p"), "/tests/_bulk?filter_path="),
            ("/_bulk", None, "/_bulk?filter_path="),
        ] {
            let bulk = bulk_path(path, pipeline);
            assert!(bulk.starts_with(expected), "{bulk}");
            assert_eq!(bulk.ends_with("&pipeline=p&a=b"), path.contains('?'), "{bulk}");
        }
    }

    fn parcel(ids: &[&str]) -> Parcel {
        let (mut bytes, mut ends) = (Vec::new(), Vec::new());
        for id in ids {
            bytes.extend_from_slice(
                format!("{{\"create\":{{\"_index\":\"a\",\"_id\":\"{id}\"}}}}\n{{}}\n").as_bytes(),
            );
            ends.push(bytes.len() as u32);
        }
        Parcel::new(bytes, ends)
    }

    #[test]
    fn items_are_judged_by_their_ids() {
        let error = |status: u16, kind: &str| json!({ "type": kind, "reason": status.to_string() });
        let of = |id: Option<&str>, status: u16, kind: &str| {
            let mut item = json!({ "_id": id, "status": status });
            if !kind.is_empty() {
                item["error"] = error(status, kind);
            }
            json!({ "create": item })
        };
        let body = json!({ "errors": true, "items": [
            of(Some("noop"), 200, ""),
            of(Some("wrong"), 400, "mapper_parsing_exception"),
            of(Some("busy"), 429, "rejected_execution_exception"),
            of(Some("twice"), 409, "version_conflict_engine_exception"),
            of(Some("failed"), 500, "fail_processor_exception"),
            of(Some("down"), 503, "unavailable_shards_exception"),
            of(Some("secret"), 403, "security_exception"),
            of(Some("new"), 201, ""),
        ]});
        let all = parcel(&["new", "wrong", "busy", "twice", "failed", "down", "secret", "noop", "missing"]);
        let Ok(Answer::Judged(verdicts)) = read(&all, Some(body.to_string().as_bytes())) else { panic!() };
        let never = |detail: &str| Verdict::Never(Refusal::new(RefusalKind::Rejected, detail));
        assert_eq!(
            verdicts,
            [
                Verdict::Delivered,
                never("400 mapper_parsing_exception: 400"),
                Verdict::Later(TroubleKind::Throttled),
                Verdict::Duplicate,
                never("500 fail_processor_exception: 500"),
                Verdict::Later(TroubleKind::Unavailable),
                Verdict::Later(TroubleKind::Unauthorized),
                Verdict::Delivered,
                Verdict::Later(TroubleKind::Nonsense),
            ]
        );
        // Nothing else is without an id.
        let body = json!({ "errors": true, "items": [
            of(Some("new"), 201, ""),
            of(None, 400, "invalid_index_name_exception"),
        ]});
        let Ok(Answer::Judged(verdicts)) = read(&parcel(&["bad", "new"]), Some(body.to_string().as_bytes()))
        else {
            panic!()
        };
        assert_eq!(verdicts, [never("400 invalid_index_name_exception: 400"), Verdict::Delivered]);
    }

    #[test]
    fn an_answer_is_all_or_nothing_or_nonsense() {
        let parcel = parcel(&["a"]);
        assert_eq!(read(&parcel, Some(br#"{"errors":false}"#)), Ok(Answer::Delivered));
        for body in [None, Some(&b""[..]), Some(b"<html>"), Some(b"{}"), Some(br#"{"errors":tr"#)] {
            assert_eq!(read(&parcel, body).unwrap_err().kind, TroubleKind::Nonsense);
        }
    }

    #[test]
    fn a_body_that_has_no_end_is_waited_for_so_long() {
        use std::io::{Read as _, Write as _};

        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let node = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            assert!(stream.read(&mut [0; 4096]).unwrap() > 0);
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n").unwrap();
            // Until the client has gone.
            let _ = stream.read_to_end(&mut Vec::new());
        });
        let access = Access {
            url: crate::sinks::http_client::Url::parse(&url).unwrap(),
            headers: Vec::new(),
            header_files: Vec::new(),
            authorization: None,
            tls: Default::default(),
            server_name: None,
        };
        let index = Template::parse("a").unwrap();
        let config = Config { access, index, pipeline: None, template: None, gzip: false };
        let nodes = Elasticsearch::new(config, Arc::default()).unwrap();
        let begin = std::time::Instant::now();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let answer = runtime.block_on(nodes.send(&parcel(&["a"])));
        assert!(begin.elapsed() >= MAX_BULK_ANSWER_TIME);
        assert!(matches!(answer, Answer::Later(Trouble { kind: TroubleKind::Nonsense, .. })), "{answer:?}");
        drop((nodes, runtime));
        node.join().unwrap();
    }

    #[test]
    fn reasons_are_kept_up_to_their_limit() {
        let fits = "a".repeat(MAX_REASON_BYTES);
        assert_eq!((cut(&fits), cut(&format!("{fits}b"))), (&*fits, &*fits));
        let character = format!("{}ü", "a".repeat(MAX_REASON_BYTES - 1));
        assert_eq!(cut(&character).len(), MAX_REASON_BYTES - 1);
    }
}
