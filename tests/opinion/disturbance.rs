//! Disturbs a capture as networks and capture devices do: neighbours change places, packets come twice. What the
//! capture tells must stay the same. Knows the pcap framing, nothing of the packets.

use support::rng::Rng;

/// Bytes of a pcap file's head.
const FILE_HEAD: usize = 24;

/// Bytes of a pcap record's head; the captured length is its third word, little-endian as tcpdump writes it here.
const RECORD_HEAD: usize = 16;

/// The same packets in a disturbed order: about one of eight changes places with its follower, one of eight comes twice.
/// Times stay in order. Bytes that are no whole record are left out.
pub(crate) fn disturb(capture: &[u8], rng: &mut Rng) -> Vec<u8> {
    let (head, mut rest) = capture.split_at(FILE_HEAD.min(capture.len()));
    let (mut times, mut packets) = (Vec::new(), Vec::new());
    while let Some((record, follows)) = rest.split_at_checked(RECORD_HEAD) {
        let length =
            record.get(8..12).and_then(|word| word.try_into().ok()).map_or(0, u32::from_le_bytes) as usize;
        let Some((packet, follows)) = follows.split_at_checked(length) else { break };
        let (time, lengths) = record.split_at(8);
        times.push(time);
        packets.push((lengths, packet));
        rest = follows;
    }
    let mut at = 1;
    while at < packets.len() {
        if rng.below(8) == 0 {
            packets.swap(at - 1, at);
            // A packet that has moved stays where it is: distances of one are what is tried.
            at += 1;
        }
        at += 1;
    }
    let mut disturbed = head.to_vec();
    for (time, (lengths, packet)) in times.iter().zip(&packets) {
        for _ in 0..=usize::from(rng.below(8) == 0) {
            disturbed.extend([*time, *lengths, *packet].concat());
        }
    }
    disturbed
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of `count` packets of one byte each.
    fn file(count: u8) -> Vec<u8> {
        let mut file = vec![0; FILE_HEAD];
        for number in 0..count {
            file.extend([number, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, number]);
        }
        file
    }

    fn packets(file: &[u8]) -> Vec<(u8, u8)> {
        file[FILE_HEAD..].chunks(RECORD_HEAD + 1).map(|record| (record[0], record[RECORD_HEAD])).collect()
    }

    #[test]
    fn every_packet_is_still_there_and_some_have_moved() {
        let disturbed = packets(&disturb(&file(200), &mut Rng::new(1)));
        assert!(disturbed.is_sorted_by_key(|&(time, _)| time), "times are in order");
        assert!(disturbed.iter().all(|&(time, packet)| time.abs_diff(packet) <= 1), "nothing moves far");
        assert!(disturbed.iter().any(|&(time, packet)| time != packet), "something moves");
        let mut all: Vec<u8> = disturbed.iter().map(|&(_, packet)| packet).collect();
        assert!(all.len() > 200, "some come twice");
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 200, "none is lost");
    }

    #[test]
    fn a_cut_record_is_left_out() {
        let whole = file(1);
        assert_eq!(disturb(&whole[..whole.len() - 1], &mut Rng::new(1)).len(), FILE_HEAD);
        assert!(disturb(&[], &mut Rng::new(1)).is_empty());
    }
}
