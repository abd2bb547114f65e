//! The whole pipeline where ends have names: what becomes of connections that are refused by the names of their ends, and of what pods
//! ask for by annotations.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use pod2pod_user::{
    capture::KernelInstant,
    config::Config,
    delivery::Overflow,
    enrich::naming::{Socket, Who},
    filter::{
        Selection,
        selection::{Ends, ObjectPattern, name},
    },
    kubernetes::{
        addresses::Found,
        cgroup::PodUid,
        identity::{Identity, Pod},
    },
    named::{
        self, Names, Rules,
        wishes::{BODY_BYTES, HEADERS},
    },
    pipeline::{self, Pipeline, Stats},
    reassembly::{Steering, Wanted},
    record::Extra,
    shutdown::Shutdown,
    sinks::OwnConnections,
};
use serde_json::Value;
use support::conversation::Conversation;

/// A run that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(30);
/// The cgroup of the observed socket.
const CGROUP: u64 = 7;

/// The observed socket is in the pod `cart` of the namespace `shop`; all others are outside.
#[derive(Clone, Debug, Default)]
struct Fake {
    annotations: Vec<(&'static str, &'static str)>,
    /// Cart is known only from this moment on.
    known: Duration,
    /// By its address: numbers of cgroups say nothing.
    by_address: bool,
}

impl Fake {
    fn with(annotations: &[(&'static str, &'static str)]) -> Self {
        Self { annotations: annotations.to_vec(), ..Self::default() }
    }

    fn cart(&self) -> Identity {
        let annotations = self.annotations.iter();
        let pod = Pod {
            namespace: "shop".into(),
            name: "cart".into(),
            uid: PodUid::parse("0b1c2d3e-4f50-4172-8394-a5b6c7d8e9fa").unwrap(),
            node: None,
            zone: None,
            workload: None,
            labels: Box::default(),
            annotations: annotations.map(|(key, value)| ((*key).into(), (*value).into())).collect(),
        };
        Identity { pod: Some(Arc::new(pod)), ..Identity::default() }
    }
}

impl Who for Fake {
    fn version(&self) -> u64 {
        0
    }

    fn socket(&mut self, cgroup_id: u64, _called: Option<SocketAddr>, now: Duration) -> Socket {
        match cgroup_id {
            CGROUP if self.by_address => Socket::Unknown,
            CGROUP if now < self.known => Socket::Later(self.known),
            CGROUP => Socket::Of(Box::new(self.cart())),
            _ => Socket::Unknown,
        }
    }

    fn address(&mut self, address: SocketAddr, _at: Duration, _now: Duration) -> Found<Identity> {
        // Where the conversation's server is.
        if self.by_address && address.port() == 80 { Found::Held(self.cart()) } else { Found::Nobody }
    }

    fn is_outside(&self, _address: IpAddr) -> bool {
        true
    }

    fn shows(&self, _what: Extra, _key: &str) -> bool {
        false
    }
}

/// What came of a conversation.
struct Told {
    records: Vec<Value>,
    /// What the kernel side was told, with the number of the segment behind which it was.
    steered: Vec<(usize, Steering)>,
    names: named::Stats,
    refused_segments: u64,
}

/// Takes a conversation through all stages of a live capture.
fn tell(config: Config, who: &Fake, conversation: &Conversation) -> Told {
    tell_changed(config, who, conversation, None)
}

/// The same, with another selection from before the segment of that number on.
fn tell_changed(
    mut config: Config,
    who: &Fake,
    conversation: &Conversation,
    change: Option<(usize, &Selection)>,
) -> Told {
    let folder = tempfile::tempdir().unwrap();
    let records = folder.path().join("records");
    config.output.file = Some(records.clone());
    let shutdown = Shutdown::without_signals().unwrap();
    let own = OwnConnections::default().into();
    let sinks = pipeline::open_sinks(&config, Overflow::Wait, &own, &Default::default(), &shutdown).unwrap();
    let mut pipeline = Pipeline::live(&config, sinks.clone(), None);
    pipeline.name_ends(&config, Names::new(config.naming(), Box::new(who.clone())));
    let (mut now, mut steered) = (KernelInstant::default(), Vec::new());
    for (number, mut segment) in conversation.segments().into_iter().enumerate() {
        segment.cgroup_id = CGROUP;
        now = segment.time;
        if let Some((_, selection)) = change.filter(|(at, _)| *at == number) {
            pipeline.refilter(&config.filter, selection);
        }
        if pipeline.is_due(now) {
            pipeline.expire(now);
        }
        pipeline.push(&segment.borrow());
        pipeline.steer(&mut |steering| steered.push((number, *steering)));
    }
    pipeline.finish(now);
    let Stats { names, reassembly, .. } = pipeline.stats();
    let refused_segments = reassembly.refused_segments;
    drop(pipeline);
    pipeline::finish_sinks(sinks, Instant::now() + PATIENCE);
    let text = fs::read_to_string(records).unwrap();
    let records = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    Told { records, steered, names, refused_segments }
}

const REQUEST: &str = "GET /a HTTP/1.1\r\nHost: h\r\n\r\n";
const RESPONSE: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[test]
fn a_connection_whose_exchange_is_refused_by_a_name_is_left_alone_from_there_on() {
    let conversation = (0..4)
        .fold(Conversation::new(), |said, _| said.client(REQUEST).server(RESPONSE))
        .close()
        .seen_by_server();
    let namespaces = |text: &str| Ends { namespaces: vec![name(text).unwrap()], ..Ends::default() };
    let pods = |text: &str| Ends { pods: vec![ObjectPattern::parse(text).unwrap()], ..Ends::default() };
    for (selection, is_wanted) in [
        (Selection::default(), true),
        (Selection { only: namespaces("shop"), ..Selection::default() }, true),
        (Selection { only: namespaces("bank"), ..Selection::default() }, false),
        (Selection { ignore: namespaces("shop"), ..Selection::default() }, false),
        (Selection { only: pods("shop/cart"), ..Selection::default() }, true),
        (Selection { ignore: pods("cart"), ..Selection::default() }, false),
    ] {
        let mut config = Config::default();
        config.names.selection = selection.clone();
        let told = tell(config, &Fake::default(), &conversation);
        let left: Vec<usize> = told
            .steered
            .iter()
            .filter(|(_, steering)| steering.wanted == Wanted::Nothing)
            .map(|(number, _)| *number)
            .collect();
        if is_wanted {
            assert_eq!((told.records.len(), told.names.refused, told.refused_segments), (4, 0, 0));
            assert!(left.is_empty(), "{selection:?}: {left:?}");
            continue;
        }
        // The kernel side is told once, with the segment that completes the first exchange, and what it sends before it hears of
        // it is passed over.
        assert_eq!((told.records.len(), told.names.refused), (0, 1), "{selection:?}");
        assert_eq!(left.len(), 1, "{selection:?}: {left:?}");
        let segments = conversation.segments();
        let answer = segments.iter().position(|segment| segment.payload == RESPONSE.as_bytes()).unwrap();
        assert_eq!(left[0], answer, "{selection:?}");
        assert!(told.refused_segments as usize >= 6, "{selection:?}: {}", told.refused_segments);
    }
}

#[test]
fn a_connection_whose_exchange_waited_for_the_name_that_refuses_it_is_left_alone_then() {
    let conversation = (0..4)
        .fold(Conversation::new(), |said, _| said.client(REQUEST).server(RESPONSE))
        .close()
        .seen_by_server();
    let mut config = Config::default();
    config.names.selection.ignore.namespaces = vec![name("shop").unwrap()];
    let segments = conversation.segments();
    let answers: Vec<usize> =
        (0..segments.len()).filter(|number| segments[*number].payload == RESPONSE.as_bytes()).collect();
    // Two exchanges wait when the name comes, with the segment behind the second.
    let known = answers[1] + 1;
    let who = Fake { known: Duration::from_nanos(segments[known].time.as_nanos()), ..Fake::default() };
    let told = tell(config, &who, &conversation);
    assert_eq!((told.records.len(), told.names.waited, told.names.refused), (0, 2, 2));
    let left = told.steered.iter().filter(|(_, steering)| steering.wanted == Wanted::Nothing);
    assert_eq!(left.map(|(number, _)| *number).collect::<Vec<_>>(), [known]);
}

/// What pods may ask for, and which labels are known, is as it was.
#[test]
fn a_selection_that_is_changed_holds_for_connections_that_are_there() {
    let conversation = (0..4)
        .fold(Conversation::new(), |said, _| said.client(REQUEST).server(RESPONSE))
        .close()
        .seen_by_server();
    let segments = conversation.segments();
    let answers: Vec<usize> =
        (0..segments.len()).filter(|number| segments[*number].payload == RESPONSE.as_bytes()).collect();
    let of = |text: &str| Ends { namespaces: vec![name(text).unwrap()], ..Ends::default() };
    let (wanted, refused) = (
        Selection { only: of("shop"), ..Selection::default() },
        Selection { ignore: of("shop"), ..Selection::default() },
    );
    let mut config = Config::default();
    for (before, after, expected) in [(&wanted, &refused, 2), (&refused, &wanted, 2), (&wanted, &wanted, 4)] {
        config.names.selection = before.clone();
        let change = Some((answers[1] + 1, after));
        let told = tell_changed(config.clone(), &Fake::default(), &conversation, change);
        assert_eq!(told.records.len(), expected, "{before:?} then {after:?}");
    }
    let obeying = Selection { obeys_annotation: true, ..Selection::default() };
    config.names.selection = obeying.clone();
    let who = Fake { annotations: vec![("pod2pod.io/observe", "false")], ..Fake::default() };
    let told = tell_changed(config, &who, &conversation, Some((0, &Selection::default())));
    assert_eq!(told.records.len(), 0);
}

#[test]
fn a_connection_whose_ends_are_not_known_yet_is_not_left_alone_for_it() {
    let conversation = (0..4)
        .fold(Conversation::new(), |said, _| said.client(REQUEST).server(RESPONSE))
        .close()
        .seen_by_server();
    let segments = conversation.segments();
    let answers: Vec<usize> =
        (0..segments.len()).filter(|number| segments[*number].payload == RESPONSE.as_bytes()).collect();
    let known = Duration::from_nanos(segments[answers[1] + 1].time.as_nanos());
    let who = Fake { known, ..Fake::default() };
    // No record may wait: the first two leave without the name that would have them written.
    let mut config = Config::default();
    config.names.max_waiting = 0;
    config.names.selection.only.namespaces = vec![name("shop").unwrap()];
    let told = tell(config.clone(), &who, &conversation);
    let is_left = |told: &Told| told.steered.iter().any(|(_, steering)| steering.wanted == Wanted::Nothing);
    assert_eq!((told.names.refused, told.names.refused_unknown, told.records.len()), (2, 2, 2));
    assert!(!is_left(&told));
    // Whoever the other end is, one that is known is refused.
    config.names.selection = Selection { ignore: config.names.selection.only, ..Selection::default() };
    let told = tell(config, &Fake { by_address: true, ..Fake::default() }, &conversation);
    assert_eq!((told.names.refused, told.names.refused_unknown, told.records.len()), (1, 0, 0));
    assert!(is_left(&told));
}

/// A request and its response with headers and bodies; `coding` is the body's.
fn exchange() -> Conversation {
    let request = "POST /a HTTP/1.1\r\nHost: h\r\nUser-Agent: u\r\nX-A: 1\r\nX-B: 2\r\nX-C: 3\r\n\
                   Authorization: Bearer s3cret\r\nCookie: s3cret\r\nContent-Length: 10\r\n\r\nrequestly.";
    let response = "HTTP/1.1 200 OK\r\nServer: s\r\nX-B: 4\r\nSet-Cookie: s3cret\r\nContent-Length: 10\r\n\r\nresponding";
    Conversation::new().client(request).server(response).close().seen_by_server()
}

/// What any pod's records have: X-A and Authorization of requests, Server of responses, four bytes of bodies. Pods may ask for X-B
/// and for eight bytes too.
fn config(allows: bool) -> Config {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let mut config = Config::default();
    (config.http.request_headers, config.http.response_headers) =
        (names(&["x-a", "authorization"]), names(&["server"]));
    (config.http.request_body_prefix, config.http.response_body_prefix) = (4, 4);
    config.enrich.content_bytes = 4;
    config.names.rules = Rules {
        headers: allows,
        body_bytes: allows,
        more_headers: names(&["x-b"]),
        more_body_bytes: 8,
        ..Rules::default()
    };
    config
}

/// Names of headers, and bodies, of request and response.
fn contents(record: &Value) -> String {
    let headers = |of: &str| {
        let prefix = format!("http.{of}.header.");
        let keys = record.as_object().unwrap().iter().filter_map(|(key, value)| {
            Some((key.strip_prefix(&prefix)?, value[0].as_str().unwrap_or_default()))
        });
        // Host is in every record.
        keys.filter(|(name, _)| *name != "host")
            .map(|(name, value)| format!("{name}={value}"))
            .collect::<Vec<_>>()
            .join(",")
    };
    let body = |of: &str| record[format!("http.{of}.body.content")].as_str().unwrap_or("-").to_owned();
    format!("{} {} | {} {}", headers("request"), body("request"), headers("response"), body("response"))
}

#[test]
fn a_pod_gets_what_it_asks_for_within_what_it_may() {
    let own = "authorization=[REDACTED],x-a=1 requ | server=s resp";
    let all = "authorization=[REDACTED],x-a=1,x-b=2";
    for (annotations, expected, unreadable, limited) in [
        (&[][..], own.to_owned(), 0, 0),
        // Less.
        (&[(HEADERS, "none")], " requ |  resp".to_owned(), 0, 0),
        (&[(HEADERS, "x-a")], "x-a=1 requ |  resp".to_owned(), 0, 0),
        (&[(BODY_BYTES, "0")], "authorization=[REDACTED],x-a=1 - | server=s -".to_owned(), 0, 0),
        (&[(BODY_BYTES, "2"), (HEADERS, "none")], " re |  re".to_owned(), 0, 0),
        // More, up to what it may.
        (&[(HEADERS, "X-B, Server")], "x-b=2 requ | server=s,x-b=4 resp".to_owned(), 0, 0),
        (&[(HEADERS, "all-allowed")], format!("{all} requ | server=s,x-b=4 resp"), 0, 0),
        (&[(BODY_BYTES, "6")], "authorization=[REDACTED],x-a=1 reques | server=s respon".to_owned(), 0, 0),
        (
            &[(BODY_BYTES, "8")],
            "authorization=[REDACTED],x-a=1 requestl | server=s respondi".to_owned(),
            0,
            0,
        ),
        // More than that.
        (
            &[(BODY_BYTES, "64KiB")],
            "authorization=[REDACTED],x-a=1 requestl | server=s respondi".to_owned(),
            0,
            1,
        ),
        (&[(HEADERS, "x-b,x-c")], "x-b=2 requ | x-b=4 resp".to_owned(), 0, 1),
        (&[(HEADERS, "cookie,set-cookie")], " requ |  resp".to_owned(), 0, 1),
        (&[(HEADERS, "authorization")], "authorization=[REDACTED] requ |  resp".to_owned(), 0, 0),
        // What cannot be read.
        (&[(HEADERS, "x a"), (BODY_BYTES, "many")], own.to_owned(), 2, 0),
    ] {
        for by_address in [false, true] {
            let who = Fake { by_address, ..Fake::with(annotations) };
            let told = tell(config(true), &who, &exchange());
            let [record] = &told.records[..] else { panic!("{:?}", told.records) };
            assert_eq!(contents(record), expected, "{annotations:?}");
            assert_eq!(record["user_agent.original"], "u");
            assert_eq!(
                (told.names.wishes_unreadable, told.names.wishes_limited),
                (unreadable, limited),
                "{annotations:?}"
            );
            assert!(!record.to_string().contains("s3cret"), "{record}");
        }
        // Nothing is allowed.
        let told = tell(config(false), &Fake::with(annotations), &exchange());
        assert_eq!(contents(&told.records[0]), own, "{annotations:?}");
        assert_eq!((told.names.wishes_unreadable, told.names.wishes_limited), (0, 0));
    }
}

#[test]
fn what_a_pod_asks_for_holds_for_what_is_observed_at_its_sockets() {
    // Cart is the client: it gets what it asks for in the view of its socket.
    let wish = Fake::with(&[(HEADERS, "none"), (BODY_BYTES, "0")]);
    let told = tell(config(true), &wish, &exchange().seen_by_client());
    assert_eq!(contents(&told.records[0]), " - |  -");
    // At the peer's socket, which is somebody else's, cart is known by its address only.
    let own = "authorization=[REDACTED],x-a=1 requ | server=s resp";
    let wish = Fake { by_address: true, ..wish };
    let told = tell(config(true), &wish, &exchange().seen_by_client());
    assert_eq!(told.records[0]["server.k8s.pod.name"], "cart");
    assert_eq!(contents(&told.records[0]), own);
}

#[test]
fn a_pod_that_is_known_late_gets_less_and_of_what_was_not_captured_nothing() {
    let known = exchange().segments().last().unwrap().time.as_nanos() + 1_000_000_000;
    for (annotations, expected) in [
        (&[(HEADERS, "none"), (BODY_BYTES, "2")][..], " re |  re"),
        (
            &[(HEADERS, "all-allowed"), (BODY_BYTES, "8")],
            "authorization=[REDACTED],x-a=1,x-b=2 requ | server=s,x-b=4 resp",
        ),
    ] {
        let who = Fake { known: Duration::from_nanos(known), ..Fake::with(annotations) };
        let conversation = exchange().pause(Duration::from_secs(3)).client_keep_alive();
        let told = tell(config(true), &who, &conversation);
        assert_eq!(told.records[0]["server.k8s.pod.name"], "cart", "{:?}", told.names);
        assert_eq!(contents(&told.records[0]), expected, "{annotations:?}");
    }
}

#[test]
fn a_connection_keeps_what_its_pod_asks_for_while_it_rests() {
    let request = "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nrequestly.";
    let response = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nresponding";
    let mut config = config(true);
    // There is room for no flow: each is given up with what is open of it, and wakes with the next chunk.
    config.http.max_busy = 0;
    let said = (0..3).fold(Conversation::new(), |said, _| said.client(request).server(response));
    let told = tell(config, &Fake::with(&[(BODY_BYTES, "8")]), &said.close().seen_by_server());
    let bodies: Vec<String> = told.records.iter().map(contents).collect();
    assert_eq!(bodies, [" requestl |  -", " - |  respondi"].repeat(3));
}

#[test]
fn a_coded_body_is_decoded_up_to_what_is_asked_for() {
    use std::io::Write as _;
    let text = "0123456789".repeat(10);
    let mut coder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
    coder.write_all(text.as_bytes()).unwrap();
    let coded = coder.finish().unwrap();
    let mut response =
        format!("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n", coded.len())
            .into_bytes();
    response.extend(&coded);
    let conversation = Conversation::new().client(REQUEST).server(response).close().seen_by_server();
    // What is captured is as sent: of 60 bytes the coding takes 15.
    for (asked, expected) in [("20", 20), ("10", 10), ("64KiB", 45)] {
        let mut config = config(true);
        config.names.rules.more_body_bytes = 60;
        let told = tell(config, &Fake::with(&[(BODY_BYTES, asked)]), &conversation);
        assert_eq!(told.records[0]["http.response.body.content"], text[..expected], "{asked}");
    }
}
