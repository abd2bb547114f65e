//! The HTTP sink against a collector: what is posted, what is tried again, what is given up.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read, Write},
    net::TcpListener,
    path::Path,
    process::{Command, Stdio},
    sync::{Arc, Mutex},
};

use flate2::read::GzDecoder;
use nix::sys::signal::Signal;
use rustls::{
    RootCertStore, ServerConfig, ServerConnection, StreamOwned,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::WebPkiClientVerifier,
};
use ruzstd::decoding::StreamingDecoder;

use pod2pod_user::{
    OWN_USER_AGENT,
    sinks::{
        http::MAX_ANSWER_BYTES,
        remote::{DEFAULT_BATCH_RECORDS, MAX_BATCH_BYTES},
    },
};
use support::{
    process::{Finished, Running, command, run},
    server::Nobody,
};

use crate::capture;

/// One after the other, on one connection.
const IN_ORDER: &str = "sinks.http.concurrency=1";

/// One POST as the collector got it.
#[derive(Clone, Debug)]
struct Post {
    head: String,
    body: Vec<u8>,
    connection: usize,
}

impl Post {
    fn text(&self) -> &str {
        str::from_utf8(&self.body).unwrap()
    }
}

/// A collector that answers every POST with `status` and `answer`.
struct Collector {
    address: String,
    posts: Arc<Mutex<Vec<Post>>>,
}

impl Collector {
    fn start(status: &'static str, answer: usize) -> Self {
        Self::start_after(0, status, answer)
    }

    /// Closes so many connections before it answers on one.
    fn start_after(closed: usize, status: &'static str, answer: usize) -> Self {
        Self::begin(closed, status, answer, None)
    }

    /// Speaks TLS with those who have a certificate.
    fn start_tls() -> Self {
        Self::begin(0, "200 OK", 0, Some(Arc::new(server_config())))
    }

    fn begin(closed: usize, status: &'static str, answer: usize, tls: Option<Arc<ServerConfig>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let posts = Arc::<Mutex<Vec<Post>>>::default();
        let told = Arc::clone(&posts);
        std::thread::spawn(move || {
            for (connection, stream) in listener.incoming().flatten().enumerate().skip(closed) {
                let (told, tls) = (Arc::clone(&told), tls.clone());
                std::thread::spawn(move || match tls {
                    None => while take(&stream, connection, status, answer, &told).is_some() {},
                    Some(tls) => {
                        let mut stream = StreamOwned::new(ServerConnection::new(tls).unwrap(), stream);
                        while take(&mut stream, connection, status, answer, &told).is_some() {}
                    }
                });
            }
        });
        Self { address, posts }
    }

    fn posts(&self) -> Vec<Post> {
        self.posts.lock().unwrap().clone()
    }

    fn replay(&self, exchanges: usize, settings: &[&str]) -> Finished {
        run(self.command(settings), &capture(exchanges))
    }

    fn command(&self, settings: &[&str]) -> Command {
        let mut replay = command(["replay", "-", "--set"]);
        replay.arg(format!("sinks.http.url=http://{}/in?x=1", self.address));
        settings.iter().for_each(|setting| {
            replay.args(["--set", setting]);
        });
        replay
    }
}

/// Of TLS: the only authority vouches for itself, on both sides.
fn server_config() -> ServerConfig {
    let chain = vec![CertificateDer::from_pem_file(tls_file("certificate.pem")).unwrap()];
    let key = PrivateKeyDer::from_pem_file(tls_file("key.pem")).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(chain[0].clone()).unwrap();
    let provider = Arc::new(ring::default_provider());
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    config.with_client_cert_verifier(clients.build().unwrap()).with_single_cert(chain, key).unwrap()
}

fn tls_file(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data/tls").join(name).display().to_string()
}

fn take(
    stream: impl Read + Write,
    connection: usize,
    status: &str,
    answer: usize,
    told: &Mutex<Vec<Post>>,
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
    told.lock().unwrap().push(Post { head, body, connection });
    // Somebody else may say how long it is.
    let length =
        if status.contains("Length") { String::new() } else { format!("Content-Length: {answer}\r\n") };
    let answer = format!("HTTP/1.1 {status}\r\n{length}\r\n{}", "x".repeat(answer));
    reader.get_mut().write_all(answer.as_bytes()).ok()
}

#[test]
fn records_are_posted_as_they_are_printed() {
    let collector = Collector::start("204 No Content", 0);
    let finished = collector.replay(3, &["sinks.http.batch_records=1", IN_ORDER]);
    assert_eq!(finished.code, Some(0), "{finished:?}");
    let posts = collector.posts();
    let bodies: String = posts.iter().map(Post::text).collect();
    assert_eq!((posts.len(), bodies), (3, finished.stdout.clone()));
    let head = posts[0].head.to_ascii_lowercase();
    assert!(head.starts_with("post /in?x=1 http/1.1\r\n"), "{head}");
    assert!(head.contains(&format!("user-agent: {OWN_USER_AGENT}\r\n")), "{head}");
    assert!(posts.iter().all(|post| post.connection == 0), "one connection is kept: {posts:?}");
    assert!(finished.stderr.contains("; http: delivered 3, lost 0"), "{finished:?}");
}

#[test]
fn batches_are_as_large_as_allowed() {
    let collector = Collector::start("200 OK", 2);
    let count = DEFAULT_BATCH_RECORDS as usize + 1;
    let finished = collector.replay(count, &[]);
    let lines: Vec<_> = collector.posts().iter().map(|post| post.text().lines().count()).collect();
    assert_eq!(lines, [count - 1, 1], "{finished:?}");
    let collector = Collector::start("200 OK", 2);
    let finished = collector.replay(3000, &["sinks.http.batch_records=100000"]);
    let posts = collector.posts();
    let longest = finished.stdout.lines().map(str::len).max().unwrap() + 1;
    assert_eq!(posts.iter().map(|post| post.text().lines().count()).sum::<usize>(), 3000);
    assert!(posts[0].body.len() >= MAX_BATCH_BYTES && posts[0].body.len() < MAX_BATCH_BYTES + longest);
}

#[test]
fn what_may_succeed_later_is_tried_again_and_lost_after_as_many_attempts_as_allowed() {
    for attempts in [1, 4] {
        let collector = Collector::start("503 Service Unavailable", 0);
        let finished = collector.replay(1, &[&format!("sinks.http.attempts={attempts}")]);
        assert_eq!(collector.posts().len(), attempts);
        assert!(
            finished.stderr.contains("seen 1, delivered 1, lost 0; http: delivered 0, lost 1"),
            "{finished:?}"
        );
        assert_eq!(finished.code, Some(1));
    }
}

#[test]
fn without_a_limit_it_is_tried_until_somebody_asks_for_the_end() {
    let collector = Collector::start("503 Service Unavailable", 0);
    let mut replay = collector.command(&[]);
    replay.stdin(Stdio::piped());
    let mut running = Running::start(replay);
    running.write(&capture(1));
    running.close_stdin();
    running.wait_stderr(|said| said.contains("records wait, since the target does not take them"));
    running.signal(Signal::SIGTERM);
    let finished = running.finish();
    // Four times a second as long as there is time.
    let attempts = collector.posts().len();
    assert!((5..=30).contains(&attempts), "{attempts}: {finished:?}");
    assert!(finished.stderr.contains("http: delivered 0, lost 1 records (no time left)"), "{finished:?}");
}

#[test]
fn a_collector_that_comes_back_gets_everything_once() {
    let closed = 7;
    let collector = Collector::start_after(closed, "200 OK", 0);
    let finished = collector.replay(2000, &[]);
    assert!(finished.stderr.contains("http: delivered 2000, lost 0"), "{finished:?}");
    assert_eq!(finished.code, Some(0));
    let posts = collector.posts();
    assert_eq!(posts.iter().map(|post| post.text().lines().count()).sum::<usize>(), 2000);
    assert!(posts.iter().all(|post| post.connection >= closed), "{posts:?}");
}

#[test]
fn what_is_refused_is_not_tried_again() {
    let collector = Collector::start("400 Bad Request", 0);
    let finished = collector.replay(1, &[]);
    assert_eq!(collector.posts().len(), 1);
    let told = "http: delivered 0, lost 1 records (the target refused them)";
    assert!(finished.stderr.contains(told), "{finished:?}");
    assert_eq!(finished.code, Some(1));
}

#[test]
fn an_answer_whose_body_never_ends_is_one_all_the_same() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let posts = Arc::<Mutex<Vec<Post>>>::default();
    let told = Arc::clone(&posts);
    std::thread::spawn(move || {
        let mut open = Vec::new();
        for (connection, stream) in listener.incoming().flatten().enumerate() {
            // Says that there is one byte more than there is.
            let _ = take(&stream, connection, "200 OK\r\nContent-Length: 1", 0, &told);
            open.push(stream);
        }
    });
    let finished = Collector { address, posts }.replay(2, &["sinks.http.batch_records=1", IN_ORDER]);
    assert!(finished.stderr.contains("http: delivered 2, lost 0"), "{finished:?}");
}

#[test]
fn what_is_too_much_is_posted_in_parts() {
    let collector = Collector::start("413 Content Too Large", 0);
    let finished = collector.replay(4, &["sinks.http.concurrency=1"]);
    let lines: Vec<_> = collector.posts().iter().map(|post| post.text().lines().count()).collect();
    assert_eq!(lines, [4, 2, 1, 1, 2, 1, 1]);
    let told = "http: delivered 0, lost 4 records (too large for the target)";
    assert!(finished.stderr.contains(told), "{finished:?}");
}

#[test]
fn an_answer_that_is_too_long_costs_the_connection_only() {
    for (answer, connections) in [(MAX_ANSWER_BYTES, 1), (MAX_ANSWER_BYTES + 1, 3)] {
        let collector = Collector::start("200 OK", answer);
        let finished = collector.replay(3, &["sinks.http.batch_records=1", IN_ORDER]);
        assert!(finished.stderr.contains("http: delivered 3, lost 0"), "{finished:?}");
        let used = collector.posts().iter().map(|post| post.connection).max().unwrap() + 1;
        assert_eq!(used, connections, "{answer}");
    }
}

#[test]
fn over_tls_compressed_with_a_secret_from_a_file() {
    over_tls_compressed("gzip", |body| Box::new(GzDecoder::new(body)));
    over_tls_compressed("zstd", |body| Box::new(StreamingDecoder::new(body).unwrap()));
}

fn over_tls_compressed(coding: &str, decoder: fn(&[u8]) -> Box<dyn Read + '_>) {
    let collector = Collector::start_tls();
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("token");
    fs::write(&secret, "Bearer hunter2\n").unwrap();
    let port = collector.address.rsplit(':').next().unwrap();
    let settings = [
        format!("url=https://localhost:{port}/in"),
        format!("tls.ca={}", tls_file("certificate.pem")),
        format!("tls.certificate={}", tls_file("certificate.pem")),
        format!("tls.key={}", tls_file("key.pem")),
        format!("header_files=Authorization: {}", secret.display()),
        "headers=X-Tenant: shop".to_owned(),
        "method=PUT".to_owned(),
        "body=array".to_owned(),
        format!("compression={coding}"),
    ];
    let coding = format!("\r\ncontent-encoding: {coding}\r\n");
    let mut replay = command(["replay", "-", "--log-level", "debug"]);
    for setting in &settings {
        replay.args(["--set", &format!("sinks.http.{setting}")]);
    }
    let finished = run(replay, &capture(700));
    assert!(finished.stderr.contains("http: delivered 700, lost 0"), "{finished:?}");
    assert!(!finished.stderr.contains("hunter2"), "{finished:?}");
    let posts = collector.posts();
    let mut lines = String::new();
    for post in &posts {
        let head = post.head.to_ascii_lowercase();
        for part in [
            "put /in http/1.1\r\n",
            "\r\nauthorization: bearer hunter2\r\n",
            "\r\nx-tenant: shop\r\n",
            "\r\ncontent-type: application/json\r\n",
            &coding,
        ] {
            assert!(head.contains(part), "{part:?}: {head}");
        }
        let mut body = String::new();
        decoder(&post.body).read_to_string(&mut body).unwrap();
        let records: Vec<serde_json::Value> = serde_json::from_str(&body).unwrap();
        records.iter().for_each(|record| lines += &format!("{record}\n"));
    }
    // Two batches, in whatever order.
    let sorted = |text: &str| {
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        lines.sort_unstable();
        lines
    };
    assert_eq!((posts.len(), sorted(&lines)), (2, sorted(&finished.stdout)));
}

#[test]
fn whose_certificate_is_another_s_gets_nothing() {
    let collector = Collector::start_tls();
    let mut replay = command(["replay", "-"]);
    for setting in [
        format!("url=https://{}/", collector.address),
        format!("tls.ca={}", tls_file("certificate.pem")),
        "tls.server_name=collector.example".to_owned(),
        "attempts=1".to_owned(),
    ] {
        replay.args(["--set", &format!("sinks.http.{setting}")]);
    }
    let finished = run(replay, &capture(1));
    assert!(finished.stderr.contains("reason=\"tls\""), "{finished:?}");
    assert!(
        finished.stderr.contains("http: delivered 0, lost 1 records (the target failed)"),
        "{finished:?}"
    );
    assert!(collector.posts().is_empty());
}

#[test]
fn what_is_wrong_with_its_files_is_told_at_once() {
    let mut replay = command(["replay", "-"]);
    for setting in [
        "url=https://collector/".to_owned(),
        "tls.ca=/nowhere/ca.pem".to_owned(),
        format!("tls.key={}", tls_file("key.pem")),
        "header_files=Authorization: /nowhere/token".to_owned(),
        "headers=Host: elsewhere".to_owned(),
    ] {
        replay.args(["--set", &format!("sinks.http.{setting}")]);
    }
    let finished = run(replay, &capture(1));
    assert_eq!(finished.code, Some(64), "{finished:?}");
    for part in [
        "sinks.http: /nowhere/ca.pem: ",
        "sinks.http: /nowhere/token: ",
        "sinks.http.tls: certificate and key are needed together",
        "sinks.http.headers: \"Host: ***\" is not allowed",
    ] {
        assert_eq!(finished.stderr.matches(part).count(), 1, "{part}: {finished:?}");
    }
}

/// `pod2pod dead-letters` over the letters in `folder`.
fn dead_letters(folder: &Path, more: &[&str]) -> Finished {
    let mut letters = command(["dead-letters", "--set", &format!("data_dir={}", folder.display())]);
    letters.args(more);
    run(letters, &[])
}

#[test]
fn what_is_refused_is_kept_with_its_reason_and_sent_again() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = format!("data_dir={}", folder.path().display());
    let refusing = Collector::start("400 Bad Request", 0);
    let finished = refusing.replay(3, &[&data_dir]);
    assert!(finished.stderr.contains("http: delivered 0, lost 3"), "{finished:?}");
    let shown = dead_letters(folder.path(), &[]);
    let letters: Vec<serde_json::Value> =
        shown.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let items: String = letters.iter().map(|letter| letter["item"].as_str().unwrap()).collect();
    assert_eq!((shown.code, items), (Some(0), finished.stdout.clone()));
    for letter in &letters {
        assert_eq!((&letter["sink"], &letter["reason"]), (&"http".into(), &"rejected".into()));
        assert_eq!(letter["detail"], "400 Bad Request");
    }
    let send = |collector: &Collector| {
        let url = format!("sinks.http.url=http://{}/again", collector.address);
        dead_letters(folder.path(), &["--send", "--set", &url])
    };
    let again = send(&refusing);
    assert!(again.stderr.contains("0 sent, 3 refused again, 0 left"), "{again:?}");
    assert_eq!(dead_letters(folder.path(), &[]).stdout.lines().count(), 3);
    let failed = send(&Collector::start("503 Service Unavailable", 0));
    assert!(failed.stderr.contains("0 sent, 0 refused again, 3 left"), "{failed:?}");
    assert_eq!((failed.code, dead_letters(folder.path(), &[]).stdout.lines().count()), (Some(1), 3));
    let taking = Collector::start("200 OK", 0);
    let sent = send(&taking);
    assert!(sent.stderr.contains("3 sent, 0 refused again, 0 left") && sent.code == Some(0), "{sent:?}");
    assert_eq!(taking.posts().iter().map(Post::text).collect::<String>(), finished.stdout);
    assert_eq!(dead_letters(folder.path(), &[]).stdout, "");
}

#[test]
fn dead_letters_need_to_know_where_they_are_and_where_to() {
    let nowhere = run(command(["dead-letters"]), &[]);
    assert!(nowhere.code == Some(64) && nowhere.stderr.contains("data_dir: "), "{nowhere:?}");
    let folder = tempfile::tempdir().unwrap();
    let sent = dead_letters(folder.path(), &["--send"]);
    assert!(sent.code == Some(64) && sent.stderr.contains("sinks: "), "{sent:?}");
    let none = dead_letters(folder.path(), &[]);
    assert_eq!((none.code, none.stdout.as_str()), (Some(0), ""));
}

#[test]
fn each_sink_is_given_what_its_filter_and_fields_say_and_a_dead_one_delays_none() {
    let [all, some, none] = [(); 3].map(|()| Collector::start("200 OK", 0));
    let dead = Nobody::new();
    let nobody = dead.address;
    let mut replay = command(["replay", "-"]);
    for setting in [
        format!("sinks.all=http://{}/", all.address),
        format!("sinks.some=http://{}/", some.address),
        "sinks.some.filter=path=/item/*7 or path=/item/1".to_owned(),
        "sinks.some.fields=url.path, http.response.*".to_owned(),
        "sinks.some.without_fields=*.size".to_owned(),
        format!("sinks.none=http://{}/", none.address),
        "sinks.none.filter=status>=500".to_owned(),
        format!("sinks.dead=http://{nobody}/"),
        "sinks.dead.attempts=2".to_owned(),
    ] {
        replay.args(["--set", &setting]);
    }
    let finished = run(replay, &capture(20));
    let of = |collector: &Collector| collector.posts().iter().map(Post::text).collect::<String>();
    assert_eq!(of(&all), finished.stdout);
    let item = |number| format!("{{\"url.path\":\"/item/{number}\",\"http.response.status_code\":200}}\n");
    assert_eq!(of(&some), [item(1), item(7), item(17)].concat());
    assert_eq!((of(&none), none.posts().len()), (String::new(), 0));
    assert!(
        finished.stderr.contains(
            "; all: delivered 20, lost 0; some: delivered 3, lost 0; none: delivered 0, lost 0; dead: delivered 0, lost 20"
        ),
        "{finished:?}"
    );
}
