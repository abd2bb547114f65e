//! Indices and names of the per-CPU kernel counters: one map value holds them all.
//!
//! What most packets count comes first: that is one cache line of the value, or two.
//!
//! Bumped by an atomic add without result: a fetch-and-add is refused by Linux 5.10, and a plain addition loses counts
//! between process and interrupt context. What is seen adds up, in packets and in bytes:
//!
//! * seen = stale + not IP + not TCP + fragment + too many headers + malformed + bare + own + matched
//! * segments matched = sent + not HTTP + unwanted + skipped + shed connections + ring full + unreadable
//! * bytes matched = sent + not HTTP + unwanted + skipped + over credit + shed bodies + shed headers + shed connections +
//!   ring full + unreadable + truncated
//!
//! Evicted from the state table = connections inserted − entries it holds, which user space counts: only the kernel
//! deletes from it, unasked.

/// An enum of counters with its names, their number, and the type of the map value that holds one of each.
macro_rules! counters {
    (
        $(#[doc = $about:literal])+
        pub enum $counter:ident, $count:ident, $values:ident {
            $($(#[doc = $doc:literal])+ $variant:ident = $name:literal,)+
        }
    ) => {
        $(#[doc = $about])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u32)]
        pub enum $counter {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl $counter {
            /// Every counter, in index order.
            pub const ALL: &'static [$counter] = &[$($counter::$variant,)+];

            /// Snake-case name, as in metrics.
            pub const fn name(self) -> &'static str {
                match self {
                    $($counter::$variant => $name,)+
                }
            }

            /// One sentence for people.
            pub const fn help(self) -> &'static str {
                match self {
                    $($counter::$variant => concat!($($doc,)+),)+
                }
            }
        }

        /// Counters in one map value.
        pub const $count: usize = $counter::ALL.len();

        /// The value of the counters' map: one counter each, in index order.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(transparent)]
        pub struct $values(pub [u64; $count]);

        impl $values {
            /// All zero.
            pub const ZERO: Self = Self([0; $count]);

            /// The value of one counter.
            pub const fn of(&self, counter: $counter) -> u64 {
                self.0[counter as usize]
            }
        }
    };
}
pub(crate) use counters;

counters! {
    /// A kernel counter; the discriminant is its index in the per-CPU array.
    pub enum Counter, COUNTERS, CounterValues {
        /// Packets that entered a program.
        PacketsSeen = "packets_seen",
        /// Bytes of those packets: from the network header on, or from the link header where the hook has it.
        BytesSeen = "bytes_seen",
        /// TCP segments without payload, SYN, FIN or RST.
        BareAck = "bare_ack",
        /// TCP segments that carry payload, SYN, FIN or RST.
        SegmentsMatched = "segments_matched",
        /// Payload bytes of those segments.
        BytesMatched = "bytes_matched",
        /// Segments whose last record was handed to the ring, with payload or without one that is counted by itself.
        SegmentsSent = "segments_sent",
        /// Payload bytes handed to the ring.
        BytesSent = "bytes_sent",
        /// Records handed to the ring; a large segment takes several.
        RecordsSent = "records_sent",
        /// Packets passed untouched because the heartbeat was too old.
        HeartbeatStale = "heartbeat_stale",
        /// Packets that are neither IPv4 nor IPv6.
        NotIp = "not_ip",
        /// IP packets that do not carry TCP.
        NotTcp = "not_tcp",
        /// IP fragments other than the first, which carry no ports.
        Fragment = "fragment",
        /// Packets with more IPv6 extension headers than are walked.
        TooManyExtensionHeaders = "too_many_extension_headers",
        /// Packets whose headers could not be read or contradict themselves.
        MalformedHeader = "malformed_header",
        /// Segments of the agent's own connections.
        OwnTraffic = "own_traffic",
        /// Segments not sent because the connection is not HTTP.
        SegmentsNotHttp = "segments_not_http",
        /// Payload bytes of those segments.
        BytesNotHttp = "bytes_not_http",
        /// Segments not sent because user space does not want the connection.
        SegmentsUnwanted = "segments_unwanted",
        /// Payload bytes of those segments.
        BytesUnwanted = "bytes_unwanted",
        /// Segments not sent because user space skips the body that they are part of.
        SegmentsSkipped = "segments_skipped",
        /// Payload bytes that user space skips.
        BytesSkipped = "bytes_skipped",
        /// Payload bytes left out because they are too far ahead of what user space has read.
        BytesOverCredit = "bytes_over_credit",
        /// Payload bytes left out under overload because they are too far ahead of what user space has read.
        BytesShedBodies = "bytes_shed_bodies",
        /// Payload bytes left out under overload because they are not at the beginning of their segment.
        BytesShedHeaders = "bytes_shed_headers",
        /// Connections left alone because they began under overload.
        ConnectionsShed = "connections_shed",
        /// Segments of those connections.
        SegmentsShedConnections = "segments_shed_connections",
        /// Payload bytes of those segments.
        BytesShedConnections = "bytes_shed_connections",
        /// Segments whose last record was lost because the ring was full.
        SegmentsRingFull = "segments_ring_full",
        /// Payload bytes lost because the ring was full.
        BytesRingFull = "bytes_ring_full",
        /// Segments whose payload could not be read from the packet.
        SegmentsUnreadable = "segments_unreadable",
        /// Payload bytes lost because they could not be read.
        BytesUnreadable = "bytes_unreadable",
        /// Payload bytes beyond the most pieces a packet is told in.
        BytesTruncated = "bytes_truncated",
        /// Connections entered into the state table; it forgets the least recently used by itself.
        ConnectionsInserted = "connections_inserted",
        /// Connections that the state table refused.
        ConnectionsRefused = "connections_refused",
        /// Payload segments of a connection that the state table did not hold: it began before the capture, or was evicted.
        DataWithoutEntry = "data_without_entry",
        /// Connections recognised as HTTP/1.
        GateHttp = "gate_http",
        /// Connections whose first bytes are neither HTTP, TLS nor HTTP/2.
        GateIgnored = "gate_ignored",
        /// Connections recognised as TLS.
        GateTls = "gate_tls",
        /// Connections recognised as HTTP/2 with prior knowledge.
        GateHttp2 = "gate_http2",
        /// Connections that a verdict closed for good.
        GateUnwanted = "gate_unwanted",
        /// Packets in a VXLAN or Geneve tunnel; what they carry is counted as other packets are.
        TunnelPackets = "tunnel_packets",
        /// ICMP errors that quote a SYN; they are matched, and sent, as a segment is.
    Unreachables = "unreachables",
    /// Times that a filling ring woke its reader.
        RingWakeups = "ring_wakeups",
        /// Times that a connection that had used half of its credit woke the reader.
        CreditWakeups = "credit_wakeups",
        /// Segments left out because the ring was half full and their connection had used half of its credit.
        CreditYields = "credit_yields",
    }
}
