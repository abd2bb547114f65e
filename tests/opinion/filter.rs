//! tcpdump's opinion on expressions: the connections of which it shows a packet are those that `pod2pod replay --filter`
//! tells of.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    path::Path,
};

use anyhow::{Context, Result, ensure};

use crate::{
    listing::{Ends, Listing},
    programs::run,
    replay::{replay, replay_with},
};

/// Two ends: of a connection the lower one first, for which one is the client is not the question.
type Pair = (SocketAddr, SocketAddr);

/// Expressions about a capture, with one of its clients and that client's server put in the place of the letters: address
/// and port of the client are A and P, of the server B and Q.
const EXPRESSIONS: &[&str] = &[
    "",
    "tcp",
    "ip",
    "ip6",
    "not ip6",
    "udp",
    "port P",
    "not port P",
    "port Q",
    "tcp port P or tcp port 1",
    "src port P",
    "dst port P",
    "src port Q and dst port P",
    "src port P and dst port 1",
    "not src port P",
    "dst port Q",
    "portrange P-65535",
    "portrange 1-P",
    "dst portrange P-65535 and not port P",
    "host A",
    "not host A",
    "src host A and dst host B and dst port P",
    "host A and port P",
    "tcp port Q and not host A",
    "net 127.0.0.0/8",
    "net 10.0.0.0/8 or ip6 net ::/64",
    "not net 10.0.0.0/8",
    "ip proto 6 and portrange P-65535",
    "ip6 proto 6",
    "ip proto 17",
    "tcp[0:2] = P",
    "tcp[2:2] > P",
    "ip[12:4] = ip[16:4]",
    "ip[9] = 6 and ip[6:2] & 0x1fff = 0 and port P",
    "ip6[40:2] = P",
    "ether proto 0x86dd",
    "not arp and (port P or port 1)",
    "icmp or port P",
];

/// Complaints about one capture.
pub(crate) fn judge(capture: &Path, directory: &Path) -> Result<Vec<String>> {
    let listing = replay(capture, directory, &[0])?;
    // Where only one direction was captured, tcpdump cannot show the other, by which a connection may be kept as well.
    let unfiltered = directions(capture, "", directory)?;
    let both_ways = |pair: &Pair| unfiltered.contains(pair) && unfiltered.contains(&(pair.1, pair.0));
    let all: BTreeSet<Pair> = pairs(&listing).into_iter().filter(both_ways).collect();
    // One from the middle, so that there are others on both sides of its port.
    let Ends { client, server } = *listing.keys().nth(listing.len() / 2).context("no connection in it")?;
    let mut wrong = Vec::new();
    for expression in EXPRESSIONS {
        let expression = filled_in(expression, client, server);
        let shown = directions(capture, &expression, directory)?;
        let shown = shown.into_iter().map(|(from, to)| (from.min(to), from.max(to))).collect();
        let theirs: BTreeSet<Pair> = all.intersection(&shown).copied().collect();
        let ours = pairs(&replay_with(capture, directory, &["--filter", &expression])?);
        let ours: BTreeSet<Pair> = all.intersection(&ours).copied().collect();
        if theirs != ours {
            let name = capture.display();
            wrong.push(format!("{name}: {expression:?}: tcpdump {theirs:?}, pod2pod {ours:?}"));
        }
    }
    Ok(wrong)
}

fn filled_in(expression: &str, client: SocketAddr, server: SocketAddr) -> String {
    let words = expression.split_inclusive(|c: char| !c.is_ascii_alphanumeric());
    let word = |word: &str| {
        let (name, rest) = word.split_at(word.trim_end_matches(|c: char| !c.is_ascii_alphanumeric()).len());
        let value = match name {
            "A" => client.ip().to_string(),
            "P" => client.port().to_string(),
            "B" => server.ip().to_string(),
            "Q" => server.port().to_string(),
            other => other.to_owned(),
        };
        value + rest
    };
    words.map(word).collect()
}

fn pairs(listing: &Listing) -> BTreeSet<Pair> {
    listing.keys().map(|Ends { client, server }| (*client.min(server), *client.max(server))).collect()
}

/// Sender and receiver of all packets that tcpdump shows.
fn directions(capture: &Path, expression: &str, directory: &Path) -> Result<BTreeSet<Pair>> {
    let file = capture.display().to_string();
    let text = run("tcpdump", &["-t", "-n", "-r", &file, expression], directory, &[0])?;
    let text = String::from_utf8_lossy(&text).into_owned();
    let pairs: BTreeSet<Pair> = text.lines().filter_map(pair).collect();
    ensure!(text.is_empty() || !pairs.is_empty(), "tcpdump's lines are not understood: {text}");
    Ok(pairs)
}

/// The ends in a line such as `IP 10.0.0.1.40000 > 10.0.0.2.80: Flags [S], …`.
fn pair(line: &str) -> Option<Pair> {
    let (before, after) = line.split_once(" > ")?;
    let from = end(before.split_whitespace().next_back()?)?;
    let to = end(after.split_whitespace().next()?.strip_suffix(':')?)?;
    Some((from, to))
}

fn end(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.rsplit_once('.')?;
    Some(SocketAddr::new(address.parse::<IpAddr>().ok()?, port.parse().ok()?))
}

mod tests {
    use super::*;

    fn ends(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn lines_of_tcpdump() {
        let four = pair("IP 10.0.0.2.80 > 10.0.0.1.40000: Flags [S.], seq 1, length 0");
        assert_eq!(four, Some((ends("10.0.0.2:80"), ends("10.0.0.1:40000"))));
        let six = pair("IP6 ::1.4000 > ::1.80: Flags [P.], seq 1:5, length 4: HTTP: GET / HTTP/1.1 > x");
        assert_eq!(six, Some((ends("[::1]:4000"), ends("[::1]:80"))));
        assert_eq!(pair("ARP, Request who-has 10.0.0.1 tell 10.0.0.2, length 28"), None);
    }

    #[test]
    fn letters_are_filled_in_as_words() {
        let filled =
            filled_in("host A and portrange P-65535 or tcp[0:2] = Q", ends("[::1]:5"), ends("[::2]:80"));
        assert_eq!(filled, "host ::1 and portrange 5-65535 or tcp[0:2] = 80");
    }
}
