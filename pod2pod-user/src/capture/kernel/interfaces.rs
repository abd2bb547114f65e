//! Network interfaces: what they are, which of them are watched, and whose end is seen on one. Knows no socket and no
//! program.

use std::fmt;

use globset::{Glob, GlobMatcher};

/// Longest name of an interface, bytes (linux/if.h, IFNAMSIZ less the terminator).
pub const MAX_INTERFACE_NAME: usize = 15;
/// The word for all host-side veths in a list of patterns.
pub const HOST_VETHS: &str = "veth";

/// Kinds (`IFLA_INFO_KIND`) whose packets are on their way between other ends: bridges, and the inner side of tunnels.
const FORWARDING_KINDS: &[&str] = &[
    "bridge",
    "openvswitch",
    "vrf",
    "ifb",
    "vxlan",
    "geneve",
    "gre",
    "gretap",
    "ip6gre",
    "ip6gretap",
    "erspan",
    "ip6erspan",
    "ipip",
    "ip6tnl",
    "sit",
    "vti",
    "vti6",
    "xfrm",
    "wireguard",
];
/// Kinds that are a pair of ends, one of which is usually moved into a pod.
const PAIRED_KINDS: &[&str] = &["veth", "netkit"];

/// What the kernel says of an interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Interface {
    /// Its number in this network namespace.
    pub(super) index: u32,
    /// Its name.
    pub(super) name: String,
    /// `IFLA_INFO_KIND`; empty for a device driver's.
    pub(super) kind: String,
    /// `ARPHRD_*`.
    pub(super) hardware: u16,
    /// `IFLA_LINK`: the other end of a pair, the interface below a VLAN.
    pub(super) link: Option<u32>,
    /// That one is in another network namespace.
    pub(super) link_elsewhere: bool,
    /// A bridge, bond or VRF has it.
    pub(super) enslaved: bool,
    /// A default route of this network namespace leads through it.
    pub(super) uplink: bool,
}

/// Whose end is seen at an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum View {
    /// Somebody is behind it: what comes in was sent by that end.
    Behind,
    /// This machine is the end: what comes in was received by it.
    Here,
    /// Neither.
    Path,
}

impl Interface {
    /// A veth (or netkit) whose other end is in another network namespace. The uplink of a container that plays a
    /// machine is one too, seen from inside; there the default route leads through it.
    pub(super) fn is_host_veth(&self) -> bool {
        PAIRED_KINDS.contains(&self.kind.as_str()) && self.link_elsewhere && !self.uplink
    }

    /// A network card as far as this machine can tell.
    pub(super) fn is_card(&self) -> bool {
        self.uplink || (self.kind.is_empty() && self.hardware == libc::ARPHRD_ETHER)
    }

    /// Whose end is seen.
    pub(super) fn view(&self) -> View {
        let tap = self.kind == "tun" && self.hardware == libc::ARPHRD_ETHER && self.enslaved;
        if self.is_host_veth() || tap {
            View::Behind
        } else if FORWARDING_KINDS.contains(&self.kind.as_str()) || self.is_local_pair() {
            View::Path
        } else {
            View::Here
        }
    }

    /// Both ends of the pair are in this network namespace.
    fn is_local_pair(&self) -> bool {
        PAIRED_KINDS.contains(&self.kind.as_str()) && !self.link_elsewhere && !self.uplink
    }
}

/// Some interfaces, by name or otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// Every host-side veth.
    HostVeths,
    /// The one of this name.
    Name(String),
    /// Those whose names match.
    Glob(Glob),
}

impl Pattern {
    /// Understands `text`; absent if no interface can be called so.
    pub fn parse(text: &str) -> Option<Self> {
        let impossible = |letter: char| letter == '/' || letter.is_whitespace() || letter.is_control();
        if text.is_empty() || text.contains(impossible) {
            return None;
        }
        if text == HOST_VETHS {
            return Some(Self::HostVeths);
        }
        if text.contains(['*', '?', '[', '{']) {
            return Glob::new(text).ok().map(Self::Glob);
        }
        (text.len() <= MAX_INTERFACE_NAME).then(|| Self::Name(text.to_owned()))
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::HostVeths => HOST_VETHS,
            Self::Name(name) => name,
            Self::Glob(glob) => glob.glob(),
        })
    }
}

/// Which interfaces are watched.
#[derive(Clone, Debug)]
pub(super) struct Selection {
    veths: bool,
    cards: bool,
    names: Vec<String>,
    globs: Vec<GlobMatcher>,
    patterns: Vec<Pattern>,
}

impl Selection {
    /// What `patterns` say; without any the host-side veths, and the cards if `present` has no such veth: with pods
    /// each of their connections is seen at their own end, and on a card again.
    pub(super) fn new(patterns: &[Pattern], present: &[Interface]) -> Self {
        let unsaid = patterns.is_empty();
        let mut selection = Self {
            veths: unsaid || patterns.contains(&Pattern::HostVeths),
            cards: unsaid && !present.iter().any(Interface::is_host_veth),
            names: Vec::new(),
            globs: Vec::new(),
            patterns: patterns.to_vec(),
        };
        for pattern in patterns {
            match pattern {
                Pattern::HostVeths => {}
                Pattern::Name(name) => selection.names.push(name.clone()),
                Pattern::Glob(glob) => selection.globs.push(glob.compile_matcher()),
            }
        }
        selection
    }

    /// Whether `interface` is one of them.
    pub(super) fn wants(&self, interface: &Interface) -> bool {
        (self.veths && interface.is_host_veth())
            || (self.cards && interface.is_card())
            || self.names.contains(&interface.name)
            || self.globs.iter().any(|glob| glob.is_match(&interface.name))
    }

    /// Patterns that none of `present` is meant by.
    pub(super) fn unmatched(&self, present: &[Interface]) -> Vec<String> {
        let alone = |pattern: &Pattern| Self::new(std::slice::from_ref(pattern), present);
        let matched = |pattern: &Pattern| present.iter().any(|interface| alone(pattern).wants(interface));
        self.patterns.iter().filter(|pattern| !matched(pattern)).map(Pattern::to_string).collect()
    }
}

impl fmt::Display for Selection {
    /// For people.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.patterns.is_empty() {
            return formatter.write_str(if self.cards {
                "network cards, as there is no host-side veth yet, and host-side veths"
            } else {
                "host-side veths"
            });
        }
        let patterns: Vec<_> = self.patterns.iter().map(Pattern::to_string).collect();
        formatter.write_str(&patterns.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(name: &str, kind: &str, link_elsewhere: bool) -> Interface {
        Interface {
            name: name.to_owned(),
            kind: kind.to_owned(),
            hardware: libc::ARPHRD_ETHER,
            link_elsewhere,
            ..Interface::default()
        }
    }

    fn patterns(texts: &[&str]) -> Vec<Pattern> {
        texts.iter().map(|text| Pattern::parse(text).unwrap()).collect()
    }

    #[test]
    fn names_are_as_long_as_the_kernel_allows() {
        let longest = "i".repeat(MAX_INTERFACE_NAME);
        assert_eq!(Pattern::parse(&longest), Some(Pattern::Name(longest.clone())));
        for refused in [format!("{longest}i").as_str(), "", "a b", "a/b", "eth[", "e\u{1}*"] {
            assert_eq!(Pattern::parse(refused), None, "{refused:?}");
        }
    }

    #[test]
    fn the_view_follows_what_is_behind() {
        let uplink = Interface { uplink: true, ..interface("eth0", "veth", true) };
        let guest = Interface { enslaved: true, ..interface("vnet0", "tun", false) };
        let cases = [
            (interface("eth0", "", false), View::Here),
            (interface("veth1", "veth", true), View::Behind),
            (interface("lxc1", "netkit", true), View::Behind),
            (interface("veth1", "veth", false), View::Path),
            (interface("eth0.7", "vlan", false), View::Here),
            (interface("bond0", "bond", false), View::Here),
            (interface("cni0", "bridge", false), View::Path),
            (interface("flannel.1", "vxlan", false), View::Path),
            (interface("tap0", "tun", false), View::Here),
            (guest, View::Behind),
            (uplink, View::Here),
        ];
        for (interface, view) in cases {
            assert_eq!(interface.view(), view, "{interface:?}");
        }
    }

    #[test]
    fn without_patterns_cards_are_watched_only_where_there_are_no_pods() {
        let card = interface("eth0", "", false);
        let veth = interface("veth1", "veth", true);
        let alone = Selection::new(&[], std::slice::from_ref(&card));
        assert!(alone.wants(&card) && alone.wants(&veth));
        let with_pods = Selection::new(&[], &[card.clone(), veth.clone()]);
        assert!(!with_pods.wants(&card) && with_pods.wants(&veth));
        assert!(!with_pods.wants(&interface("cni0", "bridge", false)));
    }

    #[test]
    fn patterns_mean_what_they_say() {
        let selection = Selection::new(&patterns(&["eth0", "cali*", "veth", "none*"]), &[]);
        let wanted = [
            interface("eth0", "", false),
            interface("cali7", "veth", true),
            interface("x", "veth", true),
            interface("cali8", "dummy", false),
        ];
        for interface in &wanted {
            assert!(selection.wants(interface), "{interface:?}");
        }
        for interface in [interface("eth1", "", false), interface("veth0", "veth", false)] {
            assert!(!selection.wants(&interface), "{interface:?}");
        }
        assert_eq!(selection.unmatched(&wanted), ["none*"]);
        assert_eq!(selection.to_string(), "eth0, cali*, veth, none*");
    }
}
