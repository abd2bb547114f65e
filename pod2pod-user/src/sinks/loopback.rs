//! What tests of sinks have in common: servers on loopback in threads of the test's process.

use std::{
    future::Future,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    sync::Arc,
    thread::JoinHandle,
    time::Duration,
};

use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};

use super::{
    failover::Server,
    stream_client::{Access, Tls},
};
use crate::{delivery::Parcel, secrets::tls};

/// Whoever waits longer has lost.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// Runs `future` on a runtime like a sink's, not for ever.
pub(super) fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(PATIENCE, future).await.expect("it has an end") })
}

/// A listener, and where it is.
pub(super) fn listen() -> (TcpListener, Server) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = server(listener.local_addr().unwrap());
    (listener, server)
}

pub(super) fn server(address: SocketAddr) -> Server {
    Server::parse(&address.to_string(), None).unwrap()
}

/// Where nobody listens.
pub(super) fn nobody() -> Server {
    listen().1
}

pub(super) fn plain(servers: &[&Server]) -> Access {
    Access { servers: servers.iter().map(|server| (*server).clone()).collect(), tls: None }
}

/// With the certificate of tests as authority.
pub(super) fn over_tls(server: &Server, server_name: Option<&str>) -> Access {
    let client = tls::Client { authorities: Some(file("certificate.pem")), own: None };
    let server_name = server_name.map(|name| name.to_owned().try_into().unwrap());
    Access { servers: vec![server.clone()], tls: Some(Tls { client, server_name }) }
}

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/tls").join(name)
}

/// A thread that takes connections one after the other, as many as there are `scripts`: each does something with its own.
pub(super) fn serve<T: Send + 'static>(
    listener: TcpListener,
    scripts: Vec<Box<dyn FnOnce(TcpStream) -> T + Send>>,
) -> JoinHandle<Vec<T>> {
    std::thread::spawn(move || {
        let scripts = scripts.into_iter().map(|script| {
            let (stream, _) = listener.accept().unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.set_write_timeout(Some(PATIENCE)).unwrap();
            script(stream)
        });
        scripts.collect()
    })
}

/// TLS on the server's side.
pub(super) fn accept_tls(stream: TcpStream) -> StreamOwned<ServerConnection, TcpStream> {
    let chain = vec![CertificateDer::from_pem_file(file("certificate.pem")).unwrap()];
    let key = PrivateKeyDer::from_pem_file(file("key.pem")).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    StreamOwned::new(ServerConnection::new(Arc::new(config)).unwrap(), stream)
}

/// What comes until there is nothing more.
pub(super) fn everything(mut stream: impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    // TLS may end without saying so.
    let _ = stream.read_to_end(&mut bytes);
    bytes
}

/// So many bytes.
pub(super) fn exactly(stream: &mut impl Read, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    stream.read_exact(&mut bytes).unwrap();
    bytes
}

/// Says `bytes`, if somebody still listens.
pub(super) fn say(stream: &mut impl Write, bytes: &[u8]) {
    let _ = stream.write_all(bytes).and_then(|()| stream.flush());
}

/// Items as a parcel.
pub(super) fn parcel<T: AsRef<[u8]>>(items: &[T]) -> Parcel {
    let (mut bytes, mut ends) = (Vec::new(), Vec::new());
    for item in items {
        bytes.extend_from_slice(item.as_ref());
        ends.push(u32::try_from(bytes.len()).unwrap());
    }
    Parcel::new(bytes, ends)
}
