//! What a head does to its connection: a request begins to wait, a response answers one, and a body comes next.
//!
//! Reads no bytes.

use super::{
    Shared,
    exchange::{Anomalies, Exchange, Response},
    fields::Upgrade,
    flow::{Flow, Speech},
    framing::{Framing, Method},
    heads::{Fresh, RequestHead, ResponseHead},
    reader::{Input, Phase, Reader},
    telling::{Kind, Open},
};
use crate::{capture::KernelInstant, reassembly::Side};

impl Flow {
    /// Takes a whole and clean head, if one comes next and it is this side's turn to send it.
    pub(super) fn clean_head(&mut self, sender: Side, input: &mut Input<'_>, shared: &mut Shared) -> bool {
        let place = input.place;
        let (is_client, is_server) = (self.client != Some(sender.other()), self.client != Some(sender));
        match shared.clean_head(input.bytes, place) {
            Some((Fresh::Request(exchange, head), length)) if is_client => {
                input.take(length);
                self.take_request(sender, exchange, head, place.time, shared);
            }
            Some((Fresh::Response(response, head), length)) if is_server => {
                input.take(length);
                self.take_response(sender, response, head, place.offset, place.time, shared);
            }
            Some((Fresh::Request(exchange, _), _)) => {
                shared.recycle(exchange);
                return false;
            }
            Some(_) | None => return false,
        }
        true
    }

    /// Takes a request, whose head ended at `time`.
    pub(super) fn take_request(
        &mut self,
        sender: Side,
        exchange: Box<Exchange>,
        head: RequestHead,
        time: KernelInstant,
        shared: &mut Shared,
    ) {
        let RequestHead { method, framing, anomalies, upgrade } = head;
        self.upgrade = upgrade;
        self.set_client(sender, shared);
        shared.stats.anomalous_messages += u64::from(!anomalies.is_empty());
        self.turn(sender.other(), shared);
        let mut open = Open::new(Kind::Asked, exchange, self.connection.retransmits);
        open.method = method;
        open.told.anomalies = anomalies;
        let (pairing, mut teller) = self.split(shared);
        pairing.begin_request(open, &mut teller);
        if matches!(framing, Framing::Length(0) | Framing::Unknown) {
            pairing.end_request(time, Some(time), Anomalies::NONE, &mut teller);
        }
        self.reader(sender).begin_body(framing);
    }

    /// Takes a response, whose head began at `offset` and ended at `time`.
    pub(super) fn take_response(
        &mut self,
        sender: Side,
        response: Response,
        head: ResponseHead,
        offset: u64,
        time: KernelInstant,
        shared: &mut Shared,
    ) {
        let ResponseHead { framing, anomalies: oddities, upgrade } = head;
        let (status, minor_version) = (response.status, response.minor_version);
        self.set_client(sender.other(), shared);
        if status < 200 && status != 101 {
            shared.stats.interim_responses += 1;
            self.pairing.interim(time);
            self.reader(sender).begin_body(Framing::Length(0));
            return;
        }
        self.turn(sender.other(), shared);
        let upgrade = upgrade.or(self.upgrade);
        let (pairing, mut teller) = self.split(shared);
        let method = pairing.answered_method(time, &mut teller);
        let (framing, mut anomalies) = framing.of_response(minor_version, status, method);
        anomalies.insert(oddities);
        teller.shared.stats.anomalous_messages += u64::from(!anomalies.is_empty());
        pairing.begin_response(response, anomalies, offset, &mut teller);
        let tunnel = status == 101 || (method == Method::Connect && status < 300);
        if tunnel {
            pairing.upgrade(time, &mut teller);
            count_upgrade(method, upgrade, shared);
            self.ignore(Speech::Tunnel, shared);
            return;
        }
        if framing == Framing::Length(0) {
            pairing.end_response(time, Some(time), Anomalies::NONE, &mut teller);
        }
        self.reader(sender).begin_body(framing);
    }
}

impl Reader {
    /// Whether a message was read to its end, and nothing of the next.
    pub(super) fn is_before_head(&self) -> bool {
        matches!(self.phase, Phase::Head) && self.buffer.is_empty() && !self.opening && !self.torn
    }
}

fn count_upgrade(method: Method, upgrade: Option<Upgrade>, shared: &mut Shared) {
    match upgrade {
        _ if method == Method::Connect => shared.stats.tunnels += 1,
        Some(Upgrade::WebSocket) => shared.stats.upgrades_websocket += 1,
        Some(Upgrade::Http2) => shared.stats.upgrades_http2 += 1,
        Some(Upgrade::Other) | None => {}
    }
}
