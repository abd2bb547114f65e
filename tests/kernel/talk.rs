//! Traffic of the tests: one connection, said word by word.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::mpsc::sync_channel,
    thread::JoinHandle,
};

use super::watch::PATIENCE;
use support::netns::{Cgroup, Namespace};

/// One turn of a conversation.
#[derive(Clone, Debug)]
pub(crate) enum Turn {
    /// The client sends, each piece a segment of its own, and the server reads it all.
    Client(Vec<Vec<u8>>),
    /// The server sends, and the client reads it all.
    Server(Vec<Vec<u8>>),
}

/// Where a conversation took place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ends {
    pub(crate) client: SocketAddr,
    pub(crate) server: SocketAddr,
}

pub(crate) fn client(text: &str) -> Turn {
    Turn::Client(vec![text.as_bytes().to_vec()])
}

pub(crate) fn server(text: &str) -> Turn {
    Turn::Server(vec![text.as_bytes().to_vec()])
}

/// Holds a conversation over one connection to `address`, the server in `at`, the client in `from`. The port is the
/// kernel's choice. Ends with the client's FIN, then the server's.
pub(crate) fn talk(
    cgroup: &Cgroup,
    from: &Namespace,
    at: &Namespace,
    address: &str,
    turns: &[Turn],
) -> JoinHandle<Ends> {
    let (say, hear) = sync_channel(1);
    let address: SocketAddr = format!("{address}:0").parse().unwrap();
    let of_server = turns.to_vec();
    let serving = cgroup.spawn(at, move || {
        let listener = TcpListener::bind(address).unwrap();
        say.send(listener.local_addr().unwrap()).unwrap();
        let (stream, _) = listener.accept().unwrap();
        for turn in &of_server {
            match turn {
                Turn::Client(pieces) => read(&stream, pieces),
                Turn::Server(pieces) => write(&stream, pieces),
            }
        }
        // The client closes first.
        assert_eq!((&stream).read(&mut [0]).unwrap(), 0);
    });
    let of_client = turns.to_vec();
    cgroup.spawn(from, move || {
        let server = hear.recv().unwrap();
        let stream = TcpStream::connect(server).unwrap();
        for turn in &of_client {
            match turn {
                Turn::Client(pieces) => write(&stream, pieces),
                Turn::Server(pieces) => read(&stream, pieces),
            }
        }
        let client = stream.local_addr().unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!((&stream).read(&mut [0]).unwrap(), 0);
        serving.join().unwrap();
        Ends { client, server }
    })
}

fn write(mut stream: &TcpStream, pieces: &[Vec<u8>]) {
    stream.set_nodelay(true).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    for piece in pieces {
        stream.write_all(piece).unwrap();
    }
}

fn read(mut stream: &TcpStream, pieces: &[Vec<u8>]) {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut bytes = vec![0; pieces.iter().map(Vec::len).sum()];
    stream.read_exact(&mut bytes).unwrap();
    assert!(bytes == pieces.concat(), "other bytes arrived than were sent");
}
