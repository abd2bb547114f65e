//! `connection.id` is the same from both ends and through NAT, and different for different connections.

use std::collections::HashSet;

use pod2pod_user::reassembly::{Side, Start};
use support::rng::Rng;

use super::{address, parsed, with};

#[test]
fn both_ends_agree_whatever_nat_did() {
    let client = parsed(with(|e| {
        e.connection.local = Some(Side::Originator);
        e.connection.responder = address("10.96.0.1:80");
    }));
    let server = parsed(with(|e| e.connection.originator = address("10.1.0.1:30001")));
    assert_eq!(client["connection.id"], server["connection.id"]);
    assert_eq!(client["exchange.offset"], server["exchange.offset"]);
    assert_eq!((&client["observed_at"], &server["observed_at"]), (&"client".into(), &"server".into()));
    assert!(client.get("connection.joined_late").is_none());
}

#[test]
fn an_id_is_of_both_sequence_numbers_in_their_order() {
    let mut seen = HashSet::new();
    let seed = 7;
    let mut rng = Rng::new(seed);
    for _ in 0..2000 {
        let pair = (rng.next_u64() as u32 % 64, rng.next_u64() as u32 % 64);
        let json = parsed(with(|e| {
            (e.connection.originator_isn, e.connection.responder_isn) = (Some(pair.0), Some(pair.1));
        }));
        let id = json["connection.id"].as_str().unwrap().to_owned();
        assert_eq!(id.len(), 16);
        seen.insert((pair, id));
    }
    let pairs: HashSet<_> = seen.iter().map(|(pair, _)| *pair).collect();
    let ids: HashSet<_> = seen.iter().map(|(_, id)| id).collect();
    assert_eq!((pairs.len(), ids.len()), (seen.len(), seen.len()), "seed {seed}");
}

#[test]
fn joined_late_is_named_by_its_addresses_and_marked() {
    let late = |swap: bool| {
        parsed(with(|e| {
            e.connection.start = Start::Middle;
            e.connection.originator_isn = None;
            e.connection.responder_isn = None;
            if swap {
                std::mem::swap(&mut e.connection.originator, &mut e.connection.responder);
                e.client = Side::Responder;
            }
        }))
    };
    let (one, other) = (late(false), late(true));
    assert_eq!(one["connection.joined_late"], true);
    assert_eq!(one["connection.id"], other["connection.id"]);
    assert_eq!(one["client.address"], other["client.address"]);
    let elsewhere = parsed(with(|e| {
        e.connection.start = Start::Middle;
        e.connection.originator = address("10.1.4.9:51515");
    }));
    assert_ne!(one["connection.id"], elsewhere["connection.id"]);
}
