//! Bytes of the ring → the record of a decision: safe code over any bytes. Judges nothing.

use pod2pod_common::decision::DecisionRecord;

/// The record that these are the bytes of; none if they are too few or too many.
pub fn record(bytes: &[u8]) -> Option<DecisionRecord> {
    let mut rest = Rest(bytes);
    // In the order of the fields, which have nothing between them.
    let record = DecisionRecord {
        time_ns: u64::from_ne_bytes(rest.take()?),
        timeout: u64::from_ne_bytes(rest.take()?),
        left: u64::from_ne_bytes(rest.take()?),
        left_after: u64::from_ne_bytes(rest.take()?),
        client: rest.take()?,
        service: rest.take()?,
        met_server: rest.take()?,
        made_server: rest.take()?,
        isn: u32::from_ne_bytes(rest.take()?),
        namespace: u32::from_ne_bytes(rest.take()?),
        verdict: u32::from_ne_bytes(rest.take()?),
        entry_flags: u32::from_ne_bytes(rest.take()?),
        met_weight: i32::from_ne_bytes(rest.take()?),
        met_flags: u32::from_ne_bytes(rest.take()?),
        made_weight: i32::from_ne_bytes(rest.take()?),
        client_port: u16::from_ne_bytes(rest.take()?),
        service_port: u16::from_ne_bytes(rest.take()?),
        met_port: u16::from_ne_bytes(rest.take()?),
        made_port: u16::from_ne_bytes(rest.take()?),
        state: u16::from_ne_bytes(rest.take()?),
        state_after: u16::from_ne_bytes(rest.take()?),
        seen: u16::from_ne_bytes(rest.take()?),
        reserved: [
            u16::from_ne_bytes(rest.take()?),
            u16::from_ne_bytes(rest.take()?),
            u16::from_ne_bytes(rest.take()?),
        ],
    };
    rest.0.is_empty().then_some(record)
}

struct Rest<'a>(&'a [u8]);

impl Rest<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }
}

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use super::*;

    #[test]
    fn fields_are_where_the_kernel_side_writes_them() {
        let bytes: Vec<u8> = (1..=size_of::<DecisionRecord>() as u8).collect();
        let read = record(&bytes).unwrap();
        let at = |offset: usize, length: usize| &bytes[offset..offset + length];
        assert_eq!(read.time_ns.to_ne_bytes(), at(offset_of!(DecisionRecord, time_ns), 8));
        assert_eq!(read.left_after.to_ne_bytes(), at(offset_of!(DecisionRecord, left_after), 8));
        assert_eq!(read.client, at(offset_of!(DecisionRecord, client), 16));
        assert_eq!(read.made_server, at(offset_of!(DecisionRecord, made_server), 16));
        assert_eq!(read.isn.to_ne_bytes(), at(offset_of!(DecisionRecord, isn), 4));
        assert_eq!(read.made_weight.to_ne_bytes(), at(offset_of!(DecisionRecord, made_weight), 4));
        assert_eq!(read.client_port.to_ne_bytes(), at(offset_of!(DecisionRecord, client_port), 2));
        assert_eq!(read.seen.to_ne_bytes(), at(offset_of!(DecisionRecord, seen), 2));
        assert_eq!(read.reserved[2].to_ne_bytes(), at(size_of::<DecisionRecord>() - 2, 2));
        assert_eq!(record(&bytes[1..]), None, "one too few");
        assert_eq!(record(&[&bytes[..], &[0]].concat()), None, "one too many");
    }
}
