//! Link layers: one segment behind every header that is decoded, nothing behind those that are not.

use pod2pod_user::capture::packet::{
    MAX_ENDACE_EXTENSIONS, MAX_FRAME_RELAY_ADDRESS_BYTES, MAX_HEADERS, MAX_LENGTH_FIELD, MAX_LOG_ATTRIBUTES,
};
use support::capture_file::{ETHERNET, Tcp, ethernet};

use super::{REQUEST, check, hex, join, one, v4, v6};

const LLC_SNAP_IP: &str = "aaaa03 000000 0800";

#[test]
fn ethernet_and_its_tags() {
    let tagged = |tags: &str| join(&[&ethernet(0, &[])[..12], &hex(tags), &v4()]);
    check("plain", ETHERNET, &tagged("0800"));
    check("v6", ETHERNET, &ethernet(0x86dd, &v6()));
    check("a lying type", ETHERNET, &ethernet(0x0800, &v6()));
    check("vlan", ETHERNET, &tagged("8100 0005 0800"));
    check("provider vlan", ETHERNET, &tagged("88a8 0005 8100 0006 0800"));
    check("old stacked vlan", ETHERNET, &tagged("9100 0005 8100 0006 0800"));
    check("older stacked vlan", ETHERNET, &tagged("9200 0005 8100 0006 0800"));
    check("five tags", ETHERNET, &tagged("8100 0001 8100 0002 8100 0003 8100 0004 8100 0005 0800"));
    check("priority tag", ETHERNET, &tagged("8100 e000 0800"));
    check("vlan, then snap", ETHERNET, &tagged(&format!("8100 0005 0100 {LLC_SNAP_IP}")));
    check("backbone", ETHERNET, &tagged("88e7 00000001 020000000003 020000000004 0800"));
    check("e-tag", ETHERNET, &tagged("893f 000000000000 0800"));
    check("vn-tag", ETHERNET, &tagged("8926 00000000 0800"));
    check("hsr", ETHERNET, &tagged("892f 0042 0001 0800"));
    check("redundancy tag", ETHERNET, &tagged("f1c1 0000 0001 0800"));
    check("cisco metadata", ETHERNET, &tagged("8909 01 01 0001 0005 0800"));
    check("trill", ETHERNET, &tagged("22f3 0000 0001 0002 020000000003 020000000004 0800"));
    check(
        "trill with options",
        ETHERNET,
        &tagged("22f3 0040 0001 0002 00000000 020000000003 020000000004 0800"),
    );
    check("ethernet in ethernet", ETHERNET, &tagged("6558 020000000003 020000000004 0800"));
    check("jumbo llc", ETHERNET, &tagged(&format!("8870 {LLC_SNAP_IP}")));
    check("nsh", ETHERNET, &tagged("894f 0002 02 01 00000001"));
    check("macsec without encryption", ETHERNET, &tagged("88e5 20 00 00000001 0200000000030001 0800"));
    let length = format!("{:04x}", 8 + v4().len());
    check("802.3 with snap", ETHERNET, &tagged(&format!("{length} {LLC_SNAP_IP}")));
    let length = format!("{:04x}", 3 + v4().len());
    check("802.3 with ip", ETHERNET, &tagged(&format!("{length} 060603")));
    let length = format!("{:04x}", 4 + v4().len());
    check("802.3 with nlpid", ETHERNET, &tagged(&format!("{length} fefe03cc")));
    let isl = hex("01000c0000 00 020000000001 0100 aaaa03 00000c 0002 0000 0000");
    check("isl", ETHERNET, &join(&[&isl, &tagged("0800")]));
}

#[test]
fn padding_and_trailers_are_no_payload() {
    let mut packet = ethernet(0x0800, &v4());
    packet.extend([0xaa; 10]);
    check("trailer", ETHERNET, &packet);
    let mut short = Tcp { payload: b"", ..Tcp::data(7, b"") }.ethernet();
    short.resize(60, 0);
    let (seen, _) = one(ETHERNET, &short);
    assert_eq!((seen[0].payload_length, seen[0].payload.len()), (0, 0));
}

#[test]
fn mpls_and_pseudowires() {
    let frame = ethernet(0x0800, &v4());
    check("one label", ETHERNET, &ethernet(0x8847, &join(&[&hex("00010140"), &v4()])));
    check("two labels", ETHERNET, &ethernet(0x8847, &join(&[&hex("00010040 00020140"), &v4()])));
    check("multicast, v6", ETHERNET, &ethernet(0x8848, &join(&[&hex("00010140"), &v6()])));
    check("pseudowire", ETHERNET, &ethernet(0x8847, &join(&[&hex("00010140"), &frame])));
    check("control word", ETHERNET, &ethernet(0x8847, &join(&[&hex("00010140 00000000"), &frame])));
    check("bare labels", 219, &join(&[&hex("00010140"), &v4()]));
}

#[test]
fn point_to_point() {
    let ppp_ip = |front: &str| join(&[&hex(front), &v4()]);
    let length = format!("{:04x}", 2 + v4().len());
    check("pppoe", ETHERNET, &ethernet(0x8864, &ppp_ip(&format!("1100 0001 {length} 0021"))));
    check("bare pppoe", 51, &ppp_ip(&format!("1100 0001 {length} 0021")));
    check("ppp", 9, &ppp_ip("ff03 0021"));
    check("ppp without address", 9, &ppp_ip("0021"));
    check("ppp with a short protocol", 9, &ppp_ip("21"));
    check("ppp v6", 9, &join(&[&hex("ff03 0057"), &v6()]));
    check("ppp mpls", 9, &ppp_ip("ff03 0281 00010140"));
    check("ppp multilink", 9, &ppp_ip("ff03 003d c0000001 0021"));
    check("ppp bridged", 9, &join(&[&hex("ff03 0031 0001"), &ethernet(0x0800, &v4())]));
    check("framed ppp", 50, &ppp_ip("ff03 0021"));
    check("framed cisco", 50, &ppp_ip("0f00 0800"));
    check("ppp with direction", 204, &ppp_ip("00 ff03 0021"));
    check("pppd", 166, &ppp_ip("01 03 0021"));
    check("cisco hdlc", 104, &ppp_ip("0f00 0800"));
    check("cisco hdlc multicast", 104, &ppp_ip("8f00 0800"));
    check("cisco hdlc with direction", 205, &ppp_ip("00 0f00 0800"));
    check("frame relay", 107, &ppp_ip("1841 03 cc"));
    check("frame relay with padding", 107, &ppp_ip("1841 03 00 80 000000 0800"));
    check("frame relay, long address", 107, &ppp_ip("184041 03 cc"));
    check("frame relay, cisco", 107, &ppp_ip("1841 0800"));
    check("frame relay with direction", 206, &ppp_ip("00 1841 03 cc"));
}

#[test]
fn loopbacks_cooked_and_raw() {
    for (name, family) in [("little", "02000000"), ("big", "00000002"), ("ethernet type", "00000800")] {
        check(name, 0, &join(&[&hex(family), &v4()]));
        check(name, 108, &join(&[&hex(family), &v4()]));
    }
    for family in ["18000000", "1c000000", "1e000000", "0000001e"] {
        check(family, 0, &join(&[&hex(family), &v6()]));
    }
    for number in [12, 14, 101] {
        check("raw", number, &v4());
        check("raw v6", number, &v6());
    }
    check("ipv4", 228, &v4());
    check("ipv6", 229, &v6());
    check("sll", 113, &join(&[&hex("0000 0001 0006 0200000000010000 0800"), &v4()]));
    check("sll vlan", 113, &join(&[&hex("0000 0001 0006 0200000000010000 8100 0005 0800"), &v4()]));
    check("sll llc", 113, &join(&[&hex("0000 0001 0006 0200000000010000 0004"), &hex(LLC_SNAP_IP), &v4()]));
    check("sll2", 276, &join(&[&hex("0800 0000 00000002 0001 00 06 0200000000010000"), &v4()]));
    check("sll2 v6", 276, &join(&[&hex("86dd 0000 00000002 0001 00 06 0200000000010000"), &v6()]));
    check("enc", 109, &join(&[&hex("02000000 00000000 00000000"), &v4()]));
    let mut pflog = hex("3d 02 00 00");
    pflog.resize(64, 0);
    check("pflog", 117, &join(&[&pflog, &v4()]));
    let nflog = hex("02 00 0000  0800 0100 0800 0200  0500 0a00 61 000000");
    let payload = join(&[&((v4().len() as u16 + 4).to_le_bytes()), &hex("0900"), &v4()]);
    check("nflog", 239, &join(&[&nflog, &payload]));
    let nflog = hex("02 00 0000  0008 0001 0800 0002  0005 000a 61 000000");
    let payload = join(&[&((v4().len() as u16 + 4).to_be_bytes()), &hex("0009"), &v4()]);
    check("nflog, big-endian", 239, &join(&[&nflog, &payload]));
    let mut pktap = hex("6c000000 01000000 01000000");
    pktap.resize(108, 0);
    check("pktap", 258, &join(&[&pktap, &ethernet(0x0800, &v4())]));
    check("ipnet", 226, &join(&[&hex("01 02 0000 00000054 00000000 00000000 00000000 00000000"), &v4()]));
}

#[test]
fn wireless() {
    let data = |control: &str, front: &str| {
        let addresses = "0000 020000000001 020000000002 020000000003 1000";
        join(&[&hex(control), &hex(addresses), &hex(front), &hex(LLC_SNAP_IP), &v4()])
    };
    check("from the distribution system", 105, &data("0802", ""));
    check("to the distribution system", 105, &data("0801", ""));
    check("between access points", 105, &data("0803", "020000000004"));
    check("with quality of service", 105, &data("8801", "0000"));
    check("with high throughput control", 105, &data("8881", "0000 00000000"));
    check("radiotap", 127, &join(&[&hex("00 00 0800 00000000"), &data("8801", "0000")]));
    let flags = |flags: &str| hex(&format!("00 00 1100 03000000 0000000000000000 {flags}"));
    check("radiotap with flags", 127, &join(&[&flags("10"), &data("8801", "0000"), &[0; 4]]));
    check("radiotap with padding", 127, &join(&[&flags("20"), &data("8801", "0000 0000")]));
    check("ppi", 192, &join(&[&hex("00 00 0800 69000000"), &data("0801", "")]));
    let mut prism = hex("44000000 90000000");
    prism.resize(144, 0);
    check("prism", 119, &join(&[&prism, &data("0801", "")]));
    let mut avs = hex("80211001 00000040");
    avs.resize(64, 0);
    check("avs", 163, &join(&[&avs, &data("0801", "")]));
    check("avs as prism", 119, &join(&[&avs, &data("0801", "")]));
    let (seen, stats) = one(105, &data("0841", ""));
    assert_eq!((seen.len(), stats.encrypted), (0, 1), "protected");
}

#[test]
fn wireless_aggregate_gives_every_subframe() {
    let mut packet = hex("8801 0000 020000000001 020000000002 020000000003 1000 8000");
    for sequence in [7, 8, 9] {
        let body = join(&[&hex(LLC_SNAP_IP), &Tcp::data(sequence, REQUEST).ip()]);
        packet.extend(hex("020000000001 020000000002"));
        packet.extend((body.len() as u16).to_be_bytes());
        packet.extend(&body);
        while !(packet.len() - 26).is_multiple_of(4) {
            packet.push(0);
        }
    }
    packet.extend([1, 2, 3, 4]);
    let (seen, stats) = one(105, &packet);
    let sequences: Vec<u32> = seen.iter().map(|segment| segment.sequence).collect();
    assert_eq!(sequences, [7, 8, 9], "{stats:?}");
}

#[test]
fn other_media() {
    let llc = |front: &str| join(&[&hex(front), &hex(LLC_SNAP_IP), &v4()]);
    check("token ring", 6, &llc("1040 020000000001 020000000002"));
    check("token ring, routed", 6, &llc("1040 020000000001 820000000002 0670 0011 0020"));
    check("fddi", 10, &llc("50 020000000001 020000000002"));
    check("atm", 100, &llc(""));
    check("classical ip", 106, &v4());
    check("sun atm", 123, &llc("02 00 0021"));
    check("fibre channel", 122, &llc("1000020000000001 1000020000000002"));
    check("ieee 1394", 138, &join(&[&hex("0200000000000001 0200000000000002 0800"), &v4()]));
    check("infiniband", 242, &join(&[&[0; 40], &hex("0800 0000"), &v4()]));
    check("arcnet", 7, &join(&[&hex("0102 f0"), &v4()]));
    check("arcnet, rfc 1201", 7, &join(&[&hex("0102 d4 00 0001"), &v4()]));
    check("arcnet, linux", 129, &join(&[&hex("0102 0000 d4 00 0001"), &v4()]));
    let frame = ethernet(0x0800, &v4());
    check("docsis", 143, &join(&[&hex("00 00 0054 0000"), &frame]));
    check("docsis with extended header", 143, &join(&[&hex("01 03 0054 112233 0000"), &frame]));
    check("netanalyzer", 240, &join(&[&[0; 4], &frame]));
    check("mpacket", 274, &join(&[&hex("55555555555555d5"), &frame]));
    check("juniper ethernet", 178, &join(&[b"MGC\x81", &hex("0006 020101 030102"), &frame]));
    check("juniper ppp", 179, &join(&[b"MGC\x01", &hex("ff03 0021"), &v4()]));
    check("endace", 197, &join(&[&hex("0000000000000000 02 00 0060 0000 0050 0000"), &frame]));
    let mut symantec = hex("0000 0000 0000 0800");
    symantec.resize(44, 0);
    check("symantec", 99, &join(&[&symantec, &v4()]));
}

#[test]
fn what_is_not_decoded_is_counted() {
    let (seen, stats) = one(195, &v4());
    assert_eq!((seen.len(), stats.unsupported_link, stats.unsupported_link_type), (0, 1, Some(195)));
    let (seen, stats) = one(ETHERNET, &ethernet(0x0806, &[0; 28]));
    assert_eq!((seen.len(), stats.not_ip), (0, 1));
    let (seen, stats) = one(ETHERNET, &ethernet(0x88e5, &[0x2c; 40]));
    assert_eq!((seen.len(), stats.encrypted), (0, 1));
}

#[test]
fn headers_are_walked_up_to_their_limit() {
    // Link, Ethernet, one type a tag, type of the packet, version, IPv4, protocol and TCP.
    let most = MAX_HEADERS - 7;
    for (tags, expected) in [(most, 1), (most + 1, 0)] {
        let stack = join(&[&ethernet(0, &[])[..12], &hex(&"8100 0001".repeat(tags)), &hex("0800"), &v4()]);
        let (seen, stats) = one(ETHERNET, &stack);
        assert_eq!((seen.len(), stats.nesting), (expected, 1 - expected as u64), "{tags} tags");
    }
}

#[test]
fn a_length_ends_where_types_begin() {
    for (field, expected) in [(MAX_LENGTH_FIELD, 1), (MAX_LENGTH_FIELD + 1, 0)] {
        let (seen, stats) = one(ETHERNET, &ethernet(field, &join(&[&hex(LLC_SNAP_IP), &v4()])));
        assert_eq!((seen.len(), stats.not_ip), (expected, 1 - expected as u64), "{field}");
    }
}

#[test]
fn log_attributes_are_walked_up_to_their_limit() {
    const LOG: u32 = 239;
    let packet = v4();
    let payload = join(&[&(packet.len() as u16 + 4).to_be_bytes(), &hex("0009"), &packet]);
    for (attributes, expected) in [(MAX_LOG_ATTRIBUTES, 1), (MAX_LOG_ATTRIBUTES + 1, 0)] {
        let others = hex("0008 0005 00000002").repeat(attributes - 1);
        let (seen, stats) = one(LOG, &join(&[&hex("02000000"), &others, &payload]));
        assert_eq!((seen.len(), stats.nesting), (expected, 1 - expected as u64), "{attributes} attributes");
    }
}

#[test]
fn endace_extensions_are_walked_up_to_their_limit() {
    const ENDACE: u32 = 197;
    let frame = join(&[&hex("0000"), &ethernet(0x0800, &v4())]);
    for (extensions, expected) in [(MAX_ENDACE_EXTENSIONS, 1), (MAX_ENDACE_EXTENSIONS + 1, 0)] {
        // A set top bit says that another extension follows.
        let chain = [hex("83 00000000000000").repeat(extensions - 1), hex("03 00000000000000")].concat();
        let record = hex("0000000000000000 82 00 0060 0000 0050");
        let (seen, stats) = one(ENDACE, &join(&[&record, &chain, &frame]));
        assert_eq!((seen.len(), stats.nesting), (expected, 1 - expected as u64), "{extensions} extensions");
    }
}

#[test]
fn frame_relay_addresses_end_at_their_limit() {
    const FRAME_RELAY: u32 = 107;
    for (length, expected) in [(MAX_FRAME_RELAY_ADDRESS_BYTES, 1), (MAX_FRAME_RELAY_ADDRESS_BYTES + 1, 0)] {
        let address = [vec![0x18; length - 1], vec![0x01]].concat();
        let (seen, stats) = one(FRAME_RELAY, &join(&[&address, &hex("03 cc"), &v4()]));
        assert_eq!((seen.len(), stats.malformed), (expected, 1 - expected as u64), "{length} bytes");
    }
}
