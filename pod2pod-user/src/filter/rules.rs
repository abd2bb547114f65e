//! Ports and networks as they are written and compared.

use std::net::IpAddr;

/// Ports from the first to the last, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// `8080` or `8000-8100`; absent if it is neither.
    pub fn parse(text: &str) -> Option<Self> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let (first, last) = (number(first)?, number(last)?);
        (first <= last).then_some(Self { first, last })
    }

    /// Whether `port` is one of them.
    pub fn holds(self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }
}

/// Addresses of one IP version with the same first bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u32,
}

impl Network {
    /// `10.0.0.0/8`, `fd00::/8`, or an address alone; absent if it is neither, or if bits beyond the prefix are set.
    pub fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(number(prefix)?)),
            None => (text, None),
        };
        let address: IpAddr = address.trim().parse().ok()?;
        let width = width(address);
        let prefix = prefix.map_or(width, u32::from);
        let network = Self { address, prefix };
        (prefix <= width && network.first_bits(address) == bits(address)).then_some(network)
    }

    /// Whether `address` is one of them.
    pub fn holds(self, address: IpAddr) -> bool {
        width(address) == width(self.address) && self.first_bits(address) == bits(self.address)
    }

    fn first_bits(self, address: IpAddr) -> u128 {
        let rest = width(address).saturating_sub(self.prefix);
        bits(address).checked_shr(rest).and_then(|bits| bits.checked_shl(rest)).unwrap_or(0)
    }
}

const fn width(address: IpAddr) -> u32 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// A decimal number without a sign.
fn number(text: &str) -> Option<u16> {
    let text = text.trim();
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports() {
        let range = PortRange::parse("8000 - 8100").unwrap();
        for (port, held) in [(7999, false), (8000, true), (8100, true), (8101, false)] {
            assert_eq!(range.holds(port), held, "{port}");
        }
        assert!(PortRange::parse("0-65535").unwrap().holds(65_535));
        for wrong in ["", "-", "8100-8000", "65536", "+80", "http", "80-", "1-2-3"] {
            assert_eq!(PortRange::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn networks() {
        let check = |network: &str, address: &str, held: bool| {
            let parsed = Network::parse(network).unwrap();
            assert_eq!(parsed.holds(address.parse().unwrap()), held, "{network} {address}");
        };
        check("10.0.0.0/8", "10.255.0.1", true);
        check("10.0.0.0/8", "11.0.0.1", false);
        check("10.1.2.3", "10.1.2.3", true);
        check("10.1.2.3", "10.1.2.2", false);
        check("0.0.0.0/0", "1.2.3.4", true);
        check("0.0.0.0/0", "::1", false);
        check("::/0", "1.2.3.4", false);
        check("::/0", "fd00::1", true);
        check("fd00::/8", "fdff::1", true);
        check("fd00::/8", "fe00::1", false);
        check("::1/128", "::1", true);
        for wrong in [
            "",
            "10.0.0.1/8",
            "10.0.0.0/33",
            "::/129",
            "fd00::1/8",
            "10.0.0",
            "a",
            "10.0.0.0/",
            "10.0.0.0/-1",
        ] {
            assert_eq!(Network::parse(wrong), None, "{wrong}");
        }
    }
}
