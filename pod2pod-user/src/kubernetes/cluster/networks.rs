//! Networks that pods have addresses in: any other address is nobody's at once. Which they are is not decided here.

use std::net::IpAddr;

use hashbrown::HashMap;

/// Bits of an IPv6 address; an IPv4 address is the mapped one.
const BITS: u8 = 128;
/// Bits before an IPv4 address that is mapped.
const MAPPED: u8 = 96;
/// Around a pod's IPv4 address, others are pods' too: what a node is given by most networks.
const NEIGHBOURS_V4: u8 = MAPPED + 24;
/// The same for IPv6.
const NEIGHBOURS_V6: u8 = 64;

/// An address and how many of its first bits count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Network {
    first: u128,
    bits: u8,
}

impl Network {
    fn new(address: IpAddr, bits: u8) -> Self {
        let number = match address {
            IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
            IpAddr::V6(address) => address.to_bits(),
        };
        let others = u32::from(BITS - bits.min(BITS));
        Self { first: number.checked_shr(others).unwrap_or(0).checked_shl(others).unwrap_or(0), bits }
    }

    /// Reads `10.0.0.0/8`, `fd00::/8`; absent if it is anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let (address, bits) = text.split_once('/')?;
        let (address, bits): (IpAddr, u8) = (address.parse().ok()?, bits.parse().ok()?);
        let bits = if address.is_ipv4() { bits.checked_add(MAPPED)? } else { bits };
        (bits <= BITS).then(|| Self::new(address, bits))
    }

    /// Addresses near `address`.
    pub(super) fn around(address: IpAddr) -> Self {
        Self::new(address, if address.is_ipv4() { NEIGHBOURS_V4 } else { NEIGHBOURS_V6 })
    }
}

/// Networks, each as often as it was added.
#[derive(Clone, Debug, Default)]
pub(super) struct Networks {
    all: HashMap<Network, u32, foldhash::fast::RandomState>,
    /// Lengths of them, and how many have it: a few.
    lengths: Vec<(u8, u32)>,
}

impl Networks {
    pub(super) fn add(&mut self, network: Network) {
        let count = self.all.entry(network).or_insert(0);
        *count += 1;
        if *count > 1 {
            return;
        }
        match self.lengths.iter_mut().find(|(bits, _)| *bits == network.bits) {
            Some((_, networks)) => *networks += 1,
            None => self.lengths.push((network.bits, 1)),
        }
    }

    pub(super) fn remove(&mut self, network: Network) {
        let Some(count) = self.all.get_mut(&network) else { return };
        *count -= 1;
        if *count > 0 {
            return;
        }
        self.all.remove(&network);
        self.lengths.iter_mut().filter(|(bits, _)| *bits == network.bits).for_each(|(_, count)| *count -= 1);
        self.lengths.retain(|(_, networks)| *networks > 0);
    }

    pub(super) fn hold(&self, address: IpAddr) -> bool {
        self.lengths.iter().any(|(bits, _)| self.all.contains_key(&Network::new(address, *bits)))
    }

    pub(super) fn bytes(&self) -> usize {
        self.all.capacity() * (size_of::<(Network, u32)>() + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn networks_hold_their_addresses_as_long_as_they_are_there() {
        let mut networks = Networks::default();
        let added = ["10.1.0.0/16", "10.1.2.3/16", "fd00:1::/32", "0.0.0.0/32", "192.168.1.7/32"];
        let parsed = || added.iter().map(|text| Network::parse(text).unwrap());
        parsed().for_each(|network| networks.add(network));
        for (text, expected) in [
            ("10.1.255.255", true),
            ("10.2.0.0", false),
            ("fd00:1:ffff::1", true),
            ("fd00:2::", false),
            ("192.168.1.7", true),
            ("192.168.1.8", false),
            ("::a01:203", false),
        ] {
            assert_eq!(networks.hold(address(text)), expected, "{text}");
        }
        networks.remove(Network::parse("10.1.0.0/16").unwrap());
        assert!(networks.hold(address("10.1.2.3")), "added twice");
        networks.remove(Network::parse("10.1.0.0/16").unwrap());
        assert!(!networks.hold(address("10.1.2.3")));
        networks.remove(Network::parse("10.1.0.0/16").unwrap());
        networks.add(Network::parse("::/0").unwrap());
        assert!(networks.hold(address("10.1.2.3")) && networks.hold(address("fe80::1")));
    }

    #[test]
    fn a_pods_neighbours_are_near() {
        let mut networks = Networks::default();
        networks.add(Network::around(address("10.1.2.3")));
        networks.add(Network::around(address("fd00:1:2:3::4")));
        for (text, expected) in
            [("10.1.2.255", true), ("10.1.3.3", false), ("fd00:1:2:3:ff::", true), ("fd00:1:2:4::4", false)]
        {
            assert_eq!(networks.hold(address(text)), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_network_is_none() {
        for text in
            ["10.0.0.0", "10.0.0.0/33", "::/129", "10.0.0.0/-1", "a/8", "10.0.0/8", "", "/", "10.0.0.0/200"]
        {
            assert_eq!(Network::parse(text), None, "{text}");
        }
    }
}
