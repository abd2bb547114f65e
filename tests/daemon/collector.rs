//! The HTTP sink against a collector: what is posted, what is tried again, what is given up.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
};

use pod2pod_user::{
    OWN_USER_AGENT,
    sinks::http::{DEFAULT_BATCH_RECORDS, MAX_ANSWER_BYTES, MAX_BATCH_BYTES},
};
use support::process::{Finished, command, run};

use crate::capture;

/// One POST as the collector got it.
#[derive(Clone, Debug)]
struct Post {
    head: String,
    body: String,
    connection: usize,
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
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let posts = Arc::<Mutex<Vec<Post>>>::default();
        let told = Arc::clone(&posts);
        std::thread::spawn(move || {
            for (connection, stream) in listener.incoming().flatten().enumerate().skip(closed) {
                let told = Arc::clone(&told);
                std::thread::spawn(
                    move || while take(&stream, connection, status, answer, &told).is_some() {},
                );
            }
        });
        Self { address, posts }
    }

    fn posts(&self) -> Vec<Post> {
        self.posts.lock().unwrap().clone()
    }

    fn replay(&self, exchanges: usize, settings: &[&str]) -> Finished {
        let mut replay = command(["replay", "-", "--set"]);
        replay.arg(format!("output.http.url=http://{}/in?x=1", self.address));
        settings.iter().for_each(|setting| {
            replay.args(["--set", setting]);
        });
        run(replay, &capture(exchanges))
    }
}

fn take(
    stream: &TcpStream,
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
    told.lock().unwrap().push(Post { head, body: String::from_utf8(body).unwrap(), connection });
    let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {answer}\r\n\r\n{}", "x".repeat(answer));
    reader.get_mut().write_all(answer.as_bytes()).ok()
}

#[test]
fn records_are_posted_as_they_are_printed() {
    let collector = Collector::start("204 No Content", 0);
    let finished = collector.replay(3, &["output.http.batch_records=1"]);
    assert_eq!(finished.code, Some(0), "{finished:?}");
    let posts = collector.posts();
    let bodies: String = posts.iter().map(|post| post.body.as_str()).collect();
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
    let lines: Vec<_> = collector.posts().iter().map(|post| post.body.lines().count()).collect();
    assert_eq!(lines, [count - 1, 1], "{finished:?}");
    let collector = Collector::start("200 OK", 2);
    let finished = collector.replay(3000, &["output.http.batch_records=100000"]);
    let posts = collector.posts();
    let longest = finished.stdout.lines().map(str::len).max().unwrap() + 1;
    assert_eq!(posts.iter().map(|post| post.body.lines().count()).sum::<usize>(), 3000);
    assert!(posts[0].body.len() >= MAX_BATCH_BYTES && posts[0].body.len() < MAX_BATCH_BYTES + longest);
}

#[test]
fn what_may_succeed_later_is_tried_again_and_lost_after_as_many_attempts_as_allowed() {
    for attempts in [1, 4] {
        let collector = Collector::start("503 Service Unavailable", 0);
        let finished = collector.replay(1, &[&format!("output.http.attempts={attempts}")]);
        assert_eq!(collector.posts().len(), attempts);
        assert!(
            finished.stderr.contains("seen 1, delivered 1, lost 0; http: delivered 0, lost 1"),
            "{finished:?}"
        );
        assert_eq!(finished.code, Some(1));
    }
}

#[test]
fn without_a_limit_it_is_tried_until_the_end() {
    let collector = Collector::start("503 Service Unavailable", 0);
    let finished = collector.replay(1, &[]);
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
    assert_eq!(posts.iter().map(|post| post.body.lines().count()).sum::<usize>(), 2000);
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
fn what_is_too_much_is_posted_in_parts() {
    let collector = Collector::start("413 Content Too Large", 0);
    let finished = collector.replay(4, &["output.http.concurrency=1"]);
    let lines: Vec<_> = collector.posts().iter().map(|post| post.body.lines().count()).collect();
    assert_eq!(lines, [4, 2, 1, 1, 2, 1, 1]);
    let told = "http: delivered 0, lost 4 records (too large for the target)";
    assert!(finished.stderr.contains(told), "{finished:?}");
}

#[test]
fn an_answer_that_is_too_long_costs_the_connection_only() {
    for (answer, connections) in [(MAX_ANSWER_BYTES, 1), (MAX_ANSWER_BYTES + 1, 3)] {
        let collector = Collector::start("200 OK", answer);
        let finished = collector.replay(3, &["output.http.batch_records=1"]);
        assert!(finished.stderr.contains("http: delivered 3, lost 0"), "{finished:?}");
        let used = collector.posts().iter().map(|post| post.connection).max().unwrap() + 1;
        assert_eq!(used, connections, "{answer}");
    }
}
