//! The PROXY protocol header, versions 1 and 2, that a load balancer puts before the first request
//! (haproxy.org/download/2.9/doc/proxy-protocol.txt).
//!
//! Reads addresses only; the TLVs of version 2 are passed over.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The 12 bytes that begin version 2 (section 2.2).
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// Longest header of version 1, CR LF included (section 2.1); what is read of version 2 is shorter.
pub(super) const MAX_LINE: usize = 107;

/// What the first bytes of a connection are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProxyHeader {
    /// Not a PROXY header.
    Absent,
    /// Too few bytes to tell or to read it.
    NeedMore,
    /// A header: bytes to take, bytes to skip behind them (TLVs), and client and destination if it tells them.
    Present { length: usize, skip: u64, addresses: Option<(SocketAddr, SocketAddr)> },
}

/// A header that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ProxyRead {
    /// Its bytes, without TLVs.
    pub(super) header: Vec<u8>,
    /// Client and destination if it tells them.
    pub(super) addresses: Option<(SocketAddr, SocketAddr)>,
}

/// Reads the header at the beginning of a connection's bytes.
pub(super) fn read(bytes: &[u8]) -> ProxyHeader {
    if begins(bytes, SIGNATURE) {
        return read_version_2(bytes);
    }
    if begins(bytes, b"PROXY ") { read_version_1(bytes) } else { ProxyHeader::Absent }
}

/// Whether one is the beginning of the other.
fn begins(bytes: &[u8], pattern: &[u8]) -> bool {
    bytes.iter().zip(pattern).all(|(one, other)| one == other)
}

fn read_version_1(bytes: &[u8]) -> ProxyHeader {
    let window = bytes.get(..MAX_LINE).unwrap_or(bytes);
    let Some(end) = memchr::memchr(b'\n', window) else {
        return if bytes.len() < MAX_LINE { ProxyHeader::NeedMore } else { ProxyHeader::Absent };
    };
    let line = window.get(..end).unwrap_or_default();
    let Some(line) = line.strip_suffix(b"\r").and_then(|line| str::from_utf8(line).ok()) else {
        return ProxyHeader::Absent;
    };
    let mut words = line.split(' ').skip(1);
    let addresses = match words.next() {
        Some("TCP4" | "TCP6") => {
            let mut next = || words.next();
            let (source, destination) = (next().map(str::parse), next().map(str::parse));
            let (source_port, destination_port) = (next().map(str::parse), next().map(str::parse));
            let (Some(Ok(source)), Some(Ok(destination))) = (source, destination) else {
                return ProxyHeader::Absent;
            };
            let (Some(Ok(source_port)), Some(Ok(destination_port))) = (source_port, destination_port) else {
                return ProxyHeader::Absent;
            };
            Some((SocketAddr::new(source, source_port), SocketAddr::new(destination, destination_port)))
        }
        Some("UNKNOWN") => None,
        _ => return ProxyHeader::Absent,
    };
    ProxyHeader::Present { length: end + 1, skip: 0, addresses }
}

fn read_version_2(bytes: &[u8]) -> ProxyHeader {
    let Some(&[command, family, high, low]) = bytes.get(12..16) else { return ProxyHeader::NeedMore };
    if command >> 4 != 2 || command & 0x0f > 1 {
        return ProxyHeader::Absent;
    }
    let body_length = u16::from_be_bytes([high, low]);
    // Stream over IPv4 or IPv6; LOCAL, UNSPEC, datagrams and AF_UNIX tell no address that is of use.
    let wanted: u16 = match (command & 0x0f, family) {
        (1, 0x11) if body_length >= 12 => 12,
        (1, 0x21) if body_length >= 36 => 36,
        _ => 0,
    };
    let length = 16 + usize::from(wanted);
    let Some(body) = bytes.get(16..length) else { return ProxyHeader::NeedMore };
    let skip = u64::from(body_length - wanted);
    ProxyHeader::Present { length, skip, addresses: read_addresses(body) }
}

fn read_addresses(body: &[u8]) -> Option<(SocketAddr, SocketAddr)> {
    let (addresses, ports) = body.split_at_checked(body.len().checked_sub(4)?)?;
    let (source, destination) = addresses.split_at(addresses.len() / 2);
    let &[source_high, source_low, destination_high, destination_low] = ports else { return None };
    let socket = |address: &[u8], high, low| {
        Some(SocketAddr::new(address_of(address)?, u16::from_be_bytes([high, low])))
    };
    Some((socket(source, source_high, source_low)?, socket(destination, destination_high, destination_low)?))
}

fn address_of(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(bytes) = <[u8; 4]>::try_from(bytes) {
        return Some(Ipv4Addr::from(bytes).into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(|bytes| Ipv6Addr::from(bytes).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(header: &[u8], skip: u64, addresses: Option<(&str, &str)>) {
        let bytes = [header, b"GET / HTTP/1.1\r\n\r\n"].concat();
        let addresses = addresses.map(|(one, other)| (one.parse().unwrap(), other.parse().unwrap()));
        let length = header.len() - skip as usize;
        assert_eq!(read(&bytes), ProxyHeader::Present { length, skip, addresses }, "{header:?}");
        for cut in 0..length {
            assert_eq!(read(&bytes[..cut]), ProxyHeader::NeedMore, "{header:?} cut at {cut}");
        }
    }

    #[test]
    fn version_1() {
        check(b"PROXY TCP4 1.2.3.4 5.6.7.8 111 80\r\n", 0, Some(("1.2.3.4:111", "5.6.7.8:80")));
        check(b"PROXY TCP6 ::1 ::2 111 80\r\n", 0, Some(("[::1]:111", "[::2]:80")));
        check(b"PROXY UNKNOWN\r\n", 0, None);
        check(b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", 0, None);
        for line in
            ["PROXY / HTTP/1.1\r\n", "PROXY TCP4 1.2.3.4\r\n", "PROXY TCP4 a b 1 2\r\n", "GET / HTTP/1.1\r\n"]
        {
            assert_eq!(read(line.as_bytes()), ProxyHeader::Absent, "{line:?}");
        }
    }

    #[test]
    fn a_line_at_its_limit_and_one_past() {
        let line = |length: usize| [b"PROXY UNKNOWN ".as_slice(), &vec![b'x'; length - 16], b"\r\n"].concat();
        let (length, skip, addresses) = (MAX_LINE, 0, None);
        assert_eq!(read(&line(MAX_LINE)), ProxyHeader::Present { length, skip, addresses });
        assert_eq!(read(&line(MAX_LINE + 1)), ProxyHeader::Absent);
    }

    fn version_2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len()).unwrap().to_be_bytes();
        [SIGNATURE.as_slice(), &[command, family], &length, body].concat()
    }

    #[test]
    fn versions_2() {
        let four = [1, 2, 3, 4, 5, 6, 7, 8, 0, 111, 0, 80];
        check(&version_2(0x21, 0x11, &four), 0, Some(("1.2.3.4:111", "5.6.7.8:80")));
        check(
            &version_2(0x21, 0x11, &[&four[..], &[9; 30]].concat()),
            30,
            Some(("1.2.3.4:111", "5.6.7.8:80")),
        );
        let mut six = [0; 36];
        (six[15], six[31], six[33], six[35]) = (1, 2, 111, 80);
        check(&version_2(0x21, 0x21, &six), 0, Some(("[::1]:111", "[::2]:80")));
        check(&version_2(0x20, 0x00, b""), 0, None);
        check(&version_2(0x20, 0x11, &four), 12, None);
        check(&version_2(0x21, 0x00, &[7; 5]), 5, None);
        check(&version_2(0x21, 0x31, &[7; 216]), 216, None);
        assert_eq!(read(&version_2(0x11, 0x11, &four)), ProxyHeader::Absent);
        assert_eq!(read(&version_2(0x22, 0x11, &four)), ProxyHeader::Absent);
        assert_eq!(read(b"\r\n\r\nGET / HTTP/1.1"), ProxyHeader::Absent);
    }
}
