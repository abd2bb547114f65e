//! One connection full of bytes that are not HTTP, from the client's namespace to the server's.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use support::processes::Process;

use crate::{
    observers::wait_for,
    stage::{self, SERVER, Stage},
};

/// First words of the command lines by which the benchmark becomes an end of the stream.
pub(crate) const SEND: &str = "bulk-send";
pub(crate) const RECEIVE: &str = "bulk-receive";
/// What the receiver says when it listens.
const LISTENING: &str = "listening";
/// Beside nginx.
const PORT: u16 = 9000;
/// Bytes of a write.
const PIECE_BYTES: usize = 128 * 1024;
/// How much longer than planned the stream may take.
const MAX_OVERTIME: Duration = Duration::from_secs(20);

/// Streams for `time`; bytes a second as received.
pub(crate) fn run(stage: &Stage, time: Duration) -> Result<f64> {
    let said = stage.file("bulk");
    let own = std::env::current_exe()?;
    let mut command = stage::command(Some(&stage.server), &own)?;
    command.arg(RECEIVE).stdout(File::create(&said)?).stderr(Stdio::inherit());
    let mut receiver = Process::start("receiver", &mut command)?;
    let read = || std::fs::read_to_string(&said).unwrap_or_default();
    wait_for(&mut receiver, MAX_OVERTIME, || read().starts_with(LISTENING))?;
    let mut command = stage::command(Some(&stage.client), &own)?;
    command.args([SEND, &time.as_millis().to_string()]).stderr(Stdio::inherit());
    Process::start("sender", &mut command)?.finish(time + MAX_OVERTIME)?;
    receiver.finish(MAX_OVERTIME)?;
    let text = read();
    text.lines().nth(1).context("the receiver reports nothing")?.parse().context("the receiver's rate")
}

/// This process becomes the sender.
pub(crate) fn become_sender(words: &[String]) -> Result<()> {
    let [milliseconds] = words else { bail!("{SEND} MILLISECONDS") };
    send(SocketAddr::new(SERVER.ip(), PORT), Duration::from_millis(milliseconds.parse()?))
}

fn send(receiver: SocketAddr, time: Duration) -> Result<()> {
    let mut stream = TcpStream::connect(receiver)?;
    let piece = vec![0; PIECE_BYTES];
    let start = Instant::now();
    while start.elapsed() < time {
        stream.write_all(&piece)?;
    }
    Ok(())
}

/// This process becomes the receiver.
pub(crate) fn become_receiver() -> Result<()> {
    let listener = TcpListener::bind((SERVER.ip(), PORT))?;
    let mut out = std::io::stdout();
    writeln!(out, "{LISTENING}")?;
    let rate = receive(&listener)?;
    Ok(writeln!(out, "{rate}")?)
}

/// Bytes a second from the first one to the end.
fn receive(listener: &TcpListener) -> Result<f64> {
    let (mut stream, _) = listener.accept()?;
    let mut buffer = vec![0; PIECE_BYTES];
    let mut bytes = stream.read(&mut buffer)?;
    let start = Instant::now();
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(bytes as f64 / start.elapsed().as_secs_f64()),
            count => bytes += count,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn a_stream_has_a_rate() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let sender = thread::spawn(move || send(address, Duration::from_millis(20)));
        assert!(receive(&listener).expect("a rate") >= PIECE_BYTES as f64);
        sender.join().expect("no panic").expect("sent");
    }
}
