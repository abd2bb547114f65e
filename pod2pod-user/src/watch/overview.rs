//! `--once`: services, their real servers and the entries at each, by state, in one look. Finds no reuses.

use std::{collections::BTreeMap, fmt::Write as _};

use super::object::{Object, push_kernel, shown, transport};
use crate::ipvs::{
    End,
    drain::{Draining, Drains},
    kernel::Kernel,
    parse::{
        Row,
        services::{Matches, ServerLine},
        stats::{Figures, Totals},
    },
    selection::{self, Pattern},
    services::Services,
    state::State,
};

/// Pairs of service and real server that entries are counted for at most.
const MAX_PLACES: usize = 1_000_000;

type Place = (Matches, End);

/// Entries, by place and state.
#[derive(Debug, Default)]
pub(super) struct Overview {
    entries: BTreeMap<Place, BTreeMap<State, u64>>,
    templates: u64,
    left_out: u64,
}

/// A real server, and what is to be said of it.
struct Told<'a> {
    place: Place,
    scheduler: &'a str,
    /// Absent if the service does not have it any more.
    server: Option<&'a ServerLine>,
    entries: BTreeMap<State, u64>,
    /// Services are known.
    is_known: bool,
}

impl Told<'_> {
    /// What an operator should know.
    fn note(&self) -> &'static str {
        let has_entries = !self.entries.is_empty();
        match self.server {
            None if self.is_known => "removed",
            Some(server) if server.weight > 0 => "",
            Some(server) if has_entries || server.active > 0 || server.inactive > 0 => "draining",
            Some(_) => "drained",
            None => "",
        }
    }
}

impl Overview {
    /// Counts a row.
    pub(super) fn push(&mut self, row: &Row<'_>, services: Option<&Services>) {
        if row.is_template() {
            self.templates += 1;
            return;
        }
        let own = Matches::Address(row.tuple.protocol, row.tuple.service);
        let found = services.and_then(|services| services.find(&row.tuple, row.server).0);
        let place = (found.copied().unwrap_or(own), row.server);
        if self.entries.len() >= MAX_PLACES && !self.entries.contains_key(&place) {
            self.left_out += 1;
            return;
        }
        *self.entries.entry(place).or_default().entry(row.state).or_default() += 1;
    }

    /// Real servers in the order of their services, then those that only entries know.
    fn told<'a>(&self, services: Option<&'a Services>, patterns: &[Pattern]) -> Vec<Told<'a>> {
        let mut entries = self.entries.clone();
        let mut told = Vec::new();
        let is_known = services.is_some();
        for (matches, service) in services.into_iter().flat_map(Services::iter) {
            for server in &service.servers {
                let place = (*matches, server.end);
                let scheduler = service.scheduler.as_str();
                let counted = take(&mut entries, place);
                told.push(Told { place, scheduler, server: Some(server), entries: counted, is_known });
            }
        }
        let rest = entries.into_iter().map(|(place, entries)| Told {
            place,
            scheduler: "",
            server: None,
            entries,
            is_known,
        });
        told.extend(rest);
        told.retain(|told| match told.place.0 {
            Matches::Address(_, service) => selection::selects(patterns, service),
            Matches::Mark(_) => patterns.is_empty(),
        });
        told
    }

    /// As JSON lines.
    pub(super) fn push_json(
        &self,
        out: &mut Vec<u8>,
        services: Option<&Services>,
        patterns: &[Pattern],
        time: u64,
    ) {
        for told in self.told(services, patterns) {
            let mut object = Object::new(out, time, "ipvs_server");
            match told.place.0 {
                Matches::Address(protocol, service) => {
                    object.protocol(protocol);
                    object.end("server", service);
                }
                Matches::Mark(mark) => object.integer("ipvs.firewall_mark", mark.into()),
            }
            object.end("ipvs.real_server", told.place.1);
            if let Some(server) = told.server {
                object.text("ipvs.scheduler", told.scheduler);
                object.integer("ipvs.real_server.weight", server.weight.into());
                object.text("ipvs.real_server.forward", server.forward.as_str());
                object.integer("ipvs.real_server.active", server.active.into());
                object.integer("ipvs.real_server.inactive", server.inactive.into());
            }
            object.mark("ipvs.real_server.absent", told.note() == "removed");
            object.mark("ipvs.real_server.draining", told.note() == "draining");
            for (state, count) in &told.entries {
                object.integer(&format!("ipvs.entries.{}", state.as_str().to_ascii_lowercase()), *count);
            }
            object.finish();
        }
    }

    /// As a table; `drains` knows who never drains.
    pub(super) fn push_text(
        &self,
        out: &mut Vec<u8>,
        services: Option<&Services>,
        patterns: &[Pattern],
        drains: Option<&Drains>,
    ) {
        let head = ["SERVICE", "REAL SERVER", "FORWARD", "WEIGHT", "ACTIVE", "INACTIVE", "", "ENTRIES"];
        let mut rows = vec![head.map(str::to_owned)];
        for told in self.told(services, patterns) {
            let service = match told.place.0 {
                Matches::Address(protocol, service) => format!("{} {}", transport(protocol), shown(service)),
                Matches::Mark(mark) => format!("mark {mark}"),
            };
            let number = |value: fn(&ServerLine) -> u32| {
                told.server.map_or(String::new(), |server| value(server).to_string())
            };
            let states: Vec<String> =
                told.entries.iter().map(|(state, count)| format!("{count} {}", state.as_str())).collect();
            rows.push([
                service,
                shown(told.place.1),
                told.server.map_or(String::new(), |server| server.forward.as_str().to_owned()),
                number(|server| server.weight),
                number(|server| server.active),
                number(|server| server.inactive),
                match drains.map(|drains| drains.of(&told.place)) {
                    Some(Draining::Never) => Draining::Never.as_str().to_owned(),
                    _ => told.note().to_owned(),
                },
                states.join(", "),
            ]);
        }
        push_columns(out, &rows);
    }

    /// Templates, and entries for which there was no room.
    pub(super) const fn beside(&self) -> (u64, u64) {
        (self.templates, self.left_out)
    }
}

/// The entries of a place; of a server on every port, those of all its ports.
fn take(entries: &mut BTreeMap<Place, BTreeMap<State, u64>>, place: Place) -> BTreeMap<State, u64> {
    let (matches, (address, port)) = place;
    if port != 0 {
        return entries.remove(&place).unwrap_or_default();
    }
    let ports: Vec<Place> = entries
        .range((matches, (address, 0))..=(matches, (address, u16::MAX)))
        .map(|(place, _)| *place)
        .collect();
    let mut all = BTreeMap::new();
    for (state, count) in ports.iter().filter_map(|place| entries.remove(place)).flatten() {
        *all.entry(state).or_default() += count;
    }
    all
}

fn push_columns(out: &mut Vec<u8>, rows: &[[String; 8]]) {
    let mut widths = [0; 8];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.len().max(*width);
        }
    }
    for row in rows {
        let mut line = String::new();
        for (width, cell) in widths.iter().zip(row) {
            line.push_str(&format!("{cell:width$}  "));
        }
        out.extend_from_slice(line.trim_end().as_bytes());
        out.push(b'\n');
    }
}

/// Totals of the kernel, of its processors, and its settings, as a JSON line.
pub(super) fn push_totals(
    out: &mut Vec<u8>,
    totals: Option<&(Totals, Vec<(u64, Figures)>)>,
    kernel: &Kernel,
    (templates, left_out): (u64, u64),
    time: u64,
) {
    let mut object = Object::new(out, time, "ipvs_totals");
    push_kernel(&mut object, kernel);
    object.integer("ipvs.templates", templates);
    object.integer("ipvs.entries.left_out", left_out);
    if let Some((Totals { total, rate }, cpus)) = totals {
        push_figures(&mut object, "ipvs.total", total);
        if let Some(rate) = rate {
            push_figures(&mut object, "ipvs.rate", rate);
        }
        for (cpu, figures) in cpus {
            object.integer(&format!("ipvs.cpu.{cpu}.connections"), figures.connections);
        }
    }
    object.finish();
}

fn push_figures(object: &mut Object<'_>, prefix: &str, figures: &Figures) {
    let Figures { connections, packets_in, packets_out, bytes_in, bytes_out } = *figures;
    for (name, value) in [
        ("connections", connections),
        ("packets_in", packets_in),
        ("packets_out", packets_out),
        ("bytes_in", bytes_in),
        ("bytes_out", bytes_out),
    ] {
        object.integer(&format!("{prefix}.{name}"), value);
    }
}

/// The same for people.
pub(super) fn push_totals_text(
    out: &mut Vec<u8>,
    totals: Option<&(Totals, Vec<(u64, Figures)>)>,
    (templates, left_out): (u64, u64),
) {
    let mut line = format!("{templates} templates, {left_out} entries left out");
    if let Some((Totals { total, rate }, _)) = totals {
        let rate = rate.map_or(String::new(), |rate| format!(" ({} a second)", rate.connections));
        let Figures { connections, packets_in, packets_out, bytes_in, bytes_out } = total;
        let _ = write!(line, "; so far {connections} connections{rate}, ");
        let _ =
            write!(line, "{packets_in} packets and {bytes_in} bytes in, {packets_out} and {bytes_out} out");
    }
    out.extend_from_slice(line.as_bytes());
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_for_so_many_places() {
        let mut overview = Overview::default();
        let row = |service: u32| {
            let server = ("10.244.2.2".parse().unwrap(), 8080);
            let client = ("10.244.1.2".parse().unwrap(), 41_001);
            let service = (std::net::Ipv4Addr::from_bits(service).into(), 80);
            let tuple = crate::ipvs::Tuple { protocol: crate::ipvs::parse::Protocol::TCP, client, service };
            let state = State::TimeWait;
            Row { tuple, server, state, state_text: b"", origin: None, expires: 0, rest: b"" }
        };
        for service in 0..MAX_PLACES as u32 {
            overview.push(&row(service), None);
        }
        for (service, left_out) in [(0, 0), (MAX_PLACES as u32, 1)] {
            overview.push(&row(service), None);
            assert_eq!((overview.entries.len(), overview.left_out), (MAX_PLACES, left_out));
        }
    }
}
