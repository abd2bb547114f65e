//! `pod2pod tail`: records of one or more agents as they come, filtered there, as columns or JSON lines. Asks `/tail` and nothing else.

mod events;
pub mod options;

use std::{
    io::{self, IsTerminal as _, Write as _},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::{Request, header};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::mpsc,
    time::{Instant, sleep, sleep_until, timeout},
};

pub use self::events::MAX_EVENT_BYTES;
use self::{
    events::{Event, Parser},
    options::Options,
};
use crate::{OWN_USER_AGENT, admin::MAX_WIDTH, exit, shutdown::Shutdown, sinks::http_client::Url, terminal};

/// An agent that has not begun to show records by then does not.
pub const MAX_BEGIN: Duration = Duration::from_secs(5);
/// An agent says something every 15 s: one that says nothing for so long is gone.
pub const MAX_SILENCE: Duration = Duration::from_secs(45);
/// An agent that went away is asked again after this.
const AGAIN: Duration = Duration::from_secs(1);
/// Between two looks whether the program should end.
const LOOK: Duration = Duration::from_millis(50);
/// Columns where there is no terminal.
const USUAL_WIDTH: usize = 120;

/// What agents say, each by its place.
enum Said {
    Event(Event),
    /// It shows records from now on.
    Begun(usize),
    /// It does not, and why.
    Ended(usize, String),
}

/// Shows records until the time is over, or for ever; says how the program should exit.
pub fn run(options: Options, shutdown: &Shutdown) -> u8 {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            exit::tell(format_args!("tail: {error}"));
            return exit::FAILURE;
        }
    };
    let code = runtime.block_on(show(options, shutdown));
    // A name that is still looked for keeps nobody waiting.
    runtime.shutdown_background();
    code
}

async fn show(options: Options, shutdown: &Shutdown) -> u8 {
    let end = options.time.map(|time| Instant::now() + time);
    let names: Vec<_> = options.urls.iter().map(|(text, _)| text.clone()).collect();
    let (sender, mut said) = mpsc::channel(64);
    for place in 0..options.urls.len() {
        tokio::spawn(follow(options.clone(), place, sender.clone()));
    }
    drop(sender);
    let mut printer = Printer { lost: 0, header_told: false };
    let mut has_begun = vec![false; names.len()];
    loop {
        let news = tokio::select! {
            news = said.recv() => news,
            () = until(end, shutdown) => None,
        };
        let printed = match news {
            None => break,
            Some(Said::Event(event)) => printer.print(event),
            Some(Said::Begun(place)) => {
                has_begun.iter_mut().skip(place).take(1).for_each(|begun| *begun = true);
                Ok(())
            }
            Some(Said::Ended(place, why)) => {
                let name = names.get(place).map_or("", String::as_str);
                if !has_begun.contains(&true) && names.len() == 1 {
                    exit::tell(format_args!("tail: {name}: {why}"));
                    return exit::FAILURE;
                }
                exit::tell(format_args!("tail: {name}: {why}; it is asked again"));
                Ok(())
            }
        };
        match printed {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => break,
            Err(error) => {
                exit::tell(format_args!("tail: {error}"));
                return exit::FAILURE;
            }
        }
    }
    if printer.lost > 0 {
        exit::tell(format_args!(
            "tail: {} records were not shown: they came faster than they were read",
            printer.lost
        ));
    }
    exit::OK
}

async fn until(end: Option<Instant>, shutdown: &Shutdown) {
    while !shutdown.is_requested() && end.is_none_or(|end| Instant::now() < end) {
        let look = Instant::now() + LOOK;
        sleep_until(end.map_or(look, |end| end.min(look))).await;
    }
}

/// Writes what came.
struct Printer {
    lost: u64,
    /// Each agent sends one.
    header_told: bool,
}

impl Printer {
    fn print(&mut self, event: Event) -> io::Result<()> {
        let mut out = io::stdout().lock();
        match event {
            Event::Lost(count) => self.lost += count,
            Event::Record(lines) => {
                for line in lines {
                    let is_header = line.windows(10).take(8).any(|part| part == b"TIME (UTC)");
                    if is_header && std::mem::replace(&mut self.header_told, true) {
                        continue;
                    }
                    out.write_all(&line)?;
                    out.write_all(b"\n")?;
                }
            }
        }
        out.flush()
    }
}

/// Listens to one agent for ever.
async fn follow(options: Options, place: usize, said: mpsc::Sender<Said>) {
    let Some((_, url)) = options.urls.get(place) else { return };
    let query = query(&options);
    loop {
        let why = match listen(&options, url, &query, place, &said).await {
            Ok(()) => "it ended".to_owned(),
            Err(error) => format!("{error:#}"),
        };
        if said.send(Said::Ended(place, why)).await.is_err() {
            return;
        }
        sleep(AGAIN).await;
    }
}

fn query(options: &Options) -> String {
    let mut pairs = Vec::new();
    if !options.filter.is_empty() {
        let filter: String = form_urlencoded::byte_serialize(options.filter.as_bytes()).collect();
        pairs.push(format!("filter={filter}"));
    }
    if !options.json {
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let width = terminal::width().unwrap_or(USUAL_WIDTH).min(MAX_WIDTH);
        let colour = u8::from(io::stdout().is_terminal() && !no_colour);
        pairs.push(format!("format=text&width={width}&colour={colour}"));
    }
    let is_closer = options.headers.is_some() || options.body_bytes.is_some();
    pairs.extend(options.headers.as_ref().map(|names| {
        let names: String = form_urlencoded::byte_serialize(names.as_bytes()).collect();
        format!("headers={names}")
    }));
    pairs.extend(options.body_bytes.map(|bytes| format!("body={bytes}")));
    // The agent ends it too, whatever becomes of this program.
    pairs.extend(options.time.filter(|_| is_closer).map(|time| format!("for={}ms", time.as_millis().max(1))));
    pairs.join("&")
}

async fn listen(
    options: &Options,
    url: &Url,
    query: &str,
    place: usize,
    said: &mpsc::Sender<Said>,
) -> anyhow::Result<()> {
    let connecting = TcpStream::connect((url.host(), url.port()));
    let stream = timeout(MAX_BEGIN, connecting).await.map_err(|_| no_answer())?;
    let stream = stream.map_err(|error| {
        anyhow::anyhow!("no agent answers ({error}): is it running, and is admin.listen this address?")
    })?;
    match url.server_name() {
        None => read(stream, options, url, query, place, said).await,
        Some(name) => {
            let stream = options.tls.connector()?.connect(name.clone(), stream);
            let stream = timeout(MAX_BEGIN, stream).await.map_err(|_| no_answer())??;
            read(stream, options, url, query, place, said).await
        }
    }
}

fn no_answer() -> anyhow::Error {
    anyhow::anyhow!("no answer within {} s", MAX_BEGIN.as_secs())
}

async fn read(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    options: &Options,
    url: &Url,
    query: &str,
    place: usize,
    said: &mpsc::Sender<Said>,
) -> anyhow::Result<()> {
    let (mut sender, driver) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let driver = tokio::spawn(driver);
    let separator = if url.path().contains('?') { '&' } else { '?' };
    let mut request = Request::get(format!("{}{separator}{query}", url.path()))
        .header(header::HOST, url.authority())
        .header(header::USER_AGENT, OWN_USER_AGENT)
        .header(header::ACCEPT, "text/event-stream");
    if let Some(token) = &options.token {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    let answer = timeout(MAX_BEGIN, sender.send_request(request.body(Empty::<Bytes>::new())?)).await;
    let answer = answer.map_err(|_| no_answer())??;
    let status = answer.status();
    let mut body = answer.into_body();
    if !status.is_success() {
        let told = timeout(MAX_BEGIN, body.frame()).await.ok().flatten().and_then(Result::ok);
        let told = told.and_then(|frame| frame.into_data().ok()).unwrap_or_default();
        anyhow::bail!("the answer is {status}: {}", String::from_utf8_lossy(&told).trim());
    }
    said.send(Said::Begun(place)).await?;
    let mut parser = Parser::default();
    let mut events = Vec::new();
    while let Some(frame) = timeout(MAX_SILENCE, body.frame()).await? {
        if let Ok(data) = frame?.into_data() {
            parser.push(&data, |event| events.push(event))?;
        }
        for event in events.drain(..) {
            said.send(Said::Event(event)).await?;
        }
    }
    driver.abort();
    Ok(())
}
