//! The file formats: byte orders, units, sections, interfaces, block kinds.

use support::capture_file::{ETHERNET, Order, Pcap, PcapNg, Tcp, Unit};

use super::read;

const TIME: u64 = 1_700_000_000_123_456_000;

#[test]
fn pcap_in_every_byte_order_and_unit() {
    for order in Order::BOTH {
        for unit in [Unit::Micro, Unit::Nano, Unit::Modified] {
            let mut file = Pcap::new(order, unit, ETHERNET);
            file.packet(TIME, &Tcp::data(1, b"GET / HTTP/1.1\r\n").ethernet());
            file.packet(TIME + 1000, &Tcp::data(17, b"\r\n").ethernet());
            let (seen, stats, result) = read(&file.bytes);
            assert!(result.is_ok(), "{order:?} {unit:?}: {result:?}");
            assert_eq!(seen.len(), 2, "{order:?} {unit:?}: {stats:?}");
            assert_eq!(seen[0].payload, b"GET / HTTP/1.1\r\n");
            assert_eq!((seen[0].time, seen[1].time), (TIME, TIME + 1000), "{order:?} {unit:?}");
            assert_eq!(seen[1].sequence, 17);
        }
    }
}

#[test]
fn pcapng_in_both_byte_orders() {
    for order in Order::BOTH {
        let mut file = PcapNg::new(order);
        file.interface(1, 0, &[]);
        file.packet(0, TIME / 1000, &Tcp::data(1, b"hello").ethernet());
        let (seen, stats, result) = read(&file.bytes);
        assert!(result.is_ok(), "{order:?}: {result:?}");
        assert_eq!(seen.len(), 1, "{order:?}: {stats:?}");
        assert_eq!(seen[0].time, TIME);
        assert_eq!(seen[0].payload, b"hello");
    }
}
