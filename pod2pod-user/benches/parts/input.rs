//! What the stages are fed with: small exchanges over keep-alive connections, as the kernel side and as a capture file
//! tell them.

use std::mem::offset_of;

use pod2pod_common::segment::{
    HEADER_LENGTH, KIND_EGRESS, LAYOUT_VERSION, SIZE_CLASSES, SegmentHeader, TCP_ACK, TCP_SYN,
};

/// Connections, spoken on in turn.
const CONNECTIONS: u32 = 10;
/// Exchanges in all.
pub(crate) const EXCHANGES: u32 = 1000;
/// From one segment to the next, in nanoseconds.
const STEP: u64 = 10_000;
const RESPONSE: &str = "HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nDate: Sat, 21 Nov 2026 12:00:00 GMT\r\n\
    Content-Type: text/plain\r\nContent-Length: 15\r\nConnection: keep-alive\r\n\r\na small answer\n";

/// A segment as the server's end sees it.
pub(crate) struct Packet {
    time: u64,
    from_client: bool,
    client_port: u16,
    sequence: u32,
    acknowledgement: u32,
    flags: u8,
    payload: Vec<u8>,
}

/// The segments of all exchanges, handshakes first.
pub(crate) fn packets() -> Vec<Packet> {
    let mut packets = Vec::new();
    let mut ends = Vec::new();
    let mut time = STEP;
    let mut push = |from_client, connection: u32, (sequence, acknowledgement), flags, payload: &str| {
        time += STEP;
        let client_port = 40_000 + connection as u16;
        let payload = payload.as_bytes().to_vec();
        packets.push(Packet { time, from_client, client_port, sequence, acknowledgement, flags, payload });
    };
    for connection in 0..CONNECTIONS {
        let (client, server) = (1000 + connection, 5000 + connection);
        push(true, connection, (client, 0), TCP_SYN, "");
        push(false, connection, (server, client + 1), TCP_SYN | TCP_ACK, "");
        ends.push((client + 1, server + 1));
    }
    for number in 0..EXCHANGES {
        let connection = number % CONNECTIONS;
        let Some((client, server)) = ends.get_mut(connection as usize) else { continue };
        let request = format!(
            "GET /item/{number}?page=2 HTTP/1.1\r\nHost: shop.example:8080\r\nUser-Agent: bench/1\r\nAccept: */*\r\n\r\n"
        );
        push(true, connection, (*client, *server), TCP_ACK, &request);
        *client += request.len() as u32;
        push(false, connection, (*server, *client), TCP_ACK, RESPONSE);
        *server += RESPONSE.len() as u32;
    }
    packets
}

const CLIENT: [u8; 4] = [10, 0, 0, 1];
const SERVER: [u8; 4] = [10, 0, 0, 2];
const SERVER_PORT: u16 = 8080;

impl Packet {
    /// The record of the ring, field by field at the contract's offsets.
    pub(crate) fn record(&self) -> Vec<u8> {
        let needed = HEADER_LENGTH + self.payload.len();
        let size = SIZE_CLASSES.into_iter().find(|size| *size >= needed).unwrap_or(needed);
        let mut bytes = vec![0; size];
        let mut put = |offset: usize, field: &[u8]| {
            for (place, byte) in bytes.iter_mut().skip(offset).zip(field) {
                *place = *byte;
            }
        };
        let length = (self.payload.len() as u32).to_ne_bytes();
        let kind = if self.from_client { 0 } else { KIND_EGRESS };
        put(offset_of!(SegmentHeader, time_ns), &self.time.to_ne_bytes());
        put(offset_of!(SegmentHeader, cgroup_id), &7_u64.to_ne_bytes());
        put(offset_of!(SegmentHeader, socket_cookie), &u64::from(self.client_port).to_ne_bytes());
        put(offset_of!(SegmentHeader, local_address), &SERVER);
        put(offset_of!(SegmentHeader, remote_address), &CLIENT);
        put(offset_of!(SegmentHeader, local_port), &SERVER_PORT.to_ne_bytes());
        put(offset_of!(SegmentHeader, remote_port), &self.client_port.to_ne_bytes());
        put(offset_of!(SegmentHeader, sequence), &self.sequence.to_ne_bytes());
        put(offset_of!(SegmentHeader, acknowledgement), &self.acknowledgement.to_ne_bytes());
        put(offset_of!(SegmentHeader, payload_length), &length);
        put(offset_of!(SegmentHeader, captured_length), &length);
        put(offset_of!(SegmentHeader, tcp_flags), &[self.flags]);
        put(offset_of!(SegmentHeader, kind), &[kind]);
        put(offset_of!(SegmentHeader, version), &[LAYOUT_VERSION]);
        put(HEADER_LENGTH, &self.payload);
        bytes
    }

    /// The Ethernet frame of a capture file, with its capture time.
    pub(crate) fn frame(&self) -> (u64, Vec<u8>) {
        let (client, server) = ((CLIENT, self.client_port), (SERVER, SERVER_PORT));
        let (source, destination) = if self.from_client { (client, server) } else { (server, client) };
        let mut bytes = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0];
        bytes.extend([0x45, 0]);
        bytes.extend((40 + self.payload.len() as u16).to_be_bytes());
        bytes.extend([0, 1, 0, 0, 64, 6, 0, 0]);
        bytes.extend(source.0);
        bytes.extend(destination.0);
        bytes.extend(source.1.to_be_bytes());
        bytes.extend(destination.1.to_be_bytes());
        bytes.extend(self.sequence.to_be_bytes());
        bytes.extend(self.acknowledgement.to_be_bytes());
        bytes.extend([5 << 4, self.flags, 0xff, 0xff, 0, 0, 0, 0]);
        bytes.extend(&self.payload);
        (self.time, bytes)
    }
}
