//! The kernel tier.
use pod2pod_user::capture::loader::{Capture, Config};

#[test]
fn smoke() {
    let mut capture = Capture::open(&Config::default()).unwrap_or_else(|e| panic!("{e}"));
    println!("{:?}", capture.verified_instructions());
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let t = std::thread::spawn(move || {
        use std::io::{Read, Write};
        let (mut s, _) = listener.accept().unwrap();
        let mut b = [0; 1000];
        let _ = s.read(&mut b).unwrap();
        s.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
    });
    use std::io::{Read, Write};
    let mut c = std::net::TcpStream::connect(address).unwrap();
    c.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut b = [0; 1000];
    let _ = c.read(&mut b).unwrap();
    t.join().unwrap();
    drop(c);
    capture.drain(1000, |s| {
        if s.source == address || s.destination == address {
            println!("{s:?}")
        }
    });
    let counters = capture.counters();
    for c in pod2pod_common::counters::Counter::ALL {
        println!("{} {}", c.name(), counters.of(*c));
    }
}
