//! Naming: who the ends of a connection were, at the time of an exchange. The observed end by its cgroup, the other by its address.
//!
//! Answers are remembered for as long as they hold, so that an exchange costs a look-up an end. What nobody knows yet is said to be
//! known [`Named::Later`]; who waits is not known here. Instants are durations after a moment that stays the same.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use hashbrown::HashMap;

use crate::{
    kubernetes::{addresses::Found, cgroup::Place, identity::Identity},
    record::{Extra, Party, PartyKind, Role},
};

/// Answers that are remembered of addresses, and again of cgroups. Past it all are forgotten and asked for anew: more than the peers
/// of a busy node, and about 200 bytes each.
pub const MAX_REMEMBERED: usize = 8192;

/// Whose socket it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Socket {
    /// This one's: a pod's, or the node's own.
    Of(Box<Identity>),
    /// Not known yet: ask again then.
    Later(Duration),
    /// Nobody can say: its cgroup is gone, or numbers of cgroups say nothing here.
    Unknown,
}

/// Who knows.
pub trait Who {
    /// Another number after anything came that may change answers.
    fn version(&self) -> u64;

    /// Whose the sockets of a cgroup are, `now`; of one that was called, where that is.
    fn socket(&mut self, cgroup_id: u64, called: Option<SocketAddr>, now: Duration) -> Socket;

    /// Whose `address` was `at` that moment, as is known `now`. Of who asks the port is 0: it says nothing.
    fn address(&mut self, address: SocketAddr, at: Duration, now: Duration) -> Found<Identity>;

    /// Whether an address that is nobody's is outside of the cluster: all lists are there, and it is of no network that pods have.
    fn is_outside(&self, address: IpAddr) -> bool;

    /// Whether records have this label or annotation of a pod.
    fn shows(&self, what: Extra, key: &str) -> bool;
}

/// Between whom, and when.
#[derive(Clone, Copy, Debug)]
pub struct Ends {
    /// The client, from a PROXY protocol header if there was one.
    pub client: (IpAddr, u16),
    /// The server's end of the connection.
    pub server: (IpAddr, u16),
    /// Which of them has the observed socket; none on a path, and where a proxy speaks for the client.
    pub local: Option<Role>,
    /// The cgroup of the observed socket; 0 if it is not known.
    pub cgroup_id: u64,
    /// Where the connection was led, if its server's end is a Service's own and that is known.
    pub real: Option<SocketAddr>,
    /// When.
    pub at: Duration,
}

/// Who they are: client, server.
pub type Parties = [Option<Arc<Party>>; 2];

/// What is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Named {
    /// All that will be.
    Now(Parties),
    /// More will be known then; those given are certain.
    Later(Duration, Parties),
}

/// What was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Ends that are somebody in the cluster, or outside of it.
    pub ends_named: u64,
    /// Of these, as they were when there last was contact with the API server.
    pub ends_stale: u64,
    /// Ends of which nobody knows who they were, or which of several.
    pub ends_unknown: u64,
    /// Times that all remembered answers were forgotten because there were too many.
    pub forgotten: u64,
}

/// An answer, good from a moment on for as long as nothing new comes.
#[derive(Clone, Debug)]
struct Known {
    version: u64,
    from: Duration,
    party: Option<Arc<Party>>,
}

/// What came of one end.
enum End {
    Party(Option<Arc<Party>>),
    Later(Duration),
}

/// Names ends, and remembers. One worker's.
#[derive(Debug, Default)]
pub struct Naming {
    /// By cgroup, and of a server by its port.
    sockets: HashMap<(u64, u16), Known, foldhash::fast::RandomState>,
    /// Who is at the other end of a connection that does not leave the machine of the first.
    mates: HashMap<u64, (Arc<Party>, Arc<Party>), foldhash::fast::RandomState>,
    addresses: HashMap<SocketAddr, Known, foldhash::fast::RandomState>,
    /// Pods behind a Service's address, by that and theirs: of which parties they were made.
    behind: HashMap<(SocketAddr, SocketAddr), [Arc<Party>; 3], foldhash::fast::RandomState>,
    stats: Stats,
}

impl Naming {
    /// Who the ends are, as far as is known `now`.
    pub fn name(&mut self, who: &mut dyn Who, ends: &Ends, now: Duration) -> Named {
        let observed = match ends.local {
            Some(role) if ends.cgroup_id != 0 => {
                let called = (role == Role::Server).then(|| SocketAddr::from(ends.server));
                self.socket(who, ends.cgroup_id, called, now)
            }
            _ => End::Party(None),
        };
        let local = match &observed {
            End::Party(party) => party.clone(),
            End::Later(_) => None,
        };
        let mut until: Option<Duration> = None;
        let mut parties = [None, None];
        for (role, party) in [Role::Client, Role::Server].into_iter().zip(&mut parties) {
            let (ip, port) = if role == Role::Client { (ends.client.0, 0) } else { ends.server };
            let is_local = ends.local == Some(role);
            let end = match (&observed, &local) {
                (_, Some(local)) if is_local => End::Party(Some(Arc::clone(local))),
                (End::Later(then), _) if is_local || ip.is_loopback() => End::Later(*then),
                (_, Some(local)) if ip.is_loopback() => End::Party(self.mate(who, ends.cgroup_id, local)),
                _ if ip.is_loopback() => End::Party(None),
                _ => self.address(who, SocketAddr::new(ip, port), ends.at, now),
            };
            let then = match end {
                End::Party(Some(service))
                    if ends.real.is_some() && role == Role::Server && is_bare(&service) =>
                {
                    let (found, then) = self.behind(who, service, ends, now);
                    *party = Some(found);
                    then
                }
                End::Party(found) => {
                    *party = found;
                    None
                }
                End::Later(then) => Some(then),
            };
            until = until.max(then);
        }
        match until {
            Some(then) => Named::Later(then, parties),
            None => Named::Now(parties),
        }
    }

    /// Counts what was told of two ends.
    pub fn count(&mut self, parties: &Parties) {
        for party in parties {
            match party {
                None => self.stats.ends_unknown += 1,
                Some(party) => {
                    self.stats.ends_named += 1;
                    self.stats.ends_stale += u64::from(party.is_stale);
                }
            }
        }
    }

    /// What was counted.
    pub const fn stats(&self) -> &Stats {
        &self.stats
    }

    fn socket(
        &mut self,
        who: &mut dyn Who,
        cgroup_id: u64,
        called: Option<SocketAddr>,
        now: Duration,
    ) -> End {
        let version = who.version();
        let key = (cgroup_id, called.map_or(0, |called| called.port()));
        let known = self.sockets.get(&key);
        if let Some(known) = known
            && known.version == version
        {
            return End::Party(known.party.clone());
        }
        let last = known.and_then(|known| known.party.clone());
        let party = match who.socket(cgroup_id, called, now) {
            Socket::Of(identity) => Some(party(who, *identity, false, last)),
            Socket::Later(then) => return End::Later(then),
            Socket::Unknown => None,
        };
        self.make_room();
        self.sockets.insert(key, Known { version, from: Duration::ZERO, party: party.clone() });
        End::Party(party)
    }

    /// Who is behind a loopback address beside `local`: the pod itself, by another of its sockets, or something on the node. Nobody
    /// knows it of a pod that only its cgroup tells: it may be in the network of its node.
    fn mate(&mut self, who: &dyn Who, cgroup_id: u64, local: &Arc<Party>) -> Option<Arc<Party>> {
        if local.identity.pod.is_none() && local.identity.place.is_some() {
            return None;
        }
        if let Some((of, mate)) = self.mates.get(&cgroup_id)
            && Arc::ptr_eq(of, local)
        {
            return Some(Arc::clone(mate));
        }
        // Many are in the network of a node.
        let pod = local.identity.pod.clone().filter(|_| local.identity.node.is_none());
        // Which container is not known.
        let place = local.identity.place.filter(|_| local.identity.node.is_none());
        let place = place.map(|place| Place { container: None, ..place });
        let identity = Identity { pod, place, node: local.identity.node.clone(), ..Identity::default() };
        let mate = party(who, identity, local.is_stale, None);
        self.make_room();
        self.mates.insert(cgroup_id, (Arc::clone(local), Arc::clone(&mate)));
        Some(mate)
    }

    fn address(&mut self, who: &mut dyn Who, address: SocketAddr, at: Duration, now: Duration) -> End {
        let version = who.version();
        let known = self.addresses.get(&address);
        if let Some(known) = known
            && known.version == version
            && known.from <= at
        {
            return End::Party(known.party.clone());
        }
        let last = known.and_then(|known| known.party.clone());
        let (answer, remembers) = match who.address(address, at, now) {
            Found::Held(identity) => {
                // It lasts if nothing says that it will end.
                let lasts = who.address(address, now, now) == Found::Held(identity.clone());
                (Some(party(who, identity, false, last)), lasts)
            }
            Found::Stale(identity) => (Some(party(who, identity, true, last)), false),
            Found::Nobody if who.is_outside(address.ip()) => {
                (Some(party(who, Identity::default(), false, last)), true)
            }
            Found::Nobody | Found::Several => (None, false),
            // Who it seems to be may turn out to be the wrong one.
            Found::Early(then, _) => return End::Later(then),
        };
        if remembers {
            self.make_room();
            self.addresses.insert(address, Known { version, from: at, party: answer.clone() });
        }
        End::Party(answer)
    }

    /// The pod behind the Service that was called, by the address that the connection was led to; the Service itself if that is no
    /// pod's, or as long as it is not known whose it is, with when it will be.
    fn behind(
        &mut self,
        who: &mut dyn Who,
        service: Arc<Party>,
        ends: &Ends,
        now: Duration,
    ) -> (Arc<Party>, Option<Duration>) {
        let Some(real) = ends.real else { return (service, None) };
        let pod = match self.address(who, real, ends.at, now) {
            End::Later(then) => return (service, Some(then)),
            End::Party(Some(pod)) if pod.identity.pod.is_some() => pod,
            End::Party(_) => return (service, None),
        };
        if pod.identity.service == service.identity.service && pod.is_stale >= service.is_stale {
            return (pod, None);
        }
        let key = (SocketAddr::from(ends.server), real);
        if let Some([of, by, made]) = self.behind.get(&key)
            && Arc::ptr_eq(of, &service)
            && Arc::ptr_eq(by, &pod)
        {
            return (Arc::clone(made), None);
        }
        let identity = Identity { service: service.identity.service.clone(), ..pod.identity.clone() };
        let made = party(who, identity, pod.is_stale || service.is_stale, None);
        self.make_room();
        self.behind.insert(key, [service, pod, Arc::clone(&made)]);
        (made, None)
    }

    fn make_room(&mut self) {
        let Self { sockets, mates, addresses, behind, stats } = self;
        let most = addresses.len().max(sockets.len()).max(behind.len());
        if most >= MAX_REMEMBERED {
            addresses.clear();
            behind.clear();
            sockets.clear();
            mates.clear();
            stats.forgotten += 1;
        }
    }
}

/// Whether it is a Service by its own address: a pod may be behind it.
pub fn is_bare(party: &Party) -> bool {
    party.kind == PartyKind::Service && party.identity.node.is_none()
}

/// The party of an identity: `last` if that is still so, with the text that it has already.
fn party(who: &dyn Who, identity: Identity, is_stale: bool, last: Option<Arc<Party>>) -> Arc<Party> {
    match last {
        Some(last) if last.identity == identity && last.is_stale == is_stale => last,
        _ => Arc::new(Party::new(identity, is_stale, |what, key| who.shows(what, key))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubernetes::{cgroup::PodUid, identity::Pod};

    const NOW: Duration = Duration::from_secs(100);
    /// A pod of its own, one in the network of its node, and one that nobody knows.
    const OWN: u64 = 1;
    const ON_HOST: u64 = 2;
    const STRANGER: u64 = 3;
    /// A pod of which its cgroup is known, and nothing else.
    const BY_CGROUP: u64 = 4;

    fn pod(name: &str) -> Arc<Pod> {
        Arc::new(Pod {
            namespace: "shop".into(),
            name: name.into(),
            uid: PodUid::parse(&"0".repeat(32)).unwrap(),
            node: Some("node-a".into()),
            zone: None,
            workload: None,
            labels: Box::default(),
            annotations: Box::default(),
        })
    }

    fn identity(name: &str) -> Identity {
        Identity { pod: Some(pod(name)), ..Identity::default() }
    }

    /// Knows each address by its last byte: 1 is a pod, 2 is known after 103 s only, 3 is stale, 4 several had, 5 is nobody's
    /// and may be a pod's; anything else is outside.
    #[derive(Default)]
    struct Fake {
        version: u64,
        asked: u64,
        /// Whether what is asked for will last.
        ends: bool,
        /// Where the socket was called that was asked for last.
        called: Option<SocketAddr>,
    }

    impl Who for Fake {
        fn version(&self) -> u64 {
            self.version
        }

        fn socket(&mut self, cgroup_id: u64, called: Option<SocketAddr>, _now: Duration) -> Socket {
            self.asked += 1;
            self.called = called;
            match cgroup_id {
                OWN => Socket::Of(Box::new(Identity { container: Some("main".into()), ..identity("own") })),
                ON_HOST => {
                    Socket::Of(Box::new(Identity { node: Some("node-a".into()), ..identity("on-host") }))
                }
                STRANGER => Socket::Later(NOW + Duration::from_secs(5)),
                BY_CGROUP => {
                    let uid = PodUid::parse(&"1".repeat(32)).unwrap();
                    let place = Some(Place { pod: uid, container: None });
                    Socket::Of(Box::new(Identity { place, ..Identity::default() }))
                }
                _ => Socket::Unknown,
            }
        }

        fn address(&mut self, address: SocketAddr, at: Duration, now: Duration) -> Found<Identity> {
            self.asked += 1;
            let last = match address.ip() {
                IpAddr::V4(address) => address.octets()[3],
                IpAddr::V6(_) => 0,
            };
            let known = NOW + Duration::from_secs(3);
            match last {
                1 if self.ends && at == now => Found::Early(at + Duration::from_secs(5), None),
                1 => Found::Held(identity("one")),
                2 if now < known => Found::Early(known, Some(identity("wrong"))),
                2 => Found::Held(identity("two")),
                3 => Found::Stale(identity("three")),
                4 => Found::Several,
                _ => Found::Nobody,
            }
        }

        fn is_outside(&self, address: IpAddr) -> bool {
            !address.to_string().ends_with(".5")
        }

        fn shows(&self, _what: Extra, _key: &str) -> bool {
            false
        }
    }

    fn ends(client: &str, server: &str, local: Option<Role>, cgroup_id: u64) -> Ends {
        let [client, server] = [client, server].map(|text| text.parse::<IpAddr>().unwrap());
        Ends { client: (client, 40_000), server: (server, 80), local, cgroup_id, real: None, at: NOW }
    }

    /// Names for people; `-` if there is none, `~` before one that is stale.
    fn names(parties: &Parties) -> [String; 2] {
        parties.each_ref().map(|party| {
            party.as_ref().map_or_else(
                || "-".to_owned(),
                |party| {
                    let name = party.name().unwrap_or_else(|| party.kind.as_str().to_owned());
                    format!("{}{name}", if party.is_stale { "~" } else { "" })
                },
            )
        })
    }

    #[test]
    fn the_observed_end_goes_by_its_cgroup_and_the_other_by_its_address() {
        const CLIENT: Option<Role> = Some(Role::Client);
        const SERVER: Option<Role> = Some(Role::Server);
        let later = |seconds| Some(NOW + Duration::from_secs(seconds));
        for (ends, expected, until) in [
            (ends("10.0.0.3", "10.0.0.1", CLIENT, OWN), ["shop/own", "shop/one"], None),
            (ends("10.0.0.1", "10.0.0.3", SERVER, OWN), ["shop/one", "shop/own"], None),
            (ends("10.0.0.1", "10.0.0.3", None, OWN), ["shop/one", "~shop/three"], None),
            // The cgroup says nothing.
            (ends("10.0.0.1", "10.0.0.9", CLIENT, 9), ["shop/one", "outside"], None),
            (ends("10.0.0.1", "10.0.0.9", CLIENT, 0), ["shop/one", "outside"], None),
            (ends("10.0.0.4", "10.0.0.5", None, 0), ["-", "-"], None),
            // Who it seems to be is not told before it is known.
            (ends("10.0.0.3", "10.0.0.2", CLIENT, OWN), ["shop/own", "-"], later(3)),
            (ends("10.0.0.1", "10.0.0.2", CLIENT, STRANGER), ["-", "-"], later(5)),
            // Beside each other.
            (ends("127.0.0.1", "127.0.0.1", CLIENT, OWN), ["shop/own", "shop/own"], None),
            (ends("::1", "::1", SERVER, ON_HOST), ["node-a", "shop/on-host"], None),
            (ends("127.0.0.1", "127.0.0.1", CLIENT, 9), ["-", "-"], None),
            (ends("127.0.0.1", "127.0.0.1", CLIENT, BY_CGROUP), ["pod", "-"], None),
            (ends("127.0.0.1", "127.0.0.1", SERVER, STRANGER), ["-", "-"], later(5)),
        ] {
            let named = Naming::default().name(&mut Fake::default(), &ends, NOW);
            let (then, parties) = match named {
                Named::Now(parties) => (None, parties),
                Named::Later(then, parties) => (Some(then), parties),
            };
            assert_eq!((names(&parties), then), (expected.map(str::to_owned), until), "{ends:?}");
        }
    }

    #[test]
    fn the_mate_of_a_socket_is_in_no_container() {
        let ends = ends("127.0.0.1", "127.0.0.1", Some(Role::Client), OWN);
        let Named::Now([client, server]) = Naming::default().name(&mut Fake::default(), &ends, NOW) else {
            panic!("both are known");
        };
        assert_eq!(client.unwrap().identity.container.as_deref(), Some("main"));
        assert_eq!(server.unwrap().identity.container, None);
    }

    #[test]
    fn only_of_who_was_called_the_port_says_something() {
        for (role, expected) in [(Role::Client, None), (Role::Server, Some("10.0.0.3:80"))] {
            let mut who = Fake::default();
            Naming::default().name(&mut who, &ends("10.0.0.1", "10.0.0.3", Some(role), OWN), NOW);
            assert_eq!(who.called, expected.map(|text| text.parse().unwrap()), "{role:?}");
        }
    }

    #[test]
    fn who_somebody_was_when_there_last_was_contact_is_asked_for_each_time() {
        let (mut naming, mut who) = (Naming::default(), Fake::default());
        let mut ask = |server: &str| {
            let before = who.asked;
            naming.name(&mut who, &ends("10.0.0.3", server, Some(Role::Client), OWN), NOW);
            who.asked - before
        };
        assert_eq!(["10.0.0.3", "10.0.0.3", "10.0.0.1", "10.0.0.1"].map(&mut ask), [2, 1, 2, 0]);
    }

    #[test]
    fn answers_are_remembered_until_something_new_comes() {
        let (mut naming, mut who) = (Naming::default(), Fake::default());
        let of = |at: u64| Ends {
            at: Duration::from_secs(at),
            ..ends("10.0.0.3", "10.0.0.1", Some(Role::Client), OWN)
        };
        let mut ask = |who: &mut Fake, at: u64| {
            let before = who.asked;
            let named = naming.name(who, &of(at), Duration::from_secs(at.max(100)));
            let Named::Now([_, Some(server)]) = named else { panic!("{named:?}") };
            (server, who.asked - before)
        };
        let (first, asked) = ask(&mut who, 100);
        assert_eq!(asked, 3, "the socket, the address then, and whether it lasts");
        let (again, asked) = ask(&mut who, 105);
        assert!(Arc::ptr_eq(&first, &again) && asked == 0);
        let (_, asked) = ask(&mut who, 99);
        assert_eq!(asked, 2, "it is of before");
        who.version += 1;
        let (again, asked) = ask(&mut who, 105);
        assert!(Arc::ptr_eq(&first, &again), "the same, with the text that was made of it");
        assert_eq!(asked, 3);
        // One that is about to leave is not remembered.
        (who.version, who.ends) = (who.version + 1, true);
        assert_eq!([ask(&mut who, 99).1, ask(&mut who, 99).1], [3, 2]);
    }

    #[test]
    fn so_many_answers_are_remembered() {
        let (mut naming, mut who) = (Naming::default(), Fake::default());
        let mut ask = |port: usize| {
            let server = (IpAddr::from([10, 0, 0, 1]), port as u16);
            naming.name(&mut who, &Ends { server, ..ends("10.0.0.4", "10.0.0.1", None, 0) }, NOW);
            naming.stats().forgotten
        };
        assert!((0..MAX_REMEMBERED).all(|port| ask(port) == 0));
        assert_eq!(ask(0), 0, "it is known");
        assert_eq!(ask(MAX_REMEMBERED), 1);
    }
}
