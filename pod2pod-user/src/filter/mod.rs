//! Filter: which connections are wanted. Judged once, by what is known of a connection before its bytes mean anything.
//!
//! * A connection that is refused delivers nothing to the stages behind: the pipeline tells reassembly and the kernel.
//! * Rules add up: a connection is kept if no rule refuses it; the first one that does is the [`Reason`] and is counted.
//! * What asks for the server (ports, roles) cannot be told of a connection that was joined in its middle. Such a one is
//!   [`Verdict::Undecided`] and goes on until the HTTP stage knows its client; then it is judged for good.
//!
//! Looks at no payload, and remembers nothing of a connection.

pub mod expression;
mod places;
mod rules;
pub mod selection;
pub mod selector;
pub mod sightings;

pub use self::{
    expression::{Expression, ExpressionError},
    places::{CgroupRule, NamePattern, Places},
    rules::{Network, PortRange},
    selection::Selection,
    selector::{Selector, SelectorError},
};

use crate::reassembly::{Connection, Side, Start};

/// Which observed ends are wanted, by their part in the connection. A connection seen on a path has no observed end and
/// is wanted always.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Roles {
    /// Ends whose socket took the connection.
    pub server: bool,
    /// Ends whose socket opened it.
    pub client: bool,
}

impl Default for Roles {
    fn default() -> Self {
        Self { server: true, client: true }
    }
}

/// Rules; a list without entries rules nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    /// The server's port must be one of these.
    pub ports: Vec<PortRange>,
    /// The server's port must be none of these.
    pub ignore_ports: Vec<PortRange>,
    /// One end's address must be in one of these.
    pub networks: Vec<Network>,
    /// No end's address may be in any of these.
    pub ignore_networks: Vec<Network>,
    /// The observed end's part must be one of these.
    pub roles: Roles,
    /// A packet of either direction must match.
    pub expression: Option<Expression>,
    /// The interface of the first segment must be one of these.
    pub interfaces: Vec<NamePattern>,
    /// The observed socket's cgroup must be one of these, or below one.
    pub cgroups: Vec<CgroupRule>,
}

/// What is to become of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Wanted.
    Keep,
    /// Wanted unless it turns out which end is the server.
    Undecided,
    /// Not wanted.
    Ignore(Reason),
}

/// The rule that refused a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// [`Config::ports`] or [`Config::ignore_ports`].
    Port,
    /// [`Config::networks`] or [`Config::ignore_networks`].
    Address,
    /// [`Config::roles`].
    Role,
    /// [`Config::expression`].
    Expression,
    /// Another interface tells of it.
    Duplicate,
    /// [`Config::interfaces`]; also if the interface has no name here.
    Interface,
    /// [`Config::cgroups`]; also if the cgroup is not known.
    Cgroup,
}

/// What this stage counted: judgements, each connection once, but one that was undecided twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Connections kept.
    pub kept: u64,
    /// Connections kept until it is known which end is the server; if they are refused then, that is counted too.
    pub undecided: u64,
    /// Connections refused by [`Reason::Port`].
    pub refused_port: u64,
    /// By [`Reason::Address`].
    pub refused_address: u64,
    /// By [`Reason::Role`].
    pub refused_role: u64,
    /// By [`Reason::Expression`].
    pub refused_expression: u64,
    /// By [`Reason::Duplicate`].
    pub refused_duplicate: u64,
    /// By [`Reason::Interface`].
    pub refused_interface: u64,
    /// By [`Reason::Cgroup`].
    pub refused_cgroup: u64,
    /// Exchanges that were read before their connection was refused.
    pub refused_exchanges: u64,
    /// Connection attempts that a rule refused, or that another interface tells of.
    pub refused_attempts: u64,
}

impl Stats {
    /// Connections refused by a rule.
    pub const fn refused(&self) -> u64 {
        self.refused_port
            + self.refused_address
            + self.refused_role
            + self.refused_expression
            + self.refused_interface
            + self.refused_cgroup
    }
}

/// The rules, and what they came to.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    config: Config,
    /// They are not those of the start: of a connection that was kept the others hold.
    is_changed: bool,
    stats: Stats,
}

impl Filter {
    /// A filter by these rules.
    pub fn new(config: Config) -> Self {
        Self { config, is_changed: false, stats: Stats::default() }
    }

    /// Whether there is no rule: every connection is kept, and none need be judged.
    pub fn is_open(&self) -> bool {
        self.config == Config::default()
    }

    /// Other rules from now on. A connection that was kept is judged by them with its next exchange.
    pub fn change(&mut self, config: Config) {
        self.is_changed |= self.config != config;
        self.config = config;
    }

    /// Judges a connection, once. `places` knows names, and is asked only if there are rules about them; `is_duplicate` is
    /// asked of one that no rule refuses.
    pub fn judge(
        &mut self,
        connection: &Connection,
        places: &mut dyn Places,
        is_duplicate: impl FnOnce() -> bool,
    ) -> Verdict {
        let verdict = self.judgement(connection, places, is_duplicate);
        match verdict {
            Verdict::Keep => self.stats.kept += 1,
            Verdict::Undecided => self.stats.undecided += 1,
            Verdict::Ignore(reason) => self.count(reason),
        }
        verdict
    }

    /// Whether a connection attempt is wanted, by the same rules as a connection; counted for itself, since a connection may
    /// have come of it.
    pub fn wants_attempt(
        &mut self,
        connection: &Connection,
        places: &mut dyn Places,
        is_duplicate: impl FnOnce() -> bool,
    ) -> bool {
        let is_wanted = !matches!(self.judgement(connection, places, is_duplicate), Verdict::Ignore(_));
        self.stats.refused_attempts += u64::from(!is_wanted);
        is_wanted
    }

    /// Whether no rule refuses what a SYN asks for. Counts nothing: what comes of it is judged and counted once that is known.
    pub fn may_want(&self, connection: &Connection, places: &mut dyn Places) -> bool {
        !matches!(self.judgement(connection, places, || false), Verdict::Ignore(_))
    }

    /// Whether a connection that was not refused is still wanted, now that `client` is known to be its client. To be
    /// asked for each exchange until the answer is no.
    pub fn still_wants(&mut self, connection: &Connection, client: Side, places: &mut dyn Places) -> bool {
        let opener = opener(connection);
        if opener.is_some() && !self.is_changed {
            return true;
        }
        let of_place = if self.is_changed { self.refused_place(connection, places) } else { None };
        let verdict =
            of_place.map_or_else(|| self.verdict(connection, opener.or(Some(client))), Verdict::Ignore);
        match verdict {
            Verdict::Keep | Verdict::Undecided => true,
            Verdict::Ignore(reason) => {
                self.count(reason);
                false
            }
        }
    }

    /// An exchange of a connection that was refused after it was read.
    pub const fn count_exchange(&mut self) {
        self.stats.refused_exchanges += 1;
    }

    /// Whether cgroups are looked up.
    pub const fn asks_cgroups(&self) -> bool {
        !self.config.cgroups.is_empty()
    }

    /// Judgements since the start.
    pub const fn stats(&self) -> &Stats {
        &self.stats
    }

    fn judgement(
        &self,
        connection: &Connection,
        places: &mut dyn Places,
        is_duplicate: impl FnOnce() -> bool,
    ) -> Verdict {
        let verdict = match self.refused_place(connection, places) {
            Some(reason) => Verdict::Ignore(reason),
            None => self.verdict(connection, opener(connection)),
        };
        if matches!(verdict, Verdict::Keep | Verdict::Undecided) && is_duplicate() {
            return Verdict::Ignore(Reason::Duplicate);
        }
        verdict
    }

    const fn count(&mut self, reason: Reason) {
        match reason {
            Reason::Port => self.stats.refused_port += 1,
            Reason::Address => self.stats.refused_address += 1,
            Reason::Role => self.stats.refused_role += 1,
            Reason::Expression => self.stats.refused_expression += 1,
            Reason::Duplicate => self.stats.refused_duplicate += 1,
            Reason::Interface => self.stats.refused_interface += 1,
            Reason::Cgroup => self.stats.refused_cgroup += 1,
        }
    }

    fn verdict(&self, connection: &Connection, client: Option<Side>) -> Verdict {
        if !self.wants_addresses(connection) {
            return Verdict::Ignore(Reason::Address);
        }
        if self.config.expression.as_ref().is_some_and(|expression| !expression.matches(connection)) {
            return Verdict::Ignore(Reason::Expression);
        }
        // Each side that may be the client gives an answer; only if all agree it is one.
        let either = [Side::Originator, Side::Responder];
        let may_be = either.into_iter().filter(|side| client.is_none_or(|client| client == *side));
        let mut refused = None;
        let mut kept = false;
        for client in may_be {
            match self.refusal(connection, client) {
                Some(reason) => refused = Some(reason),
                None => kept = true,
            }
        }
        match (kept, refused) {
            (true, None) => Verdict::Keep,
            (true, Some(_)) => Verdict::Undecided,
            (false, reason) => Verdict::Ignore(reason.unwrap_or(Reason::Role)),
        }
    }

    fn refused_place(&self, connection: &Connection, places: &mut dyn Places) -> Option<Reason> {
        let Config { interfaces, cgroups, .. } = &self.config;
        if !interfaces.is_empty() {
            let name = places.interface(connection.interface_index);
            if !name.is_some_and(|name| interfaces.iter().any(|pattern| pattern.matches(&name))) {
                return Some(Reason::Interface);
            }
        }
        let is_wanted = |path: &str| cgroups.iter().any(|rule| rule.matches(path));
        (!cgroups.is_empty() && !places.cgroup(connection.cgroup_id).is_some_and(is_wanted))
            .then_some(Reason::Cgroup)
    }

    fn wants_addresses(&self, connection: &Connection) -> bool {
        let ends = [connection.originator.ip(), connection.responder.ip()];
        let holds_one =
            |networks: &[Network]| networks.iter().any(|network| ends.iter().any(|end| network.holds(*end)));
        let Config { networks, ignore_networks, .. } = &self.config;
        (networks.is_empty() || holds_one(networks)) && !holds_one(ignore_networks)
    }

    /// Why the connection is not wanted if `client` is its client.
    fn refusal(&self, connection: &Connection, client: Side) -> Option<Reason> {
        let Config { ports, ignore_ports, roles, .. } = &self.config;
        let port = connection.address(client.other()).port();
        let holds = |ranges: &[PortRange]| ranges.iter().any(|range| range.holds(port));
        if !ports.is_empty() && !holds(ports) || holds(ignore_ports) {
            return Some(Reason::Port);
        }
        let is_wanted = |local| if local == client { roles.client } else { roles.server };
        (!connection.local.is_none_or(is_wanted)).then_some(Reason::Role)
    }
}

/// The end that sent the SYN is the client; unknown if the SYN was not seen.
const fn opener(connection: &Connection) -> Option<Side> {
    match connection.start {
        Start::Handshake => Some(Side::Originator),
        Start::Middle => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::Scope;

    fn connection(local: Option<Side>, start: Start) -> Connection {
        let ends = ("10.0.0.1:40000".parse().unwrap(), "10.0.0.2:8080".parse().unwrap());
        Connection { interface_index: 1, ..Connection::between(Scope(1), ends, local, start) }
    }

    /// Interface 1 is eth0, cgroup 7 is nginx's.
    struct Here;

    impl Places for Here {
        fn interface(&mut self, index: u32) -> Option<String> {
            (index == 1).then(|| "eth0".to_owned())
        }

        fn cgroup(&mut self, id: u64) -> Option<&str> {
            (id == 7).then_some("/system.slice/nginx.service")
        }
    }

    fn ports(text: &str) -> Vec<PortRange> {
        text.split(',').map(|range| PortRange::parse(range).unwrap()).collect()
    }

    fn networks(text: &str) -> Vec<Network> {
        text.split(',').map(|network| Network::parse(network).unwrap()).collect()
    }

    fn judged(config: Config, connection: &Connection) -> Verdict {
        Filter::new(config).judge(connection, &mut Here, || false)
    }

    fn still_wanted(config: Config, connection: &Connection, client: Side) -> bool {
        Filter::new(config).still_wants(connection, client, &mut Here)
    }

    #[test]
    fn no_rule_keeps_everything() {
        let filter = Filter::default();
        assert!(filter.is_open());
        for start in [Start::Handshake, Start::Middle] {
            assert_eq!(judged(Config::default(), &connection(None, start)), Verdict::Keep);
        }
    }

    #[test]
    fn ports_are_the_servers() {
        let seen = connection(None, Start::Handshake);
        let wanted = |text| Config { ports: ports(text), ..Config::default() };
        let ignored = |text| Config { ignore_ports: ports(text), ..Config::default() };
        assert_eq!(judged(wanted("8000-8100"), &seen), Verdict::Keep);
        assert_eq!(judged(wanted("40000"), &seen), Verdict::Ignore(Reason::Port));
        assert_eq!(judged(ignored("8080"), &seen), Verdict::Ignore(Reason::Port));
        assert_eq!(judged(ignored("40000"), &seen), Verdict::Keep);
    }

    #[test]
    fn a_connection_joined_in_its_middle_waits_for_its_client_if_it_matters() {
        let seen = connection(None, Start::Middle);
        let wanted = |text| Config { ports: ports(text), ..Config::default() };
        assert_eq!(judged(wanted("8080"), &seen), Verdict::Undecided);
        assert!(still_wanted(wanted("8080"), &seen, Side::Originator));
        assert!(!still_wanted(wanted("8080"), &seen, Side::Responder));
        assert_eq!(judged(wanted("8080,40000"), &seen), Verdict::Keep);
        assert_eq!(judged(wanted("80"), &seen), Verdict::Ignore(Reason::Port));
    }

    #[test]
    fn roles_are_those_of_observed_ends() {
        let only = |roles| Config { roles, ..Config::default() };
        let only_client = Roles { server: false, client: true };
        let only_server = Roles { server: true, client: false };
        let (client, server) = (Some(Side::Originator), Some(Side::Responder));
        let cases = [
            (client, only_client, Verdict::Keep),
            (client, only_server, Verdict::Ignore(Reason::Role)),
            (server, only_client, Verdict::Ignore(Reason::Role)),
            (server, only_server, Verdict::Keep),
            (None, only_server, Verdict::Keep),
        ];
        for (local, roles, verdict) in cases {
            assert_eq!(
                judged(only(roles), &connection(local, Start::Handshake)),
                verdict,
                "{local:?} {roles:?}"
            );
        }
        let joined = connection(client, Start::Middle);
        assert_eq!(judged(only(only_server), &joined), Verdict::Undecided);
        assert!(!still_wanted(only(only_server), &joined, Side::Originator));
        assert_eq!(judged(Config::default(), &joined), Verdict::Keep);
    }

    #[test]
    fn an_address_is_looked_for_at_both_ends() {
        let seen = connection(None, Start::Middle);
        let wanted = |text| Config { networks: networks(text), ..Config::default() };
        let ignored = |text| Config { ignore_networks: networks(text), ..Config::default() };
        assert_eq!(judged(wanted("10.0.0.1"), &seen), Verdict::Keep);
        assert_eq!(judged(wanted("10.0.0.2,fd00::/8"), &seen), Verdict::Keep);
        assert_eq!(judged(wanted("fd00::/8"), &seen), Verdict::Ignore(Reason::Address));
        assert_eq!(judged(ignored("10.0.0.0/8"), &seen), Verdict::Ignore(Reason::Address));
        assert_eq!(judged(ignored("10.0.0.3"), &seen), Verdict::Keep);
    }

    #[test]
    fn places_go_by_their_names() {
        let interface =
            |name| Config { interfaces: vec![NamePattern::parse(name).unwrap()], ..Config::default() };
        let cgroup = |name| Config { cgroups: vec![CgroupRule::parse(name).unwrap()], ..Config::default() };
        let mut seen = connection(None, Start::Handshake);
        seen.cgroup_id = 7;
        assert_eq!(judged(interface("eth*"), &seen), Verdict::Keep);
        assert_eq!(judged(interface("lo"), &seen), Verdict::Ignore(Reason::Interface));
        assert_eq!(judged(cgroup("nginx.service"), &seen), Verdict::Keep);
        assert_eq!(judged(cgroup("sshd.service"), &seen), Verdict::Ignore(Reason::Cgroup));
        (seen.interface_index, seen.cgroup_id) = (2, 8);
        assert_eq!(judged(interface("*"), &seen), Verdict::Ignore(Reason::Interface), "it has no name");
        assert_eq!(judged(cgroup("/**"), &seen), Verdict::Ignore(Reason::Cgroup), "it has no name");
    }

    #[test]
    fn every_judgement_is_counted() {
        let mut filter = Filter::new(Config {
            ports: ports("8080"),
            roles: Roles { server: true, client: false },
            ..Config::default()
        });
        filter.judge(&connection(Some(Side::Responder), Start::Handshake), &mut Here, || false);
        filter.judge(&connection(Some(Side::Responder), Start::Handshake), &mut Here, || true);
        filter.judge(&connection(Some(Side::Originator), Start::Handshake), &mut Here, || {
            unreachable!("it is refused")
        });
        let joined = connection(Some(Side::Responder), Start::Middle);
        filter.judge(&joined, &mut Here, || false);
        assert!(filter.still_wants(&joined, Side::Originator, &mut Here));
        assert!(!filter.still_wants(&joined, Side::Responder, &mut Here));
        filter.count_exchange();
        let stats = Stats {
            kept: 1,
            undecided: 1,
            refused_role: 1,
            refused_port: 1,
            refused_duplicate: 1,
            refused_exchanges: 1,
            ..Stats::default()
        };
        assert_eq!(*filter.stats(), stats);
    }

    #[test]
    fn other_rules_hold_for_what_was_kept_too() {
        let mut filter = Filter::new(Config { ports: ports("8080"), ..Config::default() });
        let kept = connection(Some(Side::Responder), Start::Handshake);
        assert_eq!(filter.judge(&kept, &mut Here, || false), Verdict::Keep);
        let mut wants = |config: Config| {
            filter.change(config);
            filter.still_wants(&kept, Side::Originator, &mut Here)
        };
        assert!(wants(Config { ports: ports("8080"), ..Config::default() }));
        assert!(!wants(Config { ignore_ports: ports("8080"), ..Config::default() }));
        // The same as before, but not those of the start.
        assert!(!wants(Config { ignore_ports: ports("8080"), ..Config::default() }));
        assert!(!wants(Config { interfaces: vec![NamePattern::parse("lo").unwrap()], ..Config::default() }));
        assert!(wants(Config { interfaces: vec![NamePattern::parse("eth0").unwrap()], ..Config::default() }));
        assert!(wants(Config::default()) && filter.is_open());
        assert_eq!((filter.stats().refused_port, filter.stats().refused_interface), (2, 1));
    }
}
