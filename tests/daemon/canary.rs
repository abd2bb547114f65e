//! Canaries: a word where secrets are in traffic, and another where our own are, and no place that has either.
//!
//! Kafka's sink has the same encoder as the one of HTTP, and needs a program that is built with it: it is not here.

use std::{
    fs,
    io::{self, Read as _, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    sync::{Arc, Mutex},
    thread,
};

use support::{
    conversation::Conversation,
    process::{Finished, PATIENCE},
    stand_in::{Protocol, StandIn},
};

use crate::{
    elasticsearch::refusing,
    fed::{Fed, get},
    write,
};

/// In traffic; and as it is in `Basic` credentials.
const CANARY: [&str; 2] = ["canary4711", "dTpjYW5hcnk0NzEx"];
/// Our own, in files and settings; and as `Basic` credentials have it, of the user `agent`.
const OWN: [&str; 2] = ["canary0815", "YWdlbnQ6Y2FuYXJ5MDgxNQ=="];
/// Exchanges that hold the canary.
const EXCHANGES: usize = 20;
/// Header fields that are asked for.
const CAPTURED: [&str; 2] = [
    "http.request_headers=authorization,proxy-authorization,cookie,referer,x-api-key,x-auth-token",
    "http.response_headers=set-cookie,location,x-amz-security-token",
];

/// Exchanges with the canary wherever a secret has a place, and in bodies, which nobody asked for.
fn exchanges() -> Vec<u8> {
    let mut conversation = Conversation::new();
    for number in 0..EXCHANGES {
        let [canary, basic] = CANARY;
        let body = format!("{{\"password\":\"{canary}\"}}");
        let query = format!("access_token={canary}&x=1&PASSWORD={canary}&sig={canary}");
        let request = format!(
            "POST http://{canary}:{canary}@shop/item/{number};jsessionid={canary}?{query} HTTP/1.1\r\nHost: shop\r\n\
             Authorization: Basic {basic}\r\nProxy-Authorization: Bearer {canary}\r\nCookie: session={canary}\r\n\
             Referer: https://u:{canary}@shop/?token={canary}\r\nX-Api-Key: {canary}\r\nX-Auth-Token: {canary}\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let response = format!(
            "HTTP/1.1 302 Found\r\nSet-Cookie: session={canary}\r\nLocation: /next?code=1&token={canary}\r\n\
             X-Amz-Security-Token: {canary}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        conversation = conversation.client(request).server(response);
    }
    write(&conversation.close())
}

/// Whether `bytes` have one of `words`.
fn has(bytes: &[u8], words: &[&str]) -> bool {
    words.iter().any(|word| memchr::memmem::find(bytes, word.as_bytes()).is_some())
}

/// A PostgreSQL server that lets everybody in who has a password, and takes every COPY (PostgreSQL 15, chapter 55); what it is told after
/// the password is kept.
struct Database {
    address: SocketAddr,
    heard: Arc<Mutex<Vec<u8>>>,
}

impl Database {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let heard = Arc::<Mutex<Vec<u8>>>::default();
        let kept = Arc::clone(&heard);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let kept = Arc::clone(&kept);
                // What goes wrong there is seen by the client.
                thread::spawn(move || serve(stream, &kept));
            }
        });
        Self { address, heard }
    }
}

fn serve(mut stream: TcpStream, heard: &Mutex<Vec<u8>>) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    body(&mut stream)?;
    say(&mut stream, b'R', &3_u32.to_be_bytes())?;
    let mut copies = false;
    loop {
        let mut kind = [0];
        stream.read_exact(&mut kind)?;
        let told = body(&mut stream)?;
        match kind[0] {
            b'p' => {
                assert!(has(&told, &OWN), "it is asked for its password, and this is none");
                say(&mut stream, b'R', &0_u32.to_be_bytes())?;
                say(&mut stream, b'Z', b"I")?;
                continue;
            }
            b'P' => say(&mut stream, b'1', b"")?,
            b'D' => {
                say(&mut stream, b't', &[0, 0])?;
                say(&mut stream, b'n', b"")?;
            }
            b'B' => say(&mut stream, b'2', b"")?,
            b'E' => {
                copies = true;
                say(&mut stream, b'G', &[0, 0, 0])?;
            }
            b'c' => {
                copies = false;
                say(&mut stream, b'C', format!("COPY {EXCHANGES}\0").as_bytes())?;
            }
            b'C' => say(&mut stream, b'3', b"")?,
            // Within a COPY it is looked over.
            b'S' if !copies => say(&mut stream, b'Z', b"I")?,
            b'X' => return Ok(()),
            _ => {}
        }
        heard.lock().unwrap().extend(told);
    }
}

/// What a message says.
fn body(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let mut body = vec![0; u32::from_be_bytes(length).saturating_sub(4) as usize];
    stream.read_exact(&mut body)?;
    Ok(body)
}

fn say(stream: &mut TcpStream, kind: u8, body: &[u8]) -> io::Result<()> {
    let length = (body.len() as u32 + 4).to_be_bytes();
    stream.write_all(&[&[kind], &length[..], body].concat())
}

/// All files below `folder`.
fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        if entry.path().is_dir() {
            all.extend(files(&entry.path()));
        } else {
            all.push((entry.path().display().to_string(), fs::read(entry.path()).unwrap()));
        }
    }
    all
}

/// Reads `/tail` until it shows this.
fn look_on(address: &str) -> thread::JoinHandle<Vec<u8>> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET /tail?format=json HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut shown = Vec::new();
    let mut read_until = move |end: String| {
        let mut part = [0; 4096];
        while !has(&shown, &[&end]) {
            let length = stream.read(&mut part).unwrap();
            assert!(length > 0, "{}", String::from_utf8_lossy(&shown));
            shown.extend_from_slice(&part[..length]);
        }
        shown.clone()
    };
    read_until("here it begins".to_owned());
    thread::spawn(move || read_until(format!("/item/{}", EXCHANGES - 1)))
}

/// One target of each type.
struct Targets {
    http: StandIn,
    es: StandIn,
    otlp: StandIn,
    spans: StandIn,
    old: StandIn,
    syslog: StandIn,
    logstash: StandIn,
    fluentd: StandIn,
    database: Database,
    /// Refuses everything: what it was sent are dead letters.
    refusing: String,
    /// Never says that a key is needed.
    locked: StandIn,
    /// Never answers a call.
    grpc: StandIn,
}

/// Sinks whose targets take everything.
const TAKING: &str = "http es fluentd syslog old logstash otlp spans postgres file";
/// Sinks of which nothing is taken.
const LOSING: [&str; 3] = ["refused", "locked", "grpc"];

impl Targets {
    fn start() -> Self {
        let speaks = StandIn::keeping;
        Self {
            http: speaks(Protocol::Http),
            es: speaks(Protocol::Bulk),
            otlp: speaks(Protocol::Http),
            spans: speaks(Protocol::Http),
            old: speaks(Protocol::Http),
            syslog: speaks(Protocol::Ear),
            logstash: speaks(Protocol::Ear),
            fluentd: speaks(Protocol::Forward),
            database: Database::start(),
            refusing: refusing(),
            locked: speaks(Protocol::Ear),
            grpc: speaks(Protocol::Ear),
        }
    }

    /// Sinks to all of them, as much of them secret as can be. `secret` is a file with a secret of ours.
    fn settings(&self, secret: &str, data: &Path) -> Vec<String> {
        let own = OWN[0];
        vec![
            "admin.listen=127.0.0.1:0".to_owned(),
            "log.level=trace".to_owned(),
            "limits.memory=256MiB".to_owned(),
            format!("data_dir={}", data.join("state").display()),
            CAPTURED[0].to_owned(),
            CAPTURED[1].to_owned(),
            format!("sinks.http.url=http://{}/in?token={own}", self.http.address),
            format!("sinks.http.header_files=Authorization: {secret}"),
            format!("sinks.http.headers=X-Api-Key: {own}"),
            "sinks.es.type=elasticsearch".to_owned(),
            format!("sinks.es.url=http://{}/", self.es.address),
            format!("sinks.es.api_key_file={secret}"),
            "sinks.refused.type=elasticsearch".to_owned(),
            format!("sinks.refused.url=http://{}/", self.refusing),
            "sinks.refused.user=agent".to_owned(),
            format!("sinks.refused.password_file={secret}"),
            format!("sinks.fluentd.url=fluentd://{}", self.fluentd.address),
            format!("sinks.locked.url=fluentd://{}", self.locked.address),
            format!("sinks.locked.shared_key_file={secret}"),
            "sinks.locked.user=agent".to_owned(),
            format!("sinks.locked.password_file={secret}"),
            "sinks.locked.attempts=1".to_owned(),
            "sinks.locked.timeout=1s".to_owned(),
            format!("sinks.syslog.url=syslog+tcp://{}", self.syslog.address),
            format!("sinks.old.url=syslog+http://{}/", self.old.address),
            format!("sinks.old.header_files=Authorization: {secret}"),
            format!("sinks.logstash.url=logstash+tcp://{}", self.logstash.address),
            "sinks.otlp.type=otlp".to_owned(),
            format!("sinks.otlp.url=http://{}/", self.otlp.address),
            "sinks.otlp.compression=none".to_owned(),
            format!("sinks.otlp.token_file={secret}"),
            "sinks.grpc.type=otlp".to_owned(),
            "sinks.grpc.protocol=grpc".to_owned(),
            format!("sinks.grpc.url=http://{}/", self.grpc.address),
            "sinks.grpc.compression=none".to_owned(),
            format!("sinks.grpc.token_file={secret}"),
            "sinks.grpc.attempts=1".to_owned(),
            "sinks.grpc.timeout=1s".to_owned(),
            "sinks.spans.type=otlp".to_owned(),
            "sinks.spans.signal=spans".to_owned(),
            format!("sinks.spans.url=http://{}/", self.spans.address),
            "sinks.spans.compression=none".to_owned(),
            format!("sinks.postgres.url=postgres://agent@{}/records", self.database.address),
            "sinks.postgres.tls.mode=disable".to_owned(),
            format!("sinks.postgres.password_file={secret}"),
            "sinks.file.type=file".to_owned(),
            format!("sinks.file.path={}", data.join("records").display()),
        ]
    }

    /// What each was told.
    fn told(&self) -> Vec<(String, Vec<u8>)> {
        let database = self.database.heard.lock().unwrap().clone();
        let told = [
            ("http", self.http.heard()),
            ("es", self.es.heard()),
            ("otlp", self.otlp.heard()),
            ("spans", self.spans.heard()),
            ("old", self.old.heard()),
            ("syslog", self.syslog.heard()),
            ("logstash", self.logstash.heard()),
            ("fluentd", self.fluentd.heard()),
            ("grpc", self.grpc.heard()),
            ("postgres", database),
        ];
        told.map(|(place, text)| (place.to_owned(), text)).into()
    }
}

#[test]
fn no_secret_of_traffic_is_anywhere_and_ours_are_with_their_targets_only() {
    let (folder, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let secret = folder.path().join("secret");
    fs::write(&secret, OWN[0]).unwrap();
    let targets = Targets::start();
    let settings = targets.settings(&secret.display().to_string(), data.path());
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    let mut replay = Fed::start(&settings, &[]);
    let admin = replay.address("serving /config");
    let tail = look_on(&admin);
    replay.running.write(&exchanges());
    let metrics = replay.wait_metrics("each is with every sink", |metrics| {
        let is_of_all = |name, sink| metrics.sum(name, &format!("sink=\"{sink}\"")) == EXCHANGES as u64;
        TAKING.split(' ').all(|sink| is_of_all("sink_records_delivered_total", sink))
            && LOSING.iter().all(|sink| is_of_all("sink_records_dropped_total", sink))
    });
    let (config, tail) = (get(&admin, "/config"), tail.join().unwrap());
    let Finished { stdout, stderr, .. } = replay.end();
    assert!(stderr.contains("TRACE"), "the log has everything that there is: {stderr}");
    let mut places: Vec<(String, Vec<u8>)> = vec![
        ("/metrics".to_owned(), metrics.text().into()),
        ("/config".to_owned(), config.into_bytes()),
        ("/tail".to_owned(), tail),
        ("standard output".to_owned(), stdout.into_bytes()),
        ("log".to_owned(), stderr.into_bytes()),
    ];
    places.extend(files(data.path()));
    let letters = places.iter().find(|(place, _)| place.ends_with("dead-letters/refused.jsonl"));
    assert!(letters.is_some_and(|(_, text)| has(text, &["/item/0"])), "{letters:?}");
    for (place, text) in &places {
        assert!(!has(text, &OWN), "ours is in {place}: {}", String::from_utf8_lossy(text));
    }
    let told = targets.told();
    for (place, text) in &told {
        assert!(has(text, &["/item/0"]) && has(text, &["REDACTED"]), "{place} was told nothing of this");
    }
    for (place, text) in places.iter().chain(&told) {
        assert!(!has(text, &CANARY), "it is in {place}: {}", String::from_utf8_lossy(text));
    }
    let locked = targets.locked.heard();
    assert!(locked.is_empty(), "a key is not told before it is asked for: {locked:?}");
}
