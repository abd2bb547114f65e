//! What is written: sampling by connection, the ignore list, the agent's own traffic.

use std::{collections::HashSet, time::Duration};

use bytes::Bytes;
use pod2pod_user::{
    OWN_USER_AGENT,
    enrich::{Config, Enricher, Fate, IgnoreList, OwnTraffic, Rate, WallOffset, ignore::Subject},
    http::{Exchange, Outcome},
    reassembly::Side,
};

use super::{at, connection, enrich, header, with};

fn tenth() -> Config {
    Config { rate: Rate::from_millionths(100_000).unwrap(), ..Config::default() }
}

#[test]
fn sampling_keeps_its_share_and_says_so() {
    let mut kept = 0;
    for isn in 0..20_000 {
        let (record, fate) = enrich(with(|e| e.connection.originator_isn = Some(isn)), tenth());
        assert_eq!(record.sample_rate_millionths, (fate == Fate::Keep).then_some(100_000));
        kept += u32::from(fate == Fate::Keep);
    }
    assert!((1800..2200).contains(&kept), "{kept}");
    assert_eq!(enrich(super::exchange(), Config::default()).0.sample_rate_millionths, None);
}

#[test]
fn both_views_and_all_exchanges_of_a_connection_share_a_fate() {
    for isn in 0..500 {
        let fate = |side, offset| {
            let exchange = with(|e| {
                e.connection.originator_isn = Some(isn);
                e.connection.local = Some(side);
                e.offset = offset;
            });
            enrich(exchange, tenth()).1
        };
        let fates: HashSet<_> =
            [fate(Side::Originator, 1), fate(Side::Responder, 1), fate(Side::Responder, 900)]
                .into_iter()
                .collect();
        assert_eq!(fates.len(), 1, "{isn}");
    }
}

#[test]
fn what_matters_is_never_sampled_away() {
    let none = || Config { rate: Rate::from_millionths(0).unwrap(), ..Config::default() };
    let check = |expected, change: &dyn Fn(&mut Exchange)| {
        let (record, fate) = enrich(with(change), none());
        assert_eq!(fate, expected, "{record:?}");
        assert_eq!(record.sample_rate_millionths, None);
    };
    check(Fate::SampledAway, &|_| {});
    check(Fate::SampledAway, &|e| e.outcome = Some(Outcome::Upgraded));
    check(Fate::SampledAway, &|e| e.response.as_mut().unwrap().status = 399);
    check(Fate::Keep, &|e| e.response.as_mut().unwrap().status = 400);
    check(Fate::Keep, &|e| e.response.as_mut().unwrap().status = 503);
    for outcome in [Outcome::Timeout, Outcome::Reset, Outcome::Closed, Outcome::Gap] {
        check(Fate::Keep, &|e| e.outcome = Some(outcome));
    }
    check(Fate::Keep, &|e| e.outcome = None);
    check(Fate::Keep, &|e| e.late = true);
    check(Fate::SampledAway, &|e| e.end = at(999_999_999));
    check(Fate::Keep, &|e| e.end = at(1_000_000_000));
    let mut config = none();
    config.slow = Duration::from_millis(1);
    assert_eq!(enrich(super::exchange(), config).1, Fate::Keep);
}

#[test]
fn the_ignore_list_matches_by_subject() {
    let check = |subject, glob: &str, expected| {
        let mut ignore = IgnoreList::default();
        ignore.set(subject, &[glob.to_owned()]).unwrap();
        let fate = enrich(super::exchange(), Config { ignore, ..Config::default() }).1;
        assert_eq!(fate, expected, "{subject:?} {glob}");
    };
    check(Subject::Path, "/cart", Fate::Ignored);
    check(Subject::Path, "/c*", Fate::Ignored);
    check(Subject::Path, "/CART", Fate::Keep);
    check(Subject::Path, "cart", Fate::Keep);
    check(Subject::Host, "*.SHOP", Fate::Ignored);
    check(Subject::Host, "{a,cart}.shop", Fate::Ignored);
    check(Subject::Method, "GET", Fate::Ignored);
    check(Subject::Method, "get", Fate::Keep);
    check(Subject::UserAgent, "Curl/*", Fate::Ignored);
    check(Subject::UserAgent, "kube-probe*", Fate::Keep);
    assert!(IgnoreList::default().set(Subject::Path, &["[".to_owned()]).is_err());
}

#[test]
fn a_glob_crosses_slashes_and_takes_any_bytes() {
    let mut ignore = IgnoreList::default();
    ignore.set(Subject::Path, &["/a*z".to_owned()]).unwrap();
    let exchange = with(|e| e.request.as_mut().unwrap().target = Bytes::from_static(b"/a/\xff/../z"));
    assert_eq!(enrich(exchange, Config { ignore, ..Config::default() }).1, Fate::Ignored);
}

#[test]
fn own_traffic_is_left_out_by_name_and_by_tuple() {
    let named = || {
        with(|e| {
            e.request.as_mut().unwrap().headers = [header("user-agent", OWN_USER_AGENT)].into_iter().collect()
        })
    };
    assert_eq!(enrich(named(), Config::default()).1, Fate::Own);
    let told = Config { own_traffic: OwnTraffic::Told, ..Config::default() };
    assert_eq!(enrich(named(), told).1, Fate::Keep);
    let mut enricher = Enricher::new(Config::default());
    enricher.set_own_tuples([(connection().originator, connection().responder)]);
    assert_eq!(enricher.enrich(&mut super::exchange(), WallOffset(0)).1, Fate::Own);
    enricher.set_own_tuples([(connection().responder, connection().originator)]);
    assert_eq!(enricher.enrich(&mut super::exchange(), WallOffset(0)).1, Fate::Own);
    enricher.set_own_tuples([]);
    assert_eq!(enricher.enrich(&mut super::exchange(), WallOffset(0)).1, Fate::Keep);
    let stats = *enricher.stats();
    assert_eq!((stats.exchanges, stats.own, stats.kept), (3, 2, 1));
}
