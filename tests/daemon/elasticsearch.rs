//! The sink of Elasticsearch against nodes that answer as told: item by item, half, nonsense, nothing.

use std::{
    collections::{HashMap, HashSet},
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use pod2pod_user::sinks::elasticsearch::MAX_BULK_ANSWER_BYTES;
use serde_json::{Value, json};
use support::{
    metrics::Metrics,
    process::{Finished, command, run},
};

use crate::{capture, fed::Fed};

/// Whose metrics.
const ES: &str = "sink=\"es\"";

/// A request as the node got it.
#[derive(Clone, Debug)]
struct Request {
    head: String,
    body: String,
}

impl Request {
    /// Ids, names of indices and documents.
    fn items(&self) -> Vec<(String, String, Value)> {
        let lines: Vec<Value> = self.body.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let pairs = lines.chunks_exact(2);
        assert!(pairs.remainder().is_empty(), "{}", self.body);
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        pairs
            .map(|pair| {
                (text(&pair[0]["create"]["_id"]), text(&pair[0]["create"]["_index"]), pair[1].clone())
            })
            .collect()
    }
}

/// What a node answers: a status and a body.
type Reply = (u16, String);

struct Node {
    address: String,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Node {
    /// A node that answers as `answer` says of the number of the request, from 0, and of the request.
    fn start(answer: impl Fn(usize, &Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let requests = Arc::<Mutex<Vec<Request>>>::default();
        let (told, answer) = (Arc::clone(&requests), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (told, answer) = (Arc::clone(&told), Arc::clone(&answer));
                std::thread::spawn(move || while serve(&stream, &told, &*answer).is_some() {});
            }
        });
        Self { address, requests }
    }

    fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    fn replay(&self, exchanges: usize, settings: &[&str]) -> Finished {
        let url = format!("sinks.es.url=http://{}/", self.address);
        let mut replay = command(["replay", "-", "--set", "sinks.es.type=elasticsearch", "--set", &url]);
        settings.iter().for_each(|setting| {
            replay.args(["--set", setting]);
        });
        run(replay, &capture(exchanges))
    }
}

fn serve(
    stream: &TcpStream,
    told: &Mutex<Vec<Request>>,
    answer: &dyn Fn(usize, &Request) -> Reply,
) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let length =
        head.to_ascii_lowercase().split("content-length: ").nth(1)?.split("\r\n").next()?.parse().ok()?;
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let request = Request { head, body: String::from_utf8(body).unwrap() };
    let number = {
        let mut told = told.lock().unwrap();
        told.push(request.clone());
        told.len() - 1
    };
    let (status, body) = answer(number, &request);
    let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n", body.len());
    { stream }.write_all([head, body].concat().as_bytes()).ok()
}

/// Where a node refuses every request.
pub(crate) fn refusing() -> String {
    Node::start(|_, _| (400, String::new())).address
}

/// Everything was stored.
fn stored() -> Reply {
    (200, json!({ "errors": false }).to_string())
}

#[test]
fn documents_have_times_ids_and_an_index_of_their_day() {
    let node = Node::start(|_, _| stored());
    let finished = node.replay(3, &["sinks.es.pipeline=p"]);
    assert!(finished.stderr.contains("es: delivered 3, lost 0"), "{finished:?}");
    let [request] = &node.requests()[..] else { panic!("{:?}", node.requests()) };
    assert!(
        request.head.starts_with("POST /_bulk?filter_path=errors,") && request.head.contains("&pipeline=p ")
    );
    assert!(
        request.head.to_ascii_lowercase().contains("content-type: application/x-ndjson\r\n"),
        "{}",
        request.head
    );
    let written: Vec<Value> =
        finished.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut ids = HashSet::new();
    for ((id, index, mut document), record) in request.items().into_iter().zip(written) {
        assert!(ids.insert(id));
        let day = record["time"].as_str().unwrap()[..10].replace('-', ".");
        assert_eq!(index, format!("pod2pod-{day}"));
        assert_eq!(document.as_object_mut().unwrap().remove("@timestamp"), Some(record["time"].clone()));
        assert_eq!(document, record);
    }
    assert_eq!(ids.len(), 3);
}

/// What is counted of `records` of which one in twenty was throttled, in so many answers, and so many are `dead`.
fn check_counters(metrics: &Metrics, throttled: u64, (records, dead): (usize, usize)) {
    for (name, label, expected) in [
        ("sink_records_received_total", "", records as u64),
        ("sink_records_dropped_total", "reason=\"rejected\"", dead as u64),
        ("sink_records_duplicate_total", "", 0),
        ("sink_records_retried_total", "", records as u64 / 20),
        ("sink_dead_letters_total", "", dead as u64),
        ("sink_dead_letters_lost_total", "", 0),
        ("sink_attempts_failed_total", "", throttled),
        ("sink_attempts_failed_total", "reason=\"throttled\"", throttled),
        ("sink_queue_bytes", "", 0),
    ] {
        let rows: u64 = metrics.sum_of(name, &[ES, label]);
        assert_eq!(rows, expected, "{name} {label}\n{}", metrics.text());
    }
}

#[test]
fn of_ten_thousand_each_comes_to_what_was_said_of_it() {
    const RECORDS: usize = 10_000;
    let seen = Mutex::new(HashMap::<String, (usize, usize)>::new());
    let throttled = Arc::<AtomicU64>::default();
    let busy = Arc::clone(&throttled);
    let node = Node::start(move |number, request| {
        if number == 0 {
            return (413, String::new());
        }
        let mut is_busy = false;
        let mut seen = seen.lock().unwrap();
        let items = request.items().into_iter().map(|(id, _, document)| {
            let place = seen.len();
            let (place, times) = seen.entry(id.clone()).or_insert((place, 0));
            *times += 1;
            assert!(document["url.path"].as_str().unwrap().starts_with("/item/"));
            // One in twenty is too much the first time, one in a hundred is wrong.
            let (status, kind) = match (*place % 100, *times) {
                (7, _) => (400, "mapper_parsing_exception"),
                (3 | 23 | 43 | 63 | 83, 1) => {
                    is_busy = true;
                    (429, "rejected_execution_exception")
                }
                _ => return json!({ "create": { "_id": id, "status": 201 } }),
            };
            json!({ "create": { "_id": id, "status": status, "error": { "type": kind, "reason": "so" } } })
        });
        // Never in the order in which they came.
        let items: Vec<Value> = items.collect::<Vec<_>>().into_iter().rev().collect();
        busy.fetch_add(u64::from(is_busy), Ordering::SeqCst);
        (200, json!({ "errors": true, "items": items }).to_string())
    });
    let folder = tempfile::tempdir().unwrap();
    let data_dir = format!("data_dir={}", folder.path().display());
    let (dead, delivered) = (RECORDS / 100, RECORDS - RECORDS / 100);
    let url = format!("sinks.es.url=http://{}/", node.address);
    let settings =
        ["sinks.es.type=elasticsearch", &url, &data_dir, "sinks.es.concurrency=1", "output.file=/dev/null"];
    let mut replay = Fed::start(&settings, &capture(RECORDS));
    let metrics = replay.wait_metrics("each came to what was said of it", |metrics| {
        metrics.sum("sink_records_delivered_total", ES) == delivered as u64
            && metrics.sum("sink_records_dropped_total", ES) == dead as u64
    });
    check_counters(&metrics, throttled.load(Ordering::SeqCst), (RECORDS, dead));
    let finished = replay.end();
    let told = format!("es: delivered {delivered}, lost {dead} records (the target refused them)");
    assert!(finished.stderr.contains(&told), "{finished:?}");
    let letters = fs::read_to_string(folder.path().join("dead-letters/es.jsonl")).unwrap();
    assert_eq!(letters.lines().count(), dead);
    for letter in letters.lines() {
        let letter: Value = serde_json::from_str(letter).unwrap();
        assert_eq!(
            (&letter["reason"], &letter["detail"]),
            (&json!("rejected"), &json!("400 mapper_parsing_exception: so"))
        );
    }
    // What was stored, once each: all but the wrong ones.
    let requests = node.requests();
    let mut times = HashMap::<String, usize>::new();
    for (id, ..) in requests.iter().skip(1).flat_map(Request::items) {
        *times.entry(id).or_default() += 1;
    }
    assert_eq!(times.len(), RECORDS);
    assert_eq!(times.values().sum::<usize>(), RECORDS + RECORDS / 20);
    assert_eq!(requests[0].items().len(), requests[1].items().len() * 2);
}

#[test]
fn an_answer_is_read_to_its_limit_and_nonsense_is_tried_again() {
    let padded = |length: usize| {
        let body = json!({ "errors": false, "padding": "" }).to_string();
        body.replace("\"\"", &format!("\"{}\"", "x".repeat(length - body.len())))
    };
    let node = Node::start(move |number, _| match number {
        0 => (200, padded(MAX_BULK_ANSWER_BYTES + 1)),
        1 => (200, "<html>".to_owned()),
        2 => (200, r#"{"errors":true,"items":[]}"#.to_owned()),
        3 => (301, String::new()),
        _ => (200, padded(MAX_BULK_ANSWER_BYTES)),
    });
    let finished = node.replay(2, &[]);
    assert!(finished.stderr.contains("es: delivered 2, lost 0"), "{finished:?}");
    let requests = node.requests();
    assert_eq!(requests.len(), 5);
    assert!(requests.iter().all(|request| request.items() == requests[0].items()), "{requests:?}");
}

#[test]
fn a_template_is_put_there_before_the_first_document_and_once() {
    let node = Node::start(|number, _| match number {
        0 => (503, String::new()),
        _ => stored(),
    });
    let settings = ["sinks.es.install_template=on", "sinks.es.data_stream=on", "sinks.es.index=logs-{kind}"];
    let finished =
        node.replay(2, &[&settings[..], &["sinks.es.batch_records=1", "sinks.es.concurrency=1"]].concat());
    assert!(finished.stderr.contains("es: delivered 2, lost 0"), "{finished:?}");
    let requests = node.requests();
    let lines: Vec<_> = requests
        .iter()
        .map(|request| request.head.split('?').next().unwrap().lines().next().unwrap())
        .collect();
    let put = "PUT /_index_template/logs HTTP/1.1";
    assert_eq!(lines, [put, put, "POST /_bulk", "POST /_bulk"]);
    let template: Value = serde_json::from_str(&requests[1].body).unwrap();
    assert_eq!((&template["index_patterns"], &template["data_stream"]), (&json!(["logs-*"]), &json!({})));
}

#[test]
fn what_is_wrong_with_its_settings_is_told_at_once() {
    let node = Node::start(|_, _| stored());
    let finished = node.replay(
        1,
        &[
            "sinks.es.index=logs-{namespace}",
            "sinks.es.user=a",
            "sinks.es.api_key_file=/nowhere/key",
            "sinks.es.pipeline=a/b",
            "sinks.es.topic=x",
            "sinks.other.type=elasticsearch",
            "sinks.other.index=Upper",
        ],
    );
    assert_eq!((finished.code, node.requests().len()), (Some(64), 0));
    for told in [
        "sinks.es.index: a placeholder of what not every record has needs something instead",
        "sinks.es.user: user and password_file are needed together",
        "sinks.es: /nowhere/key: ",
        "sinks.es.pipeline: \"a/b\" is not allowed",
        "sinks.es.topic is a key of sinks of type kafka, and this one is of type elasticsearch",
        "sinks.other.index: \"Upper\" is not allowed",
        "sinks.other.url: it is missing",
    ] {
        assert_eq!(finished.stderr.matches(told).count(), 1, "{told}: {finished:?}");
    }
}
