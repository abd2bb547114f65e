//! `pod2pod top`: agents that are asked, what is told of them, every answer that is none, and the terminal, which is as it was.

use std::{
    fmt::Write as _,
    io::{BufRead as _, BufReader, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Instant,
};

use nix::sys::signal::Signal;
use pod2pod_user::top::{MAX_PAGE_BYTES, MAX_WAIT};
use support::{
    process::{Finished, Running, binary, command, run},
    server::Nobody,
};

use crate::endpoints::Server;

/// Begins and ends a screen of its own.
const OPENS: &str = "\x1b[?1049h\x1b[?25l";
const CLOSES: &str = "\x1b[?25h\x1b[?1049l";

/// Serves pages, the n-th as it is made of n from 0; where.
fn agent(page: impl Fn(u32) -> String + Send + 'static) -> String {
    answering(move |number, stream| {
        let page = page(number);
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", page.len());
        // Whoever asked may have gone.
        let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(page.as_bytes()));
    })
}

/// Answers each request; where.
fn answering(answer: impl Fn(u32, &mut TcpStream) + Send + 'static) -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for (number, stream) in (0..).zip(listener.incoming()) {
            let mut stream = stream.unwrap();
            let lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let head: Vec<String> = lines.map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
            // Who was interrupted has asked for nothing.
            let Some(first) = head.first() else { continue };
            assert!(first.starts_with("GET /metrics HTTP/1.1"), "{head:?}");
            assert!(head.iter().any(|line| line.starts_with("user-agent: pod2pod/")), "{head:?}");
            answer(number, &mut stream);
        }
    });
    address.to_string()
}

/// A view of a pair of the shop, so often, of which one in ten failed: half took 4 ms, the rest but one in a hundred 20 ms.
fn view(page: &mut String, client: &str, server: &str, reporter: &str, requests: u32) {
    let labels = format!(
        "client_namespace=\"shop\",client_workload=\"{client}\",reporter=\"{reporter}\",\
         server_namespace=\"shop\",server_workload=\"{server}\""
    );
    let mut row = |what: &str, more: &str, value: u32| {
        let _ = writeln!(page, "pod2pod_workload_{what}{{{labels}{more}}} {value}");
    };
    row("errors_total", "", requests / 10);
    for (bound, count) in [("0.005", requests / 2), ("0.025", requests - requests / 100), ("+Inf", requests)]
    {
        row("request_duration_seconds_bucket", &format!(",le=\"{bound}\""), count);
    }
    row("requests_total", "", requests);
}

/// The n-th page: every two seconds 400 requests of web, which its own end saw too and a quarter of whose time was the network's,
/// and 40 of cart, which only its own end saw.
fn page(number: u32) -> String {
    let mut page = beginning(f64::from(number) * 2.0, 50);
    for reporter in ["client", "server"] {
        view(&mut page, "web", "cart", reporter, 400 * number + 7);
    }
    view(&mut page, "cart", "db", "client", 40 * number);
    let labels = "client_namespace=\"shop\",client_workload=\"web\",server_namespace=\"shop\",server_workload=\"cart\"";
    for (what, value) in
        [("requests", 400 * number), ("client_seconds", 4 * number), ("network_seconds", number)]
    {
        let _ = writeln!(page, "pod2pod_workload_joined_{what}_total{{{labels}}} {value}");
    }
    page
}

fn beginning(counted: f64, started: u32) -> String {
    format!(
        "# HELP pod2pod_build_info Which.\npod2pod_build_info{{version=\"0.1.0\"}} 1\npod2pod_workload_pairs_overflowed_total 0\n\
         pod2pod_metrics_counted_timestamp_seconds {}\nprocess_start_time_seconds {started}\n",
        1000.0 + counted
    )
}

fn top(arguments: &[&str]) -> Finished {
    run(command([&["top", "--interval", "1s"], arguments].concat()), b"")
}

fn words(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn one_table_is_printed_after_one_interval() {
    let told = |arguments: &[&str]| {
        let url = agent(page);
        let finished = top(&[&["--url", &url], arguments].concat());
        assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""), "{finished:?}");
        finished.stdout.lines().map(words).collect::<Vec<_>>()
    };
    let title = "CLIENT SERVER VIEW REQ/S ERRORS P50 P95 P99 NETWORK";
    let web = "shop/web shop/cart server 200.0 10.0 % 5.0 ms 23.4 ms 25.0 ms 25.0 %";
    let cart = "shop/cart shop/db client 20.0 10.0 % 5.0 ms 23.0 ms 24.6 ms -";
    // Without a terminal it is the same as with --once.
    for (arguments, expected) in [
        (&[][..], vec![title, web, cart]),
        (&["--once"], vec![title, web, cart]),
        (&["--sort", "client"], vec![title, cart, web]),
        (&["--filter", "server=db"], vec![title, cart]),
        (&["--filter", "rate>100 namespace=shop"], vec![title, web]),
        (&["--filter", "nobody"], vec![title]),
    ] {
        assert_eq!(told(arguments), expected, "{arguments:?}");
    }
}

#[test]
fn json_has_what_the_table_has() {
    let url = agent(page);
    let finished = top(&["--url", &url, "--json", "--sort", "rate"]);
    assert_eq!((finished.code, finished.stdout.lines().count()), (Some(0), 1), "{finished:?}");
    let told: serde_json::Value = serde_json::from_str(&finished.stdout).unwrap();
    let web = &told["pairs"][0];
    assert_eq!(web["reporter"], "server");
    for (key, value) in [
        ("requests", 400.0),
        ("requests_per_second", 200.0),
        ("errors", 40.0),
        ("joined_requests", 400.0),
        ("network_share", 0.25),
    ] {
        assert_eq!(web[key], value, "{key} in {web}");
    }
    assert!(told["pairs"][1].get("network_share").is_none(), "{told}");
    assert_eq!((&told["interval"], &told["notes"]), (&1.0.into(), &serde_json::json!([])));
}

/// Clients on one node and servers on another: each exchange is on two pages.
#[test]
fn agents_are_added_up_and_nothing_is_counted_twice() {
    let of = |reporter: &'static str, factor: u32| {
        agent(move |number| {
            let mut page = beginning(f64::from(number), 50);
            view(&mut page, "web", "cart", reporter, factor * number);
            page
        })
    };
    let (client, server, other) = (of("client", 300), of("server", 100), of("server", 200));
    let finished = top(&["--url", &client, "--url", &server, "--url", &other]);
    assert_eq!(finished.code, Some(0), "{finished:?}");
    let rows: Vec<String> = finished.stdout.lines().skip(1).map(words).collect();
    assert_eq!(rows.len(), 1, "{finished:?}");
    assert!(rows[0].starts_with("shop/web shop/cart server 300.0 "), "{rows:?}");
    // The half that is asked is not the whole.
    let finished = top(&["--url", &of("client", 300), "--url", &of("server", 100)]);
    assert!(words(&finished.stdout).contains("shop/web shop/cart client 300.0 "), "{finished:?}");
}

#[test]
fn an_agent_that_cannot_be_asked_is_said() {
    let nobody = Nobody::new();
    let status = |line: &'static str| {
        answering(move |_, stream| {
            let _ = stream.write_all(format!("HTTP/1.1 {line}\r\nContent-Length: 0\r\n\r\n").as_bytes());
        })
    };
    let replay = Server::start();
    for (url, expected) in [
        (
            nobody.address.to_string(),
            "no agent answers (Connection refused (os error 111)): is it running, and is metrics.listen this address?",
        ),
        (status("404 Not Found"), "the answer is 404: is this the path of an agent's metrics?"),
        (agent(|_| "<html></html>".to_owned()), "what answers there is no pod2pod agent"),
        (answering(|_, _| ()), "the answer broke off: "),
        (agent(|_| "x".repeat(MAX_PAGE_BYTES + 1)), "the answer broke off: length limit exceeded"),
        (
            replay.address().to_owned(),
            "it counts no pairs: an agent does, a replay and older versions do not",
        ),
    ] {
        let finished = top(&["--url", &url]);
        assert_eq!((finished.code, finished.stdout.as_str()), (Some(1), ""), "{finished:?}");
        let expected = format!("pod2pod: http://{url}/metrics: {expected}");
        assert!(finished.stderr.starts_with(&expected), "{expected}: {finished:?}");
    }
    let largest = |number| {
        let mut page = beginning(f64::from(number), 50) + "#";
        page += &"x".repeat(MAX_PAGE_BYTES - page.len());
        page
    };
    let finished = top(&["--url", &agent(largest)]);
    assert_eq!((finished.code, finished.stdout.lines().count()), (Some(0), 1), "{finished:?}");
}

#[test]
fn an_agent_that_does_not_answer_is_given_up() {
    let begin = Instant::now();
    let hangs = answering(|_, stream| {
        // Until the other end is closed.
        let _ = std::io::Read::read(stream, &mut [0]);
    });
    let finished = top(&["--url", &hangs]);
    assert!(finished.stderr.contains("no answer within 5 s"), "{finished:?}");
    assert!(begin.elapsed() >= MAX_WAIT);
}

#[test]
fn one_of_several_that_fails_is_said_beside_the_table() {
    let (url, fails) = (agent(page), agent(|number| if number == 0 { page(0) } else { String::new() }));
    let finished = top(&["--url", &url, "--url", &fails]);
    assert_eq!((finished.code, finished.stdout.lines().count()), (Some(1), 3), "{finished:?}");
    assert!(finished.stderr.contains("what answers there is no pod2pod agent"), "{finished:?}");
}

#[test]
fn an_agent_that_began_anew_is_said() {
    let url = agent(|number| {
        let mut page = beginning(f64::from(number), 50 + 900 * number);
        view(&mut page, "web", "cart", "server", 500);
        page
    });
    let finished = top(&["--url", &url]);
    assert_eq!((finished.code, finished.stdout.lines().count()), (Some(0), 1), "{finished:?}");
    assert!(finished.stderr.contains("it began anew, and counts from there"), "{finished:?}");
}

#[test]
fn all_mistakes_are_told_at_once() {
    let arguments =
        ["--url", "https://a/metrics", "--interval", "10ms", "--sort", "size", "--filter", "web p99>5"];
    let finished = run(command([&["top"][..], &arguments[..]].concat()), b"");
    assert_eq!((finished.code, finished.stdout.as_str()), (Some(64), ""), "{finished:?}");
    for expected in [
        "--url: \"https://a/metrics\" is not allowed; allowed: http://",
        "--interval: \"10ms\" is not allowed; allowed: a duration",
        "--sort: \"size\" is not allowed; allowed: client, server, rate",
        "--filter: \"p99>5\" at character 5 is not allowed; allowed: words",
    ] {
        assert!(finished.stderr.contains(expected), "{expected}: {finished:?}");
    }
    assert_eq!(finished.stderr.lines().count(), 4, "{finished:?}");
}

/// `pod2pod top` on a terminal of 20 lines, and what a shell finds behind it.
struct Terminal {
    running: Running,
    folder: tempfile::TempDir,
}

impl Terminal {
    fn start(url: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).display().to_string();
        let story = format!(
            "trap : INT; tty > {}; stty rows 20 cols 100; stty -g > {}; {} top --url {url} --interval 1s; echo ended $?; stty -g > {}",
            at("tty"),
            at("before"),
            binary().display(),
            at("after"),
        );
        // An interruption reaches the shell too, which some end by, and others do not: it is told to go on.
        let mut script = Command::new("script");
        script.env("SHELL", "/bin/sh");
        script.args(["--quiet", "--command", &story, "/dev/null"]);
        script.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Self { running: Running::start(script), folder }
    }

    fn file(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder.path().join(name)).unwrap().trim().to_owned()
    }

    /// What was drawn since the screen was last drawn anew, once that is as wanted. A line is known when the next one begins.
    fn wait(&self, wanted: impl Fn(&str) -> bool) -> String {
        let last = |text: &str| text.rsplit("\x1b[H\x1b[J").nth(1).unwrap_or_default().to_owned();
        last(&self.running.wait_stdout(|text| wanted(&last(text))))
    }

    fn resize(&self, rows: u32, columns: u32) {
        let mut stty = Command::new("stty");
        stty.args(["--file", &self.file("tty"), "rows", &rows.to_string(), "cols", &columns.to_string()]);
        assert!(stty.status().unwrap().success());
    }

    /// How it ended, once it has.
    fn end(self) -> Finished {
        self.running.wait_stdout(|text| text.contains("ended "));
        let Self { mut running, folder } = self;
        running.close_stdin();
        let finished = running.finish();
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
        assert_eq!(read("before"), read("after"), "the terminal is as it was");
        assert_eq!((finished.stdout.matches(OPENS).count(), finished.stdout.matches(CLOSES).count()), (1, 1));
        let behind = finished.stdout.split(CLOSES).nth(1).unwrap();
        assert!(behind.trim_start().starts_with("ended "), "{finished:?}");
        finished
    }
}

#[test]
fn the_live_table_obeys_its_keys() {
    let mut terminal = Terminal::start(&agent(page));
    let drawn = terminal.wait(|drawn| drawn.contains("shop/cart  "));
    let lines: Vec<&str> = drawn.lines().collect();
    assert!(
        lines[0].starts_with("pod2pod top: http://127.0.0.1:") && lines[0].contains("by rate"),
        "{drawn}"
    );
    assert!(lines.iter().all(|line| line.trim_end().chars().count() <= 100), "{drawn}");
    let first = |drawn: &str| drawn.lines().nth(3).map(words).unwrap_or_default();
    assert!(first(&drawn).starts_with("shop/web shop/cart server 200.0"), "{drawn}");
    terminal.running.write(b"1");
    terminal.wait(|drawn| drawn.contains("by client") && first(drawn).starts_with("shop/cart shop/db"));
    terminal.running.write(b"r");
    terminal.wait(|drawn| drawn.contains("by client reversed") && first(drawn).starts_with("shop/web"));
    terminal.running.write(b"\x1b[B");
    terminal.wait(|drawn| first(drawn).starts_with("shop/cart shop/db"));
    terminal.resize(20, 60);
    terminal.wait(|drawn| drawn.lines().nth(2).is_some_and(|line| line.trim_end().chars().count() == 60));
    terminal.running.write(b"q");
    assert!(terminal.end().stdout.contains("ended 0"));
}

#[test]
fn the_terminal_is_as_it_was_however_it_ends() {
    // Interrupted at the terminal, while a page is on its way, which would take five seconds.
    let hangs = answering(|_, stream| {
        let _ = std::io::Read::read(stream, &mut [0]);
    });
    let mut terminal = Terminal::start(&hangs);
    terminal.running.wait_stdout(|text| text.contains("CLIENT"));
    let begin = Instant::now();
    terminal.running.write(b"\x03");
    assert!(terminal.end().stdout.contains("ended 0"));
    assert!(begin.elapsed() < MAX_WAIT, "{:?}", begin.elapsed());
    // By a signal from elsewhere.
    let terminal = Terminal::start(&agent(page));
    terminal.wait(|drawn| drawn.contains("shop/web"));
    signal(&terminal, Signal::SIGTERM);
    assert!(terminal.end().stdout.contains("ended 0"));
    // What would stop it is a key like others, and a trouble is said on the screen.
    let mut terminal =
        Terminal::start(&agent(|number| if number < 2 { page(number) } else { String::new() }));
    terminal.running.wait_stdout(|text| text.contains("CLIENT"));
    terminal.running.write(b"\x1a\x1c");
    terminal.wait(|drawn| drawn.contains("what answers there is no pod2pod agent"));
    terminal.running.write(b"q");
    assert!(terminal.end().stdout.contains("ended 0"));
}

/// Sends a signal to the one process that has this terminal's table.
fn signal(terminal: &Terminal, signal: Signal) {
    let tty = terminal.file("tty");
    let is_it = |folder: &Path| {
        let name = std::fs::read_to_string(folder.join("comm")).unwrap_or_default();
        let input = std::fs::read_link(folder.join("fd/0")).unwrap_or_default();
        name.trim() == "pod2pod" && input == Path::new(&tty)
    };
    let processes = std::fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    let found: Vec<_> = processes.filter(|folder| is_it(folder)).collect();
    let [folder] = &found[..] else { panic!("{found:?}") };
    let id = folder.file_name().unwrap().to_str().unwrap().parse().unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(id), signal).unwrap();
}
