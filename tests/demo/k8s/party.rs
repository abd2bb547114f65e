//! What runs in the pods of the shop: each asks the next by its Service and notes which pod it was, so that what is true can be
//! put together afterwards. Addresses play no part in that.

use std::{
    fs::File,
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::ExitCode,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use support::{
    processes,
    wire::{self, Framing, Wire},
    world,
};

/// Where pods listen.
pub(crate) const PORT: u16 = 8080;
/// Between two requests of a client: this paces the traffic.
const PAUSE: Duration = Duration::from_millis(10);
/// Requests of one connection: short ones meet every pod behind a Service.
const REQUESTS: usize = 5;
/// How long a pod that is to end waits for those that still ask.
const MAX_DRAIN: Duration = Duration::from_secs(5);

/// This process becomes a pod: first into its network and its cgroup, then at work until its standard input ends.
pub(crate) fn become_pod(
    role: &str,
    namespace: &str,
    cgroup: &str,
    notes: &str,
    peer: &str,
) -> Result<ExitCode> {
    processes::die_with_parent()?;
    world::enter(Path::new(namespace))?;
    world::join(Path::new(cgroup))?;
    let notes = Arc::new(Notes(Mutex::new(File::create(notes).context("cannot make the notes")?)));
    let peer: Option<SocketAddr> = if peer == "-" { None } else { Some(peer.parse()?) };
    let is_over = Arc::new(AtomicBool::new(false));
    let work = match (role, peer) {
        ("web", Some(peer)) => {
            let over = Arc::clone(&is_over);
            let notes = Arc::clone(&notes);
            thread::spawn(move || browse(peer, &notes, &over))
        }
        ("cart" | "db", peer) => {
            let listener = TcpListener::bind(("0.0.0.0", PORT)).context("cannot listen")?;
            let over = Arc::clone(&is_over);
            let notes = Arc::clone(&notes);
            thread::spawn(move || serve(&listener, peer, &notes, &over))
        }
        _ => bail!("there is no role {role}"),
    };
    writeln!(io::stdout(), "ready")?;
    io::stdin().read_to_end(&mut Vec::new())?;
    is_over.store(true, Ordering::SeqCst);
    work.join().map_err(|_| anyhow::anyhow!("the pod panicked"))??;
    Ok(ExitCode::SUCCESS)
}

/// Lines about what this pod did.
struct Notes(Mutex<File>);

impl Notes {
    fn add(&self, line: &str) -> io::Result<()> {
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        writeln!(file, "{line}")
    }
}

/// Connections to a Service, one after the other.
struct Caller {
    peer: SocketAddr,
    wire: Option<Wire>,
    left: usize,
}

impl Caller {
    const fn new(peer: SocketAddr) -> Self {
        Self { peer, wire: None, left: 0 }
    }

    /// Asks, and notes what became of it.
    fn ask(&mut self, target: &str, id: &str, notes: &Notes) -> io::Result<()> {
        let asked = self.try_ask(target, id);
        if asked.is_err() || self.left == 0 {
            self.wire = None;
        }
        notes.add(&format!("client {id} {}", if asked.is_ok() { "ok" } else { "failed" }))
    }

    fn try_ask(&mut self, target: &str, id: &str) -> io::Result<()> {
        if self.wire.is_none() {
            self.wire = Some(Wire::new(TcpStream::connect(self.peer)?)?);
            self.left = REQUESTS;
        }
        let Some(wire) = &mut self.wire else { return Ok(()) };
        self.left -= 1;
        wire.write(format!("GET {target}?id={id} HTTP/1.1\r\nHost: shop\r\n\r\n").as_bytes())?;
        let head = wire.head()?.ok_or(io::ErrorKind::UnexpectedEof)?;
        wire.body(head.framing(Framing::UntilClose), &mut 0)?;
        if head.word(1) == "200" { Ok(()) } else { Err(io::ErrorKind::Other.into()) }
    }
}

fn browse(peer: SocketAddr, notes: &Notes, is_over: &AtomicBool) -> Result<()> {
    let mut caller = Caller::new(peer);
    let who = std::process::id();
    for number in 0.. {
        if is_over.load(Ordering::SeqCst) {
            break;
        }
        caller.ask("/cart", &format!("{who}.{number}"), notes)?;
        thread::sleep(PAUSE);
    }
    Ok(())
}

fn serve(
    listener: &TcpListener,
    peer: Option<SocketAddr>,
    notes: &Arc<Notes>,
    is_over: &AtomicBool,
) -> Result<()> {
    listener.set_nonblocking(true)?;
    let open = Arc::new(AtomicUsize::new(0));
    let mut drained = None;
    loop {
        if is_over.load(Ordering::SeqCst) {
            let since = *drained.get_or_insert_with(Instant::now);
            if open.load(Ordering::SeqCst) == 0 || since.elapsed() > MAX_DRAIN {
                return Ok(());
            }
        }
        match listener.accept() {
            Ok((stream, _)) => {
                let (open, notes) = (Arc::clone(&open), Arc::clone(notes));
                open.fetch_add(1, Ordering::SeqCst);
                thread::spawn(move || {
                    // A client that breaks off notes that itself.
                    let _ = answer(stream, peer, &notes);
                    open.fetch_sub(1, Ordering::SeqCst);
                });
            }
            // Looks again for connections, and for the end.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(processes::PAUSE),
            Err(error) => return Err(error).context("cannot accept"),
        }
    }
}

fn answer(stream: TcpStream, peer: Option<SocketAddr>, notes: &Notes) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    let mut wire = Wire::new(stream)?;
    let mut caller = peer.map(Caller::new);
    while let Some(head) = wire.head()? {
        wire.body(head.framing(Framing::Length(0)), &mut 0)?;
        let (_, id) = head.word(1).split_once("id=").unwrap_or_default();
        if let Some(caller) = &mut caller {
            caller.ask("/item", &format!("{id}.item"), notes)?;
        }
        // Before the answer: who has it may ask for our notes.
        notes.add(&format!("server {id} ok"))?;
        let body = wire::content(64);
        wire.write(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes())?;
        wire.write(&body)?;
    }
    Ok(())
}
